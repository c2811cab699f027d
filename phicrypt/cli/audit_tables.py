"""How the ``phicrypt audit`` commands print joins, uses and tables."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

import typer

from phicrypt.audit.events import format_time
from phicrypt.cli.console import complain, print_table, printable
from phicrypt.evidence.cloudtrail import Reading
from phicrypt.evidence.findings import EXCEPTIONS_FIRST, Category
from phicrypt.evidence.join import Joined
from phicrypt.evidence.questions import Incident, Row
from phicrypt.evidence.verdict import AGREE, EXIT_CODES, NOT_COVERED, NOT_READ, Verdict
from phicrypt.evidence.verify import Verification

SHOWN_ROWS: Final = 200
_ROWS_AT_ONCE: Final = 1_000
VERDICTS_EPILOG: Final = (
    f"{EXIT_CODES[NOT_READ]}  a line, file or record could not be read\n"
    f"{EXIT_CODES[NOT_COVERED]}  no digest covers a part of what was asked"
)


def end_with(verdict: Verdict, *, told: bool = False) -> None:
    """End the command with the verdict's exit code; say on stderr what is wrong, unless it was told."""
    if verdict.word == AGREE:
        return
    for line in () if told else verdict.bad_lines():
        complain(line)
    raise typer.Exit(verdict.exit_code)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read: a report names people and what they did."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, 0o600)
        file.write(text)


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
        "tree": None if result.tree is None else {"lines": result.tree.size, "confirmed": result.tree.confirmed},
        "chains": {
            chain.chain_id: {"records": chain.records, "first": chain.first_time, "last": chain.last_time}
            for chain in result.chains.values()
        },
    }


def print_verification(result: Verification, verdict: Verdict) -> None:
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
        typer.echo(printable(str(fault)))
    for anchor in result.unknown_anchors[:SHOWN_ROWS]:
        typer.echo(f"an anchor of chain {anchor.chain_id[:8]}, record {anchor.sequence}: not in this log")
    if verdict.word != AGREE:
        typer.echo(result.what_it_proves())
    _print_verdict(verdict)


def _print_verdict(verdict: Verdict) -> None:
    for line in verdict.lines():
        typer.echo(printable(line))


def print_join_json(joined: Joined, verdict: Verdict) -> None:
    """The join as one JSON object, its findings streamed."""
    statistics, digests = joined.statistics, joined.digests
    found = joined.matcher.findings(*(set(EXCEPTIONS_FIRST) - {Category.MATCHED}))
    answer = {
        **verdict.as_dict(),
        "counts": joined.matcher.counts(),
        "uses": statistics.uses,
        "uses_with_cached_keys": statistics.cached,
        "uses_without_end": statistics.without_end,
        "by_actor": dict(statistics.by_actor.most_common()),
        "by_key": dict(statistics.by_key.most_common()),
        "by_purpose": dict(statistics.by_purpose.most_common()),
        "key_exchange": joined.matcher.key_exchanges.as_dict(),
        "records_of_other_keys": joined.matcher.of_other_keys,
        "records_of_other_services": joined.reading.of_other_services,
        "unreadable_lines": joined.unreadable_lines,
        "problems": joined.reading.problems,
        "digest_problems": None if digests is None else digests.problems,
    }
    listed = (one._asdict() | {"time_ns": format_time(one.time_ns)} for one in found)
    print_json_object(answer, {"findings": listed})


def print_incident_json(found: Incident, verdict: Verdict) -> None:
    """The incident as one JSON object, its lists streamed."""
    print_json_object(
        {**verdict.as_dict(), "key": found.key, "sealed_messages": found.sealed_messages, "actors": found.actors},
        {
            "decrypted": (row.as_dict() for row in found.decrypted),
            "refused": (row.as_dict() for row in found.refused),
        },
        {"decryptable": found.decryptable.items()},
    )


def print_json_list(values: Iterable[Any]) -> None:
    """A JSON array on stdout, one element per line, none of them kept."""
    sys.stdout.write("[")
    for number, value in enumerate(values):
        sys.stdout.write((",\n " if number else "") + json.dumps(value, default=str))
    sys.stdout.write("]\n")


def print_json_object(
    members: Mapping[str, Any],
    lists: Mapping[str, Iterable[Any]],
    objects: Mapping[str, Iterable[tuple[str, Any]]] | None = None,
) -> None:
    """A JSON object on stdout whose long members are streamed."""
    sys.stdout.write(json.dumps(members, default=str)[:-1])
    for name, pairs in (objects or {}).items():
        sys.stdout.write(f",\n{json.dumps(name)}: {{")
        for number, (pair, value) in enumerate(pairs):
            sys.stdout.write((",\n " if number else "") + f"{json.dumps(pair)}: {json.dumps(value)}")
        sys.stdout.write("}")
    for name, values in lists.items():
        sys.stdout.write(f",\n{json.dumps(name)}: ")
        print_json_list(values)
    sys.stdout.write("}\n")


def print_join(joined: Joined, verdict: Verdict) -> None:
    """The verdict, the counts, and what needs an explanation."""
    counts = joined.matcher.counts()
    _print_verdict(verdict)
    print_table("", ("Finding", "KMS calls"), counts.items())
    digests = joined.digests
    for sentence in joined.matcher.key_exchanges.sentences():
        typer.echo(printable(sentence))
    if joined.matcher.network_records:
        typer.echo(f"{joined.matcher.network_records:,} records of VPC endpoints stand beside; none is matched.")
    if digests is not None:
        typer.echo(
            f"{digests.digests:,} digest files, {digests.signatures:,} with a valid signature, "
            f"{digests.log_files:,} log files unchanged."
        )
        for problem in digests.problems[:SHOWN_ROWS]:
            typer.echo(printable(problem))
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
    """Uses as tables of at most 1,000 rows each: what was printed is not kept."""
    waiting = iter(found)
    shown = list(islice(waiting, _ROWS_AT_ONCE))
    while True:
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
                for row in shown
            ),
        )
        shown = list(islice(waiting, _ROWS_AT_ONCE))
        if not shown:
            return


def print_dicts(title: str, found: Iterable[Mapping[str, Any]], as_json: bool) -> None:
    """Rows as a JSON array, or as tables of at most 1,000 rows each."""
    if as_json:
        print_json_list(found)
        return
    waiting = iter(found)
    listed = list(islice(waiting, _ROWS_AT_ONCE))
    if not listed:
        typer.echo("There are none.")
    while listed:
        print_table(title, tuple(listed[0]), (tuple(one.values()) for one in listed))
        listed = list(islice(waiting, _ROWS_AT_ONCE))


def print_csv(found: Iterable[Mapping[str, Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    names: tuple[str, ...] = ()
    for one in found:
        if not names:
            names = tuple(one)
            writer.writerow("time" if name == "time_ns" else name for name in names)
        # A spreadsheet would run a cell that begins like a formula; user agents are chosen by others.
        writer.writerow(f"'{cell}" if str(cell)[:1] in "=+-@\t\r" and cell else cell for cell in one.values())
