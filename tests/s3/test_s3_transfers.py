"""upload_*, download_*: parallel, in bounded memory, all or nothing."""

from __future__ import annotations

import io
import os
import random
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3.exceptions
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from support.s3_support import WatchedS3, flip

from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    NotEncryptedError,
    PhiCryptError,
    UnsupportedOperationError,
)
from phicrypt.s3 import transfer
from phicrypt.s3.client import S3Client

PART = 5 * 1024**2
LENGTHS = [0, 1, 128 * 1024, PART - 1, PART, PART + 1, 3 * PART + 17]


def random_bytes(length: int) -> bytes:
    return random.Random(length).randbytes(length)


@pytest.mark.parametrize("settings", [{}, {"signed": True}], ids=["unsigned", "signed"])
@pytest.mark.parametrize("length", LENGTHS)
def test_files_go_up_and_come_down(
    client_of: Callable[..., S3Client], bucket: str, tmp_path: Path, length: int, settings: dict[str, Any]
) -> None:
    s3 = client_of(part_size_bytes=PART, **settings)
    data = random_bytes(length)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    up: list[int] = []
    down: list[int] = []
    s3.upload_file(str(source), bucket, "k", ExtraArgs={"Metadata": {"modality": "ct"}}, Callback=up.append)
    s3.download_file(bucket, "k", str(target), Callback=down.append)
    assert target.read_bytes() == data
    assert (sum(up), sum(down)) == (length, length)
    assert s3.head_object(Bucket=bucket, Key="k")["Metadata"] == {"modality": "ct"}
    sink = io.BytesIO()
    s3.download_fileobj(bucket, "k", sink)
    assert sink.getvalue() == data
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("source", "target")] == []


def test_sources_need_read_only_and_sinks_write_only(client_of: Callable[..., S3Client], bucket: str) -> None:
    data = random_bytes(2 * PART + 3)

    class Source:
        def __init__(self) -> None:
            self.file = io.BytesIO(data)

        def read(self, size: int) -> bytes:
            return self.file.read(min(size, 77_777))

    class Sink:
        def __init__(self) -> None:
            self.pieces: list[bytes] = []

        def write(self, piece: bytes) -> None:
            self.pieces.append(piece)

    s3 = client_of(part_size_bytes=PART)
    s3.upload_fileobj(Source(), bucket, "k", Config=TransferConfig(max_concurrency=2))
    sink = Sink()
    s3.download_fileobj(bucket, "k", sink, Config=TransferConfig(use_threads=False))
    assert b"".join(sink.pieces) == data


def test_boto3s_transfer_config_sets_parts_and_concurrency(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    running: set[int] = set()
    most: list[int] = []
    lock = threading.Lock()

    def watch(operation: str, parameters: dict[str, Any]) -> None:
        if operation == "upload_part":
            with lock:
                running.add(threading.get_ident())
                most.append(len(running))

    watched = WatchedS3(raw, watch)
    s3 = client_of(raw=watched)
    config = TransferConfig(multipart_chunksize=6 * 1024**2 + 1, max_concurrency=3)
    s3.upload_fileobj(io.BytesIO(bytes(32 * 1024**2)), bucket, "k", Config=config)
    sizes = {len(parameters["Body"]) for name, parameters in watched.calls if name == "upload_part"}
    assert max(sizes) == 6 * 1024**2 + 128 * 1024
    assert 1 < max(most) <= 3


def test_parts_grow_so_that_no_source_is_too_long(client_of: Callable[..., S3Client]) -> None:
    sizes = [transfer._part_size(8 * 1024**2, number) for number in range(1, 10_001)]
    assert sizes[0] == 8 * 1024**2
    assert sum(sizes) > 5 * 1024**4
    assert max(sizes) <= 5 * 1024**3


def fail_at(operation_name: str, number: int) -> Callable[[str, dict[str, Any]], None]:
    def fail(operation: str, parameters: dict[str, Any]) -> None:
        if operation == operation_name and parameters.get("PartNumber", number) == number:
            raise EndpointConnectionError(endpoint_url="http://localhost")

    return fail


@pytest.mark.parametrize(
    ("operation", "number"), [("upload_part", 1), ("upload_part", 3), ("complete_multipart_upload", 0)]
)
def test_a_failed_upload_leaves_no_object_and_no_parts(
    client_of: Callable[..., S3Client], raw: Any, bucket: str, operation: str, number: int
) -> None:
    s3 = client_of(part_size_bytes=PART, raw=WatchedS3(raw, fail_at(operation, number)))
    with pytest.raises(EndpointConnectionError):
        s3.upload_fileobj(io.BytesIO(bytes(4 * PART)), bucket, "k")
    assert raw.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert "Uploads" not in raw.list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
def test_a_source_that_fails_leaves_no_object_and_no_parts(
    client_of: Callable[..., S3Client], raw: Any, bucket: str, error: BaseException
) -> None:
    class Source(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 3 * PART:
                raise error
            return super().read(size)

        readinto = None  # type: ignore[assignment]

    s3 = client_of(part_size_bytes=PART)
    with pytest.raises(type(error)):
        s3.upload_fileobj(Source(bytes(5 * PART)), bucket, "k")
    assert raw.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    assert "Uploads" not in raw.list_multipart_uploads(Bucket=bucket)


def test_an_upload_that_cannot_be_aborted_says_so(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    def fail(operation: str, parameters: dict[str, Any]) -> None:
        if operation in ("upload_part", "abort_multipart_upload"):
            raise EndpointConnectionError(endpoint_url="http://localhost")

    s3 = client_of(part_size_bytes=PART, raw=WatchedS3(raw, fail))
    with pytest.raises(EndpointConnectionError) as failure:
        s3.upload_fileobj(io.BytesIO(bytes(2 * PART)), bucket, "k")
    assert "abort-incomplete" in failure.value.__notes__[0]


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9, 1.0])
def test_a_failed_download_leaves_no_file(
    client_of: Callable[..., S3Client], raw: Any, bucket: str, tmp_path: Path, place: float
) -> None:
    s3 = client_of(part_size_bytes=PART)
    s3.upload_fileobj(io.BytesIO(random_bytes(3 * PART)), bucket, "k")
    stored = raw.get_object(Bucket=bucket, Key="k")
    body = stored["Body"].read()
    changed = flip(body, min(int(len(body) * place), len(body) - 1))
    raw.put_object(Bucket=bucket, Key="k", Body=changed, Metadata=stored["Metadata"])
    with pytest.raises(PhiCryptError):
        s3.download_file(bucket, "k", str(tmp_path / "target"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "target").write_bytes(b"old")
    with pytest.raises(PhiCryptError):
        s3.download_file(bucket, "k", str(tmp_path / "target"))
    assert (tmp_path / "target").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_broken_connections_of_a_download_are_retried(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    data = random_bytes(3 * PART)
    client_of(part_size_bytes=PART).upload_fileobj(io.BytesIO(data), bucket, "k")
    failures = [3]

    def break_some(operation: str, parameters: dict[str, Any]) -> None:
        if operation == "get_object" and "IfMatch" in parameters and failures[0]:
            failures[0] -= 1
            raise ReadTimeoutError(endpoint_url="http://localhost")

    sink = io.BytesIO()
    client_of(part_size_bytes=PART, raw=WatchedS3(raw, break_some)).download_fileobj(bucket, "k", sink)
    assert sink.getvalue() == data


def test_the_callers_own_timeout_ends_a_download_at_once(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    client_of(part_size_bytes=PART).upload_fileobj(io.BytesIO(bytes(3 * PART)), bucket, "k")
    failures = []

    def ring_the_alarm(operation: str, parameters: dict[str, Any]) -> None:
        if operation == "get_object" and "IfMatch" in parameters and not failures:
            failures.append(operation)
            raise TimeoutError("the caller's alarm")

    with pytest.raises(TimeoutError, match="alarm"):
        client_of(part_size_bytes=PART, raw=WatchedS3(raw, ring_the_alarm)).download_fileobj(
            bucket, "k", io.BytesIO()
        )


def test_a_sink_that_fails_stops_the_download(client_of: Callable[..., S3Client], bucket: str) -> None:
    class Full(io.RawIOBase):
        def write(self, piece: Any) -> int:
            raise OSError(28, "No space left on device")

    s3 = client_of(part_size_bytes=PART)
    s3.upload_fileobj(io.BytesIO(bytes(4 * PART)), bucket, "k")
    with pytest.raises(OSError, match="space"):
        s3.download_fileobj(bucket, "k", Full())


def test_errors_of_s3_are_boto3s(s3: S3Client, raw: Any, bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    with pytest.raises(boto3.exceptions.S3UploadFailedError, match="NoSuchBucket"):
        s3.upload_file(str(source), f"{bucket}-absent", "k")
    with pytest.raises(ClientError, match="NoSuchBucket"):
        s3.upload_fileobj(io.BytesIO(b"x"), f"{bucket}-absent", "k")
    with pytest.raises(s3.exceptions.NoSuchKey):
        s3.download_file(bucket, "absent", str(tmp_path / "target"))
    raw.put_object(Bucket=bucket, Key="plain", Body=b"plain")
    with pytest.raises(NotEncryptedError):
        s3.download_file(bucket, "plain", str(tmp_path / "target"))
    with pytest.raises(UnsupportedOperationError):
        s3.upload_fileobj(io.BytesIO(b"x"), bucket, "k", ExtraArgs={"ChecksumSHA256": "00"})
    with pytest.raises(ConfigurationError):
        s3.upload_fileobj(io.BytesIO(b"x"), bucket, "k", ExtraArgs={"Body": b"y"})
    with pytest.raises(ValueError, match="read"):
        s3.upload_fileobj(b"bytes are no file", bucket, "k")
    with pytest.raises(ValueError, match="write"):
        s3.download_fileobj(bucket, "k", "a name is no file")


def test_rule_31_downloaded_files_are_private_and_a_replaced_file_keeps_its_mode(
    s3: S3Client, bucket: str, tmp_path: Path
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    target = tmp_path / "target"
    target.touch(mode=0o640)
    target.chmod(0o640)
    s3.download_file(bucket, "k", str(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    s3.download_file(bucket, "k", str(tmp_path / "new"))
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    s3.download_file(bucket, "k", os.devnull)


def test_rule_02_botocore_receives_finished_ciphertext_only(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    """A body that botocore may read twice must give the same bytes twice: it is never a sealing reader."""
    bodies: list[Any] = []

    def watch(operation: str, parameters: dict[str, Any]) -> None:
        if "Body" in parameters:
            body = parameters["Body"]
            bodies.append(body)
            assert isinstance(body, bytes | bytearray | tempfile.SpooledTemporaryFile)
            if not isinstance(body, bytes | bytearray):
                first = body.read()
                body.seek(0)
                assert body.read() == first
                body.seek(0)

    s3 = client_of(part_size_bytes=PART, max_memory_bytes=1000, raw=WatchedS3(raw, watch))
    s3.put_object(Bucket=bucket, Key="a", Body=b"secret" * 100)
    s3.put_object(Bucket=bucket, Key="b", Body=b"secret" * 1_000)
    s3.put_object(Bucket=bucket, Key="c", Body=io.BufferedReader(io.BytesIO(b"secret" * 1_000)))
    s3.upload_fileobj(io.BytesIO(b"secret" * PART), bucket, "d")
    upload = {"Bucket": bucket, "Key": "e"}
    upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
    s3.upload_part(**upload, PartNumber=1, Body=(b"secret" * PART)[:PART])
    assert len(bodies) > 8
    for body in bodies:
        assert b"secret" not in (body if isinstance(body, bytes | bytearray) else b"")


def test_the_spool_of_a_large_put_holds_ciphertext_in_an_unlinked_file(
    client_of: Callable[..., S3Client], raw: Any, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[Any] = []

    def watch(operation: str, parameters: dict[str, Any]) -> None:
        if operation == "put_object":
            body = parameters["Body"]
            seen.append((list(tmp_path.iterdir()), os.fstat(body.fileno()), body.read()))
            body.seek(0)

    client_of(max_memory_bytes=10_000, raw=WatchedS3(raw, watch)).put_object(
        Bucket=bucket, Key="k", Body=b"secret" * 100_000
    )
    ((names, status, content),) = seen
    assert names == []
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert b"secret" not in content


def test_a_truncated_object_does_not_download(client_of: Callable[..., S3Client], raw: Any, bucket: str) -> None:
    s3 = client_of(part_size_bytes=PART)
    s3.upload_fileobj(io.BytesIO(random_bytes(3 * PART)), bucket, "k")
    stored = raw.get_object(Bucket=bucket, Key="k")
    body, metadata = stored["Body"].read(), stored["Metadata"]
    stride = 128 * 1024 + 32
    header = int(metadata["phicrypt-header-length"])
    for cut in (header + stride * 3, header + stride * 40, len(body) - 1):
        raw.put_object(Bucket=bucket, Key="k", Body=body[:cut], Metadata=metadata)
        with pytest.raises((AuthenticationError, PhiCryptError)):
            s3.download_fileobj(bucket, "k", io.BytesIO())
