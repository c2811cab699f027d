"""The shapes in which items travel, and the way between them.

Low-level: ``{"name": {"S": "text"}, "scan": {"B": b"…"}}``, boto3's client. Python: ``{"name": "text",
"visits": Decimal(3)}``, boto3's resource. JSON: low-level with binaries in base64, as Lambda's stream
events and table exports have them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final, Literal

from phicrypt.errors import ConfigurationError, FormatError, LimitExceededError
from phicrypt.formats.dbesdk.attributes import MAX_DEPTH
from phicrypt.formats.dbesdk.header import HEADER_ATTRIBUTE
from phicrypt.formats.dbesdk.numbers import MAX_DIGITS, exponent_form

Item = dict[str, Any]
"""Attributes by name."""
ItemShape = Literal["low-level", "python", "json"]
"""See the module's head; ``"json"`` is read only."""


def shape_of(item: Mapping[str, Any], partition_key: str) -> ItemShape:
    """The shape of an item, by its header and its partition key, whose Python values are never dicts."""
    if not isinstance(item, Mapping):
        raise ConfigurationError(f"an item is a mapping of attributes, {type(item).__name__} came")
    header = item.get(HEADER_ATTRIBUTE)
    if header is not None and isinstance(header, Mapping) and isinstance(header.get("B"), str):
        return "json"
    return "low-level" if isinstance(item.get(partition_key, {}), Mapping) else "python"


def to_low_level(item: Mapping[str, Any]) -> Item:
    """A Python item in the low-level shape, by boto3's own rules (no floats).

    Raises ConfigurationError naming the attribute.
    """
    from boto3.dynamodb.types import TypeSerializer

    if not isinstance(item, Mapping):
        raise ConfigurationError(f"a mapping of attributes was expected, {type(item).__name__} came")
    serializer = TypeSerializer()
    converted = {}
    try:
        for name, value in item.items():
            converted[name] = serializer.serialize(without_last_zeros(value))
        return converted
    except (TypeError, ArithmeticError, RecursionError):
        pass
    # Not in the handler: boto3's error shows the value, and would stay with ours as its context.
    raise ConfigurationError(
        f"the attribute {name!r} is or holds a value that boto3 does not store "
        "(floats are Decimal there; sets are not empty and of one type)"
    ) from None


def to_python(value: Any) -> Any:
    """One low-level attribute value as boto3's resource gives it."""
    from boto3.dynamodb.types import TypeDeserializer

    return TypeDeserializer().deserialize(with_exponents(value))


def without_last_zeros(value: Any) -> Any:
    """A Python value whose numbers of more than 38 digits, the last of them zeros, are written ``1E+38``.

    DynamoDB stores ``10**38``; boto3 would have to round its 39 digits, and raises instead. Numbers that have
    more digits than DynamoDB keeps stay as they are, for boto3 to refuse.
    """
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        if isinstance(value, int) and -_LARGEST_WITH_ALL_DIGITS <= value <= _LARGEST_WITH_ALL_DIGITS:
            return value
        return _without_last_zeros(Decimal(value))
    if isinstance(value, dict):
        return {name: without_last_zeros(member) for name, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(map(without_last_zeros, value)) if type(value) in _COLLECTIONS else value
    return value


_LARGEST_WITH_ALL_DIGITS: Final = 10**MAX_DIGITS - 1
_COLLECTIONS: Final = (list, tuple, set, frozenset)


def _without_last_zeros(number: Decimal) -> Decimal:
    sign, digits, exponent = number.as_tuple()
    if len(digits) <= MAX_DIGITS or not isinstance(exponent, int):  # not a number, or infinite
        return number
    significant = len(digits)
    while significant > 1 and digits[significant - 1] == 0:
        significant -= 1
    return Decimal((sign, digits[:significant], exponent + len(digits) - significant))


def with_exponents(value: Any) -> Any:
    """An attribute value, item or answer whose numbers of more than 38 digits are written ``1E+38``.

    DynamoDB answers with all their digits, and boto3's resource cannot turn these into a Decimal. Raises
    FormatError for a text that is not one of DynamoDB's numbers.
    """
    if isinstance(value, Mapping):
        if len(value) == 1:
            ((tag, content),) = value.items()
            if tag == "N" and isinstance(content, str):
                return {tag: exponent_form(content)}
            # A map may have one member of that name: its value is a map again, and no list.
            if tag == "NS" and isinstance(content, list):
                return {tag: [exponent_form(member) for member in content]}
        return {name: with_exponents(member) for name, member in value.items()}
    return [with_exponents(member) for member in value] if isinstance(value, list) else value


def binary(value: bytes) -> Any:
    """Bytes as boto3's resource gives them."""
    from boto3.dynamodb.types import Binary

    return Binary(value)


def stored_binary(item: Mapping[str, Any], name: str) -> bytes:
    """The bytes of a low-level binary attribute. Raises FormatError for anything else."""
    value = item[name]
    content = value.get("B") if isinstance(value, Mapping) and len(value) == 1 else None
    if not isinstance(content, bytes):
        raise FormatError("a binary attribute was expected", field=name)
    return content


def from_json(item: Mapping[str, Any]) -> Item:
    """A JSON item in the low-level shape. Raises FormatError for what is not base64."""
    return {name: _with_bytes(value, 1) for name, value in item.items()}


def _with_bytes(value: Any, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise LimitExceededError("an attribute value is nested too deeply", limit=MAX_DEPTH, actual=None)
    if not isinstance(value, Mapping) or len(value) != 1:
        raise FormatError("a mapping with exactly one type tag was expected", field="attribute value")
    ((tag, content),) = value.items()
    if tag == "B":
        return {tag: _from_base64(content)}
    if tag == "BS" and isinstance(content, list):
        return {tag: [_from_base64(member) for member in content]}
    if tag == "L" and isinstance(content, list):
        return {tag: [_with_bytes(member, depth + 1) for member in content]}
    if tag == "M" and isinstance(content, Mapping):
        return {tag: {name: _with_bytes(member, depth + 1) for name, member in content.items()}}
    return dict(value)


def _from_base64(text: Any) -> bytes:
    with suppress(ValueError, TypeError):
        return base64.b64decode(text, validate=True)
    raise FormatError("a binary is not base64", field="attribute value")
