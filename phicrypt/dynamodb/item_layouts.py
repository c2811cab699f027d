"""What attribute names decide about an item, whatever its values are: its layout, to write it and to read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from phicrypt.dynamodb.config import RESERVED_ATTRIBUTE_PREFIX, Action, TableConfig, reserved_name_error
from phicrypt.errors import ConfigurationError, FormatError
from phicrypt.formats.dbesdk.beacon_values import BEACON_PREFIX
from phicrypt.formats.dbesdk.header import FOOTER_ATTRIBUTE, HEADER_ATTRIBUTE
from phicrypt.formats.dbesdk.layout import Layout, LegendAction, layout_to_read, layout_to_write

_IGNORED_PREFIXES: Final = (BEACON_PREFIX, "aws_dbe_v_")
_LEGEND_ACTIONS: Final = {
    Action.ENCRYPT_AND_SIGN: LegendAction.ENCRYPT,
    Action.SIGN_ONLY: LegendAction.SIGN,
    Action.SIGN_AND_INCLUDE_IN_CONTEXT: LegendAction.CONTEXT,
}
_ACTIONS: Final = {int(legend): action for action, legend in _LEGEND_ACTIONS.items()}
CACHED_LAYOUTS: Final = 256
_CACHED_NAMES_LENGTH: Final = 8_192


def plan_to_write(table: TableConfig, names: frozenset[str]) -> Layout:
    # The cache holds names only, and none of unusual size: whoever writes the table chooses them.
    cached = _length_of(names) <= _CACHED_NAMES_LENGTH
    return _write_layout(table, names) if cached else _write_layout.__wrapped__(table, names)


@lru_cache(CACHED_LAYOUTS)
def _write_layout(table: TableConfig, names: frozenset[str]) -> Layout:
    refuse_reserved(names)
    for name in (*table.key_names, *table.context_attributes):
        if name not in names:
            raise ConfigurationError(
                f"the item of table {table.table_name!r} lacks the attribute {name!r}; key attributes and those "
                "included in the context are in every item"
            )
    actions = {name: table.action_of(name) for name in sorted(names)}
    return layout_to_write(
        table.logical_table_name,
        {name: _LEGEND_ACTIONS[action] for name, action in actions.items() if action is not Action.DO_NOTHING},
    )


class ReadPlan(NamedTuple):
    """What an item's attribute names and legend decide, whatever its values are.

    Attributes:
        layout: the signed attributes.
        context_attributes: those included in the context.
        actions: what was done with each signed attribute.
        reserved: the attributes that are not part of the plaintext.
        has_unknown_beacons: whether ``aws_dbe_b_*`` that the configuration does not know is among them.
    """

    layout: Layout
    context_attributes: tuple[str, ...]
    actions: Mapping[str, Action]
    reserved: tuple[str, ...]
    has_unknown_beacons: bool


def plan_to_read(table: TableConfig, names: frozenset[str], legend: bytes) -> ReadPlan:
    cached = sum(map(len, names)) <= _CACHED_NAMES_LENGTH
    return _read_plan(table, names, legend) if cached else _read_plan.__wrapped__(table, names, legend)


@lru_cache(CACHED_LAYOUTS)
def _read_plan(table: TableConfig, names: frozenset[str], legend: bytes) -> ReadPlan:
    reserved = tuple(name for name in names if name.startswith(RESERVED_ATTRIBUTE_PREFIX))
    for name in reserved:
        if name not in (HEADER_ATTRIBUTE, FOOTER_ATTRIBUTE) and not name.startswith(_IGNORED_PREFIXES):
            raise FormatError(f"the item has an unknown reserved attribute {name!r}", field="item")
    signed = [name for name in names if name not in reserved and not table.is_unsigned(name)]
    layout = layout_to_read(table.logical_table_name, signed, legend)
    actions = {name: _ACTIONS[byte] for name, byte in zip(layout.names, layout.legend, strict=True)}
    for name in table.key_names:
        if actions.get(name, Action.ENCRYPT_AND_SIGN) is Action.ENCRYPT_AND_SIGN:
            raise FormatError(f"the key attribute {name!r} is missing; read the whole item", field="item")
    return ReadPlan(
        layout,
        layout.names_with(LegendAction.CONTEXT),
        MappingProxyType(actions),
        reserved,
        unknown_beacons(table, names),
    )


def refuse_reserved(names: Iterable[str]) -> None:
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConfigurationError("attribute names are non-empty text")
        if not name.startswith(RESERVED_ATTRIBUTE_PREFIX):
            continue
        if name in (HEADER_ATTRIBUTE, FOOTER_ATTRIBUTE):
            raise ConfigurationError("the item is encrypted already; decrypt it before it is encrypted again")
        raise reserved_name_error(name)


def unknown_beacons(table: TableConfig, names: Iterable[str]) -> bool:
    """Whether there are names of beacons that the configuration does not know (rule 38)."""
    if table.search_plan is None:
        return any(name.startswith(_IGNORED_PREFIXES) for name in names)
    known = table.search_plan.stored_names
    return any(name.startswith(BEACON_PREFIX) and name not in known for name in names)


def _length_of(names: Iterable[str]) -> int:
    """The characters of all names together. Raises ConfigurationError for one that is no text."""
    try:
        return len("".join(names))
    except TypeError:
        pass
    raise ConfigurationError("an attribute of the item has a name that is no text")
