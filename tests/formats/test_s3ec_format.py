"""The S3 Encryption Client's formats by themselves: no AWS, keys handed in."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from phicrypt.core.materials import DataKey
from phicrypt.core.spool import CiphertextSpool
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    FormatError,
    LimitExceededError,
    PhiCryptError,
    UnsupportedOperationError,
)
from phicrypt.formats.s3ec import content
from phicrypt.formats.s3ec.content import S3ecSealer, derive_v3_keys, open_content, plaintext_length_of
from phicrypt.formats.s3ec.envelope import (
    S3EC_METADATA_NAMES,
    S3EC_V2_SUITE,
    S3EC_V3_SUITE,
    S3ecEnvelope,
    claims_s3ec,
    kms_context_of,
    needs_instruction_file,
    parse_envelope,
    parse_instruction_file,
)

KEY = DataKey(bytes(range(32)))
CONTEXT = {"tenant": "7", "aws:x-amz-cek-alg": "115"}


def spool() -> CiphertextSpool:
    return CiphertextSpool(memory_bytes=1_000, max_bytes=10_000_000)


def chunks(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def sealed(plaintext: bytes) -> tuple[S3ecEnvelope, bytes]:
    sealer = S3ecSealer(KEY, b"wrapped", CONTEXT)
    return sealer.envelope, sealer.update(plaintext) + sealer.finish()


def opened(envelope: S3ecEnvelope, body: bytes, data_key: DataKey = KEY, size: int = 1_000) -> bytes:
    with spool() as held:
        return b"".join(open_content(envelope, data_key, chunks(body, size), held))


@given(st.binary(max_size=5_000), st.integers(1, 700), st.integers(1, 700))
def test_what_is_sealed_opens_however_it_is_cut(plaintext: bytes, first: int, size: int) -> None:
    sealer = S3ecSealer(KEY, b"wrapped", CONTEXT)
    body = sealer.update(plaintext[:first]) + sealer.update(plaintext[first:]) + sealer.finish()
    assert len(body) == len(plaintext) + 16
    assert opened(sealer.envelope, body, size=size) == plaintext
    assert plaintext_length_of(len(body)) == len(plaintext)


def test_version_3_is_what_the_specification_says() -> None:
    """Sealed with cryptography's own HKDF and GCM, opened here."""
    message_id = bytes(range(28))

    def derive(label: bytes, length: int) -> bytes:
        return HKDF(SHA512(), length, message_id, b"\x00\x73" + label).derive(KEY.key_bytes)

    body = AESGCM(derive(b"DERIVEKEY", 32)).encrypt(b"\x01" * 12, b"plaintext", b"\x00\x73")
    envelope = S3ecEnvelope(S3EC_V3_SUITE, b"w", CONTEXT, message_id, derive(b"COMMITKEY", 28))
    assert opened(envelope, body) == b"plaintext"


def test_version_2_is_what_the_specification_says() -> None:
    nonce = bytes(range(12))
    body = AESGCM(KEY.key_bytes).encrypt(nonce, b"plaintext", None)
    assert opened(S3ecEnvelope(S3EC_V2_SUITE, b"w", {}, nonce, b""), body) == b"plaintext"


def test_rule_05_message_ids_are_fresh() -> None:
    assert len({sealed(b"x")[0].nonce for _ in range(50)}) == 50


def test_another_data_key_fails_the_commitment_before_the_body() -> None:
    envelope, body = sealed(b"x" * 100)
    with pytest.raises(AuthenticationError) as failure:
        opened(envelope, body, DataKey(bytes(32)))
    assert failure.value.reason == "commitment"


def test_rule_06_nothing_is_given_out_before_the_whole_body_was_verified() -> None:
    envelope, body = sealed(b"x" * 5_000)
    for index in (0, 2_500, len(body) - 17, len(body) - 16, len(body) - 1):
        changed = bytearray(body)
        changed[index] ^= 1
        with spool() as held, pytest.raises(AuthenticationError):
            open_content(envelope, KEY, chunks(bytes(changed), 500), held)
    for length in range(16):
        with spool() as held, pytest.raises((FormatError, AuthenticationError)):
            open_content(envelope, KEY, chunks(body[:length], 500), held)


def test_rule_06_a_spool_that_was_changed_between_the_passes_is_refused() -> None:
    envelope, body = sealed(b"x" * 5_000)
    with spool() as held:
        pieces = open_content(envelope, KEY, chunks(body, 500), held)
        assert held._file is not None
        held._file.seek(4_000)
        held._file.write(b"forged")
        with pytest.raises(AuthenticationError):
            b"".join(pieces)


def test_rule_01_a_sealer_belongs_to_its_process_and_ends_once() -> None:
    sealer = S3ecSealer(KEY, b"wrapped", CONTEXT)
    child = os.fork()
    if child == 0:
        try:
            sealer.update(b"x")
        except UnsupportedOperationError:
            os._exit(42)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    sealer.finish()
    for attempt in (lambda: sealer.update(b"x"), sealer.finish):
        with pytest.raises(ConfigurationError):
            attempt()
    assert "0 bytes" in repr(sealer)


def test_the_bound_of_gcm_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert content.MAX_PLAINTEXT_LENGTH_BYTES == 2**36 - 32
    monkeypatch.setattr(content, "MAX_PLAINTEXT_LENGTH_BYTES", 100)
    sealer = S3ecSealer(KEY, b"wrapped", CONTEXT)
    sealer.update(bytes(100))
    with pytest.raises(LimitExceededError):
        sealer.update(b"x")
    with spool() as held, pytest.raises(LimitExceededError):
        open_content(sealer.envelope, KEY, chunks(bytes(200), 50), held)


def test_a_body_shorter_than_a_tag_has_no_plaintext_length() -> None:
    assert plaintext_length_of(16) == 0
    with pytest.raises(FormatError, match="shorter than its authentication tag"):
        plaintext_length_of(15)


def test_data_keys_of_another_length_are_refused() -> None:
    with pytest.raises(ConfigurationError):
        derive_v3_keys(DataKey(bytes(16)), bytes(28))


# --- metadata ------------------------------------------------------------------------------------


def metadata_v3() -> dict[str, str]:
    return sealed(b"x")[0].to_metadata()


def metadata_v2() -> dict[str, str]:
    return {
        "x-amz-key-v2": base64.b64encode(b"wrapped").decode(),
        "x-amz-wrap-alg": "kms+context",
        "x-amz-cek-alg": "AES/GCM/NoPadding",
        "x-amz-matdesc": json.dumps({"aws:x-amz-cek-alg": "AES/GCM/NoPadding", "tenant": "7"}),
        "x-amz-iv": base64.b64encode(bytes(12)).decode(),
        "x-amz-tag-len": "128",
    }


def test_metadata_is_read_back() -> None:
    envelope, _ = sealed(b"x")
    parsed = parse_envelope({**envelope.to_metadata(), "modality": "ct"})
    assert parsed == envelope
    assert (parsed.version, parsed.caller_context) == (3, {"tenant": "7"})
    second = parse_envelope(metadata_v2())
    assert (second.version, second.caller_context, second.commitment) == (2, {"tenant": "7"}, b"")
    with pytest.raises(ConfigurationError):
        second.to_metadata()


@pytest.mark.parametrize("metadata", [metadata_v3(), metadata_v2()], ids=["v3", "v2"])
def test_every_missing_field_is_refused(metadata: dict[str, str]) -> None:
    for name in metadata:
        with pytest.raises(PhiCryptError):
            parse_envelope({other: value for other, value in metadata.items() if other != name})


@pytest.mark.parametrize("metadata", [metadata_v3(), metadata_v2()], ids=["v3", "v2"])
def test_fields_of_two_versions_do_not_mix(metadata: dict[str, str]) -> None:
    for name in S3EC_METADATA_NAMES - set(metadata) - {"x-amz-crypto-instr-file"}:
        if name in ("x-amz-m", "x-amz-unencrypted-content-length") and (name == "x-amz-m") == (
            "x-amz-3" in metadata
        ):
            continue
        with pytest.raises(PhiCryptError):
            parse_envelope({**metadata, name: "AAAA"})


@pytest.mark.parametrize("cipher", ["AES/CBC/PKCS5Padding", "AES/CTR/NoPadding"])
def test_ciphers_that_authenticate_nothing_are_refused_with_the_way_out(cipher: str) -> None:
    with pytest.raises(UnsupportedOperationError, match="legacy mode once"):
        parse_envelope(metadata_v2() | {"x-amz-cek-alg": cipher})


@pytest.mark.parametrize(
    ("metadata", "wrapping"),
    [(metadata_v3(), {"x-amz-w": "02"}), (metadata_v2(), {"x-amz-wrap-alg": "kms"})],
    ids=["v3", "v2"],
)
def test_data_keys_wrapped_without_a_context_are_refused(
    metadata: dict[str, str], wrapping: dict[str, str]
) -> None:
    with pytest.raises(UnsupportedOperationError, match="without a"):
        parse_envelope(metadata | wrapping)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("x-amz-tag-len", "96", "was expected"),
        ("x-amz-iv", "no base64!", "base64 was expected"),
        ("x-amz-iv", base64.b64encode(bytes(11)).decode(), "12 bytes were expected, 11 came"),
        ("x-amz-key-v2", "", "0 came"),
        ("x-amz-key-v2", base64.b64encode(bytes(20_000)).decode(), "20000 came"),
        ("x-amz-unencrypted-content-length", "-1", "a length in bytes was expected"),
        ("x-amz-unencrypted-content-length", "٣", "a length in bytes was expected"),
        ("x-amz-unencrypted-content-length", "9" * 40, "a length in bytes was expected"),
    ],
)
def test_a_malformed_field_is_named(name: str, value: str, says: str) -> None:
    with pytest.raises(FormatError, match=says) as caught:
        parse_envelope(metadata_v2() | {name: value})
    assert name in str(caught.value)


def test_version_2_may_claim_a_length() -> None:
    claimed = parse_envelope(metadata_v2() | {"x-amz-unencrypted-content-length": "12"})
    assert claimed.claimed_length_bytes == 12


@given(st.dictionaries(st.sampled_from(sorted(S3EC_METADATA_NAMES)), st.text(max_size=30)))
def test_arbitrary_metadata_raises_only_errors_of_ours(metadata: dict[str, str]) -> None:
    try:
        parse_envelope(metadata)
    except PhiCryptError:
        pass
    else:
        raise AssertionError("thirty characters of text are no envelope")


@given(st.binary(max_size=200))
def test_arbitrary_instruction_files_raise_only_errors_of_ours(body: bytes) -> None:
    try:
        pairs = parse_instruction_file(body)
    except PhiCryptError:
        return
    assert set(pairs) <= S3EC_METADATA_NAMES


def test_instruction_files_hold_the_fields_that_the_version_says() -> None:
    whole = metadata_v3()
    own = {name: whole[name] for name in ("x-amz-c", "x-amz-d", "x-amz-i")}
    file = {name: value for name, value in whole.items() if name not in own}
    assert needs_instruction_file(own)
    assert claims_s3ec(own)
    instruction = parse_instruction_file(json.dumps(file).encode())
    assert parse_envelope(own, instruction) == parse_envelope(whole)
    with pytest.raises(FormatError):
        parse_envelope(whole, instruction)
    with pytest.raises(FormatError):
        parse_instruction_file(json.dumps(whole).encode())
    second = metadata_v2()
    assert parse_envelope({}, parse_instruction_file(json.dumps(second).encode())) == parse_envelope(second)
    for wrong in (
        b"[1]",
        b'"text"',
        b'{"x-amz-3": 5}',
        b"[" * 100_000,
        b'{"a": "b"}',
        b'{"x-amz-w":"1","x-amz-w":"1"}',
    ):
        with pytest.raises((FormatError, LimitExceededError)):
            parse_instruction_file(wrong)


def test_contexts_name_the_content_cipher() -> None:
    assert kms_context_of({"a": "1"}, S3EC_V3_SUITE) == {"a": "1", "aws:x-amz-cek-alg": "115"}
    assert kms_context_of({}, S3EC_V2_SUITE) == {"aws:x-amz-cek-alg": "AES/GCM/NoPadding"}
    wrong: list[dict[str, Any]] = [{"aws:x-amz-cek-alg": "115"}, {"kms_cmk_id": "x"}, {"ä": "x"}, {"x": "ä"}]
    for context in wrong:
        with pytest.raises(ConfigurationError):
            kms_context_of(context, S3EC_V3_SUITE)


def test_errors_and_reprs_show_no_value() -> None:
    envelope, _ = sealed(b"secret plaintext")
    assert "secret" not in repr(S3ecSealer(KEY, b"w", CONTEXT))
    metadata = {**envelope.to_metadata(), "x-amz-t": json.dumps({"name": "Smith"})}
    with pytest.raises(FormatError) as failure:
        parse_envelope(metadata)
    assert "Smith" not in str(failure.value)
