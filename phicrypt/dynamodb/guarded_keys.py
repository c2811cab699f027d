"""The values of primary keys pass the PHI guard: DynamoDB, its indexes, streams and logs show them in clear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phicrypt.dynamodb.config import TableConfig
from phicrypt.guard.phi_guard import PhiGuard


def check_key_texts(guard: PhiGuard, item: Mapping[str, Any], table: TableConfig) -> None:
    """Guard the primary key's text and numbers, which stand in clear. Raises PhiInContextError."""
    texts = {}
    for name in (table.partition_key, table.sort_key):
        attribute = None if name is None else item.get(name)
        if name is not None and isinstance(attribute, Mapping):
            value = attribute.get("S", attribute.get("N"))
            if isinstance(value, str):
                texts[name] = value
    guard.check_name(texts, where="table key")
