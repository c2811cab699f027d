"""The bytes of envelopes, statements and manifests, without any AWS."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError, LimitExceededError, PhiCryptError
from phicrypt.formats.manifests import (
    MAX_MANIFEST_LENGTH_BYTES,
    Difference,
    compare_manifest,
    read_manifest,
    write_manifest,
)
from phicrypt.formats.signatures import (
    DETACHED,
    MAX_ENVELOPE_LENGTH_BYTES,
    PAYLOAD_TYPE,
    Envelope,
    Statement,
    check_statement,
    fingerprint,
    open_envelope,
    pae,
    read_envelope,
    write_envelope,
    write_statement,
)
from phicrypt.signatures.signer import Verifier

CASES = int(os.environ.get("PHICRYPT_FUZZ_CASES", "100"))
ARN = "arn:aws:kms:us-east-1:111122223333:key/1a2b"


def statement(name: str = "a", purpose: str = "p") -> Statement:
    return Statement(DETACHED, fingerprint(name, b"test", "sha256"), purpose, ARN, "ECDSA_SHA_256", None)


def test_pae_is_that_of_the_dsse_specification():
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_statement_is_an_in_toto_statement():
    members = json.loads(write_statement(statement()))
    assert members["_type"] == "https://in-toto.io/Statement/v1"
    assert members["subject"] == [
        {"name": "a", "digest": {"sha256": hashlib.sha256(b"test").hexdigest()}, "annotations": {"length": 4}}
    ]


def accept(*_: object) -> None:
    return None


@settings(max_examples=CASES)
@given(st.text(min_size=1, max_size=60), st.text(min_size=1, max_size=60))
def test_statement_survives_the_envelope(name: str, purpose: str):
    try:
        payload = write_statement(statement(name, purpose))
    except ConfigurationError:
        assert any(0xD800 <= ord(character) <= 0xDFFF for character in name + purpose)
        return
    read = open_envelope(
        read_envelope(write_envelope(payload, ARN, b"sig")), is_own_key=lambda arn: arn == ARN, verify=accept
    )
    assert read == statement(name, purpose)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m | {"payloadType": "text/plain"},
        lambda m: m | {"payload": "not base64!"},
        lambda m: m | {"payload": 7},
        lambda m: m | {"signatures": []},
        lambda m: m | {"signatures": {}},
        lambda m: m | {"signatures": m["signatures"] * 17},
        lambda m: m | {"signatures": ["text"]},
        lambda m: m | {"signatures": [{"keyid": ARN}]},
        lambda m: [m],
    ],
)
def test_malformed_envelope_is_a_format_error(change):
    envelope = json.loads(write_envelope(write_statement(statement()), ARN, b"sig"))
    with pytest.raises(FormatError):
        read_envelope(json.dumps(change(envelope)).encode())


def test_envelope_beyond_the_bound_is_refused_unread():
    with pytest.raises(LimitExceededError):
        read_envelope(b"{" * (MAX_ENVELOPE_LENGTH_BYTES + 1))


def test_member_that_stands_twice_is_refused():
    text = write_envelope(write_statement(statement()), ARN, b"sig").decode()
    with pytest.raises(FormatError):
        read_envelope(text.replace('"payload"', '"payload": "", "payload"').encode())


@settings(max_examples=CASES)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_only_errors_of_phicrypt(data: bytes):
    for read in (read_envelope, read_manifest):
        with pytest.raises(PhiCryptError):
            read(data)


@pytest.fixture(scope="module")
def signed():
    """A verifier, and a signature file of its key over ``b"test"``."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private_key = ec.generate_private_key(ec.SECP256R1())
    payload = write_statement(statement())
    signature = private_key.sign(pae(PAYLOAD_TYPE, payload), ec.ECDSA(hashes.SHA256()))
    der = private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Verifier(ARN, der), write_envelope(payload, ARN, signature)


@settings(max_examples=CASES)
@given(position=st.integers(0), byte=st.integers(0, 255), length=st.integers(0, 2))
def test_changed_signature_file_fails_or_says_the_same(signed, position, byte, length):
    """A byte replaced, inserted or removed: what still verifies (white space, say) is the same statement."""
    verifier, envelope = signed
    at = position % len(envelope)
    changed = envelope[:at] + bytes((byte,) * length) + envelope[at + 1 :]
    try:
        found = verifier.verify(b"test", changed, resource="a", purpose="p")
    except PhiCryptError:
        return
    assert found == statement()


def _altered(**members: object) -> bytes:
    return json.dumps(json.loads(write_statement(statement())) | members).encode()


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b"{}",
        _altered(_type="https://in-toto.io/Statement/v0.1"),
        _altered(subject=[]),
        _altered(subject=[{"name": "a"}]),
        _altered(subject=[{"name": "a", "digest": {"md5": "00"}, "annotations": {"length": 4}}]),
        _altered(subject=[{"name": "a", "digest": {"sha256": "00"}, "annotations": {"length": 4}}]),
        _altered(subject=[{"name": "a", "digest": {"sha256": "0" * 64}, "annotations": {"length": True}}]),
        _altered(subject=[{"name": "a", "digest": {"sha256": "0" * 64}, "annotations": {"length": -1}}]),
        _altered(predicate={"purpose": "p"}),
        _altered(predicate={"purpose": "", "key": ARN, "algorithm": "x"}),
    ],
)
def test_malformed_statement_is_a_format_error_even_if_signed(payload: bytes):
    with pytest.raises(FormatError):
        open_envelope(Envelope(payload, ((ARN, b"sig"),)), is_own_key=lambda arn: arn == ARN, verify=accept)


def test_second_signature_may_be_the_good_one():
    def verify(message: bytes, signature: bytes) -> None:
        if signature != b"good":
            raise AuthenticationError("signature")

    payload = write_statement(statement())
    envelope = Envelope(payload, ((ARN, b"bad"), ("other", b"good"), (ARN, b"good")))
    assert open_envelope(envelope, is_own_key=lambda arn: arn == ARN, verify=verify) == statement()
    with pytest.raises(AuthenticationError):
        open_envelope(Envelope(payload, ((ARN, b"bad"),)), is_own_key=lambda arn: arn == ARN, verify=verify)


def test_statement_naming_another_key_fails_although_signed():
    payload = write_statement(statement())
    with pytest.raises(AuthenticationError) as caught:
        open_envelope(Envelope(payload, (("mine", b"s"),)), is_own_key=lambda arn: arn == "mine", verify=accept)
    assert caught.value.reason == "statement of another key"


# ---- manifests

A, B, C = (fingerprint(name, name.encode() * 10, "sha256") for name in "abc")


def named(entry, name):
    return type(entry)(name, entry.digest_name, entry.digest, entry.length_bytes)


def test_manifest_survives_the_trip():
    assert read_manifest(write_manifest([A, B, C])) == (A, B, C)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([A, B, C], []),
        ([A, fingerprint("b", b"X" * 10, "sha256"), C], [Difference("bytes", "b")]),
        ([A, fingerprint("b", b"b" * 9, "sha256"), C], [Difference("length", "b")]),
        ([A, named(B, "B"), C], [Difference("name", "b", "B")]),
        ([A, C], [Difference("missing", "b")]),
        ([A, B, C, named(A, "d")], [Difference("unexpected", "d")]),
        ([A, C, B], [Difference("order", "b", "c")]),
        ([A, B, B, C], [Difference("unexpected", "b")]),
        ([], [Difference("missing", "a"), Difference("missing", "b"), Difference("missing", "c")]),
    ],
)
def test_each_difference_is_named(found, expected):
    assert list(compare_manifest([A, B, C], found)) == expected


def test_manifest_of_nothing_or_of_one_name_twice_is_refused():
    with pytest.raises(ConfigurationError):
        write_manifest([])
    with pytest.raises(ConfigurationError):
        write_manifest([A, named(B, "a")])
    with pytest.raises(FormatError):
        read_manifest(write_manifest([A, B]).replace(b'"name":"b"', b'"name":"a"'))


def test_manifest_beyond_the_bound_is_refused():
    with pytest.raises(LimitExceededError):
        read_manifest(bytes(MAX_MANIFEST_LENGTH_BYTES + 1))


def test_reprs_show_no_names():
    text = repr(statement("secret-name", "secret-purpose")) + repr(A) + repr(Difference("bytes", "secret-name"))
    assert "secret" not in text


def test_base64_of_both_alphabets_is_read():
    payload = write_statement(statement("ÿÿÿ>>>???"))
    members = json.loads(write_envelope(payload, ARN, b"\xfb\xff"))
    members["payload"] = base64.urlsafe_b64encode(payload).decode()
    members["signatures"][0]["sig"] = base64.urlsafe_b64encode(b"\xfb\xff").decode()
    envelope = read_envelope(json.dumps(members).encode())
    assert (envelope.payload, envelope.signatures) == (payload, ((ARN, b"\xfb\xff"),))


def test_a_verified_statement_must_say_all_that_is_expected() -> None:
    said = statement()
    check_statement(said, said)
    check_statement(replace(said, signed_at="2026-01-01T00:00:00Z"), said)
    other = fingerprint("a", b"tess", "sha256")
    longer = fingerprint("a", b"test" * 2, "sha256")
    renamed = fingerprint("b", b"test", "sha256")
    for changes, reason in (
        ({"predicate_type": "x"}, "signed statement type"),
        ({"purpose": "q"}, "signed purpose"),
        ({"algorithm": "ECDSA_SHA_384"}, "signed algorithm"),
        ({"subject": renamed}, "signed resource"),
        ({"subject": other}, "signed digest"),
        ({"subject": longer}, "signed length"),
        ({"subject": replace(said.subject, digest_name="sha512")}, "signed digest"),
    ):
        with pytest.raises(AuthenticationError) as caught:
            check_statement(replace(said, **changes), said)
        assert caught.value.reason == reason


def test_the_bounds_of_manifests_are_those_of_their_page():
    page = (Path(__file__).parents[2] / "docs" / "signatures.md").read_text()
    assert MAX_MANIFEST_LENGTH_BYTES == 64 * 1024**2
    assert "64 MiB" in page
