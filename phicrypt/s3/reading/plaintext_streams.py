"""Plaintext from stored frames: runs of frames, and the binary streams that boto3 hands out."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from phicrypt.core.materials import KeyHolder
from phicrypt.core.memory import bytes_to_fill
from phicrypt.core.streams import OneThread
from phicrypt.errors import FormatError
from phicrypt.formats.esdk.frames import FrameCipher, FramedLayout, frames_in_run
from phicrypt.messages.stream_uses import StreamUse
from phicrypt.s3.reading.frame_spans import final_number, frames_span

T = TypeVar("T")

_RUNS_WORTH_A_THREAD: Final = 4
"""Fewer runs of frames are read and opened sooner than a thread is started."""


class FrameRun(KeyHolder):
    """Frames ``first`` to ``last`` of an unsigned message, from a stream of their ciphertext.

    The plaintext of a frame is given out after its tag was verified, that of the last frame after
    the stream has ended as well.
    """

    __slots__ = ("_cipher", "_final", "_frame_length", "_last", "_layout", "_next", "_stream")

    def __init__(self, stream: Any, cipher: FrameCipher, layout: FramedLayout, first: int, last: int) -> None:
        self._stream = stream
        self._cipher = cipher
        self._layout = layout
        self._frame_length = layout.frame_length_bytes
        self._final = final_number(layout)
        self._next = first
        self._last = last

    def next_length(self) -> int:
        """Plaintext bytes of the next frame; -1 after the last."""
        if self._next > self._last:
            return -1
        return self._frame_length if self._next < self._final else self._layout.final_length_bytes

    def open_into(self, output: memoryview, *, overlapped: bool = False) -> int:
        """Verify the next frames, as many as ``output`` has room for, and write their plaintext.

        Returns its length. There is room for the next frame at least. The final frame is opened by
        itself. On failure the output holds nothing unverified. ``overlapped`` lets a thread open much
        at once, for a caller who is not one of several threads already.
        """
        if self._next == self._final:
            return self._open_final_into(output)
        regular_left = min(self._last, self._final - 1) - self._next + 1
        count = min(regular_left, len(output) // self._frame_length)
        if not overlapped or count < _RUNS_WORTH_A_THREAD * frames_in_run(self._frame_length):
            return self._open_regular_into(output, count, None)
        # Much at once waits for the network, for the cipher, and for the kernel to find memory for the
        # plaintext. On a fast network the last two take as long as the first, so another thread does
        # them, one run of frames behind.
        with ThreadPoolExecutor(1, thread_name_prefix="phicrypt-frames") as opener:
            return self._open_regular_into(output, count, opener)

    def _open_regular_into(self, output: memoryview, count: int, opener: Executor | None) -> int:
        opening: Future[None] | None = None
        position = 0
        while count:
            number, frames = self._next, min(count, frames_in_run(self._frame_length))
            ciphertext = self._take(frames_span(self._layout, number, number + frames - 1).length)
            self._next += frames
            if self._next > self._last:
                self._check_end()
            if opening is not None:
                opening.result()
            if opener is None:
                self._cipher.open_regular_frames_into(number, ciphertext, output[position:])
            else:
                opening = opener.submit(
                    self._cipher.open_regular_frames_into, number, ciphertext, output[position:]
                )
            position += frames * self._frame_length
            count -= frames
        if opening is not None:
            opening.result()
        return position

    def _open_final_into(self, output: memoryview) -> int:
        length = self._layout.final_length_bytes
        frame = self._take(frames_span(self._layout, self._final, self._final).length)
        self._check_end()
        self._cipher.open_final_into(self._final, frame, output[:length])
        self._next += 1
        return length

    def _check_end(self) -> None:
        if self._stream.read(1):
            raise FormatError("bytes follow the last frame", field="message body")

    def close(self) -> None:
        """Let go of the connection."""
        self._stream.close()

    def _take(self, length_bytes: int) -> memoryview:
        """The next ciphertext bytes. A socket may give fewer than asked; S3 never fewer than it announced."""
        piece = self._stream.read(length_bytes)
        if len(piece) == length_bytes:
            return memoryview(piece)
        pieces = [piece]
        missing = length_bytes - len(piece)
        while missing and piece:
            piece = self._stream.read(missing)
            pieces.append(piece)
            missing -= len(piece)
        if missing:
            raise FormatError("the stored object ends inside a frame", field="message body")
        return memoryview(b"".join(pieces))


class PlaintextStream(KeyHolder, io.RawIOBase):
    """Base of the raw streams behind ``response["Body"]``. A failure is final and repeats itself.

    ``read(n)`` gives n bytes unless the end comes first, as botocore's streams do.
    """

    def __init__(self, use: StreamUse) -> None:
        self._use = use
        self._one_thread = OneThread()
        self._failure: BaseException | None = None
        self._released = 0
        self._ended = False

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._released

    def readinto(self, buffer: Any, /) -> int:
        return self._guarded(lambda: self._fill(memoryview(buffer).cast("B")), lambda count: count)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return self.readall()
        return self._guarded(lambda: self._read(size), len)

    def readall(self) -> bytes:
        return self._guarded(self._read_all, len)

    def close(self) -> None:
        if not self.closed:
            # Leaving early is allowed, as with boto3: what was given out has been verified.
            try:
                if self._failure is None:
                    self._use.end()
            finally:
                self._release()
                super().close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._release()
            super().close()

    def _guarded(self, step: Callable[[], T], length_of: Callable[[T], int]) -> T:
        return self._one_thread.run(lambda: self._counted(step, length_of), self._fail)

    def _counted(self, step: Callable[[], T], length_of: Callable[[T], int]) -> T:
        if self.closed:
            raise ValueError("I/O operation on a closed stream")
        if self._failure is not None:
            # The end of the data must never be mistaken for the end of the object.
            raise self._failure
        result = step()
        self._released += length_of(result)
        self._use.count(length_of(result))
        if self._ended:
            self._use.end()
        return result

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._use.end(error)

    def _read(self, size: int) -> bytes:
        buffer = bytes_to_fill(min(size, self._at_most()))
        with buffer.getbuffer() as view:
            count = self._fill(view)
        data = buffer.getvalue()
        return data if count == len(data) else data[:count]

    def _read_all(self) -> bytes:
        raise NotImplementedError

    def _at_most(self) -> int:
        """A bound on what is left."""
        raise NotImplementedError

    def _fill(self, view: memoryview) -> int:
        """Write the next plaintext; fewer bytes than asked only at the end."""
        raise NotImplementedError

    def _release(self) -> None:
        """Let go of keys, buffers and the connection."""
        raise NotImplementedError


class FramesStream(PlaintextStream):
    """The plaintext of a run of frames, without the first ``skip`` bytes, cut after ``length`` bytes.

    ``tail`` is plaintext that was verified before and follows the run's.
    """

    def __init__(self, run: FrameRun | None, use: StreamUse, *, skip: int, length: int, tail: bytes = b"") -> None:
        super().__init__(use)
        self._run = run
        self._skip = skip
        self._left = length
        self._tail = tail
        self._piece = memoryview(b"")
        self._buffer = bytearray()

    def _at_most(self) -> int:
        return self._left

    def _read_all(self) -> bytes:
        data = self._read(self._left)
        self._finish()
        return data

    def _fill(self, view: memoryview) -> int:
        view = view[: self._left]
        filled = 0
        while filled < len(view):
            if not len(self._piece) and self._opens_straight(view[filled:]):
                assert self._run is not None
                filled += self._run.open_into(view[filled:], overlapped=True)
                continue
            if not len(self._piece):
                self._next_piece()
            count = min(len(self._piece), len(view) - filled)
            view[filled : filled + count] = self._piece[:count]
            self._piece = self._piece[count:]
            filled += count
        self._left -= filled
        if not self._left:
            self._finish()
        return filled

    def _opens_straight(self, room: memoryview) -> bool:
        """Whether the next frame can be opened into the caller's own buffer, without a copy."""
        return self._run is not None and not self._skip and 0 < self._run.next_length() <= len(room)

    def _next_piece(self) -> None:
        if self._run is None or self._run.next_length() < 0:
            self._piece, self._tail = memoryview(self._tail), b""
            if not len(self._piece):
                raise FormatError("the frames hold fewer bytes than announced", field="message body")
            return
        length = self._run.next_length()
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        opened = memoryview(self._buffer)[:length]
        self._run.open_into(opened)
        self._piece, self._skip = opened[self._skip :], 0

    def _finish(self) -> None:
        """At the end of what was asked for: an empty final frame still stands to be verified."""
        if not self._ended:
            if self._run is not None and self._run.next_length() == 0:
                self._run.open_into(memoryview(bytearray()))
            self._ended = True
            self._release()

    def _release(self) -> None:
        if self._run is not None:
            self._run.close()
        self._run = None
        self._piece, self._tail, self._buffer = memoryview(b""), b"", bytearray()


class PiecesStream(PlaintextStream):
    """Plaintext from an iterator of verified pieces, for bodies that are read in order only."""

    def __init__(
        self, pieces: Iterator[bytes | memoryview], use: StreamUse, *, length: int, close: Callable[[], None]
    ) -> None:
        super().__init__(use)
        self._pieces: Iterator[bytes | memoryview] | None = pieces
        self._piece = memoryview(b"")
        self._length = length
        self._close = close

    def _at_most(self) -> int:
        return max(self._length - self._released, 1)

    def _read_all(self) -> bytes:
        pieces = [bytes(self._piece)]
        self._piece = memoryview(b"")
        while (piece := self._next()) is not None:
            pieces.append(bytes(piece))
        return b"".join(pieces)

    def _fill(self, view: memoryview) -> int:
        filled = 0
        while filled < len(view):
            if not len(self._piece):
                piece = self._next()
                if piece is None:
                    break
                self._piece = memoryview(piece)
            count = min(len(self._piece), len(view) - filled)
            view[filled : filled + count] = self._piece[:count]
            self._piece = self._piece[count:]
            filled += count
        return filled

    def _next(self) -> bytes | memoryview | None:
        piece = next(self._pieces, None) if self._pieces is not None else None
        if piece is None and not self._ended:
            self._ended = True
            self._release()
        return piece

    def _release(self) -> None:
        self._pieces = None
        self._piece = memoryview(b"")
        self._close()
