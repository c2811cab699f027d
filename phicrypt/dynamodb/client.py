"""DynamoDB clients and resources that encrypt what they write and verify what they read.

A client from :func:`make_client` has boto3's methods, parameters and answers. What it cannot encrypt
it refuses before the network; see ``docs/dynamodb-client.md`` for the list.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from phicrypt.dynamodb.config import TableConfig
from phicrypt.dynamodb.layer import Layer
from phicrypt.dynamodb.log_redaction import redact_resource_logs
from phicrypt.dynamodb.shapes import to_low_level, to_python
from phicrypt.dynamodb.table_checks import CheckTables
from phicrypt.dynamodb.tables import TableBook
from phicrypt.dynamodb.updates import update_encrypted
from phicrypt.errors import ConfigurationError

if TYPE_CHECKING:
    import boto3

    from phicrypt.client import PhiCrypt
    from phicrypt.dynamodb.shapes import Item

_layers: WeakKeyDictionary[Any, Layer] = WeakKeyDictionary()
_layers_lock = threading.Lock()


def make_client(
    phi: PhiCrypt,
    tables: Iterable[TableConfig],
    *,
    plaintext_tables: Iterable[str] = (),
    check_tables: CheckTables = "at_first_use",
    session: boto3.Session | None = None,
    **options: Any,
) -> Any:
    """A boto3 DynamoDB client whose items of ``tables`` are encrypted.

    Args:
        phi: seals and opens the items.
        tables: the encrypted tables.
        plaintext_tables: names of tables whose items pass as they are; every other table is refused.
        check_tables: when each table is compared with its configuration: ``"at_first_use"``,
            ``"at_start"`` (now) or ``"never"``.
        session: makes the client; a new ``boto3.Session()`` unless given. It is not changed.
        options: as for ``boto3.Session.client``: ``region_name``, ``endpoint_url``, ``config``, …

    The client has one more method, ``update_encrypted(TableName=…, Key=…, change=…)``; see
    :func:`phicrypt.dynamodb.updates.update_encrypted`.

    Raises ConfigurationError.
    """
    book = TableBook(tables, plaintext_tables)
    client = _session(session).client("dynamodb", **options)
    _attach(phi, client, book, check_tables)
    client.update_encrypted = partial(_update_item, client)
    return client


def make_resource(
    phi: PhiCrypt,
    tables: Iterable[TableConfig],
    *,
    plaintext_tables: Iterable[str] = (),
    check_tables: CheckTables = "at_first_use",
    session: boto3.Session | None = None,
    **options: Any,
) -> Any:
    """A boto3 DynamoDB resource whose items of ``tables`` are encrypted; arguments as :func:`make_client`.

    Its tables have one more method, ``update_encrypted(Key=…, change=…)``, with Python values.
    """
    book = TableBook(tables, plaintext_tables)
    resource = _session(session).resource("dynamodb", **options)
    _attach(phi, resource.meta.client, book, check_tables)
    make_table = resource.Table

    def table_with_update(name: str) -> Any:
        table = make_table(name)
        table.update_encrypted = partial(_update_python_item, table)
        return table

    resource.Table = table_with_update
    return resource


def make_session(
    phi: PhiCrypt,
    tables: Iterable[TableConfig],
    *,
    plaintext_tables: Iterable[str] = (),
    check_tables: CheckTables = "at_first_use",
    **options: Any,
) -> boto3.Session:
    """A boto3 session for libraries that make their own clients: every DynamoDB client of it encrypts.

    ``options`` are those of ``boto3.Session``: ``region_name``, ``profile_name``, … The clients that
    ``phi``'s own keyring uses must come from another session: their key store table is not configured
    here. The other arguments are those of :func:`make_client`.
    """
    import boto3
    import botocore.session

    book = TableBook(tables, plaintext_tables)

    class EncryptingClient:
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            _attach(phi, self, book, check_tables)

    def make_class_encrypt(**event: Any) -> None:
        event["base_classes"].insert(0, EncryptingClient)

    core = botocore.session.get_session()
    core.register("creating-client-class.dynamodb", make_class_encrypt, unique_id="phicrypt-session")
    return boto3.Session(botocore_session=core, **options)


def attach(
    phi: PhiCrypt,
    client: Any,
    tables: Iterable[TableConfig],
    *,
    plaintext_tables: Iterable[str] = (),
    check_tables: CheckTables = "at_first_use",
) -> Any:
    """Change a DynamoDB client that another library made: from now on it encrypts and decrypts.

    This is the one call of phicrypt that changes a client it is handed. Attaching the same ``phi``
    and tables again does nothing. A client cannot be detached; make another one.

    Returns the same client. Raises ConfigurationError for a client of another service, or one that
    is attached with another ``phi`` or other tables.
    """
    service = getattr(getattr(getattr(client, "meta", None), "service_model", None), "service_name", None)
    if service != "dynamodb":
        raise ConfigurationError(
            "attach takes a botocore DynamoDB client (a resource has one: resource.meta.client)"
        )
    _attach(phi, client, TableBook(tables, plaintext_tables), check_tables)
    return client


def layer_of(client: Any) -> Layer:
    """The layer of an encrypting client, resource or resource's table; ConfigurationError without one."""
    meta = getattr(client, "meta", None)
    layer = _layers.get(getattr(meta, "client", client))
    if layer is None:
        raise ConfigurationError(
            "this client does not encrypt: use phi.dynamodb.client(…), phi.dynamodb.resource(…) or "
            "phi.dynamodb.attach(client, …)"
        )
    return layer


def _attach(phi: PhiCrypt, client: Any, book: TableBook, check_tables: CheckTables) -> None:
    with _layers_lock:
        layer = _layers.get(client)
        if layer is None:
            redact_resource_logs()
            layer = Layer(phi, client, book, check_tables)
            layer.register(client)
            _layers[client] = layer
        elif layer.phi is not phi or not layer.book.same_tables(book):
            raise ConfigurationError(
                "the client is attached already, with another PhiCrypt or other tables; make another client"
            )
    if check_tables == "at_start":
        layer.check_all_tables()


def _session(session: boto3.Session | None) -> boto3.Session:
    if session is not None:
        return session
    import boto3

    return boto3.Session()


def _update_item(
    client: Any,
    *,
    TableName: str,  # noqa: N803
    Key: Mapping[str, Any],  # noqa: N803
    change: Callable[[Item], Item | None],
) -> Item | None:
    return update_encrypted(client, TableName, Key, change)


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
