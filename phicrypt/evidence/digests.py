"""CloudTrail's digest files: were log files changed or removed after delivery?

CloudTrail writes a digest per hour that names each log file with its SHA-256, and the digest before;
each digest is signed by CloudTrail, with the signature in the S3 object's metadata ("Validating
CloudTrail log file integrity" in its user guide). What is signed::

    digestEndTime ‖ LF ‖ bucket/key of the digest ‖ LF ‖ hex SHA-256 of the digest ‖ LF ‖ previous signature

Hashes are over the uncompressed files. A folder of copies has no signatures; there only the hashes
are checked, and the report says so.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from phicrypt.core.primitives import verify_rsa_pkcs1_sha256
from phicrypt.errors import AuthenticationError, ConfigurationError
from phicrypt.evidence.cloudtrail import day_is_wanted, inflated, split_location

_KEYS_SINCE: Final = datetime(2013, 11, 1, tzinfo=UTC)
"""CloudTrail's beginning: ListPublicKeys gives today's key only, unless it is asked for older ones."""
_READ_ERRORS: Final = (OSError, EOFError, zlib.error, OverflowError, ValueError, KeyError, TypeError)


class DigestFile(NamedTuple):
    """One digest: where it lies, its file's bytes, and the signature from its metadata."""

    bucket: str
    object_key: str
    content: bytes
    signature: str | None


@dataclass(slots=True)
class DigestReport:
    """What the digests show.

    Attributes:
        digests: digest files read.
        signatures: of these, with a valid signature of CloudTrail.
        unsigned: without a signature to check (copies in a folder).
        log_files: log files with the hash that a digest names.
        problems: what does not fit, in words.
    """

    digests: int = 0
    signatures: int = 0
    unsigned: int = 0
    log_files: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_valid(self) -> bool:
        """Whether every digest and log file that was there is unchanged, and none is missing."""
        return not self.problems


def verify_digests(
    digests: Iterable[DigestFile],
    load: Callable[[str, str], bytes | None],
    public_keys: Mapping[str, bytes] | None = None,
) -> DigestReport:
    """Check digests against each other, their signatures, and the log files that they name.

    Args:
        digests: in any order.
        load: the bytes of a log file by bucket and key, or None if there is none.
        public_keys: CloudTrail's public keys (DER) by fingerprint, from ListPublicKeys.
    """
    report = DigestReport()
    parsed: list[tuple[DigestFile, bytes, dict[str, Any]]] = []
    for digest in digests:
        try:
            content = inflated(digest.content)
            fields = json.loads(content)
            parsed.append((digest, content, {**fields, "digestEndTime": str(fields["digestEndTime"])}))
        except _READ_ERRORS:
            report.problems.append(f"{_name(digest.object_key)}: cannot be read")
    parsed.sort(key=lambda item: item[2]["digestEndTime"])
    hashes = {digest.object_key: hashlib.sha256(content).hexdigest() for digest, content, _ in parsed}
    begun: set[str] = set()
    for digest, content, fields in parsed:
        report.digests += 1
        _check_signature(report, digest, content, fields, public_keys or {})
        previous, chain = fields.get("previousDigestS3Object"), _chain_of(digest.object_key)
        is_first = chain not in begun  # the one before it was made before the time that is looked at
        begun.add(chain)
        if previous is not None and not is_first:
            if previous not in hashes:
                report.problems.append(f"{_name(str(previous))}: the digest is missing")
            elif hashes[previous] != fields.get("previousDigestHashValue"):
                report.problems.append(f"{_name(str(previous))}: the digest was changed")
        for entry in fields.get("logFiles") or ():
            _check_log_file(report, entry, load)
    return report


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
        report.problems.append(f"{name}: the digest belongs to another place")
        return
    public_key = public_keys.get(str(fields.get("digestPublicKeyFingerprint")))
    signed = "\n".join(
        (
            fields["digestEndTime"],
            f"{digest.bucket}/{digest.object_key}",
            hashlib.sha256(content).hexdigest(),
            str(fields.get("previousDigestSignature") or "null"),
        )
    )
    try:
        if public_key is None:
            raise AuthenticationError("unknown public key")
        verify_rsa_pkcs1_sha256(public_key, signed.encode(), bytes.fromhex(digest.signature))
    except (AuthenticationError, ValueError):
        report.problems.append(f"{name}: the signature is not CloudTrail's")
        return
    report.signatures += 1


def _check_log_file(report: DigestReport, entry: Any, load: Callable[[str, str], bytes | None]) -> None:
    try:
        bucket, object_key, expected = str(entry["s3Bucket"]), str(entry["s3Object"]), str(entry["hashValue"])
    except (KeyError, TypeError):
        report.problems.append("a digest names a log file without its hash")
        return
    content = load(bucket, object_key)
    if content is None:
        report.problems.append(f"{_name(object_key)}: the log file is missing")
        return
    try:
        found = hashlib.sha256(inflated(content)).hexdigest()
    except _READ_ERRORS:
        found = ""
    if found != expected:
        report.problems.append(f"{_name(object_key)}: the log file was changed")
        return
    report.log_files += 1


def verify_folder(path: str | Path) -> DigestReport | None:
    """Check the digests below a folder of copies; None if it holds none."""
    files = {file.name: file for file in Path(path).rglob("*.json*") if file.is_file()}
    digests = [
        DigestFile("", file.name, file.read_bytes(), None)
        for file in files.values()
        if "CloudTrail-Digest" in str(file)
    ]
    if not digests:
        return None

    def load(bucket: str, object_key: str) -> bytes | None:
        file = files.get(_name(object_key))
        return None if file is None else file.read_bytes()

    named = [digest._replace(object_key=_key_in(digest)) for digest in digests]
    return verify_digests(named, load)


def verify_bucket(
    s3_client: Any,
    location: str,
    cloudtrail_client: Any,
    *,
    since_ns: int | None = None,
    until_ns: int | None = None,
) -> DigestReport | None:
    """Check the digests under ``s3://bucket/prefix`` with CloudTrail's public keys; None if there are none.

    Days outside the time are not fetched. The prefix must hold both ``CloudTrail`` and
    ``CloudTrail-Digest``, as ``AWSLogs/<account>`` does.
    """
    bucket, prefix = split_location(location)
    pages = s3_client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [
        entry["Key"]
        for page in pages
        for entry in page.get("Contents", ())
        if "CloudTrail-Digest" in entry["Key"] and day_is_wanted(entry["Key"], since_ns, until_ns)
    ]
    if not keys:
        return None
    digests = []
    for object_key in keys:
        answer = s3_client.get_object(Bucket=bucket, Key=object_key)
        signature = answer.get("Metadata", {}).get("signature", "missing")
        digests.append(DigestFile(bucket, object_key, answer["Body"].read(), signature))
    public_keys = {
        entry["Fingerprint"]: entry["Value"]
        for entry in cloudtrail_client.list_public_keys(StartTime=_KEYS_SINCE).get("PublicKeyList", ())
    }

    def load(bucket_name: str, object_key: str) -> bytes | None:
        from botocore.exceptions import ClientError

        try:
            content: bytes = s3_client.get_object(Bucket=bucket_name, Key=object_key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise ConfigurationError(f"a log file cannot be fetched: {error.response['Error']['Code']}") from None
        return content

    return verify_digests(digests, load, public_keys)


def _key_in(digest: DigestFile) -> str:
    try:
        return str(json.loads(inflated(digest.content))["digestS3Object"])
    except _READ_ERRORS:
        return digest.object_key


def _chain_of(object_key: str) -> str:
    """What all digests of one chain have in common: account, Region and trail.

    ``AWSLogs/<account>/CloudTrail-Digest/<region>/2026/01/31/<account>_…_<trail>_<region>_<time>.json.gz``
    """
    folder, separator, rest = object_key.partition("CloudTrail-Digest/")
    return f"{folder}{separator}{rest.partition('/')[0]}/{_name(rest).rpartition('_')[0]}"


def _name(object_key: str) -> str:
    return object_key.rpartition("/")[2]
