"""Range arithmetic against a reference that slices lists."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from phicrypt.core.byte_ranges import Span, parse_range


def reference(header: str, data: bytes) -> tuple[int, bytes]:
    """(status, body) as S3 answers, by another road: collect the indices that the header names."""
    match = re.match(r"^bytes=(?:([0-9]+)-([0-9]*)|-([0-9]+))$", header)
    if match is None:
        return 200, data
    first, last, suffix = match.groups()
    if suffix is not None:
        wanted = [index for index in range(len(data)) if len(data) - index <= int(suffix)]
    else:
        if last and int(last) < int(first):
            return 200, data
        stop = int(last) if last else len(data)
        wanted = [index for index in range(len(data)) if int(first) <= index <= stop]
    if suffix is not None and int(suffix) and not data:
        return 200, b""
    if not wanted:
        return 416, b""
    return 206, bytes(data[index] for index in wanted)


def answer(header: str, data: bytes) -> tuple[int, bytes]:
    request = parse_range(header)
    if request is None:
        return 200, data
    span = request.resolve(len(data))
    if span is None:
        return 416, b""
    return 206 if span.length else 200, data[span.start : span.end]


NUMBERS = st.integers(0, 40).map(str)
HEADERS = st.one_of(
    st.builds("bytes={}-{}".format, NUMBERS, NUMBERS),
    st.builds("bytes={}-".format, NUMBERS),
    st.builds("bytes=-{}".format, NUMBERS),
    st.sampled_from(
        ["bytes=-", "bytes=0-1,3-4", "bytes=a-b", "items=0-1", "bytes 0-1", "", "bytes=+1-2", "bytes=٣-٤"]
    ),
)


@given(HEADERS, st.binary(max_size=30))
def test_ranges_answer_like_the_reference(header: str, data: bytes) -> None:
    assert answer(header, data) == reference(header, data)


def test_headers_are_in_plaintext_terms() -> None:
    assert Span(2, 5).header() == "bytes=2-4"
    assert Span(2, 5).content_range(10) == "bytes 2-4/10"


def test_blanks_around_a_header_are_none_of_it() -> None:
    assert parse_range(" bytes=0-1\t") == parse_range("bytes=0-1") == (0, 1)
    assert parse_range("bytes=0 -1") is None


def test_absurdly_long_numbers_are_no_range() -> None:
    assert parse_range("bytes=0-" + "9" * 5000) is None
    assert parse_range(None) is None
