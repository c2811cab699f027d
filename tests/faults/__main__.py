"""``python -m tests.faults``: mixed calls under faults, for so long or so many; the report judges."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for what all tests share

from .kills import run_kills
from .kinds import FAULTS
from .run import run
from .updates import run_updates


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 if an invariant was violated."""
    asked = parser().parse_args(arguments)
    if asked.updates:
        update_report = run_updates(asked.updates, progress=lambda line: print(line, flush=True))
        print(update_report.text())
        return 0 if update_report.is_good else 1
    if asked.kills:
        kill_report = run_kills(asked.kills, asked.seed, progress=lambda line: print(line, flush=True))
        print(kill_report.text())
        return 1 if kill_report.violations else 0
    faults = [name for name in FAULTS if name not in asked.without]
    seconds = asked.minutes * 60 if asked.minutes else None
    calls = asked.calls if asked.calls or seconds else 10_000
    report = run(
        seed=asked.seed,
        calls=calls,
        seconds=seconds,
        workers=asked.workers,
        rate=asked.rate,
        faults=faults,
        progress=lambda line: print(line, flush=True),
    )
    print(report.text())
    return 1 if report.violations else 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, help="stop after so long")
    parser.add_argument("--calls", type=int, help="stop after so many calls (10,000 without --minutes)")
    parser.add_argument("--kills", type=int, help="kill so many processes at their work, and nothing else")
    parser.add_argument("--updates", type=int, help="so many conditional updates by 4 processes, and nothing else")
    parser.add_argument("--seed", type=int, default=1, help="every choice follows from it (1)")
    parser.add_argument("--workers", type=int, default=8, help="threads that make calls (8)")
    parser.add_argument("--rate", type=float, default=0.08, help="share of exchanges that go wrong (0.08)")
    parser.add_argument("--without", nargs="+", default=[], choices=list(FAULTS), help="faults to leave out")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
