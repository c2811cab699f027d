"""The branch key store on DynamoDB Local: real conditions, transactions and conflicts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.config import Config
from interop.dynamodb_local import ServerUnavailableError, dynamodb_local
from support.key_stores import refusal_of

from phicrypt import BranchKeyStore
from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.testing import StrictKms

ID = "clinic-7"
THREADS = 8


@pytest.fixture(scope="module")
def dynamodb() -> Iterator[Any]:
    try:
        with dynamodb_local() as url:
            yield boto3.Session(
                aws_access_key_id="AKIDLOCAL", aws_secret_access_key="x", region_name="us-east-1"
            ).client("dynamodb", endpoint_url=url, config=Config(max_pool_connections=64))
    except ServerUnavailableError as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def kms() -> Iterator[StrictKms]:
    with StrictKms() as running:
        yield running


@pytest.fixture
def store(dynamodb: Any, kms: StrictKms, request: pytest.FixtureRequest) -> BranchKeyStore:
    made = BranchKeyStore(
        request.node.name.replace("[", ".").replace("]", ""),
        "clinic-keys",
        kms.create_key(),
        dynamodb_client=dynamodb,
        kms_client=kms.client(),
    )
    made.create_table()
    return made


def at_once(call: Callable[[], object]) -> tuple[list[object], list[KeyAccessError]]:
    """What the call gave, and what refused it, from many threads that begin together."""
    barrier = threading.Barrier(THREADS)

    def one(_: int) -> object:
        barrier.wait()
        try:
            return call()
        except KeyAccessError as refusal:
            return refusal

    with ThreadPoolExecutor(THREADS) as pool:
        outcomes = list(pool.map(one, range(THREADS)))
    refusals = [outcome for outcome in outcomes if isinstance(outcome, KeyAccessError)]
    return [outcome for outcome in outcomes if not isinstance(outcome, KeyAccessError)], refusals


def test_the_life_of_a_branch_key(store: BranchKeyStore) -> None:
    assert store.create_table().endswith(f"table/{store.table_name}")
    store.create_key(ID, {"department": "cardiology"})
    first = store.fetch_active(ID)
    version = store.rotate(ID)
    assert store.fetch_active(ID).version == version
    assert store.fetch_version(ID, first.version).key_bytes == first.key_bytes
    assert store.fetch_beacon_key(ID).context == {"department": "cardiology"}
    assert [row.version for row in store.list_keys()] == [version]
    assert len(store.list_rows(ID)) == 4
    assert refusal_of(lambda: store.create_key(ID)).code == "BranchKeyExists"


def test_a_table_of_another_shape_is_refused(dynamodb: Any, kms: StrictKms) -> None:
    dynamodb.create_table(
        TableName="orders",
        KeySchema=[{"AttributeName": "order", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "order", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    store = BranchKeyStore("orders", "keys", kms.create_key(), dynamodb_client=dynamodb, kms_client=kms.client())
    with pytest.raises(ConfigurationError, match="key schema"):
        store.create_table()
    assert refusal_of(lambda: store.fetch_active(ID)).code == "ValidationException"
    assert refusal_of(lambda: store.create_key(ID)).code == "ValidationException"


def test_one_of_many_creations_wins_and_leaves_three_rows(store: BranchKeyStore) -> None:
    created, refusals = at_once(lambda: store.create_key(ID))
    assert created == [ID]
    assert {refusal.code for refusal in refusals} <= {"BranchKeyExists", "TransactionConflict"}
    assert len(store.list_rows(ID)) == 3 and store.fetch_active(ID)


def test_each_rotation_that_succeeds_leaves_one_version_and_the_others_none(store: BranchKeyStore) -> None:
    store.create_key(ID)
    versions, refusals = at_once(lambda: store.rotate(ID))
    assert versions and len(set(versions)) == len(versions)
    assert {refusal.code for refusal in refusals} <= {
        "BranchKeyChanged",
        "TransactionConflict",
        "BranchKeyRolledBack",
    }
    rows = [row.version for row in store.list_rows(ID) if row.row_type.startswith("branch:version:")]
    assert len(rows) == 1 + len(versions) and set(versions) < set(rows)
    assert store.fetch_active(ID).version in versions


def test_a_shred_ends_many_rotations_for_good(store: BranchKeyStore) -> None:
    store.create_key(ID)
    for _ in range(3):
        store.rotate(ID)
    stop = threading.Event()

    def rotate_until_stopped() -> None:
        while not stop.is_set():
            try:
                store.rotate(ID)
            except KeyAccessError as refusal:
                if refusal.code == "BranchKeyShredded":
                    return

    with ThreadPoolExecutor(4) as pool:
        rotations = [pool.submit(rotate_until_stopped) for _ in range(4)]
        certificate = None
        while certificate is None:
            try:
                certificate = store.shred(ID)
            except KeyAccessError as refusal:
                assert refusal.is_retryable, refusal
        for rotation in rotations:
            rotation.result(30)
        stop.set()
    assert [row.row_type for row in store.list_rows(ID)] == ["phicrypt:tombstone"]
    assert certificate.rows_deleted >= 6


def test_a_shred_of_hundreds_of_versions_deletes_all_of_them(store: BranchKeyStore, dynamodb: Any) -> None:
    store.create_key(ID)
    row = next(row for row in store.list_rows(ID) if row.version and row.row_type != "branch:ACTIVE")
    item = dynamodb.get_item(
        TableName=store.table_name, Key={"branch-key-id": {"S": ID}, "type": {"S": row.row_type}}
    )["Item"]
    for number in range(220):
        name = f"branch:version:00000000-0000-4000-8000-{number:012x}"
        dynamodb.put_item(TableName=store.table_name, Item={**item, "type": {"S": name}})
    assert store.shred(ID).rows_deleted == 223
    assert store.shred(ID).rows_deleted == 223
    assert refusal_of(lambda: store.create_key(ID)).code == "BranchKeyShredded"


def test_both_libraries_share_the_table(store: BranchKeyStore, dynamodb: Any, kms: StrictKms) -> None:
    pytest.importorskip("aws_cryptographic_material_providers", reason="needs the extra 'test'")
    from support import aws_library

    arn = store.kms_key_arn
    theirs = aws_library.AwsKeyStore(store.table_name, "clinic-keys", arn, dynamodb, kms.client())
    theirs.create_table()
    theirs.create_key(ID, {"department": "cardiology"})
    store.rotate(ID)
    theirs.rotate(ID)
    assert bytes(theirs.active(ID).branch_key) == store.fetch_active(ID).key_bytes
