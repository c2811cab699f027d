"""The arithmetic of HTTP byte ranges, as S3 answers them; no I/O.

S3 knows one range per request, in three forms (RFC 9110 section 14.1.2)::

    bytes=a-b    bytes a to b, both included; b beyond the end means the end
    bytes=a-     byte a to the end
    bytes=-n     the last n bytes; n beyond the length means all

Anything else (several ranges, another unit, b before a, no number at all) is not an error: S3
ignores the header and answers with the whole object. A well-formed range that holds no byte of the
object (a at or beyond the end, n of zero) is answered with 416. One case has no bytes and no error:
the last n bytes of an empty object are the whole of it, with 200.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from phicrypt.errors import FormatError

_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)
_MAX_DIGITS: Final = 19
"""More digits than any offset of S3 has: such text is not a range, and is never made an integer."""


class Span(NamedTuple):
    """Bytes ``start`` to ``end``, the end excluded."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start

    def header(self) -> str:
        """This span as the value of a Range header; it must hold at least one byte."""
        return f"bytes={self.start}-{self.end - 1}"

    def content_range(self, total: int) -> str:
        """This span as the value of a Content-Range header."""
        return f"bytes {self.start}-{self.end - 1}/{total}"

    @classmethod
    def within(cls, total: int, offset_bytes: int, length_bytes: int) -> Span:
        """The part of that many bytes from an offset that ``total`` bytes hold.

        Raises ValueError for a negative number, TypeError for what is no whole number.
        """
        offset, length = operator.index(offset_bytes), operator.index(length_bytes)
        if offset < 0 or length < 0:
            raise ValueError(f"offset_bytes and length_bytes are not negative: {offset}, {length}")
        return cls(min(offset, total), min(offset + length, total))


class RangeRequest(NamedTuple):
    """A well-formed Range header: ``first`` is None for the last-n form, ``last`` for the open form."""

    first: int | None
    last: int | None

    def resolve(self, total: int) -> Span | None:
        """The bytes meant in an object of ``total`` bytes; None where S3 answers 416.

        An empty span is the last n bytes of an empty object, which S3 answers with 200.
        """
        if self.first is None:
            return Span(max(0, total - self.last), total) if self.last else None
        end = total if self.last is None else min(self.last + 1, total)
        return Span(self.first, end) if self.first < end else None

    def refusal(self, total: int) -> Exception:
        """The error that boto3 raises where :meth:`resolve` gives None."""
        from botocore.exceptions import ClientError

        first, last = ("" if number is None else number for number in self)
        response: Any = {
            "Error": {
                "Code": "InvalidRange",
                "Message": "The requested range is not satisfiable",
                "ActualObjectSize": str(total),
                "RangeRequested": f"bytes={first}-{last}",
            },
            "ResponseMetadata": {"HTTPStatusCode": 416, "HTTPHeaders": {}, "RetryAttempts": 0},
        }
        return ClientError(response, "GetObject")


def parse_range(header: str | None) -> RangeRequest | None:
    """The range that a header names; None where there is none, or where S3 would ignore it."""
    # Blanks around a header's value are none of it (RFC 9110 section 5.5).
    match = _RANGE.fullmatch(header.strip(" \t")) if header is not None else None
    if match is None:
        return None
    first, last = match.groups()
    if (not first and not last) or max(len(first), len(last)) > _MAX_DIGITS:
        return None
    request = RangeRequest(int(first) if first else None, int(last) if last else None)
    if request.first is not None and request.last is not None and request.last < request.first:
        return None
    return request


def answered_range(response: Mapping[str, Any]) -> tuple[Span, int]:
    """The span and the total of boto3's answer to a request with a Range.

    FormatError for an answer that tells none; its body is let go.
    """
    match = _CONTENT_RANGE.fullmatch(response.get("ContentRange", ""))
    if match is None:
        response["Body"].close()
        raise FormatError("the server ignored the range", field="Content-Range")
    start, last, total = map(int, match.groups())
    return Span(start, last + 1), total


def body_of_range(response: Mapping[str, Any], span: Span, total: int) -> Any:
    """The body of boto3's answer to a request for ``span`` of ``total`` bytes.

    FormatError for an answer to another question; its body is let go.
    """
    if answered_range(response) != (span, total):
        response["Body"].close()
        raise FormatError("the server answered with another range than was asked", field="Content-Range")
    return response["Body"]
