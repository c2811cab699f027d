"""The package is strictly typed; mypy and pyright find each mistake of ``tests/typing``, and nothing else."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MISTAKES = sorted((ROOT / "tests" / "typing").glob("*.py"))
MISTAKE = "# error"
Lines = dict[tuple[str, int], str]


def marked(mark: str) -> set[tuple[str, int]]:
    return {
        (path.name, number)
        for path in MISTAKES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.endswith(mark)
    }


def run(*command: str) -> str:
    # The packages of this tree, not an installed phicrypt.
    environment = os.environ | {"MYPYPATH": str(ROOT), "NO_COLOR": "1"}
    ending = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ending.returncode in (0, 1), ending.stdout + ending.stderr
    return ending.stdout


@functools.cache
def mypy_errors() -> tuple[tuple[str, int, str], ...]:
    """(file, line, error) of the package and of the mistakes: one run, because a run takes a while."""
    output = run(sys.executable, "-m", "mypy", "phicrypt", *map(str, MISTAKES))
    errors = re.findall(r"^(\S+?\.py):(\d+): error: (.*)$", output, flags=re.MULTILINE)
    assert errors or "no issues found" in output, output
    return tuple((file, int(line), text) for file, line, text in errors)


def found_by_mypy(tmp_path: Path) -> Lines:
    return {
        (Path(file).name, line): text for file, line, text in mypy_errors() if Path(file).parent.name == "typing"
    }


def found_by_pyright(tmp_path: Path) -> Lines:
    for path in MISTAKES:  # pyright looks at what lies beside its settings
        shutil.copy(path, tmp_path)
    settings = {
        "extraPaths": [str(ROOT)],
        "reportUnusedExpression": "none",
        "reportMissingModuleSource": "none",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    output = run(
        sys.executable, "-m", "pyright", "-p", str(tmp_path), "--pythonpath", sys.executable, "--outputjson"
    )
    return {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1): one["message"]
        for one in json.loads(output)["generalDiagnostics"]
        if one["severity"] == "error"
    }


@pytest.mark.parametrize(("checker", "find"), [("mypy", found_by_mypy), ("pyright", found_by_pyright)])
def test_finds_every_mistake_and_nothing_else(checker, find, tmp_path):
    for package in (checker, "mypy_boto3_s3", "mypy_boto3_dynamodb"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed (extra: test)")
    found = find(tmp_path)
    missed = sorted(marked(MISTAKE) - found.keys())
    too_many = {place: found[place] for place in sorted(found.keys() - marked(MISTAKE))}
    assert (missed, too_many) == ([], {})


def test_the_package_is_strictly_typed():
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed (extra: test)")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert settings["strict"] is True
    assert [error for error in mypy_errors() if Path(error[0]).parts[0] == "phicrypt"] == []


def test_there_are_thirty_mistakes_at_least():
    assert len(marked(MISTAKE)) >= 30
