"""Which cached key goes when there is no room: no cliff where tenants come round in turn.

By least recent use, 1,000 tenants in the room of 1,000 cost nothing, and 1,100 in turn cost a fetch for each:
every key is dropped just before it is asked for again. Here a new key stands in a small queue first (S3-FIFO:
Yang and others, *FIFO queues are all you need for cache eviction*, 2023), and leaves it for good unless it
is used again, or comes back soon; the others stay. Fetches per 1,000 changes of tenant, bound 1,000
(``tests/keys/test_eviction.py``):

=====================  ===  ====
tenants                LRU  here
=====================  ===  ====
1,050 in turn        1,000   118
1,100 in turn        1,000   195
1,500 in turn        1,000   518
2,000, Zipf 1.0        127   112
10,000, Zipf 1.0       327   268
=====================  ===  ====

A tenant's turn is a burst of uses, and a burst is no sign of coming back: a use counts as another one only
after uses of others in number of a twentieth of the room.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, Protocol, TypeVar

_NEWCOMERS_SHARE: Final = 50
"""The small queue holds one fiftieth of the room."""
_BURST_SHARE: Final = 20
_MAX_RETURNS: Final = 3


class Evictable(Protocol):
    """What the order keeps with an entry: how often it came back, and at which use that was counted last."""

    returns: int
    counted_at: int


E = TypeVar("E", bound=Evictable)


class BoundedEntries(Generic[E]):
    """At most ``max_entries`` entries by key; not safe among threads.

    Attributes:
        by_key: the entries. Look them up here; add and drop by the methods.
    """

    __slots__ = (
        "_burst",
        "_established",
        "_left",
        "_max_entries",
        "_max_newcomers",
        "_newcomers",
        "_uses",
        "by_key",
    )

    def __init__(self, max_entries: int) -> None:
        self.by_key: dict[Hashable, E] = {}
        self._max_entries = max_entries
        self._max_newcomers = max(1, max_entries // _NEWCOMERS_SHARE)
        self._burst = max(1, max_entries // _BURST_SHARE)
        self._uses = 0
        self._newcomers: OrderedDict[Hashable, None] = OrderedDict()
        self._established: OrderedDict[Hashable, None] = OrderedDict()
        self._left: OrderedDict[int, None] = OrderedDict()
        """Hashes of keys that left the small queue not long ago; a wrong one costs one place in a queue."""

    def __len__(self) -> int:
        return len(self.by_key)

    def used(self, entry: E) -> None:
        """An entry was found and used."""
        uses = self._uses = self._uses + 1
        if uses - entry.counted_at > self._burst:
            entry.counted_at = uses
            if entry.returns < _MAX_RETURNS:
                entry.returns += 1

    def add(self, entry_key: Hashable, entry: E) -> int:
        """Keep a new entry, in the place of its former one; how many others had to go."""
        self.drop(entry_key)
        self._uses += 1
        entry.counted_at, entry.returns = self._uses, 0
        came_back = self._left.pop(hash(entry_key), self) is not self
        # The queue first: whatever interrupts this, nothing is held that no queue would let go.
        (self._established if came_back else self._newcomers)[entry_key] = None
        self.by_key[entry_key] = entry
        before = len(self.by_key)
        while len(self.by_key) > self._max_entries:
            self._let_one_go(entry_key)
        return before - len(self.by_key)

    def drop(self, entry_key: Hashable) -> None:
        """Forget an entry, if it is there."""
        self.by_key.pop(entry_key, None)
        self._newcomers.pop(entry_key, None)
        self._established.pop(entry_key, None)

    def _let_one_go(self, newest: Hashable) -> None:
        """Take a step towards more room, not at the newest entry's cost: drop one, or move it to where it is."""
        others_established = len(self._established) - (newest in self._established)
        if len(self._newcomers) > self._max_newcomers or not others_established:
            self._judge_newcomer()
            return
        oldest = next(iter(self._established))
        entry = self.by_key.get(oldest)
        if entry is not None and (entry.returns or oldest == newest):
            entry.returns = max(0, entry.returns - 1)
            self._established.move_to_end(oldest)
        else:
            self.by_key.pop(oldest, None)
            self._established.pop(oldest, None)

    def _judge_newcomer(self) -> None:
        # The queue last: what an interrupt leaves in by_key alone would never go, and would keep others out.
        oldest = next(iter(self._newcomers))
        entry = self.by_key.get(oldest)
        if entry is not None and entry.returns:
            entry.returns = 0
            self._established[oldest] = None
            self._newcomers.pop(oldest, None)
            return
        self.by_key.pop(oldest, None)
        self._newcomers.pop(oldest, None)
        self._left[hash(oldest)] = None
        if len(self._left) > self._max_entries:
            self._left.popitem(last=False)
