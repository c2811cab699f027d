"""Rule 18: update_encrypted changes signed attributes and loses nobody's write."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from botocore.config import Config
from support.dynamodb_support import Clinic, Server, key, open_clinic, patient

from phicrypt import PhiCrypt
from phicrypt.dynamodb.config import PlaintextPolicy
from phicrypt.dynamodb.updates import MAX_ATTEMPTS
from phicrypt.errors import AuthenticationError, ConfigurationError, NotEncryptedError

RACES = int(os.environ.get("PHICRYPT_RACE_ROUNDS", "1000"))


def set_clinic(value: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda item: item | {"clinic": {"S": value}}


def test_signed_attributes_are_changed_added_and_removed(clinic: Clinic) -> None:
    clinic.client.put_item(TableName=clinic.name, Item=patient())
    before = clinic.stored() or {}

    def change(item: dict[str, Any]) -> None:
        item["name"] = {"S": "Renamed"}
        item["scan"] = {"B": b"\x01"}
        del item["conditions"]

    changed = clinic.client.update_encrypted(TableName=clinic.name, Key=key(), change=change)
    expected = patient(name={"S": "Renamed"}, scan={"B": b"\x01"})
    del expected["conditions"]
    assert changed == expected
    assert clinic.client.get_item(TableName=clinic.name, Key=key())["Item"] == expected
    after = clinic.stored() or {}
    assert all(before[name] != after[name] for name in ("aws_dbe_head", "aws_dbe_foot", "name"))
    assert b"Renamed" not in b"".join(clinic.sent_bodies)


def test_rule_18_one_update_of_signed_attributes_header_and_footer_on_the_old_footer(clinic: Clinic) -> None:
    clinic.client.put_item(TableName=clinic.name, Item=patient())
    clinic.sent_bodies.clear()
    clinic.client.update_encrypted(TableName=clinic.name, Key=key(), change=set_clinic("south"))
    (body,) = [body.decode() for body in clinic.sent_bodies if b"UpdateExpression" in body]
    assert "aws_dbe_foot = :" in body and '"note"' not in body and "x_" not in body
    assert len(clinic.sent_bodies) == 2


def test_rule_18_an_update_of_a_missing_key_creates_nothing(clinic: Clinic) -> None:
    called = []
    result = clinic.client.update_encrypted(TableName=clinic.name, Key=key("nobody"), change=called.append)
    assert result is None and not called
    assert clinic.stored("nobody") is None


def test_an_item_deleted_in_between_is_not_created_again(clinic: Clinic) -> None:
    clinic.client.put_item(TableName=clinic.name, Item=patient())

    def change(item: dict[str, Any]) -> dict[str, Any]:
        clinic.raw.delete_item(TableName=clinic.name, Key=key())
        return item

    assert clinic.client.update_encrypted(TableName=clinic.name, Key=key(), change=change) is None
    assert clinic.stored() is None


def test_a_concurrent_signed_change_is_kept_and_the_change_is_tried_again(clinic: Clinic) -> None:
    clinic.client.put_item(TableName=clinic.name, Item=patient())
    seen: list[str] = []

    def change(item: dict[str, Any]) -> dict[str, Any]:
        seen.append(item["clinic"]["S"])
        if len(seen) == 1:
            clinic.client.update_encrypted(TableName=clinic.name, Key=key(), change=set_clinic("south"))
        return item | {"name": {"S": "Renamed"}}

    clinic.client.update_encrypted(TableName=clinic.name, Key=key(), change=change)
    assert seen == ["north", "south"]
    expected = patient(name={"S": "Renamed"}, clinic={"S": "south"})
    assert clinic.client.get_item(TableName=clinic.name, Key=key())["Item"] == expected


def test_rule_18_an_unsigned_change_between_read_and_write_is_kept(clinic: Clinic) -> None:
    clinic.client.put_item(TableName=clinic.name, Item=patient())

    def change(item: dict[str, Any]) -> dict[str, Any]:
        clinic.client.update_item(
            TableName=clinic.name,
            Key=key(),
            UpdateExpression="SET x_seen = :yes REMOVE note",
            ExpressionAttributeValues={":yes": {"BOOL": True}},
        )
        return item | {"clinic": {"S": "south"}}

    clinic.client.update_encrypted(TableName=clinic.name, Key=key(), change=change)
    expected = patient(clinic={"S": "south"}, x_seen={"BOOL": True})
    del expected["note"]
    assert clinic.client.get_item(TableName=clinic.name, Key=key())["Item"] == expected


def test_retries_are_bounded(clinic: Clinic) -> None:
    clinic.client.put_item(TableName=clinic.name, Item=patient())
    attempts = []

    def change(item: dict[str, Any]) -> dict[str, Any]:
        attempts.append(1)
        clinic.client.put_item(TableName=clinic.name, Item=patient(clinic={"S": f"c-{len(attempts)}"}))
        return item

    with pytest.raises(clinic.client.exceptions.ConditionalCheckFailedException):
        clinic.client.update_encrypted(TableName=clinic.name, Key=key(), change=change)
    assert len(attempts) == MAX_ATTEMPTS


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda item: item | {"note": {"S": "x"}}, "'note'"),
        (lambda item: item | {"x_new": {"S": "x"}}, "'x_new'"),
        (lambda item: item | {"patient_id": {"S": "p-2"}}, "'patient_id'"),
        (lambda item: {name: value for name, value in item.items() if name != "visit"}, "'visit'"),
        (lambda item: item | {"unheard_of": {"S": "x"}}, "'unheard_of'"),
    ],
)
def test_changes_of_other_attributes_are_refused_by_name(clinic: Clinic, change: Any, named: str) -> None:
    clinic.client.put_item(TableName=clinic.name, Item=patient())
    before = clinic.stored()
    with pytest.raises(ConfigurationError, match=named):
        clinic.client.update_encrypted(TableName=clinic.name, Key=key(), change=change)
    assert clinic.stored() == before


def test_a_tampered_or_plaintext_item_is_not_changed(clinic: Clinic) -> None:
    clinic.client.put_item(TableName=clinic.name, Item=patient())
    stored = clinic.stored() or {}
    clinic.raw.put_item(TableName=clinic.name, Item=stored | {"clinic": {"S": "forged"}})
    with pytest.raises(AuthenticationError):
        clinic.client.update_encrypted(TableName=clinic.name, Key=key(), change=set_clinic("x"))
    clinic.raw.put_item(TableName=clinic.name, Item=patient())
    with pytest.raises(NotEncryptedError):
        clinic.client.update_encrypted(TableName=clinic.name, Key=key(), change=set_clinic("x"))


def test_a_plaintext_item_is_encrypted_where_the_policy_allows_to_read_it(server: Server, phi: PhiCrypt) -> None:
    clinic = open_clinic(
        server,
        phi,
        plaintext_policy=PlaintextPolicy.FORBID_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ,
        plaintext_reads_until=date.max,
    )
    clinic.raw.put_item(TableName=clinic.name, Item=patient())
    clinic.client.update_encrypted(TableName=clinic.name, Key=key(), change=set_clinic("south"))
    stored = clinic.stored() or {}
    assert set(stored["name"]) == {"B"} and "aws_dbe_foot" in stored
    assert clinic.client.get_item(TableName=clinic.name, Key=key())["Item"] == patient(clinic={"S": "south"})


def test_a_value_that_boto3_cannot_store_is_not_in_the_error(clinic: Clinic) -> None:
    clinic.client.put_item(TableName=clinic.name, Item=patient())
    with pytest.raises(ConfigurationError, match="'name'") as caught:
        clinic.table.update_encrypted(
            Key={"patient_id": "p-1", "visit": 1}, change=lambda item: item | {"name": {"Ada": 1.5}}
        )
    assert "1.5" not in str(caught.value)


def test_the_resource_changes_python_values(clinic: Clinic) -> None:
    clinic.client.put_item(TableName=clinic.name, Item=patient())
    changed = clinic.table.update_encrypted(
        Key={"patient_id": "p-1", "visit": 1}, change=lambda item: item | {"conditions": ["flu"]}
    )
    assert changed["conditions"] == ["flu"]
    assert clinic.table.get_item(Key={"patient_id": "p-1", "visit": 1})["Item"]["conditions"] == ["flu"]


def test_rule_18_a_thousand_races_lose_neither_signed_nor_unsigned_changes(clinic: Clinic) -> None:
    """Two writers of a signed attribute and one of an unsigned counter, at the same item at once."""
    if clinic.server.name == "moto":
        pytest.skip("moto serves one item without its own concurrency control; DynamoDB Local runs this test")
    clinic.client.put_item(TableName=clinic.name, Item=patient(conditions={"L": []}))
    rounds = RACES
    errors: list[BaseException] = []

    def run(work: Callable[[Any, int], object], numbers: range) -> None:
        client = clinic.phi.dynamodb.client(
            [clinic.config], config=Config(max_pool_connections=1), **clinic.server.options()
        )
        try:
            for number in numbers:
                work(client, number)
        except BaseException as error:
            errors.append(error)

    def append(client: Any, number: int) -> None:
        client.update_encrypted(
            TableName=clinic.name,
            Key=key(),
            change=lambda item: item | {"conditions": {"L": [*item["conditions"]["L"], {"N": str(number)}][-50:]}},
        )

    def count(client: Any, number: int) -> None:
        client.update_item(
            TableName=clinic.name,
            Key=key(),
            UpdateExpression="ADD x_calls :one SET note = :n",
            ExpressionAttributeValues={":one": {"N": "1"}, ":n": {"S": str(number)}},
        )

    threads = [
        threading.Thread(target=run, args=arguments)
        for arguments in ((append, range(rounds)), (count, range(rounds)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    item = clinic.client.get_item(TableName=clinic.name, Key=key())["Item"]
    assert item["x_calls"] == {"N": str(rounds)} and item["note"] == {"S": str(rounds - 1)}
    assert [int(element["N"]) for element in item["conditions"]["L"]] == list(range(rounds))[-50:]


def test_rule_18_colliding_signed_changes_are_all_applied(clinic: Clinic) -> None:
    clinic.client.put_item(TableName=clinic.name, Item=patient(conditions={"L": []}))
    if clinic.server.name == "moto":
        pytest.skip("moto checks conditions without a lock; DynamoDB Local runs this test")
    errors: list[BaseException] = []

    def run(writer: int) -> None:
        client = clinic.phi.dynamodb.client([clinic.config], **clinic.server.options())
        try:
            for number in range(20):
                client.update_encrypted(
                    TableName=clinic.name,
                    Key=key(),
                    change=lambda item, name=f"{writer}-{number}": (
                        item | {"conditions": {"L": [*item["conditions"]["L"], {"S": name}]}}
                    ),
                )
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(writer,)) for writer in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    applied = clinic.client.get_item(TableName=clinic.name, Key=key())["Item"]["conditions"]["L"]
    assert {element["S"] for element in applied} == {f"{w}-{n}" for w in range(3) for n in range(20)}
    assert len(applied) == 60
