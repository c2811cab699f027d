"""Objects that belong to the process that made them (rule 1).

Frame nonces are sequence numbers. A fork copies an object together with its position, and two
processes that go on from one position seal different plaintexts under one nonce, which gives away
the authentication key. So whatever holds a message's key and a position checks, before it seals,
that it is still in its own process.
"""

from __future__ import annotations

import os

from phicrypt.core.materials import KeyHolder
from phicrypt.errors import UnsupportedOperationError


class ProcessBound(KeyHolder):
    """Base of objects with a message's key and a position: no copy, no pickle, no use after a fork."""

    __slots__ = ("_owner_pid",)

    def __init__(self) -> None:
        self._owner_pid = os.getpid()

    def check_process(self) -> None:
        """Raise UnsupportedOperationError in any process but the one that made this object."""
        if os.getpid() != self._owner_pid:
            raise UnsupportedOperationError(
                f"this {type(self).__name__} was made in another process; after a fork, start a new message "
                "(going on would use a nonce twice)"
            )
