"""``docs/reliability.md``: each promise names a test that exists, and the faults are the laboratory's."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from faults.__main__ import parser
from faults.kinds import FAULTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of a section's first table."""
    section = PAGE.partition(f"## {heading}")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


PROMISES = rows("Faults and promises")


def names_of_tests_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("fault", [row[0] for row in PROMISES])
def test_a_promise_names_one_test_that_exists(fault: str) -> None:
    _, promise, cell = next(row for row in PROMISES if row[0] == fault)
    named = re.fullmatch(r"`(tests/[\w/]+\.py)::(test_\w+)`", cell)
    assert promise and named, cell
    assert named[2] in names_of_tests_in(ROOT / named[1])


def test_the_page_promises_something_of_each_kind_of_fault() -> None:
    assert len(PROMISES) == len({row[0] for row in PROMISES}) > 20


def test_the_page_names_every_fault_of_the_laboratory_by_its_kind() -> None:
    told = {name: row[1] for row in rows("The laboratory") for name in re.findall(r"`([\w-]+)`", row[0])}
    assert set(told) == set(FAULTS)
    words = {
        "transport": "no answer: retryable, an outage",
        "throttling": "retryable, no outage",
        "server": "retryable, an outage",
        "forged": "forged: refused, not retryable",
    }
    assert {name: told[name] for name in FAULTS} == {
        name: words.get(fault.kind, "nothing may go wrong") for name, fault in FAULTS.items()
    }


def test_the_commands_of_the_page_are_the_laboratorys() -> None:
    commands = re.findall(r"python -m tests\.faults (.+?)\s+#", PAGE)
    assert len(commands) == 3
    for command in commands:
        parser().parse_args(command.split())
