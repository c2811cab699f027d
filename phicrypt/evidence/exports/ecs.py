"""Elastic Common Schema, 8.17: one document for each event."""

from __future__ import annotations

from typing import Any, Final

from phicrypt.audit.events import AuditEvent, Kind, Outcome, format_time
from phicrypt.evidence.exports.words import BREAK_GLASS, PRODUCT, request_ids, verb_of
from phicrypt.evidence.log_lines import Record

VERSION: Final = "8.17.0"
_OUTCOMES: Final = {Outcome.SUCCESS: "success", Outcome.BEGUN: "unknown"}


def ecs_document(record: Record, event: AuditEvent) -> dict[str, Any]:
    """One event as an ECS document."""
    about: dict[str, Any] = {
        "id": f"{event.use_id}-{event.kind}",
        "kind": "event",
        "action": event.operation,
        "outcome": _OUTCOMES.get(event.outcome, "failure"),
        "dataset": f"{PRODUCT}.audit",
        "sequence": record.sequence,
        "hash": record.sha256,
        **_kind_of(event),
    }
    if event.reason:
        about["reason"] = event.reason
    if event.duration_us is not None:
        about["duration"] = event.duration_us * 1_000
    document: dict[str, Any] = {
        "@timestamp": format_time(event.time_ns),
        "ecs": {"version": VERSION},
        "event": about,
        "service": {"name": event.application or PRODUCT},
        "labels": _labels(record, event),
    }
    if event.actor or event.principal:
        document["user"] = {"id": event.actor} if event.actor else {}
        if event.principal:
            document["user"]["effective"] = {"id": event.principal}
        document["related"] = {"user": [one for one in (event.actor, event.recipient) if one]}
    if event.resource:
        document.setdefault("related", {})["hash"] = [event.resource]
    if event.error:
        document["error"] = {"type": event.error} | ({"code": event.reason} if event.reason else {})
    if event.origin is not None and event.origin.correlation_id:
        document["transaction"] = {"id": event.origin.correlation_id}
    if event.context and "tenant" in event.context:
        document["organization"] = {"id": event.context["tenant"]}
    return document


def _kind_of(event: AuditEvent) -> dict[str, list[str]]:
    if event.kind in BREAK_GLASS:
        kinds = {Kind.BREAK_GLASS_OPEN: "start", Kind.BREAK_GLASS_CLOSE: "end"}
        return {"category": ["iam"], "type": ["admin", kinds.get(event.kind, "info")]}
    category = "database" if event.operation.startswith("dynamodb.") else "file"
    if verb_of(event) == "decrypt":
        return {"category": [category], "type": ["access"]}
    return {"category": [category], "type": ["change" if "update" in event.operation else "creation"]}


def _labels(record: Record, event: AuditEvent) -> dict[str, Any]:
    facts = {
        "chain": record.chain_id,
        "purpose": event.purpose,
        "recipient": event.recipient,
        "break_glass": event.break_glass,
        "resource": event.resource,
        "key": event.origin.key_id if event.origin is not None else None,
        "kms_request_ids": ",".join(request_ids(event)) or None,
        "cache_hit": event.cache_hit,
        "bytes": event.byte_count,
        "message_id": event.message_id,
    }
    facts |= {f"context_{name}": value for name, value in (event.context or {}).items()}
    return {name: value for name, value in facts.items() if value is not None}
