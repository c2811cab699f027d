"""What may be read: of each place the values that are possible after what was acknowledged, and what was not."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()
"""Nothing stands there."""
_HISTORY: Final = 40


@dataclass
class Place:
    """One object, item or key.

    Attributes:
        possible: what may stand there: the last acknowledged value, and every later one whose outcome is unknown.
        earlier: values that stood there once.
    """

    name: Hashable
    possible: set[Any] = field(default_factory=lambda: {ABSENT})
    earlier: deque[Any] = field(default_factory=lambda: deque(maxlen=_HISTORY))

    def may_become(self, value: Any) -> None:
        """A write begins."""
        self.earlier.extend(self.possible - {value})
        self.possible.add(value)

    def became(self, value: Any) -> None:
        """A write was acknowledged."""
        self.earlier.extend(self.possible - {value})
        self.possible = {value}


@dataclass
class Ledger:
    """Judges what was read, and counts.

    Attributes:
        violations: what must not happen: its class and what is known of it.
        counts: what happened, by class; what no client can tell is counted apart (``"apart: …"``).
    """

    places: dict[Hashable, Place] = field(default_factory=dict)
    violations: list[tuple[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def place(self, *name: Hashable) -> Place:
        return self.places.setdefault(name, Place(name))

    def violated(self, kind: str, what: str) -> None:
        self.counts[f"VIOLATION {kind}"] += 1
        if len(self.violations) < 200:
            self.violations.append((kind, what))

    def judge_read(self, place: Place, value: Any, *, was_lied_to: bool) -> None:
        """A read gave this value; ``was_lied_to`` if a whole, well-formed lie was among the answers."""
        if value in place.possible:
            self.counts["read: right"] += 1
        elif was_lied_to and value is ABSENT:
            self.counts["apart: absent, since a whole answer said so"] += 1
        elif was_lied_to and value in place.earlier:
            self.counts["apart: an earlier value, in a whole answer of its own place"] += 1
        else:
            kind = "absent" if value is ABSENT else "wrong"
            self.violated(kind, f"{place.name}: read {value!r}, possible {sorted(map(repr, place.possible))}")

    def judge_write(self, place: Place, value: Any, *, was_lied_to: bool) -> None:
        """A write was acknowledged."""
        if was_lied_to:
            self.counts["apart: acknowledged, since a whole answer said so"] += 1
        else:
            self.counts["write: acknowledged"] += 1
            place.became(value)

    def merged(self, others: Iterable[Ledger]) -> Ledger:
        """One ledger's counts and violations for several; places stay with their own."""
        whole = Ledger()
        for one in (self, *others):
            whole.violations += one.violations
            whole.counts += one.counts
        return whole
