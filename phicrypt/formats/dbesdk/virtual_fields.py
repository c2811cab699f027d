"""Texts that a beacon is made of, where it is not made of one attribute (``searchable-encryption/virtual.md``).

A virtual field joins parts; each part is the text of a value, changed by its transforms in order. Positions
count UTF-16 code units, as AWS's libraries do, so ``Prefix(1)`` of a text that begins with an emoji cuts a
surrogate pair, and there is no text: the write is refused, there and here.

Where the specification's text and AWS's libraries differ, this follows the libraries: a position beyond the
end is the *last* code unit, so that ``Substring(0, 99)`` of ``abc`` is ``ab``; only ``Suffix`` reaches the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phicrypt.errors import ConfigurationError, FormatError
from phicrypt.formats.dbesdk.locations import Location, parse_location, value_at

AttributeValue = Mapping[str, Any]

_UPPER = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}
_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


@dataclass(frozen=True, slots=True)
class Upper:
    """``Upper()``: a to z become A to Z; nothing else changes."""

    def apply(self, text: str) -> str:
        return text.translate(_UPPER)


@dataclass(frozen=True, slots=True)
class Lower:
    """``Lower()``: A to Z become a to z; nothing else changes."""

    def apply(self, text: str) -> str:
        return text.translate(_LOWER)


@dataclass(frozen=True, slots=True)
class Insert:
    """``Insert("-")``: the text is appended."""

    literal: str

    def apply(self, text: str) -> str:
        return text + code_units(self.literal)


@dataclass(frozen=True, slots=True)
class Prefix:
    """``Prefix(3)``: the first three; ``Prefix(-3)``: all but the last three."""

    length: int

    def apply(self, text: str) -> str:
        return text[: self.length] if self.length >= 0 else text[: max(0, len(text) + self.length)]


@dataclass(frozen=True, slots=True)
class Suffix:
    """``Suffix(3)``: the last three; ``Suffix(-3)``: all but the first three."""

    length: int

    def apply(self, text: str) -> str:
        return text[max(0, len(text) - self.length) :] if self.length >= 0 else text[-self.length :]


@dataclass(frozen=True, slots=True)
class Substring:
    """``Substring(2, 4)``: from position 2 up to, not including, position 4; negative ones count from the end."""

    low: int
    high: int

    def apply(self, text: str) -> str:
        return text[_position(self.low, len(text)) : _position(self.high, len(text))]


@dataclass(frozen=True, slots=True)
class Segment:
    """``Segment("@", 1)``: the second piece of a text that is split at ``@``; negative ones count from the end."""

    split: str
    index: int

    def apply(self, text: str) -> str:
        pieces = text.split(self.split)
        return pieces[self.index] if -len(pieces) <= self.index < len(pieces) else ""


@dataclass(frozen=True, slots=True)
class Segments:
    """``Segments("-", 0, 2)``: the first two pieces of a text that is split at ``-``, joined again."""

    split: str
    low: int
    high: int

    def apply(self, text: str) -> str:
        pieces = text.split(self.split)
        return self.split.join(pieces[_position(self.low, len(pieces)) : _position(self.high, len(pieces))])


Transform = Upper | Lower | Insert | Prefix | Suffix | Substring | Segment | Segments


@dataclass(frozen=True, slots=True)
class VirtualPart:
    """``VirtualPart("email", Lower())``: the text at a location, transformed. Raises ConfigurationError."""

    location: str
    transforms: tuple[Transform, ...]

    def __init__(self, location: str, *transforms: Transform) -> None:
        parse_location(location)
        for transform in transforms:
            _check_transform(transform)
        object.__setattr__(self, "location", location)
        object.__setattr__(self, "transforms", transforms)


@dataclass(frozen=True, slots=True)
class VirtualField:
    """``VirtualField("email_lower", VirtualPart("email", Lower()))``: parts, joined.

    It exists in an item in which every part does. It is stored nowhere; a beacon of its name, or with it as
    its location, is. Raises ConfigurationError.
    """

    name: str
    parts: tuple[VirtualPart, ...]

    def __init__(self, name: str, *parts: VirtualPart) -> None:
        if not isinstance(name, str) or not name or not parts:
            raise ConfigurationError("a virtual field has a name and at least one VirtualPart")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "parts", parts)

    def text_of(self, item: Mapping[str, AttributeValue]) -> str | None:
        """The field's text in an item; None where a part is missing. Raises FormatError, without the value."""
        texts = []
        for part in self.parts:
            text = text_at(parse_location(part.location), item, self.name)
            if text is None:
                return None
            texts.append(transformed(text, part.transforms, self.name))
        return "".join(texts)


def transformed(text: str, transforms: Sequence[Transform], name: str) -> str:
    """A text after some transforms. Raises FormatError where half a surrogate pair is left."""
    if not transforms:
        return text
    units = code_units(text)
    for transform in transforms:
        units = transform.apply(units)
    if units.isascii():
        return units
    try:
        return units.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        pass
    # Not in the handler: Python's error holds the text (rule 32).
    raise FormatError("a transform cuts a character in half", field=f"virtual field {name!r}")


def code_units(text: str) -> str:
    """The text with one character for each UTF-16 code unit."""
    if text.isascii() or max(text) < "\U00010000":
        return text
    units = text.encode("utf-16-le", "surrogatepass")
    return "".join(chr(units[at] | units[at + 1] << 8) for at in range(0, len(units), 2))


def text_at(location: Location, item: Mapping[str, AttributeValue], name: str) -> str | None:
    """The text of the value at a location: S and N as they are, true, false, null. Raises FormatError."""
    value = value_at(location, item)
    if value is None:
        return None
    ((kind, content),) = value.items()
    if kind in ("S", "N") and isinstance(content, str):
        return content
    if kind == "BOOL":
        return "true" if content else "false"
    if kind == "NULL":
        return "null"
    raise FormatError(f"a value of type {kind} has no text", field=f"beacon part {name!r}")


def _position(position: int, length: int) -> int:
    if length == 0:
        return 0
    return min(position, length - 1) if position >= 0 else max(0, length + position)


def _check_transform(transform: Transform) -> None:
    if not isinstance(transform, Transform):
        raise ConfigurationError("a transform is one of Upper(), Lower(), Insert(…), Prefix(…), Suffix(…), …")
    split = getattr(transform, "split", None)
    if split is not None and (not isinstance(split, str) or len(split) != 1 or ord(split) > 0xFFFF):
        raise ConfigurationError("a transform's split is one character")
