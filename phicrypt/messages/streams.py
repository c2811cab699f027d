"""Messages as streams: files in, files out, in the memory of a few frames.

Sources need ``read(n)`` only, sinks ``write(b)`` only; neither is closed for the caller. The
readers are ``io.RawIOBase`` objects. All of them belong to the process that made them (rule 1) and
cannot be copied or pickled.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from phicrypt.audit.uses import Use
from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import KeyHolder
from phicrypt.core.spool import CiphertextSpool
from phicrypt.core.streams import OneThread, ReadableStream
from phicrypt.formats.esdk.frames import FINAL_OVERHEAD_BYTES, REGULAR_OVERHEAD_BYTES, FramedLayout, layout_of_body
from phicrypt.formats.esdk.opening import MessageOpener
from phicrypt.formats.esdk.pieces import sealed_pieces
from phicrypt.formats.esdk.sealing import MessageSealer
from phicrypt.formats.reader import StreamReader, truncated


class _PieceReader(KeyHolder, io.RawIOBase):
    """Hands out an iterator's pieces through ``readinto``, and remembers a failure for good."""

    def __init__(self, use: Use) -> None:
        self._piece = memoryview(b"")
        self._failure: BaseException | None = None
        self._finished = False
        self._use = use
        self._one_thread = OneThread()

    def readable(self) -> bool:
        return True

    def _next_piece(self) -> memoryview | None:
        """The next piece, or None at the verified end."""
        raise NotImplementedError

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed reader")
        if self._failure is not None:
            # The end of the data must never be mistaken for the end of the message.
            raise self._failure

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer, with less only at the end or before a failure, which the next call raises."""
        return self._one_thread.run(lambda: self._read_into(memoryview(buffer).cast("B")), self._fail)

    def readall(self) -> bytes:
        return self._one_thread.run(self._read_all, self._fail)

    def _read_into(self, target: memoryview) -> int:
        self._check()
        filled = self._fill(target)
        self._advance(filled)
        return filled

    def _read_all(self) -> bytes:
        self._check()
        pieces = []
        while self._have_piece():
            pieces.append(bytes(self._piece))
            self._piece = memoryview(b"")
        data = b"".join(pieces)
        self._advance(len(data))
        return data

    def _fill(self, target: memoryview) -> int:
        filled = 0
        while filled < len(target):
            try:
                if not self._have_piece():
                    break
            except Exception:
                if filled:
                    break
                raise
            count = min(len(target) - filled, len(self._piece))
            target[filled : filled + count] = self._piece[:count]
            self._piece = self._piece[count:]
            filled += count
        return filled

    def _advance(self, count: int) -> None:
        """That many bytes are about to be given out."""

    def _have_piece(self) -> bool:
        while not len(self._piece) and not self._finished:
            try:
                piece = self._next_piece()
                if piece is None:
                    self._at_end()
                    self._finished = True
                else:
                    self._piece = piece
            except BaseException as error:
                self._fail(error)
                raise
        return len(self._piece) > 0

    def _at_end(self) -> None:
        """The verified end was reached: the audit record must be written before the caller knows."""
        self._use.end()

    def _fail(self, error: BaseException) -> None:
        """For good, whatever it was: an interrupt (a signal's exception) may have cost a piece in the middle."""
        self._failure = error
        self._use.end(error)

    def __del__(self) -> None:
        # The collector must not read on from the source, as close() may; it only lets go.
        with contextlib.suppress(Exception):
            self._release()
            super().close()

    def _release(self) -> None:
        """Let go of keys and buffers."""
        self._piece = memoryview(b"")


class EncryptingReader(_PieceReader):
    """Yields the ciphertext of a source. Never seekable: the source is read once (rule 2).

    Closing it early leaves a truncated message, which every reader refuses.
    """

    def __init__(self, sealer: MessageSealer, source: ReadableStream, use: Use) -> None:
        super().__init__(use)
        self._sealer: MessageSealer | None = sealer
        self._pieces: Iterator[memoryview | bytes] | None = sealed_pieces(sealer, source, use.count)

    def _check(self) -> None:
        super()._check()
        if self._sealer is not None:
            self._sealer.check_process()

    def _next_piece(self) -> memoryview | None:
        assert self._pieces is not None
        piece = next(self._pieces, None)
        return None if piece is None else memoryview(piece)

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        if self.closed:
            return
        try:
            self._use.end(None if self._finished else GeneratorExit())
        finally:
            self._release()
            super().close()

    def _release(self) -> None:
        super()._release()
        self._sealer = self._pieces = None


class DecryptingReader(_PieceReader):
    """Yields the verified plaintext of a message.

    Seekable when the source is, for framed unsigned messages: a seek reads only the frames it
    needs, and whatever depends on the total length verifies the final frame first (rule 10).
    Signed messages are read in order, because the signature is known only at their end.

    Closing it before the end of a message that was read in order reads and verifies the rest, so
    that leaving a ``with`` block early never hides a failure; after a seek, each frame that was
    read has been verified by itself, and nothing more is read.
    """

    def __init__(self, opener: MessageOpener, reader: StreamReader, limits: ReadLimits, use: Use) -> None:
        super().__init__(use)
        self._opener: MessageOpener | None = opener
        self._spool = CiphertextSpool(memory_bytes=limits.spool_memory_bytes, max_bytes=limits.max_spool_bytes)
        self._pieces: Iterator[memoryview] | None = opener.pieces(reader, self._spool, limits)

    def _check(self) -> None:
        super()._check()
        if self._opener is not None:
            self._opener.check_process()

    def _next_piece(self) -> memoryview | None:
        assert self._pieces is not None
        piece = next(self._pieces, None)
        if piece is not None:
            self._use.count(len(piece))
        return piece

    def seekable(self) -> bool:
        return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not self._finished:
            self._finished = True  # the caller's own error is on its way; do not read on behind it
            self._use.end(error)
        self.close()

    def close(self) -> None:
        if self.closed:
            return
        try:
            if self._failure is None and self._reads_in_order():
                self._one_thread.run(self._verify_rest, self._fail)
            self._use.end()
        finally:
            self._release()
            super().close()

    def _verify_rest(self) -> None:
        self._check()
        while self._have_piece():
            self._piece = memoryview(b"")

    def _reads_in_order(self) -> bool:
        return not self._finished

    def _release(self) -> None:
        super()._release()
        self._opener = self._pieces = None
        self._spool.close()


class SeekableDecryptingReader(DecryptingReader):
    """A :class:`DecryptingReader` over a seekable source of a framed, unsigned message.

    Args:
        message_start: where the message begins in the source, in bytes.
    """

    def __init__(
        self,
        opener: MessageOpener,
        reader: StreamReader,
        limits: ReadLimits,
        use: Use,
        source: Any,
        message_start: int,
    ) -> None:
        super().__init__(opener, reader, limits, use)
        self._source = source
        self._message_start = message_start
        self._header = opener.header
        end = source.seek(0, io.SEEK_END)
        self._layout: FramedLayout = layout_of_body(
            end - message_start - opener.header.length_bytes,
            opener.header.frame_length_bytes,
            opener.header.length_bytes,
        )
        self._position = 0
        self._next_frame = 1
        self._has_sought = False
        self._plaintext = memoryview(bytearray(opener.header.frame_length_bytes))

    def _at_end(self) -> None:
        """After the end a caller may seek back and read on; closing ends the use."""

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._check()
        if whence == io.SEEK_SET:
            target = offset
        elif whence == io.SEEK_CUR:
            target = self._position + offset
        elif whence == io.SEEK_END:
            target = self._one_thread.run(self._verified_length, self._fail) + offset
        else:
            raise ValueError(f"whence is 0, 1 or 2, {whence} came")
        if target < 0:
            raise ValueError(f"a position before the start was asked: {target}")
        self._has_sought = True
        if target != self._position:
            self._position = target
            frame_length = self._header.frame_length_bytes
            self._next_frame = min(target // frame_length, self._layout.regular_frames) + 1
            self._piece = memoryview(b"")
            self._finished = False
        return target

    def _advance(self, count: int) -> None:
        self._position += count

    def _reads_in_order(self) -> bool:
        return not self._finished and not self._has_sought

    def _next_piece(self) -> memoryview | None:
        if self._next_frame > self._layout.regular_frames + 1:
            return None
        frame_start = (self._next_frame - 1) * self._header.frame_length_bytes
        plaintext = self._open_frame(self._next_frame)
        self._next_frame += 1
        # A seek lands inside a frame; reading in order always starts at its first byte.
        wanted = plaintext[max(0, self._position - frame_start) :]
        self._use.count(len(wanted))
        return wanted

    def _verified_length(self) -> int:
        piece = bytes(self._piece)  # the frame buffer is about to be reused
        self._open_frame(self._layout.regular_frames + 1)
        self._piece = memoryview(piece)
        return self._layout.plaintext_length_bytes

    def _open_frame(self, sequence_number: int) -> memoryview:
        assert self._opener is not None
        is_final = sequence_number == self._layout.regular_frames + 1
        length = self._layout.final_length_bytes if is_final else self._header.frame_length_bytes
        frame = memoryview(
            self._read_exactly(
                self._layout.frame_offset(sequence_number),
                length + (FINAL_OVERHEAD_BYTES if is_final else REGULAR_OVERHEAD_BYTES),
            )
        )
        plaintext = self._plaintext[:length]
        if is_final:
            self._opener.cipher.open_final_into(sequence_number, frame, plaintext)
        else:
            self._opener.cipher.open_regular_frames_into(sequence_number, frame, plaintext)
        return plaintext

    def _read_exactly(self, offset: int, length_bytes: int) -> bytes:
        self._source.seek(self._message_start + offset)
        pieces = []
        missing = length_bytes
        while missing:
            piece = self._source.read(missing)
            if not piece:
                raise truncated("frame", offset, length_bytes, length_bytes - missing)
            pieces.append(piece)
            missing -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
