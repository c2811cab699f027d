"""A search configuration checked against its table, with every name found: what writes and questions work on.

The rules are those of AWS's configuration (``searchable-encryption/search-config.md``), so that its libraries
take the same one, and a few of our own: a prefix that holds the split character, and a list index that AWS's
libraries misread, are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from phicrypt.dynamodb.search import BeaconKeyByAttribute, SearchConfig
from phicrypt.errors import ConfigurationError
from phicrypt.formats.dbesdk.beacon_values import BeaconStyle, StandardBeacon
from phicrypt.formats.dbesdk.compound_beacons import Compound, CompoundBeacon, Constructor, Part, SignedPart
from phicrypt.formats.dbesdk.locations import Location, parse_location
from phicrypt.formats.dbesdk.virtual_fields import VirtualField

_RESERVED: Final = "aws_dbe_"
_MAX_NAME_LENGTH_BYTES: Final = 255
"""Of an attribute that is an index's key."""


class Table(Protocol):
    """What is asked of a :class:`phicrypt.dynamodb.TableConfig`."""

    @property
    def actions(self) -> Mapping[str, Enum]: ...

    def is_unsigned(self, attribute: str) -> bool: ...


class Standard(NamedTuple):
    """A standard beacon with its value found: at a location, or in a virtual field."""

    beacon: StandardBeacon
    location: Location
    field: VirtualField | None


class SearchPlan(NamedTuple):
    """See the module's head.

    Attributes:
        config: as the caller gave it.
        standard, compounds: by name.
        signed_beacons: the compounds of signed parts alone, which are attributes of their own.
        stored_names: the attributes ``aws_dbe_b_*`` that an item may have.
        hashed_names: the names that keys are made of.
        text_attributes: attributes whose numbers stand in texts.
    """

    config: SearchConfig
    standard: Mapping[str, Standard]
    compounds: Mapping[str, Compound]
    signed_beacons: tuple[Compound, ...]
    stored_names: frozenset[str]
    hashed_names: tuple[str, ...]
    text_attributes: frozenset[str]

    def is_hashed(self, name: str) -> bool:
        """Whether expressions call a beacon by this name of which the table holds a hash."""
        return name in self.standard or (name in self.compounds and not self.compounds[name].is_signed)


def plan_of(search: SearchConfig, table: Table) -> SearchPlan:
    """The plan of a table's search. Raises ConfigurationError, naming the beacon."""
    fields = _fields(search, table)
    standard: dict[str, Standard] = {}
    for beacon in search.standard:
        _check_name(beacon.name, table, f"the beacon {beacon.name!r}", known=standard)
        standard[beacon.name] = _standard(beacon, fields, table, standard)
    for one in standard.values():
        _check_shared(one.beacon, standard)
    compounds: dict[str, Compound] = {}
    for compound in search.compound:
        compounds[compound.name] = _compound(compound, search, standard, fields, table, compounds)
    _check_parts_only(standard, compounds)
    _check_key_attribute(search, table, standard, fields, compounds)
    signed = tuple(compound for compound in compounds.values() if compound.is_signed)
    hashed = [c for c in compounds.values() if not c.is_signed]
    return SearchPlan(
        search,
        standard,
        compounds,
        signed,
        frozenset(
            [
                *(o.beacon.attribute for o in standard.values() if o.beacon.is_stored),
                *(c.attribute for c in hashed),
            ]
        ),
        tuple(dict.fromkeys(one.beacon.hashed_as for one in standard.values())),
        frozenset(_text_attributes(fields.values(), compounds.values())),
    )


def _fields(search: SearchConfig, table: Table) -> dict[str, VirtualField]:
    fields: dict[str, VirtualField] = {}
    places: dict[frozenset[Location], str] = {}
    for field in search.virtual:
        what = f"the virtual field {field.name!r}"
        _check_name(field.name, table, what, known=fields, is_new=True)
        locations = [parse_location(part.location) for part in field.parts]
        for location in locations:
            if not _is_signed(location, table):
                raise ConfigurationError(f"{what} is made of {location[0]!r}, which is not a signed attribute")
        if (other := places.setdefault(frozenset(locations), field.name)) != field.name:
            raise ConfigurationError(f"{what} is made of the same locations as {other!r}")
        fields[field.name] = field
    return fields


def _standard(
    beacon: StandardBeacon, fields: Mapping[str, VirtualField], table: Table, known: Mapping[str, Standard]
) -> Standard:
    what = f"the beacon {beacon.name!r}"
    location = parse_location(beacon.location)
    field = fields.get(str(location[0])) if len(location) == 1 else None
    sources = [location] if field is None else [parse_location(part.location) for part in field.parts]
    if not any(_is_encrypted(source, table) for source in sources):
        raise ConfigurationError(
            f"{what} is made of {beacon.location!r}, where nothing is encrypted: readable attributes are searched "
            "as they are"
        )
    if beacon.is_set and field is not None:
        raise ConfigurationError(f"{what} is one of a set, and the virtual field {field.name!r} is a text")
    for other in known.values():
        if other.location == location:
            raise ConfigurationError(f"{what} has the location of the beacon {other.beacon.name!r}")
    for one in fields.values():
        if field is None and [parse_location(part.location) for part in one.parts] == [location]:
            raise ConfigurationError(f"{what} has the location of the virtual field {one.name!r}, its only part")
    return Standard(beacon, location, field)


def _check_shared(beacon: StandardBeacon, standard: Mapping[str, Standard]) -> None:
    if beacon.shared_with is None:
        return
    other = standard.get(beacon.shared_with)
    if other is None or other.beacon.shared_with is not None or other.beacon.bits != beacon.bits:
        raise ConfigurationError(
            f"the beacon {beacon.name!r} is shared with {beacon.shared_with!r}, which must be a standard beacon "
            "of as many bits that is shared with none itself"
        )


def _compound(
    compound: CompoundBeacon,
    search: SearchConfig,
    standard: Mapping[str, Standard],
    fields: Mapping[str, VirtualField],
    table: Table,
    known: Mapping[str, Compound],
) -> Compound:
    what = f"the compound beacon {compound.name!r}"
    if compound.name in standard:
        raise ConfigurationError(f"{what} has the name of a standard beacon")
    signed = [_signed_part(part, what, table) for part in compound.signed]
    encrypted = [_encrypted_part(part.name, part.prefix, what, standard) for part in compound.encrypted]
    own = [*signed, *encrypted]
    named = {name for constructor in compound.constructors for name, _ in constructor.parts}
    own_names = {part.name for part in own}
    signed += [_signed_part(part, what, table) for part in search.signed_parts if part.name in named - own_names]
    encrypted += [
        _encrypted_part(part.name, part.prefix, what, standard)
        for part in search.encrypted_parts
        if part.name in named - own_names
    ]
    parts = (*signed, *encrypted)
    _check_parts(compound, parts, [*search.signed_parts, *search.encrypted_parts], own_names, what)
    if not parts:
        raise ConfigurationError(f"{what} has no parts")
    constructors = tuple(_constructor(one, parts, what) for one in compound.constructors)
    if not constructors:
        constructors = (tuple((part, True) for part in own),)
    required = [frozenset(part.name for part, is_required in one if is_required) for one in constructors]
    if len(set(required)) < len(required):
        raise ConfigurationError(f"{what} has two constructors with the same required parts")
    found = Compound(compound.name, compound.split, parts, constructors)
    _check_name(compound.name, table, what, known=known, is_new=found.is_signed, is_attribute=found.is_signed)
    return found


def _signed_part(part: SignedPart, what: str, table: Table) -> Part:
    location = parse_location(part.location)
    action = table.actions.get(str(location[0]))
    if action is None or not action.value.startswith("SIGN_"):
        raise ConfigurationError(
            f"{what}: the signed part {part.name!r} is made of {location[0]!r}, which is not readable and signed"
        )
    return Part(part.name, part.prefix, location, None, None)


def _encrypted_part(name: str, prefix: str, what: str, standard: Mapping[str, Standard]) -> Part:
    one = standard.get(name)
    if one is None:
        raise ConfigurationError(f"{what}: there is no standard beacon {name!r} for its encrypted part")
    if one.beacon.is_set:
        raise ConfigurationError(f"{what}: the beacon {name!r} is one of a set, and cannot be a part")
    return Part(name, prefix, one.location, one.field, one.beacon)


def _check_parts(
    compound: CompoundBeacon, parts: Iterable[Part], shared: Iterable[Any], own_names: set[str], what: str
) -> None:
    parts = tuple(parts)
    for part in shared:
        if part.name in own_names:
            raise ConfigurationError(f"{what}: its part {part.name!r} is among SearchConfig's own parts too")
    if len({part.name for part in parts}) < len(parts):
        raise ConfigurationError(f"{what} names a part twice")
    for part in parts:
        if compound.split in part.prefix:
            raise ConfigurationError(
                f"{what}: the prefix of {part.name!r} holds the character that splits parts, so none could be read"
            )
        for other in parts:
            if part is not other and other.prefix.startswith(part.prefix):
                raise ConfigurationError(f"{what}: the prefix of {part.name!r} begins that of {other.name!r}")


def _constructor(constructor: Constructor, parts: Iterable[Part], what: str) -> tuple[tuple[Part, bool], ...]:
    by_name = {part.name: part for part in parts}
    missing = [name for name, _ in constructor.parts if name not in by_name]
    if missing:
        raise ConfigurationError(f"{what}: a constructor names {missing[0]!r}, which is not a part")
    return tuple((by_name[name], is_required) for name, is_required in constructor.parts)


def _check_parts_only(standard: Mapping[str, Standard], compounds: Mapping[str, Compound]) -> None:
    used = {part.name for compound in compounds.values() for part in compound.parts}
    for one in standard.values():
        if one.beacon.style is BeaconStyle.PART_ONLY and one.beacon.name not in used:
            raise ConfigurationError(f"the beacon {one.beacon.name!r} is partOnly, and no compound beacon has it")


def _check_key_attribute(
    search: SearchConfig,
    table: Table,
    *named: Mapping[str, object],
) -> None:
    source = search.beacon_key
    if not isinstance(source, BeaconKeyByAttribute):
        return
    if any(source.attribute in names for names in named):
        raise ConfigurationError(f"BeaconKeyByAttribute: {source.attribute!r} is a beacon or a virtual field")
    if not _is_signed((source.attribute,), table) or _is_encrypted((source.attribute,), table):
        raise ConfigurationError(
            f"BeaconKeyByAttribute: {source.attribute!r} names the tenant: it must be a readable, signed attribute"
        )


def _check_name(
    name: str,
    table: Table,
    what: str,
    *,
    known: Mapping[str, object],
    is_new: bool = False,
    is_attribute: bool = False,
) -> None:
    if name in known:
        raise ConfigurationError(f"{what} stands twice")
    if name.startswith(_RESERVED) or table.is_unsigned(name):
        raise ConfigurationError(f"{what} has the name of an unsigned attribute, or one of the format's own")
    if len(name.encode()) + (0 if is_attribute else len("aws_dbe_b_")) > _MAX_NAME_LENGTH_BYTES:
        raise ConfigurationError(f"{what} has too long a name for an index")
    if name in table.actions and (is_new or not _is_encrypted((name,), table)):
        raise ConfigurationError(f"{what} has the name of an attribute that is there already")


def _is_encrypted(location: Location, table: Table) -> bool:
    action = table.actions.get(str(location[0]))
    return action is not None and action.value == "ENCRYPT_AND_SIGN"


def _is_signed(location: Location, table: Table) -> bool:
    action = table.actions.get(str(location[0]))
    return action is not None and action.value != "DO_NOTHING"


def _text_attributes(fields: Iterable[VirtualField], compounds: Iterable[Compound]) -> Iterable[str]:
    for field in fields:
        for source in field.parts:
            yield str(parse_location(source.location)[0])
    for compound in compounds:
        for part in compound.parts:
            if part.field is None:
                yield str(part.location[0])
