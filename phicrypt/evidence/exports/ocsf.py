"""OCSF 1.5: Datastore Activity for objects and items, API Activity for messages, User Access for break-glass."""

from __future__ import annotations

from typing import Any, Final

from phicrypt._version import __version__
from phicrypt.audit.events import AuditEvent, Kind, Outcome, format_time
from phicrypt.evidence.exports.words import BREAK_GLASS, PRODUCT, request_ids, verb_of
from phicrypt.evidence.log_lines import Record

VERSION: Final = "1.5.0"
_SEVERITY: Final = {Outcome.SUCCESS: 1, Outcome.DENIED: 3}
_DATASTORE, _API, _ACCESS = 6005, 6003, 3005
_DATASTORE_ACTIVITY: Final = {"decrypt": 10, "encrypt": 9}
_BUCKET, _TABLE = 2, 3


def ocsf_event(record: Record, event: AuditEvent) -> dict[str, Any]:
    """One event as an OCSF event with profile ``cloud``."""
    if event.kind in BREAK_GLASS:
        opens = event.kind == Kind.BREAK_GLASS_OPEN
        activity = 1 if opens else 2 if event.kind == Kind.BREAK_GLASS_CLOSE else 99
        document = _base(record, event, _ACCESS, activity, severity=4 if opens else 1)
        document |= {"user": _user(event), "privileges": [f"break-glass {event.break_glass or ''}".strip()]}
        return document
    verb = verb_of(event)
    if event.resource is None or not event.operation.startswith(("s3.", "dynamodb.")):
        document = _base(record, event, _API, 99)
        document["activity_name"] = verb.capitalize()
        document["api"] = _api(event) or {"operation": event.operation, "service": {"name": PRODUCT}}
        if event.resource is not None:
            document["resources"] = [{"uid": event.resource}]
        return document
    document = _base(record, event, _DATASTORE, _DATASTORE_ACTIVITY[verb])
    if event.operation.startswith("s3."):
        document |= {"databucket": {"uid": event.resource, "type_id": _BUCKET}, "type_id": _BUCKET}
        if event.origin is not None:
            details = {"type": "client-side", "key_uid": event.origin.key_id}
            document["databucket"]["encryption_details"] = details
    else:
        document |= {"table": {"uid": event.resource}, "type_id": _TABLE}
    api = _api(event)
    return document | ({"api": api} if api else {})


def _base(
    record: Record, event: AuditEvent, class_uid: int, activity: int, severity: int | None = None
) -> dict[str, Any]:
    has_begun_only = event.outcome == Outcome.BEGUN
    succeeded = event.outcome == Outcome.SUCCESS
    document: dict[str, Any] = {
        "category_uid": class_uid // 1_000,
        "class_uid": class_uid,
        "activity_id": activity,
        "type_uid": class_uid * 100 + activity,
        "severity_id": severity if severity is not None else _SEVERITY.get(event.outcome, 2),
        "status_id": 99 if has_begun_only else 1 if succeeded else 2,
        "time": event.time_ns // 1_000_000,
        "metadata": {
            "version": VERSION,
            "product": {"name": PRODUCT, "vendor_name": PRODUCT, "version": __version__},
            "profiles": ["cloud"],
            "uid": f"{event.use_id}-{event.kind}",
            "event_code": event.operation,
            "original_time": format_time(event.time_ns),
            "log_name": record.chain_id,
            "sequence": record.sequence,
        },
        "cloud": {"provider": "AWS"},
        "actor": {"app_name": event.application or PRODUCT, "user": _user(event)},
        "src_endpoint": {"svc_name": event.application or PRODUCT},
        "unmapped": {PRODUCT: _unmapped(record, event)},
    }
    if event.principal:
        document["actor"]["session"] = {"issuer": event.principal}
    if event.origin is not None and event.origin.correlation_id:
        document["metadata"]["correlation_uid"] = event.origin.correlation_id
    if event.duration_us is not None:
        document["duration"] = event.duration_us // 1_000
    if not succeeded:
        code = event.reason or event.error
        document |= {"status_detail": "no end record" if has_begun_only else event.outcome}
        document |= {"status_code": code} if code else {}
    return document


def _user(event: AuditEvent) -> dict[str, Any]:
    return {"uid": event.actor or "nobody named", "type_id": 1 if event.actor else 0}


def _api(event: AuditEvent) -> dict[str, Any]:
    """The KMS call behind the use, by which CloudTrail's own records in a lake are found."""
    found = request_ids(event)
    if not found or event.origin is None:
        return {}
    return {
        "operation": event.origin.operation or event.operation,
        "service": {"name": "kms.amazonaws.com"},
        "request": {"uid": found[-1]},
    }


def _unmapped(record: Record, event: AuditEvent) -> dict[str, Any]:
    facts = {
        "sha256": record.sha256,
        "purpose": event.purpose,
        "recipient": event.recipient,
        "break_glass": event.break_glass,
        "cache_hit": event.cache_hit,
        "bytes": event.byte_count,
        "suite": event.suite_id,
        "message_id": event.message_id,
        "key": event.origin.key_id if event.origin is not None else None,
        "context": dict(event.context) if event.context else None,
        "kms_request_ids": list(request_ids(event)) or None,
    }
    return {name: value for name, value in facts.items() if value is not None}
