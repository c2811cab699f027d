"""Patients found by encrypted attributes, through boto3's verbs (rules 36 to 38)."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from typing import Any

import pytest
from support.dynamodb_support import Server
from support.searched_tables import VERSION, config, create, everything, patient, static_keyring

from phicrypt import PhiCrypt
from phicrypt.audit import RecordingSink
from phicrypt.dynamodb import Action, TableConfig, attributes_of_context
from phicrypt.dynamodb import search as s
from phicrypt.dynamodb.beacon_keys import beacon_keys_of
from phicrypt.dynamodb.typed_lookups import Ask
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    KeyAccessError,
    PhiCryptError,
    UnsupportedOperationError,
)
from phicrypt.keys.branch_keys.keyring import HierarchicalKeyring
from phicrypt.keys.branch_keys.values import BeaconKey, BranchKey
from phicrypt.testing import StaticBranchKeyStore

FALSE_POSITIVES = "PhiCryptFalsePositives"


@dataclass
class Searched:
    phi: PhiCrypt
    config: TableConfig
    raw: Any
    client: Any
    resource: Any
    sink: RecordingSink

    @property
    def name(self) -> str:
        return self.config.table_name

    def put(self, number: int, **values: Any) -> None:
        self.client.put_item(TableName=self.name, Item=patient(number, **values))

    def found(self, text: str, values: dict[str, Any], **more: Any) -> list[str]:
        answer = self.client.scan(
            TableName=self.name, FilterExpression=text, ExpressionAttributeValues=values, **more
        )
        assert answer["Count"] == len(answer["Items"])
        return sorted(item["patient_id"]["S"] for item in answer["Items"])


def searched(
    server: Server,
    search: s.SearchConfig | None = None,
    keyring: Any = None,
    projection: str = "ALL",
    **actions: Action,
) -> Searched:
    table = config(f"patients-{uuid.uuid4().hex[:8]}", search, **actions)
    raw, sink = server.raw_client(), RecordingSink()
    create(raw, table.table_name, projection=projection)
    phi = PhiCrypt(keyring or static_keyring(), audit=[sink])
    options = server.options()
    return Searched(
        phi,
        table,
        raw,
        phi.dynamodb.client([table], **options),
        phi.dynamodb.resource([table], **options),
        sink,
    )


@pytest.fixture
def clinic(moto: Server) -> Searched:
    clinic = searched(moto)
    for number in range(12):
        clinic.put(number)
    return clinic


def by_mrn(clinic: Searched, mrn: str, **more: Any) -> Any:
    return clinic.client.query(
        TableName=clinic.name,
        IndexName="by-mrn",
        KeyConditionExpression="mrn = :m",
        ExpressionAttributeValues={":m": {"S": mrn}},
        **more,
    )


def test_a_patient_is_found_by_record_number_and_others_with_its_hash_are_not(clinic: Searched) -> None:
    answer = by_mrn(clinic, "A-7")
    assert [item["patient_id"]["S"] for item in answer["Items"]] == ["p7"]
    assert answer["Items"] == [patient(7) | {"where": {"S": "c:south"}}]
    assert answer["Count"] == 1
    assert answer["ResponseMetadata"]["PhiCryptIncompleteSearch"]
    assert answer["ScannedCount"] == 1 + answer["ResponseMetadata"][FALSE_POSITIVES] > 1


def test_rule_36_no_value_leaves_in_clear(clinic: Searched, caplog: pytest.LogCaptureFixture) -> None:
    bodies: list[bytes] = []
    clinic.client.meta.events.register("before-send.dynamodb.*", lambda request, **_: bodies.append(request.body))
    with caplog.at_level(logging.DEBUG):
        by_mrn(clinic, "A-7")
        clinic.found("city = :c AND email_lower = :e", {":c": {"S": "Oslo"}, ":e": {"S": "user7@example.org"}})
    sent = b"".join(bodies)
    assert sent.count(b"aws_dbe_b_") == 3
    for value in (b"A-7", b"Oslo", b"user7@example.org"):
        assert value not in sent
        assert value.decode() not in caplog.text
        assert value.decode() not in repr(clinic.sink.events)


def test_rule_37_a_false_positive_is_opened_and_its_event_says_that_nobody_got_it(clinic: Searched) -> None:
    known = len(clinic.sink.events)
    answer = by_mrn(clinic, "A-7")
    events = clinic.sink.events[known:]
    ends = [event for event in events if event.kind == "end"]
    released = [event for event in ends if (event.detail or {}).get("released") != 0]
    assert (len(released), len(ends)) == (1, answer["ScannedCount"])
    (lookup,) = [event for event in events if event.operation == "dynamodb.query.lookup"]
    assert lookup.detail == {"table": clinic.name, "beacons": "mrn"}


def test_count_counts_what_matches(clinic: Searched) -> None:
    answer = by_mrn(clinic, "A-7", Select="COUNT")
    assert (answer["Count"], "Items" in answer) == (1, False)


def test_filters_resources_and_paginators(clinic: Searched) -> None:
    assert clinic.found("last_name = :n", {":n": {"S": "Ng"}}) == ["p1", "p10", "p4", "p7"]
    assert clinic.found("lookup = :l", {":l": {"S": "C-south^L-Ng"}}) == ["p1", "p7"]
    assert clinic.found("begins_with(lookup, :l)", {":l": {"S": "C-south^L-S"}}) == ["p3", "p9"]
    assert clinic.found("#t = :w", {":w": {"S": "c:north"}}, ExpressionAttributeNames={"#t": "where"}) == [
        "p0",
        "p10",
        "p2",
        "p4",
        "p6",
        "p8",
    ]
    assert clinic.found("contains(tags, :t)", {":t": {"S": "t3"}}) == ["p11", "p3", "p7"]
    table = clinic.resource.Table(clinic.name)
    answer = table.query(
        IndexName="by-email",
        KeyConditionExpression="email_lower = :e",
        ExpressionAttributeValues={":e": "user3@example.org"},
    )
    assert [item["patient_id"] for item in answer["Items"]] == ["p3"]
    pages = clinic.client.get_paginator("scan").paginate(
        TableName=clinic.name,
        FilterExpression="last_name = :n AND clinic = :c",
        ExpressionAttributeValues={":n": {"S": "Smith"}, ":c": {"S": "north"}},
        PaginationConfig={"PageSize": 3},
    )
    assert sorted(item["patient_id"]["S"] for page in pages for item in page["Items"]) == ["p0", "p6"]


def test_pages_of_an_index_go_on_after_their_last_item(clinic: Searched) -> None:
    found, start = [], None
    while True:
        answer = clinic.client.query(
            TableName=clinic.name,
            IndexName="by-lookup",
            KeyConditionExpression="lookup = :l",
            ExpressionAttributeValues={":l": {"S": "C-south^L-Ng"}},
            Limit=1,
            **({} if start is None else {"ExclusiveStartKey": start}),
        )
        found += [item["patient_id"]["S"] for item in answer["Items"]]
        if (start := answer.get("LastEvaluatedKey")) is None:
            break
    assert sorted(found) == ["p1", "p7"]


def test_an_index_of_keys_only_is_hydrated(moto: Server) -> None:
    clinic = searched(moto, projection="KEYS_ONLY")
    for number in range(6):
        clinic.put(number)
    with pytest.raises(UnsupportedOperationError, match="hydrate=True"):
        by_mrn(clinic, "A-3")
    assert [item["patient_id"]["S"] for item in by_mrn(clinic, "A-3", hydrate=True)["Items"]] == ["p3"]
    assert by_mrn(clinic, "A-3", Select="COUNT")["Count"] == 1


@pytest.mark.parametrize(
    ("text", "values", "why"),
    [
        ("NOT mrn = :v", {":v": {"S": "A-1"}}, "NOT over a beacon"),
        ("mrn <> :v", {":v": {"S": "A-1"}}, "<> over"),
        ("lookup <> :v", {":v": {"S": "C-north^L-Ng"}}, "<> over"),
        ("mrn > :v", {":v": {"S": "A-1"}}, "no order"),
        ("begins_with(mrn, :v)", {":v": {"S": "A-"}}, "no part of a value"),
        ("address.city = :v", {":v": {"S": "Rome"}}, "encrypted"),
        ("email = :v", {":v": {"S": "canary"}}, "encrypted"),
        ("attribute_exists(lookup)", {}, "made of"),
        ("attribute_not_exists(email_lower)", {}, "made of"),
        ("size(mrn) > :v", {":v": {"N": "3"}}, "no size"),
        ("lookup = :v", {":v": {"N": "3"}}, "text"),
        ("mrn = :v OR aws_dbe_b_mrn = :v", {":v": {"S": "A-1"}}, "has no action"),
    ],
)
def test_what_a_beacon_cannot_answer_is_refused_before_the_network(
    clinic: Searched, text: str, values: dict[str, Any], why: str
) -> None:
    sent: list[Any] = []
    clinic.client.meta.events.register("before-send.dynamodb.Scan", lambda request, **_: sent.append(request))
    known = len(clinic.sink.events)
    parameters = {"ExpressionAttributeValues": values} if values else {}
    with pytest.raises((UnsupportedOperationError, ConfigurationError), match=why) as caught:
        clinic.client.scan(TableName=clinic.name, FilterExpression=text, **parameters)
    assert (sent, "canary" in str(caught.value), "Rome" in str(caught.value)) == ([], False, False)
    assert clinic.sink.events[known:] == []  # no key was opened for it


def test_rule_18_every_way_to_write_keeps_beacons_current(clinic: Searched) -> None:
    client, name = clinic.client, clinic.name
    moved = patient(20, mrn={"S": "B-20"})
    client.batch_write_item(RequestItems={name: [{"PutRequest": {"Item": moved}}]})
    client.transact_write_items(TransactItems=[{"Put": {"TableName": name, "Item": patient(21)}}])
    with clinic.resource.Table(name).batch_writer() as batch:
        batch.put_item(Item={"patient_id": "p22", "mrn": "B-22", "clinic": "north"})
    for mrn, wanted in (("B-20", "p20"), ("A-21", "p21"), ("B-22", "p22")):
        assert [item["patient_id"]["S"] for item in by_mrn(clinic, mrn)["Items"]] == [wanted]

    def renumber(item: dict[str, Any]) -> None:
        item["mrn"] = {"S": "C-20"}
        del item["email"]

    client.update_encrypted(TableName=name, Key={"patient_id": {"S": "p20"}}, change=renumber)
    assert [item["patient_id"]["S"] for item in by_mrn(clinic, "C-20")["Items"]] == ["p20"]
    assert by_mrn(clinic, "B-20")["Count"] == 0
    stored = clinic.raw.get_item(TableName=name, Key={"patient_id": {"S": "p20"}})["Item"]
    assert "aws_dbe_b_email_lower" not in stored
    client.update_item(
        TableName=name,
        Key={"patient_id": {"S": "p20"}},
        UpdateExpression="SET note = :n",
        ExpressionAttributeValues={":n": {"S": "call"}},
    )
    assert clinic.raw.get_item(TableName=name, Key={"patient_id": {"S": "p20"}})["Item"] == stored | {
        "note": {"S": "call"}
    }


def test_an_item_whose_beacon_cannot_be_computed_is_not_written(clinic: Searched) -> None:
    for values in (
        {"last_name": {"S": "Can^ary"}},
        {"clinic": {"S": "nor^canary"}},
        {"email": {"M": {"canary": {"S": "x"}}}},
        {"tags": {"S": "canary"}},
        {"where": {"S": "canary"}},
    ):
        with pytest.raises(ConfigurationError) as caught:
            clinic.put(30, **values)
        assert "canary" not in str(caught.value).lower()
    assert "Item" not in clinic.raw.get_item(TableName=clinic.name, Key={"patient_id": {"S": "p30"}})


def test_rule_38_beacons_that_the_configuration_does_not_know_stop_writes(clinic: Searched, moto: Server) -> None:
    fewer = s.SearchConfig([s.StandardBeacon("mrn", bits=2)])
    client = clinic.phi.dynamodb.client([config(clinic.name, fewer)], **moto.options())
    assert client.get_item(TableName=clinic.name, Key={"patient_id": {"S": "p1"}})["Item"]["mrn"] == {"S": "A-1"}
    with pytest.raises(UnsupportedOperationError, match="does not know"):
        client.put_item(TableName=clinic.name, Item=patient(1))


def test_a_beacon_key_that_cannot_be_had_is_a_refusal_and_not_a_scan(moto: Server) -> None:
    clinic = searched(moto, everything(beacon_key=s.SingleBeaconKey("tenant-8")))
    with pytest.raises(KeyAccessError):
        clinic.put(1)
    with pytest.raises(KeyAccessError):
        by_mrn(clinic, "A-1")


# Partitions


def spread(moto: Server) -> Searched:
    clinic = searched(
        moto,
        everything(max_partitions=3, partition_of=lambda item, count, _: int(item["patient_id"]["S"][1:]) % count),
    )
    for number in range(9):
        clinic.put(number, mrn={"S": "same"})
    return clinic


def test_rule_38_one_partition_is_not_taken_for_all(moto: Server) -> None:
    clinic = spread(moto)
    with pytest.raises(UnsupportedOperationError, match="3 partitions"):
        by_mrn(clinic, "same")
    found = []
    for partition in range(3):
        answer = clinic.client.query(
            TableName=clinic.name,
            IndexName="by-mrn",
            KeyConditionExpression="mrn = :m",
            ExpressionAttributeValues={":m": {"S": "same"}, ":aws_dbe_partition": {"N": str(partition)}},
        )
        found += [item["patient_id"]["S"] for item in answer["Items"]]
    assert sorted(found) == [f"p{number}" for number in range(9)]
    with pytest.raises(ConfigurationError):
        clinic.client.query(
            TableName=clinic.name,
            IndexName="by-mrn",
            KeyConditionExpression="mrn = :m",
            ExpressionAttributeValues={":m": {"S": "same"}, ":aws_dbe_partition": {"N": "3"}},
        )
    assert len(clinic.found("mrn = :m", {":m": {"S": "same"}})) == 9


# Tenants


class TwoTenants(StaticBranchKeyStore):
    """Branch keys and beacon keys of two clinics."""

    def fetch_active(self, branch_key_id: str) -> BranchKey:
        return BranchKey(branch_key_id, VERSION, branch_key_id.encode().ljust(32, b"k"))

    def fetch_version(self, branch_key_id: str, version: str) -> BranchKey:
        return self.fetch_active(branch_key_id)

    def fetch_beacon_key(self, branch_key_id: str) -> BeaconKey:
        return BeaconKey(branch_key_id, branch_key_id.encode().ljust(32, b"b"))


def tenants(moto: Server) -> Searched:
    store = TwoTenants("tenant-7", VERSION, bytes(32), bytes(32))
    keyring = HierarchicalKeyring(store, lambda context: attributes_of_context(context)["clinic"]["S"])
    return searched(
        moto,
        everything(beacon_key=s.BeaconKeyByAttribute("clinic")),
        keyring,
        clinic=Action.SIGN_AND_INCLUDE_IN_CONTEXT,
    )


def test_each_tenant_is_asked_under_its_own_beacon_key(moto: Server) -> None:
    clinic = tenants(moto)
    for number in range(8):
        clinic.put(number, mrn={"S": "same"}, email={"S": "same@example.org"})
    values = {":m": {"S": "same"}, ":c": {"S": "north"}}
    assert clinic.found("mrn = :m AND clinic = :c", values) == ["p0", "p2", "p4", "p6"]
    by_lookup = clinic.client.query(
        TableName=clinic.name,
        IndexName="by-lookup",
        KeyConditionExpression="#l = :l",
        ExpressionAttributeNames={"#l": "lookup"},
        ExpressionAttributeValues={":l": {"S": "C-south^L-Ng"}},
    )
    assert sorted(item["patient_id"]["S"] for item in by_lookup["Items"]) == ["p1", "p7"]
    stored = [
        clinic.raw.get_item(TableName=clinic.name, Key={"patient_id": {"S": f"p{n}"}})["Item"] for n in (0, 1)
    ]
    assert stored[0]["aws_dbe_b_email_lower"] != stored[1]["aws_dbe_b_email_lower"]
    for text in ("mrn = :m", "mrn = :m OR clinic = :c", "mrn = :m AND (clinic = :c OR clinic = :c)"):
        given = {name: value for name, value in values.items() if name in text}
        with pytest.raises(UnsupportedOperationError, match="names one tenant"):
            clinic.found(text, given)


def test_an_item_under_another_tenants_key_is_not_written(moto: Server) -> None:
    store = TwoTenants("tenant-7", VERSION, bytes(32), bytes(32))
    keyring = HierarchicalKeyring(store, branch_key_id="north")
    clinic = searched(moto, everything(beacon_key=s.BeaconKeyByAttribute("clinic")), keyring)
    clinic.put(0)
    with pytest.raises(ConfigurationError, match="does not name the branch key"):
        clinic.put(1)


def test_rule_28_a_beacon_key_that_changed_in_memory_is_opened_anew(clinic: Searched) -> None:
    keys = beacon_keys_of(clinic.phi.session, everything())
    (kept, was_cached) = keys.hashes("tenant-7")
    assert was_cached
    genuine = kept.beacon_key.key_bytes
    kept.beacon_key.key_bytes = bytes([genuine[0] ^ 1]) + genuine[1:]
    (opened, was_cached) = keys.hashes("tenant-7")
    assert (was_cached, opened is kept) == (False, False)


AWKWARD: tuple[Any, ...] = (
    *("canary", None, 5, {}),
    *({"S": 5}, {"N": "canary"}, {"S": "x", "N": "1"}, {"SS": 5}, {"M": "canary"}, {"L": 7}),
)


def test_rule_32_what_is_no_attribute_value_is_refused_in_our_own_words(clinic: Searched) -> None:
    for name in ("clinic", "last_name", "tags", "address"):
        for value in AWKWARD:
            with pytest.raises(PhiCryptError) as caught:
                clinic.phi.dynamodb.encrypt_item(patient(1, **{name: value}), clinic.config)
            assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["mrn = :v", "contains(tags, :v)", "tags = :v", "contains(:v, mrn)", "lookup = :v"]
)
def test_rule_32_what_is_no_value_is_not_asked_for(clinic: Searched, text: str) -> None:
    for value in AWKWARD:
        with pytest.raises(PhiCryptError) as caught:
            clinic.client.scan(
                TableName=clinic.name, FilterExpression=text, ExpressionAttributeValues={":v": value}
            )
        assert "canary" not in str(caught.value)


def test_rule_36_what_holds_a_question_does_not_show_it() -> None:
    ask = Ask("query", {"ExpressionAttributeValues": {":v": {"S": "canary"}}}, (None,))
    assert "canary" not in f"{ask!r} {ask}"


@pytest.mark.parametrize("operation", ["Query", "Scan"])
def test_rule_27_an_answer_whose_items_are_missing_is_not_read_as_none(clinic: Searched, operation: str) -> None:
    def drop(parsed: dict[str, Any], **_: Any) -> None:
        parsed.pop("Items", None)

    clinic.client.meta.events.register_first(f"after-call.dynamodb.{operation}", drop)
    with pytest.raises(AuthenticationError):
        if operation == "Query":
            by_mrn(clinic, "A-7")
        else:
            clinic.client.scan(TableName=clinic.name)
