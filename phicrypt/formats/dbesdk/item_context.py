"""The encryption context of an item: what its keys are bound to, computed by writer and reader alike.

From ``encrypt-item.md``, sections "DynamoDB Item Base Context" and "Base Context Value", and from
``encrypt-path-structure.md``, section "Create New Encryption Context and CMM"::

    both versions   aws-crypto-table-name        logical table name
                    aws-crypto-partition-name    name of the partition key
                    aws-crypto-sort-name         name of the sort key, if the table has one
    version 1       aws-crypto-attr.<key name>   for each key attribute: base64 of type and body
    version 2       aws-crypto-attr.<name>       for each attribute included in the context: text and
                                                 numbers as they are, null, true, false, otherwise
                                                 base64 of type and body
                    aws-crypto-legend            for each of those, sorted by name: S, N, L or B

These pairs are not stored: an item that was moved to another table or key computes other pairs, and
its data key does not open.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Final

from phicrypt.errors import FormatError
from phicrypt.formats.dbesdk.attributes import (
    TYPE_BOOLEAN,
    TYPE_NULL,
    TYPE_NUMBER,
    TYPE_STRING,
    deserialize,
)

TABLE_NAME: Final = "aws-crypto-table-name"
PARTITION_NAME: Final = "aws-crypto-partition-name"
SORT_NAME: Final = "aws-crypto-sort-name"
LEGEND_NAME: Final = "aws-crypto-legend"
ATTRIBUTE_PREFIX: Final = "aws-crypto-attr."

Terminals = Mapping[str, tuple[bytes, bytes]]
"""Type and body by attribute name, as :func:`phicrypt.formats.dbesdk.attributes.serialize` gives them."""


def item_context(
    version: int,
    terminals: Terminals,
    *,
    table_name: str,
    partition_key: str,
    sort_key: str | None,
    context_attributes: Iterable[str],
) -> dict[str, str]:
    """The pairs at the module's head. Key attributes must be among the terminals.

    Raises FormatError for a body that is not what its type says.
    """
    context = {TABLE_NAME: table_name, PARTITION_NAME: partition_key}
    if sort_key is not None:
        context[SORT_NAME] = sort_key
    if version == 1:
        for name in (partition_key,) if sort_key is None else (partition_key, sort_key):
            context[ATTRIBUTE_PREFIX + name] = _encoded(*terminals[name])
        return context
    legend = ""
    for name in sorted(context_attributes, key=str.encode):
        letter, text = _readable(*terminals[name])
        context[ATTRIBUTE_PREFIX + name] = text
        legend += letter
    context[LEGEND_NAME] = legend
    return context


def attributes_of_context(context: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The attributes that an item's context holds, for suppliers that choose a branch key by them.

    Version 1 has the key attributes, version 2 every attribute included in the context; values in
    the low-level client's shape (``ddb-encryption-branch-key-id-supplier.md``). Raises FormatError
    for a context that is no item's.
    """
    names = sorted(
        (name.removeprefix(ATTRIBUTE_PREFIX) for name in context if name.startswith(ATTRIBUTE_PREFIX)),
        key=str.encode,
    )
    legend = context.get(LEGEND_NAME, "B" * len(names))
    if len(legend) != len(names):
        raise FormatError("it does not fit the number of attributes", field=LEGEND_NAME)
    return {
        name: _from_readable(letter, context[ATTRIBUTE_PREFIX + name])
        for name, letter in zip(names, legend, strict=True)
    }


def _encoded(type_id: bytes, body: bytes) -> str:
    return base64.b64encode(type_id + body).decode()


def _readable(type_id: bytes, body: bytes) -> tuple[str, str]:
    """The legend's letter and the text of one value in version 2."""
    if type_id == TYPE_STRING:
        return "S", body.decode()
    if type_id == TYPE_NUMBER:
        return "N", body.decode()
    if type_id == TYPE_NULL:
        return "L", "null"
    if type_id == TYPE_BOOLEAN:
        return "L", "false" if body == b"\x00" else "true"
    return "B", _encoded(type_id, body)


def _from_readable(letter: str, text: str) -> dict[str, Any]:
    if letter in "SN":
        return {letter: text}
    if letter == "L" and text in ("null", "true", "false"):
        return {"NULL": True} if text == "null" else {"BOOL": text == "true"}
    if letter != "B":
        raise FormatError("a letter that stands for no type", field=LEGEND_NAME)
    try:
        decoded = base64.b64decode(text, validate=True)
    except ValueError:
        decoded = None
    if decoded is None:
        raise FormatError("a value is not base64", field="encryption context")
    return deserialize(decoded[:2], decoded[2:])
