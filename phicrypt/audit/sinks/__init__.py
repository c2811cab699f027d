"""Where audit events go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicrypt._lazy import lazy_names

if TYPE_CHECKING:
    from phicrypt.audit.sinks.cloud import CloudWatchLogsSink, S3SegmentSink
    from phicrypt.audit.sinks.jsonl import JsonlSink
    from phicrypt.audit.sinks.memory import LoggingSink, RecordingSink
    from phicrypt.audit.sinks.stdout import StdoutSink

_HOMES = {
    "CloudWatchLogsSink": "phicrypt.audit.sinks.cloud",
    "JsonlSink": "phicrypt.audit.sinks.jsonl",
    "LoggingSink": "phicrypt.audit.sinks.memory",
    "RecordingSink": "phicrypt.audit.sinks.memory",
    "S3SegmentSink": "phicrypt.audit.sinks.cloud",
    "StdoutSink": "phicrypt.audit.sinks.stdout",
}

__all__ = [
    "CloudWatchLogsSink",
    "JsonlSink",
    "LoggingSink",
    "RecordingSink",
    "S3SegmentSink",
    "StdoutSink",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
