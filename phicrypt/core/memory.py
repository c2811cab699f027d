"""New ``bytes`` of a known length, written in place: the result of a seal or an opening without a copy.

Python has no call for this. A ``BytesIO`` hands its buffer out as ``bytes`` without a copy, but its
memory has to come from somewhere: ``bytes(n)`` writes zeros first, which takes a third of the time of
sealing 16 MiB into them. CPython's own C interface makes bytes that are not written yet.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from functools import cache
from typing import Final

_WORTH_IT_BYTES: Final = 256 * 1024


def bytes_to_fill(length_bytes: int) -> io.BytesIO:
    """Where ``getbuffer()`` is written to, and ``getvalue()`` gives the bytes.

    **Danger**: until then it holds whatever this process had in that memory. Give it out only when
    every byte was written; after an error drop it.
    """
    return io.BytesIO(bytes(length_bytes) if length_bytes < _WORTH_IT_BYTES else _maker()(length_bytes))


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
