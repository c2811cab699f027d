"""A true log and a true trail, changed in every way that we know: nothing that was changed passes as agreement.

``PHICRYPT_MANIPULATIONS=2000`` is the full number of random combinations.
"""

from __future__ import annotations

import os
import random
import zlib
from pathlib import Path

import pytest
from support.manipulations import (
    HARMLESS,
    KINDS,
    REPORTED,
    UNANCHORED,
    Kind,
    is_log_changed,
    is_trail_changed,
)
from support.other_manipulations import OTHER_KINDS
from support.true_evidence import Evidence, judge, true_evidence

from phicrypt.evidence.verdict import AGREE, Verdict

COMBINATIONS = int(os.environ.get("PHICRYPT_MANIPULATIONS", "60"))


@pytest.fixture(scope="module")
def base() -> Evidence:
    return true_evidence()


def says(verdict: Verdict, word: str) -> bool:
    return any(word in line for line in verdict.lines())


def test_the_true_evidence_agrees_and_says_what_is_covered_and_what_is_unanchored(
    base: Evidence, tmp_path: Path
) -> None:
    verdict = judge(base, tmp_path)
    assert verdict.word == AGREE, list(verdict.lines())
    assert len(verdict.covered) == 2
    assert says(verdict, "unanchored: 8 records")
    assert not is_log_changed(base, base)
    assert not is_trail_changed(base, base)


def test_there_are_kinds_enough_and_each_names_its_attacker() -> None:
    assert len({kind.name for kind in [*KINDS, *OTHER_KINDS]}) == len(KINDS) + len(OTHER_KINDS) >= 200
    assert {kind.expected for kind in KINDS} == {REPORTED, UNANCHORED, HARMLESS}


@pytest.mark.parametrize("kind", [*KINDS, *OTHER_KINDS], ids=lambda kind: kind.name)
def test_rule_24_each_kind_of_change_comes_to_what_is_due(kind: Kind, base: Evidence, tmp_path: Path) -> None:
    changed = base.copy()
    kind.apply(changed, random.Random(kind.name))
    verdict = judge(changed, tmp_path)
    lines = list(verdict.lines())
    if kind.expected == REPORTED:
        assert verdict.word != AGREE, lines
        assert changed != base
    else:
        assert verdict.word == AGREE, lines
        assert says(verdict, "unanchored") or kind.expected != UNANCHORED
        assert not says(verdict, "nobody signed")


@pytest.mark.parametrize("part", range(4))
def test_rule_24_no_combination_of_changes_passes_as_agreement(part: int, base: Evidence, tmp_path: Path) -> None:
    agreed = 0
    for number in range(part, COMBINATIONS, 4):
        generator = random.Random(number)
        changed, applied = base.copy(), []
        for kind in generator.choices(KINDS, k=generator.randrange(1, 5)):
            attempt = changed.copy()
            try:
                kind.apply(attempt, generator)
            except (LookupError, TypeError, ValueError, RecursionError, OSError, EOFError, zlib.error):
                continue  # what it would change is gone
            changed = attempt
            applied.append(kind.name)
        verdict = judge(changed, tmp_path)
        if verdict.word != AGREE:
            continue
        agreed += 1
        assert not is_log_changed(base, changed), (number, applied)
        assert not is_trail_changed(base, changed), (number, applied)
        assert says(verdict, "unanchored"), (number, applied)
    assert agreed < COMBINATIONS // 4


def test_rule_24_no_change_of_one_list_hides_a_change_of_the_other(base: Evidence, tmp_path: Path) -> None:
    """A change that is reported by itself is reported together with each other one that comes behind it."""
    reported = [kind for kind in [*KINDS, *OTHER_KINDS] if kind.expected == REPORTED]
    for number in range(COMBINATIONS // 4):
        generator = random.Random(f"pair {number}")
        first, second = generator.choice(reported), generator.choice([*KINDS, *OTHER_KINDS])
        changed = base.copy()
        first.apply(changed, generator)
        attempt = changed.copy()
        try:
            second.apply(attempt, generator)
        except (LookupError, TypeError, ValueError, RecursionError, OSError, EOFError, zlib.error):
            continue  # what it would change is gone
        if attempt == base:
            continue  # it undid the first
        assert judge(attempt, tmp_path).word != AGREE, (number, first.name, second.name)
