"""Compares each table with its configuration: as it stands before it is first used, and what calls make of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from phicrypt.dynamodb.config import TableConfig
from phicrypt.dynamodb.item_layouts import unknown_beacons
from phicrypt.dynamodb.operations import check_members
from phicrypt.dynamodb.tables import (
    TableBook,
    TableFacts,
    check_beacons_known,
    check_facts,
    check_index_keys,
    is_encrypted_name,
    read_facts,
)
from phicrypt.errors import ConfigurationError, UnsupportedOperationError

CheckTables = Literal["at_first_use", "at_start", "never"]
BEACON_SAMPLE_ITEMS: Final = 25
"""Stored items looked at for beacons before a table is first written."""

DirectCall = Callable[[str, Mapping[str, Any]], dict[str, Any]]


class TableChecks:
    """DescribeTable once per table, and one small Scan before the first write.

    ``"never"`` asks neither: the caller vouches that keys and indexes fit the configuration and
    that no stored item carries unknown beacons. Those that are seen in an answer still stop later writes.
    """

    def __init__(self, call: DirectCall, check_tables: CheckTables) -> None:
        if check_tables not in ("at_first_use", "at_start", "never"):
            raise ConfigurationError("check_tables is 'at_first_use', 'at_start' or 'never'")
        self._call = call
        self._never = check_tables == "never"
        self._lock = threading.Lock()
        self._facts: dict[str, TableFacts] = {}
        self._sampled: set[str] = set()
        self._with_unknown_beacons: set[str] = set()

    def __call__(
        self, name_or_arn: str, table: TableConfig, *, writes: bool, index_name: str | None = None
    ) -> TableFacts | None:
        """The table's facts, checked; None if checks are off or the table does not exist (yet).

        ``index_name`` names an index that the caller needs: it is looked up again if it was not there.
        Raises ConfigurationError where the configuration does not fit or the check is not allowed,
        UnsupportedOperationError for a write to a table with unknown beacons (rule 38).
        """
        facts = None if self._never else self._described(name_or_arn, table, index_name)
        if writes:
            if facts is not None and name_or_arn not in self._sampled:
                self._sample(name_or_arn, table)
            check_beacons_known(table, table.table_name in self._with_unknown_beacons)
        return facts

    def saw_unknown_beacons(self, table_name: str) -> None:
        """Remember that an item with beacons was read that the configuration does not know."""
        with self._lock:
            self._with_unknown_beacons.add(table_name)

    def _described(self, name_or_arn: str, table: TableConfig, index_name: str | None) -> TableFacts | None:
        facts = self._facts.get(name_or_arn)
        if facts is None or (index_name is not None and index_name not in facts.indexes):
            answer = self._asked("DescribeTable", {"TableName": name_or_arn}, table)
            if answer is None:
                return None
            facts = read_facts(answer["Table"])
            check_facts(table, facts)
            if facts.has_unknown_beacons(table):
                self.saw_unknown_beacons(table.table_name)
            with self._lock:
                self._facts[name_or_arn] = facts
        return facts

    def _sample(self, name_or_arn: str, table: TableConfig) -> None:
        answer = self._asked("Scan", {"TableName": name_or_arn, "Limit": BEACON_SAMPLE_ITEMS}, table)
        if answer is None:
            return
        if any(unknown_beacons(table, stored) for stored in answer.get("Items", ())):
            self.saw_unknown_beacons(table.table_name)
        with self._lock:
            self._sampled.add(name_or_arn)

    def _asked(self, operation: str, parameters: Mapping[str, Any], table: TableConfig) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        try:
            return self._call(operation, parameters)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code")
            if code == "ResourceNotFoundException":
                return None
            if code == "AccessDeniedException":
                raise ConfigurationError(
                    f"the check of table {table.table_name!r} before its first use needs dynamodb:{operation}; "
                    "allow it, or pass check_tables='never' and vouch that keys and indexes fit the TableConfig "
                    "and that no stored item carries beacons that it does not know"
                ) from error
            raise


def check_table_settings(operation: str, asked: Mapping[str, Any], book: TableBook) -> None:
    """Settings that name attributes: an index or a time to live on an encrypted one cannot work."""
    check_members(operation, asked)
    if operation not in ("CreateTable", "UpdateTable", "UpdateTimeToLive"):
        return
    table = book.find(asked.get("TableName"))
    if table is None:
        return
    indexes = [*(asked.get("LocalSecondaryIndexes") or ()), *(asked.get("GlobalSecondaryIndexes") or ())]
    indexes += [
        update["Create"] for update in asked.get("GlobalSecondaryIndexUpdates") or () if "Create" in update
    ]
    for index in indexes:
        check_index_keys(table, index.get("IndexName"), _schema_names(index))
    if operation == "CreateTable" and (names := _schema_names(asked)) != set(table.key_names):
        raise ConfigurationError(
            f"CreateTable: the key of table {table.table_name!r} is {', '.join(map(repr, sorted(names)))}, but "
            f"its TableConfig says {', '.join(map(repr, table.key_names))}"
        )
    expiry = (asked.get("TimeToLiveSpecification") or {}).get("AttributeName")
    if expiry is not None and is_encrypted_name(table, expiry):
        raise UnsupportedOperationError(
            f"UpdateTimeToLive: DynamoDB cannot read the encrypted attribute {expiry!r} of table "
            f"{table.table_name!r}, so nothing would ever expire; make it SIGN_ONLY"
        )


def _schema_names(holder: Mapping[str, Any]) -> set[str]:
    return {part["AttributeName"] for part in holder.get("KeySchema") or ()}
