"""A run of the laboratory: workers, faults, a progress line, and a report that judges."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from phicrypt.evidence.verify import verify

from .calls import KEYS, TABLE
from .contents import bytes_of, named
from .footprint import Footprint
from .kinds import FAULTS
from .ledger import ABSENT, Ledger
from .proxy import some_faults
from .stage import BUCKET, Desk, Stage, stage
from .worker import Worker

MAX_GROWTH_MIB: Final = 48.0
ENOUGH_CALLS: Final = 3_000
"""From here on the local servers' own memory has stopped growing."""
MAX_MORE_DESCRIPTORS: Final = 24
MAX_MORE_THREADS: Final = 12
_SETTLE_SECONDS: Final = 6.0


@dataclass
class Report:
    """What a run found.

    Attributes:
        violations: of the invariants; empty if all hold.
        counts: of calls, reads, writes and errors by class.
        faults: of exchanges by fault.
        footprints: early and at the end.
    """

    seed: int
    seconds: float
    workers: int
    violations: list[tuple[str, str]]
    counts: Counter[str]
    faults: Counter[str]
    footprints: list[Footprint] = field(default_factory=list)

    def text(self) -> str:
        pace = f"{self.counts['calls']} calls in {self.seconds:.0f} s by {self.workers} workers"
        exchanges = sum(self.faults.values())
        lines = [f"seed {self.seed}: {pace}, {exchanges} exchanges, {len(self.violations)} violations"]
        lines += [f"  {count:>7}  {name or 'no fault'}" for name, count in sorted(self.faults.items())]
        lines += [f"  {count:>7}  {name}" for name, count in sorted(self.counts.items())]
        for one in self.footprints:
            lines.append(f"  {one.memory_mib} MiB, {one.descriptors} descriptors, {one.threads} threads")
        lines += [f"VIOLATION {kind}: {what}" for kind, what in self.violations]
        return "\n".join(lines)


def run(
    *,
    seed: int,
    calls: int | None = None,
    seconds: float | None = None,
    workers: int = 8,
    rate: float = 0.08,
    faults: Sequence[str] = tuple(FAULTS),
    progress: Callable[[str], None] = lambda line: None,
) -> Report:
    """So many calls, or so long, whichever ends first."""
    with (
        tempfile.TemporaryDirectory(prefix="phicrypt-faults-") as name,
        _temporary_files_in(Path(name)),
        stage(Path(name), seed) as made,
    ):
        laboratory = _Laboratory(made, seed, workers)
        return laboratory.run(calls, seconds, some_faults(rate, faults), progress)


class _Laboratory:
    def __init__(self, made: Stage, seed: int, workers: int) -> None:
        self.stage = made
        self.seed = seed
        self.workers = [Worker(made, number, seed) for number in range(workers)]
        self._left_lock = threading.Lock()

    def run(
        self, calls: int | None, seconds: float | None, choose: Any, progress: Callable[[str], None]
    ) -> Report:
        started = time.monotonic()
        until = started + (seconds or 86_400)
        left = calls if calls is not None else 10**9
        footprints: list[Footprint] = []
        for worker in self.workers:
            worker.desk.forget_keys()
        self.stage.proxy.choose = choose
        warm = threading.Event()

        def work(worker: Worker) -> None:
            nonlocal left
            while time.monotonic() < until:
                with self._left_lock:
                    if left <= 0:
                        return
                    left -= 1
                worker.make_call()
                if len(self.stage.kms.requests) > 2_000:
                    self.stage.kms.requests.clear()

        threads = [threading.Thread(target=work, args=(worker,)) for worker in self.workers]
        for thread in threads:
            thread.start()
        warm_after = min(calls * 0.4 if calls is not None else 1e9, (seconds or 1e9) * 20)
        next_line, told = started + 10, 0
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.2)
            done = sum(worker.ledger.counts["calls"] for worker in self.workers)
            late = seconds is not None and time.monotonic() - started > seconds * 0.4
            if not warm.is_set() and (done >= warm_after or late):
                warm.set()
                footprints.append(Footprint.now())
            if time.monotonic() > next_line:
                next_line += 10
                bad = sum(len(worker.ledger.violations) for worker in self.workers)
                progress(f"{time.monotonic() - started:6.0f} s  {done} calls, {bad} violations, {Footprint.now()}")
                told = self._tell_news(told, progress)
        return self._concluded(started, footprints)

    def _tell_news(self, told: int, progress: Callable[[str], None]) -> int:
        """Tell each violation when it is found; how many were told."""
        found = [one for worker in self.workers for one in worker.ledger.violations]
        for kind, what in found if len(found) > told else ():
            progress(f"    {kind}: {what[:300]}")
        return len(found)

    def _concluded(self, started: float, footprints: list[Footprint]) -> Report:
        """Look at everything without a fault, past the proxy."""
        proxy, ledger = self.stage.proxy, Ledger()
        proxy.choose = lambda request, chance: None
        self._settle(footprints)
        for worker in self.workers:
            self._look(worker)
        self._check_uploads(ledger)
        for place in proxy.leaks:
            ledger.violated("canary", place)
        for worker in self.workers:
            worker.close()
        if self.stage.uses.waiting:
            ledger.counts["audit: late uses"] += self.stage.uses.waiting
        self._check_log(ledger)
        left = [path.name for path in self.stage.folder.iterdir() if path != self.stage.log]
        left = [name for name in left if not name.startswith(self.stage.log.name)]
        if left:
            ledger.violated("left on disk", ", ".join(left))
        footprints.append(Footprint.now())
        whole = ledger.merged(worker.ledger for worker in self.workers)
        self._check_footprint(footprints, whole)
        return Report(
            self.seed,
            time.monotonic() - started,
            len(self.workers),
            whole.violations,
            whole.counts,
            proxy.counts,
            footprints,
        )

    def _settle(self, footprints: list[Footprint]) -> None:
        """What is still on its way through the proxy arrives, or gives up."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < deadline and threading.active_count() > (
            footprints[0].threads if footprints else 0
        ):
            time.sleep(0.1)

    def _look(self, worker: Worker) -> None:
        """Every acknowledged write is readable and equal; everything else is absent, or was refused."""
        true = Desk(self.stage, "", worker.desk.branch_key_id)
        for under, message, content, context in worker.messages:
            opened = self._read(
                worker, lambda u=under, m=message, c=context: getattr(true, u).decrypt(m, context=c)
            )
            if opened is not None and opened != bytes_of(content):
                worker.ledger.violated("wrong", "a message opened to another plaintext")
            worker.ledger.counts["looked at: messages"] += 1
        for place in list(worker.ledger.places.values()):
            kind, name = place.name
            if kind == "s3":
                self._look_at_object(worker, true, place, name)
        for number in range(KEYS):
            item_key = {"clinic": {"S": worker.tag}, "patient_id": {"S": str(number)}}
            place = worker.ledger.place("item", number)
            item = self._read(worker, lambda k=item_key: true.dynamodb.get_item(TableName=TABLE, Key=k))
            if item is not None:
                found = item.get("Item")
                value = (found["note"]["S"], int(found["count"]["N"])) if found else ABSENT
                worker.ledger.judge_read(place, value, was_lied_to=False)
            worker.ledger.counts["looked at: items"] += 1
        true.close()

    def _look_at_object(self, worker: Worker, true: Desk, place: Any, name: str) -> None:
        worker.ledger.counts["looked at: objects"] += 1
        try:
            read = true.s3.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        except true.raw_s3.exceptions.NoSuchKey:
            worker.ledger.judge_read(place, ABSENT, was_lied_to=False)
        except Exception as error:
            worker.ledger.violated("lost", f"{place.name}: {type(error).__name__}: {error}")
        else:
            worker.ledger.judge_read(place, named(read, worker.known(place)), was_lied_to=False)

    def _read(self, worker: Worker, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except Exception as error:
            worker.ledger.violated("lost", f"{type(error).__name__}: {error}")
            return None

    def _check_uploads(self, ledger: Ledger) -> None:
        """What is left over is found and aborted by the sweep, as for a process that was killed."""
        true = Desk(self.stage, "", self.workers[0].desk.branch_key_id)
        left = true.s3.abort_incomplete(BUCKET, older_than_seconds=0)
        ledger.counts["uploads that the sweep aborted"] = len(left)
        if true.s3.abort_incomplete(BUCKET, older_than_seconds=0, dry_run=True):
            ledger.violated("multipart", "uploads are left after the sweep")

    def _check_log(self, ledger: Ledger) -> None:
        result = verify(self.stage.log)
        ledger.counts["audit: records of the log"] = result.records
        if not result.is_valid:
            ledger.violated("audit", f"{result.what_it_proves()}")

    def _check_footprint(self, footprints: list[Footprint], ledger: Ledger) -> None:
        early, late = footprints[0], footprints[-1]
        if ledger.counts["calls"] >= ENOUGH_CALLS and late.memory_mib - early.memory_mib > MAX_GROWTH_MIB:
            ledger.violated("memory", f"{early.memory_mib} to {late.memory_mib} MiB")
        if late.descriptors - early.descriptors > MAX_MORE_DESCRIPTORS:
            ledger.violated("descriptors", f"{early.descriptors} to {late.descriptors}")
        if late.threads - early.threads > MAX_MORE_THREADS:
            ledger.violated("threads", f"{early.threads} to {late.threads}")


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Temporary files go to a folder of the run's own, where what is left of them is seen."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
