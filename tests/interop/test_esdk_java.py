"""Messages between phicrypt and the AWS Encryption SDK for Java, version 3, in both directions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from interop.esdk_java import MessageCounterpart, message_counterpart
from interop.java_processes import JavaRefusedError, JavaUnavailableError
from support.recipient_keys import CURVES, KMS_SPECS, ec_pair, private_pem, public_der, public_pem, rsa_pair

from phicrypt import (
    ANY_CONTEXT,
    KmsEcdhKeyring,
    KmsKeyring,
    PhiCrypt,
    RawAesKeyring,
    RawEcdhKeyring,
    RawRsaKeyring,
)
from phicrypt.errors import AuthenticationError, PhiCryptError
from phicrypt.formats.esdk.sealing import DEFAULT_FRAME_LENGTH_BYTES
from phicrypt.testing import StrictKms

CONTEXT = {"tenant": "clinic-7", "ünï": "cödé \U0001f512"}
MIB = 1024 * 1024
CURRENT = {
    False: "ALG_AES_256_GCM_HKDF_SHA512_COMMIT_KEY",
    True: "ALG_AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384",
}
LEGACY = [
    *(f"ALG_AES_{bits}_GCM_IV12_TAG16_NO_KDF" for bits in (128, 192, 256)),
    *(f"ALG_AES_{bits}_GCM_IV12_TAG16_HKDF_SHA256" for bits in (128, 192, 256)),
    "ALG_AES_128_GCM_IV12_TAG16_HKDF_SHA256_ECDSA_P256",
    "ALG_AES_192_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384",
    "ALG_AES_256_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384",
]
PADDINGS = {
    "pkcs1": "PKCS1",
    "oaep-sha1": "OAEP_SHA1_MGF1",
    "oaep-sha256": "OAEP_SHA256_MGF1",
    "oaep-sha384": "OAEP_SHA384_MGF1",
    "oaep-sha512": "OAEP_SHA512_MGF1",
}


class Sides(NamedTuple):
    """One keyring on both sides: ours that writes and opens, and settings of theirs that write and open."""

    writer: Any
    opener: Any
    their_writer: dict[str, Any]
    their_opener: dict[str, Any]


@pytest.fixture(scope="module")
def java() -> Iterator[MessageCounterpart]:
    try:
        with message_counterpart() as counterpart:
            yield counterpart
    except JavaUnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def kms() -> Iterator[StrictKms]:
    with StrictKms() as running:
        yield running


def raw_aes(kms: StrictKms) -> Sides:
    names = {"namespace": "clinic", "name": "schlüssel-1"}
    wrapping_key = os.urandom(32)
    ours, theirs = RawAesKeyring(**names, wrapping_key=wrapping_key), {"wrappingKey": wrapping_key, **names}
    return Sides(ours, ours, {"kind": "raw-aes", **theirs}, {"kind": "raw-aes", **theirs})


def raw_rsa(padding: Any) -> Callable[[StrictKms], Sides]:
    def sides(kms: StrictKms) -> Sides:
        names, pair = {"namespace": "clinic", "name": "schlüssel-1"}, rsa_pair()
        writer = RawRsaKeyring(**names, public_key=public_pem(pair), padding=padding)
        opener = RawRsaKeyring(**names, private_key=pair, padding=padding)
        keys = {"publicKey": public_pem(pair).encode(), "privateKey": private_pem(pair)}
        theirs = {"kind": "raw-rsa", "padding": PADDINGS[padding], **names, **keys}
        return Sides(writer, opener, theirs, theirs)

    return sides


def ecdh_static(curve: str) -> Callable[[StrictKms], Sides]:
    def sides(kms: StrictKms) -> Sides:
        ours, theirs = ec_pair(curve), ec_pair(curve)
        ring = RawEcdhKeyring.static(private_key=private_pem(ours), recipient_public_key=public_pem(theirs))
        settings = {"privateKey": private_pem(theirs), "publicKey": public_der(ours), "curve": KMS_SPECS[curve]}
        return Sides(ring, ring, {"kind": "ecdh-static", **settings}, {"kind": "ecdh-static", **settings})

    return sides


def ecdh_ephemeral(curve: str) -> Callable[[StrictKms], Sides]:
    def sides(kms: StrictKms) -> Sides:
        ours, theirs = ec_pair(curve), ec_pair(curve)
        return Sides(
            RawEcdhKeyring.ephemeral(recipient_public_key=public_pem(theirs)),
            RawEcdhKeyring.discovery(private_key=private_pem(ours)),
            {"kind": "ecdh-ephemeral", "publicKey": public_der(ours), "curve": KMS_SPECS[curve]},
            {"kind": "ecdh-discovery", "privateKey": private_pem(theirs), "curve": KMS_SPECS[curve]},
        )

    return sides


def kms_symmetric(kms: StrictKms) -> Sides:
    arn = kms.create_key()
    ours = KmsKeyring(arn, client_factory=kms.client)
    theirs = {"kind": "kms", "keyArn": arn, "endpoint": kms.endpoint_url}
    return Sides(ours, ours, theirs, theirs)


def kms_ecdh(kms: StrictKms) -> Sides:
    ours, theirs = (kms.create_key(KeySpec="ECC_NIST_P521", KeyUsage="KEY_AGREEMENT") for _ in range(2))
    public_keys = {arn: public_der(kms.key(arn).key_pair) for arn in (ours, theirs)}
    ring = KmsEcdhKeyring(ours, recipient_public_key=public_keys[theirs], client=kms.client())
    settings = {
        "kind": "kms-ecdh",
        "keyArn": theirs,
        "ownPublicKey": public_keys[theirs],
        "publicKey": public_keys[ours],
        "curve": "ECC_NIST_P521",
        "endpoint": kms.endpoint_url,
    }
    return Sides(ring, ring, settings, settings)


KINDS: dict[str, Callable[[StrictKms], Sides]] = {
    "raw AES": raw_aes,
    **{f"raw RSA {padding}": raw_rsa(padding) for padding in PADDINGS},
    **{f"ECDH static {curve}": ecdh_static(curve) for curve in CURVES},
    **{f"ECDH ephemeral {curve}": ecdh_ephemeral(curve) for curve in CURVES},
    "KMS": kms_symmetric,
    "KMS ECDH": kms_ecdh,
}
by_kind = pytest.mark.parametrize("kind", KINDS)
by_signature = pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])


def sizes(frame_length: int) -> list[int]:
    return sorted({0, 1, frame_length - 1, frame_length, frame_length + 1, MIB})


@by_kind
@by_signature
def test_java_opens_what_phicrypt_wrote(java: MessageCounterpart, kms: StrictKms, kind: str, signed: bool) -> None:
    sides = KINDS[kind](kms)
    phi = PhiCrypt(sides.writer)
    for size in sizes(DEFAULT_FRAME_LENGTH_BYTES):
        plaintext = os.urandom(size)
        message = phi.encrypt(plaintext, context=CONTEXT, signed=signed)
        assert java.decrypt(sides.their_opener, message) == plaintext


@by_kind
@by_signature
def test_phicrypt_opens_what_java_wrote(java: MessageCounterpart, kms: StrictKms, kind: str, signed: bool) -> None:
    sides = KINDS[kind](kms)
    phi = PhiCrypt(sides.opener)
    for frame_length in (4_096, DEFAULT_FRAME_LENGTH_BYTES):
        for size in sizes(frame_length):
            plaintext = os.urandom(size)
            message = java.encrypt(
                sides.their_writer, plaintext, CONTEXT, suite=CURRENT[signed], frame_length=frame_length
            )
            assert phi.decrypt(message, context=CONTEXT, require_signed=signed) == plaintext


@pytest.mark.parametrize("kind", ["raw AES", "raw RSA oaep-sha256", "ECDH static p384", "KMS"])
@pytest.mark.parametrize("suite", LEGACY)
def test_phicrypt_opens_javas_legacy_suites(
    java: MessageCounterpart, kms: StrictKms, kind: str, suite: str
) -> None:
    sides = KINDS[kind](kms)
    phi = PhiCrypt(sides.opener)
    for size in (0, 1, 4_095, 4_096, 4_097):
        plaintext = os.urandom(size)
        message = java.encrypt(sides.their_writer, plaintext, CONTEXT, suite=suite, frame_length=4_096)
        assert phi.decrypt(message, context=CONTEXT, allow_uncommitted=True) == plaintext


@pytest.mark.parametrize("kind", ["raw AES", "raw RSA oaep-sha256", "ECDH static p256", "KMS ECDH"])
def test_both_sides_refuse_what_was_changed(java: MessageCounterpart, kms: StrictKms, kind: str) -> None:
    sides = KINDS[kind](kms)
    ours = PhiCrypt(sides.writer).encrypt(b"note", context=CONTEXT)
    theirs = java.encrypt(sides.their_writer, b"note", CONTEXT, suite=CURRENT[False], frame_length=4_096)
    for message, place in ((ours, -1), (theirs, -1), (ours, 40), (theirs, 40)):
        forged = bytearray(message)
        forged[place] ^= 1
        with pytest.raises(JavaRefusedError):
            java.decrypt(sides.their_opener, bytes(forged))
        with pytest.raises(PhiCryptError):
            PhiCrypt(sides.opener).decrypt(bytes(forged), context=ANY_CONTEXT)


@pytest.mark.parametrize(
    "kind",
    ["raw AES", "raw RSA oaep-sha256", "raw RSA pkcs1", "ECDH static p256", "ECDH ephemeral p521", "KMS ECDH"],
)
@by_signature
def test_required_context_passes_both_ways(
    java: MessageCounterpart, kms: StrictKms, kind: str, signed: bool
) -> None:
    sides, names = KINDS[kind](kms), ("patient",)
    whole = {**CONTEXT, "patient": "p-20391"}
    written = PhiCrypt(sides.writer, required_context=names).encrypt(b"note", context=whole, signed=signed)
    assert b"p-20391" not in written
    assert java.decrypt(sides.their_opener, written, {"patient": "p-20391"}, names) == b"note"
    with pytest.raises(JavaRefusedError):
        java.decrypt(sides.their_opener, written, {"patient": "p-20392"}, names)
    theirs = java.encrypt(
        sides.their_writer, b"note", whole, suite=CURRENT[signed], frame_length=4_096, required=names
    )
    reader = PhiCrypt(sides.opener, required_context=names, cache=None)
    assert reader.decrypt(theirs, context=whole) == b"note"
    with pytest.raises(AuthenticationError):
        reader.decrypt(theirs, context={**whole, "patient": "p-20392"})
