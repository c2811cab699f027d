"""How events reach their sinks: written through, or buffered within a bound.

There is no lock around a sink: a sink orders and protects its own writes, and may itself use keys.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from phicrypt.audit.events import AuditEvent
from phicrypt.errors import AuditError, ConfigurationError

_log = logging.getLogger("phicrypt.audit")


class SinkError(Exception):
    """A sink did not take all events; ``written`` is how many of the leading ones it stored."""

    def __init__(self, message: str, *, written: int) -> None:
        super().__init__(message)
        self.written = written


@runtime_checkable
class AuditSink(Protocol):
    """Where events go. Bring your own by writing these two methods."""

    def write(self, events: Sequence[AuditEvent]) -> None:
        """Store the events, in this order, before returning. Called by any thread, also at once by several.

        Raise :class:`SinkError` if that fails; after any other exception none counts as stored.
        """
        ...

    def close(self) -> None:
        """Store what is held back and release resources; writing again afterwards may reopen."""
        ...


@dataclass(frozen=True, slots=True)
class Delivery:
    """When events are written, and what happens if they cannot be.

    Attributes:
        max_buffered_events: 0 writes each event before the operation goes on, and a sink that fails
            stops the operation. Otherwise this many events may wait in memory, where the death of
            the process loses them; the operation is stopped when the buffer is full.
        max_delay_seconds: how long a buffered event waits at most before it is written.
        batch_events: so many waiting events are written at once, by the thread that adds the last.
    """

    max_buffered_events: int = 0
    max_delay_seconds: float = 0.5
    batch_events: int = 128

    def __post_init__(self) -> None:
        if not 0 <= self.max_buffered_events <= 1_000_000:
            raise ConfigurationError("max_buffered_events is between 0 and 1,000,000")
        if self.batch_events < 1:
            raise ConfigurationError("batch_events is at least 1")
        if not 0.01 <= self.max_delay_seconds <= 60:
            raise ConfigurationError("max_delay_seconds is between 0.01 and 60")


WRITE_THROUGH: Final = Delivery()
"""Default for whatever opens: no event, no plaintext."""
BUFFERED: Final = Delivery(max_buffered_events=10_000)
"""Default for whatever seals."""


@dataclass(frozen=True, slots=True)
class WithPolicy:
    """A sink with policies of its own, to stand in a trail's list of sinks."""

    sink: AuditSink
    encrypt_policy: Delivery = BUFFERED
    decrypt_policy: Delivery = WRITE_THROUGH


class Channel:
    """One sink and the events that wait for it."""

    __slots__ = (
        "__weakref__",
        "_failing",
        "_pid",
        "_waiting",
        "_wake",
        "decrypt_policy",
        "encrypt_policy",
        "sink",
    )

    def __init__(self, sink: AuditSink, encrypt_policy: Delivery, decrypt_policy: Delivery) -> None:
        self.sink = sink
        self.encrypt_policy = encrypt_policy
        self.decrypt_policy = decrypt_policy
        self._waiting: deque[AuditEvent] = deque()
        self._wake: threading.Event | None = None
        self._pid = 0
        self._failing = False
        _channels.add(self)
        # When the trail is dropped, and when the interpreter ends.
        weakref.finalize(self, _flush, sink, self._waiting)

    def deliver(self, event: AuditEvent, policy: Delivery) -> None:
        """Write the event, or let it wait, as the policy says. Raises AuditError."""
        if not policy.max_buffered_events:
            self._write_through(event)
            return
        waiting = self._waiting
        if len(waiting) >= policy.max_buffered_events:
            self.flush()
            if len(waiting) >= policy.max_buffered_events:
                raise AuditError(
                    f"{len(waiting)} audit events wait and {type(self.sink).__name__} does not take them; "
                    "the operation was stopped. See the log for the sink's error",
                    **self._names(),
                )
        waiting.append(event)
        if len(waiting) >= policy.batch_events and not self._failing:
            self.flush()
        elif self._wake is None:
            self._start_flusher(policy.max_delay_seconds)
        elif not self._wake.is_set():
            self._wake.set()

    def let_wait(self, event: AuditEvent) -> None:
        """Append without any lock or I/O: safe while an object is being collected."""
        self._waiting.append(event)

    def flush(self) -> bool:
        """Write what waits; False (and a logged error) if the sink failed, with the events still waiting."""
        succeeded = _flush(self.sink, self._waiting, quiet=self._failing)
        self._failing = not succeeded
        return succeeded

    def forget_in_child(self) -> None:
        """After a fork: what waits is the parent's to write."""
        self._waiting.clear()
        self._wake = None

    def _write_through(self, event: AuditEvent) -> None:
        batch: list[AuditEvent] = []
        try:
            if self._waiting:
                _take_into(batch, self._waiting)
            batch.append(event)
            self.sink.write(batch)
        except BaseException as error:
            # Interrupted, it may be stored or not: twice is better than never, and readers count it once.
            unwritten = [other for other in batch[_written(error) :] if other is not event]
            refused = isinstance(error, Exception)
            self._waiting.extendleft(reversed(unwritten if refused else [*unwritten, event]))
            if not refused:
                raise
            # A sink's own words name the place and the reason; any other error's may hold anything.
            reason = f": {error}" if isinstance(error, SinkError) else ""
            raise AuditError(
                f"the audit event could not be written by {type(self.sink).__name__} "
                f"({type(error).__name__}{reason}), so the operation was stopped",
                **self._names(),
            ) from error

    def _names(self) -> dict[str, str]:
        return {"sink": type(self.sink).__name__, "where": str(getattr(self.sink, "where", ""))}

    def _start_flusher(self, max_delay_seconds: float) -> None:
        self._wake = wake = threading.Event()
        wake.set()
        util = sys.modules.get("multiprocessing.util")
        if util is not None:  # its workers end without running what was registered for the exit
            util.Finalize(self, _flush, args=(self.sink, self._waiting), exitpriority=100)
        thread = threading.Thread(
            target=_flush_periodically,
            args=(weakref.ref(self), wake, max_delay_seconds),
            name="phicrypt-audit-flusher",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:  # the interpreter is on its way out
            self.flush()


_channels: weakref.WeakSet[Channel] = weakref.WeakSet()


def _forget_in_child() -> None:
    for channel in _channels:
        channel.forget_in_child()


os.register_at_fork(after_in_child=_forget_in_child)


def _take_into(batch: list[AuditEvent], waiting: deque[AuditEvent]) -> None:
    """Move all that waits, in one call that no signal interrupts: no event is ever in neither place."""
    with suppress(IndexError):  # nothing waits any more
        batch.extend(iter(waiting.popleft, None))


def _flush(sink: AuditSink, waiting: deque[AuditEvent], *, quiet: bool = False) -> bool:
    batch: list[AuditEvent] = []
    try:
        _take_into(batch, waiting)
        if batch:
            sink.write(batch)
    except BaseException as error:
        waiting.extendleft(reversed(batch[_written(error) :]))
        if not isinstance(error, Exception):
            raise
        if not quiet:
            reason = error if isinstance(error, SinkError) else type(error).__name__
            _log.error("audit sink %s failed: %s", type(sink).__name__, reason)
        return False
    return True


def _written(error: BaseException) -> int:
    return error.written if isinstance(error, SinkError) else 0


def _flush_periodically(reference: weakref.ref[Channel], wake: threading.Event, max_delay_seconds: float) -> None:
    pause = threading.Event()
    while True:
        # A timeout, so that the thread ends some time after its channel is gone.
        woken = wake.wait(timeout=60)
        if woken:
            pause.wait(max_delay_seconds)
            wake.clear()
        channel = reference()
        if channel is None:
            return
        if woken and not channel.flush():
            wake.set()
        del channel
