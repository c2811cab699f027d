"""DynamoDB items in the format of AWS's Database Encryption SDK.

Each name is loaded when it is first used: neither boto3 nor pydantic is imported before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicrypt._lazy import lazy_names

if TYPE_CHECKING:
    from phicrypt.dynamodb.client import DynamoDb
    from phicrypt.dynamodb.config import Action, KmsContextWarning, PhiKeyNameWarning, PlaintextPolicy, TableConfig
    from phicrypt.dynamodb.models import Encrypted, PartitionKey, PhiModel, Signed, SortKey, Unsigned
    from phicrypt.dynamodb.typed_table import TypedTable
    from phicrypt.formats.dbesdk.item_context import attributes_of_context

_HOMES = {
    "Action": "phicrypt.dynamodb.config",
    "DynamoDb": "phicrypt.dynamodb.client",
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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
