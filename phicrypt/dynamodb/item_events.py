"""What the audit trail is told about one item: never a value, not even of a key attribute.

The event's context names the table and its key attributes; which item it was stands in the resource
token, an HMAC that only the holder of the token key can confirm (rule 23).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from phicrypt.dynamodb.config import TableConfig
from phicrypt.errors import PhiCryptError
from phicrypt.formats.dbesdk.attributes import serialize
from phicrypt.formats.dbesdk.item_context import PARTITION_NAME, SORT_NAME, TABLE_NAME

if TYPE_CHECKING:
    from phicrypt.audit.resource_tokens import Resource
    from phicrypt.audit.trail import Acting, AuditTrail, Use
    from phicrypt.core.materials import EncryptionMaterials

FORMAT: Final = "dbesdk"
PLAINTEXT_FORMAT: Final = "plaintext"
"""Marks items that a plaintext policy let through (rule 19)."""


def begin_opening(trail: AuditTrail, operation: str, item: Mapping[str, Any], table: TableConfig) -> Use:
    """The begin record of opening one low-level item; the handle ends it."""
    return trail.recorded(operation, format=FORMAT, context=_context(table), resource=_resource(item, table))


def record_plaintext(
    trail: AuditTrail,
    operation: str,
    item: Mapping[str, Any],
    table: TableConfig,
    *,
    opening: bool,
    error: BaseException | None = None,
) -> None:
    """One item that a plaintext policy let through, or refused with ``error``."""
    trail.record(
        operation,
        format=PLAINTEXT_FORMAT,
        context=_context(table),
        resource=_resource(item, table),
        opening=opening,
        error=error,
    )


class Sealing:
    """One sealing: remembers who acts and when it began, and is recorded once it is over."""

    __slots__ = ("_acting", "_item", "_operation", "_started_ns", "_table", "_trail")

    def __init__(self, trail: AuditTrail, operation: str, item: Mapping[str, Any], table: TableConfig) -> None:
        self._acting: Acting = trail.check_actor()
        self._started_ns = time.perf_counter_ns()
        self._trail, self._operation, self._item, self._table = trail, operation, item, table

    def record(
        self,
        *,
        materials: EncryptionMaterials | None = None,
        message_id: bytes | None = None,
        byte_count: int | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Write the event. Raises AuditError; then the item must not be sent."""
        self._trail.record(
            self._operation,
            format=FORMAT,
            suite_id=self._table.suite.suite_id,
            message_id=message_id,
            context=_context(self._table),
            resource=_resource(self._item, self._table),
            origin=materials.origin if materials is not None else None,
            cache_hit=False if materials is not None else None,
            byte_count=byte_count,
            started_ns=self._started_ns,
            error=error,
            captured=self._acting,
        )


def _context(table: TableConfig) -> dict[str, str]:
    context = {TABLE_NAME: table.logical_table_name, PARTITION_NAME: table.partition_key}
    if table.sort_key is not None:
        context[SORT_NAME] = table.sort_key
    return context


def _resource(item: Mapping[str, Any], table: TableConfig) -> Resource | None:
    parts: list[str | bytes] = ["dynamodb", table.logical_table_name]
    try:
        for name in table.key_names:
            parts.append(b"".join(serialize(item[name])))
    except (KeyError, PhiCryptError):
        return None
    return tuple(parts)
