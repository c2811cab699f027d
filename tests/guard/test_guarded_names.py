"""Object keys and table keys stand in clear, so those of new objects and items pass the guard."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from phicrypt import PhiCrypt, RawAesKeyring
from phicrypt.audit import RecordingSink
from phicrypt.dynamodb import Action, TableConfig
from phicrypt.errors import PhiInContextError
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.testing import local_aws

SSN = "123-45-6789"
PLACE = {"Bucket": "bucket", "Key": f"patients/{SSN}.pdf"}
TABLE = TableConfig(
    table_name="patients",
    partition_key="person",
    sort_key="visit",
    actions={"person": Action.SIGN_ONLY, "visit": Action.SIGN_ONLY, "name": Action.ENCRYPT_AND_SIGN},
)


def item(person: str = "p-1", visit: str = "17") -> dict[str, Any]:
    return {"person": {"S": person}, "visit": {"N": visit}, "name": {"S": "Jane Doe"}}


@pytest.fixture(scope="module")
def aws() -> Iterator[Any]:
    with local_aws() as running:
        running.client("s3").create_bucket(Bucket="bucket")
        running.client("dynamodb").create_table(
            TableName="patients",
            KeySchema=[
                {"AttributeName": "person", "KeyType": "HASH"},
                {"AttributeName": "visit", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": "person", "AttributeType": "S"},
                {"AttributeName": "visit", "AttributeType": "N"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        yield running


def phi_with(guard: PhiGuard | None = None) -> tuple[PhiCrypt, RecordingSink]:
    sink = RecordingSink()
    settings = {} if guard is None else {"guard": guard}
    return PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(32)), audit=[sink], **settings), sink


def copied(s3: Any) -> object:
    s3.put_object(Bucket="bucket", Key="source", Body=b"x")
    return s3.copy_object(**PLACE, CopySource={"Bucket": "bucket", "Key": "source"})


NEW_OBJECTS: dict[str, Callable[[Any], object]] = {
    "put_object": lambda s3: s3.put_object(**PLACE, Body=b"x"),
    "upload_fileobj": lambda s3: s3.upload_fileobj(io.BytesIO(b"x"), *PLACE.values()),
    "create_multipart_upload": lambda s3: s3.create_multipart_upload(**PLACE),
    "copy_object": copied,
    "open": lambda s3: s3.open("s3://{Bucket}/{Key}".format(**PLACE), "wb"),
}
HASHING = PhiGuard("hash", hash_key=bytes(32))


@pytest.mark.parametrize("guard", [None, HASHING], ids=["refuse", "hash"])
@pytest.mark.parametrize("verb", NEW_OBJECTS)
def test_keys_of_new_objects_are_guarded(aws: Any, verb: str, guard: PhiGuard | None) -> None:
    phi, sink = phi_with(guard)
    with pytest.raises(PhiInContextError) as caught:
        NEW_OBJECTS[verb](phi.s3(aws.client("s3")))
    assert caught.value.names == ("object-key",)
    phi.close()
    assert SSN not in str(caught.value) + repr(caught.value) + "".join(event.to_json() for event in sink.events)


def test_object_keys_can_be_allowed_and_old_objects_are_read(aws: Any) -> None:
    phi, _ = phi_with(PhiGuard(allow_names=["object-key"]))
    phi.s3(aws.client("s3")).put_object(**PLACE, Body=b"x")
    strict = phi_with()[0].s3(aws.client("s3"))
    assert strict.get_object(**PLACE)["Body"].read() == b"x"
    strict.rewrap(*PLACE.values(), to=RawAesKeyring("clinic", "key-2", bytes(32)), context=None)


@pytest.mark.parametrize(
    ("person", "visit", "name"), [(SSN, "17", "person"), ("p-1", "4111111111111111", "visit")]
)
def test_keys_of_new_items_are_guarded(aws: Any, person: str, visit: str, name: str) -> None:
    phi, sink = phi_with()
    client = phi.dynamodb.client([TABLE], session=aws.session(), endpoint_url=aws.endpoint_url)
    offending = item(person, visit)
    for run in (
        lambda: client.put_item(TableName="patients", Item=offending),
        lambda: client.batch_write_item(RequestItems={"patients": [{"PutRequest": {"Item": offending}}]}),
        lambda: client.transact_write_items(TransactItems=[{"Put": {"TableName": "patients", "Item": offending}}]),
        lambda: phi.dynamodb.encrypt_item(offending, TABLE),
    ):
        with pytest.raises(PhiInContextError) as caught:
            run()
        assert caught.value.names == (name,)
    phi.close()
    assert "6789" not in str(caught.value) + "".join(event.to_json() for event in sink.events)


def test_table_keys_can_be_allowed_by_name_and_old_items_are_read(aws: Any) -> None:
    phi, _ = phi_with(PhiGuard(allow_names=["person"]))
    stored = phi.dynamodb.encrypt_item(item(SSN), TABLE)
    assert phi_with()[0].dynamodb.decrypt_item(stored, TABLE) == item(SSN)
