"""CloudTrail's side: the readers that find its records.

Records come from log files as CloudTrail delivers them (gzip JSON, ``{"Records": […]}``) in a folder or a
bucket, from LookupEvents, and from files in the three other shapes in which people keep them: saved
LookupEvents output, one record per line, EventBridge envelopes. They are parsed one by one. Whatever
cannot be read is counted and named in a :class:`Reading`, and the rest is still used.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from phicrypt.audit.events import parse_time
from phicrypt.core.backoff import back_off
from phicrypt.core.strict_json import InflatedStream, JsonArray, parse_json
from phicrypt.errors import ConfigurationError, FormatError
from phicrypt.evidence.trail_events import KMS_SOURCE, TrailEvent, parse_record, printable

if TYPE_CHECKING:
    from mypy_boto3_cloudtrail.client import CloudTrailClient
    from mypy_boto3_s3.client import S3Client

__all__ = [
    "KMS_SOURCE",
    "Reading",
    "TrailEvent",
    "look_up",
    "parse_record",
    "read_bucket",
    "read_file",
    "read_folder",
]

MAX_FILE_LENGTH_BYTES: Final = 256 * 2**20
_MAX_PROBLEMS: Final = 1_000
_MAX_PROBLEMS_PER_FILE: Final = 1_000
_DATE_IN_KEY: Final = re.compile(r"/(\d{4})/(\d\d)/(\d\d)/")
_DIGEST_NAME: Final = re.compile(r"(?:^|/)CloudTrail-Digest/|_CloudTrail-Digest_[^/]*$")
_LOG_NAMES: Final = (".json", ".json.gz")
"""As CloudTrail names them; a file that is named by itself is read whatever its name."""
DAY_NS: Final = 86_400 * 10**9
CLOCKS_DIFFER_NS: Final = 15 * 60 * 10**9
"""How far apart two clocks may be: both sides are read by so much beyond the time that is asked."""
_LOOKUPS_PER_SECOND: Final = 2
_MAX_LOOKUP_RETRIES: Final = 8


@dataclass(slots=True)
class Reading:
    """What was read besides KMS records, and what could not be.

    Attributes:
        files: log files read.
        records: KMS records read.
        of_other_services: records of other services, passed over.
        passed_over: files of a folder that are no log files by their names.
        problems: files and records that could not be read, at most 1,000.
        problem_count: how many.
        named_hashes: if given, the SHA-256 of every log file that a digest names.
        unnamed: files whose content, as it was read, is none of these; at most 1,000.
    """

    files: int = 0
    records: int = 0
    of_other_services: int = 0
    passed_over: int = 0
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0
    named_hashes: Container[str] | None = None
    unnamed: list[str] = field(default_factory=list)

    def add_content(self, name: str, sha256: str) -> None:
        """Compare what was read with what digests name: a file may be another one each time it is fetched."""
        if self.named_hashes is not None and sha256 not in self.named_hashes and len(self.unnamed) < _MAX_PROBLEMS:
            self.unnamed.append(name)

    def add_problem(self, where: str, what: str) -> None:
        """Count what could not be read, and keep the first of them by name."""
        self.problem_count += 1
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(printable(f"{where}: {what}"))


def read_folder(
    path: str | Path, *, since_ns: int | None = None, until_ns: int | None = None, reading: Reading | None = None
) -> Iterator[TrailEvent]:
    """KMS records of one file, whatever its name, or of every JSON file below a folder.

    Raises ConfigurationError if there is no such file or folder, and for a digest that is named as a log file.
    """
    path, reading = Path(path), reading if reading is not None else Reading()
    if not path.is_file() and not path.is_dir():
        raise ConfigurationError("there is no such CloudTrail file or folder; pipes and devices are not read")
    if path.is_file() and is_digest(path.name):
        raise ConfigurationError("this is a digest file; name a log file, or the folder that holds both")
    for file in [path] if path.is_file() else log_files_below(path, reading):
        try:
            with file.open("rb") as stream:
                yield from _within(read_file(stream, file.name, reading), since_ns, until_ns)
        except OSError as error:
            reading.add_problem(file.name, f"cannot be read ({error.strerror})")


def log_files_below(path: Path, reading: Reading | None = None) -> Iterator[Path]:
    """The log files of a folder, by their names, in order; digests and other files are passed over."""
    reading = reading if reading is not None else Reading()
    for file in files_below(path, reading.add_problem):
        if is_digest(file.relative_to(path).as_posix()):
            continue
        if file.name.endswith(_LOG_NAMES):
            yield file
        else:
            reading.passed_over += 1


def files_below(path: Path, on_problem: Callable[[str, str], None]) -> Iterator[Path]:
    """Every file of a folder and the folders in it, in order of their names.

    What hides files is told: a folder that cannot be listed, a link to a folder, a link to nothing, and what
    is named like a log file or a digest and is no file.
    """

    def cannot_list(error: OSError) -> None:
        on_problem(Path(str(error.filename)).name, f"the folder cannot be listed ({error.strerror})")

    for root, folders, names in os.walk(path, onerror=cannot_list):
        folders.sort()
        for name in folders:
            if os.path.islink(os.path.join(root, name)):
                on_problem(name, "a link to a folder, which is not followed")
            elif name.endswith(_LOG_NAMES):
                on_problem(name, "a folder, where a file was expected")
        for name in sorted(names):
            file = Path(root, name)
            if file.is_file():
                yield file
            elif name.endswith(_LOG_NAMES) or file.is_symlink():
                on_problem(name, "neither a file nor a folder")


def read_bucket(
    s3_client: S3Client,
    location: str,
    *,
    since_ns: int | None = None,
    until_ns: int | None = None,
    reading: Reading | None = None,
) -> Iterator[TrailEvent]:
    """KMS records of the log files under ``s3://bucket/prefix``; days outside the time are not fetched.

    An object that cannot be fetched is counted and named, and the others are read.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    reading = reading if reading is not None else Reading()
    bucket, _ = split_location(location)
    for object_key in log_keys(s3_client, location, since_ns, until_ns):
        name = object_key.rpartition("/")[2]
        try:
            body = cast("BinaryIO", s3_client.get_object(Bucket=bucket, Key=object_key)["Body"])
            yield from _within(read_file(body, name, reading), since_ns, until_ns)
        except ClientError as error:
            reading.add_problem(name, f"cannot be fetched ({error.response['Error']['Code']})")
        except (BotoCoreError, OSError) as error:  # cut off, or too slow
            reading.add_problem(name, f"cannot be fetched ({type(error).__name__})")


def log_keys(s3_client: S3Client, location: str, since_ns: int | None, until_ns: int | None) -> Iterator[str]:
    """Keys of the log files under ``s3://bucket/prefix`` that may hold records of the time."""
    for object_key in keys_below(s3_client, location):
        is_log = object_key.endswith(_LOG_NAMES) and not is_digest(object_key)
        if is_log and day_is_wanted(object_key, since_ns, until_ns):
            yield object_key


def keys_below(s3_client: S3Client, location: str) -> Iterator[str]:
    """The key of every object under ``s3://bucket/prefix``."""
    bucket, prefix = split_location(location)
    for page in s3_client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from (entry["Key"] for entry in page.get("Contents", ()))


def widened(since_ns: int | None, until_ns: int | None) -> tuple[int | None, int | None]:
    """The time that is read where this one is asked."""
    return (
        None if since_ns is None else since_ns - CLOCKS_DIFFER_NS,
        None if until_ns is None else until_ns + CLOCKS_DIFFER_NS,
    )


def split_location(location: str) -> tuple[str, str]:
    """Bucket and prefix of ``s3://bucket/prefix``; raises ConfigurationError for anything else."""
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    if not location.startswith("s3://") or not bucket:
        raise ConfigurationError("a location in S3 is s3://bucket/prefix")
    return bucket, prefix


def read_file(stream: BinaryIO, name: str, reading: Reading) -> Iterator[TrailEvent]:
    """KMS records of one file, plain or gzip, in any of the shapes; problems go to ``reading``."""
    inflating = _HashedStream(stream, max_bytes=MAX_FILE_LENGTH_BYTES, field=name)
    elements = JsonArray(inflating, ("Records", "Events"), field=name)
    problems_before = reading.problem_count
    number = -1
    try:
        for number, record in enumerate(_records_of(elements)):
            yield from _parse(record, f"{name} record {number}", reading)
            if reading.problem_count - problems_before >= _MAX_PROBLEMS_PER_FILE:
                reading.add_problem(name, f"the rest was not read: {_MAX_PROBLEMS_PER_FILE:,} records are none")
                return
    except FormatError as error:
        message = str(error).partition(": ")[2]
        if error.offset is not None:
            message = f"truncated JSON, or no CloudTrail log file, at byte {error.offset}: {message}"
        reading.add_problem(name, message)
        return
    if number < 0 and not elements.has_named_array:
        reading.add_problem(name, "truncated JSON, or no CloudTrail log file")
        return
    reading.files += 1
    reading.add_content(name, inflating.sha256.hexdigest())


class _HashedStream(InflatedStream):
    """A file's content, hashed as it is read."""

    def __init__(self, stream: BinaryIO, *, max_bytes: int, field: str) -> None:
        super().__init__(stream, max_bytes=max_bytes, field=field)
        self.sha256 = hashlib.sha256()

    def read(self) -> bytes:
        chunk = super().read()
        self.sha256.update(chunk)
        return chunk


class _Unusable:
    """Stands for an entry in which no record is found."""


def _records_of(elements: JsonArray) -> Iterator[Any]:
    for name, element in elements:
        if name:
            yield _entry_of(name, element)
        elif isinstance(element, list):
            yield from (_unwrapped(one) for one in element)
        elif isinstance(element, dict) and "eventVersion" not in element and "detail" not in element:
            found = [name for name in ("Records", "Events") if isinstance(element.get(name), list)]
            if not found:
                yield _Unusable()
            for name in found:
                yield from (_entry_of(name, one) for one in element[name])
        else:
            yield _unwrapped(element)


def _entry_of(array: str, element: Any) -> Any:
    """A record of a log file, or the one that LookupEvents gives as text."""
    if array != "Events" or not isinstance(element, dict):
        return element
    try:
        return parse_json(element["CloudTrailEvent"], field="CloudTrailEvent", any_text=True)
    except (KeyError, TypeError, AttributeError, FormatError):
        return _Unusable()


def _unwrapped(element: Any) -> Any:
    """A record that stands by itself, or within EventBridge's envelope."""
    if isinstance(element, dict) and "eventVersion" not in element and isinstance(element.get("detail"), dict):
        return element["detail"]
    return element


def look_up(
    cloudtrail_client: CloudTrailClient,
    *,
    since_ns: int | None = None,
    until_ns: int | None = None,
    reading: Reading | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[TrailEvent]:
    """KMS records from LookupEvents: the last 90 days of one account and Region, two pages a second.

    Throttled pages are asked again with growing pauses. Raises what boto3 raises.
    """
    from datetime import UTC, datetime

    reading = reading if reading is not None else Reading()
    question: dict[str, Any] = {
        "LookupAttributes": [{"AttributeKey": "EventSource", "AttributeValue": KMS_SOURCE}],
        "MaxResults": 50,
    }
    for name, bound in (("StartTime", since_ns), ("EndTime", until_ns)):
        if bound is not None:
            question[name] = datetime.fromtimestamp(bound / 10**9, UTC)
    next_call = clock()
    while True:
        sleep(max(0.0, next_call - clock()))
        next_call = clock() + 1 / _LOOKUPS_PER_SECOND
        page = _ask_patiently(cloudtrail_client, question, sleep)
        for number, entry in enumerate(page.get("Events", ())):
            found = _parse(_entry_of("Events", entry), f"LookupEvents event {number}", reading)
            yield from _within(found, since_ns, until_ns)
        token = page.get("NextToken")
        if not token:
            return
        question["NextToken"] = token


def _ask_patiently(client: CloudTrailClient, question: dict[str, Any], sleep: Callable[[float], None]) -> Any:
    from botocore.exceptions import ClientError

    for attempt in range(_MAX_LOOKUP_RETRIES):
        try:
            return client.lookup_events(**question)
        except ClientError as error:
            if "Throttling" not in error.response["Error"]["Code"] or attempt == _MAX_LOOKUP_RETRIES - 1:
                raise
            back_off(attempt, first_seconds=1.0, longest_seconds=30.0, sleep=sleep)
    raise AssertionError("unreachable")


def _parse(record: Any, place: str, reading: Reading) -> Iterator[TrailEvent]:
    try:
        event = parse_record(record)
    except ValueError as error:
        reading.add_problem(place, str(error))
        return
    if event is None:
        reading.of_other_services += 1
        return
    reading.records += 1
    yield event


def _within(events: Iterable[TrailEvent], since_ns: int | None, until_ns: int | None) -> Iterator[TrailEvent]:
    for event in events:
        if (since_ns is None or event.time_ns >= since_ns) and (until_ns is None or event.time_ns <= until_ns):
            yield event


def is_digest(name: str) -> bool:
    """Whether a file is a digest by where it lies or by its name, as CloudTrail gives it."""
    return _DIGEST_NAME.search(name) is not None


def day_is_wanted(object_key: str, since_ns: int | None, until_ns: int | None) -> bool:
    """By the date in the key; a file may hold events of the evening before, so a day more on both sides."""
    found = _DATE_IN_KEY.search(object_key)
    if found is None:
        return True
    try:
        day_ns = parse_time(f"{found[1]}-{found[2]}-{found[3]}T00:00:00Z")
    except ValueError:
        return True
    return (since_ns is None or day_ns + 2 * DAY_NS > since_ns) and (
        until_ns is None or day_ns - DAY_NS < until_ns
    )
