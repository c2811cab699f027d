"""ruff is clean; files and functions stay short; nothing in the tree names a machine."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 40
"""What docs/contributing.md says as well. What is counted of a function is its body: signatures and docstrings
are documentation."""
BEYOND_LIMITS = {"s3/operations_forwarded.py: _table": "a table"}
TEXT_SUFFIXES = {
    ".py",
    ".md",
    ".toml",
    ".yaml",
    ".yml",
    ".json",
    ".js",
    ".java",
    ".xml",
    ".tf",
    ".sh",
    ".html",
    "",
}


def run(*arguments):
    ending = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return ending.returncode, ending.stdout + ending.stderr


def tree():
    """Every file of the project: what git tracks, or in an unpacked archive what is there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\0")[:-1] if listed.returncode == 0 else []
    found = [ROOT / name for name in names] or [path for path in ROOT.rglob("*") if ".venv" not in path.parts]
    return [path for path in found if path.is_file()]


@pytest.mark.parametrize("arguments", [("check", "."), ("format", "--check", ".")])
def test_ruff_is_clean(arguments):
    if importlib.util.find_spec("ruff") is None:
        pytest.skip("ruff is not installed (extra: test)")
    code, output = run("ruff", *arguments)
    assert code == 0, output


def beyond_limits():
    """What is too long, by its name in the package: the file, or the file and the function."""
    for path in sorted((ROOT / "phicrypt").rglob("*.py")):
        source, name = path.read_text(), str(path.relative_to(ROOT / "phicrypt"))
        if (count := source.count("\n")) > MAX_FILE_LINES:
            yield name, count
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                count = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                if count > MAX_FUNCTION_LINES:
                    yield f"{name}: {node.name}", count


def test_files_and_functions_stay_short():
    assert [f"{name}, {count} lines" for name, count in beyond_limits() if name not in BEYOND_LIMITS] == []


def test_what_may_be_longer_still_is():
    assert set(BEYOND_LIMITS) == {name for name, _ in beyond_limits()}


def test_contributing_says_the_same_limits():
    text = (ROOT / "docs" / "contributing.md").read_text()
    assert f"Files have up to {MAX_FILE_LINES} lines and functions up to {MAX_FUNCTION_LINES}," in text


def test_no_machine_paths_in_the_tree():
    homes = re.compile(r"(?<![\w./-])/(?:work|root|home/\w+|Users/\w+)/")
    named = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in tree()
        if path.suffix in TEXT_SUFFIXES
        and path != Path(__file__)
        and (match := homes.search(path.read_text(errors="replace")))
    ]
    assert named == []


def test_no_vectors_and_no_secrets_files_are_committed():
    names = {path.name for path in tree()}
    assert not {name for name in names if name.endswith((".pem", ".env", ".p12")) or name == "credentials"}


def test_no_catch_all_module_names():
    names = {path.stem for path in (ROOT / "phicrypt").rglob("*.py")}
    assert not names & {"utils", "util", "helpers", "helper", "manager", "misc", "common"}


def test_cases_of_a_test_have_the_same_names_in_every_process():
    """Cases made of time or chance have other names in each process: parallel runs then refuse to start."""
    changing = {"urandom", "uuid4", "now", "time", "time_ns", "token_bytes", "token_hex"}
    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            for decorator in getattr(function, "decorator_list", ()):
                for node in ast.walk(decorator):
                    if not isinstance(node, ast.Call):
                        continue
                    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                    dated = ast.unparse(node.func) == "gzip.compress" and "mtime=0" not in ast.unparse(node)
                    if name in changing or dated:
                        found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    assert found == []
