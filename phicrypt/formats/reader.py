"""Bounded reading of bytes and streams: every parser takes its fields through one of these.

Both readers hand out the next bytes as a ``memoryview`` and raise FormatError naming the field when
the input ends too early. Neither allocates for a length that the caller has not checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from phicrypt.errors import ConfigurationError, FormatError

_READ_AHEAD_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds on what a reader believes of a message, checked before anything is allocated (rule 6).

    Attributes:
        max_encrypted_data_keys: more recipients than this are refused.
        max_header_length_bytes: whole header, authentication tag included.
        max_context_length_bytes: serialized encryption context.
        max_frame_length_bytes: longest frame; a stream holds a few of them in memory.
        max_spool_bytes: longest non-framed body (or S3 Encryption Client object) that is spooled.
        spool_memory_bytes: how much of a spool stays in memory before an unlinked file takes it.
    """

    max_encrypted_data_keys: int = 8
    max_header_length_bytes: int = 128 * 1024
    max_context_length_bytes: int = 0xFFFF
    max_frame_length_bytes: int = 16 * 1024 * 1024
    max_spool_bytes: int = 64 * 1024**3
    spool_memory_bytes: int = 8 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigurationError(f"{name} is a whole number above zero")


class ReadableStream(Protocol):
    """A binary source: ``read(n)`` gives at most n bytes, and ``b""`` at the end."""

    def read(self, size: int = ..., /) -> Any: ...


class ByteReader:
    """Reads fields from bytes that are wholly in memory."""

    __slots__ = ("_view", "offset")

    def __init__(self, data: bytes | bytearray | memoryview, offset: int = 0) -> None:
        self._view = memoryview(data).cast("B")
        self.offset = offset

    def take(self, length_bytes: int, field: str) -> memoryview:
        """The next bytes; FormatError if fewer remain."""
        start = self.offset
        end = start + length_bytes
        if end > len(self._view):
            raise truncated(field, start, length_bytes, len(self._view) - start)
        self.offset = end
        return self._view[start:end]

    def peek(self, length_bytes: int, field: str) -> bytes:
        """The next bytes without taking them; FormatError if fewer remain."""
        piece = bytes(self.take(length_bytes, field))
        self.offset -= length_bytes
        return piece

    def take_int(self, length_bytes: int, field: str) -> int:
        """The next bytes as a big-endian unsigned number."""
        return int.from_bytes(self.take(length_bytes, field), "big")

    def remaining(self) -> int:
        """Bytes not taken yet."""
        return len(self._view) - self.offset

    def at_end(self) -> bool:
        """Whether every byte was taken."""
        return self.offset == len(self._view)


class StreamReader:
    """Reads fields from a binary file object through one reused buffer.

    A view that :meth:`take` returns is valid until the next call of any method. Short reads are
    repeated until the field is whole or the source ends.
    """

    __slots__ = ("_buffer", "_end", "_ended", "_source", "_start", "_view", "offset")

    def __init__(self, source: ReadableStream, *, read_ahead_bytes: int = _READ_AHEAD_BYTES) -> None:
        self._source = source
        self._buffer = bytearray(read_ahead_bytes)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self._ended = False
        self.offset = 0

    def take(self, length_bytes: int, field: str) -> memoryview:
        """The next bytes; FormatError if the source ends before them."""
        if self._end - self._start < length_bytes and not self._fill(length_bytes):
            raise truncated(field, self.offset, length_bytes, self._end - self._start)
        start = self._start
        self._start = start + length_bytes
        self.offset += length_bytes
        return self._view[start : self._start]

    def peek(self, length_bytes: int, field: str) -> bytes:
        """The next bytes without taking them; FormatError if the source ends before them."""
        piece = bytes(self.take(length_bytes, field))
        self._start -= length_bytes
        self.offset -= length_bytes
        return piece

    def take_int(self, length_bytes: int, field: str) -> int:
        """The next bytes as a big-endian unsigned number."""
        return int.from_bytes(self.take(length_bytes, field), "big")

    def at_end(self) -> bool:
        """Whether the source has ended and every byte was taken."""
        return self._start == self._end and not self._fill(1)

    def available(self, wanted_bytes: int) -> int:
        """How many of the next ``wanted_bytes`` the source holds; reads until it knows."""
        if self._end - self._start < wanted_bytes:
            self._fill(wanted_bytes)
        return min(self._end - self._start, wanted_bytes)

    def read_ahead(self, capacity_bytes: int) -> None:
        """Read the source in pieces of this size from now on: whole frames avoid moving leftovers."""
        held = self._end - self._start
        larger = bytearray(max(capacity_bytes, held))
        larger[:held] = self._view[self._start : self._end]
        self._buffer, self._view = larger, memoryview(larger)
        self._start, self._end = 0, held

    def _fill(self, wanted_bytes: int) -> bool:
        held = self._end - self._start
        if wanted_bytes > len(self._buffer):
            larger = bytearray(wanted_bytes)
            larger[:held] = self._view[self._start : self._end]
            self._buffer, self._view = larger, memoryview(larger)
            self._start, self._end = 0, held
        elif self._start + wanted_bytes > len(self._buffer):
            self._buffer[:held] = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, held
        while self._end - self._start < wanted_bytes and not self._ended:
            self._read_more()
        return self._end - self._start >= wanted_bytes

    def _read_more(self) -> None:
        room = self._view[self._end :]
        read_into = getattr(self._source, "readinto", None)
        if read_into is not None:
            count = read_into(room)
        else:
            data = self._source.read(len(room))
            count = None if data is None else _checked_length(data, len(room))
            if count:
                room[:count] = data
        if count is None:
            raise ConfigurationError("the source is non-blocking; a blocking binary file object is expected")
        if not 0 <= count <= len(room):
            raise ConfigurationError(f"the source's readinto() of {len(room)} bytes returned {count}")
        if count == 0:
            self._ended = True
        self._end += count


def _checked_length(data: object, room: int) -> int:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ConfigurationError(
            f"the source's read() returned {type(data).__name__}; open it in binary mode ('rb')"
        )
    if len(data) > room:
        raise ConfigurationError(f"the source's read({room}) returned {len(data)} bytes")
    return len(data)


def truncated(field: str, offset: int, wanted_bytes: int, found_bytes: int) -> FormatError:
    """The error for input that ends inside a field."""
    return FormatError(
        f"the message ends here: {wanted_bytes} bytes were expected, {max(found_bytes, 0)} remain",
        field=field,
        offset=offset,
    )
