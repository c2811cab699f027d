"""Verification of hash chains: which record is the first that was changed, removed or moved.

What it proves (rule 21): that nothing was edited *without recomputing the chain*. A log that was
rewritten or cut at its end still verifies by itself; it fails against anchors that CloudTrail shows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from phicrypt._lazy import lazy_names
from phicrypt.audit.events import Kind
from phicrypt.audit.sinks.chain import FIRST_PREVIOUS, ChainHead
from phicrypt.evidence.log_lines import (
    Fragment,
    LogReading,
    Place,
    Record,
    missing_segments,
    names_one_of,
    read_log,
    records_among,
)
from phicrypt.evidence.tree_heads import AnchoredTree, TreeCheck, TreeHead, check_tree

_MAX_LISTED: Final = 1_000
_MAX_LATE: Final = 64
_REMEMBERED_HASHES: Final = 262_144
Wanted = dict[str, dict[int, set[str]]]
"""Hashes of anchors, by chain and sequence."""


class Fault(NamedTuple):
    """One thing that is wrong, and where."""

    place: Place
    chain_id: str | None
    sequence: int | None
    what: str

    def __str__(self) -> str:
        chain = f" (chain {self.chain_id[:8]}, record {self.sequence})" if self.chain_id else ""
        return f"{self.place}{chain}: {self.what}"


@dataclass(slots=True)
class ChainState:
    """What is known of one chain."""

    chain_id: str
    records: int = 0
    next_sequence: int = 0
    sha256: str = FIRST_PREVIOUS
    last_anchored: int = -1
    first_time: str = ""
    last_time: str = ""

    @property
    def unanchored(self) -> int:
        """How many records lie after the last anchor that CloudTrail confirmed."""
        return max(0, self.next_sequence - 1 - self.last_anchored)


@dataclass(slots=True)
class Verification:
    """The result of :func:`verify`.

    Attributes:
        faults: in the order of the log, at most 1,000; the first is the first broken record.
        fault_count: how many there are.
        torn: whole lines lost to a crash in mid-write: expected, at most one per crash, no fault.
        chains: each chain by its id.
        anchors_confirmed: anchors of CloudTrail that match a record.
        unknown_anchors: anchors of CloudTrail for chains that this log does not hold.
        reading: what of the log was read, and what is no record.
        tree: the tree over all lines, where heads were given to compare it with.
    """

    records: int = 0
    reading: LogReading = field(default_factory=LogReading)
    faults: list[Fault] = field(default_factory=list)
    fault_count: int = 0
    torn: list[Place] = field(default_factory=list)
    chains: dict[str, ChainState] = field(default_factory=dict)
    anchors_given: bool = False
    anchors_confirmed: int = 0
    unknown_anchors: list[ChainHead] = field(default_factory=list)
    tree: TreeCheck | None = None
    _newest_hashes: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED_HASHES))

    @property
    def is_valid(self) -> bool:
        """Whether nothing is wrong."""
        return self.fault_count == 0

    def add(self, fault: Fault, *, limit: int = _MAX_LISTED) -> None:
        self.fault_count += 1
        if len(self.faults) < limit:
            self.faults.append(fault)

    def what_it_proves(self) -> str:
        """The result in one sentence that claims no more than was checked."""
        if not self.is_valid:
            return f"The log was altered or damaged: {self.faults[0]}."
        start = f"No record of {self.records:,} in {len(self.chains):,} chains was changed, removed or moved "
        if not self.anchors_given:
            return (
                start + "by anyone who did not recompute the hashes. Without anchors from CloudTrail this does "
                "not show that the log was not rewritten, or cut at its end."
            )
        behind = sum(chain.unanchored for chain in self.chains.values())
        return (
            start + f"up to the anchors that CloudTrail shows ({self.anchors_confirmed:,} confirmed). "
            f"{behind:,} records lie after the last anchor of their chain: for these, rewriting and truncation "
            "are not excluded."
        )


def verify(
    path: str | Path,
    *,
    anchors: Iterable[ChainHead] | None = None,
    expect_all_chains: bool = True,
    tree_heads: Iterable[TreeHead] = (),
    anchored_trees: Iterable[AnchoredTree] = (),
) -> Verification:
    """Check every chain of a log, with its rotated segments, and compare it with anchors.

    Args:
        path: the log file, or a folder of segments fetched from S3.
        anchors: what CloudTrail shows, from :func:`phicrypt.evidence.anchors.anchors_in`; each one of a
            chain in this log must match. None leaves the log unanchored.
        expect_all_chains: anchors of chains that the log does not hold are faults (rule 24). False makes
            them remarks, for anchors that are known to be of several logs.
        tree_heads: of checkpoints, from :func:`phicrypt.evidence.tree_heads.read_checkpoint`; the tree over all
            lines of the log must lead to each.
        anchored_trees: what anchors show of trees; those of this log's chains are compared too.

    Raises ConfigurationError if there is no such file.
    """
    result = Verification(anchors_given=anchors is not None)
    wanted = _by_place(anchors or ())
    for _ in verified_records(path, result, wanted):
        pass
    _check_tree(path, result, tree_heads, anchored_trees)
    _conclude(result, wanted, expect_all_chains)
    return result


def verified_records(path: str | Path, result: Verification, wanted: Wanted | None = None) -> Iterator[Record]:
    """The records of a log, each checked on its way into ``result``; :func:`compare_with_anchors` may follow."""
    missing = missing_segments(Path(path))
    in_order = not Path(path).is_dir()
    for record in verified_items(read_log(path, result.reading), result, wanted, in_order=in_order):
        if missing:
            missing.pop(record.head, None)
        yield record
    for head, name in missing.items():
        result.reading.add_unread(Place(name, 0))
        result.add(Fault(Place(name, 0), head.chain_id, head.sequence, "the rotated segment is missing"))


def verified_items(
    items: Iterator[Record | Fragment], result: Verification, wanted: Wanted | None = None, *, in_order: bool
) -> Iterator[Record]:
    """The records among these, each checked; ``in_order`` if chains stand behind each other as they began."""
    for record in records_among(
        items,
        result.reading,
        lambda fragment: result.torn.append(fragment.place),
        # It waited, and may stand before all others: there is room for it even if these are many.
        lambda fragment: result.add(
            Fault(fragment.place, None, None, fragment.what), limit=_MAX_LISTED + _MAX_LATE
        ),
    ):
        _check_record(record, result, wanted or {}, starts_in_order=in_order)
        yield record


def compare_with_anchors(
    path: str | Path,
    result: Verification,
    anchors: Iterable[ChainHead],
    anchored_trees: Iterable[AnchoredTree] = (),
) -> None:
    """Compare a log that was verified with anchors that were found since: the anchored records alone are read."""
    result.anchors_given = True
    wanted = _by_place(anchors)
    places = {(chain_id, sequence) for chain_id, by_sequence in wanted.items() for sequence in by_sequence}
    for item in read_log(path, wanted=names_one_of(places)) if places else ():
        if isinstance(item, Record) and item.chain_id in result.chains:
            _check_anchor(item, result.chains[item.chain_id], result, wanted)
    _check_tree(path, result, (), anchored_trees)
    _conclude(result, wanted, expect_all_chains=True)


def checked_records(path: str | Path, reading: LogReading, result: Verification | None = None) -> Iterator[Record]:
    """The records of a log for a question; those that do not fit their chain are counted as *altered*."""
    result = result if result is not None else Verification(reading=reading)
    for record in verified_records(path, result):
        yield record
        if result.fault_count > reading.altered:
            reading.altered = result.fault_count
            reading.first_altered = str(result.faults[0])


def _by_place(anchors: Iterable[ChainHead]) -> Wanted:
    wanted: Wanted = {}
    for anchor in anchors:
        wanted.setdefault(anchor.chain_id, {}).setdefault(anchor.sequence, set()).add(anchor.sha256)
    return wanted


def _conclude(result: Verification, wanted: Wanted, expect_all_chains: bool) -> None:
    for chain_id, by_sequence in wanted.items():
        for sequence, hashes in by_sequence.items():
            _check_missed_anchor(result, chain_id, sequence, hashes, expect_all_chains)
    result.faults.sort(key=lambda fault: (fault.place.file, fault.place.line))
    del result.faults[_MAX_LISTED:]


def _check_tree(
    path: str | Path, result: Verification, heads: Iterable[TreeHead], anchored: Iterable[AnchoredTree]
) -> None:
    own = (one for one in anchored if one.chain_id in result.chains)
    wanted = [*heads, *(TreeHead(one.size, one.root, "CloudTrail's anchors") for one in own)]
    if not wanted:
        return
    result.tree = check_tree(path, wanted)
    for what in result.tree.faults:
        result.add(Fault(Place("tree", 0), None, None, what))


def _check_record(record: Record, result: Verification, wanted: Wanted, *, starts_in_order: bool) -> None:
    result.records += 1
    chain = result.chains.get(record.chain_id)
    if chain is None:
        chain = result.chains[record.chain_id] = ChainState(record.chain_id)
        chain.first_time = str(record.fields.get("time", ""))
    what = _fault_of(record, chain)
    if what is None and starts_in_order:
        what = _fault_of_start(record, result._newest_hashes)
    result._newest_hashes.append(record.sha256)
    if what is not None:
        result.add(Fault(record.place, record.chain_id, record.sequence, what))
    chain.records += 1
    chain.last_time = str(record.fields.get("time", ""))
    if record.sequence >= chain.next_sequence:
        chain.next_sequence = record.sequence + 1
        chain.sha256 = record.sha256
    if wanted:
        _check_anchor(record, chain, result, wanted)


def _check_anchor(record: Record, chain: ChainState, result: Verification, wanted: Wanted) -> None:
    hashes = wanted.get(record.chain_id, {}).pop(record.sequence, None)
    if hashes is not None:
        if hashes == {record.sha256}:
            result.anchors_confirmed += 1
            chain.last_anchored = max(chain.last_anchored, record.sequence)
        else:
            result.add(
                Fault(
                    record.place,
                    record.chain_id,
                    record.sequence,
                    "the record is not the one that was anchored in CloudTrail: the log was rewritten",
                )
            )


def _fault_of(record: Record, chain: ChainState) -> str | None:
    if not record.is_intact:
        return "the record was changed: its own hash does not fit"
    if record.sequence > chain.next_sequence:
        missing = record.sequence - chain.next_sequence
        return f"{missing} record(s) are missing before this one"
    if record.sequence < chain.next_sequence:
        return "the record stands out of order, or twice"
    if record.previous != chain.sha256:
        return "the record does not follow the one before it: that one was exchanged, or this one was inserted"
    return None


def _fault_of_start(record: Record, newest_hashes: deque[str]) -> str | None:
    """The first record of a chain names the record that stood last in the file: is it still there?"""
    if record.fields.get("kind") != Kind.CHAIN_START:
        return None
    detail = record.fields.get("detail")
    follows = detail.get("follows") if isinstance(detail, dict) else None
    if follows is None or follows in newest_hashes:
        return None
    return "the record that stood before this chain began is missing"


def _check_missed_anchor(
    result: Verification, chain_id: str, sequence: int, hashes: set[str], expect_all_chains: bool
) -> None:
    chain = result.chains.get(chain_id)
    heads = [ChainHead(chain_id, sequence, sha256) for sha256 in sorted(hashes)]
    if chain is None:
        result.unknown_anchors.extend(heads)
        if not expect_all_chains:
            return
        what = "CloudTrail shows an anchor of a chain that the log does not hold"
    else:
        what = (
            f"CloudTrail anchored record {sequence}, the log ends at {chain.next_sequence - 1}: it was truncated"
        )
    result.add(Fault(Place("CloudTrail", 0), chain_id, sequence, what))


__getattr__, _ = lazy_names(
    __name__,
    {},
    dict.fromkeys(("read_records",), "phicrypt.evidence.log_lines"),
)
