"""From a plaintext table, or the DynamoDB Encryption Client's, to an encrypted one, in place, while it is used.

:func:`migrate_table` walks the table in parallel segments and replaces each plaintext item, and each that
``legacy`` opens, by its encrypted form with one UpdateItem, on condition that no signed attribute changed
since it was read (rule 18): a concurrent writer wins, and the item is read again. :func:`verify_table` opens
every item and counts what is not encrypted. ``docs/dynamodb-client.md`` has the order of a whole migration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from phicrypt.dynamodb.backfill import beacon_fault
from phicrypt.dynamodb.config import PlaintextPolicy, TableConfig
from phicrypt.dynamodb.items import LEGACY_FORMAT, recorded_use
from phicrypt.dynamodb.layer import Layer
from phicrypt.dynamodb.shapes import Item
from phicrypt.dynamodb.survey import MAX_ITEM_BYTES, Checkpoint, ItemKind, Pace, Tally, item_size_bytes, kind_of
from phicrypt.dynamodb.tables import check_stored_beacons
from phicrypt.dynamodb.updates import MAX_ATTEMPTS, pause_of_colliding_writers, replacing_update
from phicrypt.dynamodb.walks import DEFAULT_WALK, Progress, Walk, table_identity, walked_table
from phicrypt.dynamodb.walks import MAX_SEGMENTS as MAX_SEGMENTS
from phicrypt.dynamodb.walks import WalkOptions as WalkOptions
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    FormatError,
    KeyAccessError,
    LimitExceededError,
    PhiCryptError,
    UnsupportedOperationError,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

    from phicrypt.dynamodb.legacy import LegacyItems

_UNREADABLE: Final = (AuthenticationError, FormatError, LimitExceededError, UnsupportedOperationError)


@dataclass(frozen=True, slots=True)
class MigrationReport:
    """What a migration did, or in a dry run would do. Counts only; an item is in one of them.

    Attributes:
        encrypted_now: plaintext items that were encrypted (dry run: that can be).
        encrypted_before: items that were encrypted already.
        from_legacy: items of the DynamoDB Encryption Client that were opened and encrypted anew (dry run: can be).
        legacy: items of the DynamoDB Encryption Client, left as they are; where they were to be opened, they did
            not verify.
        damaged: items with header or footer alone, left as they are.
        refused: plaintext items that cannot be encrypted; ``reasons`` says why.
        contended: plaintext items that other writers kept changing; run again.
        vanished: items that were deleted meanwhile.
        reasons: why items were refused, with counts.
        dry_run: nothing was written.
        resumed: the walk went on from a checkpoint.
    """

    encrypted_now: int
    encrypted_before: int
    from_legacy: int
    legacy: int
    damaged: int
    refused: int
    contended: int
    vanished: int
    reasons: Mapping[str, int]
    dry_run: bool
    resumed: bool

    @property
    def is_complete(self) -> bool:
        """Whether no item was left that needs attention."""
        return not (self.legacy or self.damaged or self.refused or self.contended)


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """What is in a table.

    Attributes:
        verified: items that were opened: genuine, of this table, at their own key.
        plaintext, legacy: items that are readable without a key, or by the legacy client.
        damaged: items with header or footer alone, or that did not verify; ``reasons`` says why.
        reasons: why items did not verify, with counts.
        first_problem: where in the scan the first item stood that is not verified (rule 25).
        unfindable: genuine items whose beacons are missing, stale, forged or unknown, of a table with ``search``:
            a lookup would not find them (rule 38); ``reasons`` names the beacons.
    """

    verified: int
    plaintext: int
    legacy: int
    damaged: int
    reasons: Mapping[str, int]
    first_problem: str = ""
    unfindable: int = 0

    @property
    def is_proven(self) -> bool:
        """Whether every item of the table is encrypted and genuine, and has its beacons."""
        return not (self.plaintext or self.legacy or self.damaged or self.unfindable)


def migrate_table(
    client: DynamoDBClient,
    table_name: str,
    options: WalkOptions = DEFAULT_WALK,
    *,
    legacy: LegacyItems | None = None,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> MigrationReport:
    """Encrypt every plaintext item of a table.

    Args:
        client: an encrypting client that has the table (``phi.dynamodb.client([config])``).
        table_name: name or ARN.
        options: see :class:`WalkOptions`.
        legacy: opens the items of the DynamoDB Encryption Client, to be encrypted anew; None leaves them.
        dry_run: encrypt each item in memory and report, but write nothing.
        on_progress: told of each page.

    Each written item is verified as DynamoDB returns it. Raises ConfigurationError,
    UnsupportedOperationError for a table with beacons, KeyAccessError and botocore's errors; after one
    of them, run again with the same ``checkpoint_file``.
    """
    layer, table = walked_table(client, table_name)
    _check_migratable(layer, table)
    tally = Tally(table, options.problems_file)
    checkpoint_file = None if dry_run else options.checkpoint_file
    checkpoint = Checkpoint(checkpoint_file, table_identity(layer, table, table_name), options.segments)
    checkpoint.restore(tally)
    migration = _Migration(layer, table, table_name, tally, Pace(options.items_per_second), dry_run, legacy)
    Walk(layer, table_name, options, checkpoint, tally, on_progress).run(migration.migrate)
    checkpoint.remove()
    names = [part.name for part in dataclasses.fields(MigrationReport) if part.type == "int"]
    return MigrationReport(
        **{name: tally.counts[name] for name in names},
        reasons=dict(tally.reasons),
        dry_run=dry_run,
        resumed=checkpoint.is_resumed,
    )


def verify_table(
    client: DynamoDBClient,
    table_name: str,
    options: WalkOptions = DEFAULT_WALK,
    *,
    on_progress: Progress | None = None,
) -> VerificationReport:
    """Open every item of a table; whatever the table's policy, plaintext counts as plaintext.

    Arguments as :func:`migrate_table`. It proves what a consistent scan saw: not what is in backups,
    exports, streams or replicas, which may hold plaintext from before. Raises KeyAccessError where
    keys cannot be had at all, and botocore's errors.
    """
    layer, table = walked_table(client, table_name)
    strict = dataclasses.replace(
        table,
        plaintext_policy=PlaintextPolicy.FORBID_PLAINTEXT_WRITE_FORBID_PLAINTEXT_READ,
        plaintext_reads_until=None,
    )
    tally = Tally(table, options.problems_file)
    checkpoint = Checkpoint(options.checkpoint_file, table_identity(layer, table, table_name), options.segments)
    checkpoint.restore(tally)
    pace = Pace(options.items_per_second)

    def verify(stored: Item) -> None:
        pace.wait()
        _verify_item(layer, strict, stored, tally)

    Walk(layer, table_name, options, checkpoint, tally, on_progress).run(verify)
    checkpoint.remove()
    counts = {name: tally.counts[name] for name in ("verified", "plaintext", "legacy", "damaged", "unfindable")}
    return VerificationReport(**counts, reasons=dict(tally.reasons), first_problem=tally.first_problem)


def _verify_item(layer: Layer, table: TableConfig, stored: Item, tally: Tally) -> None:
    kind = kind_of(stored)
    if kind is not ItemKind.ENCRYPTED:
        outcome = {ItemKind.PLAINTEXT: "plaintext", ItemKind.LEGACY: "legacy", ItemKind.DAMAGED: "damaged"}[kind]
        tally.count(outcome, problem=stored, reason=kind.value if kind is ItemKind.DAMAGED else None)
        return
    try:
        item = layer.open(stored, table, "verify_table").item
        fault = beacon_fault(layer, table, stored, item)
    except _UNREADABLE as error:
        tally.count("damaged", problem=stored, reason=_reason(error))
    except KeyAccessError as error:
        if error.is_retryable:
            raise
        tally.count("damaged", problem=stored, reason=f"no data key: {error.code}")
    else:
        if fault is None:
            tally.count("verified")
        else:
            tally.count("unfindable", problem=stored, reason=fault)


def _check_migratable(layer: Layer, table: TableConfig) -> None:
    if table.plaintext_policy is PlaintextPolicy.FORCE_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ:
        raise ConfigurationError(
            "the plaintext policy forces plaintext writes: a migration would be undone by the next write. Use "
            f"{PlaintextPolicy.FORBID_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ.value}"
        )
    layer.check_writable(table)


class _Migration:
    """Migrates one item at a time; its workers share it."""

    def __init__(
        self,
        layer: Layer,
        table: TableConfig,
        table_name: str,
        tally: Tally,
        pace: Pace,
        dry_run: bool,
        legacy: LegacyItems | None,
    ) -> None:
        self._legacy = legacy
        self._layer, self._table, self._table_name = layer, table, table_name
        self._tally, self._pace, self._dry_run = tally, pace, dry_run

    def migrate(self, stored: Item) -> None:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            kind = kind_of(stored)
            if kind is ItemKind.ENCRYPTED:
                self._tally.count("encrypted_before")
                return
            if kind is ItemKind.DAMAGED or (kind is ItemKind.LEGACY and self._legacy is None):
                self._tally.count(
                    "legacy" if kind is ItemKind.LEGACY else "damaged", problem=stored, reason=kind.value
                )
                return
            if self._encrypt(stored, is_legacy=kind is ItemKind.LEGACY):
                return
            pause_of_colliding_writers(attempt)
            again = self._layer.call(
                "GetItem",
                {
                    "TableName": self._table_name,
                    "Key": {name: stored[name] for name in self._table.key_names},
                    "ConsistentRead": True,
                },
            ).get("Item")
            if not again:
                self._tally.count("vanished")
                return
            stored = again
        self._tally.count("contended", problem=stored)

    def _encrypt(self, stored: Item, *, is_legacy: bool) -> bool:
        """Whether this item is settled; False if somebody changed it since it was read."""
        from botocore.exceptions import ClientError

        check_stored_beacons(self._table, stored)
        outcome = "from_legacy" if is_legacy else "encrypted_now"
        try:
            sealed = self._sealed(self._opened(stored) if is_legacy else stored)
        except (ConfigurationError, LimitExceededError) as error:
            self._tally.count("refused", problem=stored, reason=str(error))
            return True
        except AuthenticationError:
            self._tally.count("legacy", problem=stored, reason="legacy client: it does not verify")
            return True
        if self._dry_run:
            self._tally.count(outcome)
            return True
        self._pace.wait()
        try:
            answer = self._layer.call(
                "UpdateItem",
                {
                    "TableName": self._table_name,
                    "ReturnValues": "ALL_NEW",
                    **replacing_update(self._table, stored, sealed),
                },
            )
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "ConditionalCheckFailedException":
                return False
            if code != "ValidationException":
                raise
            self._tally.count("refused", problem=stored, reason="DynamoDB does not accept the encrypted item")
            return True
        self._check_written(answer["Attributes"], outcome)
        return True

    def _sealed(self, plaintext: Item) -> Item:
        sealed = self._layer.seal(plaintext, self._table, "migrate_table").item
        if item_size_bytes(sealed) > MAX_ITEM_BYTES:
            raise LimitExceededError("the encrypted item is too large in bytes", limit=MAX_ITEM_BYTES, actual=None)
        return sealed

    def _opened(self, stored: Item) -> Item:
        """The plaintext of a legacy item, on record like every use of a key (rule 20)."""
        assert self._legacy is not None
        session, operation = self._layer.phi_session, "dynamodb.migrate_table"
        with recorded_use(session, operation, stored, self._table, LEGACY_FORMAT) as use:
            plaintext, use.origin = self._legacy.open_with_origin(stored, self._table)
        return plaintext

    def _check_written(self, written: Item, outcome: str) -> None:
        try:
            self._layer.open(written, self._table, "migrate_table")
        except PhiCryptError as error:
            self._tally.count("damaged", problem=written, reason=f"after writing: {_reason(error)}")
        else:
            self._tally.count(outcome)


def _reason(error: PhiCryptError) -> str:
    return f"{type(error).__name__}: {error.reason}" if isinstance(error, AuthenticationError) else str(error)
