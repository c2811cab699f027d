"""Frames sealed and opened by several threads.

`cryptography` releases the interpreter lock in AES-GCM for pieces of 2,048 bytes and more (from its
version 50), so that two threads seal long frames nearly twice as fast. Short frames are slower with
threads than without, because they fight for the lock.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

_MIN_FRAME_LENGTH_BYTES: Final = 32 * 1024
_MIN_SHARE_BYTES: Final = 1024 * 1024
"""Starting a thread costs about what sealing 512 KiB costs."""


def in_shares(frame_count: int, frame_length_bytes: int, threads: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(first, count)`` over frames 0 to ``frame_count``, in up to ``threads`` shares at once.

    Returns when all shares are done; raises the error of the first share that failed.
    """
    shares = min(threads, frame_count * frame_length_bytes // _MIN_SHARE_BYTES)
    if shares < 2 or frame_length_bytes < _MIN_FRAME_LENGTH_BYTES:
        work(0, frame_count)
        return
    bounds = [frame_count * share // shares for share in range(shares + 1)]
    with ThreadPoolExecutor(shares - 1, thread_name_prefix="phicrypt-frames") as pool:
        others = [
            pool.submit(work, bounds[share], bounds[share + 1] - bounds[share]) for share in range(1, shares)
        ]
        work(0, bounds[1])
        for other in others:
            other.result()
