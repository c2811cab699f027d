"""Copies are bound to the new name; a change of key seals again."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.s3_support import WatchedS3, flip

from phicrypt import ANY_CONTEXT, KmsKeyring, PhiCrypt, RawAesKeyring
from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import DecryptionMaterials
from phicrypt.errors import (
    ConfigurationError,
    ContextMismatchError,
    KeyAccessError,
    PhiCryptError,
    UnsupportedOperationError,
)
from phicrypt.formats.esdk.header import parse_header
from phicrypt.formats.reader import ByteReader
from phicrypt.s3.client import S3Client
from phicrypt.s3.writing.copy import parse_copy_source

PART = 5 * 1024**2


@pytest.mark.parametrize("length", [0, 1000, 2 * PART + 5])
def test_copies_are_bound_to_the_new_name(
    client_of: Callable[..., S3Client], raw: Any, bucket: str, length: int
) -> None:
    s3 = client_of(part_size_bytes=PART)
    data = random.Random(length).randbytes(length)
    s3.upload_fileobj(io.BytesIO(data), bucket, "a", ExtraArgs={"Metadata": {"m": "ct"}, "ContentType": "x/y"})
    response = s3.copy_object(Bucket=bucket, Key="b", CopySource={"Bucket": bucket, "Key": "a"})
    assert response["CopyObjectResult"]["ETag"] == raw.head_object(Bucket=bucket, Key="b")["ETag"]
    assert response["CopyObjectResult"]["LastModified"].tzinfo is not None
    s3.copy(f"{bucket}/a", bucket, "c")
    for name in ("a", "b", "c"):
        copied = s3.get_object(Bucket=bucket, Key=name)
        assert copied["Body"].read() == data
        assert copied["Metadata"] == {"m": "ct"}
        assert copied["ContentType"] == "x/y"


def test_rule_09_a_blind_server_copy_is_refused(s3: S3Client, raw: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="patient-1", Body=b"one")
    s3.put_object(Bucket=bucket, Key="patient-2", Body=b"two")
    raw.create_bucket(Bucket=f"{bucket}-2")
    moves = [(bucket, "patient-2"), (bucket, "new"), (f"{bucket}-2", "patient-1"), (bucket, "patient-1/")]
    for to_bucket, to_name in moves:
        raw.copy_object(Bucket=to_bucket, Key=to_name, CopySource={"Bucket": bucket, "Key": "patient-1"})
        for extra in ({}, {"Range": "bytes=0-0"}, {"Range": "bytes=-1"}, {"EncryptionContext": ANY_CONTEXT}):
            with pytest.raises(ContextMismatchError):
                s3.get_object(Bucket=to_bucket, Key=to_name, **extra)
        with pytest.raises(ContextMismatchError):
            s3.download_fileobj(to_bucket, to_name, io.BytesIO())
        with pytest.raises(ContextMismatchError):
            s3.open(f"s3://{to_bucket}/{to_name}")


def test_rule_09_names_are_bound_as_they_are_written(s3: S3Client, raw: Any, bucket: str) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    s3.put_object(Bucket=bucket, Key=composed, Body=b"x")
    raw.copy_object(Bucket=bucket, Key=decomposed, CopySource={"Bucket": bucket, "Key": composed})
    assert s3.get_object(Bucket=bucket, Key=composed)["Body"].read() == b"x"
    with pytest.raises(ContextMismatchError):
        s3.get_object(Bucket=bucket, Key=decomposed)


def test_rule_09_logical_buckets_keep_replicas_readable(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    replica = f"{bucket}-replica"
    raw.create_bucket(Bucket=replica)
    client_of().put_object(Bucket=bucket, Key="k", Body=b"x")
    raw.copy_object(Bucket=replica, Key="k", CopySource={"Bucket": bucket, "Key": "k"})
    with pytest.raises(ContextMismatchError):
        client_of().get_object(Bucket=replica, Key="k")
    reader = client_of(logical_buckets={replica: bucket})
    assert reader.get_object(Bucket=replica, Key="k")["Body"].read() == b"x"


def test_without_location_binding_objects_move_and_reads_name_their_pairs(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    loose = client_of(bind_location=False)
    loose.put_object(Bucket=bucket, Key="k", Body=b"x", EncryptionContext={"tenant": "7"})
    raw.copy_object(Bucket=bucket, Key="moved", CopySource={"Bucket": bucket, "Key": "k"})
    read = loose.get_object(Bucket=bucket, Key="moved", EncryptionContext={"tenant": "7"})
    assert read["Body"].read() == b"x"
    assert loose.get_object(Bucket=bucket, Key="k", EncryptionContext=ANY_CONTEXT)["Body"].read() == b"x"
    with pytest.raises(ConfigurationError, match="bind_location"):
        loose.get_object(Bucket=bucket, Key="k")
    with pytest.raises(ContextMismatchError):
        client_of().get_object(Bucket=bucket, Key="k")


def header_of(raw: Any, bucket: str, name: str) -> tuple[Any, bytes]:
    body = raw.get_object(Bucket=bucket, Key=name)["Body"].read()
    return parse_header(ByteReader(body), ReadLimits()), body


def data_key_of(header: Any, keyring: RawAesKeyring) -> bytes:
    materials = DecryptionMaterials(header.suite, header.context, header.context_bytes)
    data_key = keyring.on_decrypt(materials, header.encrypted_data_keys).data_key
    assert data_key is not None
    return data_key.key_bytes


def frames_of(header: Any, body: bytes) -> set[bytes]:
    """Content and tag of every frame, without its number and IV."""
    stride = 128 * 1024 + 32
    return {body[at + 16 : at + stride] for at in range(header.length_bytes, len(body) - 40, stride)}


def test_rule_03_a_rewrapped_message_shares_nothing_with_the_old_one(
    client_of: Callable[..., S3Client], raw: Any, bucket: str, keyring: RawAesKeyring
) -> None:
    s3 = client_of(part_size_bytes=PART)
    data = bytes(3 * PART)
    s3.upload_fileobj(
        io.BytesIO(data), bucket, "k", ExtraArgs={"Metadata": {"m": "ct"}, "Tagging": "class=imaging"}
    )
    old_header, old_body = header_of(raw, bucket, "k")
    plan = s3.plan_rewrap(bucket, "k")
    assert plan.method == "re-encrypt"
    assert plan.bytes_through_client == 2 * len(old_body)
    new_keyring = RawAesKeyring("clinic", "key-2", bytes(32))
    s3.rewrap(bucket, "k", to=new_keyring)
    new_header, new_body = header_of(raw, bucket, "k")
    assert new_header.message_id != old_header.message_id
    assert data_key_of(old_header, keyring) != data_key_of(new_header, new_keyring)
    assert frames_of(old_header, old_body) & frames_of(new_header, new_body) == set()
    with pytest.raises(KeyAccessError):
        s3.get_object(Bucket=bucket, Key="k")
    reader = client_of(phi=PhiCrypt(new_keyring))
    response = reader.get_object(Bucket=bucket, Key="k")
    assert response["Body"].read() == data
    assert response["Metadata"] == {"m": "ct"}
    assert reader.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "class", "Value": "imaging"}]


@pytest.mark.parametrize("settings", [{}, {"bind_location": False, "context": {"tenant": "clinic-7"}}])
def test_rule_03_a_copy_has_a_data_key_of_its_own(
    client_of: Callable[..., S3Client], kms_phi: PhiCrypt, raw: Any, bucket: str, settings: dict[str, Any]
) -> None:
    """Where the context stays the same, the source's data key is in the cache."""
    s3 = client_of(phi=kms_phi, **settings)
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    before, _ = header_of(raw, bucket, "a")
    s3.copy_object(Bucket=bucket, Key="a", CopySource={"Bucket": bucket, "Key": "a"})
    after, _ = header_of(raw, bucket, "a")
    s3.copy({"Bucket": bucket, "Key": "a"}, bucket, "b")
    elsewhere, _ = header_of(raw, bucket, "b")
    assert len({header.encrypted_data_keys[0].ciphertext for header in (before, after, elsewhere)}) == 3
    assert len({header.message_id for header in (before, after, elsewhere)}) == 3
    assert s3.get_object(Bucket=bucket, Key="b")["Body"].read() == b"x"


@pytest.mark.parametrize("metadata_is_stripped", [False, True])
def test_a_rewrap_takes_neither_signature_nor_location_away(
    client_of: Callable[..., S3Client],
    kms_phi: PhiCrypt,
    raw: Any,
    bucket: str,
    aws: Any,
    metadata_is_stripped: bool,
) -> None:
    client_of(phi=kms_phi, signed=True).put_object(Bucket=bucket, Key="k", Body=b"x")
    if metadata_is_stripped:  # as whoever writes the bucket may do
        raw.put_object(Bucket=bucket, Key="k", Body=raw.get_object(Bucket=bucket, Key="k")["Body"].read())
    keyring = KmsKeyring(aws.create_kms_key(), client=aws.client("kms"))
    client_of(phi=kms_phi, format="s3ec").rewrap(bucket, "k", to=keyring)
    reader = client_of(phi=PhiCrypt(keyring))
    assert reader.get_object(Bucket=bucket, Key="k", RequireSigned=True)["Body"].read() == b"x"
    raw.copy_object(Bucket=bucket, Key="moved", CopySource={"Bucket": bucket, "Key": "k"})
    with pytest.raises(ContextMismatchError):
        reader.get_object(Bucket=bucket, Key="moved")


def test_a_rewrap_or_copy_in_place_that_lost_a_race_changes_nothing(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    plain = client_of()
    plain.put_object(Bucket=bucket, Key="k", Body=b"old")

    def replace(operation: str, parameters: dict[str, Any]) -> None:
        if operation == "put_object" and not replaced:
            replaced.append(True)
            plain.put_object(Bucket=bucket, Key="k", Body=b"newer")

    replaced: list[bool] = []
    s3 = client_of(raw=WatchedS3(raw, replace))
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.rewrap(bucket, "k", to=RawAesKeyring("clinic", "key-2", bytes(32)))
    assert plain.get_object(Bucket=bucket, Key="k")["Body"].read() == b"newer"
    replaced.clear()
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.copy_object(Bucket=bucket, Key="k", CopySource={"Bucket": bucket, "Key": "k"})
    assert plain.get_object(Bucket=bucket, Key="k")["Body"].read() == b"newer"


@pytest.mark.parametrize("place", [0.5, 1.0])
def test_a_source_that_does_not_verify_is_not_copied_over_anything(
    client_of: Callable[..., S3Client], raw: Any, bucket: str, place: float
) -> None:
    s3 = client_of(part_size_bytes=PART)
    s3.upload_fileobj(io.BytesIO(bytes(2 * PART)), bucket, "a")
    s3.put_object(Bucket=bucket, Key="b", Body=b"before")
    stored = raw.get_object(Bucket=bucket, Key="a")
    body = stored["Body"].read()
    changed = flip(body, min(int(len(body) * place), len(body) - 1))
    raw.put_object(Bucket=bucket, Key="a", Body=changed, Metadata=stored["Metadata"])
    with pytest.raises(PhiCryptError):
        s3.copy_object(Bucket=bucket, Key="b", CopySource={"Bucket": bucket, "Key": "a"})
    with pytest.raises(PhiCryptError):
        s3.rewrap(bucket, "a", to=RawAesKeyring("clinic", "key-2", bytes(32)))
    assert s3.get_object(Bucket=bucket, Key="b")["Body"].read() == b"before"
    assert raw.get_object(Bucket=bucket, Key="a")["Body"].read() == changed
    assert "Uploads" not in raw.list_multipart_uploads(Bucket=bucket)


def test_copies_follow_s3s_directives_and_conditions(s3: S3Client, bucket: str) -> None:
    put = s3.put_object(Bucket=bucket, Key="a", Body=b"x", Metadata={"m": "1"}, Tagging="t=1")
    source = {"Bucket": bucket, "Key": "a"}
    s3.copy_object(
        Bucket=bucket,
        Key="b",
        CopySource=source,
        MetadataDirective="REPLACE",
        Metadata={"m": "2"},
        TaggingDirective="REPLACE",
        Tagging="t=2",
        CopySourceIfMatch=put["ETag"],
    )
    assert s3.head_object(Bucket=bucket, Key="b")["Metadata"] == {"m": "2"}
    assert s3.get_object_tagging(Bucket=bucket, Key="b")["TagSet"] == [{"Key": "t", "Value": "2"}]
    s3.copy_object(Bucket=bucket, Key="c", CopySource=source)
    assert s3.get_object_tagging(Bucket=bucket, Key="c")["TagSet"] == [{"Key": "t", "Value": "1"}]
    for condition in ({"CopySourceIfMatch": '"0"'}, {"CopySourceIfNoneMatch": put["ETag"]}, {"IfNoneMatch": "*"}):
        with pytest.raises(ClientError, match="PreconditionFailed"):
            s3.copy_object(Bucket=bucket, Key="b", CopySource=source, **condition)
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.copy_object(Bucket=bucket, Key="d", CopySource={"Bucket": bucket, "Key": "absent"})
    with pytest.raises(UnsupportedOperationError):
        s3.copy_object(Bucket=bucket, Key="d", CopySource=source, AnnotationDirective="COPY")


def test_a_copy_to_another_keyring_takes_the_sources_client(
    client_of: Callable[..., S3Client], s3: S3Client, raw: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    target = client_of(phi=PhiCrypt(RawAesKeyring("clinic", "key-2", bytes(32))))
    target.copy({"Bucket": bucket, "Key": "a"}, bucket, "b", SourceClient=s3)
    assert target.get_object(Bucket=bucket, Key="b")["Body"].read() == b"x"
    with pytest.raises(ConfigurationError):
        target.copy({"Bucket": bucket, "Key": "a"}, bucket, "b", SourceClient=raw)


def test_copy_sources_are_read_like_boto3s() -> None:
    assert parse_copy_source("b/a%20c/d?versionId=v1") == {"Bucket": "b", "Key": "a c/d", "VersionId": "v1"}
    access_point = "arn:aws:s3:us-east-1:111122223333:accesspoint/imaging"
    assert parse_copy_source(f"{access_point}/object/a/object/c") == {"Bucket": access_point, "Key": "a/object/c"}
    assert parse_copy_source({"Bucket": "b", "Key": "a%20c"}) == {"Bucket": "b", "Key": "a%20c"}
    for wrong in (None, "b", "b/", {"Bucket": "b"}, {"Bucket": "b", "Key": "k", "Range": "x"}):
        with pytest.raises(ConfigurationError):
            parse_copy_source(wrong)
