"""Servers that others wrote: a KMS in Go that keeps key states, and a whole stack beside moto's."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from interop.local_kms import LocalKmsUnavailableError, local_kms, local_kms_client
from interop.ministack import MiniStackUnavailableError, ministack, ministack_client
from support.key_stores import refusal_of

from phicrypt import BranchKeyStore, HierarchicalKeyring, KmsKeyring, PhiCrypt
from phicrypt.dynamodb import Action, TableConfig
from phicrypt.dynamodb.updates import update_encrypted
from phicrypt.errors import AuthenticationError, ContextMismatchError
from phicrypt.testing import local_aws, mark_as_double

CONTEXT = {"tenant": "clinic-7"}
PATIENTS = TableConfig(
    table_name="patients",
    partition_key="patient_id",
    actions={"patient_id": Action.SIGN_ONLY, "name": Action.ENCRYPT_AND_SIGN, "visits": Action.ENCRYPT_AND_SIGN},
)


@pytest.fixture(scope="module")
def go_kms() -> Iterator[Any]:
    try:
        with local_kms() as url:
            # It sends no request ids, which a KMS always does (rule 27): a test's double, and marked as one.
            yield mark_as_double(local_kms_client(url))
    except LocalKmsUnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def stack() -> Iterator[str]:
    try:
        with ministack() as url:
            yield url
    except MiniStackUnavailableError as reason:
        pytest.skip(str(reason))


def new_key(kms: Any, **parameters: Any) -> str:
    arn: str = kms.create_key(**parameters)["KeyMetadata"]["Arn"]
    return arn


# --- local-kms ------------------------------------------------------------------------------------


def test_messages_under_a_kms_in_go(go_kms: Any) -> None:
    phi = PhiCrypt(KmsKeyring(new_key(go_kms), client=go_kms))
    message = phi.encrypt(b"canary", context=CONTEXT)
    assert phi.decrypt(message, context=CONTEXT) == b"canary"
    with pytest.raises(ContextMismatchError):
        phi.decrypt(message, context={"tenant": "clinic-8"})
    other = PhiCrypt(KmsKeyring(new_key(go_kms), client=go_kms))
    assert refusal_of(lambda: other.decrypt(message, context=CONTEXT)).code == "NoMatchingDataKey"


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda kms, arn: kms.disable_key(KeyId=arn), "DisabledException"),
        (lambda kms, arn: kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7), "KMSInvalidStateException"),
    ],
    ids=["disabled", "pending deletion"],
)
def test_a_key_that_may_not_be_used_is_refused_and_no_outage(go_kms: Any, end: Any, code: str) -> None:
    arn = new_key(go_kms)
    phi = PhiCrypt(KmsKeyring(arn, client=go_kms), cache=None)
    message = phi.encrypt(b"canary", context=CONTEXT)
    end(go_kms, arn)
    for call in (lambda: phi.decrypt(message, context=CONTEXT), lambda: phi.encrypt(b"x", context=CONTEXT)):
        refusal = refusal_of(call)
        assert (refusal.code, refusal.is_retryable, refusal.is_outage) == (code, False, False)


def test_the_life_of_a_branch_key_under_a_kms_in_go(go_kms: Any) -> None:
    with local_aws() as aws:
        store = BranchKeyStore(
            "keys", "clinic-keys", new_key(go_kms), dynamodb_client=aws.client("dynamodb"), kms_client=go_kms
        )
        store.create_table()
        store.create_key("clinic-7", {"department": "cardiology"})
        phi = PhiCrypt(HierarchicalKeyring(store, branch_key_id="clinic-7"))
        before = phi.encrypt(b"before", context=CONTEXT)
        first = store.fetch_active("clinic-7")
        assert store.rotate("clinic-7") == store.fetch_active("clinic-7").version != first.version
        after = phi.encrypt(b"after", context=CONTEXT)
        phi.cache.clear()
        assert [phi.decrypt(one, context=CONTEXT) for one in (before, after)] == [b"before", b"after"]
        assert store.fetch_beacon_key("clinic-7").context == {"department": "cardiology"}


def test_signatures_and_macs_of_a_kms_in_go(go_kms: Any) -> None:
    phi = PhiCrypt(KmsKeyring(new_key(go_kms), client=go_kms))
    names = {"resource": "report", "purpose": "release"}
    signer = phi.signer(new_key(go_kms, KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY"))
    envelope = signer.sign(b"canary", **names)
    signer.verify(b"canary", envelope, **names)
    mac = phi.mac(new_key(go_kms, KeySpec="HMAC_256", KeyUsage="GENERATE_VERIFY_MAC"))
    mac.verify(b"canary", mac.generate(b"canary", **names), **names)
    with pytest.raises(AuthenticationError):
        signer.verify(b"changed", envelope, **names)


# --- MiniStack ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phi(stack: str) -> PhiCrypt:
    kms = ministack_client("kms", stack)
    return PhiCrypt(KmsKeyring(new_key(kms), client=kms))


def test_objects_on_another_stack(stack: str, phi: PhiCrypt) -> None:
    raw = ministack_client("s3", stack)
    raw.create_bucket(Bucket="imaging")
    s3 = phi.s3(raw)
    small, large = b"canary" * 100, bytes(range(256)) * 40_000
    s3.put_object(Bucket="imaging", Key="small", Body=small)
    s3.upload_fileobj(io.BytesIO(large), "imaging", "large")
    assert s3.get_object(Bucket="imaging", Key="small")["Body"].read() == small
    assert (
        s3.get_object(Bucket="imaging", Key="large", Range="bytes=9000000-9000099")["Body"].read()
        == (large[9_000_000:9_000_100])
    )
    sink = io.BytesIO()
    s3.download_fileobj("imaging", "large", sink)
    assert sink.getvalue() == large
    assert b"canary" not in raw.get_object(Bucket="imaging", Key="small")["Body"].read()
    with pytest.raises(raw.exceptions.NoSuchKey):
        s3.get_object(Bucket="imaging", Key="nobody")


def test_items_on_another_stack(stack: str, phi: PhiCrypt) -> None:
    client = ministack_client("dynamodb", stack)
    client.create_table(
        TableName="patients",
        KeySchema=[{"AttributeName": "patient_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "patient_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    phi.dynamodb.attach(client, [PATIENTS])
    item_key = {"patient_id": {"S": "p-1"}}
    item = {**item_key, "name": {"S": "canary"}, "visits": {"N": "1"}}
    client.put_item(TableName="patients", Item=item)
    assert client.get_item(TableName="patients", Key=item_key, ConsistentRead=True)["Item"] == item

    def increment(one: dict[str, Any]) -> None:
        one["visits"] = {"N": str(int(one["visits"]["N"]) + 1)}

    changed = update_encrypted(client, "patients", item_key, increment)
    assert changed is not None and changed["visits"] == {"N": "2"}
    assert client.scan(TableName="patients")["Items"] == [changed]
    assert b"canary" not in repr(ministack_client("dynamodb", stack).scan(TableName="patients")).encode()


@pytest.mark.parametrize("operation", ["encrypt", "decrypt"])
def test_a_disabled_key_of_another_stack_is_refused(stack: str, operation: str) -> None:
    kms = ministack_client("kms", stack)
    arn = new_key(kms)
    phi = PhiCrypt(KmsKeyring(arn, client=kms), cache=None)
    message = phi.encrypt(b"canary", context=CONTEXT)
    kms.disable_key(KeyId=arn)
    refusal = refusal_of(lambda: getattr(phi, operation)(message, context=CONTEXT))
    assert (refusal.code, refusal.is_retryable) == ("DisabledException", False)
