"""A clinic's patients in DynamoDB: what the console shows, tampering, a transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from phicrypt.client import PhiCrypt
from phicrypt.demo.stage import Stage
from phicrypt.dynamodb import Action, TableConfig
from phicrypt.errors import AuthenticationError, KeyAccessError, PhiCryptError, UnsupportedOperationError
from phicrypt.keys.branch_keys.keyring import HierarchicalKeyring
from phicrypt.keys.branch_keys.store import BranchKeyStore

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

    from phicrypt.dynamodb.boto3_types import EncryptingClient, EncryptingTable

_TABLE: Final = "demo-patients"
_KEY_TABLE: Final = "demo-branch-keys"
_NAMES: Final = ("Ada Example", "Bela Sample", "Chidi Specimen")
_CONFIG: Final = TableConfig(
    table_name=_TABLE,
    partition_key="patient_id",
    actions={
        "patient_id": Action.SIGN_ONLY,
        "name": Action.ENCRYPT_AND_SIGN,
        "conditions": Action.ENCRYPT_AND_SIGN,
        "clinic": Action.SIGN_ONLY,
        "last_seen": Action.DO_NOTHING,
    },
    unsigned_attributes=("last_seen",),
)


def tell(stage: Stage) -> None:
    stage.chapter("A clinic's patients in DynamoDB")
    raw = stage.aws.client("dynamodb")
    phi = PhiCrypt(_keyring(stage, raw))
    options: dict[str, Any] = {"session": stage.aws.session(), "endpoint_url": stage.aws.endpoint_url}
    dynamodb = phi.dynamodb
    resource = dynamodb.resource([_CONFIG], **options)
    client = dynamodb.client([_CONFIG], **options)
    _create_table(raw, _TABLE)
    _write_and_look(stage, resource.Table(_TABLE), raw)
    _attack(stage, client, raw)
    _transact(stage, client, raw)
    _change(stage, client)


def _keyring(stage: Stage, raw: DynamoDBClient) -> HierarchicalKeyring:
    store = BranchKeyStore(
        _KEY_TABLE,
        "demo-branch-keys",
        stage.aws.kms_key_arn,
        dynamodb_client=raw,
        kms_client=stage.aws.client("kms"),
    )
    store.create_table()
    return HierarchicalKeyring(store, branch_key_id=store.create_key())


def _create_table(raw: DynamoDBClient, name: str) -> None:
    raw.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "patient_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "patient_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )


def _write_and_look(stage: Stage, table: EncryptingTable, raw: DynamoDBClient) -> None:
    stage.say("Three patients are written through boto3's resource, with batch_writer:")
    calls_before = stage.kms_calls()
    with table.batch_writer() as batch:
        for number, name in enumerate(_NAMES, 1):
            batch.put_item(
                Item={
                    "patient_id": f"p-{number}",
                    "name": name,
                    "conditions": ["asthma"],
                    "clinic": "north",
                    "last_seen": "2026-01-07",
                }
            )
    stage.show(
        "KMS calls", f"{stage.kms_calls() - calls_before}: the branch key is opened twice, items derive from it"
    )
    stored = _stored(raw, "p-1")
    stage.say("What the DynamoDB console shows of the first one:")
    for attribute in ("patient_id", "clinic", "last_seen", "name", "conditions", "aws_dbe_head"):
        ((_, value),) = stored[attribute].items()
        stage.show(attribute, value)
    everything = repr(raw.scan(TableName=_TABLE)["Items"])
    stage.check(not any(name in everything for name in _NAMES), "no name is stored in clear")
    read = table.get_item(Key={"patient_id": "p-1"})["Item"]
    stage.check(read["name"] == _NAMES[0], "the same call as always reads it back in clear")
    stage.check(stage.kms_calls() - calls_before <= 2, "and reading took none: the second opening serves it")


def _attack(stage: Stage, client: EncryptingClient, raw: DynamoDBClient) -> None:
    first, second = _stored(raw, "p-1"), _stored(raw, "p-2")
    stage.say("Somebody with write access changes the clinic, which is readable but signed:")
    raw.put_item(TableName=_TABLE, Item=first | {"clinic": {"S": "south"}})
    stage.check(_refused(stage, lambda: _get(client, "p-1")), "the item is refused")
    stage.say("The items of two patients are swapped, each whole and unchanged:")
    raw.put_item(TableName=_TABLE, Item=second | {"patient_id": {"S": "p-1"}})
    raw.put_item(TableName=_TABLE, Item=first | {"patient_id": {"S": "p-2"}})
    stage.check(
        _refused(stage, lambda: _get(client, "p-1")) and _refused(stage, lambda: _get(client, "p-2")),
        "both are refused: an item is bound to its own key",
    )
    for item in (first, second):
        raw.put_item(TableName=_TABLE, Item=item)
    stage.say("A filter on an encrypted attribute would silently find nobody:")
    stage.check(
        _refused(
            stage,
            lambda: client.scan(
                TableName=_TABLE,
                FilterExpression="#n = :n",
                ExpressionAttributeNames={"#n": "name"},
                ExpressionAttributeValues={":n": {"S": _NAMES[0]}},
            ),
        ),
        "so it is an error that names the attribute, before anything is sent",
    )


def _transact(stage: Stage, client: EncryptingClient, raw: DynamoDBClient) -> None:
    stage.say("A transaction: one patient leaves, another is admitted, both or neither.")
    admitted = {"patient_id": {"S": "p-4"}, "name": {"S": "Dalia Testcase"}, "clinic": {"S": "north"}}
    client.transact_write_items(
        TransactItems=[
            {"Delete": {"TableName": _TABLE, "Key": {"patient_id": {"S": "p-3"}}}},
            {"Put": {"TableName": _TABLE, "Item": admitted}},
        ]
    )
    stage.check("B" in _stored(raw, "p-4")["name"], "the transaction's item is encrypted as well")
    stage.check(_get(client, "p-4") == admitted and _get(client, "p-3") is None, "and both changes were applied")


def _change(stage: Stage, client: EncryptingClient) -> None:
    stage.say("A diagnosis is added with update_encrypted, while somebody else notes a visit:")

    def add_diagnosis(item: dict[str, Any]) -> None:
        client.update_item(
            TableName=_TABLE,
            Key={"patient_id": {"S": "p-1"}},
            UpdateExpression="SET last_seen = :today",
            ExpressionAttributeValues={":today": {"S": "2026-02-03"}},
        )
        item["conditions"]["L"].append({"S": "hay fever"})

    client.update_encrypted(TableName=_TABLE, Key={"patient_id": {"S": "p-1"}}, change=add_diagnosis)
    item = _get(client, "p-1") or {}
    stage.check(
        item["conditions"]["L"][-1] == {"S": "hay fever"} and item["last_seen"] == {"S": "2026-02-03"},
        "neither change is lost",
    )


def _stored(raw: DynamoDBClient, patient_id: str) -> dict[str, Any]:
    item: dict[str, Any] = raw.get_item(TableName=_TABLE, Key={"patient_id": {"S": patient_id}})["Item"]
    return item


def _get(client: EncryptingClient, patient_id: str) -> dict[str, Any] | None:
    item: dict[str, Any] | None = client.get_item(TableName=_TABLE, Key={"patient_id": {"S": patient_id}}).get(
        "Item"
    )
    return item


def _refused(stage: Stage, attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (AuthenticationError, KeyAccessError, UnsupportedOperationError) as refusal:
        stage.show(type(refusal).__name__, refusal)
        return True
    except PhiCryptError:
        return False
    return False
