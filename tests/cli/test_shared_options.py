"""Options that several commands share stand once, in groups; this says what a new one still lacks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from phicrypt.cli.commands import Commands, OptionGroup, Without
from phicrypt.cli.options import AuditOptions, AwsAccess
from phicrypt.cli.root import COMMANDS, load_command

ROOT = Path(__file__).parents[2]
GROUPS = (AwsAccess, AuditOptions)
LEFT_OUT = {
    "doctor": {"--fips"},
    "audit verify": {"--fips"},
    "audit join": {"--fips"},
    "audit who": {"--fips", "--purpose"},
    "audit actor": {"--fips"},
    "audit disclosures": {"--fips", "--purpose"},
    "audit token-keys": {"--fips"},
    # --purpose is what the signature vouches for there.
    "sign": {"--purpose"},
    "verify": {"--purpose"},
    "mac generate": {"--purpose"},
    "mac verify": {"--purpose"},
}


def options_of(group: type[OptionGroup]) -> dict[str, Any]:
    """Option name -> typer's description of it, for each field of a group."""
    found = {}
    for hint in get_type_hints(group, include_extras=True).values():
        (option,) = hint.__metadata__
        found[option.default] = option
    return found


def commands() -> Iterator[tuple[str, Any]]:
    def below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
        for inner_name, one in (inner or {}).items():
            yield from below(f"{name} {inner_name}", one)

    for name in COMMANDS:
        yield from below(name, load_command(name))


@pytest.mark.parametrize("group", GROUPS)
def test_a_command_takes_all_options_of_a_group_or_says_which_it_leaves_out(group: type[OptionGroup]) -> None:
    lacking = []
    taking = 0
    for name, command in commands():
        helps = {option: one.help for one in command.params for option in one.opts}
        shared = {option for option, told in options_of(group).items() if helps.get(option) == told.help}
        if shared:
            taking += 1
            lacking += sorted(
                f"phicrypt {name} lacks {option}"
                for option in options_of(group).keys() - shared - LEFT_OUT.get(name, set())
            )
    assert lacking == []
    assert taking > 10


def test_what_is_left_out_is_left_out() -> None:
    all_commands = dict(commands())
    for name, options in LEFT_OUT.items():
        told = {option: one.help for group in GROUPS for option, one in options_of(group).items()}
        taken = {
            option for one in all_commands[name].params for option in one.opts if one.help == told.get(option)
        }
        assert not options & taken, name


@pytest.mark.parametrize("group", GROUPS)
def test_no_other_module_of_the_command_line_declares_a_shared_option(group: type[OptionGroup]) -> None:
    names = "|".join(map(re.escape, options_of(group)))
    declared = [
        f"{path.name}: {match.group(1)}"
        for path in (ROOT / "phicrypt" / "cli").glob("*.py")
        if path.name != "options.py"
        for match in re.finditer(rf'Option\(\s*"({names})"', path.read_text())
    ]
    assert declared == ["sign.py: --purpose"] * (group is AuditOptions)


@pytest.mark.parametrize("group", GROUPS)
def test_the_documentation_names_every_shared_option(group: type[OptionGroup]) -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    assert [option for option in options_of(group) if f"`{option}" not in page] == []


@dataclass(frozen=True)
class Place(OptionGroup):
    planet: Annotated[str, typer.Option("--planet", help="Which planet.")] = "Earth"
    is_far: Annotated[bool, typer.Option("--far")] = False


def run(arguments: list[str], seen: list[object]) -> int:
    app = Commands()

    @app.command()
    def visit(name: str, *, place: Place, times: int = 1) -> None:
        """Visit somebody."""
        seen.append((name, place, times))

    @app.command()
    def ring(*, place: Annotated[Place, Without("is_far")]) -> None:
        seen.append(place)

    return CliRunner().invoke(app, arguments).exit_code


def test_a_command_gets_a_group_of_options_as_one_object() -> None:
    seen: list[object] = []
    assert run(["visit", "Ada", "--times", "2", "--planet", "Mars", "--far"], seen) == 0
    assert run(["visit", "Ada"], seen) == 0
    assert seen == [("Ada", Place("Mars", True), 2), ("Ada", Place(), 1)]


def test_a_command_does_not_take_what_it_leaves_out() -> None:
    seen: list[object] = []
    assert run(["ring", "--planet", "Mars"], seen) == 0
    assert run(["ring", "--far"], seen) == 2
    assert seen == [Place("Mars")]
