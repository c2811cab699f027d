"""Files that appear when they are whole, and what a killed process leaves where they cannot be without a name."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phicrypt.core import output_file as module
from phicrypt.core.output_file import abandoned_files, output_file

ROOT = Path(module.__file__).parents[2]
KILLED = """
import os, sys
from phicrypt.core import output_file as module
if sys.argv[2] == "named":
    module.offers_unnamed_files = lambda: False
folder = os.open(sys.argv[1], os.O_RDONLY)
with module.output_file(folder, "record", force=True, is_private=True, shown="record") as sink:
    sink.write(b"plaintext")
    os.fsync(sink.fileno())
    os.kill(os.getpid(), 9)
"""


def kill_while_writing(folder: Path, kind: str) -> None:
    ending = subprocess.run([sys.executable, "-c", KILLED, str(folder), kind], cwd=ROOT, check=False)
    assert ending.returncode == -9


@pytest.mark.skipif(not module.offers_unnamed_files(), reason="this system has no files without a name")
def test_rule_31_a_killed_process_leaves_nothing(tmp_path: Path) -> None:
    kill_while_writing(tmp_path, "unnamed")
    assert list(tmp_path.iterdir()) == []


def test_rule_31_what_is_left_where_files_need_a_name_is_found(tmp_path: Path) -> None:
    kill_while_writing(tmp_path, "named")
    (left,) = tmp_path.iterdir()
    assert left.read_bytes() == b"plaintext"
    assert left.stat().st_mode & 0o777 == 0o600
    assert abandoned_files(tmp_path) == []  # it may still be written
    os.utime(left, (time.time() - 90_000,) * 2)
    assert abandoned_files(tmp_path) == [left]


def test_nothing_else_is_taken_for_abandoned(tmp_path: Path) -> None:
    (tmp_path / ".phicrypt-notes").touch()
    (tmp_path / ".phicrypt-0123456789abcdef.txt").touch()
    (tmp_path / ".phicrypt-0123456789abcdef").symlink_to("/etc/hostname")
    (tmp_path / ".phicrypt-fedcba9876543210").mkdir()
    assert abandoned_files(tmp_path, older_than_seconds=-1) == []


def test_a_folder_that_cannot_be_written_to_is_named_by_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, *_: object, **__: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system", path)

    folder = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "unlink", refuse)
    with (
        pytest.raises(OSError, match="Read-only") as refused,
        output_file(folder, "record", force=False, is_private=True, shown="records/record"),
    ):
        pass
    assert (refused.value.errno, refused.value.filename) == (errno.EROFS, "records/record")
