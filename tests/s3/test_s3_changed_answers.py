"""Rule 27: what S3 answers is judged before it is believed, through every verb that reads or writes objects."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from support.wires import HTML, Answer, Wire

from phicrypt import PhiCrypt
from phicrypt.errors import PhiCryptError
from phicrypt.s3.client import S3Client

CONTENT = b"x" * 200_000


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)


def without(answer: Answer, *names: str) -> Answer:
    return Answer(
        answer.status, {name: one for name, one in answer.headers.items() if name not in names}, answer.body
    )


FAULTS: dict[str, Callable[[Answer], Answer]] = {
    "an error page": lambda answer: Answer(200, {"content-type": "text/html"}, HTML),
    "a page of nothing": lambda answer: Answer(404, {"content-type": "text/html"}, HTML),
    "without headers of its own": lambda answer: Answer(answer.status, {"date": "now"}, answer.body),
    "half a document": lambda answer: (
        Answer(answer.status, answer.headers, answer.body[: len(answer.body) // 2])
        if answer.body.startswith(b"<?xml")
        else Answer(200, {"date": "now"}, b"")
    ),
}
VERBS: dict[str, tuple[str, Callable[[S3Client, str], Any]]] = {
    "put_object": ("PutObject", lambda s3, bucket: s3.put_object(Bucket=bucket, Key="new", Body=b"note")["ETag"]),
    "get_object": ("GetObject", lambda s3, bucket: s3.get_object(Bucket=bucket, Key="k")["Body"].read()),
    "head_object": ("HeadObject", lambda s3, bucket: s3.head_object(Bucket=bucket, Key="k")["ContentLength"]),
    "download_fileobj": ("GetObject", lambda s3, bucket: s3.download_fileobj(bucket, "k", io.BytesIO())),
    "open": ("GetObject", lambda s3, bucket: s3.open(f"s3://{bucket}/k").read()),
    "list_objects_v2": ("ListObjectsV2", lambda s3, bucket: s3.list_objects_v2(Bucket=bucket)["Contents"]),
    "pages": (
        "ListObjectsV2",
        lambda s3, bucket: [
            one for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket) for one in page["Contents"]
        ],
    ),
    "copy_object": (
        "HeadObject",
        lambda s3, bucket: s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "k"}),
    ),
    "create_multipart_upload": (
        "CreateMultipartUpload",
        lambda s3, bucket: s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verb", VERBS)
def test_rule_27_no_verb_takes_what_is_no_answer_for_one(
    phi: PhiCrypt, aws: Any, bucket: str, verb: str, fault: str
) -> None:
    client = aws.client("s3")
    s3 = phi.s3(client)
    s3.put_object(Bucket=bucket, Key="k", Body=CONTENT)
    operation, use = VERBS[verb]
    wire = Wire(client, operation)
    wire.changes = [FAULTS[fault]]
    assert use(s3, bucket) or verb == "download_fileobj"
    assert wire.attempts.count(operation) >= 2
    wire.always = FAULTS[fault]
    with pytest.raises(ClientError) as caught:
        use(s3, bucket)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] >= 500


@pytest.mark.parametrize("operation", ["UploadPart", "CompleteMultipartUpload"])
@pytest.mark.parametrize("fault", FAULTS)
def test_rule_27_no_part_is_taken_for_stored_by_what_is_no_answer(
    phi: PhiCrypt, aws: Any, bucket: str, operation: str, fault: str
) -> None:
    client = aws.client("s3")
    s3 = phi.s3(client)
    wire = Wire(client, operation)
    wire.always = FAULTS[fault]
    with pytest.raises(ClientError) as caught:
        s3.upload_fileobj(io.BytesIO(bytes(9 * 1024**2)), bucket, "large")
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] >= 500
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")


@pytest.mark.parametrize("length", [str(10**12), str(10**30), "-5", "many", "0"])
@pytest.mark.parametrize("verb", ["get_object", "head_object", "download_fileobj", "open", "copy_object"])
def test_rule_32_no_length_that_a_server_claims_brings_forth_a_foreign_error(
    phi: PhiCrypt, aws: Any, bucket: str, verb: str, length: str
) -> None:
    client = aws.client("s3")
    s3 = phi.s3(client)
    s3.put_object(Bucket=bucket, Key="k", Body=b"note")
    operation, use = VERBS[verb]

    def claim(answer: Answer) -> Answer:
        headers = {**answer.headers, "content-length": length}
        if "content-range" in headers:
            headers["content-range"] = f"{headers['content-range'].partition('/')[0]}/{length}"
        return Answer(answer.status, headers, answer.body)

    Wire(client, operation).always = claim
    try:
        use(s3, bucket)
    except (PhiCryptError, ClientError, BotoCoreError):
        return
    assert operation == "HeadObject", "a length is a claim there (rule 10); elsewhere it cannot hold"
