"""The low-level multipart verbs."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aws_encryption_sdk
import pytest
from botocore.exceptions import EndpointConnectionError
from support.s3_support import WatchedS3
from support.sdk_providers import raw_provider

from phicrypt.errors import ConfigurationError, LimitExceededError, UnsupportedOperationError
from phicrypt.formats.esdk.sealing import MessageSealer
from phicrypt.formats.s3ec.content import S3ecSealer
from phicrypt.s3.client import S3Client

PART = 5 * 1024**2


@pytest.fixture
def parts_client(client_of: Callable[..., S3Client]) -> S3Client:
    return client_of(part_size_bytes=PART)


def begin(client: S3Client, bucket: str, name: str = "k", **more: Any) -> dict[str, Any]:
    upload = {"Bucket": bucket, "Key": name}
    return {**upload, "UploadId": client.create_multipart_upload(**upload, **more)["UploadId"]}


def pieces_of(data: bytes) -> list[bytes]:
    return [data[start : start + PART] for start in range(0, len(data), PART)]


def finish(client: S3Client, upload: dict[str, Any], etags: dict[int, str]) -> dict[str, Any]:
    parts = [{"PartNumber": number, "ETag": etag} for number, etag in sorted(etags.items())]
    return client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})


@pytest.mark.parametrize("length", [1, PART - 1, PART, PART + 1, 3 * PART, 3 * PART + 7])
def test_parts_in_any_order_and_in_parallel_make_one_message(
    parts_client: S3Client, raw: Any, bucket: str, length: int
) -> None:
    data = random.Random(length).randbytes(length)
    upload = begin(parts_client, bucket, Metadata={"modality": "ct"})
    numbered = list(enumerate(pieces_of(data), start=1))
    random.Random(length).shuffle(numbered)

    def send(item: tuple[int, bytes]) -> tuple[int, str]:
        return item[0], parts_client.upload_part(**upload, PartNumber=item[0], Body=item[1])["ETag"]

    with ThreadPoolExecutor(4) as pool:
        etags = dict(pool.map(send, numbered))
    finish(parts_client, upload, etags)
    response = parts_client.get_object(Bucket=bucket, Key="k")
    assert response["Body"].read() == data
    assert response["Metadata"] == {"modality": "ct"}
    assert parts_client.head_object(Bucket=bucket, Key="k")["ContentLength"] == length
    tail = parts_client.get_object(Bucket=bucket, Key="k", Range="bytes=-3")
    assert tail["Body"].read() == data[-3:]
    message = raw.get_object(Bucket=bucket, Key="k")["Body"].read()
    assert aws_encryption_sdk.EncryptionSDKClient().decrypt(source=message, key_provider=raw_provider())[0] == data


@pytest.mark.parametrize("length", [PART - 1, 2 * PART, 2 * PART + 9])
def test_signed_parts_come_in_order(
    client_of: Callable[..., S3Client], raw: Any, bucket: str, length: int
) -> None:
    client = client_of(part_size_bytes=PART, signed=True)
    data = random.Random(length).randbytes(length)
    upload = begin(client, bucket)
    if length > PART:
        with pytest.raises(UnsupportedOperationError, match="order"):
            client.upload_part(**upload, PartNumber=2, Body=data[:PART])
    etags = {
        number: client.upload_part(**upload, PartNumber=number, Body=io.BytesIO(piece))["ETag"]
        for number, piece in enumerate(pieces_of(data), start=1)
    }
    finish(client, upload, etags)
    assert client.get_object(Bucket=bucket, Key="k", RequireSigned=True)["Body"].read() == data
    message = raw.get_object(Bucket=bucket, Key="k")["Body"].read()
    assert aws_encryption_sdk.EncryptionSDKClient().decrypt(source=message, key_provider=raw_provider())[0] == data


@pytest.mark.parametrize("settings", [{}, {"signed": True}], ids=["unsigned", "signed"])
def test_rule_03_a_part_number_is_sealed_once(
    client_of: Callable[..., S3Client], raw: Any, bucket: str, settings: dict[str, Any]
) -> None:
    watched = WatchedS3(raw)
    client = client_of(part_size_bytes=PART, raw=watched, **settings)
    upload = begin(client, bucket)
    first = client.upload_part(**upload, PartNumber=1, Body=b"a" * PART)
    with pytest.raises(UnsupportedOperationError, match="sealed"):
        client.upload_part(**upload, PartNumber=1, Body=b"b" * PART)
    with pytest.raises(UnsupportedOperationError, match="sealed"):
        client.upload_part(**upload, PartNumber=1, Body=b"a" * 10)
    assert client.upload_part(**upload, PartNumber=1, Body=b"a" * PART)["ETag"] == first["ETag"]
    client.upload_part(**upload, PartNumber=2, Body=b"short")
    with pytest.raises(UnsupportedOperationError, match="sealed"):
        client.upload_part(**upload, PartNumber=2, Body=b"shorT")
    with pytest.raises(UnsupportedOperationError, match="part 2"):
        client.upload_part(**upload, PartNumber=3, Body=b"c" * PART)
    bodies = {parameters["PartNumber"]: 0 for name, parameters in watched.calls if name == "upload_part"}
    assert set(bodies) == {1}, "the short part is held until the upload is completed"


def test_rule_03_a_retry_after_a_failed_request_sends_the_same_ciphertext(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    failures = [True]
    sent: list[bytes] = []

    def break_once(operation: str, parameters: dict[str, Any]) -> None:
        if operation == "upload_part":
            sent.append(parameters["Body"])
            if failures:
                failures.pop()
                raise EndpointConnectionError(endpoint_url="http://localhost")

    for settings in ({}, {"signed": True}):
        failures[:], sent[:] = [True], []
        client = client_of(part_size_bytes=PART, raw=WatchedS3(raw, break_once), **settings)
        upload = begin(client, bucket)
        with pytest.raises(EndpointConnectionError):
            client.upload_part(**upload, PartNumber=1, Body=b"a" * PART)
        etag = client.upload_part(**upload, PartNumber=1, Body=b"a" * PART)["ETag"]
        assert sent[0] == sent[1]
        finish(client, upload, {1: etag})
        assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"a" * PART


def test_a_failed_completion_can_be_repeated(client_of: Callable[..., S3Client], raw: Any, bucket: str) -> None:
    failures = [True, True]

    def break_completion(operation: str, parameters: dict[str, Any]) -> None:
        is_end = operation == "upload_part" and parameters["PartNumber"] == 2
        if (is_end or operation == "complete_multipart_upload") and failures:
            failures.pop()
            raise EndpointConnectionError(endpoint_url="http://localhost")

    client = client_of(part_size_bytes=PART, raw=WatchedS3(raw, break_completion))
    upload = begin(client, bucket)
    etags = {1: client.upload_part(**upload, PartNumber=1, Body=b"a" * PART)["ETag"]}
    for _ in range(2):
        with pytest.raises(EndpointConnectionError):
            finish(client, upload, etags)
    finish(client, upload, etags)
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"a" * PART


def test_uploads_with_gaps_wrong_etags_or_no_parts_are_not_completed(parts_client: S3Client, bucket: str) -> None:
    upload = begin(parts_client, bucket)
    with pytest.raises(ConfigurationError, match="parts"):
        finish(parts_client, upload, {})
    etags = {
        number: parts_client.upload_part(**upload, PartNumber=number, Body=b"a" * PART)["ETag"]
        for number in (1, 3)
    }
    with pytest.raises(ConfigurationError, match="gaps"):
        finish(parts_client, upload, etags)
    etags[2] = parts_client.upload_part(**upload, PartNumber=2, Body=b"b" * PART)["ETag"]
    with pytest.raises(ConfigurationError, match="gaps"):
        finish(parts_client, upload, {1: etags[1], 2: etags[2]})
    with pytest.raises(ConfigurationError, match="ETag"):
        finish(parts_client, upload, {**etags, 2: '"0"'})
    finish(parts_client, upload, etags)
    assert len(parts_client.get_object(Bucket=bucket, Key="k")["Body"].read()) == 3 * PART


@pytest.mark.parametrize(
    "body", [io.StringIO("text"), None, 5, iter([b"x"])], ids=["text", "none", "int", "iterator"]
)
def test_bodies_of_parts_are_bytes_or_binary_files(parts_client: S3Client, bucket: str, body: Any) -> None:
    upload = begin(parts_client, bucket)
    with pytest.raises(ConfigurationError):
        parts_client.upload_part(**upload, PartNumber=1, Body=body)
    etag = parts_client.upload_part(**upload, PartNumber=1, Body=b"x")["ETag"]
    finish(parts_client, upload, {1: etag})


def test_short_parts_stand_at_the_end_only(parts_client: S3Client, bucket: str) -> None:
    upload = begin(parts_client, bucket)
    parts_client.upload_part(**upload, PartNumber=3, Body=b"a" * PART)
    with pytest.raises(UnsupportedOperationError, match="shorter"):
        parts_client.upload_part(**upload, PartNumber=2, Body=b"short")
    with pytest.raises(ConfigurationError, match="part_size_bytes"):
        parts_client.upload_part(**upload, PartNumber=1, Body=b"a" * (PART + 1))
    with pytest.raises(LimitExceededError):
        parts_client.upload_part(**upload, PartNumber=10_000, Body=b"a" * PART)
    for number in (0, 10_001):
        with pytest.raises(ConfigurationError):
            parts_client.upload_part(**upload, PartNumber=number, Body=b"x")


def test_an_upload_belongs_to_the_client_that_created_it(
    parts_client: S3Client, client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    upload = begin(parts_client, bucket)
    other = client_of(part_size_bytes=PART)
    with pytest.raises(UnsupportedOperationError, match="create"):
        other.upload_part(**upload, PartNumber=1, Body=b"x")
    foreign = {**upload, "UploadId": raw.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]}
    with pytest.raises(UnsupportedOperationError, match="create"):
        parts_client.upload_part(**foreign, PartNumber=1, Body=b"x")
    other.abort_multipart_upload(**foreign)


def test_rule_01_an_upload_belongs_to_its_process(parts_client: S3Client, bucket: str) -> None:
    upload = begin(parts_client, bucket)
    child = os.fork()
    if child == 0:
        try:
            parts_client.upload_part(**upload, PartNumber=1, Body=b"x")
        except UnsupportedOperationError:
            os._exit(42)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


def test_an_aborted_upload_is_gone(parts_client: S3Client, raw: Any, bucket: str) -> None:
    upload = begin(parts_client, bucket)
    parts_client.upload_part(**upload, PartNumber=1, Body=b"a" * PART)
    parts_client.abort_multipart_upload(**upload)
    assert "Uploads" not in raw.list_multipart_uploads(Bucket=bucket)
    with pytest.raises(UnsupportedOperationError):
        parts_client.upload_part(**upload, PartNumber=2, Body=b"a" * PART)


def test_every_part_carries_the_checksum_algorithm_of_the_upload(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    watched = WatchedS3(raw)
    client = client_of(part_size_bytes=PART, raw=watched)
    for length in (PART, PART + 5):
        upload = begin(client, bucket, ChecksumAlgorithm="SHA256")
        data = bytes(length)
        etags = {
            number: client.upload_part(**upload, PartNumber=number, Body=piece)["ETag"]
            for number, piece in enumerate(pieces_of(data), start=1)
        }
        finish(client, upload, etags)
        assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == data
    sent = [parameters for name, parameters in watched.calls if name == "upload_part"]
    assert [parameters["ChecksumAlgorithm"] for parameters in sent] == ["SHA256"] * 4
    completed = [parameters for name, parameters in watched.calls if name == "complete_multipart_upload"]
    assert all("ChecksumSHA256" in part for one in completed for part in one["MultipartUpload"]["Parts"])


@pytest.mark.parametrize("settings", [{"signed": True}, {"format": "s3ec"}])
def test_rule_03_an_ordered_upload_does_not_go_on_after_an_interrupted_part(
    monkeypatch: pytest.MonkeyPatch,
    client_of: Callable[..., S3Client],
    kms_phi: Any,
    raw: Any,
    bucket: str,
    settings: dict[str, Any],
) -> None:
    client = (
        client_of(part_size_bytes=PART, **settings)
        if "signed" in settings
        else kms_phi.s3(raw, part_size_bytes=PART, context={"tenant": "clinic-7"}, **settings)
    )
    upload = begin(client, bucket)
    etag = client.upload_part(**upload, PartNumber=1, Body=bytes(PART))["ETag"]
    sealers = {"signed": (MessageSealer, "seal_regular_into"), "format": (S3ecSealer, "update")}
    owner, name = sealers[next(iter(settings))]
    seal = getattr(owner, name)

    def interrupted(*arguments: Any, **named: Any) -> Any:
        seal(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(owner, name, interrupted)
        client.upload_part(**upload, PartNumber=2, Body=bytes(PART))
    with pytest.raises(UnsupportedOperationError, match="interrupted"):
        client.upload_part(**upload, PartNumber=2, Body=bytes(PART))
    for _ in range(2):
        with pytest.raises(UnsupportedOperationError, match="interrupted"):
            finish(client, upload, {1: etag})
