"""Binary sources and sinks: what they need to offer, read and written whole."""

from __future__ import annotations

import codecs
import contextlib
import io
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from phicrypt.errors import ConfigurationError, UnsupportedOperationError

T = TypeVar("T")

_BARE_WRITE: Final = getattr(io.RawIOBase, "write", None)


class ReadableStream(Protocol):
    """A binary source: ``read(n)`` gives at most n bytes, and ``b""`` at the end."""

    def read(self, size: int = ..., /) -> Any: ...


class WritableStream(Protocol):
    """A binary sink: ``write(b)`` takes bytes and returns how many it took, or None for all."""

    def write(self, data: Any, /) -> Any: ...


def read_into(source: ReadableStream, room: memoryview) -> int:
    """Fill ``room`` from a binary source, repeating short reads; fewer bytes only at the source's end.

    Raises ConfigurationError for a source that is non-blocking or gives more than was asked.
    """
    filled = 0
    while filled < len(room) and (count := read_some_into(source, room[filled:])):
        filled += count
    return filled


def read_some_into(source: ReadableStream, room: memoryview) -> int:
    """One read; 0 at the end."""
    own_read_into = getattr(source, "readinto", None)
    try:
        count = own_read_into(room) if own_read_into is not None else _read_by_copy(source, room)
        is_implemented = True
    except NotImplementedError:  # io.RawIOBase's, which a class with a read() of its own inherits
        is_implemented = False
    if not is_implemented:
        count = _read_by_copy(source, room)
    if count is None:
        raise ConfigurationError("the source is non-blocking; a blocking binary file object is expected")
    if not 0 <= count <= len(room):
        raise ConfigurationError(f"the source's readinto() of {len(room)} bytes returned {count}")
    return int(count)


def _read_by_copy(source: ReadableStream, room: memoryview) -> int | None:
    try:
        data = source.read(len(room))
        is_implemented = True
    except NotImplementedError:
        is_implemented = False
    except AttributeError:
        if hasattr(source, "read"):
            raise
        is_implemented = False
    if not is_implemented:
        raise ConfigurationError(
            f"the source, a {type(source).__name__}, has no read(); a binary file is expected"
        )
    if data is None:
        return None
    count = _checked_length(data, len(room))
    room[:count] = data
    return count


def _checked_length(data: object, room: int) -> int:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ConfigurationError(
            f"the source's read() returned {type(data).__name__}; open it in binary mode ('rb')"
        )
    if len(data) > room:
        raise ConfigurationError(f"the source's read({room}) returned {len(data)} bytes")
    return len(data)


class OneThread:
    """Lets one thread at a time read what opens frames into a buffer that is used again.

    A second one would be given what stands there before it is verified. It is refused and not kept
    waiting, because sources and audit sinks, which may be anybody's, are called inside.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def run(self, step: Callable[[], T], fail: Callable[[BaseException], None]) -> T:
        """The result of ``step()``. ``fail`` is told of its error, or of an interrupt that costs the result."""
        if not self._lock.acquire(blocking=False):
            raise UnsupportedOperationError("this is being read already; one thread at a time can read it")
        try:
            result = step()
            self._lock.release()
        except BaseException as error:
            fail(error)
            with contextlib.suppress(RuntimeError):  # an interrupt came after the release
                self._lock.release()
            raise
        return result


def write_all(sink: WritableStream, piece: memoryview | bytes) -> int:
    """Write a whole piece, in as many calls as the sink wants; returns its length.

    Real file objects take views, since they keep no reference to what they are given. Any other
    sink might keep one, and the view's buffer is reused for the next frame: it gets bytes.

    Raises ConfigurationError for a sink of text, one that takes nothing, or says that it took more than it got.
    """
    is_file = isinstance(sink, io.IOBase)
    rest: memoryview | bytes = memoryview(piece) if is_file else bytes(piece)
    while len(rest):
        try:
            written = sink.write(rest)
            is_binary = True
        except (NotImplementedError, TypeError, AttributeError):
            if not _takes_no_bytes(sink):
                raise
            is_binary = False
        if not is_binary:
            raise ConfigurationError(
                f"the sink ({type(sink).__name__}) takes no bytes; a binary file is expected, opened with 'wb'"
            )
        if written is None:
            if is_file:
                raise ConfigurationError("the sink is non-blocking; a blocking binary file object is expected")
            break
        if not isinstance(written, int) or not 0 < written <= len(rest):
            raise ConfigurationError(
                f"the sink's write() of {len(rest)} bytes answered {written!r}; it returns what it took, or None"
            )
        rest = rest[written:]
    return len(piece)


def _takes_no_bytes(sink: object) -> bool:
    """Whether it is the sink's kind that was wrong: an error in the code of another sink is its own."""
    write = getattr(sink, "write", None)
    is_text = isinstance(sink, io.TextIOBase | codecs.StreamWriter | codecs.StreamReaderWriter)
    is_bare = isinstance(sink, io.RawIOBase) and getattr(type(sink), "write", None) is _BARE_WRITE
    # The wrappers of tempfile are no TextIOBase, and show the file's encoding.
    return write is None or is_text or is_bare or getattr(sink, "encoding", None) is not None


class PieceSource:
    """Pieces as a source that is read once.

    Args:
        next_piece: gives the next piece, and an empty one at the end.
    """

    def __init__(self, next_piece: Callable[[], bytes | memoryview]) -> None:
        self._next_piece = next_piece
        self._piece: memoryview | None = memoryview(b"")

    def read(self, size: int = -1, /) -> memoryview:
        if self._piece is not None and not len(self._piece):
            self._piece = memoryview(self._next_piece()) or None
        if self._piece is None:
            return memoryview(b"")
        count = len(self._piece) if size < 0 else size
        taken, self._piece = self._piece[:count], self._piece[count:]
        return taken


class RejoinedStream:
    """A stream from which a beginning was read: what was read too far comes first."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._seen = b""
        self._rest: bytes | None = None

    def read(self, size: int = -1, /) -> bytes:
        if self._rest is None:
            piece: bytes = self._stream.read(size)
            self._seen += piece
            return piece
        if self._rest:
            count = len(self._rest) if size < 0 else size
            piece, self._rest = self._rest[:count], self._rest[count:]
            return piece
        rest: bytes = self._stream.read(size)
        return rest

    def behind(self, beginning_bytes: int) -> RejoinedStream:
        """From here on, the bytes behind the beginning."""
        self._rest, self._seen = self._seen[beginning_bytes:], b""
        return self

    def close(self) -> None:
        self._stream.close()
