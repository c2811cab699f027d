"""Mixed calls under faults, for a moment: ``python -m tests.faults`` does it for as long as is wanted."""

from __future__ import annotations

import pytest

from faults.kinds import FAULTS
from faults.run import run

NOT_YET = ("cut", "cut-whole", "html", "empty", "stale-checksum", "trickling", "flipped", "swapped", "repeated")
"""What only the judging of answers makes harmless (rule 27)."""
SLOW = ("silent", "trickling")


@pytest.mark.parametrize("seed", [1, 2])
def test_mixed_calls_lose_nothing_and_read_nothing_wrong(seed: int) -> None:
    faults = [name for name in FAULTS if name not in (*NOT_YET, *SLOW)]
    report = run(seed=seed, calls=120, workers=3, rate=0.2, faults=faults)
    assert report.violations == [], report.text()
    assert report.counts["calls"] == 120
    assert report.counts["write: acknowledged"] > 20 and report.counts["read: right"] > 40
    assert {name for name in report.faults if name} <= set(faults)
    assert sum(count for name, count in report.faults.items() if name) > 20


def test_without_a_fault_every_call_ends_well() -> None:
    report = run(seed=3, calls=60, workers=2, rate=0)
    assert report.violations == [], report.text()
    assert set(report.faults) == {""}
    assert not [name for name in report.counts if name.startswith("apart") and "rotation" not in name]
