"""The stage on which the demo's chapters are told."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from phicrypt.testing.local_stack import LocalAws


class DemoError(Exception):
    """Something that the demo promised did not hold."""


class Stage:
    """What a chapter gets: a local AWS, a folder, the user's file, and a way to speak.

    Attributes:
        aws: the running local AWS (:class:`phicrypt.testing.local_stack.LocalAws`).
        folder: an empty folder for the chapter's files; it is removed when the demo ends.
        file: the file that the user brought with ``--file``, or None.
        checks_held: how many checks held so far.
    """

    def __init__(self, aws: LocalAws, folder: Path, *, file: Path | None = None, console: Console) -> None:
        self.aws = aws
        self.folder = folder
        self.file = file
        self.checks_held = 0
        self._console = console
        self._chapters = 0

    def chapter(self, title: str) -> None:
        """The title line of a chapter."""
        self._chapters += 1
        self._console.print()
        self._console.print(
            Rule(Text(f"{self._chapters}. {title}", style="bold cyan"), align="left", style="cyan")
        )

    def say(self, text: str) -> None:
        """A paragraph. Plain text: markup in it is shown, not obeyed."""
        self._console.print(Padding(Text(text), (0, 0, 0, 2)))

    def show(self, label: str, value: object) -> None:
        """A labelled value, such as an ARN, a count or a duration; bytes are shown as a short hex dump."""
        if isinstance(value, bytes | bytearray | memoryview):
            self._console.print(Padding(Text(label, style="dim"), (0, 0, 0, 4)))
            self._console.print(Padding(Text(hex_dump(value)), (0, 0, 0, 8)))
            return
        grid = Table.grid(padding=(0, 2))
        grid.add_column(width=20, style="dim", overflow="fold")
        grid.add_column(overflow="fold")
        grid.add_row(Text(label), Text(str(value)))
        self._console.print(Padding(grid, (0, 0, 0, 4)))

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A small table."""
        table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row))
        self._console.print(Padding(table, (0, 0, 0, 2)))

    def check(self, condition: object, text: str) -> None:
        """State what must hold; raises DemoError, which makes the demo exit non-zero, if it does not."""
        if not condition:
            self._console.print(Padding(Text(f"✗ {text}", style="bold red"), (0, 0, 0, 4)))
            raise DemoError(text)
        self.checks_held += 1
        self._console.print(Padding(Text(f"✓ {text}", style="green"), (0, 0, 0, 4)))

    def kms_calls(self) -> int:
        """KMS requests that the local AWS has received so far."""
        return len(self.aws.kms_requests)


def hex_dump(data: bytes | bytearray | memoryview, *, rows: int = 3) -> str:
    """The first rows of 16 bytes: hexadecimal, and the printable characters."""
    view = bytes(data[: rows * 16])
    lines = []
    for start in range(0, len(view), 16):
        row = view[start : start + 16]
        characters = "".join(chr(byte) if 32 <= byte < 127 else "·" for byte in row)
        lines.append(f"{row.hex(' '):<47}  {characters}")
    if len(data) > len(view):
        lines.append(f"… {len(data) - len(view):,} more bytes")
    return "\n".join(lines)


class Stopwatch:
    """``with Stopwatch() as watch: …`` then ``watch.seconds``."""

    seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
