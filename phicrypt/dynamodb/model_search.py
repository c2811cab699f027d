"""What a model says of its table's search: ``mrn: Annotated[Encrypted[str], Beacon(bits=15, index="by-mrn")]``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, NamedTuple

from phicrypt.dynamodb.search import (
    BeaconStyle,
    CompoundBeacon,
    Lower,
    SearchConfig,
    StandardBeacon,
    Upper,
    VirtualField,
    VirtualPart,
)
from phicrypt.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Beacon:
    """``Beacon(bits=15, index="by-mrn")``: the field can be asked for by :meth:`~…TypedTable.find`.

    Attributes:
        bits: the beacon's length; see ``docs/search.md``. There is no default: in the class keyword ``beacons`` if
            not here.
        index: a global secondary index whose key is this beacon.
        lower, upper: compare without regard to case (of ASCII letters), by a virtual field ``<field>_lower`` or
            ``<field>_upper``.
        style, shared_with, partitions: as of :class:`~phicrypt.dynamodb.search.StandardBeacon`.
    """

    bits: int | None = None
    index: str | None = None
    lower: bool = False
    upper: bool = False
    style: BeaconStyle | str | None = None
    shared_with: str | None = None
    partitions: int | None = None

    def __post_init__(self) -> None:
        if self.lower and self.upper:
            raise ConfigurationError("a Beacon has lower=True or upper=True, not both")

    def name_for(self, field: str) -> str:
        """What expressions call it."""
        return f"{field}_lower" if self.lower else f"{field}_upper" if self.upper else field


class ModelSearch(NamedTuple):
    """A model's search.

    Attributes:
        config: the beacons.
        by_field: the beacon that answers for a field.
        indexes: the beacon that is the key of each index.
    """

    config: SearchConfig
    by_field: Mapping[str, str]
    indexes: Mapping[str, str]


class Searching(NamedTuple):
    """The class keywords of a model that are about search."""

    beacons: Mapping[str, int] = {}
    compounds: tuple[CompoundBeacon, ...] = ()
    virtual: tuple[VirtualField, ...] = ()
    indexes: Mapping[str, str] = {}
    complete_since: date | None = None


def search_of_model(marks: Iterable[tuple[str, Beacon]], said: Searching, model_name: str) -> ModelSearch | None:
    """The search of a model with these markers and class keywords; None without any. Raises ConfigurationError."""
    standard, virtual, by_field = [], list(said.virtual), {}
    indexes = dict(said.indexes)
    for field, beacon in marks:
        bits = beacon.bits if beacon.bits is not None else said.beacons.get(field)
        if bits is None:
            raise ConfigurationError(
                f"the beacon of the field {field!r} of {model_name} has no length: Beacon(bits=…), or the class "
                "keyword beacons={…}; docs/search.md says how to choose"
            )
        name = beacon.name_for(field)
        if name != field:
            virtual.append(VirtualField(name, VirtualPart(field, Lower() if beacon.lower else Upper())))
        standard.append(
            StandardBeacon(
                name,
                bits,
                style=beacon.style,  # type: ignore[arg-type]
                shared_with=beacon.shared_with,
                partitions=beacon.partitions,
            )
        )
        by_field[field] = name
        if beacon.index is not None:
            indexes[beacon.index] = name
    if not standard:
        if said != Searching():
            raise ConfigurationError(f"{model_name} has search keywords, and no field with a Beacon")
        return None
    config = SearchConfig(standard, said.compounds, virtual, complete_since=said.complete_since)  # type: ignore[arg-type]
    return ModelSearch(config, by_field, indexes)


def with_settings(search: ModelSearch, settings: Any) -> ModelSearch:
    """The same beacons under ``search=`` of a typed table: where the beacon key is, or a whole configuration."""
    if settings is None:
        return search
    if isinstance(settings, SearchConfig):
        return search._replace(config=settings)
    return search._replace(config=replace(search.config, beacon_key=settings))
