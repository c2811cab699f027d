"""The audit trail: events, sinks with hash chains, anchors in CloudTrail, and the join of both sides.

Each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phicrypt.audit.delivery import BUFFERED, WRITE_THROUGH, AuditSink, Delivery, WithPolicy
    from phicrypt.audit.events import AuditEvent, Purpose
    from phicrypt.audit.jsonl import JsonlSink
    from phicrypt.audit.resources import ResourceTokens
    from phicrypt.audit.trail import AuditTrail, Use, acting_as

_HOMES = {
    "BUFFERED": "phicrypt.audit.delivery",
    "WRITE_THROUGH": "phicrypt.audit.delivery",
    "AuditEvent": "phicrypt.audit.events",
    "AuditSink": "phicrypt.audit.delivery",
    "AuditTrail": "phicrypt.audit.trail",
    "Delivery": "phicrypt.audit.delivery",
    "JsonlSink": "phicrypt.audit.jsonl",
    "Purpose": "phicrypt.audit.events",
    "ResourceTokens": "phicrypt.audit.resources",
    "Use": "phicrypt.audit.trail",
    "WithPolicy": "phicrypt.audit.delivery",
    "acting_as": "phicrypt.audit.trail",
}

__all__ = [
    "BUFFERED",
    "WRITE_THROUGH",
    "AuditEvent",
    "AuditSink",
    "AuditTrail",
    "Delivery",
    "JsonlSink",
    "Purpose",
    "ResourceTokens",
    "Use",
    "WithPolicy",
    "acting_as",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'phicrypt.audit' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
