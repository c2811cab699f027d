"""Operations on tables that name attributes: what cannot work on encrypted ones is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phicrypt.dynamodb.operations import check_members
from phicrypt.dynamodb.tables import TableBook, check_index_keys, is_encrypted_name
from phicrypt.errors import ConfigurationError, UnsupportedOperationError


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
