"""Whether a log's copies in a bucket are whole and locked: segments of ``S3SegmentSink``, compared with the log.

::

    shipped = read_shipped(s3, "clinic-audit", "phicrypt-audit/", log="audit.jsonl")
    shipped.problems()                     # nothing where all is as it should be

The sink in the bucket has chains of its own beside those of the local file, so both are compared by their events:
what the log says must be in the bucket, in whole chains, each object locked for six years from its writing.
"""

from __future__ import annotations

import io
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from phicrypt.audit.events import Kind
from phicrypt.evidence.log_lines import Fragment, LogReading, Place, Record, read_stream
from phicrypt.evidence.verify import Verification, checked_records, verified_items

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

RETENTION_DAYS: Final = 2_192
"""Six years, with leap days: 45 CFR 164.316(b)(2)."""
_MAX_SEGMENT_BYTES: Final = 256 * 2**20
_NOT_YET_SHIPPED_NS: Final = 3_600 * 10**9
_OF_THE_LOG: Final = (Kind.ANCHOR, Kind.CHAIN_START)
_NAMES: Final = (".jsonl", ".jsonl.gz")


@dataclass(slots=True)
class Shipped:
    """What stands in the bucket.

    Attributes:
        segments, records: objects, and whole lines in them.
        unlocked: segments without retention in compliance mode for six years from when they were written.
        first_unlocked: why the first of these is none, without its key.
        missing: events of the log, older than an hour, that no segment holds.
        first_missing: where in the log the first of them stands.
        chains: of the segments: gaps, changed and unreadable records.
        log: what of the local log could be read.
    """

    segments: int = 0
    records: int = 0
    unlocked: int = 0
    first_unlocked: str = ""
    missing: int = 0
    first_missing: str = ""
    chains: Verification = field(default_factory=Verification)
    log: LogReading = field(default_factory=LogReading)

    def problems(self) -> Iterator[str]:
        """What is wrong, in words."""
        if not self.segments:
            yield "no segment is there"
        if self.unlocked:
            yield f"{self.unlocked:,} of {self.segments:,} segments are not locked: {self.first_unlocked}"
        if self.chains.fault_count:
            yield f"{self.chains.fault_count:,} gaps or changed records in the segments: {self.chains.faults[0]}"
        if self.missing:
            yield f"{self.missing:,} events of the log are in no segment, the first at {self.first_missing}"
        if self.log.unread or self.log.altered:
            first = self.log.first_unread or self.log.first_altered
            yield f"{self.log.unread or self.log.altered:,} lines of the log itself do not hold: {first}"


def read_shipped(s3_client: S3Client, bucket: str, prefix: str, *, log: str | Path) -> Shipped:
    """Read every segment below a prefix, and compare it with a log and its rotated segments.

    Both are streamed; what was seen is kept in a temporary database. Raises ConfigurationError if there is no such
    log, and botocore's errors where the bucket cannot be read.
    """
    shipped = Shipped()
    database = sqlite3.connect("", isolation_level=None)
    try:
        database.execute("CREATE TABLE seen (event TEXT PRIMARY KEY) WITHOUT ROWID")
        database.execute("BEGIN")
        for record in verified_items(_items(s3_client, bucket, prefix, shipped), shipped.chains, in_order=False):
            shipped.records += 1
            database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (_event_of(record),))
        newest = time.time_ns() - _NOT_YET_SHIPPED_NS
        for record in checked_records(log, shipped.log):
            if record.fields.get("kind") in _OF_THE_LOG or _time_of(record) > newest:
                continue
            if database.execute("SELECT 1 FROM seen WHERE event = ?", (_event_of(record),)).fetchone() is None:
                shipped.missing += 1
                shipped.first_missing = shipped.first_missing or str(record.place)
    finally:
        database.close()
    return shipped


def _items(s3_client: S3Client, bucket: str, prefix: str, shipped: Shipped) -> Iterator[Record | Fragment]:
    pages = s3_client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for number, entry in enumerate((entry for page in pages for entry in page.get("Contents", ())), 1):
        if not entry["Key"].endswith(_NAMES):
            continue
        answer = s3_client.get_object(Bucket=bucket, Key=entry["Key"])
        shipped.segments += 1
        why = _why_unlocked(answer)
        if why:
            shipped.unlocked += 1
            shipped.first_unlocked = shipped.first_unlocked or why
        content = answer["Body"].read(_MAX_SEGMENT_BYTES + 1)
        # By number: who names objects could name them after patients.
        name = f"object {number}"
        if len(content) > _MAX_SEGMENT_BYTES:
            yield Fragment(Place(name, 0), b"", False, False, "the object is longer than any segment")
            continue
        yield from read_stream(io.BytesIO(content), name, shipped.chains.reading)


def _why_unlocked(answer: Any) -> str:
    mode, until = answer.get("ObjectLockMode"), answer.get("ObjectLockRetainUntilDate")
    if mode is None or until is None:
        return "one has no retention, or it may not be read (s3:GetObjectRetention)"
    if mode != "COMPLIANCE":
        return f"one is in mode {mode}, which privileged users can lift"
    written: datetime = answer["LastModified"]
    # A clock may be some minutes off, and a day is a day anywhere.
    if until < written + timedelta(days=RETENTION_DAYS - 1):
        return f"one is retained until {until:%Y-%m-%d} only"
    return ""


def _event_of(record: Record) -> str:
    return f"{record.fields.get('use_id')}\n{record.fields.get('kind')}"


def _time_of(record: Record) -> int:
    try:
        return record.event().time_ns
    except (ValueError, KeyError, TypeError):
        return 0
