"""A file that appears under its name only when it is complete (rule 31).

Where the system offers it (Linux, ``O_TMPFILE``) the bytes are written to a file without a name, so
that nothing is left behind even if the process is killed or the machine stops. Elsewhere they are
written beside the target under a random name that begins with ``.phicrypt-``, and that file is
removed on every failure; :func:`abandoned_files` finds what a killed process left.
"""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PRIVATE_MODE = 0o600
_BESIDE = re.compile(r"\.phicrypt-[0-9a-f]{16}")
_NO_UNNAMED_FILES = (errno.EISDIR, errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL)
_ABOUT_THE_TARGET = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


@contextmanager
def output_file(folder_fd: int, name: str, *, force: bool, is_private: bool, shown: str) -> Iterator[io.FileIO]:
    """A new file to write, published as ``name`` when the block ends without an error.

    Args:
        folder_fd: descriptor of the folder.
        name: the target's name in it.
        force: replace an existing regular file.
        is_private: keep mode 0600; else what the umask leaves of 0666.
        shown: the target as the user knows it, for errors.

    Raises FileExistsError, also with ``force`` for a target that is no regular file; OSError.
    """
    check_target(folder_fd, name, force=force, shown=shown)
    # Chosen before the file exists, so that no interruption finds a file whose name it does not know.
    beside = f".phicrypt-{secrets.token_hex(8)}"
    try:
        descriptor, is_unnamed = _create(folder_fd, beside)
        with open(descriptor, "wb", buffering=0) as file:
            yield file
            if not is_private:
                os.fchmod(descriptor, 0o666 & ~_umask())
            os.fsync(descriptor)  # a full disk may only be noticed here
            if is_unnamed and not force:
                _link(f"/proc/self/fd/{descriptor}", folder_fd, name)
                return
            if is_unnamed:
                _link(f"/proc/self/fd/{descriptor}", folder_fd, beside)
        _rename(folder_fd, beside, name, force=force)
    except OSError as error:
        # Our own names say nothing to the user, who knows the target's.
        if error.errno in _ABOUT_THE_TARGET or error.filename2 is not None or error.filename in (".", beside):
            raise OSError(error.errno, error.strerror, shown) from None
        raise
    finally:
        with suppress(OSError):  # a folder that cannot be written to has nothing of ours, and its error came first
            os.unlink(beside, dir_fd=folder_fd)


def abandoned_files(folder: Path, *, older_than_seconds: float = 86_400) -> list[Path]:
    """What killed processes left in a folder: ``[path.unlink() for path in abandoned_files(Path("downloads"))]``.

    Regular files under our random names, last written so long ago that no process still writes them.
    They hold plaintext. Raises OSError for a folder that cannot be read.
    """
    latest = time.time() - older_than_seconds
    return sorted(
        path
        for path in folder.iterdir()
        if _BESIDE.fullmatch(path.name)
        and stat.S_ISREG((about := path.lstat()).st_mode)
        and about.st_mtime <= latest
    )


def check_target(folder_fd: int, name: str, *, force: bool, shown: str) -> None:
    """Raise unless the target can be created, or with ``force`` replaced."""
    try:
        mode = os.lstat(name, dir_fd=folder_fd).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise FileExistsError(errno.EEXIST, "the target is not a regular file and is left alone", shown)
    if not force:
        raise FileExistsError(errno.EEXIST, "the target exists; --force replaces it", shown)


def offers_unnamed_files() -> bool:
    """Whether the system can make files without a name, and give them one later."""
    return hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd")


def _create(folder_fd: int, beside: str) -> tuple[int, bool]:
    """A private file in the folder, and whether it has no name."""
    if offers_unnamed_files():
        try:
            return os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, PRIVATE_MODE, dir_fd=folder_fd), True
        except OSError as error:
            if error.errno not in _NO_UNNAMED_FILES:
                raise
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    return os.open(beside, flags, PRIVATE_MODE, dir_fd=folder_fd), False


def _link(source: str, folder_fd: int, name: str) -> None:
    # Only linkat() follows /proc/self/fd; Python calls it when it is given descriptors.
    os.link(source, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd, follow_symlinks=True)


def _rename(folder_fd: int, beside: str, name: str, *, force: bool) -> None:
    if not force:
        # A rename would replace what somebody made meanwhile; a link fails.
        try:
            _link(beside, folder_fd, name)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
        else:
            return
    os.rename(beside, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
