"""DynamoDB items in the format of AWS's Database Encryption SDK.

Each name is loaded when it is first used: neither boto3 nor pydantic is imported before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phicrypt.dynamodb.config import Action, KmsContextWarning, PhiKeyNameWarning, PlaintextPolicy, TableConfig
    from phicrypt.dynamodb.facade import DynamoDb
    from phicrypt.dynamodb.models import Encrypted, PartitionKey, PhiModel, Signed, SortKey, Unsigned
    from phicrypt.dynamodb.typed_table import TypedTable
    from phicrypt.formats.dbesdk.item_context import attributes_of_context

_HOMES = {
    "Action": "phicrypt.dynamodb.config",
    "DynamoDb": "phicrypt.dynamodb.facade",
    "Encrypted": "phicrypt.dynamodb.models",
    "KmsContextWarning": "phicrypt.dynamodb.config",
    "PartitionKey": "phicrypt.dynamodb.models",
    "PhiKeyNameWarning": "phicrypt.dynamodb.config",
    "PhiModel": "phicrypt.dynamodb.models",
    "PlaintextPolicy": "phicrypt.dynamodb.config",
    "Signed": "phicrypt.dynamodb.models",
    "SortKey": "phicrypt.dynamodb.models",
    "TableConfig": "phicrypt.dynamodb.config",
    "TypedTable": "phicrypt.dynamodb.typed_table",
    "Unsigned": "phicrypt.dynamodb.models",
    "attributes_of_context": "phicrypt.formats.dbesdk.item_context",
}

__all__ = [
    "Action",
    "DynamoDb",
    "Encrypted",
    "KmsContextWarning",
    "PartitionKey",
    "PhiKeyNameWarning",
    "PhiModel",
    "PlaintextPolicy",
    "Signed",
    "SortKey",
    "TableConfig",
    "TypedTable",
    "Unsigned",
    "attributes_of_context",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'phicrypt.dynamodb' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
