"""``StdoutSink``: events as lines on standard output, for Lambda and containers."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from phicrypt.audit.delivery import SinkError
from phicrypt.audit.events import AuditEvent
from phicrypt.audit.sinks.chained import ChainedSink
from phicrypt.errors import AuditError


class StdoutSink(ChainedSink):
    """Writes each event as one line of JSON with a hash chain, see :mod:`phicrypt.audit.sinks.chain`.

    ``AuditTrail([StdoutSink()])``. Whoever collects the output, such as CloudWatch Logs, keeps the lines among
    those of the program; ``phicrypt audit verify`` reads what CloudWatch exports. Each line is a write of its
    own, because collectors make an event of each. That a line was written does not show that it was
    collected: a chain that ends early is found against its anchors only.

    Args:
        descriptor: where to write, standard output by default.

    Raises AuditError at once if the descriptor is closed.
    """

    def __init__(self, descriptor: int = 1) -> None:
        super().__init__(where=f"descriptor {descriptor}")
        try:
            os.fstat(descriptor)
        except OSError as error:
            raise AuditError(
                f"StdoutSink cannot write to descriptor {descriptor}: {error.strerror}",
                sink="StdoutSink",
                where=self.where,
            ) from None
        self._descriptor = descriptor

    def __repr__(self) -> str:
        return f"<StdoutSink to {self.where}>"

    def close(self) -> None:
        """End the chain; standard output stays open. A later write begins a new chain."""
        with self._lock:
            self._chain = None

    def _write_now(self, events: Sequence[AuditEvent]) -> None:
        if self._descriptor == 1 and sys.stdout is not None:
            sys.stdout.flush()  # what the program printed before stands before
        if self._chain is None:
            self._start_chain()
        for done, event in enumerate(events):
            try:
                self._append([event])
            except SinkError as error:
                raise SinkError(str(error), written=done) from error
