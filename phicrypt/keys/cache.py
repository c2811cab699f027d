"""One bounded cache with single flight, for data keys and for branch keys.

An entry ends by age, by the number of messages or bytes it has served, by the bound on entries, or
by a purge. A hit never extends its age. Many callers that miss the same entry at once make one load
(a *flight*); a failed flight is not kept, and later callers load again (rule 12).

Nothing is loaded under the lock. A flight carries the cache's generation: what it brings back after
``clear()`` or a purge is neither stored nor returned, because the caller who cleared the cache (to
make a revocation bite) must not be handed a key from before.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

from phicrypt.core.materials import KeyHolder
from phicrypt.core.steps import Leading, Steps, run
from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.keys.eviction import BoundedEntries
from phicrypt.keys.flights import Flight, without_traceback

T = TypeVar("T")

_log = logging.getLogger("phicrypt.keys")
_CEILINGS: Final = {
    "max_age_seconds": 24 * 60 * 60,
    "max_messages": 2**32,
    "max_bytes": 2**63 - 1,
    "max_entries": 100_000,
}


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Bounds on cached keys, each with a hard ceiling.

    Attributes:
        max_age_seconds: how long a key may be used after it was fetched; revoking access in KMS
            takes effect within this time. Ceiling 86,400.
        max_messages: messages encrypted under one data key. Ceiling 2**32
            (``framework/caching-cmm.md``, "Limit Messages").
        max_bytes: plaintext bytes encrypted under one data key. Ceiling 2**63 - 1.
        max_entries: entries at once; what goes first, see :mod:`phicrypt.keys.eviction`. An entry takes
            about 3 KB (a key to seal with) or 4 KB (to open with; more under long contexts). Ceiling 100,000.
    """

    max_age_seconds: float = 300
    max_messages: int = 10_000
    max_bytes: int = 2**36
    max_entries: int = 1_000

    def __post_init__(self) -> None:
        for name, ceiling in _CEILINGS.items():
            value = getattr(self, name)
            whole = name != "max_age_seconds"
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise ConfigurationError(f"CachePolicy.{name} is a {'whole ' if whole else ''}number")
            if not 0 < value <= ceiling:
                raise ConfigurationError(f"CachePolicy.{name} is above 0 and at most {ceiling}, {value} came")


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counts since the cache was made (or since the fork).

    Attributes:
        entries: entries held now.
        hits, misses: look-ups that found, and did not find, a usable entry.
        coalesced: misses that waited for another caller's flight instead of loading.
        evictions: entries dropped, by reason: ``age``, ``messages``, ``bytes``, ``entries``, ``purged``.
        is_too_small: whether more entries were dropped for want of room than found: raise ``max_entries``.
    """

    entries: int
    hits: int
    misses: int
    coalesced: int
    evictions: dict[str, int]
    is_too_small: bool = False


def _seconds_awake_or_asleep() -> float:
    """Like ``time.monotonic``, but a key also ages while the machine is suspended, where the system can tell."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if _HAS_BOOTTIME else time.monotonic()


_HAS_BOOTTIME: Final = hasattr(time, "CLOCK_BOOTTIME")


class _Entry(Generic[T]):
    __slots__ = ("byte_count", "counted_at", "deadline", "messages", "returns", "tag", "value")

    def __init__(self, value: T, deadline: float, tag: str | None) -> None:
        self.value = value
        self.deadline = deadline
        self.tag = tag
        self.messages = 0
        self.byte_count = 0
        self.returns = 0
        self.counted_at = 0


_caches: weakref.WeakSet[KeyCache[Any]] = weakref.WeakSet()


class KeyCache(KeyHolder, Generic[T]):
    """Bounded, single-flight, safe for threads, empty in the child after a fork.

    Args:
        policy: the bounds.
        clock: seconds that only grow, also while the machine sleeps.
    """

    def __init__(self, policy: CachePolicy, *, clock: Callable[[], float] = _seconds_awake_or_asleep) -> None:
        self.policy = policy
        self._clock = clock
        self._generation = 0
        self._reset()
        _caches.add(self)

    def __repr__(self) -> str:
        return f"<KeyCache of {len(self._entries)} entries>"

    def _reset(self) -> None:
        # A signal handler or finalizer may come in the middle and use the cache in the same thread.
        self._lock = threading.RLock()
        self._entries: BoundedEntries[_Entry[T]] = BoundedEntries(self.policy.max_entries)
        self._has_warned = False
        self._flights: dict[Hashable, Flight] = {}
        self._counts: Counter[str] = Counter()
        self._evictions: Counter[str] = Counter()
        self._hits = 0
        self._generation += 1

    def get_or_load(
        self,
        cache_key: Hashable,
        load: Callable[[], T],
        *,
        prepare: Callable[[], None] | None = None,
        byte_count: int = 0,
        tag_of: Callable[[T], str | None] | None = None,
    ) -> tuple[T, bool]:
        """The cached value and True, or a freshly loaded one and False.

        The use of one message and ``byte_count`` bytes is charged atomically, for waiters as well.

        Args:
            cache_key: everything that tells this key from another (rule 11).
            load: fetches the value; called without the lock, by one caller at a time for one key.
            prepare: called without the lock before a flight begins, by every caller that missed;
                user code belongs here, never into ``load``.
            byte_count: plaintext bytes of this use; 0 where unknown (see :meth:`charge`).
            tag_of: what :meth:`purge` finds the value by, such as its KMS key ARN.

        Raises whatever ``load`` raises. An ``Exception`` of a flight is raised in each of its waiters;
        after a leader's ``KeyboardInterrupt`` or ``SystemExit`` a waiter loads by itself.
        """
        value = self.find(cache_key, byte_count)
        if value is not None:  # no generator on the hot path
            return value, True
        return run(
            self.load_steps(
                cache_key, partial(_at_once, load), prepare=prepare, byte_count=byte_count, tag_of=tag_of
            )
        )

    def load_steps(
        self,
        cache_key: Hashable,
        load: Callable[[], Steps[T]],
        *,
        prepare: Callable[[], None] | None = None,
        byte_count: int = 0,
        tag_of: Callable[[T], str | None] | None = None,
    ) -> Steps[tuple[T, bool]]:
        """:meth:`get_or_load` as steps; ``load`` gives the steps that fetch the value."""
        value = self.find(cache_key, byte_count)
        if value is not None:
            return value, True
        with self._lock:
            self._counts["misses"] += 1
        if prepare is not None:
            prepare()
        while True:
            own = Flight(self._count_coalesced)
            try:
                with self._lock:
                    entry = self._usable(cache_key, byte_count)
                    if entry is not None:
                        return entry.value, True
                    flight = self._flights.setdefault(cache_key, own)
                    own.generation = self._generation
                if flight is own or not (yield flight):
                    yield Leading(partial(self._give_up, cache_key, own))
                    landed = yield from self._fly(cache_key, own, load, byte_count, tag_of)
                    if landed is not None:
                        return landed[0], False
                    if own.is_given_up:
                        raise KeyAccessError(
                            "the cache was cleared under a load that nobody waits for",
                            operation="",
                            code="CacheCleared",
                        )
                    continue
            finally:
                # Here, not in _fly: an interrupt before its first line must not leave waiters waiting.
                self._land(cache_key, own)
            if flight.error is not None:
                raise without_traceback(flight.error)

    def _count_coalesced(self) -> None:
        with self._lock:
            self._counts["coalesced"] += 1

    def find(self, cache_key: Hashable, byte_count: int = 0) -> T | None:
        """The cached value, charged for one use, or None: the hot path, one lock and no load."""
        with self._lock:
            entry = self._usable(cache_key, byte_count)
            return entry.value if entry is not None else None

    def charge(self, cache_key: Hashable, value: T, byte_count: int) -> None:
        """Charge bytes of a stream as they pass; once a bound is reached, the next message misses."""
        with self._lock:
            entry = self._entries.by_key.get(cache_key)
            if entry is not None and entry.value is value:
                entry.byte_count += byte_count

    def forget(self, cache_key: Hashable) -> None:
        """Forget one value."""
        with self._lock:
            self._entries.drop(cache_key)

    def clear(self) -> None:
        """Forget everything; a flight that is under way will not be stored or returned."""
        self._purge_if(lambda entry: True)

    def purge(self, tag: str) -> None:
        """Forget every value with this tag (a KMS key ARN, a branch key id), flights included."""
        self._purge_if(lambda entry: entry.tag == tag)

    def stats(self) -> CacheStats:
        """A snapshot of the counts."""
        with self._lock:
            return CacheStats(
                len(self._entries),
                self._hits,
                self._counts["misses"],
                self._counts["coalesced"],
                dict(sorted((+self._evictions).items())),
                self._is_too_small(),
            )

    def _usable(self, cache_key: Hashable, byte_count: int) -> _Entry[T] | None:
        """The entry, charged for one use, or None; call with the lock held."""
        entry = self._entries.by_key.get(cache_key)
        if entry is None:
            return None
        if (
            self._clock() < entry.deadline
            and entry.messages < self.policy.max_messages
            and entry.byte_count < self.policy.max_bytes
            and entry.byte_count + byte_count <= self.policy.max_bytes
        ):
            entry.messages += 1
            entry.byte_count += byte_count
            self._entries.used(entry)
            self._hits += 1
            return entry
        self._entries.drop(cache_key)
        self._evictions[self._why_spent(entry)] += 1
        return None

    def _why_spent(self, entry: _Entry[T]) -> str:
        if self._clock() >= entry.deadline:
            return "age"
        return "messages" if entry.messages >= self.policy.max_messages else "bytes"

    def _fly(
        self,
        cache_key: Hashable,
        flight: Flight,
        load: Callable[[], Steps[T]],
        byte_count: int,
        tag_of: Callable[[T], str | None] | None,
    ) -> Steps[tuple[T] | None]:
        """Lead a flight. None if the cache was cleared meanwhile: the caller looks again."""
        # The age counts from before the call: the answer of a slow call is not young.
        deadline = self._clock() + self.policy.max_age_seconds
        try:
            value = yield from load()
            tag = tag_of(value) if tag_of is not None else None
        except Exception as error:
            flight.error = error
            raise
        with self._lock:
            if flight.generation != self._generation:
                return None
            if flight.is_given_up and cache_key in self._entries.by_key:
                return (value,)  # somebody loaded it anew meanwhile: that one is younger
            self._store(cache_key, _Entry(value, deadline, tag), byte_count)
            is_news = self._is_too_small() and not self._has_warned
            self._has_warned |= is_news
        if is_news:  # without the lock: a handler of logs is anybody's code
            _log.warning(
                "a cache of keys drops more of them for want of room than it finds: raise max_entries above %d",
                self.policy.max_entries,
            )
        return (value,)

    def _is_too_small(self) -> bool:
        return self._evictions["entries"] > max(self._hits, self.policy.max_entries)

    def _give_up(self, cache_key: Hashable, flight: Flight, error: KeyAccessError | None) -> None:
        """The leader's caller waits no longer, so nobody does: with its error, or after an interrupt to load anew.

        The load goes on. What it brings is kept if the generation still holds.
        """
        with self._lock:
            if flight.done.is_set():
                return
            flight.is_given_up, flight.error = True, error
        self._land(cache_key, flight)

    def _land(self, cache_key: Hashable, flight: Flight) -> None:
        """The flight is over, whatever came of it; nothing for one that never took off."""
        try:
            with self._lock:
                if self._flights.get(cache_key) is flight:
                    del self._flights[cache_key]
        finally:
            flight.land()

    def _store(self, cache_key: Hashable, entry: _Entry[T], byte_count: int) -> None:
        entry.messages = 1
        entry.byte_count = byte_count
        self._evictions["entries"] += self._entries.add(cache_key, entry)

    def _purge_if(self, condition: Callable[[_Entry[T]], bool]) -> None:
        with self._lock:
            doomed = [cache_key for cache_key, entry in list(self._entries.by_key.items()) if condition(entry)]
            for cache_key in doomed:
                self._entries.drop(cache_key)
            self._evictions["purged"] += len(doomed)
            # A flight's value is not known yet, so every flight under way belongs to the past now.
            self._generation += 1
            self._flights.clear()


def _at_once(load: Callable[[], T]) -> Steps[T]:
    """Steps that need nothing from anybody."""
    yield from ()
    return load()


def _forget_parents_keys() -> None:
    for cache in list(_caches):
        cache._reset()


# The child must not share keys, locks that a thread of the parent held, or flights that nobody flies.
os.register_at_fork(after_in_child=_forget_parents_keys)
