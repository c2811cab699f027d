"""Requests for one object, all pinned to the version that the first one found (rule 10)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from phicrypt.errors import FormatError, NotEncryptedError
from phicrypt.s3.operations import forwarded
from phicrypt.s3.reading.ranges import Span

_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)
_PINNED_PARAMETERS: Final = (
    *("Bucket", "Key", "RequestPayer", "ExpectedBucketOwner"),
    *("SSECustomerAlgorithm", "SSECustomerKey", "SSECustomerKeyMD5"),
)
_FIRST_REQUEST_PARAMETERS: Final = (
    *("Bucket", "Key", "VersionId"),
    *("IfMatch", "IfModifiedSince", "IfNoneMatch", "IfUnmodifiedSince"),
)
MAX_ATTEMPTS: Final = 5
"""How often a range is asked for when the connection breaks while it is read, as boto3 does."""

T = TypeVar("T")


class ObjectSource:
    """One stored object: the first request finds it, later ones are held to the same bytes.

    Attributes:
        bucket, object_key: where it is.
        response: the first answer, as botocore gave it.
        metadata: its user metadata, names in lower case; hints that nobody authenticated.
        stored_length_bytes: length of the stored object.
    """

    def __init__(self, s3: Any, parameters: Mapping[str, Any]) -> None:
        self._s3 = s3
        self._parameters = parameters
        self.bucket: str = parameters["Bucket"]
        self.object_key: str = parameters["Key"]
        self.response: dict[str, Any] = {}
        self.metadata: dict[str, str] = {}
        self.stored_length_bytes = 0
        self._pins: dict[str, Any] = {}

    def get_first(self, span: Span | None = None) -> Any:
        """The first request; its body stream. Conditions of the caller apply to it.

        Raises botocore's ClientError as it is, NotEncryptedError for an empty object.
        """
        from botocore.exceptions import ClientError

        first = {name: self._parameters[name] for name in _FIRST_REQUEST_PARAMETERS if name in self._parameters}
        first |= forwarded("get_object", self._parameters)
        if span is None:
            response = self._s3.get_object(**first)
            self._keep(response, response["ContentLength"])
            return response["Body"]
        # S3 sends checksums of whole objects only, and would check nothing here.
        first.pop("ChecksumMode", None)
        try:
            response = self._s3.get_object(**first, Range=span.header())
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 416:
                raise NotEncryptedError(
                    "the object is empty; an encrypted object holds a header at least"
                ) from None
            raise
        start, _, total = _content_range_or_close(response)
        if start != 0:
            response["Body"].close()
            raise FormatError("the server answered with another range than was asked", field="Content-Range")
        self._keep(response, total)
        return response["Body"]

    def head_first(self) -> None:
        """The first request, without a body."""
        first = {name: self._parameters[name] for name in _FIRST_REQUEST_PARAMETERS if name in self._parameters}
        first |= forwarded("head_object", self._parameters)
        response = self._s3.head_object(**first)
        self._keep(response, response["ContentLength"])

    def get(self, span: Span | None) -> Any:
        """A later request for a span (or all) of the same bytes; its body stream.

        Raises ClientError (PreconditionFailed) if the object was replaced in between, FormatError
        for an answer to another question.
        """
        parameters = {name: self._parameters[name] for name in _PINNED_PARAMETERS if name in self._parameters}
        if span is None:
            response = self._s3.get_object(**parameters, **self._pins)
            found = (0, response["ContentLength"], response["ContentLength"])
        else:
            response = self._s3.get_object(**parameters, **self._pins, Range=span.header())
            found = _content_range_or_close(response)
        wanted = span or Span(0, self.stored_length_bytes)
        if found != (wanted.start, wanted.end, self.stored_length_bytes):
            response["Body"].close()
            raise FormatError("the server answered with another range than was asked", field="Content-Range")
        return response["Body"]

    def beside(self, suffix: str) -> dict[str, Any]:
        """Parameters of a request for the object whose name has a suffix more."""
        parameters = {name: self._parameters[name] for name in _PINNED_PARAMETERS if name in self._parameters}
        return {**parameters, "Key": self.object_key + suffix}

    def _keep(self, response: dict[str, Any], stored_length_bytes: int) -> None:
        self.response = response
        self.metadata = {name.lower(): value for name, value in response.get("Metadata", {}).items()}
        self.stored_length_bytes = stored_length_bytes
        self._pins = {"IfMatch": response["ETag"]}
        # Of what has no versions a server may tell "null"; a caller's "null" is the object from before versioning.
        told = response.get("VersionId")
        version_id = self._parameters.get("VersionId") or (None if told == "null" else told)
        if version_id is not None:
            self._pins["VersionId"] = version_id


def _content_range_or_close(response: Mapping[str, Any]) -> tuple[int, int, int]:
    """Start, excluded end and total of a 206 answer; FormatError for any other answer, which is let go."""
    match = _CONTENT_RANGE.fullmatch(response.get("ContentRange", ""))
    if match is None:
        response["Body"].close()
        raise FormatError("the server ignored the range", field="Content-Range")
    start, last, total = map(int, match.groups())
    return start, last + 1, total


def with_retries(attempt: Callable[[], T]) -> T:
    """Call ``attempt`` again while connections break under it; never after bytes failed to verify.

    The connection's timeouts are botocore's errors; a TimeoutError is the caller's own (an alarm).
    """
    from botocore.exceptions import HTTPClientError, IncompleteReadError, ResponseStreamingError

    for _ in range(MAX_ATTEMPTS - 1):
        try:
            return attempt()
        except (HTTPClientError, IncompleteReadError, ResponseStreamingError, ConnectionError):
            continue
    return attempt()
