"""One source into one target: files, folders and pipes, with nothing left behind on failure."""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import typer

from phicrypt.cli.console import CHECK_EXIT_CODE, Advance, complain, exit_code_of, progress
from phicrypt.core.output_file import check_target, output_file
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    ContextMismatchError,
    FormatError,
    LimitExceededError,
    UnsupportedOperationError,
)

MESSAGE_SUFFIX: Final = ".esdk"
"""What is added to the name of an encrypted file: the content is an AWS Encryption SDK message."""
PIPE: Final = "-"
_OF_ONE_FILE: Final = (
    AuthenticationError,
    ContextMismatchError,
    FormatError,
    LimitExceededError,
    UnsupportedOperationError,
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
"""Errors of one file of a folder; the others (a refused key, a full disk) would meet every file."""
_NUMBERS_OF_ONE_FILE: Final = (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.EILSEQ)
"""As above, of those that Python has no class for: names that the target cannot hold, and files that became
something else meanwhile."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """What is done to each file.

    Attributes:
        work: reads a whole source and writes a whole target.
        force: replace existing targets.
        is_private: targets keep mode 0600.
        add_suffix: in a folder, add the message suffix to names; else take it away, and leave out
            files without it.
    """

    work: Callable[[Any, Any], None]
    force: bool
    is_private: bool
    add_suffix: bool


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A regular file of a folder, found without following links.

    Attributes:
        folder_fd: descriptor of its folder; valid until the next file is asked for.
        parts: the folder below the root.
        name: its name.
        shown: its path as the user knows it.
    """

    folder_fd: int
    parts: tuple[str, ...]
    name: str
    shown: str

    def open(self) -> io.FileIO:
        """The file for reading; raises OSError if it has become something else meanwhile."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self.name, flags, dir_fd=self.folder_fd)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "no longer a regular file", self.shown)
        return open(descriptor, "rb", buffering=0)


class _Watched:
    """A source that tells the progress bar what was read."""

    def __init__(self, source: Any, advance: Advance) -> None:
        self._source = source
        self._advance = advance

    def readinto(self, buffer: Any) -> int | None:
        count: int | None = self._source.readinto(buffer)
        self._advance(count or 0)
        return count

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._source.read(size)
        self._advance(len(data or b""))
        return data


@contextmanager
def open_source(source: str) -> Iterator[IO[bytes]]:
    """A named file, or standard input for ``-``. Raises OSError, also for a folder."""
    if source == PIPE:
        yield sys.stdin.buffer
        return
    with open(source, "rb", buffering=0) as file:
        yield file


@contextmanager
def spooled_source(source: Any) -> Iterator[Any]:
    """The source itself if it can seek, else a copy of it in an unlinked temporary file."""
    if getattr(source, "seekable", lambda: False)():
        yield source
        return
    with tempfile.TemporaryFile(prefix="phicrypt-") as spool:
        shutil.copyfileobj(source, spool)
        spool.seek(0)
        yield spool


def copy_pipe(transfer: Transfer, source: Any, sink: Any, advance: Advance) -> None:
    """A source into standard output. What has left cannot be taken back."""
    can_seek = getattr(source, "seekable", lambda: False)()
    transfer.work(source if can_seek else _Watched(source, advance), sink)
    sink.flush()


def copy_file(transfer: Transfer, source: str, target: Path, description: str) -> None:
    """One file (or standard input) into one file; into an existing folder, under the file's own name."""
    if target.is_dir() and source != PIPE:
        target /= _target_name(transfer, Path(source).name)
    if target.name in ("", ".."):
        raise ConfigurationError(f"the target names no file: {target}")
    with ExitStack() as stack:
        folder_fd = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, folder_fd)
        # Checked before a pipe is waited for or KMS is asked.
        check_target(folder_fd, target.name, force=transfer.force, shown=str(target))
        reader = stack.enter_context(open_source(source))
        size = None if source == PIPE else os.fstat(reader.fileno()).st_size or None
        advance = stack.enter_context(progress(description, size, in_bytes=True))
        _copy(transfer, _Watched(reader, advance), folder_fd, target.name, str(target))


def copy_folder(transfer: Transfer, source: Path, target: Path, description: str) -> None:
    """Every regular file below a folder into a mirrored folder; see :func:`for_each_file`."""
    _refuse_overlap(source, target)

    def copy(file: SourceFile) -> None:
        name = _target_name(transfer, file.name)
        with (
            _target_folder(target, file.parts, is_private=transfer.is_private) as folder_fd,
            file.open() as reader,
        ):
            _copy(transfer, reader, folder_fd, name, os.path.join(target, *file.parts, name))

    for_each_file(source_files(source, only_messages=not transfer.add_suffix), copy, description)


def for_each_file(files: Iterable[SourceFile], work: Callable[[SourceFile], None], description: str) -> None:
    """Do the work on each file. A file that fails is named on stderr, and the rest goes on.

    What would fail for every file (a refused key, a full disk) ends the command at once. Ends it
    with the first failure's exit code otherwise.
    """
    done, first_failure = 0, 0
    with progress(description, None) as advance:
        for file in files:
            try:
                work(file)
                done += 1
            except (*_OF_ONE_FILE, OSError) as error:
                if not isinstance(error, _OF_ONE_FILE) and error.errno not in _NUMBERS_OF_ONE_FILE:
                    raise
                complain(f"in {file.shown}:")
                first_failure = first_failure or exit_code_of(error) or CHECK_EXIT_CODE
            advance(1)
    complain(f"{description.lower()}: {done} files done")
    if first_failure:
        raise typer.Exit(first_failure)


def source_files(source: Path, *, only_messages: bool) -> Iterator[SourceFile]:
    """Regular files below a folder, in order of name, never through a link; tells what it left out."""
    root = source.resolve()  # the user may name a link; below it none is followed
    left_out = 0
    for folder, folders, names, folder_fd in os.fwalk(root, follow_symlinks=False, onerror=_raise):
        folders.sort()
        parts = Path(folder).relative_to(root).parts
        for name in sorted(names):
            is_regular = stat.S_ISREG(os.lstat(name, dir_fd=folder_fd).st_mode)
            if is_regular and (not only_messages or _is_message_name(name)):
                yield SourceFile(folder_fd, parts, name, os.path.join(source, *parts, name))
            else:
                left_out += 1
        left_out += sum(stat.S_ISLNK(os.lstat(name, dir_fd=folder_fd).st_mode) for name in folders)
    if left_out:
        names_too = f", and names without {MESSAGE_SUFFIX}" if only_messages else ""
        complain(f"{left_out} left out (links and special files{names_too})")


def _copy(transfer: Transfer, reader: Any, folder_fd: int, name: str, shown: str) -> None:
    with output_file(folder_fd, name, force=transfer.force, is_private=transfer.is_private, shown=shown) as writer:
        transfer.work(reader, writer)


@contextmanager
def _target_folder(root: Path, parts: tuple[str, ...], *, is_private: bool) -> Iterator[int]:
    """A descriptor of a folder below the target's root, made where missing, never through a link."""
    mode = 0o700 if is_private else 0o777
    root.mkdir(mode, parents=True, exist_ok=True)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            with suppress(FileExistsError):
                os.mkdir(part, mode, dir_fd=descriptor)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(part, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _refuse_overlap(source: Path, target: Path) -> None:
    inner, outer = target.resolve(), source.resolve()
    if inner.is_relative_to(outer) or outer.is_relative_to(inner):
        raise ConfigurationError("SOURCE and TARGET contain one another; a folder goes into a folder of its own")


def _target_name(transfer: Transfer, name: str) -> str:
    return name + MESSAGE_SUFFIX if transfer.add_suffix else name.removesuffix(MESSAGE_SUFFIX)


def _is_message_name(name: str) -> bool:
    return name.endswith(MESSAGE_SUFFIX) and name.removesuffix(MESSAGE_SUFFIX) not in ("", ".", "..")


def _raise(error: OSError) -> None:
    raise error
