"""Uploads that nobody finished: a killed process leaves their parts, which cost storage and hold ciphertext."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from phicrypt.errors import ConfigurationError

DEFAULT_AGE_SECONDS: Final = 24 * 60 * 60
"""Uploads younger than this may still be running."""


class IncompleteUpload(NamedTuple):
    """An upload that was begun and neither completed nor aborted. Its ``repr`` shows no object key.

    Attributes:
        bucket, object_key, upload_id: its names.
        initiated: when it began.
    """

    bucket: str
    object_key: str
    upload_id: str
    initiated: datetime

    def __repr__(self) -> str:
        return f"<IncompleteUpload into {self.bucket}, begun {self.initiated.isoformat()}>"


def incomplete_uploads(s3: Any, bucket: str, prefix: str, *, older_than_seconds: float) -> list[IncompleteUpload]:
    """Uploads under a prefix that began at least so long ago; younger ones may still be running."""
    if not older_than_seconds >= 0:
        raise ConfigurationError(f"older_than_seconds is 0 or more, {older_than_seconds} came")
    newest = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
    return [
        IncompleteUpload(bucket, upload["Key"], upload["UploadId"], upload["Initiated"])
        for page in pages
        for upload in page.get("Uploads", ())
        if older_than_seconds == 0 or upload["Initiated"] <= newest
    ]


def aborted_uploads(s3: Any, uploads: Sequence[IncompleteUpload]) -> list[IncompleteUpload]:
    """Abort uploads; those that were there to be aborted. One that was finished meanwhile is left out."""
    from botocore.exceptions import ClientError

    aborted = []
    for upload in uploads:
        try:
            s3.abort_multipart_upload(Bucket=upload.bucket, Key=upload.object_key, UploadId=upload.upload_id)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "NoSuchUpload":
                raise
        else:
            aborted.append(upload)
    return aborted
