"""SIGTERM ends a command the way Ctrl-C does: what it has begun to write is taken away first."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Final, NoReturn

TERMINATED_EXIT_CODE: Final = 128 + signal.SIGTERM


def end_quietly_on_sigterm() -> None:
    """Let SIGTERM unwind the stack of the main thread, so that ``finally`` blocks run."""
    signal.signal(signal.SIGTERM, _unwind)


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    # A second signal must not interrupt the clean-up that the first one has started.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise SystemExit(TERMINATED_EXIT_CODE)
