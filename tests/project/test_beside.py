"""The comparison of two checkouts: pairing and statistics, with workers that answer from a table."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from benchmarks import beside, report
from benchmarks.beside import OTHER, THIS, interval, measured, orders, paired_ratios

CASE = {
    "name": "encrypt-1KiB",
    "group": "messages",
    "unit": "s",
    "bars": [
        {"claim": "fast", "subject": "phicrypt"},
        {"claim": "fast too", "subject": "phicrypt"},
        {"claim": "audited", "subject": "audited"},
    ],
}


class TableWorker:
    """Answers a sample from a table of figures by subject, and keeps what it was asked."""

    def __init__(self, side: str, figures: Mapping[str, float], asked: list[tuple[str, ...]]) -> None:
        self._side, self._figures, self._asked = side, figures, asked

    def ask(self, **request: Any) -> dict[str, Any]:
        self._asked.append((self._side, request["do"], request.get("subject", "")))
        if request["do"] == "open":
            return {"subjects": list(self._figures), "skipped": {"audited": "no sink"}}
        return {"value": self._figures[request["subject"]]} if request["do"] == "sample" else {}


def compared(this: Mapping[str, float], other: Mapping[str, float], rounds: int = 6) -> tuple[Any, list[Any]]:
    asked: list[tuple[str, ...]] = []

    @contextlib.contextmanager
    def start() -> Iterator[beside.Workers]:
        asked.append(("", "start", ""))
        yield {THIS: TableWorker(THIS, this, asked), OTHER: TableWorker(OTHER, other, asked)}

    return {one.subject: one for one in measured(CASE, start, rounds)}, asked


def test_ratios_are_of_the_same_round() -> None:
    assert paired_ratios([2, 30, 0], [1, 10, 0]) == [2, 3, 1]
    with pytest.raises(ValueError, match="round"):
        paired_ratios([1], [1, 2])


def test_an_interval_of_equal_ratios_is_that_ratio() -> None:
    assert interval([1.5] * 30) == (1.5, 1.5)
    with pytest.raises(ValueError, match="ratio"):
        interval([])


def test_an_interval_holds_the_median_and_narrows_with_rounds() -> None:
    draw = random.Random(7)
    few, many = ([1 + draw.gauss(0, 0.1) for _ in range(count)] for count in (30, 480))
    (low, high), (many_low, many_high) = interval(few), interval(many)
    assert low < sorted(few)[15] < high
    assert 1 - 0.03 < many_low < 1 < many_high < 1 + 0.03
    assert many_high - many_low < (high - low) / 2


def test_95_of_100_intervals_hold_the_true_median() -> None:
    draw = random.Random(11)
    held = 0
    for _ in range(200):
        low, high = interval([1 + draw.gauss(0, 0.1) for _ in range(30)], resamples=300)
        held += low <= 1 <= high
    assert 180 <= held < 200


def test_the_same_rounds_give_the_same_interval() -> None:
    ratios = [1 + number**2 % 97 / 100 for number in range(30)]
    assert interval(ratios) == interval(ratios)
    assert interval(ratios, seed=1, resamples=50) != interval(ratios, seed=2, resamples=50)


def test_every_round_asks_every_contender_and_no_side_always_goes_first() -> None:
    asked = list(orders(["a", "b", "c"], range(40), seed="x"))
    rounds = [asked[start : start + 3] for start in range(0, 120, 3)]
    assert all(sorted(subject for subject, _ in one) == ["a", "b", "c"] for one in rounds)
    assert all(sorted(sides) == [OTHER, THIS] for _, sides in asked)
    first = Counter((subject, sides[0]) for subject, sides in asked)
    assert all(first[subject, side] >= 8 for subject in "abc" for side in (THIS, OTHER))
    assert len({subject for (subject, _), *_ in rounds}) == 3
    assert asked == list(orders(["a", "b", "c"], range(40), seed="x"))
    assert asked != list(orders(["a", "b", "c"], range(40), seed="y"))


def test_both_sides_are_asked_as_often_and_next_to_each_other() -> None:
    _, asked = compared({"phicrypt": 1.0, "audited": 1.0}, {"phicrypt": 1.0, "audited": 1.0}, rounds=10)
    samples = [(side, subject) for side, do, subject in asked if do == "sample"]
    pairs = list(zip(samples[::2], samples[1::2], strict=True))
    assert all({one[0], two[0]} == {THIS, OTHER} and one[1] == two[1] for one, two in pairs)
    assert len(pairs) >= 20


def test_rounds_are_shared_among_pairs_of_processes_and_none_is_lost() -> None:
    found, asked = compared({"phicrypt": 3.0, "audited": 1.0}, {"phicrypt": 2.0, "audited": 2.0}, rounds=10)
    assert sum(do == "start" for _, do, _ in asked) == beside.PROCESS_PAIRS
    assert sum(do == "close" for _, do, _ in asked) == 2 * beside.PROCESS_PAIRS
    assert found["phicrypt"].this == (3.0,) * 10
    assert found["phicrypt"].other == (2.0,) * 10


def test_a_larger_figure_of_this_checkout_is_a_ratio_above_one_and_above_the_limit() -> None:
    found, _ = compared({"phicrypt": 3.0, "audited": 1.04}, {"phicrypt": 2.0, "audited": 1.0})
    assert (found["phicrypt"].ratio, found["phicrypt"].is_below) == (1.5, False)
    assert (found["audited"].ratio, found["audited"].is_below) == (1.04, True)
    assert found["phicrypt"].claims == ("fast", "fast too")


@pytest.mark.parametrize(("case", "limit"), [("encrypt-1KiB", 1.05), ("hierarchical-decrypt-1KiB", 1.05)])
def test_messages_of_1_kib_have_the_tighter_limit(case: str, limit: float) -> None:
    assert beside.limit_of(case) == limit
    assert beside.limit_of("encrypt-16MiB") == 1.10


def test_what_one_side_cannot_measure_is_not_called_below() -> None:
    found, _ = compared({"phicrypt": 1.0, "audited": 1.0}, {"phicrypt": 1.0})
    assert (found["audited"].ratio, found["audited"].is_below) == (None, None)
    assert found["audited"].failure == "other checkout: no sink"
    assert found["phicrypt"].is_below is True


def test_a_worker_that_fails_is_named_and_its_rounds_are_not_judged() -> None:
    @contextlib.contextmanager
    def start() -> Iterator[beside.Workers]:
        raise RuntimeError("no server")
        yield {}

    (first, second) = measured(CASE, start, 3)
    assert first.failure == second.failure == "RuntimeError: no server"
    assert first.is_below is None


def test_the_table_gives_each_bar_its_ratio_interval_and_verdict() -> None:
    found, _ = compared({"phicrypt": 1.0, "audited": 1.0}, {"phicrypt": 1.0})
    text = report.beside_table(beside.as_record(one) for one in found.values())
    assert "| fast too | encrypt-1KiB: phicrypt | 1.000 | 1.000 to 1.000 | < 1.05 | yes |" in text
    assert "| audited | encrypt-1KiB: audited | not measured |  | < 1.05 | other checkout: no sink |" in text


def test_a_worker_process_measures_a_case_of_its_checkout() -> None:
    bars = [{"claim": "fast", "subject": "phicrypt"}]
    case = {"name": "decrypt-1KiB", "group": "messages", "unit": "s", "bars": bars}
    (found,) = measured(case, lambda: beside.worker_pair(beside.ROOT, "quick"), 1)
    assert (len(found.this), len(found.other), found.failure) == (1, 1, "")
    assert min(found.this + found.other) > 0


def test_a_worker_process_answers_with_an_error_what_it_cannot_do() -> None:
    with beside.worker_pair(beside.ROOT, "quick") as workers, pytest.raises(RuntimeError, match="KeyError"):
        workers[OTHER].ask(do="open", group="messages", case="no such case")
