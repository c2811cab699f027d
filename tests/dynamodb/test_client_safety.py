"""What must hold whatever the service, the network or another writer does: rules 7, 17, 18 and 19."""

from __future__ import annotations

import base64
import json
import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from support.dynamodb_support import (
    Clinic,
    Server,
    create_patients_table,
    key,
    open_clinic,
    patient,
    patient_config,
)

from phicrypt import PhiCrypt, RawAesKeyring
from phicrypt.dynamodb import layer
from phicrypt.dynamodb.answers import PLAINTEXT_ITEMS
from phicrypt.dynamodb.config import PlaintextPolicy
from phicrypt.dynamodb.layer import layer_of
from phicrypt.dynamodb.table_checks import BEACON_SAMPLE_ITEMS
from phicrypt.dynamodb.tables import TableBook
from phicrypt.dynamodb.tokens import MAX_AGE_SECONDS, MAX_ENTRIES, TokenLedger
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    KeyAccessError,
    NotEncryptedError,
    PhiCryptError,
    UnsupportedOperationError,
)

CANARY = "canary-8f3e1c"
TOMORROW = (datetime.now(UTC) + timedelta(days=1)).date()


class Reply:
    """Answers a client's next requests in place of the network."""

    def __init__(self, client: Any, *answers: dict[str, Any], status: int = 200) -> None:
        self.bodies: list[dict[str, Any]] = []
        self._answers = list(answers)
        self._status = status
        client.meta.events.register_last("before-send.dynamodb", self)

    def __call__(self, request: Any, **_: Any) -> AWSResponse | None:
        if not self._answers:
            return None
        self.bodies.append(json.loads(request.body))
        content = json.dumps(self._answers.pop(0), default=lambda value: base64.b64encode(value).decode()).encode()
        response: Any = AWSResponse(request.url, self._status, {}, None)
        response._content = content
        return response


@pytest.fixture
def moto_clinic(moto: Server, phi: PhiCrypt) -> Clinic:
    return open_clinic(moto, phi)


def test_a_canary_in_encrypted_attributes_leaves_in_no_request(clinic: Clinic) -> None:
    """Through every supported operation, client and resource; in clear, base64 or JSON escapes."""
    secret = {"name": {"S": CANARY}, "conditions": {"L": [{"S": CANARY}]}, "scan": {"B": CANARY.encode()}}
    client, name = clinic.client, clinic.name
    client.put_item(TableName=name, Item=patient(**secret), ReturnValues="ALL_OLD")
    client.batch_write_item(
        RequestItems={name: [{"PutRequest": {"Item": patient(f"p-{n}", **secret)}} for n in (2, 3)]}
    )
    client.update_item(
        TableName=name,
        Key=key(),
        UpdateExpression="SET note = :n",
        ExpressionAttributeValues={":n": {"S": "x"}},
        ReturnValues="ALL_NEW",
    )
    client.update_encrypted(TableName=name, Key=key(), change=lambda item: item | {"name": {"S": CANARY + "2"}})
    client.query(
        TableName=name,
        KeyConditionExpression="patient_id = :p",
        ExpressionAttributeValues={":p": {"S": "p-1"}},
    )
    client.query(
        TableName=name,
        IndexName="keys-by-clinic",
        KeyConditionExpression="clinic = :c",
        ExpressionAttributeValues={":c": {"S": "north"}},
        hydrate=True,
    )
    client.scan(TableName=name)
    client.get_item(TableName=name, Key=key())
    client.batch_get_item(RequestItems={name: {"Keys": [key()]}})
    if clinic.server.has_transactions:
        client.transact_write_items(
            TransactItems=[{"Put": {"TableName": name, "Item": patient("p-4", **secret)}}],
            ClientRequestToken="t-1",
        )
        client.transact_get_items(TransactItems=[{"Get": {"TableName": name, "Key": key("p-4")}}])
    client.delete_item(TableName=name, Key=key(), ReturnValues="ALL_OLD")
    table = clinic.table
    table.put_item(Item={"patient_id": "p-9", "visit": 1, "name": CANARY})
    with table.batch_writer() as batch:
        batch.put_item(Item={"patient_id": "p-8", "visit": 1, "name": CANARY, "conditions": {CANARY: CANARY}})
    table.update_encrypted(
        Key={"patient_id": "p-9", "visit": 1}, change=lambda item: item | {"conditions": [CANARY]}
    )

    assert table.get_item(Key={"patient_id": "p-9", "visit": 1})["Item"]["conditions"] == [CANARY]
    everything = b"\n".join(clinic.sent_bodies)
    assert len(clinic.sent_bodies) > 15 and clinic.name.encode() in everything
    for offset in range(3):
        encoded = base64.b64encode(b"x" * offset + CANARY.encode())[4 * (offset > 0) : -4]
        assert encoded not in everything
    assert CANARY.encode() not in everything
    assert CANARY not in json.dumps(clinic.raw.scan(TableName=name)["Items"], default=repr)


def test_no_plaintext_stands_in_debug_logs(moto_clinic: Clinic, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    item = {"patient_id": "p-1", "visit": 1, "name": CANARY, "conditions": [CANARY]}
    table = moto_clinic.table
    table.put_item(Item=item)
    table.put_item(Item=item, ReturnValues="ALL_OLD")
    with table.batch_writer() as batch:
        batch.put_item(Item=item | {"patient_id": "p-2"})
    assert table.get_item(Key={"patient_id": "p-1", "visit": 1})["Item"]["name"] == CANARY
    assert len(table.scan()["Items"]) == 2
    moto_clinic.resource.batch_get_item(RequestItems={table.name: {"Keys": [{"patient_id": "p-1", "visit": 1}]}})
    table.update_encrypted(Key={"patient_id": "p-1", "visit": 1}, change=lambda item: item | {"scan": b"x"})
    table.delete_item(Key={"patient_id": "p-1", "visit": 1}, ReturnValues="ALL_OLD")
    assert any(record.name == "boto3.resources.action" for record in caplog.records)
    assert CANARY not in caplog.text


def test_unprocessed_items_come_back_as_the_callers_plaintext(moto_clinic: Clinic) -> None:
    clinic = moto_clinic
    writes = [{"PutRequest": {"Item": patient(f"p-{n}")}} for n in range(3)]
    writes.append({"DeleteRequest": {"Key": key("p-7")}})
    sent: list[Any] = []

    def leave_unprocessed(request: Any, **_: Any) -> AWSResponse | None:
        body = json.loads(request.body)
        if "RequestItems" not in body or sent:
            return None
        sent.append(body["RequestItems"][clinic.name])
        response: Any = AWSResponse(request.url, 200, {}, None)
        response._content = json.dumps({"UnprocessedItems": {clinic.name: sent[0][1:]}}).encode()
        return response

    clinic.client.meta.events.register_last("before-send.dynamodb.BatchWriteItem", leave_unprocessed)
    answer = clinic.client.batch_write_item(RequestItems={clinic.name: writes})
    assert answer["UnprocessedItems"] == {clinic.name: writes[1:]}
    again = clinic.client.batch_write_item(RequestItems=answer["UnprocessedItems"])
    assert not again["UnprocessedItems"]
    assert clinic.client.get_item(TableName=clinic.name, Key=key("p-2"))["Item"] == patient("p-2")


def test_batch_writer_loses_no_unprocessed_item(moto_clinic: Clinic) -> None:
    clinic = moto_clinic
    calls = []

    def leave_half(request: Any, **_: Any) -> AWSResponse | None:
        body = json.loads(request.body)
        calls.append(len(body["RequestItems"][clinic.name]))
        if len(calls) > 3:
            return None
        clinic.raw.batch_write_item(RequestItems={clinic.name: decoded(body["RequestItems"][clinic.name][::2])})
        response: Any = AWSResponse(request.url, 200, {}, None)
        unprocessed = body["RequestItems"][clinic.name][1::2]
        response._content = json.dumps(
            {"UnprocessedItems": {clinic.name: unprocessed} if unprocessed else {}}
        ).encode()
        return response

    clinic.resource.meta.client.meta.events.register_last("before-send.dynamodb.BatchWriteItem", leave_half)
    with clinic.table.batch_writer() as batch:
        for number in range(40):
            batch.put_item(Item={"patient_id": f"p-{number}", "visit": 1, "name": f"Ada {number}"})
    assert {item["name"] for item in clinic.table.scan()["Items"]} == {f"Ada {number}" for number in range(40)}


def decoded(writes: list[Any]) -> list[Any]:
    def value(attribute: dict[str, Any]) -> dict[str, Any]:
        return {kind: base64.b64decode(content) if kind == "B" else content for kind, content in attribute.items()}

    return [
        {"PutRequest": {"Item": {n: value(a) for n, a in write["PutRequest"]["Item"].items()}}} for write in writes
    ]


def test_an_unprocessed_item_that_was_not_sent_is_refused(moto_clinic: Clinic) -> None:
    strange = {"PutRequest": {"Item": patient("p-666")}}
    client = moto_clinic.client
    client.put_item(TableName=moto_clinic.name, Item=patient())
    Reply(client, {"UnprocessedItems": {moto_clinic.name: [strange]}})
    with pytest.raises(AuthenticationError):
        client.batch_write_item(RequestItems={moto_clinic.name: [{"PutRequest": {"Item": patient()}}]})


def test_unprocessed_keys_come_back_with_the_callers_projection(moto_clinic: Clinic) -> None:
    client, name = moto_clinic.client, moto_clinic.name
    entry = {
        "Keys": [key()],
        "ProjectionExpression": "patient_id, visit, #n, conditions, #s, clinic",
        "ExpressionAttributeNames": {"#n": "name", "#s": "scan"},
    }
    client.get_item(TableName=name, Key=key())
    reply = Reply(
        client, {"Responses": {}, "UnprocessedKeys": {name: {"Keys": [key()], "ProjectionExpression": "x"}}}
    )
    answer = client.batch_get_item(RequestItems={name: entry})
    assert reply.bodies[0]["RequestItems"][name]["ProjectionExpression"].endswith("aws_dbe_head, aws_dbe_foot")
    assert answer["UnprocessedKeys"] == {name: entry}


@pytest.mark.parametrize("operation", ["get_item", "batch_get_item", "transact_get_items", "query", "delete_item"])
def test_another_genuine_item_in_place_of_the_one_asked_for_is_refused(
    moto_clinic: Clinic, operation: str
) -> None:
    client, name = moto_clinic.client, moto_clinic.name
    client.put_item(TableName=name, Item=patient("p-2"))
    other = moto_clinic.stored("p-2")
    asked, answer = {
        "get_item": ({"Key": key()}, {"Item": other}),
        "batch_get_item": ({"RequestItems": {name: {"Keys": [key()]}}}, {"Responses": {name: [other]}}),
        "transact_get_items": (
            {"TransactItems": [{"Get": {"TableName": name, "Key": key()}}]},
            {"Responses": [{"Item": other}]},
        ),
        "query": (
            {"KeyConditionExpression": "patient_id = :p", "ExpressionAttributeValues": {":p": {"S": "p-1"}}},
            {"Items": [other], "Count": 1},
        ),
        "delete_item": ({"Key": key(), "ReturnValues": "ALL_OLD"}, {"Attributes": other}),
    }[operation]
    Reply(client, answer)
    with pytest.raises(AuthenticationError) as caught:
        getattr(client, operation)(**({} if "Items" in str(asked) else {"TableName": name}), **asked)
    noted = getattr(caught.value, "__notes__", [])
    assert bool(noted) is (operation == "delete_item")


def test_rule_18_an_update_is_not_computed_from_another_genuine_item(moto_clinic: Clinic) -> None:
    client, name = moto_clinic.client, moto_clinic.name
    for patient_id in ("p-1", "p-2"):
        client.put_item(TableName=name, Item=patient(patient_id))
    before = [moto_clinic.stored(patient_id) for patient_id in ("p-1", "p-2")]
    client.update_encrypted(TableName=name, Key=key("p-3"), change=lambda draft: draft)  # the table is known now
    reply = Reply(client, {"Item": before[1]})
    seen: list[Any] = []
    with pytest.raises(AuthenticationError) as caught:
        client.update_encrypted(TableName=name, Key=key("p-1"), change=seen.append)
    assert caught.value.reason == "another item than asked for"
    assert seen == []
    assert len(reply.bodies) == 1
    assert [moto_clinic.stored(patient_id) for patient_id in ("p-1", "p-2")] == before


def test_a_signed_attribute_among_updated_ones_is_refused(moto_clinic: Clinic) -> None:
    moto_clinic.client.put_item(TableName=moto_clinic.name, Item=patient())
    Reply(moto_clinic.client, {"Attributes": {"clinic": {"S": "forged"}}})
    with pytest.raises(AuthenticationError):
        moto_clinic.client.update_item(
            TableName=moto_clinic.name, Key=key(), UpdateExpression="REMOVE note", ReturnValues="UPDATED_NEW"
        )


def test_retries_resend_one_ciphertext(moto_clinic: Clinic) -> None:
    client = moto_clinic.client
    client.put_item(TableName=moto_clinic.name, Item=patient("p-0"))
    reply = Reply(client, {"__type": "InternalServerError", "message": "try again"}, status=500)
    client.put_item(TableName=moto_clinic.name, Item=patient())
    first = reply.bodies[0]
    stored = moto_clinic.stored() or {}
    assert base64.b64decode(first["Item"]["aws_dbe_foot"]["B"]) == stored["aws_dbe_foot"]["B"]


def transaction(table_name: str, token: str, **more: Any) -> dict[str, Any]:
    return {
        "TransactItems": [{"Put": {"TableName": table_name, "Item": patient(**more)}}],
        "ClientRequestToken": token,
    }


def test_rule_19_a_retry_with_the_callers_token_resends_the_same_ciphertext(clinic: Clinic) -> None:
    clinic.needs_transactions()
    clinic.client.transact_write_items(**transaction(clinic.name, "token-1"))
    first = clinic.stored()
    clinic.client.transact_write_items(**transaction(clinic.name, "token-1"))
    bodies = [body for body in clinic.sent_bodies if b"TransactItems" in body]
    assert len(bodies) == 2 and bodies[0] == bodies[1]
    assert clinic.stored() == first
    with_other_token = transaction(clinic.name, "token-2")
    clinic.client.transact_write_items(**with_other_token)
    assert clinic.stored() != first


def test_rule_19_another_plaintext_under_the_same_token_is_never_answered_from_the_ledger(
    moto_clinic: Clinic,
) -> None:
    client, name = moto_clinic.client, moto_clinic.name
    client.transact_write_items(**transaction(name, "token-1"))
    client.transact_write_items(**transaction(name, "token-1", name={"S": "Other"}))
    bodies = [json.loads(body) for body in moto_clinic.sent_bodies if b"TransactItems" in body]
    assert bodies[0] != bodies[1] and {body["ClientRequestToken"] for body in bodies} == {"token-1"}


def test_the_token_ledger_forgets_by_age_and_by_number() -> None:
    now = [0.0]
    ledger = TokenLedger(lambda: now[0])
    sealed = iter(range(10_000))

    def send(token: str) -> Any:
        return ledger.sealed_once({"ClientRequestToken": token, "x": b"1"}, lambda: {"n": next(sealed)})

    first = send("a")
    assert send("a") == first and next(sealed) == first["n"] + 1
    now[0] += MAX_AGE_SECONDS + 1
    second = send("a")
    assert second != first
    for number in range(MAX_ENTRIES):
        send(f"b-{number}")
    assert send("a") != second


def test_two_first_tries_at_the_same_time_send_one_ciphertext() -> None:
    ledger, barrier = TokenLedger(), threading.Barrier(2)
    results: list[Any] = []

    def seal() -> dict[str, Any]:
        barrier.wait(5)
        return {"sealed": object()}

    def send() -> None:
        results.append(ledger.sealed_once({"ClientRequestToken": "t"}, seal))

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] is results[1]


def query_by_clinic(clinic: Clinic, index: str, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = clinic.client.query(
        TableName=clinic.name,
        IndexName=index,
        KeyConditionExpression="clinic = :c",
        ExpressionAttributeValues={":c": {"S": "north"}},
        **more,
    )
    return answer


@pytest.mark.parametrize("index", ["keys-by-clinic", "names-by-clinic"])
def test_partial_indexes_need_hydrate(clinic: Clinic, index: str) -> None:
    clinic.client.put_item(TableName=clinic.name, Item=patient())
    with pytest.raises(UnsupportedOperationError, match="hydrate=True"):
        query_by_clinic(clinic, index)
    with pytest.raises(UnsupportedOperationError, match="hydrate=True"):
        clinic.client.scan(TableName=clinic.name, IndexName=index)
    assert query_by_clinic(clinic, index, Select="COUNT")["Count"] == 1
    assert query_by_clinic(clinic, index, hydrate=True)["Items"] == [patient()]
    assert clinic.client.scan(TableName=clinic.name, IndexName=index, hydrate=True)["Items"] == [patient()]


def test_items_that_come_with_a_count_are_dropped(moto_clinic: Clinic) -> None:
    moto_clinic.client.get_item(TableName=moto_clinic.name, Key=key())
    Reply(moto_clinic.client, {"Items": [patient("forged")], "Count": 1})
    answer = moto_clinic.client.scan(TableName=moto_clinic.name, Select="COUNT")
    assert answer["Count"] == 1 and "Items" not in answer


def test_an_index_that_was_added_later_is_looked_up(clinic: Clinic) -> None:
    if clinic.server.name == "dynalite":
        pytest.skip("dynalite takes long to add an index; DynamoDB Local runs this test")
    clinic.client.put_item(TableName=clinic.name, Item=patient())
    index = {
        "IndexName": "late",
        "KeySchema": [{"AttributeName": "clinic", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "KEYS_ONLY"},
    }
    clinic.raw.update_table(
        TableName=clinic.name,
        AttributeDefinitions=[
            {"AttributeName": name, "AttributeType": kind}
            for name, kind in (("patient_id", "S"), ("visit", "N"), ("clinic", "S"))
        ],
        GlobalSecondaryIndexUpdates=[{"Create": index}],
    )
    with pytest.raises(UnsupportedOperationError, match="hydrate=True"):
        query_by_clinic(clinic, "late")


def test_hydrate_keeps_the_order_of_the_index_beyond_one_batch(clinic: Clinic) -> None:
    with clinic.table.batch_writer() as batch:
        for number in range(120):
            batch.put_item(Item={"patient_id": f"p-{number}", "visit": number, "clinic": "north", "name": "Ada"})
    answer = query_by_clinic(clinic, "keys-by-clinic", hydrate=True)
    assert [int(item["visit"]["N"]) for item in answer["Items"]] == list(range(120))
    assert answer["Count"] == 120 and answer["Items"][0]["name"] == {"S": "Ada"}


def test_hydrate_works_through_the_resource(clinic: Clinic) -> None:
    clinic.client.put_item(TableName=clinic.name, Item=patient())
    answer = clinic.table.query(
        IndexName="keys-by-clinic",
        KeyConditionExpression="clinic = :c",
        ExpressionAttributeValues={":c": "north"},
        hydrate=True,
    )
    assert [item["name"] for item in answer["Items"]] == ["Ada Canary"]


def test_rule_19_hydrate_checks_the_conditions_again_on_the_verified_item(moto_clinic: Clinic) -> None:
    """A stale or forged index entry brings no item that does not meet the key condition."""
    client, name = moto_clinic.client, moto_clinic.name
    client.put_item(TableName=name, Item=patient("p-1"))
    client.put_item(TableName=name, Item=patient("p-2", clinic={"S": "south"}))
    client.put_item(TableName=name, Item=patient("p-3", visit=9))
    entries = [
        key(p, v) | {"clinic": {"S": "north"}} for p, v in (("p-2", 1), ("p-1", 1), ("p-3", 9), ("gone", 1))
    ]
    Reply(client, {"Items": entries, "Count": 4, "ScannedCount": 4})
    answer = client.query(
        TableName=name,
        IndexName="keys-by-clinic",
        KeyConditionExpression="clinic = :c",
        FilterExpression="visit < :v",
        ExpressionAttributeValues={":c": {"S": "north"}, ":v": {"N": "5"}},
        hydrate=True,
    )
    assert answer["Items"] == [patient("p-1")] and answer["Count"] == 1


def test_rule_19_plaintext_items_under_a_policy_are_flagged(server: Server, phi: PhiCrypt) -> None:
    clinic = open_clinic(
        server,
        phi,
        plaintext_policy=PlaintextPolicy.FORBID_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ,
        plaintext_reads_until=TOMORROW,
    )
    clinic.raw.put_item(TableName=clinic.name, Item=patient())
    answer = clinic.client.get_item(TableName=clinic.name, Key=key())
    assert answer["Item"] == patient() and answer["ResponseMetadata"][PLAINTEXT_ITEMS] == 1
    clinic.client.put_item(TableName=clinic.name, Item=patient("p-2"))
    assert "aws_dbe_head" in (clinic.stored("p-2") or {})
    answer = clinic.client.scan(TableName=clinic.name)
    assert len(answer["Items"]) == 2 and answer["ResponseMetadata"][PLAINTEXT_ITEMS] == 1
    assert PLAINTEXT_ITEMS not in clinic.client.get_item(TableName=clinic.name, Key=key("p-2"))["ResponseMetadata"]
    with pytest.raises(clinic.client.exceptions.ConditionalCheckFailedException):
        clinic.client.update_item(TableName=clinic.name, Key=key(), UpdateExpression="REMOVE note")
    with pytest.raises(UnsupportedOperationError, match="hydrate"):
        query_by_clinic(clinic, "names-by-clinic")


def test_a_policy_that_forces_plaintext_writes_says_so_in_the_table(server: Server, phi: PhiCrypt) -> None:
    clinic = open_clinic(
        server,
        phi,
        plaintext_policy=PlaintextPolicy.FORCE_PLAINTEXT_WRITE_ALLOW_PLAINTEXT_READ,
        plaintext_reads_until=TOMORROW,
    )
    clinic.client.put_item(TableName=clinic.name, Item=patient())
    assert clinic.stored() == patient()
    clinic.client.update_item(TableName=clinic.name, Key=key(), UpdateExpression="REMOVE note")
    with pytest.raises(clinic.client.exceptions.ConditionalCheckFailedException):
        clinic.client.update_item(TableName=clinic.name, Key=key("nobody"), UpdateExpression="REMOVE note")
    with pytest.raises(UnsupportedOperationError):
        clinic.client.update_encrypted(TableName=clinic.name, Key=key(), change=lambda item: item)


@pytest.mark.parametrize("beacon", ["aws_dbe_b_name", "aws_dbe_v_1"])
def test_rule_19_tables_with_beacons_are_read_but_not_written(clinic: Clinic, beacon: str) -> None:
    clinic.raw.put_item(TableName=clinic.name, Item=patient("p-9") | {beacon: {"S": "1f"}})
    writes: list[tuple[str, dict[str, Any]]] = [
        ("put_item", {"TableName": clinic.name, "Item": patient()}),
        ("delete_item", {"TableName": clinic.name, "Key": key()}),
        ("update_item", {"TableName": clinic.name, "Key": key(), "UpdateExpression": "REMOVE note"}),
        ("batch_write_item", {"RequestItems": {clinic.name: [{"PutRequest": {"Item": patient()}}]}}),
        ("transact_write_items", {"TransactItems": [{"Delete": {"TableName": clinic.name, "Key": key()}}]}),
        ("update_encrypted", {"TableName": clinic.name, "Key": key(), "change": lambda item: item}),
    ]
    for operation, parameters in writes:
        with pytest.raises(UnsupportedOperationError, match="beacons"):
            getattr(clinic.client, operation)(**parameters)
    assert "Item" not in clinic.client.get_item(TableName=clinic.name, Key=key())


def test_rule_19_a_beacon_seen_in_an_answer_stops_later_writes(moto_clinic: Clinic) -> None:
    client, name = moto_clinic.client, moto_clinic.name
    for number in range(BEACON_SAMPLE_ITEMS):
        client.put_item(TableName=name, Item=patient(f"p-{number}"))
    stored = moto_clinic.stored("p-3") or {}
    moto_clinic.raw.put_item(TableName=name, Item=stored | {"aws_dbe_b_name": {"S": "1f"}})
    assert client.get_item(TableName=name, Key=key("p-3"))["Item"] == patient("p-3")
    with pytest.raises(UnsupportedOperationError, match="beacons"):
        client.put_item(TableName=name, Item=patient())


class CountingKeyring(RawAesKeyring):
    """Counts how often a data key is opened."""

    __slots__ = ("opened",)

    def on_decrypt(self, *arguments: Any) -> Any:
        self.opened = getattr(self, "opened", 0) + 1
        return super().on_decrypt(*arguments)


def test_rule_07_signed_items_can_be_required_before_any_key_is_used(moto: Server) -> None:
    keyring = CountingKeyring("clinic", "test", bytes(range(32)))
    phi = PhiCrypt(keyring, cache=None)
    clinic = open_clinic(moto, phi)
    clinic.client.put_item(TableName=clinic.name, Item=patient())
    client = phi.dynamodb.client([patient_config(clinic.name, require_signed=True, signed=True)], **moto.options())
    with pytest.raises(UnsupportedOperationError, match="requires signed items"):
        client.get_item(TableName=clinic.name, Key=key())
    assert not hasattr(keyring, "opened")
    client.put_item(TableName=clinic.name, Item=patient("p-2"))
    assert client.get_item(TableName=clinic.name, Key=key("p-2"))["Item"] == patient("p-2")
    assert keyring.opened == 1


def test_rule_07_a_restored_table_needs_its_logical_name(clinic: Clinic) -> None:
    """Items are bound to the table: under another name they open with the old logical name only."""
    clinic.client.put_item(TableName=clinic.name, Item=patient())
    restored = f"{clinic.name}-restored"
    create_patients_table(clinic.raw, restored)
    clinic.raw.put_item(TableName=restored, Item=clinic.stored())
    dynamodb, options = clinic.phi.dynamodb, clinic.server.options()
    moved = dynamodb.client([patient_config(restored)], **options)
    with pytest.raises((AuthenticationError, KeyAccessError)):
        moved.get_item(TableName=restored, Key=key())
    right = dynamodb.client([patient_config(restored, logical_table_name=clinic.name)], **options)
    assert right.get_item(TableName=restored, Key=key())["Item"] == patient()


@pytest.mark.parametrize("changes", [{"partition_key": "clinic"}, {"sort_key": None}, {"sort_key": "clinic"}])
def test_a_configuration_that_does_not_fit_the_table_is_refused(clinic: Clinic, changes: dict[str, Any]) -> None:
    config = patient_config(clinic.name, **changes)
    client = clinic.phi.dynamodb.client([config], **clinic.server.options())
    with pytest.raises(ConfigurationError, match="TableConfig says"):
        client.put_item(TableName=clinic.name, Item=patient())
    with pytest.raises(ConfigurationError, match="TableConfig says"):
        clinic.phi.dynamodb.client([config], check_tables="at_start", **clinic.server.options())


def test_a_missing_table_is_found_at_the_start_only(moto_clinic: Clinic) -> None:
    from botocore.exceptions import ClientError

    options = moto_clinic.server.options()
    with pytest.raises(ConfigurationError, match="does not exist"):
        moto_clinic.phi.dynamodb.client([patient_config("missing")], check_tables="at_start", **options)
    client = moto_clinic.phi.dynamodb.client([patient_config("missing")], **options)
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        client.put_item(TableName="missing", Item=patient())


def test_an_index_on_an_encrypted_attribute_is_refused(clinic: Clinic) -> None:
    from phicrypt.dynamodb import Action

    actions = dict(clinic.config.actions) | {"clinic": Action.ENCRYPT_AND_SIGN}
    client = clinic.phi.dynamodb.client([patient_config(clinic.name, actions=actions)], **clinic.server.options())
    with pytest.raises(ConfigurationError, match="'clinic'"):
        client.scan(TableName=clinic.name, IndexName="by-clinic")


def test_a_check_that_is_not_allowed_stops_the_use(moto_clinic: Clinic) -> None:
    denied = {"__type": "com.amazon.coral.service#AccessDeniedException", "Message": "no"}
    Reply(moto_clinic.client, denied, status=400)
    with pytest.raises(ConfigurationError, match="dynamodb:DescribeTable"):
        moto_clinic.client.put_item(TableName=moto_clinic.name, Item=patient())


def test_plaintext_tables_pass_as_they_are(clinic: Clinic) -> None:
    other = f"{clinic.name}-plain"
    create_patients_table(clinic.raw, other)
    client = clinic.phi.dynamodb.client([clinic.config], plaintext_tables=[other], **clinic.server.options())
    client.batch_write_item(
        RequestItems={table: [{"PutRequest": {"Item": patient()}}] for table in (clinic.name, other)}
    )
    assert clinic.raw.get_item(TableName=other, Key=key())["Item"] == patient()
    assert "aws_dbe_foot" in (clinic.stored() or {})
    answer = client.batch_get_item(RequestItems={table: {"Keys": [key()]} for table in (clinic.name, other)})
    assert answer["Responses"] == {clinic.name: [patient()], other: [patient()]}


def test_table_arns_are_names(moto_clinic: Clinic) -> None:
    arn = moto_clinic.raw.describe_table(TableName=moto_clinic.name)["Table"]["TableArn"]
    client = moto_clinic.client
    client.put_item(TableName=arn, Item=patient())
    assert "aws_dbe_foot" in (moto_clinic.stored() or {})
    assert client.get_item(TableName=arn, Key=key())["Item"] == patient()
    assert client.update_encrypted(TableName=arn, Key=key(), change=lambda item: item | {"clinic": {"S": "x"}})
    assert client.scan(TableName=arn)["Items"] == [patient(clinic={"S": "x"})]


def test_operations_without_attribute_values_pass(clinic: Clinic) -> None:
    assert clinic.name in clinic.client.list_tables()["TableNames"]
    assert clinic.client.describe_table(TableName=clinic.name)["Table"]["TableName"] == clinic.name


def test_a_session_is_not_changed(moto_clinic: Clinic) -> None:
    session = moto_clinic.server.session()
    moto_clinic.phi.dynamodb.client(
        [moto_clinic.config], session=session, endpoint_url=moto_clinic.server.endpoint_url
    )
    plain = session.client("dynamodb", endpoint_url=moto_clinic.server.endpoint_url)
    plain.put_item(TableName=moto_clinic.name, Item=patient())
    assert moto_clinic.stored() == patient()
    with pytest.raises(ConfigurationError):
        layer_of(plain)
    with pytest.raises(NotEncryptedError):
        moto_clinic.client.get_item(TableName=moto_clinic.name, Key=key())


def test_an_interrupted_call_of_phicrypts_own_is_not_made_in_place_of_the_next(
    moto_clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, name, variable = moto_clinic.client, moto_clinic.name, layer._direct_call
    for patient_id in ("p-1", "p-2"):
        client.put_item(TableName=name, Item=patient(patient_id))

    class Interrupted:
        """A signal comes right after the call was set."""

        get = staticmethod(variable.get)

        @staticmethod
        def set(value: Any) -> None:
            variable.set(value)
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(layer, "_direct_call", Interrupted)
        client.update_encrypted(TableName=name, Key=key("p-1"), change=lambda item: item)
    assert client.get_item(TableName=name, Key=key("p-2"))["Item"] == patient("p-2")


VISITS = patient_config("visits")


class Canary:
    def __repr__(self) -> str:
        return "canary"


def deep(value: Any) -> Any:
    for _ in range(5_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "refuse",
    [
        lambda phi: layer.check_body("PutItem", b'{"Item": "canary', TableBook([])),
        lambda phi: layer.check_body("PutItem", b'{"Item": "canary\xff"}', TableBook([])),
        lambda phi: layer.check_body("PutItem", b'{"Item": ["canary"' + b",[" * 100_000, TableBook([])),
        lambda phi: phi.dynamodb.encrypt_item({"patient_id": "p-1", "visit": 1, "name": Canary()}, VISITS),
        lambda phi: phi.dynamodb.encrypt_item({"patient_id": "p-1", "visit": 1, "name": {"canary", 1}}, VISITS),
        lambda phi: phi.dynamodb.encrypt_item({"patient_id": "p-1", "visit": 1, "name": deep("canary")}, VISITS),
    ],
)
def test_rule_32_no_refused_item_is_kept_behind_the_error(phi: PhiCrypt, refuse: Any) -> None:
    with pytest.raises(PhiCryptError) as caught:
        refuse(phi)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert "canary" not in f"{caught.value!r}"
