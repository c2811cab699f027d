"""Which attributes an item signs, in which order, under which canonical paths.

A canonical path names one attribute of one table (``structured-encryption/header.md``, section
"Canonical Path"); items here are flat, so its depth is always one::

    table name        UTF-8
    depth             8 bytes: 1
    "$"               1 byte
    length of name    8 bytes, in UTF-16 code units
    name              UTF-8

The text says "length of the key"; AWS's libraries count UTF-16 code units, and so must everybody.
Attributes are ordered by these bytes. A layout depends on names only, never on values, so it may be
kept and shared; nothing in it is secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import IntEnum
from itertools import compress
from operator import not_
from typing import Final, NamedTuple

from phicrypt.errors import FormatError

MAX_LEGEND_LENGTH: Final = 0xFFFE
"""Most signed attributes of one item; AWS's libraries stop one short of the field's capacity."""


class LegendAction(IntEnum):
    """One byte of the encrypt legend: what was done with one signed attribute."""

    ENCRYPT = 0x65
    """``e``: encrypted and signed."""
    SIGN = 0x73
    """``s``: signed only."""
    CONTEXT = 0x63
    """``c``: signed, and part of the encryption context."""


_LEGEND_BYTES: Final = frozenset(action.value for action in LegendAction)


class Layout(NamedTuple):
    """The signed attributes of an item.

    Attributes:
        names: their names, in the order of their canonical paths.
        paths: the canonical paths, in the same order.
        legend: one :class:`LegendAction` byte each, in the same order.
        is_encrypted: what the legend says, for each.
        marks: the same as the canonical hash spells it.
        encrypted_names, encrypted_paths: of those that are encrypted.
        readable_names: of the others.
    """

    names: tuple[str, ...]
    paths: tuple[bytes, ...]
    legend: bytes
    is_encrypted: tuple[bool, ...]
    marks: tuple[bytes, ...]
    encrypted_names: tuple[str, ...]
    encrypted_paths: tuple[bytes, ...]
    readable_names: tuple[str, ...]

    def names_with(self, action: LegendAction) -> tuple[str, ...]:
        """The attributes with this action."""
        return tuple(name for name, byte in zip(self.names, self.legend, strict=True) if byte == action)


def canonical_path(table_name: str, attribute: str) -> bytes:
    """The path of a top-level attribute, as the module's head lays it out."""
    encoded = None
    with suppress(UnicodeEncodeError):
        encoded = attribute.encode(), table_name.encode()
    if encoded is None:
        raise FormatError("not valid Unicode text (an unpaired surrogate)", field="attribute name")
    name, prefix = encoded
    code_units = len(attribute.encode("utf-16-be")) // 2
    return b"".join((prefix, (1).to_bytes(8, "big"), b"$", code_units.to_bytes(8, "big"), name))


def layout_to_write(table_name: str, actions: Mapping[str, LegendAction]) -> Layout:
    """The layout of an item whose signed attributes have these actions.

    Raises FormatError for no attributes at all, or more than a header can hold.
    """
    names, paths = _ordered(table_name, actions)
    if not names:
        raise FormatError("an item needs at least one signed attribute", field="encrypt legend")
    if len(names) > MAX_LEGEND_LENGTH:
        raise FormatError(f"more than {MAX_LEGEND_LENGTH} signed attributes", field="encrypt legend")
    return _layout(names, paths, bytes(actions[name] for name in names))


def layout_to_read(table_name: str, signed_names: Iterable[str], legend: bytes) -> Layout:
    """The layout of a stored item: its signed attributes, and the legend of its header.

    Raises FormatError if the legend does not have one known byte for each attribute: an attribute
    was added or removed, or the reader has another idea of what is signed.
    """
    names, paths = _ordered(table_name, signed_names)
    if len(legend) != len(names):
        raise FormatError(
            f"the header describes {len(legend)} signed attributes and the item has {len(names)}: attributes "
            "were added or removed, or the unsigned attributes are not those of the writer",
            field="encrypt legend",
        )
    if not _LEGEND_BYTES.issuperset(legend):
        raise FormatError("a byte that stands for no action", field="encrypt legend")
    return _layout(names, paths, legend)


def _layout(names: tuple[str, ...], paths: tuple[bytes, ...], legend: bytes) -> Layout:
    is_encrypted = tuple(byte == LegendAction.ENCRYPT for byte in legend)
    return Layout(
        names,
        paths,
        legend,
        is_encrypted,
        marks=tuple(b"ENCRYPTED" if encrypted else b"PLAINTEXT" for encrypted in is_encrypted),
        encrypted_names=tuple(compress(names, is_encrypted)),
        encrypted_paths=tuple(compress(paths, is_encrypted)),
        readable_names=tuple(compress(names, map(not_, is_encrypted))),
    )


def _ordered(table_name: str, names: Iterable[str]) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    by_path = sorted((canonical_path(table_name, name), name) for name in names)
    return tuple(name for _, name in by_path), tuple(path for path, _ in by_path)
