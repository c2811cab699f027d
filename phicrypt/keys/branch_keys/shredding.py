"""Shredding a branch key: deleting its rows, and saying honestly what still holds them (rule 15).

The order makes an interruption safe, and a repetition finishes what was begun:

1. one transaction writes the tombstone and deletes the ACTIVE and beacon rows: nothing new is
   encrypted, and no reader of this library opens anything of the key any more;
2. version rows are deleted in transactions that count themselves on the tombstone;
3. the tombstone stays, so that the id is never created again.

**The certificate says that rows were deleted, not that the key is gone**: point-in-time recovery,
backups, exports, streams and replicas may hold copies of the rows, which open as long as the KMS key
exists. A KMS key per tenant, scheduled for deletion, is the stronger path.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from phicrypt.errors import KeyAccessError
from phicrypt.keys.branch_keys.records import (
    ACTIVE_TYPE,
    BEACON_TYPE,
    PARTITION_KEY,
    SORT_KEY,
    TOMBSTONE_TYPE,
    VERSION_PREFIX,
    BranchKeyRow,
    format_time,
)
from phicrypt.keys.branch_keys.table import MAX_TRANSACTION_ITEMS, BranchKeyTable
from phicrypt.keys.branch_keys.table_errors import ConditionFailed
from phicrypt.keys.branch_keys.values import no_such_branch_key

_STREAM_RETENTION: Final = timedelta(hours=24)
_DEFAULT_RECOVERY_DAYS: Final = 35
_COUNT: Final = "SET #what = if_not_exists(#what, :now) ADD #count :added"
_NOT_EXAMINED: Final = (
    "processes that hold a branch key in memory until their ttl_seconds: restart them",
    "a Kinesis data stream fed by the table (up to 365 days), and copies that other programs made",
    "settings and backups of replicas in other Regions",
)


@dataclass(frozen=True, slots=True)
class RemainingCopy:
    """Something that may still hold the deleted rows.

    Attributes:
        kind: ``point-in-time-recovery``, ``backup``, ``export``, ``stream`` or ``replica``.
        where: its ARN, name or a description.
        until: when it will no longer hold them, in UTC; None where it holds them until someone
            deletes it, or where this could not be found out.
    """

    kind: str
    where: str
    until: str | None


@dataclass(frozen=True, slots=True)
class ShredCertificate:
    """What a shred did, or with ``dry_run`` would do.

    Attributes:
        statement: one sentence that claims no more than happened.
        branch_key_id, table_name, logical_name: what was shredded.
        dry_run: whether nothing was changed.
        started, completed: in UTC; ``started`` is the first attempt's, where an interrupted one was
            finished; both None in a dry run.
        rows: the rows that this call deleted (or would delete): type, create-time and KMS key.
        rows_deleted: all rows of the key that were deleted, earlier attempts included.
        remaining_copies: what may still hold the rows.
        unrecoverable_from: the earliest date from which none of these holds them; None while one of
            them has no end.
        not_examined: what nobody looked at.
    """

    statement: str
    branch_key_id: str
    table_name: str
    logical_name: str
    dry_run: bool
    started: str | None
    completed: str | None
    rows: tuple[Mapping[str, str], ...]
    rows_deleted: int
    remaining_copies: tuple[RemainingCopy, ...]
    unrecoverable_from: str | None
    not_examined: tuple[str, ...] = _NOT_EXAMINED

    def to_json(self) -> str:
        """The certificate as indented JSON."""
        return json.dumps({"certificate": "phicrypt branch key shredding 1", **asdict(self)}, indent=2)


class Shredder:
    """Shreds branch keys of one table.

    Args:
        table: the key store's table.
        logical_name: for the certificate.
        forget: purges the local caches; called as soon as the first rows are gone, and at the end.
    """

    def __init__(self, table: BranchKeyTable, logical_name: str, forget: Callable[[str], None]) -> None:
        self._table = table
        self._logical_name = logical_name
        self._forget = forget

    def plan(self, branch_key_id: str) -> ShredCertificate:
        """The dry run: the rows there are, and what else holds them. Changes nothing."""
        rows = self._rows(branch_key_id)
        now = datetime.now(UTC)
        copies = tuple(self._remaining_copies(now))
        return ShredCertificate(
            statement=f"dry run: {len(rows)} rows would be deleted; nothing was changed",
            branch_key_id=branch_key_id,
            table_name=self._table.name,
            logical_name=self._logical_name,
            dry_run=True,
            started=None,
            completed=None,
            rows=tuple(map(_described, rows)),
            rows_deleted=0,
            remaining_copies=copies,
            unrecoverable_from=_latest(copies, now),
        )

    def shred(self, branch_key_id: str) -> ShredCertificate:
        """Delete the rows and leave the tombstone; repeat it after an interruption.

        Raises KeyAccessError where the id has neither rows nor a tombstone, and for refusals of AWS.
        """
        if not self._rows(branch_key_id) and self._table.tombstone(branch_key_id) is None:
            raise no_such_branch_key("branch key of that id", operation="Query", table_arn=self._table.name)
        deleted = self._delete(branch_key_id, _is_active_or_beacon, even_if_none=True)
        self._forget(branch_key_id)
        deleted += self._delete(branch_key_id, lambda row: row.row_type.startswith(VERSION_PREFIX))
        self._forget(branch_key_id)
        completed = datetime.now(UTC)
        self._table.write([_on_tombstone(branch_key_id, "SET #what = :now", "shred-completed", completed)])
        tombstone = self._table.tombstone(branch_key_id) or {}
        copies = tuple(self._remaining_copies(completed))
        count = int(tombstone["rows-deleted"]["N"])
        return ShredCertificate(
            statement=f"{count} rows deleted; copies of them may remain: see remaining_copies and not_examined",
            branch_key_id=branch_key_id,
            table_name=self._table.name,
            logical_name=self._logical_name,
            dry_run=False,
            started=tombstone["create-time"]["S"],
            completed=format_time(completed),
            rows=tuple(map(_described, deleted)),
            rows_deleted=count,
            remaining_copies=copies,
            unrecoverable_from=_latest(copies, completed),
        )

    def _rows(self, branch_key_id: str) -> list[BranchKeyRow]:
        return [row for row in self._table.list_rows(branch_key_id) if row.row_type != TOMBSTONE_TYPE]

    def _delete(
        self, branch_key_id: str, condition: Callable[[BranchKeyRow], bool], *, even_if_none: bool = False
    ) -> list[BranchKeyRow]:
        """Delete what fulfils the condition, in transactions that count on the tombstone."""
        deleted: list[BranchKeyRow] = []
        while True:
            batch = [row for row in self._rows(branch_key_id) if condition(row)][: MAX_TRANSACTION_ITEMS - 1]
            if not batch and not even_if_none:
                return deleted
            count = _on_tombstone(branch_key_id, _COUNT, "create-time", datetime.now(UTC), added=len(batch))
            try:
                self._table.write([count, *(_deletion(row) for row in batch)])
            except ConditionFailed:
                continue  # another process deleted one of them: look again
            deleted += batch
            even_if_none = False

    def _remaining_copies(self, deleted: datetime) -> Iterator[RemainingCopy]:
        """What may hold the rows that were deleted at this time; what cannot be read is named as well."""
        looks: dict[str, Callable[[datetime], Iterator[RemainingCopy]]] = {
            "point-in-time-recovery": self._recovery,
            "backup": self._backups,
            "export": self._exports,
            "stream": self._streams_and_replicas,
        }
        for kind, look in looks.items():
            try:
                yield from look(deleted)
            except KeyAccessError as error:
                yield RemainingCopy(kind, f"unknown: {error.operation} failed with {error.code}", None)

    def _recovery(self, deleted: datetime) -> Iterator[RemainingCopy]:
        answer = self._table.call("describe_continuous_backups", TableName=self._table.name)
        recovery = answer["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
        if recovery.get("PointInTimeRecoveryStatus") == "ENABLED":
            days = recovery.get("RecoveryPeriodInDays", _DEFAULT_RECOVERY_DAYS)
            until = format_time(deleted + timedelta(days=days))
            yield RemainingCopy("point-in-time-recovery", f"{self._table.name}: {days} days back", until)

    def _backups(self, deleted: datetime) -> Iterator[RemainingCopy]:
        for backup in self._table.pages(
            "list_backups", "BackupSummaries", "LastEvaluatedBackupArn", "ExclusiveStartBackupArn",
            TableName=self._table.name, BackupType="ALL",
        ):  # fmt: skip
            expiry = backup.get("BackupExpiryDateTime")
            yield RemainingCopy("backup", backup["BackupArn"], format_time(expiry) if expiry else None)

    def _exports(self, deleted: datetime) -> Iterator[RemainingCopy]:
        table_arn = self._table.describe()["TableArn"]
        for export in self._table.pages(
            "list_exports", "ExportSummaries", "NextToken", "NextToken", TableArn=table_arn
        ):
            yield RemainingCopy("export", export["ExportArn"], None)

    def _streams_and_replicas(self, deleted: datetime) -> Iterator[RemainingCopy]:
        description = self._table.describe()
        if "LatestStreamArn" in description:
            until = format_time(deleted + _STREAM_RETENTION)
            yield RemainingCopy("stream", description["LatestStreamArn"], until)
        for replica in description.get("Replicas", ()):
            where = f"{replica['RegionName']}: its recovery and backups were not examined; plan a shred there"
            yield RemainingCopy("replica", where, None)


def _is_active_or_beacon(row: BranchKeyRow) -> bool:
    return row.row_type in (ACTIVE_TYPE, BEACON_TYPE)


def _described(row: BranchKeyRow) -> dict[str, str]:
    return {"type": row.row_type, "create-time": row.create_time, "kms-arn": row.kms_key_arn}


def _latest(copies: tuple[RemainingCopy, ...], deleted: datetime) -> str | None:
    untils = [copy.until for copy in copies]
    known = [until for until in untils if until is not None]
    return max([format_time(deleted), *known]) if len(known) == len(untils) else None


def _deletion(row: BranchKeyRow) -> dict[str, Any]:
    return {
        "Delete": {
            "Key": {PARTITION_KEY: {"S": row.branch_key_id}, SORT_KEY: {"S": row.row_type}},
            "ConditionExpression": "attribute_exists(#partition_key)",
            "ExpressionAttributeNames": {"#partition_key": PARTITION_KEY},
        }
    }


def _on_tombstone(
    branch_key_id: str, expression: str, what: str, now: datetime, *, added: int | None = None
) -> dict[str, Any]:
    """An update of the tombstone, which creates it where there is none."""
    names = {"#what": what}
    values: dict[str, Any] = {":now": {"S": format_time(now)}}
    if added is not None:
        names["#count"] = "rows-deleted"
        values[":added"] = {"N": str(added)}
    return {
        "Update": {
            "Key": {PARTITION_KEY: {"S": branch_key_id}, SORT_KEY: {"S": TOMBSTONE_TYPE}},
            "UpdateExpression": expression,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }
    }
