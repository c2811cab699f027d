"""The work of a branch key store as steps without I/O, and what a process remembers of branch keys.

:class:`~phicrypt.keys.branch_keys.store.BranchKeyStore` runs the steps with boto3 and records them; a
keyring that fetches within a use that is recorded already takes the steps themselves. What is read, in
which order, what KMS must prove of it and when an old row is refused stands here, once for every driver.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from phicrypt.core.kms_calls import KmsCalls
from phicrypt.core.materials import KeyHolder
from phicrypt.core.steps import Steps
from phicrypt.errors import KeyAccessError
from phicrypt.keys.branch_keys import records
from phicrypt.keys.branch_keys.kms import BranchKeyKms
from phicrypt.keys.branch_keys.records import ACTIVE_TYPE, BEACON_TYPE, BranchKeyRecord, format_time, time_of
from phicrypt.keys.branch_keys.table import BranchKeyTable
from phicrypt.keys.branch_keys.values import BeaconKey, BranchKey, check_branch_key_id, no_such_branch_key

T = TypeVar("T")
Forget = Callable[[str], None]

CLOCK_TOLERANCE: Final = timedelta(hours=26)
"""How far two writers' create-times may lie apart (rule 30): AWS's library for Go writes its local time with a
``Z``, and the zones of the world span 26 hours; its library for Java writes milliseconds as microseconds."""
_MAX_READS: Final = 5


@dataclass(slots=True)
class _Seen:
    """What this process saw of one ACTIVE or beacon row.

    Attributes:
        current: the version that was seen last.
        superseded: the versions before it; none of them comes back.
        newest: the newest create-time.
        changes: how often ``current`` has changed.
    """

    current: str
    newest: datetime
    superseded: set[str] = field(default_factory=set)
    changes: int = 0


class ProcessMemory:
    """One per process; safe for threads, and kept by a forked child."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[Hashable, _Seen] = {}
        self._holders: dict[Hashable, list[weakref.WeakMethod[Forget]]] = {}

    def renew_lock(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def changes(self, row: Hashable) -> int:
        """How often the row's version has changed: taken before the row is read, and given to :meth:`see`."""
        with self._lock:
            seen = self._seen.get(row)
            return seen.changes if seen is not None else 0

    def see(
        self, row: Hashable, version: str, create_time: str, changes: int, tolerance: timedelta = CLOCK_TOLERANCE
    ) -> KeyAccessError | None:
        """Remember a row that KMS has authenticated; the refusal of one that went back (rules 14 and 30).

        An order of times proves nothing among writers with clocks of their own: what was superseded is never
        taken again, and a time is believed to within ``tolerance``. A row that was read before the
        last change is refused as well: read it again.

        Nothing is ever forgotten here, or forgetting would let an old row in: some 400 bytes for each
        branch key.
        """
        when = time_of(create_time)
        with self._lock:
            seen = self._seen.get(row)
            if seen is None:
                self._seen[row] = _Seen(version, when)
                return None
            if version != seen.current:
                if version in seen.superseded or seen.changes != changes or when < seen.newest - tolerance:
                    return _rolled_back(when, seen.newest)
                self._supersede(seen, version)
            seen.newest = max(seen.newest, when)
            return None

    def replaced(self, row: Hashable, former: str, version: str, create_time: str) -> None:
        """This process itself has put a version in the place of a former one."""
        when = time_of(create_time)
        with self._lock:
            seen = self._seen.setdefault(row, _Seen(former, when))
            if seen.current == former:
                self._supersede(seen, version)
            seen.superseded.add(former)
            seen.newest = max(seen.newest, when)

    @staticmethod
    def _supersede(seen: _Seen, version: str) -> None:
        seen.superseded.add(seen.current)
        seen.current = version
        seen.changes += 1

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


def _rolled_back(when: datetime, newest: datetime) -> KeyAccessError:
    return KeyAccessError(
        f"the branch key store's row, created {format_time(when)}, is older than one that this process has seen, "
        f"created {format_time(newest)}: an old row was put back, the table was restored, or another writer's "
        "clock is more than 26 hours off; restart the process once the older row is intended",
        operation="GetItem",
        code="BranchKeyRolledBack",
    )


process_memory = ProcessMemory()
os.register_at_fork(after_in_child=process_memory.renew_lock)


class BranchKeySteps(KeyHolder):
    """What is done with the branch keys of one table. Each method adds the KMS calls made to ``calls``.

    Args:
        table, kms: what the requests are made of; their clients answer them.
        logical_name: the store's.
        scope: what two stores about the same rows have in common.
        max_active_age_seconds: refuse an ACTIVE row that was created longer ago than this and 26 hours.
    """

    def __init__(
        self,
        table: BranchKeyTable,
        kms: BranchKeyKms,
        logical_name: str,
        scope: Hashable,
        max_active_age_seconds: float | None,
    ) -> None:
        self._table = table
        self._kms = kms
        self._logical_name = logical_name
        self._scope = scope
        self._max_active_age_seconds = max_active_age_seconds

    def create(self, branch_key_id: str, custom_context: Mapping[str, str], calls: KmsCalls) -> Steps[str]:
        """A branch key with its first version and its beacon key, in one transaction; the version."""
        version = records.first_version_context(
            branch_key_id,
            logical_name=self._logical_name,
            kms_key_arn=str(self._kms.pinned("create_key")),
            custom_context=custom_context,
        )
        beacon = records.beacon_context(version)
        version_row, active_row = yield from self._wrapped_version(version, calls)
        beacon_row = BranchKeyRecord(beacon, (yield from self._kms.generate(beacon, calls)))
        yield from self._table.write_new([version_row, active_row, beacon_row])
        self._refusal_of(active_row, process_memory.changes(self._row(branch_key_id, ACTIVE_TYPE)))
        return active_row.version

    def rotate(self, branch_key_id: str, calls: KmsCalls) -> Steps[str]:
        """A new version in place of the active one, which KMS authenticates first; the version."""
        old, _ = yield from self._authentic(branch_key_id, ACTIVE_TYPE, self._kms.authenticate, calls)
        version_row, active_row = yield from self._wrapped_version(records.next_version_context(old), calls)
        yield from self._table.write_next_version(old, version_row, active_row)
        row = self._row(branch_key_id, ACTIVE_TYPE)
        process_memory.replaced(row, old.version, active_row.version, active_row.create_time)
        self.tell_keyrings(branch_key_id)
        return active_row.version

    def active(self, branch_key_id: str, calls: KmsCalls | None = None) -> Steps[BranchKey]:
        """The version that encrypts now."""
        self._kms.pinned("fetch_active")
        calls = calls or KmsCalls()
        record, key_bytes = yield from self._authentic(
            check_branch_key_id(branch_key_id), ACTIVE_TYPE, self._kms.decrypt, calls
        )
        self._check_age(record)
        return _branch_key(record, key_bytes, calls)

    def version(self, branch_key_id: str, version: str, calls: KmsCalls | None = None) -> Steps[BranchKey]:
        """One version, by its UUID."""
        calls = calls or KmsCalls()
        row_type = records.version_type(version)
        record = yield from self._record(check_branch_key_id(branch_key_id), row_type)
        return _branch_key(record, (yield from self._kms.decrypt(record, calls)), calls)

    def beacon_key(self, branch_key_id: str, calls: KmsCalls | None = None) -> Steps[BeaconKey]:
        """The beacon key, opened twice."""
        self._kms.pinned("fetch_beacon_key")
        calls = calls or KmsCalls()
        record, key_bytes = yield from self._authentic(
            check_branch_key_id(branch_key_id), BEACON_TYPE, self._kms.decrypt_twice, calls
        )
        return BeaconKey(branch_key_id, key_bytes, context=record.custom_context, call=calls.origin)

    def tell_keyrings(self, branch_key_id: str) -> None:
        """Let every keyring of this process forget what it holds of the branch key."""
        process_memory.forget(self._scope, branch_key_id)

    def _record(self, branch_key_id: str, row_type: str) -> Steps[BranchKeyRecord]:
        item = yield from self._table.read(branch_key_id, row_type)
        if item is None:
            what = {ACTIVE_TYPE: "active branch key", BEACON_TYPE: "beacon key"}.get(row_type, "such version")
            raise no_such_branch_key(f"{what} of that id", operation="GetItem", table_arn=self._table.name)
        return records.parse_record(
            item, branch_key_id=branch_key_id, row_type=row_type, logical_name=self._logical_name
        )

    def _wrapped_version(
        self, version_context: dict[str, str], calls: KmsCalls
    ) -> Steps[tuple[BranchKeyRecord, BranchKeyRecord]]:
        """The version's row and the ACTIVE row that copies it, under one new key."""
        wrapped_key = yield from self._kms.generate(version_context, calls)
        active = records.active_context(version_context)
        copied_key = yield from self._kms.reencrypt(wrapped_key, version_context, active, calls)
        return BranchKeyRecord(version_context, wrapped_key), BranchKeyRecord(active, copied_key)

    def _authentic(
        self,
        branch_key_id: str,
        row_type: str,
        prove: Callable[[BranchKeyRecord, KmsCalls], Steps[T]],
        calls: KmsCalls,
    ) -> Steps[tuple[BranchKeyRecord, T]]:
        """The ACTIVE or beacon row, what KMS proved it by, and not one that went back (rule 14)."""
        for attempt in range(1, _MAX_READS + 1):
            changes = process_memory.changes(self._row(branch_key_id, row_type))
            record = yield from self._record(branch_key_id, row_type)
            proof = yield from prove(record, calls)
            refusal = self._refusal_of(record, changes)
            if refusal is None:
                return record, proof
            # Another thread may have seen a rotation after this one had read: then a consistent read shows it.
            if attempt > 1 and changes == process_memory.changes(self._row(branch_key_id, row_type)):
                break
        assert refusal is not None
        raise refusal

    def _row(self, branch_key_id: str, row_type: str) -> Hashable:
        return self._scope, branch_key_id, row_type

    def _refusal_of(self, record: BranchKeyRecord, changes: int) -> KeyAccessError | None:
        """What :meth:`ProcessMemory.see` says of a record that KMS has authenticated."""
        row = self._row(record.context[records.PARTITION_KEY], record.context[records.SORT_KEY])
        if record.context[records.SORT_KEY] == BEACON_TYPE:
            # It has one version, told by its time, and is never rotated: no other writer's clock comes in.
            return process_memory.see(row, record.create_time, record.create_time, changes, timedelta())
        return process_memory.see(row, record.version, record.create_time, changes)

    def _check_age(self, record: BranchKeyRecord) -> None:
        if self._max_active_age_seconds is None:
            return
        age = datetime.now(UTC) - records.time_of(record.create_time)
        if age.total_seconds() > self._max_active_age_seconds + CLOCK_TOLERANCE.total_seconds():
            raise KeyAccessError(
                f"the active branch key is older than max_active_age_seconds ({self._max_active_age_seconds}) and "
                "the 26 hours that other writers' clocks may be off: rotate it, and check that no old row was "
                "put back",
                operation="GetItem",
                code="BranchKeyTooOld",
                key_arn=self._table.name,
            )


def _branch_key(record: BranchKeyRecord, key_bytes: bytes, calls: KmsCalls) -> BranchKey:
    branch_key_id = record.context[records.PARTITION_KEY]
    return BranchKey(
        branch_key_id,
        record.version,
        key_bytes,
        create_time=record.create_time,
        context=record.custom_context,
        call=calls.origin,
    )
