"""The README and the docs say what is so: commands, code, policy and links."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from phicrypt.cli.console import EXIT_CODES
from phicrypt.cli.root import COMMANDS
from phicrypt.testing import local_aws
from phicrypt.testing.local_stack import ACCESS_KEY_ID, SECRET_ACCESS_KEY

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def blocks(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path):
    headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def run_code(code, aws, folder):
    """Run a program in a process whose AWS is the local one."""
    environment = {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        "AWS_ENDPOINT_URL": aws.endpoint_url,
        "AWS_DEFAULT_REGION": aws.region,
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
    }
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


def test_ci_runs_the_readme_commands():
    """The demo's and the tests' command, word for word, each in a fresh clone."""
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    set_up = [line for block in blocks("sh") for line in block.splitlines() if "-m venv" in line]
    assert len(set_up) == 2
    for command in set_up:
        assert command in script
        before = script[: script.index(command)]
        assert before[-1] == "fresh_clone"
    assert ".venv/bin/python -m pytest -q tests/interop" in script
    assert "`.venv/bin/python -m pytest -q tests/interop`" in README


def test_ci_stops_at_the_first_failure_and_is_valid_bash():
    script = ROOT / ".ci" / "run"
    assert "set -euo pipefail" in script.read_text()
    assert script.stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


def test_readme_code_runs_and_calls_kms_as_its_policy_allows(tmp_path):
    """The ten lines on a local AWS; the policy allows just what they called, on the key they named."""
    (code,) = blocks("python")
    policy = json.loads(blocks("json")[0])
    (statement,) = policy["Statement"]
    written_arn = statement["Resource"]
    assert written_arn in code
    with local_aws() as aws:
        program = code.replace(written_arn, aws.kms_key_arn) + "\nassert plaintext == b'hemoglobin 13.5 g/dL'\n"
        ending = run_code(program, aws, tmp_path)
        assert ending.returncode == 0, ending.stderr
        called = {f"kms:{one['operation']}" for one in aws.kms_requests}
        contexts = [one["parameters"]["EncryptionContext"] for one in aws.kms_requests]
    assert called == set(statement["Action"])
    conditions = statement["Condition"]["StringEquals"]
    assert all(context == {"tenant": conditions["kms:EncryptionContext:tenant"]} for context in contexts)
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_in_the_docs_is_python(page):
    for code in blocks("python", page.read_text()):
        ast.parse(code)


def test_code_of_the_messages_page_runs(tmp_path):
    code = "".join(blocks("python", (ROOT / "docs" / "messages.md").read_text()))
    arn = re.search(r"arn:aws:kms:[^\"]+", code).group()
    (tmp_path / "scan.dcm").write_bytes(bytes(2_000_000))
    with local_aws() as aws:
        ending = run_code(code.replace(arn, aws.kms_key_arn) + "\nassert piece == bytes(4_096)\n", aws, tmp_path)
    assert ending.returncode == 0, ending.stderr


def test_readme_code_is_ten_lines():
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


def test_every_exit_code_is_documented():
    text = (ROOT / "docs" / "cli.md").read_text()
    for classes, code, _ in EXIT_CODES:
        row = next(line for line in text.splitlines() if line.startswith(f"| {code} |"))
        assert all(one.__name__ in row for one in classes)


def test_every_command_is_documented():
    text = (ROOT / "docs" / "cli.md").read_text()
    assert [name for name in COMMANDS if f"`{name}`" not in text and f"phicrypt {name}" not in text] == []


def test_every_error_is_documented():
    from phicrypt import errors

    text = (ROOT / "docs" / "errors.md").read_text()
    names = [
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_command_lines_in_the_docs_name_real_options():
    from typer.main import get_command

    from phicrypt.cli.files import app

    group: Any = get_command(app)
    known = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in group.commands.items()
    }
    for text in (README, (ROOT / "docs" / "cli.md").read_text()):
        for line in "\n".join(blocks("sh", text)).splitlines():
            words = shlex.split(line, comments=True)
            if "phicrypt" in words and (name := words[words.index("phicrypt") + 1]) in known:
                used = {word.strip("[]") for word in words if word.strip("[]").startswith("--")}
                assert used <= known[name], line
