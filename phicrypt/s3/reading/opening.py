"""Opening one stored object: which format it has, its header, and its verified end.

The reader decides which formats are believed (rule 7). Metadata, sizes and instruction files are
hints from whoever can write the bucket: they save requests, and are refused where they turn out wrong.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any, Final

from phicrypt.core.process import ProcessBound
from phicrypt.errors import (
    AuthenticationError,
    FormatError,
    NotEncryptedError,
    PhiCryptError,
    UnsupportedOperationError,
)
from phicrypt.formats.esdk.frames import FramedLayout
from phicrypt.formats.esdk.header import MessageHeader, parse_header
from phicrypt.formats.esdk.opening import MessageOpener
from phicrypt.formats.reader import StreamReader
from phicrypt.formats.s3ec.envelope import (
    INSTRUCTION_SUFFIX,
    MAX_INSTRUCTION_LENGTH_BYTES,
    S3ecEnvelope,
    claims_s3ec,
    needs_instruction_file,
    parse_envelope,
    parse_instruction_file,
)
from phicrypt.messages.stream_uses import StreamUse
from phicrypt.s3.gateway import FIRST_PROBE_BYTES, Gateway, Reading
from phicrypt.s3.reading.frame_spans import final_number, frames_span, layout_of_object, plaintext_span
from phicrypt.s3.reading.plaintext_streams import FrameRun
from phicrypt.s3.reading.ranges import Span
from phicrypt.s3.reading.source import ObjectSource, with_retries
from phicrypt.s3.writing.sealing import (
    ESDK_FORMAT,
    FOOTER_LENGTH_NAME,
    FORMAT_NAME,
    FRAME_LENGTH_NAME,
    HEADER_LENGTH_NAME,
    footer_length_of,
)

HEADER_STEP_BYTES: Final = 1_024
_IDENTIFYING_FIELDS: Final = ("version", "type", "algorithm suite id")


def detect(gateway: Gateway, source: ObjectSource) -> S3ecEnvelope | None:
    """The envelope of an S3 Encryption Client object; None for what must be an ESDK message.

    Raises UnsupportedOperationError for a format that ``read_formats`` does not name, FormatError,
    NotEncryptedError.
    """
    names = gateway.options.read_formats
    metadata = source.metadata
    claims_esdk = FORMAT_NAME in metadata
    if claims_s3ec(metadata):
        if claims_esdk:
            raise FormatError("the metadata claims two formats", field="metadata")
        return _envelope(gateway, source, names)
    if "s3ec-instruction-files" in names and not claims_esdk:
        instruction = _instruction_file(gateway, source)
        if instruction is not None:
            return _accepted(parse_envelope(metadata, instruction), names)
    if "esdk" not in names:
        if claims_esdk:
            raise UnsupportedOperationError("the object is an ESDK message; add 'esdk' to read_formats to read it")
        raise NotEncryptedError("the object's metadata is not that of an encrypting client; it is plaintext")
    if claims_esdk and metadata[FORMAT_NAME] != ESDK_FORMAT:
        raise UnsupportedOperationError("the object claims a format that this version of phicrypt does not know")
    return None


def _envelope(gateway: Gateway, source: ObjectSource, names: frozenset[str]) -> S3ecEnvelope:
    if not names & {"s3ec-v3", "s3ec-v2"}:
        raise UnsupportedOperationError(
            "the object claims to be one of the S3 Encryption Client, which read_formats does not name; the "
            "bucket may have been tampered with. Add 's3ec-v3' or 's3ec-v2' to read_formats to accept such objects"
        )
    instruction = None
    if needs_instruction_file(source.metadata):
        if "s3ec-instruction-files" not in names:
            raise UnsupportedOperationError(
                "the object's wrapped data key stands in an instruction file; add 's3ec-instruction-files' to "
                "read_formats to accept such files"
            )
        instruction = _instruction_file(gateway, source)
    return _accepted(parse_envelope(source.metadata, instruction), names)


def _accepted(envelope: S3ecEnvelope, names: frozenset[str]) -> S3ecEnvelope:
    name = f"s3ec-v{envelope.version}"
    if name not in names:
        raise UnsupportedOperationError(
            f"the object has version {envelope.version} of the S3 Encryption Client's format; add {name!r} to "
            "read_formats to accept it"
        )
    return envelope


def _instruction_file(gateway: Gateway, source: ObjectSource) -> dict[str, str] | None:
    from botocore.exceptions import ClientError

    try:
        response = gateway.s3.get_object(**source.beside(INSTRUCTION_SUFFIX))
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "NoSuchKey":
            return None
        raise
    body = response["Body"].read(MAX_INSTRUCTION_LENGTH_BYTES + 1)
    response["Body"].close()
    return parse_instruction_file(body)


def read_header(gateway: Gateway, source: ObjectSource, reader: StreamReader) -> MessageHeader:
    """The header at the start of a stored object, checked against the metadata's hints.

    Raises NotEncryptedError where the bytes are no message and nothing claims that they are one,
    AuthenticationError where the metadata lies about the message.
    """
    try:
        header = parse_header(reader, gateway.options.limits)
    except FormatError as error:
        if FORMAT_NAME not in source.metadata and error.field in _IDENTIFYING_FIELDS:
            raise NotEncryptedError(
                "the object does not begin like an encrypted message; it is plaintext"
            ) from None
        raise
    hints = {
        HEADER_LENGTH_NAME: header.length_bytes,
        FRAME_LENGTH_NAME: header.frame_length_bytes,
        FOOTER_LENGTH_NAME: footer_length_of(header.suite),
    }
    for name, value in hints.items():
        if source.metadata.get(name, str(value)) != str(value):
            raise AuthenticationError("metadata lengths")
    gateway.saw_header(source.bucket, header)
    return header


def hinted_length(metadata: Mapping[str, str], name: str, bound: int) -> int | None:
    """A length that the metadata claims, if it is a plausible number."""
    text = metadata.get(name, "")
    if text.isascii() and text.isdigit() and len(text) <= 10 and 0 < int(text) <= bound:
        return int(text)
    return None


class HeaderProbe:
    """A source for :class:`StreamReader` that fetches a header in as few exact ranges as it can.

    The first request asks for a header's usual length; its answer carries the metadata, whose hint
    bounds the second one. Where the hints are missing or wrong, doubling steps follow.
    """

    def __init__(self, gateway: Gateway, source: ObjectSource, first_bytes: int = FIRST_PROBE_BYTES) -> None:
        self._gateway = gateway
        self._source = source
        self._held: bytes = source.get_first(Span(0, first_bytes)).read()
        self._position = 0

    def read(self, size: int = -1, /) -> bytes:
        if not self._held:
            start = self._position
            hint = hinted_length(
                self._source.metadata, HEADER_LENGTH_NAME, self._gateway.options.limits.max_header_length_bytes
            )
            end = hint if hint is not None and start < hint else start + max(start, HEADER_STEP_BYTES)
            end = min(end, self._source.stored_length_bytes)
            if start < end:
                self._held = with_retries(lambda: self._source.get(Span(start, end)).read())
        piece, self._held = (self._held, b"") if size < 0 else (self._held[:size], self._held[size:])
        self._position += len(piece)
        return piece


class OpenedMessage(ProcessBound):
    """An ESDK object whose header was authenticated.

    Attributes:
        source: requests for its bytes.
        header: its parsed header.
        opener: the key of its frames.
        use: the audited use, which whoever reads the plaintext counts and ends.
    """

    def __init__(
        self,
        source: ObjectSource,
        opener: MessageOpener,
        use: StreamUse,
    ) -> None:
        super().__init__()
        self.source = source
        self.header = opener.header
        self.opener = opener
        self.use = use
        self._final: bytes | None = None
        self._layout: FramedLayout | None = None

    def __repr__(self) -> str:
        return f"<OpenedMessage {self.header.suite.name}>"

    @property
    def layout(self) -> FramedLayout:
        """Its frames; claims until :meth:`final_plaintext` has been verified."""
        if self._layout is None:
            try:
                self._layout = layout_of_object(self.header, self.source.stored_length_bytes)
            except PhiCryptError as error:
                self.use.end(error)
                raise
        return self._layout

    def final_plaintext(self) -> bytes:
        """The verified plaintext of the final frame: after this the total length is no claim any more."""
        if self._final is None:
            number = final_number(self.layout)
            self._final = self.open_frames(number, number)
        return self._final

    def verified_length(self) -> int:
        """The plaintext length, after the final frame was verified (rule 10)."""
        self.final_plaintext()
        return self.layout.plaintext_length_bytes

    def run(self, first: int, last: int) -> FrameRun:
        """A stream of frames ``first`` to ``last``, one request."""
        stream = self.source.get(frames_span(self.layout, first, last))
        return FrameRun(stream, self.opener.cipher, self.layout, first, last)

    def open_frames(self, first: int, last: int) -> bytes:
        """The verified plaintext of frames ``first`` to ``last``; asks again while connections break."""
        return with_retries(lambda: self._open_frames(first, last))

    def _open_frames(self, first: int, last: int) -> bytes:
        start, end = plaintext_span(self.layout, first).start, plaintext_span(self.layout, last).end
        run = self.run(first, last)
        buffer = io.BytesIO(bytes(end - start))
        position = 0
        try:
            with buffer.getbuffer() as plaintext:
                while run.next_length() >= 0:
                    position += run.open_into(plaintext[position:])
        finally:
            run.close()
        return buffer.getvalue()


def open_by_probe(gateway: Gateway, source: ObjectSource, reading: Reading) -> OpenedMessage | S3ecEnvelope:
    """Open an object by its first bytes only; an envelope where it is an S3 Encryption Client object."""
    probe = HeaderProbe(gateway, source, gateway.probe_length(source.bucket, source.object_key, reading))
    envelope = detect(gateway, source)
    if envelope is not None:
        return envelope
    header = read_header(gateway, source, StreamReader(probe, read_ahead_bytes=HEADER_STEP_BYTES))
    opener, use = gateway.open_message(source.bucket, source.object_key, header, reading)
    return OpenedMessage(source, opener, use)


class _Rejoined:
    """A stream from which a header was read: what was read too far comes first."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._seen = b""
        self._rest: bytes | None = None

    def read(self, size: int = -1, /) -> bytes:
        if self._rest is None:
            piece: bytes = self._stream.read(size)
            self._seen += piece
            return piece
        if self._rest:
            count = len(self._rest) if size < 0 else size
            piece, self._rest = self._rest[:count], self._rest[count:]
            return piece
        rest: bytes = self._stream.read(size)
        return rest

    def behind(self, header: MessageHeader) -> _Rejoined:
        """From here on, the bytes behind the header."""
        self._rest, self._seen = self._seen[header.length_bytes :], b""
        return self

    def close(self) -> None:
        self._stream.close()


def open_whole(gateway: Gateway, source: ObjectSource, stream: Any, reading: Reading) -> tuple[OpenedMessage, Any]:
    """Open an ESDK object from the stream of its whole ciphertext; also the stream behind the header."""
    joined = _Rejoined(stream)
    header = read_header(gateway, source, StreamReader(joined, read_ahead_bytes=HEADER_STEP_BYTES))
    opener, use = gateway.open_message(source.bucket, source.object_key, header, reading)
    return OpenedMessage(source, opener, use), joined.behind(header)


def stream_chunks(stream: Any, chunk_bytes: int) -> Iterator[bytes]:
    """The pieces of a body, as they come."""
    while chunk := stream.read(chunk_bytes):
        yield chunk
