"""phicrypt demo: every chapter holds, uses no credentials, and a broken promise fails it."""

from __future__ import annotations

import functools
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from phicrypt.demo.patients import patient_bundle
from phicrypt.demo.stage import DemoError, Stage, hex_dump
from phicrypt.demo.walkthrough import available_chapters, tell_story
from phicrypt.errors import ConfigurationError

ROOT = Path(__file__).parents[2]


def told(*names, file=None):
    text = io.StringIO()
    held = tell_story(names, file=file, console=Console(file=text, width=120))
    return held, text.getvalue()


@functools.cache
def told_once(*names):
    """Told for the first test that asks: a chapter takes seconds."""
    return told(*names)


@pytest.mark.parametrize("name", available_chapters())
def test_chapter_holds(name):
    held, text = told_once(name)
    assert held, text
    assert "✗" not in text
    assert "✓" in text


def test_the_whole_story_holds_in_one_go():
    """The chapters share one local AWS, as they do for a user."""
    held, text = told()
    assert held, text


def test_the_story_begins_with_messages():
    assert available_chapters()[0] == "messages"


def test_ten_thousand_messages_took_one_kms_call():
    assert "✓ 10,000 messages took one KMS call" in told_once("messages")[1]


@pytest.mark.parametrize("size", [0, 1, 15, 100_000])
def test_the_users_own_file(tmp_path, size):
    (tmp_path / "mine.bin").write_bytes(os.urandom(size))
    held, text = told("messages", file=tmp_path / "mine.bin")
    assert held, text
    assert f"mine.bin, {size:,} bytes" in text


def test_an_unknown_chapter_is_refused():
    with pytest.raises(ConfigurationError, match="there is no chapter 'absent'"):
        told("absent")


def test_a_check_that_does_not_hold_fails_the_demo_and_the_rest_is_told(monkeypatch):
    monkeypatch.setattr("phicrypt.demo.messages.tell", lambda stage: stage.check(False, "two is three"))
    held, text = told("messages", "messages")
    assert not held
    assert text.count("✗ two is three") == 2


def test_a_chapter_that_raises_fails_the_demo(monkeypatch):
    def broken(stage):
        raise KeyError("x")

    monkeypatch.setattr("phicrypt.demo.messages.tell", broken)
    assert not told("messages")[0]


def test_check_raises_for_what_does_not_hold(tmp_path):
    stage = Stage(None, tmp_path, console=Console(file=io.StringIO()))
    stage.check(True, "holds")
    with pytest.raises(DemoError):
        stage.check(0, "does not")
    assert stage.checks_held == 1


def test_no_credentials_are_used_even_if_present(tmp_path):
    """Real-looking credentials, profile and endpoint in the environment change nothing."""
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "AKIAREALREALREALREAL",
        "AWS_SECRET_ACCESS_KEY": "real",
        "AWS_PROFILE": "production",
        "AWS_ENDPOINT_URL": "https://192.0.2.1",
        "HTTP_PROXY": "http://192.0.2.1:1",
        "HTTPS_PROXY": "http://192.0.2.1:1",
    }
    code = (
        "import phicrypt.testing.local_stack as local, sys\n"
        "from phicrypt.cli import run\n"
        "stacks = []\n"
        "enter = local.LocalAws.__enter__\n"
        "local.LocalAws.__enter__ = lambda self: stacks.append(enter(self)) or stacks[0]\n"
        "code = run(['demo', '--chapter', 'messages'])\n"
        "assert {one['access_key_id'] for one in stacks[0].kms_requests} == {local.ACCESS_KEY_ID}\n"
        "sys.exit(code)\n"
    )
    ending = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=False
    )
    assert ending.returncode == 0, ending.stderr.decode()


def test_the_command_ends_with_exit_code_1_when_something_did_not_hold():
    code = (
        "import phicrypt.demo.messages as m, sys; m.tell = lambda stage: stage.check(False, 'no')\n"
        "from phicrypt.cli import run; sys.exit(run(['demo', '--chapter', 'messages']))"
    )
    ending = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert ending.returncode == 1


def test_the_patient_bundle_is_json_and_the_same_each_time():
    bundle = json.loads(patient_bundle())
    assert bundle["resourceType"] == "Bundle"
    assert bundle["total"] == len(bundle["entry"])
    assert patient_bundle() == patient_bundle()


def test_hex_dump_shows_the_first_rows_and_counts_the_rest():
    assert hex_dump(b"AB\x00").endswith("AB·")
    assert "… 52 more bytes" in hex_dump(bytes(100))
