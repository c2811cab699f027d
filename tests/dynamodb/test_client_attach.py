"""attach: the one call that changes a client it is handed; PynamoDB through it."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import wrapt
from support.dynamodb_support import Clinic, Server, key, open_clinic, patient, patient_config

from phicrypt import PhiCrypt, RawAesKeyring
from phicrypt.dynamodb import PartitionKey, PhiModel
from phicrypt.dynamodb.client import attach
from phicrypt.errors import ConfigurationError, UnsupportedOperationError


@pytest.fixture
def moto_clinic(moto: Server, phi: PhiCrypt) -> Clinic:
    return open_clinic(moto, phi)


def test_an_attached_client_encrypts(clinic: Clinic) -> None:
    client = clinic.server.raw_client()
    assert clinic.phi.dynamodb.attach(client, [clinic.config]) is client
    client.put_item(TableName=clinic.name, Item=patient())
    assert "aws_dbe_foot" in (clinic.stored() or {})
    assert client.get_item(TableName=clinic.name, Key=key())["Item"] == patient()
    with pytest.raises(UnsupportedOperationError):
        client.scan(TableName="other")


def test_attach_is_idempotent_and_refuses_other_tables(moto_clinic: Clinic) -> None:
    client = moto_clinic.server.raw_client()
    for _ in range(3):
        attach(moto_clinic.phi.session, client, [patient_config(moto_clinic.name)])
    client.put_item(TableName=moto_clinic.name, Item=patient())
    assert client.get_item(TableName=moto_clinic.name, Key=key())["Item"] == patient()
    with pytest.raises(ConfigurationError):
        attach(moto_clinic.phi.session, client, [patient_config("others")])
    with pytest.raises(ConfigurationError):
        attach(moto_clinic.phi.session, client, [patient_config(moto_clinic.name)], plaintext_tables=["others"])
    other_phi = PhiCrypt(RawAesKeyring("clinic", "other", bytes(32)))
    with pytest.raises(ConfigurationError):
        attach(other_phi.session, client, [patient_config(moto_clinic.name)])


def test_a_resource_made_before_or_after_attaching_is_covered(moto_clinic: Clinic) -> None:
    resource = moto_clinic.server.session().resource("dynamodb", endpoint_url=moto_clinic.server.endpoint_url)
    table = resource.Table(moto_clinic.name)
    attach(moto_clinic.phi.session, resource.meta.client, [moto_clinic.config])
    table.put_item(Item={"patient_id": "p-1", "visit": 1, "name": "Ada"})
    assert set((moto_clinic.stored() or {})["name"]) == {"B"}
    assert table.get_item(Key={"patient_id": "p-1", "visit": 1})["Item"]["name"] == "Ada"


@pytest.mark.parametrize("handed", ["text", None])
def test_attach_refuses_what_is_no_dynamodb_client(phi: PhiCrypt, handed: Any) -> None:
    with pytest.raises(ConfigurationError):
        attach(phi.session, handed, [patient_config("patients")])


def test_attach_refuses_clients_of_other_services(moto_clinic: Clinic) -> None:
    with pytest.raises(ConfigurationError):
        attach(moto_clinic.phi.session, moto_clinic.server.session().client("s3"), [moto_clinic.config])


class Asynchronous:
    """Speaks as aiobotocore's clients do: every method is a coroutine."""

    def __init__(self, client: Any) -> None:
        self.meta = client.meta

    async def query(self, **request: Any) -> Any:
        return {"Items": []}


class Delegating:
    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


IMPOSTORS = {
    "asynchronous": Asynchronous,
    "delegating": Delegating,
    "proxy": wrapt.ObjectProxy,
    "mock": lambda client: Mock(spec=client),
}


class SessionThatGives:
    """In the place of a boto3 session."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def client(self, *_: Any, **__: Any) -> Any:
        return self._client

    def resource(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(meta=SimpleNamespace(client=self._client), Table=None)


@pytest.mark.parametrize("kind", sorted(IMPOSTORS))
def test_rule_41_only_clients_that_botocore_made_are_taken(moto_clinic: Clinic, kind: str) -> None:
    class Visit(PhiModel, table=moto_clinic.name):
        patient_id: PartitionKey[str]

    impostor = IMPOSTORS[kind](moto_clinic.server.raw_client())
    given: Any = SessionThatGives(impostor)
    dynamodb, tables = moto_clinic.phi.dynamodb, [moto_clinic.config]
    for take in (
        lambda: dynamodb.attach(impostor, tables, check_tables="never"),
        lambda: dynamodb.client(tables, check_tables="never", session=given),
        lambda: dynamodb.resource(tables, check_tables="never", session=given),
        lambda: dynamodb.table(Visit, check_tables="never", session=given),
        lambda: dynamodb.table(Visit, client=impostor),
    ):
        with pytest.raises(ConfigurationError):
            take()


def test_a_typed_table_takes_no_client_that_would_store_it_in_plaintext(moto_clinic: Clinic) -> None:
    class Visit(PhiModel, table=moto_clinic.name):
        patient_id: PartitionKey[str]

    dynamodb, options = moto_clinic.phi.dynamodb, moto_clinic.server.options()
    for client in (
        moto_clinic.server.raw_client(),
        dynamodb.client([], plaintext_tables=[moto_clinic.name], **options),
    ):
        with pytest.raises(ConfigurationError):
            dynamodb.table(Visit, client=client)
    with pytest.raises(UnsupportedOperationError):
        dynamodb.table(Visit, client=dynamodb.client([patient_config("others")], **options))
    assert dynamodb.table(Visit, client=moto_clinic.client).client is moto_clinic.client


def test_clients_are_not_kept_alive(moto_clinic: Clinic) -> None:
    client = moto_clinic.server.raw_client()
    attach(moto_clinic.phi.session, client, [moto_clinic.config])
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None


def test_every_client_of_a_session_encrypts(moto_clinic: Clinic) -> None:
    name, endpoint_url = moto_clinic.name, moto_clinic.server.endpoint_url
    session = moto_clinic.phi.dynamodb.session(
        [moto_clinic.config],
        region_name="us-east-1",
        aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="no-secret",
    )
    client = session.client("dynamodb", endpoint_url=endpoint_url)
    client.put_item(TableName=name, Item=patient())
    assert "aws_dbe_foot" in (moto_clinic.stored() or {})
    table = session.resource("dynamodb", endpoint_url=endpoint_url).Table(name)
    assert table.get_item(Key={"patient_id": "p-1", "visit": 1})["Item"]["name"] == "Ada Canary"
    core: Any = session._session.create_client("dynamodb", endpoint_url=endpoint_url)
    assert core.get_item(TableName=name, Key=key())["Item"] == patient()
    with pytest.raises(UnsupportedOperationError):
        core.scan(TableName="other")
    assert session.client("s3", endpoint_url=endpoint_url).list_buckets()["Buckets"] == []


def test_a_pynamodb_model_is_encrypted(clinic: Clinic) -> None:
    pytest.importorskip("pynamodb", reason="PynamoDB is in the extra `test`")
    from pynamodb.attributes import ListAttribute, NumberAttribute, UnicodeAttribute
    from pynamodb.connection import Connection
    from pynamodb.exceptions import PutError
    from pynamodb.models import Model

    class Patient(Model):
        class Meta:
            table_name = clinic.name
            host = clinic.server.endpoint_url
            region = "us-east-1"
            aws_access_key_id = "AKIAIOSFODNN7EXAMPLE"
            aws_secret_access_key = "no-secret"

        patient_id = UnicodeAttribute(hash_key=True)
        visit = NumberAttribute(range_key=True)
        name = UnicodeAttribute(null=True)
        conditions: Any = ListAttribute(null=True)
        clinic = UnicodeAttribute(null=True)
        note = UnicodeAttribute(null=True)

    connection: Connection = Patient._get_connection().connection
    clinic.phi.dynamodb.attach(connection.client, [clinic.config])

    Patient("p-1", 1, name="Ada", conditions=["asthma"], clinic="north").save()
    assert set((clinic.stored() or {})["name"]) == {"B"}
    read = Patient.get("p-1", 1)
    assert (read.name, list(read.conditions), read.clinic) == ("Ada", ["asthma"], "north")
    with Patient.batch_write() as batch:
        for number in range(2, 30):
            batch.save(Patient("p-1", number, name=f"Ada {number}"))
    assert [found.name for found in Patient.query("p-1", Patient.visit > 27)] == ["Ada 28", "Ada 29"]
    assert {found.name for found in Patient.batch_get([("p-1", 2), ("p-1", 3)])} == {"Ada 2", "Ada 3"}
    assert len(list(Patient.scan(page_size=7))) == 29
    with pytest.raises(UnsupportedOperationError, match="'name'"):
        list(Patient.scan(Patient.name == "Ada"))
    with pytest.raises(UnsupportedOperationError, match="update_encrypted"):
        read.update(actions=[Patient.name.set("Eve")])
    read.update(actions=[Patient.note.set("called")])
    assert Patient.get("p-1", 1).note == "called"
    with pytest.raises(PutError):
        Patient("p-1", 1, name="Eve").save(Patient.patient_id.does_not_exist())
    read.delete()
    assert clinic.stored() is None
