"""Verified plaintext into files and sinks."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from phicrypt.core.output_file import output_file
from phicrypt.core.streams import write_all
from phicrypt.errors import ConfigurationError


def write_all_pieces(
    pieces: Iterator[bytes | memoryview], sink: Any, progress: Callable[[int], Any] | None
) -> None:
    """Write every piece in order; stops the download if the sink fails."""
    try:
        for piece in pieces:
            write_all(sink, piece)
            if progress is not None:
                progress(len(piece))
    finally:
        if isinstance(pieces, Generator):
            pieces.close()


def checked_file_name(filename: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The name itself; ConfigurationError for text that no file system takes (Python's own error shows it)."""
    try:
        os.fsencode(filename)
        return filename
    except UnicodeEncodeError:
        pass
    raise ConfigurationError("Filename holds half of a surrogate pair; no file has such a name")


def download_to_file(
    pieces: Iterator[bytes | memoryview],
    filename: str | os.PathLike[str],
    progress: Callable[[int], Any] | None,
) -> None:
    """A file that appears under its name when all of it was verified and written (rule 31).

    Until then it has no name, where the system offers that. A new file has mode 0600, one that is replaced
    keeps its own. A name that is no regular file (a pipe, a device) is written to as it is.
    """
    target = Path(checked_file_name(filename))
    if target.exists() and not target.is_file():
        with target.open("wb", buffering=0) as sink:
            write_all_pieces(pieces, sink, progress)
        return
    place = target.resolve()  # behind a link stands the file that is replaced
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with output_file(folder, place.name, force=True, is_private=True, shown=str(target)) as sink:
            write_all_pieces(pieces, sink, progress)
            if place.exists():
                os.fchmod(sink.fileno(), place.stat().st_mode & 0o777)
    finally:
        os.close(folder)
