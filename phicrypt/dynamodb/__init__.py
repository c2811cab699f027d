"""DynamoDB items in the format of AWS's Database Encryption SDK.

Each name is loaded when it is first used: neither boto3 nor pydantic is imported before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phicrypt.dynamodb.config import Action, PhiKeyNameWarning, PlaintextPolicy, TableConfig
    from phicrypt.dynamodb.facade import DynamoDb
    from phicrypt.dynamodb.models import Encrypted, PartitionKey, PhiModel, Signed, SortKey, Unsigned
    from phicrypt.dynamodb.typed_table import TypedTable

_HOMES = {
    "Action": "config",
    "DynamoDb": "facade",
    "Encrypted": "models",
    "PartitionKey": "models",
    "PhiKeyNameWarning": "config",
    "PhiModel": "models",
    "PlaintextPolicy": "config",
    "Signed": "models",
    "SortKey": "models",
    "TableConfig": "config",
    "TypedTable": "typed_table",
    "Unsigned": "models",
}

__all__ = [
    "Action",
    "DynamoDb",
    "Encrypted",
    "PartitionKey",
    "PhiKeyNameWarning",
    "PhiModel",
    "PlaintextPolicy",
    "Signed",
    "SortKey",
    "TableConfig",
    "TypedTable",
    "Unsigned",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'phicrypt.dynamodb' has no attribute {name!r}")
    value = getattr(import_module(f"phicrypt.dynamodb.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
