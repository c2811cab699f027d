"""Python values of typed tables as attribute values and back.

=====================================================  =============================================
value                                                  attribute
=====================================================  =============================================
``None``, ``bool``, ``bytes``                          NULL, BOOL, B
``str``, UUID, ``datetime`` and its kin (ISO 8601)     S
``int``, ``Decimal``, ``float`` (finite)               N
enumeration member, secret                             as its value
list, tuple, nested model, mapping                     L, L, M, M
set of texts, of numbers, of bytes; other or empty     SS, NS, BS; L
=====================================================  =============================================

Everything else is written as pydantic writes it into JSON. Numbers come back as ``int`` where they
are whole and as ``Decimal`` otherwise; the model's own types turn them into what the fields say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from pydantic import SecretBytes, SecretStr
from pydantic_core import PydanticSerializationError, to_jsonable_python

from phicrypt.errors import ConfigurationError

_SET_TAGS = {"S": "SS", "N": "NS", "B": "BS"}


def to_attribute(value: Any) -> dict[str, Any]:
    """The attribute value of a Python value, as the module's head says.

    Raises ConfigurationError for a number that is not finite and for what has no JSON form.
    """
    if isinstance(value, SecretStr | SecretBytes):
        return to_attribute(value.get_secret_value())
    if isinstance(value, Enum):
        return to_attribute(value.value)
    scalar = _scalar(value)
    if scalar is not None:
        return scalar
    if isinstance(value, Mapping):
        return {"M": {_map_name(name): to_attribute(member) for name, member in value.items()}}
    if isinstance(value, list | tuple):
        return {"L": [to_attribute(member) for member in value]}
    if isinstance(value, set | frozenset):
        return _set(value)
    try:
        jsonable = to_jsonable_python(value)
    except (PydanticSerializationError, RecursionError):
        jsonable = value
    if jsonable is value:
        raise ConfigurationError(f"a value of type {type(value).__name__} has no form in DynamoDB")
    return to_attribute(jsonable)


def from_attribute(attribute: Mapping[str, Any]) -> Any:
    """The Python value that a model's field is validated from."""
    ((tag, content),) = attribute.items()
    if tag == "NULL":
        return None
    if tag == "N":
        return _number(content)
    if tag == "NS":
        return {_number(member) for member in content}
    if tag in ("SS", "BS"):
        return set(content)
    if tag == "L":
        return [from_attribute(member) for member in content]
    if tag == "M":
        return {name: from_attribute(member) for name, member in content.items()}
    return content


def _scalar(value: Any) -> dict[str, Any] | None:
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, str):
        return {"S": str(value)}
    if isinstance(value, int):
        return {"N": str(int(value))}
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigurationError("DynamoDB has no infinite numbers and no NaN")
        return {"N": repr(value)}
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ConfigurationError("DynamoDB has no infinite numbers and no NaN")
        return {"N": str(value)}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"B": bytes(value)}
    if isinstance(value, datetime | date | time):
        return {"S": value.isoformat()}
    if isinstance(value, UUID):
        return {"S": str(value)}
    return None


def _map_name(name: Any) -> str:
    return name if type(name) is str else str(next(iter(to_attribute(name).values())))


def _set(members: set[Any] | frozenset[Any]) -> dict[str, Any]:
    attributes = [to_attribute(member) for member in members]
    tags = {tag for attribute in attributes for tag in attribute}
    tag = _SET_TAGS.get(tags.pop()) if len(tags) == 1 else None
    if tag is None:  # DynamoDB stores no empty sets and none of mixed types
        return {"L": attributes}
    return {tag: sorted(next(iter(attribute.values())) for attribute in attributes)}


def _number(text: str) -> int | Decimal:
    number = Decimal(text)
    return int(number) if number == number.to_integral_value() else number
