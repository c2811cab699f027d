"""``phicrypt audit last-use``: KMS's own word on the last use of each key, compared with the log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer

from phicrypt.cli.audit_options import LogOption
from phicrypt.cli.audit_sources import check_key_arn, counted
from phicrypt.cli.audit_tables import end_with
from phicrypt.cli.console import complain, print_json, print_table
from phicrypt.cli.options import AwsAccess, JsonOption
from phicrypt.core.kms_arn import configured_key_arn, parse_kms_arn
from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.evidence.join import log_events
from phicrypt.evidence.last_uses import LastUseComparison
from phicrypt.evidence.log_lines import LogReading
from phicrypt.evidence.verdict import verdict_of_log
from phicrypt.witness.last_use import LAST_USE_PERMISSION, LastUse, ask_last_use

MAX_KEYS: Final = 1_000


def last_use(
    log: LogOption,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="ARN", help="KMS keys to ask about; by default those of the log."),
    ] = None,
    *,
    aws: AwsAccess,
    as_json: JsonOption = False,
) -> None:
    """Ask KMS for the last use of each key, and whether the log has it.

    Needs kms:GetKeyLastUsage, and no trail. Shows one use per key: an earlier foreign use is hidden by the
    next use of ours. Ends with exit code 1 where a use is not in the log.
    """
    uses: list[LastUse] = []
    refused: list[str] = []
    for key_arn in _keys(log, key):
        client = replace(aws, region=configured_key_arn(key_arn).region).client("kms")
        try:
            uses.append(ask_last_use(client, key_arn))
        except KeyAccessError as error:
            refused.append(f"{key_arn}: {error.code}; it needs {LAST_USE_PERMISSION} in the key's own account")
    reading = LogReading()
    comparison = LastUseComparison(uses)
    # Read after KMS was asked: what was used and logged in between is found.
    for event in counted(log_events(log, reading)):
        comparison.add(event)
    findings = list(comparison.findings())
    verdict = verdict_of_log(reading)
    verdict = replace(
        verdict,
        findings=sum(found.needs_explanation for found in findings),
        unread=verdict.unread + len(refused),
        first_unread=verdict.first_unread or next(iter(refused), ""),
    )
    if as_json:
        print_json({**verdict.as_dict(), "keys": [found.as_dict() for found in findings]})
    else:
        rows = [found.as_dict() for found in findings]
        columns = ("Key", "Finding", "Operation", "Time", "Request", "CloudTrail's event", "Note")
        print_table("", columns, (tuple(row.values()) for row in rows))
        for one in refused:
            complain(f"not asked: {one}")
    end_with(verdict)


COMMANDS: Final = {"last-use": last_use}
"""What ``phicrypt audit`` takes from here, by name."""


def _keys(log: Path, named: list[str] | None) -> list[str]:
    """The keys to ask about, each once."""
    for key_arn in named or ():
        check_key_arn("--key", key_arn)
    if named:
        return list(dict.fromkeys(named))
    found: dict[str, None] = {}
    for event in counted(log_events(log)):
        for call in (event.origin, *event.origin.other_calls) if event.origin is not None else ():
            key_arn = call.key_id.partition("#")[0]
            if key_arn not in found and (arn := parse_kms_arn(key_arn)) is not None and arn.resource_type == "key":
                found[key_arn] = None
                if len(found) > MAX_KEYS:
                    raise ConfigurationError(f"the log names more than {MAX_KEYS:,} keys: name some by --key")
    if not found:
        raise ConfigurationError("the log names no KMS key: name one by --key")
    return list(found)
