"""``docs/rules.md`` says what is so: each number resolves, each kept rule has its tests, each path exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "rules.md"
RULE_COUNT = 45
_HEADING = re.compile(r"^### Rule (\d+)\. (.+?)(?: \((in part|planned)\))?$", re.MULTILINE)
_CITATION = re.compile(r"\brules?[ \n#*]+(\d+(?:(?:,| and| or| to|, and)?[ \n#*]+\d+)*)(?![\d-])", re.IGNORECASE)
_TEST_PATTERN = re.compile(r"`(test_rule_\d\d_[\w*]*)`")
_PATH = re.compile(r"`((?:phicrypt|tests|docs|benchmarks)/[\w./-]+)`")


@dataclass(frozen=True)
class Rule:
    """One heading of the page with the text below it."""

    number: int
    title: str
    status: str
    text: str

    @property
    def is_planned(self) -> bool:
        return self.status == "planned"

    def part(self, name: str) -> str:
        """The paragraph that begins with ``**name``, or nothing."""
        found = re.search(rf"^\*\*{name}\b(.+?)(?:\n\n|\Z)", self.text, re.MULTILINE | re.DOTALL)
        return found[1] if found else ""


def rules() -> list[Rule]:
    page = PAGE.read_text(encoding="utf-8")
    headings = list(_HEADING.finditer(page))
    found = []
    for heading in headings:
        end = re.search(r"^##", page[heading.end() :], re.MULTILINE)
        text = page[heading.end() : heading.end() + end.start()] if end else page[heading.end() :]
        found.append(Rule(int(heading[1]), heading[2], heading[3] or "kept", text.strip()))
    return found


RULES = rules()
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"rule_{rule.number:02}")
each_kept_rule = pytest.mark.parametrize(
    "rule", [rule for rule in RULES if not rule.is_planned], ids=lambda rule: f"rule_{rule.number:02}"
)


def cited_numbers(text: str) -> set[int]:
    """Every number that the text cites as a rule's: "rule 4", "rules 3 and 4", "rules 5, 11, 12"."""
    return {int(number) for citation in _CITATION.findall(text) for number in re.findall(r"\d+", citation)}


def cited_documents() -> Iterator[Path]:
    for folder, suffix in (("phicrypt", ".py"), ("tests", ".py"), ("benchmarks", ".py"), ("docs", ".md")):
        yield from (ROOT / folder).rglob(f"*{suffix}")
    yield ROOT / "README.md"


def rule_names_in(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return [function.name for function in functions if re.match(r"test_rule_\d", function.name)]


NAMED_TESTS = {path: names for path in (ROOT / "tests").rglob("test_*.py") if (names := rule_names_in(path))}


def test_the_page_has_every_rule_once_in_order():
    assert [rule.number for rule in RULES] == list(range(1, RULE_COUNT + 1))


def test_every_rule_that_is_cited_has_a_heading():
    numbers = {rule.number for rule in RULES}
    lost = {
        f"{path.relative_to(ROOT)}: rule {number}"
        for path in cited_documents()
        if path != Path(__file__)
        for number in cited_numbers(path.read_text(encoding="utf-8")) - numbers
    }
    assert lost == set()


def test_every_test_that_is_named_after_a_rule_names_one_of_the_page():
    numbers = {f"{rule.number:02}" for rule in RULES}
    lost = [name for names in NAMED_TESTS.values() for name in names if name.split("_")[2] not in numbers]
    assert lost == []


@each_rule
def test_a_rule_says_why_and_how_much_of_it_holds(rule):
    assert rule.part("Why")
    assert bool(rule.part("Planned")) == (rule.status == "in part")
    assert bool(rule.part("Today")) == rule.is_planned
    assert bool(rule.part("Kept by")) != rule.is_planned
    assert bool(rule.part("Tests")) != rule.is_planned


@each_kept_rule
def test_a_kept_rule_has_tests_named_after_it_in_the_files_that_the_page_lists(rule):
    patterns = _TEST_PATTERN.findall(rule.part("Tests"))
    assert patterns == [f"test_rule_{rule.number:02}_*"]
    listed = {ROOT / name for name in _PATH.findall(rule.part("Tests"))}
    named = {
        path
        for path, names in NAMED_TESTS.items()
        if any(name.startswith(f"test_rule_{rule.number:02}_") for name in names)
    }
    assert listed
    assert {str(path.relative_to(ROOT)) for path in listed - named} == set(), "listed, but no such test is there"


def test_no_test_is_named_after_a_rule_that_the_page_calls_planned():
    planned = {f"{rule.number:02}" for rule in RULES if rule.is_planned}
    early = [name for names in NAMED_TESTS.values() for name in names if name.split("_")[2] in planned]
    assert early == [], "the rule is kept now, or in part: say so in docs/rules.md"


@each_rule
def test_paths_that_a_rule_names_exist(rule):
    assert [name for name in _PATH.findall(rule.text) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    "words",
    [
        "under its own name is authentic",
        "left out of a query",
        '"there is none"',
        "acknowledge a write",
        "user metadata, tags and Content-Type",
        "unsigned attributes",
        "break-glass and recovery recipients",
        "Rewrapping the metadata",
        "Snapshots of a running machine",
        "Erasure of keys from memory",
        "how often each value occurs",
        "which beacon or token is asked, how often",
        "page token",
        "Beacons after a shred",
        "digests that are younger than the last one",
        "between two that the process",
        "breaks RSA",
    ],
)
def test_the_threat_model_names_what_the_rules_leave_undefended(words):
    page = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    undefended = page.partition("## Not defended")[2].partition("\n## ")[0]
    assert words in " ".join(undefended.split())


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("nothing (rule 6).", {6}),
        ("Rules 3 and 4 hold", {3, 4}),
        ("rules 5, 11, 12", {5, 11, 12}),
        ("rules 36 to 38", {36, 38}),
        ("as rule\n        20 asks", {20}),
        ("ruler 4, overrule 5, a rule of 7", set()),
        ("rule 99", {99}),
    ],
)
def test_the_reader_of_citations_sees_them(text, numbers):
    assert cited_numbers(text) == numbers
