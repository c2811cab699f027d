"""What the tests of the audit trail have in common."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from phicrypt.audit import AuditEvent


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
