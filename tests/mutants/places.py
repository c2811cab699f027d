"""Where a mutant's statement stands today, and the source with the mistake in it.

What is looked for, in this order: the statement in a function of the same qualified name, in a function
or class of the same last name, anywhere (only if it is long enough to mean the same there), and at last a
statement of a function of the same name that is nearly the same and can be done wrong in the same way.
What is found in two places is as good as not found: it is reported and never guessed.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from .listing import Mutant
from .operators import variants
from .statements import Statement, parsed, replaced_part, spelled

_TELLING_LENGTH: Final = 25
"""A shorter statement (``if not parts:``) is not looked for outside functions of the name."""
_NEARLY_THE_SAME: Final = 0.72


@dataclass(frozen=True)
class Place:
    """A statement to be done wrong, and how.

    Attributes:
        statement: where the mistake goes.
        mutated: what it says then.
        how: ``"same place"``, ``"moved"``, ``"adapted"`` (nearly the same statement) or ``"by hand"``.
    """

    statement: Statement
    mutated: str
    how: str


@dataclass(frozen=True)
class Gone:
    """Why a mutant has no place."""

    why: str


def find(mutant: Mutant, statements: Sequence[Statement]) -> Place | Gone:
    """The place of a mutant among the statements of a tree."""
    if mutant.today is not None:
        return _by_hand(mutant.today, statements)
    text = spelled(parsed(mutant.statement))  # as this Python spells it
    same_text = [one for one in statements if one.text == text]
    for fits in _searches(mutant):
        found = _one_function(mutant, [one for one in same_text if fits(one)])
        if isinstance(found, list):
            if found:
                return Gone("in several places: " + ", ".join(sorted({f"{one.file}:{one.line}" for one in found})))
            continue
        is_same = (found.file, found.within) == (mutant.file, mutant.within)
        return Place(found, mutant.mutated, "same place" if is_same else "moved")
    return _adapted(mutant, statements)


def _searches(mutant: Mutant) -> list[Callable[[Statement], bool]]:
    searches: list[Callable[[Statement], bool]] = [
        lambda one: (one.file, one.within) == (mutant.file, mutant.within),
        lambda one: one.within == mutant.within and bool(mutant.within),
        lambda one: _is_akin(one.within, mutant.within),
    ]
    if len(mutant.statement) >= _TELLING_LENGTH:
        searches.append(lambda one: True)
    return searches


def _is_akin(within: str, other: str) -> bool:
    """Whether two qualified names end in the same function, or name the same class."""
    names, others = within.split("."), other.split(".")
    return bool(within and other) and (names[-1].lstrip("_") == others[-1].lstrip("_") or names[0] == others[0])


def _one_function(mutant: Mutant, found: list[Statement]) -> Statement | list[Statement]:
    """The statement meant among equal ones, or all of them if they are of several functions."""
    functions = {(one.file, one.within) for one in found}
    if len(functions) > 1:
        # Moved without its file's name, or with it: the file of the same name is meant.
        namesakes = [one for one in found if one.file.rpartition("/")[2] == mutant.file.rpartition("/")[2]]
        functions = {(one.file, one.within) for one in namesakes}
        if len(functions) != 1:
            return found
        found = namesakes
    return found[mutant.occurrence] if mutant.occurrence < len(found) else found


def _adapted(mutant: Mutant, statements: Sequence[Statement]) -> Place | Gone:
    near: list[tuple[float, Place]] = []
    for one in statements:
        if not _is_akin(one.within, mutant.within):
            continue
        likeness = difflib.SequenceMatcher(None, one.text, mutant.statement, autojunk=False).ratio()
        if likeness < _NEARLY_THE_SAME:
            continue
        alike = [
            other
            for other in variants(one.node)
            if (other.operator, other.change) == (mutant.operator, mutant.change)
        ]
        if mutant.choice < len(alike):
            near.append((likeness, Place(one, alike[mutant.choice].text, "adapted")))
    if not near:
        return Gone("no such statement" + _hint(mutant, statements))
    best = max(likeness for likeness, _ in near)
    closest = [place for likeness, place in near if likeness == best]
    if len(closest) > 1:
        return Gone("nearly in several places: " + _listed(place.statement for place in closest))
    return closest[0]


def _hint(mutant: Mutant, statements: Sequence[Statement]) -> str:
    akin = [one for one in statements if _is_akin(one.within, mutant.within)]
    texts = difflib.get_close_matches(mutant.statement, [one.text for one in akin], n=1, cutoff=0.5)
    return f"; nearest: {_listed(one for one in akin if one.text == texts[0])} {texts[0]}" if texts else ""


def _listed(statements: Iterable[Statement]) -> str:
    return ", ".join(sorted(f"{one.file}:{one.line}" for one in statements))


def _by_hand(today: dict[str, str], statements: Sequence[Statement]) -> Place | Gone:
    if "gone" in today:
        return Gone(today["gone"])
    found = [
        one
        for one in statements
        if (one.file, one.within, one.text) == (today["file"], today["within"], today["statement"])
    ]
    if len(found) != 1:
        return Gone(f"what was written by hand stands {len(found)} times in {today['file']}")
    return Place(found[0], today["mutated"], "by hand")


def with_mistake(source: str, place: Place) -> str:
    """The source of the place's file with the mistake; every other character stays."""
    part = replaced_part(place.statement.node)
    mutated = parsed(place.mutated)
    replacing = replaced_part(mutated)
    text = ast.unparse(replacing)
    if isinstance(replacing, ast.expr):
        text = f"({text})"
    lines = source.encode().splitlines(keepends=True)
    assert part.end_lineno is not None
    assert part.end_col_offset is not None
    before = b"".join(lines[: part.lineno - 1]) + lines[part.lineno - 1][: part.col_offset]
    after = lines[part.end_lineno - 1][part.end_col_offset :] + b"".join(lines[part.end_lineno :])
    return (before + text.encode() + after).decode()
