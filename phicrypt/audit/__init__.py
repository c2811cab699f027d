"""The audit trail: events, who acts and why, and sinks with hash chains.

Each name is loaded when it is first used. Anchors in CloudTrail, resource tokens, verification, the join and
break-glass are in :mod:`phicrypt.witness`, :mod:`phicrypt.evidence` and :mod:`phicrypt.recovery.break_glass`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicrypt._lazy import lazy_names

if TYPE_CHECKING:
    from phicrypt.audit.acting import acting_as
    from phicrypt.audit.delivery import BUFFERED, WRITE_THROUGH, AuditSink, Delivery, SinkError, WithPolicy
    from phicrypt.audit.events import AuditEvent, Purpose
    from phicrypt.audit.sessions import assume_role
    from phicrypt.audit.sinks.cloud import CloudWatchLogsSink, S3SegmentSink
    from phicrypt.audit.sinks.jsonl import JsonlSink
    from phicrypt.audit.sinks.memory import LoggingSink, RecordingSink
    from phicrypt.audit.sinks.stdout import StdoutSink
    from phicrypt.audit.trail import AuditTrail, Use

_HOMES = {
    "AuditEvent": "phicrypt.audit.events",
    "AuditSink": "phicrypt.audit.delivery",
    "AuditTrail": "phicrypt.audit.trail",
    "BUFFERED": "phicrypt.audit.delivery",
    "CloudWatchLogsSink": "phicrypt.audit.sinks.cloud",
    "Delivery": "phicrypt.audit.delivery",
    "JsonlSink": "phicrypt.audit.sinks.jsonl",
    "LoggingSink": "phicrypt.audit.sinks.memory",
    "Purpose": "phicrypt.audit.events",
    "RecordingSink": "phicrypt.audit.sinks.memory",
    "S3SegmentSink": "phicrypt.audit.sinks.cloud",
    "SinkError": "phicrypt.audit.delivery",
    "StdoutSink": "phicrypt.audit.sinks.stdout",
    "Use": "phicrypt.audit.trail",
    "WRITE_THROUGH": "phicrypt.audit.delivery",
    "WithPolicy": "phicrypt.audit.delivery",
    "acting_as": "phicrypt.audit.acting",
    "assume_role": "phicrypt.audit.sessions",
}

_MOVED = {
    "AnchoredSink": "phicrypt.witness.anchors",
    "ResourceTokens": "phicrypt.witness.token_keys",
    "record_review": "phicrypt.recovery.break_glass",
}

__all__ = [
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
    "S3SegmentSink",
    "SinkError",
    "StdoutSink",
    "Use",
    "WRITE_THROUGH",
    "WithPolicy",
    "acting_as",
    "assume_role",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES, _MOVED)
