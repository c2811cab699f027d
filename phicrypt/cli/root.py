"""The root command: which commands there are, and where each is found when it is called."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from phicrypt._version import __version__
from phicrypt.cli.console import EXIT_CODES_EPILOG, fail


@dataclass(frozen=True, slots=True)
class Entry:
    """One command of the root.

    Attributes:
        module: the area, ``phicrypt.cli.<module>``, which exposes ``app``.
        help: one line for ``phicrypt --help``.
        is_whole_app: the command is the area's app itself; else the command of that name in it.
    """

    module: str
    help: str
    is_whole_app: bool = False


COMMANDS: Final = {
    "encrypt": Entry("files", "Encrypt a file, a folder or a pipe under a KMS key."),
    "decrypt": Entry("files", "Decrypt a file, a folder or a pipe after verifying all of it."),
    "inspect": Entry("files", "Show what a message says about itself, without any key."),
    "demo": Entry("demo", "Watch it work on an embedded local AWS; needs no account.", is_whole_app=True),
    "keystore": Entry("keystore", "Create, rotate, list and shred branch keys.", is_whole_app=True),
    "s3": Entry("s3", "Put, get and list encrypted S3 objects.", is_whole_app=True),
    "dynamodb": Entry(
        "dynamodb", "Encrypt tables in place and prove that no plaintext is left.", is_whole_app=True
    ),
    "audit": Entry("audit", "Verify audit logs and join them with CloudTrail.", is_whole_app=True),
    "drill": Entry("drill", "Rehearse recovery: decrypt a sample by the recovery path alone.", is_whole_app=True),
    "sign": Entry("sign", "Sign files and manifests under a KMS key."),
    "verify": Entry("sign", "Verify signatures."),
    "mac": Entry("sign", "Generate and verify MACs under a KMS key."),
    "doctor": Entry("posture", "Check the AWS settings around your keys, buckets and tables."),
    "policy": Entry("posture", "Print and lint least-privilege policies."),
}


def root_command() -> TyperGroup:
    """The ``phicrypt`` command group."""
    app = typer.Typer(
        cls=LazyGroup,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=EXIT_CODES_EPILOG,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def phicrypt(
        version: bool = typer.Option(
            False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ) -> None:
        """Client-side encryption of protected health information, in AWS's own formats."""

    command = get_command(app)
    assert isinstance(command, TyperGroup)
    return command


def load_command(name: str) -> Any:
    """Import the area of a command and return the command."""
    entry = COMMANDS[name]
    try:
        module = import_module(f"phicrypt.cli.{entry.module}")
    except ImportError as error:
        fail(f"the command {name!r} cannot be loaded: {error}")
    command = get_command(module.app)
    # Shell completion is installed for the program, not for a part of it.
    command.params = [one for one in command.params if one.name not in ("install_completion", "show_completion")]
    _reflow_help(command)
    if entry.is_whole_app:
        return command
    # An app with one command is that command; with several, a group of them.
    return command.commands[name] if isinstance(command, TyperGroup) else command


class LazyGroup(TyperGroup):
    """Lists every installed area by its one-line help; imports one only when it is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, entry in COMMANDS.items():
            if find_spec(f"phicrypt.cli.{entry.module}") is not None:
                self.commands[name] = TyperCommand(name=name, callback=None, params=[], help=entry.help)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name in COMMANDS else command, rest


def _reflow_help(command: Any) -> None:
    """Join the lines of each paragraph, and show brackets as brackets instead of obeying them as markup."""
    if command.help:
        # Docstrings are wrapped for editors, not for this terminal.
        command.help = escape("\n\n".join(" ".join(part.split()) for part in command.help.split("\n\n")))
    for parameter in command.params:
        if getattr(parameter, "help", None):
            parameter.help = escape(parameter.help)
    for inner in getattr(command, "commands", {}).values():
        _reflow_help(inner)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"phicrypt {__version__}")
        raise typer.Exit
