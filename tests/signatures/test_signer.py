"""Detached signatures: made by KMS, verified by everyone, bound to name, purpose and key."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    FormatError,
    KeyAccessError,
    LimitExceededError,
    PhiInContextError,
)
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.signatures.signer import Signer, Verifier
from phicrypt.testing import StrictKms, local_aws

SPECS = ("ECC_NIST_P256", "ECC_NIST_P384", "RSA_2048", "ECC_NIST_EDWARDS25519", "ML_DSA_65")
NAMED = {"resource": "reports/4711.pdf", "purpose": "lab-result-release"}


@pytest.fixture(scope="module")
def kms():
    with StrictKms() as running:
        yield running


@pytest.fixture(scope="module")
def arns(kms):
    return {spec: kms.create_signing_key(spec) for spec in SPECS}


def signer(kms, arn, **settings) -> Signer:
    return Signer(arn, client=kms.client(arn.split(":")[3]), **settings)


def pae_by_hand(envelope: bytes) -> tuple[bytes, bytes]:
    """Signed bytes and signature, computed from DSSE's text alone."""
    members = json.loads(envelope)
    payload = base64.b64decode(members["payload"])
    kind = members["payloadType"].encode()
    signed = (
        b"DSSEv1 " + str(len(kind)).encode() + b" " + kind + b" " + str(len(payload)).encode() + b" " + payload
    )
    return signed, base64.b64decode(members["signatures"][0]["sig"])


@pytest.mark.parametrize("spec", SPECS)
def test_signature_verifies_offline_by_cached_key_and_by_kms(kms, arns, spec):
    maker = signer(kms, arns[spec])
    envelope = maker.sign(b"result", **NAMED)
    offline = Verifier(arns[spec], maker.public_key_der())
    for statement in (
        offline.verify(b"result", envelope, **NAMED),
        maker.verify(b"result", envelope, **NAMED),
        maker.verify(b"result", envelope, by_kms=True, **NAMED),
    ):
        assert (statement.subject.length_bytes, statement.purpose) == (6, "lab-result-release")


@pytest.mark.parametrize("spec", SPECS)
def test_changed_byte_fails_offline_and_by_kms(kms, arns, spec):
    maker = signer(kms, arns[spec])
    envelope = maker.sign(b"result", **NAMED)
    for by_kms in (False, True):
        with pytest.raises(AuthenticationError) as caught:
            maker.verify(b"resulT", envelope, by_kms=by_kms, **NAMED)
        assert caught.value.reason == "signed digest"


@pytest.mark.parametrize("spec", SPECS)
def test_changed_statement_fails_offline_and_by_kms(kms, arns, spec):
    maker = signer(kms, arns[spec])
    members = json.loads(maker.sign(b"result", **NAMED))
    payload = base64.b64decode(members["payload"]).replace(b"4711", b"4712")
    members["payload"] = base64.b64encode(payload).decode()
    for by_kms in (False, True):
        with pytest.raises(AuthenticationError) as caught:
            maker.verify(
                b"result",
                json.dumps(members).encode(),
                by_kms=by_kms,
                resource="reports/4712.pdf",
                purpose="lab-result-release",
            )
        assert caught.value.reason == "signature"


def test_cryptography_verifies_ecdsa_without_phicrypt(kms, arns):
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    maker = signer(kms, arns["ECC_NIST_P384"])
    signed, signature = pae_by_hand(maker.sign(b"result", **NAMED))
    public_key: Any = load_der_public_key(maker.public_key_der())
    public_key.verify(signature, signed, ec.ECDSA(hashes.SHA384()))


def test_cryptography_verifies_rsa_pss_with_a_salt_as_long_as_the_digest(kms, arns):
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    maker = signer(kms, arns["RSA_2048"], algorithm="RSASSA_PSS_SHA_512")
    signed, signature = pae_by_hand(maker.sign(b"result", **NAMED))
    scheme = padding.PSS(padding.MGF1(hashes.SHA512()), 64)
    public_key: Any = load_der_public_key(maker.public_key_der())
    public_key.verify(signature, signed, scheme, hashes.SHA512())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program")
@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("ECC_NIST_P256", ["-sha256"]),
        ("ECC_NIST_P384", ["-sha384"]),
        ("RSA_2048", ["-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]),
    ],
)
def test_openssl_verifies_and_refuses_a_changed_byte(kms, arns, tmp_path: Path, spec, options):
    maker = signer(kms, arns[spec])
    signed, signature = pae_by_hand(maker.sign(b"result", **NAMED))
    (tmp_path / "public.der").write_bytes(maker.public_key_der())
    (tmp_path / "signature").write_bytes(signature)
    for message, expected in ((signed, 0), (signed.replace(b"4711", b"4712"), 1)):
        (tmp_path / "message").write_bytes(message)
        verify = ["-verify", "public.der", "-keyform", "DER", "-signature", "signature", "message"]
        done = subprocess.run(
            ["openssl", "dgst", *options, *verify], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == expected, done.stderr


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program")
def test_openssl_verifies_ed25519(kms, arns, tmp_path: Path):
    maker = signer(kms, arns["ECC_NIST_EDWARDS25519"])
    signed, signature = pae_by_hand(maker.sign(b"result", **NAMED))
    for name, content in (("public.der", maker.public_key_der()), ("signature", signature), ("message", signed)):
        (tmp_path / name).write_bytes(content)
    command = "openssl pkeyutl -verify -pubin -inkey public.der -keyform DER -rawin -in message -sigfile signature"
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("key_spec", ["ECC_NIST_P256", "RSA_2048"])
def test_signature_of_moto_verifies_offline(key_spec):
    with local_aws() as aws:
        arn = aws.create_kms_key(KeySpec=key_spec, KeyUsage="SIGN_VERIFY")
        maker = Signer(arn, client=aws.client("kms"))
        envelope = maker.sign(b"result", **NAMED)
        Verifier(arn, maker.public_key_der()).verify(b"result", envelope, **NAMED)
        maker.verify(b"result", envelope, by_kms=True, **NAMED)


def test_openssl_made_signature_is_accepted(kms):
    """The other direction: a P-256 signature that phicrypt had no part in."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    arn = "arn:aws:kms:us-east-1:111122223333:key/elsewhere"
    private_key = ec.generate_private_key(ec.SECP256R1())
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                "name": "a",
                "digest": {"sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
                "annotations": {"length": 4},
            }
        ],
        "predicateType": "https://github.com/phicrypt/phicrypt/tree/main/docs/signatures.md#detached-v1",
        "predicate": {"purpose": "p", "key": arn, "algorithm": "ECDSA_SHA_256"},
    }
    payload = json.dumps(statement, indent=3).encode()
    signed = b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)
    envelope = {
        "payloadType": "application/vnd.in-toto+json",
        "payload": base64.urlsafe_b64encode(payload).decode(),
        "signatures": [
            {"keyid": arn, "sig": base64.b64encode(private_key.sign(signed, ec.ECDSA(hashes.SHA256()))).decode()}
        ],
        "unknown": "members are ignored",
    }
    der = private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert (
        Verifier(arn, der).verify(b"test", json.dumps(envelope).encode(), resource="a", purpose="p").signed_at
        is None
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"resource": "reports/4712.pdf"}, "signed resource"), ({"purpose": "billing"}, "signed purpose")],
)
def test_signature_moved_to_another_name_or_purpose_fails(kms, arns, change, reason):
    maker = signer(kms, arns["ECC_NIST_P256"])
    envelope = maker.sign(b"result", **NAMED)
    with pytest.raises(AuthenticationError) as caught:
        maker.verify(b"result", envelope, **{**NAMED, **change})
    assert caught.value.reason == reason
    assert "4711" not in str(caught.value)


def test_manifest_signature_is_no_signature_of_a_file(kms, arns):
    maker = signer(kms, arns["ECC_NIST_P256"])
    manifest, envelope = maker.sign_manifest([("a", b"1")], **NAMED)
    with pytest.raises(AuthenticationError) as caught:
        maker.verify(manifest, envelope, **NAMED)
    assert caught.value.reason == "signed statement type"


def test_signature_of_another_key_fails(kms, arns):
    other = kms.create_signing_key("ECC_NIST_P256")
    envelope = signer(kms, other).sign(b"result", **NAMED)
    with pytest.raises(AuthenticationError) as caught:
        signer(kms, arns["ECC_NIST_P256"]).verify(b"result", envelope, **NAMED)
    assert caught.value.reason == "no signature by the expected key"
    relabelled = envelope.replace(other.encode(), arns["ECC_NIST_P256"].encode())
    with pytest.raises(AuthenticationError):
        signer(kms, arns["ECC_NIST_P256"]).verify(b"result", relabelled, **NAMED)


def test_verifier_decides_the_algorithm_not_the_signature_file(kms, arns):
    envelope = signer(kms, arns["RSA_2048"], algorithm="RSASSA_PSS_SHA_512").sign(b"result", **NAMED)
    with pytest.raises(AuthenticationError):
        signer(kms, arns["RSA_2048"]).verify(b"result", envelope, **NAMED)


def test_replica_verifies_what_the_primary_signed(kms):
    primary = kms.create_signing_key("ECC_NIST_P256", replicas=("eu-west-1",))
    replica = primary.replace("us-east-1", "eu-west-1")
    envelope = signer(kms, primary).sign(b"result", **NAMED)
    signer(kms, replica).verify(b"result", envelope, **NAMED)
    signer(kms, replica).verify(b"result", envelope, by_kms=True, **NAMED)


def test_large_source_is_read_once_and_never_sent(kms, arns):
    class Forward(io.RawIOBase):
        left = 5_000_000

        def read(self, size=-1):
            piece = b"x" * min(size, self.left)
            self.left -= len(piece)
            return piece

    maker = signer(kms, arns["ECC_NIST_P256"], digest="sha512")
    envelope = maker.sign(Forward(), **NAMED)
    assert maker.verify(b"x" * 5_000_000, envelope, **NAMED).subject.length_bytes == 5_000_000
    sent = [r for r in kms.requests if r.operation == "Sign"][-1]
    assert len(base64.b64decode(sent.parameters["Message"])) < 1_000


def test_public_key_is_asked_for_once(kms):
    arn = kms.create_signing_key("ECC_NIST_P256")
    maker = signer(kms, arn)
    for number in range(3):
        maker.verify(b"%d" % number, maker.sign(b"%d" % number, **NAMED), **NAMED)
    asked = [r for r in kms.requests if r.parameters.get("KeyId") == arn and r.operation == "GetPublicKey"]
    assert len(asked) == 1


def test_time_of_signing_is_signed(kms, arns):
    maker = signer(kms, arns["ECC_NIST_P256"], clock=lambda: datetime(2026, 3, 1, 12, tzinfo=UTC))
    envelope = maker.sign(b"result", **NAMED)
    assert maker.verify(b"result", envelope, **NAMED).signed_at == "2026-03-01T12:00:00Z"


def test_disabled_key_neither_signs_nor_verifies_by_kms_but_offline(kms):
    arn = kms.create_signing_key("ECC_NIST_P256")
    maker = signer(kms, arn)
    envelope = maker.sign(b"result", **NAMED)
    kms.disable(arn)
    with pytest.raises(KeyAccessError) as caught:
        maker.sign(b"result", **NAMED)
    assert caught.value.code == "DisabledException"
    with pytest.raises(KeyAccessError):
        maker.verify(b"result", envelope, by_kms=True, **NAMED)
    maker.verify(b"result", envelope, **NAMED)


def test_wrong_key_usage_is_named(kms):
    arn = kms.create_key(KeySpec="RSA_2048")
    with pytest.raises(ConfigurationError, match="ENCRYPT_DECRYPT"):
        signer(kms, arn).sign(b"result", **NAMED)
    with pytest.raises(KeyAccessError) as caught:
        signer(kms, kms.create_key()).sign(b"result", **NAMED)
    assert caught.value.code == "UnsupportedOperationException"


@pytest.mark.parametrize("spec", ["ECC_SECG_P256K1", "ECC_NIST_P521"])
def test_key_of_a_kind_that_is_not_used_is_refused(kms, spec):
    with pytest.raises(ConfigurationError, match="ECDSA_SHA_"):
        signer(kms, kms.create_signing_key(spec)).sign(b"result", **NAMED)


@pytest.mark.parametrize("algorithm", ["RSASSA_PKCS1_V1_5_SHA_256", "ED25519_PH_SHA_512", "SM2DSA", "none", ""])
def test_unknown_algorithm_is_refused_before_any_call(kms, arns, algorithm):
    before = len(kms.requests)
    with pytest.raises(ConfigurationError):
        signer(kms, arns["RSA_2048"], algorithm=algorithm)
    assert len(kms.requests) == before


def test_algorithm_of_another_key_kind_is_refused(kms, arns):
    with pytest.raises(ConfigurationError, match="does not suit"):
        signer(kms, arns["ECC_NIST_P256"], algorithm="ECDSA_SHA_384").sign(b"result", **NAMED)


@pytest.mark.parametrize(
    "arn", ["alias/signing", "arn:aws:kms:us-east-1:111122223333:alias/signing", "1a2b", "", "arn:aws:s3:::bucket"]
)
def test_alias_or_other_name_is_refused(kms, arn):
    with pytest.raises(ConfigurationError):
        Signer(arn, client=kms.client())


def test_region_without_the_service_is_an_outage(kms):
    arn = "arn:aws:kms:xx-nowhere-9:111122223333:key/1a2b"
    client = kms.client("xx-nowhere-9", endpoint_url=kms.closed_endpoint())
    with pytest.raises(KeyAccessError) as caught:
        Signer(arn, client=client).sign(b"result", **NAMED)
    assert caught.value.is_retryable


def test_signature_that_does_not_verify_is_never_returned(kms):
    arn = kms.create_signing_key("ECC_NIST_P256")
    other = signer(kms, kms.create_signing_key("ECC_NIST_P256")).sign(b"result", **NAMED)
    forged = json.loads(other)["signatures"][0]["sig"]
    kms.alter(lambda answer: {**answer, "Signature": forged}, operation="Sign", key_arn=arn)
    with pytest.raises(AuthenticationError):
        signer(kms, arn).sign(b"result", **NAMED)


def test_name_and_purpose_too_long_for_kms_are_refused(kms, arns):
    with pytest.raises(LimitExceededError):
        signer(kms, arns["ECC_NIST_P256"]).sign(b"result", resource="x" * 4096, purpose="p")


@pytest.mark.parametrize("named", [{"resource": "", "purpose": "p"}, {"resource": "r", "purpose": ""}])
def test_empty_name_or_purpose_is_refused(kms, arns, named):
    with pytest.raises(ConfigurationError):
        signer(kms, arns["ECC_NIST_P256"]).sign(b"result", **named)


def test_guard_refuses_phi_in_signed_names(kms, arns):
    guarded = signer(kms, arns["ECC_NIST_P256"], guard=PhiGuard())
    with pytest.raises(PhiInContextError):
        guarded.sign(b"result", resource="mrn-12345678.pdf", purpose="release")
    with pytest.raises(PhiInContextError):
        guarded.sign_manifest([("123-45-6789.pdf", b"")], resource="manifest", purpose="release")


def test_public_key_that_is_none_is_a_format_error():
    with pytest.raises(FormatError):
        Verifier("arn:aws:kms:us-east-1:111122223333:key/1a2b", b"\x30\x00")


def test_client_of_another_region_is_refused(kms):
    with pytest.raises(ConfigurationError, match="eu-west-1"):
        Signer(kms.create_signing_key("ECC_NIST_P256"), client=kms.client("eu-west-1"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_signer_works_on_in_a_forked_child(kms, arns):
    maker = signer(kms, arns["ECC_NIST_P256"])
    envelope = maker.sign(b"result", **NAMED)
    parent_connections = set(kms.connections)
    child = os.fork()
    if child == 0:
        try:
            maker.verify(b"result", envelope, by_kms=True, **NAMED)
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert set(kms.connections) - parent_connections, "the child used its parent's connection"
