"""Killed uploads and downloads leave neither a partial object nor a partial file.

``PHICRYPT_KILLS`` sets how many processes are killed (20 for acceptance).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support import s3_process

from phicrypt.core.output_file import offers_unnamed_files
from phicrypt.errors import ConfigurationError
from phicrypt.s3.client import S3Client
from phicrypt.s3.writing.incomplete_uploads import aborted_uploads, incomplete_uploads

KILLS = int(os.environ.get("PHICRYPT_KILLS", "6"))
ROOT = Path(__file__).parents[2]


def run_and_kill(arguments: list[str], after_seconds: float) -> bool:
    """Start the process, kill it ``after_seconds`` after it is ready; whether it was done before."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, s3_process.__file__, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(after_seconds)
        process.send_signal(signal.SIGKILL)
        return "done" in process.stdout.read()


def test_killed_uploads_leave_no_object_and_are_found(
    s3: S3Client, aws: Any, raw: Any, bucket: str, tmp_path: Path
) -> None:
    data = random.Random(3).randbytes(s3_process.LENGTH)
    source = tmp_path / "source"
    source.write_bytes(data)
    generator = random.Random(5)
    for attempt in range(KILLS):
        name = f"upload-{attempt}"
        done = run_and_kill([aws.endpoint_url, bucket, name, "upload", str(source)], generator.uniform(0, 0.5))
        time.sleep(0.2)
        try:
            stored = s3.get_object(Bucket=bucket, Key=name)["Body"].read()
        except ClientError as error:
            assert error.response["Error"]["Code"] == "NoSuchKey"
            assert not done
        else:
            assert stored == data
    left = incomplete_uploads(raw, bucket, "", older_than_seconds=0)
    assert len(left) == len(raw.list_multipart_uploads(Bucket=bucket).get("Uploads", []))
    assert aborted_uploads(raw, left) == left
    assert "Uploads" not in raw.list_multipart_uploads(Bucket=bucket)


def test_killed_downloads_leave_nothing_under_the_name(
    s3: S3Client, aws: Any, bucket: str, tmp_path: Path
) -> None:
    data = random.Random(4).randbytes(s3_process.LENGTH)
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    generator = random.Random(6)
    for attempt in range(KILLS):
        target = tmp_path / f"target-{attempt}"
        done = run_and_kill([aws.endpoint_url, bucket, "k", "download", str(target)], generator.uniform(0, 0.5))
        assert target.exists() or not done
        if target.exists():
            assert target.read_bytes() == data
    if offers_unnamed_files():
        assert all(path.name.startswith("target-") for path in tmp_path.iterdir())


def test_uploads_elsewhere_are_left_alone(raw: Any, bucket: str) -> None:
    for name in ("scans/a", "scans/b", "other"):
        raw.create_multipart_upload(Bucket=bucket, Key=name)
    found = incomplete_uploads(raw, bucket, "scans/", older_than_seconds=0)
    assert [upload.object_key for upload in found] == ["scans/a", "scans/b"]
    assert aborted_uploads(raw, found) == found
    assert not aborted_uploads(raw, found), "an upload that is gone already is not counted"
    assert [upload.object_key for upload in incomplete_uploads(raw, bucket, "", older_than_seconds=0)] == ["other"]
    with pytest.raises(ClientError):
        incomplete_uploads(raw, f"{bucket}-absent", "", older_than_seconds=0)


def test_abort_incomplete_of_a_client_aborts_what_the_command_would(s3: S3Client, raw: Any, bucket: str) -> None:
    for name in ("scans/jane-doe", "other"):
        raw.create_multipart_upload(Bucket=bucket, Key=name)
    found = s3.abort_incomplete(bucket, "scans/", older_than_seconds=0, dry_run=True)
    assert [upload.object_key for upload in found] == ["scans/jane-doe"]
    assert "jane" not in repr(found)
    assert len(raw.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 2, "a dry run changes nothing"
    assert s3.abort_incomplete(bucket, "scans/", older_than_seconds=0) == found
    assert [one["Key"] for one in raw.list_multipart_uploads(Bucket=bucket)["Uploads"]] == ["other"]
    assert s3.abort_incomplete(bucket, "scans/", older_than_seconds=0) == []
    with pytest.raises(ConfigurationError, match="older_than_seconds"):
        s3.abort_incomplete(bucket, older_than_seconds=-1)


def test_uploads_that_are_young_are_left_alone() -> None:
    """On pages of the documented shape: moto dates every upload 2010."""
    now = datetime.now(UTC)

    class Paginator:
        def paginate(self, **parameters: str) -> list[dict[str, Any]]:
            assert parameters == {"Bucket": "b", "Prefix": "p"}
            ages = {"new": timedelta(minutes=1), "old": timedelta(hours=2)}
            uploads = [{"Key": name, "UploadId": name, "Initiated": now - age} for name, age in ages.items()]
            return [{"Uploads": uploads}, {}]

    class S3:
        def get_paginator(self, operation_name: str) -> Paginator:
            assert operation_name == "list_multipart_uploads"
            return Paginator()

    found = incomplete_uploads(S3(), "b", "p", older_than_seconds=3600)
    assert [upload.upload_id for upload in found] == ["old"]
