"""Compound beacons: readable and hashed parts in one text (``searchable-encryption/beacons.md``).

The value of a compound beacon is made by the first of its constructors whose required parts the item has::

    prefix text  split  prefix text  split  …         as the caller asks for it: C-north^L-Smith
    prefix text  split  prefix hash  split  …         as it is stored:           C-north^L-d67

A signed part is the text of a readable attribute; an encrypted part is the beacon of that text. No prefix
begins another, and no part's text holds the split character, so every value is read in one way only.

A compound of signed parts alone is a *signed beacon*: an attribute like others, SIGN_ONLY, under its own name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from phicrypt.errors import ConfigurationError, FormatError
from phicrypt.formats.dbesdk.beacon_values import (
    BEACON_PREFIX,
    BeaconHash,
    StandardBeacon,
    beacon_of_text,
    partition_of,
)
from phicrypt.formats.dbesdk.locations import Location, parse_location
from phicrypt.formats.dbesdk.virtual_fields import VirtualField, text_at

AttributeValue = Mapping[str, Any]
Hashes = Mapping[str, BeaconHash]
"""By the name that a beacon's key is made of."""


@dataclass(frozen=True, slots=True)
class SignedPart:
    """``SignedPart("clinic", prefix="C-")``: a readable attribute's text, at its name or location."""

    name: str
    prefix: str
    location: str = ""

    def __post_init__(self) -> None:
        _check_part(self.name, self.prefix)
        object.__setattr__(self, "location", self.location or self.name)
        parse_location(self.location)


@dataclass(frozen=True, slots=True)
class EncryptedPart:
    """``EncryptedPart("last_name", prefix="L-")``: the standard beacon of this name."""

    name: str
    prefix: str

    def __post_init__(self) -> None:
        _check_part(self.name, self.prefix)


@dataclass(frozen=True, slots=True)
class OptionalPart:
    """``OptionalPart("birth_date")`` in a :class:`Constructor`: left out where the item lacks it."""

    name: str


@dataclass(frozen=True, slots=True)
class Constructor:
    """``Constructor("clinic", "last_name", OptionalPart("birth_date"))``: parts in their order, one required."""

    parts: tuple[tuple[str, bool], ...]

    def __init__(self, *parts: str | OptionalPart) -> None:
        named = tuple((part.name, False) if isinstance(part, OptionalPart) else (part, True) for part in parts)
        if not any(is_required for _, is_required in named):
            raise ConfigurationError("a constructor has at least one required part")
        object.__setattr__(self, "parts", named)


@dataclass(frozen=True, slots=True)
class CompoundBeacon:
    """``CompoundBeacon("lookup", "^", signed=[SignedPart(…)], encrypted=[EncryptedPart(…)])``: several fields.

    Attributes:
        name: what expressions call it; stored as ``aws_dbe_b_`` and the name, a signed beacon as the name.
        split: one character that no part's text holds: an item in which one does is not written.
        signed, encrypted: its own parts, besides the table's (``SearchConfig.signed_parts``).
        constructors: the first that fits makes the value; all own parts, signed ones first, unless given.

    Raises ConfigurationError.
    """

    name: str
    split: str
    signed: tuple[SignedPart, ...] = ()
    encrypted: tuple[EncryptedPart, ...] = ()
    constructors: tuple[Constructor, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ConfigurationError("a beacon's name is a non-empty text")
        if not isinstance(self.split, str) or len(self.split) != 1 or ord(self.split) > 0xFFFF:
            raise ConfigurationError(f"the compound beacon {self.name!r} is split by one character")
        for member in ("signed", "encrypted", "constructors"):
            object.__setattr__(self, member, tuple(getattr(self, member)))


class Part(NamedTuple):
    """A part of a compound beacon, with everything that its text is made of.

    Attributes:
        name, prefix: as configured.
        location: where its text is.
        field: the virtual field that its text is, or None.
        beacon: hashes it; None for a signed part.
    """

    name: str
    prefix: str
    location: Location
    field: VirtualField | None
    beacon: StandardBeacon | None

    def text_of(self, item: Mapping[str, AttributeValue]) -> str | None:
        """Its text in an item, None if it is missing. Raises FormatError."""
        return self.field.text_of(item) if self.field is not None else text_at(self.location, item, self.name)


class Compound(NamedTuple):
    """A compound beacon with its parts found.

    Attributes:
        name, split: as configured.
        parts: all that it can be made of.
        constructors: for each, its parts and whether they are required.
    """

    name: str
    split: str
    parts: tuple[Part, ...]
    constructors: tuple[tuple[tuple[Part, bool], ...], ...]

    @property
    def is_signed(self) -> bool:
        """Whether it is a signed beacon."""
        return all(part.beacon is None for part in self.parts)

    @property
    def attribute(self) -> str:
        """The attribute in which it is stored."""
        return self.name if self.is_signed else BEACON_PREFIX + self.name

    def text_of(
        self,
        item: Mapping[str, AttributeValue],
        hashes: Hashes | None,
        partition: int = 0,
        default_partitions: int = 1,
    ) -> str | None:
        """The stored text for an item; with ``hashes=None`` the plain one, as callers ask for it.

        None where no constructor fits. Raises FormatError for a part that has no text or holds the split
        character; the error names the part.
        """
        for constructor in self.constructors:
            texts: list[str] = []
            for part, is_required in constructor:
                text = part.text_of(item)
                if text is None:
                    if is_required:
                        break
                    continue
                if self.split in text:
                    raise FormatError(
                        f"the part {part.name!r} holds the character {self.split!r}, which splits parts",
                        field=f"beacon {self.name!r}",
                    )
                texts.append(part.prefix + self._stored(part, text, hashes, partition, default_partitions))
            else:
                return self.split.join(texts)
        return None

    def pieces_of(self, value: str) -> list[tuple[Part, str]]:
        """The parts of a value that was asked for, with texts. Raises ConfigurationError, without the value."""
        pieces = [(self._part(piece), piece) for piece in value.split(self.split)]
        read = [(part, piece[len(part.prefix) :]) for part, piece in pieces if part is not None]
        if len(read) < len(pieces):
            raise ConfigurationError(
                f"the compound beacon {self.name!r}: a piece of the value begins with no part's prefix "
                f"({', '.join(sorted(part.prefix for part in self.parts))})"
            )
        if not any(_is_run([part for part, _ in read], constructor) for constructor in self.constructors):
            raise ConfigurationError(
                f"the compound beacon {self.name!r}: no constructor has these parts in this order: "
                f"{', '.join(part.name for part, _ in read)}"
            )
        return read

    def asked(
        self, value: str, hashes: Hashes, partition: int = 0, default_partitions: int = 1, *, whole: bool = True
    ) -> str:
        """The stored form of a value that is asked for.

        With ``whole=False`` (comparisons by order, ``begins_with``, ``contains``) a last piece that is a bare
        prefix stays bare. Raises ConfigurationError.
        """
        read = self.pieces_of(value)
        stored = [
            part.prefix + self._stored(part, text, hashes, partition, default_partitions) for part, text in read
        ]
        last, text = read[-1]
        if not whole and not text:
            stored[-1] = last.prefix
        return self.split.join(stored)

    def _part(self, piece: str) -> Part | None:
        return next((part for part in self.parts if piece.startswith(part.prefix)), None)

    @staticmethod
    def _stored(part: Part, text: str, hashes: Hashes | None, partition: int, default_partitions: int) -> str:
        if part.beacon is None or hashes is None:
            return text
        of_beacon = partition_of(part.beacon, partition, default_partitions)
        return beacon_of_text(part.beacon, hashes[part.beacon.hashed_as], text, of_beacon)


def is_ordered(pieces: Sequence[tuple[Part, str]]) -> bool:
    """Whether stored values are ordered as plain ones here: signed parts, then one bare prefix at most."""
    hashed = [position for position, (part, _) in enumerate(pieces) if part.beacon is not None]
    return not hashed or (hashed == [len(pieces) - 1] and not pieces[-1][1])


def after_common(
    low: Sequence[tuple[Part, str]], high: Sequence[tuple[Part, str]]
) -> tuple[Sequence[tuple[Part, str]], Sequence[tuple[Part, str]]]:
    """What is left of two values after the leading pieces that they share; BETWEEN is judged by it."""
    common = 0
    while common < min(len(low), len(high)) and low[common] == high[common]:
        common += 1
    return low[common:], high[common:]


def _is_run(parts: Sequence[Part], constructor: Sequence[tuple[Part, bool]]) -> bool:
    """Whether the parts stand in the constructor in this order: leading and optional ones may be left out."""
    wanted = 0
    for part, is_required in constructor:
        if wanted == len(parts):
            return True
        if part == parts[wanted]:
            wanted += 1
        elif is_required and wanted:
            return False
    return wanted == len(parts)


def _check_part(name: str, prefix: str) -> None:
    if not isinstance(name, str) or not name or not isinstance(prefix, str) or not prefix:
        raise ConfigurationError("a part of a compound beacon has a name and a prefix, both non-empty text")
