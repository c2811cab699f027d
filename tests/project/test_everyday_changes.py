"""contributing.md's twelve everyday changes: two files each, that exist, and a test that names what is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from phicrypt import PhiCrypt, RawAesKeyring
from phicrypt.formats.esdk.sealing import DEFAULT_FRAME_LENGTH_BYTES

ROOT = Path(__file__).parents[2]
SECTION = (
    (ROOT / "docs" / "contributing.md")
    .read_text()
    .partition("## Twelve everyday changes")[2]
    .partition("\n## ")[0]
)
ROWS = [row.strip("| ").split(" | ") for row in re.findall(r"^\| .+ \|$", SECTION, flags=re.MULTILINE)][2:]
"""The cells of each row: what is changed, where, and the test."""
FRAME = DEFAULT_FRAME_LENGTH_BYTES
NAMED = {
    "messages.md": f"{FRAME:,} by default",
    "cli.md": f"each frame ({FRAME // 1024} KiB)",
    "architecture.md": f"{FRAME // 1024} KiB of plaintext per frame",
    "performance.md": f"At {FRAME // 1024} KiB, the default",
}
"""Pages of docs/ that say how long a frame is by default; the reasons stand in decision 3."""


def paths(cell):
    return [ROOT / name for name in re.findall(r"`((?:phicrypt|tests)/[\w./]+)`", cell)]


def test_there_are_twelve():
    assert len(ROWS) == 12
    assert all(len(row) == 3 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_change_touches_at_most_two_files_that_exist_and_has_a_test(row):
    _, files, tests = row
    assert 1 <= len(paths(files)) <= 2
    assert paths(tests)
    assert [path for path in (*paths(files), *paths(tests)) if not path.exists()] == []


@pytest.mark.parametrize("page", NAMED)
def test_pages_say_how_long_a_frame_is(page):
    assert NAMED[page] in (ROOT / "docs" / page).read_text()


def test_a_message_is_written_in_frames_of_the_default_length():
    phi = PhiCrypt(RawAesKeyring(namespace="n", name="k", wrapping_key=bytes(32)))
    assert phi.inspect(phi.encrypt(b"x", context={"a": "b"})).frame_length_bytes == FRAME
