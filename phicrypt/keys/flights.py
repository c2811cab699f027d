"""One load on behalf of all who ask for the same entry (rule 12)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from phicrypt.core.steps import LocalRequest


class Flight(LocalRequest):
    """One load; as a request, what another caller of the same entry waits for.

    Attributes:
        generation: the cache's when it began.
        thread: of its leader.
        done: set when it is over, or given up.
        error: what it brought in place of a value.
        is_given_up: whether its leader's deadline passed, or the leader was interrupted, while it went on.
    """

    __slots__ = ("_count_waiter", "_wakers", "done", "error", "generation", "is_given_up", "thread")

    def __init__(self, count_waiter: Callable[[], None]) -> None:
        self.generation = 0
        self.thread = threading.get_ident()
        self.done = threading.Event()
        self.error: Exception | None = None
        self.is_given_up = False
        self._count_waiter = count_waiter
        self._wakers: list[Callable[[], object]] = []

    def answer(self) -> bool:
        """Wait until it is over. False where that would never be: this thread itself leads it.

        So does the handler of a signal that interrupted the leader, and whoever blocks the leader's loop.
        """
        if self.thread == threading.get_ident():
            return False
        self._count_waiter()
        self.done.wait()
        return True

    async def answer_async(self) -> bool:
        import asyncio

        self._count_waiter()
        landed = asyncio.Event()
        self._wakers.append(partial(asyncio.get_running_loop().call_soon_threadsafe, landed.set))
        if not self.done.is_set():
            await landed.wait()
        return True

    def land(self) -> None:
        self.done.set()
        for wake in list(self._wakers):
            with suppress(RuntimeError):  # the waiter's loop was closed: nobody waits there
                wake()


def without_traceback(error: Exception) -> Exception:
    """The same error for a waiter: the leader's traceback holds the leader's frames, plaintext included."""
    twin = type(error).__new__(type(error), *error.args)
    twin.__dict__.update(error.__dict__)
    twin.__cause__, twin.__suppress_context__ = error.__cause__, error.__suppress_context__
    return twin
