"""Sinks that have something witnessed every so many records and seconds, and at the end: anchors, checkpoints."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence

from phicrypt.audit.events import AuditEvent
from phicrypt.audit.sinks.chain import ChainHead
from phicrypt.audit.sinks.jsonl import JsonlSink
from phicrypt.audit.trail import AuditTrail
from phicrypt.errors import ConfigurationError, PhiCryptError
from phicrypt.witness.checkpoints import Checkpoints

_log = logging.getLogger("phicrypt.audit")


class PeriodicSink(ABC):
    """A JSONL sink around which a thread of its own calls :meth:`_witness`.

    Whatever fails there never delays or stops an operation; ``last_error`` and the log tell.
    """

    def __init__(self, sink: JsonlSink, *, every_records: int, every_seconds: float) -> None:
        if every_records < 1 or every_seconds < 0.01:
            raise ConfigurationError("every_records is at least 1, every_seconds at least 0.01")
        self._sink = sink
        self._every_records = every_records
        self._every_seconds = every_seconds
        self._unanchored = 0
        self._newest: AuditEvent | None = None
        self._pid = 0
        self._wake = threading.Event()
        self._witnessing = threading.Lock()
        self.last_error: PhiCryptError | None = None

    @property
    def head(self) -> ChainHead | None:
        """The newest record of this process's chain."""
        return self._sink.head

    def write(self, events: Sequence[AuditEvent]) -> None:
        """Append the events to the chain. Raises SinkError."""
        self._sink.write(events)
        self._unanchored += len(events)
        self._newest = events[-1]
        if self._pid != os.getpid():
            self._start()
        if self._unanchored >= self._every_records and not self._wake.is_set():
            self._wake.set()

    def _finish(self) -> None:
        """Have witnessed what is not yet, then close the sink."""
        try:
            if self._unanchored and self._pid == os.getpid():
                self._witness()
        except PhiCryptError as error:
            self._complain(error)
        finally:
            self._pid = 0
            self._wake.set()
            self._sink.close()

    @abstractmethod
    def _witness(self) -> None:
        """Have witnessed what was written. Raises PhiCryptError."""

    def _trail(self) -> AuditTrail:
        """Records in the same chain, in the name of the application whose chain it is."""
        newest = self._newest
        return AuditTrail(
            [self._sink],
            application=newest.application if newest is not None else None,
            principal=newest.principal if newest is not None else None,
        )

    def _start(self) -> None:
        """Begin the thread of this process; after a fork, the child's own."""
        self._pid = os.getpid()
        self._unanchored = min(self._unanchored, 1)
        self._wake = threading.Event()
        self._witnessing = threading.Lock()
        threading.Thread(
            target=_witness_periodically,
            args=(weakref.ref(self), self._wake, self._every_seconds, self._pid),
            name="phicrypt-audit-witness",
            daemon=True,
        ).start()

    def _complain(self, error: PhiCryptError) -> None:
        if self.last_error is None:
            _log.error("the audit log could not be witnessed: %s", getattr(error, "code", error))
        self.last_error = error


def check_same_log(sink: JsonlSink, checkpoints: Checkpoints | None) -> None:
    """Raise ConfigurationError for the checkpoints of another log than the sink writes."""
    if checkpoints is not None and checkpoints.path.absolute() != sink.path.absolute():
        raise ConfigurationError(
            f"the sink writes {sink.path} and the checkpoints are of {checkpoints.path}: give both the same path"
        )


def _witness_periodically(
    reference: weakref.ref[PeriodicSink], wake: threading.Event, every_seconds: float, pid: int
) -> None:
    while True:
        wake.wait(timeout=every_seconds)
        sink = reference()
        if sink is None or sink._pid != pid:
            return
        wake.clear()
        try:
            if sink._unanchored:
                sink._witness()
        except PhiCryptError as error:
            sink._complain(error)
        except Exception:  # noqa: BLE001 - whatever goes wrong here must not end the witnessing
            _log.exception("the audit log could not be witnessed")
        if sink.last_error is not None:
            del sink
            time.sleep(min(every_seconds, 5.0))
        else:
            del sink


class CheckpointedSink(PeriodicSink):
    """A JSONL sink of whose log a checkpoint is signed every so many records and seconds, and at the end.

    ``CheckpointedSink(JsonlSink(path), Checkpoints(path, key))``; with anchors in CloudTrail as well, give the
    checkpoints to :class:`~phicrypt.witness.anchors.AnchoredSink` instead.

    Args:
        sink: the sink with the chain.
        checkpoints: of the same log.
        every_records, every_seconds: as of ``AnchoredSink``.
    """

    def __init__(
        self,
        sink: JsonlSink,
        checkpoints: Checkpoints,
        *,
        every_records: int = 10_000,
        every_seconds: float = 300,
    ) -> None:
        super().__init__(sink, every_records=every_records, every_seconds=every_seconds)
        check_same_log(sink, checkpoints)
        self._checkpoints = checkpoints

    def __repr__(self) -> str:
        return f"<CheckpointedSink around {self._sink!r}>"

    def close(self) -> None:
        """Sign a checkpoint over what has none yet, then close the sink."""
        self._finish()

    def _witness(self) -> None:
        with self._witnessing:
            count = self._unanchored
            self._checkpoints.checkpoint(trail=self._trail())
            self._unanchored = max(0, self._unanchored - count)
            self.last_error = None
