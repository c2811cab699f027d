"""KMS's last use of each key, compared with the log: a foreign use is found without any trail.

::

    comparison = LastUseComparison([ask_last_use(client, key_arn)])
    for event in log_events("audit.jsonl"):
        comparison.add(event)
    for found in comparison.findings():
        found.key_arn, found.word, found.note

Its limits: one use per key, the last. A foreign use is hidden by the next use of ours, so ask often, or where
a key should not be used at all. What was refused is not a use. Uses with cached keys never reach KMS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from phicrypt.audit.events import AuditEvent, format_time
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.evidence.cloudtrail import CLOCKS_DIFFER_NS
from phicrypt.witness.last_use import LastUse

OURS: Final = "ours"
PROBABLE: Final = "probably ours"
FOREIGN: Final = "not in the log"
CONTRADICTED: Final = "exception"
UNUSED: Final = "no use known"
_BEHIND_NS: Final = 24 * 3_600 * 10**9
"""KMS tells no delay; a use of ours that it does not know after a day is none."""


class LastUseFinding(NamedTuple):
    """What was found for one key.

    Attributes:
        use: what KMS says.
        word: one of this module's words.
        note: why, or what it does not show.
    """

    use: LastUse
    word: str
    note: str

    @property
    def needs_explanation(self) -> bool:
        """Whether somebody has to say what happened."""
        return self.word in (FOREIGN, CONTRADICTED)

    def as_dict(self) -> dict[str, Any]:
        """For JSON and tables."""
        return {
            "key": self.use.key_arn,
            "finding": self.word,
            "operation": self.use.operation,
            "time": format_time(self.use.time_ns) if self.use.operation else "",
            "request_id": self.use.request_id,
            "event_id": self.use.event_id,
            "note": self.note,
        }


@dataclass(slots=True)
class _Seen:
    """What the log holds of one key."""

    use: LastUse
    call: KeyOrigin | None = None
    has_unanswered: bool = False
    newest_call_ns: int = 0


@dataclass(slots=True)
class LastUseComparison:
    """Takes every event of the log, then answers; memory does not grow with the log.

    Args:
        uses: KMS's answers, one per key.
    """

    uses: Iterable[LastUse]
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _by_request: dict[str, _Seen] = field(default_factory=dict)
    _newest_ns: int = 0

    def __post_init__(self) -> None:
        for use in self.uses:
            seen = self._seen[use.key_arn] = _Seen(use)
            if use.request_id:
                self._by_request[use.request_id] = seen

    def add(self, event: AuditEvent) -> None:
        """One event of the log."""
        self._newest_ns = max(self._newest_ns, event.time_ns)
        if event.origin is None:
            return
        for call in (event.origin, *event.origin.other_calls):
            for request_id in call.request_ids:
                if (named := self._by_request.get(request_id)) is not None:
                    named.call = call
            seen = self._seen.get(_key_arn(call))
            if seen is None:
                continue
            is_near = abs(event.time_ns - seen.use.time_ns) <= CLOCKS_DIFFER_NS
            if (
                call.operation == seen.use.operation
                and is_near
                and (call.unanswered_attempts or not call.request_ids)
            ):
                seen.has_unanswered = True
            if call.request_ids and call.error_code is None and event.cache_hit is not True:
                seen.newest_call_ns = max(seen.newest_call_ns, event.time_ns)

    def findings(self) -> Iterator[LastUseFinding]:
        """What was found, per key in the order of the questions."""
        for seen in self._seen.values():
            word, note = self._judge(seen)
            yield LastUseFinding(seen.use, word, note)

    def _judge(self, seen: _Seen) -> tuple[str, str]:
        use, call = seen.use, seen.call
        if seen.newest_call_ns > max(use.time_ns, use.tracked_since_ns) + _BEHIND_NS:
            return (
                CONTRADICTED,
                f"the log claims a call at {format_time(seen.newest_call_ns)}, which KMS does not know",
            )
        if not use.operation:
            return UNUSED, f"KMS tracks the key since {format_time(use.tracked_since_ns)}"
        if call is not None:
            for what, ours, told in (
                ("key", _key_arn(call), use.key_arn),
                ("operation", call.operation, use.operation),
            ):
                if ours != told:
                    return CONTRADICTED, f"the request id is ours, the {what} differs"
            return OURS, "earlier uses by others are not excluded"
        if seen.has_unanswered:
            return PROBABLE, "a call of ours of that time got no answer, and so no request id"
        if use.time_ns > self._newest_ns:
            return FOREIGN, f"it is newer than the log, which ends at {format_time(self._newest_ns)}"
        return FOREIGN, "look for the event id in CloudTrail: it names the caller"


def _key_arn(call: KeyOrigin) -> str:
    return call.key_id.partition("#")[0]
