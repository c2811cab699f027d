"""Anchors in CloudTrail, and the sinks in S3 and CloudWatch Logs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.cloudtrail_records import record_of

from phicrypt.audit import AuditTrail, CloudWatchLogsSink, JsonlSink, S3SegmentSink
from phicrypt.audit.delivery import SinkError
from phicrypt.audit.events import AuditEvent
from phicrypt.audit.sinks.chain import ChainHead
from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.evidence.anchors import anchors_in
from phicrypt.evidence.cloudtrail import TrailEvent, parse_record
from phicrypt.evidence.join import log_events
from phicrypt.evidence.log_lines import read_records
from phicrypt.evidence.verify import verify
from phicrypt.testing import StrictKms, mark_as_double
from phicrypt.witness import AnchoredSink
from phicrypt.witness.anchors import ANCHOR_OPERATION


@pytest.fixture
def kms() -> Iterator[StrictKms]:
    with StrictKms() as running:
        yield running


def event(number: int) -> AuditEvent:
    return AuditEvent(1_700_000_000_000_000_000 + number, "use", f"u-{number}", "encrypt", "success")


def records_of(kms: StrictKms, key_arn: str) -> list[TrailEvent]:
    found = [parse_record(record_of(request, key_arn)) for request in kms.requests]
    return [record for record in found if record is not None]


def test_rule_21_an_anchor_shows_the_head_of_the_chain_to_cloudtrail(kms: StrictKms, tmp_path: Path) -> None:
    key_arn = kms.create_key()
    path = tmp_path / "audit.jsonl"
    sink = AnchoredSink(JsonlSink(path), key_arn, client=kms.client(), every_seconds=600)
    for number in range(5):
        sink.write([event(number)])
    head = sink.anchor()
    assert head is not None
    assert head.sequence == 5
    sink.write([event(5)])
    sink.close()
    assert list(anchors_in(records_of(kms, key_arn))) == [head, ChainHead(head.chain_id, 7, _hash(path, 7))]
    for request in kms.requests:
        if request.operation != "CreateKey":
            assert request.operation == "GenerateDataKeyWithoutPlaintext"
            assert request.user_agent.startswith("phicrypt/")
    anchored = [record for record in read_records(path) if record.fields["kind"] == "anchor"]
    assert [record.fields["detail"]["sequence"] for record in anchored] == [5, 7]
    assert anchored[0].fields["request_ids"] == [kms.requests[-2].request_id]

    anchors = list(anchors_in(records_of(kms, key_arn), key_arn=key_arn))
    result = verify(path, anchors=anchors)
    assert result.is_valid
    assert result.anchors_confirmed == 2
    assert result.chains[head.chain_id].unanchored == 1
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]))
    assert verify(path).is_valid
    truncated = verify(path, anchors=anchors)
    assert not truncated.is_valid
    assert "truncated" in truncated.faults[0].what


def _hash(path: Path, sequence: int) -> str:
    return next(record.sha256 for record in read_records(path) if record.sequence == sequence)


@pytest.mark.parametrize("when", [{"every_records": 10, "every_seconds": 600}, {"every_seconds": 0.05}])
def test_anchors_are_made_every_so_many_records_and_seconds(
    kms: StrictKms, tmp_path: Path, when: dict[str, Any]
) -> None:
    key_arn = kms.create_key()
    sink = AnchoredSink(JsonlSink(tmp_path / "audit.jsonl"), key_arn, client=kms.client(), **when)
    for number in range(12):
        sink.write([event(number)])
    deadline = time.monotonic() + 10
    while not list(anchors_in(records_of(kms, key_arn))) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(anchors_in(records_of(kms, key_arn)))
    sink.close()


def test_a_kms_that_refuses_anchors_stops_no_operation_and_is_told(kms: StrictKms, tmp_path: Path) -> None:
    key_arn = kms.create_key()
    kms.deny(key_arn, "GenerateDataKeyWithoutPlaintext")
    sink = AnchoredSink(JsonlSink(tmp_path / "audit.jsonl"), key_arn, client=kms.client(), every_seconds=600)
    AuditTrail([sink]).begin("decrypt").end()
    with pytest.raises(KeyAccessError):
        sink.anchor()
    sink.close()
    assert isinstance(sink.last_error, KeyAccessError)
    assert list(anchors_in(records_of(kms, key_arn))) == []
    assert verify(tmp_path / "audit.jsonl", anchors=[]).is_valid
    attempts = [event for event in log_events(tmp_path / "audit.jsonl") if event.kind == "anchor"]
    assert [event.outcome for event in attempts] == ["denied", "denied"]
    asked = [request.request_id for request in kms.requests if request.operation == ANCHOR_OPERATION]
    assert [event.origin.request_ids[0] for event in attempts if event.origin is not None] == asked


def test_made_up_anchors_of_another_key_can_be_left_out(kms: StrictKms, tmp_path: Path) -> None:
    key_arn, foreign = kms.create_key(), kms.create_key()
    kms.client().generate_data_key_without_plaintext(
        KeyId=foreign,
        KeySpec="AES_256",
        EncryptionContext={
            "phicrypt-audit-chain": "a" * 32,
            "phicrypt-audit-sequence": "1",
            "phicrypt-audit-head": "b" * 64,
        },
    )
    assert len(list(anchors_in(records_of(kms, foreign)))) == 1
    assert list(anchors_in(records_of(kms, foreign), key_arn=key_arn)) == []
    malformed = records_of(kms, foreign)[-1]._replace(context={"phicrypt-audit-chain": "x"})
    assert list(anchors_in([malformed])) == []


def test_a_forked_child_anchors_its_own_chain(kms: StrictKms, tmp_path: Path) -> None:
    key_arn = kms.create_key()
    sink = AnchoredSink(JsonlSink(tmp_path / "audit.jsonl"), key_arn, client=kms.client(), every_seconds=600)
    sink.write([event(0)])
    child = os.fork()
    if child == 0:
        try:
            sink._client = kms.client()
            sink.write([event(1)])
            sink.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    sink.close()
    assert len({anchor.chain_id for anchor in anchors_in(records_of(kms, key_arn))}) == 2


def test_unsuitable_settings_are_refused(tmp_path: Path) -> None:
    for settings in ({"every_records": 0}, {"every_seconds": 0}):
        with pytest.raises(ConfigurationError):
            AnchoredSink(JsonlSink(tmp_path / "a"), "arn", **settings)
    with pytest.raises(ConfigurationError):
        S3SegmentSink("bucket", mode="NONE")


@mark_as_double
class FakeBucket:
    """put_object with IfNoneMatch, failing when told."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.failing = False

    def put_object(self, **parameters: Any) -> dict[str, Any]:
        assert parameters["IfNoneMatch"] == "*"
        assert parameters["Key"] not in self.objects
        self.objects[parameters["Key"]] = parameters
        if self.failing:
            raise TimeoutError
        return {}


def test_segments_in_s3_are_locked_for_six_years_and_verify_when_read_back(tmp_path: Path) -> None:
    bucket = FakeBucket()
    sink = S3SegmentSink("audit-bucket", client=bucket)
    sink.write([event(0), event(1)])
    bucket.failing = True
    with pytest.raises(SinkError):
        sink.write([event(2)])
    bucket.failing = False
    sink.write([event(2)])
    sink.close()
    assert len(bucket.objects) == 3
    for object_key, parameters in bucket.objects.items():
        assert object_key.startswith(f"phicrypt-audit/{datetime.now(UTC):%Y/%m/%d}/")
        assert parameters["ObjectLockMode"] == "COMPLIANCE"
        assert 2_190 < (parameters["ObjectLockRetainUntilDate"] - datetime.now(UTC)).days <= 2_192
    for object_key, parameters in bucket.objects.items():
        (tmp_path / object_key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / object_key).write_bytes(parameters["Body"])
    result = verify(tmp_path)
    assert result.is_valid, result.faults
    assert len(result.chains) == 2
    uses = sorted(record.fields["use_id"] for record in read_records(tmp_path) if record.fields["kind"] == "use")
    assert uses == ["u-0", "u-1", "u-2", "u-2"]
    (next(tmp_path.rglob("000000000003.jsonl")).parent / "000000000000.jsonl").unlink()
    assert not verify(tmp_path).is_valid


@mark_as_double
class FakeLogs:
    """CloudWatch Logs' two verbs and their limits."""

    def __init__(self) -> None:
        self.streams: dict[str, list[str]] = {}
        self.rejecting = False

    def create_log_stream(self, *, logGroupName: str, logStreamName: str) -> None:  # noqa: N803
        self.streams[logStreamName] = []

    def put_log_events(self, *, logGroupName: str, logStreamName: str, logEvents: list[Any]) -> dict[str, Any]:  # noqa: N803
        assert len(logEvents) <= 10_000
        assert sum(len(one["message"]) + 26 for one in logEvents) <= 1_048_576
        if self.rejecting:
            return {"rejectedLogEventsInfo": {"expiredLogEventEndIndex": 1}}
        self.streams[logStreamName].extend(one["message"] for one in logEvents)
        return {}


def test_cloudwatch_logs_get_one_stream_per_chain_within_the_limits(tmp_path: Path) -> None:
    logs = FakeLogs()
    sink = CloudWatchLogsSink("/phicrypt/audit", client=logs)
    sink.write([event(number) for number in range(5_000)])
    ((stream, messages),) = logs.streams.items()
    assert stream.startswith("phicrypt-audit-")
    path = tmp_path / "read-back.jsonl"
    path.write_text("\n".join(messages) + "\n")
    assert verify(path).records == 5_001
    assert verify(path).is_valid
    logs.rejecting = True
    with pytest.raises(SinkError):
        sink.write([event(1)])
    logs.rejecting = False
    sink.write([event(1)])
    assert len(logs.streams) == 3 - 1


def test_segments_in_the_local_s3(tmp_path: Path) -> None:
    pytest.importorskip("moto")
    from phicrypt.testing import local_aws

    with local_aws() as aws:
        s3 = aws.client("s3")
        s3.create_bucket(Bucket="audit-bucket", ObjectLockEnabledForBucket=True)
        trail = AuditTrail([S3SegmentSink("audit-bucket", client=s3)])
        trail.begin("decrypt").end()
        keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket="audit-bucket")["Contents"]]
        bodies = [s3.get_object(Bucket="audit-bucket", Key=object_key)["Body"].read() for object_key in keys]
    assert [json.loads(line)["event"]["kind"] for body in bodies for line in body.splitlines()] == [
        "chain-start",
        "begin",
        "end",
    ]
