"""``phicrypt dynamodb``: encrypt a table in place, and prove that no plaintext is left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phicrypt.cli.commands import Commands
from phicrypt.cli.console import CHECK_EXIT_CODE, EXIT_CODES_EPILOG, complain, print_json, print_table, progress
from phicrypt.cli.options import (
    AuditOptions,
    AwsAccess,
    JsonOption,
)
from phicrypt.errors import ConfigurationError

if TYPE_CHECKING:
    from phicrypt.audit.trail import AuditTrail
    from phicrypt.dynamodb.legacy import LegacyItems

app = Commands(no_args_is_help=True, help="Encrypt tables in place and prove that no plaintext is left.")

TableArgument = Annotated[str, typer.Argument(metavar="TABLE", help="Table name or ARN.")]
ConfigOption = Annotated[
    Path, typer.Option("--config", metavar="FILE", help="TOML or JSON: the table and its keyring.")
]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", metavar="ARN", envvar="PHICRYPT_KEY", help="KMS key ARN, if the file names no keyring."),
]
SegmentsOption = Annotated[int, typer.Option("--segments", help="Parallel workers, 1 to 64.")]
RateOption = Annotated[
    float | None, typer.Option("--items-per-second", help="At most so many items a second, over all workers.")
]
PageOption = Annotated[int | None, typer.Option("--page-size", help="Items per page of the scan.")]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        metavar="FILE",
        help="Keep the position here and go on from it after a kill. It holds item keys; only you can read it.",
    ),
]
ProblemsOption = Annotated[
    Path | None,
    typer.Option(
        "--problems",
        metavar="FILE",
        help="Write the keys of items that need attention here; only you can read it.",
    ),
]


@app.command(epilog=EXIT_CODES_EPILOG)
def migrate(
    table: TableArgument,
    config: ConfigOption,
    key: KeyOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Encrypt in memory and report; write nothing.")
    ] = False,
    segments: SegmentsOption = 4,
    items_per_second: RateOption = None,
    page_size: PageOption = None,
    checkpoint: CheckpointOption = None,
    problems: ProblemsOption = None,
    *,
    audit: AuditOptions,
    aws: AwsAccess,
    as_json: JsonOption = False,
) -> None:
    """Encrypt the plaintext items of a table in place, while it is used.

    With a [legacy] section in the file, items of the DynamoDB Encryption Client are opened with AWS's
    library, verified, and encrypted anew as well (extra: legacy).

    Every write is conditional: an item that somebody changes meanwhile is read again, and nobody's
    change is lost. Ends with 1 if items are left that need attention. Run `phicrypt dynamodb verify`
    afterwards.
    """
    from phicrypt.dynamodb.migration import WalkOptions, migrate_table

    options = WalkOptions(
        segments=segments,
        items_per_second=items_per_second,
        page_size=page_size,
        checkpoint_file=checkpoint,
        problems_file=problems,
    )
    with (
        audit.trail() as trail,
        progress("Encrypting" if not dry_run else "Trying", None) as advance,
    ):
        client, legacy = _client(table, config, key, aws, trail), _legacy(config, aws)
        report = migrate_table(
            client,
            table,
            options,
            legacy=legacy,
            dry_run=dry_run,
            on_progress=lambda done: advance(done),
        )
    counts = {
        "can be encrypted" if dry_run else "encrypted now": report.encrypted_now,
        "encrypted before": report.encrypted_before,
        **({} if legacy is None else {"from the legacy client": report.from_legacy}),
        "legacy client": report.legacy,
        "damaged": report.damaged,
        "refused": report.refused,
        "changed too often": report.contended,
        "deleted meanwhile": report.vanished,
    }
    _print(as_json, f"Dry run of {table}" if dry_run else table, counts, report.reasons, report.is_complete)
    if not report.is_complete:
        complain("items are left that need attention")
        raise typer.Exit(CHECK_EXIT_CODE)


@app.command(epilog=EXIT_CODES_EPILOG)
def verify(
    table: TableArgument,
    config: ConfigOption,
    key: KeyOption = None,
    segments: SegmentsOption = 4,
    items_per_second: RateOption = None,
    page_size: PageOption = None,
    checkpoint: CheckpointOption = None,
    problems: ProblemsOption = None,
    *,
    audit: AuditOptions,
    aws: AwsAccess,
    as_json: JsonOption = False,
) -> None:
    """Open every item of a table, and prove that none is plaintext, damaged or of the legacy client.

    Ends with 1 otherwise. It proves the table itself: backups, point-in-time recovery, exports, streams
    and replicas hold what was there before.
    """
    from phicrypt.dynamodb.migration import WalkOptions, verify_table

    options = WalkOptions(
        segments=segments,
        items_per_second=items_per_second,
        page_size=page_size,
        checkpoint_file=checkpoint,
        problems_file=problems,
    )
    with audit.trail() as trail, progress("Verifying", None) as advance:
        client = _client(table, config, key, aws, trail)
        report = verify_table(client, table, options, on_progress=lambda done: advance(done))
    counts = {
        "verified": report.verified,
        "plaintext": report.plaintext,
        "legacy client": report.legacy,
        "damaged": report.damaged,
        "not findable": report.unfindable,
    }
    _print(as_json, table, counts, report.reasons, report.is_proven, first_problem=report.first_problem)
    if not report.is_proven:
        where = f"; the first: {report.first_problem}" if report.first_problem else ""
        complain(f"the table holds items that are not encrypted, not genuine or not found by their beacons{where}")
        raise typer.Exit(CHECK_EXIT_CODE)
    complain("every item is encrypted and genuine; backups, exports and streams from before are not covered")


@app.command(name="beacon-backfill", epilog=EXIT_CODES_EPILOG)
def beacon_backfill(
    table: TableArgument,
    config: ConfigOption,
    key: KeyOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compute and report; write nothing.")] = False,
    segments: SegmentsOption = 4,
    items_per_second: RateOption = None,
    page_size: PageOption = None,
    checkpoint: CheckpointOption = None,
    problems: ProblemsOption = None,
    *,
    audit: AuditOptions,
    aws: AwsAccess,
    as_json: JsonOption = False,
) -> None:
    """Write the beacons that encrypted items lack, so that lookups find them; nothing is encrypted again.

    The file's [search] section says which beacons. Deploy writers that know them first. Every write is
    conditional; ends with 1 if items are left that need attention. Run `phicrypt dynamodb verify` afterwards.
    """
    from phicrypt.dynamodb.backfill import backfill_table
    from phicrypt.dynamodb.walks import WalkOptions

    options = WalkOptions(
        segments=segments,
        items_per_second=items_per_second,
        page_size=page_size,
        checkpoint_file=checkpoint,
        problems_file=problems,
    )
    with audit.trail() as trail, progress("Trying" if dry_run else "Writing beacons", None) as advance:
        client = _client(table, config, key, aws, trail)
        report = backfill_table(client, table, options, dry_run=dry_run, on_progress=lambda done: advance(done))
    counts = {
        "would get beacons" if dry_run else "got beacons now": report.written_now,
        "had them": report.found_before,
        "plaintext": report.plaintext,
        "legacy client": report.legacy,
        "damaged": report.damaged,
        "refused": report.refused,
        "changed too often": report.contended,
        "deleted meanwhile": report.vanished,
    }
    _print(as_json, f"Dry run of {table}" if dry_run else table, counts, report.reasons, report.is_complete)
    if not report.is_complete:
        complain("items are left that need attention")
        raise typer.Exit(CHECK_EXIT_CODE)


def _client(table_name: str, config_path: Path, key: str | None, aws: AwsAccess, trail: AuditTrail | None) -> Any:
    from phicrypt.client import PhiCrypt
    from phicrypt.dynamodb.client import attach
    from phicrypt.dynamodb.config_file import make_keyring, read_config_file
    from phicrypt.dynamodb.tables import plain_table_name

    content = read_config_file(config_path)
    if (content.keyring is None) == (key is None):
        raise ConfigurationError("name the key once: a [keyring] section in the file, or --key")
    if content.keyring is not None:
        clients = {service: aws.client(service) for service in ("dynamodb", "kms")}
        keyring = make_keyring(content.keyring, clients)
    else:
        keyring = aws.kms_keyring(str(key))
    return attach(
        PhiCrypt(keyring, audit=trail or ()).session,
        aws.client("dynamodb"),
        [content.for_table(plain_table_name(table_name))],
    )


def _legacy(config_path: Path, aws: AwsAccess) -> LegacyItems | None:
    from phicrypt.dynamodb.config_file import read_config_file

    section = read_config_file(config_path).legacy
    return None if section is None else section.items(aws.kms_keyring(section.kms_key_arn).kms_clients)


def _print(
    as_json: bool,
    title: str,
    counts: Mapping[str, int],
    reasons: Mapping[str, int],
    is_done: bool,
    **more: str,
) -> None:
    if as_json:
        named = {name.replace(" ", "_"): count for name, count in counts.items()}
        print_json({**named, "reasons": dict(reasons), "complete": is_done, **more})
        return
    print_table(title, ("items", ""), [(f"{count:,}", name) for name, count in counts.items()])
    if reasons:
        print_table("", ("items", "why"), [(f"{count:,}", reason) for reason, count in reasons.items()])
