"""What the audit trail learns of items: who, which table, which key, how it ended; no value."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest
from support.dbesdk_support import patient, patients, phi_with, static_keyring

from phicrypt.audit import AuditTrail
from phicrypt.audit.sinks.memory import RecordingSink
from phicrypt.dynamodb import PlaintextPolicy
from phicrypt.dynamodb.items import open_item, seal_item
from phicrypt.errors import AuditError, ConfigurationError, NotEncryptedError, PhiCryptError
from phicrypt.witness import ResourceTokens

TODAY = datetime.now(UTC).date()


def audited(**options: Any) -> tuple[Any, RecordingSink]:
    sink = RecordingSink()
    tokens = ResourceTokens({"t1": bytes(32)})
    return phi_with(static_keyring(), audit=AuditTrail([sink], resource_tokens=tokens, **options)), sink


def events(phi: Any, sink: RecordingSink) -> list[Any]:
    phi.trail.flush()
    return list(sink.events)


def test_sealing_leaves_one_event_and_opening_two() -> None:
    phi, sink = audited()
    with phi.acting_as("dr-4711"):
        stored = seal_item(phi.session, patient(), patients()).item
        open_item(phi.session, stored, patients(), operation="dynamodb.get_item")
    sealed, begun, ended = events(phi, sink)
    assert (sealed.operation, sealed.kind, sealed.outcome) == ("dynamodb.encrypt_item", "use", "success")
    assert (begun.operation, begun.kind) == ("dynamodb.get_item", "begin")
    assert (ended.kind, ended.outcome, ended.use_id) == ("end", "success", begun.use_id)
    assert sealed.message_id == ended.message_id == stored["aws_dbe_head"]["B"][2:34].hex()
    assert {event.actor for event in (sealed, begun, ended)} == {"dr-4711"}
    assert sealed.resource == begun.resource == ended.resource
    assert sealed.resource is not None
    assert sealed.origin is not None
    assert ended.suite_id == 0x6700


def test_events_hold_no_value_of_the_item() -> None:
    phi, sink = audited()
    stored = seal_item(phi.session, patient(), patients()).item
    open_item(phi.session, stored, patients())
    with pytest.raises(PhiCryptError):
        open_item(phi.session, {**stored, "clinic": {"S": "changed"}}, patients())
    text = "".join(event.to_json() for event in events(phi, sink))
    for value in ("p-1", "2026-01-01", "canary-name", "north", "free to change", "changed"):
        assert f'"{value}"' not in text
    assert "AAFwLTE" not in text  # base64 of the partition key's type and value
    assert '"patients"' in text


def test_refused_items_end_with_the_reason() -> None:
    phi, sink = audited()
    stored = seal_item(phi.session, patient(), patients()).item
    foot = stored["aws_dbe_foot"]["B"]
    with pytest.raises(PhiCryptError):
        open_item(phi.session, {**stored, "aws_dbe_foot": {"B": bytes(48)}}, patients())
    assert foot != bytes(48)
    last = events(phi, sink)[-1]
    assert (last.kind, last.error, last.reason) == ("end", "AuthenticationError", "recipient tag")


def test_refused_writes_are_recorded() -> None:
    phi, sink = audited()
    with pytest.raises(ConfigurationError):
        seal_item(phi.session, patient(unknown={"S": "x"}), patients())
    (event,) = events(phi, sink)
    assert (event.kind, event.error) == ("use", "ConfigurationError")


def test_rule_19_plaintext_reads_are_marked_in_the_trail() -> None:
    phi, sink = audited()
    with pytest.raises(NotEncryptedError):
        open_item(phi.session, patient(), patients())
    allow = PlaintextPolicy.FORBID_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ
    open_item(phi.session, patient(), patients(plaintext_policy=allow, plaintext_reads_until=TODAY))
    refused, passed = events(phi, sink)
    assert (refused.format, refused.error) == ("plaintext", "NotEncryptedError")
    assert (passed.format, passed.outcome) == ("plaintext", "success")


def test_rule_20_a_failing_sink_stops_reads_before_any_key_is_asked() -> None:
    phi, sink = audited()
    stored = seal_item(phi.session, patient(), patients()).item
    phi.trail.flush()

    def fail(_: Any) -> None:
        raise OSError("full")

    sink.write = fail  # type: ignore[method-assign]
    without_keys: Any = dataclasses.replace(phi.session, provider=None)
    with pytest.raises(AuditError):
        open_item(without_keys, stored, patients())


def test_require_actor_refuses_items_without_one() -> None:
    phi, _ = audited(require_actor=True)
    with pytest.raises(AuditError):
        seal_item(phi.session, patient(), patients())
    with phi.acting_as("dr-4711"):
        stored = seal_item(phi.session, patient(), patients()).item
    with pytest.raises(AuditError):
        open_item(phi.session, stored, patients())
