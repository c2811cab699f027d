"""DynamoDB items in the format of AWS's Database Encryption SDK.

Each name is loaded when it is first used: neither boto3 nor pydantic is imported before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicrypt._lazy import lazy_names

if TYPE_CHECKING:
    from phicrypt.dynamodb.client import DynamoDb
    from phicrypt.dynamodb.config import Action, KmsContextWarning, PhiKeyNameWarning, PlaintextPolicy, TableConfig
    from phicrypt.dynamodb.model_search import Beacon
    from phicrypt.dynamodb.models import Encrypted, PartitionKey, PhiModel, Searchable, Signed, SortKey, Unsigned
    from phicrypt.dynamodb.search import (
        BeaconKeyByAttribute,
        CompoundBeacon,
        Constructor,
        EncryptedPart,
        OptionalPart,
        SearchConfig,
        SignedPart,
        SingleBeaconKey,
        StandardBeacon,
        VirtualField,
        VirtualPart,
    )
    from phicrypt.dynamodb.typed_lookups import IncompleteSearchWarning
    from phicrypt.dynamodb.typed_table import TypedTable
    from phicrypt.formats.dbesdk.item_context import attributes_of_context

_HOMES = {
    "Action": "phicrypt.dynamodb.config",
    "Beacon": "phicrypt.dynamodb.model_search",
    "BeaconKeyByAttribute": "phicrypt.dynamodb.search",
    "CompoundBeacon": "phicrypt.dynamodb.search",
    "Constructor": "phicrypt.dynamodb.search",
    "DynamoDb": "phicrypt.dynamodb.client",
    "Encrypted": "phicrypt.dynamodb.models",
    "EncryptedPart": "phicrypt.dynamodb.search",
    "IncompleteSearchWarning": "phicrypt.dynamodb.typed_lookups",
    "KmsContextWarning": "phicrypt.dynamodb.config",
    "OptionalPart": "phicrypt.dynamodb.search",
    "PartitionKey": "phicrypt.dynamodb.models",
    "PhiKeyNameWarning": "phicrypt.dynamodb.config",
    "PhiModel": "phicrypt.dynamodb.models",
    "PlaintextPolicy": "phicrypt.dynamodb.config",
    "SearchConfig": "phicrypt.dynamodb.search",
    "Searchable": "phicrypt.dynamodb.models",
    "Signed": "phicrypt.dynamodb.models",
    "SignedPart": "phicrypt.dynamodb.search",
    "SingleBeaconKey": "phicrypt.dynamodb.search",
    "SortKey": "phicrypt.dynamodb.models",
    "StandardBeacon": "phicrypt.dynamodb.search",
    "TableConfig": "phicrypt.dynamodb.config",
    "TypedTable": "phicrypt.dynamodb.typed_table",
    "Unsigned": "phicrypt.dynamodb.models",
    "VirtualField": "phicrypt.dynamodb.search",
    "VirtualPart": "phicrypt.dynamodb.search",
    "attributes_of_context": "phicrypt.formats.dbesdk.item_context",
}

__all__ = [
    "Action",
    "Beacon",
    "BeaconKeyByAttribute",
    "CompoundBeacon",
    "Constructor",
    "DynamoDb",
    "Encrypted",
    "EncryptedPart",
    "IncompleteSearchWarning",
    "KmsContextWarning",
    "OptionalPart",
    "PartitionKey",
    "PhiKeyNameWarning",
    "PhiModel",
    "PlaintextPolicy",
    "SearchConfig",
    "Searchable",
    "Signed",
    "SignedPart",
    "SingleBeaconKey",
    "SortKey",
    "StandardBeacon",
    "TableConfig",
    "TypedTable",
    "Unsigned",
    "VirtualField",
    "VirtualPart",
    "attributes_of_context",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
