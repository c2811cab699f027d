"""The lines of a local audit log, as records: from files, rotated segments, folders, and CloudWatch's exports.

::

    reading = LogReading()
    for record in read_records("audit.jsonl", reading):
        …
    reading.unread, reading.first_unread     # what is no record, and where the first of it stands (rule 25)

Three shapes are read: the sink's own files; what CloudWatch Logs exports to S3 (gzip, a time before each
line); and what ``aws logs filter-log-events`` prints (``{"events": [{"message": …}]}``). In the last two,
lines of other programs stand between the records of a ``StdoutSink``: they are counted apart.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, cast

from phicrypt.audit.events import AuditEvent, Kind
from phicrypt.audit.sinks.chain import RECORD_START, ChainHead
from phicrypt.audit.sinks.jsonl import rotated_segments
from phicrypt.core.strict_json import GZIP_START, InflatedStream, JsonArray, parse_json
from phicrypt.errors import ConfigurationError, FormatError

MAX_LINE_LENGTH_BYTES: Final = 1_048_576
MAX_LOG_BYTES: Final = 2**40
_SEAL: Final = b',"sha256":"'
_SEAL_LENGTH: Final = len(_SEAL) + 64 + len(b'"}')
_MAX_WAITING_FRAGMENTS: Final = 64
"""A torn line is explained soon; more that wait would make a hostile log slow to verify."""
_TIME_BEFORE: Final = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|\+00:00) ")
_PLACE: Final = re.compile(re.escape(RECORD_START) + rb'([0-9a-f]{1,64})","sequence":([0-9]{1,18}),')
_EVENTS_SHAPE: Final = re.compile(rb'\s*\{\s*"events"\s*:\s*\[')
_MARK: Final = b"phicrypt-audit"
_FILE_NAMES: Final = (".jsonl", ".jsonl.gz", ".gz")


class Place(NamedTuple):
    """Where a line stands."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Record(NamedTuple):
    """One whole line: its place in its chain and its event's fields."""

    place: Place
    chain_id: str
    sequence: int
    previous: str
    sha256: str
    is_intact: bool
    fields: dict[str, Any]

    @property
    def head(self) -> ChainHead:
        """The record as an anchor would name it."""
        return ChainHead(self.chain_id, self.sequence, self.sha256)

    def event(self) -> AuditEvent:
        """The event; raises ValueError, KeyError or TypeError where the fields are not an event's."""
        return AuditEvent.from_dict(self.fields)


class Fragment(NamedTuple):
    """Bytes that are no whole record."""

    place: Place
    content: bytes
    at_end_of_file: bool
    is_followed: bool
    """Whether a whole record follows on the same line: another process went on behind a torn write."""
    what: str = "the line is not a whole record"


@dataclass(slots=True)
class LogReading:
    """What was read of a log, and what could not be.

    Attributes:
        records: whole lines.
        unread: lines that are no record and no torn write, and records that hold no event.
        first_unread: where the first of these stands.
        torn: lines lost to a crash in mid-write: expected, at most one per crash.
        of_other_programs: lines of others in what CloudWatch exported.
        altered: records that are not what was written, or do not follow the one before; counted for
            questions (:func:`phicrypt.evidence.verify.checked_records`).
        first_altered: the first of these in words.
    """

    records: int = 0
    unread: int = 0
    first_unread: Place | None = None
    torn: int = 0
    of_other_programs: int = 0
    altered: int = 0
    first_altered: str = ""

    def add_unread(self, place: Place) -> None:
        """Count what could not be read; a fragment may be judged late, so the earliest place is kept."""
        self.unread += 1
        first = self.first_unread
        if first is None or (first.file == place.file and place.line < first.line):
            self.first_unread = place


def read_records(path: str | Path, reading: LogReading | None = None) -> Iterator[Record]:
    """The whole records of a log and its segments, in order; what is none is counted in ``reading``."""
    reading = reading if reading is not None else LogReading()
    missing = missing_segments(Path(path))
    for record in records_among(read_log(path, reading), reading, lambda fragment: None, lambda fragment: None):
        if missing:
            missing.pop(record.head, None)
        yield record
    for name in missing.values():
        reading.add_unread(Place(name, 0))


def missing_segments(path: Path) -> dict[ChainHead, str]:
    """Names of rotated segments that the manifest lists and that are not there, by a record that each held.

    A crash between listing and renaming leaves such a name as well: then the record is elsewhere.
    """
    if path.is_dir():
        return {}
    return {
        segment.head: segment.path.name
        for segment in rotated_segments(path)
        if segment.head is not None and not segment.path.exists()
    }


def records_among(
    items: Iterator[Record | Fragment],
    reading: LogReading,
    on_torn: Callable[[Fragment], None],
    on_unread: Callable[[Fragment], None],
) -> Iterator[Record]:
    """The records; of each fragment it is told whether a crash tore it, or nobody can say what it was."""

    def conclude(fragment: Fragment) -> None:
        if (fragment.at_end_of_file or fragment.is_followed) and _begins_a_record(fragment):
            torn(fragment)
        else:
            reading.add_unread(fragment.place)
            on_unread(fragment)

    def torn(fragment: Fragment) -> None:
        reading.torn += 1
        on_torn(fragment)

    waiting: list[Fragment] = []
    for item in items:
        if isinstance(item, Fragment):
            waiting.append(item)
            if len(waiting) > _MAX_WAITING_FRAGMENTS:
                conclude(waiting.pop(0))
            continue
        if waiting:
            explained = [fragment for fragment in waiting if _explains(item, fragment)]
            waiting = [fragment for fragment in waiting if fragment not in explained]
            for fragment in explained:
                torn(fragment)
        reading.records += 1
        yield item
    for fragment in waiting:
        conclude(fragment)


def _explains(record: Record, fragment: Fragment) -> bool:
    """Whether this record shows that the fragment is the torn rest of a write, not an altered line.

    Either the same chain wrote the same bytes again, whole, or the process that found the torn line
    recorded its length in the first record of its own chain.
    """
    if fragment.is_followed or not _begins_a_record(fragment):
        return False
    detail = record.fields.get("detail")
    recovered = detail.get("recovered_bytes") if isinstance(detail, dict) else None
    if record.fields.get("kind") == Kind.CHAIN_START and recovered == len(fragment.content):
        return True
    # Another event may have taken the place of the one that failed, but not of another predecessor.
    start = (
        f'{{"phicrypt-audit":1,"chain":"{record.chain_id}","sequence":{record.sequence},'
        f'"previous":"{record.previous}","event":'
    ).encode()
    return fragment.content.startswith(start) or start.startswith(fragment.content)


def _begins_a_record(fragment: Fragment) -> bool:
    """A crash leaves the beginning of a record; other bytes are of somebody else."""
    return bool(fragment.content) and fragment.content.startswith(RECORD_START[: len(fragment.content)])


def read_log(
    path: str | Path, reading: LogReading | None = None, *, wanted: Callable[[bytes], bool] = lambda line: True
) -> Iterator[Record | Fragment]:
    """Records and fragments of a log: rotated segments by their manifest, then the file itself.

    ``wanted`` chooses among the lines of a sink's own files: what it passes over is not parsed.
    """
    path, reading = Path(path), reading if reading is not None else LogReading()
    found = False
    for part in _parts(path):
        try:
            file = part.open("rb")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigurationError(f"the log cannot be read: {error.strerror}") from None
        found = True
        with file:
            yield from _read_part(file, part.name, reading, wanted)
    if not found:
        raise ConfigurationError("there is no such log file")


def _parts(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.name.endswith(_FILE_NAMES) and file.is_file())
    return [*(segment.path for segment in rotated_segments(path)), path]


def read_stream(file: BinaryIO, name: str, reading: LogReading) -> Iterator[Record | Fragment]:
    """Records and fragments of one file that is open already, in any of the shapes."""
    return _read_part(file, name, reading, lambda line: True)


def _read_part(
    file: BinaryIO, name: str, reading: LogReading, wanted: Callable[[bytes], bool]
) -> Iterator[Record | Fragment]:
    if not hasattr(file, "peek"):
        file = io.BufferedReader(cast("io.RawIOBase", file))
    start = file.peek(4_096)
    if start.startswith(GZIP_START):
        inflating = InflatedStream(file, max_bytes=MAX_LOG_BYTES, field=name)
        yield from _read_inflated(_inflated_lines(inflating), name, reading)
    elif _EVENTS_SHAPE.match(start):
        plain = InflatedStream(file, max_bytes=MAX_LOG_BYTES, field=name)
        yield from _read_exported(_messages(JsonArray(plain, ("events",), field=name)), name, reading)
    elif _TIME_BEFORE.match(start):
        lines = iter(lambda: file.readline(MAX_LINE_LENGTH_BYTES), b"")
        yield from _read_exported(lines, name, reading)
    else:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_LENGTH_BYTES), b""), 1):
            if wanted(line):
                yield from _read_line(line, Place(name, number))


def names_one_of(places: Container[tuple[str, int]]) -> Callable[[bytes], bool]:
    """Whether a line may hold one of these (chain, sequence), by how it begins; for :func:`read_log`."""

    def wanted(line: bytes) -> bool:
        found = _PLACE.match(line)
        if found is None or line.count(RECORD_START) > 1:
            return True
        return (found[1].decode(), int(found[2])) in places

    return wanted


def _inflated_lines(stream: InflatedStream) -> Iterator[bytes]:
    rest = b""
    for chunk in iter(stream.read, b""):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if len(rest) > MAX_LINE_LENGTH_BYTES:
            yield rest
            rest = b""
    if rest:
        yield rest


def _messages(events: JsonArray) -> Iterator[bytes]:
    for _, entry in events:
        message = entry.get("message") if isinstance(entry, dict) else None
        yield message.encode("utf-8", "backslashreplace") + b"\n" if isinstance(message, str) else _MARK + b"\n"


def _read_inflated(lines: Iterator[bytes], name: str, reading: LogReading) -> Iterator[Record | Fragment]:
    """A gzip of a sink's own file holds nothing but records; what CloudWatch exported holds other lines too."""
    try:
        first = next(lines, b"")
    except FormatError as error:
        yield Fragment(Place(name, 1), b"", False, False, f"the rest cannot be read: {error}")
        return
    if not first.startswith(RECORD_START):
        yield from _read_exported(chain((first,), lines), name, reading)
        return
    number = 1
    try:
        for number, line in enumerate(chain((first,), lines), 1):
            yield from _read_line(line, Place(name, number))
    except FormatError as error:
        yield Fragment(Place(name, number + 1), b"", False, False, f"the rest cannot be read: {error}")


def _read_exported(lines: Iterator[bytes], name: str, reading: LogReading) -> Iterator[Record | Fragment]:
    """Lines among which other programs' stand; a file that holds nothing else is no log."""
    number = others = 0
    has_records = has_times = False
    try:
        for number, line in enumerate(lines, 1):
            time_before = _TIME_BEFORE.match(line)
            has_times = has_times or time_before is not None
            content = line[time_before.end() :] if time_before is not None else line
            if _MARK not in content:
                others += bool(content.strip())
                continue
            has_records = True
            if has_times and time_before is None:
                yield Fragment(Place(name, number), b"", False, False, "no time stands before the record")
            yield from _read_line(content, Place(name, number))
    except FormatError as error:
        yield Fragment(Place(name, number + 1), b"", False, False, f"the rest cannot be read: {error}")
    reading.of_other_programs += others
    if others and not has_records:
        yield Fragment(Place(name, 1), b"", False, False, "no line of the file is a record")


def _read_line(line: bytes, place: Place) -> Iterator[Record | Fragment]:
    content = line.rstrip(b"\n")
    if not content:
        return
    record = _parse(content, place)
    if record is not None:
        yield record
        return
    # Behind a torn write another process may have gone on, on the same line; and a line feed may be lost.
    rest = b""
    for piece in _pieces(content):
        if record is not None:
            yield Fragment(place, b"", False, False, "a line feed is missing behind a whole record")
        record = _parse(piece, place)
        if record is None:
            rest += piece
            continue
        if rest:
            yield Fragment(place, rest, False, rest.startswith(RECORD_START))
        rest = b""
        yield record
    if rest:
        yield Fragment(place, rest, not line.endswith(b"\n"), False)


def _pieces(content: bytes) -> Iterator[bytes]:
    """The line, cut before each place where a record may begin: no record holds these bytes within."""
    start = 0
    while start < len(content):
        end = content.find(RECORD_START, start + 1)
        end = len(content) if end < 0 else end
        yield content[start:end]
        start = end


def _parse(content: bytes, place: Place) -> Record | None:
    body, seal = content[:-_SEAL_LENGTH], content[-_SEAL_LENGTH:]
    if not (content.startswith(RECORD_START) and seal.startswith(_SEAL) and seal.endswith(b'"}')):
        return None
    try:
        record = parse_json(content, field="audit record")
        fields = record["event"]
        if not isinstance(fields, dict) or type(record["sequence"]) is not int:
            return None
        chain_id, previous, sha256 = record["chain"], record["previous"], record["sha256"]
        if not all(isinstance(text, str) for text in (chain_id, previous, sha256)):
            return None
        is_intact = hashlib.sha256(body).hexdigest() == sha256
        return Record(place, chain_id, record["sequence"], previous, sha256, is_intact, fields)
    except (FormatError, KeyError):
        return None
