"""The command line: ``phicrypt COMMAND``.

Each area keeps its commands in a module of this package that exposes ``app: typer.Typer``. The root
knows names and one-line helps only and imports an area when its command is called, so that
``phicrypt --help`` is fast and a broken area breaks nothing else. What a command may simply raise,
and the exit code that follows, stands in :mod:`phicrypt.cli.console`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_MISSING = "the command line needs typer and rich, which are not installed: pip install 'phicrypt[cli]'"


def run(arguments: Sequence[str]) -> int:
    """Run one command in this process and return its exit code; errors become one line on stderr."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError:
        print(f"phicrypt: {_MISSING}", file=sys.stderr)
        return 2
    from phicrypt.cli.console import complain, exit_code_of
    from phicrypt.cli.interruption import INTERRUPTED_EXIT_CODE
    from phicrypt.cli.root import root_command

    try:
        root_command().main(args=list(arguments), prog_name="phicrypt")
    except SystemExit as ending:
        if ending.code == INTERRUPTED_EXIT_CODE:
            complain("interrupted")
        return ending.code if isinstance(ending.code, int) else 0 if ending.code is None else 1
    except BaseException as error:
        code = exit_code_of(error)
        if code is None:
            raise
        return code
    return 0


def main() -> None:
    """Entry point of the ``phicrypt`` program."""
    from phicrypt.cli.interruption import unwind_on_signals

    unwind_on_signals()
    sys.exit(run(sys.argv[1:]))
