"""The root command: every area is registered, loads, and shows its help."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import phicrypt.cli.root as root
from phicrypt.cli import run
from phicrypt.cli.console import EXIT_CODES, exit_code_of
from phicrypt.errors import KeyAccessError, PhiCryptError

CLI = Path(root.__file__).parent


def areas():
    declared = re.compile(r"^app = (typer\.Typer|Commands)\(", re.MULTILINE)
    return {path.stem for path in CLI.glob("*.py") if declared.search(path.read_text())}


def test_every_area_is_registered_and_every_registered_area_exists():
    assert {entry.module for entry in root.COMMANDS.values()} == areas()


@pytest.mark.parametrize("name", root.COMMANDS)
def test_every_command_loads_and_shows_its_help(name, capfd):
    assert run([name, "--help"]) == 0
    assert f"phicrypt {name}" in capfd.readouterr().out


@pytest.mark.parametrize("name", root.COMMANDS)
def test_the_help_of_each_sub_command_is_shown(name, capfd):
    for inner in getattr(root.load_command(name), "commands", {}):
        assert run([name, inner, "--help"]) == 0


def test_help_lists_every_command(capfd):
    assert run(["--help"]) == 0
    out = capfd.readouterr().out
    assert [name for name in root.COMMANDS if f" {name} " not in out] == []


def test_an_unknown_command_is_a_usage_error(capfd):
    assert run(["encrpt"]) == 2
    assert "No such command" in capfd.readouterr().err


def test_no_command_shows_the_help(capfd):
    assert run([]) == 2
    assert "Usage" in "".join(capfd.readouterr())


def test_version(capfd):
    assert run(["--version"]) == 0
    assert re.fullmatch(r"phicrypt \d+\.\d+\.\d+\n", capfd.readouterr().out)


def test_every_phicrypt_error_has_an_exit_code_of_its_family():
    covered = [one for classes, _, _ in EXIT_CODES for one in classes]
    missing = [one for one in PhiCryptError.__subclasses__() if not issubclass(one, tuple(covered))]
    assert missing == []
    codes = [code for _, code, _ in EXIT_CODES]
    assert len(set(codes)) == len(codes)


def test_a_defect_of_the_program_is_not_dressed_up_as_an_error_of_the_user():
    assert exit_code_of(ValueError("a defect")) is None


def test_an_error_is_one_line_without_control_characters(capfd):
    error = KeyAccessError("two\nlines\x1b[2J", operation="Decrypt", code="X")
    assert exit_code_of(error) == 6
    assert capfd.readouterr().err == "phicrypt: two lines\ufffd[2J\n"


def test_sub_commands_offer_no_shell_completion_of_their_own():
    for name in root.COMMANDS:
        assert not {one.name for one in root.load_command(name).params} & {"install_completion", "show_completion"}
    assert "install_completion" in {one.name for one in root.root_command().params}
