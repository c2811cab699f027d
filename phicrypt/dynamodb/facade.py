"""``phi.dynamodb``: items, encrypting clients and typed tables over one PhiCrypt object."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from phicrypt.dynamodb.config import KmsContextWarning, TableConfig
from phicrypt.dynamodb.items import open_item, seal_item
from phicrypt.dynamodb.shapes import Item, ItemShape

if TYPE_CHECKING:
    from phicrypt.client import PhiCrypt
    from phicrypt.core.materials import Keyring
    from phicrypt.dynamodb.models import PhiModel
    from phicrypt.dynamodb.typed_table import TypedTable

    Model = TypeVar("Model", bound=PhiModel)


class DynamoDb:
    """Made by ``PhiCrypt``; holds nothing but the reference to it."""

    __slots__ = ("_phi",)

    def __init__(self, phi: PhiCrypt) -> None:
        self._phi = phi

    def encrypt_item(self, item: Mapping[str, Any], table: TableConfig, *, shape: ItemShape | None = None) -> Item:
        """A new item with the attributes encrypted and signed as ``table`` says; ``item`` is left alone.

        Args:
            item: attributes by name, in either shape: ``{"name": {"S": "…"}}`` as the low-level
                client has them, or Python values as boto3's resource has them.
            table: the table that the item belongs to.
            shape: ``"low-level"`` or ``"python"``; without it the partition key's value decides,
                which is a dict in the low-level shape only.

        Raises ConfigurationError for an attribute without action, a missing key attribute, or an
        item that is encrypted already; LimitExceededError for values nested deeper than 32.
        """
        return seal_item(self._phi, item, table, shape=shape).item

    def decrypt_item(self, item: Mapping[str, Any], table: TableConfig, *, shape: ItemShape | None = None) -> Item:
        """The plaintext item of what :meth:`encrypt_item` or AWS's libraries wrote, in the same shape.

        Everything signed is verified before anything is decrypted. Raises NotEncryptedError for a
        plaintext item (unless the table's policy allows it), AuthenticationError for anything
        changed, FormatError for a malformed header, KeyAccessError.
        """
        return open_item(self._phi, item, table, shape=shape).item

    def client(self, tables: Iterable[TableConfig], **options: Any) -> Any:
        """A boto3 DynamoDB client of phicrypt's own that encrypts and decrypts these tables' items."""
        from phicrypt.dynamodb.client import make_client

        return make_client(self._phi, self._announced(tables), **options)

    def resource(self, tables: Iterable[TableConfig], **options: Any) -> Any:
        """A boto3 DynamoDB resource of phicrypt's own that encrypts and decrypts these tables' items."""
        from phicrypt.dynamodb.client import make_resource

        return make_resource(self._phi, self._announced(tables), **options)

    def session(self, tables: Iterable[TableConfig], **options: Any) -> Any:
        """A ``boto3.Session`` whose DynamoDB clients and resources encrypt, for libraries that take one."""
        from phicrypt.dynamodb.client import make_session

        return make_session(self._phi, tables, **options)

    def attach(self, client: Any, tables: Iterable[TableConfig], **options: Any) -> Any:
        """Change a client that another library made, so that it encrypts and decrypts from now on."""
        from phicrypt.dynamodb.client import attach

        return attach(self._phi, client, self._announced(tables), **options)

    def update_encrypted(
        self,
        client: Any,
        table_name: str,
        key_attributes: Mapping[str, Any],
        change: Callable[[Item], Item | None],
    ) -> Item | None:
        """Change signed attributes of one item: :func:`phicrypt.dynamodb.updates.update_encrypted`."""
        from phicrypt.dynamodb.updates import update_encrypted

        return update_encrypted(client, table_name, key_attributes, change)

    def table(self, model: type[Model], **options: Any) -> TypedTable[Model]:
        """The typed table whose schema is a :class:`~phicrypt.dynamodb.PhiModel`."""
        from phicrypt.dynamodb.typed_table import TypedTable

        return TypedTable(self._phi, model, **options)

    def _announced(self, tables: Iterable[TableConfig]) -> tuple[TableConfig, ...]:
        """The tables, after a warning where the keyring shows KMS what identifies each item."""
        tables = tuple(tables)
        if tables and _shows_context_to_kms(self._phi.provider.keyring):
            shown = sorted({name for table in tables for name in (*table.key_names, *table.context_attributes)})
            warnings.warn(
                f"the keyring calls KMS for each item and sends it the values of {', '.join(shown)}, which then "
                "stand in CloudTrail; HierarchicalKeyring binds them locally and calls KMS once per branch key",
                KmsContextWarning,
                stacklevel=3,
            )
        return tables


def _shows_context_to_kms(keyring: Keyring) -> bool:
    from phicrypt.keys.kms.keyring import KmsKeyring
    from phicrypt.keys.multi import MultiKeyring

    if isinstance(keyring, MultiKeyring):
        return any(map(_shows_context_to_kms, keyring.keyrings))
    return isinstance(keyring, KmsKeyring)
