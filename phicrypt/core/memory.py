"""Memory for buffers and results.

**Pages.** Buffers for file I/O that begin at a memory page, and the blocks that files are written in.

The kernel copies between a file and a program's memory nearly twice as fast where both stand at the
same place of their pages (measured: 256 MiB read in 17 ms, instead of 30 at 16 bytes beside it and 85
at one byte beside it). A ``bytearray`` begins 16 bytes behind a page or anywhere. The kernel also keeps a
file in larger pieces where it is written in whole blocks (256 MiB written in 41 ms, instead of 47 in pieces of
a mebibyte and some bytes, and read back in 14 ms instead of 16).

**Fresh bytes.** New ``bytes`` of a known length, written in place: the result of a seal or an opening
without a copy.

Python has no call for this. A ``BytesIO`` hands its buffer out as ``bytes`` without a copy, but its
memory has to come from somewhere: ``bytes(n)`` writes zeros first, which takes a third of the time of
sealing 16 MiB into them. CPython's own C interface makes bytes that are not written yet.

**A caller's buffers.** What is given to be read, and to be written into.
"""

from __future__ import annotations

import io
import mmap
import sys
from collections.abc import Callable
from functools import cache
from typing import Final

from phicrypt.errors import ConfigurationError

PAGE_BYTES: Final = mmap.PAGESIZE
FILE_BLOCK_BYTES: Final = 64 * 1024
"""Written from multiples of this, in multiples of it; larger blocks gained nothing more."""
_WORTH_A_MAPPING_BYTES: Final = 64 * 1024


def page_memory(length_bytes: int) -> memoryview:
    """Writable zeroed memory of this length, at the begin of a page unless it is too short to matter.

    It is the process's own: after a fork, writes of one process do not show in the other. It is freed
    with the last view of it.
    """
    if length_bytes < _WORTH_A_MAPPING_BYTES:
        return memoryview(bytearray(length_bytes))
    return memoryview(mmap.mmap(-1, length_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


BELIEVED_BYTES: Final = 1 << 30
_WORTH_IT_BYTES: Final = 256 * 1024


def bytes_to_fill(length_bytes: int) -> io.BytesIO:
    """Where ``getbuffer()`` is written to, and ``getvalue()`` gives the bytes.

    **Danger**: until then it holds whatever this process had in that memory. Give it out only when
    every byte was written; after an error drop it.
    """
    return io.BytesIO(bytes(length_bytes) if length_bytes < _WORTH_IT_BYTES else _maker()(length_bytes))


def filled_bytes(at_most_bytes: int, fill: Callable[[memoryview], int]) -> bytes:
    """What ``fill`` writes into memory of that length, of which it returns how much it was.

    A length beyond ``BELIEVED_BYTES`` is somebody's claim until so much has come: memory is had for it bit by bit.
    """
    if at_most_bytes > BELIEVED_BYTES:
        pieces: list[bytes] = []
        while at_most_bytes > 0 and (piece := filled_bytes(min(at_most_bytes, BELIEVED_BYTES), fill)):
            pieces.append(piece)
            at_most_bytes -= len(piece)
        return b"".join(pieces)
    buffer = bytes_to_fill(at_most_bytes)
    with buffer.getbuffer() as view:
        count = fill(view)
    data = buffer.getvalue()
    return data if count == len(data) else data[:count]


@cache
def _maker() -> Callable[[int], bytes]:
    if sys.implementation.name != "cpython":
        return bytes
    try:
        import ctypes  # only here: most processes never seal so much at once
    except ImportError:  # a Python that was built without it
        return bytes
    new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
    new_bytes.restype = ctypes.py_object
    new_bytes.argtypes = (ctypes.c_char_p, ctypes.c_ssize_t)

    def make(length_bytes: int) -> bytes:
        made: bytes = new_bytes(None, length_bytes)
        return made

    return make


def as_bytes(value: object, name: str) -> bytes | memoryview:
    """The value as a buffer whose ``len`` is its number of bytes; raises ConfigurationError for others."""
    if type(value) is bytes:
        return value
    if isinstance(value, (bytes, bytearray)):
        return memoryview(value)  # its length cannot change under us, nor be another than it says
    if isinstance(value, memoryview) and value.c_contiguous:
        return value.cast("B")
    hint = "; encode it first: text.encode()" if isinstance(value, str) else ""
    raise ConfigurationError(f"{name} is bytes or a contiguous buffer, {type(value).__name__} came{hint}")


def writable_view(buffer: bytearray | memoryview, source: bytes | bytearray | memoryview) -> memoryview:
    """The buffer's bytes, to be written; raises ConfigurationError for one that is read from as well."""
    view = memoryview(buffer)
    if view.readonly or not view.c_contiguous:
        raise ConfigurationError("a writable contiguous buffer was expected, such as a bytearray")
    if isinstance(source, bytearray | memoryview) and memoryview(source).obj is view.obj:
        raise ConfigurationError(
            "the buffer belongs to the object that is read from, and would overwrite it; give it memory of its own"
        )
    return view.cast("B")
