"""The seeded mutants: how a mistake is made, found again after its code moved, and tried. None is run here."""

from __future__ import annotations

import ast
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from mutants import listing, seeding
from mutants.listing import Mutant
from mutants.operators import variants
from mutants.places import Gone, Place, find, with_mistake
from mutants.statements import Statement, parsed, spelled, statements_of
from mutants.trial import Ending, known_killer, mistake, run_tests, workshop

CHECK = "if length > limit:"
MUTANT = Mutant(
    number=1,
    file="phicrypt/s3/gateway.py",
    line=3,
    within="Gateway.check",
    statement=CHECK,
    occurrence=0,
    operator="comparison",
    change="> to >=",
    choice=0,
    mutated="if length >= limit:",
)


def statement(text: str) -> ast.stmt:
    return ast.parse(textwrap.dedent(text)).body[0]


def in_file(file: str, source: str) -> list[Statement]:
    return list(statements_of(textwrap.dedent(source), file))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "if a > b:\n    x()",
            {"comparison: if a >= b:", "negation: if not a > b:"},
        ),
        ("if a in b:\n    x()", {"comparison: if a not in b:"}),
        ("if not a:\n    x()", {"negation: if a:"}),
        ("if a:\n    raise E", {"negation: if not a:", "removed check: if False:"}),
        ("if a:\n    raise E\nelse:\n    x()", {"negation: if not a:"}),
        ("while a and b:\n    x()", {"and/or: while a or b:", "negation: while not (a and b):"}),
        ("x = y[3:]", {"constant: x = y[4:]", "constant: x = y[2:]"}),
        ("x = 0", {"constant: x = 1"}),
        ("x: Final[Literal[3]] = f(True)", {"constant: x: Final[Literal[3]] = f(False)"}),
        ("return x", {"return value: return None"}),
        ("return", set()),
        ("check(x)", {"dropped call: pass"}),
        ("raise E('at most', limit=3)", {"dropped raise: pass"}),
        ("_log.warning('%d left', 3)", set()),
        ("'text'", set()),
        ("x = f'{a + 1}'", set()),
        ("__all__ = ['a'][0:1]", set()),
        ("assert a > 1", set()),
        ("import x", set()),
    ],
)
def test_a_statement_is_done_wrong_in_each_way_that_matters(text: str, expected: set[str]) -> None:
    node = ast.parse(f"def f():\n{textwrap.indent(text, '    ')}").body[0].body[0]  # type: ignore[attr-defined]
    assert {f"{one.operator}: {one.text}" for one in variants(node)} == expected


@pytest.mark.parametrize("text", ["if a > b:", "while (x := f()):", "x = 'a:'", "return None", "a(b, c=[1])"])
def test_a_spelling_is_read_back(text: str) -> None:
    assert spelled(parsed(text)) == text


def test_statements_know_their_function_and_none_is_for_type_checkers() -> None:
    found = in_file(
        "a.py",
        '''
        """Module."""
        if TYPE_CHECKING:
            import x
        class C:
            limit = 3
            def f(self):
                def g():
                    return 1
                try:
                    a()
                except E:
                    b()
                else:
                    c()
                finally:
                    with d():
                        for e in f:
                            g()
        ''',
    )
    assert [(one.within, one.text) for one in found] == [
        ("", "'Module.'"),
        ("C", "limit = 3"),
        ("C.f.g", "return 1"),
        ("C.f", "a()"),
        ("C.f", "c()"),
        ("C.f", "g()"),
        ("C.f", "b()"),
    ]


def test_a_mistake_changes_its_condition_and_no_other_character() -> None:
    source = textwrap.dedent(
        """
        def check(length):
            # above the bound: “too long”
            if a("ä") > 1:
                pass
            elif (
                length  # why
                > limit
            ):  # kept
                raise E("ü")
        """
    )
    found = [one for one in statements_of(source, "a.py") if one.text == CHECK]
    wrong = with_mistake(source, Place(found[0], "if length >= limit:", "same place"))
    assert wrong == source.replace("length  # why\n        > limit", "(length >= limit)")
    compile(wrong, "a.py", "exec")


def test_a_mistake_replaces_a_whole_simple_statement() -> None:
    source = "def f():\n    return g(\n        1,\n    )  # kept\n"
    (found,) = statements_of(source, "a.py")
    assert with_mistake(source, Place(found, "return None", "same place")) == "def f():\n    return None  # kept\n"


@pytest.mark.parametrize(
    ("file", "source", "how"),
    [
        ("phicrypt/s3/gateway.py", "class Gateway:\n def check(self):\n  if length>limit: x()", "same place"),
        ("phicrypt/s3/session.py", "class Gateway:\n def check(self):\n  if length>limit: x()", "moved"),
        ("phicrypt/s3/session.py", "class S3Session:\n def check(self):\n  if length>limit: x()", "moved"),
        ("phicrypt/s3/in_clear.py", "def _check():\n  if length>limit: x()", "moved"),
        ("phicrypt/s3/gateway.py", "class Gateway:\n def judge(self):\n  if length>limit: x()", "moved"),
        ("phicrypt/s3/in_clear.py", "def check(): \n  if its.length>limit: x()", "adapted"),
    ],
)
def test_a_mutant_is_found_again_after_its_code_moved(file: str, source: str, how: str) -> None:
    others = in_file(
        "phicrypt/keys/cache.py", "def other():\n  if length > limit and more: x()\n  return length > limit"
    )
    found = find(MUTANT, [*others, *in_file(file, source)])
    assert isinstance(found, Place)
    assert (found.how, found.statement.file, found.mutated.count(">=")) == (how, file, 1)


def test_a_short_statement_is_not_taken_from_another_function() -> None:
    elsewhere = in_file("phicrypt/s3/ranges.py", "def parse():\n  if length > limit: x()")
    assert isinstance(find(MUTANT, elsewhere), Gone)
    long = "if length > limit_of_this_reader:"
    telling = replace(MUTANT, statement=long, mutated=long.replace(">", ">="))
    found = find(telling, in_file("phicrypt/s3/ranges.py", f"def parse():\n  {long} x()"))
    assert isinstance(found, Place)


def test_what_stands_in_two_places_is_not_guessed() -> None:
    one = in_file("phicrypt/s3/a.py", "class A:\n def check(self):\n  if length > limit: x()")
    two = in_file("phicrypt/s3/b.py", "class B:\n def check(self):\n  if length > limit: x()")
    found = find(MUTANT, one + two)
    assert isinstance(found, Gone)
    assert "several places: phicrypt/s3/a.py:3, phicrypt/s3/b.py:3" in found.why


def test_the_file_of_the_same_name_is_meant_among_several() -> None:
    one = in_file("phicrypt/s3/reading/gateway.py", "class A:\n def check(self):\n  if length > limit: x()")
    two = in_file("phicrypt/s3/b.py", "class B:\n def check(self):\n  if length > limit: x()")
    found = find(MUTANT, one + two)
    assert isinstance(found, Place)
    assert found.statement.within == "A.check"


def test_equal_statements_of_a_function_are_told_apart_by_their_order() -> None:
    source = "class Gateway:\n def check(self):\n  if length > limit: x()\n  if length > limit: y()"
    found = find(replace(MUTANT, occurrence=1), in_file("phicrypt/s3/gateway.py", source))
    assert isinstance(found, Place)
    assert found.statement.line == 4
    assert isinstance(find(replace(MUTANT, occurrence=2), in_file("phicrypt/s3/gateway.py", source)), Gone)


def test_a_mutant_whose_code_is_gone_is_called_gone_with_what_is_nearest() -> None:
    found = find(
        MUTANT, in_file("phicrypt/s3/gateway.py", "class Gateway:\n def check(self):\n  if length < 3: x()")
    )
    assert isinstance(found, Gone)
    assert found.why == "no such statement; nearest: phicrypt/s3/gateway.py:3 if length < 3:"


def test_a_place_written_by_hand_is_taken_and_has_to_exist() -> None:
    today = {
        "file": "phicrypt/s3/n.py",
        "within": "judged",
        "statement": "return a > b",
        "mutated": "return a >= b",
    }
    rewritten = replace(MUTANT, today=today)
    found = find(rewritten, in_file("phicrypt/s3/n.py", "def judged():\n  return a > b"))
    assert isinstance(found, Place)
    assert (found.how, found.mutated) == ("by hand", "return a >= b")
    assert isinstance(find(rewritten, []), Gone)
    assert find(replace(MUTANT, today={"gone": "there is no such bound"}), []) == Gone("there is no such bound")


def test_the_list_holds_150_mutants_over_the_areas_and_what_became_of_each() -> None:
    mutants = listing.load()
    assert [one.number for one in mutants] == list(range(1, 151))
    assert Counter(one.area for one in mutants) == seeding.SHARES
    assert len({(one.file, one.within, one.statement, one.occurrence, one.mutated) for one in mutants}) == 150
    assert min(Counter(one.operator for one in mutants).values()) >= 4
    assert {one.status for one in mutants} <= {"dies", "lives", ""}
    assert sum(one.status != "" for one in mutants) >= 120, "the rest is still to be tried in the revision named"
    assert all(bool(one.killed_by) == (one.status == "dies") for one in mutants)
    assert all(parsed(one.mutated) and one.mutated != one.statement for one in mutants)


def test_a_list_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    mutants = [replace(MUTANT, statement="x = 'ä'", within=""), replace(MUTANT, number=2, today={"gone": "why"})]
    listing.save(mutants, seed=3, revision="abc", path=tmp_path / "list.json")
    assert listing.load(tmp_path / "list.json") == mutants
    assert listing.heading(tmp_path / "list.json") == (3, "abc")


def test_drawing_twice_gives_the_same_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(seeding, "SHARES", {"formats": 6})
    (tmp_path / "phicrypt/formats").mkdir(parents=True)
    for name in "ab":
        source = "".join(f"def f{number}(x):\n    if x > {number}:\n        raise E\n" for number in range(5))
        (tmp_path / "phicrypt/formats" / f"{name}.py").write_text(source + "def __repr__():\n    return 1\n")
    drawn = seeding.drawn(tmp_path)
    assert drawn == seeding.drawn(tmp_path)
    assert Counter(one.file for one in drawn) == {"phicrypt/formats/a.py": 3, "phicrypt/formats/b.py": 3}
    assert all(one.within != "__repr__" and one.operator != "dropped raise" for one in drawn)
    monkeypatch.setattr(seeding, "SEED", 15)
    assert seeding.drawn(tmp_path) != drawn


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "phicrypt").mkdir()
    (tmp_path / "tests/s3").mkdir(parents=True)
    (tmp_path / "phicrypt/__init__.py").write_text(
        "def doubled(x):\n    while x < 0:\n        x += 1\n    return 2 * x\n"
    )
    (tmp_path / "tests/s3/test_numbers.py").write_text(
        "from phicrypt import doubled\n"
        "def test_nothing():\n    assert doubled(0) == 0\n"
        "def test_something():\n    assert doubled(2) == 4\n"
    )
    return tmp_path


def trial_of(
    tree: Path, statement_text: str, mutated: str, *arguments: str, timeout_seconds: float = 60
) -> Ending:
    with workshop(tree) as copy:
        source = (copy / "phicrypt/__init__.py").read_text()
        (found,) = [one for one in statements_of(source, "phicrypt/__init__.py") if one.text == statement_text]
        with mistake(copy, Place(found, mutated, "same place")):
            ending = run_tests(copy, arguments or ["tests/s3"], timeout_seconds)
        assert (copy / "phicrypt/__init__.py").read_text() == source
    return ending


def test_a_mistake_is_noticed_by_the_first_test_that_fails(tree: Path) -> None:
    before = (tree / "phicrypt/__init__.py").read_text()
    ending = trial_of(tree, "return 2 * x", "return 1 * x")
    assert (ending.is_noticed, ending.by) == (True, "tests/s3/test_numbers.py::test_something")
    assert (tree / "phicrypt/__init__.py").read_text() == before


def test_a_mistake_that_no_test_notices_lives(tree: Path) -> None:
    assert not trial_of(tree, "while x < 0:", "while x < -1:").is_noticed


def test_a_hang_is_noticed_and_names_its_test(tree: Path) -> None:
    for timeout_seconds in (5, 20, 80):  # a busy machine needs longer to come as far as the test
        ending = trial_of(tree, "while x < 0:", "while x <= 0 or True:", timeout_seconds=timeout_seconds)
        if "collected" not in str(ending.by):
            break
    assert (ending.is_noticed, ending.by) == (True, "hang: tests/s3/test_numbers.py::test_nothing")


def test_no_test_at_all_is_not_taken_for_a_pass(tree: Path) -> None:
    assert not trial_of(tree, "return 2 * x", "return 1 * x", "tests/s3", "-k", "absent").has_run


def test_tests_that_somebody_else_stopped_are_not_taken_for_a_notice(tree: Path) -> None:
    stopping = "import os, signal\ndef test_stopped():\n    os.kill(os.getpid(), signal.SIGTERM)\n"
    (tree / "tests/s3/test_numbers.py").write_text(stopping)
    ending = trial_of(tree, "return 2 * x", "return 1 * x")
    assert (ending.is_noticed, ending.has_run) == (False, False)


def test_the_test_that_noticed_it_is_found_in_another_file(tree: Path) -> None:
    killed = replace(MUTANT, killed_by="hang: tests/s3/test_old.py::TestThem::test_something[a::b]")
    assert known_killer(tree, killed) == ["tests/s3/test_numbers.py", "-k", "test_something"]
    assert known_killer(tree, replace(MUTANT, killed_by="tests/keys/test_numbers.py")) == [
        "tests/s3/test_numbers.py"
    ]
    assert known_killer(tree, replace(MUTANT, killed_by="tests/s3/test_a.py::test_absent")) == []
    assert known_killer(tree, MUTANT) == []
