"""CreateTable's parameters for a model: its key, and an index for each beacon that has one."""

from __future__ import annotations

import typing
from decimal import Decimal
from typing import Any, Final

from phicrypt.dynamodb.config import TableConfig
from phicrypt.dynamodb.model_search import ModelSearch
from phicrypt.dynamodb.models import PhiModel
from phicrypt.dynamodb.search_plans import SearchPlan
from phicrypt.errors import ConfigurationError

_NUMBERS: Final = (int, float, Decimal)


def definition_of(
    model: type[PhiModel], table: TableConfig, search: ModelSearch | None, billing_mode: str
) -> dict[str, Any]:
    """See :meth:`phicrypt.dynamodb.typed_table.TypedTable.table_definition`. Raises ConfigurationError."""
    kinds = {name: _kind_of(model, name) for name in table.key_names}
    indexes = []
    for index, beacon in (search.indexes if search is not None else {}).items():
        assert table.search_plan is not None
        attribute = _index_attribute(beacon, table.search_plan, index)
        kinds[attribute] = "S"
        indexes.append(
            {
                "IndexName": index,
                "KeySchema": [{"AttributeName": attribute, "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        )
    definition: dict[str, Any] = {
        "TableName": table.table_name,
        "KeySchema": [
            {"AttributeName": name, "KeyType": kind}
            for name, kind in zip(table.key_names, ("HASH", "RANGE"), strict=False)
        ],
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": kind} for name, kind in kinds.items()],
        "BillingMode": billing_mode,
    }
    return definition | ({"GlobalSecondaryIndexes": indexes} if indexes else {})


def _index_attribute(beacon: str, plan: SearchPlan, index: str) -> str:
    if beacon in plan.standard:
        found = plan.standard[beacon].beacon
        if found.is_set or not found.is_stored:
            raise ConfigurationError(f"the index {index!r}: the beacon {beacon!r} is a set or not stored: no key")
        return found.attribute
    if beacon in plan.compounds:
        return plan.compounds[beacon].attribute
    raise ConfigurationError(f"the index {index!r}: there is no beacon {beacon!r}")


def _kind_of(model: type[PhiModel], field: str) -> str:
    annotation = model.model_fields[field].annotation
    origin = typing.get_origin(annotation) or annotation
    if isinstance(origin, type) and issubclass(origin, bytes):
        return "B"
    return "N" if isinstance(origin, type) and issubclass(origin, _NUMBERS) and origin is not bool else "S"
