"""Streams work in runs of frames: every length around a run's end, sources that give little, moved leftovers."""

from __future__ import annotations

import contextlib
import io
import os
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.interrupts import Interrupted, interrupted_everywhere
from support.messages import CONTEXT, raw_client

from phicrypt.core.memory import FILE_BLOCK_BYTES, PAGE_BYTES, page_memory
from phicrypt.core.primitives import AESGCM
from phicrypt.core.streams import read_into
from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError, PhiCryptError
from phicrypt.formats.esdk import frames
from phicrypt.formats.esdk.frames import FINAL_OVERHEAD_BYTES, REGULAR_OVERHEAD_BYTES, FrameCipher, frames_in_run
from phicrypt.formats.reader import StreamReader

FRAME_LENGTH = 128 * 1024
RUN = frames_in_run(FRAME_LENGTH) * FRAME_LENGTH


class Sluggish(io.RawIOBase):
    """A file object that gives between one byte and what was asked."""

    def __init__(self, data: bytes, seed: int) -> None:
        self._data = io.BytesIO(data)
        self._chance = random.Random(seed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        wanted = self._chance.randint(1, len(buffer)) if len(buffer) else 0
        return self._data.readinto(memoryview(buffer)[:wanted])


def test_a_run_is_at_least_one_frame() -> None:
    assert frames_in_run(4_096) * 4_096 == RUN
    assert frames_in_run(16 * 1024**2) == 1
    assert frames_in_run(1) * (1 + REGULAR_OVERHEAD_BYTES) < RUN


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("runs", [1, 2, 3])
@pytest.mark.parametrize(
    "more",
    [-FRAME_LENGTH - 1, -FRAME_LENGTH, -1, 0, 1, PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1, FRAME_LENGTH + 1],
)
def test_streams_around_the_end_of_a_run_come_back(runs: int, more: int, signed: bool) -> None:
    phi = raw_client(frame_length_bytes=FRAME_LENGTH)
    plaintext = random.Random(runs).randbytes(runs * RUN + more)
    sealed, opened = io.BytesIO(), io.BytesIO()
    assert phi.encrypt_stream(io.BytesIO(plaintext), sealed, context=CONTEXT, signed=signed) == sealed.tell()
    message = sealed.getvalue()
    assert phi.decrypt(message, context=CONTEXT) == plaintext
    assert phi.decrypt_stream(io.BytesIO(message), opened, context=CONTEXT) == len(plaintext)
    assert opened.getvalue() == plaintext


@pytest.mark.parametrize("frame_length", [1, 3, PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1, 50_000])
@pytest.mark.parametrize("more", [-1, 0, 1, PAGE_BYTES])
def test_streams_of_frames_of_any_length_come_back(frame_length: int, more: int) -> None:
    phi = raw_client(frame_length_bytes=frame_length)
    plaintext = random.Random(more).randbytes(2 * frames_in_run(frame_length) * frame_length + more)
    sealed = io.BytesIO()
    phi.encrypt_stream(io.BytesIO(plaintext), sealed, context=CONTEXT)
    assert phi.decrypt(sealed.getvalue(), context=CONTEXT) == plaintext


@pytest.mark.parametrize("context", [CONTEXT, {"note": "x" * 30_000, "more": "x" * 30_000}])
def test_a_sealed_file_is_written_in_whole_blocks(context: dict[str, str]) -> None:
    class Sink(io.BytesIO):
        def write(self, data: Any, /) -> int:
            lengths.append(len(data))
            return super().write(data)

    lengths: list[int] = []
    phi, sink = raw_client(), Sink()
    plaintext = os.urandom(3 * RUN + PAGE_BYTES)
    phi.encrypt_stream(io.BytesIO(plaintext), sink, context=context)
    assert len(lengths) == 4
    assert not any(length % FILE_BLOCK_BYTES for length in lengths[:-1])
    assert phi.decrypt(sink.getvalue(), context=context) == plaintext


@given(length=st.integers(0, 3_000), frame_length=st.integers(1, 700), seed=st.integers(0, 9))
def test_sources_that_give_little_at_a_time_lose_nothing(length: int, frame_length: int, seed: int) -> None:
    phi = raw_client(frame_length_bytes=frame_length)
    plaintext = os.urandom(length)
    sealed, opened = io.BytesIO(), io.BytesIO()
    phi.encrypt_stream(Sluggish(plaintext, seed), sealed, context=CONTEXT)
    phi.decrypt_stream(Sluggish(sealed.getvalue(), seed), opened, context=CONTEXT)
    assert opened.getvalue() == plaintext == phi.decrypt(sealed.getvalue(), context=CONTEXT)


@pytest.mark.parametrize("frame", [1, 8, 9, 10])
def test_no_frame_behind_a_changed_one_is_released(frame: int) -> None:
    phi = raw_client(frame_length_bytes=FRAME_LENGTH)
    plaintext = os.urandom(RUN + 3 * FRAME_LENGTH)
    message = bytearray(phi.encrypt(plaintext, context=CONTEXT))
    header_length = phi.inspect(bytes(message)).header_length_bytes
    message[header_length + (frame - 1) * (FRAME_LENGTH + 32) + 100] ^= 1
    opened = io.BytesIO()
    with pytest.raises(PhiCryptError):
        phi.decrypt_stream(io.BytesIO(message), opened, context=CONTEXT)
    assert len(opened.getvalue()) <= (frame - 1) * FRAME_LENGTH
    assert plaintext.startswith(opened.getvalue())


@pytest.mark.parametrize("kind", ["regular", "final"])
def test_rule_06_an_interrupt_leaves_nothing_of_a_changed_frame_in_the_output(kind: str) -> None:
    cipher = FrameCipher(AESGCM(bytes(32)), bytes(32), 64)
    seal, open_into = {
        "regular": (cipher.seal_regular_frames_into, cipher.open_regular_frames_into),
        "final": (cipher.seal_final_into, cipher.open_final_into),
    }[kind]
    frame = memoryview(bytearray(64 + (REGULAR_OVERHEAD_BYTES if kind == "regular" else FINAL_OVERHEAD_BYTES)))
    seal(1, memoryview(b"x" * 64), frame)
    frame[-1] ^= 1

    def run(interrupted: Interrupted) -> None:
        output = memoryview(bytearray(64))
        with contextlib.suppress(AuthenticationError):
            interrupted(lambda: open_into(1, frame, output))
        assert bytes(output) == bytes(64)

    assert interrupted_everywhere(frames, run) > 3


@given(data=st.data(), seed=st.integers(0, 99), ahead=st.integers(1, 9_000))
def test_a_stream_reader_hands_out_the_sources_bytes_in_order(data: st.DataObject, seed: int, ahead: int) -> None:
    content = random.Random(seed).randbytes(30_000)
    reader, position = StreamReader(Sluggish(content, seed), read_ahead_bytes=ahead), 0
    for _ in range(data.draw(st.integers(1, 12))):
        step = data.draw(st.sampled_from(["take", "peek", "held", "read_ahead", "available"]))
        length = data.draw(st.integers(0, 7_000))
        rest = content[position:]
        if step == "read_ahead":
            reader.read_ahead(length + 1)
        elif step == "available":
            assert reader.available(length) == min(length, len(rest))
        elif length > len(rest):
            with pytest.raises(FormatError, match="ends here"):
                getattr(reader, step)(length, "field")
        else:
            got = bytes(getattr(reader, step)(length, "field"))
            assert rest.startswith(got)
            assert len(got) >= length if step == "held" else len(got) == length
            position += length if step == "take" else 0
        assert reader.offset == position


def test_read_into_fills_the_room_and_knows_the_end() -> None:
    room = memoryview(bytearray(10))
    source = Sluggish(b"0123456789abcde", 3)
    assert (read_into(source, room), bytes(room)) == (10, b"0123456789")
    assert (read_into(source, room), bytes(room[:5])) == (5, b"abcde")
    assert read_into(source, room) == 0


@pytest.mark.parametrize(("answer", "words"), [(None, "non-blocking"), (11, "returned 11"), (-1, "returned -1")])
def test_read_into_refuses_a_source_that_answers_nonsense(answer: int | None, words: str) -> None:
    class Source:
        def read(self, size: int = -1, /) -> bytes:
            raise AssertionError("readinto comes first")

        def readinto(self, buffer: object) -> int | None:
            return answer

    with pytest.raises(ConfigurationError, match=words):
        read_into(Source(), memoryview(bytearray(10)))


@pytest.mark.parametrize("length", [0, 1, 4_096, 65_535, 65_536, 65_537, 10 * PAGE_BYTES])
def test_page_memory_is_zeroed_writable_and_as_long_as_asked(length: int) -> None:
    memory = page_memory(length)
    assert bytes(memory) == bytes(length)
    memory[:] = b"\xff" * length
    assert len(memory[length // 2 :]) == length - length // 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_page_memory_is_not_shared_with_a_forked_child() -> None:
    memory = page_memory(1024 * 1024)
    memory[:6] = b"parent"
    child = os.fork()
    if child == 0:
        memory[:6] = b"child!"
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert bytes(memory[:6]) == b"parent"
