"""What the tests of the audit trail have in common."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Sequence

from phicrypt import PhiCrypt
from phicrypt.audit import AuditEvent, RecordingSink


def uses_of(events: Sequence[AuditEvent]) -> list[list[AuditEvent]]:
    """The events by use, after checking that each use is whole: one event, or begin and end."""
    by_use: dict[str, list[AuditEvent]] = defaultdict(list)
    for event in events:
        by_use[event.use_id].append(event)
    for group in by_use.values():
        kinds = [event.kind for event in group]
        assert kinds in (["use"], ["begin", "end"]), kinds
        assert group[-1].outcome != "begun"
        assert {event.operation for event in group} == {group[0].operation}
    return list(by_use.values())


def public_names(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def ends_of(phi: PhiCrypt, sink: RecordingSink) -> list[AuditEvent]:
    """The last event of each use since the last call, after checking that each is whole."""
    assert phi.trail is not None
    gc.collect()
    phi.trail.flush()
    events, sink.events = sink.events, []
    assert not any("jane" in event.to_json().lower() for event in events)
    return [use[-1] for use in uses_of(events)]
