"""The calls of the mix: messages, S3 objects, DynamoDB items, branch keys, signatures, MACs."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from phicrypt.dynamodb.updates import update_encrypted
from phicrypt.errors import KeyAccessError

from .contents import Content, bytes_of, named, piece_named
from .ledger import ABSENT, Place
from .stage import BUCKET, CANARY, PATIENTS

if TYPE_CHECKING:
    from .worker import Worker

KEYS: Final = 5
SMALL_BYTES: Final = (1, 200, 4_096, 140_000)
LARGE_BYTES: Final = 5 * 1024**2 + 300_000
TABLE: Final = PATIENTS.table_name


@dataclass(frozen=True)
class Call:
    """One kind of call.

    Attributes:
        make: makes it for a worker.
        weight: how often it comes.
        uses: for a success, the uses that the audit trail holds: name and how many.
    """

    make: Callable[[Worker], None]
    weight: float
    uses: tuple[tuple[str, int], ...] = ()


# --- messages -------------------------------------------------------------------------------------


def encrypt(worker: Worker) -> None:
    under, content = worker.either_client(), worker.new_content(SMALL_BYTES)
    context = {"record": f"{worker.tag}-{worker.chance.randrange(3)}"}
    message = getattr(worker.desk, under).encrypt(bytes_of(content), context=context)
    worker.keep_message(under, message, content, context)


def decrypt(worker: Worker) -> None:
    kept = worker.some_message()
    if kept is not None:
        under, message, content, context = kept
        opened = getattr(worker.desk, under).decrypt(message, context=context)
        worker.expect(bytes_of(content) == opened, "wrong", "a message opened to another plaintext")


def stream(worker: Worker) -> None:
    kept = worker.some_message()
    if kept is not None:
        under, message, content, context = kept
        sink = io.BytesIO()
        getattr(worker.desk, under).decrypt_stream(io.BytesIO(message), sink, context=context)
        worker.expect(bytes_of(content) == sink.getvalue(), "wrong", "a stream opened to another plaintext")


def forget_keys(worker: Worker) -> None:
    worker.desk.forget_keys()
    worker.is_poisoned = worker.has_forged_data_key = False


# --- S3 -------------------------------------------------------------------------------------------


def _object(worker: Worker) -> tuple[str, Place]:
    name = f"{worker.tag}/{worker.chance.randrange(KEYS)}"
    return name, worker.ledger.place("s3", name)


def put_object(worker: Worker) -> None:
    name, place = _object(worker)
    content = worker.new_content(SMALL_BYTES)
    with worker.writing(place, content):
        worker.desk.s3.put_object(Bucket=BUCKET, Key=name, Body=bytes_of(content))


def get_object(worker: Worker) -> None:
    name, place = _object(worker)
    try:
        read = worker.desk.s3.get_object(Bucket=BUCKET, Key=name)["Body"].read()
    except ClientError as error:
        worker.saw_absence(place, error, "NoSuchKey")
        raise
    worker.saw(place, named(read, worker.known(place)))


def get_range(worker: Worker) -> None:
    name, place = _object(worker)
    first = worker.chance.randrange(200_000)
    last = first + worker.chance.randrange(1, 60_000)
    try:
        answer = worker.desk.s3.get_object(Bucket=BUCKET, Key=name, Range=f"bytes={first}-{last}")
        read = answer["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("InvalidRange", "416"):
            sizes = {len(bytes_of(one)) for one in worker.known(place) if isinstance(one, Content)}
            worker.expect(any(size <= first for size in sizes), "wrong", "a range within the object was refused")
            return
        worker.saw_absence(place, error, "NoSuchKey")
        raise
    worker.saw(place, piece_named(read, slice(first, last + 1), worker.known(place)))


def upload(worker: Worker) -> None:
    name = f"{worker.tag}/{worker.chance.randrange(2)}"  # few, since the local server keeps them in memory
    place = worker.ledger.place("s3", name)
    content = Content(worker.next_number(), LARGE_BYTES + worker.chance.randrange(1_000))
    with worker.writing(place, content):
        worker.desk.s3.upload_fileobj(io.BytesIO(bytes_of(content)), BUCKET, name)


def download_file(worker: Worker) -> None:
    name, place = _object(worker)
    target = worker.desk.stage.folder / f"{worker.tag}-download"
    try:
        worker.desk.s3.download_file(BUCKET, name, str(target))
        read = target.read_bytes()
    except ClientError as error:
        worker.saw_absence(place, error, "404", "NoSuchKey")
        worker.expect(not target.exists(), "left on disk", "a download that failed left its file")
        raise
    finally:
        target.unlink(missing_ok=True)
    worker.saw(place, named(read, worker.known(place)))


def delete_object(worker: Worker) -> None:
    name, place = _object(worker)
    with worker.writing(place, ABSENT):
        worker.desk.s3.delete_object(Bucket=BUCKET, Key=name)


# --- DynamoDB -------------------------------------------------------------------------------------


def _item(worker: Worker, number: int | None = None) -> tuple[dict[str, Any], Place]:
    number = worker.chance.randrange(KEYS) if number is None else number
    item_key = {"clinic": {"S": worker.tag}, "patient_id": {"S": str(number)}}
    return item_key, worker.ledger.place("item", number)


def _value(item: Any) -> Any:
    """What the ledger holds of an item: its note and its count."""
    return ABSENT if not item else (item["note"]["S"], int(item["count"]["N"]))


def _new_item(worker: Worker, number: int | None = None) -> tuple[dict[str, Any], Place, tuple[str, int]]:
    item_key, place = _item(worker, number)
    value = (f"{CANARY.decode()} {worker.next_number()}", 0)
    return {**item_key, "note": {"S": value[0]}, "count": {"N": "0"}, "seen": {"S": "x"}}, place, value


def put_item(worker: Worker) -> None:
    item, place, value = _new_item(worker)
    with worker.writing(place, value):
        worker.desk.dynamodb.put_item(TableName=TABLE, Item=item)


def get_item(worker: Worker) -> None:
    item_key, place = _item(worker)
    answer = worker.desk.dynamodb.get_item(TableName=TABLE, Key=item_key, ConsistentRead=True)
    worker.saw(place, _value(answer.get("Item")))


def query(worker: Worker) -> None:
    pages = worker.desk.dynamodb.get_paginator("query").paginate(
        TableName=TABLE,
        KeyConditionExpression="clinic = :c",
        ExpressionAttributeValues={":c": {"S": worker.tag}},
        ConsistentRead=True,
        PaginationConfig={"PageSize": 2},
    )
    found = {item["patient_id"]["S"]: item for page in pages for item in page.get("Items", ())}
    for number in range(KEYS):
        worker.saw(_item(worker, number)[1], _value(found.get(str(number))))


def update(worker: Worker) -> None:
    item_key, place = _item(worker)
    note = f"{CANARY.decode()} {worker.next_number()}"
    before = set(place.possible)
    for one in before:
        if one is not ABSENT:
            place.may_become((note, one[1] + 1))

    def change(item: dict[str, Any]) -> None:
        item["note"] = {"S": note}
        item["count"] = {"N": str(int(item["count"]["N"]) + 1)}

    changed = update_encrypted(worker.desk.dynamodb, TABLE, item_key, change)
    if changed is None:
        worker.saw(place, ABSENT)
    else:
        worker.wrote(place, _value(changed))


def delete_item(worker: Worker) -> None:
    item_key, place = _item(worker)
    with worker.writing(place, ABSENT):
        worker.desk.dynamodb.delete_item(TableName=TABLE, Key=item_key)


def batch_write(worker: Worker) -> None:
    numbers = worker.chance.sample(range(KEYS), 3)
    made = [_new_item(worker, number) for number in numbers]
    for _, place, value in made:
        place.may_become(value)
    requests = [{"PutRequest": {"Item": item}} for item, _, _ in made]
    answer = worker.desk.dynamodb.batch_write_item(RequestItems={TABLE: requests})
    left = [request["PutRequest"]["Item"]["note"] for request in answer.get("UnprocessedItems", {}).get(TABLE, ())]
    for item, place, value in made:
        if item["note"] not in left:
            worker.wrote(place, value)


def batch_get(worker: Worker) -> None:
    numbers = worker.chance.sample(range(KEYS), 3)
    keys = [_item(worker, number)[0] for number in numbers]
    answer = worker.desk.dynamodb.batch_get_item(RequestItems={TABLE: {"Keys": keys, "ConsistentRead": True}})
    if not answer.get("UnprocessedKeys"):
        found = {item["patient_id"]["S"]: item for item in answer["Responses"].get(TABLE, ())}
        for number in numbers:
            worker.saw(_item(worker, number)[1], _value(found.get(str(number))))


def transact_write(worker: Worker) -> None:
    numbers = worker.chance.sample(range(KEYS), 2)
    made = [_new_item(worker, number) for number in numbers]
    with contextlib.ExitStack() as stack:
        for _, place, value in made:
            stack.enter_context(worker.writing(place, value))
        puts = [{"Put": {"TableName": TABLE, "Item": item}} for item, _, _ in made]
        worker.desk.dynamodb.transact_write_items(TransactItems=puts)


def transact_get(worker: Worker) -> None:
    numbers = worker.chance.sample(range(KEYS), 2)
    gets = [{"Get": {"TableName": TABLE, "Key": _item(worker, number)[0]}} for number in numbers]
    answers = worker.desk.dynamodb.transact_get_items(TransactItems=gets)["Responses"]
    for number, answer in zip(numbers, answers, strict=True):
        worker.saw(_item(worker, number)[1], _value(answer.get("Item")))


# --- keys -----------------------------------------------------------------------------------------


def create_key(worker: Worker) -> None:
    name = f"{worker.tag}-{worker.chance.randrange(3)}"
    place = worker.ledger.place("branch key", name)
    try:
        with worker.writing(place, "there"):
            worker.desk.store.create_key(name)
    except KeyAccessError as error:
        if error.code == "BranchKeyExists":
            worker.saw(place, "there")
            return
        raise


def rotate(worker: Worker) -> None:
    worker.rotate()


def fetch_active(worker: Worker) -> None:
    name = f"{worker.tag}-{worker.chance.randrange(3)}"
    place = worker.ledger.place("branch key", name)
    try:
        worker.desk.store.fetch_active(name)
    except KeyAccessError as error:
        if error.code in ("BranchKeyNotFound", "BranchKeyShredded"):
            worker.saw(place, ABSENT)
        raise
    worker.saw(place, "there")


# --- signatures and MACs --------------------------------------------------------------------------


def sign(worker: Worker) -> None:
    body = bytes_of(worker.new_content((300,)))
    worker.signed.append((body, worker.signer.sign(body, resource="report", purpose="release")))
    del worker.signed[:-5]


def verify(worker: Worker) -> None:
    if worker.signed:
        body, envelope = worker.chance.choice(worker.signed)
        worker.signer.verify(body, envelope, resource="report", purpose="release")


def mac(worker: Worker) -> None:
    body = bytes_of(worker.new_content((300,)))
    worker.macs.append((body, worker.mac.generate(body, resource="report", purpose="integrity")))
    del worker.macs[:-5]


def verify_mac(worker: Worker) -> None:
    if worker.macs:
        body, tag = worker.chance.choice(worker.macs)
        worker.mac.verify(body, tag, resource="report", purpose="integrity")


def local_mac(worker: Worker) -> None:
    if not worker.envelopes:
        worker.envelopes.append((worker.enveloping_mac.new_local_key("tokens"), None))
        return
    envelope, known = worker.envelopes[0]
    token = worker.enveloping_mac.local([envelope], purpose="tokens").generate(
        b"encounter-7", resource="encounter"
    )
    if known is None:
        worker.envelopes[0] = (envelope, token)
    worker.expect(known in (None, token), "wrong", "a local MAC key made another token")


CALLS: Final = {
    "encrypt": Call(encrypt, 8, (("encrypt", 1),)),
    "decrypt": Call(decrypt, 8),
    "decrypt_stream": Call(stream, 2),
    "clear the caches": Call(forget_keys, 6),
    "s3.put_object": Call(put_object, 8, (("s3.put_object", 1),)),
    "s3.get_object": Call(get_object, 8, (("s3.get_object", 1),)),
    "s3.get_object range": Call(get_range, 5),
    "s3.upload_fileobj": Call(upload, 0.7, (("s3.upload_fileobj", 1),)),
    "s3.download_file": Call(download_file, 3, (("s3.download_file", 1),)),
    "s3.delete_object": Call(delete_object, 1),
    "dynamodb.put_item": Call(put_item, 6, (("dynamodb.put_item", 1),)),
    "dynamodb.get_item": Call(get_item, 6),
    "dynamodb.query": Call(query, 4),
    "dynamodb.update_encrypted": Call(update, 6),
    "dynamodb.delete_item": Call(delete_item, 1),
    "dynamodb.batch_write_item": Call(batch_write, 3, (("dynamodb.batch_write_item", 3),)),
    "dynamodb.batch_get_item": Call(batch_get, 3),
    "dynamodb.transact_write_items": Call(transact_write, 3, (("dynamodb.transact_write_items", 2),)),
    "dynamodb.transact_get_items": Call(transact_get, 3),
    "store.create_key": Call(create_key, 1),
    "store.rotate": Call(rotate, 0.5, (("rotate-branch-key", 1),)),
    "store.fetch_active": Call(fetch_active, 2, (("fetch-branch-key", 1),)),
    "sign": Call(sign, 2, (("sign", 1),)),
    "verify": Call(verify, 2),
    "mac": Call(mac, 2, (("mac", 1),)),
    "verify-mac": Call(verify_mac, 2),
    "local-mac": Call(local_mac, 1),
}
