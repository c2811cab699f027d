"""What kind of item a stored item is, and the pace and bookkeeping of walks over whole tables."""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

from phicrypt.core.strict_json import parse_json
from phicrypt.dynamodb.config import TableConfig
from phicrypt.dynamodb.shapes import Item
from phicrypt.dynamodb.tables import FOOTER, HEADER
from phicrypt.errors import ConfigurationError, FormatError

LEGACY_ATTRIBUTES: Final = ("*amzn-ddb-map-desc*", "*amzn-ddb-map-sig*")
"""Written by the DynamoDB Encryption Client, the format before this one."""
MAX_ITEM_BYTES: Final = 400 * 1024
"""DynamoDB's bound on one item, names included."""
_CHECKPOINT_FORMAT: Final = 1
_MAX_CHECKPOINT_BYTES: Final = 16 * 2**20


class ItemKind(Enum):
    """What a stored item looks like; only opening an encrypted one shows whether it is genuine."""

    ENCRYPTED = "encrypted"
    PLAINTEXT = "plaintext"
    LEGACY = "legacy client"
    DAMAGED = "header or footer missing"


def kind_of(stored: Mapping[str, Any]) -> ItemKind:
    """Plaintext is what has neither header nor footer, nor the legacy client's attributes (rule 19)."""
    held = (HEADER in stored) + (FOOTER in stored)
    if held == 2:
        return ItemKind.ENCRYPTED
    if held == 1:
        return ItemKind.DAMAGED
    return ItemKind.LEGACY if any(name in stored for name in LEGACY_ATTRIBUTES) else ItemKind.PLAINTEXT


def item_size_bytes(item: Mapping[str, Any]) -> int:
    """The size that DynamoDB counts, to a few bytes: names, values, three per list or map, one per element."""
    return sum(len(name.encode()) + _value_size_bytes(value) for name, value in item.items())


def _value_size_bytes(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        return (len(content) + 1) // 2 + 1
    if kind == "B":
        return len(bytes(content))
    if kind in ("SS", "NS", "BS"):
        return sum(_value_size_bytes({kind[0]: element}) for element in content)
    if kind == "L":
        return 3 + sum(1 + _value_size_bytes(element) for element in content)
    return 3 + len(content) + item_size_bytes(content) if kind == "M" else 1


class Pace:
    """Lets so many items per second pass, over all threads; every item if the rate is None."""

    def __init__(
        self,
        items_per_second: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if items_per_second is not None and not items_per_second > 0:
            raise ConfigurationError("items_per_second is above 0")
        self._seconds_per_item = 0.0 if items_per_second is None else 1 / items_per_second
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        """Return when the next item may pass."""
        if not self._seconds_per_item:
            return
        with self._lock:
            now = self._clock()
            turn = max(self._next, now)
            self._next = turn + self._seconds_per_item
        if turn > now:
            self._sleep(turn - now)


@dataclass
class Tally:
    """Counts by name, and where wanted a file of the keys of items that need attention.

    Each thread counts its page apart and adds it when the page is done, so that a page that is
    visited again after a kill is counted once.

    Attributes:
        counts: how many items had each outcome.
        reasons: why items could not be migrated or opened, with counts; names only, no values.
        first_problem: where in the scan the first item stood that needs attention; its key is for no log.
    """

    table: TableConfig
    problems_file: Path | None = None
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    first_problem: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _page: threading.local = field(default_factory=threading.local)

    def __post_init__(self) -> None:
        if self.problems_file is not None:
            # Keys are not for logs: a file of its own, for its owner only.
            os.close(os.open(self.problems_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))

    def count(self, outcome: str, *, problem: Item | None = None, reason: str | None = None) -> None:
        """One more item with this outcome; ``problem`` is the stored item if it needs attention."""
        counts, reasons = self._page_counts()
        counts[outcome] += 1
        if reason is not None:
            reasons[reason] += 1
        if problem is not None:
            with self._lock:
                self.first_problem = self.first_problem or getattr(self._page, "place", "")
        if problem is not None and self.problems_file is not None:
            keys = jsonable({name: problem[name] for name in self.table.key_names})
            with self._lock, self.problems_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"outcome": outcome, "reason": reason, "key": keys}) + "\n")

    def placed(self, segment: int, items: Iterable[Item]) -> Iterator[Item]:
        """The items of a page, in order, while this thread knows the place of each."""
        self._page.pages = getattr(self._page, "pages", 0) + 1
        for number, item in enumerate(items, 1):
            self._page.place = f"segment {segment}, page {self._page.pages} of this run, item {number}"
            yield item

    def page_done(self) -> None:
        """Add what this thread counted since the last page."""
        counts, reasons = self._page_counts()
        with self._lock:
            self.counts.update(counts)
            self.reasons.update(reasons)
        counts.clear()
        reasons.clear()

    def _page_counts(self) -> tuple[Counter[str], Counter[str]]:
        if not hasattr(self._page, "counts"):
            self._page.counts = (Counter[str](), Counter[str]())
        counts: tuple[Counter[str], Counter[str]] = self._page.counts
        return counts


class Checkpoint:
    """How far each segment of a scan came, in a file that survives a kill.

    The file (mode 0600, replaced atomically) holds the keys of the last items read, which are not
    encrypted in this format. It fits one table and configuration: ``identity`` must be the same on resume.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any], segments: int) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._state: dict[str, Any] = {
            "format": _CHECKPOINT_FORMAT,
            "identity": dict(identity),
            "positions": [None] * segments,
            "finished": [False] * segments,
            "counts": {},
            "reasons": {},
            "first_problem": "",
        }
        self.is_resumed = path is not None and path.exists()
        if self.is_resumed:
            self._state = self._read()

    def restore(self, tally: Tally) -> None:
        """Go on counting where the last save was."""
        tally.counts.update(self._state["counts"])
        tally.reasons.update(self._state["reasons"])
        tally.first_problem = self._state.get("first_problem", "")

    def position(self, segment: int) -> tuple[Item | None, bool]:
        """Where to go on in a segment (ExclusiveStartKey), and whether it is finished."""
        position = self._state["positions"][segment]
        return (None if position is None else from_jsonable(position)), self._state["finished"][segment]

    def save(self, segment: int, position: Item | None, tally: Tally) -> None:
        """A page is done: ``position`` is its LastEvaluatedKey, None after the last page."""
        if self._path is None:
            return
        with self._lock:
            self._state["positions"][segment] = None if position is None else jsonable(position)
            self._state["finished"][segment] = position is None
            self._state["counts"], self._state["reasons"] = dict(tally.counts), dict(tally.reasons)
            self._state["first_problem"] = tally.first_problem
            scratch = self._path.with_name(self._path.name + ".new")
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(self._state, file)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self._path)

    def remove(self) -> None:
        """The walk is complete: the next one begins at the start."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        assert self._path is not None
        try:
            with self._path.open("rb") as file:
                content = file.read(_MAX_CHECKPOINT_BYTES + 1)
            state: dict[str, Any] = parse_json(content, field="checkpoint", max_bytes=_MAX_CHECKPOINT_BYTES)
            same = all(state[name] == self._state[name] for name in ("format", "identity"))
            same = same and len(state["positions"]) == len(state["finished"]) == len(self._state["positions"])
            _check_checkpoint(state)
        except (ValueError, KeyError, TypeError, AttributeError, FormatError):
            state = {}
        # Not in the handler: it is a file of keys, and Python's errors hold what stood there (rule 32).
        if not state:
            raise ConfigurationError(f"{self._path} is not a checkpoint of phicrypt; remove it or name another")
        if not same:
            raise ConfigurationError(
                f"the checkpoint {self._path} belongs to another table, configuration or number of segments; "
                "run with the same ones, or remove it to begin again"
            )
        return state


def _check_checkpoint(state: Mapping[str, Any]) -> None:
    """Raise what a wrong member raises: whoever changed the file finds it refused, not half believed."""
    for name in ("counts", "reasons"):
        if not all(type(count) is int for count in state[name].values()):
            raise TypeError
    for position in state["positions"]:
        if position is not None:
            from_jsonable(position)
    if not all(isinstance(finished, bool) for finished in state["finished"]):
        raise TypeError
    if not isinstance(state.get("first_problem", ""), str):
        raise TypeError


def jsonable(value: Any) -> Any:
    """Attribute values for JSON: binaries become base64."""
    if isinstance(value, Mapping):
        return {name: jsonable(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(part) for part in value]
    return {"base64": base64.b64encode(bytes(value)).decode()} if isinstance(value, bytes | bytearray) else value


def from_jsonable(key_attributes: Mapping[str, Any]) -> Item:
    """The key attributes of which :func:`jsonable` made JSON."""
    return {
        name: {
            kind: base64.b64decode(content["base64"], validate=True) if isinstance(content, Mapping) else content
            for kind, content in value.items()
        }
        for name, value in key_attributes.items()
    }
