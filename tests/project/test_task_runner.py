"""One task runner: what contributing.md names is what it does, and CI runs on the Pythons that are supported."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOXFILE = ROOT / ".ci" / "noxfile.py"
CONTRIBUTING = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def sessions():
    tree = ast.parse(NOXFILE.read_text(encoding="utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any("nox.session" in ast.unparse(decorator) for decorator in node.decorator_list)
    }


def documented_sessions():
    section = CONTRIBUTING.partition("## The task runner")[2].partition("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE))


def supported_pythons():
    prefix = "Programming Language :: Python :: 3."
    return [
        f"3.{one.removeprefix(prefix)}" for one in SETTINGS["project"]["classifiers"] if one.startswith(prefix)
    ]


def test_contributing_names_every_session_and_no_other():
    assert documented_sessions() == sessions()


def test_every_session_says_what_it_does():
    tree = ast.parse(NOXFILE.read_text(encoding="utf-8"))
    silent = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name in sessions() and not ast.get_docstring(node)
    ]
    assert silent == []


def test_the_root_holds_no_task_runner():
    assert [name for name in ("noxfile.py", "tox.ini", "Makefile", "justfile") if (ROOT / name).exists()] == []


def test_files_and_modules_that_sessions_run_exist():
    text = NOXFILE.read_text(encoding="utf-8")
    named = {*re.findall(r'"(tests/[\w/]+)"', text), *re.findall(r'"-m", "((?:tests|benchmarks)[\w.]*)"', text)}
    paths = {name: ROOT / name.replace(".", "/") for name in named}
    assert named
    assert [name for name, path in paths.items() if not path.exists()] == []


def test_pythons_are_the_same_in_metadata_task_runner_workflow_and_documentation():
    pythons = supported_pythons()
    listed = ", ".join(f'"{one}"' for one in pythons)
    assert f"PYTHONS = [{listed}]" in NOXFILE.read_text(encoding="utf-8")
    assert f"python: [{listed}]" in WORKFLOW
    assert f"Python {', '.join(pythons[:-1])} and {pythons[-1]}" in (ROOT / "docs" / "versions.md").read_text()
    assert SETTINGS["project"]["requires-python"] == f">={pythons[0]}"


def test_the_workflow_runs_what_contributing_says_and_uses_no_secret():
    assert "run: .ci/run" in WORKFLOW
    run = set(re.findall(r"^\s+session: \[(.+)\]$", WORKFLOW, flags=re.MULTILINE)[0].split(", "))
    assert {*run, "tests"} <= sessions()
    sentence = CONTRIBUTING.partition("CI (`.github/workflows/ci.yml`) runs ")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == {*run, "tests"}
    assert "secrets." not in WORKFLOW
    assert re.search(r"^permissions:\n  contents: read$", WORKFLOW, flags=re.MULTILINE)


def test_the_bound_on_branch_coverage_is_the_documented_one():
    run, report = (SETTINGS["tool"]["coverage"][part] for part in ("run", "report"))
    assert run["branch"] is True
    assert set(run["source"]) == {"phicrypt/formats", "phicrypt/keys"}
    assert f"at least {report['fail_under']}%" in CONTRIBUTING
    assert report["fail_under"] >= 98
