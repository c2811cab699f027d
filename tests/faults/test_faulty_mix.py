"""Mixed calls under faults, for a moment: ``python -m tests.faults`` does it for as long as is wanted."""

from __future__ import annotations

import pytest

from faults.kinds import FAULTS
from faults.run import run

SLOW = ("silent", "trickling")
"""Seconds each: they are tried by the command."""


@pytest.mark.parametrize("seed", [1, 2])
def test_mixed_calls_lose_nothing_and_read_nothing_wrong(seed: int) -> None:
    faults = [name for name in FAULTS if name not in SLOW]
    report = run(seed=seed, calls=90, workers=3, rate=0.2, faults=faults)
    assert report.violations == [], report.text()
    assert report.counts["calls"] == 90
    assert report.counts["write: acknowledged"] > 15 and report.counts["read: right"] > 30
    assert {name for name in report.faults if name} <= set(faults)
    assert sum(count for name, count in report.faults.items() if name) > 20


def test_without_a_fault_every_call_ends_well() -> None:
    report = run(seed=3, calls=60, workers=2, rate=0)
    assert report.violations == [], report.text()
    assert set(report.faults) == {""}
    assert not [name for name in report.counts if name.startswith("apart") and "rotation" not in name]
