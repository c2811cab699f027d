"""Rows of a global table come to a replica one by one: a version may be named there before it is there."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, TypeVar

from phicrypt.core.steps import Pause, Steps
from phicrypt.errors import KeyAccessError

T = TypeVar("T")

_PAUSES_SECONDS: Final = (0.1, 0.2, 0.4, 0.8)
"""At most, in order; a replica is usually behind by less than a second."""


def once_replicated(fetch: Callable[[], Steps[T]]) -> Steps[T]:
    """What ``fetch`` fetches, a row that another row says is there; asked again where it is not there yet.

    Raises KeyAccessError, at last that there is none.
    """
    for longest_seconds in _PAUSES_SECONDS:
        try:
            return (yield from fetch())
        except KeyAccessError as refusal:
            if refusal.code != "BranchKeyNotFound":
                raise
        yield Pause(random.uniform(longest_seconds / 2, longest_seconds))  # noqa: S311 - not a secret
    return (yield from fetch())
