"""Bounded reading of bytes and streams: every parser takes its fields through one of these.

Both readers hand out the next bytes as a ``memoryview`` and raise FormatError naming the field when
the input ends too early. Neither allocates for a length that the caller has not checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

from phicrypt.core.page_memory import PAGE_BYTES, page_memory
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

    def held(self, at_least_bytes: int, field: str) -> memoryview:
        """All the next bytes, without taking them; FormatError if there are fewer than ``at_least_bytes``."""
        if self.remaining() < at_least_bytes:
            raise truncated(field, self.offset, at_least_bytes, self.remaining())
        return self._view[self.offset :]

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

    __slots__ = ("_capacity_bytes", "_end", "_ended", "_full", "_memory", "_source", "_start", "offset")

    def __init__(self, source: ReadableStream, *, read_ahead_bytes: int = _READ_AHEAD_BYTES) -> None:
        self._source = source
        self._memory = page_memory(read_ahead_bytes)
        self._capacity_bytes = read_ahead_bytes
        # What is held stands in the memory from _start to _end; a read fills it up to _full.
        self._start = 0
        self._end = 0
        self._full = read_ahead_bytes
        self._ended = False
        self.offset = 0

    def take(self, length_bytes: int, field: str) -> memoryview:
        """The next bytes; FormatError if the source ends before them."""
        if self._end - self._start < length_bytes and not self._fill(length_bytes):
            raise truncated(field, self.offset, length_bytes, self._end - self._start)
        start = self._start
        self._start = start + length_bytes
        self.offset += length_bytes
        return self._memory[start : self._start]

    def peek(self, length_bytes: int, field: str) -> bytes:
        """The next bytes without taking them; FormatError if the source ends before them."""
        piece = bytes(self.take(length_bytes, field))
        self._start -= length_bytes
        self.offset -= length_bytes
        return piece

    def held(self, at_least_bytes: int, field: str) -> memoryview:
        """The next bytes that are in memory, without taking them, after waiting for ``at_least_bytes``.

        FormatError if the source ends before them.
        """
        if self._end - self._start < at_least_bytes and not self._fill(at_least_bytes):
            raise truncated(field, self.offset, at_least_bytes, self._end - self._start)
        return self._memory[self._start : self._end]

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
        self._make_room(max(capacity_bytes, self._end - self._start))

    def _fill(self, wanted_bytes: int) -> bool:
        if self._start + wanted_bytes > self._full:
            self._make_room(max(wanted_bytes, self._capacity_bytes))
        while self._end - self._start < wanted_bytes and not self._ended:
            count = _read_some_into(self._source, self._memory[self._end : self._full])
            self._ended = count == 0
            self._end += count
        return self._end - self._start >= wanted_bytes

    def _make_room(self, capacity_bytes: int) -> None:
        """Move what is held to where the memory has room for this many bytes from there on.

        Bytes stand at the same place of a page as in the source, see :mod:`phicrypt.core.page_memory`.
        """
        held = self._memory[self._start : self._end]
        start = self.offset % PAGE_BYTES
        end = start + len(held)
        if start + capacity_bytes > len(self._memory):
            self._memory = page_memory(PAGE_BYTES + capacity_bytes)
            self._memory[start:end] = held
        else:
            self._memory[start:end] = bytes(held)  # the two places may overlap
        self._start, self._end = start, end
        self._capacity_bytes = capacity_bytes
        self._full = start + capacity_bytes


def read_into(source: ReadableStream, room: memoryview) -> int:
    """Fill ``room`` from a binary source, repeating short reads; fewer bytes only at the source's end.

    Raises ConfigurationError for a source that is non-blocking or gives more than was asked.
    """
    filled = 0
    while filled < len(room) and (count := _read_some_into(source, room[filled:])):
        filled += count
    return filled


def _read_some_into(source: ReadableStream, room: memoryview) -> int:
    """One read; 0 at the end."""
    own_read_into = getattr(source, "readinto", None)
    if own_read_into is not None:
        count = own_read_into(room)
    else:
        data = source.read(len(room))
        count = None if data is None else _checked_length(data, len(room))
        if count:
            room[:count] = data
    if count is None:
        raise ConfigurationError("the source is non-blocking; a blocking binary file object is expected")
    if not 0 <= count <= len(room):
        raise ConfigurationError(f"the source's readinto() of {len(room)} bytes returned {count}")
    return int(count)


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
