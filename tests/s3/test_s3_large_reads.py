"""Much at once: frames are opened by a thread of their own while the next ones arrive."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from support.meddling import Meddler
from support.s3_support import flip

from phicrypt.errors import AuthenticationError, PhiCryptError, UnsupportedOperationError
from phicrypt.formats.esdk.frames import frames_in_run
from phicrypt.s3.client import S3Client
from phicrypt.s3.writing.sealing import HEADER_LENGTH_NAME

FRAME = 128 * 1024
RUN = frames_in_run(FRAME) * FRAME


def stored(raw: Any, bucket: str) -> tuple[bytes, int, dict[str, str]]:
    """The stored object, its header's length, and its metadata."""
    response = raw.get_object(Bucket=bucket, Key="scan")
    return response["Body"].read(), int(response["Metadata"][HEADER_LENGTH_NAME]), response["Metadata"]


@pytest.mark.parametrize("size", [4 * RUN - 1, 4 * RUN, 4 * RUN + 1, 5 * RUN + FRAME, 6 * RUN + 77])
def test_large_objects_come_back_whole_and_in_parts(s3: S3Client, bucket: str, size: int) -> None:
    content = random.Random(size).randbytes(size)
    s3.put_object(Bucket=bucket, Key="scan", Body=content)
    assert s3.get_object(Bucket=bucket, Key="scan")["Body"].read() == content
    body = s3.get_object(Bucket=bucket, Key="scan", Range="bytes=1000-")["Body"]
    assert body.read(4 * RUN + 5) + body.read() == content[1_000:]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("phicrypt-frames")]


@pytest.mark.parametrize("frame", [1, 9, 17, 40, 41])
def test_a_changed_frame_of_a_large_object_is_refused(s3: S3Client, raw: Any, bucket: str, frame: int) -> None:
    s3.put_object(Bucket=bucket, Key="scan", Body=bytes(5 * RUN + 77))
    message, header_length, metadata = stored(raw, bucket)
    changed = flip(message, header_length + (frame - 1) * (FRAME + 32) + 30)
    raw.put_object(Bucket=bucket, Key="scan", Body=changed, Metadata=metadata)
    body = s3.get_object(Bucket=bucket, Key="scan")["Body"]
    with pytest.raises(AuthenticationError):
        body.read()
    with pytest.raises(AuthenticationError):
        body.read(1)


def test_two_frames_of_a_large_object_that_changed_places_are_refused(s3: S3Client, raw: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="scan", Body=bytes(5 * RUN))
    message, header_length, metadata = stored(raw, bucket)
    stride = FRAME + 32
    frames = [message[header_length + at * stride : header_length + (at + 1) * stride] for at in range(12)]
    frames[3], frames[11] = frames[11], frames[3]
    moved = message[:header_length] + b"".join(frames) + message[header_length + 12 * stride :]
    raw.put_object(Bucket=bucket, Key="scan", Body=moved, Metadata=metadata)
    with pytest.raises(PhiCryptError, match="frame 4"):
        s3.get_object(Bucket=bucket, Key="scan")["Body"].read()


def test_rule_06_a_second_thread_is_given_nothing_while_frames_are_being_opened(s3: S3Client, bucket: str) -> None:
    content = random.Random(7).randbytes(3 * FRAME)
    s3.put_object(Bucket=bucket, Key="scan", Body=content)
    answered: Any = s3.get_object(Bucket=bucket, Key="scan")["Body"]
    body = answered._raw_stream
    body._run._stream = meddler = Meddler(body._run._stream, lambda: body.read(100))
    assert body.read(100) + body.read() == content
    assert {type(answer) for answer in meddler.answers} == {UnsupportedOperationError}
