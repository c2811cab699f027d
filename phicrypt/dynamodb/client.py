"""``phi.dynamodb``: items, and clients, resources and typed tables that encrypt what they write.

A client from :meth:`DynamoDb.client` has boto3's methods, parameters and answers. What it cannot encrypt
it refuses before the network; see ``docs/dynamodb-client.md`` for the list.

``PhiCrypt(required_context=…)`` is not used here: AWS's format binds an item to its table and keys by required
pairs of its own (rule 35).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from phicrypt.dynamodb.config import KmsContextWarning, TableConfig
from phicrypt.dynamodb.items import open_item, seal_item
from phicrypt.dynamodb.layer import attach_layer
from phicrypt.dynamodb.shapes import Item, ItemShape, to_low_level, to_python
from phicrypt.dynamodb.table_checks import CheckTables
from phicrypt.dynamodb.tables import TableBook
from phicrypt.dynamodb.updates import update_encrypted
from phicrypt.errors import ConfigurationError

if TYPE_CHECKING:
    from typing import Unpack

    import boto3
    from mypy_boto3_dynamodb.client import DynamoDBClient

    from phicrypt.core.materials import Keyring
    from phicrypt.dynamodb.boto3_types import (
        ClientSettings,
        EncryptingClient,
        EncryptingResource,
        SessionSettings,
        TableSettings,
    )
    from phicrypt.dynamodb.models import PhiModel
    from phicrypt.dynamodb.search import BeaconKeyByAttribute, SearchConfig, SingleBeaconKey
    from phicrypt.dynamodb.typed_table import TypedTable
    from phicrypt.session import Session

    Model = TypeVar("Model", bound=PhiModel)
    BotocoreClient = TypeVar("BotocoreClient")


class DynamoDb:
    """Made by ``PhiCrypt``; holds nothing but its session."""

    __slots__ = ("_phi_session",)

    def __init__(self, phi_session: Session) -> None:
        self._phi_session = phi_session

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
        return seal_item(self._phi_session, item, _table(table), shape=shape).item

    def decrypt_item(self, item: Mapping[str, Any], table: TableConfig, *, shape: ItemShape | None = None) -> Item:
        """The plaintext item of what :meth:`encrypt_item` or AWS's libraries wrote, in the same shape.

        Everything signed is verified before anything is decrypted. Raises NotEncryptedError for a
        plaintext item (unless the table's policy allows it), AuthenticationError for anything
        changed, FormatError for a malformed header, KeyAccessError.
        """
        return open_item(self._phi_session, item, _table(table), shape=shape).item

    def client(
        self,
        tables: Iterable[TableConfig],
        *,
        plaintext_tables: Iterable[str] = (),
        check_tables: CheckTables = "at_first_use",
        session: boto3.Session | None = None,
        **settings: Unpack[ClientSettings],
    ) -> EncryptingClient:
        """A boto3 client whose items of these tables are encrypted: ``phi.dynamodb.client([patients])``.

        Args:
            tables: the encrypted tables.
            plaintext_tables: names of tables whose items pass as they are; every other table is refused.
            check_tables: when each table is compared with its configuration: ``"at_first_use"``,
                ``"at_start"`` (now) or ``"never"``.
            session: makes the client. It is not changed.
            settings: as for ``boto3.Session.client``: ``region_name``, ``endpoint_url``, ``config``, …

        What the keyring was given for KMS serves here too, unless something else is given here: its boto3
        session, the Region of its client, and its application, in the user agent. Its endpoint serves only
        if it is plain http and so on this machine: a local stack has DynamoDB behind the same address, AWS
        has not. ``AWS_ENDPOINT_URL_DYNAMODB`` counts as given here. The credentials inside a client cannot
        be handed on: pass ``session=`` where boto3's own are not meant.

        The client has one more method, ``update_encrypted(TableName=…, Key=…, change=…)``; see
        :func:`phicrypt.dynamodb.updates.update_encrypted`. Raises ConfigurationError.
        """
        book = TableBook(self._announced(tables), plaintext_tables)
        made: Any = self._made("client", session, settings)
        attach_layer(self._phi_session, made, book, check_tables)
        made.update_encrypted = partial(_update_item, made)
        client: EncryptingClient = made
        return client

    def resource(
        self,
        tables: Iterable[TableConfig],
        *,
        plaintext_tables: Iterable[str] = (),
        check_tables: CheckTables = "at_first_use",
        session: boto3.Session | None = None,
        **settings: Unpack[ClientSettings],
    ) -> EncryptingResource:
        """A boto3 resource whose items of these tables are encrypted; arguments as :meth:`client`.

        Its tables have one more method, ``update_encrypted(Key=…, change=…)``, with Python values.
        """
        book = TableBook(self._announced(tables), plaintext_tables)
        made: Any = self._made("resource", session, settings)
        attach_layer(self._phi_session, made.meta.client, book, check_tables)
        make_table = made.Table

        def table_with_update(name: str) -> Any:
            table = make_table(name)
            table.update_encrypted = partial(_update_python_item, table)
            return table

        made.Table = table_with_update
        resource: EncryptingResource = made
        return resource

    def session(
        self,
        tables: Iterable[TableConfig],
        *,
        plaintext_tables: Iterable[str] = (),
        check_tables: CheckTables = "at_first_use",
        **settings: Unpack[SessionSettings],
    ) -> boto3.Session:
        """A boto3 session for libraries that make their own clients: every DynamoDB client of it encrypts.

        ``settings`` are those of ``boto3.Session``: ``region_name``, ``profile_name``, … The clients that
        the keyring uses must come from another session: their key store table is not configured here.
        The other arguments are those of :meth:`client`.
        """
        import boto3
        import botocore.session

        book, phi_session = TableBook(tables, plaintext_tables), self._phi_session

        class EncryptsAtBirth:
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                attach_layer(phi_session, cast("DynamoDBClient", self), book, check_tables)

        def make_class_encrypt(**event: Any) -> None:
            event["base_classes"].insert(0, EncryptsAtBirth)

        core = botocore.session.get_session()
        core.register("creating-client-class.dynamodb", make_class_encrypt, unique_id="phicrypt-session")
        return boto3.Session(botocore_session=core, **settings)

    def attach(
        self,
        client: BotocoreClient,
        tables: Iterable[TableConfig],
        *,
        plaintext_tables: Iterable[str] = (),
        check_tables: CheckTables = "at_first_use",
    ) -> BotocoreClient:
        """Change a DynamoDB client that another library made: from now on it encrypts and decrypts.

        See :func:`attach`. Arguments as :meth:`client`; returns the same client.
        """
        attach(
            self._phi_session,
            client,
            self._announced(tables),
            plaintext_tables=plaintext_tables,
            check_tables=check_tables,
        )
        return client

    def update_encrypted(
        self,
        client: DynamoDBClient,
        table_name: str,
        key_attributes: Mapping[str, Any],
        change: Callable[[Item], Item | None],
    ) -> Item | None:
        """Change signed attributes of one item: :func:`phicrypt.dynamodb.updates.update_encrypted`."""
        return update_encrypted(client, table_name, key_attributes, change)

    def table(
        self,
        model: type[Model],
        *,
        table_name: str | None = None,
        client: DynamoDBClient | None = None,
        search: SingleBeaconKey | BeaconKeyByAttribute | SearchConfig | None = None,
        **settings: Unpack[TableSettings],
    ) -> TypedTable[Model]:
        """The typed table whose schema is a model: ``patients = phi.dynamodb.table(Patient)``.

        Args:
            model: a :class:`~phicrypt.dynamodb.PhiModel`.
            table_name: the physical table, where it is not the model's ``table`` (which stays the
                logical name that items are bound to).
            client: an encrypting client of :meth:`client` that knows this table; one of its own unless given.
            search: where the beacon keys of a model with beacons come from; the client's ``HierarchicalKeyring``
                unless given. A whole ``SearchConfig`` takes the place of the model's.
            settings: for that client, as of :meth:`client`: ``session``, ``region_name``, ``endpoint_url``, …

        Raises ConfigurationError.
        """
        from phicrypt.dynamodb.typed_table import TypedTable, config_of

        config = config_of(model, table_name, search)
        if client is None:
            client = self.client([config], **settings)
        elif settings:
            raise ConfigurationError("settings are for a client that the typed table makes itself")
        return TypedTable(model, config, client, model.search())

    def _made(self, kind: str, session: boto3.Session | None, settings: ClientSettings) -> Any:
        """boto3's client or resource, as :meth:`client` says."""
        import boto3
        from botocore.config import Config

        keyrings = self._phi_session.kms_clients
        if keyrings is not None:
            if session is None:
                session = keyrings.boto3_session
                settings = {"region_name": keyrings.handed_region, **settings}
            if "AWS_ENDPOINT_URL_DYNAMODB" not in os.environ:
                settings = {"endpoint_url": keyrings.local_endpoint_url, **settings}
            if keyrings.application is not None:
                named = Config(user_agent_extra=f"phicrypt-app/{keyrings.application}")
                settings = {**settings, "config": named.merge(settings.get("config") or Config())}
        return getattr(session or boto3.Session(), kind)("dynamodb", **settings)

    def _announced(self, tables: Iterable[TableConfig]) -> tuple[TableConfig, ...]:
        """The tables, after a warning where the keyring shows KMS what identifies each item."""
        tables = tuple(tables)
        if tables and _shows_context_to_kms(self._phi_session.provider.keyring):
            shown = sorted({name for table in tables for name in (*table.key_names, *table.context_attributes)})
            warnings.warn(
                f"the keyring calls KMS for each item and sends it the values of {', '.join(shown)}, which then "
                "stand in CloudTrail; HierarchicalKeyring binds them locally and calls KMS once per branch key",
                KmsContextWarning,
                stacklevel=3,
            )
        return tables


def attach(
    phi_session: Session,
    client: Any,
    tables: Iterable[TableConfig],
    *,
    plaintext_tables: Iterable[str] = (),
    check_tables: CheckTables = "at_first_use",
) -> Any:
    """Change a DynamoDB client that another library made: from now on it encrypts and decrypts.

    This is the one call of phicrypt that changes a client it is handed. Attaching the same session
    and tables again does nothing. A client cannot be detached; make another one.

    Returns the same client. Raises ConfigurationError for anything but a DynamoDB client that botocore
    made (of a resource: ``resource.meta.client``), and for one that is attached with another ``PhiCrypt``
    or other tables. An asynchronous client would answer past the checks (rule 41).
    """
    attach_layer(phi_session, client, TableBook(tables, plaintext_tables), check_tables)
    return client


def _shows_context_to_kms(keyring: Keyring) -> bool:
    from phicrypt.keys.kms.keyring import KmsKeyring
    from phicrypt.keys.multi import MultiKeyring

    if isinstance(keyring, MultiKeyring):
        return any(map(_shows_context_to_kms, keyring.keyrings))
    return isinstance(keyring, KmsKeyring)


def _update_item(
    client: Any,
    *,
    TableName: str,  # noqa: N803
    Key: Mapping[str, Any],  # noqa: N803
    change: Callable[[Item], Item | None],
) -> Item | None:
    return update_encrypted(client, TableName, Key, change)


def _table(table: object) -> TableConfig:
    if not isinstance(table, TableConfig):
        raise ConfigurationError(f"a TableConfig says how an item is sealed, {type(table).__name__} came")
    return table


def _update_python_item(
    table: Any,
    *,
    Key: Mapping[str, Any],  # noqa: N803
    change: Callable[[Item], Item | None],
) -> Item | None:
    """``update_encrypted`` in the Python shape of boto3's resource."""

    def python(item: Item) -> Item:
        return {name: to_python(value) for name, value in item.items()}

    def change_low_level(item: Item) -> Item:
        python_item = python(item)
        changed = change(python_item)
        return to_low_level(python_item if changed is None else changed)

    item = update_encrypted(table.meta.client, table.name, to_low_level(Key), change_low_level)
    return None if item is None else python(item)
