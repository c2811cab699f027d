"""``JsonlSink``: events in a local file with a hash chain per process."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from phicrypt.audit.delivery import SinkError
from phicrypt.audit.events import AuditEvent
from phicrypt.audit.sinks.chain import ChainHead
from phicrypt.audit.sinks.chained import ChainedSink
from phicrypt.core.strict_json import parse_json
from phicrypt.errors import AuditError, ConfigurationError, FormatError

_TAIL_LENGTH_BYTES: Final = 65_536
_CHECK_EVERY_WRITES: Final = 256
_CHECK_EVERY_NS: Final = 1_000_000_000
_FILE_MODE: Final = 0o600
_MIN_SPACE_BYTES: Final = 65_536
_LINE_END: Final = re.compile(rb',"sha256":"([0-9a-f]{64})"\}\n')
_LINE_END_BYTES: Final = 80


class JsonlSink(ChainedSink):
    """Appends events to a file, one line of JSON each, see :mod:`phicrypt.audit.sinks.chain` for its form.

    Threads share one chain, and each process (a forked child too) begins its own in the same file.
    Each batch of events is one ``write`` to a descriptor opened for appending, which Linux and macOS
    keep whole among processes on local file systems; network file systems do not, so give each host
    its own file. A process killed in mid-write leaves a torn line: the next one that opens the file
    ends that line and says so in the first record of its chain.

    Args:
        path: the file; created with mode 0600.
        fsync: flush to the disk after each write. Without it, events survive the death of the
            process but not of the machine.
        max_segment_bytes: when the file is larger, it is renamed to ``<stem>.<UTC time>.<suffix>``,
            listed in ``<path>.manifest``, and a new one is begun; chains go on across segments. None
            never rotates.

    Raises AuditError at once if the folder, the permission or the space is missing.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, fsync: bool = False, max_segment_bytes: int | None = None
    ) -> None:
        if max_segment_bytes is not None and max_segment_bytes < 4_096:
            raise ConfigurationError("max_segment_bytes is at least 4,096")
        self.path = Path(path)
        self._max_segment_bytes = max_segment_bytes
        self._writes_until_check = 0
        self._next_check_ns = 0
        super().__init__(where=str(self.path), fsync=fsync)
        self._try()

    def __repr__(self) -> str:
        return f"<JsonlSink {str(self.path)!r}>"

    def close(self) -> None:
        """Close the file; a later write opens it again and begins a new chain."""
        with self._lock:
            self._chain = None
            self._let_go()

    def rotate(self) -> None:
        """Begin a new segment now."""
        with self._lock:
            if self._descriptor is not None:
                self._rotate(minimum_bytes=1)

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            os.close(descriptor)

    def _write_now(self, events: Sequence[AuditEvent]) -> None:
        self._writes_until_check -= 1
        if self._chain is None or self._descriptor is None:
            self._begin_chain()
        elif self._writes_until_check <= 0 or events[-1].time_ns > self._next_check_ns:
            self._writes_until_check = _CHECK_EVERY_WRITES
            self._next_check_ns = events[-1].time_ns + _CHECK_EVERY_NS
            self._follow_rotation()
        self._append(events)

    def _begin_chain(self) -> None:
        try:
            self._open()
            follows, torn_bytes = self._look_at_tail()
            if follows is None:
                follows = self._end_of_segments()
        except OSError as error:
            raise SinkError(f"{self.where}: {error.strerror} (errno {error.errno})", written=0) from error
        self._ends_torn = torn_bytes > 0
        self._start_chain(follows=follows, recovered_bytes=torn_bytes or None)

    def _try(self) -> None:
        """Open the file once: a sink that cannot write says so when it is made, not at the first use."""
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
            try:
                disk = os.fstatvfs(descriptor)
            finally:
                os.close(descriptor)
            if disk.f_bavail * disk.f_frsize < _MIN_SPACE_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise AuditError(
                f"JsonlSink cannot write to {self.path}: {error.strerror}; nothing may be used that cannot be "
                "recorded. Give it a folder that exists, with permission and space",
                sink="JsonlSink",
                where=str(self.path),
            ) from None

    def _let_go(self) -> None:
        # Forgotten first: an interruption in between must not leave a number that soon names another file.
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> None:
        self._let_go()
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        self._writes_until_check = _CHECK_EVERY_WRITES

    def _look_at_tail(self) -> tuple[str | None, int]:
        """The hash of the file's last whole record, and the length of a torn line after it."""
        assert self._descriptor is not None
        return _tail_of(self._descriptor)

    def _end_of_segments(self) -> str | None:
        """The hash of the newest segment's last whole record: so that its removal is found."""
        for segment in reversed(rotated_segments(self.path)):
            try:
                descriptor = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                return _tail_of(descriptor)[0]
            finally:
                os.close(descriptor)
        return None

    def _follow_rotation(self) -> None:
        """Go on in the newest segment; begin one if this has grown too long."""
        assert self._descriptor is not None
        try:
            if not self._is_current():
                self._open()
                self._ends_torn = self._look_at_tail()[1] > 0
            elif (
                self._max_segment_bytes is not None
                and os.fstat(self._descriptor).st_size >= self._max_segment_bytes
            ):
                self._rotate(minimum_bytes=self._max_segment_bytes)
        except OSError as error:
            raise SinkError(f"{self.where}: {error.strerror} (errno {error.errno})", written=0) from error

    def _is_current(self) -> bool:
        assert self._descriptor is not None
        own = os.fstat(self._descriptor)
        try:
            return os.path.samestat(own, os.stat(self.path))
        except FileNotFoundError:
            return False

    def _rotate(self, *, minimum_bytes: int) -> None:
        """Rename the segment and list it, unless another process was quicker."""
        lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert self._descriptor is not None
            size = os.fstat(self._descriptor).st_size
            if self._is_current() and size >= minimum_bytes:
                moment = time.time_ns()
                stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(moment // 1_000_000_000))
                segment = self.path.with_name(
                    f"{self.path.stem}.{stamp}.{moment % 1_000_000_000:09d}Z{self.path.suffix}"
                )
                # Listed before it is renamed: a crash in between leaves a name without a file, never a
                # segment that verification does not know.
                self._list_segment(segment.name, size)
                self.path.rename(segment)
        finally:
            os.close(lock)
        self._open()
        self._ends_torn = self._look_at_tail()[1] > 0

    def _list_segment(self, name: str, size: int) -> None:
        head = self._chain.head if self._chain is not None else None
        entry = {
            "segment": name,
            "bytes_at_least": size,
            "chain": head.chain_id if head else None,
            "sequence": head.sequence if head else None,
            "sha256": head.sha256 if head else None,
        }
        descriptor = os.open(
            manifest_path(self.path), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE
        )
        try:
            os.write(descriptor, json.dumps(entry).encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _tail_of(descriptor: int) -> tuple[str | None, int]:
    """The hash of the last whole record, and the length of what stands behind the last line feed.

    Read backwards, however far the record stands from the end: a long torn line, or lines of somebody
    else, must not make the next chain follow nothing.
    """
    end = os.fstat(descriptor).st_size
    torn_bytes, found_feed, behind = 0, False, b""
    while end > 0:
        start = max(0, end - _TAIL_LENGTH_BYTES)
        block = os.pread(descriptor, end - start, start)
        if not found_feed:
            feed = block.rfind(b"\n")
            found_feed = feed >= 0
            torn_bytes += len(block) - feed - 1 if found_feed else len(block)
        seals = list(_LINE_END.finditer(block + behind))
        if seals:
            return seals[-1][1].decode(), torn_bytes
        end, behind = start, block[:_LINE_END_BYTES]
    return None, torn_bytes


class Segment(NamedTuple):
    """A rotated segment as the manifest lists it, with a record that it holds."""

    path: Path
    head: ChainHead | None


def manifest_path(path: Path) -> Path:
    """Where the names of rotated segments stand, oldest first."""
    return path.with_name(f"{path.name}.manifest")


def rotated_segments(path: Path) -> list[Segment]:
    """The segments that the manifest of a log lists, oldest first; lines that list none are passed over."""
    try:
        lines = manifest_path(path).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found: dict[str, Segment] = {}
    for line in lines:
        try:
            entry = parse_json(line, field="manifest", max_bytes=_TAIL_LENGTH_BYTES)
            name, chain_id = str(entry["segment"]), entry.get("chain")
            head = ChainHead(str(chain_id), int(entry["sequence"]), str(entry["sha256"])) if chain_id else None
        except (FormatError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if Path(name).name == name:
            found.setdefault(name, Segment(path.with_name(name), head))
    return list(found.values())
