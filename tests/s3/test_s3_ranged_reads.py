"""Ranged reads: the same answers as plain S3 on the plaintext, in few bytes, all of them authenticated.

``PHICRYPT_RANGE_CASES`` sets how many random ranges are read (1,000 for acceptance).
"""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from support.s3_support import WatchedS3, flip

from phicrypt.core.byte_ranges import parse_range
from phicrypt.errors import (
    AuthenticationError,
    FormatError,
    NotEncryptedError,
    PhiCryptError,
    UnsupportedOperationError,
)
from phicrypt.formats.esdk.frames import FramedLayout, layout_of_body
from phicrypt.s3.client import S3Client

CASES = int(os.environ.get("PHICRYPT_RANGE_CASES", "60"))
FRAME = 128 * 1024
SIZES = [0, 1, FRAME - 1, FRAME, FRAME + 1, 64 * 1024**2]


def random_range(generator: random.Random, total: int) -> str:
    """A header of one of S3's forms, often near the borders of frames and of the object."""
    borders = [0, 1, FRAME - 1, FRAME, FRAME + 1, max(total - 1, 0), total, total + 1]

    def number() -> int:
        return generator.choice([generator.choice(borders), generator.randrange(total + 2)])

    first, last = number(), number()
    short = first + generator.randrange(3_000)
    forms = (f"{first}-{last}", f"{first}-{short}", f"{first}-", f"-{last}")
    weights = (1, 6, 1, 1) if total > 10 * FRAME else (2, 2, 1, 1)
    return "bytes=" + generator.choices(forms, weights)[0]


def ask(client: Any, bucket: str, name: str, header: str) -> tuple[int, str | None, int | None, bytes]:
    """(status, ContentRange, ContentLength, body) of a ranged read, errors included."""
    try:
        response = client.get_object(Bucket=bucket, Key=name, Range=header)
    except ClientError as error:
        assert error.response["Error"]["Code"] == "InvalidRange"
        return error.response["ResponseMetadata"]["HTTPStatusCode"], None, None, b""
    body = response["Body"].read()
    status = response["ResponseMetadata"]["HTTPStatusCode"]
    return status, response.get("ContentRange"), response["ContentLength"], body


def layout_of(raw: Any, bucket: str, name: str) -> FramedLayout:
    head = raw.head_object(Bucket=bucket, Key=name)
    header_length = int(head["Metadata"]["phicrypt-header-length"])
    return layout_of_body(head["ContentLength"] - header_length, FRAME, header_length)


@pytest.mark.parametrize("size", SIZES)
def test_random_ranges_answer_like_plain_s3(
    client_of: Callable[..., S3Client], raw: Any, bucket: str, size: int
) -> None:
    generator = random.Random(size)
    data = generator.randbytes(size)
    watched = WatchedS3(raw)
    s3 = client_of(raw=watched)
    s3.put_object(Bucket=bucket, Key="sealed", Body=data)
    raw.put_object(Bucket=bucket, Key="plain", Body=data)
    layout = layout_of(raw, bucket, "sealed")
    for case in range(CASES // len(SIZES) + 1):
        header = random_range(generator, size)
        watched.reset()
        answer = ask(s3, bucket, "sealed", header)
        assert_few_bytes(watched, layout, header)
        assert answer == expected_answer(header, data), header
        if (size < 1024**2 or case < 10) and not is_inverted_beyond_the_end(header, size):
            assert answer == ask(raw, bucket, "plain", header), header


def is_inverted_beyond_the_end(header: str, total: int) -> bool:
    """``bytes=9-3`` of five bytes is no valid range, so HTTP ignores it; moto answers with 416."""
    first, _, last = header.removeprefix("bytes=").partition("-")
    return bool(first and last) and int(last) < int(first) and int(first) >= total


def expected_answer(header: str, data: bytes) -> tuple[int, str | None, int | None, bytes]:
    request = parse_range(header)
    if request is None:
        return 200, None, len(data), data
    span = request.resolve(len(data))
    if span is None:
        return 416, None, None, b""
    if not span.length:
        return 200, None, 0, b""
    return 206, f"bytes {span.start}-{span.end - 1}/{len(data)}", span.length, data[span.start : span.end]


def assert_few_bytes(watched: WatchedS3, layout: FramedLayout, header: str) -> None:
    """At most header, touched frames and final frame were fetched; nothing twice."""
    request = parse_range(header)
    final = layout.final_number
    wanted = {final}
    if request is None:
        wanted = set(range(1, final + 1))
    elif (span := request.resolve(layout.plaintext_length_bytes)) is not None and span.length:
        first, last = layout.frames_of(span)
        wanted |= set(range(first, last + 1))
    bound = layout.header_length_bytes + sum(layout.frames_span(number, number).length for number in wanted)
    assert watched.body_bytes <= bound, header


def test_few_bytes_are_fetched_where_headers_differ_in_length(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    data = bytes(3 * FRAME)
    watched = WatchedS3(raw)
    client, signing = client_of(raw=watched), client_of(signed=True)
    long = {"EncryptionContext": {"study": "s" * 200}}
    signing.put_object(Bucket=bucket, Key="signed", Body=data)
    client.put_object(Bucket=bucket, Key="long", Body=data, **long)
    client.put_object(Bucket=bucket, Key="short", Body=data)
    client.get_object(Bucket=bucket, Key="signed")["Body"].read()
    for name, extra in (("long", long), ("short", {}), ("long", long), ("long", {}), ("short", {})):
        watched.reset()
        client.get_object(Bucket=bucket, Key=name, Range="bytes=200000-200009", **extra)["Body"].read()
        assert_few_bytes(watched, layout_of(raw, bucket, name), "bytes=200000-200009")
    assert len(watched.calls) == 3, "a header of a length that was seen before is one request"


def test_a_range_of_a_foreign_message_needs_no_metadata(s3: S3Client, raw: Any, bucket: str) -> None:
    data = bytes(range(256)) * 2_000
    s3.put_object(Bucket=bucket, Key="k", Body=data)
    body = raw.get_object(Bucket=bucket, Key="k")["Body"].read()
    raw.put_object(Bucket=bucket, Key="k", Body=body)
    assert ask(s3, bucket, "k", "bytes=200000-200009")[3] == data[200_000:200_010]
    assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == len(data)


def test_every_changed_byte_in_the_fetched_frames_is_refused(
    s3: S3Client, raw: Any, bucket: str, client_of: Callable[..., S3Client]
) -> None:
    small = client_of(frame_length_bytes=64, part_size_bytes=5 * 1024**2)
    data = random.Random(1).randbytes(64 * 5 + 10)
    small.put_object(Bucket=bucket, Key="k", Body=data)
    stored = raw.get_object(Bucket=bucket, Key="k")
    body, metadata = stored["Body"].read(), stored["Metadata"]
    header_length = int(metadata["phicrypt-header-length"])
    layout = layout_of_body(len(body) - header_length, 64, header_length)
    touched = layout.frames_span(2, 3)
    final = layout.frames_span(layout.final_number, layout.final_number)
    indices = [*range(0, header_length, 7), *range(touched.start, touched.end), *range(final.start, final.end)]
    for index in indices:
        raw.put_object(Bucket=bucket, Key="k", Body=flip(body, index), Metadata=metadata)
        with pytest.raises(PhiCryptError):
            ask(small, bucket, "k", "bytes=70-180")
    untouched = layout.frames_span(5, 5)
    raw.put_object(Bucket=bucket, Key="k", Body=flip(body, untouched.start + 20), Metadata=metadata)
    assert ask(small, bucket, "k", "bytes=70-180")[3] == data[70:181]


@pytest.mark.parametrize(
    "header", ["bytes=0-9", "bytes=0-", "bytes=-1", "bytes=999999999-", "bytes=0-0,5-6", None]
)
def test_rule_10_an_object_cut_at_a_frame_boundary_is_refused(
    s3: S3Client, raw: Any, bucket: str, header: str | None
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"d" * (5 * FRAME))
    stored = raw.get_object(Bucket=bucket, Key="k")
    body, metadata = stored["Body"].read(), stored["Metadata"]
    layout = layout_of(raw, bucket, "k")
    for frames in range(5):
        cut = body[: layout.frame_offset(frames + 1)]
        raw.put_object(Bucket=bucket, Key="k", Body=cut, Metadata=metadata)
        extra = {} if header is None else {"Range": header}
        with pytest.raises((FormatError, AuthenticationError)):
            s3.get_object(Bucket=bucket, Key="k", **extra)["Body"].read()


@pytest.mark.parametrize("header", ["bytes=0-9", "bytes=-1", "bytes=999999999-", "bytes=100-200"])
def test_rule_10_an_object_cut_to_a_plausible_length_is_refused(
    client_of: Callable[..., S3Client], raw: Any, bucket: str, header: str
) -> None:
    """Any length in a residue class of the frame is plausible; only the final frame's tag tells."""
    small = client_of(frame_length_bytes=64)
    small.put_object(Bucket=bucket, Key="k", Body=b"d" * 1000)
    stored = raw.get_object(Bucket=bucket, Key="k")
    body, metadata = stored["Body"].read(), stored["Metadata"]
    header_length = int(metadata["phicrypt-header-length"])
    for cut in range(header_length + 40, len(body) - 1, 13):
        raw.put_object(Bucket=bucket, Key="k", Body=body[:cut], Metadata=metadata)
        with pytest.raises((FormatError, AuthenticationError)):
            ask(small, bucket, "k", header)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("phicrypt-header-length", "344"),
        ("phicrypt-header-length", "1"),
        ("phicrypt-frame-length", "64"),
        ("phicrypt-footer-length", "105"),
        ("phicrypt-format", "esdk-9"),
        ("x-amz-3", "AAAA"),
    ],
)
def test_metadata_that_lies_is_refused(s3: S3Client, raw: Any, bucket: str, name: str, value: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"d" * 1000)
    stored = raw.get_object(Bucket=bucket, Key="k")
    metadata = {**stored["Metadata"], name: value}
    raw.put_object(Bucket=bucket, Key="k", Body=stored["Body"].read(), Metadata=metadata)
    for extra in ({}, {"Range": "bytes=1-2"}, {"Range": "bytes=-1"}):
        with pytest.raises((AuthenticationError, FormatError, UnsupportedOperationError)):
            s3.get_object(Bucket=bucket, Key="k", **extra)["Body"].read()


def test_metadata_that_lies_about_a_signature_is_refused(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    signed = client_of(signed=True)
    signed.put_object(Bucket=bucket, Key="k", Body=b"d" * 1000)
    stored = raw.get_object(Bucket=bucket, Key="k")
    metadata = {**stored["Metadata"], "phicrypt-footer-length": "7"}
    raw.put_object(Bucket=bucket, Key="k", Body=stored["Body"].read(), Metadata=metadata)
    with pytest.raises(AuthenticationError):
        signed.get_object(Bucket=bucket, Key="k")
    with pytest.raises(AuthenticationError):
        signed.download_fileobj(bucket, "k", io.BytesIO())


def test_rule_10_requests_of_one_read_are_pinned(
    client_of: Callable[..., S3Client], raw: Any, bucket: str
) -> None:
    plain = client_of()
    plain.put_object(Bucket=bucket, Key="k", Body=b"a" * 300_000)

    def replace_after_probe(operation: str, parameters: dict[str, Any]) -> None:
        if operation == "get_object" and parameters.get("IfMatch") is not None and not replaced:
            replaced.append(True)
            plain.put_object(Bucket=bucket, Key="k", Body=b"b" * 300_000)

    replaced: list[bool] = []
    s3 = client_of(raw=WatchedS3(raw, replace_after_probe))
    with pytest.raises(ClientError) as failure:
        s3.get_object(Bucket=bucket, Key="k", Range="bytes=0-200000")
    assert failure.value.response["Error"]["Code"] == "PreconditionFailed"


def test_rule_10_lengths_of_head_are_marked_unverified(s3: S3Client, raw: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"d" * 1000)
    assert s3.head_object(Bucket=bucket, Key="k")["PhiCrypt"] == {
        "Format": "esdk",
        "StoredLength": raw.head_object(Bucket=bucket, Key="k")["ContentLength"],
        "LengthVerified": False,
    }
    assert s3.get_object(Bucket=bucket, Key="k", Range="bytes=0-0")["PhiCrypt"]["LengthVerified"] is True


def test_an_empty_stored_object_is_not_encrypted(s3: S3Client, raw: Any, bucket: str) -> None:
    raw.put_object(Bucket=bucket, Key="k", Body=b"")
    for extra in ({}, {"Range": "bytes=0-0"}):
        with pytest.raises(NotEncryptedError):
            s3.get_object(Bucket=bucket, Key="k", **extra)
