"""Copies of a log in a bucket: locked, without gaps, and with everything that the log says."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from phicrypt.audit import JsonlSink, S3SegmentSink
from phicrypt.audit.events import AuditEvent
from phicrypt.cli import run
from phicrypt.evidence.shipped import Shipped, read_shipped
from phicrypt.testing import mark_as_double


@mark_as_double
class Bucket:
    """Keeps objects as S3 does, with the lock that each was written with."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}

    def put_object(self, **parameters: Any) -> dict[str, Any]:
        self.objects[parameters["Key"]] = parameters | {"LastModified": datetime.now(UTC)}
        return {}

    def get_paginator(self, name: str) -> Bucket:
        return self

    def paginate(self, **question: str) -> Iterator[dict[str, Any]]:
        yield {"Contents": [{"Key": key} for key in sorted(self.objects) if key.startswith(question["Prefix"])]}

    def get_object(self, **question: str) -> dict[str, Any]:
        found = self.objects[question["Key"]]
        return {name: value for name, value in found.items() if name not in ("Bucket", "Key", "IfNoneMatch")} | {
            "Body": io.BytesIO(found["Body"])
        }


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Bucket]:
    """A log of twelve uses, and its copies in four segments of one chain."""
    log, bucket = tmp_path / "audit.jsonl", Bucket()
    local, shipping = JsonlSink(log), S3SegmentSink("clinic-audit", client=bucket)  # type: ignore[arg-type]
    for batch in range(4):
        events = [AuditEvent(10**9, "use", f"u-{batch}-{n}", "encrypt", "success") for n in range(3)]
        local.write(events)
        shipping.write(events)
    local.close()
    return log, bucket


def read(sides: tuple[Path, Bucket]) -> Shipped:
    log, bucket = sides
    return read_shipped(bucket, "clinic-audit", "phicrypt-audit/", log=log)  # type: ignore[arg-type]


def test_whole_copies_have_no_problems(sides: tuple[Path, Bucket]) -> None:
    shipped = read(sides)
    assert list(shipped.problems()) == []
    assert (shipped.segments, shipped.records) == (4, 13)


def test_rule_25_a_segment_that_is_missing_is_a_gap_and_its_events_are_counted(sides: tuple[Path, Bucket]) -> None:
    _, bucket = sides
    del bucket.objects[sorted(bucket.objects)[1]]
    gap, missing = read(sides).problems()
    assert "3 record(s) are missing before this one" in gap
    assert missing == "3 events of the log are in no segment, the first at audit.jsonl:5"


def test_the_last_segments_that_are_missing_are_found_by_the_log_alone(sides: tuple[Path, Bucket]) -> None:
    _, bucket = sides
    for key in sorted(bucket.objects)[-2:]:
        del bucket.objects[key]
    assert list(read(sides).problems()) == ["6 events of the log are in no segment, the first at audit.jsonl:8"]
    bucket.objects.clear()
    assert next(iter(read(sides).problems())) == "no segment is there"


def test_events_of_the_last_hour_may_be_under_way(sides: tuple[Path, Bucket]) -> None:
    log, _ = sides
    sink = JsonlSink(log)
    now = int(datetime.now(UTC).timestamp()) * 10**9
    sink.write([AuditEvent(now, "use", "late", "encrypt", "success")])
    assert list(read(sides).problems()) == []
    sink.write([AuditEvent(now - 7_200 * 10**9, "use", "lost", "encrypt", "success")])
    sink.close()
    assert len(list(read(sides).problems())) == 1


@pytest.mark.parametrize(
    ("lock", "said"),
    [
        ({"ObjectLockMode": "GOVERNANCE"}, "mode GOVERNANCE"),
        ({"ObjectLockMode": None}, "no retention"),
        ({"ObjectLockRetainUntilDate": datetime(2030, 1, 1, tzinfo=UTC)}, "retained until 2030-01-01 only"),
    ],
)
def test_a_segment_that_is_not_locked_for_six_years_is_told(
    sides: tuple[Path, Bucket], lock: dict[str, Any], said: str
) -> None:
    _, bucket = sides
    key = sorted(bucket.objects)[2]
    bucket.objects[key] |= lock
    (problem,) = read(sides).problems()
    assert problem.startswith("1 of 4 segments are not locked")
    assert said in problem
    assert key not in problem


def test_a_changed_segment_and_a_damaged_log_are_told(sides: tuple[Path, Bucket]) -> None:
    log, bucket = sides
    key = sorted(bucket.objects)[1]
    bucket.objects[key]["Body"] = bucket.objects[key]["Body"].replace(b"success", b"denied!")
    log.write_bytes(log.read_bytes() + b"garbage\n")
    changed, own = read(sides).problems()
    assert changed.startswith("3 gaps or changed records in the segments: object 2:1")
    assert own.startswith("1 lines of the log itself")


def test_the_doctor_compares_audit_buckets_with_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("moto")
    from phicrypt.testing import local_aws
    from phicrypt.testing.local_stack import ACCESS_KEY_ID, SECRET_ACCESS_KEY

    log = tmp_path / "audit.jsonl"
    events = [AuditEvent(10**9, "use", f"u-{number}", "encrypt", "success") for number in range(3)]
    with local_aws() as aws:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        s3 = aws.client("s3")
        s3.create_bucket(Bucket="clinic-audit", ObjectLockEnabledForBucket=True)
        local, shipping = JsonlSink(log), S3SegmentSink("clinic-audit", client=s3)
        local.write(events)
        shipping.write(events[:2])
        local.close()
        (tmp_path / "d.json").write_text(
            json.dumps({"buckets": [{"name": "clinic-audit", "audit": True}, "clinic"]})
        )
        where = ("--endpoint-url", aws.endpoint_url, "--region", "us-east-1")
        command = [
            "doctor",
            *where,
            "-d",
            str(tmp_path / "d.json"),
            "--shipped-log",
            str(log),
            "-o",
            "json",
            "--all",
        ]
        assert run(command) == 1
        findings = json.loads(capfd.readouterr().out)["findings"]
        (found,) = (one for one in findings if one["rule_id"] == "audit-log-shipped")
        assert (found["outcome"], found["resource"]) == ("failed", "arn:aws:s3:::clinic-audit")
        assert "1 events of the log are in no segment, the first at audit.jsonl:4" in found["found"]
        (retention,) = (one for one in findings if one["rule_id"] == "s3-audit-retention")
        assert (retention["outcome"], retention["found"]) == ("failed", "no default retention")
        shipping.write(events[2:])
        run(command)
        (found,) = (
            one for one in json.loads(capfd.readouterr().out)["findings"] if one["rule_id"] == "audit-log-shipped"
        )
        assert (found["outcome"], found["found"]) == ("passed", "2 segments with 4 records, all locked")
        (tmp_path / "d.json").write_text(json.dumps({"buckets": ["clinic"]}))
        assert run(command) == 2
        (tmp_path / "d.json").write_text(json.dumps({"buckets": [{"name": "nowhere-audit", "audit": True}]}))
        run(command)
        found = json.loads(capfd.readouterr().out)["findings"][-1]
        assert (found["rule_id"], found["outcome"]) == ("audit-log-shipped", "could not check")
