"""Less usual ways through the client: threads, paginators with hydrate, local indexes, errors of each write."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.dynamodb_support import Clinic, Server, key, open_clinic, patient, patient_config

from phicrypt import PhiCrypt
from phicrypt.dynamodb import Action
from phicrypt.dynamodb.shapes import to_python
from phicrypt.errors import UnsupportedOperationError


def test_threads_share_one_client(clinic: Clinic) -> None:
    def work(number: int) -> Any:
        name = f"p-{number}"
        clinic.client.put_item(TableName=clinic.name, Item=patient(name, clinic={"S": f"c-{number}"}))
        clinic.client.update_encrypted(
            TableName=clinic.name, Key=key(name), change=lambda item: item | {"name": {"S": f"Ada {number}"}}
        )
        return clinic.client.get_item(TableName=clinic.name, Key=key(name), ConsistentRead=True)["Item"]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(40)))
    assert found == [patient(f"p-{n}", clinic={"S": f"c-{n}"}, name={"S": f"Ada {n}"}) for n in range(40)]


def test_paginators_hydrate(clinic: Clinic) -> None:
    items = [patient(f"p-{number}", visit=number) for number in range(7)]
    for item in items:
        clinic.client.put_item(TableName=clinic.name, Item=item)
    pages = clinic.client.get_paginator("query").paginate(
        TableName=clinic.name,
        IndexName="keys-by-clinic",
        KeyConditionExpression="clinic = :c",
        ExpressionAttributeValues={":c": {"S": "north"}},
        PaginationConfig={"PageSize": 3},
        hydrate=True,
    )
    assert [item for page in pages for item in page["Items"]] == items


@pytest.mark.parametrize("operation", ["put_item", "update_item", "delete_item"])
def test_the_item_of_every_failed_condition_is_plaintext(clinic: Clinic, operation: str) -> None:
    if clinic.server.name == "dynalite":
        pytest.skip("dynalite does not return the item of a failed condition")
    clinic.client.put_item(TableName=clinic.name, Item=patient())
    more: dict[str, Any] = {
        "put_item": {"Item": patient(name={"S": "Second"})},
        "update_item": {"Key": key(), "UpdateExpression": "REMOVE note"},
        "delete_item": {"Key": key()},
    }[operation]
    with pytest.raises(ClientError) as caught:
        getattr(clinic.client, operation)(
            TableName=clinic.name,
            ConditionExpression="attribute_not_exists(patient_id)",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
            **more,
        )
    assert caught.value.response["Item"] == patient()
    assert clinic.client.get_item(TableName=clinic.name, Key=key())["Item"] == patient()


@pytest.mark.parametrize("action", ["Put", "Update", "Delete", "ConditionCheck"])
def test_the_reason_of_every_cancelled_action_is_plaintext(clinic: Clinic, action: str) -> None:
    clinic.needs_transactions()
    clinic.client.put_item(TableName=clinic.name, Item=patient())
    more: dict[str, Any] = {
        "Put": {"Item": patient(name={"S": "Second"})},
        "Update": {"Key": key(), "UpdateExpression": "REMOVE note"},
        "Delete": {"Key": key()},
        "ConditionCheck": {"Key": key()},
    }[action]
    entry = more | {
        "TableName": clinic.name,
        "ConditionExpression": "attribute_not_exists(patient_id)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    with pytest.raises(clinic.client.exceptions.TransactionCanceledException) as caught:
        clinic.client.transact_write_items(TransactItems=[{action: entry}])
    assert caught.value.response["CancellationReasons"][0]["Item"] == patient()


def test_local_indexes_read_whole_items_on_request(server: Server, phi: PhiCrypt) -> None:
    if server.name == "moto":
        pytest.skip("moto returns the projection of a local index only; DynamoDB Local runs this test")
    raw, config = server.raw_client(), patient_config("patients-local-index")
    raw.create_table(
        TableName=config.table_name,
        KeySchema=[
            {"AttributeName": "patient_id", "KeyType": "HASH"},
            {"AttributeName": "visit", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "patient_id", "AttributeType": "S"},
            {"AttributeName": "visit", "AttributeType": "N"},
            {"AttributeName": "clinic", "AttributeType": "S"},
        ],
        LocalSecondaryIndexes=[
            {
                "IndexName": "local",
                "KeySchema": [
                    {"AttributeName": "patient_id", "KeyType": "HASH"},
                    {"AttributeName": "clinic", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    client = phi.dynamodb.client([config], **server.options())
    client.put_item(TableName=config.table_name, Item=patient())
    query: dict[str, Any] = {
        "TableName": config.table_name,
        "IndexName": "local",
        "KeyConditionExpression": "patient_id = :p AND begins_with(clinic, :c)",
        "ExpressionAttributeValues": {":p": {"S": "p-1"}, ":c": {"S": "no"}},
    }
    with pytest.raises(UnsupportedOperationError, match="hydrate=True"):
        client.query(**query)
    assert client.query(**query, Select="ALL_ATTRIBUTES")["Items"] == [patient()]
    assert client.query(**query, hydrate=True)["Items"] == [patient()]


def test_a_configuration_may_name_its_table_by_arn(moto: Server, phi: PhiCrypt, clinic: Clinic) -> None:
    arn = clinic.raw.describe_table(TableName=clinic.name)["Table"]["TableArn"]
    client = phi.dynamodb.client([patient_config(arn, logical_table_name=clinic.name)], **clinic.server.options())
    client.put_item(TableName=clinic.name, Item=patient())
    assert clinic.client.get_item(TableName=clinic.name, Key=key())["Item"] == patient()


LONG = [Decimal(text) for text in ("1E+38", "-12E+100", "9.9999999999999999999999999999999999999E+125", "1E-130")]


@pytest.mark.parametrize("attribute", ["name", "conditions", "note"])
def test_numbers_of_many_digits_are_exact_in_every_shape(server: Server, phi: PhiCrypt, attribute: str) -> None:
    actions = {**patient_config("patients").actions, "conditions": Action.SIGN_ONLY}
    clinic = open_clinic(server, phi, actions=actions)
    values: dict[str, Any] = {"largest": max(LONG), "set": {*LONG}, "list": [*LONG, {"inner": LONG[0]}]}
    item = {"patient_id": "p-1", "visit": Decimal(1), "clinic": "north", attribute: values}
    clinic.table.put_item(Item=item)
    assert clinic.table.get_item(Key={"patient_id": "p-1", "visit": 1})["Item"] == item
    assert clinic.table.scan()["Items"] == [item]
    asked = {"KeyConditionExpression": "clinic = :c", "ExpressionAttributeValues": {":c": "north"}}
    for index in ("by-clinic", "keys-by-clinic"):
        assert clinic.table.query(**asked, IndexName=index, hydrate=index != "by-clinic")["Items"] == [item]
    changed = clinic.table.update_encrypted(
        Key={"patient_id": "p-1", "visit": 1}, change=lambda draft: draft | {"scan": b"more"}
    )
    assert {name: changed[name] for name in item} == item
    low_level = clinic.client.get_item(TableName=clinic.name, Key=key())["Item"]
    assert {Decimal(text) for text in low_level[attribute]["M"]["set"]["NS"]} == {*LONG}
    assert phi.dynamodb.decrypt_item(to_python_item(clinic.stored() or {}), clinic.config)[attribute] == values


def to_python_item(item: dict[str, Any]) -> dict[str, Any]:
    """A stored item as boto3's resource would give it, binary values and numbers included."""
    return {name: to_python(value) for name, value in item.items()}


def test_capacity_and_metrics_pass_through(clinic: Clinic) -> None:
    answer = clinic.client.put_item(TableName=clinic.name, Item=patient(), ReturnConsumedCapacity="TOTAL")
    assert answer["ConsumedCapacity"]["TableName"] == clinic.name
    answer = clinic.client.query(
        TableName=clinic.name,
        KeyConditionExpression="patient_id = :p",
        ExpressionAttributeValues={":p": {"S": "p-1"}},
        ReturnConsumedCapacity="TOTAL",
    )
    assert answer["ConsumedCapacity"]["CapacityUnits"] > 0
