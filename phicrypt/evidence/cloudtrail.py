"""CloudTrail's side: its records as values, and the readers that find them.

A record is read from log files as CloudTrail delivers them (gzip JSON, ``{"Records": […]}``) in a
folder or a bucket, or from LookupEvents. Whatever cannot be read is counted and named in a
:class:`Reading`, and the rest is still used.
"""

from __future__ import annotations

import gzip
import json
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from phicrypt.audit.events import parse_time
from phicrypt.errors import ConfigurationError

KMS_SOURCE: Final = "kms.amazonaws.com"
USING_OPERATIONS: Final = frozenset(
    {
        "Decrypt",
        "DeriveSharedSecret",
        "Encrypt",
        "GenerateDataKey",
        "GenerateDataKeyPair",
        "GenerateDataKeyPairWithoutPlaintext",
        "GenerateDataKeyWithoutPlaintext",
        "GenerateMac",
        "ReEncrypt",
        "Sign",
        "Verify",
        "VerifyMac",
    }
)
"""KMS operations that use a key; everything else administers or describes one."""
_DESCRIBING: Final = re.compile(r"(Describe|List|Get)[A-Z]")
_CORRELATION: Final = re.compile(r"\bphicrypt-id/([0-9a-f]{32})\b")
_KEY_ARN: Final = re.compile(r"arn:aws[a-z-]{0,16}:kms:[a-z0-9-]{1,32}:\d{12}:key/[0-9a-zA-Z-]{1,64}")
_MAX_FILE_LENGTH_BYTES: Final = 256 * 2**20
_MAX_PROBLEMS: Final = 1_000
_DATE_IN_KEY: Final = re.compile(r"/(\d{4})/(\d\d)/(\d\d)/")
_DAY_NS: Final = 86_400 * 10**9
_LOOKUPS_PER_SECOND: Final = 2
_MAX_LOOKUP_RETRIES: Final = 8


class TrailEvent(NamedTuple):
    """One KMS record of CloudTrail; text fields are empty where CloudTrail has none.

    Attributes:
        event_id: unique; the same record may be delivered twice under one id. Of a key in another
            account, that account and the caller's have a record each, under one shared id.
        time_ns: when KMS handled the call, in whole seconds.
        name: the operation, such as ``"Decrypt"``.
        request_id: KMS's request id.
        key_arn: the key that was used.
        principal: ARN of the caller; the account of a key does not learn that of another account's.
        issuer: ARN of the role behind an assumed-role session.
        source_identity: as set with the session.
        invoked_by: the AWS service that called on somebody's behalf.
        user_agent, source_ip, error_code, account, region: as CloudTrail has them.
        correlation_id: from phicrypt's part of the user agent.
        context: the encryption context.
    """

    event_id: str
    time_ns: int
    name: str
    request_id: str
    key_arn: str
    principal: str
    issuer: str
    source_identity: str
    invoked_by: str
    user_agent: str
    source_ip: str
    error_code: str
    account: str
    region: str
    correlation_id: str
    context: Mapping[str, str]

    @property
    def is_use(self) -> bool:
        """Whether the operation uses a key."""
        return self.name in USING_OPERATIONS

    @property
    def is_description(self) -> bool:
        """Whether the operation only reads."""
        return _DESCRIBING.match(self.name) is not None


@dataclass(slots=True)
class Reading:
    """What was read besides KMS records, and what could not be.

    Attributes:
        files: log files read.
        records: KMS records read.
        of_other_services: records of other services, passed over.
        problems: files and records that could not be read, at most 1,000.
        problem_count: how many.
    """

    files: int = 0
    records: int = 0
    of_other_services: int = 0
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0

    def add_problem(self, where: str, what: str) -> None:
        self.problem_count += 1
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(_valid(f"{where}: {what}"))


def parse_record(record: Any) -> TrailEvent | None:
    """A record of CloudTrail as a value; None for another service's.

    Raises ValueError, saying what is wrong, for one that is not CloudTrail's or of an unknown version.
    """
    if not isinstance(record, dict) or not isinstance(record.get("eventVersion"), str):
        raise ValueError("not a CloudTrail record")
    if record["eventVersion"].partition(".")[0] != "1":
        raise ValueError("unknown CloudTrail version")
    if record.get("eventSource") != KMS_SOURCE:
        return None
    identity = _object(record, "userIdentity")
    session = _object(identity, "sessionContext")
    parameters = _object(record, "requestParameters")
    user_agent = _text(record, "userAgent")
    correlation = _CORRELATION.search(user_agent)
    try:
        time_ns = parse_time(record["eventTime"])
    except (KeyError, TypeError, ValueError):
        raise ValueError("no valid eventTime") from None
    context = _object(parameters, "encryptionContext")
    return TrailEvent(
        _text(record, "sharedEventID") or _text(record, "eventID"),
        time_ns,
        _text(record, "eventName"),
        _text(record, "requestID"),
        _key_arn(record, parameters),
        _text(identity, "arn"),
        _text(_object(session, "sessionIssuer"), "arn"),
        _text(session, "sourceIdentity"),
        _text(identity, "invokedBy"),
        user_agent,
        _text(record, "sourceIPAddress"),
        _text(record, "errorCode"),
        _text(record, "recipientAccountId"),
        _text(record, "awsRegion"),
        correlation[1] if correlation else "",
        {_valid(str(name)): _valid(str(value)) for name, value in context.items()},
    )


def _object(parent: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}


def _text(parent: Mapping[str, Any], name: str) -> str:
    value = parent.get(name)
    return _valid(value) if isinstance(value, str) else ""


def _valid(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can hold and nothing can print or store."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _key_arn(record: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    resources = record.get("resources")
    for resource in resources if isinstance(resources, list) else ():
        if isinstance(resource, dict) and ":kms:" in (arn := _text(resource, "ARN") or _text(resource, "arn")):
            return arn
    named = _text(_object(record, "responseElements"), "keyId") or _text(parameters, "keyId")
    if named.startswith("arn:"):
        return named
    # Of a denied call CloudTrail often has neither resources nor parameters, only its text.
    in_text = _KEY_ARN.search(_text(record, "errorMessage")[:4_096])
    return in_text[0] if in_text else named


def read_folder(
    path: str | Path, *, since_ns: int | None = None, until_ns: int | None = None, reading: Reading | None = None
) -> Iterator[TrailEvent]:
    """KMS records of one log file, or of every ``*.json`` and ``*.json.gz`` below a folder.

    Raises ConfigurationError if there is no such file or folder.
    """
    path, reading = Path(path), reading if reading is not None else Reading()
    if not path.exists():
        raise ConfigurationError("there is no such CloudTrail file or folder")
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*.json*") if file.is_file())
    for file in files:
        if file.name.endswith((".json", ".json.gz")) and not _is_digest(str(file)):
            try:
                with file.open("rb") as stream:
                    yield from _within(read_file(stream, file.name, reading), since_ns, until_ns)
            except OSError as error:
                reading.add_problem(file.name, f"cannot be read ({error.strerror})")


def read_bucket(
    s3_client: Any,
    location: str,
    *,
    since_ns: int | None = None,
    until_ns: int | None = None,
    reading: Reading | None = None,
) -> Iterator[TrailEvent]:
    """KMS records of the log files under ``s3://bucket/prefix``; days outside the time are not fetched."""
    reading = reading if reading is not None else Reading()
    bucket, prefix = split_location(location)
    pages = s3_client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    for page in pages:
        for entry in page.get("Contents", ()):
            object_key = entry["Key"]
            if not object_key.endswith((".json", ".json.gz")) or _is_digest(object_key):
                continue
            if not day_is_wanted(object_key, since_ns, until_ns):
                continue
            body = s3_client.get_object(Bucket=bucket, Key=object_key)["Body"]
            name = object_key.rpartition("/")[2]
            yield from _within(read_file(body, name, reading), since_ns, until_ns)


def split_location(location: str) -> tuple[str, str]:
    """Bucket and prefix of ``s3://bucket/prefix``; raises ConfigurationError for anything else."""
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    if not location.startswith("s3://") or not bucket:
        raise ConfigurationError("a location in S3 is s3://bucket/prefix")
    return bucket, prefix


def read_file(stream: BinaryIO, name: str, reading: Reading) -> Iterator[TrailEvent]:
    """KMS records of one log file, plain or gzip; problems go to ``reading``."""
    try:
        content = inflated(stream.read(_MAX_FILE_LENGTH_BYTES + 1))
        records = json.loads(content)["Records"]
        if not isinstance(records, list):
            raise TypeError
    except (OSError, EOFError, zlib.error):
        reading.add_problem(name, "corrupt or truncated gzip")
        return
    except OverflowError:
        reading.add_problem(name, f"longer than {_MAX_FILE_LENGTH_BYTES:,} bytes")
        return
    except (ValueError, KeyError, TypeError, RecursionError):
        reading.add_problem(name, "truncated JSON, or no CloudTrail log file")
        return
    reading.files += 1
    yield from _parse_all(records, name, reading)


def inflated(content: bytes) -> bytes:
    """The content of a gzip or plain file, bounded; raises OverflowError, OSError, EOFError or zlib.error."""
    if content.startswith(b"\x1f\x8b"):
        with gzip.open(BytesIO(content)) as file:
            content = file.read(_MAX_FILE_LENGTH_BYTES + 1)
    if len(content) > _MAX_FILE_LENGTH_BYTES:
        raise OverflowError
    return content


def look_up(
    cloudtrail_client: Any,
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
        records = []
        for entry in page.get("Events", ()):
            try:
                records.append(json.loads(entry["CloudTrailEvent"]))
            except (ValueError, KeyError, TypeError):
                reading.add_problem("LookupEvents", "an event without valid JSON")
        yield from _within(_parse_all(records, "LookupEvents", reading), since_ns, until_ns)
        token = page.get("NextToken")
        if not token:
            return
        question["NextToken"] = token


def _ask_patiently(client: Any, question: dict[str, Any], sleep: Callable[[float], None]) -> Any:
    from botocore.exceptions import ClientError

    for attempt in range(_MAX_LOOKUP_RETRIES):
        try:
            return client.lookup_events(**question)
        except ClientError as error:
            if "Throttling" not in error.response["Error"]["Code"] or attempt == _MAX_LOOKUP_RETRIES - 1:
                raise
            sleep(min(30.0, 0.5 * 2**attempt))
    raise AssertionError("unreachable")


def _parse_all(records: Iterable[Any], name: str, reading: Reading) -> Iterator[TrailEvent]:
    for number, record in enumerate(records):
        try:
            event = parse_record(record)
        except ValueError as error:
            reading.add_problem(f"{name} record {number}", str(error))
            continue
        if event is None:
            reading.of_other_services += 1
            continue
        reading.records += 1
        yield event


def _within(events: Iterable[TrailEvent], since_ns: int | None, until_ns: int | None) -> Iterator[TrailEvent]:
    for event in events:
        if (since_ns is None or event.time_ns >= since_ns) and (until_ns is None or event.time_ns <= until_ns):
            yield event


def _is_digest(name: str) -> bool:
    return "CloudTrail-Digest" in name or "CloudTrail-Insight" in name


def day_is_wanted(object_key: str, since_ns: int | None, until_ns: int | None) -> bool:
    """By the date in the key; a file may hold events of the evening before, so a day more on both sides."""
    found = _DATE_IN_KEY.search(object_key)
    if found is None:
        return True
    try:
        day_ns = parse_time(f"{found[1]}-{found[2]}-{found[3]}T00:00:00Z")
    except ValueError:
        return True
    return (since_ns is None or day_ns + 2 * _DAY_NS > since_ns) and (
        until_ns is None or day_ns - _DAY_NS < until_ns
    )
