"""The drawing of the list: which mutants, by a fixed seed, from one revision."""

from __future__ import annotations

import ast
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import operators
from .listing import Mutant
from .operators import Variant, variants
from .statements import Statement, statements_of_tree

SEED: Final = 14
SHARES: Final = {"formats": 42, "keys": 40, "s3": 34, "dynamodb": 34}
"""Mutants by area, 150 together."""
WEIGHTS: Final = {
    operators.COMPARISON: 34,
    operators.REMOVED_CHECK: 40,
    operators.LOGIC: 18,
    operators.NEGATION: 12,
    operators.CONSTANT: 20,
    operators.DROPPED_CALL: 14,
    operators.RETURN_VALUE: 8,
    operators.DROPPED_RAISE: 4,
}
"""How many of 150 are of each operator, where there are as many."""
_MOST_IN_ONE_FUNCTION: Final = 2
_SPOKEN: Final = {"__repr__", "__str__"}


@dataclass(frozen=True)
class Candidate:
    """A statement and one way to do it wrong."""

    statement: Statement
    variant: Variant


def drawn(tree: Path) -> list[Mutant]:
    """The list for a tree of the package, without what running it shows."""
    statements = statements_of_tree(tree)
    chosen = [one for area, count in SHARES.items() for one in _draw(_candidates(statements, area), area, count)]
    return [_as_mutant(number, one, statements) for number, one in enumerate(chosen, 1)]


def _candidates(statements: Sequence[Statement], area: str) -> list[Candidate]:
    inside = [one for one in statements if one.file.startswith(f"phicrypt/{area}/")]
    guarded = {
        id(one.node.body[-1]) for one in inside if isinstance(one.node, ast.If) and not one.node.orelse
    }  # dropping such a raise is removing the check
    return [
        Candidate(one, variant)
        for one in inside
        if id(one.node) not in guarded and one.within.rpartition(".")[2] not in _SPOKEN
        for variant in variants(one.node)
    ]


def _draw(candidates: Sequence[Candidate], area: str, count: int) -> list[Candidate]:
    """Operators by weight, files by turns: in the file of which least was drawn for its statements."""
    order = random.Random(f"{SEED} {area}")
    sizes = Counter(one.statement.file for one in candidates)
    left = {name: round(weight * count / 150) + 1 for name, weight in WEIGHTS.items()}
    taken: Counter[str] = Counter()
    functions: Counter[tuple[str, str]] = Counter()
    used: set[tuple[str, str, str]] = set()
    chosen: list[Candidate] = []
    pool = list(candidates)
    order.shuffle(pool)
    while len(chosen) < count:
        fitting = [
            one
            for one in pool
            if left[one.variant.operator] > 0
            and functions[one.statement.file, one.statement.within] < _MOST_IN_ONE_FUNCTION
            and (one.statement.file, one.statement.within, one.statement.text) not in used
        ]
        operator = order.choices(list(left), weights=list(left.values()))[0]
        preferred = [one for one in fitting if one.variant.operator == operator]
        if not preferred:
            left[operator] = 0
            continue
        one = min(preferred, key=lambda one: (taken[one.statement.file] + 1) / sizes[one.statement.file] ** 0.7)
        chosen.append(one)
        left[operator] -= 1
        taken[one.statement.file] += 1
        functions[one.statement.file, one.statement.within] += 1
        used.add((one.statement.file, one.statement.within, one.statement.text))
    return sorted(chosen, key=lambda one: (one.statement.file, one.statement.line))


def _as_mutant(number: int, one: Candidate, statements: Sequence[Statement]) -> Mutant:
    alike = [
        other
        for other in statements
        if (other.file, other.within, other.text) == (one.statement.file, one.statement.within, one.statement.text)
    ]
    same_change = [
        other
        for other in variants(one.statement.node)
        if (other.operator, other.change) == (one.variant.operator, one.variant.change)
    ]
    return Mutant(
        number=number,
        file=one.statement.file,
        line=one.statement.line,
        within=one.statement.within,
        statement=one.statement.text,
        occurrence=alike.index(one.statement),
        operator=one.variant.operator,
        change=one.variant.change,
        choice=same_change.index(one.variant),
        mutated=one.variant.text,
    )
