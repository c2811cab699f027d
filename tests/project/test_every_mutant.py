"""What ``tests.mutants.every`` mutates and runs is there, and what nothing runs is left out."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from mutants.every import AREAS, configuration, lines_that_nothing_runs

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("area", AREAS.values(), ids=AREAS)
def test_an_area_names_code_and_tests_that_exist(area):
    settings = tomllib.loads(configuration(area, 60.0))["cosmic-ray"]
    assert (ROOT / settings["module-path"]).exists()
    assert [name for name in area.tests if not (ROOT / name).exists()] == []
    assert all(name in settings["test-command"] for name in area.tests)
    assert settings["timeout"] == 60.0


def test_annotations_and_what_is_for_type_checkers_only_are_left_out():
    source = """
if TYPE_CHECKING:
    Context = B | C
def f(x: int | None = 1 | 2) -> str | None:
    y: int | str = 3 | 4
    return x | y
"""
    spans = list(lines_that_nothing_runs(source))
    lines = source.splitlines()

    def is_left_out(line: int, text: str) -> bool:
        place = (line, lines[line - 1].index(text))
        return any(start <= place < end for start, end in spans)

    assert is_left_out(3, "B | C")
    assert is_left_out(4, "int | None")
    assert is_left_out(4, "str | None")
    assert is_left_out(5, "int | str")
    assert not is_left_out(4, "1 | 2")
    assert not is_left_out(5, "3 | 4")
    assert not is_left_out(6, "x | y")
