"""The primitives against RFC vectors, and against `cryptography`'s own implementations."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode
from hypothesis import given
from hypothesis import strategies as st

from phicrypt.core.primitives import (
    FIXED_SIGNATURE_LENGTH_BYTES,
    GcmStreamOpener,
    SigningKey,
    VerificationKey,
    aes_ctr_keystream,
    hkdf,
    hkdf_expand,
    hkdf_expand_two,
    hmac_digest,
    kdf_counter_mode_sha256,
    open_gcm,
    seal_gcm,
)
from phicrypt.core.suites import Curve
from phicrypt.errors import AuthenticationError, FormatError

HASHES = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}


def test_hkdf_of_rfc_5869_appendix_a() -> None:
    first = hkdf("sha256", bytes(range(13)), b"\x0b" * 22, bytes(range(0xF0, 0xFA)), 42)
    assert first.hex() == ("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
    without_salt_and_info = hkdf("sha256", b"", b"\x0b" * 22, b"", 42)
    assert without_salt_and_info.hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


@given(
    st.sampled_from(sorted(HASHES)),
    st.binary(max_size=200),
    st.binary(min_size=1, max_size=64),
    st.binary(max_size=64),
    st.integers(1, 300),
)
def test_hkdf_equals_cryptographys(name: str, salt: bytes, input_key: bytes, info: bytes, length: int) -> None:
    expected = HKDF(HASHES[name], length, salt or None, info).derive(input_key)
    assert hkdf(name, salt, input_key, info, length) == expected


def test_hkdf_gives_at_most_255_blocks() -> None:
    assert len(hkdf_expand("sha256", bytes(32), b"", 255 * 32)) == 255 * 32
    with pytest.raises(ValueError, match="255"):
        hkdf_expand("sha256", bytes(32), b"", 255 * 32 + 1)


@given(
    st.sampled_from(sorted(HASHES)),
    st.binary(max_size=64),
    st.binary(max_size=200),
    st.binary(max_size=200),
    st.integers(1, 32),
)
def test_two_expansions_at_once_equal_one_after_the_other(
    name: str, pseudorandom_key: bytes, first: bytes, second: bytes, length: int
) -> None:
    assert hkdf_expand_two(name, pseudorandom_key, first, second, length) == (
        hkdf_expand(name, pseudorandom_key, first, length),
        hkdf_expand(name, pseudorandom_key, second, length),
    )


def test_two_expansions_at_once_stay_within_one_block() -> None:
    with pytest.raises(ValueError, match="block"):
        hkdf_expand_two("sha512", bytes(64), b"a", b"b", 65)
    with pytest.raises(ValueError, match="block"):
        hkdf_expand_two("sha512", bytes(129), b"a", b"b", 32)


@given(st.sampled_from(sorted(HASHES)), st.binary(max_size=300), st.binary(max_size=300))
def test_hmac_of_any_key_equals_the_standard_librarys(name: str, mac_key: bytes, message: bytes) -> None:
    assert hmac_digest(name, mac_key, message) == hmac.digest(mac_key, message, name)


@pytest.mark.parametrize("name", sorted(HASHES))
def test_hmac_at_every_key_length_around_the_block(name: str) -> None:
    for length in range(260):
        mac_key = bytes(range(1, 256))[:length].ljust(length, b"k")
        assert hmac_digest(name, mac_key, b"message") == hmac.digest(mac_key, b"message", name), length


def test_hmac_sha512_of_rfc_4231_test_case_2() -> None:
    assert hmac_digest("sha512", b"Jefe", b"what do ya want for nothing?").hex() == (
        "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
        "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
    )


@given(st.binary(min_size=1, max_size=64), st.binary(max_size=40), st.binary(max_size=60), st.integers(1, 150))
def test_counter_mode_kdf_equals_cryptographys(
    derivation_key: bytes, label: bytes, context: bytes, length: int
) -> None:
    expected = KBKDFHMAC(
        hashes.SHA256(), Mode.CounterMode, length, 4, 4, CounterLocation.BeforeFixed, label, context, None
    ).derive(derivation_key)
    assert kdf_counter_mode_sha256(derivation_key, label, context, length) == expected


def test_ctr_keystream_of_nist_sp_800_38a() -> None:
    keystream = aes_ctr_keystream(
        bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"),
        bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"),
        16,
    )
    plaintext = bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")
    ciphertext = bytes(a ^ b for a, b in zip(keystream, plaintext, strict=True))
    assert ciphertext.hex() == "601ec313775789a5b7a7f504bbf3d228"


@given(st.binary(max_size=500), st.binary(max_size=40), st.integers(1, 60))
def test_gcm_piece_by_piece_equals_gcm_at_once(plaintext: bytes, aad: bytes, piece: int) -> None:
    sealed = seal_gcm(bytes(32), bytes(12), plaintext, aad)
    opener = GcmStreamOpener(bytes(32), bytes(12), aad)
    body = sealed[:-16]
    opened = b"".join(opener.update(body[start : start + piece]) for start in range(0, len(body), piece))
    opener.verify(sealed[-16:], reason="tag")
    assert opened == plaintext
    assert open_gcm(bytes(32), bytes(12), sealed, aad, reason="tag") == plaintext


def test_a_wrong_tag_is_refused_with_its_reason() -> None:
    sealed = seal_gcm(bytes(32), bytes(12), b"x", b"")
    wrong = sealed[:-1] + bytes((sealed[-1] ^ 1,))
    with pytest.raises(AuthenticationError) as caught:
        open_gcm(bytes(32), bytes(12), wrong, b"", reason="this one")
    assert caught.value.reason == "this one"
    opener = GcmStreamOpener(bytes(32), bytes(12), b"")
    opener.update(wrong[:-16])
    with pytest.raises(AuthenticationError):
        opener.verify(wrong[-16:], reason="tag")


@pytest.mark.parametrize("curve", list(Curve))
def test_signatures_verify_and_have_the_length_that_aws_writes(curve: Curve) -> None:
    signing_key = SigningKey(curve)
    public_key = VerificationKey(curve, signing_key.compressed_public_key())
    hash_name = "sha256" if curve is Curve.P256 else "sha384"
    for number in range(60):
        digest = hashlib.new(hash_name, bytes((number,))).digest()
        signature = signing_key.sign_digest(digest)
        assert len(signature) == FIXED_SIGNATURE_LENGTH_BYTES[curve]
        public_key.verify_digest(digest, signature)
    with pytest.raises(AuthenticationError):
        public_key.verify_digest(bytes(len(digest)), signature)


@pytest.mark.parametrize("curve", list(Curve))
def test_rule_05_signatures_are_deterministic(curve: Curve) -> None:
    """All but the one in some hundreds whose deterministic form cannot have the fixed length."""
    signing_key = SigningKey(curve)
    hash_name = "sha256" if curve is Curve.P256 else "sha384"
    digests = [hashlib.new(hash_name, bytes((number,))).digest() for number in range(10)]
    repeated = [len({signing_key.sign_digest(digest) for _ in range(3)}) == 1 for digest in digests]
    assert sum(repeated) >= 8


@pytest.mark.parametrize(
    "point", [b"", bytes(49), b"\x02" + b"\xff" * 48, b"\x04" + bytes(48), b"\x02" + bytes(47), bytes(97)]
)
def test_bytes_that_are_no_compressed_point_are_refused(point: bytes) -> None:
    with pytest.raises(FormatError):
        VerificationKey(Curve.P384, point)
