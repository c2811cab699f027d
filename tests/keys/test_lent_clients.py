"""The AWS side that a keyring was given once serves what stands beside it."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import boto3
import pytest
from support.key_stores import CONTEXT, to_encrypt
from support.keyring_support import EAST, WEST, opens

from phicrypt import BranchKeyStore, HierarchicalKeyring, MultiKeyring, PhiCrypt, RawAesKeyring
from phicrypt.errors import ConfigurationError
from phicrypt.keys.kms.clients import KmsClients
from phicrypt.keys.kms.keyring import KmsKeyring
from phicrypt.keys.kms.rsa_keyring import KmsRsaKeyring
from phicrypt.session import Session
from phicrypt.testing import LocalAws, StaticBranchKeyStore, StrictKms, local_aws


@pytest.fixture(autouse=True)
def nothing_else_is_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither credentials nor a Region: whoever makes clients of its own fails."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")


def from_session(kms: StrictKms, arn: str) -> KmsKeyring:
    return KmsKeyring(arn, session=kms.session(), endpoint_url=kms.endpoint_url, application="ward-app")


def from_client(kms: StrictKms, arn: str) -> KmsKeyring:
    return KmsKeyring(arn, client=kms.client(), application="ward-app")


def from_factory(kms: StrictKms, arn: str) -> KmsKeyring:
    return KmsKeyring(arn, client_factory=kms.client, application="ward-app")


every_way = pytest.mark.parametrize("make", [from_session, from_client, from_factory])


@every_way
def test_signatures_and_macs_use_the_keyrings_clients(kms: StrictKms, make: Any) -> None:
    phi = PhiCrypt(make(kms, kms.create_key()))
    signing = kms.create_key(KeyUsage="SIGN_VERIFY", KeySpec="ECC_NIST_P256")
    phi.signer(signing).sign(b"report", purpose="report", resource="r-1")
    phi.mac(kms.create_key(KeyUsage="GENERATE_VERIFY_MAC", KeySpec="HMAC_256")).generate(
        b"x", purpose="x", resource="r-1"
    )
    assert [operation for operation, _ in kms.operations_called()] == ["GetPublicKey", "Sign", "GenerateMac"]
    assert all("phicrypt-app/ward-app" in request.user_agent for request in kms.requests)


def test_a_client_that_is_given_there_is_used_there(kms: StrictKms) -> None:
    phi = PhiCrypt(from_session(kms, kms.create_key()))
    mac_key = kms.create_key(KeyUsage="GENERATE_VERIFY_MAC", KeySpec="HMAC_256")
    with StrictKms() as other:
        other.account.keys.update(kms.account.keys)
        phi.mac(mac_key, client=other.client()).generate(b"x", purpose="x", resource="r-1")
        assert [operation for operation, _ in other.operations_called()] == ["GenerateMac"]
    assert kms.requests == []


def test_a_handed_client_of_another_region_is_refused_for_a_key_of_this_one(kms: StrictKms) -> None:
    phi = PhiCrypt(from_client(kms, kms.create_key()))
    with pytest.raises(ConfigurationError, match="us-east-1, the key of us-west-2"):
        phi.mac(kms.create_key(WEST, KeyUsage="GENERATE_VERIFY_MAC", KeySpec="HMAC_256"))


@pytest.fixture(scope="module")
def aws() -> Any:
    with local_aws() as running:
        yield running


def test_a_branch_key_store_uses_session_endpoint_and_application(aws: LocalAws) -> None:
    keyring = KmsKeyring(
        aws.kms_key_arn, session=aws.session(), endpoint_url=aws.endpoint_url, application="ward-app"
    )
    aws.requests.clear()
    store = BranchKeyStore("lent", "lent", aws.kms_key_arn, kms_clients=keyring.kms_clients)
    store.create_table(deletion_protection=False)
    ring = HierarchicalKeyring(store, store.create_key())
    opens(ring, ring.on_encrypt(to_encrypt(CONTEXT)))
    assert {request["service"] for request in aws.requests} == {"kms", "dynamodb"}
    assert all("phicrypt-app/ward-app" in request["user_agent"] for request in aws.requests)


def test_keyrings_and_sessions_lend_what_they_have(kms: StrictKms) -> None:
    arn = kms.create_key()
    keyring = from_session(kms, arn)
    lent = keyring.kms_clients
    assert (lent.boto3_session, lent.endpoint_url, lent.application, lent.handed_region) == (
        kms.session(),
        kms.endpoint_url,
        "ward-app",
        None,
    )
    store = BranchKeyStore("t", "t", arn, kms_clients=lent)
    local = RawAesKeyring("clinic", "key-1", bytes(32))
    static = StaticBranchKeyStore("t", "8d1fd4a2-6e4b-4d7c-9c11-3a1e7c2b9f10", bytes(32), bytes(32))
    for lender in (
        keyring,
        store,
        HierarchicalKeyring(store, "t"),
        MultiKeyring(local, HierarchicalKeyring(static, "t"), keyring),
        MultiKeyring(MultiKeyring(local, keyring), from_client(kms, arn)),
        PhiCrypt(keyring).session,
    ):
        assert lender.kms_clients is lent
    for nobody in (MultiKeyring(local), HierarchicalKeyring(static, "t"), PhiCrypt(local).session):
        assert nobody.kms_clients is None
    assert KmsKeyring(arn, client=kms.client()).kms_clients.handed_region == EAST
    assert KmsRsaKeyring(arn).kms_clients is not None


@pytest.mark.parametrize(
    ("settings", "local"),
    [
        ({"endpoint_url": "http://127.0.0.1:4566"}, "http://127.0.0.1:4566"),
        ({"endpoint_url": "https://vpce-1.kms.us-east-1.vpce.amazonaws.com"}, None),
        ({}, None),
    ],
)
def test_only_a_local_stacks_endpoint_serves_other_services(settings: Any, local: str | None) -> None:
    assert KmsClients(**settings).local_endpoint_url == local
    if settings:
        client = boto3.client(
            "kms", region_name=EAST, aws_access_key_id="x", aws_secret_access_key="x", **settings
        )
        assert KmsClients(client=client).local_endpoint_url == local


def test_a_session_has_at_most_ten_public_members() -> None:
    members = {name for name in dir(Session) if not name.startswith("_")}
    assert {field.name for field in dataclasses.fields(Session)} <= members
    assert len(members) <= 10
