"""The audit trail: events, sinks with hash chains, anchors in CloudTrail, and the join of both sides.

Each name is loaded when it is first used. Verification, the join and break-glass are in
:mod:`phicrypt.audit.verify`, :mod:`phicrypt.audit.join` and :mod:`phicrypt.audit.break_glass`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phicrypt.audit.acting import acting_as
    from phicrypt.audit.anchors import AnchoredSink
    from phicrypt.audit.break_glass import record_review
    from phicrypt.audit.cloud_sinks import CloudWatchLogsSink, S3SegmentSink
    from phicrypt.audit.delivery import BUFFERED, WRITE_THROUGH, AuditSink, Delivery, SinkError, WithPolicy
    from phicrypt.audit.events import AuditEvent, Purpose
    from phicrypt.audit.jsonl import JsonlSink
    from phicrypt.audit.resources import ResourceTokens
    from phicrypt.audit.sessions import assume_role
    from phicrypt.audit.sinks import LoggingSink, RecordingSink
    from phicrypt.audit.trail import AuditTrail, Use

_HOMES = {
    "AnchoredSink": "phicrypt.audit.anchors",
    "AuditEvent": "phicrypt.audit.events",
    "AuditSink": "phicrypt.audit.delivery",
    "AuditTrail": "phicrypt.audit.trail",
    "BUFFERED": "phicrypt.audit.delivery",
    "CloudWatchLogsSink": "phicrypt.audit.cloud_sinks",
    "Delivery": "phicrypt.audit.delivery",
    "JsonlSink": "phicrypt.audit.jsonl",
    "LoggingSink": "phicrypt.audit.sinks",
    "Purpose": "phicrypt.audit.events",
    "RecordingSink": "phicrypt.audit.sinks",
    "ResourceTokens": "phicrypt.audit.resources",
    "S3SegmentSink": "phicrypt.audit.cloud_sinks",
    "SinkError": "phicrypt.audit.delivery",
    "Use": "phicrypt.audit.trail",
    "WRITE_THROUGH": "phicrypt.audit.delivery",
    "WithPolicy": "phicrypt.audit.delivery",
    "acting_as": "phicrypt.audit.acting",
    "assume_role": "phicrypt.audit.sessions",
    "record_review": "phicrypt.audit.break_glass",
}

__all__ = [
    "AnchoredSink",
    "AuditEvent",
    "AuditSink",
    "AuditTrail",
    "BUFFERED",
    "CloudWatchLogsSink",
    "Delivery",
    "JsonlSink",
    "LoggingSink",
    "Purpose",
    "RecordingSink",
    "ResourceTokens",
    "S3SegmentSink",
    "SinkError",
    "Use",
    "WRITE_THROUGH",
    "WithPolicy",
    "acting_as",
    "assume_role",
    "record_review",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'phicrypt.audit' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
