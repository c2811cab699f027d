"""What the audit trail wrote, by the call that caused it: each call acts under a name of its own."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from phicrypt.audit.events import AuditEvent, Kind, Outcome


@dataclass
class Uses:
    """The uses of one call.

    Attributes:
        ended: how many ended in each (operation, outcome).
        open: use ids that began and did not end.
        strays: use ids that ended twice, or without a beginning.
        request_ids: of every KMS call that an event names.
        unanswered: how many attempts an event says got no answer in time; a server may have answered all the same.
    """

    ended: Counter[tuple[str, str]] = field(default_factory=Counter)
    open: set[str] = field(default_factory=set)
    strays: list[str] = field(default_factory=list)
    request_ids: set[str] = field(default_factory=set)
    unanswered: int = 0

    def succeeded(self, operation: str) -> int:
        return self.ended[operation, Outcome.SUCCESS]

    def of(self, operation: str) -> int:
        """How many uses of this operation ended, however they went."""
        return sum(count for (name, _), count in self.ended.items() if name == operation)


class UsesOfCalls:
    """A sink that folds events into :class:`Uses`, and forgets what was taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uses: dict[str, Uses] = defaultdict(Uses)
        self.events = 0

    def write(self, events: Sequence[AuditEvent]) -> None:
        with self._lock:
            for event in events:
                self.events += 1
                if event.actor is not None:
                    _fold(self._uses[event.actor], event)

    def close(self) -> None:
        """Nothing to do."""

    def take(self, actor: str) -> Uses:
        with self._lock:
            return self._uses.pop(actor, Uses())

    @property
    def waiting(self) -> int:
        """How many callers' uses nobody took: events that came when their call was over."""
        with self._lock:
            return len(self._uses)


def _fold(uses: Uses, event: AuditEvent) -> None:
    if event.origin is not None:
        for call in (event.origin, *event.origin.other_calls):
            uses.request_ids.update(call.request_ids)
            uses.unanswered += call.unanswered_attempts
    if event.kind == Kind.BEGIN:
        uses.open.add(event.use_id)
        return
    if event.kind == Kind.END:
        if event.use_id not in uses.open:
            uses.strays.append(event.use_id)
        uses.open.discard(event.use_id)
    uses.ended[event.operation, event.outcome] += 1
