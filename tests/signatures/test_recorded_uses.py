"""Signatures and MACs in the audit trail."""

from __future__ import annotations

import pytest

from phicrypt.audit.trail import AuditTrail, acting_as
from phicrypt.errors import AuditError, AuthenticationError, KeyAccessError, PhiInContextError
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.signatures.mac import Mac
from phicrypt.signatures.signer import Signer
from phicrypt.testing import StrictKms

NAMED = {"resource": "reports/4711.pdf", "purpose": "release"}


class Events:
    def __init__(self, *, broken: bool = False) -> None:
        self.events: list = []
        self.broken = broken

    def write(self, events) -> None:
        if self.broken:
            raise OSError("disk full")
        self.events.extend(events)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def kms():
    with StrictKms() as running:
        yield running


def recording(**settings):
    sink = Events()
    return sink, AuditTrail([sink], **settings)


def shown(event) -> dict:
    import json

    return json.loads(event.to_json())


def test_each_signature_and_verification_is_one_event_with_its_request_ids(kms):
    sink, trail = recording()
    signer = Signer(kms.create_signing_key("ECC_NIST_P256"), client=kms.client(), trail=trail)
    envelope = signer.sign(b"result", **NAMED)
    signer.verify(b"result", envelope, by_kms=True, **NAMED)
    signer.verify(b"result", envelope, **NAMED)
    with pytest.raises(AuthenticationError):
        signer.verify(b"resulT", envelope, **NAMED)
    trail.flush()
    events = [shown(event) for event in sink.events]
    assert [event["operation"] for event in events] == ["sign", "verify", "verify", "verify"]
    assert [event["outcome"] for event in events] == ["success", "success", "success", "failed"]
    sent = {request.operation: request.request_id for request in kms.requests}
    assert sent["Sign"] in str(events[0])
    assert sent["Verify"] in str(events[1])
    assert "4711" not in str(events)


def test_mac_uses_are_events(kms):
    sink, trail = recording()
    mac = Mac(kms.create_mac_key(), client=kms.client(), trail=trail)
    mac.verify(b"value", mac.generate(b"value", **NAMED), **NAMED)
    with pytest.raises(AuthenticationError):
        mac.verify(b"value", bytes(32), **NAMED)
    envelopes = Mac(kms.create_key(), client=kms.client(), trail=trail)
    tokens = envelopes.local([envelopes.new_local_key("search")], purpose="search")
    tokens.verify(b"value", tokens.generate(b"value", resource="name"), resource="name")
    with pytest.raises(AuthenticationError):
        tokens.verify(b"other", tokens.tokens(b"value", resource="name")[0], resource="name")
    trail.flush()
    events = [shown(event) for event in sink.events]
    assert [(event["operation"], event["outcome"]) for event in events] == [
        ("mac", "success"),
        ("verify-mac", "success"),
        ("verify-mac", "failed"),
        ("create-mac-key", "success"),
        ("open-mac-key", "success"),
        ("local-mac", "success"),
        ("verify-local-mac", "success"),
        ("local-mac", "success"),
        ("verify-local-mac", "failed"),
    ]
    opened, *local = events[4:]
    assert all(event["request_ids"] == opened["request_ids"] and event["cache_hit"] for event in local)
    assert {event["key"] for event in local} == {f"{opened['key']}#{tokens.generate(b'', resource='r')[:16]}"}


def test_events_name_the_kms_call_also_of_a_bad_signature(kms):
    sink, trail = recording()
    arn = kms.create_signing_key("ECC_NIST_P256")
    signer = Signer(arn, client=kms.client(), trail=trail)
    envelope = signer.sign(b"result", **NAMED)
    kms.fail("KMSInvalidSignatureException", status=400, operation="Verify", key_arn=arn)
    with pytest.raises(AuthenticationError):
        signer.verify(b"result", envelope, by_kms=True, **NAMED)
    Mac(kms.create_key(), client=kms.client(), trail=trail).new_local_key("search")
    trail.flush()
    events = [shown(event) for event in sink.events]
    assert [event["kms_operation"] for event in events] == ["Sign", "Verify", "GenerateDataKey"]
    refused = next(r for r in kms.requests if r.operation == "Verify" and r.parameters["KeyId"] == arn)
    assert events[1]["request_ids"] == [refused.request_id]
    assert events[1]["kms_error"] == "KMSInvalidSignatureException"


def test_refused_call_is_recorded(kms):
    sink, trail = recording()
    arn = kms.create_signing_key("ECC_NIST_P256")
    signer = Signer(arn, client=kms.client(), trail=trail)
    signer.public_key_der()
    kms.disable(arn)
    with pytest.raises(KeyAccessError):
        signer.sign(b"result", **NAMED)
    trail.flush()
    (event,) = sink.events
    assert shown(event)["outcome"] != "success"


def test_required_actor_is_required_before_kms_is_asked(kms):
    _, trail = recording(require_actor=True)
    signer = Signer(kms.create_signing_key("ECC_NIST_P256"), client=kms.client(), trail=trail)
    signer.public_key_der()
    before = len(kms.requests)
    with pytest.raises(AuditError):
        signer.sign(b"result", **NAMED)
    assert len(kms.requests) == before
    with acting_as("dr-4711"):
        signer.sign(b"result", **NAMED)


def test_guard_that_replaces_values_refuses_them_here(kms):
    guard = PhiGuard("hash", hash_key=bytes(32))
    signer = Signer(kms.create_signing_key("ECC_NIST_P256"), client=kms.client(), guard=guard)
    with pytest.raises(PhiInContextError):
        signer.sign(b"result", resource="mrn-12345678.pdf", purpose="release")
    with pytest.raises(PhiInContextError):
        Mac(kms.create_key(), client=kms.client(), guard=guard).new_local_key("mrn 12345678")


def test_client_lends_its_guard_and_trail(kms):
    from phicrypt import PhiCrypt, RawAesKeyring

    sink, trail = recording()
    phi = PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(32)), audit=trail)
    signer = phi.signer(kms.create_signing_key("ECC_NIST_P256"), client=kms.client())
    with pytest.raises(PhiInContextError):
        signer.sign(b"result", resource="mrn-12345678.pdf", purpose="release")
    signer.sign(b"result", **NAMED)
    phi.mac(kms.create_mac_key(), client=kms.client()).generate(b"value", **NAMED)
    trail.flush()
    assert [shown(event)["operation"] for event in sink.events] == ["sign", "mac"]
