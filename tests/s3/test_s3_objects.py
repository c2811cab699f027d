"""put, get, head, list, delete: boto3's verbs over encrypted objects."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import aws_encryption_sdk
import pytest
from botocore.exceptions import ClientError, ParamValidationError
from support.s3_support import WatchedS3
from support.sdk_providers import raw_provider

from phicrypt import ANY_CONTEXT, PhiCrypt, RawAesKeyring
from phicrypt.core.location import location_pair
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    ContextMismatchError,
    FormatError,
    KeyAccessError,
    NotEncryptedError,
    PhiInContextError,
    UnsupportedOperationError,
)
from phicrypt.s3.client import S3Client

FRAME = 128 * 1024


@pytest.mark.parametrize("length", [0, 1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME + 5])
def test_objects_come_back_as_they_were_put(s3: S3Client, bucket: str, length: int) -> None:
    data = bytes(index % 251 for index in range(length))
    s3.put_object(Bucket=bucket, Key="scan", Body=data)
    response = s3.get_object(Bucket=bucket, Key="scan")
    assert response["Body"].read() == data
    assert response["ContentLength"] == length
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert s3.head_object(Bucket=bucket, Key="scan")["ContentLength"] == length


def test_what_s3_stores_holds_no_plaintext(s3: S3Client, raw: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="note", Body=b"diagnosis" * 1000)
    assert b"diagnosis" not in raw.get_object(Bucket=bucket, Key="note")["Body"].read()


@pytest.mark.parametrize(
    "body", [b"abc", bytearray(b"abc"), "abc", io.BytesIO(b"abc")], ids=["bytes", "bytearray", "text", "file"]
)
def test_put_object_takes_the_bodies_that_boto3_takes(s3: S3Client, bucket: str, body: Any) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"abc"


def test_a_body_without_seek_is_sealed_into_a_spool(client_of: Callable[..., S3Client], bucket: str) -> None:
    class Source:
        def __init__(self) -> None:
            self.left = 700_000

        def read(self, size: int = -1) -> bytes:
            count = min(self.left, size, 10_000)
            self.left -= count
            return b"x" * count

    small = client_of(max_memory_bytes=100_000)
    small.put_object(Bucket=bucket, Key="k", Body=Source(), ContentLength=700_000)
    assert small.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x" * 700_000
    with pytest.raises(ConfigurationError, match="ContentLength"):
        small.put_object(Bucket=bucket, Key="other", Body=Source(), ContentLength=5)
    with pytest.raises(ConfigurationError, match="ContentLength"):
        small.put_object(Bucket=bucket, Key="other", Body=b"123456", ContentLength=5)
    assert "Contents" not in small.list_objects_v2(Bucket=bucket, Prefix="other")


def test_the_body_reads_like_botocores(s3: S3Client, bucket: str) -> None:
    data = b"line one\nline two\n" * 20_000
    s3.put_object(Bucket=bucket, Key="k", Body=data)

    def body() -> Any:
        return s3.get_object(Bucket=bucket, Key="k")["Body"]

    assert b"".join(body().iter_chunks(100_001)) == data
    assert list(body().iter_lines())[:2] == [b"line one", b"line two"]
    with body() as stream:
        assert len(stream.read(7)) == 7
        assert stream.read(200_000) == data[7:200_007]
        assert stream.tell() == 200_007
    target = bytearray(10)
    assert body().readinto(target) == 10
    assert bytes(target) == data[:10]
    whole = body()
    assert whole.read() == data
    assert whole.read() == b""


def test_metadata_tags_and_types_keep_working(s3: S3Client, raw: Any, bucket: str) -> None:
    s3.put_object(
        Bucket=bucket,
        Key="k",
        Body=b"x",
        Metadata={"modality": "ct"},
        ContentType="application/dicom",
        CacheControl="no-store",
        Tagging="class=imaging",
        StorageClass="STANDARD_IA",
        ServerSideEncryption="AES256",
        ChecksumAlgorithm="SHA256",
    )
    response = s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert response["Body"].read() == b"x"
    assert response["Metadata"] == {"modality": "ct"}
    assert response["ContentType"] == "application/dicom"
    assert response["CacheControl"] == "no-store"
    assert response["StorageClass"] == "STANDARD_IA"
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "class", "Value": "imaging"}]
    stored = raw.head_object(Bucket=bucket, Key="k")["Metadata"]
    assert {name for name in stored if name.startswith("phicrypt-")} == {
        "phicrypt-format",
        "phicrypt-header-length",
        "phicrypt-frame-length",
    }


def test_the_phi_guard_looks_at_metadata_and_tags(s3: S3Client, bucket: str) -> None:
    with pytest.raises(PhiInContextError):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata={"contact": "jane@example.org"})
    with pytest.raises(PhiInContextError):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", Tagging="ssn=123-45-6789")
    with pytest.raises(PhiInContextError):
        s3.create_multipart_upload(Bucket=bucket, Key="k", Metadata={"contact": "jane@example.org"})
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with pytest.raises(PhiInContextError):
        s3.put_object_tagging(
            Bucket=bucket, Key="k", Tagging={"TagSet": [{"Key": "contact", "Value": "jane@example.org"}]}
        )


@pytest.mark.parametrize("name", ["phicrypt-format", "Phicrypt-X", "x-amz-3", "x-amz-key-v2"])
def test_metadata_names_of_the_formats_are_refused(s3: S3Client, bucket: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match="metadata name"):
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata={name: "1"})


def test_missing_objects_give_boto3s_errors(s3: S3Client, bucket: str) -> None:
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket=bucket, Key="absent")
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.get_object(Bucket=bucket, Key="absent", Range="bytes=0-1")
    with pytest.raises(ClientError) as failure:
        s3.head_object(Bucket=bucket, Key="absent")
    assert failure.value.response["Error"]["Code"] == "404"
    with pytest.raises(s3.exceptions.NoSuchBucket):
        s3.put_object(Bucket=f"{bucket}-absent", Key="k", Body=b"x")


def test_missing_and_mistyped_parameters_give_boto3s_errors(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    watched = WatchedS3(raw)
    client = client_of(raw=watched)
    for name, parameters in (
        ("put_object", {"Bucket": bucket, "Body": b"x"}),
        ("put_object", {"Key": "k", "Body": b"x"}),
        ("put_object", {"Bucket": bucket, "Key": 4711, "Body": b"x"}),
        ("get_object", {"Bucket": bucket}),
        ("get_object", {"Bucket": bucket, "Key": "k", "Range": 4711}),
        ("head_object", {"Key": "k"}),
        ("copy_object", {"Bucket": bucket, "Key": "k"}),
        ("create_multipart_upload", {"Bucket": bucket}),
        ("upload_part", {"Bucket": bucket, "Key": "k", "Body": b"x"}),
        ("complete_multipart_upload", {"Bucket": bucket, "Key": "k"}),
        ("abort_multipart_upload", {"Bucket": bucket, "Key": "k"}),
    ):
        with pytest.raises(ParamValidationError) as failure:
            getattr(client, name)(**parameters)
        assert "4711" not in str(failure.value)
    assert watched.calls == []


@pytest.mark.parametrize("body", [b"", b"plain text", b"\x01\x02", b"\x02\x04\x78" + bytes(200)])
def test_plaintext_objects_give_not_encrypted_error(s3: S3Client, raw: Any, bucket: str, body: bytes) -> None:
    raw.put_object(Bucket=bucket, Key="plain", Body=body)
    expected = NotEncryptedError if body[:3] != b"\x02\x04\x78" else (NotEncryptedError, FormatError)
    for parameters in ({}, {"Range": "bytes=0-3"}, {"Range": "bytes=-1"}):
        with pytest.raises(expected):
            s3.get_object(Bucket=bucket, Key="plain", **parameters)
    with pytest.raises(expected):
        s3.head_object(Bucket=bucket, Key="plain")


def test_conditional_requests_and_versions_keep_working(s3: S3Client, raw: Any, bucket: str) -> None:
    raw.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = s3.put_object(Bucket=bucket, Key="k", Body=b"one", IfNoneMatch="*")
    with pytest.raises(ClientError) as failure:
        s3.put_object(Bucket=bucket, Key="k", Body=b"two", IfNoneMatch="*")
    assert failure.value.response["Error"]["Code"] == "PreconditionFailed"
    second = s3.put_object(Bucket=bucket, Key="k", Body=b"two")
    assert s3.get_object(Bucket=bucket, Key="k", VersionId=first["VersionId"])["Body"].read() == b"one"
    ranged = s3.get_object(Bucket=bucket, Key="k", VersionId=first["VersionId"], Range="bytes=1-")
    assert ranged["Body"].read() == b"ne"
    assert s3.get_object(Bucket=bucket, Key="k", IfMatch=second["ETag"])["Body"].read() == b"two"
    with pytest.raises(ClientError) as failure:
        s3.get_object(Bucket=bucket, Key="k", IfMatch=first["ETag"], Range="bytes=0-0")
    assert failure.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    with pytest.raises(ClientError) as failure:
        s3.get_object(Bucket=bucket, Key="k", IfNoneMatch=second["ETag"])
    assert failure.value.response["ResponseMetadata"]["HTTPStatusCode"] == 304


def test_the_version_from_before_versioning_is_read_by_its_name(s3: S3Client, raw: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"old" * 100_000)
    raw.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket=bucket, Key="k", Body=b"new" * 100_000)
    ranged = s3.get_object(Bucket=bucket, Key="k", VersionId="null", Range="bytes=-3")
    assert ranged["Body"].read() == b"old"
    sink = io.BytesIO()
    s3.download_fileobj(bucket, "k", sink, ExtraArgs={"VersionId": "null"})
    assert sink.getvalue() == b"old" * 100_000
    with s3.open(f"s3://{bucket}/k", version_id="null") as file:
        assert file.read() == b"old" * 100_000
    s3.copy_object(Bucket=bucket, Key="k", CopySource={"Bucket": bucket, "Key": "k", "VersionId": "null"})
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"old" * 100_000


def test_listing_tells_plaintext_sizes_on_request(s3: S3Client, raw: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"x" * 1000)
    raw.put_object(Bucket=bucket, Key="b", Body=b"plain")
    plain_page = s3.list_objects_v2(Bucket=bucket)
    assert "PlaintextSize" not in plain_page["Contents"][0]
    entries = {entry["Key"]: entry for entry in s3.list_objects_v2(Bucket=bucket, PlaintextSizes=True)["Contents"]}
    assert entries["a"]["PlaintextSize"] == 1000
    assert entries["a"]["PlaintextSizeVerified"] is False
    assert "PlaintextSize" not in entries["b"]


def test_deletes_paginators_and_waiters_are_boto3s(s3: S3Client, raw: Any, bucket: str) -> None:
    for name in ("a", "b", "c"):
        s3.put_object(Bucket=bucket, Key=name, Body=b"x")
    s3.get_waiter("object_exists").wait(Bucket=bucket, Key="a")
    assert sorted(s3.waiter_names) == sorted(raw.waiter_names)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2})
    assert [entry["Key"] for page in pages for entry in page["Contents"]] == ["a", "b", "c"]
    s3.delete_object(Bucket=bucket, Key="a")
    s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "b"}, {"Key": "c"}]})
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert s3.can_paginate("list_objects_v2")
    assert s3.meta.region_name == "us-east-1"


def test_contexts_of_callers_are_bound_and_required(client_of: Callable[..., S3Client], bucket: str) -> None:
    tenant = client_of(context={"tenant": "clinic-7"})
    tenant.put_object(Bucket=bucket, Key="k", Body=b"x", EncryptionContext={"study": "s-9"})
    assert tenant.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
    assert tenant.get_object(Bucket=bucket, Key="k", EncryptionContext={"study": "s-9"})["Body"].read() == b"x"
    for wrong in ({"study": "s-8"}, {"other": "pair"}):
        for extra in ({}, {"Range": "bytes=0-0"}):
            with pytest.raises(ContextMismatchError):
                tenant.get_object(Bucket=bucket, Key="k", EncryptionContext=wrong, **extra)
    with pytest.raises(ContextMismatchError):
        client_of(context={"tenant": "clinic-8"}).get_object(Bucket=bucket, Key="k")
    anyone = client_of(context={"tenant": "clinic-8"})
    assert anyone.get_object(Bucket=bucket, Key="k", EncryptionContext=ANY_CONTEXT)["Body"].read() == b"x"
    with pytest.raises(ConfigurationError):
        tenant.put_object(Bucket=bucket, Key="k", Body=b"x", EncryptionContext={"phicrypt-location": "forged"})
    with pytest.raises(ConfigurationError):
        tenant.put_object(Bucket=bucket, Key="k", Body=b"x", EncryptionContext=ANY_CONTEXT)


def test_another_key_opens_nothing(client_of: Callable[..., S3Client], s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    stranger = client_of(phi=PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(32))))
    with pytest.raises((KeyAccessError, AuthenticationError)):
        stranger.get_object(Bucket=bucket, Key="k")


def test_the_raw_body_opens_with_the_aws_encryption_sdk(s3: S3Client, raw: Any, bucket: str) -> None:
    data = b"z" * 300_000
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    message = raw.get_object(Bucket=bucket, Key="k")["Body"].read()
    plaintext, header = aws_encryption_sdk.EncryptionSDKClient().decrypt(
        source=message, key_provider=raw_provider()
    )
    assert plaintext == data
    assert dict(header.encryption_context) == location_pair(bucket, "k", {})


def test_signed_objects_are_read_whole_and_refuse_ranges(client_of: Callable[..., S3Client], bucket: str) -> None:
    signed = client_of(signed=True)
    data = b"s" * 400_000
    signed.put_object(Bucket=bucket, Key="k", Body=data)
    assert signed.get_object(Bucket=bucket, Key="k", RequireSigned=True)["Body"].read() == data
    assert signed.head_object(Bucket=bucket, Key="k")["ContentLength"] == len(data)
    with pytest.raises(UnsupportedOperationError, match="signed"):
        signed.get_object(Bucket=bucket, Key="k", Range="bytes=0-1")
    unsigned = client_of()
    unsigned.put_object(Bucket=bucket, Key="u", Body=data)
    with pytest.raises(UnsupportedOperationError, match="signed"):
        unsigned.get_object(Bucket=bucket, Key="u", RequireSigned=True)


def test_refused_operations_raise_before_the_network(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    watched = WatchedS3(raw)
    client = client_of(raw=watched)
    for name in ("select_object_content", "upload_part_copy", "rename_object", "put_object_annotation"):
        with pytest.raises(UnsupportedOperationError, match=name):
            getattr(client, name)(Bucket=bucket, Key="k")
    with pytest.raises(UnsupportedOperationError):
        client.put_object(Bucket=bucket, Key="k", Body=b"x", ChecksumSHA256="00")
    with pytest.raises(UnsupportedOperationError):
        client.get_object(Bucket=bucket, Key="k", PartNumber=1)
    with pytest.raises(UnsupportedOperationError):
        client.restore_object(Bucket=bucket, Key="k", RestoreRequest={"Type": "SELECT"})
    for name in ("put_object", "get_object", "upload_part", "copy_object", "put_object_tagging", "post_object"):
        with pytest.raises(UnsupportedOperationError):
            client.generate_presigned_url(name, Params={"Bucket": bucket, "Key": "k"})
    with pytest.raises(UnsupportedOperationError):
        client.generate_presigned_post(Bucket=bucket, Key="k")
    assert watched.calls == []
    for name in ("delete_object", "head_object"):
        assert client.generate_presigned_url(name, Params={"Bucket": bucket, "Key": "k"}).startswith("http")
    with pytest.raises(AttributeError):
        getattr(client, "some_new_verb")(Bucket=bucket)  # noqa: B009 - no checker is to see it


def test_the_callers_client_is_not_changed(client_of: Callable[..., S3Client], raw: Any, bucket: str) -> None:
    client = client_of()
    client.put_object(Bucket=bucket, Key="k", Body=b"secret")
    raw.put_object(Bucket=bucket, Key="plain", Body=b"plain")
    assert raw.get_object(Bucket=bucket, Key="plain")["Body"].read() == b"plain"
    assert raw.get_object(Bucket=bucket, Key="k")["Body"].read() != b"secret"


def test_errors_name_neither_bucket_object_key_nor_content(s3: S3Client, raw: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="patient-smith", Body=b"very secret content")
    body = raw.get_object(Bucket=bucket, Key="patient-smith")["Body"].read()
    raw.put_object(Bucket=bucket, Key="patient-smith", Body=body[:-1] + bytes([body[-1] ^ 1]))
    with pytest.raises(AuthenticationError) as failure:
        s3.get_object(Bucket=bucket, Key="patient-smith")["Body"].read()
    text = json.dumps([str(failure.value), repr(failure.value)])
    assert "smith" not in text
    assert "secret" not in text
