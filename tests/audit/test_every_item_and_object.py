"""Uses of items and objects: named by their verb, told apart, and whole where the data key cannot be had."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.audit_events import ends_of

from phicrypt import KmsKeyring, PhiCrypt, RawAesKeyring
from phicrypt.audit import RecordingSink
from phicrypt.dynamodb import Action, Encrypted, PartitionKey, PhiModel, TableConfig, Unsigned
from phicrypt.dynamodb.migration import migrate_table, verify_table
from phicrypt.errors import KeyAccessError
from phicrypt.evidence.questions import incident
from phicrypt.testing import StrictKms, local_aws

PLAINTEXT = b"the record " * 1_000
TABLE = TableConfig(
    table_name="patients",
    partition_key="patient_id",
    actions={"patient_id": Action.SIGN_ONLY, "name": Action.ENCRYPT_AND_SIGN, "note": Action.DO_NOTHING},
    unsigned_attributes=("note",),
)
ITEM = {"patient_id": {"S": "p-1"}, "name": {"S": "Jane Doe"}, "note": {"S": "plain"}}
PLACE = {"Bucket": "bucket", "Key": "jane-doe.pdf"}


class Patient(PhiModel, table="patients"):
    patient_id: PartitionKey[str]
    name: Encrypted[str]
    note: Unsigned[str] = ""


@pytest.fixture
def local_phi() -> tuple[PhiCrypt, RecordingSink]:
    sink = RecordingSink()
    return PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(range(32))), audit=[sink]), sink


@pytest.fixture
def kms() -> Iterator[StrictKms]:
    with StrictKms() as running:
        yield running


# Items


@pytest.fixture
def tables(local_phi: tuple[PhiCrypt, RecordingSink]) -> Iterator[tuple[Any, Any, Any]]:
    """An encrypting client of an empty table, a plain one, and the options of both."""
    phi, _ = local_phi
    with local_aws() as aws:
        plain = aws.client("dynamodb")
        plain.create_table(
            TableName="patients",
            KeySchema=[{"AttributeName": "patient_id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "patient_id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        options = {"session": aws.session(), "endpoint_url": aws.endpoint_url}
        yield phi.dynamodb.client([TABLE], **options), plain, options


def test_uses_of_items_are_named_by_the_verb(
    local_phi: tuple[PhiCrypt, RecordingSink], tables: tuple[Any, Any, Any]
) -> None:
    phi, sink = local_phi
    client, _, _ = tables
    named: dict[str, Any] = {"TableName": "patients", "Key": {"patient_id": ITEM["patient_id"]}}
    note = {"UpdateExpression": "SET note = :n", "ExpressionAttributeValues": {":n": {"S": "other"}}}
    scenarios: list[tuple[Callable[[], object], str, list[str]]] = [
        (lambda: client.put_item(TableName="patients", Item=ITEM), "put_item", ["use"]),
        (
            lambda: client.put_item(TableName="patients", Item=ITEM, ReturnValues="ALL_OLD"),
            "put_item",
            ["use", "end"],
        ),
        (lambda: client.get_item(**named), "get_item", ["end"]),
        (lambda: client.update_item(**named, **note, ReturnValues="ALL_NEW"), "update_item", ["end"]),
        (
            lambda: phi.dynamodb.update_encrypted(
                client, "patients", named["Key"], lambda item: {**item, "name": {"S": "Jane D."}}
            ),
            "update_encrypted",
            ["end", "use"],
        ),
        (lambda: verify_table(client, "patients"), "verify_table", ["end"]),
        (lambda: client.delete_item(**named, ReturnValues="ALL_OLD"), "delete_item", ["end"]),
    ]
    events = []
    for run, operation, kinds in scenarios:
        run()
        ends = ends_of(phi, sink)
        assert [(end.operation, end.kind, end.outcome) for end in ends] == [
            (f"dynamodb.{operation}", kind, "success") for kind in kinds
        ]
        events += ends
    found = incident(events, "key-1", 0, 2**62)
    assert (found.sealed_messages, len(found.decrypted)) == (3, 6)


def test_migration_leaves_a_sealing_and_a_verification_per_item(
    local_phi: tuple[PhiCrypt, RecordingSink], tables: tuple[Any, Any, Any]
) -> None:
    phi, sink = local_phi
    client, plain, _ = tables
    plain.put_item(TableName="patients", Item=ITEM)
    migrate_table(client, "patients")
    assert [(end.operation, end.kind) for end in ends_of(phi, sink)] == [
        ("dynamodb.migrate_table", "use"),
        ("dynamodb.migrate_table", "end"),
    ]


def test_typed_tables(local_phi: tuple[PhiCrypt, RecordingSink], tables: tuple[Any, Any, Any]) -> None:
    phi, sink = local_phi
    table = phi.dynamodb.table(Patient, **tables[2])
    patient = Patient(patient_id="p-1", name="Jane Doe")
    scenarios: list[tuple[Callable[[], object], list[str]]] = [
        (lambda: table.put(patient), ["put_item"]),
        (lambda: table.get("p-1"), ["get_item"]),
        (lambda: list(table.query("p-1")), ["query"]),
        (lambda: table.update("p-1", lambda old: old.model_copy(update={"name": "J"})), ["update_encrypted"] * 2),
        (lambda: table.set_unsigned("p-1", note="n"), []),
        (lambda: table.delete("p-1"), []),
    ]
    for run, operations in scenarios:
        run()
        assert [end.operation for end in ends_of(phi, sink)] == [f"dynamodb.{name}" for name in operations]


# Objects


@pytest.fixture
def objects(local_phi: tuple[PhiCrypt, RecordingSink]) -> Iterator[tuple[Any, Any]]:
    """An encrypting S3 client and a plain one, with a bucket."""
    with local_aws() as aws:
        raw = aws.client("s3")
        raw.create_bucket(Bucket="bucket")
        yield local_phi[0].s3(raw), raw


def close_written(s3: Any) -> None:
    with s3.open("s3://bucket/jane-doe.pdf", "wb") as file:
        file.write(PLAINTEXT)


def close_read(s3: Any) -> None:
    with s3.open("s3://bucket/jane-doe.pdf") as file:
        file.read()


def upload_in_parts(s3: Any) -> None:
    upload = {**PLACE, "UploadId": s3.create_multipart_upload(**PLACE)["UploadId"]}
    part = s3.upload_part(**upload, PartNumber=1, Body=PLAINTEXT)
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]})


OBJECTS: dict[str, tuple[Callable[[Any, Path], object], list[str]]] = {
    "put_object": (lambda s3, file: s3.put_object(**PLACE, Body=PLAINTEXT), ["s3.put_object"]),
    "get_object": (lambda s3, file: s3.get_object(**PLACE)["Body"].read(), ["s3.get_object"]),
    "upload_fileobj": (
        lambda s3, file: s3.upload_fileobj(io.BytesIO(PLAINTEXT), *PLACE.values()),
        ["s3.upload_fileobj"],
    ),
    "upload_file": (lambda s3, file: s3.upload_file(str(file), *PLACE.values()), ["s3.upload_file"]),
    "download_fileobj": (
        lambda s3, file: s3.download_fileobj(*PLACE.values(), io.BytesIO()),
        ["s3.download_fileobj"],
    ),
    "download_file": (
        lambda s3, file: s3.download_file(*PLACE.values(), f"{file}.copy"),
        ["s3.download_file"],
    ),
    "open to write": (lambda s3, file: close_written(s3), ["s3.open_write"]),
    "open": (lambda s3, file: close_read(s3), ["s3.open"]),
    "create_multipart_upload": (lambda s3, file: upload_in_parts(s3), ["s3.create_multipart_upload"]),
    "copy_object": (
        lambda s3, file: s3.copy_object(Bucket="bucket", Key="copy", CopySource=PLACE),
        ["s3.get_object", "s3.copy_object"],
    ),
    "copy": (lambda s3, file: s3.copy(PLACE, "bucket", "copy"), ["s3.get_object", "s3.copy"]),
    "rewrap": (
        lambda s3, file: s3.rewrap(*PLACE.values(), to=RawAesKeyring("clinic", "key-2", bytes(32)), context=None),
        ["s3.get_object", "s3.rewrap"],
    ),
}
every_object_operation = pytest.mark.parametrize("name", OBJECTS)


@every_object_operation
def test_uses_of_objects_are_named_by_the_verb(
    local_phi: tuple[PhiCrypt, RecordingSink], objects: tuple[Any, Any], name: str, tmp_path: Path
) -> None:
    phi, sink = local_phi
    s3, _ = objects
    (tmp_path / "file").write_bytes(PLAINTEXT)
    s3.put_object(**PLACE, Body=PLAINTEXT)
    ends_of(phi, sink)
    run, operations = OBJECTS[name]
    run(s3, tmp_path / "file")
    ends = ends_of(phi, sink)
    assert sorted(end.operation for end in ends) == sorted(operations)
    assert {end.outcome for end in ends} == {"success"}
    found = incident(ends, "key-1", 0, 2**62)
    opening = [one for one in operations if one in ("s3.get_object", "s3.open") or "download" in one]
    assert [row.operation for row in found.decrypted] == opening


def test_a_rewrap_of_metadata_names_the_calls_of_both_keys() -> None:
    with local_aws() as aws:
        sink = RecordingSink()
        phi = PhiCrypt(KmsKeyring(aws.kms_key_arn, client=aws.client("kms")), audit=[sink], cache=None)
        raw = aws.client("s3")
        raw.create_bucket(Bucket="bucket")
        s3 = phi.s3(raw, format="s3ec", read_formats=("s3ec-v3",))
        s3.put_object(**PLACE, Body=PLAINTEXT)
        ends_of(phi, sink)
        before = len(aws.kms_requests)
        new_arn = aws.create_kms_key()
        s3.rewrap(*PLACE.values(), to=KmsKeyring(new_arn, client=aws.client("kms")))
        ends = ends_of(phi, sink)
        made = [call for call in aws.kms_requests[before:] if call["operation"] in ("Decrypt", "Encrypt")]
    assert {end.operation for end in ends} == {"s3.get_object", "s3.rewrap"}
    origins = {end.origin.operation: end.origin for end in ends if end.origin is not None}
    assert origins["Encrypt"].key_id == new_arn
    assert {call["request_id"] for call in made} == {one for call in origins.values() for one in call.request_ids}


# Objects and items whose data key cannot be had

ITEMS: dict[str, Callable[[PhiCrypt, Any], object]] = {
    "dynamodb.encrypt_item": lambda phi, sealed: phi.dynamodb.encrypt_item(ITEM, TABLE),
    "dynamodb.decrypt_item": lambda phi, sealed: phi.dynamodb.decrypt_item(sealed, TABLE),
}


def refuse_key(kms: StrictKms, how: str, monkeypatch: pytest.MonkeyPatch) -> tuple[type[BaseException], str]:
    """Let no data key be had; the error that comes of it, and the outcome of the use."""
    if how == "denied":
        kms.deny()
        return KeyAccessError, "denied"
    if how == "timed out":
        kms.hang(1)
        return KeyAccessError, "failed"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(KmsKeyring, "on_encrypt", interrupted)
    monkeypatch.setattr(KmsKeyring, "on_decrypt", interrupted)
    return KeyboardInterrupt, "interrupted"


every_way = pytest.mark.parametrize("how", ["denied", "timed out", "interrupted"])


@every_way
def test_objects_whose_data_key_cannot_be_had(
    kms: StrictKms, how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(PLAINTEXT)
    sink = RecordingSink()
    keyring = KmsKeyring(kms.create_key(), client=kms.client(read_timeout_seconds=0.2))
    phi = PhiCrypt(keyring, cache=None, audit=[sink])
    with local_aws() as aws:
        raw = aws.client("s3")
        raw.create_bucket(Bucket="bucket")
        s3 = phi.s3(raw)
        s3.put_object(**PLACE, Body=PLAINTEXT)
        ends_of(phi, sink)
        for name, (run, operations) in OBJECTS.items():
            with monkeypatch.context() as patched:
                error, outcome = refuse_key(kms, how, patched)
                with pytest.raises(error):
                    run(s3, tmp_path / "file")
                kms.account.denials.clear()
                kms.account.faults.clear()
            (end,) = ends_of(phi, sink)
            assert (end.operation, end.outcome) == (operations[0], outcome), name


@every_way
@pytest.mark.parametrize("operation", ITEMS)
def test_items_whose_data_key_cannot_be_had(
    kms: StrictKms, how: str, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = RecordingSink()
    keyring = KmsKeyring(kms.create_key(), client=kms.client(read_timeout_seconds=0.2))
    phi = PhiCrypt(keyring, cache=None, audit=[sink])
    sealed = phi.dynamodb.encrypt_item(ITEM, TABLE)
    ends_of(phi, sink)
    error, outcome = refuse_key(kms, how, monkeypatch)
    with pytest.raises(error):
        ITEMS[operation](phi, sealed)
    (end,) = ends_of(phi, sink)
    assert (end.operation, end.outcome) == (operation, outcome)
