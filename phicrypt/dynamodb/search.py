"""What a table can be searched by: ``TableConfig(…, search=SearchConfig(…))``.

A clinic looks people up by encrypted attributes. A *beacon* is a short keyed hash of a value, stored beside
the item; a query compares beacons, and what it finds is decrypted and compared once more. ``docs/search.md``
says how to choose them, and what they show to whoever reads the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

from phicrypt.errors import ConfigurationError
from phicrypt.formats.dbesdk.beacon_values import MAX_PARTITIONS, BeaconStyle, StandardBeacon
from phicrypt.formats.dbesdk.compound_beacons import (
    CompoundBeacon,
    Constructor,
    EncryptedPart,
    OptionalPart,
    SignedPart,
)
from phicrypt.formats.dbesdk.virtual_fields import (
    Insert,
    Lower,
    Prefix,
    Segment,
    Segments,
    Substring,
    Suffix,
    Upper,
    VirtualField,
    VirtualPart,
)

if TYPE_CHECKING:
    from phicrypt.keys.branch_keys.values import BranchKeySource

__all__ = [
    "BeaconKeyByAttribute",
    "BeaconStyle",
    "CompoundBeacon",
    "Constructor",
    "EncryptedPart",
    "Insert",
    "Lower",
    "OptionalPart",
    "Prefix",
    "SearchConfig",
    "Segment",
    "Segments",
    "SignedPart",
    "SingleBeaconKey",
    "StandardBeacon",
    "Substring",
    "Suffix",
    "Upper",
    "VirtualField",
    "VirtualPart",
]

PartitionSelector = Callable[[Mapping[str, Any], int, str], int]
"""``(item, number of partitions, logical table name) -> partition``."""
_MAX_AGE_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class SingleBeaconKey:
    """``SingleBeaconKey("clinic-7")``: every beacon of the table under one branch key's beacon key.

    Attributes:
        branch_key_id: whose beacon key.
        store: where it is; the client's ``HierarchicalKeyring``'s store unless given.
        max_age_seconds: how long an opened beacon key is used.
    """

    branch_key_id: str
    store: BranchKeySource | None = None
    max_age_seconds: float = 600

    def __post_init__(self) -> None:
        if not isinstance(self.branch_key_id, str) or not self.branch_key_id:
            raise ConfigurationError("SingleBeaconKey takes the id of a branch key")
        _check_age(self.max_age_seconds)


@dataclass(frozen=True, slots=True)
class BeaconKeyByAttribute:
    """``BeaconKeyByAttribute("clinic")``: each tenant's beacons under its own beacon key.

    An item is sealed under the branch key of its tenant, and its beacons are made under the beacon key of the
    same. A question says which tenant it asks: by ``clinic = :c``, or by the signed part of a compound beacon.

    Attributes:
        attribute: a signed attribute whose text is the branch key id.
        store, max_age_seconds: as of :class:`SingleBeaconKey`.
    """

    attribute: str
    store: BranchKeySource | None = None
    max_age_seconds: float = 600

    def __post_init__(self) -> None:
        if not isinstance(self.attribute, str) or not self.attribute:
            raise ConfigurationError("BeaconKeyByAttribute takes the name of a signed attribute")
        _check_age(self.max_age_seconds)


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """The beacons of a table: ``SearchConfig(standard=[StandardBeacon("mrn", bits=15)])``.

    Writers of one table have one search configuration: what a writer does not know, its items are not found by.

    Attributes:
        standard: whole values of encrypted attributes and of virtual fields.
        compound: several fields in one text.
        virtual: texts made of other attributes.
        beacon_key: :class:`SingleBeaconKey`, :class:`BeaconKeyByAttribute`, or None for the branch key of the
            client's ``HierarchicalKeyring``, if that has one for all tenants.
        signed_parts, encrypted_parts: parts that constructors of every compound beacon may name.
        max_partitions: into how many parts equal values are spread, 1 to 254: fewer equal beacons to count,
            as many questions for an answer. May grow, never shrink.
        default_partitions: of beacons that say nothing themselves; ``max_partitions`` unless given.
        partition_of: chooses an item's partition; at random unless given.
        complete_since: the day from which every stored item has its beacons, set after ``verify``; without it
            a lookup warns, because items that were written before are not found (rule 38).

    Raises ConfigurationError.
    """

    standard: tuple[StandardBeacon, ...] = ()
    compound: tuple[CompoundBeacon, ...] = ()
    virtual: tuple[VirtualField, ...] = ()
    beacon_key: SingleBeaconKey | BeaconKeyByAttribute | None = None
    signed_parts: tuple[SignedPart, ...] = ()
    encrypted_parts: tuple[EncryptedPart, ...] = ()
    max_partitions: int = 1
    default_partitions: int | None = None
    partition_of: PartitionSelector | None = None
    complete_since: date | None = None

    def __post_init__(self) -> None:
        for member, kind in _MEMBERS.items():
            object.__setattr__(self, member, _all_of(getattr(self, member), kind, member))
        if not self.standard:
            raise ConfigurationError("SearchConfig.standard holds at least one StandardBeacon")
        most = self.max_partitions
        if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= MAX_PARTITIONS:
            raise ConfigurationError(f"SearchConfig.max_partitions is 1 to {MAX_PARTITIONS}")
        default = self.default_partitions
        if default is not None and (not isinstance(default, int) or not 1 <= default < most):
            raise ConfigurationError("SearchConfig.default_partitions is at least 1 and fewer than max_partitions")
        for beacon in self.standard:
            if beacon.partitions is not None and beacon.partitions >= most:
                raise ConfigurationError(
                    f"the beacon {beacon.name!r} has partitions= below SearchConfig.max_partitions, or none"
                )
        if self.complete_since is not None and (
            not isinstance(self.complete_since, date) or isinstance(self.complete_since, datetime)
        ):
            raise ConfigurationError("SearchConfig.complete_since is a date")

    @property
    def partitions(self) -> int:
        """How many partitions a beacon uses that says nothing itself."""
        return self.default_partitions or self.max_partitions


_MEMBERS: Final = {
    "standard": StandardBeacon,
    "compound": CompoundBeacon,
    "virtual": VirtualField,
    "signed_parts": SignedPart,
    "encrypted_parts": EncryptedPart,
}


def _all_of(values: Iterable[object], kind: type, member: str) -> tuple[object, ...]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise ConfigurationError(f"SearchConfig.{member} is a list of {kind.__name__} objects")
    found = tuple(values)
    if not all(isinstance(one, kind) for one in found):
        raise ConfigurationError(f"SearchConfig.{member} is a list of {kind.__name__} objects")
    return found


def _check_age(max_age_seconds: float) -> None:
    if not 1 <= max_age_seconds <= _MAX_AGE_SECONDS:
        raise ConfigurationError(f"a beacon key is used for 1 to {_MAX_AGE_SECONDS:,} seconds (max_age_seconds)")
