"""Rule 27: what is no answer of AWS is retried and never believed, for KMS, DynamoDB and S3 alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, WaiterError
from support.wires import HTML, Answer, Wire, fresh_id, json_answer, unconnected

from phicrypt.core.answers import MEMBERS
from phicrypt.core.judged_clients import judge_answers, judged_client
from phicrypt.testing import mark_as_double

ITEM = {"Item": {"id": {"S": "7"}, "note": {"S": "x" * 42}}}
XML = (
    b'<?xml version="1.0"?><InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key>'
    b"<UploadId>upload-1</UploadId></InitiateMultipartUploadResult>"
)
OBJECT = {"etag": '"e"', "content-length": "4"}


def s3_answer(body: bytes = b"", **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(200, {"date": "now", "x-amz-request-id": fresh_id(), **named}, body)


CALLS: dict[str, tuple[str, Callable[[Any], Any], Callable[[], Answer]]] = {
    "kms": (
        "kms",
        lambda client: client.decrypt(KeyId="k", CiphertextBlob=b"c")["Plaintext"],
        lambda: json_answer({"KeyId": "arn", "Plaintext": "AAAA"}),
    ),
    "get_item": (
        "dynamodb",
        lambda client: client.get_item(TableName="t", Key={"id": {"S": "7"}})["Item"],
        lambda: json_answer(ITEM, service="dynamodb"),
    ),
    "query": (
        "dynamodb",
        lambda client: client.query(TableName="t", KeyConditionExpression="id = :i")["Items"],
        lambda: json_answer({"Items": [ITEM["Item"]], "Count": 1, "ScannedCount": 1}, service="dynamodb"),
    ),
    "describe_table": (
        "dynamodb",
        lambda client: client.describe_table(TableName="t")["Table"],
        lambda: json_answer({"Table": {"TableName": "t", "TableStatus": "ACTIVE"}}, service="dynamodb"),
    ),
    "create_multipart_upload": (
        "s3",
        lambda client: client.create_multipart_upload(Bucket="b", Key="k")["UploadId"],
        lambda: s3_answer(XML),
    ),
    "get_object": (
        "s3",
        lambda client: client.get_object(Bucket="b", Key="k")["Body"].read(),
        lambda: s3_answer(b"body", **OBJECT),
    ),
    "put_object": (
        "s3",
        lambda client: client.put_object(Bucket="b", Key="k", Body=b"x")["ETag"],
        lambda: s3_answer(etag='"e"'),
    ),
}


def without(answer: Answer, *names: str) -> Answer:
    return Answer(
        answer.status, {name: one for name, one in answer.headers.items() if name not in names}, answer.body
    )


def page(answer: Answer, status: int = 200) -> Answer:
    return Answer(status, {"content-type": "text/html"}, HTML)


def cut(answer: Answer) -> Answer:
    """Half of it; of a body that is a stream, the headers."""
    if answer.body in (b"", b"body"):
        return without(answer, "etag", "content-length")
    return Answer(answer.status, answer.headers, answer.body[: len(answer.body) // 2])


FAULTS: dict[str, Callable[[Answer], Answer]] = {
    "an error page": page,
    "an error page that forbids": lambda answer: page(answer, 403),
    "an error page that finds nothing": lambda answer: page(answer, 404),
    "cut": cut,
    "empty": lambda answer: without(Answer(200, answer.headers, b""), "etag", "content-length", "x-amz-crc32"),
    "no request id": lambda answer: without(answer, "x-amzn-requestid", "x-amz-request-id"),
    "an answer from before": lambda answer: Answer(
        200, {**answer.headers, "x-amzn-requestid": "OLD", "x-amz-request-id": "OLD"}, answer.body
    ),
}
JSON_FAULTS: dict[str, Callable[[Answer], Answer]] = {
    "nothing but braces": lambda answer: without(Answer(200, answer.headers, b"{}"), "x-amz-crc32"),
    "another content type": lambda answer: Answer(
        200, {**answer.headers, "content-type": "text/html; charset=utf-8"}, answer.body
    ),
    "a list": lambda answer: answer.with_body(b"[]") if "x-amz-crc32" not in answer.headers else page(answer),
    "no base64": lambda answer: without(
        Answer(200, answer.headers, answer.body.replace(b'"AAAA"', b'"A"').replace(b'"S": "x', b'"B": "')),
        "x-amz-crc32",
    ),
    "a flipped bit under DynamoDB's checksum": lambda answer: (
        Answer(200, answer.headers, answer.body.replace(b'"', b"'", 1)) if answer.body else answer
    ),
    "deep": lambda answer: answer.with_body(b'{"KeyId":' + b"[" * 100_000),
}
CASES = [(call, fault) for call in CALLS for fault in FAULTS]
CASES += [
    (call, fault)
    for call in ("kms", "get_item", "describe_table")
    for fault in JSON_FAULTS
    if (call, fault)
    not in {
        ("get_item", "nothing but braces"),  # which say that there is no item
        ("get_item", "deep"),  # under DynamoDB's own checksum it is no fault of the way
        ("describe_table", "no base64"),
    }
]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)


@pytest.fixture(autouse=True, scope="module")
def an_answer_from_before() -> None:
    for name in ("kms", "get_item", "put_object"):
        client, _ = judged(CALLS[name][0], lambda _, name=name: FAULTS["an answer from before"](CALLS[name][2]()))
        CALLS[name][1](client)


def judged(service: str, *answers: Callable[[Any], Answer], attempts: int = 1) -> tuple[Any, Wire]:
    raw = unconnected(service, attempts=attempts)
    wire = Wire(raw, is_real=False)
    wire.changes = list(answers[:-1])
    wire.always = answers[-1]
    return judged_client(raw), wire


@pytest.mark.parametrize(("name", "fault"), CASES)
def test_rule_27_what_is_no_answer_is_retried_and_then_an_outage(name: str, fault: str) -> None:
    service, call, whole = CALLS[name]
    change = {**FAULTS, **JSON_FAULTS}[fault]
    expected = call(judged(service, lambda _: whole())[0])

    client, wire = judged(service, lambda _: change(whole()), lambda _: whole(), attempts=2)
    assert call(client) == expected
    assert len(wire.attempts) == 2

    client, wire = judged(service, lambda _: change(whole()), attempts=3)
    with pytest.raises(ClientError) as caught:
        call(client)
    assert len(wire.attempts) == 3
    # Of XML that ends too soon botocore itself makes a 500.
    own = ("500", 500) if (name, fault) == ("create_multipart_upload", "cut") else ("NoAnswer", 503)
    assert (
        caught.value.response["Error"]["Code"],
        caught.value.response["ResponseMetadata"]["HTTPStatusCode"],
    ) == own
    assert own[1] == 500 or "RequestId" not in caught.value.response["ResponseMetadata"]


@pytest.mark.parametrize("name", CALLS)
def test_rule_27_a_client_that_was_handed_over_stays_its_owners(name: str) -> None:
    service, call, whole = CALLS[name]
    raw = unconnected(service)
    wire = Wire(raw, is_real=False)
    wire.always = lambda _: FAULTS["no request id"](whole())
    judged_client(raw)
    assert call(raw)
    with pytest.raises(ClientError):
        call(judged_client(raw))


def test_rule_27_a_short_answer_that_lacks_one_member_is_refused_and_not_retried() -> None:
    client, wire = judged("kms", lambda _: json_answer({"KeyId": "arn"}), attempts=3)
    with pytest.raises(ClientError, match="lacks Plaintext") as caught:
        client.decrypt(KeyId="k", CiphertextBlob=b"c")
    assert len(wire.attempts) == 1
    assert caught.value.response["Error"]["Code"] == "UnexpectedAnswer"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_rule_27_a_refusal_by_the_service_stays_one() -> None:
    refusal = json_answer({"__type": "AccessDeniedException", "message": "no"})
    refusal.status = 400
    client, wire = judged("kms", lambda _: refusal, attempts=3)
    with pytest.raises(client.exceptions.ClientError) as caught:
        client.decrypt(KeyId="k", CiphertextBlob=b"c")
    assert (caught.value.response["Error"]["Code"], len(wire.attempts)) == ("AccessDeniedException", 1)


def test_rule_27_nobody_says_there_is_none_in_pages_and_waiters() -> None:
    pages = iter(
        [
            json_answer(
                {"Items": [ITEM["Item"]], "Count": 1, "LastEvaluatedKey": {"id": {"S": "7"}}}, service="dynamodb"
            ),
            page(Answer()),
        ]
    )
    client, _ = judged("dynamodb", lambda _: next(pages))
    with pytest.raises(ClientError, match="NoAnswer"):
        list(client.get_paginator("scan").paginate(TableName="t"))

    client, _ = judged("dynamodb", lambda _: page(Answer()))
    with pytest.raises(WaiterError, match="NoAnswer"):
        client.get_waiter("table_not_exists").wait(TableName="t", WaiterConfig={"Delay": 0, "MaxAttempts": 1})


def test_rule_27_a_200_that_holds_an_error_is_the_error() -> None:
    body = b'<?xml version="1.0"?><Error><Code>InternalError</Code><Message>try again</Message></Error>'
    client, wire = judged("s3", lambda _: s3_answer(body), attempts=2)
    parts = {"Parts": [{"ETag": "e", "PartNumber": 1}]}
    with pytest.raises(ClientError, match="InternalError"):
        client.complete_multipart_upload(Bucket="b", Key="k", UploadId="u", MultipartUpload=parts)
    assert len(wire.attempts) == 2


def test_rule_27_what_a_double_answers_is_judged_by_its_members_only() -> None:
    """No server of a test needs to make up request ids and content types."""
    raw = mark_as_double(unconnected("dynamodb"))
    wire = Wire(raw, is_real=False)
    wire.always = lambda _: Answer(200, {}, json.dumps(ITEM).encode())
    assert judged_client(raw).get_item(TableName="t", Key={"id": {"S": "7"}})["Item"] == ITEM["Item"]
    wire.always = page
    with pytest.raises(ClientError, match="NoAnswer"):
        judged_client(raw).get_item(TableName="t", Key={"id": {"S": "7"}})


def test_rule_27_what_a_hook_before_sending_puts_in_place_needs_no_headers() -> None:
    client, wire = judged("dynamodb", lambda _: Answer(200, {}, json.dumps(ITEM).encode()))
    assert client.get_item(TableName="t", Key={"id": {"S": "7"}})["Item"] == ITEM["Item"]
    wire.always = lambda _: Answer(200, {"date": "now"}, json.dumps(ITEM).encode())
    with pytest.raises(ClientError, match="NoAnswer"):
        client.get_item(TableName="t", Key={"id": {"S": "7"}})


def test_rule_27_a_server_of_s3s_protocol_that_sends_no_request_ids_is_understood_until_it_sends_one() -> None:
    def connected() -> tuple[Any, Wire]:
        raw = unconnected("s3")
        raw.meta.events.register("before-sign", lambda request, **_: setattr(request, "url", url))
        return judged_client(raw), Wire(raw, is_real=False)

    url = "https://objects.clinic.example/b/k"
    client, wire = connected()
    wire.always = lambda _: without(s3_answer(etag='"e"'), "x-amz-request-id")
    assert client.put_object(Bucket="b", Key="k", Body=b"x")["ETag"] == '"e"'
    wire.changes = [lambda _: s3_answer(etag='"e"')]
    client.put_object(Bucket="b", Key="k", Body=b"x")
    with pytest.raises(ClientError, match="NoAnswer"):
        client.put_object(Bucket="b", Key="k", Body=b"x")


def test_the_operations_whose_members_are_demanded_are_botocores() -> None:
    for service, operations in MEMBERS.items():
        model = unconnected(service).meta.service_model
        for operation, members in operations.items():
            assert set(members) <= set(model.operation_model(operation).output_shape.members), operation


# --- every member of every answer ----------------------------------------------------------------

STRANGE: tuple[Any, ...] = (None, 7, 10**400, -1.5, True, "x", "\udcff", [], [1], {}, {"x": 1}, "A" * 50_000)


def documents(shape: Any, depth: int = 0) -> Any:
    """A whole document of a shape, with each member in it."""
    kind = shape.type_name
    if kind == "structure":
        return {} if depth > 5 else {name: documents(one, depth + 1) for name, one in shape.members.items()}
    if kind == "list":
        return [documents(shape.member, depth + 1)]
    if kind == "map":
        return {"name": documents(shape.value, depth + 1)}
    return {"blob": "AAAA", "boolean": True, "string": "text", "timestamp": 1.5}.get(kind, 3)


def changed(document: Any, depth: int = 0) -> Iterator[Any]:
    """The document with one member, down to the third level, missing or strange."""
    if isinstance(document, dict) and depth < 3:
        for name in document:
            rest = {other: one for other, one in document.items() if other != name}
            yield rest
            yield from ({**rest, name: strange} for strange in STRANGE)
            yield from ({**rest, name: inner} for inner in changed(document[name], depth + 1))
    elif isinstance(document, list) and depth < 3:
        yield from ([inner] for inner in changed(document[0], depth + 1))


@pytest.mark.parametrize(
    ("service", "operation"),
    [(service, operation) for service in ("kms", "dynamodb") for operation in sorted(MEMBERS[service])]
    + [("dynamodb", "GetItem"), ("dynamodb", "UpdateItem")],
)
def test_rule_32_no_answer_brings_forth_a_foreign_error(service: str, operation: str) -> None:
    """Under its own checksum or without: an answer passes, or is botocore's own ClientError."""
    raw = unconnected(service)
    wire = Wire(raw, is_real=False)
    judge_answers(raw.meta.events, raw.meta.events)
    model = raw.meta.service_model.operation_model(operation)
    whole = documents(model.output_shape)
    wire.always = lambda _: json_answer(whole, service=service)
    assert raw._make_api_call(operation, parameters_of(model))
    refused = 0
    # Every eleventh, each time another one: all of them take minutes.
    for document in list(changed(whole))[:: 11 if service == "dynamodb" else 3]:
        answer = json_answer(document, service=service)
        for given in (answer, without(answer, "x-amz-crc32")):
            given.headers["x-amzn-requestid"] = fresh_id()
            wire.always = lambda _, given=given: given
            try:
                raw._make_api_call(operation, parameters_of(model))
            except ClientError as error:
                assert error.response["Error"]["Code"] in ("NoAnswer", "UnexpectedAnswer")
                refused += 1
    assert refused


@pytest.mark.parametrize("body", [b'{"Item": {"id": {"S": "\xff canary"}}}', b'{"Item": {"id": {"B": "canary"}}}'])
def test_rule_32_nothing_of_an_answer_stands_behind_its_error(body: bytes) -> None:
    client, _ = judged("dynamodb", lambda _: json_answer(body, service="dynamodb"))
    with pytest.raises(ClientError) as caught:
        client.get_item(TableName="t", Key={"id": {"S": "7"}})
    behind: BaseException | None = caught.value
    while behind is not None:
        assert "canary" not in repr((behind, behind.args, vars(behind), getattr(behind, "object", b"")))
        behind = behind.__context__


def parameters_of(model: Any) -> dict[str, Any]:
    """The least that botocore lets pass."""

    def least(shape: Any) -> Any:
        kind = shape.type_name
        if kind == "structure":
            return {name: least(shape.members[name]) for name in shape.required_members}
        if kind == "list":
            return [least(shape.member)]
        if kind == "map":
            return {"name": least(shape.value)}
        if shape.enum if hasattr(shape, "enum") else False:
            return shape.enum[0]
        return {"blob": b"x", "boolean": True, "string": "text-text"}.get(kind, 1)

    parameters = least(model.input_shape) if model.input_shape else {}
    assert isinstance(parameters, dict)
    return parameters
