"""open(): encrypted objects as Python files."""

from __future__ import annotations

import copy
import gc
import io
import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from support.messages import WRAPPING_KEY
from support.s3_support import WatchedS3, flip

from phicrypt import PhiCrypt, RawAesKeyring
from phicrypt.audit.sinks.memory import RecordingSink
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    FormatError,
    PhiCryptError,
    UnsupportedOperationError,
)
from phicrypt.s3.client import S3Client
from phicrypt.s3.file_objects import S3Writer

FRAME = 128 * 1024
PART = 5 * 1024**2


def test_reading_is_seekable_and_fetches_only_the_frames_it_needs(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    data = random.Random(1).randbytes(100 * FRAME)
    watched = WatchedS3(raw)
    s3 = client_of(raw=watched)
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    watched.reset()
    with s3.open(f"s3://{bucket}/k", "rb") as file:
        file.seek(50 * FRAME + 5)
        assert file.read(10) == data[50 * FRAME + 5 : 50 * FRAME + 15]
        assert watched.body_bytes < 3 * FRAME
        assert file.tell() == 50 * FRAME + 15
        assert file.seek(-7, io.SEEK_END) == len(data) - 7
        assert file.read() == data[-7:]
        assert file.read() == b""
        file.seek(0)
        assert file.read() == data
        assert file.seekable()
        assert file.readable()
        assert not file.writable()


def test_sequential_reading_reads_ahead(client_of: Callable[..., S3Client], raw: Any, bucket: str) -> None:
    data = random.Random(1).randbytes(200 * FRAME)
    watched = WatchedS3(raw)
    s3 = client_of(raw=watched)
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    watched.reset()
    with s3.open(f"s3://{bucket}/k") as file:
        assert b"".join(iter(lambda: file.read(10_000), b"")) == data
    assert len(watched.calls) < 20


def test_random_seeks_and_reads_are_those_of_a_file(s3: S3Client, bucket: str) -> None:
    generator = random.Random(7)
    data = generator.randbytes(5 * FRAME + 11)
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    plain = io.BytesIO(data)
    with s3.open(f"s3://{bucket}/k") as file:
        for _ in range(200):
            offset, size = generator.randrange(len(data) + 10), generator.randrange(2 * FRAME)
            assert file.seek(offset) == plain.seek(offset)
            assert file.read(size) == plain.read(size)
        with pytest.raises(ValueError, match="before"):
            file.seek(-1)


def test_an_empty_object_reads_as_an_empty_file(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    with s3.open(f"s3://{bucket}/k") as file:
        assert file.read() == b""
        assert file.seek(0, io.SEEK_END) == 0


def test_libraries_read_archives_in_place(s3: S3Client, bucket: str) -> None:
    with s3.open(f"s3://{bucket}/study.zip", "wb") as file, zipfile.ZipFile(file, "w") as archive:
        for number in range(20):
            archive.writestr(f"slice-{number}", bytes([number]) * 100_000)
    with s3.open(f"s3://{bucket}/study.zip") as file, zipfile.ZipFile(file) as archive:
        assert archive.read("slice-13") == bytes([13]) * 100_000


def test_rule_10_the_end_of_a_file_is_verified_before_it_is_told(s3: S3Client, raw: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"d" * (3 * FRAME))
    stored = raw.get_object(Bucket=bucket, Key="k")
    body, metadata = stored["Body"].read(), stored["Metadata"]
    header = int(metadata["phicrypt-header-length"])
    cut = body[: header + FRAME + 32 + 40 + 100]
    raw.put_object(Bucket=bucket, Key="k", Body=cut, Metadata=metadata)
    claimed = FRAME + 100
    with s3.open(f"s3://{bucket}/k") as file:
        assert file.read(10) == b"d" * 10
        with pytest.raises((AuthenticationError, FormatError)):
            file.seek(0, io.SEEK_END)
        file.seek(claimed + 5)
        with pytest.raises((AuthenticationError, FormatError)):
            file.read(1)
        file.seek(FRAME - 10)
        with pytest.raises((AuthenticationError, FormatError)):
            file.read()


def test_changed_frames_are_refused_where_they_are_read(s3: S3Client, raw: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"d" * (3 * FRAME))
    stored = raw.get_object(Bucket=bucket, Key="k")
    body = stored["Body"].read()
    raw.put_object(Bucket=bucket, Key="k", Body=flip(body, len(body) // 2), Metadata=stored["Metadata"])
    with s3.open(f"s3://{bucket}/k") as file:
        assert file.read(100) == b"d" * 100
        file.seek(FRAME + 5)
        with pytest.raises(AuthenticationError):
            file.read(1)


def test_an_object_that_is_replaced_while_it_is_read_is_refused(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"a" * (3 * FRAME))
    with s3.open(f"s3://{bucket}/k") as file:
        file.read(1)
        s3.put_object(Bucket=bucket, Key="k", Body=b"b" * (3 * FRAME))
        file.seek(2 * FRAME)
        with pytest.raises(ClientError, match="PreconditionFailed"):
            file.read(1)


@pytest.mark.parametrize("length", [0, 1, FRAME, 2 * PART, 2 * PART + 3])
def test_writing_makes_the_object_at_close(
    client_of: Callable[..., S3Client], raw: Any, bucket: str, length: int
) -> None:
    s3 = client_of(part_size_bytes=PART)
    data = random.Random(length).randbytes(length)
    with s3.open(f"s3://{bucket}/k", "wb", extra_args={"Metadata": {"m": "ct"}}) as file:
        for start in range(0, length, 100_003):
            assert file.write(data[start : start + 100_003]) == len(data[start : start + 100_003])
        assert file.tell() == length
        assert "Contents" not in raw.list_objects_v2(Bucket=bucket)
    assert file.response["ETag"]
    response = s3.get_object(Bucket=bucket, Key="k")
    assert response["Body"].read() == data
    assert response["Metadata"] == {"m": "ct"}
    assert "Uploads" not in raw.list_multipart_uploads(Bucket=bucket)


def test_an_exception_in_the_block_aborts_the_upload(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    s3 = client_of(part_size_bytes=PART)
    for length in (10, 3 * PART):
        with pytest.raises(RuntimeError), s3.open(f"s3://{bucket}/k", "wb") as file:
            file.write(bytes(length))
            raise RuntimeError("the program failed")
        assert file.closed
    file = s3.open(f"s3://{bucket}/k", "wb")
    file.write(bytes(2 * PART))
    del file
    gc.collect()
    assert "Contents" not in raw.list_objects_v2(Bucket=bucket)
    assert "Uploads" not in raw.list_multipart_uploads(Bucket=bucket)


def test_an_exception_aborts_the_upload_under_a_wrapper_that_closes_it(
    s3: S3Client, raw: Any, bucket: str
) -> None:
    def write(text: str, failure: Exception | None) -> None:
        with s3.open(f"s3://{bucket}/k", "wb") as file, io.TextIOWrapper(file, encoding="utf-8") as lines:
            lines.write(text)
            if failure is not None:
                raise failure

    with pytest.raises(RuntimeError):
        write("the first half", RuntimeError("the program failed"))
    assert "Contents" not in raw.list_objects_v2(Bucket=bucket)
    try:
        raise KeyError("something that is handled")
    except KeyError:
        write("all of it", None)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"all of it"


def test_a_failed_upload_fails_the_write_or_the_close(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    def fail(operation: str, parameters: dict[str, Any]) -> None:
        if operation in ("upload_part", "put_object"):
            raise EndpointConnectionError(endpoint_url="http://localhost")

    s3 = client_of(part_size_bytes=PART, raw=WatchedS3(raw, fail))
    with pytest.raises(EndpointConnectionError), s3.open(f"s3://{bucket}/k", "wb") as file:
        file.write(b"x")
    with pytest.raises(EndpointConnectionError), s3.open(f"s3://{bucket}/k", "wb") as file:
        for _ in range(100):
            file.write(bytes(1024**2))
    assert "Contents" not in raw.list_objects_v2(Bucket=bucket)


def test_what_is_refused_is_refused_at_open(s3: S3Client, client_of: Callable[..., S3Client], bucket: str) -> None:
    mode: Any
    for name, mode in (("http://x/y", "rb"), ("s3://b", "rb"), ("s3://b/", "wb"), ("s3://b/k", "r+b")):
        with pytest.raises(ConfigurationError):
            s3.open(name, mode)
    with pytest.raises(PhiCryptError):
        s3.open(f"s3://{bucket}/k", "wb", context={"contact": "jane@example.org"})
    with pytest.raises(ConfigurationError):
        s3.open(f"s3://{bucket}/k", "rb", extra_args={"Range": "bytes=0-1"})
    with pytest.raises(PhiCryptError):
        s3.open(f"s3://{bucket}/k", "wb", extra_args={"Metadata": {"contact": "jane@example.org"}})
    signed = client_of(signed=True)
    signed.put_object(Bucket=bucket, Key="k", Body=b"x")
    with pytest.raises(UnsupportedOperationError, match="signed"):
        signed.open(f"s3://{bucket}/k")


def test_rule_01_file_objects_belong_to_their_process_and_cannot_be_copied(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 10)
    reader = s3.open(f"s3://{bucket}/k")
    writer = s3.open(f"s3://{bucket}/w", "wb")
    for held in (reader, writer, reader.raw, s3):
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                attempt(held)
    child = os.fork()
    if child == 0:
        refused = 0
        for act in (lambda: reader.read(1), lambda: writer.write(b"x"), writer.close):
            try:
                act()
            except UnsupportedOperationError:
                refused += 1
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    writer.write(b"still fine")
    writer.close()
    assert s3.get_object(Bucket=bucket, Key="w")["Body"].read() == b"still fine"
    assert json.dumps(reader.read().decode()) == json.dumps("x" * 10)


def test_rule_20_a_file_that_did_not_verify_ends_as_failed(raw: Any, bucket: str) -> None:
    sink = RecordingSink()
    s3 = PhiCrypt(RawAesKeyring("clinic", "key-1", WRAPPING_KEY), audit=[sink]).s3(raw)
    s3.put_object(Bucket=bucket, Key="k", Body=random.Random(5).randbytes(3 * FRAME))
    stored = raw.get_object(Bucket=bucket, Key="k")
    changed = flip(stored["Body"].read(), 2 * FRAME)
    raw.put_object(Bucket=bucket, Key="k", Body=changed, Metadata=stored["Metadata"])
    s3._s3_session.phi_session.trail.flush()
    sink.events.clear()
    with s3.open(f"s3://{bucket}/k", "rb") as file:
        with pytest.raises(AuthenticationError):
            file.read()
        file.seek(0)
        assert len(file.read(10)) == 10
    assert [(event.kind, event.outcome) for event in sink.events] == [("begin", "begun"), ("end", "failed")]


def test_an_interrupted_write_leaves_no_object(
    monkeypatch: pytest.MonkeyPatch, client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    file = client_of().open(f"s3://{bucket}/k", "wb")
    put = S3Writer._put

    def interrupted(self: S3Writer, piece: Any) -> None:
        put(self, piece)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(S3Writer, "_put", interrupted)
        file.write(bytes(256 * 1024))
    with pytest.raises(KeyboardInterrupt):
        file.write(b"more")
    with pytest.raises(KeyboardInterrupt):
        file.close()
    with pytest.raises(ClientError):
        raw.head_object(Bucket=bucket, Key="k")


@pytest.mark.parametrize(
    "failure", [EndpointConnectionError(endpoint_url="http://localhost"), KeyboardInterrupt()]
)
def test_a_read_that_failed_leaves_no_gap_behind(
    raw: Any, client_of: Callable[..., S3Client], bucket: str, failure: BaseException
) -> None:
    """The buffered reader drops what it had already read for the call that failed."""
    data = random.Random(9).randbytes(20 * FRAME)
    client_of().put_object(Bucket=bucket, Key="k", Body=data)
    requests_left = [3]

    def fail(operation: str, parameters: Any) -> None:
        requests_left[0] -= operation == "get_object"
        if requests_left[0] == 0:
            raise failure

    with client_of(raw=WatchedS3(raw, fail)).open(f"s3://{bucket}/k") as file:
        with pytest.raises(type(failure)):
            file.read(16 * FRAME)
        with pytest.raises(type(failure)):
            file.read(1)
        assert file.seek(0) == 0
        assert file.read() == data
