"""Rule 35 for objects: pairs that an ESDK object is bound to and does not store."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from support.messages import WRAPPING_KEY

from phicrypt import ANY_CONTEXT, KmsKeyring, PhiCrypt, RawAesKeyring
from phicrypt.audit import RecordingSink
from phicrypt.errors import AuthenticationError, ConfigurationError, ContextMismatchError, PhiInContextError
from phicrypt.s3.client import S3Client

PATIENT = {"patient": "p-20391-canary"}
WHOLE = {"tenant": "clinic-7", **PATIENT}
NAMES = ("patient",)
PLAINTEXT = bytes(range(256)) * 1_200  # three frames
PART = 5 * 1024**2


def put_object(s3: S3Client, bucket: str, **own: Any) -> None:
    s3.put_object(Bucket=bucket, Key="report", Body=PLAINTEXT, **own)


def put_stream(s3: S3Client, bucket: str, **own: Any) -> None:
    s3.put_object(Bucket=bucket, Key="report", Body=io.BufferedReader(io.BytesIO(PLAINTEXT)), **own)


def upload_fileobj(s3: S3Client, bucket: str, **own: Any) -> None:
    s3.upload_fileobj(io.BytesIO(PLAINTEXT), bucket, "report", ExtraArgs=own)


def write_file(s3: S3Client, bucket: str, **own: Any) -> None:
    with s3.open(f"s3://{bucket}/report", "wb", extra_args=own) as file:
        file.write(PLAINTEXT)


def upload_parts(s3: S3Client, bucket: str, **own: Any) -> None:
    name = {"Bucket": bucket, "Key": "report"}
    name["UploadId"] = s3.create_multipart_upload(**name, **own)["UploadId"]
    etag = s3.upload_part(**name, PartNumber=1, Body=PLAINTEXT)["ETag"]
    s3.complete_multipart_upload(**name, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})


def get_object(s3: S3Client, bucket: str, **own: Any) -> bytes:
    body: bytes = s3.get_object(Bucket=bucket, Key="report", **own)["Body"].read()
    return body


def get_ranges(s3: S3Client, bucket: str, **own: Any) -> bytes:
    ranges = (f"bytes=0-{99_999}", f"bytes=100000-{299_999}", "bytes=300000-")
    return b"".join(s3.get_object(Bucket=bucket, Key="report", Range=one, **own)["Body"].read() for one in ranges)


def download_fileobj(s3: S3Client, bucket: str, **own: Any) -> bytes:
    sink = io.BytesIO()
    s3.download_fileobj(bucket, "report", sink, ExtraArgs=own)
    return sink.getvalue()


def read_file(s3: S3Client, bucket: str, **own: Any) -> bytes:
    with s3.open(f"s3://{bucket}/report", extra_args=own) as file:
        end = file.read_at(100_000, len(PLAINTEXT))
        return file.read(100_000) + end


WRITERS = (put_object, put_stream, upload_fileobj, write_file, upload_parts)
READERS = (get_object, get_ranges, download_fileobj, read_file)
by_writer = pytest.mark.parametrize("write", WRITERS)
by_reader = pytest.mark.parametrize("read", READERS)


@pytest.fixture
def strict(raw: Any) -> S3Client:
    """A client that declares what it binds and does not store."""
    return PhiCrypt(RawAesKeyring("clinic", "key-1", WRAPPING_KEY), required_context=NAMES).s3(
        raw, part_size_bytes=PART
    )


def stored(raw: Any, bucket: str, object_key: str = "report") -> bytes:
    """The object as whoever reads the bucket has it, metadata included."""
    answer = raw.get_object(Bucket=bucket, Key=object_key)
    return bytes(answer["Body"].read()) + repr(answer["Metadata"]).encode()


@by_writer
def test_rule_35_an_object_stores_no_required_pair_and_every_way_reads_it(
    strict: S3Client, raw: Any, bucket: str, write: Callable[..., None]
) -> None:
    write(strict, bucket, EncryptionContext=WHOLE)
    assert b"canary" not in stored(raw, bucket)
    assert b"patient" not in stored(raw, bucket)
    assert b"clinic-7" in stored(raw, bucket)
    for read in READERS:
        assert read(strict, bucket, EncryptionContext=WHOLE) == PLAINTEXT
        with pytest.raises(AuthenticationError):
            read(strict, bucket, EncryptionContext={"tenant": "clinic-7", "patient": "p-2"})


@by_reader
def test_rule_35_names_are_checked_before_any_key_is_used(
    strict: S3Client, s3: S3Client, bucket: str, read: Callable[..., bytes]
) -> None:
    put_object(strict, bucket, EncryptionContext=WHOLE)
    with pytest.raises(ContextMismatchError, match="stores no pair named 'patient'"):
        read(s3, bucket, EncryptionContext=WHOLE)
    with pytest.raises(ConfigurationError, match="'patient'"):
        read(strict, bucket, EncryptionContext={"tenant": "clinic-7"})
    with pytest.raises(ConfigurationError, match="'patient'"):
        read(strict, bucket)
    with pytest.raises(ConfigurationError, match="'patient'"):
        read(strict, bucket, EncryptionContext=ANY_CONTEXT)
    put_object(s3, bucket, EncryptionContext=WHOLE)  # the downgrade: its header stores what the reader declares
    with pytest.raises(ContextMismatchError, match="stores 'patient'"):
        read(strict, bucket, EncryptionContext=WHOLE)
    assert read(strict, bucket, EncryptionContext=WHOLE, RequiredContext=()) == PLAINTEXT


@by_writer
def test_rule_35_names_that_come_once_are_read_once(
    s3: S3Client, raw: Any, bucket: str, write: Callable[..., None]
) -> None:
    """A generator has nothing left the second time, and the pairs would be stored."""
    write(s3, bucket, EncryptionContext=WHOLE, RequiredContext=iter(NAMES))
    assert b"canary" not in stored(raw, bucket)
    assert get_object(s3, bucket, EncryptionContext=WHOLE, RequiredContext=iter(NAMES)) == PLAINTEXT


def test_a_client_of_objects_may_declare_others_than_its_keys(
    s3: S3Client, phi: PhiCrypt, raw: Any, bucket: str
) -> None:
    bound = phi.s3(
        raw, required_context=["patient", "tenant"], context={"tenant": "clinic-7"}, bind_location=False
    )
    with bound.open(f"s3://{bucket}/report", "wb", context=PATIENT) as file:
        file.write(PLAINTEXT)
    assert b"clinic-7" not in stored(raw, bucket)
    assert bound.open(f"s3://{bucket}/report", context=PATIENT).read() == PLAINTEXT
    assert get_ranges(bound, bucket, EncryptionContext=PATIENT) == PLAINTEXT
    with pytest.raises(AuthenticationError):
        bound.open(f"s3://{bucket}/report", context={"patient": "p-2"})
    assert bound.open(f"s3://{bucket}/other", "wb", context=PATIENT, required_context=()).close() is None
    assert b"clinic-7" in stored(raw, bucket, "other")


def test_rule_35_a_copy_stays_bound_to_what_it_does_not_store(strict: S3Client, raw: Any, bucket: str) -> None:
    put_object(strict, bucket, EncryptionContext=WHOLE)
    source = {"Bucket": bucket, "Key": "report"}
    strict.copy_object(CopySource=source, Bucket=bucket, Key="copy-1", EncryptionContext=WHOLE)
    strict.copy(source, bucket, "copy-2", ExtraArgs={"EncryptionContext": WHOLE, "RequiredContext": iter(NAMES)})
    strict.rewrap(bucket, "report", to=RawAesKeyring("clinic", "key-2", bytes(32)), context=WHOLE)
    for object_key in ("copy-1", "copy-2", "report"):
        assert b"canary" not in stored(raw, bucket, object_key)
    for object_key in ("copy-1", "copy-2"):
        answer = strict.get_object(Bucket=bucket, Key=object_key, EncryptionContext=WHOLE)
        assert answer["Body"].read() == PLAINTEXT
    renewed = PhiCrypt(RawAesKeyring("clinic", "key-2", bytes(32)), required_context=NAMES).s3(raw)
    assert get_object(renewed, bucket, EncryptionContext=WHOLE) == PLAINTEXT


def test_rule_35_a_change_of_keys_to_kms_shows_kms_what_the_guard_judges(
    strict: S3Client, aws: Any, bucket: str
) -> None:
    phi_like = {"tenant": "clinic-7", "patient": "078-05-1120"}
    put_object(strict, bucket, EncryptionContext=phi_like)  # a raw key shows it to nobody
    to = KmsKeyring(aws.kms_key_arn, client=aws.client("kms"))
    with pytest.raises(PhiInContextError):
        strict.rewrap(bucket, "report", to=to, context=phi_like)
    assert get_object(strict, bucket, EncryptionContext=phi_like) == PLAINTEXT


def test_rule_35_objects_of_the_s3_encryption_client_refuse_required_context(
    kms_phi: PhiCrypt, raw: Any, bucket: str
) -> None:
    required = PhiCrypt(kms_phi.provider.keyring, required_context=NAMES)
    with pytest.raises(ConfigurationError, match="S3 Encryption Client"):
        required.s3(raw, format="s3ec")
    writer = required.s3(raw, format="s3ec", read_formats=("s3ec-v3",), required_context=())
    with pytest.raises(ConfigurationError, match="S3 Encryption Client"):
        put_object(writer, bucket, EncryptionContext=WHOLE, RequiredContext=NAMES)
    put_object(writer, bucket, EncryptionContext=WHOLE)
    assert get_object(writer, bucket, EncryptionContext=WHOLE) == PLAINTEXT
    reader = required.s3(raw, read_formats=("esdk", "s3ec-v3"))
    for read in READERS:
        with pytest.raises(ConfigurationError, match="S3 Encryption Client"):
            read(reader, bucket, EncryptionContext=WHOLE)


def test_rule_35_events_of_objects_hold_no_required_value(raw: Any, bucket: str) -> None:
    sink = RecordingSink()
    phi = PhiCrypt(RawAesKeyring("clinic", "key-1", WRAPPING_KEY), required_context=NAMES, audit=[sink])
    s3 = phi.s3(raw, part_size_bytes=PART)
    for write in WRITERS:
        write(s3, bucket, EncryptionContext=WHOLE)
    for read in READERS:
        read(s3, bucket, EncryptionContext=WHOLE)
    source = {"Bucket": bucket, "Key": "report"}
    s3.copy_object(CopySource=source, Bucket=bucket, Key="copy", EncryptionContext=WHOLE)
    phi.flush()
    assert sink.events
    assert not any("canary" in event.to_json() for event in sink.events)
    assert {event.required_context for event in sink.events} == {("patient",)}
