"""Objects of the S3 Encryption Client: read when switched on, written on request, verified whole."""

from __future__ import annotations

import base64
import io
import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from interop.s3ec_python import S3ecPython, S3ecRefusedError, S3ecUnavailableError, s3ec_python
from support.s3_support import WatchedS3, flip

from phicrypt import ANY_CONTEXT, KmsKeyring, MultiKeyring, PhiCrypt
from phicrypt.core.limits import ReadLimits
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    ContextMismatchError,
    FormatError,
    LimitExceededError,
    NotEncryptedError,
    PhiCryptError,
    UnsupportedOperationError,
)
from phicrypt.s3.client import S3Client
from phicrypt.s3.writing import copy as copying

V3 = ("s3ec-v3",)
ALL = ("esdk", "s3ec-v3", "s3ec-v2", "s3ec-instruction-files")


@pytest.fixture(scope="module")
def neighbour(aws: Any) -> Iterator[S3ecPython]:
    try:
        with s3ec_python(aws.endpoint_url, aws.kms_key_arn) as running:
            yield running
    except S3ecUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def s3ec(kms_phi: PhiCrypt, raw: Any) -> S3Client:
    return kms_phi.s3(raw, format="s3ec", read_formats=V3)


@pytest.fixture
def kms_client_of(kms_phi: PhiCrypt, client_of: Callable[..., S3Client]) -> Callable[..., S3Client]:
    return lambda **settings: client_of(**{"phi": kms_phi, **settings})


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 1_000_003])
def test_objects_of_awss_client_are_read(
    neighbour: S3ecPython, kms_client_of: Callable[..., S3Client], bucket: str, version: int, length: int
) -> None:
    data = bytes(index % 253 for index in range(length))
    neighbour.put(bucket, "k", data, {"tenant": "clinic-7"}, version=version)
    reader = kms_client_of(read_formats=(f"s3ec-v{version}",))
    context = {"tenant": "clinic-7"}
    response = reader.get_object(Bucket=bucket, Key="k", EncryptionContext=context)
    assert response["Body"].read() == data
    assert response["ContentLength"] == length
    assert response["Metadata"] == {}
    assert reader.head_object(Bucket=bucket, Key="k")["ContentLength"] == length
    sink = io.BytesIO()
    reader.download_fileobj(bucket, "k", sink, ExtraArgs={"EncryptionContext": context})
    assert sink.getvalue() == data


@pytest.mark.parametrize("length", [0, 1, 16, 1_000_003])
def test_awss_client_reads_version_3_objects(
    neighbour: S3ecPython, s3ec: S3Client, bucket: str, length: int
) -> None:
    data = bytes(index % 253 for index in range(length))
    s3ec.put_object(Bucket=bucket, Key="k", Body=data, EncryptionContext={"tenant": "clinic-7"})
    assert neighbour.get(bucket, "k", {"tenant": "clinic-7"}) == data
    with pytest.raises(S3ecRefusedError):
        neighbour.get(bucket, "k", {"tenant": "clinic-8"})


def test_awss_client_reads_version_3_objects_that_were_uploaded_in_parts(
    neighbour: S3ecPython, kms_client_of: Callable[..., S3Client], bucket: str
) -> None:
    part = 5 * 1024**2
    client = kms_client_of(format="s3ec", read_formats=V3, part_size_bytes=part)
    data = bytes(range(256)) * (2 * part // 256) + b"end"
    client.upload_fileobj(io.BytesIO(data), bucket, "transfer")
    assert neighbour.get(bucket, "transfer") == data
    for name, body in (("short-end", data), ("full-end", data[: 2 * part])):
        upload = {"Bucket": bucket, "Key": name}
        upload["UploadId"] = client.create_multipart_upload(**upload)["UploadId"]
        parts = []
        for number, start in enumerate(range(0, len(body), part), start=1):
            answer = client.upload_part(**upload, PartNumber=number, Body=body[start : start + part])
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        assert neighbour.get(bucket, name) == body


def test_rule_07_formats_are_switched_on_by_name(
    s3ec: S3Client, kms_client_of: Callable[..., S3Client], bucket: str
) -> None:
    s3ec.put_object(Bucket=bucket, Key="k", Body=b"x")
    for formats in (("esdk",), ("s3ec-v2",)):
        with pytest.raises(UnsupportedOperationError, match="read_formats"):
            kms_client_of(read_formats=formats).get_object(Bucket=bucket, Key="k")
    kms_client_of().put_object(Bucket=bucket, Key="e", Body=b"x")
    with pytest.raises(UnsupportedOperationError, match="read_formats"):
        s3ec.get_object(Bucket=bucket, Key="e")


def test_rule_07_an_object_replaced_by_an_s3ec_object_under_the_same_key_is_refused(
    s3ec: S3Client, kms_client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    client = kms_client_of()
    client.put_object(Bucket=bucket, Key="k", Body=b"genuine")
    s3ec.put_object(Bucket=bucket, Key="forged", Body=b"forged")
    raw.copy_object(Bucket=bucket, Key="k", CopySource={"Bucket": bucket, "Key": "forged"})
    for extra in ({}, {"Range": "bytes=0-1"}, {"Range": "bytes=-1"}):
        with pytest.raises(UnsupportedOperationError):
            client.get_object(Bucket=bucket, Key="k", **extra)
    with pytest.raises(UnsupportedOperationError):
        client.head_object(Bucket=bucket, Key="k")


def test_rule_07_contexts_must_be_equal_not_a_subset(s3ec: S3Client, bucket: str, aws: Any) -> None:
    s3ec.put_object(Bucket=bucket, Key="k", Body=b"x", EncryptionContext={"a": "1", "b": "2"})
    aws.kms_requests.clear()
    for wrong in ({}, {"a": "1"}, {"a": "1", "b": "3"}, {"a": "1", "b": "2", "c": "3"}):
        with pytest.raises(ContextMismatchError):
            s3ec.get_object(Bucket=bucket, Key="k", EncryptionContext=wrong)
    assert aws.kms_requests == []
    right = {"a": "1", "b": "2"}
    assert s3ec.get_object(Bucket=bucket, Key="k", EncryptionContext=right)["Body"].read() == b"x"
    assert s3ec.get_object(Bucket=bucket, Key="k", EncryptionContext=ANY_CONTEXT)["Body"].read() == b"x"


def test_rule_06_nothing_of_an_s3ec_object_leaves_before_all_of_it_was_verified(
    s3ec: S3Client, raw: Any, bucket: str
) -> None:
    data = b"v" * 900_000
    s3ec.put_object(Bucket=bucket, Key="k", Body=data)
    stored = raw.get_object(Bucket=bucket, Key="k")
    body, metadata = stored["Body"].read(), stored["Metadata"]
    for index in (0, 100, 500_000, len(body) - 17, len(body) - 16, len(body) - 1):
        raw.put_object(Bucket=bucket, Key="k", Body=flip(body, index), Metadata=metadata)
        stream = s3ec.get_object(Bucket=bucket, Key="k")["Body"]
        for _ in range(2):
            with pytest.raises(AuthenticationError):
                stream.read(1)
        with pytest.raises(AuthenticationError):
            s3ec.get_object(Bucket=bucket, Key="k", Range="bytes=0-0")
    for cut in (0, 15, 16, 1000):
        raw.put_object(Bucket=bucket, Key="k", Body=body[:cut], Metadata=metadata)
        with pytest.raises((AuthenticationError, FormatError)):
            s3ec.get_object(Bucket=bucket, Key="k")["Body"].read()


def test_rule_06_an_s3ec_object_beyond_the_spool_is_refused(
    aws: Any, raw: Any, s3ec: S3Client, bucket: str
) -> None:
    s3ec.put_object(Bucket=bucket, Key="k", Body=b"x" * 2_000_000)
    keyring = KmsKeyring(aws.kms_key_arn, client=aws.client("kms"))
    for bound, fits in ((1_000_000, False), (3_000_000, True)):
        limits = ReadLimits(max_spool_bytes=bound, spool_memory_bytes=100_000)
        client = PhiCrypt(keyring, limits=limits).s3(raw, read_formats=V3)
        body = client.get_object(Bucket=bucket, Key="k")["Body"]
        if fits:
            assert body.read() == b"x" * 2_000_000
        else:
            with pytest.raises(LimitExceededError):
                body.read()


def test_every_changed_metadata_field_is_refused(s3ec: S3Client, raw: Any, bucket: str) -> None:
    s3ec.put_object(Bucket=bucket, Key="k", Body=b"x", EncryptionContext={"a": "1"})
    stored = raw.get_object(Bucket=bucket, Key="k")
    body, metadata = stored["Body"].read(), stored["Metadata"]
    changes: list[dict[str, str | None]] = [{name: None} for name in metadata]
    for name in ("x-amz-3", "x-amz-d", "x-amz-i"):
        value = base64.b64decode(metadata[name])
        changes += [{name: base64.b64encode(flip(value, -1)).decode()}, {name: "not base64"}, {name: "AAAA"}]
    changes += [
        {"x-amz-w": "02"},
        {"x-amz-w": "kms"},
        {"x-amz-c": "114"},
        {"x-amz-key-v2": "AAAA"},
        {"x-amz-iv": "AAAA"},
        {"x-amz-t": json.dumps({"a": "1"})},
        {"x-amz-t": json.dumps({"a": "1", "aws:x-amz-cek-alg": "AES/GCM/NoPadding"})},
        {"x-amz-t": '{"a":"1","a":"1","aws:x-amz-cek-alg":"115"}'},
        {"x-amz-t": "[1]"},
        {"phicrypt-format": "esdk"},
    ]
    for change in changes:
        changed = {name: value for name, value in {**metadata, **change}.items() if value is not None}
        raw.put_object(Bucket=bucket, Key="k", Body=body, Metadata=changed)
        with pytest.raises(PhiCryptError):
            s3ec.get_object(Bucket=bucket, Key="k", EncryptionContext={"a": "1"})["Body"].read()
    raw.put_object(Bucket=bucket, Key="k", Body=body, Metadata=metadata)
    assert s3ec.get_object(Bucket=bucket, Key="k", EncryptionContext={"a": "1"})["Body"].read() == b"x"


def test_version_2_metadata_that_lies_about_the_length_is_refused(
    kms_client_of: Callable[..., S3Client], raw: Any, bucket: str, aws: Any
) -> None:
    context = {"aws:x-amz-cek-alg": "AES/GCM/NoPadding"}
    key = aws.client("kms").generate_data_key(KeyId=aws.kms_key_arn, NumberOfBytes=32, EncryptionContext=context)
    metadata = {
        "x-amz-key-v2": base64.b64encode(key["CiphertextBlob"]).decode(),
        "x-amz-iv": base64.b64encode(bytes(12)).decode(),
        "x-amz-matdesc": json.dumps(context),
        "x-amz-wrap-alg": "kms+context",
        "x-amz-cek-alg": context["aws:x-amz-cek-alg"],
        "x-amz-tag-len": "128",
    }
    body = AESGCM(key["Plaintext"]).encrypt(bytes(12), b"twenty bytes of data", None)
    client = kms_client_of(read_formats=ALL)
    for claim in ("19", "21", "", "-1", "9" * 30):
        lying = {**metadata, "x-amz-unencrypted-content-length": claim}
        raw.put_object(Bucket=bucket, Key="k", Body=body, Metadata=lying)
        for extra in ({}, {"Range": "bytes=0-1"}, {"Range": "bytes=-1"}):
            with pytest.raises((AuthenticationError, FormatError)):
                client.get_object(Bucket=bucket, Key="k", **extra)["Body"].read()
    true = {**metadata, "x-amz-unencrypted-content-length": "20"}
    raw.put_object(Bucket=bucket, Key="k", Body=body, Metadata=true)
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == b"twenty bytes of data"


@pytest.mark.parametrize(
    "metadata",
    [
        {"x-amz-key": "AAAA", "x-amz-iv": "AAAA", "x-amz-matdesc": "{}"},
        {
            "x-amz-key-v2": "AAAA",
            "x-amz-iv": "AAAA",
            "x-amz-matdesc": "{}",
            "x-amz-wrap-alg": "kms+context",
            "x-amz-cek-alg": "AES/CBC/PKCS5Padding",
        },
        {
            "x-amz-key-v2": "AAAA",
            "x-amz-iv": "AAAA",
            "x-amz-matdesc": "{}",
            "x-amz-wrap-alg": "kms+context",
            "x-amz-cek-alg": "AES/CTR/NoPadding",
        },
        {
            "x-amz-key-v2": "AAAA",
            "x-amz-iv": base64.b64encode(bytes(12)).decode(),
            "x-amz-matdesc": json.dumps({"kms_cmk_id": "k"}),
            "x-amz-wrap-alg": "kms",
            "x-amz-cek-alg": "AES/GCM/NoPadding",
            "x-amz-tag-len": "128",
        },
    ],
    ids=["version-1", "cbc", "ctr", "kms-without-context"],
)
def test_legacy_and_unauthenticated_modes_are_refused_with_every_format_on(
    kms_client_of: Callable[..., S3Client], raw: Any, bucket: str, metadata: dict[str, str], aws: Any
) -> None:
    raw.put_object(Bucket=bucket, Key="k", Body=bytes(32), Metadata=metadata)
    aws.kms_requests.clear()
    with pytest.raises(UnsupportedOperationError):
        kms_client_of(read_formats=ALL).get_object(Bucket=bucket, Key="k")
    assert aws.kms_requests == []


@pytest.mark.parametrize("version", [2, 3])
def test_instruction_files_are_read_only_when_named(
    neighbour: S3ecPython, kms_client_of: Callable[..., S3Client], raw: Any, bucket: str, version: int
) -> None:
    neighbour.put(bucket, "k", b"with a file beside it", version=version)
    stored = raw.get_object(Bucket=bucket, Key="k")
    body, metadata = stored["Body"].read(), stored["Metadata"]
    own = ("x-amz-c", "x-amz-d", "x-amz-i") if version == 3 else ()
    raw.put_object(Bucket=bucket, Key="k", Body=body, Metadata={name: metadata[name] for name in own})
    instruction = {name: value for name, value in metadata.items() if name not in own}
    raw.put_object(Bucket=bucket, Key="k.instruction", Body=json.dumps(instruction))
    assert neighbour.get(bucket, "k", version=version) == b"with a file beside it"
    reader = kms_client_of(read_formats=(f"s3ec-v{version}", "s3ec-instruction-files"))
    assert reader.get_object(Bucket=bucket, Key="k")["Body"].read() == b"with a file beside it"
    assert reader.get_object(Bucket=bucket, Key="k", Range="bytes=-2")["Body"].read() == b"it"
    with pytest.raises((UnsupportedOperationError, NotEncryptedError)):
        kms_client_of(read_formats=(f"s3ec-v{version}",)).get_object(Bucket=bucket, Key="k")
    for wrong in (b"[]", b"{", b'{"stranger": "1"}', b'{"x-amz-c": "115"}', b" " * 70_000):
        raw.put_object(Bucket=bucket, Key="k.instruction", Body=wrong)
        with pytest.raises((FormatError, LimitExceededError)):
            reader.get_object(Bucket=bucket, Key="k")
    raw.delete_object(Bucket=bucket, Key="k.instruction")
    with pytest.raises((FormatError, NotEncryptedError)):
        reader.get_object(Bucket=bucket, Key="k")


def test_ranges_of_s3ec_objects_are_cut_from_what_was_verified(s3ec: S3Client, bucket: str) -> None:
    data = bytes(range(256)) * 4_000
    s3ec.put_object(Bucket=bucket, Key="k", Body=data)
    for header, span in (
        ("bytes=0-0", slice(0, 1)),
        ("bytes=262143-262145", slice(262_143, 262_146)),
        ("bytes=1000000-", slice(1_000_000, None)),
        ("bytes=-300000", slice(-300_000, None)),
    ):
        response = s3ec.get_object(Bucket=bucket, Key="k", Range=header)
        assert response["Body"].read() == data[span]
        assert response["ResponseMetadata"]["HTTPStatusCode"] == 206
    with pytest.raises(s3ec.exceptions.ClientError, match="InvalidRange"):
        s3ec.get_object(Bucket=bucket, Key="k", Range="bytes=9999999-")


def test_rule_16_s3ec_holds_one_recipient(aws: Any, raw: Any, bucket: str, phi: PhiCrypt) -> None:
    kms = KmsKeyring(aws.kms_key_arn, client=aws.client("kms"))
    for keyring in (MultiKeyring(kms, kms), phi.provider.keyring):
        client = PhiCrypt(keyring).s3(raw, format="s3ec", read_formats=V3)
        with pytest.raises(ConfigurationError, match="KmsKeyring"):
            client.put_object(Bucket=bucket, Key="k", Body=b"x")


def test_contexts_that_metadata_cannot_carry_are_refused(s3ec: S3Client, bucket: str) -> None:
    for context in ({"name": "Ärztin"}, {"aws:x-amz-cek-alg": "115"}, {"kms_cmk_id": "x"}):
        with pytest.raises(ConfigurationError):
            s3ec.put_object(Bucket=bucket, Key="k", Body=b"x", EncryptionContext=context)


def test_rewrap_replaces_metadata_only(
    neighbour: S3ecPython, aws: Any, raw: Any, kms_phi: PhiCrypt, bucket: str
) -> None:
    watched = WatchedS3(raw)
    client = kms_phi.s3(watched, format="s3ec", read_formats=V3)
    data = bytes(64) * 1024**2
    client.put_object(
        Bucket=bucket,
        Key="k",
        Body=data,
        ContentType="application/dicom",
        Metadata={"modality": "ct"},
        Tagging="class=imaging",
    )
    before = raw.head_object(Bucket=bucket, Key="k")["Metadata"]
    new_arn = aws.create_kms_key()
    plan = client.plan_rewrap(bucket, "k")
    assert (plan.method, plan.bytes_through_client) == ("replace metadata", 0)
    aws.requests.clear()
    watched.reset()
    client.rewrap(bucket, "k", to=KmsKeyring(new_arn, client=aws.client("kms")))
    assert watched.body_bytes == 0
    assert sum(request["body_bytes"] for request in aws.requests if request["service"] == "s3") < 64 * 1024
    after = raw.head_object(Bucket=bucket, Key="k")
    assert {name for name in before if before[name] != after["Metadata"][name]} == {"x-amz-3"}
    assert after["ContentType"] == "application/dicom"
    assert client.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "class", "Value": "imaging"}]
    assert neighbour.get(bucket, "k", key_arn=new_arn) == data


def test_rewrap_above_the_copy_bound_goes_by_parts_on_the_server(
    aws: Any, raw: Any, s3ec: S3Client, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "MAX_COPY_BYTES", 6 * 1024**2)
    monkeypatch.setattr(copying, "_SERVER_PART_BYTES", 5 * 1024**2)
    data = bytes(range(256)) * (12 * 1024**2 // 256)
    s3ec.put_object(Bucket=bucket, Key="k", Body=data, Tagging="class=imaging")
    keyring = KmsKeyring(aws.create_kms_key(), client=aws.client("kms"))
    s3ec.rewrap(bucket, "k", to=keyring)
    reader = PhiCrypt(keyring).s3(raw, read_formats=V3)
    assert reader.get_object(Bucket=bucket, Key="k")["Body"].read() == data
    assert s3ec.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == [{"Key": "class", "Value": "imaging"}]


def test_rewrap_above_the_copy_bound_that_lost_a_race_changes_nothing(
    aws: Any, raw: Any, kms_client_of: Callable[..., S3Client], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "MAX_COPY_BYTES", 6 * 1024**2)
    monkeypatch.setattr(copying, "_SERVER_PART_BYTES", 5 * 1024**2)
    plain = kms_client_of(format="s3ec", read_formats=V3)
    plain.put_object(Bucket=bucket, Key="k", Body=bytes(12 * 1024**2))

    def replace(operation: str, parameters: dict[str, Any]) -> None:
        """Replaces the object last of all; then answers as S3 documents, since moto looks at no IfMatch here."""
        if operation == "complete_multipart_upload":
            etag = plain.put_object(Bucket=bucket, Key="k", Body=b"newer")["ETag"]
            if parameters.get("IfMatch", etag) != etag:
                refusal: Any = {"Error": {"Code": "PreconditionFailed"}}
                raise ClientError(refusal, "CompleteMultipartUpload")

    client = kms_client_of(raw=WatchedS3(raw, replace), read_formats=V3)
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.rewrap(bucket, "k", to=KmsKeyring(aws.create_kms_key(), client=aws.client("kms")))
    assert plain.get_object(Bucket=bucket, Key="k")["Body"].read() == b"newer"
    assert "Uploads" not in raw.list_multipart_uploads(Bucket=bucket)


def test_rewrap_refuses_a_data_key_that_the_object_does_not_commit_to(
    aws: Any, raw: Any, s3ec: S3Client, bucket: str
) -> None:
    s3ec.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3ec.put_object(Bucket=bucket, Key="other", Body=b"y")
    stored, other = (raw.get_object(Bucket=bucket, Key=name) for name in ("k", "other"))
    metadata = {**stored["Metadata"], "x-amz-3": other["Metadata"]["x-amz-3"], "x-amz-i": flip_text(stored)}
    raw.put_object(Bucket=bucket, Key="k", Body=stored["Body"].read(), Metadata=metadata)
    with pytest.raises(AuthenticationError):
        s3ec.rewrap(bucket, "k", to=KmsKeyring(aws.create_kms_key(), client=aws.client("kms")))


def flip_text(stored: dict[str, Any]) -> str:
    return base64.b64encode(flip(base64.b64decode(stored["Metadata"]["x-amz-i"]), 0)).decode()


def test_rule_43_an_s3ec_object_is_verified_whole_and_then_read_by_place(
    s3ec: S3Client, raw: Any, bucket: str
) -> None:
    data = random.Random(43).randbytes(700_001)
    s3ec.put_object(Bucket=bucket, Key="k", Body=data)
    generator = random.Random(44)
    with s3ec.open(f"s3://{bucket}/k") as file:
        for _ in range(40):
            offset, length = generator.randrange(len(data) + 10), generator.randrange(600_000)
            assert file.read_at(offset, length) == data[offset : offset + length]
        with ThreadPoolExecutor(16) as pool:
            places = [generator.randrange(len(data)) for _ in range(64)]
            assert list(pool.map(lambda place: file.read_at(place, 9), places)) == [
                data[p : p + 9] for p in places
            ]
        assert file.read_at(len(data), 1) == file.read_at(2**40, 1) == file.read_at(5, 0) == b""
        assert file.read() == data
        assert file.seek(-3, io.SEEK_END) == len(data) - 3
        assert file.read() == data[-3:]
    stored = raw.get_object(Bucket=bucket, Key="k")
    raw.put_object(Bucket=bucket, Key="k", Body=flip(stored["Body"].read(), 600_000), Metadata=stored["Metadata"])
    with pytest.raises(AuthenticationError):
        s3ec.open(f"s3://{bucket}/k")
