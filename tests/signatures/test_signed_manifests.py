"""Manifests signed once: what differs is named, and nothing is compared before the signature."""

from __future__ import annotations

import pytest

from phicrypt.errors import AuthenticationError
from phicrypt.formats.manifests import ManifestMismatchError
from phicrypt.signatures.signer import Signer, Verifier
from phicrypt.testing import StrictKms

NAMED = {"resource": "study-12", "purpose": "archive"}
OBJECTS = [("a.dcm", b"alpha"), ("b.dcm", b"beta"), ("c.dcm", b"gamma")]


@pytest.fixture(scope="module")
def signer():
    with StrictKms() as kms:
        yield Signer(kms.create_signing_key("ECC_NIST_P384"), client=kms.client(), digest="sha384")


@pytest.fixture(scope="module")
def signed(signer):
    return signer.sign_manifest(OBJECTS, **NAMED)


def test_one_signature_covers_many_objects(signer, signed):
    manifest, envelope = signed
    offline = Verifier(signer.key_arn, signer.public_key_der())
    offline.verify_manifest(manifest, envelope, OBJECTS, **NAMED)
    signer.verify_manifest(manifest, envelope, OBJECTS, by_kms=True, **NAMED)


@pytest.mark.parametrize(
    ("objects", "differences"),
    [
        ([("a.dcm", b"alpha"), ("b.dcm", b"betA"), ("c.dcm", b"gamma")], [("bytes", "b.dcm")]),
        ([("a.dcm", b"alpha"), ("b.dcm", b"beta!"), ("c.dcm", b"gamma")], [("length", "b.dcm")]),
        ([("a.dcm", b"alpha"), ("x.dcm", b"beta"), ("c.dcm", b"gamma")], [("name", "b.dcm")]),
        ([("b.dcm", b"beta"), ("a.dcm", b"alpha"), ("c.dcm", b"gamma")], [("order", "a.dcm")]),
        (
            [("a.dcm", b"beta"), ("b.dcm", b"alpha"), ("c.dcm", b"gamma")],
            [("length", "a.dcm"), ("length", "b.dcm")],
        ),
        (OBJECTS[:2], [("missing", "c.dcm")]),
        ([*OBJECTS, ("d.dcm", b"")], [("unexpected", "d.dcm")]),
    ],
)
def test_changed_byte_name_length_or_order_is_named(signer, signed, objects, differences):
    manifest, envelope = signed
    with pytest.raises(ManifestMismatchError) as caught:
        signer.verify_manifest(manifest, envelope, objects, **NAMED)
    assert [(found.kind, found.name) for found in caught.value.differences] == differences
    assert "dcm" not in str(caught.value)


def test_changed_manifest_fails_before_any_object_is_read(signer, signed):
    manifest, envelope = signed

    def objects():
        raise AssertionError("an object was read before the manifest's signature was verified")
        yield

    for changed in (manifest.replace(b"a.dcm", b"A.dcm"), manifest + b" ", manifest[:-2]):
        with pytest.raises(AuthenticationError):
            signer.verify_manifest(changed, envelope, objects(), **NAMED)


def test_many_objects_need_one_signature_call():
    with StrictKms() as kms:
        signer = Signer(kms.create_signing_key("ECC_NIST_EDWARDS25519"), client=kms.client())
        objects = [(f"object-{number}", b"%d" % number) for number in range(2_000)]
        manifest, envelope = signer.sign_manifest(objects, **NAMED)
        assert [operation for operation, _ in kms.operations_called()].count("Sign") == 1
        assert len(manifest) > 100_000
        signer.verify_manifest(manifest, envelope, objects, **NAMED)
