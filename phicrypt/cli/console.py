"""What commands say and how they end: tables, JSON, progress, errors and exit codes.

A command simply raises: a ``PhiCryptError``, an ``OSError``, a botocore error or ``KeyboardInterrupt``
becomes one line on stderr and the exit code below. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn, Protocol

import typer

from phicrypt.cli.interruption import INTERRUPTED_EXIT_CODE, TERMINATED_EXIT_CODE
from phicrypt.errors import (
    AuditError,
    AuthenticationError,
    ConfigurationError,
    ContextMismatchError,
    FormatError,
    KeyAccessError,
    LimitExceededError,
    NotEncryptedError,
    PhiCryptError,
    PhiInContextError,
    UnsupportedOperationError,
)

EXIT_CODES: Final[tuple[tuple[tuple[type[Exception], ...], int, str], ...]] = (
    ((ConfigurationError,), 2, "usage or configuration"),
    ((FormatError, NotEncryptedError), 3, "not a valid message, or not encrypted"),
    ((AuthenticationError,), 4, "changed bytes, wrong key or wrong context: authentication failed"),
    (
        (ContextMismatchError, PhiInContextError),
        5,
        "the encryption context was not the expected one, or looks like PHI",
    ),
    ((KeyAccessError,), 6, "KMS or the key store refused or could not be reached"),
    ((LimitExceededError,), 7, "a bound was passed"),
    ((AuditError,), 8, "the audit event could not be written"),
    ((OSError,), 9, "files: missing, existing without --force, no space, no permission"),
    ((UnsupportedOperationError,), 10, "refused: unsigned, uncommitted or not supported"),
)
"""Error classes, the exit code that they end with, and what it means."""
_PIPE_WIDTH: Final = 240
SERVICE_EXIT_CODE: Final = 11
"""S3, DynamoDB or another AWS service answered with an error of its own."""
CHECK_EXIT_CODE: Final = 1
"""Something that a command was asked to check did not hold."""

EXIT_CODES_EPILOG: Final = "\n".join(
    (
        "Exit codes:",
        " 0  done",
        f" {CHECK_EXIT_CODE}  something that the command checks did not hold",
        *(f"{code:>2}  {meaning}" for _, code, meaning in EXIT_CODES),
        f"{SERVICE_EXIT_CODE}  another AWS service refused",
        f"{INTERRUPTED_EXIT_CODE} interrupted, {TERMINATED_EXIT_CODE} terminated",
    )
)


def exit_code_of(error: BaseException) -> int | None:
    """Print an expected error as one line on stderr; its exit code, or None for a defect of the program."""
    if isinstance(error, KeyboardInterrupt):
        complain("interrupted")
        return INTERRUPTED_EXIT_CODE
    if isinstance(error, BrokenPipeError):
        # The reader of our output went away, as `head` does; Python must not complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CHECK_EXIT_CODE
    for classes, code, _ in EXIT_CODES:
        if isinstance(error, classes):
            complain(_one_line(error))
            return code
    if isinstance(error, PhiCryptError):
        complain(_one_line(error))
        return CHECK_EXIT_CODE
    if type(error).__module__.startswith(("botocore.", "boto3.")):
        complain(_one_line(error))
        return SERVICE_EXIT_CODE
    return None


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        named = f": {error.filename}" if error.filename is not None else ""
        return f"{error.strerror}{named}"
    text = " ".join(str(error).split())
    # What a client declares by a keyword is an option here.
    return text.replace("required_context", "--required-context")


def complain(text: str) -> None:
    """One line on stderr."""
    print(f"phicrypt: {printable(' '.join(text.splitlines()))}", file=sys.stderr)


def printable(text: str) -> str:
    """The text without control characters, which file names and messages of others may hold."""
    return "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)


def fail(text: str, exit_code: int = 2) -> NoReturn:
    """One line on stderr, then the end of the command."""
    complain(text)
    raise typer.Exit(exit_code)


def print_json(value: Any) -> None:
    """A value as JSON on stdout: indented on a terminal, one line in a pipe."""
    # ASCII only: names in messages and file systems may hold control characters and lone surrogates.
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None, default=str))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout. Cells are plain text: markup in them is shown, not obeyed."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")  # an ARN that is cut off helps nobody
    for row in rows:
        table.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in row))
    has_width = sys.stdout.isatty() or "COLUMNS" in os.environ
    Console(highlight=False, width=None if has_width else _PIPE_WIDTH).print(table)


class Advance(Protocol):
    """Tells the progress bar that so much more was done."""

    def __call__(self, amount: float, /) -> None: ...


@contextmanager
def progress(description: str, total: float | None, *, in_bytes: bool = False) -> Iterator[Advance]:
    """A progress bar on stderr if that is a terminal, else nothing: ``with progress(…) as advance:``.

    Args:
        description: what is being done.
        total: how much there is to do, None if unknown.
        in_bytes: show sizes and speed in bytes.
    """
    if not sys.stderr.isatty():
        yield lambda amount, /: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amounts: tuple[ProgressColumn, ...] = (
        (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
    )
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), *amounts, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda amount, /: bar.advance(task, amount)
