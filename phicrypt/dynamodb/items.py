"""One item: from plaintext attributes to encrypted ones and back.

The order of work on a read: shape, plaintext or not, header, configuration (rule 7), context, data
key, commitment, recipient tag, signature, and only then the attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from phicrypt.audit.events import NOT_RELEASED
from phicrypt.audit.trail import NO_TRAIL
from phicrypt.dynamodb import shapes
from phicrypt.dynamodb.beacon_keys import written_beacons
from phicrypt.dynamodb.config import Action, TableConfig
from phicrypt.dynamodb.item_beacons import signed_beacons_of
from phicrypt.dynamodb.item_layouts import (
    CACHED_LAYOUTS,
    ReadPlan,
    plan_to_read,
    plan_to_write,
    refuse_reserved,
    unknown_beacons,
)
from phicrypt.dynamodb.shapes import Item, ItemShape, binary, from_json, shape_of, to_low_level, to_python
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    FormatError,
    LimitExceededError,
    NotEncryptedError,
    PhiCryptError,
    UnsupportedOperationError,
)
from phicrypt.formats.dbesdk.attributes import deserialize_attributes, serialize, serialize_attributes
from phicrypt.formats.dbesdk.header import FOOTER_ATTRIBUTE, HEADER_ATTRIBUTE, parse_header
from phicrypt.formats.dbesdk.item_context import PARTITION_NAME, SORT_NAME, TABLE_NAME, item_context
from phicrypt.formats.dbesdk.layout import Layout
from phicrypt.formats.dbesdk.record import SealedRecord, Terminal, encrypted_value, open_record, seal_record

if TYPE_CHECKING:
    from phicrypt.audit.resource_tokens import Resource
    from phicrypt.audit.uses import Use
    from phicrypt.core.materials import EncryptedDataKey
    from phicrypt.guard.phi_guard import PhiGuard
    from phicrypt.session import Session

_LEGACY_ATTRIBUTES: Final = frozenset(("*amzn-ddb-map-desc*", "*amzn-ddb-map-sig*"))
Judge = Callable[[Mapping[str, Any]], bool]
"""Whether a verified item, low-level shape, is what was asked for."""
_FORMAT: Final = "dbesdk"
_PLAINTEXT_FORMAT: Final = "plaintext"
LEGACY_FORMAT: Final = "dynamodb-encryption-client"
"""Marks items that a plaintext policy let through (rule 19)."""
_OF_STORED_ITEMS: Final = frozenset(("dynamodb.migrate_table", "dynamodb.update_encrypted"))
"""Operations on items that are there already, under their keys."""


@dataclass(slots=True)  # not frozen: that takes 0.4 µs for each item
class SealedItem:
    """What :func:`seal_item` made.

    Attributes:
        item: the item to store.
        is_encrypted: False only where the table's policy forces plaintext writes.
        footer: the bytes of ``aws_dbe_foot``, which identify this version of the item; None if plaintext.
    """

    item: Item = field(repr=False)
    is_encrypted: bool
    footer: bytes | None


@dataclass(slots=True)  # not frozen: that takes 0.4 µs for each item
class OpenedItem:
    """What :func:`open_item` verified and decrypted.

    Attributes:
        item: the plaintext item, without ``aws_dbe_*``.
        is_encrypted: False for a plaintext item that the table's policy allowed (rule 19).
        footer: the bytes of ``aws_dbe_foot`` as stored; None if plaintext.
        has_unknown_beacons: the stored item carries ``aws_dbe_b_*`` attributes that the configuration does not
            know, so it must not be rewritten (rule 38).
        actions: what the item's header says was done with each signed attribute; empty if plaintext.
        is_released: False for an item that a lookup found by its hash alone (rule 37).
    """

    item: Item = field(repr=False)
    is_encrypted: bool
    footer: bytes | None
    has_unknown_beacons: bool
    actions: Mapping[str, Action]
    is_released: bool = True


def seal_item(
    phi_session: Session,
    item: Mapping[str, Any],
    table: TableConfig,
    *,
    shape: ItemShape | None = None,
    operation: str = "dynamodb.encrypt_item",
) -> SealedItem:
    """See :meth:`phicrypt.dynamodb.client.DynamoDb.encrypt_item`; ``operation`` is for the audit event."""
    shape = shape or shape_of(item, table.partition_key)
    if shape == "json":
        raise ConfigurationError("items are encrypted in the low-level or the Python shape")
    is_python = shape == "python"
    low_level = to_low_level(item) if is_python else item
    if phi_session.guard is not None and operation not in _OF_STORED_ITEMS:
        _check_key_texts(phi_session.guard, low_level, table)
    if table.writes_plaintext():
        refuse_reserved(item)
        with recorded_use(phi_session, operation, low_level, table, _PLAINTEXT_FORMAT, sealing=True, at_once=True):
            return SealedItem(dict(item), is_encrypted=False, footer=None)
    found: dict[str, dict[str, Any]] = {}
    if table.search_plan is not None and table.search_plan.signed_beacons:
        found = signed_beacons_of(table.search_plan, low_level)
        low_level = {**low_level, **found}
    with recorded_use(phi_session, operation, low_level, table, sealing=True, at_once=True) as use:
        record, data_keys = _seal(phi_session, low_level, table, use)
        if table.search_plan is not None:
            found |= written_beacons(phi_session, low_level, table, table.search_plan, data_keys, use)
    written = record.encrypted
    written[HEADER_ATTRIBUTE], written[FOOTER_ATTRIBUTE] = record.header_bytes, record.footer_bytes
    sealed = dict(item)
    for name, value in written.items():
        sealed[name] = {"B": value}
    if is_python:
        sealed.update((name, binary(value)) for name, value in written.items())
    for name, beacon in found.items():
        sealed[name] = to_python(beacon) if is_python else beacon
    return SealedItem(sealed, is_encrypted=True, footer=record.footer_bytes)


def open_item(
    phi_session: Session,
    item: Mapping[str, Any],
    table: TableConfig,
    *,
    shape: ItemShape | None = None,
    operation: str = "dynamodb.decrypt_item",
    is_wanted: Judge | None = None,
) -> OpenedItem:
    """See :meth:`phicrypt.dynamodb.client.DynamoDb.decrypt_item`; ``operation`` is for the audit events.

    ``is_wanted`` judges the verified item: one that only its hash brought here is not released, and its event
    says so (rule 37).
    """
    shape = shape or shape_of(item, table.partition_key)
    item = from_json(item) if shape == "json" else item
    is_python = shape == "python"
    low_level = to_low_level(item) if is_python else item
    if HEADER_ATTRIBUTE not in item and FOOTER_ATTRIBUTE not in item:
        refusal = _plaintext_refusal(item, table)
        with recorded_use(phi_session, operation, low_level, table, _PLAINTEXT_FORMAT, at_once=True):
            if refusal is not None:
                raise refusal
        is_released = is_wanted is None or is_wanted(item)
        return OpenedItem(dict(item), False, None, unknown_beacons(table, item), MappingProxyType({}), is_released)
    is_released = True
    with recorded_use(phi_session, operation, low_level, table) as use:
        plan, opened = _open(phi_session, low_level, table, use)
        if is_wanted is not None:
            is_released = is_wanted({**low_level, **opened})
            if not is_released:
                use.detail = NOT_RELEASED
    plaintext = dict(item)
    for name in plan.reserved:
        del plaintext[name]
    for name, attribute in opened.items():
        plaintext[name] = to_python(attribute) if is_python else attribute
    return OpenedItem(
        plaintext, True, low_level[FOOTER_ATTRIBUTE]["B"], plan.has_unknown_beacons, plan.actions, is_released
    )


def is_legacy(item: Mapping[str, Any]) -> bool:
    """Whether the item was written by a DynamoDB Encryption Client of the former generation."""
    return not _LEGACY_ATTRIBUTES.isdisjoint(item)


def _seal(
    phi_session: Session, item: Mapping[str, Any], table: TableConfig, use: Use
) -> tuple[SealedRecord, Sequence[EncryptedDataKey]]:
    suite, version = table.suite, table.version
    use.suite_id = suite.suite_id
    layout = plan_to_write(table, frozenset(item))
    terminals = _terminals_to_write(item, layout)
    context = item_context(
        version,
        terminals,
        table_name=table.logical_table_name,
        partition_key=table.partition_key,
        sort_key=table.sort_key,
        context_attributes=table.context_attributes,
    )
    # Each item has a data key of its own: any change means another one (rules 3 and 4).
    materials, _ = phi_session.provider.encryption_materials(suite, context, plaintext_length_bytes=None)
    if (count := len(materials.encrypted_data_keys)) > (limit := phi_session.limits.max_encrypted_data_keys):
        raise LimitExceededError(
            "more encrypted data keys than phicrypt's own reader accepts",
            limit=limit,
            actual=count,
            setting="ReadLimits.max_encrypted_data_keys",
        )
    stored = {name: value for name, value in materials.context.items() if name not in context}
    signed = list(terminals.values())
    record = seal_record(materials, layout, signed, version=version, stored_context=stored)
    if phi_session.trail is not NO_TRAIL:  # gathering this takes 1 µs for twenty attributes
        use.message_id, use.origin, use.cache_hit = record.message_id.hex(), materials.origin, False
        use.byte_count = sum(len(body) for _, body in terminals.values())
    return record, materials.encrypted_data_keys


def _open(
    phi_session: Session, item: Mapping[str, Any], table: TableConfig, use: Use
) -> tuple[ReadPlan, dict[str, dict[str, Any]]]:
    """How a low-level item is read, and its decrypted attributes, after every signature was verified."""
    if HEADER_ATTRIBUTE not in item or FOOTER_ATTRIBUTE not in item:
        raise AuthenticationError("header or footer missing")
    header = parse_header(shapes.stored_binary(item, HEADER_ATTRIBUTE), phi_session.limits)
    use.suite_id, use.message_id = header.suite.suite_id, header.message_id.hex()
    footer_bytes = shapes.stored_binary(item, FOOTER_ATTRIBUTE)
    if table.require_signed and not header.suite.is_signed:
        raise UnsupportedOperationError(
            f"table {table.table_name!r} requires signed items; this one is {header.suite.name}"
        )
    plan = plan_to_read(table, frozenset(item), header.legend)
    if (header.version == 2) != bool(plan.context_attributes):
        raise FormatError("it does not fit the legend", field="format version", offset=0)
    stored, terminals = _stored_values(item, plan.layout)
    context = item_context(
        header.version,
        terminals,
        table_name=table.logical_table_name,
        partition_key=table.partition_key,
        sort_key=table.sort_key,
        context_attributes=plan.context_attributes,
    )
    if not context.keys().isdisjoint(header.stored_context):
        raise FormatError("it repeats a pair that is computed from the item", field="encryption context")
    materials, hit = phi_session.provider.decryption_materials(
        header.suite, {**header.stored_context, **context}, header.encrypted_data_keys, expected=context
    )
    use.origin, use.cache_hit = materials.origin, hit
    opened = open_record(materials, header, footer_bytes, plan.layout, stored)
    if phi_session.trail is not NO_TRAIL:
        use.byte_count = sum(len(body) for _, body in opened.values())
    return plan, deserialize_attributes(opened)


def recorded_use(
    phi_session: Session,
    operation: str,
    item: Mapping[str, Any],
    table: TableConfig,
    format: str = _FORMAT,  # noqa: A002
    *,
    sealing: bool = False,
    at_once: bool = False,
) -> Use:
    """The use of one low-level item, on record: never with a value, not even of a key attribute.

    The event's context names the table and its key attributes; which item it was stands in the resource
    token, an HMAC that only the holder of the token key can confirm (rule 23).
    """
    if phi_session.trail is NO_TRAIL:  # gathering what it would leave unused takes 1 µs for each item
        return NO_TRAIL.recorded(operation)
    return phi_session.recorded(
        operation,
        format=format,
        context=_recorded_context(table),
        # Serializing key attributes takes 4 to 7 µs, for nothing where no tokens are kept.
        resource=None if phi_session.trail.resource_tokens is None else _resource(item, table),
        sealing=sealing,
        at_once=at_once,
    )


@lru_cache(CACHED_LAYOUTS)
def _recorded_context(table: TableConfig) -> Mapping[str, str]:
    names = zip((PARTITION_NAME, SORT_NAME), table.key_names, strict=False)
    return MappingProxyType({TABLE_NAME: table.logical_table_name, **dict(names)})


def _resource(item: Mapping[str, Any], table: TableConfig) -> Resource | None:
    try:
        return ("dynamodb", table.logical_table_name, *(b"".join(serialize(item[n])) for n in table.key_names))
    except (KeyError, PhiCryptError):
        return None


def _check_key_texts(guard: PhiGuard, item: Mapping[str, Any], table: TableConfig) -> None:
    """Guard the primary key's text and numbers: DynamoDB, its indexes, streams and logs show them in clear."""
    texts = {}
    for name in (table.partition_key, table.sort_key):
        attribute = None if name is None else item.get(name)
        if name is not None and isinstance(attribute, Mapping):
            value = attribute.get("S", attribute.get("N"))
            if isinstance(value, str):
                texts[name] = value
    guard.check_name(texts, where="table key")


def _plaintext_refusal(item: Mapping[str, Any], table: TableConfig) -> NotEncryptedError | None:
    if is_legacy(item):
        return NotEncryptedError(
            "the item is of the legacy DynamoDB Encryption Client: migrate, or use LegacyItems"
        )
    if not table.allows_plaintext_read():
        return NotEncryptedError(
            f"the item of table {table.table_name!r} is plaintext, and the table's policy "
            f"{table.plaintext_policy.value} does not allow that today; migrate the table"
        )
    return None


def _terminals_to_write(item: Mapping[str, Any], layout: Layout) -> dict[str, Terminal]:
    """The signed attributes in the layout's order."""
    try:
        return serialize_attributes(item, layout.names)
    except FormatError as error:
        raise ConfigurationError(f"the item cannot be stored: {error}") from None


def _stored_values(item: Mapping[str, Any], layout: Layout) -> tuple[list[bytes], dict[str, Terminal]]:
    """What is signed, in the layout's order, and the readable attributes by name."""
    readable = serialize_attributes(item, layout.readable_names)
    stored = []
    for name, is_encrypted in zip(layout.names, layout.is_encrypted, strict=True):
        if is_encrypted:
            stored.append(encrypted_value(item[name]))
        else:
            stored.append(b"".join(readable[name]))
    return stored, readable
