"""The join: the local log on one side, CloudTrail on the other, and what is missing on either."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from phicrypt.audit.events import AuditEvent, Kind, Outcome
from phicrypt.audit.sinks.chain import ChainHead
from phicrypt.errors import ConfigurationError
from phicrypt.evidence.anchors import anchor_of
from phicrypt.evidence.cloudtrail import Reading, look_up, read_bucket, read_folder, widened
from phicrypt.evidence.digests import DigestReport, compare_reading, no_digests, verify_bucket, verify_folder
from phicrypt.evidence.log_lines import LogReading
from phicrypt.evidence.matching import Matcher
from phicrypt.evidence.trail_events import TrailEvent
from phicrypt.evidence.tree_heads import AnchoredTree, anchored_tree_of
from phicrypt.evidence.verify import Verification, checked_records, compare_with_anchors

_HOUR_NS: Final = 3_600 * 10**9
_MAX_NAMES: Final = 10_000
_OTHERS: Final = "(others)"


@dataclass(slots=True)
class UseStatistics:
    """Counts over the uses of a log: a begin and its end count once.

    Names beyond the first 10,000 of a kind are counted together, so that memory stays bounded.
    """

    uses: int = 0
    cached: int = 0
    not_succeeded: int = 0
    without_end: int = 0
    by_hour: Counter[int] = field(default_factory=Counter)
    by_actor: Counter[str] = field(default_factory=Counter)
    by_key: Counter[str] = field(default_factory=Counter)
    by_purpose: Counter[str] = field(default_factory=Counter)
    by_operation: Counter[str] = field(default_factory=Counter)

    def add(self, use: AuditEvent) -> None:
        self.uses += 1
        self.cached += use.cache_hit is True
        self.without_end += use.outcome == Outcome.BEGUN
        self.not_succeeded += use.outcome not in (Outcome.SUCCESS, Outcome.BEGUN)
        self.by_hour[use.time_ns // _HOUR_NS * _HOUR_NS] += 1
        for counter, name in (
            (self.by_actor, use.actor or "(nobody named)"),
            (self.by_key, use.origin.key_id if use.origin else "(no key)"),
            (self.by_purpose, use.purpose or "(no purpose)"),
            (self.by_operation, use.operation),
        ):
            counter[name if name in counter or len(counter) < _MAX_NAMES else _OTHERS] += 1


@dataclass(slots=True)
class Joined:
    """The two sides together.

    Attributes:
        matcher: the findings, see :class:`phicrypt.evidence.matching.Matcher`.
        statistics: counts over the local uses that were judged.
        reading: what of CloudTrail could be read.
        digests: what its digest files show, or None if there were none.
        digests_were_asked: whether anybody looked for digest files.
        log: what of the local log was read, and what could not be.
        verification: of the log's chains, against the anchors that CloudTrail shows.
    """

    matcher: Matcher
    statistics: UseStatistics
    reading: Reading
    digests: DigestReport | None = None
    digests_were_asked: bool = True
    verification: Verification | None = None
    log: LogReading = field(default_factory=LogReading)

    @property
    def unreadable_lines(self) -> int:
        """Lines of the local log that hold no event."""
        return self.log.unread


@contextmanager
def join(
    log: str | Path,
    records: Callable[[int | None, int | None, Reading], Iterable[TrailEvent]],
    *,
    since_ns: int | None = None,
    until_ns: int | None = None,
    key_arns: Iterable[str] = (),
    principals: Iterable[str] = (),
    digests: DigestReport | None = None,
    digests_were_asked: bool = True,
    anchor_key_arn: str | None = None,
    on_progress: Callable[[], None] = lambda: None,
) -> Iterator[Joined]:
    """Join a local log with CloudTrail's records; the result lives as long as the ``with`` block.

    Args:
        log: path of the local log; its rotated segments are read too.
        records: gives CloudTrail's records for (since, until, reading), see :func:`trail_source`.
        since_ns, until_ns: judge only what happened between. Both sides are read a quarter of an
            hour beyond, because their clocks may differ.
        key_arns, principals: see :class:`phicrypt.evidence.matching.Matcher`.
        digests: the result of checking CloudTrail's digest files, to be reported along.
        digests_were_asked: whether anybody looked for them.
        anchor_key_arn: believe anchors of this KMS key only.
        on_progress: called for each local use and each record.
    """
    early, late = widened(since_ns, until_ns)
    with Matcher(key_arns=key_arns, principals=principals, since_ns=since_ns, until_ns=until_ns) as matcher:
        joined = Joined(matcher, UseStatistics(), Reading(), digests, digests_were_asked)
        if digests is not None and digests.digests:
            joined.reading.named_hashes = digests.hashes
        anchors: set[ChainHead] = set()
        trees: set[AnchoredTree] = set()
        verification = Verification(reading=joined.log)
        events = log_events(log, joined.log, verification)
        for use in whole_uses(event for event in events if _is_within(event, early, late)):
            matcher.add_use(use)
            if _is_within(use, since_ns, until_ns) and use.kind in (Kind.USE, Kind.BEGIN, Kind.END):
                joined.statistics.add(use)
            on_progress()
        for record in records(early, late, joined.reading):
            matcher.add_record(record)
            anchor = anchor_of(record, anchor_key_arn)
            if anchor is not None:
                anchors.add(anchor)
            if (tree := anchored_tree_of(record, anchor_key_arn)) is not None:
                trees.add(tree)
            on_progress()
        matcher.finish()
        if digests is not None:
            compare_reading(digests, joined.reading, matcher.regions)
        compare_with_anchors(log, verification, anchors, trees)
        joined.verification = verification
        yield joined


def trail_source(
    where: str, *, client: Callable[[str], Any]
) -> tuple[
    Callable[[int | None, int | None, Reading], Iterable[TrailEvent]],
    Callable[[int | None, int | None], DigestReport | None],
]:
    """Reader and digest check of a source of CloudTrail records, each for (since, until).

    Where a time is asked, a folder or bucket without any digest covers nothing of it. Beside a single file
    and LookupEvents' answers no digest is looked for. What nobody signed is said in each case.

    Args:
        where: a file or folder of log files, ``s3://bucket/prefix``, or ``lookup``.
        client: makes a boto3 client of a service.
    """
    if where == "lookup":
        return (
            lambda since, until, reading: look_up(
                client("cloudtrail"), since_ns=since, until_ns=until, reading=reading
            ),
            lambda since, until: None,
        )
    if where.startswith("s3://"):
        return (
            lambda since, until, reading: read_bucket(
                client("s3"), where, since_ns=since, until_ns=until, reading=reading
            ),
            lambda since, until: (
                verify_bucket(client("s3"), where, client("cloudtrail"), since_ns=since, until_ns=until)
                or no_digests(since, until)
            ),
        )
    if "://" in where:
        raise ConfigurationError("--trail is a file, a folder, s3://bucket/prefix, or lookup")
    return (
        lambda since, until, reading: read_folder(where, since_ns=since, until_ns=until, reading=reading),
        lambda since, until: (
            verify_folder(where, since_ns=since, until_ns=until)
            or (no_digests(since, until) if Path(where).is_dir() else None)
        ),
    )


def log_events(
    log: str | Path, reading: LogReading | None = None, verification: Verification | None = None
) -> Iterator[AuditEvent]:
    """The events of a local log, in the order of its lines.

    Lines that hold none, and records that do not fit their chain, are counted in ``reading``.
    """
    reading = reading if reading is not None else LogReading()
    for record in checked_records(log, reading, verification):
        try:
            event = record.event()
        except (ValueError, KeyError, TypeError):
            reading.add_unread(record.place)
            continue
        yield event


def whole_uses(events: Iterable[AuditEvent]) -> Iterator[AuditEvent]:
    """One event per use: the end record of a pair, and at last the begin records that have no end.

    An event that was written twice (after an interruption) is given once, as long as its twin is not
    further away than the remembered ids reach.
    """
    begun: dict[str, AuditEvent] = {}
    recent: dict[str, None] = {}
    for event in events:
        if event.kind == Kind.BEGIN:
            begun[event.use_id] = event
            continue
        begun.pop(event.use_id, None)
        if event.kind in (Kind.USE, Kind.END):
            if event.use_id in recent:
                continue
            recent[event.use_id] = None
            if len(recent) > _MAX_NAMES:
                del recent[next(iter(recent))]
        yield event
    yield from begun.values()


def _is_within(event: AuditEvent, since_ns: int | None, until_ns: int | None) -> bool:
    return (since_ns is None or event.time_ns >= since_ns) and (until_ns is None or event.time_ns <= until_ns)
