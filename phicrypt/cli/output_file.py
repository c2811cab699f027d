"""A file that appears under its name only when it is complete.

Where the system offers it (Linux, ``O_TMPFILE``) the bytes are written to a file without a name, so
that nothing is left behind even if the process is killed or the machine stops. Elsewhere they are
written beside the target under a random name that begins with ``.phicrypt-``, and that file is
removed on every failure.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PRIVATE_MODE = 0o600
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
        if error.errno in _ABOUT_THE_TARGET or error.filename2 is not None:
            raise OSError(error.errno, error.strerror, shown) from None
        raise
    finally:
        with suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=folder_fd)


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
