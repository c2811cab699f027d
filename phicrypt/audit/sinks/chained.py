"""What sinks with a hash chain on a descriptor have in common: one chain, whole lines, one writer at a time."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from phicrypt.audit.delivery import SinkError
from phicrypt.audit.events import AuditEvent
from phicrypt.audit.sinks.chain import Chain, ChainHead

_log = logging.getLogger("phicrypt.audit")
_LINE_FEED: Final = ord("\n")


class ChainedSink(ABC):
    """Threads share one chain; a forked child begins its own. ``where`` says in errors where the events go."""

    def __init__(self, *, where: str, fsync: bool = False) -> None:
        self.where = where
        self._fsync = fsync
        self._lock = threading.RLock()
        self._is_writing = False
        self._reentered: list[AuditEvent] = []
        self._descriptor: int | None = None
        self._chain: Chain | None = None
        self._ends_torn = False
        _sinks.add(self)

    @property
    def head(self) -> ChainHead | None:
        """The newest record of this process's chain."""
        with self._lock:
            return self._chain.head if self._chain is not None else None

    def write(self, events: Sequence[AuditEvent]) -> None:
        """Append the events. Raises SinkError, with the number of events stored, if the disk refuses."""
        with self._lock:
            if self._is_writing:
                # A signal handler or a finalizer, in the midst of this thread's own write.
                self._reentered.extend(events)
                return
            self._is_writing = True
            try:
                self._write_now(events)
                if self._reentered:
                    self._write_reentered()
            finally:
                self._is_writing = False

    @abstractmethod
    def _write_now(self, events: Sequence[AuditEvent]) -> None:
        """Append the events to the chain, which is begun where there is none. Raises SinkError."""

    def _write_reentered(self) -> None:
        while self._reentered:
            batch, self._reentered = self._reentered, []
            try:
                self._write_now(batch)
            except SinkError as error:
                self._reentered = [*batch[error.written :], *self._reentered]
                _log.error("audit events of a signal handler or finalizer wait: %s", error)
                return

    def _append(self, events: Sequence[AuditEvent]) -> None:
        chain, descriptor = self._chain, self._descriptor
        assert chain is not None
        assert descriptor is not None
        done = 0
        try:
            while done < len(events):
                lines, hashes = chain.lines(events[done:] if done else events)
                payload = lines[0] if len(lines) == 1 else b"".join(lines)
                if self._ends_torn:
                    payload = b"\n" + payload
                written = os.write(descriptor, payload)
                if written < len(payload):
                    hashes = hashes[: payload.count(b"\n", 1, written)]
                self._ends_torn = payload[written - 1] != _LINE_FEED
                chain.advance(hashes)
                done += len(hashes)
            if self._fsync:
                os.fsync(descriptor)
        except OSError as error:
            raise SinkError(f"{self.where}: {error.strerror} (errno {error.errno})", written=done) from error
        except BaseException:
            # Interrupted somewhere between the write and the count: a new chain is right in every case.
            self._chain = None
            raise

    def _start_chain(self, **detail: object) -> None:
        """Begin a chain with its first record, which says what stood there before."""
        self._chain = chain = Chain()
        try:
            self._append([chain.start_event(**detail)])
        except SinkError as error:
            self._chain = None
            raise SinkError(str(error), written=0) from error

    def _forget_in_child(self) -> None:
        """After a fork: the chain is the parent's; the descriptor appends for both."""
        self._lock = threading.RLock()
        self._is_writing = False
        self._reentered = []
        self._chain = None


_sinks: weakref.WeakSet[ChainedSink] = weakref.WeakSet()


def _forget_in_child() -> None:
    for sink in _sinks:
        sink._forget_in_child()


os.register_at_fork(after_in_child=_forget_in_child)
