"""Every public verb is given values that it does not take: no error holds them, nor does what stands behind it.

Each case puts one awkward value into one place. It may be taken; if it is not, the error is phicrypt's or AWS's
own, and :mod:`support.error_walks` finds the canary nowhere in it.
"""

from __future__ import annotations

import ast
import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError
from support.dynamodb_support import create_patients_table, key, patient, patient_config, shared_session
from support.error_walks import CANARY, canaries_in

import phicrypt
from phicrypt import AuditContext, KmsKeyring, PhiCrypt, RawAesKeyring
from phicrypt.core.limits import ReadLimits
from phicrypt.core.strict_json import parse_json, parse_toml
from phicrypt.dynamodb import Encrypted, PartitionKey, PhiModel, SortKey, Unsigned
from phicrypt.dynamodb.layer import check_body
from phicrypt.dynamodb.tables import TableBook
from phicrypt.errors import PhiCryptError, UnsupportedOperationError
from phicrypt.evidence.trail_events import parse_record
from phicrypt.formats.dbesdk.header import parse_header as parse_item_header
from phicrypt.formats.esdk.header import parse_header
from phicrypt.formats.reader import ByteReader
from phicrypt.formats.signatures import canonical_json, read_descriptor
from phicrypt.keys.branch_keys.values import check_branch_key_id
from phicrypt.posture.declaration import Declaration
from phicrypt.posture.report import Report
from phicrypt.signatures import kms_mac
from phicrypt.testing import local_aws

PACKAGE = Path(phicrypt.__file__).parent
TABLE = "patients"
ALLOWED = (PhiCryptError, BotoCoreError, ValidationError)


class Odd:
    """Neither text nor bytes, and shows itself to whoever prints it."""

    def __repr__(self) -> str:
        return f"<Odd {CANARY}>"


def nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


HALF_PAIR = CANARY + "\ud800"
NOT_UTF8 = CANARY.encode() + b"\xff"
AWKWARD: dict[str, Any] = {
    "half a pair": HALF_PAIR,
    "text": CANARY,
    "bytes": NOT_UTF8,
    "an object": Odd(),
    "a list": [CANARY, Odd()],
    "a set": {CANARY},
    "a tuple": (CANARY, 1),
    "a mapping": {"name": CANARY},
    "mixed names": {1: CANARY, CANARY: 2},
    "nested": nested(CANARY, 100),
    "S of bytes": {"S": NOT_UTF8},
    "S of half a pair": {"S": HALF_PAIR},
    "S of an object": {"S": Odd()},
    "N of text": {"N": CANARY},
    "M of what is none": {"M": {CANARY: {"S": 5}}},
    "M with mixed names": {"M": {1: {"S": CANARY}, CANARY: {"S": CANARY}}},
    "SS twice": {"SS": [CANARY, CANARY]},
    "SS mixed": {"SS": [CANARY, 5]},
    "no tag": {"Q": CANARY},
    "two tags": {"S": CANARY, "N": CANARY},
}


class Visit(PhiModel, table=TABLE):
    patient_id: PartitionKey[str]
    visit: SortKey[int]
    name: Encrypted[str | None] = None
    note: Unsigned[int | None] = None


@pytest.fixture(scope="module")
def on() -> Iterator[SimpleNamespace]:
    """A clinic: clients of everything on a local AWS, with one patient and one object."""
    with local_aws() as stack:
        raw = stack.client("dynamodb")
        create_patients_table(raw, TABLE)
        stack.client("s3").create_bucket(Bucket="records")
        phi = PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(32)))
        kms = stack.client("kms")
        config = patient_config(TABLE)
        options: dict[str, Any] = {
            "session": shared_session(),
            "endpoint_url": stack.endpoint_url,
            "config": Config(retries={"total_max_attempts": 1}),  # moto answers 500 to what it cannot read
        }
        mac_key = kms.create_key(KeyUsage="GENERATE_VERIFY_MAC", KeySpec="HMAC_256")["KeyMetadata"]["Arn"]
        clinic = SimpleNamespace(
            phi=phi,
            kms_phi=PhiCrypt(KmsKeyring(stack.kms_key_arn, client=kms)),
            config=config,
            items=phi.dynamodb.client([config], **options),
            table=phi.dynamodb.resource([config], **options).Table(TABLE),
            visits=phi.dynamodb.table(Visit, **options),
            s3=phi.s3(stack.client("s3")),
            mac=phi.mac(mac_key, client=kms),
            message=phi.encrypt(b"x", context={"tenant": "7"}),
        )
        clinic.items.put_item(TableName=TABLE, Item=patient())
        clinic.s3.put_object(Bucket="records", Key="one", Body=b"x")
        yield clinic


def update(on: SimpleNamespace, attribute: str, value: Any) -> Any:
    return on.items.update_encrypted(TableName=TABLE, Key=key(), change=lambda item: {**item, attribute: value})


CASES: dict[str, Callable[[SimpleNamespace, Any], object]] = {
    # messages
    "encrypt, body": lambda on, bad: on.phi.encrypt(bad),
    "encrypt, value": lambda on, bad: on.phi.encrypt(b"x", context={"tenant": bad}),
    "encrypt, under KMS": lambda on, bad: on.kms_phi.encrypt(b"x", context={"tenant": bad}),
    "encrypt, audit context": lambda on, bad: on.phi.encrypt(b"x", context=AuditContext(tenant=bad)),
    "decrypt, message": lambda on, bad: on.phi.decrypt(bad, context={"tenant": "7"}),
    "decrypt, value": lambda on, bad: on.phi.decrypt(on.message, context={"tenant": bad}),
    "stream": lambda on, bad: on.phi.encrypt_stream(io.BytesIO(b"x"), io.BytesIO(), context={"tenant": bad}),
    "inspect": lambda on, bad: on.phi.inspect(bad),
    "raw AES key": lambda on, bad: RawAesKeyring("clinic", "key-1", bad),
    "branch key id": lambda on, bad: check_branch_key_id(bad),
    # S3
    "put, body": lambda on, bad: on.s3.put_object(Bucket="records", Key="two", Body=bad),
    "put, object key": lambda on, bad: on.s3.put_object(Bucket="records", Key=bad, Body=b"x"),
    "put, metadata": lambda on, bad: on.s3.put_object(Bucket="records", Key="two", Body=b"x", Metadata={"a": bad}),
    "put, tags": lambda on, bad: on.s3.put_object(Bucket="records", Key="two", Body=b"x", Tagging=bad),
    "put, type": lambda on, bad: on.s3.put_object(Bucket="records", Key="two", Body=b"x", ContentType=bad),
    "put, SSE-KMS": lambda on, bad: on.s3.put_object(
        Bucket="records", Key="two", Body=b"x", SSEKMSEncryptionContext=bad
    ),
    "put, SSE-KMS in base64": lambda on, bad: on.s3.put_object(
        Bucket="records",
        Key="two",
        Body=b"x",
        SSEKMSEncryptionContext=base64.b64encode(repr(bad).encode(errors="replace")).decode(),
    ),
    "put, context": lambda on, bad: on.s3.put_object(
        Bucket="records", Key="two", Body=b"x", EncryptionContext={"tenant": bad}
    ),
    "get, object key": lambda on, bad: on.s3.get_object(Bucket="records", Key=bad),
    "head, object key": lambda on, bad: on.s3.head_object(Bucket="records", Key=bad),
    "delete, object key": lambda on, bad: on.s3.delete_object(Bucket="records", Key=bad),
    "list, prefix": lambda on, bad: on.s3.list_objects_v2(Bucket="records", Prefix=bad),
    "copy, source": lambda on, bad: on.s3.copy({"Bucket": "records", "Key": bad}, "records", "two"),
    "copy, target": lambda on, bad: on.s3.copy({"Bucket": "records", "Key": "one"}, "records", bad),
    "upload": lambda on, bad: on.s3.upload_fileobj(io.BytesIO(b"x"), "records", bad),
    "download": lambda on, bad: on.s3.download_fileobj("records", bad, io.BytesIO()),
    "rewrap": lambda on, bad: on.s3.plan_rewrap("records", bad),
    # DynamoDB
    **{
        f"put_item, {name}": lambda on, bad, name=name: on.items.put_item(
            TableName=TABLE, Item=patient(**{name: bad})
        )
        for name in ("patient_id", "name", "conditions", "scan", "clinic", "note", "x_other")
    },
    "put_item, item": lambda on, bad: on.items.put_item(TableName=TABLE, Item={**patient(), "name": {"L": bad}}),
    "put_item, condition": lambda on, bad: on.items.put_item(
        TableName=TABLE,
        Item=patient(),
        ConditionExpression="note = :n",
        ExpressionAttributeValues={":n": bad},
    ),
    "get_item, key": lambda on, bad: on.items.get_item(TableName=TABLE, Key={**key(), "patient_id": bad}),
    "delete_item, key": lambda on, bad: on.items.delete_item(TableName=TABLE, Key={**key(), "patient_id": bad}),
    "update_item, value": lambda on, bad: on.items.update_item(
        TableName=TABLE,
        Key=key(),
        UpdateExpression="SET note = :n",
        ExpressionAttributeValues={":n": bad},
    ),
    "query, value": lambda on, bad: on.items.query(
        TableName=TABLE,
        KeyConditionExpression="patient_id = :p",
        ExpressionAttributeValues={":p": bad},
    ),
    "scan, start": lambda on, bad: on.items.scan(TableName=TABLE, ExclusiveStartKey={**key(), "patient_id": bad}),
    "batch_write_item": lambda on, bad: on.items.batch_write_item(
        RequestItems={TABLE: [{"PutRequest": {"Item": patient(note=bad)}}]}
    ),
    "batch_get_item": lambda on, bad: on.items.batch_get_item(
        RequestItems={TABLE: {"Keys": [{**key(), "patient_id": bad}]}}
    ),
    "transact_write_items": lambda on, bad: on.items.transact_write_items(
        TransactItems=[{"Put": {"TableName": TABLE, "Item": patient(name=bad)}}], ClientRequestToken="token-1"
    ),
    "transact_get_items": lambda on, bad: on.items.transact_get_items(
        TransactItems=[{"Get": {"TableName": TABLE, "Key": {**key(), "patient_id": bad}}}]
    ),
    "update_encrypted, encrypted": lambda on, bad: update(on, "name", bad),
    "update_encrypted, unsigned": lambda on, bad: update(on, "note", bad),
    "update_encrypted, key": lambda on, bad: on.items.update_encrypted(
        TableName=TABLE, Key={**key(), "patient_id": bad}, change=lambda item: None
    ),
    "encrypt_item": lambda on, bad: on.phi.dynamodb.encrypt_item({**patient(), "name": bad}, on.config),
    "decrypt_item": lambda on, bad: on.phi.dynamodb.decrypt_item({**patient(), "aws_dbe_head": bad}, on.config),
    "resource, put": lambda on, bad: on.table.put_item(Item={"patient_id": "p", "visit": 1, "name": bad}),
    "resource, put a key": lambda on, bad: on.table.put_item(Item={"patient_id": bad, "visit": 1}),
    "resource, put a float": lambda on, bad: on.table.put_item(
        Item={"patient_id": "p", "visit": 1, "note": [0.5, bad]}
    ),
    "resource, get": lambda on, bad: on.table.get_item(Key={"patient_id": bad, "visit": 1}),
    "resource, update": lambda on, bad: on.table.update_item(
        Key={"patient_id": "p", "visit": 1},
        UpdateExpression="SET note = :n",
        ExpressionAttributeValues={":n": bad},
    ),
    # typed tables
    "model": lambda on, bad: Visit(patient_id="p", visit=1, name=bad),
    "model, unsigned": lambda on, bad: Visit(patient_id="p", visit=1, note=bad),
    "model_validate_json": lambda on, bad: Visit.model_validate_json(bad),
    "model_validate_json, cut": lambda on, bad: Visit.model_validate_json(f'{{"name": "{CANARY}", "visit'),
    "model_validate_strings": lambda on, bad: Visit.model_validate_strings(
        {"patient_id": "p", "visit": "1", "note": bad}
    ),
    "from_item": lambda on, bad: Visit.from_item({**key(), "name": bad}),
    "set_unsigned": lambda on, bad: on.visits.set_unsigned("p-1", 1, note=bad),
    "set_unsigned, key": lambda on, bad: on.visits.set_unsigned(bad, bad, note=1),
    "get": lambda on, bad: on.visits.get("p-1", bad),
    "query": lambda on, bad: list(on.visits.query("p-1", sort_from=bad)),
    "delete": lambda on, bad: on.visits.delete(bad, 1),
    # signatures
    "mac, source": lambda on, bad: on.mac.generate(bad, resource="r", purpose="release"),
    "mac, resource": lambda on, bad: on.mac.generate(b"x", resource=bad, purpose="release"),
    "mac, purpose": lambda on, bad: on.mac.new_local_key(bad),
    "acting": lambda on, bad: on.phi.acting_as(bad).__enter__(),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rule_32_no_error_of_a_public_verb_holds_the_value(on: SimpleNamespace, case: str) -> None:
    found, foreign, refused = [], [], 0
    for name, value in AWKWARD.items():
        try:
            CASES[case](on, value)
        except ClientError:  # AWS's own words, about what it was sent in clear
            refused += 1
        except ALLOWED as error:
            refused += 1
            found += [f"{name}: {type(error).__name__} in {place}" for place in canaries_in(error)]
        except Exception as error:
            foreign.append(f"{name}: {type(error).__name__}")
            found += [f"{name}: {type(error).__name__} in {place}" for place in canaries_in(error)]
    assert found == []
    assert foreign == []
    assert refused > 0


def _item_header(provider_id: bytes) -> bytes:
    sizes = (1).to_bytes(1, "big") + len(provider_id).to_bytes(2, "big")
    return b"\x02\x01" + bytes(32) + b"\0\0" + b"\0\0" + sizes + provider_id + b"\0\0" + b"\0\0"


def _message_header(provider_id: bytes) -> bytes:
    head = b"\x02\x04\x78" + bytes(32) + b"\0\0" + b"\0\1"
    return head + len(provider_id).to_bytes(2, "big") + provider_id + b"\0\1i" + b"\0\1c" + b"\x02" + bytes(60)


@pytest.mark.parametrize(
    "read",
    [
        lambda: parse_header(ByteReader(_message_header(NOT_UTF8)), ReadLimits()),
        lambda: parse_item_header(_item_header(NOT_UTF8) + bytes(64), ReadLimits()),
        lambda: canonical_json({"name": HALF_PAIR}),
        lambda: read_descriptor(
            {"name": "n", "digest": {"sha256": CANARY}, "annotations": {"length": 1}}, "subject"
        ),
        lambda: kms_mac._read_envelope(b'{"localMacKey": "%s", "ciphertext": "AA=="}' % CANARY.encode()),
        lambda: kms_mac._read_envelope(b'{"localMacKey": "%s"}' % CANARY.encode()),
        lambda: parse_record({"eventVersion": "1.08", "eventSource": "kms.amazonaws.com", "eventTime": CANARY}),
        lambda: parse_json(f'{{"name": "{CANARY}" x', field="f"),
        lambda: parse_toml(f'name = "{CANARY}'.encode(), field="f"),
        lambda: Report.from_json(f'{{"schema": "{CANARY}"}}'),
        lambda: Declaration.of({"keys": [{"arn": {CANARY: CANARY}}]}),
        lambda: check_body("PutItem", f'{{"Item": "{CANARY}'.encode(), TableBook([patient_config(TABLE)], ())),
    ],
)
def test_rule_32_no_error_of_what_is_read_holds_the_value(read: Callable[[], object]) -> None:
    with pytest.raises((PhiCryptError, ValueError)) as caught:
        read()
    assert canaries_in(caught.value) == []


def test_the_walker_finds_what_a_tracker_would_find() -> None:
    """What is not found here would not be found above."""

    class CarrierError(Exception):
        __slots__ = ("hidden",)

    def chained(error: BaseException, *, cause: bool) -> BaseException:
        outer = CarrierError("nothing")
        outer.__cause__, outer.__context__ = (error, None) if cause else (None, error)
        outer.__suppress_context__ = True
        return outer

    noted = CarrierError("nothing")
    noted.add_note(f"it was {CANARY}")
    hiding = CarrierError("nothing")
    hiding.hidden = [{"deep": {"er": (b"..." + CANARY.encode(),)}}]
    named = CarrierError("nothing")
    try:
        exec(f"{CANARY} = 1\nraise ValueError", {})
    except ValueError as error:
        named = error
    carriers = [
        CarrierError(CANARY),
        CarrierError({"a": [CANARY]}),
        CarrierError(base64.b64encode(b"x" + CANARY.encode())),
        CarrierError(CANARY.encode().hex()),
        UnicodeDecodeError("utf-8", NOT_UTF8, 0, 1, "reason"),
        chained(ValueError(CANARY), cause=True),
        chained(chained(KeyError(CANARY), cause=False), cause=False),
        noted,
        hiding,
        named,
    ]
    assert [bool(canaries_in(carrier)) for carrier in carriers] == [True] * len(carriers)
    assert canaries_in(CarrierError("nothing", {"a": [b"nothing"]})) == []


HOLDS_VALUES = frozenset(
    {
        *("ArithmeticError", "AttributeError", "KeyError", "LookupError", "TypeError", "ValueError"),
        *("UnicodeDecodeError", "UnicodeEncodeError", "UnicodeError", "JSONDecodeError", "binascii.Error"),
        *("ParamValidationError", "ValidationError", "RecursionError"),
    }
)
"""Exceptions of others that hold what they refuse, or may."""
SAYS_NO_VALUE = {
    "keys/branch_keys/table.py: BotoCoreError, ValueError": "of making a client, from settings",
    "keys/kms/calls.py: BotoCoreError, ValueError": "of making a client, from settings",
    "posture/reading/aws_account.py: BotoCoreError, ValueError": "of making a client, from settings",
}


def raised_in_handlers(source: str) -> Iterator[str]:
    """The classes that a handler catches, of each handler that raises something of its own."""

    waiting: list[tuple[ast.AST, str | None]] = [(ast.parse(source), None)]
    while waiting:
        node, caught = waiting.pop()
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            types = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            caught = ", ".join(ast.unparse(each) for each in types)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            caught = None
        elif isinstance(node, ast.Raise) and node.exc is not None and caught is not None:
            yield caught
        if not isinstance(node, ast.expr):
            waiting.extend((child, caught) for child in ast.iter_child_nodes(node))


def test_rule_32_nothing_is_raised_in_a_handler_of_what_holds_values() -> None:
    """``raise … from None`` only hides: what was caught stays behind as ``__context__``, for every tracker."""
    found = {
        f"{path.relative_to(PACKAGE)}: {caught}"
        for path in PACKAGE.rglob("*.py")
        if path.parent.name != "testing"
        for caught in raised_in_handlers(path.read_text(encoding="utf-8"))
        if HOLDS_VALUES.intersection(caught.split(", "))
    }
    assert found == set(SAYS_NO_VALUE)


def test_the_reader_of_handlers_sees_them() -> None:
    source = (
        "try: f()\nexcept (ValueError, A.b):\n    if x:\n        raise E() from None\n"
        "try: f()\nexcept KeyError:\n    raise\n"
        "try: f()\nexcept TypeError:\n    def g():\n        raise E()\n"
    )
    assert list(raised_in_handlers(source)) == ["ValueError, A.b"]


def test_rule_32_the_last_check_before_send_keeps_no_body() -> None:
    with pytest.raises(UnsupportedOperationError) as caught:
        check_body("PutItem", f'{{"Item": "{CANARY}'.encode(), TableBook([patient_config(TABLE)], ()))
    assert caught.value.__context__ is None
