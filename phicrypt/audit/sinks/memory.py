"""Sinks without a file: standard logging, and memory for tests."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from phicrypt.audit.events import AuditEvent


class LoggingSink:
    """Each event as one line of JSON to a logger, at level INFO.

    Handlers of the standard library swallow their own errors (``logging.raiseExceptions``), so this
    sink cannot tell whether an event arrived: do not make it the only one.
    """

    def __init__(self, logger: str = "phicrypt.audit.events", level: int = logging.INFO) -> None:
        self._logger = logging.getLogger(logger)
        self._level = level

    def __repr__(self) -> str:
        return f"<LoggingSink to {self._logger.name!r}>"

    def write(self, events: Sequence[AuditEvent]) -> None:
        """Log the events."""
        for event in events:
            self._logger.log(self._level, "%s", event.to_json())

    def close(self) -> None:
        """Nothing to do: handlers belong to whoever configured them."""


class RecordingSink:
    """Keeps the events in a list, for tests: ``sink.events``."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []

    def write(self, events: Sequence[AuditEvent]) -> None:
        """Append the events."""
        self.events.extend(events)

    def close(self) -> None:
        """Nothing to do."""
