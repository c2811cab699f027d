"""Every public operation that touches a key leaves one event, or one linked begin and end pair, per use.

The public API is enumerated: a method that stands neither among the scenarios nor among those that
touch no key fails the test, so that a new operation cannot go unrecorded.
"""

from __future__ import annotations

import gc
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.audit_events import public_names, uses_of

from phicrypt import ANY_CONTEXT, KmsKeyring, PhiCrypt, RawAesKeyring
from phicrypt.audit import AuditEvent, RecordingSink
from phicrypt.dynamodb import Action, TableConfig
from phicrypt.dynamodb.client import DynamoDb
from phicrypt.errors import AuditError, KeyAccessError, PhiCryptError
from phicrypt.s3.client import S3Client
from phicrypt.signatures.mac import Mac
from phicrypt.signatures.signer import Signer
from phicrypt.testing import StrictKms, local_aws

CONTEXT = {"tenant": "clinic-7"}
PLAINTEXT = b"the record " * 1_000
ITEM = {"patient_id": "p-1", "name": "Jane Doe", "note": "plain"}
TABLE = TableConfig(
    table_name="patients",
    partition_key="patient_id",
    actions={"patient_id": Action.SIGN_ONLY, "name": Action.ENCRYPT_AND_SIGN, "note": Action.DO_NOTHING},
    unsigned_attributes=("note",),
)


class ExplodingStream:
    """A source that gives some bytes, and then an error."""

    def __init__(self, content: bytes, error: BaseException) -> None:
        self._left = [content]
        self._error = error

    def read(self, size: int = -1) -> bytes:
        if self._left:
            return self._left.pop()
        raise self._error


# Messages

Scenario = Callable[[PhiCrypt, bytes], object]


def read_reader(reader: Any) -> bytes:
    with reader:
        content: bytes = reader.read()
        return content


MESSAGES: dict[str, Scenario] = {
    "encrypt": lambda phi, message: phi.encrypt(PLAINTEXT, context=CONTEXT),
    "decrypt": lambda phi, message: phi.decrypt(message, context=CONTEXT),
    "encrypt_into": lambda phi, message: phi.encrypt_into(PLAINTEXT, bytearray(20_000), context=CONTEXT),
    "decrypt_into": lambda phi, message: phi.decrypt_into(message, bytearray(20_000), context=CONTEXT),
    "encrypt_stream": lambda phi, message: phi.encrypt_stream(
        io.BytesIO(PLAINTEXT), io.BytesIO(), context=CONTEXT
    ),
    "decrypt_stream": lambda phi, message: phi.decrypt_stream(io.BytesIO(message), io.BytesIO(), context=CONTEXT),
    "encrypting_reader": lambda phi, message: read_reader(
        phi.encrypting_reader(io.BytesIO(PLAINTEXT), context=CONTEXT)
    ),
    "decrypting_reader": lambda phi, message: read_reader(
        phi.decrypting_reader(io.BytesIO(message), context=CONTEXT)
    ),
}
WITHOUT_KEYS = {
    "acting_as": "names who acts",
    "cache": "statistics and clearing",
    "close": "flushes and forgets",
    "contexts": "checks and serializes contexts",
    "dynamodb": "leads to the item operations",
    "flush": "writes the events that wait",
    "frame_length_bytes": "a setting",
    "guard": "checks pairs",
    "inspect": "reads headers, without any key",
    "limits": "settings",
    "loggable_context": "what events may hold",
    "mac": "leads to the MAC operations",
    "provider": "materials for the sibling packages, which record their own uses",
    "session": "what every verb works on",
    "stats": "counts of caches, endpoints and threads",
    "s3": "leads to the object operations",
    "signer": "leads to the signing operations",
    "threads": "a setting",
    "trail": "the audit trail itself",
    "break_glass": "opens a grant, with events of its own kind: test_break_glass.py",
}


@dataclass
class Stage:
    phi: PhiCrypt
    sink: RecordingSink
    kms: StrictKms
    key_arn: str
    message: bytes

    def events(self) -> list[AuditEvent]:
        assert self.phi.trail is not None
        gc.collect()
        self.phi.trail.flush()
        events, self.sink.events = self.sink.events, []
        return events


@pytest.fixture
def stage() -> Iterator[Stage]:
    with StrictKms() as kms:
        key_arn = kms.create_key()
        message = PhiCrypt(KmsKeyring(key_arn, client=kms.client())).encrypt(PLAINTEXT, context=CONTEXT)
        sink = RecordingSink()
        phi = PhiCrypt(KmsKeyring(key_arn, client=kms.client(read_timeout_seconds=0.3)), cache=None, audit=[sink])
        yield Stage(phi, sink, kms, key_arn, message)


def test_no_public_operation_on_messages_is_forgotten(stage: Stage) -> None:
    names = {name for name in dir(stage.phi) if not name.startswith("_")}
    assert names - set(MESSAGES) - set(WITHOUT_KEYS) == set()


@pytest.mark.parametrize("operation", MESSAGES)
def test_a_successful_operation_on_messages(stage: Stage, operation: str) -> None:
    with stage.phi.acting_as("dr-1", "treatment"):
        MESSAGES[operation](stage.phi, stage.message)
    ((*_, last),) = uses_of(stage.events())
    assert (last.operation, last.outcome, last.actor, last.purpose) == (operation, "success", "dr-1", "treatment")
    assert last.byte_count == len(PLAINTEXT)
    assert last.origin is not None
    assert last.origin.request_ids == (stage.kms.requests[-1].request_id,)
    assert last.cache_hit is False
    assert last.message_id is not None
    assert last.suite_id == 0x0478
    assert last.context == CONTEXT


@pytest.mark.parametrize("operation", MESSAGES)
def test_an_operation_that_kms_denies(stage: Stage, operation: str) -> None:
    stage.kms.deny(stage.key_arn)
    with pytest.raises(KeyAccessError):
        MESSAGES[operation](stage.phi, stage.message)
    ((*_, last),) = uses_of(stage.events())
    assert (last.operation, last.outcome, last.reason) == (operation, "denied", "AccessDeniedException")
    assert last.origin is not None
    assert last.origin.request_ids == (stage.kms.requests[-1].request_id,)


@pytest.mark.parametrize("operation", MESSAGES)
def test_an_operation_whose_kms_call_times_out(stage: Stage, operation: str) -> None:
    stage.kms.hang(1)
    with pytest.raises(KeyAccessError):
        MESSAGES[operation](stage.phi, stage.message)
    ((*_, last),) = uses_of(stage.events())
    assert (last.outcome, last.error) == ("failed", "KeyAccessError")


@pytest.mark.parametrize("operation", MESSAGES)
def test_an_operation_that_is_interrupted(stage: Stage, operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(KmsKeyring, "on_encrypt", interrupted)
    monkeypatch.setattr(KmsKeyring, "on_decrypt", interrupted)
    with pytest.raises(KeyboardInterrupt):
        MESSAGES[operation](stage.phi, stage.message)
    ((*_, last),) = uses_of(stage.events())
    assert (last.outcome, last.error) == ("interrupted", "KeyboardInterrupt")


@pytest.mark.parametrize("operation", [name for name in MESSAGES if name.startswith("decrypt")])
@pytest.mark.parametrize("damage", ["cut", "changed", "not a message", "other context"])
def test_an_operation_on_a_bad_message(stage: Stage, operation: str, damage: str) -> None:
    message = {
        "cut": stage.message[:-5],
        "changed": stage.message[:-5] + b"XXXXX",
        "not a message": b"\x00" * 100,
        "other context": PhiCrypt(KmsKeyring(stage.key_arn, client=stage.kms.client())).encrypt(
            b"x", context={"tenant": "clinic-8"}
        ),
    }[damage]
    with pytest.raises(PhiCryptError):
        MESSAGES[operation](stage.phi, message)
    ((*_, last),) = uses_of(stage.events())
    assert last.outcome == "failed"
    assert last.error is not None


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TimeoutError(), GeneratorExit()])
def test_streams_that_break_in_the_middle(stage: Stage, error: BaseException) -> None:
    expected = "failed" if isinstance(error, Exception) else "interrupted"
    for run in (
        lambda source: stage.phi.encrypt_stream(source, io.BytesIO(), context=CONTEXT),
        lambda source: read_reader(stage.phi.encrypting_reader(source, context=CONTEXT)),
    ):
        with pytest.raises(type(error)):
            run(ExplodingStream(b"x" * 100, error))
        ((*_, last),) = uses_of(stage.events())
        assert (last.outcome, last.error) == (expected, type(error).__name__)
    for run in (
        lambda source: stage.phi.decrypt_stream(source, io.BytesIO(), context=CONTEXT),
        lambda source: read_reader(stage.phi.decrypting_reader(source, context=CONTEXT)),
    ):
        with pytest.raises(type(error)):
            run(ExplodingStream(stage.message[:-100], error))
        ((*_, last),) = uses_of(stage.events())
        assert (last.outcome, last.error) == (expected, type(error).__name__)


@pytest.mark.parametrize("kind", ["encrypting_reader", "decrypting_reader"])
def test_readers_that_are_dropped_leave_an_end(stage: Stage, kind: str) -> None:
    source = io.BytesIO(PLAINTEXT if kind == "encrypting_reader" else stage.message)
    reader = getattr(stage.phi, kind)(source, context=CONTEXT)
    reader.read(10)
    del reader
    ((begin, end),) = uses_of(stage.events())
    assert begin.kind == "begin"
    assert end.outcome == "interrupted"


def test_rule_20_a_reader_keeps_the_actor_with_whom_it_was_opened(stage: Stage) -> None:
    with stage.phi.acting_as("dr-1", "treatment"):
        reader = stage.phi.decrypting_reader(io.BytesIO(stage.message), context=CONTEXT)
    with stage.phi.acting_as("dr-2", "payment"):
        assert read_reader(reader) == PLAINTEXT
    (pair,) = uses_of(stage.events())
    assert [(event.actor, event.purpose) for event in pair] == [("dr-1", "treatment")] * 2


@pytest.mark.parametrize("operation", [name for name in MESSAGES if name.startswith("decrypt")])
def test_rule_20_no_plaintext_and_no_kms_call_without_the_begin_record(stage: Stage, operation: str) -> None:
    class Broken:
        def write(self, events: object) -> None:
            raise OSError

        def close(self) -> None:
            pass

    phi = PhiCrypt(KmsKeyring(stage.key_arn, client=stage.kms.client()), audit=[Broken()])
    before = len(stage.kms.requests)
    with pytest.raises(AuditError):
        MESSAGES[operation](phi, stage.message)
    assert len(stage.kms.requests) == before


def test_cached_keys_leave_events_that_name_the_call_that_fetched_them(stage: Stage) -> None:
    phi = PhiCrypt(KmsKeyring(stage.key_arn, client=stage.kms.client()), audit=[stage.sink])
    for _ in range(3):
        phi.decrypt(stage.message, context=ANY_CONTEXT)
    ends = [pair[-1] for pair in uses_of(stage.sink.events)]
    assert [end.cache_hit for end in ends] == [False, True, True]
    assert len({end.origin for end in ends}) == 1


# Signatures and MACs

SIGNING: dict[str, Callable[[Signer, bytes], object]] = {
    "sign": lambda signer, signature: signer.sign(b"document", resource="report-1", purpose="release"),
    "verify": lambda signer, signature: signer.verify(
        b"document", signature, resource="report-1", purpose="release"
    ),
}
SIGNING_WITHOUT_KEYS = {
    "algorithm": "a setting",
    "key_arn": "a setting",
    "public_key_der": "the public half",
    "sign_manifest": "one sign over the manifest: test_every_other_operation.py",
    "verify_manifest": "one verify over the manifest: test_every_other_operation.py",
    "verifier": "verifies as above: test_every_other_operation.py",
}


@pytest.mark.parametrize("operation", SIGNING)
def test_signatures(stage: Stage, operation: str) -> None:
    signer = stage.phi.signer(stage.kms.create_signing_key("ECC_NIST_P384"), client=stage.kms.client())
    signature = signer.sign(b"document", resource="report-1", purpose="release")
    stage.events()
    SIGNING[operation](signer, signature)
    ((last,),) = uses_of(stage.events())
    assert (last.operation, last.outcome) == (operation, "success")
    assert public_names(Signer) - set(SIGNING) - set(SIGNING_WITHOUT_KEYS) == set()


def test_refused_signatures(stage: Stage) -> None:
    key_arn = stage.kms.create_signing_key("ECC_NIST_P384")
    signer = stage.phi.signer(key_arn, client=stage.kms.client())
    signature = signer.sign(b"document", resource="report-1", purpose="release")
    stage.events()
    with pytest.raises(PhiCryptError):
        signer.verify(b"another", signature, resource="report-1", purpose="release")
    ((last,),) = uses_of(stage.events())
    assert last.outcome == "failed"
    stage.kms.deny(key_arn, "Sign")
    with pytest.raises(KeyAccessError):
        signer.sign(b"document", resource="report-1", purpose="release")
    ((last,),) = uses_of(stage.events())
    assert last.outcome == "denied"
    assert last.origin is not None
    assert last.origin.request_ids == (stage.kms.requests[-1].request_id,)


MACS: dict[str, Callable[[Mac, bytes], object]] = {
    "generate": lambda mac, code: mac.generate(b"row", resource="t-1", purpose="integrity"),
    "verify": lambda mac, code: mac.verify(b"row", code, resource="t-1", purpose="integrity"),
}
MACS_WITHOUT_KEYS = {
    "key_arn": "a setting",
    "local": "opens local keys: test_every_other_operation.py",
    "new_local_key": "makes a local key: test_every_other_operation.py",
}


@pytest.mark.parametrize("operation", MACS)
def test_macs(stage: Stage, operation: str) -> None:
    mac = stage.phi.mac(stage.kms.create_mac_key(), client=stage.kms.client())
    code = mac.generate(b"row", resource="t-1", purpose="integrity")
    stage.events()
    MACS[operation](mac, code)
    ((last,),) = uses_of(stage.events())
    assert last.outcome == "success"
    assert last.origin is not None
    assert last.origin.request_ids == (stage.kms.requests[-1].request_id,)
    assert public_names(Mac) - set(MACS) - set(MACS_WITHOUT_KEYS) == set()


# Items

ITEMS: dict[str, tuple[Callable[[PhiCrypt, dict[str, Any]], object], int]] = {
    "encrypt_item": (lambda phi, sealed: phi.dynamodb.encrypt_item(ITEM, TABLE), 1),
    "decrypt_item": (lambda phi, sealed: phi.dynamodb.decrypt_item(sealed, TABLE), 1),
}
ITEMS_WITHOUT_KEYS = {
    "attach": "changes a client",
    "client": "makes a client: test_clients_of_tables below",
    "resource": "makes a resource",
    "session": "makes a session",
    "table": "makes a typed table",
    "update_encrypted": "reads, opens, seals and writes: test_every_item_and_object.py",
}


@pytest.fixture
def local_phi() -> tuple[PhiCrypt, RecordingSink]:
    sink = RecordingSink()
    return PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(range(32))), audit=[sink]), sink


@pytest.mark.parametrize("operation", ITEMS)
def test_items(local_phi: tuple[PhiCrypt, RecordingSink], operation: str) -> None:
    phi, sink = local_phi
    assert phi.trail is not None
    sealed = phi.dynamodb.encrypt_item(ITEM, TABLE)
    phi.trail.flush()
    sink.events.clear()
    run, count = ITEMS[operation]
    run(phi, sealed)
    phi.trail.flush()
    uses = uses_of(sink.events)
    assert [use[-1].outcome for use in uses] == ["success"] * count
    assert "Jane" not in "".join(event.to_json() for event in sink.events)
    sink.events.clear()
    with pytest.raises(PhiCryptError):
        phi.dynamodb.decrypt_item({**sealed, "name": b"changed"}, TABLE)
    (use,) = uses_of(sink.events)
    assert use[-1].outcome == "failed"
    assert public_names(DynamoDb) - set(ITEMS) - set(ITEMS_WITHOUT_KEYS) == set()


def test_clients_of_tables_leave_one_use_per_item(local_phi: tuple[PhiCrypt, RecordingSink]) -> None:
    phi, sink = local_phi
    assert phi.trail is not None
    with local_aws() as aws:
        aws.client("dynamodb").create_table(
            TableName="patients",
            KeySchema=[{"AttributeName": "patient_id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "patient_id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        client = phi.dynamodb.client([TABLE], session=aws.session(), endpoint_url=aws.endpoint_url)
        items = [
            {"patient_id": {"S": f"p-{number}"}, "name": {"S": "Jane Doe"}, "note": {"S": "n"}}
            for number in range(5)
        ]
        wanted = [{"patient_id": item["patient_id"]} for item in items]
        for run, count in (
            (lambda: client.put_item(TableName="patients", Item=items[0]), 1),
            (
                lambda: client.batch_write_item(
                    RequestItems={"patients": [{"PutRequest": {"Item": item}} for item in items]}
                ),
                5,
            ),
            (lambda: client.get_item(TableName="patients", Key=wanted[0]), 1),
            (lambda: client.get_item(TableName="patients", Key={"patient_id": {"S": "none"}}), 0),
            (lambda: client.batch_get_item(RequestItems={"patients": {"Keys": wanted}}), 5),
            (lambda: client.scan(TableName="patients"), 5),
            (
                lambda: client.query(
                    TableName="patients",
                    KeyConditionExpression="patient_id = :p",
                    ExpressionAttributeValues={":p": {"S": "p-1"}},
                ),
                1,
            ),
        ):
            sink.events.clear()
            run()
            phi.trail.flush()
            uses = uses_of(sink.events)
            assert len(uses) == count
            assert all(use[-1].outcome == "success" for use in uses)
            assert all("Jane" not in event.to_json() for event in sink.events)


# Objects

OBJECTS_WITHOUT_KEYS = {
    "abort_incomplete": "sweeps what killed uploads left",
    "abort_multipart_upload": "ends an upload: test_an_aborted_upload_ends_as_interrupted",
    "create_multipart_upload": "begins the use that complete_multipart_upload ends",
    "head_object": "stored lengths only",
    "list_objects_v2": "stored lengths only",
    "plan_rewrap": "stored metadata only",
    "put_object_tagging": "tags",
    "restore_object": "a request to S3",
    "upload_part": "part of the use of its upload",
}
PART = 5 * 1024 * 1024


def put_in_parts(s3: Any, place: dict[str, str]) -> None:
    upload = {**place, "UploadId": s3.create_multipart_upload(**place)["UploadId"]}
    parts = [
        {"PartNumber": number, "ETag": s3.upload_part(**upload, PartNumber=number, Body=body)["ETag"]}
        for number, body in ((1, bytes(PART)), (2, PLAINTEXT))
    ]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})


def write_file(s3: Any) -> None:
    with s3.open("s3://bucket/jane-doe.pdf", "wb") as file:
        file.write(PLAINTEXT)


def read_some(s3: Any) -> None:
    with s3.open("s3://bucket/jane-doe.pdf") as file:
        file.seek(10)
        assert file.read(5) == PLAINTEXT[10:15]
        file.seek(-5, 2)
        assert file.read() == PLAINTEXT[-5:]


@pytest.fixture
def objects(local_phi: tuple[PhiCrypt, RecordingSink]) -> Iterator[tuple[Any, RecordingSink, PhiCrypt]]:
    phi, sink = local_phi
    with local_aws() as aws:
        aws.client("s3").create_bucket(Bucket="bucket")
        yield phi.s3(aws.client("s3"), part_size_bytes=PART), sink, phi


def test_objects(objects: tuple[Any, RecordingSink, PhiCrypt], tmp_path: Path) -> None:
    s3, sink, phi = objects
    assert phi.trail is not None
    file = tmp_path / "file"
    file.write_bytes(PLAINTEXT)
    place = {"Bucket": "bucket", "Key": "jane-doe.pdf"}
    source = {"CopySource": place}
    other = {"Bucket": "bucket", "Key": "copy-of-jane-doe.pdf"}
    new_keyring = RawAesKeyring("clinic", "key-2", bytes(32))
    scenarios: dict[str, tuple[Callable[[], object], int]] = {
        "complete_multipart_upload": (lambda: put_in_parts(s3, place), 1),
        "put_object": (lambda: s3.put_object(**place, Body=PLAINTEXT), 1),
        "get_object": (lambda: s3.get_object(**place)["Body"].read(), 1),
        "upload_fileobj": (lambda: s3.upload_fileobj(io.BytesIO(PLAINTEXT), "bucket", "jane-doe.pdf"), 1),
        "download_fileobj": (lambda: s3.download_fileobj("bucket", "jane-doe.pdf", io.BytesIO()), 1),
        "upload_file": (lambda: s3.upload_file(str(file), "bucket", "jane-doe.pdf"), 1),
        "download_file": (lambda: s3.download_file("bucket", "jane-doe.pdf", str(tmp_path / "copy")), 1),
        "open": (lambda: write_file(s3), 1),
        "open ": (lambda: read_some(s3), 1),
        "copy_object": (lambda: s3.copy_object(**other, **source), 2),
        "copy": (lambda: s3.copy(place, "bucket", "copy-of-jane-doe.pdf"), 2),
        "rewrap": (lambda: s3.rewrap("bucket", "copy-of-jane-doe.pdf", to=new_keyring, context=None), 2),
    }
    for operation, (run, count) in scenarios.items():
        sink.events.clear()
        run()
        gc.collect()
        phi.trail.flush()
        uses = uses_of(sink.events)
        assert [use[-1].outcome for use in uses] == ["success"] * count, operation
        assert all("jane" not in event.to_json() for event in sink.events), operation
    named = {operation.strip() for operation in scenarios}
    assert {name for name in vars(S3Client) if not name.startswith("_")} - named - set(
        OBJECTS_WITHOUT_KEYS
    ) == set()


def test_an_aborted_upload_ends_as_interrupted(objects: tuple[Any, RecordingSink, PhiCrypt]) -> None:
    s3, sink, phi = objects
    assert phi.trail is not None
    place = {"Bucket": "bucket", "Key": "jane-doe.pdf"}
    upload = {**place, "UploadId": s3.create_multipart_upload(**place)["UploadId"]}
    s3.upload_part(**upload, PartNumber=1, Body=bytes(PART))
    s3.abort_multipart_upload(**upload)
    gc.collect()
    phi.trail.flush()
    ((*_, last),) = uses_of(sink.events)
    assert last.outcome != "success"


def test_an_object_that_was_changed_leaves_a_failure(objects: tuple[Any, RecordingSink, PhiCrypt]) -> None:
    s3, sink, phi = objects
    assert phi.trail is not None
    place = {"Bucket": "bucket", "Key": "jane-doe.pdf"}
    s3.put_object(**place, Body=PLAINTEXT)
    raw = s3._s3_session.client
    stored = raw.get_object(**place)
    raw.put_object(**place, Body=stored["Body"].read()[:-5] + b"XXXXX", Metadata=stored["Metadata"])
    phi.trail.flush()
    sink.events.clear()
    with pytest.raises(PhiCryptError):
        s3.get_object(**place)["Body"].read()
    gc.collect()
    phi.trail.flush()
    ((*_, last),) = uses_of(sink.events)
    assert last.outcome == "failed"
