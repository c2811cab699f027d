"""Multipart uploads that nobody finished: a killed process leaves their parts, which cost storage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple


class IncompleteUpload(NamedTuple):
    """An upload that was begun and neither completed nor aborted.

    Attributes:
        bucket, object_key, upload_id: its names.
        initiated: when it began.
    """

    bucket: str
    object_key: str
    upload_id: str
    initiated: datetime


def incomplete_uploads(s3: Any, bucket: str, prefix: str, *, older_than_seconds: float) -> list[IncompleteUpload]:
    """Uploads under a prefix that began at least so long ago; younger ones may still be running."""
    newest = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
    return [
        IncompleteUpload(bucket, upload["Key"], upload["UploadId"], upload["Initiated"])
        for page in pages
        for upload in page.get("Uploads", ())
        if older_than_seconds <= 0 or upload["Initiated"] <= newest
    ]


def abort_incomplete(s3: Any, uploads: list[IncompleteUpload]) -> int:
    """Abort them; returns how many. One that was finished meanwhile is not counted."""
    from botocore.exceptions import ClientError

    aborted = 0
    for upload in uploads:
        try:
            s3.abort_multipart_upload(Bucket=upload.bucket, Key=upload.object_key, UploadId=upload.upload_id)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "NoSuchUpload":
                raise
        else:
            aborted += 1
    return aborted
