"""Items between phicrypt and AWS's DB-ESDK for Java, live, in both directions."""

from __future__ import annotations

import base64
import itertools
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest
from interop.dbesdk_java import JavaCounterpart, JavaRefusedError, JavaUnavailableError, java_counterpart
from interop.dynamodb_local import ServerUnavailableError, dynamodb_local
from support.dbesdk_support import (
    item_of_every_type,
    patient,
    patients,
    phi_with,
    random_table_and_item,
    raw_aes_keyring,
    table_of_every_type,
)
from support.random_items import random_shape

from phicrypt import BranchKeyStore, HierarchicalKeyring
from phicrypt.dynamodb import Action, TableConfig
from phicrypt.dynamodb.items import open_item, seal_item
from phicrypt.errors import PhiCryptError
from phicrypt.formats.dbesdk.attributes import serialize
from phicrypt.testing import local_aws

WRAPPING_KEY = os.urandom(32)
JAVA_RAW_AES = {
    "namespace": "clinic",
    "name": "key-1",
    "wrappingKey": base64.b64encode(WRAPPING_KEY).decode(),
}
# Without empty sets, which DynamoDB does not take.
UNUSUAL: dict[str, Any] = {
    "long number": {"N": "12345678901234567890123456789012345678"},
    "small number": {"N": "1e-130"},
    "large number": {"N": "-9.99E125"},
    "padded number": {"N": "+00012.3400"},
    "zero": {"N": "-0.00"},
    "point first": {"N": ".5"},
    "number set": {"NS": ["3", "1.50", "-2e3", "100"]},
    "utf-16 set": {"SS": ["\uff61", "\U00010002", "\ud7ff", "A", "\U00020002", ""]},
    "binary set": {"BS": [b"\xff", b"", b"\x00\x01", b"\x00"]},
    "utf-16 map": {"M": {"\uff61": {"S": "1"}, "\U00010002": {"S": "2"}, "A": {"N": "1.0"}}},
    "\U00020002\U00010001": {"S": "name of two surrogate pairs"},
    "A퀀﹌\U00010001": {"L": [{"BOOL": False}]},
    "a.b": {"S": "dot"},
    "$.['a']": {"S": "path"},
    "ä" * 60: {"S": "long name"},
}


@pytest.fixture(scope="module")
def java() -> Iterator[JavaCounterpart]:
    try:
        with java_counterpart() as counterpart:
            yield counterpart
    except JavaUnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def phi() -> Any:
    return phi_with(raw_aes_keyring(WRAPPING_KEY))


def in_normal_form(item: dict[str, Any]) -> dict[str, tuple[bytes, bytes]]:
    return {name: serialize(value) for name, value in item.items()}


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"S": "x"}
    for level in range(depth - 1):
        value = {"L": [value]} if level % 2 else {"M": {"m": value}}
    return value


def tables_and_items() -> Iterator[tuple[str, TableConfig, dict[str, Any]]]:
    for action, signed in itertools.product(
        (Action.ENCRYPT_AND_SIGN, Action.SIGN_ONLY, Action.SIGN_AND_INCLUDE_IN_CONTEXT), (False, True)
    ):
        for version_2 in (False, True):
            if action is Action.SIGN_AND_INCLUDE_IN_CONTEXT and not version_2:
                continue
            name = f"{action.name}-{'signed' if signed else 'unsigned'}-v{1 + version_2}"
            table = table_of_every_type(action, include_in_context=version_2, signed=signed)
            yield name, table, item_of_every_type()
    for action in (Action.ENCRYPT_AND_SIGN, Action.SIGN_ONLY):
        actions = {"patient_id": Action.SIGN_ONLY, **dict.fromkeys(UNUSUAL, action)}
        table = TableConfig("unusual-" + action.name, "patient_id", actions=actions)
        yield f"unusual-{action.name}", table, {"patient_id": {"N": "007.0"}, **UNUSUAL}
    context = dict.fromkeys(("patient_id", *UNUSUAL), Action.SIGN_AND_INCLUDE_IN_CONTEXT)
    table = TableConfig("unusual-context", "patient_id", actions=context)
    yield "unusual-context", table, {"patient_id": {"B": b"\x00\xff"}, **UNUSUAL}
    yield "sort-key", patients(unsigned_prefix=None), patient()
    included = dict.fromkeys(("patient_id", "visit", "clinic"), Action.SIGN_AND_INCLUDE_IN_CONTEXT)
    table = patients(unsigned_prefix=None, actions={**patients().actions, **included})
    yield "sort-key-v2", table, patient(visit={"N": "07.50"})
    yield "deep", patients(unsigned_prefix=None), patient(name=nested(32), clinic=nested(31))


CASES = [pytest.param(table, item, id=name) for name, table, item in tables_and_items()]


@pytest.mark.parametrize(("table", "item"), CASES)
def test_java_reads_what_phicrypt_writes(
    java: JavaCounterpart, phi: Any, table: TableConfig, item: dict[str, Any]
) -> None:
    stored = seal_item(phi.session, item, table).item
    assert in_normal_form(java.decrypt(stored, table, JAVA_RAW_AES)) == in_normal_form(item)


@pytest.mark.parametrize(("table", "item"), CASES)
def test_phicrypt_reads_what_java_writes(
    java: JavaCounterpart, phi: Any, table: TableConfig, item: dict[str, Any]
) -> None:
    stored = java.encrypt(item, table, JAVA_RAW_AES)
    assert in_normal_form(open_item(phi.session, stored, table).item) == in_normal_form(item)


def test_both_refuse_the_same_changes(java: JavaCounterpart, phi: Any) -> None:
    table = patients(unsigned_prefix=None)
    stored = seal_item(phi.session, patient(), table).item
    foot = stored["aws_dbe_foot"]["B"]
    for changed in (
        {**stored, "clinic": {"S": "south"}},
        {**stored, "clinic": {"B": b"north"}},
        {**stored, "patient_id": {"S": "p-2"}},
        {**stored, "added": {"S": "x"}},
        {name: value for name, value in stored.items() if name != "name"},
        {**stored, "aws_dbe_foot": {"B": bytes([foot[0] ^ 1]) + foot[1:]}},
    ):
        with pytest.raises(JavaRefusedError):
            java.decrypt(changed, table, JAVA_RAW_AES)
        with pytest.raises(PhiCryptError):
            open_item(phi.session, changed, table)


def test_random_items_agree(java: JavaCounterpart, phi: Any) -> None:
    for seed in range(int(os.environ.get("PHICRYPT_FUZZ_CASES", "40"))):
        table, item = random_table_and_item(random.Random(seed))
        ours = seal_item(phi.session, item, table).item
        assert in_normal_form(java.decrypt(ours, table, JAVA_RAW_AES)) == in_normal_form(item), seed
        theirs = java.encrypt(item, table, JAVA_RAW_AES)
        assert in_normal_form(open_item(phi.session, theirs, table).item) == in_normal_form(item), seed
        assert theirs.keys() == ours.keys()


def test_random_shapes_are_equal_both_ways(java: JavaCounterpart) -> None:
    """Numbers in every form, empty names, sets, depth 32; with ``PHICRYPT_FUZZ_CASES=2000``, 2,000 items."""
    phi = phi_with(raw_aes_keyring(WRAPPING_KEY), guard=None)
    for seed in range(int(os.environ.get("PHICRYPT_FUZZ_CASES", "40"))):
        table, item = random_shape(random.Random(seed))
        ours = seal_item(phi.session, item, table).item
        assert in_normal_form(java.decrypt(ours, table, JAVA_RAW_AES)) == in_normal_form(item), seed
        theirs = java.encrypt(item, table, JAVA_RAW_AES)
        assert in_normal_form(open_item(phi.session, theirs, table).item) == in_normal_form(item), seed
        assert theirs.keys() == ours.keys()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    try:
        with dynamodb_local() as url:
            yield url
    except ServerUnavailableError as reason:
        pytest.skip(str(reason))


def plain_client(endpoint: str) -> Any:
    import boto3

    return boto3.client(
        "dynamodb",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("version_2", [False, True], ids=["v1", "v2"])
def test_services_share_a_table_of_dynamodb_local(
    java: JavaCounterpart, phi: Any, endpoint: str, signed: bool, version_2: bool
) -> None:
    base = table_of_every_type(Action.ENCRYPT_AND_SIGN, include_in_context=version_2, signed=signed)
    name = f"types-{signed}-{version_2}"
    table = TableConfig(name, "patient_id", actions=base.actions, logical_table_name="types", signed=signed)
    client = plain_client(endpoint)
    client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "patient_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "patient_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    item = item_of_every_type()
    ours = {**item, "patient_id": {"S": "from-phicrypt"}}
    theirs = {**item, "patient_id": {"S": "from-java"}}
    client.put_item(TableName=name, Item=seal_item(phi.session, ours, table).item)
    java.put(theirs, table, JAVA_RAW_AES, endpoint)
    answer = java.get({"patient_id": {"S": "from-phicrypt"}}, table, JAVA_RAW_AES, endpoint)
    assert in_normal_form(answer) == in_normal_form(ours)
    stored = client.get_item(TableName=name, Key={"patient_id": {"S": "from-java"}})["Item"]
    assert stored["text"].keys() == {"B"}
    assert in_normal_form(open_item(phi.session, stored, table).item) == in_normal_form(theirs)


@pytest.fixture(scope="module")
def key_store() -> Iterator[tuple[HierarchicalKeyring, dict[str, Any]]]:
    """One branch key store for both sides: phicrypt's keyring, and what Java makes its own of."""
    with local_aws() as aws:
        store = BranchKeyStore(
            "key-store",
            "clinic-keys",
            aws.kms_key_arn,
            dynamodb_client=aws.client("dynamodb"),
            kms_client=aws.client("kms"),
        )
        store.create_table()
        branch_key_id = store.create_key(context={"tenant": "clinic-7"})
        java_keyring = {
            "endpoint": aws.endpoint_url,
            "kmsEndpoint": aws.endpoint_url,
            "storeTable": "key-store",
            "logicalName": "clinic-keys",
            "kmsKeyArn": aws.kms_key_arn,
            "branchKeyId": branch_key_id,
        }
        yield HierarchicalKeyring(store, branch_key_id=branch_key_id), java_keyring


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_services_share_a_branch_key_store(
    java: JavaCounterpart, key_store: tuple[HierarchicalKeyring, dict[str, Any]], signed: bool
) -> None:
    keyring, java_keyring = key_store
    phi = phi_with(keyring)
    table = patients(unsigned_prefix=None, signed=signed)
    ours = seal_item(phi.session, patient(), table).item
    assert java.decrypt(ours, table, java_keyring) == patient()
    theirs = java.encrypt(patient(), table, java_keyring)
    assert open_item(phi.session, theirs, table).item == patient()
