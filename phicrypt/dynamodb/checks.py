"""What the expressions of a request may touch, given a table's configuration.

An encrypted attribute compares as random bytes, so a condition on it would be false for ever and a
filter would return nothing: that is an error which names the attribute, never an empty answer. An
update of a signed attribute would break the item's signature; a projection that leaves one out
makes the item impossible to verify.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from phicrypt.dynamodb.config import RESERVED_ATTRIBUTE_PREFIX, TableConfig
from phicrypt.dynamodb.expression_tree import Condition, Update, paths, placeholders
from phicrypt.dynamodb.expressions import parse_condition, parse_projection, parse_update
from phicrypt.dynamodb.tables import FOOTER, HEADER, is_encrypted_name, signed_names
from phicrypt.errors import ConfigurationError, UnsupportedOperationError

Parameters = Mapping[str, Any]
_KEY_TYPES: Final = frozenset("SNB")


def checked_condition(
    request: Parameters, member: str, table: TableConfig, where: str, *, is_question: bool = False
) -> Condition | None:
    """The parsed condition in ``request[member]``, None if there is none.

    Raises UnsupportedOperationError if it touches an encrypted attribute or one without action. A question to a
    table with beacons may: see :mod:`phicrypt.dynamodb.lookups`.
    """
    text = request.get(member)
    if text is None:
        return None
    condition = parse_condition(text, _names(request), member=member)
    plan = table.search_plan if is_question else None
    for path in paths(condition):
        if plan is None or not (plan.is_hashed(path.attribute) or is_encrypted_name(table, path.attribute)):
            _check_readable(path.attribute, table, f"{member} of {where}")
    return condition


def checked_update(request: Parameters, table: TableConfig, where: str) -> Update:
    """The parsed update expression, which may touch unsigned attributes only (rule 18)."""
    text = request.get("UpdateExpression")
    if text is None:
        raise ConfigurationError(f"{where} needs an UpdateExpression; nothing was sent")
    update = parse_update(text, _names(request))
    for path in paths((update.targets, update.operands)):
        if not table.is_unsigned(path.attribute):
            raise UnsupportedOperationError(
                f"UpdateExpression of {where} touches {_described(path.attribute, table)} of table "
                f"{table.table_name!r}: DynamoDB cannot renew the item's signature, so the item could never be "
                "read again. Use update_encrypted, which reads, verifies, changes and re-encrypts the item"
            )
    return update


def whole_projection(request: Parameters, table: TableConfig, where: str) -> dict[str, str]:
    """Changed parameters for a projection of whole signed items: header and footer are added.

    Empty without a projection. Raises UnsupportedOperationError for a projection that leaves out a
    signed attribute, or takes only a part of one.
    """
    text = request.get("ProjectionExpression")
    if text is None:
        return {}
    projected = parse_projection(text, _names(request))
    for path in projected:
        if path.is_nested and not table.is_unsigned(path.attribute):
            raise UnsupportedOperationError(
                f"ProjectionExpression of {where} takes a part of {_described(path.attribute, table)} of table "
                f"{table.table_name!r}; the signature covers the whole attribute"
            )
    names = [path.attribute for path in projected]
    missing = [name for name in signed_names(table) if name not in names]
    if missing:
        touched = [name for name in names if is_encrypted_name(table, name)]
        asked = f" asks for the encrypted {_listed(touched)} and" if touched else ""
        raise UnsupportedOperationError(
            f"ProjectionExpression of {where}{asked} drops the signed attributes {_listed(missing)} of table "
            f"{table.table_name!r}: without them nothing can be verified. Read the whole item"
        )
    added = [name for name in (HEADER, FOOTER) if name not in names]
    return {"ProjectionExpression": ", ".join([text, *added])}


def check_values_used(
    request: Parameters, trees: Iterable[object], where: str, *, others: Iterable[str] = ()
) -> None:
    """Raise ConfigurationError for values that no expression uses.

    DynamoDB refuses them too, but only after it has received them. ``others`` are used otherwise.
    """
    values = request.get("ExpressionAttributeValues")
    if values is None:
        return
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"ExpressionAttributeValues of {where} is not a mapping; nothing was sent")
    for name, value in values.items():
        if not isinstance(value, Mapping) or len(value) != 1:
            raise ConfigurationError(
                f"{where}: the value {name!r} is a mapping with one type tag, such as {{'S': …}}; nothing was sent"
            )
    used = {name for tree in trees for name in placeholders(tree)} | set(others)
    unused = [name for name in values if name not in used]
    if unused:
        raise ConfigurationError(
            f"{where}: no expression uses {_listed(unused)} of ExpressionAttributeValues; nothing was sent"
        )


def check_key(key_attributes: object, table: TableConfig, where: str) -> None:
    """Raise ConfigurationError for a Key with other attributes than the table's key, or other values."""
    if not isinstance(key_attributes, Mapping):
        raise ConfigurationError(f"{where} needs a Key; nothing was sent")
    strange = [name for name in key_attributes if name not in table.key_names]
    if strange:
        raise ConfigurationError(
            f"{where}: Key holds {_listed(strange)}, but the key of table {table.table_name!r} is "
            f"{_listed(table.key_names)}; nothing was sent"
        )
    for name, value in key_attributes.items():
        if not (isinstance(value, Mapping) and len(value) == 1 and value.keys() <= _KEY_TYPES):
            raise ConfigurationError(
                f"{where}: the key attribute {name!r} is one of {{'S': …}}, {{'N': …}} and {{'B': …}} here; "
                "nothing was sent"
            )


def check_start_key(start_key: object, table: TableConfig, where: str) -> None:
    """Raise for an ExclusiveStartKey that names an encrypted or unknown attribute."""
    if start_key is None:
        return
    if not isinstance(start_key, Mapping):
        raise ConfigurationError(f"ExclusiveStartKey of {where} is not a mapping; nothing was sent")
    known = table.search_plan.stored_names if table.search_plan is not None else frozenset()
    for name in start_key:
        if name not in known:
            _check_readable(name, table, f"ExclusiveStartKey of {where}")


def _check_readable(attribute: str, table: TableConfig, where: str) -> None:
    if attribute in (HEADER, FOOTER):
        return
    if is_encrypted_name(table, attribute):
        raise UnsupportedOperationError(
            f"{where} touches the encrypted attribute {attribute!r} of table {table.table_name!r}: DynamoDB sees "
            "random bytes there, so it could never match. A beacon of it in TableConfig.search can be asked for "
            "(docs/search.md), or compare after decryption"
        )
    if attribute not in table.actions and not table.is_unsigned(attribute):
        raise UnsupportedOperationError(
            f"{where} touches {attribute!r}, which has no action in the TableConfig of {table.table_name!r}; "
            "whether stored items have it encrypted is not known"
        )


def _described(attribute: str, table: TableConfig) -> str:
    if attribute.startswith(RESERVED_ATTRIBUTE_PREFIX):
        return f"the format's own attribute {attribute!r}"
    kind = "encrypted" if is_encrypted_name(table, attribute) else "signed"
    return f"the {kind} attribute {attribute!r}"


def _names(request: Parameters) -> Mapping[str, str]:
    names = request.get("ExpressionAttributeNames")
    if names is None:
        return {}
    if not isinstance(names, Mapping):
        raise ConfigurationError("ExpressionAttributeNames is not a mapping; nothing was sent")
    return names


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))
