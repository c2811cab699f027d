"""Rules of safety where they touch S3 and stand in no other file here: 5, 6, 8, 20, and private buckets."""

from __future__ import annotations

import copy
import gc
import io
import json
import pickle
from collections.abc import Callable
from typing import Any

import aws_encryption_sdk
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from support.messages import WRAPPING_KEY
from support.s3_support import WatchedS3, flip
from support.sdk_providers import raw_provider

from phicrypt import ANY_CONTEXT, CachePolicy, KmsKeyring, PhiCrypt, RawAesKeyring
from phicrypt.audit.sinks.memory import RecordingSink
from phicrypt.core.limits import ReadLimits
from phicrypt.core.location import LOCATION_NAME, location_pair
from phicrypt.errors import (
    AuditError,
    AuthenticationError,
    ConfigurationError,
    ContextMismatchError,
    FormatError,
    LimitExceededError,
    PhiCryptError,
    UnsupportedOperationError,
)
from phicrypt.s3.client import S3Client

FRAME = 128 * 1024


def test_rule_05_s3_materials_that_do_not_derive_are_never_cached(
    aws: Any, raw: Any, bucket: str, kms_phi: PhiCrypt
) -> None:
    """Signed objects, and version 2 objects of the S3 Encryption Client, ask KMS each time."""
    signed = kms_phi.s3(raw, signed=True, bind_location=False, context={"tenant": "7"})
    unsigned = kms_phi.s3(raw, bind_location=False, context={"tenant": "7"})
    for client, expected in ((signed, 3), (unsigned, 1)):
        aws.kms_requests.clear()
        for name in ("a", "b", "c"):
            client.put_object(Bucket=bucket, Key=name, Body=b"x")
        assert [request["operation"] for request in aws.kms_requests] == ["GenerateDataKey"] * expected


def test_rule_05_data_keys_that_are_shared_make_objects_with_keys_of_their_own(
    raw: Any, bucket: str, s3: S3Client, client_of: Callable[..., S3Client]
) -> None:
    shared = client_of(bind_location=False, context={"tenant": "7"})
    for name in ("a", "b"):
        shared.put_object(Bucket=bucket, Key=name, Body=b"same plaintext")
    first, second = (raw.get_object(Bucket=bucket, Key=name)["Body"].read() for name in ("a", "b"))
    assert first[3:35] != second[3:35], "message ids"
    assert first[-30:] != second[-30:]


def test_rule_06_frames_are_released_after_their_own_tag(s3: S3Client, raw: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"v" * (3 * FRAME))
    stored = raw.get_object(Bucket=bucket, Key="k")
    body = stored["Body"].read()
    raw.put_object(Bucket=bucket, Key="k", Body=flip(body, 2 * FRAME), Metadata=stored["Metadata"])
    stream = s3.get_object(Bucket=bucket, Key="k")["Body"]
    assert stream.read(1) == b"v"
    received = bytearray(b"v")
    with pytest.raises(AuthenticationError):
        while piece := stream.read(1000):
            received += piece
    assert len(received) <= FRAME
    for _ in range(3):
        with pytest.raises(AuthenticationError):
            stream.read(1)
    with pytest.raises(AuthenticationError):
        s3.get_object(Bucket=bucket, Key="k")["Body"].read()


def test_rule_06_the_last_piece_of_a_signed_object_waits_for_the_signature(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    client = client_of(signed=True)
    client.put_object(Bucket=bucket, Key="k", Body=b"v" * (2 * FRAME + 10))
    stored = raw.get_object(Bucket=bucket, Key="k")
    body = stored["Body"].read()
    changes = (flip(body, -1), body[:-1], body[:-105], body + b"\x00")
    for changed in changes:
        raw.put_object(Bucket=bucket, Key="k", Body=changed, Metadata=stored["Metadata"])
        received = bytearray()
        with pytest.raises(PhiCryptError):
            stream = client.get_object(Bucket=bucket, Key="k")["Body"]
            while piece := stream.read(5_000):
                received += piece
        assert len(received) <= 2 * FRAME
        with pytest.raises(PhiCryptError):
            client.download_fileobj(bucket, "k", io.BytesIO())


def test_rule_06_non_framed_messages_are_spooled_and_verified_whole(raw: Any, bucket: str) -> None:
    context = location_pair(bucket, "k", {})
    data = b"n" * 700_000
    sdk = aws_encryption_sdk.EncryptionSDKClient(
        commitment_policy=aws_encryption_sdk.CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
    )
    message, _ = sdk.encrypt(source=data, key_provider=raw_provider(), encryption_context=context, frame_length=0)
    raw.put_object(Bucket=bucket, Key="k", Body=message)
    keyring = RawAesKeyring("clinic", "key-1", WRAPPING_KEY)
    signed_and_non_framed = PhiCrypt(keyring).s3(raw)
    assert signed_and_non_framed.get_object(Bucket=bucket, Key="k")["Body"].read() == data
    with pytest.raises(UnsupportedOperationError):
        signed_and_non_framed.get_object(Bucket=bucket, Key="k", Range="bytes=0-1")
    small = PhiCrypt(keyring, limits=ReadLimits(max_spool_bytes=1_000)).s3(raw)
    with pytest.raises(LimitExceededError):
        small.get_object(Bucket=bucket, Key="k")["Body"].read()
    raw.put_object(Bucket=bucket, Key="k", Body=flip(message, len(message) // 2))
    with pytest.raises(AuthenticationError):
        signed_and_non_framed.get_object(Bucket=bucket, Key="k")["Body"].read(1)


@pytest.mark.parametrize(
    "limit", ["max_frame_length_bytes", "max_header_length_bytes", "max_context_length_bytes"]
)
def test_rule_06_bounds_hold_for_stored_headers(raw: Any, bucket: str, limit: str) -> None:
    keyring = RawAesKeyring("clinic", "key-1", WRAPPING_KEY)
    PhiCrypt(keyring).s3(raw).put_object(Bucket=bucket, Key="k", Body=b"x")
    phi = PhiCrypt(keyring, limits=ReadLimits(**{limit: 50}), frame_length_bytes=50)
    strict = phi.s3(raw, part_size_bytes=5 * 1024**2 + 20)
    for extra in ({}, {"Range": "bytes=0-0"}):
        with pytest.raises(LimitExceededError):
            strict.get_object(Bucket=bucket, Key="k", **extra)


def test_rule_08_expected_pairs_are_compared_before_any_kms_call(
    aws: Any, raw: Any, bucket: str, kms_phi: PhiCrypt
) -> None:
    client = kms_phi.s3(raw, context={"tenant": "7"})
    client.put_object(Bucket=bucket, Key="k", Body=b"x")
    raw.copy_object(Bucket=bucket, Key="moved", CopySource={"Bucket": bucket, "Key": "k"})
    client.get_object(Bucket=bucket, Key="k")["Body"].read()
    aws.kms_requests.clear()
    stranger = kms_phi.s3(raw, context={"tenant": "8"})
    for other, name in ((stranger, "k"), (client, "moved")):
        for extra in ({}, {"Range": "bytes=0-0"}):
            with pytest.raises(ContextMismatchError) as failure:
                other.get_object(Bucket=bucket, Key=name, **extra)
            assert "7" not in str(failure.value)
    assert aws.kms_requests == []


def test_rule_08_reserved_names_are_refused_in_callers_contexts(
    client_of: Callable[..., S3Client], bucket: str
) -> None:
    for name in (LOCATION_NAME, "aws-crypto-public-key", "phicrypt-anything"):
        with pytest.raises(ConfigurationError):
            client_of(context={name: "x"})
        with pytest.raises(ConfigurationError):
            client_of().get_object(Bucket=bucket, Key="k", EncryptionContext={name: "x"})


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
def audited(sink: RecordingSink, raw: Any) -> S3Client:
    return PhiCrypt(RawAesKeyring("clinic", "key-1", WRAPPING_KEY), audit=[sink]).s3(raw)


def outcomes(sink: RecordingSink) -> list[tuple[str, str, str, int | None]]:
    return [(event.operation, event.kind, event.outcome, event.byte_count) for event in sink.events]


def test_rule_20_every_use_begins_and_ends_in_the_audit_trail(
    audited: S3Client, sink: RecordingSink, raw: Any, bucket: str
) -> None:
    uses: list[Callable[[], Any]] = [
        lambda: audited.put_object(Bucket=bucket, Key="k", Body=b"x" * 300_000),
        lambda: audited.get_object(Bucket=bucket, Key="k")["Body"].read(),
        lambda: audited.get_object(Bucket=bucket, Key="k", Range="bytes=0-9")["Body"].read(),
        lambda: audited.download_fileobj(bucket, "k", io.BytesIO()),
        lambda: audited.upload_fileobj(io.BytesIO(b"y" * 10), bucket, "u"),
    ]
    for number, (use, expected) in enumerate(
        zip(
            uses,
            (
                ("s3.put_object", 300_000),
                ("s3.get_object", 300_000),
                ("s3.get_object", 10),
                ("s3.download_fileobj", 300_000),
                ("s3.upload_fileobj", 10),
            ),
            strict=True,
        )
    ):
        sink.events.clear()
        use()
        audited._s3_session.phi_session.trail.flush()
        operation, count = expected
        assert outcomes(sink) == [(operation, "begin", "begun", None), (operation, "end", "success", count)], (
            number
        )
        begin, end = sink.events
        assert begin.use_id == end.use_id
        assert end.origin is not None
        assert end.message_id is not None
    sink.events.clear()
    raw.copy_object(Bucket=bucket, Key="moved", CopySource={"Bucket": bucket, "Key": "k"})
    with pytest.raises(ContextMismatchError):
        audited.get_object(Bucket=bucket, Key="moved")
    assert [(event.kind, event.outcome) for event in sink.events] == [("begin", "begun"), ("end", "failed")]
    assert "moved" not in json.dumps([str(event) for event in sink.events])


def test_rule_20_an_abandoned_body_leaves_how_much_was_read(
    audited: S3Client, sink: RecordingSink, bucket: str
) -> None:
    audited.put_object(Bucket=bucket, Key="k", Body=b"x" * 300_000)
    sink.events.clear()
    assert audited.get_object(Bucket=bucket, Key="k")["Body"].read(10) == b"x" * 10
    gc.collect()
    audited._s3_session.phi_session.trail.flush()
    assert outcomes(sink)[-1] == ("s3.get_object", "end", "interrupted", 10)


def test_rule_20_an_audit_sink_that_fails_stops_a_read_before_plaintext(
    bucket: str, raw: Any, s3: S3Client
) -> None:
    class Broken:
        def write(self, events: Any) -> None:
            raise OSError("disk full")

        def close(self) -> None:
            pass

    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    client = PhiCrypt(RawAesKeyring("clinic", "key-1", WRAPPING_KEY), audit=[Broken()]).s3(raw)
    for read in (
        lambda: client.get_object(Bucket=bucket, Key="k"),
        lambda: client.get_object(Bucket=bucket, Key="k", Range="bytes=0-0"),
        lambda: client.open(f"s3://{bucket}/k"),
        lambda: client.download_fileobj(bucket, "k", io.BytesIO()),
    ):
        with pytest.raises(AuditError):
            read()


def test_rule_20_an_actor_is_required_before_a_key_is_used(
    aws: Any, raw: Any, bucket: str, sink: RecordingSink
) -> None:
    keyring = KmsKeyring(aws.kms_key_arn, client=aws.client("kms"))
    phi = PhiCrypt(keyring, audit=[sink], require_actor=True, cache=None)
    client = phi.s3(raw)
    aws.kms_requests.clear()
    with pytest.raises(AuditError):
        client.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert aws.kms_requests == []
    with phi.acting_as("dr-4711"):
        client.put_object(Bucket=bucket, Key="k", Body=b"x")
        with client.open(f"s3://{bucket}/w", "wb") as file:
            file.write(b"written in a thread")
        body = client.get_object(Bucket=bucket, Key="k")["Body"]
    assert body.read() == b"x"
    phi.trail.flush()
    assert {event.actor for event in sink.events} == {"dr-4711"}


def test_a_private_bucket_can_be_required(client_of: Callable[..., S3Client], raw: Any, bucket: str) -> None:
    client = client_of(require_private_bucket=True)
    client_of().put_object(Bucket=bucket, Key="before", Body=b"x")
    for write in (
        lambda: client.rewrap(bucket, "before", to=RawAesKeyring("clinic", "key-2", bytes(32))),
        lambda: client.put_object(Bucket=bucket, Key="k", Body=b"x"),
        lambda: client.upload_fileobj(io.BytesIO(b"x"), bucket, "k"),
        lambda: client.create_multipart_upload(Bucket=bucket, Key="k"),
        lambda: client.open(f"s3://{bucket}/k", "wb"),
    ):
        with pytest.raises(ConfigurationError, match="require_private_bucket"):
            write()
    assert raw.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    deny = {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        },
    }
    raw.put_bucket_policy(Bucket=bucket, Policy=json.dumps(deny))
    with pytest.raises(ClientError, match="403"):
        # The guard lets it pass; moto applies the Deny without looking at its condition.
        client_of(require_private_bucket=True).put_object(Bucket=bucket, Key="k", Body=b"x")


@pytest.mark.parametrize("code", ["BadDigest", "AccessDenied", "SlowDown", "PreconditionFailed"])
def test_recorded_refusals_of_s3_keep_boto3s_errors(
    client_of: Callable[..., S3Client], raw: Any, aws: Any, bucket: str, code: str
) -> None:
    """What no local server enforces (checksums, owners, throttling), on answers of the documented shape."""
    fresh = aws.client("s3")
    client = client_of(raw=fresh)
    with Stubber(fresh) as stub:
        for operation in ("put_object", "get_object", "copy_object"):
            stub.add_client_error(
                "head_object" if operation == "copy_object" else operation, code, http_status_code=403
            )
        with pytest.raises(ClientError, match=code):
            client.put_object(Bucket=bucket, Key="k", Body=b"x", ExpectedBucketOwner="111122223333")
        with pytest.raises(ClientError, match=code):
            client.get_object(Bucket=bucket, Key="k", ExpectedBucketOwner="111122223333")
        with pytest.raises(ClientError, match=code):
            client.copy_object(Bucket=bucket, Key="k", CopySource={"Bucket": bucket, "Key": "a"})


def test_owners_and_customer_keys_are_sent_with_every_request_of_a_read(
    client_of: Callable[..., S3Client], raw: Any, bucket: str, s3: S3Client
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 300_000)
    watched = WatchedS3(raw)
    shared = {"ExpectedBucketOwner": "123456789012", "RequestPayer": "requester"}
    client_of(raw=watched).get_object(Bucket=bucket, Key="k", Range="bytes=1-2", **shared)["Body"].read()
    assert len(watched.calls) > 1
    for _, parameters in watched.calls:
        assert {name: parameters[name] for name in shared} == shared


def test_clients_and_bodies_cannot_be_copied_or_pickled(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 10)
    body: Any = s3.get_object(Bucket=bucket, Key="k")["Body"]
    for held, attempts in (
        (s3, (copy.copy, copy.deepcopy, pickle.dumps)),
        (body, (copy.deepcopy, pickle.dumps)),
        (body._raw_stream, (copy.copy, copy.deepcopy, pickle.dumps)),
    ):
        for attempt in attempts:
            with pytest.raises(TypeError):
                attempt(held)
    assert body.read() == b"x" * 10


@pytest.mark.parametrize(
    "settings",
    [
        {"read_formats": ()},
        {"read_formats": "esdk"},
        {"read_formats": ("esdk", "s3ec-v1")},
        {"read_formats": ("s3ec-instruction-files",)},
        {"format": "plain"},
        {"format": "s3ec", "signed": True},
        {"part_size_bytes": 1024},
        {"part_size_bytes": 5 * 1024**2 + 1},
        {"frame_length_bytes": 0},
        {"context": {"": "x"}},
        {"max_memory_bytes": 0},
    ],
)
def test_wrong_settings_are_refused_at_once(client_of: Callable[..., S3Client], settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        client_of(**settings)


def test_other_clients_than_s3s_are_refused(phi: PhiCrypt, aws: Any) -> None:
    for wrong in (aws.client("kms"), object(), "s3"):
        with pytest.raises(ConfigurationError):
            phi.s3(wrong)
    assert phi.s3(aws.session()).meta.service_model.service_name == "s3"


def test_the_location_is_a_hash_of_length_prefixed_names() -> None:
    pairs = {
        json.dumps(location_pair(bucket, name, {}))
        for bucket, name in (("a", "bc"), ("ab", "c"), ("a", "b"), ("", "abc"), ("a", "bc/"))
    }
    assert len(pairs) == 5
    assert location_pair("replica", "k", {"replica": "b"}) == location_pair("b", "k", {})
    assert location_pair("b", "k", {}) == {LOCATION_NAME: "Dx1pYCduHRRbUv9WLh/OdqZ6P8Q0hcj7RoTY/3Gxlm0="}


def test_any_context_never_drops_the_location(s3: S3Client, raw: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    raw.copy_object(Bucket=bucket, Key="b", CopySource={"Bucket": bucket, "Key": "a"})
    with pytest.raises(ContextMismatchError):
        s3.get_object(Bucket=bucket, Key="b", EncryptionContext=ANY_CONTEXT)


def test_cached_data_keys_are_charged_for_the_bytes_of_streams(raw: Any, bucket: str, aws: Any) -> None:
    keyring = KmsKeyring(aws.kms_key_arn, client=aws.client("kms"))
    phi = PhiCrypt(keyring, cache=CachePolicy(max_bytes=1_000_000))
    client = phi.s3(raw, bind_location=False, context={"tenant": "7"})
    aws.kms_requests.clear()
    for name in ("a", "b"):
        client.upload_fileobj(io.BytesIO(bytes(1_500_000)), bucket, name)
    assert len(aws.kms_requests) == 2, "the first stream used up the data key's bytes"


def test_a_server_that_answers_another_range_is_refused(
    s3: S3Client, raw: Any, bucket: str, client_of: Callable[..., S3Client]
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 300_000)

    class Liar(WatchedS3):
        def __getattr__(self, name: str) -> Any:
            call = super().__getattr__(name)
            if name != "get_object":
                return call

            def lie(**parameters: Any) -> Any:
                if "IfMatch" in parameters:
                    parameters = {**parameters, "Range": "bytes=0-99"}
                return call(**parameters)

            return lie

    with pytest.raises(FormatError):
        client_of(raw=Liar(raw)).get_object(Bucket=bucket, Key="k", Range="bytes=5-6")


@pytest.mark.parametrize("pairs", [{"dataset": ""}, {"dataset": "v" * 32_768}])
def test_rule_34_s3_writes_no_context_that_java_does_not_read(
    raw: Any, bucket: str, client_of: Callable[..., S3Client], pairs: dict[str, str]
) -> None:
    s3 = client_of(bind_location=False)
    of_all = client_of(bind_location=False, context=pairs)
    for refused in (
        lambda: s3.put_object(Bucket=bucket, Key="a", Body=b"x", EncryptionContext=pairs),
        lambda: of_all.put_object(Bucket=bucket, Key="a", Body=b"x"),
        lambda: s3.upload_fileobj(io.BytesIO(b"x"), bucket, "a", ExtraArgs={"EncryptionContext": pairs}),
        lambda: s3.create_multipart_upload(Bucket=bucket, Key="a", EncryptionContext=pairs),
        lambda: s3.open(f"s3://{bucket}/a", "wb", context=pairs),
    ):
        with pytest.raises(ConfigurationError, match="Java"):
            refused()
    assert "Contents" not in raw.list_objects_v2(Bucket=bucket)
    assert "Uploads" not in raw.list_multipart_uploads(Bucket=bucket)


def test_rule_34_s3_reads_an_object_with_an_empty_context_value(
    raw: Any, bucket: str, client_of: Callable[..., S3Client]
) -> None:
    sdk = aws_encryption_sdk.EncryptionSDKClient()
    pairs = {"tenant": "7", "dataset": ""}
    message, _ = sdk.encrypt(source=b"payload", encryption_context=pairs, key_provider=raw_provider())
    raw.put_object(Bucket=bucket, Key="a", Body=message)
    s3 = client_of(bind_location=False)
    assert s3.get_object(Bucket=bucket, Key="a", EncryptionContext=pairs)["Body"].read() == b"payload"


def test_rule_32_a_body_that_utf_8_cannot_hold_is_not_kept_behind_the_error(
    raw: Any, bucket: str, client_of: Callable[..., S3Client]
) -> None:
    s3 = client_of()
    with pytest.raises(ConfigurationError, match="surrogate") as caught:
        s3.put_object(Bucket=bucket, Key="a", Body="Jane Roe \ud800")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="b")["UploadId"]
    with pytest.raises(ConfigurationError, match="surrogate") as caught_part:
        s3.upload_part(Bucket=bucket, Key="b", UploadId=upload, PartNumber=1, Body="Jane Roe \ud800")
    for error in (caught.value, caught_part.value):
        assert "Jane" not in repr(error)
        assert error.__cause__ is None and error.__context__ is None
    assert "Contents" not in raw.list_objects_v2(Bucket=bucket)
