"""Plaintexts: each value is a number and a size, and its bytes follow from them."""

from __future__ import annotations

import functools
import random
from typing import NamedTuple

from .stage import CANARY


class Content(NamedTuple):
    """A plaintext; ``bytes_of`` makes it."""

    number: int
    size_bytes: int


@functools.lru_cache(maxsize=4)
def bytes_of(content: Content) -> bytes:
    """The canary, the number, and bytes that no other content has."""
    head = CANARY + content.number.to_bytes(8, "big")
    return head + random.Random(content.number).randbytes(max(0, content.size_bytes - len(head)))


def named(read: bytes, candidates: set[object]) -> object:
    """Which of the contents this is, or what came instead."""
    return piece_named(read, slice(None), candidates)


def piece_named(read: bytes, where: slice, candidates: set[object]) -> object:
    """Which of the contents has these bytes there."""
    for content in candidates:
        if isinstance(content, Content) and bytes_of(content)[where] == read:
            return content
    return f"{len(read)} bytes of none of them"
