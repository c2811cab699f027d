"""Rule 17: every operation and input member of botocore's DynamoDB model is classed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest

from phicrypt.dynamodb.boto3_types import HydratingQuery, HydratingScan
from phicrypt.dynamodb.operations import (
    ITEM_OPERATIONS,
    NESTED,
    REFUSED_OPERATIONS,
    TABLE_OPERATIONS,
    WRITE_OPERATIONS,
    check_members,
    check_operation,
)
from phicrypt.dynamodb.requests import HYDRATE
from phicrypt.errors import UnsupportedOperationError

MODEL = botocore.session.get_session().get_service_model("dynamodb")
IS_OLDER_MODEL = tuple(int(part) for part in botocore.__version__.split(".")[:2]) < (1, 44)
"""The classes were made for botocore 1.44; older models lack some of their names."""
LEAVES = {"AttributeValue", "Condition", "ExpectedAttributeValue", "AttributeValueUpdate"}
"""Attribute values themselves, and the structures of refused legacy parameters."""


def structures(shape: Any, seen: set[str]) -> Iterator[Any]:
    """Every structure at or below a shape, attribute values left out."""
    if shape.type_name == "list":
        yield from structures(shape.member, seen)
    elif shape.type_name == "map":
        yield from structures(shape.value, seen)
    elif shape.type_name == "structure" and shape.name not in LEAVES | seen:
        seen.add(shape.name)
        yield shape
        for member in shape.members.values():
            yield from structures(member, seen)


@pytest.mark.parametrize("operation", MODEL.operation_names)
def test_rule_17_every_operation_is_classed_once(operation: str) -> None:
    homes = [operation in home for home in (ITEM_OPERATIONS, TABLE_OPERATIONS, REFUSED_OPERATIONS)]
    assert homes.count(True) == 1


@pytest.mark.parametrize("operation", [n for n in MODEL.operation_names if n not in REFUSED_OPERATIONS])
def test_rule_17_every_input_member_is_classed_once(operation: str) -> None:
    classed = ITEM_OPERATIONS.get(operation) or TABLE_OPERATIONS[operation]
    shape = MODEL.operation_model(operation).input_shape
    members = set(shape.members if shape is not None else ())
    assert members <= classed.all
    assert members == classed.all or IS_OLDER_MODEL
    assert len(classed.all) == len(classed.handled) + len(classed.harmless) + len(classed.refused)


@pytest.mark.parametrize("operation", sorted(ITEM_OPERATIONS))
def test_rule_17_every_nested_member_is_classed_once(operation: str) -> None:
    top = MODEL.operation_model(operation).input_shape
    for shape in structures(top, set()):
        if shape is not top:
            assert set(shape.members) <= NESTED[shape.name].all
            assert set(shape.members) == NESTED[shape.name].all or IS_OLDER_MODEL


def test_rule_17_no_harmless_member_holds_attribute_values() -> None:
    for name, members in ITEM_OPERATIONS.items():
        shape = MODEL.operation_model(name).input_shape
        for member in members.harmless:
            assert shape.members[member].type_name in ("string", "integer", "boolean")


def test_every_write_is_an_item_operation() -> None:
    assert set(ITEM_OPERATIONS) >= WRITE_OPERATIONS
    assert {name for name in ITEM_OPERATIONS if not name.startswith(("Query", "Scan")) and "Get" not in name} == (
        WRITE_OPERATIONS
    )


@pytest.mark.parametrize("operation", [*REFUSED_OPERATIONS, "TeleportItem"])
def test_refused_and_unknown_operations_say_why(operation: str) -> None:
    with pytest.raises(UnsupportedOperationError, match=operation):
        check_operation(operation)


def test_unknown_members_are_refused() -> None:
    with pytest.raises(UnsupportedOperationError, match="ItemTwo"):
        check_members("PutItem", ["TableName", "Item", "ItemTwo"])
    with pytest.raises(UnsupportedOperationError, match="ItemTwo"):
        check_members("TransactWriteItems", ["Item", "ItemTwo"], shape="Put")


@pytest.mark.parametrize(
    ("operation", "member", "remedy"),
    [
        ("PutItem", "Expected", "ConditionExpression"),
        ("UpdateItem", "AttributeUpdates", "UpdateExpression"),
        ("Query", "KeyConditions", "KeyConditionExpression"),
        ("Scan", "ScanFilter", "FilterExpression"),
        ("GetItem", "AttributesToGet", "ProjectionExpression"),
    ],
)
def test_legacy_members_are_refused_with_their_remedy(operation: str, member: str, remedy: str) -> None:
    with pytest.raises(UnsupportedOperationError, match=remedy):
        check_members(operation, [member])


@pytest.mark.skipif(IS_OLDER_MODEL, reason="older models of botocore lack some names")
@pytest.mark.parametrize(("operation", "parameters"), [("Query", HydratingQuery), ("Scan", HydratingScan)])
def test_the_typed_parameters_are_all_of_boto3s(operation: str, parameters: Any) -> None:
    named = set(parameters.__annotations__) - {HYDRATE}
    assert named == set(MODEL.operation_model(operation).input_shape.members)
