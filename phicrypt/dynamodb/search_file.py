"""``[search]`` of a table configuration's file: what the table is searched by.

::

    [search]
    complete_since = 2026-05-01

    [[search.standard]]
    name = "mrn"
    bits = 15

    [[search.virtual]]
    name = "email_lower"
    parts = [{ location = "email", transforms = [["lower"]] }]

    [[search.standard]]
    name = "email_lower"
    bits = 15

    [[search.compound]]
    name = "at_clinic"
    split = "^"
    signed = [{ name = "clinic", prefix = "C-" }]
    encrypted = [{ name = "last_name", prefix = "L-" }]
    constructors = [["clinic", "last_name", "birth_date?"]]      # a question mark: optional

    [search.beacon_key]
    attribute = "clinic"                                         # or branch_key_id = "…"
"""

from __future__ import annotations

from datetime import date
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from phicrypt.dynamodb.search import (
    BeaconKeyByAttribute,
    CompoundBeacon,
    Constructor,
    EncryptedPart,
    Insert,
    Lower,
    OptionalPart,
    Prefix,
    SearchConfig,
    Segment,
    Segments,
    SignedPart,
    SingleBeaconKey,
    StandardBeacon,
    Substring,
    Suffix,
    Upper,
    VirtualField,
    VirtualPart,
)
from phicrypt.errors import ConfigurationError

_TRANSFORMS: Final[dict[str, Any]] = {
    "upper": Upper,
    "lower": Lower,
    "insert": Insert,
    "prefix": Prefix,
    "suffix": Suffix,
    "substring": Substring,
    "segment": Segment,
    "segments": Segments,
}


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StandardSection(_Section):
    """A :class:`~phicrypt.dynamodb.search.StandardBeacon`."""

    name: str
    bits: int
    location: str = ""
    style: str | None = None
    shared_with: str | None = None
    partitions: int | None = None


class PartSection(_Section):
    """A part of a compound beacon; ``location`` is for signed ones."""

    name: str
    prefix: str
    location: str = ""


class CompoundSection(_Section):
    """A :class:`~phicrypt.dynamodb.search.CompoundBeacon`."""

    name: str
    split: str
    signed: tuple[PartSection, ...] = ()
    encrypted: tuple[PartSection, ...] = ()
    constructors: tuple[tuple[str, ...], ...] = ()


class VirtualPartSection(_Section):
    """A :class:`~phicrypt.dynamodb.search.VirtualPart`; a transform is its name and its arguments."""

    location: str
    transforms: tuple[tuple[str | int, ...], ...] = ()


class VirtualSection(_Section):
    """A :class:`~phicrypt.dynamodb.search.VirtualField`."""

    name: str
    parts: tuple[VirtualPartSection, ...]


class BeaconKeySection(_Section):
    """Whose beacon key: of one branch key, or of the one that an attribute names."""

    branch_key_id: str | None = None
    attribute: str | None = None
    max_age_seconds: float = 600


class SearchSection(_Section):
    """A :class:`~phicrypt.dynamodb.search.SearchConfig`."""

    standard: tuple[StandardSection, ...] = ()
    compound: tuple[CompoundSection, ...] = ()
    virtual: tuple[VirtualSection, ...] = ()
    signed_parts: tuple[PartSection, ...] = ()
    encrypted_parts: tuple[PartSection, ...] = ()
    beacon_key: BeaconKeySection | None = None
    max_partitions: int = 1
    default_partitions: int | None = None
    complete_since: date | None = None

    def config(self) -> SearchConfig:
        """The same as the library has it. Raises ConfigurationError."""
        return SearchConfig(
            standard=tuple(StandardBeacon(**one.model_dump()) for one in self.standard),
            compound=tuple(map(_compound, self.compound)),
            virtual=tuple(map(_virtual, self.virtual)),
            beacon_key=_beacon_key(self.beacon_key),
            signed_parts=tuple(SignedPart(**one.model_dump()) for one in self.signed_parts),
            encrypted_parts=tuple(EncryptedPart(one.name, one.prefix) for one in self.encrypted_parts),
            max_partitions=self.max_partitions,
            default_partitions=self.default_partitions,
            complete_since=self.complete_since,
        )


def _compound(section: CompoundSection) -> CompoundBeacon:
    return CompoundBeacon(
        section.name,
        section.split,
        tuple(SignedPart(**one.model_dump()) for one in section.signed),
        tuple(EncryptedPart(one.name, one.prefix) for one in section.encrypted),
        tuple(Constructor(*map(_part, names)) for names in section.constructors),
    )


def _part(name: str) -> str | OptionalPart:
    return OptionalPart(name[:-1]) if name.endswith("?") else name


def _virtual(section: VirtualSection) -> VirtualField:
    parts = [VirtualPart(part.location, *map(_transform, part.transforms)) for part in section.parts]
    return VirtualField(section.name, *parts)


def _transform(written: tuple[str | int, ...]) -> Any:
    name, *arguments = written or ("",)
    try:
        return _TRANSFORMS[str(name)](*arguments)
    except (KeyError, TypeError):
        pass
    raise ConfigurationError(
        f"a transform is one of {', '.join(_TRANSFORMS)} with its arguments, such as ['segment', '@', 1]"
    )


def _beacon_key(section: BeaconKeySection | None) -> SingleBeaconKey | BeaconKeyByAttribute | None:
    if section is None:
        return None
    if (section.branch_key_id is None) == (section.attribute is None):
        raise ConfigurationError("[search.beacon_key] has branch_key_id or attribute")
    if section.attribute is not None:
        return BeaconKeyByAttribute(section.attribute, max_age_seconds=section.max_age_seconds)
    return SingleBeaconKey(str(section.branch_key_id), max_age_seconds=section.max_age_seconds)
