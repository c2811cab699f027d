"""``get_object`` and ``head_object``: boto3's responses in plaintext terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any, Final, cast

from phicrypt.errors import AuthenticationError, FormatError, NotEncryptedError, PhiCryptError
from phicrypt.formats.esdk.frames import FramedLayout, layout_of_body
from phicrypt.formats.esdk.header import MessageHeader
from phicrypt.formats.reader import StreamReader
from phicrypt.formats.s3ec.content import open_content, plaintext_length_of
from phicrypt.formats.s3ec.envelope import S3EC_METADATA_NAMES, S3ecEnvelope
from phicrypt.s3.gateway import Gateway, Reading
from phicrypt.s3.reading.frame_spans import final_number, frames_of, plaintext_span
from phicrypt.s3.reading.opening import (
    HeaderProbe,
    OpenedMessage,
    detect,
    hinted_length,
    open_by_probe,
    open_whole,
    read_header,
    stream_chunks,
)
from phicrypt.s3.reading.plaintext_streams import FrameRun, FramesStream, PiecesStream, PlaintextStream
from phicrypt.s3.reading.ranges import RangeRequest, Span, parse_range
from phicrypt.s3.reading.source import ObjectSource
from phicrypt.s3.writing.sealing import (
    ESDK_FORMAT,
    FOOTER_LENGTH_NAME,
    FORMAT_NAME,
    FRAME_LENGTH_NAME,
    HEADER_LENGTH_NAME,
    METADATA_PREFIX,
    footer_length_of,
)

_CHUNK_BYTES: Final = 256 * 1024
_NON_FRAMED_OVERHEAD_BYTES: Final = 12 + 8 + 16
DETAILS: Final = "PhiCrypt"
"""The member that phicrypt adds to responses: format, stored length, whether the length is verified."""


def get_object(gateway: Gateway, parameters: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    """The response of GetObject with the plaintext, whole or the range that ``Range`` names."""
    source = ObjectSource(gateway.s3, parameters)
    request = parse_range(parameters.get("Range"))
    if request is None:
        return _get_whole(gateway, source, reading)
    found = open_by_probe(gateway, source, reading)
    if isinstance(found, S3ecEnvelope):
        return _get_s3ec_range(gateway, source, found, reading, request)
    return _get_range(gateway, found, request)


def _get_whole(gateway: Gateway, source: ObjectSource, reading: Reading) -> dict[str, Any]:
    stream = source.get_first()
    try:
        envelope = detect(gateway, source)
        if envelope is not None:
            body, _, length = open_s3ec(gateway, source, envelope, reading, stream)
            return _response(source, body, length, f"s3ec-v{envelope.version}")
        message, rest = open_whole(gateway, source, stream, reading)
        plaintext, length = whole_stream(gateway, message, rest)
    except BaseException:
        stream.close()
        raise
    return _response(source, plaintext, length, "esdk")


def whole_stream(gateway: Gateway, message: OpenedMessage, rest: Any) -> tuple[PlaintextStream, int]:
    """The plaintext of a whole ESDK object from the stream behind its header, and its claimed length."""
    header = message.header
    if header.is_framed and not header.suite.is_signed:
        layout = message.layout
        length = layout.plaintext_length_bytes
        run = FrameRun(rest, message.opener.cipher, layout, 1, final_number(layout))
        return FramesStream(run, message.use, skip=0, length=length), length
    try:
        length = _claimed_by_header(header, message.source.stored_length_bytes)
    except PhiCryptError as error:
        message.use.end(error)
        raise
    limits = gateway.options.limits
    spool = gateway.new_spool()
    reader = StreamReader(rest)
    pieces = message.opener.pieces(reader, spool, limits)

    def close() -> None:
        spool.close()
        rest.close()

    return PiecesStream(pieces, message.use, length=length, close=close), length


def _get_range(gateway: Gateway, message: OpenedMessage, request: RangeRequest) -> dict[str, Any]:
    """A range of an unsigned message. ContentRange names the total, so the final frame comes first."""
    layout = message.layout
    try:
        final = message.final_plaintext()
        span = request.resolve(layout.plaintext_length_bytes)
        if span is None:
            raise _invalid_range(layout.plaintext_length_bytes, request)
        body = _range_stream(message, layout, span, final)
    except BaseException as error:
        message.use.end(error)
        raise
    response = _response(message.source, body, span.length, "esdk")
    response[DETAILS]["LengthVerified"] = True
    return _as_partial(response, span, layout.plaintext_length_bytes)


def _range_stream(message: OpenedMessage, layout: FramedLayout, span: Span, final: bytes) -> FramesStream:
    first, last = frames_of(layout, span) if span.length else (1, 1)
    final_start = plaintext_span(layout, final_number(layout)).start
    tail = final[max(0, span.start - final_start) : max(0, span.end - final_start)]
    if first == final_number(layout):
        return FramesStream(None, message.use, skip=0, length=span.length, tail=tail)
    run = message.run(first, min(last, final_number(layout) - 1))
    skip = span.start - plaintext_span(layout, first).start
    return FramesStream(run, message.use, skip=skip, length=span.length, tail=tail)


def open_s3ec(
    gateway: Gateway,
    source: ObjectSource,
    envelope: S3ecEnvelope,
    reading: Reading,
    stream: Any,
    request: RangeRequest | None = None,
) -> tuple[PiecesStream, Span, int]:
    """The plaintext of an S3 Encryption Client object, the span of it, and its whole length.

    One tag covers the body, so all of ``stream`` is read and verified before the first byte is given
    out (rule 6): at the first read of the whole object, at once for a range.
    """
    length = plaintext_length_of(source.stored_length_bytes)
    if envelope.claimed_length_bytes not in (None, length):
        raise AuthenticationError("metadata lengths")
    data_key, use = gateway.open_s3ec(source.bucket, source.object_key, envelope, reading)
    spool = gateway.new_spool()

    def close() -> None:
        spool.close()
        stream.close()

    def verified() -> Iterator[bytes]:
        return open_content(envelope, data_key, stream_chunks(stream, _CHUNK_BYTES), spool)

    def lazily() -> Iterator[bytes]:
        yield from verified()

    if request is None:
        return PiecesStream(lazily(), use, length=length, close=close), Span(0, length), length
    try:
        pieces = verified()
        span = request.resolve(length)
        if span is None:
            raise _invalid_range(length, request)
    except BaseException as error:
        close()
        use.end(error)
        raise
    return PiecesStream(_window(pieces, span), use, length=span.length, close=close), span, length


def _window(pieces: Iterator[bytes], span: Span) -> Iterator[memoryview]:
    """The part of a sequence of pieces that stands in a span."""
    position = 0
    for piece in pieces:
        wanted = memoryview(piece)[max(0, span.start - position) : max(0, span.end - position)]
        position += len(piece)
        if len(wanted):
            yield wanted
        if position >= span.end:
            return


def _get_s3ec_range(
    gateway: Gateway, source: ObjectSource, envelope: S3ecEnvelope, reading: Reading, request: RangeRequest
) -> dict[str, Any]:
    body, span, length = open_s3ec(gateway, source, envelope, reading, source.get(None), request)
    response = _response(source, body, span.length, f"s3ec-v{envelope.version}")
    response[DETAILS]["LengthVerified"] = True
    return _as_partial(response, span, length)


def _response(source: ObjectSource, body: PlaintextStream, length: int, format_name: str) -> dict[str, Any]:
    from botocore.response import StreamingBody

    response = _translated(source, length, format_name)
    response["Body"] = StreamingBody(cast("IO[bytes]", body), length)
    return response


def _translated(source: ObjectSource, length: int, format_name: str) -> dict[str, Any]:
    """A response in plaintext terms: lengths, and the metadata without what the formats wrote."""
    response = {name: value for name, value in source.response.items() if name != "ContentRange"}
    metadata = response["ResponseMetadata"] = dict(source.response["ResponseMetadata"])
    headers = metadata["HTTPHeaders"] = dict(metadata.get("HTTPHeaders", {}))
    headers.pop("content-range", None)
    headers["content-length"] = str(length)
    metadata["HTTPStatusCode"] = 200
    response["ContentLength"] = length
    response["Metadata"] = {
        name: value
        for name, value in source.response.get("Metadata", {}).items()
        if not name.lower().startswith(METADATA_PREFIX) and name.lower() not in S3EC_METADATA_NAMES
    }
    response[DETAILS] = {
        "Format": format_name,
        "StoredLength": source.stored_length_bytes,
        "LengthVerified": False,
    }
    return response


def _as_partial(response: dict[str, Any], span: Span, total: int) -> dict[str, Any]:
    if not span.length:
        return response  # the last bytes of an empty object: all of it, as S3 says
    response["ContentRange"] = span.content_range(total)
    response["ResponseMetadata"]["HTTPStatusCode"] = 206
    response["ResponseMetadata"]["HTTPHeaders"]["content-range"] = response["ContentRange"]
    return response


def _invalid_range(total: int, request: RangeRequest) -> Exception:
    """The error that boto3 raises for a range outside the object, about the plaintext's length."""
    from botocore.exceptions import ClientError

    asked = (
        f"bytes={'' if request.first is None else request.first}-{'' if request.last is None else request.last}"
    )
    response: Any = {
        "Error": {
            "Code": "InvalidRange",
            "Message": "The requested range is not satisfiable",
            "ActualObjectSize": str(total),
            "RangeRequested": asked,
        },
        "ResponseMetadata": {"HTTPStatusCode": 416, "HTTPHeaders": {}, "RetryAttempts": 0},
    }
    return ClientError(response, "GetObject")


def head_object(gateway: Gateway, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The response of HeadObject with the plaintext length: a claim, marked as unverified (rule 10)."""
    source = ObjectSource(gateway.s3, parameters)
    source.head_first()
    length, format_name = _claimed_length(gateway, source, parameters)
    return _translated(source, length, format_name)


def _claimed_length(gateway: Gateway, source: ObjectSource, parameters: Mapping[str, Any]) -> tuple[int, str]:
    envelope = detect(gateway, source)
    if envelope is not None:
        return plaintext_length_of(source.stored_length_bytes), f"s3ec-v{envelope.version}"
    length = length_by_hints(gateway, source.metadata, source.stored_length_bytes)
    if length is not None:
        return length, "esdk"
    if source.stored_length_bytes == 0:
        raise NotEncryptedError("the object is empty; an encrypted object holds a header at least")
    # No hints: another program's message. Its header says the lengths; no key is needed for that.
    probed = ObjectSource(gateway.s3, parameters)
    reader = StreamReader(HeaderProbe(gateway, probed), read_ahead_bytes=_CHUNK_BYTES)
    header = read_header(gateway, probed, reader)
    return _claimed_by_header(header, probed.stored_length_bytes), "esdk"


def _claimed_by_header(header: MessageHeader, stored_length_bytes: int) -> int:
    """The plaintext length that a header and a stored length make; FormatError where they make none."""
    body_length = stored_length_bytes - header.length_bytes - footer_length_of(header.suite)
    if header.is_framed:
        layout = layout_of_body(body_length, header.frame_length_bytes, header.length_bytes)
        return layout.plaintext_length_bytes
    if body_length < _NON_FRAMED_OVERHEAD_BYTES:
        raise FormatError("the object ends before its authentication tag", field="message body")
    return body_length - _NON_FRAMED_OVERHEAD_BYTES


def length_by_hints(gateway: Gateway, metadata: Mapping[str, str], stored_length_bytes: int) -> int | None:
    """The plaintext length that phicrypt's own metadata claims; None where there is none or it cannot be."""
    limits = gateway.options.limits
    header_length = hinted_length(metadata, HEADER_LENGTH_NAME, limits.max_header_length_bytes)
    frame_length = hinted_length(metadata, FRAME_LENGTH_NAME, limits.max_frame_length_bytes)
    footer_length = hinted_length(metadata, FOOTER_LENGTH_NAME, 1_024) or 0
    if metadata.get(FORMAT_NAME) != ESDK_FORMAT or header_length is None or frame_length is None:
        return None
    try:
        layout = layout_of_body(stored_length_bytes - header_length - footer_length, frame_length, header_length)
    except FormatError:
        return None
    return layout.plaintext_length_bytes
