"""Threads of phicrypt's own, in which keys are fetched while their callers wait with a deadline (rule 29).

A synchronous call of botocore cannot be cut off: a server that sends a byte a second holds it for as long as
it likes. So a caller whose deadline passes leaves, and the thread stays behind with the call; it is counted
as hung until the call ends. Both kinds are bounded, and where too many hang, work is refused at once.

The threads are daemons, so that a hung call keeps no process from ending, and end when they are idle. A
forked child has none of its parent's.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import weakref
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

MAX_WAITED_FOR: Final = 64
"""Threads whose callers wait; more callers queue, within their deadlines."""
MAX_HUNG: Final = 128
"""Threads whose callers gave up. Beyond it nothing is begun until one of the calls ends."""
_IDLE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class ThreadStats:
    """phicrypt's own threads in this process.

    Attributes:
        threads: how many there are.
        waited_for: pieces of work whose callers wait, queued ones included.
        hung: calls that go on though their callers gave up.
    """

    threads: int
    waited_for: int
    hung: int


class TooManyHung(Exception):  # noqa: N818  (an outcome that the caller tells apart)
    """Every thread that may hang does."""


class Job(Generic[T]):
    """Work that one of the threads does while its caller waits.

    Attributes:
        has_begun, is_done: whether a thread does it, or did it.
        is_abandoned: whether the caller gave up.
    """

    __slots__ = ("_context", "_done", "_failure", "_result", "_work", "has_begun", "is_abandoned", "is_done")

    def __init__(self, work: Callable[[], T]) -> None:
        self._work: Callable[[], T] | None = work
        self._context = copy_context()
        # A bare lock: an Event takes ten times as long to wait for.
        self._done = threading.Lock()
        self._done.acquire()
        self._result: T | None = None
        self._failure: BaseException | None = None
        self.has_begun = self.is_done = self.is_abandoned = False

    def wait(self, seconds: float | None) -> bool:
        """Wait until it is done, or so long; whether it is."""
        return self._done.acquire(timeout=-1 if seconds is None else min(max(0.0, seconds), threading.TIMEOUT_MAX))

    def outcome(self) -> T:
        """The result of work that is done; raises what it raised. Once."""
        failure, result = self._failure, self._result
        self._failure = self._result = None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # its traceback holds this frame
        return result  # type: ignore[return-value]  # (of type T, where nothing failed)

    def perform(self) -> None:
        """For the thread: do the work, unless nobody waits for it any more."""
        work, self._work = self._work, None
        assert work is not None
        try:
            self._result = self._context.run(work)
        except BaseException as error:  # noqa: BLE001  (it is the caller's)
            self._failure = error
        del work


class KeyThreads:
    """A bounded number of daemon threads.

    Args:
        max_waited_for, max_hung: see the module's head.
        idle_seconds: a thread that has nothing to do for so long ends.
    """

    def __init__(
        self,
        *,
        max_waited_for: int = MAX_WAITED_FOR,
        max_hung: int = MAX_HUNG,
        idle_seconds: float = _IDLE_SECONDS,
    ) -> None:
        self.max_waited_for = max_waited_for
        self.max_hung = max_hung
        self._idle_seconds = idle_seconds
        self._reset()
        _all_threads.add(self)

    def _reset(self) -> None:
        # Reentrant: a signal's handler may fetch a key in the midst of this.
        self._lock = threading.RLock()
        self._jobs: queue.SimpleQueue[Job[Any]] = queue.SimpleQueue()
        self._threads = 0
        self._unfinished = 0
        self._waited_for = 0
        self._hung = 0

    def stats(self) -> ThreadStats:
        """A snapshot of the counts."""
        with self._lock:
            return ThreadStats(self._threads, self._waited_for, self._hung)

    def start(self, work: Callable[[], T]) -> Job[T] | None:
        """Have a thread do the work; None where no thread can be had, as at a process's end.

        Raises TooManyHung.
        """
        if sys.is_finalizing():
            return None
        job = Job(work)
        with self._lock:
            if self._hung >= self.max_hung:
                raise TooManyHung
            self._unfinished += 1
            self._waited_for += 1
            self._jobs.put(job)
            self._grow()
            if not self._threads:
                self.abandon(job)
                return None
        return job

    def abandon(self, job: Job[Any]) -> bool:
        """Nobody waits for it any more; False if it is done. What has not begun is not done at all."""
        with self._lock:
            if job.is_done or job.is_abandoned:
                return job.is_abandoned
            job.is_abandoned = True
            self._waited_for -= 1
            if job.has_begun:
                self._hung += 1
                self._grow()  # for those who queue behind it
        return True

    def _grow(self) -> None:
        if self._unfinished <= self._threads or self._threads - self._hung >= self.max_waited_for:
            return
        self._threads += 1
        try:
            threading.Thread(target=self._serve, args=(self._jobs,), name="phicrypt-keys", daemon=True).start()
        except RuntimeError:  # the system has no more threads, or the interpreter takes none at its end
            self._threads -= 1

    def _serve(self, jobs: queue.SimpleQueue[Job[Any]]) -> None:
        _here.is_key_thread = True
        while jobs is self._jobs:  # else this is a child's copy of a thread that forked
            try:
                job = jobs.get(timeout=self._idle_seconds)
            except queue.Empty:
                with self._lock:
                    if jobs is self._jobs and jobs.empty():
                        self._threads -= 1
                        return
                continue
            self._do(job)
            del job

    def _do(self, job: Job[Any]) -> None:
        with self._lock:
            job.has_begun = not job.is_abandoned
        if job.has_begun:
            job.perform()
        with self._lock:
            job.is_done = True
            self._unfinished -= 1
            if not job.is_abandoned:
                self._waited_for -= 1
            elif job.has_begun:
                self._hung -= 1
        job._done.release()


_all_threads: weakref.WeakSet[KeyThreads] = weakref.WeakSet()
_here = threading.local()

KEY_THREADS: Final = KeyThreads()
"""Those of this process."""


def is_key_thread() -> bool:
    """Whether this is one of the threads: what it fetches needs no other."""
    return getattr(_here, "is_key_thread", False)


def _forget_parents_threads() -> None:
    _here.is_key_thread = False
    for threads in list(_all_threads):
        threads._reset()


os.register_at_fork(after_in_child=_forget_parents_threads)
