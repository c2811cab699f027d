"""Servers that speak DynamoDB, tables on them, and encrypting clients for them."""

from __future__ import annotations

import contextlib
import functools
import shutil
import uuid
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from interop.dynamodb_local import ServerUnavailableError, dynalite, dynamodb_local

from phicrypt import PhiCrypt
from phicrypt.dynamodb import Action, TableConfig
from phicrypt.testing import local_aws

SECOND_SERVER = "dynamodb-local" if shutil.which("java") else "dynalite"


@functools.cache
def shared_session() -> boto3.Session:
    """One for all tests: each new session reads botocore's models again."""
    return boto3.Session("AKIAIOSFODNN7EXAMPLE", "no-secret", region_name="us-east-1")


@dataclass(frozen=True)
class Server:
    """A DynamoDB endpoint."""

    name: str
    endpoint_url: str

    @property
    def has_transactions(self) -> bool:
        return self.name != "dynalite"

    def session(self) -> boto3.Session:
        return shared_session()

    def raw_client(self) -> Any:
        return self.session().client("dynamodb", endpoint_url=self.endpoint_url)

    def options(self) -> dict[str, Any]:
        """For phi.dynamodb.client and .resource."""
        return {"session": self.session(), "endpoint_url": self.endpoint_url}


@dataclass
class Clinic:
    """One table ``patients-…`` with keys ``patient_id`` and ``visit``, and clients for it."""

    server: Server
    phi: PhiCrypt
    config: TableConfig
    raw: Any
    client: Any
    resource: Any
    sent_bodies: list[bytes] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.config.table_name

    @property
    def table(self) -> Any:
        return self.resource.Table(self.name)

    def stored(self, patient_id: str = "p-1", visit: int = 1) -> dict[str, Any] | None:
        """The item as DynamoDB has it."""
        key_attributes = {"patient_id": {"S": patient_id}, "visit": {"N": str(visit)}}
        item: dict[str, Any] | None = self.raw.get_item(
            TableName=self.name, Key=key_attributes, ConsistentRead=True
        ).get("Item")
        return item

    def needs_transactions(self) -> None:
        if not self.server.has_transactions:
            pytest.skip("dynalite has no transactions; with Java, DynamoDB Local runs this test")


def patient_config(table_name: str, **changes: Any) -> TableConfig:
    """patient_id + visit; name, conditions, scan encrypted; clinic signed; note and x_… unsigned."""
    settings: dict[str, Any] = {
        "partition_key": "patient_id",
        "sort_key": "visit",
        "actions": {
            "patient_id": Action.SIGN_ONLY,
            "visit": Action.SIGN_ONLY,
            "name": Action.ENCRYPT_AND_SIGN,
            "conditions": Action.ENCRYPT_AND_SIGN,
            "scan": Action.ENCRYPT_AND_SIGN,
            "clinic": Action.SIGN_ONLY,
            "note": Action.DO_NOTHING,
        },
        "unsigned_attributes": ("note",),
        "unsigned_prefix": "x_",
    }
    return TableConfig(table_name=table_name, **(settings | changes))


def patient(patient_id: str = "p-1", visit: int = 1, **more: Any) -> dict[str, Any]:
    """A low-level item; ``more`` adds low-level attributes."""
    return {
        "patient_id": {"S": patient_id},
        "visit": {"N": str(visit)},
        "name": {"S": "Ada Canary"},
        "conditions": {"L": [{"S": "asthma"}, {"M": {"code": {"N": "45"}}}]},
        "clinic": {"S": "north"},
        "note": {"S": "call back"},
    } | more


def key(patient_id: str = "p-1", visit: int = 1) -> dict[str, Any]:
    return {"patient_id": {"S": patient_id}, "visit": {"N": str(visit)}}


def create_patients_table(raw_client: Any, table_name: str) -> None:
    """The table, with a whole index by clinic and a keys-only one by clinic and visit."""
    raw_client.create_table(
        TableName=table_name,
        KeySchema=[
            {"AttributeName": "patient_id", "KeyType": "HASH"},
            {"AttributeName": "visit", "KeyType": "RANGE"},
        ],
        AttributeDefinitions=[
            {"AttributeName": "patient_id", "AttributeType": "S"},
            {"AttributeName": "visit", "AttributeType": "N"},
            {"AttributeName": "clinic", "AttributeType": "S"},
        ],
        GlobalSecondaryIndexes=[
            _index("by-clinic", ["clinic"], {"ProjectionType": "ALL"}),
            _index("keys-by-clinic", ["clinic", "visit"], {"ProjectionType": "KEYS_ONLY"}),
            _index("names-by-clinic", ["clinic"], {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["name"]}),
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    raw_client.get_waiter("table_exists").wait(TableName=table_name, WaiterConfig={"Delay": 1, "MaxAttempts": 20})


def _index(name: str, key_names: list[str], projection: dict[str, Any]) -> dict[str, Any]:
    schema = [
        {"AttributeName": attribute, "KeyType": kind}
        for attribute, kind in zip(key_names, ("HASH", "RANGE"), strict=False)
    ]
    return {"IndexName": name, "KeySchema": schema, "Projection": projection}


def start_server(name: str, stack: contextlib.ExitStack) -> Server:
    if name == "moto":
        return Server(name, stack.enter_context(local_aws()).endpoint_url)
    try:
        return Server(name, stack.enter_context(dynamodb_local() if name == "dynamodb-local" else dynalite()))
    except ServerUnavailableError as reason:
        pytest.skip(str(reason))


def open_clinic(server: Server, phi: PhiCrypt, **config_changes: Any) -> Clinic:
    config = patient_config(f"patients-{uuid.uuid4().hex[:12]}", **config_changes)
    raw = server.raw_client()
    create_patients_table(raw, config.table_name)
    dynamodb = phi.dynamodb
    clinic = Clinic(
        server,
        phi,
        config,
        raw,
        dynamodb.client([config], **server.options()),
        dynamodb.resource([config], **server.options()),
    )

    def capture(request: Any, **_: Any) -> None:
        body = request.body or b""
        clinic.sent_bodies.append(body if isinstance(body, bytes) else body.encode())

    for client in (clinic.client, clinic.resource.meta.client):
        client.meta.events.register_last("before-send.dynamodb", capture)
    return clinic
