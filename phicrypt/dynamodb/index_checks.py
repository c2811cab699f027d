"""What an index can answer: whether its items can be verified, and whether a filter sees what it compares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from phicrypt.dynamodb.config import TableConfig
from phicrypt.dynamodb.tables import TableFacts
from phicrypt.errors import ConfigurationError, UnsupportedOperationError

Parameters = Mapping[str, Any]
_SELECTS: Final = (None, "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES", "COUNT", "SPECIFIC_ATTRIBUTES")


def check_select(asked: Parameters, hydrate: bool, where: str) -> None:
    select = asked.get("Select")
    if select not in _SELECTS:
        raise ConfigurationError(f"{where}: Select is not a value that phicrypt knows; nothing was sent")
    if hydrate and (select is not None or "ProjectionExpression" in asked or "IndexName" not in asked):
        raise ConfigurationError(
            f"{where}: hydrate reads the whole items that an index names; it needs IndexName and takes neither "
            "Select nor ProjectionExpression"
        )


def copies_everything(asked: Parameters, facts: TableFacts | None) -> bool:
    """Whether a filter sees every attribute in the index: what it does not copy is missing there, and no match."""
    index = facts.indexes.get(asked["IndexName"]) if facts is not None and "IndexName" in asked else None
    return index is not None and index.projected_names is None


def holds_whole_items(asked: Parameters, table: TableConfig, facts: TableFacts | None) -> bool:
    """Whether an item of the answer can be verified as it comes."""
    index = facts.indexes.get(asked["IndexName"]) if facts is not None and "IndexName" in asked else None
    return "IndexName" not in asked or (index is not None and index.holds_whole_items(table))


def check_index(
    asked: Parameters, table: TableConfig, facts: TableFacts | None, hydrate: bool, where: str
) -> None:
    index_name = asked.get("IndexName")
    if index_name is None or hydrate or asked.get("Select") == "COUNT":
        return
    index = facts.indexes.get(index_name) if facts is not None else None
    if index is None:
        # Whether its items are whole is not known. They fail verification if not, except where the
        # policy takes an item without header and footer for plaintext.
        if table.allows_plaintext_read():
            raise UnsupportedOperationError(
                f"{where}: what the index {index_name!r} copies is not known, so a part of an encrypted item "
                "could pass as plaintext; pass hydrate=True"
            )
        return
    if index.is_local and asked.get("Select") == "ALL_ATTRIBUTES":
        return
    if not index.holds_whole_items(table):
        raise UnsupportedOperationError(
            f"{where}: the index {index_name!r} of table {table.table_name!r} does not copy every signed "
            "attribute, so its items cannot be verified; pass hydrate=True to read the whole items, or "
            "Select='COUNT'"
        )
