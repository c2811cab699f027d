"""mypy and pyright find every mistake of ``tests/typing``, and nothing else there."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MISTAKES = sorted((ROOT / "tests" / "typing").glob("*.py"))
MISTAKE = "# error"
UNDECIDED = "# later"
"""A mistake that only a type to come will show."""
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


def found_by_mypy(tmp_path: Path) -> Lines:
    output = run(sys.executable, "-m", "mypy", "--show-error-codes", *map(str, MISTAKES))
    errors = re.findall(r"^(\S+?\.py):(\d+): error: (.*)$", output, flags=re.MULTILINE)
    outside = [file for file, _, _ in errors if Path(file).parent.name != "typing"]
    assert outside == [], output
    return {(Path(file).name, int(line)): text for file, line, text in errors}


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
    too_many = {place: found[place] for place in sorted(found.keys() - marked(MISTAKE) - marked(UNDECIDED))}
    assert (missed, too_many) == ([], {})


def test_there_are_thirty_mistakes_at_least():
    assert len(marked(MISTAKE)) >= 30
