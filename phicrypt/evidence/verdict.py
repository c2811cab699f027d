"""The verdict of an examination as a value: text, JSON, HTML, CSV and exit code are made from it.

======================  =========  ==============================================================
word                    exit code  what it says
======================  =========  ==============================================================
``agree``               0          nothing is wrong, and all that was asked was read and covered
``findings``            1          something needs an explanation
``broken``              1          a chain, a digest or an anchor does not hold
``not read``            12         a line, file or record could not be read (rule 25)
``not covered``         13         no digest speaks for a part of what was asked (rule 24)
======================  =========  ==============================================================

The worst word is the verdict; the others are said along with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from phicrypt.evidence.cloudtrail import Reading
from phicrypt.evidence.digests import DigestReport
from phicrypt.evidence.findings import NEED_EXPLANATION
from phicrypt.evidence.join import Joined
from phicrypt.evidence.log_lines import LogReading
from phicrypt.evidence.verify import Verification

_LISTED: Final = 20
AGREE: Final = "agree"
FINDINGS: Final = "findings"
BROKEN: Final = "broken"
NOT_READ: Final = "not read"
NOT_COVERED: Final = "not covered"
EXIT_CODES: Final = {AGREE: 0, FINDINGS: 1, BROKEN: 1, NOT_READ: 12, NOT_COVERED: 13}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an examination came to.

    Attributes:
        broken: chains, digests and anchors that do not hold, the first of them in words.
        broken_count: how many.
        findings: how many findings need an explanation.
        unread: how many lines, files and records could not be read.
        first_unread: where the first of these stands.
        covered: the span that digests cover, per trail and Region.
        not_covered: what no digest covers: spans and files, in words.
        remarks: what this does not prove: what is unanchored, and what nobody signed.
        agreement: what is said where nothing is wrong.
    """

    broken: tuple[str, ...] = ()
    broken_count: int = 0
    findings: int = 0
    unread: int = 0
    first_unread: str = ""
    covered: tuple[str, ...] = ()
    not_covered: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    agreement: str = "Nothing is wrong."

    @property
    def word(self) -> str:
        """The verdict in one word, the worst that holds."""
        if self.broken_count:
            return BROKEN
        if self.findings:
            return FINDINGS
        if self.unread:
            return NOT_READ
        return NOT_COVERED if self.not_covered else AGREE

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return EXIT_CODES[self.word]

    def bad_lines(self) -> Iterator[str]:
        """What is wrong or missing, the worst first; nothing where both sides agree."""
        if self.broken_count:
            yield f"BROKEN: {self.broken_count:,} things do not hold."
            yield from _first(self.broken, self.broken_count)
        if self.findings:
            yield f"{self.findings:,} findings need an explanation."
        if self.unread:
            yield f"NOT READ: {self.unread:,} lines, files or records; the first: {self.first_unread}."
        if self.not_covered:
            yield f"NOT COVERED by any digest: {len(self.not_covered):,}."
            yield from _first(self.not_covered, len(self.not_covered))

    def lines(self) -> Iterator[str]:
        """The verdict in words: what is wrong, or that nothing is; then what was covered, and remarks."""
        bad = list(self.bad_lines())
        yield from bad or [self.agreement]
        yield from (f"covered: {span}" for span in self.covered)
        yield from self.remarks

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "verdict": self.word,
            "exit_code": self.exit_code,
            "broken": self.broken_count,
            "first_broken": list(self.broken[:_LISTED]),
            "findings": self.findings,
            "not_read": self.unread,
            "first_not_read": self.first_unread,
            "covered": list(self.covered),
            "not_covered": list(self.not_covered),
            "remarks": list(self.remarks),
        }


def _first(things: Sequence[str], count: int) -> Iterable[str]:
    yield from (f"  {thing}" for thing in things[:_LISTED])
    if count > _LISTED:
        yield f"  and {count - min(len(things), _LISTED):,} more"


def verdict_of_log(log: LogReading) -> Verdict:
    """Of a question that was put to the log alone.

    Where lines could not be read, records that do not follow each other are what these left behind.
    """
    altered = 0 if log.unread else log.altered
    return Verdict(
        broken=(log.first_altered,) if altered else (),
        broken_count=altered,
        unread=log.unread,
        first_unread=str(log.first_unread or ""),
    )


def verdict_of_chain(
    verification: Verification,
    *,
    trail: Reading | None = None,
    digests: DigestReport | None = None,
    digests_were_asked: bool = True,
) -> Verdict:
    """Of ``audit verify``: the log's chains, and where a trail was given its reading and digests."""
    problems = digests.problem_count if digests is not None else 0
    unread, first = _unread(verification.reading, trail, digests)
    return Verdict(
        broken=(
            *map(str, verification.faults[:_LISTED]),
            *(digests.problems[:_LISTED] if digests is not None else ()),
        ),
        broken_count=verification.fault_count + problems,
        unread=unread,
        first_unread=first,
        covered=tuple(digests.covered) if digests is not None else (),
        not_covered=tuple(digests.not_covered) if digests is not None else (),
        remarks=(
            *_tree(verification),
            *_passed_over(verification.reading, trail),
            *(() if trail is None else _unsigned(digests, digests_were_asked)),
        ),
        agreement=verification.what_it_proves(),
    )


def verdict_of_join(joined: Joined, *, with_findings: bool = True) -> Verdict:
    """Of a join; of a question that a join answers along, ``with_findings=False``."""
    chain, digests = joined.verification, joined.digests
    counts = joined.matcher.counts()
    unread, first = _unread(joined.log, joined.reading, digests)
    broken = (
        *(map(str, chain.faults[:_LISTED]) if chain is not None else ()),
        *(digests.problems[:_LISTED] if digests is not None else ()),
    )
    return Verdict(
        broken=broken,
        broken_count=(chain.fault_count if chain is not None else 0)
        + (digests.problem_count if digests is not None else 0),
        findings=sum(counts[category] for category in NEED_EXPLANATION) if with_findings else 0,
        unread=unread,
        first_unread=first,
        covered=tuple(digests.covered) if digests is not None else (),
        not_covered=tuple(digests.not_covered) if digests is not None else (),
        remarks=(
            *_unanchored(chain),
            *_tree(chain),
            *_passed_over(joined.log, joined.reading),
            *_unsigned(digests, joined.digests_were_asked),
        ),
        agreement="Both sides agree: nothing is missing on either."
        if digests is not None and digests.digests
        else "Both sides agree, but nobody signed CloudTrail's: nothing is missing on either.",
    )


def _unread(log: LogReading, trail: Reading | None, digests: DigestReport | None) -> tuple[int, str]:
    """How much could not be read on either side, and where the first of it stands."""
    places = [str(log.first_unread or "")]
    count = log.unread
    if trail is not None:
        count += trail.problem_count
        places += trail.problems[:1]
    if digests is not None:
        count += len(digests.unread)
        places += digests.unread[:1]
    return count, next(filter(None, places), "")


def _unanchored(chain: Verification | None) -> Iterator[str]:
    if chain is not None and chain.anchors_given:
        behind = sum(state.unanchored for state in chain.chains.values())
        yield (
            f"unanchored: {behind:,} records of the log, in {len(chain.chains):,} chains with "
            f"{chain.anchors_confirmed:,} anchors: behind the last anchor of a chain, rewriting and cutting off "
            "are not excluded."
        )


def _tree(chain: Verification | None) -> Iterator[str]:
    if chain is not None and chain.tree is not None:
        yield from chain.tree.remarks()


def _passed_over(log: LogReading, trail: Reading | None) -> Iterator[str]:
    """What was read and is of others, or was not opened because of its name."""
    if log.of_other_programs:
        yield f"{log.of_other_programs:,} lines of other programs stand between the log's records."
    if trail is not None and trail.passed_over:
        yield f"{trail.passed_over:,} files of the trail's folder were not opened: their names are no log files'."


def _unsigned(digests: DigestReport | None, were_asked: bool) -> Iterator[str]:
    if not were_asked:
        yield "Digests were not looked at (--no-digests): nobody signed what stands here as CloudTrail's."
    elif digests is None or not digests.digests:
        yield "No CloudTrail digest files were there: nobody signed what stands here as CloudTrail's."
    elif digests.unsigned:
        yield (
            f"{digests.unsigned:,} digests are copies without a signature: who can write the folder can write "
            "digests that fit it."
        )
