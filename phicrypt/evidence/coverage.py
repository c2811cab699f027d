"""What CloudTrail's digests cover: chains of digests, the span of each, and what lies outside (rule 24).

A chain has one trail's digests of one Region. Each digest names the one before, and begins where that one
ended, so a chain speaks for every hour from its first digest's start to its last one's end. Before and
after, and where a chain was begun anew, nobody signed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final, NamedTuple, Protocol

from phicrypt.audit.events import format_time, parse_time

_FILE_NAME: Final = re.compile(r"_CloudTrail_([a-z0-9-]+)_(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)Z_")
_DIGEST_NAME: Final = re.compile(r"(\d{12})_CloudTrail-Digest_([a-z0-9-]+)_(.+)_[a-z0-9-]+")
_FOLDER: Final = re.compile(r"(?:^|/)CloudTrail/([a-z0-9-]+)/")
_DELIVERY_NS: Final = 3 * 3_600 * 10**9
"""A digest comes after the end of its hour; what is younger need not be covered yet."""


class CoverageReport(Protocol):
    """Where the findings go: :class:`phicrypt.evidence.digests.DigestReport`."""

    covered: list[str]
    not_covered: list[str]

    def add_problem(self, what: str) -> None:
        """Take one thing that does not fit."""


class Link(NamedTuple):
    """What is kept of a digest: its place in a chain."""

    chain: str
    region: str
    end: str
    start: str
    object_key: str
    sha256: str
    previous_key: str | None
    previous_sha256: str | None

    @classmethod
    def of(cls, object_key: str, sha256: str, fields: dict[str, Any]) -> Link:
        """The link of a digest whose members were checked."""
        folder, separator, rest = object_key.partition("CloudTrail-Digest/")
        region = rest.partition("/")[0]
        return cls(
            f"{folder}{separator}{region}/{_name(rest).rpartition('_')[0]}",
            region,
            fields["digestEndTime"],
            fields.get("digestStartTime") or "",
            object_key,
            sha256,
            fields.get("previousDigestS3Object"),
            fields.get("previousDigestHashValue"),
        )

    @property
    def end_ns(self) -> int | None:
        """When the digest ends, or None where its text is no time."""
        return _time(self.end)


class UnlistedFile(NamedTuple):
    """A log file that no digest names."""

    object_key: str
    region: str
    time_ns: int | None

    @classmethod
    def of(cls, object_key: str) -> UnlistedFile:
        """Region and time by place and name, as CloudTrail gives them; whoever forges a file chooses them."""
        found = _FILE_NAME.search(object_key)
        folder = _FOLDER.search(object_key)
        time_ns = None if found is None else _time("{}-{}-{}T{}:{}:00Z".format(*found.groups()[1:]))
        return cls(object_key, folder[1] if folder else found[1] if found else "", time_ns)


def cover(
    links: Iterable[Link],
    unlisted: Iterable[UnlistedFile],
    report: CoverageReport,
    since_ns: int | None,
    until_ns: int | None,
) -> set[str]:
    """Check the chains, and say what they cover and what not; returns the Regions of which there are any."""
    chains: dict[str, list[Link]] = {}
    for link in links:
        chains.setdefault(link.chain, []).append(link)
    last_end: dict[str, int] = {}
    for name in sorted(chains):
        chain = sorted(chains[name], key=lambda link: (link.end, link.object_key))
        _check_chain(chain, report, since_ns, until_ns)
        _say_span(chain, report, since_ns, until_ns)
        last_end[chain[0].region] = max(last_end.get(chain[0].region, 0), chain[-1].end_ns or 0)
    for file in unlisted:
        end = last_end.get(file.region)
        if file.time_ns is not None and end is not None and file.time_ns > end:
            report.not_covered.append(f"{_name(file.object_key)}: newer than the last digest, not yet covered")
        else:
            report.add_problem(f"{_name(file.object_key)}: no digest names this log file")
    return set(last_end)


def _check_chain(chain: list[Link], report: CoverageReport, since_ns: int | None, until_ns: int | None) -> None:
    hashes = {link.object_key: link.sha256 for link in chain}
    if len(hashes) < len({(link.object_key, link.sha256) for link in chain}):
        report.add_problem(f"{_trail_of(chain[0])}: two digests of one name differ")
    for before, link in pairwise(chain):
        previous = link.previous_key
        if previous is None:
            if link.object_key != before.object_key and _is_asked(before.end, link.start, since_ns, until_ns):
                report.not_covered.append(
                    f"{_name(link.object_key)}: the chain of digests begins anew, nothing covers the time from "
                    f"{before.end} to it"
                )
        elif previous not in hashes:
            report.add_problem(f"{_name(previous)}: the digest is missing")
        elif hashes[previous] != link.previous_sha256:
            report.add_problem(f"{_name(previous)}: the digest was changed")
        elif before.object_key not in (previous, link.object_key):
            report.add_problem(f"{_name(before.object_key)}: the digest behind it names another one before")
        elif before.end < link.start and _is_asked(before.end, link.start, since_ns, until_ns):
            report.not_covered.append(f"{_trail_of(link)}: from {before.end} to {link.start}: no digest")


def _is_asked(start: str, end: str, since_ns: int | None, until_ns: int | None) -> bool:
    """Whether a part of this time was asked; what is no time was."""
    start_ns, end_ns = _time(start), _time(end)
    is_before = since_ns is not None and end_ns is not None and end_ns <= since_ns
    is_after = until_ns is not None and start_ns is not None and start_ns >= until_ns
    return not is_before and not is_after


def _say_span(chain: list[Link], report: CoverageReport, since_ns: int | None, until_ns: int | None) -> None:
    first, last = chain[0], chain[-1]
    start_ns, end_ns = _time(first.start), last.end_ns
    where = _trail_of(first)
    report.covered.append(f"{where}: {first.start or '(start unknown)'} to {last.end}, {len(chain):,} digests")
    asked_from = f"{format_time(since_ns)[:16]}Z" if since_ns is not None else "the beginning"
    if first.previous_key is not None and (since_ns is None or (start_ns or first.end_ns or 0) > since_ns):
        report.not_covered.append(
            f"{where}: from {asked_from} to {first.start or first.end}: the digest before, "
            f"{_name(first.previous_key)}, is not here"
        )
    elif since_ns is not None and start_ns is not None and start_ns > since_ns:
        report.not_covered.append(f"{where}: from {asked_from} to {first.start}: no digest")
    if since_ns is None and until_ns is None:
        return
    wanted_until = min(until_ns if until_ns is not None else 2**62, time.time_ns() - _DELIVERY_NS)
    if end_ns is not None and end_ns < wanted_until:
        report.not_covered.append(f"{where}: from {last.end} to {format_time(wanted_until)[:16]}Z: no digest")


def _trail_of(link: Link) -> str:
    """``trail main in us-east-1 (account 111122223333)``, or whatever the place says."""
    name = link.chain.rpartition("/")[2]
    found = _DIGEST_NAME.fullmatch(name)
    if found is None:
        return f"{name or 'trail'} in {link.region or 'an unnamed Region'}"
    return f"trail {found[3]} in {found[2]} (account {found[1]})"


def _time(text: str) -> int | None:
    try:
        return parse_time(text)
    except ValueError:
        return None


def _name(object_key: str) -> str:
    return object_key.rpartition("/")[2]
