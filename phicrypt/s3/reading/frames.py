"""The frames of one opened object: fetched by place, verified, and given out; nothing here knows metadata.

What follows from a stored length is a claim of whoever can write the bucket, until the final frame at that
place has been opened (rule 10).
"""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn

from phicrypt.audit.uses import Use
from phicrypt.core.broken_connections import with_retries
from phicrypt.core.byte_ranges import RangeRequest, Span, body_of_range
from phicrypt.core.materials import KeyHolder
from phicrypt.core.memory import filled_bytes
from phicrypt.core.process import ProcessBound
from phicrypt.core.streams import OneThread
from phicrypt.errors import FormatError, PhiCryptError, UnsupportedOperationError
from phicrypt.formats.esdk.frames import FrameCipher, FramedLayout, frames_in_run, layout_of_body
from phicrypt.formats.esdk.opening import MessageOpener
from phicrypt.s3.reading.plaintext_streams import PlaintextStream

_RUNS_WORTH_A_THREAD: Final = 4
"""Fewer runs of frames are read and opened sooner than a thread is started."""


class StoredObject(NamedTuple):
    """One version of one object, as the first request found it; later ones are held to the same bytes.

    Attributes:
        bucket, object_key: where it is.
        response: the first answer, as botocore gave it.
        metadata: its user metadata, names in lower case; hints that nobody authenticated.
        length_bytes: of what is stored.
        request: GetObject of the same version; raises ClientError (PreconditionFailed) if it was replaced.
    """

    bucket: str
    object_key: str
    response: Mapping[str, Any]
    metadata: Mapping[str, str]
    length_bytes: int
    request: partial[dict[str, Any]]

    def __repr__(self) -> str:
        return f"<StoredObject of {self.length_bytes} bytes>"

    def body(self, span: Span | None = None) -> Any:
        """The stream of a span of the stored bytes, or of all; FormatError for an answer to another question."""
        if span is not None:
            return body_of_range(self.request(Range=span.header()), span, self.length_bytes)
        response = self.request()
        if response["ContentLength"] != self.length_bytes:
            response["Body"].close()
            raise FormatError("the server answered with another length than before", field="Content-Length")
        return response["Body"]


class Opened(NamedTuple):
    """An ESDK object whose header was authenticated.

    Attributes:
        stored: requests for its bytes.
        opener: the key of its frames, and the header.
        use: the audited use, which whoever reads the plaintext ends.
    """

    stored: StoredObject
    opener: MessageOpener
    use: Use

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("an opened object holds its key and cannot be copied or pickled")


class FramedMessage(ProcessBound):
    """An opened object that is read by place, by any number of threads at once.

    Attributes:
        use: the audited use, which whoever reads the plaintext ends.
        layout: its frames; claims until :meth:`verified_length` has answered (rule 10).

    Raises FormatError where the stored length makes no frames (the object was cut or extended), and
    UnsupportedOperationError for signed and non-framed messages, whose end is known last.
    """

    def __init__(self, opened: Opened) -> None:
        super().__init__()
        self._stored, opener, self.use = opened
        self._cipher = opener.cipher
        self._final: bytes | None = None
        self._counting = threading.Lock()
        header = opener.header
        try:
            if header.suite.is_signed or not header.is_framed:
                raise UnsupportedOperationError(
                    "a signed or non-framed object is verified at its very end, so no part of it can be read "
                    "alone; read the whole object"
                )
            body_length = self._stored.length_bytes - header.length_bytes
            self.layout = layout_of_body(body_length, header.frame_length_bytes, header.length_bytes)
        except PhiCryptError as error:
            self.use.end(error)
            raise

    def __repr__(self) -> str:
        return f"<FramedMessage of {self.layout.final_number} frames>"

    @property
    def piece_bytes(self) -> int:
        """Reads of whole pieces of this length open nothing that they do not give out."""
        return self.layout.frame_length_bytes

    @property
    def claimed_length_bytes(self) -> int:
        """The plaintext length that follows from the stored length; a claim (rule 10)."""
        return self.layout.plaintext_length_bytes

    def verified_length(self) -> int:
        """The plaintext length, after the final frame was verified: from here on it is no claim any more."""
        self._final_plaintext()
        return self.layout.plaintext_length_bytes

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """The verified plaintext at an offset; fewer bytes only at the verified end (rule 43).

        Nothing is shared among reads but the key. Raises ValueError for a negative number, and what the
        frames raise.
        """
        plaintext = self.open_at(offset_bytes, length_bytes)
        self.count(len(plaintext))
        return plaintext

    def count(self, byte_count: int) -> None:
        """That much plaintext is given out, by one of several threads."""
        with self._counting:
            self.use.count(byte_count)

    def open_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """:meth:`read_at` for who counts what is given out."""
        self.check_process()
        layout = self.layout
        span = Span.within(layout.plaintext_length_bytes, offset_bytes, length_bytes)
        first, last = layout.frames_of(span) if span.length else (1, 0)
        if span.length < length_bytes and last != layout.final_number:
            self._final_plaintext()  # how little there is follows from the total
        if not span.length:
            return b""
        opened = self._open_frames(first, last)
        skip = span.start - layout.plaintext_span(first, last).start
        return opened if span.length == len(opened) else opened[skip : skip + span.length]

    def close(self, failure: BaseException | None) -> None:
        """End the use, as failed if ``failure`` is given."""
        self.use.end(failure)

    def ranged(self, request: RangeRequest) -> tuple[FramesStream, Span, int]:
        """The plaintext of a range, its span and the total, which the final frame confirmed first.

        Raises ClientError (InvalidRange) for a range outside the plaintext.
        """
        layout = self.layout
        try:
            final = self._final_plaintext()
            total = layout.plaintext_length_bytes
            span = request.resolve(total)
            if span is None:
                raise request.refusal(total)
            first, last = layout.frames_of(span) if span.length else (1, 1)
            final_start = layout.plaintext_span(layout.final_number, layout.final_number).start
            tail = final[max(0, span.start - final_start) : max(0, span.end - final_start)]
            run, skip = None, 0
            if first != layout.final_number:
                run = self._run(first, min(last, layout.final_number - 1))
                skip = span.start - layout.plaintext_span(first, first).start
        except BaseException as error:
            self.use.end(error)
            raise
        return FramesStream(run, self.use, skip=skip, length=span.length, tail=tail), span, total

    def _final_plaintext(self) -> bytes:
        if self._final is None:
            number = self.layout.final_number
            self._final = self._open_frames(number, number)
        return self._final

    def _open_frames(self, first: int, last: int) -> bytes:
        """The verified plaintext of frames ``first`` to ``last``, one request; again while connections break."""

        def open_once() -> bytes:
            run, position = self._run(first, last), 0
            # Zeroed, and so not in memory before it is written: ten threads hold a part each while they wait.
            buffer = io.BytesIO(bytes(self.layout.plaintext_span(first, last).length))
            try:
                with buffer.getbuffer() as plaintext:
                    while run.next_length() >= 0:
                        position += run.open_into(plaintext[position:])
            finally:
                run.close()
            return buffer.getvalue()

        return with_retries(open_once)

    def _run(self, first: int, last: int) -> FrameRun:
        stream = self._stored.body(self.layout.frames_span(first, last))
        return FrameRun(stream, self._cipher, self.layout, first, last)


def framed_plaintext(opened: Opened, rest: Any) -> FramesStream:
    """All of the plaintext of an unsigned framed object, from the stream of the stored bytes behind the header."""
    layout = FramedMessage(opened).layout
    run = FrameRun(rest, opened.opener.cipher, layout, 1, layout.final_number)
    return FramesStream(run, opened.use, skip=0, length=layout.plaintext_length_bytes)


def ranged_plaintext(opened: Opened, request: RangeRequest) -> tuple[FramesStream, Span, int]:
    """See :meth:`FramedMessage.ranged`."""
    return FramedMessage(opened).ranged(request)


class FrameRun(KeyHolder):
    """Frames ``first`` to ``last`` of an unsigned message, from a stream of their ciphertext.

    The plaintext of a frame is given out after its tag was verified, that of the last frame after
    the stream has ended as well.
    """

    __slots__ = ("_cipher", "_frame_length", "_last", "_layout", "_next", "_stream")

    def __init__(self, stream: Any, cipher: FrameCipher, layout: FramedLayout, first: int, last: int) -> None:
        self._stream = stream
        self._cipher = cipher
        self._layout = layout
        self._frame_length = layout.frame_length_bytes
        self._next = first
        self._last = last

    def next_length(self) -> int:
        """Plaintext bytes of the next frame; -1 after the last."""
        if self._next > self._last:
            return -1
        return self._frame_length if self._next < self._layout.final_number else self._layout.final_length_bytes

    def open_into(self, output: memoryview, *, overlapped: bool = False) -> int:
        """Verify the next frames, as many as ``output`` has room for, and write their plaintext.

        Returns its length. There is room for the next frame at least. The final frame is opened by
        itself. On failure the output holds nothing unverified. ``overlapped`` lets a thread open much
        at once, for a caller who is not one of several threads already.
        """
        final = self._layout.final_number
        if self._next == final:
            return self._open_final_into(output)
        regular_left = min(self._last, final - 1) - self._next + 1
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
            ciphertext = self._take(self._layout.frames_span(number, number + frames - 1).length)
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
        frame = self._take(self._layout.final_frame_length_bytes)
        self._check_end()
        self._cipher.open_final_into(self._next, frame, output[:length])
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


class FramesStream(PlaintextStream):
    """The plaintext of a run of frames, without the first ``skip`` bytes, cut after ``length`` bytes.

    ``tail`` is plaintext that was verified before and follows the run's.
    """

    def __init__(self, run: FrameRun | None, use: Use, *, skip: int, length: int, tail: bytes = b"") -> None:
        self._use = use
        self._one_thread = OneThread()
        self._run = run
        self._skip = skip
        self._left = length
        self._tail = tail
        self._piece = memoryview(b"")
        self._buffer = bytearray()

    def _read(self, size: int) -> bytes:
        return filled_bytes(min(size, self._left), self._fill)

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
