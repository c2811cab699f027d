"""The benchmark suite's own arithmetic, and that a tiny case runs to its report. No timing is judged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from benchmarks import report
from benchmarks.measure import (
    QUICK,
    Bar,
    Case,
    Profile,
    Sampler,
    UnavailableError,
    as_record,
    judge,
    ratios,
    run_case,
    select,
    summarize,
)


@contextlib.contextmanager
def three_contenders(_: Profile) -> Iterator[Mapping[str, Sampler | UnavailableError]]:
    yield {"phicrypt": lambda: 2.0, "peer": lambda: 8.0, "absent": UnavailableError("not installed")}


UNHURRIED = replace(QUICK, budget_seconds=600.0)
BAR = Bar("twice as fast", "phicrypt", "speedup", 2, 5, "peer")
CASE = Case("tiny", "a tiny case", three_contenders, bars=(BAR,))


def run_of(record: dict[str, Any]) -> dict[str, Any]:
    machine = dict.fromkeys(
        ("time", "revision", "cpu", "kernel", "python", "openssl_of_cryptography", "memory_gib"), "x"
    )
    machine |= {"cores": 2, "cpu_flags": ["aes"], "packages": {"boto3": "1"}}
    return {
        "profile": "quick",
        "machine": machine,
        "load_before": [0],
        "load_after": [0],
        "seconds": 1,
        "cases": [record],
    }


def test_a_summary_holds_best_median_and_quartiles() -> None:
    summary = summarize([5, 1, 3, 2, 4])
    assert (summary.best, summary.first_quartile, summary.median, summary.third_quartile) == (1, 2, 3, 4)
    with pytest.raises(ValueError, match="sample"):
        summarize([])


def test_ratios_are_taken_within_each_round() -> None:
    assert ratios([2, 30], [1, 10]) == [2, 3]
    with pytest.raises(ValueError, match="round"):
        ratios([1], [1, 2])


@pytest.mark.parametrize(("figure", "met", "reached"), [(1.9, False, False), (2, True, False), (5, True, True)])
def test_a_bar_is_met_from_its_limit_on(figure: float, met: bool, reached: bool) -> None:
    verdict = judge(BAR, {"phicrypt": [1.0] * 3, "peer": [figure] * 3})
    assert (verdict.figure, verdict.is_met, verdict.is_reached) == (figure, met, reached)


def test_a_bar_without_its_peer_is_not_called_met() -> None:
    verdict = judge(BAR, {"phicrypt": [1.0]})
    assert (verdict.figure, verdict.is_met) == (None, None)


def test_a_case_runs_to_a_record_and_a_report_that_says_what_was_not_measured() -> None:
    outcome = run_case(CASE, UNHURRIED)
    assert outcome.samples["phicrypt"] == [2.0] * QUICK.rounds
    text = report.markdown(run_of(as_record(CASE, outcome)))
    assert "| twice as fast | ≥ 2 | ≥ 5 | 4 (4 to 4) | yes |" in text
    assert "absent was not measured: not installed" in text


def test_no_contender_always_follows_the_same_one() -> None:
    measured: list[str] = []

    def sampler(name: str) -> Sampler:
        return lambda: float(measured.append(name) or 1)

    @contextlib.contextmanager
    def contenders(_: Profile) -> Iterator[Mapping[str, Sampler | UnavailableError]]:
        yield {name: sampler(name) for name in "abcd"}

    run_case(Case("many", "takes turns", contenders, rounds=(20, 20)), UNHURRIED)
    rounds = [measured[start : start + 4] for start in range(0, 80, 4)]
    assert all(sorted(one) == list("abcd") for one in rounds)
    for name in "abcd":
        assert len({before for before, after in pairwise(measured) if after == name} - {name}) == 3


def test_a_case_that_fails_says_so() -> None:
    @contextlib.contextmanager
    def broken(_: Profile) -> Iterator[Mapping[str, Sampler | UnavailableError]]:
        raise RuntimeError("no server")
        yield {}

    outcome = run_case(Case("broken", "fails", broken), QUICK)
    assert outcome.failure == "RuntimeError: no server"


def test_a_comparison_names_what_got_slower_beyond_drift() -> None:
    new = run_of(as_record(CASE, run_case(CASE, QUICK)))
    old = run_of(as_record(CASE, run_case(CASE, QUICK)))
    assert report.comparison(old, new) == "No ratio moved by more than 20%."
    old["cases"][0]["contenders"]["peer"]["ratio_to_first"]["median"] = 6.0
    assert "| tiny | peer | 6.00 | 4.00 | slower |" in report.comparison(old, new)


def test_cases_are_selected_by_name_prefix_pattern_and_group() -> None:
    for pattern in ("tiny", "ti", "t*y", "test_benchmarks"):
        assert select([CASE], [pattern]) == [CASE]
    assert select([CASE], ["other"]) == []


@pytest.mark.parametrize(("seconds", "text"), [(2, "2.00 s"), (0.0021, "2.10 ms"), (12.3e-6, "12.30 µs")])
def test_quantities_are_readable(seconds: float, text: str) -> None:
    assert report.quantity(seconds, "s") == text


def test_a_report_shows_each_parts_share_of_its_operation() -> None:
    run = run_of(as_record(CASE, run_case(CASE, QUICK)))
    run["parts"] = {
        "encrypt / whole": {"best": 9e-6, "median": 10e-6, "deviation": 0.0},
        "encrypt / cipher": {"best": 2e-6, "median": 4e-6, "deviation": 0.0},
        "floor / copy": {"best": 1e-6, "median": 1e-6, "deviation": 0.0},
    }
    text = report.markdown(run)
    assert "| encrypt / cipher | 2.00 µs | 4.00 µs | 40% |" in text
    assert "| floor / copy | 1.00 µs | 1.00 µs |  |" in text
