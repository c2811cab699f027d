"""Bounded reading of bytes and streams: every parser takes its fields through one of these.

Both readers hand out the next bytes as a ``memoryview`` and raise FormatError naming the field when
the input ends too early. Neither allocates for a length that the caller has not checked.
"""

from __future__ import annotations

from typing import Final

from phicrypt._lazy import lazy_names
from phicrypt.core.memory import PAGE_BYTES, page_memory
from phicrypt.core.streams import ReadableStream, read_some_into
from phicrypt.errors import FormatError

_READ_AHEAD_BYTES: Final = 256 * 1024


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
            count = read_some_into(self._source, self._memory[self._end : self._full])
            self._ended = count == 0
            self._end += count
        return self._end - self._start >= wanted_bytes

    def _make_room(self, capacity_bytes: int) -> None:
        """Move what is held to where the memory has room for this many bytes from there on.

        Bytes stand at the same place of a page as in the source, see :mod:`phicrypt.core.memory`.
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


def truncated(field: str, offset: int, wanted_bytes: int, found_bytes: int) -> FormatError:
    """The error for input that ends inside a field."""
    return FormatError(
        f"the message ends here: {wanted_bytes} bytes were expected, {max(found_bytes, 0)} remain",
        field=field,
        offset=offset,
    )


__getattr__, _ = lazy_names(__name__, {}, {"ReadLimits": "phicrypt.core.limits"})
