"""One item: from plaintext attributes to encrypted ones and back.

The order of work on a read: shape, plaintext or not, header, configuration (rule 7), context, data
key, commitment, recipient tag, signature, and only then the attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from phicrypt.dynamodb.config import RESERVED_ATTRIBUTE_PREFIX, Action, TableConfig
from phicrypt.dynamodb.shapes import Item, ItemShape, binary, from_json, shape_of, to_low_level, to_python
from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError, NotEncryptedError
from phicrypt.formats.dbesdk.attributes import deserialize, serialize
from phicrypt.formats.dbesdk.header import FOOTER_ATTRIBUTE, HEADER_ATTRIBUTE, parse_header
from phicrypt.formats.dbesdk.item_context import item_context
from phicrypt.formats.dbesdk.layout import Layout, LegendAction, layout_to_read, layout_to_write
from phicrypt.formats.dbesdk.record import Terminal, check_encrypted_value, open_record, seal_record
from phicrypt.formats.reader import ReadLimits

if TYPE_CHECKING:
    from phicrypt.client import PhiCrypt

BEACON_PREFIX: Final = "aws_dbe_b_"
"""Attributes in which AWS's libraries store searchable hashes."""
_IGNORED_PREFIXES: Final = (BEACON_PREFIX, "aws_dbe_v_")
_LEGACY_ATTRIBUTES: Final = frozenset(("*amzn-ddb-map-desc*", "*amzn-ddb-map-sig*"))
_LEGEND_ACTIONS: Final = {
    Action.ENCRYPT_AND_SIGN: LegendAction.ENCRYPT,
    Action.SIGN_ONLY: LegendAction.SIGN,
    Action.SIGN_AND_INCLUDE_IN_CONTEXT: LegendAction.CONTEXT,
}
_ACTIONS: Final = {int(legend): action for action, legend in _LEGEND_ACTIONS.items()}
_ENCRYPT: Final = int(LegendAction.ENCRYPT)
_CACHED_LAYOUTS: Final = 256
_CACHED_NAMES_LENGTH: Final = 8_192
_LIMITS: Final = ReadLimits()


@dataclass(frozen=True, slots=True)
class SealedItem:
    """What :func:`seal_item` made.

    Attributes:
        item: the item to store.
        is_encrypted: False only where the table's policy forces plaintext writes.
        footer: the bytes of ``aws_dbe_foot``, which identify this version of the item; None if plaintext.
    """

    item: Item
    is_encrypted: bool
    footer: bytes | None


@dataclass(frozen=True, slots=True)
class OpenedItem:
    """What :func:`open_item` verified and decrypted.

    Attributes:
        item: the plaintext item, without ``aws_dbe_*``.
        is_encrypted: False for a plaintext item that the table's policy allowed (rule 19).
        footer: the bytes of ``aws_dbe_foot`` as stored; None if plaintext.
        has_beacons: the stored item carries ``aws_dbe_b_*`` attributes, so it must not be rewritten (rule 19).
        actions: what the item's header says was done with each signed attribute; empty if plaintext.
    """

    item: Item
    is_encrypted: bool
    footer: bytes | None
    has_beacons: bool
    actions: Mapping[str, Action]


def seal_item(
    phi: PhiCrypt, item: Mapping[str, Any], table: TableConfig, *, shape: ItemShape | None = None
) -> SealedItem:
    """See :meth:`phicrypt.dynamodb.facade.DynamoDb.encrypt_item`."""
    shape = shape or shape_of(item, table.partition_key)
    if shape == "json":
        raise ConfigurationError("items are encrypted in the low-level or the Python shape")
    _refuse_reserved(item)
    if table.writes_plaintext():
        return SealedItem(dict(item), is_encrypted=False, footer=None)
    is_python = shape == "python"
    encrypted = _seal(phi, to_low_level(item) if is_python else item, table)
    sealed = dict(item)
    for name, value in encrypted.items():
        sealed[name] = binary(value) if is_python else {"B": value}
    return SealedItem(sealed, is_encrypted=True, footer=encrypted[FOOTER_ATTRIBUTE])


def open_item(
    phi: PhiCrypt, item: Mapping[str, Any], table: TableConfig, *, shape: ItemShape | None = None
) -> OpenedItem:
    """See :meth:`phicrypt.dynamodb.facade.DynamoDb.decrypt_item`."""
    shape = shape or shape_of(item, table.partition_key)
    if shape == "json":
        item = from_json(item)
    if is_plaintext(item):
        _check_plaintext_allowed(item, table)
        has_beacons = _has_beacons(item)
        return OpenedItem(dict(item), False, None, has_beacons, MappingProxyType({}))
    low_level = to_low_level(item) if shape == "python" else item
    layout, opened = _open(phi, low_level, table)
    plaintext: Item = {}
    for name, value in item.items():
        terminal = opened.get(name)
        if terminal is not None:
            attribute = _deserialized(name, terminal)
            plaintext[name] = to_python(attribute) if shape == "python" else attribute
        elif not name.startswith(RESERVED_ATTRIBUTE_PREFIX):
            plaintext[name] = value
    actions = {name: _ACTIONS[byte] for name, byte in zip(layout.names, layout.legend, strict=True)}
    return OpenedItem(plaintext, True, low_level[FOOTER_ATTRIBUTE]["B"], _has_beacons(item), actions)


def is_plaintext(item: Mapping[str, Any]) -> bool:
    """Whether header and footer are both absent; AuthenticationError if only one is (rule 19)."""
    absent = HEADER_ATTRIBUTE not in item
    if absent is not (FOOTER_ATTRIBUTE not in item):
        raise AuthenticationError("header or footer missing")
    return absent


def is_legacy(item: Mapping[str, Any]) -> bool:
    """Whether the item was written by a DynamoDB Encryption Client of the former generation."""
    return not _LEGACY_ATTRIBUTES.isdisjoint(item)


def _seal(phi: PhiCrypt, item: Mapping[str, Any], table: TableConfig) -> dict[str, bytes]:
    """The binary values of the encrypted attributes, header and footer of a low-level item."""
    layout = _layout_to_write(table, tuple(item))
    terminals = _terminals_to_write(item, layout)
    context = item_context(
        table.version,
        dict(zip(layout.names, terminals, strict=True)),
        table_name=table.logical_table_name,
        partition_key=table.partition_key,
        sort_key=table.sort_key,
        context_attributes=table.context_attributes,
    )
    length = sum(len(body) for _, body in terminals)
    # Each item has a data key of its own: any change means another one (rules 3 and 4).
    materials, _ = phi.provider.encryption_materials(table.suite, context, plaintext_length_bytes=length)
    record = seal_record(
        materials,
        layout,
        terminals,
        version=table.version,
        stored_context={name: value for name, value in materials.context.items() if name not in context},
    )
    return {
        **record.encrypted,
        HEADER_ATTRIBUTE: record.header_bytes,
        FOOTER_ATTRIBUTE: record.footer_bytes,
    }


def _open(phi: PhiCrypt, item: Mapping[str, Any], table: TableConfig) -> tuple[Layout, dict[str, Terminal]]:
    """The layout and the decrypted attributes of a low-level item whose every signature fits."""
    header = parse_header(_stored_binary(item, HEADER_ATTRIBUTE), _LIMITS)
    footer_bytes = _stored_binary(item, FOOTER_ATTRIBUTE)
    if table.require_signed and not header.suite.is_signed:
        raise AuthenticationError("unsigned suite")
    layout = _layout_to_read(table, tuple(item), header.legend)
    stored, terminals = _stored_values(item, layout)
    context_attributes = layout.names_with(LegendAction.CONTEXT)
    if (header.version == 2) != bool(context_attributes):
        raise FormatError("it does not fit the legend", field="format version", offset=0)
    for name in table.key_names:
        if name not in terminals:
            raise FormatError(f"the key attribute {name!r} is missing; read the whole item", field="item")
    context = item_context(
        header.version,
        terminals,
        table_name=table.logical_table_name,
        partition_key=table.partition_key,
        sort_key=table.sort_key,
        context_attributes=context_attributes,
    )
    if not context.keys().isdisjoint(header.stored_context):
        raise FormatError("it repeats a pair that is computed from the item", field="encryption context")
    materials, _ = phi.provider.decryption_materials(
        header.suite, {**header.stored_context, **context}, header.encrypted_data_keys, expected=context
    )
    return layout, open_record(materials, header, footer_bytes, layout, stored)


def _refuse_reserved(item: Mapping[str, Any]) -> None:
    for name in item:
        if not isinstance(name, str) or not name:
            raise ConfigurationError("attribute names are non-empty text")
        if not name.startswith(RESERVED_ATTRIBUTE_PREFIX):
            continue
        if name in (HEADER_ATTRIBUTE, FOOTER_ATTRIBUTE):
            raise ConfigurationError("the item is encrypted already; decrypt it before it is encrypted again")
        raise ConfigurationError(
            f"the attribute name {name!r} is reserved: names beginning with {RESERVED_ATTRIBUTE_PREFIX!r} "
            "are written by the format itself"
        )


def _check_plaintext_allowed(item: Mapping[str, Any], table: TableConfig) -> None:
    if is_legacy(item):
        raise NotEncryptedError(
            "the item was written by the legacy DynamoDB Encryption Client, whose format is not read here; "
            "decrypt it there and write it again"
        )
    if not table.allows_plaintext_read():
        raise NotEncryptedError(
            f"the item of table {table.table_name!r} is plaintext, and the table's policy "
            f"{table.plaintext_policy.value} does not allow that today; migrate the table"
        )


def _has_beacons(item: Mapping[str, Any]) -> bool:
    return any(name.startswith(BEACON_PREFIX) for name in item)


def _layout_to_write(table: TableConfig, names: tuple[str, ...]) -> Layout:
    # The cache holds names only, and none of unusual size: whoever writes the table chooses them.
    cached = sum(map(len, names)) <= _CACHED_NAMES_LENGTH
    return (_write_layout if cached else _write_layout.__wrapped__)(table, names)


@lru_cache(_CACHED_LAYOUTS)
def _write_layout(table: TableConfig, names: tuple[str, ...]) -> Layout:
    present = frozenset(names)
    for name in (*table.key_names, *table.context_attributes):
        if name not in present:
            raise ConfigurationError(
                f"the item of table {table.table_name!r} lacks the attribute {name!r}; key attributes and those "
                "included in the context are in every item"
            )
    actions = {name: table.action_of(name) for name in names}
    return layout_to_write(
        table.logical_table_name,
        {name: _LEGEND_ACTIONS[action] for name, action in actions.items() if action is not Action.DO_NOTHING},
    )


def _layout_to_read(table: TableConfig, names: tuple[str, ...], legend: bytes) -> Layout:
    cached = sum(map(len, names)) <= _CACHED_NAMES_LENGTH
    return (_read_layout if cached else _read_layout.__wrapped__)(table, names, legend)


@lru_cache(_CACHED_LAYOUTS)
def _read_layout(table: TableConfig, names: tuple[str, ...], legend: bytes) -> Layout:
    signed = []
    for name in names:
        if name in (HEADER_ATTRIBUTE, FOOTER_ATTRIBUTE) or name.startswith(_IGNORED_PREFIXES):
            continue
        if name.startswith(RESERVED_ATTRIBUTE_PREFIX):
            raise FormatError(f"the item has an unknown reserved attribute {name!r}", field="item")
        if not table.is_unsigned(name):
            signed.append(name)
    return layout_to_read(table.logical_table_name, signed, legend)


def _terminals_to_write(item: Mapping[str, Any], layout: Layout) -> list[Terminal]:
    terminals: list[Terminal] = []
    try:
        terminals.extend(serialize(item[name]) for name in layout.names)
    except FormatError as error:
        raise ConfigurationError(
            f"the attribute {layout.names[len(terminals)]!r} cannot be stored: {error}"
        ) from None
    return terminals


def _stored_values(item: Mapping[str, Any], layout: Layout) -> tuple[list[bytes], dict[str, Terminal]]:
    """What is signed, in the layout's order, and the readable attributes by name."""
    stored = []
    readable = {}
    for name, action in zip(layout.names, layout.legend, strict=True):
        if action == _ENCRYPT:
            stored.append(check_encrypted_value(_binary_content(item[name])))
            continue
        try:
            type_id, body = readable[name] = serialize(item[name])
        except FormatError as error:
            raise _named(error, name) from None
        stored.append(type_id + body)
    return stored, readable


def _stored_binary(item: Mapping[str, Any], name: str) -> bytes:
    content = _binary_content(item[name])
    if not isinstance(content, bytes):
        raise FormatError("a binary attribute was expected", field=name)
    return content


def _binary_content(value: Any) -> Any:
    return value.get("B") if isinstance(value, Mapping) and len(value) == 1 else None


def _deserialized(name: str, terminal: Terminal) -> dict[str, Any]:
    try:
        return deserialize(*terminal)
    except FormatError as error:
        raise _named(error, name) from None


def _named(error: FormatError, name: str) -> FormatError:
    return FormatError(str(error), field=f"attribute {name!r}")
