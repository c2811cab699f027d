"""What a reader of messages refuses, one fault at a time, as bytes and as a stream."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from support.messages import CONTEXT, WRAPPING_KEY, Parts, raw_client, take_apart

from phicrypt import ANY_CONTEXT, PhiCrypt, RawAesKeyring
from phicrypt.core.context import serialize_context
from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import DataKey, EncryptionMaterials
from phicrypt.core.suites import AES_256_GCM_HKDF_SHA512_COMMIT_KEY
from phicrypt.errors import (
    AuthenticationError,
    FormatError,
    LimitExceededError,
    PhiCryptError,
    UnsupportedOperationError,
)
from phicrypt.formats.esdk.derivation import derive_keys
from phicrypt.formats.esdk.frames import single_block_aad
from phicrypt.formats.esdk.header import constant_header_part_v2, parse_header, serialize_header_body_v2
from phicrypt.formats.esdk.sealing import MessageSealer
from phicrypt.formats.reader import ByteReader
from phicrypt.testing import StaticKeyring


def decrypt_all_ways(phi: PhiCrypt, message: bytes) -> list[BaseException | bytes]:
    """The outcome of each way to open a message: bytes, stream, reader, reader of a pipe."""

    class Pipe:
        def __init__(self) -> None:
            self.read = io.BytesIO(message).read

    def stream() -> bytes:
        sink = io.BytesIO()
        phi.decrypt_stream(io.BytesIO(message), sink, context=CONTEXT)
        return sink.getvalue()

    def reader(source: object) -> bytes:
        with phi.decrypting_reader(source, context=CONTEXT) as opened:  # type: ignore[arg-type]
            return opened.read()

    outcomes: list[BaseException | bytes] = []
    for way in (
        lambda: phi.decrypt(message, context=CONTEXT),
        stream,
        lambda: reader(io.BytesIO(message)),
        lambda: reader(Pipe()),
    ):
        try:
            outcomes.append(way())
        except PhiCryptError as error:
            outcomes.append(error)
    return outcomes


def assert_refused(message: bytes, *kinds: type[PhiCryptError]) -> None:
    for outcome in decrypt_all_ways(raw_client(), message):
        assert isinstance(outcome, kinds or (FormatError, AuthenticationError)), outcome


@pytest.fixture(params=[False, True], ids=["unsigned", "signed"])
def parts(request: pytest.FixtureRequest) -> Parts:
    message = raw_client().encrypt(bytes(range(40)), context=CONTEXT, frame_length_bytes=16, signed=request.param)
    return take_apart(message)


def test_the_untouched_message_opens_every_way(parts: Parts) -> None:
    assert len(parts.frames) == 2
    assert decrypt_all_ways(raw_client(), parts.join()) == [bytes(range(40))] * 4


FAULTS: dict[str, Callable[[Parts], bytes]] = {
    "one byte appended": lambda p: p.join() + b"\x00",
    "a whole message appended": lambda p: p.join() * 2,
    "last byte removed": lambda p: p.join()[:-1],
    "final frame removed": lambda p: p.header + b"".join(p.frames) + p.footer,
    "body removed": lambda p: p.header,
    "final frame twice": lambda p: p.header + b"".join(p.frames) + p.final + p.final + p.footer,
    "a frame removed": lambda p: p.header + p.frames[1] + p.final + p.footer,
    "a frame twice": lambda p: p.header + p.frames[0] * 2 + p.final + p.footer,
    "frames swapped": lambda p: p.header + p.frames[1] + p.frames[0] + p.final + p.footer,
    "final frame first": lambda p: p.header + p.final + b"".join(p.frames) + p.footer,
    "wrong IV in a frame": lambda p: (
        p.header + p.frames[0][:15] + b"\x09" + p.frames[0][16:] + p.frames[1] + p.final + p.footer
    ),
    "wrong IV in the final frame": lambda p: (
        p.header + b"".join(p.frames) + p.final[:19] + b"\x09" + p.final[20:] + p.footer
    ),
    "regular frame presented as final": lambda p: (
        p.header + b"\xff\xff\xff\xff" + p.frames[0][:16] + b"\x00\x00\x00\x10" + p.frames[0][16:] + p.footer
    ),
    "final frame presented as regular": lambda p: p.header + p.frames[0] + p.final[4:20] + p.final[24:] + p.footer,
    "frame of another message": lambda p: (
        p.header
        + take_apart(raw_client().encrypt(bytes(40), context=CONTEXT, frame_length_bytes=16)).frames[0]
        + p.frames[1]
        + p.final
        + p.footer
    ),
    "header of another message": lambda p: (
        take_apart(raw_client().encrypt(bytes(40), context=CONTEXT, frame_length_bytes=16)).header
        + b"".join(p.frames)
        + p.final
    ),
    "empty file": lambda p: b"",
    "not a message": lambda p: b"Patient: Jane Doe, MRN 1234567, seen on Monday",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_refuses(parts: Parts, fault: str) -> None:
    assert_refused(FAULTS[fault](parts))


def test_truncation_at_every_byte_is_refused(parts: Parts) -> None:
    message = parts.join()
    for length in range(len(message)):
        assert_refused(message[:length])


def test_final_frame_longer_than_the_frame_length_is_refused_before_it_is_read(parts: Parts) -> None:
    forged = parts.final[:20] + (17).to_bytes(4, "big") + parts.final[24:]
    assert_refused(parts.header + b"".join(parts.frames) + forged + bytes(100))


def header_bytes(
    *,
    version: int = 2,
    suite: int = 0x0478,
    context: bytes = b"",
    data_keys: bytes = b"\x00\x01" + b"\x00\x01p\x00\x01i\x00\x01c",
    content_type: int = 2,
    frame_length: int = 4096,
    reserved: bytes = bytes(4),
    iv_length: int = 12,
    message_type: int = 0x80,
) -> bytes:
    common = len(context).to_bytes(2, "big") + context + data_keys + bytes((content_type,))
    length = frame_length.to_bytes(4, "big")
    if version == 1:
        start = bytes((1, message_type)) + suite.to_bytes(2, "big") + bytes(16)
        return start + common + reserved + bytes((iv_length,)) + length + bytes(12 + 16)
    return bytes((version,)) + suite.to_bytes(2, "big") + bytes(32) + common + length + bytes(32 + 16)


def parse(data: bytes, limits: ReadLimits | None = None) -> object:
    return parse_header(ByteReader(data), limits or ReadLimits())


def test_a_well_formed_header_of_each_version_parses_and_serializes_to_itself() -> None:
    for data in (header_bytes(), header_bytes(version=1, suite=0x0178)):
        header = parse_header(ByteReader(data), ReadLimits())
        assert header.to_bytes() == data
        assert header.length_bytes == len(data)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (header_bytes(version=3), "version"),
        (header_bytes(suite=0x0479), "algorithm suite id"),
        (header_bytes(suite=0x0178), "algorithm suite id"),
        (header_bytes(version=1, suite=0x0478), "algorithm suite id"),
        (header_bytes(suite=0x6700), "algorithm suite id"),
        (header_bytes(data_keys=b"\x00\x00"), "encrypted data key count"),
        (header_bytes(data_keys=b"\x00\x01" + b"\x00\x01\xff\x00\x01i\x00\x01c"), "provider id"),
        (header_bytes(content_type=0), "content type"),
        (header_bytes(content_type=3), "content type"),
        (header_bytes(content_type=1), "frame length"),
        (header_bytes(frame_length=0), "frame length"),
        (header_bytes(version=1, suite=0x0178, reserved=b"\x00\x00\x01\x00"), "reserved"),
        (header_bytes(version=1, suite=0x0178, iv_length=16), "IV length"),
        (header_bytes(version=1, suite=0x0178, message_type=0x81), "type"),
        (header_bytes(context=b"\x00\x00"), "encryption context"),
        (header_bytes(context=b"\x00"), "encryption context"),
        (header_bytes(context=b"\x00\x01\x00\x01a\x00\x02b"), "encryption context"),
        (header_bytes(context=serialize_context({"a": "b"}) + b"\x00"), "encryption context"),
        (header_bytes(context=b"\x00\x02" + b"\x00\x01a\x00\x01b" * 2), "encryption context"),
        (header_bytes(context=b"\x00\x01\x00\x01\xff\x00\x01b"), "encryption context"),
        (header_bytes(suite=0x0578), "aws-crypto-public-key"),
        (header_bytes(context=serialize_context({"aws-crypto-public-key": "AA=="})), "aws-crypto-public-key"),
    ],
)
def test_header_fault_is_named_by_its_field(data: bytes, field: str) -> None:
    with pytest.raises(FormatError) as caught:
        parse(data)
    assert caught.value.field == field


def test_rejects_header_with_more_data_keys_than_the_bound_without_reading_them() -> None:
    data = header_bytes(data_keys=b"\xff\xff")
    with pytest.raises(LimitExceededError) as caught:
        parse(data)
    assert (caught.value.limit, caught.value.actual) == (8, 65535)


def test_rejects_frame_length_above_the_bound_before_allocating() -> None:
    with pytest.raises(LimitExceededError) as caught:
        parse(header_bytes(frame_length=0xFFFFFFFF))
    assert caught.value.limit == 16 * 1024 * 1024


def test_rejects_header_longer_than_the_bound() -> None:
    entry = b"\x00\x01p" + b"\xff\xff" + bytes(65535) + b"\xff\xff" + bytes(65535)
    with pytest.raises(LimitExceededError):
        parse(header_bytes(data_keys=b"\x00\x08" + entry * 8))


def test_rejects_context_longer_than_the_bound() -> None:
    context = serialize_context({"a": "b" * 100})
    parse(header_bytes(context=context))
    with pytest.raises(LimitExceededError):
        parse(header_bytes(context=context), ReadLimits(max_context_length_bytes=100))


def test_rule_07_require_signed_refuses_an_unsigned_message_before_any_key_is_used() -> None:
    class Untouchable(StaticKeyring):
        def on_decrypt(self, *_: object) -> object:  # type: ignore[override]
            raise AssertionError("a key was asked for")

    message = raw_client().encrypt(b"x", context=CONTEXT)
    with pytest.raises(UnsupportedOperationError, match="signed"):
        PhiCrypt(Untouchable(bytes(32))).decrypt(message, context=ANY_CONTEXT, require_signed=True)


def test_signature_of_another_message_is_refused_and_nothing_of_the_last_frame_leaves() -> None:
    phi = raw_client()
    first = take_apart(phi.encrypt(bytes(20), context=CONTEXT, signed=True, frame_length_bytes=16))
    second = take_apart(phi.encrypt(bytes(20), context=CONTEXT, signed=True, frame_length_bytes=16))
    first.footer = second.footer
    sink = io.BytesIO()
    with pytest.raises(AuthenticationError) as caught:
        phi.decrypt_stream(io.BytesIO(first.join()), sink, context=CONTEXT)
    assert caught.value.reason == "signature"
    assert len(sink.getvalue()) == 16
    with pytest.raises(AuthenticationError):
        phi.decrypt(first.join(), context=CONTEXT)


def test_bytes_after_the_end_hold_back_the_last_frame() -> None:
    phi = raw_client()
    sink = io.BytesIO()
    with pytest.raises(FormatError, match="follow the end"):
        phi.decrypt_stream(io.BytesIO(phi.encrypt(b"last", context=CONTEXT) + b"!"), sink, context=CONTEXT)
    assert sink.getvalue() == b""


def test_a_message_that_ends_with_an_empty_final_frame_opens() -> None:
    """AWS's libraries close a plaintext of whole frames with an empty final frame."""
    phi = raw_client()
    materials, _ = phi.provider.encryption_materials(
        AES_256_GCM_HKDF_SHA512_COMMIT_KEY, CONTEXT, plaintext_length_bytes=16
    )
    sealer = MessageSealer(materials, 16)
    output = memoryview(bytearray(200))
    length = sealer.seal_regular_into(bytes(16), output)
    length += sealer.seal_final_into(b"", output[length:])
    message = sealer.header + bytes(output[:length]) + sealer.footer()
    assert decrypt_all_ways(phi, message) == [bytes(16)] * 4
    assert phi.inspect(message).plaintext_length_bytes == 16


def test_rule_07_a_commitment_to_another_key_is_refused_though_every_tag_fits() -> None:
    """Who may choose two data keys could seal one message that opens to two plaintexts: nothing else stops it."""
    data_key = bytes(range(32, 64))
    phi = PhiCrypt(StaticKeyring(data_key))
    for signed in (False, True):
        message = phi.encrypt(b"hemoglobin 13.5 g/dL", context=CONTEXT, signed=signed)
        header = parse_header(ByteReader(message), ReadLimits())
        message_key, _ = derive_keys(header.suite, DataKey(data_key), header.message_id)
        for commitment in (bytes(32), bytes((header.commitment[0] ^ 1,)) + header.commitment[1:]):
            body = header.body[:-32] + commitment
            forged = body + AESGCM(message_key).encrypt(header.iv, b"", body) + message[header.length_bytes :]
            for outcome in decrypt_all_ways(phi, forged):
                assert isinstance(outcome, AuthenticationError), outcome
                assert outcome.reason == "commitment"


@pytest.mark.parametrize("size", [0, 1, 5_000, 600_000])
def test_rule_06_of_an_unsigned_non_framed_body_the_one_tag_is_checked(size: int) -> None:
    plaintext = bytes(size)
    message = non_framed(plaintext)
    assert decrypt_all_ways(raw_client(), message) == [plaintext] * 4
    for place in (-1, -16, -17 if size else -1):  # first and last byte of the tag, and the last of the ciphertext
        changed = bytearray(message)
        changed[place] ^= 1
        for outcome in decrypt_all_ways(raw_client(), bytes(changed)):
            assert isinstance(outcome, AuthenticationError), outcome
            assert outcome.reason == "body tag"


def non_framed(plaintext: bytes) -> bytes:
    """An unsigned message of one piece, which phicrypt reads and does not write (``message-body.md``)."""
    data_key, suite, message_id = bytes(range(32, 64)), AES_256_GCM_HKDF_SHA512_COMMIT_KEY, bytes(range(32))
    context_bytes = serialize_context(CONTEXT)
    materials = EncryptionMaterials(suite, CONTEXT, context_bytes, data_key=DataKey(data_key))
    recipients = RawAesKeyring("clinic", "key-1", WRAPPING_KEY).on_encrypt(materials).encrypted_data_keys
    constant = constant_header_part_v2(context_bytes, recipients, 0)
    constant = constant[:-5] + bytes((1,)) + constant[-4:]  # content type 1, and a frame length of 0
    message_key, commitment = derive_keys(suite, DataKey(data_key), message_id)
    body, gcm = serialize_header_body_v2(suite, message_id, constant, commitment), AESGCM(message_key)
    iv, length = (1).to_bytes(12, "big"), len(plaintext).to_bytes(8, "big")
    sealed = gcm.encrypt(iv, plaintext, single_block_aad(message_id, len(plaintext)))
    return body + gcm.encrypt(bytes(12), b"", body) + iv + length + sealed


def test_a_non_framed_message_too_short_for_its_tag_tells_no_length() -> None:
    message = non_framed(b"")
    summary = raw_client().inspect(message)
    assert (summary.is_framed, summary.plaintext_length_bytes) == (False, 0)
    for cut in (1, 16, 36):
        with pytest.raises(FormatError):
            raw_client().inspect(message[:-cut])
