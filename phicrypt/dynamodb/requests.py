"""From the caller's parameters to those that are sent: the pure half before the network.

Each function takes low-level parameters and never changes them. Everything about a request is
checked before its first item is sealed, so that a refused call asks no key of anybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from phicrypt.dynamodb.checks import (
    check_key,
    check_start_key,
    check_values_used,
    checked_condition,
    checked_update,
    whole_projection,
)
from phicrypt.dynamodb.config import TableConfig
from phicrypt.dynamodb.expression_tree import Condition
from phicrypt.dynamodb.index_checks import check_index, check_select, copies_everything, holds_whole_items
from phicrypt.dynamodb.items import SealedItem
from phicrypt.dynamodb.lookups import PARTITION, HashesOf, Lookup, looked_up, touches_hidden, without_filter
from phicrypt.dynamodb.operations import TABLE_OPERATIONS, check_members, check_operation
from phicrypt.dynamodb.table_checks import check_table_settings
from phicrypt.dynamodb.tables import FOOTER, TableBook, TableFacts, plain_table_name
from phicrypt.errors import ConfigurationError

Parameters = Mapping[str, Any]
Seal = Callable[[Mapping[str, Any], TableConfig], SealedItem]

HYDRATE: Final = "hydrate"
"""phicrypt's own parameter of Query and Scan: read the whole items that an index names."""
_RETURN_VALUES: Final = {
    "DeleteItem": ("NONE", "ALL_OLD"),
    "PutItem": ("NONE", "ALL_OLD"),
    "UpdateItem": ("NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW"),
}
_KEY_PLACEHOLDER: Final = "#phicrypt_partition_key"


class TableCheck(Protocol):
    """Compares a table with its configuration before it is first used (DescribeTable), or not at all."""

    def __call__(
        self, name_or_arn: str, table: TableConfig, *, writes: bool, index_name: str | None = None
    ) -> TableFacts | None: ...


@dataclass(frozen=True, slots=True)
class Call:
    """One prepared call; it travels to the answer in botocore's context.

    Attributes:
        operation: AWS's name of it.
        asked: the caller's parameters, low-level shape; they hold plaintext and are not in ``repr``.
        sent: the parameters to send.
        key_condition, filter_condition: of queries and scans, for judging the answer again.
        hydrate: read the whole items in the answer.
        lookup: judges the answer where beacons are named.
    """

    operation: str
    asked: Parameters = field(repr=False)
    sent: Parameters = field(repr=False)
    key_condition: Condition | None = None
    filter_condition: Condition | None = None
    hydrate: bool = False
    lookup: Lookup | None = None


def prepare(
    operation: str, asked: Parameters, book: TableBook, seal: Seal, check_table: TableCheck, hashes: HashesOf
) -> Call:
    """Check a call and seal its items; ``hashes`` opens the beacon key that a question needs.

    Raises UnsupportedOperationError, ConfigurationError or LimitExceededError before anything is
    sealed, and what ``seal`` raises.
    """
    check_operation(operation)
    if operation in TABLE_OPERATIONS:
        check_table_settings(operation, asked, book)
        return Call(operation, asked, asked)
    return _PREPARE[operation](_Request(operation, asked, book, seal, check_table, hashes))


@dataclass(frozen=True, slots=True)
class _Request:
    operation: str
    asked: Parameters
    book: TableBook
    seal: Seal
    check_table: TableCheck
    hashes: HashesOf

    def table(self, parameters: Parameters, *, writes: bool = False) -> TableConfig | None:
        """The table that ``parameters`` name, checked; None for a plaintext table."""
        name = parameters.get("TableName")
        table = self.book.resolve(name, self.operation)
        if table is not None:
            self.check_table(str(name), table, writes=writes)
        return table

    def passed_through(self) -> Call:
        return Call(self.operation, self.asked, self.asked)


def _get_item(request: _Request) -> Call:
    table = request.table(request.asked)
    if table is None:
        return request.passed_through()
    check_members(request.operation, request.asked)
    check_key(request.asked.get("Key"), table, request.operation)
    changed = whole_projection(request.asked, table, request.operation)
    return Call(request.operation, request.asked, {**request.asked, **changed})


def _put_item(request: _Request) -> Call:
    table = request.table(request.asked, writes=True)
    if table is None:
        return request.passed_through()
    check_members(request.operation, request.asked)
    _check_return_values(request)
    _check_put(request.asked, table, request.operation)
    sealed = request.seal(request.asked["Item"], table)
    return Call(request.operation, request.asked, {**request.asked, "Item": sealed.item})


def _delete_item(request: _Request) -> Call:
    table = request.table(request.asked, writes=True)
    if table is None:
        return request.passed_through()
    check_members(request.operation, request.asked)
    _check_return_values(request)
    _check_keyed(request.asked, table, request.operation)
    return request.passed_through()


def _update_item(request: _Request) -> Call:
    table = request.table(request.asked, writes=True)
    if table is None:
        return request.passed_through()
    check_members(request.operation, request.asked)
    _check_return_values(request)
    return Call(request.operation, request.asked, guarded_update(request.asked, table, request.operation))


def _query(request: _Request) -> Call:
    asked = {name: value for name, value in request.asked.items() if name != HYDRATE}
    hydrate = bool(request.asked.get(HYDRATE, False))
    name = asked.get("TableName")
    table = request.book.resolve(name, request.operation)
    if table is None:
        if hydrate:
            raise ConfigurationError("hydrate is for encrypted tables; nothing was sent")
        return Call(request.operation, asked, asked)
    check_members(request.operation, asked)
    facts = request.check_table(str(name), table, writes=False, index_name=asked.get("IndexName"))
    key_condition, filter_condition = (
        checked_condition(asked, member, table, request.operation, is_question=True)
        for member in ("KeyConditionExpression", "FilterExpression")
    )
    is_lookup = touches_hidden(key_condition, table) or touches_hidden(filter_condition, table)
    others = (PARTITION,) if is_lookup else ()
    check_values_used(asked, (key_condition, filter_condition), request.operation, others=others)
    check_start_key(asked.get("ExclusiveStartKey"), table, request.operation)
    changed = whole_projection(asked, table, request.operation)
    check_select(asked, hydrate, request.operation)
    sent, lookup = {**asked, **changed}, None
    is_blind = hydrate and not copies_everything(asked, facts)
    if is_lookup:
        sent, lookup = looked_up(
            sent, key_condition, filter_condition, table, request.hashes, request.operation, is_blind=is_blind
        )
        hydrate = hydrate or (lookup.is_count and not holds_whole_items(sent, table, facts))
    elif is_blind and filter_condition is not None:
        sent = without_filter(sent, key_condition)
    check_index(sent, table, facts, hydrate, request.operation)
    return Call(request.operation, asked, sent, key_condition, filter_condition, hydrate, lookup)


def _batch_get_item(request: _Request) -> Call:
    sent = {}
    for name, entry in _tables_named_once(request).items():
        table = request.table({"TableName": name})
        if table is None:
            sent[name] = entry
            continue
        check_members(request.operation, _mapping(entry, "RequestItems"), shape="KeysAndAttributes")
        for key_attributes in _sequence(entry.get("Keys"), "Keys"):
            check_key(key_attributes, table, request.operation)
        sent[name] = {**entry, **whole_projection(entry, table, request.operation)}
    check_members(request.operation, request.asked)
    return Call(request.operation, request.asked, {**request.asked, "RequestItems": sent})


def _batch_write_item(request: _Request) -> Call:
    check_members(request.operation, request.asked)
    request_items = _tables_named_once(request)
    tables = {name: request.table({"TableName": name}, writes=True) for name in request_items}
    for name, table in tables.items():
        if table is not None:
            for write in _sequence(request_items[name], "RequestItems"):
                _check_write(write, table, request.operation)
    sent = {
        name: writes
        if (table := tables[name]) is None
        else [_sealed_write(write, table, request) for write in writes]
        for name, writes in request_items.items()
    }
    return Call(request.operation, request.asked, {**request.asked, "RequestItems": sent})


def _transact_get_items(request: _Request) -> Call:
    check_members(request.operation, request.asked)
    sent = []
    for entry in _sequence(request.asked.get("TransactItems"), "TransactItems"):
        check_members(request.operation, _mapping(entry, "TransactItems"), shape="TransactGetItem")
        get = _mapping(entry.get("Get"), "Get")
        table = request.table(get)
        if table is not None:
            check_members(request.operation, get, shape="Get")
            check_key(get.get("Key"), table, request.operation)
            get = {**get, **whole_projection(get, table, request.operation)}
        sent.append({"Get": get})
    return Call(request.operation, request.asked, {**request.asked, "TransactItems": sent})


def _transact_write_items(request: _Request) -> Call:
    check_members(request.operation, request.asked)
    entries = [
        _only_action(entry, request) for entry in _sequence(request.asked.get("TransactItems"), "TransactItems")
    ]
    tables = [request.table(body, writes=action != "ConditionCheck") for action, body in entries]
    sent: list[dict[str, Parameters]] = []
    for (action, body), table in zip(entries, tables, strict=True):
        where = f"{request.operation}, {action}"
        if table is not None:
            check_members(request.operation, body, shape=action)
            if action == "Put":
                _check_put(body, table, where)
            elif action == "Update":
                body = guarded_update(body, table, where)
            else:
                _check_keyed(body, table, where)
        sent.append({action: body})
    for changed, table in zip(sent, tables, strict=True):
        if table is not None and "Put" in changed:
            changed["Put"] = {**changed["Put"], "Item": request.seal(changed["Put"]["Item"], table).item}
    return Call(request.operation, request.asked, {**request.asked, "TransactItems": sent})


def guarded_update(asked: Parameters, table: TableConfig, where: str) -> Parameters:
    """An update of unsigned attributes, on condition that the item is there and encrypted (rule 18).

    Without the condition, an update of a missing key would create an unsigned item.
    """
    check_key(asked.get("Key"), table, where)
    update = checked_update(asked, table, where)
    condition = checked_condition(asked, "ConditionExpression", table, where)
    check_values_used(asked, (update, condition), where)
    changed = dict(asked)
    if table.writes_plaintext():
        changed["ExpressionAttributeNames"] = {
            **(asked.get("ExpressionAttributeNames") or {}),
            _KEY_PLACEHOLDER: table.partition_key,
        }
        guard = f"attribute_exists({_KEY_PLACEHOLDER})"
    else:
        guard = f"attribute_exists({FOOTER})"
    changed["ConditionExpression"] = (
        guard if condition is None else f"({asked['ConditionExpression']}) AND {guard}"
    )
    return changed


def _check_put(asked: Parameters, table: TableConfig, where: str) -> None:
    _mapping(asked.get("Item"), "Item")
    check_values_used(asked, [checked_condition(asked, "ConditionExpression", table, where)], where)


def _check_keyed(asked: Parameters, table: TableConfig, where: str) -> None:
    check_key(asked.get("Key"), table, where)
    check_values_used(asked, [checked_condition(asked, "ConditionExpression", table, where)], where)


def _check_write(write: Parameters, table: TableConfig, where: str) -> None:
    check_members(where, _mapping(write, "RequestItems"), shape="WriteRequest")
    if len(write) != 1:
        raise ConfigurationError(
            f"{where}: each write is either a PutRequest or a DeleteRequest; nothing was sent"
        )
    ((kind, body),) = write.items()
    check_members(where, _mapping(body, kind), shape=kind)
    if kind == "PutRequest":
        _mapping(body.get("Item"), "Item")
    else:
        check_key(body.get("Key"), table, where)


def _sealed_write(write: Parameters, table: TableConfig, request: _Request) -> Parameters:
    if "PutRequest" not in write:
        return write
    return {"PutRequest": {"Item": request.seal(write["PutRequest"]["Item"], table).item}}


def _tables_named_once(request: _Request) -> Mapping[str, Any]:
    """A batch's RequestItems; answers name the table either way, so no table stands there twice."""
    request_items = _mapping(request.asked.get("RequestItems"), "RequestItems")
    if len({plain_table_name(name) for name in request_items}) != len(request_items):
        raise ConfigurationError(f"{request.operation}: a table is named twice, by name and ARN; nothing was sent")
    return request_items


def _only_action(entry: object, request: _Request) -> tuple[str, Parameters]:
    actions = _mapping(entry, "TransactItems")
    check_members(request.operation, actions, shape="TransactWriteItem")
    if len(actions) != 1:
        raise ConfigurationError(
            f"{request.operation}: an entry holds one of Put, Update, Delete and ConditionCheck; nothing was sent"
        )
    ((action, body),) = actions.items()
    return action, _mapping(body, action)


def _check_return_values(request: _Request) -> None:
    wanted = request.asked.get("ReturnValues", "NONE")
    if wanted not in _RETURN_VALUES[request.operation]:
        raise ConfigurationError(
            f"{request.operation}: ReturnValues is one of {', '.join(_RETURN_VALUES[request.operation])}; "
            "nothing was sent"
        )


def _mapping(value: object, member: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{member} is not a mapping; nothing was sent")
    return value


def _sequence(value: object, member: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ConfigurationError(f"{member} is not a list; nothing was sent")
    return value


_PREPARE: Final[Mapping[str, Callable[[_Request], Call]]] = {
    "BatchGetItem": _batch_get_item,
    "BatchWriteItem": _batch_write_item,
    "DeleteItem": _delete_item,
    "GetItem": _get_item,
    "PutItem": _put_item,
    "Query": _query,
    "Scan": _query,
    "TransactGetItems": _transact_get_items,
    "TransactWriteItems": _transact_write_items,
    "UpdateItem": _update_item,
}
