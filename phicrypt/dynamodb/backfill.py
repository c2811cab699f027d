"""Beacons for items that are encrypted already, and the check that every item has its own.

Beacons stand outside the signature: an item gets them by one UpdateItem that sets and removes
``aws_dbe_b_*`` only, on condition that the footer is the one that was read, and nothing is encrypted again. A
writer who comes between wins: the item is read again. A signed beacon is part of what is signed; an item that
lacks one is sealed anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from phicrypt.dynamodb.beacon_keys import hashes_for_item
from phicrypt.dynamodb.config import TableConfig
from phicrypt.dynamodb.item_beacons import beacons_of, chosen_partition, signed_beacons_of
from phicrypt.dynamodb.item_layouts import unknown_beacons
from phicrypt.dynamodb.layer import Layer
from phicrypt.dynamodb.shapes import Item
from phicrypt.dynamodb.survey import Checkpoint, ItemKind, Pace, Tally, kind_of
from phicrypt.dynamodb.tables import FOOTER
from phicrypt.dynamodb.updates import MAX_ATTEMPTS, pause_of_colliding_writers, update_encrypted
from phicrypt.dynamodb.walks import DEFAULT_WALK, Progress, Walk, WalkOptions, table_identity, walked_table
from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError, KeyAccessError
from phicrypt.formats.dbesdk.beacon_values import BEACON_PREFIX

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

_OPERATION: Final = "backfill_table"
_UNREADABLE: Final = (AuthenticationError, FormatError, ConfigurationError)


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """What :func:`backfill_table` did.

    Attributes:
        found_before: items that had all their beacons.
        written_now: items that got theirs.
        plaintext, legacy, damaged: items that are not encrypted here, or do not verify.
        refused: items whose beacons cannot be computed; ``reasons`` says why.
        contended: items that somebody changed each time; run it again.
        vanished: items that were deleted meanwhile.
        reasons: why, with counts.
        dry_run: nothing was written.
    """

    found_before: int
    written_now: int
    plaintext: int
    legacy: int
    damaged: int
    refused: int
    contended: int
    vanished: int
    reasons: Mapping[str, int]
    dry_run: bool

    @property
    def is_complete(self) -> bool:
        """Whether every item of the table has its beacons: ``complete_since`` may be set after ``verify``."""
        return not (self.plaintext or self.legacy or self.damaged or self.refused or self.contended)


def backfill_table(
    client: DynamoDBClient,
    table_name: str,
    options: WalkOptions = DEFAULT_WALK,
    *,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> BackfillReport:
    """Write the beacons that stored items lack: ``backfill_table(client, "patients")``.

    Deploy writers that know the beacons first, then the indexes, then run this, then ``verify_table``. It can be
    repeated and resumed; arguments as of :func:`phicrypt.dynamodb.migration.migrate_table`.

    Raises ConfigurationError for a table without ``search``, KeyAccessError and botocore's errors.
    """
    layer, table = walked_table(client, table_name)
    if table.search_plan is None:
        raise ConfigurationError(
            f"TableConfig.search of {table.table_name!r} is None: there are no beacons to write"
        )
    layer.check_writable(table)
    tally = Tally(table, options.problems_file)
    checkpoint_file = None if dry_run else options.checkpoint_file
    identity = table_identity(layer, table, table_name) | {"work": _OPERATION}
    checkpoint = Checkpoint(checkpoint_file, identity, options.segments)
    checkpoint.restore(tally)
    work = _Backfill(client, layer, table, table_name, tally, Pace(options.items_per_second), dry_run)
    Walk(layer, table_name, options, checkpoint, tally, on_progress).run(work.backfill)
    checkpoint.remove()
    counted = ("found_before", "written_now", "plaintext", "legacy", "damaged", "refused", "contended", "vanished")
    return BackfillReport(
        **{name: tally.counts[name] for name in counted}, reasons=dict(tally.reasons), dry_run=dry_run
    )


def beacon_fault(layer: Layer, table: TableConfig, stored: Item, item: Item) -> str | None:
    """Why a verified item would not be found by its beacons, by their names; None if it would be.

    Missing, stale and forged beacons, and those that the configuration does not know. Raises KeyAccessError.
    """
    plan = table.search_plan
    if plan is None:
        return None
    if unknown_beacons(table, stored):
        return "a beacon that the configuration does not know"
    try:
        signed = signed_beacons_of(
            plan, {name: value for name, value in item.items() if name not in _names(table)}
        )
        due = _due(layer, table, stored, item)
    except ConfigurationError as error:
        return f"no beacons can be computed: {error}"
    wrong = [name for name, value in signed.items() if item.get(name) != value]
    wrong += [name for name in {*due, *_present(stored)} if not _same(due.get(name), stored.get(name))]
    return f"missing or wrong: {', '.join(sorted(wrong))}" if wrong else None


class _Backfill:
    """One item at a time; its workers share it."""

    def __init__(
        self,
        client: DynamoDBClient,
        layer: Layer,
        table: TableConfig,
        table_name: str,
        tally: Tally,
        pace: Pace,
        dry_run: bool,
    ) -> None:
        self._client, self._layer, self._table, self._table_name = client, layer, table, table_name
        self._tally, self._pace, self._dry_run = tally, pace, dry_run

    def backfill(self, stored: Item) -> None:
        for attempt in range(1, MAX_ATTEMPTS + 1):
            kind = kind_of(stored)
            if kind is not ItemKind.ENCRYPTED:
                self._tally.count(kind.name.lower(), problem=stored, reason=kind.value)
                return
            if self._settled(stored):
                return
            pause_of_colliding_writers(attempt)
            again = self._layer.call("GetItem", {**self._place(stored), "ConsistentRead": True}).get("Item")
            if not again:
                self._tally.count("vanished")
                return
            stored = again
        self._tally.count("contended", problem=stored)

    def _settled(self, stored: Item) -> bool:
        """Whether this item is done with; False if somebody changed it since it was read."""
        try:
            item = self._layer.open(stored, self._table, _OPERATION).item
        except _UNREADABLE as error:
            self._tally.count("damaged", problem=stored, reason=str(error))
            return True
        except KeyAccessError as error:
            if error.is_retryable:
                raise
            self._tally.count("damaged", problem=stored, reason=f"no data key: {error.code}")
            return True
        fault = beacon_fault(self._layer, self._table, stored, item)
        if fault is None:
            self._tally.count("found_before")
            return True
        if fault.startswith("no beacons") or unknown_beacons(self._table, stored):
            self._tally.count("refused", problem=stored, reason=fault)
            return True
        self._pace.wait()
        return self._dry_run_or_written(stored, item)

    def _dry_run_or_written(self, stored: Item, item: Item) -> bool:
        if not self._dry_run:
            lacks_signed = any(item.get(name) is None for name in _due_signed(self._table, item))
            if lacks_signed:
                update_encrypted(self._client, self._table_name, self._place(stored)["Key"], lambda _: None)
            elif not self._written(stored, _due(self._layer, self._table, stored, item)):
                return False
        self._tally.count("written_now")
        return True

    def _written(self, stored: Item, due: Mapping[str, Any]) -> bool:
        from botocore.exceptions import ClientError

        names = sorted({*due, *_present(stored)})
        places = {name: f"#b{number}" for number, name in enumerate(names)}
        values = {f":b{number}": due[name] for number, name in enumerate(names) if name in due}
        sets = [f"{places[name]} = :b{number}" for number, name in enumerate(names) if name in due]
        removes = [places[name] for name in names if name not in due]
        update = f"SET {', '.join(sets)}" if sets else ""
        update += f" REMOVE {', '.join(removes)}" if removes else ""
        try:
            self._layer.call(
                "UpdateItem",
                {
                    **self._place(stored),
                    "UpdateExpression": update.strip(),
                    "ConditionExpression": f"{FOOTER} = :read",
                    "ExpressionAttributeNames": {place: name for name, place in places.items()},
                    "ExpressionAttributeValues": {**values, ":read": stored[FOOTER]},
                },
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            return False
        return True

    def _place(self, stored: Item) -> dict[str, Any]:
        key = {name: stored[name] for name in self._table.key_names}
        return {"TableName": self._table_name, "Key": key}


def _due(layer: Layer, table: TableConfig, stored: Item, item: Item) -> dict[str, dict[str, Any]]:
    """The beacons that an item should have: of the partition that those it has agree on, else of a chosen one."""
    plan = table.search_plan
    assert plan is not None
    hashes = hashes_for_item(layer.phi_session, item, plan)
    present = _present(stored)
    for partition in range(plan.config.max_partitions):
        due = beacons_of(plan, item, hashes, partition)
        if all(_same(due.get(name), value) for name, value in present.items()):
            if present or plan.config.max_partitions == 1:
                return due
            break
    return beacons_of(plan, item, hashes, chosen_partition(plan, item, table.logical_table_name))


def _due_signed(table: TableConfig, item: Item) -> dict[str, dict[str, Any]]:
    assert table.search_plan is not None
    return signed_beacons_of(
        table.search_plan, {name: value for name, value in item.items() if name not in _names(table)}
    )


def _names(table: TableConfig) -> set[str]:
    assert table.search_plan is not None
    return {compound.name for compound in table.search_plan.signed_beacons}


def _present(stored: Item) -> dict[str, Any]:
    return {name: value for name, value in stored.items() if name.startswith(BEACON_PREFIX)}


def _same(due: Mapping[str, Any] | None, stored: Mapping[str, Any] | None) -> bool:
    if due is None or stored is None:
        return due is stored
    return sorted(due["SS"]) == sorted(stored["SS"]) if "SS" in due and "SS" in stored else due == stored
