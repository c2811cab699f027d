"""``phicrypt audit``: verify logs, join them with CloudTrail, and answer an auditor's questions."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from phicrypt.audit.events import AuditEvent, format_time
from phicrypt.cli.audit_checkpoints import COMMANDS as CHECKPOINT_COMMANDS
from phicrypt.cli.audit_last_use import COMMANDS as LAST_USE_COMMANDS
from phicrypt.cli.audit_options import (
    AnchorKeyOption,
    LogOption,
    MaybeTrailOption,
    NoDigestsOption,
    PrincipalOption,
    SinceOption,
    TokenKeysOption,
    TrailOption,
    UntilOption,
)
from phicrypt.cli.audit_sources import (
    Asked,
    counted,
    events_between,
    open_join,
    parse_moment,
    tokens_of,
)
from phicrypt.cli.audit_tables import (
    SHOWN_ROWS,
    VERDICTS_EPILOG,
    end_with,
    print_csv,
    print_dicts,
    print_incident_json,
    print_join,
    print_join_json,
    print_json_list,
    print_rows,
    tell_problems,
    write_private,
)
from phicrypt.cli.commands import Commands
from phicrypt.cli.console import EXIT_CODES_EPILOG, complain, print_table
from phicrypt.cli.options import (
    AuditOptions,
    AuditWithoutPurpose,
    AwsAccess,
    AwsWithoutFips,
    JsonOption,
    KeyOption,
)
from phicrypt.errors import ConfigurationError
from phicrypt.evidence.join import log_events
from phicrypt.evidence.log_lines import LogReading, read_records
from phicrypt.evidence.questions import Row, by_actor, grants, incident, is_disclosure, rows, who_used
from phicrypt.evidence.verdict import AGREE, verdict_of_chain, verdict_of_join, verdict_of_log
from phicrypt.evidence.verify import verify
from phicrypt.witness.token_keys import ResourceTokens

app = Commands(
    no_args_is_help=True,
    help="Verify audit logs, join them with CloudTrail, and ask them questions.",
    epilog=f"{EXIT_CODES_EPILOG}\n{VERDICTS_EPILOG}",
)

for _name, _command in {**CHECKPOINT_COMMANDS, **LAST_USE_COMMANDS}.items():
    app.command(_name)(_command)


@app.command("join")
def join_log(
    log: LogOption,
    trail: TrailOption,
    since: SinceOption = None,
    until: UntilOption = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", metavar="ARN", help="Further KMS keys to watch; repeatable.")
    ] = None,
    principal: PrincipalOption = None,
    anchor_key: AnchorKeyOption = None,
    no_digests: NoDigestsOption = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a self-contained report.")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print every finding as CSV.")] = False,
    *,
    aws: AwsWithoutFips,
    as_json: JsonOption = False,
) -> None:
    """Join the log with CloudTrail, and list what is missing on either side.

    The exit code is the verdict's: 0 only where both sides agree, everything was read, and digests cover
    what was asked; see docs/audit.md.
    """
    asked = Asked(since, until, tuple(key or ()), tuple(principal or ()), anchor_key, no_digests)
    with open_join(log, trail, aws, asked) as joined:
        tell_problems(joined.reading)
        verdict = verdict_of_join(joined)
        if html is not None:
            from phicrypt.evidence.report import render

            write_private(html, render(joined, title=f"Audit of {log.name} with CloudTrail"))
            complain(f"the report is in {html}")
        if as_json:
            print_join_json(joined, verdict)
        elif as_csv:
            print_csv(
                found._asdict() | {"time_ns": format_time(found.time_ns)} for found in joined.matcher.findings()
            )
        else:
            print_join(joined, verdict)
        end_with(verdict, told=not as_csv)


@app.command()
def who(
    log: LogOption,
    resource: Annotated[
        str,
        typer.Option(
            "--resource",
            metavar="NAME",
            help="s3://bucket/key, dynamodb://table/partition[/sort], branch-key://logical-name/id, or a token.",
        ),
    ],
    token_keys: TokenKeysOption = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="ARN", help="KMS key that sealed the token keys.")
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    trail: MaybeTrailOption = None,
    principal: PrincipalOption = None,
    *,
    audit: AuditWithoutPurpose,
    aws: AwsWithoutFips,
    as_json: JsonOption = False,
) -> None:
    """Who used a resource, when and why. --audit-log records the opening of the token keys."""
    with audit.trail() as opening:
        tokens = tokens_of(resource, token_keys, key, aws, opening)
    _answer(log, who_used(tokens), trail, aws, since, until, principal, as_json, title=f"Uses of {resource}")


@app.command()
def actor(
    name: Annotated[str, typer.Argument(metavar="ACTOR", help="As given to acting_as.")],
    log: LogOption,
    since: SinceOption = None,
    until: UntilOption = None,
    trail: MaybeTrailOption = None,
    principal: PrincipalOption = None,
    *,
    aws: AwsWithoutFips,
    as_json: JsonOption = False,
) -> None:
    """What an actor used."""
    _answer(log, by_actor(name), trail, aws, since, until, principal, as_json, title=f"Uses by {name}")


@app.command()
def disclosures(
    log: LogOption,
    resource: Annotated[
        str | None, typer.Option("--resource", metavar="NAME", help="Of this resource only.")
    ] = None,
    token_keys: TokenKeysOption = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="ARN", help="KMS key that sealed the token keys.")
    ] = None,
    since: SinceOption = "2192d",
    until: UntilOption = None,
    *,
    audit: AuditWithoutPurpose,
    aws: AwsWithoutFips,
    as_json: JsonOption = False,
) -> None:
    """The accounting of disclosures (45 CFR 164.528): date, recipient, what, and purpose; six years by default.

    Lists what was opened for disclosure, research, legal or public health purposes. The recipient is what
    acting_as was given; the log cannot know to whom plaintext went afterwards.
    """
    with audit.trail() as opening:
        tokens = tokens_of(resource, token_keys, key, aws, opening) if resource else None
    reading = LogReading()
    found = rows(
        events_between(log, since, until, reading),
        lambda use: is_disclosure(use) and (tokens is None or use.resource in tokens),
    )
    accounting = (
        {
            "date": row.time,
            "recipient": row.recipient,
            "description": row.resource or ", ".join(f"{pair}={value}" for pair, value in row.context.items()),
            "purpose": row.purpose,
            "disclosed_by": row.actor,
            "use_id": row.use_id,
        }
        for row in found
    )
    print_dicts("Accounting of disclosures", accounting, as_json)
    end_with(verdict_of_log(reading))


@app.command("incident")
def incident_report(
    log: LogOption,
    key: Annotated[
        str, typer.Option("--key", metavar="ARN", help="The key that was exposed; a branch key as logged.")
    ],
    from_time: Annotated[str, typer.Option("--from", metavar="TIME", help="When the exposure began.")],
    to_time: Annotated[str, typer.Option("--to", metavar="TIME", help="When it ended.")] = "0m",
    as_json: JsonOption = False,
) -> None:
    """What was decryptable under a key while it was exposed, and what was decrypted."""
    reading = LogReading()
    found = incident(counted(log_events(log, reading)), key, parse_moment(from_time), parse_moment(to_time))
    verdict = verdict_of_log(reading)
    if as_json:
        print_incident_json(found, verdict)
    else:
        typer.echo(f"{found.sealed_messages:,} messages sealed under the key until then could be opened:")
        most = found.decryptable.most_common(SHOWN_ROWS)
        print_table("", ("Messages", "Resource or context"), ((count, name) for name, count in most))
        print_rows(f"Opened within the time: {len(found.decrypted):,}", found.decrypted)
        print_rows(f"Refused within the time: {len(found.refused):,}", found.refused)
    end_with(verdict)


@app.command("export")
def export_events(
    log: LogOption,
    name: Annotated[str, typer.Option("--format", metavar="NAME", help="fhir, fhir-r5, ocsf or ecs.")],
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Export although the log's chains do not hold.")
    ] = False,
    patient_map: Annotated[
        Path | None,
        typer.Option(
            "--patient-map",
            metavar="FILE",
            help="Your own JSON of patients by resource token, for --format fhir: disclosures in IHE's profile.",
        ),
    ] = None,
) -> None:
    """Print the log's events in a format that others read, one JSON document per line.

    A log whose chains do not hold is refused, unless it is exported --unverified.
    """
    from phicrypt.evidence.exports import exported
    from phicrypt.evidence.exports.patients import read_patient_map

    patients = read_patient_map(patient_map) if patient_map is not None else None
    if not unverified:
        verdict = verdict_of_chain(verify(log))
        if verdict.word != AGREE:
            end_with(verdict)
    reading = LogReading()
    for document in exported(counted(read_records(log, reading)), name, reading, patients=patients):
        sys.stdout.write(json.dumps(document, separators=(",", ":")) + "\n")
    end_with(verdict_of_log(reading))


@app.command("break-glass")
def break_glass_grants(
    log: LogOption,
    everything: Annotated[bool, typer.Option("--all", help="Reviewed grants too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Break-glass grants that await review. Ends with exit code 1 if there are any."""
    reading = LogReading()
    found = grants(log_events(log, reading))
    waiting = [grant for grant in found if not grant.reviewed_by]
    print_dicts("Break-glass", (grant.as_dict() for grant in (found if everything else waiting)), as_json)
    end_with(replace(verdict_of_log(reading), findings=len(waiting)))


@app.command()
def review(
    grant_id: Annotated[str, typer.Argument(metavar="GRANT", help="As listed by break-glass.")],
    log: LogOption,
    reviewer: Annotated[str, typer.Option("--reviewer", help="Who reviewed; not the one who broke the glass.")],
    note: Annotated[str, typer.Option("--note", help="What was found; no PHI.")] = "",
) -> None:
    """Record that a break-glass grant was reviewed."""
    from phicrypt.audit.sinks.jsonl import JsonlSink
    from phicrypt.audit.trail import AuditTrail
    from phicrypt.recovery.break_glass import record_review

    reading = LogReading()
    known = {grant.grant_id: grant for grant in grants(log_events(log, reading))}
    if grant_id not in known and verdict_of_log(reading).word != AGREE:
        end_with(verdict_of_log(reading))
    if grant_id not in known:
        raise ConfigurationError("the log holds no such grant")
    if known[grant_id].actor == reviewer:
        raise ConfigurationError("nobody reviews their own grant")
    trail = AuditTrail([JsonlSink(log)], application="phicrypt-cli")
    record_review(trail, grant_id, reviewer=reviewer, note=note)
    trail.close()


@app.command("token-keys")
def token_keys_file(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where the sealed keys lie.")],
    key: KeyOption,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Add a key to an existing file; old tokens stay findable.")
    ] = False,
    *,
    audit: AuditOptions,
    aws: AwsWithoutFips,
) -> None:
    """Make the file of keys for resource tokens, sealed under a KMS key, or add a key to it."""
    keyring = aws.kms_keyring(key)
    make = ResourceTokens.rotate if rotate else ResourceTokens.create
    with audit.trail() as trail:
        tokens = make(path, keyring, trail=trail)
    typer.echo(repr(tokens))


def _answer(
    log: Path,
    wanted: Callable[[AuditEvent], bool],
    trail: str | None,
    aws: AwsAccess,
    since: str | None,
    until: str | None,
    principals: list[str] | None,
    as_json: bool,
    *,
    title: str,
) -> None:
    def print_answer(found: Iterable[Row]) -> None:
        if as_json:
            print_json_list(row.as_dict() for row in found)
        else:
            print_rows(title, found)

    reading = LogReading()
    events = events_between(log, since, until, reading)
    if trail is None:
        print_answer(rows(events, wanted))
        end_with(verdict_of_log(reading))
        return
    with open_join(log, trail, aws, Asked(since, until, (), tuple(principals or ()))) as joined:
        tell_problems(joined.reading)
        print_answer(rows(events, wanted, lambda use: joined.matcher.category_of(use.origin)))
        end_with(verdict_of_join(joined, with_findings=False))
