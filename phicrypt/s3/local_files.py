"""Verified plaintext into files and sinks."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from phicrypt.core.streams import write_all


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


def download_to_file(
    pieces: Iterator[bytes | memoryview],
    filename: str | os.PathLike[str],
    progress: Callable[[int], Any] | None,
) -> None:
    """A file that appears under its name when all of it was verified and written (mode 0600 until then).

    It grows beside its place under a name of its own, which is removed on failure. A name that is no
    regular file (a pipe, a device) is written to as it is.
    """
    target = Path(filename)
    if target.exists() and not target.is_file():
        with target.open("wb", buffering=0) as sink:
            write_all_pieces(pieces, sink, progress)
        return
    target = target.resolve()
    descriptor, beside = tempfile.mkstemp(
        prefix=f".{target.name[:32]}.", suffix=".phicrypt-part", dir=target.parent
    )
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as sink:
            write_all_pieces(pieces, sink, progress)
            os.fsync(descriptor)
        os.chmod(beside, _usual_mode(target))
        os.replace(beside, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise


def _usual_mode(target: Path) -> int:
    """The mode that the file has already, or that the umask gives a new one."""
    try:
        return target.stat().st_mode & 0o777
    except OSError:
        umask = os.umask(0o077)
        os.umask(umask)
        return 0o666 & ~umask
