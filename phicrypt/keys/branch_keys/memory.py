"""What a process remembers of branch keys across store objects: how new they were, and who holds them."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable
from datetime import datetime

from phicrypt.errors import KeyAccessError
from phicrypt.keys.branch_keys.records import time_of

Forget = Callable[[str], None]


class ProcessMemory:
    """One per process; safe for threads, and kept by a forked child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[Hashable, datetime] = {}
        self._holders: dict[Hashable, list[weakref.WeakMethod[Forget]]] = {}

    def renew_lock(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def check_not_older(self, row: Hashable, create_time: str) -> None:
        """Remember the time of a row that KMS has authenticated (rule 14).

        Nothing is ever forgotten here, or forgetting would let an old row in: some 300 bytes for each
        branch key. Raises KeyAccessError where a newer time was seen before.
        """
        when = time_of(create_time)
        with self._lock:
            seen = self._newest.get(row)
            if seen is None or when > seen:
                self._newest[row] = when
        if seen is not None and when < seen:
            raise KeyAccessError(
                "the branch key store's row is older than one that this process has seen: an old row was put "
                "back, or the table was restored; restart the process once that is intended",
                operation="GetItem",
                code="BranchKeyRolledBack",
            )

    def add_holder(self, scope: Hashable, forget: Forget) -> None:
        """Have the bound method called by :meth:`forget`; held weakly."""
        with self._lock:
            holders = [holder for holder in self._holders.get(scope, ()) if holder() is not None]
            self._holders[scope] = [*holders, weakref.WeakMethod(forget)]

    def forget(self, scope: Hashable, branch_key_id: str) -> None:
        """Tell every holder of branch keys of this scope to drop this one."""
        with self._lock:
            holders = list(self._holders.get(scope, ()))
        for holder in holders:
            forget = holder()
            if forget is not None:
                forget(branch_key_id)


process_memory = ProcessMemory()
os.register_at_fork(after_in_child=process_memory.renew_lock)
