"""CloudTrail's digest files: were log files changed or removed after delivery?

CloudTrail writes a digest per hour that names each log file with its SHA-256, and the digest before;
each digest is signed by CloudTrail, with the signature in the S3 object's metadata ("Validating
CloudTrail log file integrity" in its user guide). What is signed::

    digestEndTime ‖ LF ‖ bucket/key of the digest ‖ LF ‖ hex SHA-256 of the digest ‖ LF ‖ previous signature

Hashes are over the uncompressed files. A folder of copies has no signatures; there only the hashes
are checked, and the report says so. Where digests are, a log file that none of them names is a problem,
and what they cover is said per trail and Region (rule 24).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from phicrypt.audit.events import format_time
from phicrypt.core.primitives import verify_rsa_pkcs1_sha256
from phicrypt.core.strict_json import inflated, parse_json
from phicrypt.errors import AuthenticationError, FormatError
from phicrypt.evidence.cloudtrail import (
    DAY_NS,
    Reading,
    day_is_wanted,
    files_below,
    is_digest,
    keys_below,
    log_files_below,
    log_keys,
    split_location,
    widened,
)
from phicrypt.evidence.coverage import Link, UnlistedFile, cover
from phicrypt.evidence.digest_files import (
    MAX_DIGEST_BYTES,
    DigestFile,
    fetched,
    fetched_digest,
    hash_of,
    hash_of_file,
    hash_of_object,
)
from phicrypt.evidence.trail_events import printable

if TYPE_CHECKING:
    from mypy_boto3_cloudtrail.client import CloudTrailClient
    from mypy_boto3_s3.client import S3Client

_KEYS_SINCE: Final = datetime(2013, 11, 1, tzinfo=UTC)
"""CloudTrail's beginning: ListPublicKeys gives today's key only, unless it is asked for older ones."""
_MAX_LISTED: Final = 1_000


@dataclass(slots=True)
class DigestReport:
    """What the digests show.

    Attributes:
        digests: digest files read.
        signatures: of these, with a valid signature of CloudTrail.
        unsigned: without a signature to check (copies in a folder).
        log_files: log files with the hash that a digest names.
        problems: what does not fit, in words, at most 1,000.
        problem_count: how many.
        unread: digests that could not be read; they are problems too.
        covered: the span that the digests of each trail and Region cover, in words.
        not_covered: times and files that no digest speaks for, in words.
        hashes: SHA-256 of each log file that is what a digest names.
        regions: the Regions that digests cover, empty text for one that no place names.
        told: names of the files of which problems or the lack of a digest were said.
    """

    digests: int = 0
    signatures: int = 0
    unsigned: int = 0
    log_files: int = 0
    problems: list[str] = field(default_factory=list)
    problem_count: int = 0
    unread: list[str] = field(default_factory=list)
    covered: list[str] = field(default_factory=list)
    not_covered: list[str] = field(default_factory=list)
    hashes: set[str] = field(default_factory=set)
    regions: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)

    @property
    def is_valid(self) -> bool:
        """Whether every digest and log file that was there is unchanged, none is missing and none unlisted."""
        return not self.problem_count

    def add_problem(self, what: str) -> None:
        """Count what does not fit, and keep the first of it."""
        self.problem_count += 1
        if len(self.problems) < _MAX_LISTED:
            self.problems.append(printable(what))


Load = Callable[[str, str], Iterable[BinaryIO]]
"""The log files that lie under a bucket and key; a folder of copies may hold several of one name.

Raises OSError for one that is there and cannot be had."""


def verify_digests(
    digests: Iterable[DigestFile],
    load: Load,
    public_keys: Mapping[str, bytes] | None = None,
    *,
    unlisted: Callable[[set[str]], Iterable[UnlistedFile]] = lambda hashes: (),
    since_ns: int | None = None,
    until_ns: int | None = None,
) -> DigestReport:
    """Check digests against each other, their signatures, and the log files that they name.

    Args:
        digests: in any order; none is kept in memory.
        load: the log files of a bucket and key.
        public_keys: CloudTrail's public keys (DER) by fingerprint, from ListPublicKeys.
        unlisted: the log files whose hash is none of those that were found to be named.
        since_ns, until_ns: the time that is asked: hours of it without a digest are not covered.
    """
    report = DigestReport()
    links = []
    for digest in digests:
        try:
            if isinstance(digest.content, OSError):
                raise digest.content
            content = inflated(BytesIO(digest.content), max_bytes=MAX_DIGEST_BYTES, field="digest")
            fields = _checked(parse_json(content, field="digest"))
        except (FormatError, OSError) as error:
            reason = f" ({error.strerror})" if isinstance(error, OSError) else ""
            report.unread.append(printable(_name(digest.object_key)))
            report.add_problem(f"{_name(digest.object_key)}: cannot be read{reason}")
            continue
        report.digests += 1
        _check_signature(report, digest, content, fields, public_keys or {})
        for entry in fields["logFiles"]:
            _check_log_file(report, entry, load)
        links.append(Link.of(digest.object_key, hashlib.sha256(content).hexdigest(), fields))
    files = list(unlisted(report.hashes))
    report.told |= {_name(file.object_key) for file in files}
    report.regions = cover(links, files, report, since_ns, until_ns)
    return report


def _checked(fields: Any) -> dict[str, Any]:
    """The members of a digest, each of its kind. Raises FormatError."""
    if not isinstance(fields, dict) or not isinstance(fields.get("digestEndTime"), str):
        raise FormatError("no digest", field="digest")
    for name, value in fields.items():
        if name.startswith(("digest", "previousDigest")) and not isinstance(value, str | None):
            raise FormatError("a text was expected", field="digest")
    log_files = fields.get("logFiles")
    if not isinstance(log_files, list | None):
        raise FormatError("a list was expected", field="logFiles")
    return {**fields, "logFiles": log_files or []}


def _check_signature(
    report: DigestReport,
    digest: DigestFile,
    content: bytes,
    fields: dict[str, Any],
    public_keys: Mapping[str, bytes],
) -> None:
    name = _name(digest.object_key)
    if digest.signature is None:
        report.unsigned += 1
        return
    if (fields.get("digestS3Bucket"), fields.get("digestS3Object")) != (digest.bucket, digest.object_key):
        report.add_problem(f"{name}: the digest belongs to another place")
        return
    public_key = public_keys.get(str(fields.get("digestPublicKeyFingerprint")))
    if public_key is None:
        report.add_problem(f"{name}: CloudTrail has no public key of the fingerprint that the digest names")
        return
    signed = "\n".join(
        (
            fields["digestEndTime"],
            f"{digest.bucket}/{digest.object_key}",
            hashlib.sha256(content).hexdigest(),
            str(fields.get("previousDigestSignature") or "null"),
        )
    )
    try:
        verify_rsa_pkcs1_sha256(
            public_key, signed.encode("utf-8", "backslashreplace"), bytes.fromhex(digest.signature)
        )
    except (AuthenticationError, ValueError):
        report.add_problem(f"{name}: the signature is not CloudTrail's")
        return
    report.signatures += 1


def _check_log_file(report: DigestReport, entry: Any, load: Load) -> None:
    try:
        bucket, object_key, expected = str(entry["s3Bucket"]), str(entry["s3Object"]), str(entry["hashValue"])
    except (KeyError, TypeError):
        report.add_problem("a digest names a log file without its hash")
        return
    found = []
    try:
        for stream in load(bucket, object_key):
            with closing(stream):
                found.append(hash_of(stream))
    except OSError as error:
        report.told.add(_name(object_key))
        report.add_problem(f"{_name(object_key)}: the log file cannot be read ({error.strerror})")
        return
    if entry.get("hashAlgorithm") not in (None, "SHA-256"):
        report.add_problem(f"{_name(object_key)}: the digest names a hash of another algorithm than SHA-256")
        return
    if expected in found:
        report.log_files += 1
        report.hashes.add(expected)
    else:
        report.told.add(_name(object_key))
        report.add_problem(f"{_name(object_key)}: the log file {'was changed' if found else 'is missing'}")


def no_digests(since_ns: int | None, until_ns: int | None) -> DigestReport | None:
    """Of a folder or bucket without any digest: the hours that are asked have none, as if all were removed."""
    if since_ns is None and until_ns is None:
        return None
    start = f"{format_time(since_ns)[:16]}Z" if since_ns is not None else "the beginning"
    end = f"{format_time(until_ns)[:16]}Z" if until_ns is not None else "now"
    return DigestReport(not_covered=[f"from {start} to {end}: no digest of any trail or Region"])


def compare_reading(report: DigestReport, reading: Reading, regions: Iterable[str] = ()) -> None:
    """What was read is what the digests name, and they cover each Region of which a key is watched."""
    for name in reading.unnamed:
        if name not in report.told:
            report.add_problem(f"{name}: what was read is not what a digest names: it changed meanwhile")
    if report.digests and "" not in report.regions:
        for region in sorted(set(regions) - report.regions):
            report.not_covered.append(f"{region}: no digest, although a key of this Region is watched")


def verify_folder(
    path: str | Path, *, since_ns: int | None = None, until_ns: int | None = None
) -> DigestReport | None:
    """Check the digests below a folder of copies; None if it holds none, or is a file."""
    folder = Path(path)
    hidden: list[str] = []  # readers of the log files tell the others
    files = (
        list(files_below(folder, lambda name, what: hidden.append(f"{name}: {what}"))) if folder.is_dir() else []
    )
    found = [file for file in files if is_digest(file.relative_to(folder).as_posix())]
    if not found:
        return None
    by_name: dict[str, list[Path]] = {}
    for file in log_files_below(folder):
        by_name.setdefault(file.name, []).append(file)
    named: set[Path] = set()

    def load(bucket: str, object_key: str) -> Iterator[BinaryIO]:
        copies = by_name.get(_name(object_key), [])
        named.update(copies if len(copies) == 1 else ())
        for file in copies:
            yield file.open("rb")

    def unlisted(hashes: set[str]) -> Iterator[UnlistedFile]:
        for file in log_files_below(folder):
            if file not in named and hash_of_file(file) not in hashes:  # others were compared already
                yield UnlistedFile.of(file.relative_to(folder).as_posix())

    report = verify_digests(
        map(_copied_digest, found), load, unlisted=unlisted, since_ns=since_ns, until_ns=until_ns
    )
    for problem in hidden:
        report.add_problem(problem)
    return report


def _copied_digest(file: Path) -> DigestFile:
    """A digest of a folder, which lies where it says that it lay."""
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_DIGEST_BYTES)
    except OSError as error:
        return DigestFile("", file.name, error, None)
    return DigestFile("", _key_in(content) or file.name, content, None)


def verify_bucket(
    s3_client: S3Client,
    location: str,
    cloudtrail_client: CloudTrailClient,
    *,
    since_ns: int | None = None,
    until_ns: int | None = None,
) -> DigestReport | None:
    """Check the digests under ``s3://bucket/prefix`` with CloudTrail's public keys; None if there are none.

    Days outside the time are not fetched. The prefix must hold both ``CloudTrail`` and
    ``CloudTrail-Digest``, as ``AWSLogs/<account>`` does.
    """
    bucket, _ = split_location(location)
    # A day more than of log files: each file that is read has its digest among these.
    early = None if since_ns is None else since_ns - DAY_NS
    late = None if until_ns is None else until_ns + DAY_NS
    keys = [key for key in keys_below(s3_client, location) if is_digest(key) and day_is_wanted(key, early, late)]
    if not keys:
        return None

    def digests() -> Iterator[DigestFile]:
        for object_key in keys:
            yield fetched_digest(s3_client, bucket, object_key)

    named: set[tuple[str, str]] = set()

    def load(bucket_name: str, object_key: str) -> Iterator[BinaryIO]:
        named.add((bucket_name, object_key))
        yield from fetched(s3_client, bucket_name, object_key)

    def unlisted(hashes: set[str]) -> Iterator[UnlistedFile]:
        # All that the join reads: a quarter of an hour more on both sides.
        for object_key in log_keys(s3_client, location, *widened(since_ns, until_ns)):
            if (bucket, object_key) not in named and hash_of_object(s3_client, bucket, object_key) not in hashes:
                yield UnlistedFile.of(object_key)  # of others the hash was compared already

    return verify_digests(
        digests(),
        load,
        _public_keys(cloudtrail_client),
        unlisted=unlisted,
        since_ns=since_ns,
        until_ns=until_ns,
    )


def _public_keys(cloudtrail_client: CloudTrailClient) -> dict[str, bytes]:
    question: dict[str, Any] = {"StartTime": _KEYS_SINCE}
    found: dict[str, bytes] = {}
    while True:
        answer = cloudtrail_client.list_public_keys(**question)
        found |= {entry["Fingerprint"]: entry["Value"] for entry in answer.get("PublicKeyList", ())}
        if not answer.get("NextToken"):
            return found
        question["NextToken"] = answer["NextToken"]


def _key_in(content: bytes) -> str:
    try:
        plain = inflated(BytesIO(content), max_bytes=MAX_DIGEST_BYTES, field="digest")
        return str(_checked(parse_json(plain, field="digest"))["digestS3Object"])
    except (FormatError, KeyError):
        return ""


def _name(object_key: str) -> str:
    return object_key.rpartition("/")[2]
