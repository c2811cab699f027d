"""One item: from plaintext attributes to encrypted ones and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from phicrypt.dynamodb.config import TableConfig

if TYPE_CHECKING:
    from phicrypt.client import PhiCrypt

Item = dict[str, Any]
"""Attributes by name."""
ItemShape = Literal["low-level", "python"]
"""``{"S": "text"}`` values as the low-level client has them, or boto3's Python values."""


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
        is_encrypted: False for a plaintext item that the table's policy allowed.
        footer: the bytes of ``aws_dbe_foot`` as stored; None if plaintext.
        has_beacons: the stored item carries ``aws_dbe_b_*`` attributes (rule 19: not to be rewritten).
    """

    item: Item
    is_encrypted: bool
    footer: bytes | None
    has_beacons: bool


def seal_item(
    phi: PhiCrypt, item: Mapping[str, Any], table: TableConfig, *, shape: ItemShape | None = None
) -> SealedItem:
    """See :meth:`phicrypt.dynamodb.facade.DynamoDb.encrypt_item`."""
    raise NotImplementedError


def open_item(
    phi: PhiCrypt, item: Mapping[str, Any], table: TableConfig, *, shape: ItemShape | None = None
) -> OpenedItem:
    """See :meth:`phicrypt.dynamodb.facade.DynamoDb.decrypt_item`."""
    raise NotImplementedError
