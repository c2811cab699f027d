"""The lines of a JSONL log as the leaves of an RFC 6962 tree, in an order that never changes.

A leaf is one line without its line feed, whatever it holds: records, and the rests of torn writes. What
stands behind the last line feed is none yet. The leaves come in the order in which they were first met:
segment by segment, and the lines that a slow process added to a segment after the log had gone on behind
those that were met before. That order, as *runs* of bytes of files, and the hashes of the tree so far stand
in ``<log>.tree``::

    {"size": 7, "hashes": ["…", …], "runs": [["<leaf hash of the file's first line>", 0, 4711], …]}

The file is no evidence and need not be kept from anybody: the runs of each file follow one another without
gaps, so it can order lines and leave none out, and a root that was signed fits one order only. Without it
the files are read one after the other, which is the same unless processes wrote into a rotated segment.

Files are named by their first line because rotation renames them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from phicrypt.audit.sinks.jsonl import rotated_segments
from phicrypt.core.primitives import random_bytes
from phicrypt.core.strict_json import parse_json
from phicrypt.errors import ConfigurationError, FormatError
from phicrypt.formats.merkle import LEAF_PREFIX, CompactRange, consistency_ranges, range_roots

_BLOCK_BYTES: Final = 1_048_576
_LOOKS: Final = 5
"""How often a file is looked for that rotation may just have renamed."""
_MAX_LINE_BYTES: Final = 1_048_576
_MAX_TREE_FILE_BYTES: Final = 16_777_216


class Run(NamedTuple):
    """Whole lines of one file: the leaf hash of its first line, and from which byte to which."""

    file_id: str
    begin: int
    end: int


def tree_path(path: Path) -> Path:
    """Where the order and the hashes of a log's tree stand."""
    return path.with_name(f"{path.name}.tree")


def log_files(path: Path) -> dict[str, Path]:
    """The files of a log, oldest first, by the leaf hash of their first line; without a line they are left out.

    Raises ConfigurationError where a file cannot be read, or two begin with the same line.
    """
    found: dict[str, Path] = {}
    for part in (*(segment.path for segment in rotated_segments(path)), path):
        try:
            file = part.open("rb")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigurationError(f"the log cannot be read: {error.strerror}") from None
        with file:
            first = _first_leaf(file)
        if first and found.setdefault(first, part) is not part:
            raise ConfigurationError(
                f"{found[first].name} and {part.name} begin with the same line: one is a copy"
            )
    return found


def _first_leaf(file: BinaryIO) -> str:
    """The leaf hash of a file's first line, empty if none is ended; the file is read from its beginning."""
    file.seek(0)
    running = sha256(LEAF_PREFIX)
    while piece := file.readline(_MAX_LINE_BYTES):
        running.update(piece.removesuffix(b"\n"))
        if piece.endswith(b"\n"):
            return running.hexdigest()
    return ""


class _Files:
    """The files of a log, by what they begin with, whatever rotation calls them meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.by_id = log_files(path)

    def open(self, file_id: str) -> BinaryIO:
        """The file that begins with this line. Raises ConfigurationError if it is not here."""
        for _ in range(_LOOKS):
            part = self.by_id.get(file_id)
            try:
                file = part.open("rb") if part is not None else None
            except FileNotFoundError:
                file = None
            if file is not None and _first_leaf(file) == file_id:
                return file
            if file is not None:
                file.close()
            # A writer renamed it after the files were listed.
            self.by_id = log_files(self._path)
        raise ConfigurationError(
            f"a file of the log whose first line has the leaf hash {file_id[:16]}… is missing or was changed: "
            "put every segment beside the log, under the names in its manifest"
        )

    def runs(self, runs: Iterable[Run]) -> Iterator[list[bytes]]:
        """The leaves of runs, block by block. Raises ConfigurationError where a file is not here."""
        for run in runs:
            with self.open(run.file_id) as file:
                yield from LeafReader(file, run.begin, run.end).blocks()


class LeafReader:
    """The leaf hashes of the whole lines of an open file; ``position`` is behind the last line feed read."""

    def __init__(self, file: BinaryIO, begin: int, end: int | None = None) -> None:
        self.position = begin
        self._file = file
        self._end = end

    def blocks(self) -> Iterator[list[bytes]]:
        """The hashes in order, as many at once as end in a block; a line of any length costs a block of memory."""
        file, at = self._file, self.position
        file.seek(at)
        running = sha256(LEAF_PREFIX)
        while block := file.read(_BLOCK_BYTES if self._end is None else min(_BLOCK_BYTES, max(0, self._end - at))):
            first, *others = block.split(b"\n")
            running.update(first)
            if others:
                *whole, rest = others
                leaves = [running.digest(), *(sha256(LEAF_PREFIX + line).digest() for line in whole)]
                running = sha256(LEAF_PREFIX + rest)
                self.position = at + len(block) - len(rest)
                yield leaves
            at += len(block)


@dataclass(slots=True)
class LogTree:
    """The tree of a log so far: its hashes, and the runs that they are about.

    Args:
        path: the log's current file.
    """

    path: Path
    tree: CompactRange = field(default_factory=CompactRange)
    runs: list[Run] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> LogTree:
        """The tree as its file has it; an empty one where there is none, or it is damaged."""
        try:
            with tree_path(path).open("rb") as file:
                content = file.read(_MAX_TREE_FILE_BYTES + 1)
            document = parse_json(content, field="tree file", max_bytes=_MAX_TREE_FILE_BYTES)
            runs = [_run(entry) for entry in document["runs"]]
            _check_runs(runs)
            hashes = [bytes.fromhex(one) for one in document["hashes"]]
            return cls(path, CompactRange(int(document["size"]), hashes), runs)
        except (OSError, FormatError, ValueError, KeyError, TypeError):
            return cls(path)

    def save(self) -> None:
        """Write the tree's file anew, in one step."""
        document = {"size": self.tree.size, "hashes": [one.hex() for one in self.tree.hashes], "runs": self.runs}
        replace_file(tree_path(self.path), json.dumps(document).encode() + b"\n")

    def copy(self) -> LogTree:
        return LogTree(self.path, self.tree.copy(), list(self.runs))

    def emptied(self) -> LogTree:
        """The same order with no leaf counted yet: :meth:`grow` then reads everything from the beginning."""
        return LogTree(self.path, CompactRange(), list(self.runs))

    def grow(self, sizes: Iterable[int] = ()) -> Iterator[int]:
        """Read what is not counted yet, and stop at each of these sizes on the way: the tree is then of that size.

        Of an emptied tree the known runs come first, in their order.
        Raises ConfigurationError where a file that a run names is not here, FormatError where one is shorter
        than what was counted of it.
        """
        files, wanted = _Files(self.path), sorted(sizes)
        if self.tree.size == 0:
            yield from self._counted(files.runs(self.runs), wanted)
        covered = _covered(self.runs)
        for file_id, part in files.by_id.items():
            begin = covered.get(file_id, 0)
            with files.open(file_id) as file:
                size = os.fstat(file.fileno()).st_size
                if size < begin:
                    raise FormatError(f"{size:,} bytes are here, {begin:,} were read: it was cut", field=part.name)
                # What is appended meanwhile is for the next time.
                reader = LeafReader(file, begin, size)
                yield from self._counted(reader.blocks(), wanted)
            if reader.position > begin:
                self._add_run(Run(file_id, begin, reader.position))

    def _counted(self, blocks: Iterable[list[bytes]], sizes: list[int]) -> Iterator[int]:
        tree = self.tree
        for leaves in blocks:
            begin = tree.size
            for size in (one for one in sizes if begin < one <= begin + len(leaves)):
                tree.extend(leaves[tree.size - begin : size - begin])
                yield size
            tree.extend(leaves[tree.size - begin :])

    def _add_run(self, run: Run) -> None:
        if self.runs and self.runs[-1].file_id == run.file_id:
            run = Run(run.file_id, self.runs.pop().begin, run.end)
        self.runs.append(run)

    def leaves_after(self, earlier: LogTree | None = None) -> Iterator[bytes]:
        """The counted leaves again, of those that an earlier state of this tree has not."""
        covered = _covered(earlier.runs) if earlier is not None else {}
        later = (Run(run.file_id, max(run.begin, covered.get(run.file_id, 0)), run.end) for run in self.runs)
        for leaves in _Files(self.path).runs(run for run in later if run.begin < run.end):
            yield from leaves

    def consistency_proof(self, old_size: int, earlier: LogTree | None = None) -> list[bytes]:
        """The hashes that show that the tree of ``old_size`` leaves is the beginning of this one (RFC 6962).

        Of an earlier state of that size only the lines that came since are read; without it, all.
        """
        ranges = consistency_ranges(old_size, self.tree.size)
        if earlier is None or earlier.tree.size != old_size:
            return range_roots(self.leaves_after(), ranges)
        added = [one for one in ranges if one[1] > old_size]
        roots = dict(zip(added, range_roots(self.leaves_after(earlier), added, first=old_size), strict=True))
        return [roots[one] if one in roots else earlier.tree.root_of(*one) for one in ranges]

    def lines(self) -> Iterator[bytes]:
        """The counted lines themselves, without their line feeds, in the order of the leaves; of one that is
        longer than any record its beginning."""
        files = _Files(self.path)
        for run in self.runs:
            with files.open(run.file_id) as file:
                file.seek(run.begin)
                while file.tell() < run.end and (line := file.readline(_MAX_LINE_BYTES)):
                    yield line.removesuffix(b"\n")
                    while line and not line.endswith(b"\n"):
                        line = file.readline(_MAX_LINE_BYTES)


def _covered(runs: Sequence[Run]) -> dict[str, int]:
    """Up to which byte each file is counted."""
    covered: dict[str, int] = {}
    for run in runs:
        covered[run.file_id] = max(run.end, covered.get(run.file_id, 0))
    return covered


def _run(entry: Any) -> Run:
    file_id, begin, end = entry
    if type(begin) is not int or type(end) is not int or not 0 <= begin < end or len(bytes.fromhex(file_id)) != 32:
        raise ValueError("not a run")
    return Run(str(file_id), begin, end)


def _check_runs(runs: Iterable[Run]) -> None:
    """Raise ValueError where the runs of a file do not follow one another: what lies between could hide."""
    covered: dict[str, int] = {}
    for run in runs:
        if run.begin != covered.get(run.file_id, 0):
            raise ValueError("a gap between runs")
        covered[run.file_id] = run.end


def replace_file(path: Path, content: bytes) -> None:
    """Put a file of mode 0600 in the place of another in one step. Raises OSError.

    The folder may be another user's, who must not be able to prepare a link under the name that is written.
    """
    beside = path.with_name(f"{path.name}.{random_bytes(8).hex()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
