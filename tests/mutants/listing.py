"""The list of mutants as it is kept: ``mutants.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

LIST: Final = Path(__file__).with_name("mutants.json")


@dataclass(frozen=True)
class Mutant:
    """One mistake, described so that it is found again after its code moved.

    Attributes:
        number: its name in reports, from 1.
        file, line: where it stood in the revision that the list was drawn from.
        within: qualified name of the function or class; ``""`` at module level.
        statement: the statement, or the head of a compound one, as ``ast.unparse`` spells it.
        occurrence: which of several equal statements of that function, from 0.
        operator, change: what is done wrong, in words.
        choice: which of several such changes of the statement, from 0.
        mutated: the statement done wrong.
        status: ``"dies"`` or ``"lives"`` when it was tried last; ``""`` if it was not tried.
        killed_by: the test that noticed it; ``"hang"`` and a test if that ran into its limit.
        today: ``{"file", "within", "statement", "mutated"}`` written by hand once the code was rewritten,
            or ``{"gone": reason}``.
    """

    number: int
    file: str
    line: int
    within: str
    statement: str
    occurrence: int
    operator: str
    change: str
    choice: int
    mutated: str
    status: str = ""
    killed_by: str = ""
    today: dict[str, str] | None = None

    @property
    def area(self) -> str:
        """``formats``, ``keys``, ``s3`` or ``dynamodb``."""
        return self.file.split("/")[1]


def load(path: Path = LIST) -> list[Mutant]:
    """The list in a file that :func:`save` wrote."""
    return [Mutant(**record) for record in json.loads(path.read_text(encoding="utf-8"))["mutants"]]


def save(mutants: Sequence[Mutant], *, seed: int, revision: str, path: Path = LIST) -> None:
    """Write the list, a line for each; what is empty is left out."""
    lines = [
        json.dumps(
            {name: value for name, value in asdict(mutant).items() if name == "within" or value not in (None, "")},
            ensure_ascii=False,
        )
        for mutant in mutants
    ]
    heading = f'{{"seed": {json.dumps(seed)}, "revision": {json.dumps(revision)}, "mutants": [\n'
    path.write_text(heading + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


def heading(path: Path = LIST) -> tuple[int, str]:
    """Seed and revision of a list."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return document["seed"], document["revision"]
