"""Work in a forked child."""

from __future__ import annotations

import os
from collections.abc import Callable


def in_child(work: Callable[[], object]) -> str:
    """Run the work in a forked child; its result as text, or the name of its error."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            outcome = str(work())
        except BaseException as error:
            outcome = type(error).__name__
        os.write(write_end, outcome.encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as answer:
        outcome = answer.read()
    os.waitpid(pid, 0)
    return outcome
