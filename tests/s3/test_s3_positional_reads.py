"""``read_at``: verified plaintext by place, from many threads, with no position that they share."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.forks import in_child
from support.s3_support import WatchedS3, flip

from phicrypt import PhiCrypt, RawAesKeyring
from phicrypt.audit.sinks.memory import RecordingSink
from phicrypt.audit.uses import Use
from phicrypt.errors import AuthenticationError, FormatError, PhiCryptError, UnsupportedOperationError
from phicrypt.formats.esdk.frames import FramedLayout, layout_of_body
from phicrypt.s3.client import S3Client

FRAME = 128 * 1024
SMALL = 64


@pytest.fixture
def small(client_of: Callable[..., S3Client]) -> S3Client:
    return client_of(frame_length_bytes=SMALL)


def stored_layout(raw: Any, bucket: str, frame_length: int) -> tuple[bytes, dict[str, str], FramedLayout]:
    stored = raw.get_object(Bucket=bucket, Key="k")
    body, metadata = stored["Body"].read(), stored["Metadata"]
    header_length = int(metadata["phicrypt-header-length"])
    return body, metadata, layout_of_body(len(body) - header_length, frame_length, header_length)


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL, SMALL + 1, 5 * SMALL, 5 * SMALL + 11])
def test_reads_by_place_are_slices(small: S3Client, bucket: str, size: int) -> None:
    generator = random.Random(size)
    data = generator.randbytes(size)
    small.put_object(Bucket=bucket, Key="k", Body=data)
    with small.open(f"s3://{bucket}/k") as file:
        for _ in range(20):
            offset, length = generator.randrange(size + 10), generator.randrange(3 * SMALL)
            assert file.read_at(offset, length) == data[offset : offset + length]
        assert file.read_at(0, size) == file.read_at(0, 2**40) == data
        assert file.read_at(size, 1) == file.read_at(2**40, 10) == file.read_at(0, 0) == b""


def test_rule_43_sixteen_threads_share_no_position(s3: S3Client, bucket: str) -> None:
    data = random.Random(16).randbytes(20 * FRAME + 77)
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    with s3.open(f"s3://{bucket}/k") as file:
        assert file.read(10) == data[:10]

        def read(seed: int) -> None:
            generator = random.Random(seed)
            for _ in range(6):
                offset, length = generator.randrange(len(data)), generator.randrange(1, 2 * FRAME)
                assert file.read_at(offset, length) == data[offset : offset + length]

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(read, range(16)))
        assert file.tell() == 10
        assert file.read(10) == data[10:20]


def test_rule_43_a_changed_bit_of_any_fetched_frame_is_refused(small: S3Client, raw: Any, bucket: str) -> None:
    data = random.Random(2).randbytes(5 * SMALL + 9)
    small.put_object(Bucket=bucket, Key="k", Body=data)
    body, metadata, layout = stored_layout(raw, bucket, SMALL)
    touched, final = layout.frames_span(2, 3), layout.frames_span(layout.final_number, layout.final_number)
    for index in [*range(touched.start, touched.end, 7), touched.end - 1]:
        raw.put_object(Bucket=bucket, Key="k", Body=flip(body, index), Metadata=metadata)
        with small.open(f"s3://{bucket}/k") as file:
            with pytest.raises((AuthenticationError, FormatError)):
                file.read_at(SMALL + 1, SMALL)
            assert file.read_at(0, SMALL) == data[:SMALL]
    for index in [*range(final.start, final.end, 5), final.end - 1]:
        raw.put_object(Bucket=bucket, Key="k", Body=flip(body, index), Metadata=metadata)
        with small.open(f"s3://{bucket}/k") as file:
            for offset, length in ((len(data) - 1, 1), (0, len(data) + 1), (len(data), 1), (2 * len(data), 5)):
                with pytest.raises((AuthenticationError, FormatError)):
                    file.read_at(offset, length)


def test_rule_43_the_total_is_a_claim_until_the_final_frame_was_verified(
    small: S3Client, raw: Any, bucket: str
) -> None:
    data = random.Random(3).randbytes(1_000)
    small.put_object(Bucket=bucket, Key="k", Body=data)
    body, metadata, layout = stored_layout(raw, bucket, SMALL)
    for cut in range(layout.frame_offset(3) + 40, len(body) - 1, 31):
        raw.put_object(Bucket=bucket, Key="k", Body=body[:cut], Metadata=metadata)
        try:
            file = small.open(f"s3://{bucket}/k")
        except FormatError:
            continue  # no frames have this length
        with file:
            assert file.read_at(0, 2 * SMALL) == data[: 2 * SMALL]
            for offset, length in ((0, 10_000), (cut, 1), (2**40, 1)):
                with pytest.raises((AuthenticationError, FormatError)):
                    file.read_at(offset, length)


def test_a_read_by_place_fetches_its_frames_only(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    watched = WatchedS3(raw)
    s3 = client_of(raw=watched)
    s3.put_object(Bucket=bucket, Key="k", Body=bytes(30 * FRAME))
    with s3.open(f"s3://{bucket}/k") as file:
        watched.reset()
        file.read_at(10 * FRAME + 5, FRAME)
        assert watched.operations() == ["get_object"]
        assert watched.body_bytes == 2 * (FRAME + 32)
        watched.reset()
        file.read_at(29 * FRAME + 5, FRAME)
        assert watched.operations() == ["get_object"]


def test_rule_10_reads_by_place_are_pinned_to_one_version(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"a" * (3 * FRAME))
    with s3.open(f"s3://{bucket}/k") as file:
        assert file.read_at(0, 1) == b"a"
        s3.put_object(Bucket=bucket, Key="k", Body=b"b" * (3 * FRAME))
        with pytest.raises(ClientError) as failure:
            file.read_at(FRAME, 1)
    assert failure.value.response["Error"]["Code"] == "PreconditionFailed"


def test_signed_objects_have_no_places(client_of: Callable[..., S3Client], bucket: str) -> None:
    signed = client_of(signed=True)
    signed.put_object(Bucket=bucket, Key="k", Body=b"x")
    with pytest.raises(UnsupportedOperationError, match="whole object"):
        signed.open(f"s3://{bucket}/k")


def test_wrong_places_and_closed_files_are_refused(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    file = s3.open(f"s3://{bucket}/k")
    for offset, length in ((-1, 1), (0, -1)):
        with pytest.raises(ValueError, match="not negative"):
            file.read_at(offset, length)
    with pytest.raises(TypeError):
        file.read_at(0.5, 1)  # type: ignore[arg-type]
    file.close()
    with pytest.raises(ValueError, match="closed"):
        file.read_at(0, 1)


def test_rule_01_a_read_by_place_after_a_fork_is_refused(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with s3.open(f"s3://{bucket}/k") as file:

        def read() -> str:
            try:
                file.read_at(0, 1)
            except UnsupportedOperationError:
                return "refused"
            return "read"

        assert in_child(read) == "refused"


def test_rule_20_reads_by_place_are_counted_and_a_failed_one_ends_the_use_as_failed(raw: Any, bucket: str) -> None:
    sink = RecordingSink()
    phi = PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(range(32))), audit=[sink])
    s3 = phi.s3(raw, frame_length_bytes=SMALL)
    s3.put_object(Bucket=bucket, Key="k", Body=bytes(10 * SMALL))
    phi.flush()
    sink.events.clear()
    with s3.open(f"s3://{bucket}/k") as file, ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: file.read_at(number % 10 * SMALL, SMALL), range(160)))
    assert [event.outcome for event in sink.events] == ["begun", "success"]
    assert sink.events[-1].byte_count == 160 * SMALL
    body, metadata, layout = stored_layout(raw, bucket, SMALL)
    raw.put_object(Bucket=bucket, Key="k", Body=flip(body, layout.frame_offset(2) + 20), Metadata=metadata)
    sink.events.clear()
    with s3.open(f"s3://{bucket}/k") as file:
        with pytest.raises(PhiCryptError):
            file.read_at(SMALL, 1)
        assert file.read_at(0, 1) == b"\0"
    assert [event.outcome for event in sink.events] == ["begun", "failed"]


def test_a_file_is_still_a_buffered_reader(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"one\ntwo\n")
    with s3.open(f"s3://{bucket}/k") as file:
        assert isinstance(file, io.BufferedReader)
        assert list(file) == [b"one\n", b"two\n"]


def test_rule_20_bytes_by_place_and_by_position_are_counted_one_after_the_other(
    s3: S3Client, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"one\ntwo\n")
    counting, begun, at_once = threading.Lock(), threading.Event(), threading.Event()

    def count(use: Use, byte_count: int) -> None:
        if not counting.acquire(blocking=False):
            at_once.set()  # a sum of two threads would lose one of them
            return
        begun.set()
        at_once.wait(0.3)
        counting.release()

    monkeypatch.setattr(Use, "count", count)
    with s3.open(f"s3://{bucket}/k") as file, ThreadPoolExecutor(2) as pool:
        by_place = pool.submit(file.read_at, 0, 3)
        assert begun.wait(10)
        by_position = pool.submit(file.read, 3)
        assert by_place.result(10) == by_position.result(10) == b"one"
    assert not at_once.is_set()
