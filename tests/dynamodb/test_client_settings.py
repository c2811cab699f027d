"""What the keyring was given for KMS serves encrypting clients and typed tables, unless given there."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.config import Config
from support.dynamodb_support import Server, create_patients_table, patient_config, shared_session

from phicrypt import KmsKeyring, PhiCrypt
from phicrypt.dynamodb import Encrypted, KmsContextWarning, PartitionKey, PhiModel, SortKey

pytestmark = pytest.mark.filterwarnings(f"ignore::{KmsContextWarning.__module__}.KmsContextWarning")

KEY_ARN = "arn:aws:kms:eu-west-1:111122223333:key/1a2b3c4d-0000-4000-8000-1a2b3c4d5e6f"
ELSEWHERE = boto3.Session("AKIAIOSFODNN7EXAMPLE", "no-secret", region_name="eu-west-1")
TABLES = [patient_config("patients")]


def dynamodb_under(**settings: Any) -> Any:
    return PhiCrypt(KmsKeyring(KEY_ARN, **settings)).dynamodb


@pytest.mark.parametrize("kind", ["client", "resource"])
def test_session_endpoint_and_application_of_the_keyring_serve(kind: str, moto: Server) -> None:
    dynamodb = dynamodb_under(session=ELSEWHERE, endpoint_url=moto.endpoint_url, application="clinic-api")
    made = getattr(dynamodb, kind)(TABLES)
    client = made if kind == "client" else made.meta.client
    assert (client.meta.region_name, client.meta.endpoint_url) == ("eu-west-1", moto.endpoint_url)
    sent: list[str] = []
    client.meta.events.register(
        "before-send.dynamodb", lambda request, **_: sent.append(request.headers["User-Agent"])
    )
    client.list_tables()
    assert "app/clinic-api" in str(sent[0])


def test_what_is_given_here_wins(moto: Server) -> None:
    dynamodb = dynamodb_under(session=ELSEWHERE, endpoint_url=moto.endpoint_url, application="clinic-api")
    client = dynamodb.client(
        TABLES,
        session=shared_session(),
        endpoint_url="http://localhost:8000",
        config=Config(user_agent_extra="other", connect_timeout=3),
    )
    assert (client.meta.region_name, client.meta.endpoint_url) == ("us-east-1", "http://localhost:8000")
    assert (client.meta.config.user_agent_extra, client.meta.config.connect_timeout) == ("other", 3)
    assert dynamodb.client(TABLES, region_name="eu-north-1").meta.region_name == "eu-north-1"


def test_the_region_of_the_keyrings_client_serves(moto: Server) -> None:
    kms = ELSEWHERE.client("kms", endpoint_url=moto.endpoint_url)
    client = dynamodb_under(client=kms).client(TABLES)
    assert (client.meta.region_name, client.meta.endpoint_url) == ("eu-west-1", moto.endpoint_url)
    assert dynamodb_under(client=kms).client(TABLES, session=shared_session()).meta.region_name == "us-east-1"


def test_an_endpoint_of_kms_in_aws_is_none_of_dynamodb(monkeypatch: pytest.MonkeyPatch, moto: Server) -> None:
    vpc = "https://vpce-1-abc.kms.eu-west-1.vpce.amazonaws.com"
    client = dynamodb_under(session=ELSEWHERE, endpoint_url=vpc).client(TABLES)
    assert client.meta.endpoint_url == "https://dynamodb.eu-west-1.amazonaws.com"
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://localhost:8000")
    client = dynamodb_under(session=ELSEWHERE, endpoint_url=moto.endpoint_url).client(TABLES)
    assert client.meta.endpoint_url == "http://localhost:8000"


def test_a_typed_table_needs_nothing_but_its_model(moto: Server) -> None:
    kms = shared_session().client("kms", endpoint_url=moto.endpoint_url)
    keyring = KmsKeyring(
        kms.create_key()["KeyMetadata"]["Arn"], session=shared_session(), endpoint_url=moto.endpoint_url
    )

    class Visit(PhiModel, table="visits-of-one-setting"):
        patient_id: PartitionKey[str]
        visit: SortKey[int]
        name: Encrypted[str]

    create_patients_table(moto.raw_client(), "visits-of-one-setting")
    visits = PhiCrypt(keyring).dynamodb.table(Visit)
    visits.put(Visit(patient_id="p-1", visit=1, name="Ada"))
    assert visits.get("p-1", 1) == Visit(patient_id="p-1", visit=1, name="Ada")
