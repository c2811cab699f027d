"""Conditional updates of the local AWS by several processes: none acknowledged is lost."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.lost_updates import TABLES, count_in, create_counters

from phicrypt.testing import local_aws

from .footprint import Footprint

TESTS: Final = Path(__file__).parents[1]
PROCESSES: Final = 4
THREADS: Final = 2
COUNTERS: Final = 16
"""Few enough to collide, and enough to get on."""
MAX_GROWTH_MIB: Final = 32.0


@dataclass
class UpdateReport:
    """Acknowledged and found, by table; footprints of the server's process early and at the end."""

    seconds: float
    acknowledged: dict[str, int]
    found: dict[str, int]
    early: Footprint
    late: Footprint

    @property
    def is_good(self) -> bool:
        grown = self.late.memory_mib - self.early.memory_mib
        return self.acknowledged == self.found and grown <= MAX_GROWTH_MIB

    def text(self) -> str:
        lost = {table: count - self.found[table] for table, count in self.acknowledged.items()}
        memory = f"{self.early.memory_mib} to {self.late.memory_mib} MiB"
        return f"acknowledged {self.acknowledged} in {self.seconds:.0f} s, lost {lost}; server's process: {memory}"


def run_updates(updates: int, progress: Callable[[str], None] = lambda line: None) -> UpdateReport:
    """So many updates of each table, plain and encrypted."""
    started = time.monotonic()
    each = max(1, updates // (PROCESSES * THREADS))
    with local_aws() as aws:
        raw = aws.client("dynamodb")
        create_counters(raw, COUNTERS)
        command = [sys.executable, "-m", "support.lost_updates", aws.endpoint_url, str(each), str(COUNTERS)]
        writers = [
            subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
        ]
        early: Footprint | None = None
        next_line = started + 10
        while any(writer.poll() is None for writer in writers):
            time.sleep(0.2)
            done = sum(count_in(raw, table, COUNTERS) for table in TABLES) if time.monotonic() > next_line else 0
            if done:
                next_line = time.monotonic() + 10
                progress(f"{done} updates, {Footprint.now()}")
                # The list of requests is full by then.
                early = early or (Footprint.now() if len(aws.requests) >= 10_000 else None)
        endings = [writer.communicate()[0] for writer in writers]
        acknowledged = {
            table: sum(int(ending.split(f"{table}=")[1].split()[0]) for ending in endings) for table in TABLES
        }
        found = {table: count_in(raw, table, COUNTERS) for table in TABLES}
        late = Footprint.now()
    return UpdateReport(time.monotonic() - started, acknowledged, found, early or late, late)
