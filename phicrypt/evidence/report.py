"""The self-contained HTML report of a join: exceptions first, then who, which keys, what for, and when.

It opens with the verdict: what was found, what was covered and what was not. One file without scripts or
external assets, readable on a phone and in the dark; tables of findings are sorted by style alone.
Everything that comes from logs is escaped: user agents and session names are chosen by others.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from html import escape
from typing import Final

from phicrypt.audit.events import format_time
from phicrypt.evidence.findings import EXCEPTIONS_FIRST, Category, Finding
from phicrypt.evidence.join import Joined, UseStatistics
from phicrypt.evidence.verdict import AGREE, Verdict, verdict_of_join
from phicrypt.evidence.verify import Verification

_HOUR_NS: Final = 3_600 * 10**9
_MAX_BARS: Final = 168
_MAX_ROWS: Final = 500
_TOP: Final = 15
_LISTED: Final = tuple(one for one in EXCEPTIONS_FIRST if one not in (Category.ATTEMPT, Category.MATCHED))
_MEANING: Final = {
    Category.MATCHED: "One request id on both sides, with equal operation, key and principal.",
    Category.ATTEMPT: "An earlier attempt of a call of ours, refused and then repeated.",
    Category.PROBABLE: "Only a correlation id or no principal to compare: likely ours, not proven.",
    Category.LOCAL_ONLY: "Our log names a KMS call that CloudTrail does not show.",
    Category.TRAIL_ONLY: "Somebody used our key, and our log does not know of it.",
    Category.DENIED: "Refused by KMS.",
    Category.SERVICE: "Used by an AWS service on somebody's behalf.",
    Category.ADMINISTRATION: "The key or its policy was changed.",
    Category.EXCEPTION: "An identifier of ours in a place where it does not belong.",
    Category.ENDPOINT: "The policy of a VPC endpoint refused; the call may never have reached KMS.",
}
_COLUMNS: Final = ("Time (UTC)", "Operation", "Actor", "Purpose", "Principal", "Key", "Request", "Note")
# On a phone a row is a list of its cells, each behind its column's name.
_NAMED: Final = "\n  ".join(
    f'.findings td:nth-child({number})::before {{ content: "{name}: "; }}'
    for number, name in enumerate(_COLUMNS, 1)
)
_STYLE: Final = (
    """
:root { color-scheme: light dark; --line: #8884; --accent: #2563eb; --bad: #c2410c; --good: #15803d; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 64rem; padding: 1rem; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; } .dim { opacity: .7; } .bad { color: var(--bad); } .good { color: var(--good); }
.tiles { display: grid; gap: .5rem; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
.tile { border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .75rem; }
.tile b { display: block; font-size: 1.4rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .875rem; width: 100%; }
td, th { border-bottom: 1px solid var(--line); padding: .3rem .6rem .3rem 0; text-align: left;
  vertical-align: top; }
td.text { overflow-wrap: anywhere; min-width: 8rem; } td.count { text-align: right; }
svg { width: 100%; height: 7rem; display: block; } svg rect { fill: var(--accent); } meter { width: 6rem; }
.ends { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; font-size: .875rem; }
label { white-space: nowrap; margin-right: .5rem; }
.findings { display: block; min-width: 60rem; } .findings thead { display: block; }
.findings tbody { display: flex; flex-direction: column; }
.findings tr { display: grid; grid-template-columns: 6.5rem 8rem 6rem 6rem 1fr 1fr 1fr 8rem; }
@media (max-width: 40rem) {
  .findings { min-width: 0; } .findings tr { grid-template-columns: 1fr; padding: .4rem 0; }
  .findings thead { position: absolute; left: -99rem; }
  .findings td { border: 0; padding: 0; } .findings td:empty { display: none; }
  .findings tbody tr { border-bottom: 1px solid var(--line); } .findings td::before { opacity: .7; }
  COLUMNS
}
@media print { body { max-width: none; } }
""".replace("COLUMNS", _NAMED)
    + "\n".join(
        f"section:has(.s{column}:checked) tbody tr {{ order: var(--s{column}); }}"
        for column in range(len(_COLUMNS))
    )
)


def render(joined: Joined, *, title: str, verification: Verification | None = None) -> str:
    """The report as one HTML document.

    Args:
        joined: while its ``with`` block is open.
        title: what was joined.
        verification: of the local log's chains, to be shown along.
    """
    counts = joined.matcher.counts()
    statistics = joined.statistics
    verification = verification or joined.verification
    # Few trails record the traffic of endpoints.
    shown = [category for category in EXCEPTIONS_FIRST if counts[category] or category != Category.ENDPOINT]
    parts = [
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        *_verdict(verdict_of_join(joined)),
        f"<p class=dim>{format_time(time.time_ns())[:19]} UTC. {_overview(statistics)}</p>",
        *(_verified(verification) if verification is not None else ()),
        *_reading(joined),
        f"<div class=tiles>{''.join(_tile(category, counts[category]) for category in shown)}</div>",
    ]
    for category in _LISTED:
        if counts[category]:
            parts.append(_findings(category, counts[category], joined.matcher.findings(category, limit=_MAX_ROWS)))
    parts.append(f"<h2>Uses per hour</h2>{_timeline(statistics.by_hour)}")
    for heading, counter in (
        ("Actors", statistics.by_actor),
        ("Keys", statistics.by_key),
        ("Purposes", statistics.by_purpose),
        ("Operations", statistics.by_operation),
    ):
        parts.append(f"<h2>{heading}</h2>{_ranking(counter)}")
    parts.append("</body></html>\n")
    return "\n".join(parts)


def _overview(statistics: UseStatistics) -> str:
    return (
        f"{statistics.uses:,} uses of keys, {statistics.cached:,} of them with cached keys, which CloudTrail "
        f"cannot show; {statistics.not_succeeded:,} did not succeed, {statistics.without_end:,} have no end."
    )


def _verdict(verdict: Verdict) -> Iterable[str]:
    """First of all: what it came to, what was covered, and what was not."""
    for line in verdict.bad_lines():
        text = escape(line.strip())
        yield f"<p class=bad>{text if line.startswith(' ') else f'<b>{text}</b>'}</p>"
    if verdict.word == AGREE:
        yield f"<p class=good><b>{escape(verdict.agreement)}</b></p>"
    yield from (f"<p>covered: {escape(span)}</p>" for span in verdict.covered)
    yield from (f"<p class=dim>{escape(remark)}</p>" for remark in verdict.remarks)


def _verified(verification: Verification) -> Iterable[str]:
    kind = "good" if verification.is_valid else "bad"
    yield f"<p class={kind}>{escape(verification.what_it_proves())}</p>"


def _reading(joined: Joined) -> Iterable[str]:
    reading, digests = joined.reading, joined.digests
    yield (
        f"<p class=dim>CloudTrail: {reading.records:,} KMS records, {joined.matcher.of_other_keys:,} of other "
        f"keys, {joined.matcher.duplicates:,} delivered twice; {joined.matcher.network_records:,} of VPC "
        "endpoints, which are never matched.</p>"
    )
    yield from (f"<p class=dim>{escape(one)}</p>" for one in joined.matcher.key_exchanges.sentences())
    if digests is not None:
        text = (
            f"{digests.digests:,} digest files: {digests.signatures:,} signatures valid, {digests.unsigned:,} "
            f"copies without a signature, {digests.log_files:,} log files unchanged."
        )
        yield f"<p class={'dim' if digests.is_valid else 'bad'}>{text}</p>"
    unread = reading.problem_count + joined.unreadable_lines
    if unread:
        yield f"<p class=bad>{unread:,} files or records could not be read:</p><ul>"
        yield from (f"<li>{escape(problem)}</li>" for problem in reading.problems[:_MAX_ROWS])
        yield "</ul>"


def _tile(category: str, count: int) -> str:
    kind = " bad" if count and category in EXCEPTIONS_FIRST[:3] else ""
    return f'<div class="tile{kind}" title="{escape(_MEANING[category])}"><b>{count:,}</b>{escape(category)}</div>'


def _findings(category: str, count: int, findings: Iterable[Finding]) -> str:
    """A table that is sorted by the column that is chosen, by style alone: each row knows its ranks."""
    listed = [
        (
            *(format_time(found.time_ns)[:19], found.operation, found.actor, found.purpose),
            *(found.principal, found.key_arn, found.request_id, found.note),
        )
        for found in findings
    ]
    ranks = [_ranks([cells[column] for cells in listed]) for column in range(len(_COLUMNS))]
    rows = "".join(
        f'<tr style="{";".join(f"--s{column}:{rank[number]}" for column, rank in enumerate(ranks))}">'
        + "".join(f"<td class=text>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for number, cells in enumerate(listed)
    )
    group = f"sort-{EXCEPTIONS_FIRST.index(category)}"
    choices = " ".join(
        f"<label><input type=radio name={group} class=s{column}{'' if column else ' checked'}> {name}</label>"
        for column, name in enumerate(_COLUMNS)
    )
    more = f"<p class=dim>The first {_MAX_ROWS:,} of {count:,}.</p>" if count > _MAX_ROWS else ""
    return (
        f"<h2>{escape(category[0].upper() + category[1:])} ({count:,})</h2>"
        f"<p class=dim>{escape(_MEANING[category])}</p><section><p class=dim>Sorted by {choices}</p>"
        f"<div class=scroll><table class=findings><thead><tr><th>{'<th>'.join(_COLUMNS)}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div></section>{more}"
    )


def _ranks(cells: list[str]) -> list[int]:
    """The place of each cell among all of them in order, equal ones in the order in which they stand."""
    ranks = [0] * len(cells)
    for rank, number in enumerate(sorted(range(len(cells)), key=lambda number: (cells[number], number))):
        ranks[number] = rank
    return ranks


def _timeline(by_hour: Counter[int]) -> str:
    """Bars per hour; longer times are gathered so that at most a week's worth of bars stand."""
    if not by_hour:
        return "<p class=dim>There are none.</p>"
    first, last = min(by_hour), max(by_hour)
    hours = (last - first) // _HOUR_NS + 1
    per_bar = -(-hours // _MAX_BARS)
    bars: Counter[int] = Counter()
    for hour, count in by_hour.items():
        bars[(hour - first) // _HOUR_NS // per_bar] += count
    total, highest = -(-hours // per_bar), max(bars.values())
    width = 960 / total
    drawn = "".join(
        f'<rect x="{number * width:.1f}" y="{110 - 110 * count / highest:.1f}" width="{max(width * 0.85, 1):.1f}" '
        f'height="{110 * count / highest:.1f}"><title>{format_time(first + number * per_bar * _HOUR_NS)[:16]}: '
        f"{count:,}</title></rect>"
        for number, count in sorted(bars.items())
    )
    scale = f"{per_bar} hours each" if per_bar > 1 else "one hour each"
    # Words stand beside the drawing: inside, they would shrink with it on a phone.
    return (
        f'<p class="ends dim">at most {highest:,} per bar, {scale}</p>'
        f'<svg viewBox="0 0 960 110" preserveAspectRatio=none role=img aria-label="uses per hour">{drawn}</svg>'
        f'<p class="ends dim"><span>{format_time(first)[:16]}</span><span>{format_time(last)[:16]}</span></p>'
    )


def _ranking(counter: Counter[str]) -> str:
    if not counter:
        return "<p class=dim>There are none.</p>"
    highest = counter.most_common(1)[0][1]
    rows = "".join(
        f"<tr><td class=text>{escape(name)}</td><td class=count>{count:,}</td>"
        f'<td><meter min=0 max="{highest}" value="{count}"></meter></td></tr>'
        for name, count in counter.most_common(_TOP)
    )
    more = f"<p class=dim>and {len(counter) - _TOP:,} more</p>" if len(counter) > _TOP else ""
    return f"<div class=scroll><table><tbody>{rows}</tbody></table></div>{more}"
