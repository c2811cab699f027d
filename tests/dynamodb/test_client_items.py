"""The boto3-shaped client and resource, on each server: single items, batches, queries and scans."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from boto3.dynamodb.conditions import Attr, Key
from botocore.exceptions import ClientError
from support.dynamodb_support import Clinic, key, patient

from phicrypt.dynamodb.answers import PLAINTEXT_ITEMS
from phicrypt.errors import AuthenticationError, KeyAccessError, NotEncryptedError

REFUSED = (AuthenticationError, KeyAccessError)
"""Another item's header or key gives another context, under which the keyring opens no data key."""


def put(clinic: Clinic, *items: dict[str, Any]) -> None:
    for item in items:
        clinic.client.put_item(TableName=clinic.name, Item=item)


def by_key(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(items, key=lambda item: (item["patient_id"]["S"], int(item["visit"]["N"])))


def test_put_stores_ciphertext_and_get_returns_the_item(clinic: Clinic) -> None:
    item = patient(scan={"B": b"\x00\x01"})
    put(clinic, item)

    stored = clinic.stored()
    assert stored is not None
    assert set(stored) == {*item, "aws_dbe_head", "aws_dbe_foot"}
    assert set(stored["name"]) == set(stored["conditions"]) == {"B"}
    assert stored["clinic"] == item["clinic"] and stored["note"] == item["note"]
    assert clinic.client.get_item(TableName=clinic.name, Key=key())["Item"] == item


def test_the_callers_parameters_are_left_as_they_are(clinic: Clinic) -> None:
    parameters = {"TableName": clinic.name, "Item": patient()}
    clinic.client.put_item(**parameters)
    clinic.client._make_api_call("PutItem", parameters)
    assert parameters == {"TableName": clinic.name, "Item": patient()}


def test_get_of_a_missing_item_has_no_item(clinic: Clinic) -> None:
    assert "Item" not in clinic.client.get_item(TableName=clinic.name, Key=key("nobody"))


def test_get_with_a_projection_of_every_signed_attribute_is_verified(clinic: Clinic) -> None:
    put(clinic, patient())
    answer = clinic.client.get_item(
        TableName=clinic.name,
        Key=key(),
        ProjectionExpression="patient_id, visit, #n, conditions, #s, clinic",
        ExpressionAttributeNames={"#n": "name", "#s": "scan"},
    )
    expected = patient()
    del expected["note"]
    assert answer["Item"] == expected


def test_put_returns_the_old_item_in_plaintext(clinic: Clinic) -> None:
    put(clinic, patient())
    answer = clinic.client.put_item(
        TableName=clinic.name, Item=patient(name={"S": "Second"}), ReturnValues="ALL_OLD"
    )
    assert answer["Attributes"] == patient()


def test_delete_returns_the_old_item_in_plaintext(clinic: Clinic) -> None:
    put(clinic, patient())
    answer = clinic.client.delete_item(TableName=clinic.name, Key=key(), ReturnValues="ALL_OLD")
    assert answer["Attributes"] == patient()
    assert clinic.stored() is None


def test_a_failed_condition_returns_the_item_in_plaintext(clinic: Clinic) -> None:
    put(clinic, patient())
    with pytest.raises(clinic.client.exceptions.ConditionalCheckFailedException) as caught:
        clinic.client.put_item(
            TableName=clinic.name,
            Item=patient(name={"S": "Second"}),
            ConditionExpression="attribute_not_exists(patient_id)",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    if clinic.server.name == "dynalite":
        pytest.skip("dynalite does not return the item of a failed condition")
    assert caught.value.response["Item"] == patient()


@pytest.mark.parametrize("return_values", ["ALL_OLD", "ALL_NEW"])
def test_update_of_an_unsigned_attribute_returns_the_item_in_plaintext(clinic: Clinic, return_values: str) -> None:
    put(clinic, patient())
    answer = clinic.client.update_item(
        TableName=clinic.name,
        Key=key(),
        UpdateExpression="SET note = :n",
        ExpressionAttributeValues={":n": {"S": "called"}},
        ReturnValues=return_values,
    )
    expected = patient() if return_values == "ALL_OLD" else patient(note={"S": "called"})
    assert answer["Attributes"] == expected
    assert clinic.client.get_item(TableName=clinic.name, Key=key())["Item"] == patient(note={"S": "called"})


def test_update_returns_only_updated_unsigned_attributes(clinic: Clinic) -> None:
    put(clinic, patient())
    answer = clinic.client.update_item(
        TableName=clinic.name,
        Key=key(),
        UpdateExpression="ADD x_calls :one",
        ExpressionAttributeValues={":one": {"N": "1"}},
        ReturnValues="UPDATED_NEW",
    )
    assert answer["Attributes"] == {"x_calls": {"N": "1"}}


def test_rule_18_update_of_a_missing_key_creates_nothing(clinic: Clinic) -> None:
    with pytest.raises(clinic.client.exceptions.ConditionalCheckFailedException):
        clinic.client.update_item(
            TableName=clinic.name,
            Key=key("nobody"),
            UpdateExpression="SET note = :n",
            ExpressionAttributeValues={":n": {"S": "x"}},
        )
    assert clinic.stored("nobody") is None


def test_update_keeps_the_callers_condition(clinic: Clinic) -> None:
    put(clinic, patient())
    arguments = {
        "TableName": clinic.name,
        "Key": key(),
        "UpdateExpression": "SET note = :n",
        "ConditionExpression": "clinic = :c OR clinic = :d",
    }
    values = {":n": {"S": "x"}, ":c": {"S": "south"}, ":d": {"S": "east"}}
    with pytest.raises(clinic.client.exceptions.ConditionalCheckFailedException):
        clinic.client.update_item(**arguments, ExpressionAttributeValues=values)
    clinic.client.update_item(**arguments, ExpressionAttributeValues=values | {":d": {"S": "north"}})
    assert clinic.client.get_item(TableName=clinic.name, Key=key())["Item"]["note"] == {"S": "x"}


def test_query_and_scan_return_plaintext(clinic: Clinic) -> None:
    items = [patient(visit=number) for number in (1, 2, 3)]
    put(clinic, *items, patient("p-2"))
    query = clinic.client.query(
        TableName=clinic.name,
        KeyConditionExpression="patient_id = :p AND visit BETWEEN :low AND :high",
        FilterExpression="clinic = :c",
        ExpressionAttributeValues={
            ":p": {"S": "p-1"},
            ":low": {"N": "2"},
            ":high": {"N": "3.0"},
            ":c": {"S": "north"},
        },
    )
    assert query["Items"] == items[1:]
    assert by_key(clinic.client.scan(TableName=clinic.name)["Items"]) == [*items, patient("p-2")]


def test_segments_and_paginators_return_plaintext(clinic: Clinic) -> None:
    items = [patient(f"p-{number}") for number in range(7)]
    put(clinic, *items)
    segments = [
        item
        for segment in range(3)
        for item in clinic.client.scan(TableName=clinic.name, TotalSegments=3, Segment=segment)["Items"]
    ]
    assert by_key(segments) == items
    pages = clinic.client.get_paginator("scan").paginate(TableName=clinic.name, PaginationConfig={"PageSize": 2})
    assert by_key([item for page in pages for item in page["Items"]]) == items


def test_count_needs_no_item(clinic: Clinic) -> None:
    put(clinic, patient(), patient("p-2"))
    assert clinic.client.scan(TableName=clinic.name, Select="COUNT")["Count"] == 2


def test_a_whole_index_returns_plaintext(clinic: Clinic) -> None:
    put(clinic, patient(), patient("p-2", clinic={"S": "south"}))
    answer = clinic.client.query(
        TableName=clinic.name,
        IndexName="by-clinic",
        KeyConditionExpression="clinic = :c",
        ExpressionAttributeValues={":c": {"S": "north"}},
    )
    assert answer["Items"] == [patient()]


def test_batches_write_and_read_plaintext(clinic: Clinic) -> None:
    items = [patient(f"p-{number}") for number in range(5)]
    answer = clinic.client.batch_write_item(
        RequestItems={clinic.name: [{"PutRequest": {"Item": item}} for item in items]}
    )
    assert not answer["UnprocessedItems"]
    assert set((clinic.stored("p-3") or {})["name"]) == {"B"}
    answer = clinic.client.batch_get_item(RequestItems={clinic.name: {"Keys": [key(f"p-{n}") for n in range(5)]}})
    assert by_key(answer["Responses"][clinic.name]) == items
    clinic.client.batch_write_item(RequestItems={clinic.name: [{"DeleteRequest": {"Key": key("p-3")}}]})
    assert clinic.stored("p-3") is None


def test_transactions_write_and_read_plaintext(clinic: Clinic) -> None:
    clinic.needs_transactions()
    put(clinic, patient("p-2"), patient("p-3"), patient("p-4"))
    clinic.client.transact_write_items(
        TransactItems=[
            {"Put": {"TableName": clinic.name, "Item": patient()}},
            {
                "Update": {
                    "TableName": clinic.name,
                    "Key": key("p-2"),
                    "UpdateExpression": "SET note = :n",
                    "ExpressionAttributeValues": {":n": {"S": "x"}},
                }
            },
            {"Delete": {"TableName": clinic.name, "Key": key("p-3")}},
            {
                "ConditionCheck": {
                    "TableName": clinic.name,
                    "Key": key("p-4"),
                    "ConditionExpression": "attribute_exists(patient_id)",
                }
            },
        ]
    )
    assert set((clinic.stored() or {})["name"]) == {"B"}
    answer = clinic.client.transact_get_items(
        TransactItems=[{"Get": {"TableName": clinic.name, "Key": key(p)}} for p in ("p-1", "p-2", "p-3")]
    )
    found = [response.get("Item") for response in answer["Responses"]]
    assert found == [patient(), patient("p-2", note={"S": "x"}), None]


def test_cancellation_reasons_come_back_in_plaintext(clinic: Clinic) -> None:
    clinic.needs_transactions()
    put(clinic, patient())
    with pytest.raises(clinic.client.exceptions.TransactionCanceledException) as caught:
        clinic.client.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": clinic.name, "Item": patient("p-2")}},
                {
                    "Put": {
                        "TableName": clinic.name,
                        "Item": patient(name={"S": "Second"}),
                        "ConditionExpression": "attribute_not_exists(patient_id)",
                        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                    }
                },
            ]
        )
    assert caught.value.response["CancellationReasons"][1]["Item"] == patient()
    assert clinic.stored("p-2") is None


def test_rule_18_transactional_update_of_a_missing_key_creates_nothing(clinic: Clinic) -> None:
    clinic.needs_transactions()
    with pytest.raises(clinic.client.exceptions.TransactionCanceledException):
        clinic.client.transact_write_items(
            TransactItems=[
                {
                    "Update": {
                        "TableName": clinic.name,
                        "Key": key("nobody"),
                        "UpdateExpression": "SET note = :n",
                        "ExpressionAttributeValues": {":n": {"S": "x"}},
                    }
                }
            ]
        )
    assert clinic.stored("nobody") is None


def test_the_resource_has_python_values(clinic: Clinic) -> None:
    item = {
        "patient_id": "p-1",
        "visit": Decimal(1),
        "name": "Ada",
        "conditions": [{"code": Decimal("1.5")}, None, True],
        "scan": b"\x01",
        "clinic": "north",
    }
    clinic.table.put_item(Item=item)
    assert set((clinic.stored() or {})["name"]) == {"B"}
    assert clinic.table.get_item(Key={"patient_id": "p-1", "visit": 1})["Item"] == item
    answer = clinic.table.query(
        KeyConditionExpression=Key("patient_id").eq("p-1"), FilterExpression=Attr("clinic").begins_with("no")
    )
    assert answer["Items"] == [item]
    assert clinic.table.scan()["Items"] == [item]


def test_batch_writer_encrypts(clinic: Clinic) -> None:
    with clinic.table.batch_writer() as batch:
        for number in range(30):
            batch.put_item(Item={"patient_id": f"p-{number}", "visit": 1, "name": f"Ada {number}"})
    assert all(set(item["name"]) == {"B"} for item in clinic.raw.scan(TableName=clinic.name)["Items"])
    assert {item["name"] for item in clinic.table.scan()["Items"]} == {f"Ada {number}" for number in range(30)}


@pytest.mark.parametrize("attribute", ["name", "clinic", "aws_dbe_head", "aws_dbe_foot"])
def test_a_changed_item_is_refused(clinic: Clinic, attribute: str) -> None:
    put(clinic, patient(), patient("p-2", name={"S": "Eve"}, clinic={"S": "south"}))
    stored, other = clinic.stored() or {}, clinic.stored("p-2") or {}
    clinic.raw.put_item(TableName=clinic.name, Item=stored | {attribute: other[attribute]})
    with pytest.raises(REFUSED):
        clinic.client.get_item(TableName=clinic.name, Key=key())
    with pytest.raises(REFUSED):
        clinic.client.scan(TableName=clinic.name)


def test_items_swapped_between_two_keys_are_refused(clinic: Clinic) -> None:
    put(clinic, patient(), patient("p-2"))
    clinic.raw.put_item(TableName=clinic.name, Item=(clinic.stored() or {}) | key("p-2"))
    with pytest.raises(REFUSED):
        clinic.client.get_item(TableName=clinic.name, Key=key("p-2"))


def test_a_plaintext_item_is_refused(clinic: Clinic) -> None:
    clinic.raw.put_item(TableName=clinic.name, Item=patient())
    with pytest.raises(NotEncryptedError):
        clinic.client.get_item(TableName=clinic.name, Key=key())
    with pytest.raises(NotEncryptedError):
        clinic.client.query(
            TableName=clinic.name,
            KeyConditionExpression="patient_id = :p",
            ExpressionAttributeValues={":p": {"S": "p-1"}},
        )


@pytest.mark.parametrize("missing", ["aws_dbe_head", "aws_dbe_foot"])
def test_rule_19_header_or_footer_alone_is_an_authentication_error(clinic: Clinic, missing: str) -> None:
    put(clinic, patient())
    stored = clinic.stored() or {}
    del stored[missing]
    clinic.raw.put_item(TableName=clinic.name, Item=stored)
    with pytest.raises(AuthenticationError):
        clinic.client.get_item(TableName=clinic.name, Key=key())


def test_service_errors_pass_as_boto3_raises_them(clinic: Clinic) -> None:
    with pytest.raises(ClientError) as caught:
        clinic.client.put_item(
            TableName=clinic.name, Item={"patient_id": {"S": "p-1"}, "visit": {"S": "no number"}}
        )
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert PLAINTEXT_ITEMS not in caught.value.response["ResponseMetadata"]
