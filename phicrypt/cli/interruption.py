"""SIGTERM and SIGHUP end a command the way Ctrl-C does: what it has begun to write is taken away."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Final, NoReturn

INTERRUPTED_EXIT_CODE: Final = 128 + signal.SIGINT
TERMINATED_EXIT_CODE: Final = 128 + signal.SIGTERM


def unwind_on_signals() -> None:
    """Let SIGTERM and SIGHUP unwind the stack of the main thread, so that ``finally`` blocks run."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
            signal.signal(number, _unwind)


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    # A second signal must not interrupt the clean-up that the first one has started.
    for other in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(128 + number)
