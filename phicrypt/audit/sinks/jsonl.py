"""``JsonlSink``: events in a local file with a hash chain per process."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from phicrypt.audit.delivery import SinkError
from phicrypt.audit.events import AuditEvent
from phicrypt.audit.sinks.chain import Chain, ChainHead
from phicrypt.errors import ConfigurationError

_log = logging.getLogger("phicrypt.audit")
_TAIL_LENGTH_BYTES: Final = 65_536
_CHECK_EVERY_WRITES: Final = 256
_CHECK_EVERY_NS: Final = 1_000_000_000
_FILE_MODE: Final = 0o600
_LINE_FEED: Final = ord("\n")


class JsonlSink:
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
    """

    def __init__(
        self, path: str | os.PathLike[str], *, fsync: bool = False, max_segment_bytes: int | None = None
    ) -> None:
        if max_segment_bytes is not None and max_segment_bytes < 4_096:
            raise ConfigurationError("max_segment_bytes is at least 4,096")
        self.path = Path(path)
        self._fsync = fsync
        self._max_segment_bytes = max_segment_bytes
        self._lock = threading.RLock()
        self._is_writing = False
        self._reentered: list[AuditEvent] = []
        self._descriptor: int | None = None
        self._chain: Chain | None = None
        self._ends_torn = False
        self._writes_until_check = 0
        self._next_check_ns = 0
        _sinks.add(self)

    def __repr__(self) -> str:
        return f"<JsonlSink {str(self.path)!r}>"

    @property
    def head(self) -> ChainHead | None:
        """The newest record of this process's chain."""
        with self._lock:
            return self._chain.head if self._chain is not None else None

    def write(self, events: Sequence[AuditEvent]) -> None:
        """Append the events. Raises SinkError, with the number of events stored, if the disk refuses."""
        with self._lock:
            if self._is_writing:
                # A signal handler or a finalizer, in the midst of this thread's own write.
                self._reentered.extend(events)
                return
            self._is_writing = True
            try:
                self._write_now(events)
                if self._reentered:
                    self._write_reentered()
            finally:
                self._is_writing = False

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

    def _write_reentered(self) -> None:
        while self._reentered:
            batch, self._reentered = self._reentered, []
            try:
                self._write_now(batch)
            except SinkError as error:
                self._reentered = [*batch[error.written :], *self._reentered]
                _log.error("audit events of a signal handler or finalizer wait: %s", error)
                return

    def _append(self, events: Sequence[AuditEvent]) -> None:
        chain, descriptor = self._chain, self._descriptor
        assert chain is not None
        assert descriptor is not None
        done = 0
        try:
            while done < len(events):
                lines, hashes = chain.lines(events[done:] if done else events)
                payload = lines[0] if len(lines) == 1 else b"".join(lines)
                if self._ends_torn:
                    payload = b"\n" + payload
                written = os.write(descriptor, payload)
                if written < len(payload):
                    hashes = hashes[: payload.count(b"\n", 1, written)]
                self._ends_torn = payload[written - 1] != _LINE_FEED
                chain.advance(hashes)
                done += len(hashes)
            if self._fsync:
                os.fsync(descriptor)
        except OSError as error:
            raise SinkError(f"{error.strerror} (errno {error.errno})", written=done) from error
        except BaseException:
            # Interrupted somewhere between the write and the count: a new chain is right in every case.
            self._chain = None
            raise

    def _begin_chain(self) -> None:
        try:
            self._open()
            follows, torn_bytes = self._look_at_tail()
            if follows is None:
                follows = self._end_of_segments()
        except OSError as error:
            raise SinkError(f"{error.strerror} (errno {error.errno})", written=0) from error
        chain = Chain()
        self._chain = chain
        self._ends_torn = torn_bytes > 0
        try:
            self._append([chain.start_event(follows=follows, recovered_bytes=torn_bytes or None)])
        except SinkError as error:
            self._chain = None
            raise SinkError(str(error), written=0) from error

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
            raise SinkError(f"{error.strerror} (errno {error.errno})", written=0) from error

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

    def _forget_in_child(self) -> None:
        """After a fork: the chain is the parent's; the descriptor appends for both."""
        self._lock = threading.RLock()
        self._is_writing = False
        self._reentered = []
        self._chain = None


def _tail_of(descriptor: int) -> tuple[str | None, int]:
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, _TAIL_LENGTH_BYTES, max(0, size - _TAIL_LENGTH_BYTES))
    whole, _, torn = tail.rpartition(b"\n")
    try:
        record: Any = json.loads(whole.rpartition(b"\n")[2])
        follows = str(record["sha256"])
    except (ValueError, KeyError, TypeError):
        follows = None
    return follows, len(torn)


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
            entry = json.loads(line)
            name, chain_id = str(entry["segment"]), entry.get("chain")
            head = ChainHead(str(chain_id), int(entry["sequence"]), str(entry["sha256"])) if chain_id else None
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if Path(name).name == name:
            found.setdefault(name, Segment(path.with_name(name), head))
    return list(found.values())


_sinks: weakref.WeakSet[JsonlSink] = weakref.WeakSet()


def _forget_in_child() -> None:
    for sink in _sinks:
        sink._forget_in_child()


os.register_at_fork(after_in_child=_forget_in_child)
