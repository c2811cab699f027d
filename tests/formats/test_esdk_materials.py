"""Messages and the materials of a keyring: what does not fit is refused before a byte is written or opened."""

from __future__ import annotations

import io
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from support.messages import CONTEXT, raw_client

from phicrypt.core.context import serialize_context
from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import DataKey, DecryptionMaterials, EncryptedDataKey, EncryptionMaterials
from phicrypt.core.suites import (
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384,
    ESDK_SUITES,
    AlgorithmSuite,
)
from phicrypt.errors import ConfigurationError, FormatError, LimitExceededError
from phicrypt.formats.esdk.frames import MAX_SEQUENCE_NUMBER, FrameCipher, layout_for_plaintext
from phicrypt.formats.esdk.header import parse_header
from phicrypt.formats.esdk.opening import MessageOpener
from phicrypt.formats.esdk.random_access import RandomAccessSealer
from phicrypt.formats.esdk.sealing import MessageSealer, seal_message
from phicrypt.formats.esdk.summary import summarize, summary_of
from phicrypt.formats.reader import ByteReader

UNSIGNED, SIGNED = AES_256_GCM_HKDF_SHA512_COMMIT_KEY, AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384
UNCOMMITTED = ESDK_SUITES[0x0178]
DATA_KEY = bytes(range(32))
FRAME = 64
WRAPPED = EncryptedDataKey("clinic", b"key-1", b"wrapped")


def to_encrypt(suite: AlgorithmSuite = UNSIGNED, **changes: Any) -> EncryptionMaterials:
    given = {"data_key": DataKey(DATA_KEY), "encrypted_data_keys": (WRAPPED,)} | changes
    return EncryptionMaterials(suite, CONTEXT, serialize_context(CONTEXT), **given)


def to_decrypt(suite: AlgorithmSuite = UNSIGNED, **changes: Any) -> DecryptionMaterials:
    given = {"data_key": DataKey(DATA_KEY)} | changes
    return DecryptionMaterials(suite, CONTEXT, serialize_context(CONTEXT), **given)


def sealings(materials: EncryptionMaterials) -> list[Any]:
    """Each way to begin a message: as a stream, in one frame, in several."""
    return [
        lambda: MessageSealer(materials, FRAME),
        lambda: seal_message(materials, b"x", FRAME),
        lambda: seal_message(materials, bytes(3 * FRAME), FRAME),
    ]


@pytest.mark.parametrize("way", range(3))
class TestMaterialsToWriteWith:
    def test_suites_without_commitment_are_not_written(self, way: int) -> None:
        with pytest.raises(ConfigurationError, match="committing suites only"):
            sealings(to_encrypt(UNCOMMITTED))[way]()

    def test_a_keyring_that_gave_no_data_key(self, way: int) -> None:
        with pytest.raises(ConfigurationError):
            sealings(to_encrypt(data_key=None))[way]()

    def test_a_data_key_of_another_length_is_named_by_its_length_only(self, way: int) -> None:
        with pytest.raises(
            ConfigurationError, match="needs a data key of 32 bytes, the keyring gave 16"
        ) as caught:
            sealings(to_encrypt(data_key=DataKey(b"secret-data-key!")))[way]()
        assert "secret" not in repr(caught.value)

    def test_nobody_could_open_it(self, way: int) -> None:
        with pytest.raises(ConfigurationError, match="nobody could open the message"):
            sealings(to_encrypt(encrypted_data_keys=()))[way]()

    def test_more_recipients_than_a_reader_believes(self, way: int) -> None:
        limit = ReadLimits().max_encrypted_data_keys
        with pytest.raises(LimitExceededError) as caught:
            sealings(to_encrypt(encrypted_data_keys=(WRAPPED,) * (limit + 1)))[way]()
        assert (caught.value.limit, caught.value.actual) == (limit, limit + 1)

    def test_a_field_that_its_length_cannot_express(self, way: int) -> None:
        too_long = EncryptedDataKey("clinic", b"key-1", bytes(65_536))
        with pytest.raises(LimitExceededError) as caught:
            sealings(to_encrypt(encrypted_data_keys=(too_long,)))[way]()
        assert (caught.value.limit, caught.value.actual) == (65_535, 65_536)

    def test_a_header_longer_than_a_reader_believes(self, way: int) -> None:
        materials = to_encrypt()
        limits = ReadLimits(max_header_length_bytes=100)
        with pytest.raises(LimitExceededError, match="longer in bytes than phicrypt's own reader"):
            [
                lambda: MessageSealer(materials, FRAME, limits),
                lambda: seal_message(materials, b"x", FRAME, limits=limits),
                lambda: seal_message(materials, bytes(3 * FRAME), FRAME, limits=limits),
            ][way]()


def test_the_footer_follows_the_final_frame() -> None:
    with pytest.raises(ConfigurationError, match="follows the final frame"):
        MessageSealer(to_encrypt(), FRAME).footer()


def test_more_frames_than_sequence_numbers() -> None:
    longest = MAX_SEQUENCE_NUMBER * FRAME
    assert layout_for_plaintext(longest, FRAME, 0).plaintext_length_bytes == longest
    with pytest.raises(LimitExceededError) as caught:
        layout_for_plaintext(longest + 1, FRAME, 0)
    assert (caught.value.limit, caught.value.actual) == (MAX_SEQUENCE_NUMBER, MAX_SEQUENCE_NUMBER + 1)


class TestMaterialsToReadWith:
    def test_a_keyring_that_gave_no_data_key(self) -> None:
        header = parse_header(ByteReader(MessageSealer(to_encrypt(), FRAME).header), ReadLimits())
        with pytest.raises(ConfigurationError, match="returned no data key"):
            MessageOpener(header, to_decrypt(data_key=None))

    def test_a_signed_suite_without_its_verification_key(self) -> None:
        written, _ = raw_client().provider.encryption_materials(SIGNED, CONTEXT, plaintext_length_bytes=None)
        header = parse_header(ByteReader(MessageSealer(written, FRAME).header), ReadLimits())
        assert written.data_key is not None
        keyless = DecryptionMaterials(SIGNED, header.context, header.context_bytes, data_key=written.data_key)
        with pytest.raises(ConfigurationError, match="verification key"):
            MessageOpener(header, keyless)


def test_what_holds_keys_shows_none() -> None:
    sealer = MessageSealer(to_encrypt(), FRAME)
    header = parse_header(ByteReader(sealer.header), ReadLimits())
    shown = [
        repr(sealer),
        repr(RandomAccessSealer(sealer)),
        repr(MessageOpener(header, to_decrypt())),
        repr(FrameCipher(AESGCM(DATA_KEY), bytes(32), FRAME)),
    ]
    assert shown == [
        f"<MessageSealer {UNSIGNED.name}, next frame 1>",
        "<RandomAccessSealer, 0 runs sealed>",
        f"<MessageOpener {UNSIGNED.name}>",
        "<FrameCipher>",
    ]


class TestSummary:
    def test_of_a_source_that_cannot_seek_tells_no_lengths(self) -> None:
        class Pipe(io.RawIOBase):
            def __init__(self, data: bytes) -> None:
                self.source = io.BytesIO(data)

            def readable(self) -> bool:
                return True

            def readinto(self, buffer: Any) -> int:
                return self.source.readinto(buffer)

        message = raw_client().encrypt(b"record", context=CONTEXT)
        summary = summarize(Pipe(message), ReadLimits())
        assert (summary.message_length_bytes, summary.plaintext_length_bytes) == (None, None)
        assert summarize(io.BytesIO(message), ReadLimits()).plaintext_length_bytes == 6

    def test_names_kms_keys_and_raw_keys_and_shows_what_is_neither_in_hexadecimal(self) -> None:
        arn = "arn:aws:kms:us-east-1:111122223333:key/1a2b3c4d-0000-4000-8000-1a2b3c4d5e6f"
        raw_info = b"key-1" + (128).to_bytes(4, "big") + (12).to_bytes(4, "big") + bytes(12)
        other_lengths = b"key-2" + (96).to_bytes(4, "big") + (12).to_bytes(4, "big") + bytes(12)
        recipients = (
            EncryptedDataKey("aws-kms", arn.encode(), b"w"),
            EncryptedDataKey("clinic", raw_info, b"w"),
            EncryptedDataKey("clinic", other_lengths, b"w"),
            EncryptedDataKey("other", b"\x00\x01", b"w"),
        )
        message, _ = seal_message(to_encrypt(encrypted_data_keys=recipients), b"x", FRAME)
        summary = summarize(message, ReadLimits())
        assert summary.key_arns == (arn,)
        assert [one.key_id for one in summary.recipients] == [arn, "key-1", other_lengths.hex(), "0001"]
        told = summary.as_dict()
        assert told["key_arns"] == [arn]
        assert told["recipients"][1] == {
            "provider_id": "clinic",
            "key_id": "key-1",
            "public_key_algorithm": None,
        }

    def test_of_a_single_block_that_is_cut_off(self) -> None:
        message, _ = seal_message(to_encrypt(), b"x", FRAME)
        header = parse_header(ByteReader(message), ReadLimits())
        unframed = header._replace(frame_length_bytes=0)
        overhead = 12 + 8 + 16
        assert summary_of(unframed, unframed.length_bytes + overhead + 5).plaintext_length_bytes == 5
        with pytest.raises(FormatError, match="truncated"):
            summary_of(unframed, unframed.length_bytes + overhead - 1)
