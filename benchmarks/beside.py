"""This checkout beside another one: each bar's own contender, in pairs, one after the other.

A worker process for each checkout stays up while its share of a case is measured; in every round both
measure the same contender, in an order drawn anew, and the round's ratio is this checkout's figure over
the other's: 1.05 means that it takes a twentieth more. The median of the ratios is given with the
interval that holds it in 95 of 100 samples drawn again from the rounds (a bootstrap, seeded). Rounds are
shared among several pairs of processes: where a process happens to have its memory moves its figures too.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.processes import ROOT, JsonProcess

SEED: Final = 14
ROUNDS: Final = 30
PROCESS_PAIRS: Final = 3
LIMIT: Final = 1.10
LIMIT_1_KIB: Final = 1.05
_RESAMPLES: Final = 4_000
_ROUND_SECONDS: Final = 0.25
_MOST_TURNS: Final = 5
_WORKER: Final = Path(__file__).with_name("beside_worker.py")

THIS: Final = "this"
OTHER: Final = "other"


class Worker(Protocol):
    """What answers a request: a process, or in tests whatever stands for one."""

    def ask(self, **request: Any) -> dict[str, Any]: ...


Workers = Mapping[str, Worker]
"""One by side, :data:`THIS` and :data:`OTHER`."""


@dataclass(frozen=True)
class Compared:
    """A contender of a case on both sides.

    Attributes:
        case, subject: what was measured.
        claims: the bars that rest on it.
        unit: of the figures.
        limit: what the upper end of the interval has to stay below.
        this, other: figures, the n-th of both from the n-th round.
        ratio, low, high: median of the ratios and its interval; None if nothing was measured.
        failure: why not.
    """

    case: str
    subject: str
    claims: tuple[str, ...]
    unit: str
    limit: float
    this: tuple[float, ...] = ()
    other: tuple[float, ...] = ()
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    failure: str = ""

    @property
    def is_below(self) -> bool | None:
        """Whether the whole interval is below the limit; None if nothing was measured."""
        return None if self.high is None else self.high < self.limit


def paired_ratios(this: Sequence[float], other: Sequence[float]) -> list[float]:
    """This side's figure over the other's, round by round; two figures of nothing are equal."""
    if len(this) != len(other):
        raise ValueError("both sides have a figure in each round")
    return [
        1.0 if one == two else one / two for one, two in zip(this, other, strict=True) if one == two or two > 0
    ]


def interval(ratios: Sequence[float], *, seed: int = SEED, resamples: int = _RESAMPLES) -> tuple[float, float]:
    """The interval that holds the median of 95 of 100 samples drawn again from these, with replacement."""
    if not ratios:
        raise ValueError("at least one ratio is expected")
    draw = random.Random(seed)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(resamples))
    return medians[round(0.025 * (resamples - 1))], medians[round(0.975 * (resamples - 1))]


def orders(subjects: Sequence[str], rounds: range, *, seed: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """For each round every subject once, in an order drawn anew, each with its sides in the order to be asked."""
    for turn in rounds:
        draw = random.Random(f"{seed} {turn}")
        for subject in draw.sample(subjects, len(subjects)):
            first, second = draw.sample((THIS, OTHER), 2)
            yield subject, (first, second)


def limit_of(case: str) -> float:
    """1.05 for messages of 1 KiB, else 1.10."""
    return LIMIT_1_KIB if "1KiB" in case else LIMIT


def measured(
    case: Mapping[str, Any], start: Callable[[], contextlib.AbstractContextManager[Workers]], rounds: int
) -> list[Compared]:
    """A case's contenders that have a bar, over so many rounds, among several pairs of workers."""
    subjects = list(dict.fromkeys(bar["subject"] for bar in case["bars"]))
    figures: dict[str, dict[str, list[float]]] = {name: {THIS: [], OTHER: []} for name in subjects}
    failures: dict[str, str] = {}
    for share in _shares(rounds, PROCESS_PAIRS):
        try:
            with start() as workers:
                _measure_share(case, workers, share, figures, failures)
        except Exception as error:
            failures |= {name: f"{type(error).__name__}: {error}" for name in subjects if name not in failures}
            break
    return [_compared(case, name, figures[name], failures.get(name, "")) for name in subjects]


def _measure_share(
    case: Mapping[str, Any],
    workers: Workers,
    share: range,
    figures: Mapping[str, Mapping[str, list[float]]],
    failures: dict[str, str],
) -> None:
    opened = {
        side: worker.ask(do="open", group=case["group"], case=case["name"]) for side, worker in workers.items()
    }
    for name in figures:
        for side, answer in opened.items():
            if name not in answer["subjects"] and name not in failures:
                failures[name] = f"{side} checkout: {answer['skipped'].get(name, 'it has no such contender')}"
    able = [name for name in figures if name not in failures]
    for subject, sides in orders(able, share, seed=f"{SEED} {case['name']}"):
        for side, figure in _best_of_turns(workers, subject, sides).items():
            figures[subject][side].append(figure)
    for worker in workers.values():
        worker.ask(do="close")


def _best_of_turns(workers: Workers, subject: str, sides: tuple[str, str]) -> dict[str, float]:
    """The least figure of each side, over a few turns where one is short: what else runs only adds to figures."""
    best: dict[str, float] = {}
    deadline = time.perf_counter() + _ROUND_SECONDS
    for _ in range(_MOST_TURNS):
        for side in sides:
            figure = float(workers[side].ask(do="sample", subject=subject)["value"])
            best[side] = min(figure, best.get(side, figure))
        if time.perf_counter() > deadline:
            break
    return best


def _shares(rounds: int, parts: int) -> list[range]:
    bounds = [rounds * number // parts for number in range(parts + 1)]
    return [range(first, last) for first, last in itertools.pairwise(bounds) if first < last]


def _compared(
    case: Mapping[str, Any], subject: str, figures: Mapping[str, Sequence[float]], failure: str
) -> Compared:
    claims = tuple(bar["claim"] for bar in case["bars"] if bar["subject"] == subject)
    head = Compared(case["name"], subject, claims, case["unit"], limit_of(case["name"]), failure=failure)
    if failure:
        return head
    ratios = paired_ratios(figures[THIS], figures[OTHER])
    low, high = interval(ratios)
    figure = {"ratio": statistics.median(ratios), "low": low, "high": high}
    return Compared(
        **{**head.__dict__, **figure, "this": tuple(figures[THIS]), "other": tuple(figures[OTHER])},
    )


@contextlib.contextmanager
def worker_pair(other: Path, profile_name: str) -> Iterator[Workers]:
    """A process for each checkout."""
    with contextlib.ExitStack() as stack:
        yield {
            side: stack.enter_context(_worker(checkout, profile_name))
            for side, checkout in ((THIS, ROOT), (OTHER, other))
        }


def _worker(checkout: Path, profile_name: str) -> JsonProcess:
    # Equal hashes: the order of sets and the shape of dictionaries shall not differ by chance.
    settings = {"PYTHONPATH": str(checkout), "PYTHONHASHSEED": "0"}
    return JsonProcess([sys.executable, "-P", str(_WORKER), profile_name], folder=checkout, settings=settings)


def cases_with_bars(other: Path, profile_name: str) -> list[dict[str, Any]]:
    """The cases of this checkout that have bars; the other one has to know the first of them at least."""
    with worker_pair(other, profile_name) as workers:
        known = {side: worker.ask(do="list")["cases"] for side, worker in workers.items()}
    if not {case["name"] for case in known[THIS]} & {case["name"] for case in known[OTHER]}:
        raise ValueError(f"{other} has no benchmark with a bar that this checkout has")
    found: list[dict[str, Any]] = known[THIS]
    return found


def as_record(compared: Compared) -> dict[str, Any]:
    """As JSON has it."""
    return {**asdict(compared), "is_below": compared.is_below}
