"""From DynamoDB's answer to what the caller gets: the pure half after the network.

Every item in an answer is verified and decrypted, in errors too. An item must also be the one that
was asked for: it is bound to its own key, and a service (or a proxy) that answers with another
item of the table is caught by comparing keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final, Protocol

from phicrypt.dynamodb.config import TableConfig
from phicrypt.dynamodb.expression_tree import Condition
from phicrypt.dynamodb.items import Judge, OpenedItem
from phicrypt.dynamodb.lookups import Lookup
from phicrypt.dynamodb.matching import canonical_value, matches
from phicrypt.dynamodb.requests import Call
from phicrypt.dynamodb.shapes import Item
from phicrypt.dynamodb.tables import TableBook, plain_table_name
from phicrypt.errors import AuthenticationError


class Open(Protocol):
    """Verifies and decrypts one stored item; ``is_wanted`` as of :func:`phicrypt.dynamodb.items.open_item`."""

    def __call__(
        self, item: Mapping[str, Any], table: TableConfig, *, is_wanted: Judge | None = None
    ) -> OpenedItem: ...


Fetch = Callable[[str, Sequence[Item]], list[Item]]
"""Reads whole stored items by their keys, in any order: ``fetch(table name or ARN, keys)``."""

PLAINTEXT_ITEMS: Final = "PhiCryptPlaintextItems"
"""In ``ResponseMetadata``: how many items of the answer were plaintext, where the policy allows them (rule 19)."""

FALSE_POSITIVES: Final = "PhiCryptFalsePositives"
"""In ``ResponseMetadata`` of a lookup: how many items were opened that only their hashes had brought (rule 37)."""

INCOMPLETE_SEARCH: Final = "PhiCryptIncompleteSearch"
"""In ``ResponseMetadata`` of a lookup: nobody said that every stored item has its beacons (rule 38)."""


class Answer:
    """Opens the items of one answer in place."""

    def __init__(self, call: Call, parsed: MutableMapping[str, Any], book: TableBook, open_: Open, fetch: Fetch):
        self._call = call
        self._parsed = parsed
        self._book = book
        self._open = open_
        self._fetch = fetch
        self._plaintext_items = 0
        self._false_positives = 0

    def open(self) -> None:
        """Decrypt every item of the answer; AuthenticationError for one that was not asked for."""
        if "Error" in self._parsed:
            self._open_error()
        elif (step := _STEPS.get(self._call.operation)) is not None:
            step(self)
        if self._plaintext_items:
            self._parsed.setdefault("ResponseMetadata", {})[PLAINTEXT_ITEMS] = self._plaintext_items
        if self._call.lookup is not None:
            metadata = self._parsed.setdefault("ResponseMetadata", {})
            metadata[FALSE_POSITIVES] = self._false_positives
            if self._call.lookup.plan.config.complete_since is None:
                metadata[INCOMPLETE_SEARCH] = True

    def _opened(self, stored: Item, table: TableConfig) -> Item:
        return self._judged(stored, table).item

    def _judged(self, stored: Item, table: TableConfig) -> OpenedItem:
        lookup = self._call.lookup
        opened = self._open(stored, table, is_wanted=None if lookup is None else lookup.matches)
        self._plaintext_items += not opened.is_encrypted
        self._false_positives += not opened.is_released
        return opened

    def _opened_for(self, stored: Item, table: TableConfig, asked: Mapping[str, Any]) -> Item:
        """The item, which must have the key attributes of ``asked`` (a Key, or a whole item)."""
        item = self._opened(stored, table)
        if key_of(item, table) != key_of(asked, table):
            raise AuthenticationError("another item than asked for")
        return item

    def _table(self) -> TableConfig | None:
        return self._book.find(self._call.asked["TableName"])

    def _open_one(self) -> None:
        """GetItem's ``Item``; ``Attributes`` of PutItem, DeleteItem and UpdateItem."""
        member = "Item" if self._call.operation == "GetItem" else "Attributes"
        stored, table = self._parsed.get(member), self._table()
        if not stored or table is None:
            return
        asked = self._call.asked
        if str(asked.get("ReturnValues")).startswith("UPDATED_"):
            # The update touched unsigned attributes only, so nothing else can have changed.
            if any(not table.is_unsigned(name) for name in stored):
                raise AuthenticationError("signed attribute among the updated ones")
            return
        self._parsed[member] = self._opened_for(stored, table, asked["Item" if "Item" in asked else "Key"])

    def _open_query(self) -> None:
        stored_items, table = self._parsed.get("Items"), self._table()
        if table is None:
            return
        counts_only = self._call.sent.get("Select") == "COUNT"
        if not counts_only and len(stored_items or ()) != self._parsed.get("Count", 0):
            # A whole answer has as many as it says; else a changed one would read as "there is none" (rule 27).
            raise AuthenticationError("another number of items than the answer says")
        if not stored_items:
            return
        lookup = self._call.lookup
        if self._call.asked.get("Select") == "COUNT" and lookup is None:
            del self._parsed["Items"]  # none were asked for, so none may come
            return
        if self._call.hydrate:
            self._hydrate(stored_items, table)
        elif lookup is not None:
            self._keep_wanted(stored_items, table, lookup)
        else:
            items = [self._opened(stored, table) for stored in stored_items]
            if not all(self._meets(self._call.key_condition, item) for item in items):
                raise AuthenticationError("an item outside the key condition")
            self._parsed["Items"] = items
        if lookup is not None and lookup.is_count:
            del self._parsed["Items"]

    def _keep_wanted(self, stored_items: Sequence[Item], table: TableConfig, lookup: Lookup) -> None:
        """The items that meet the caller's own conditions: a hash brings others as well (rule 37)."""
        opened = [self._judged(stored, table) for stored in stored_items]
        if not lookup.has_key_beacon and not all(
            self._meets(self._call.key_condition, one.item) for one in opened
        ):
            raise AuthenticationError("an item outside the key condition")
        self._parsed["Items"] = [one.item for one in opened if one.is_released]
        self._parsed["Count"] = len(self._parsed["Items"])

    def _hydrate(self, index_items: Sequence[Item], table: TableConfig) -> None:
        """Replace what an index holds by the whole items, in its order.

        An index lags behind its table: items that are gone, or no longer meet the conditions on
        their verified attributes, are left out (rule 19).
        """
        keys = [{name: item[name] for name in table.key_names} for item in index_items]
        whole = {}
        for stored in self._fetch(self._call.asked["TableName"], keys):
            opened = self._judged(stored, table)
            if opened.is_released:
                whole[key_of(opened.item, table)] = opened.item
        found = [whole.get(key_of(key_attributes, table)) for key_attributes in keys]
        conditions = () if self._call.lookup else (self._call.key_condition, self._call.filter_condition)
        items = [i for i in found if i is not None and all(self._meets(condition, i) for condition in conditions)]
        self._parsed["Items"] = items
        self._parsed["Count"] = len(items)

    def _meets(self, condition: Condition | None, item: Item) -> bool:
        values = self._call.asked.get("ExpressionAttributeValues") or {}
        return condition is None or matches(condition, item, values)

    def _open_batch_get(self) -> None:
        asked = {plain_table_name(name): entry for name, entry in self._call.asked["RequestItems"].items()}
        for name, stored_items in (self._parsed.get("Responses") or {}).items():
            if plain_table_name(name) not in asked:
                raise AuthenticationError("another table than asked for")
            table = self._book.find(name)
            if table is None:
                continue
            wanted = {key_of(key_attributes, table) for key_attributes in asked[plain_table_name(name)]["Keys"]}
            items = [self._opened(stored, table) for stored in stored_items]
            if not {key_of(item, table) for item in items} <= wanted:
                raise AuthenticationError("another item than asked for")
            self._parsed["Responses"][name] = items
        for name, entry in (self._parsed.get("UnprocessedKeys") or {}).items():
            if (table := self._book.find(name)) is not None:
                # The caller's own projection comes back, not the one with header and footer.
                self._parsed["UnprocessedKeys"][name] = {**asked[plain_table_name(name)], "Keys": entry["Keys"]}

    def _open_unprocessed(self) -> None:
        """UnprocessedItems as the caller wrote them, so that the next try encrypts them once."""
        for name, writes in (self._parsed.get("UnprocessedItems") or {}).items():
            table = self._book.find(name)
            if table is None:
                continue
            asked = {
                _written_key(write, table): write
                for asked_name, asked_writes in self._call.asked["RequestItems"].items()
                if plain_table_name(asked_name) == plain_table_name(name)
                for write in asked_writes
            }
            returned = [asked.get(_written_key(write, table)) for write in writes]
            if None in returned:
                raise AuthenticationError("an unprocessed item that was not sent")
            self._parsed["UnprocessedItems"][name] = returned

    def _open_transact_get(self) -> None:
        entries = self._call.asked["TransactItems"]
        answers = self._parsed.get("Responses") or []
        if len(answers) != len(entries):
            raise AuthenticationError("another number of items than asked for")
        for entry, answer in zip(entries, answers, strict=True):
            get = entry["Get"]
            table = self._book.find(get["TableName"])
            if table is not None and answer.get("Item"):
                answer["Item"] = self._opened_for(answer["Item"], table, get["Key"])

    def _open_error(self) -> None:
        """The item of a failed condition, and those of a cancelled transaction."""
        asked = self._call.asked
        if self._parsed.get("Item") and (table := self._book.find(asked["TableName"])) is not None:
            where = asked["Item" if "Item" in asked else "Key"]
            self._parsed["Item"] = self._opened_for(self._parsed["Item"], table, where)
        reasons = self._parsed.get("CancellationReasons") or []
        for entry, reason in zip(asked.get("TransactItems") or (), reasons, strict=False):
            ((_, body),) = entry.items()
            table = self._book.find(body["TableName"])
            if table is not None and reason.get("Item"):
                where = body["Item" if "Item" in body else "Key"]
                reason["Item"] = self._opened_for(reason["Item"], table, where)


_STEPS: Final[Mapping[str, Callable[[Answer], None]]] = {
    "BatchGetItem": Answer._open_batch_get,
    "BatchWriteItem": Answer._open_unprocessed,
    "DeleteItem": Answer._open_one,
    "GetItem": Answer._open_one,
    "PutItem": Answer._open_one,
    "Query": Answer._open_query,
    "Scan": Answer._open_query,
    "TransactGetItems": Answer._open_transact_get,
    "UpdateItem": Answer._open_one,
}


def key_of(attributes: Mapping[str, Any], table: TableConfig) -> tuple[Any, ...]:
    """The key attributes of an item or Key, comparable: ``{"N": "1"}`` equals ``{"N": "1.0"}``."""
    values = [attributes.get(name) for name in table.key_names]
    return tuple(None if value is None else canonical_value(value) for value in values)


def _written_key(write: Mapping[str, Any], table: TableConfig) -> tuple[str, tuple[Any, ...]]:
    ((kind, body),) = write.items()
    return kind, key_of(body["Item" if kind == "PutRequest" else "Key"], table)
