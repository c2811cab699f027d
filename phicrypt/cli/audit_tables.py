"""How the ``phicrypt audit`` commands print joins, uses and tables."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

import typer

from phicrypt.audit.events import format_time
from phicrypt.cli.console import complain, print_json, print_table
from phicrypt.evidence.cloudtrail import Reading
from phicrypt.evidence.join import Joined
from phicrypt.evidence.matching import EXCEPTIONS_FIRST, Category
from phicrypt.evidence.questions import Row
from phicrypt.evidence.verify import Verification

SHOWN_ROWS: Final = 200


def tell_problems(reading: Reading) -> None:
    for problem in reading.problems[:SHOWN_ROWS]:
        complain(problem)
    if reading.problem_count > SHOWN_ROWS:
        complain(f"and {reading.problem_count - SHOWN_ROWS:,} more that could not be read")


def verification_as_dict(result: Verification) -> dict[str, Any]:
    """For ``verify --json``."""
    return {
        "valid": result.is_valid,
        "proves": result.what_it_proves(),
        "records": result.records,
        "faults": [str(fault) for fault in result.faults],
        "fault_count": result.fault_count,
        "torn": [str(place) for place in result.torn],
        "anchors_confirmed": result.anchors_confirmed,
        "unknown_anchors": [anchor._asdict() for anchor in result.unknown_anchors],
        "chains": {
            chain.chain_id: {"records": chain.records, "first": chain.first_time, "last": chain.last_time}
            for chain in result.chains.values()
        },
    }


def print_verification(result: Verification) -> None:
    """The chains, what is wrong with them, and what the result proves."""
    print_table(
        "",
        ("Chain", "Records", "First", "Last", "After the last anchor"),
        (
            (chain.chain_id[:8], chain.records, chain.first_time[:19], chain.last_time[:19], chain.unanchored)
            for chain in result.chains.values()
        ),
    )
    for place in result.torn:
        typer.echo(f"torn by a crash in mid-write: {place}")
    for fault in result.faults[:SHOWN_ROWS]:
        typer.echo(str(fault))
    typer.echo(result.what_it_proves())


def join_as_dict(joined: Joined) -> dict[str, Any]:
    statistics, digests = joined.statistics, joined.digests
    return {
        "counts": joined.matcher.counts(),
        "uses": statistics.uses,
        "uses_with_cached_keys": statistics.cached,
        "uses_without_end": statistics.without_end,
        "by_actor": dict(statistics.by_actor.most_common()),
        "by_key": dict(statistics.by_key.most_common()),
        "by_purpose": dict(statistics.by_purpose.most_common()),
        "records_of_other_keys": joined.matcher.of_other_keys,
        "records_of_other_services": joined.reading.of_other_services,
        "unreadable_lines": joined.unreadable_lines,
        "problems": joined.reading.problems,
        "digest_problems": None if digests is None else digests.problems,
        "findings": [
            found._asdict() | {"time_ns": format_time(found.time_ns)}
            for found in joined.matcher.findings(*(set(EXCEPTIONS_FIRST) - {Category.MATCHED}))
        ],
    }


def print_join(joined: Joined) -> None:
    counts = joined.matcher.counts()
    print_table("", ("Finding", "KMS calls"), counts.items())
    digests = joined.digests
    if digests is None:
        typer.echo("No CloudTrail digest files were there: the log files were taken as they are.")
    else:
        typer.echo(
            f"{digests.digests:,} digest files, {digests.signatures:,} with a valid signature, "
            f"{digests.log_files:,} log files unchanged."
        )
        for problem in digests.problems[:SHOWN_ROWS]:
            typer.echo(problem)
    if joined.unreadable_lines:
        typer.echo(f"{joined.unreadable_lines:,} lines of the log hold no event: run phicrypt audit verify")
    listed = EXCEPTIONS_FIRST[:5]
    found = joined.matcher.findings(*listed, limit=SHOWN_ROWS)
    print_table(
        "",
        ("Finding", "Time", "Operation", "Actor", "Principal", "Request", "Note"),
        (
            (
                one.category,
                format_time(one.time_ns)[:19],
                one.operation,
                one.actor,
                one.principal,
                one.request_id,
                one.note,
            )
            for one in found
        ),
    )
    hidden = sum(counts[category] for category in listed) - SHOWN_ROWS
    if hidden > 0:
        typer.echo(f"and {hidden:,} more: --csv or --json lists all")


def print_rows(title: str, found: Iterable[Row]) -> None:
    print_table(
        title,
        ("Time", "Actor", "Purpose", "Operation", "Outcome", "Resource or context", "CloudTrail"),
        (
            (
                row.time[:19],
                row.actor,
                row.purpose,
                row.operation,
                row.outcome,
                row.resource or ", ".join(f"{pair}={value}" for pair, value in row.context.items()),
                row.cloudtrail,
            )
            for row in found
        ),
    )


def print_dicts(title: str, found: Iterable[Mapping[str, Any]], as_json: bool) -> None:
    listed = list(found)
    if as_json:
        print_json(listed)
    elif listed:
        print_table(title, tuple(listed[0]), (tuple(one.values()) for one in listed))
    else:
        typer.echo("There are none.")


def print_csv(found: Iterable[Mapping[str, Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    names: tuple[str, ...] = ()
    for one in found:
        if not names:
            names = tuple(one)
            writer.writerow("time" if name == "time_ns" else name for name in names)
        # A spreadsheet would run a cell that begins like a formula; user agents are chosen by others.
        writer.writerow(f"'{cell}" if str(cell)[:1] in "=+-@\t\r" and cell else cell for cell in one.values())
