"""Frames sealed and opened by several threads.

`cryptography` releases the interpreter lock in AES-GCM for pieces of 2,048 bytes and more (from its
version 50), so that two threads seal long frames nearly twice as fast. Short frames are slower with
threads than without, because they fight for the lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Final

_MIN_FRAME_LENGTH_BYTES: Final = 32 * 1024
_MIN_SHARE_BYTES: Final = 1024 * 1024
"""Shorter shares cost more by moving from one processor's cache to another's than they gain (measured)."""

_pool: ThreadPoolExecutor | None = None
"""Threads that wait for shares, of whichever message. Starting one for each message costs up to 0.4 ms."""


def in_shares(frame_count: int, frame_length_bytes: int, threads: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(first, count)`` over frames 0 to ``frame_count``, in up to ``threads`` shares at once.

    Returns or raises when no share is running any more: their memory is the caller's. Raises the
    error of the first share that failed.
    """
    shares = min(threads, frame_count, frame_count * frame_length_bytes // _MIN_SHARE_BYTES)
    if shares < 2 or frame_length_bytes < _MIN_FRAME_LENGTH_BYTES:
        work(0, frame_count)
        return
    bounds = [frame_count * share // shares for share in range(shares + 1)]
    others: list[Future[None]] = []
    try:
        for share in range(1, shares):
            others.append(_submit(work, bounds[share], bounds[share + 1] - bounds[share]))
        work(0, bounds[1])
        for other in others:
            other.result()
    finally:
        for other in others:
            other.cancel()
        wait(others)


def _submit(work: Callable[[int, int], None], first: int, count: int) -> Future[None]:
    global _pool
    pool = _pool
    if pool is None:
        # Two callers who come here at once make two; the threads of the one that is dropped end.
        pool = _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="phicrypt-shares")
    try:
        return pool.submit(work, first, count)
    except RuntimeError:
        # No thread could be started, but the share is in the pool's queue. Run later, it would write
        # into memory that is the caller's again, and seal what stands there then.
        _pool = None
        pool.shutdown(cancel_futures=True)
        raise


def _forget_parents_threads() -> None:
    global _pool
    _pool = None


# A fork copies the pool but none of its threads: a share that the child gave it would never be done.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents_threads)
