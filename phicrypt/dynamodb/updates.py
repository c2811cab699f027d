"""``update_encrypted``: change signed attributes of one item without losing anybody's write (rule 18).

DynamoDB cannot re-sign an item, so the item is read, verified, changed and encrypted again, and written
with one UpdateItem that sets and removes signed attributes, header and footer only, on condition that
the footer is still the one that was read. A put would revert an unsigned attribute that somebody
changed meanwhile; the condition fails if somebody changed a signed one, and the change is tried again
on the new item.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from phicrypt.core.backoff import back_off
from phicrypt.dynamodb.answers import key_of
from phicrypt.dynamodb.checks import check_key
from phicrypt.dynamodb.config import TableConfig
from phicrypt.dynamodb.layer import Layer, layer_of
from phicrypt.dynamodb.matching import same_value
from phicrypt.dynamodb.shapes import Item
from phicrypt.dynamodb.tables import FOOTER, HEADER, check_stored_beacons, signed_names
from phicrypt.errors import AuthenticationError, ConfigurationError, UnsupportedOperationError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

MAX_ATTEMPTS: Final = 12
_OPERATION: Final = "update_encrypted"
pause_of_colliding_writers: Final = partial(back_off, first_seconds=0.01, longest_seconds=0.5)
"""Wait before an update is tried again: collided writers part."""


def update_encrypted(
    client: DynamoDBClient,
    table_name: str,
    key_attributes: Mapping[str, Any],
    change: Callable[[Item], Item | None],
) -> Item | None:
    """Change signed attributes of one item; see the module's head for how.

    Args:
        client: a client, resource or table that encrypts (low-level shape is used in any case).
        table_name: name or ARN of an encrypted table.
        key_attributes: the item's Key, low-level shape.
        change: gets a copy of the plaintext item and returns the changed item, or changes the copy
            and returns None. It may be called several times, so it must do nothing else. A try that
            arrived although its answer was lost is not repeated: an increment counts once.

    Returns the changed plaintext item, or None where no item has that key: nothing is created.

    Raises ConfigurationError where ``change`` touches key or unsigned attributes (update those with
    UpdateItem), AuthenticationError for an item that does not verify, and botocore's
    ConditionalCheckFailedException after :data:`MAX_ATTEMPTS` collisions with other writers.
    """
    from botocore.exceptions import ClientError

    layer = layer_of(client)
    table = layer.book.resolve(table_name, "update_encrypted")
    if table is None:
        raise ConfigurationError(f"the table {table_name!r} is not encrypted; use update_item")
    check_key(key_attributes, table, "update_encrypted")
    layer.check_writable(table)
    reading = {"TableName": table_name, "Key": dict(key_attributes), "ConsistentRead": True}
    # Where an answer is lost, botocore sends the update again, and its own first arrival fails the condition.
    sent: list[tuple[Any, Item]] = []
    for attempt in range(1, MAX_ATTEMPTS + 1):
        stored = layer.call("GetItem", reading).get("Item")
        if not stored:
            return None
        for footer, arrived in sent:
            if stored.get(FOOTER) == footer:
                return arrived
        changed, sealed = _changed(layer, table, stored, key_attributes, change)
        sent.append((sealed[FOOTER], changed))
        try:
            layer.call("UpdateItem", {"TableName": table_name, **replacing_update(table, stored, sealed)})
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException" or attempt == MAX_ATTEMPTS:
                raise
        else:
            return changed
        pause_of_colliding_writers(attempt)
    raise AssertionError("unreachable")


def _changed(
    layer: Layer,
    table: TableConfig,
    stored: Item,
    key_attributes: Mapping[str, Any],
    change: Callable[[Item], Item | None],
) -> tuple[Item, Item]:
    """The changed plaintext item, and the same sealed."""
    check_stored_beacons(table, stored)
    item = layer.open(stored, table, _OPERATION).item
    if key_of(item, table) != key_of(key_attributes, table):
        raise AuthenticationError("another item than asked for")
    draft = copy.deepcopy(item)
    returned = change(draft)
    changed = draft if returned is None else dict(returned)
    _check_unchanged(item, changed, table)
    sealed = layer.seal(changed, table, _OPERATION)
    if not sealed.is_encrypted:
        raise UnsupportedOperationError(
            f"the plaintext policy of table {table.table_name!r} forces plaintext writes; use put_item"
        )
    return changed, sealed.item


def _check_unchanged(before: Item, after: Item, table: TableConfig) -> None:
    """Key attributes name the item; unsigned ones are other writers' to change at any time."""
    fixed = {name for name in {*before, *after} if name in table.key_names or table.is_unsigned(name)}
    changed = sorted(name for name in fixed if not _same(before.get(name), after.get(name)))
    if changed:
        raise ConfigurationError(
            f"update_encrypted changes signed attributes only, but {', '.join(map(repr, changed))} of table "
            f"{table.table_name!r} is a key or unsigned attribute; a key cannot change, and unsigned attributes "
            "are changed with update_item, which loses no concurrent change"
        )


def replacing_update(table: TableConfig, stored: Item, sealed: Item) -> dict[str, Any]:
    """UpdateItem parameters (without TableName) that turn the stored item into the sealed one.

    Sets and removes signed attributes, header and footer only. The condition: the footer is the
    stored one; for a plaintext item, that header and footer are absent, every signed attribute is
    as it was read, and no configured one appeared.
    """
    expression = _Expression()
    sets, removes = [], []
    for name, value in sealed.items():
        if name not in table.key_names and not table.is_unsigned(name):
            sets.append(f"{expression.name(name)} = {expression.value(value)}")
    for name in stored:
        if name not in sealed and not table.is_unsigned(name):
            removes.append(expression.name(name))
    update = f"SET {', '.join(sets)}" + (f" REMOVE {', '.join(removes)}" if removes else "")
    if FOOTER in stored:
        conditions = [f"{FOOTER} = {expression.value(stored[FOOTER])}"]
    else:
        conditions = [f"attribute_not_exists({name})" for name in (HEADER, FOOTER)]
        # The key exists in any item, so that a deleted one is not created again.
        for name in dict.fromkeys((*table.key_names, *signed_names(table), *stored)):
            if table.is_unsigned(name):
                continue
            if name in table.key_names:
                conditions.append(f"attribute_exists({expression.name(name)})")
            elif name in stored:
                conditions.append(f"{expression.name(name)} = {expression.value(stored[name])}")
            else:
                conditions.append(f"attribute_not_exists({expression.name(name)})")
    return {
        "Key": {name: stored[name] for name in table.key_names},
        "UpdateExpression": update,
        "ConditionExpression": " AND ".join(conditions),
        "ExpressionAttributeNames": expression.names,
        "ExpressionAttributeValues": expression.values,
    }


class _Expression:
    """Hands out placeholders."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.values: dict[str, Any] = {}
        self._by_name: dict[str, str] = {}

    def name(self, attribute: str) -> str:
        placeholder = self._by_name.setdefault(attribute, f"#a{len(self._by_name)}")
        self.names[placeholder] = attribute
        return placeholder

    def value(self, value: Any) -> str:
        placeholder = f":v{len(self.values)}"
        self.values[placeholder] = value
        return placeholder


def _same(left: Any, right: Any) -> bool:
    try:
        return left is right or same_value(left, right)
    except (AttributeError, TypeError, ValueError):  # ``change`` made something else of an attribute value
        return False
