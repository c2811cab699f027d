"""How long to wait before something is tried again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable


def back_off(
    attempt: int,
    *,
    first_seconds: float,
    longest_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """``back_off(0, first_seconds=0.05, longest_seconds=2)``: wait before the next try.

    A random moment, so that those who failed together do not come back together; at most ``first_seconds``
    after the first failure (``attempt`` 0), twice as long after each further one, never above
    ``longest_seconds``.
    """
    # A large attempt would overflow a float before the bound could hold it.
    longest = min(longest_seconds, first_seconds * 2 ** min(attempt, 60))
    sleep(random.uniform(0, longest))  # noqa: S311 - not a secret
