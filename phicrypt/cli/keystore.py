"""``phicrypt keystore``: create, rotate, list and shred branch keys."""

from __future__ import annotations

import errno
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from phicrypt.audit.trail import AuditTrail
from phicrypt.cli.commands import Commands
from phicrypt.cli.console import EXIT_CODES_EPILOG, complain, print_json, print_table
from phicrypt.cli.options import (
    AuditOptions,
    AwsAccess,
    ContextOption,
    JsonOption,
    KeyOption,
    parse_pairs,
)
from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.keys.branch_keys.records import TOMBSTONE_TYPE
from phicrypt.keys.branch_keys.shredding import ShredCertificate
from phicrypt.keys.branch_keys.store import BranchKeyStore
from phicrypt.keys.branch_keys.table import BranchKeyTable

app = Commands(no_args_is_help=True, help="Create, rotate, list and shred branch keys.", epilog=EXIT_CODES_EPILOG)

TableOption = Annotated[
    str,
    typer.Option("--table", metavar="NAME", envvar="PHICRYPT_KEYSTORE", help="DynamoDB table of the key store."),
]
LogicalNameOption = Annotated[
    str | None,
    typer.Option(
        "--logical-name",
        metavar="NAME",
        help="The store's name, bound to every row; it stays when the table is restored under another name. "
        "Default: the table's name.",
    ),
]
MultiRegionOption = Annotated[
    bool,
    typer.Option("--multi-region", help="Accept rows under another replica of the same multi-Region key."),
]
BranchKeyId = Annotated[str, typer.Argument(metavar="ID", help="The branch key id.")]


@app.command("create-table")
def create_table(
    table: TableOption,
    deletion_protection: Annotated[
        bool, typer.Option(help="Losing the table loses everything that its branch keys protect.")
    ] = True,
    as_json: JsonOption = False,
    *,
    aws: AwsAccess,
) -> None:
    """Create the table of a key store, or check the one that exists; print its ARN."""
    arn = _table(aws, table).ensure_created(deletion_protection=deletion_protection)
    _print_result({"table_arn": arn}, as_json)


@app.command("create-key")
def create_key(
    table: TableOption,
    key: KeyOption,
    branch_key_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="An opaque id. Default: a random UUID.")
    ] = None,
    context: ContextOption = None,
    logical_name: LogicalNameOption = None,
    *,
    audit: AuditOptions,
    as_json: JsonOption = False,
    aws: AwsAccess,
) -> None:
    """Create a branch key with its first version and its beacon key; print its id.

    Id and context stand in clear in CloudTrail, so what looks like PHI is refused.
    """
    pairs = parse_pairs(context, "--context")
    with audit.trail() as trail:
        store = _store(aws, table, logical_name, key, trail)
        branch_key_id = store.create_key(branch_key_id, pairs)
    _print_result({"branch_key_id": branch_key_id}, as_json)


@app.command()
def rotate(
    branch_key_id: BranchKeyId,
    table: TableOption,
    key: KeyOption,
    logical_name: LogicalNameOption = None,
    multi_region: MultiRegionOption = False,
    *,
    audit: AuditOptions,
    as_json: JsonOption = False,
    aws: AwsAccess,
) -> None:
    """Make a new version the active one; print its UUID. Older versions go on decrypting.

    Running processes go on writing with the former version until their TTL is over.
    """
    with audit.trail() as trail:
        version = _store(aws, table, logical_name, key, trail, multi_region).rotate(branch_key_id)
    _print_result({"version": version}, as_json)


@app.command("list")
def list_keys(
    table: TableOption,
    as_json: JsonOption = False,
    *,
    aws: AwsAccess,
) -> None:
    """List the branch keys of a store, shredded ones included. Scans the table; asks KMS nothing."""
    rows = _table(aws, table).list_keys()
    shown = [
        {
            "branch_key_id": row.branch_key_id,
            "state": "shredded" if row.row_type == TOMBSTONE_TYPE else "active",
            "version": row.version,
            "since": row.create_time,
            "kms_key_arn": row.kms_key_arn or None,
        }
        for row in rows
    ]
    _print_rows("Branch keys", ("branch_key_id", "state", "version", "since", "kms_key_arn"), shown, as_json)


@app.command()
def show(
    branch_key_id: BranchKeyId,
    table: TableOption,
    as_json: JsonOption = False,
    *,
    aws: AwsAccess,
) -> None:
    """Show the rows of one branch key, the newest first. Asks KMS nothing, so nothing is verified."""
    rows = _table(aws, table).list_rows(branch_key_id)
    if not rows:
        raise KeyAccessError(
            f"the table {table!r} holds no branch key of that id",
            operation="Query",
            code="BranchKeyNotFound",
            key_arn=table,
        )
    _print_rows(branch_key_id, ("row_type", "version", "create_time", "kms_key_arn"), map(asdict, rows), as_json)


@app.command()
def shred(
    branch_key_id: BranchKeyId,
    table: TableOption,
    key: KeyOption,
    logical_name: LogicalNameOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be deleted and what else holds it; change nothing.")
    ] = False,
    confirm: Annotated[
        str | None,
        typer.Option("--confirm", metavar="ID", help="The branch key id again, instead of typing it when asked."),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", metavar="FILE", help="Write the certificate there as well.")
    ] = None,
    *,
    audit: AuditOptions,
    as_json: JsonOption = False,
    aws: AwsAccess,
) -> None:
    """Delete every row of a branch key, for good. What it protected cannot be opened afterwards.

    Shows first what would be deleted and what else holds it, and asks for the id to be typed. The
    certificate says rows deleted: backups, recovery, exports, streams and replicas may hold copies.
    An interrupted shred is finished by calling it again.
    """
    if certificate is not None and certificate.exists():
        raise FileExistsError(errno.EEXIST, "the certificate's file exists", str(certificate))
    with audit.trail() as trail:
        store = _store(aws, table, logical_name, key, trail)
        plan = store.shred(branch_key_id, dry_run=True)
        if dry_run:
            _print_certificate(plan, as_json)
            return
        if confirm is None:
            _print_plan(plan)
        _check_confirmation(branch_key_id, confirm)
        done = store.shred(branch_key_id)
        # Printed first: what was done must be known even where the file cannot be written.
        _print_certificate(done, as_json)
    if certificate is not None:
        certificate.write_text(done.to_json() + "\n", encoding="utf-8")


def _check_confirmation(branch_key_id: str, confirm: str | None) -> None:
    if confirm is None:
        if not sys.stdin.isatty():
            raise ConfigurationError(
                "shred asks for the id to be typed on a terminal; a script gives --confirm ID"
            )
        print("Type the branch key id to delete these rows for good: ", end="", file=sys.stderr, flush=True)
        confirm = sys.stdin.readline().rstrip("\r\n")
    if confirm != branch_key_id:
        raise ConfigurationError("what was typed is not the branch key id; nothing was changed")


def _print_plan(plan: ShredCertificate) -> None:
    """The dry run on stderr, before the question."""
    complain(f"{len(plan.rows)} rows of {plan.branch_key_id} in {plan.table_name} will be deleted for good")
    for copy in plan.remaining_copies:
        complain(f"copies remain: {copy.kind} {copy.where}, {_until(copy.until)}")
    for place in plan.not_examined:
        complain(f"not examined: {place}")


def _print_certificate(certificate: ShredCertificate, as_json: bool) -> None:
    if as_json or not certificate.dry_run:
        print(certificate.to_json())
        return
    rows = [(row["type"], row["create-time"], row["kms-arn"]) for row in certificate.rows]
    print_table(certificate.statement, ("row", "created", "KMS key"), rows)
    copies = [(copy.kind, copy.where, _until(copy.until)) for copy in certificate.remaining_copies]
    print_table("Copies that would remain", ("kind", "where", "until"), copies)
    print(f"Unrecoverable from: {certificate.unrecoverable_from or 'open, see the copies without an end'}")
    for place in certificate.not_examined:
        print(f"Not examined: {place}")


def _until(until: str | None) -> str:
    return f"until {until}" if until is not None else "until somebody deletes it"


def _store(
    aws: AwsAccess,
    table: str,
    logical_name: str | None,
    key: str,
    trail: AuditTrail | None,
    multi_region: bool = False,
) -> BranchKeyStore:
    # The keyring resolves an alias once, so that what is pinned is a key ARN.
    key_arn = aws.kms_keyring(key).key_arn
    assert key_arn is not None
    region = key_arn.split(":")[3]
    return BranchKeyStore(
        table,
        logical_name or table,
        key_arn,
        multi_region=multi_region,
        dynamodb_client=aws.client("dynamodb", region=aws.region or region),
        kms_client=aws.client("kms", region=region),
        trail=trail,
    )


def _table(aws: AwsAccess, table: str) -> BranchKeyTable:
    return BranchKeyTable(table, [(aws.region, aws.client("dynamodb"))])


def _print_result(result: dict[str, str], as_json: bool) -> None:
    if as_json:
        print_json(result)
    else:
        print(*result.values())


def _print_rows(title: str, columns: tuple[str, ...], rows: Any, as_json: bool) -> None:
    rows = list(rows)
    if as_json:
        print_json(rows)
    else:
        print_table(title, columns, ([row[column] for column in columns] for row in rows))
