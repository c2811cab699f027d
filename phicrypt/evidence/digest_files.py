"""The files that digests are about: digests themselves, and the hashes of log files, from folders and buckets.

What is there and cannot be had is an OSError with its reason: one object that cannot be fetched is counted,
and ends nothing.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, cast

from phicrypt.core.strict_json import InflatedStream
from phicrypt.errors import FormatError
from phicrypt.evidence.cloudtrail import MAX_FILE_LENGTH_BYTES

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

MAX_DIGEST_BYTES: Final = 64 * 2**20


class DigestFile(NamedTuple):
    """One digest: where it lies, its file's bytes, and the signature from its metadata."""

    bucket: str
    object_key: str
    content: bytes | OSError
    """The reason, of one that cannot be had."""
    signature: str | None


def hash_of(stream: BinaryIO) -> str:
    """Hex SHA-256 of a file's uncompressed content, empty for one that cannot be read."""
    digest = hashlib.sha256()
    reader = InflatedStream(stream, max_bytes=MAX_FILE_LENGTH_BYTES, field="log file")
    try:
        for chunk in iter(reader.read, b""):
            digest.update(chunk)
    except (FormatError, OSError):
        return ""
    except Exception as error:
        # botocore's errors of a body that was cut off; imported here it would cost every start.
        if type(error).__module__.partition(".")[0] not in ("botocore", "urllib3"):
            raise
        return ""
    return digest.hexdigest()


def hash_of_file(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hash_of(stream)
    except OSError:
        return ""


def fetched(s3_client: S3Client, bucket: str, object_key: str) -> Iterator[BinaryIO]:
    """The object, or none if there is none. Raises OSError, with the reason, where it cannot be had."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield cast("BinaryIO", s3_client.get_object(Bucket=bucket, Key=object_key)["Body"])
    except ClientError as error:
        code = str(error.response["Error"]["Code"])
    except BotoCoreError as error:
        code = type(error).__name__
    else:
        return
    if code not in ("NoSuchKey", "404"):
        raise OSError(errno.EIO, code)


def hash_of_object(s3_client: S3Client, bucket: str, object_key: str) -> str:
    try:
        return next(map(hash_of, fetched(s3_client, bucket, object_key)), "")
    except OSError:
        return ""


def fetched_digest(s3_client: S3Client, bucket: str, object_key: str) -> DigestFile:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = s3_client.get_object(Bucket=bucket, Key=object_key)
        signature = answer.get("Metadata", {}).get("signature", "missing")
        return DigestFile(bucket, object_key, answer["Body"].read(MAX_DIGEST_BYTES), signature)
    except ClientError as error:
        code = str(error.response["Error"]["Code"])
    except (BotoCoreError, OSError) as error:
        code = type(error).__name__
    return DigestFile(bucket, object_key, OSError(errno.EIO, code), None)
