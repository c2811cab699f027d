"""The binary streams that boto3 hands out, over plaintext that is verified piece by piece."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from phicrypt.audit.uses import Use
from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import KeyHolder
from phicrypt.core.memory import filled_bytes
from phicrypt.core.spool import CiphertextSpool
from phicrypt.core.streams import OneThread

T = TypeVar("T")


class PlaintextStream(KeyHolder, io.RawIOBase):
    """Base of the raw streams behind ``response["Body"]``. A failure is final and repeats itself.

    ``read(n)`` gives n bytes unless the end comes first, as botocore's streams do. A subclass sets
    ``_use``, which it counts and ends, and ``_one_thread``.
    """

    _use: Use
    _one_thread: OneThread
    _failure: BaseException | None = None
    _released = 0
    _ended = False

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
        if self._ended:  # and released
            return
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
        """The next plaintext; fewer bytes than asked only at the end."""
        raise NotImplementedError

    def _read_all(self) -> bytes:
        raise NotImplementedError

    def _fill(self, view: memoryview) -> int:
        """Write the next plaintext; fewer bytes than asked only at the end."""
        raise NotImplementedError

    def _release(self) -> None:
        """Let go of keys, buffers and the connection."""
        raise NotImplementedError


class PiecesStream(PlaintextStream):
    """Plaintext from an iterator of verified pieces, for bodies that are read in order only."""

    def __init__(
        self, pieces: Iterator[bytes | memoryview], use: Use, *, length: int, close: Callable[[], None]
    ) -> None:
        self._use = use
        self._one_thread = OneThread()
        self._pieces: Iterator[bytes | memoryview] | None = pieces
        self._piece = memoryview(b"")
        self._length = length
        self._close = close

    def _read(self, size: int) -> bytes:
        return filled_bytes(min(size, max(self._length - self._released, 1)), self._fill)

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


def spool_for(body: Any, limits: ReadLimits) -> tuple[CiphertextSpool, Callable[[], None]]:
    """Where the ciphertext of a body waits for its tag (rule 6), and what lets go of both."""
    spool = CiphertextSpool(memory_bytes=limits.spool_memory_bytes, max_bytes=limits.max_spool_bytes)

    def close() -> None:
        spool.close()
        body.close()

    return spool, close
