"""Which tables a client serves, and what DynamoDB says of them.

:class:`TableBook` maps the names (and ARNs) of a request to their :class:`TableConfig`;
:class:`TableFacts` is what ``DescribeTable`` tells and is checked against the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from phicrypt.dynamodb.config import Action, TableConfig
from phicrypt.dynamodb.item_layouts import unknown_beacons
from phicrypt.errors import ConfigurationError, UnsupportedOperationError
from phicrypt.formats.dbesdk.beacon_values import BEACON_PREFIX
from phicrypt.formats.dbesdk.header import FOOTER_ATTRIBUTE, HEADER_ATTRIBUTE

HEADER: Final = HEADER_ATTRIBUTE
FOOTER: Final = FOOTER_ATTRIBUTE
_TABLE_ARN: Final = re.compile(r"arn:[a-z0-9-]+:dynamodb:[a-z0-9-]+:[0-9]+:table/([A-Za-z0-9_.-]+)\Z", re.ASCII)


class TableBook:
    """The tables of one client: encrypted ones by their configuration, plaintext ones by name.

    Raises ConfigurationError for a physical or logical name that stands twice, or a table that is
    both encrypted and plaintext: one logical name binds the items of one table.
    """

    __slots__ = ("_encrypted", "_plaintext")

    def __init__(self, tables: Iterable[TableConfig], plaintext_tables: Iterable[str] = ()) -> None:
        if isinstance(plaintext_tables, str):
            raise ConfigurationError("plaintext_tables is a list of table names, not one text")
        self._encrypted: dict[str, TableConfig] = {}
        self._plaintext = frozenset(map(plain_table_name, plaintext_tables))
        logical_names = set()
        for table in tables:
            if not isinstance(table, TableConfig):
                raise ConfigurationError(f"tables holds TableConfig objects, not {type(table).__name__}")
            name = plain_table_name(table.table_name)
            if name in self._encrypted or table.logical_table_name in logical_names:
                raise ConfigurationError(
                    f"the table {table.table_name!r} or its logical name {table.logical_table_name!r} is "
                    "configured twice; physical and logical names correspond one to one"
                )
            if name in self._plaintext:
                raise ConfigurationError(f"the table {table.table_name!r} is in tables and in plaintext_tables")
            self._encrypted[name] = table
            logical_names.add(table.logical_table_name)

    def __iter__(self) -> Iterator[TableConfig]:
        return iter(self._encrypted.values())

    def same_tables(self, other: TableBook) -> bool:
        """Whether both books say the same of the same tables."""
        mine, theirs = (
            {name: tuple(getattr(table, part) for part in TableConfig.__slots__) for name, table in book.items()}
            for book in (self._encrypted, other._encrypted)
        )
        return mine == theirs and self._plaintext == other._plaintext

    def find(self, name_or_arn: object) -> TableConfig | None:
        """The configuration of a table that a request may name otherwise; None if it is not encrypted."""
        return self._encrypted.get(plain_table_name(name_or_arn))

    def resolve(self, name_or_arn: object, operation: str) -> TableConfig | None:
        """The configuration of a request's table, None for a plaintext table allowed by name.

        Raises UnsupportedOperationError for any other table.
        """
        name = plain_table_name(name_or_arn)
        table = self._encrypted.get(name)
        if table is None and name not in self._plaintext:
            raise UnsupportedOperationError(
                f"{operation} is refused: the table {name!r} has no TableConfig, so its items would be stored "
                "and returned as they are; configure it, or allow it with plaintext_tables=[…]"
            )
        return table


def plain_table_name(name_or_arn: object) -> str:
    """The table's name, from a name or a table ARN. ConfigurationError for anything but text."""
    if not isinstance(name_or_arn, str) or not name_or_arn:
        raise ConfigurationError("a table name (or table ARN) is needed; nothing was sent")
    match = _TABLE_ARN.match(name_or_arn)
    return match[1] if match else name_or_arn


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """One secondary index.

    Attributes:
        key_names: the attributes of its key.
        projected_names: the attributes it copies besides all keys; None for all.
        is_local: whether it is a local index, which reads missing attributes from the table.
    """

    key_names: tuple[str, ...]
    projected_names: frozenset[str] | None
    is_local: bool

    def holds_whole_items(self, table: TableConfig) -> bool:
        """Whether every signed attribute, header and footer is copied, so that its items can be verified."""
        if self.projected_names is None:
            return True
        copied = self.projected_names | {*self.key_names, *table.key_names}
        return {HEADER, FOOTER, *signed_names(table)} <= copied


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What DescribeTable says of a table."""

    key_names: tuple[str, ...]
    attribute_names: tuple[str, ...]
    indexes: Mapping[str, IndexFacts]

    def has_unknown_beacons(self, table: TableConfig) -> bool:
        """Whether a key or index is built on a beacon that the configuration does not know."""
        return unknown_beacons(table, self.attribute_names)


def signed_names(table: TableConfig) -> list[str]:
    """The configured attributes inside the signature."""
    return [name for name, action in table.actions.items() if action is not Action.DO_NOTHING]


def is_encrypted_name(table: TableConfig, attribute: str) -> bool:
    return table.actions.get(attribute) is Action.ENCRYPT_AND_SIGN


def read_facts(description: Mapping[str, Any]) -> TableFacts:
    """The facts in the ``Table`` member of DescribeTable's answer."""
    indexes = {}
    for member, is_local in (("LocalSecondaryIndexes", True), ("GlobalSecondaryIndexes", False)):
        for index in description.get(member) or ():
            projection = index.get("Projection", {})
            projected = (
                None
                if projection.get("ProjectionType") == "ALL"
                else frozenset(projection.get("NonKeyAttributes", ()))
            )
            indexes[index["IndexName"]] = IndexFacts(_key_names(index["KeySchema"]), projected, is_local)
    attributes = tuple(definition["AttributeName"] for definition in description.get("AttributeDefinitions", ()))
    return TableFacts(_key_names(description["KeySchema"]), attributes, indexes)


def check_facts(table: TableConfig, facts: TableFacts) -> None:
    """Raise ConfigurationError where the configuration does not fit the table.

    The key attributes must be equal (they are bound to every item), and no index may be built on an
    encrypted attribute: it would order ciphertext.
    """
    if facts.key_names != table.key_names:
        raise ConfigurationError(
            f"the table {table.table_name!r} has the key {_listed(facts.key_names)}, but its TableConfig says "
            f"{_listed(table.key_names)}; correct partition_key and sort_key"
        )
    for index_name, index in facts.indexes.items():
        check_index_keys(table, index_name, index.key_names)


def check_index_keys(table: TableConfig, index_name: object, key_names: Iterable[str]) -> None:
    """Raise ConfigurationError for an index whose key is an encrypted attribute."""
    for name in key_names:
        if is_encrypted_name(table, name):
            raise ConfigurationError(
                f"the index {index_name!r} of table {table.table_name!r} is built on the encrypted attribute "
                f"{name!r}: it would order ciphertext and find nothing; make the attribute SIGN_ONLY or drop "
                "the index"
            )


def check_stored_beacons(table: TableConfig, stored: Iterable[str]) -> None:
    """Raise UnsupportedOperationError for a write to an item with beacons that are not configured (rule 38)."""
    check_beacons_known(table, unknown_beacons(table, stored))


def check_beacons_known(table: TableConfig, has_unknown: bool) -> None:
    """The same of a whole table."""
    if has_unknown:
        raise UnsupportedOperationError(
            f"the table {table.table_name!r} is not written: its items carry beacons ({BEACON_PREFIX}*) that "
            "TableConfig.search does not know, so items written here would be missing from searches; configure "
            "them as those who wrote them do"
        )


def _key_names(schema: Iterable[Mapping[str, str]]) -> tuple[str, ...]:
    return tuple(part["AttributeName"] for part in sorted(schema, key=lambda part: part["KeyType"] != "HASH"))


def _listed(names: Iterable[str]) -> str:
    return " and ".join(map(repr, names))
