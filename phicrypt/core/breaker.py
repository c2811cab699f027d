"""A breaker for each endpoint and its credentials: who does not answer is not asked for a short while (rule 29).

Outages are counted, refusals never: a denied call, a malformed row, an answer to another question is an
answer, so whoever writes rows or policies opens no breaker. After three outages in a row calls are refused
at once for about two seconds; then one call is let through, and its answer decides for all.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

OUTAGES_TO_OPEN: Final = 3
OPEN_SECONDS: Final = 2.0
_JITTER: Final = 0.25
"""Processes that lost an endpoint together do not come back together."""

_log = logging.getLogger("phicrypt.keys")


@dataclass(frozen=True, slots=True)
class EndpointStats:
    """What is known of one endpoint, under one client's credentials.

    Attributes:
        service: ``"KMS"``, or ``"DynamoDB"`` for a branch key store's table.
        region: of the endpoint; None for that of the client.
        state: ``"closed"`` (asked), ``"open"`` (not asked for now) or ``"half-open"`` (one call tries it).
        outages_in_a_row: calls without an answer since the last answer.
        outages: since the process began, or the fork.
        refused: calls that were not made because of them.
    """

    service: str
    region: str | None
    state: Literal["closed", "open", "half-open"]
    outages_in_a_row: int
    outages: int
    refused: int


class Attempt:
    """One call that is under way. The first :meth:`end` counts; a later one changes nothing."""

    __slots__ = ("_breaker", "_is_ended", "_is_probe")

    def __init__(self, breaker: Breaker, *, is_probe: bool) -> None:
        self._breaker = breaker
        self._is_probe = is_probe
        self._is_ended = False

    def end(self, *, was_outage: bool | None) -> None:
        """It is over; None where nobody knows whether an answer came."""
        if not self._is_ended:
            self._is_ended = True
            self._breaker._ended(was_outage=was_outage, was_probe=self._is_probe)


class Breaker:
    """See the module's head. Safe to share among threads.

    Args:
        service, region: for statistics and logs.
        clock: seconds that only grow.
        jitter: a random number from -1 to 1.
    """

    def __init__(
        self,
        service: str,
        region: str | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = lambda: random.uniform(-1, 1),  # noqa: S311 - not a secret
    ) -> None:
        self.service = service
        self.region = region
        self._clock = clock
        self._jitter = jitter
        self._lock = threading.RLock()
        self._in_a_row = self._outages = self._refused = 0
        self._open_until: float | None = None
        self._has_probe = False

    def begin(self) -> Attempt | None:
        """An attempt that may be made now; None while the endpoint is left alone."""
        with self._lock:
            is_probe = self._open_until is not None
            if self._open_until is not None:
                if self._has_probe or self._clock() < self._open_until:
                    self._refused += 1
                    return None
                self._has_probe = True
        return Attempt(self, is_probe=is_probe)

    def stats(self) -> EndpointStats:
        """A snapshot."""
        with self._lock:
            state: Literal["closed", "open", "half-open"] = "closed"
            if self._open_until is not None:
                state = "half-open" if self._has_probe else "open"
            return EndpointStats(self.service, self.region, state, self._in_a_row, self._outages, self._refused)

    def _ended(self, *, was_outage: bool | None, was_probe: bool) -> None:
        with self._lock:
            was_open = self._open_until is not None
            self._has_probe &= not was_probe
            if was_outage:
                self._in_a_row += 1
                self._outages += 1
                if self._in_a_row >= OUTAGES_TO_OPEN:
                    self._open_until = self._clock() + OPEN_SECONDS * (1 + _JITTER * self._jitter())
            elif was_outage is not None:
                self._in_a_row, self._open_until = 0, None
            is_open, in_a_row = self._open_until is not None, self._in_a_row
        # Without the lock: a handler of logs is anybody's code.
        if is_open and not was_open:
            _log.warning(
                "%s in %s gave no answer %d times in a row: for about %g seconds nobody asks it, then one call",
                self.service,
                self.region or "the client's Region",
                in_a_row,
                OPEN_SECONDS,
            )
        elif was_open and not is_open:
            _log.info("%s in %s answers again", self.service, self.region or "the client's Region")


class Breakers:
    """The breakers of one client's credentials: one for each service and Region."""

    def __init__(self) -> None:
        self._by_endpoint: dict[tuple[str, str | None], Breaker] = {}
        _all_breakers.add(self)

    def of(self, service: str, region: str | None) -> Breaker:
        """That of an endpoint."""
        found = self._by_endpoint.get((service, region))
        return found or self._by_endpoint.setdefault((service, region), Breaker(service, region))

    def stats(self) -> tuple[EndpointStats, ...]:
        """Of every endpoint that was asked."""
        return tuple(breaker.stats() for breaker in list(self._by_endpoint.values()))


_all_breakers: weakref.WeakSet[Breakers] = weakref.WeakSet()


def _forget_parents_breakers() -> None:
    for breakers in list(_all_breakers):
        breakers._by_endpoint = {}


# A thread of the parent may have held a lock, or made the one call that tries an endpoint.
os.register_at_fork(after_in_child=_forget_parents_breakers)
