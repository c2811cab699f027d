"""The measuring core: contenders take turns, round by round, and ratios are taken within each round.

A machine's speed drifts by more than most differences that matter. So no figure of one contender is
ever compared with a figure of another from a different time: in each round every contender is
measured once, and the ratio of two contenders is computed per round. The order is drawn anew for each
round: in a fixed one each contender would meet the memory and files that always the same other one
left behind. The median of those ratios, with its quartiles, is what a bar is held against.
"""

from __future__ import annotations

import fnmatch
import gc
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

Sampler = Callable[[], float]
"""Measures a contender once, in the unit of its case."""

_MAX_CALLS: Final = 1_000_000


class UnavailableError(RuntimeError):
    """A contender cannot run here; the text is the reason that the report gives."""


@dataclass(frozen=True)
class Profile:
    """How much to measure.

    Attributes:
        name: ``"quick"`` or ``"full"``.
        rounds: rounds of a case that is cheap to repeat.
        sample_seconds: how long one sample of such a case lasts at least, by repeating calls.
        budget_seconds: a case ends after the round in which this time is passed since the first began, and
            not before the second: the first finds files, memory and connections that nobody has used yet.
        curve_budget_seconds: the same for one point of a curve.
    """

    name: Literal["quick", "full"]
    rounds: int
    sample_seconds: float
    budget_seconds: float
    curve_budget_seconds: float

    @property
    def is_quick(self) -> bool:
        return self.name == "quick"

    def choose(self, *, quick: Any, full: Any) -> Any:
        return quick if self.is_quick else full


QUICK: Final = Profile("quick", rounds=3, sample_seconds=0.008, budget_seconds=0.6, curve_budget_seconds=0.2)
FULL: Final = Profile("full", rounds=25, sample_seconds=0.02, budget_seconds=20.0, curve_budget_seconds=10.0)


@dataclass(frozen=True)
class Bar:
    """What a case is held against.

    Attributes:
        claim: the row of the table of bars, in words.
        subject: the contender that is judged.
        measure: ``"speedup"`` is reference / subject and ``"cost"`` is subject / reference, per
            round; ``"value"`` is the subject's own figure.
        limit, reach: the bar and the figure to reach for; speed-ups have to be at least, the
            others at most as large.
        reference: the contender it is compared with; ``""`` for values.
    """

    claim: str
    subject: str
    measure: Literal["speedup", "cost", "value"]
    limit: float
    reach: float
    reference: str = ""

    def is_met_by(self, figure: float) -> bool:
        return self._reached(figure, self.limit)

    def is_reached_by(self, figure: float) -> bool:
        return self._reached(figure, self.reach)

    def _reached(self, figure: float, target: float) -> bool:
        return figure >= target if self.measure == "speedup" else figure <= target


@dataclass(frozen=True)
class Case:
    """One named measurement.

    Attributes:
        name: unique; what ``--only`` selects by.
        title: what is measured, in a line.
        contenders: opens what the case needs and gives a sampler by contender, phicrypt first;
            an :class:`UnavailableError` in place of a sampler says why one cannot run.
        unit: of the samples; ``"s"`` per operation, ``"MiB"``, ``"calls"``.
        payload_bytes: plaintext of one operation, for rates; 0 where a rate means nothing.
        bars: rows of the table of bars that this case answers.
        rounds: (quick, full), instead of the profile's.
        curve: (name, unit of x, x) if the case is a point of a curve.
    """

    name: str
    title: str
    contenders: Callable[[Profile], AbstractContextManager[Mapping[str, Sampler | UnavailableError]]]
    unit: str = "s"
    payload_bytes: int = 0
    bars: tuple[Bar, ...] = ()
    rounds: tuple[int, int] | None = None
    curve: tuple[str, str, float] | None = None

    @property
    def group(self) -> str:
        return self.contenders.__module__.rpartition(".")[2]


@dataclass(frozen=True)
class Summary:
    """Samples in a few numbers; ``spread`` is the distance of the quartiles over the median."""

    best: float
    median: float
    first_quartile: float
    third_quartile: float
    spread: float
    count: int


@dataclass
class Outcome:
    """What a case measured: samples by contender, the n-th of each from the n-th round."""

    samples: dict[str, list[float]]
    skipped: dict[str, str] = field(default_factory=dict)
    failure: str = ""
    seconds: float = 0.0


def summarize(samples: Sequence[float]) -> Summary:
    """Best (least), median, quartiles and spread of at least one sample."""
    if not samples:
        raise ValueError("at least one sample is expected")
    median = statistics.median(samples)
    if len(samples) == 1:
        first = third = median
    else:
        first, _, third = statistics.quantiles(samples, n=4, method="inclusive")
    return Summary(min(samples), median, first, third, (third - first) / median if median else 0.0, len(samples))


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """The ratio of two contenders in each round."""
    if len(numerator) != len(denominator):
        raise ValueError("both contenders have a sample in each round")
    return [one / other for one, other in zip(numerator, denominator, strict=True) if other > 0]


def timed(function: Callable[[], object], profile: Profile, *, once: bool = False) -> Sampler:
    """A sampler of seconds per call: as many calls in a row as fill a sample, or one call.

    It calls the function a few times at once, so that caches are warm and the number is known.
    """
    calls = 1
    if not once:
        function()
        while (elapsed := _seconds(function, calls)) < profile.sample_seconds and calls < _MAX_CALLS:
            calls = min(_MAX_CALLS, max(calls * 2, int(calls * profile.sample_seconds / max(elapsed, 1e-7))))
    return lambda: _seconds(function, calls) / calls


def _seconds(function: Callable[[], object], calls: int) -> float:
    repeats = range(calls)
    start = time.perf_counter()
    for _ in repeats:
        function()
    return time.perf_counter() - start


def run_case(case: Case, profile: Profile) -> Outcome:
    """Measure a case: rounds of all its contenders, until the rounds or the budget are used up.

    A contender that fails drops out with its reason, and the others go on.
    """
    started = time.perf_counter()
    outcome = Outcome({})
    budget_seconds = profile.budget_seconds if case.curve is None else profile.curve_budget_seconds
    rounds = profile.rounds if case.rounds is None else case.rounds[0 if profile.is_quick else 1]
    try:
        with case.contenders(profile) as offered:
            outcome.skipped = {
                name: str(one) for name, one in offered.items() if isinstance(one, UnavailableError)
            }
            samplers = {name: one for name, one in offered.items() if not isinstance(one, UnavailableError)}
            _take_turns(samplers, outcome, rounds, time.perf_counter() + budget_seconds)
    except UnavailableError as error:
        outcome.failure = str(error)
    except Exception as error:
        outcome.failure = f"{type(error).__name__}: {error}"
    outcome.seconds = time.perf_counter() - started
    return outcome


def _take_turns(samplers: dict[str, Sampler], outcome: Outcome, rounds: int, deadline: float) -> None:
    names = list(samplers)
    outcome.samples = {name: [] for name in names}
    for turn in range(rounds):
        for name in random.Random(turn).sample(names, len(names)):
            if name in outcome.skipped:
                continue
            gc.collect()
            gc.disable()
            try:
                outcome.samples[name].append(samplers[name]())
            except Exception as error:
                # Without one sample per round its ratios would compare different moments.
                outcome.skipped[name] = f"{type(error).__name__}: {error}"
                del outcome.samples[name]
            finally:
                gc.enable()
        if turn > 0 and time.perf_counter() > deadline:
            return


@dataclass(frozen=True)
class Verdict:
    """A bar and what was measured: the median of the ratios (or values) with quartiles, None if not measured."""

    bar: Bar
    figure: float | None
    first_quartile: float | None
    third_quartile: float | None

    @property
    def is_met(self) -> bool | None:
        return None if self.figure is None else self.bar.is_met_by(self.figure)

    @property
    def is_reached(self) -> bool | None:
        return None if self.figure is None else self.bar.is_reached_by(self.figure)


def judge(bar: Bar, samples: Mapping[str, Sequence[float]]) -> Verdict:
    """Hold a bar against the samples of its case."""
    subject, reference = samples.get(bar.subject), samples.get(bar.reference)
    if not subject or (bar.reference and not reference):
        return Verdict(bar, None, None, None)
    if bar.measure == "value" or reference is None:
        figures: Sequence[float] = subject
    elif bar.measure == "speedup":
        figures = ratios(reference, subject)
    else:
        figures = ratios(subject, reference)
    summary = summarize(figures)
    return Verdict(bar, summary.median, summary.first_quartile, summary.third_quartile)


def as_record(case: Case, outcome: Outcome) -> dict[str, Any]:
    """A case and its outcome as JSON has them."""
    first = next(iter(outcome.samples.values()), None)
    contenders = {}
    for name, samples in outcome.samples.items():
        contenders[name] = {"summary": asdict(summarize(samples)), "samples": samples}
        if first and len(samples) == len(first):
            against = ratios(samples, first)
            contenders[name]["ratio_to_first"] = asdict(summarize(against)) if against else None
    verdicts = [judge(bar, outcome.samples) for bar in case.bars]
    return {
        "name": case.name,
        "group": case.group,
        "title": case.title,
        "unit": case.unit,
        "payload_bytes": case.payload_bytes,
        "curve": case.curve and dict(zip(("name", "unit", "x"), case.curve, strict=True)),
        "contenders": contenders,
        "skipped": outcome.skipped,
        "failure": outcome.failure,
        "seconds": outcome.seconds,
        "bars": [
            {
                **asdict(one.bar),
                "figure": one.figure,
                "first_quartile": one.first_quartile,
                "third_quartile": one.third_quartile,
                "is_met": one.is_met,
                "is_reached": one.is_reached,
            }
            for one in verdicts
        ],
    }


def matches(name: str, group: str, patterns: Sequence[str]) -> bool:
    """Whether a case's name or group matches one of the shell patterns or begins with it; any without patterns."""
    return not patterns or any(
        fnmatch.fnmatch(name, one) or name.startswith(one) or group == one for one in patterns
    )


def select(cases: Iterable[Case], patterns: Sequence[str]) -> list[Case]:
    """The cases that the patterns name; all without patterns."""
    return [case for case in cases if matches(case.name, case.group, patterns)]
