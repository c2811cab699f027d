"""Opening one stored object: the first request, which format it has, its header, and its key.

The reader decides which formats are believed (rule 7). Metadata, sizes and instruction files are
hints from whoever can write the bucket: they save requests, and are refused where they turn out wrong.
All requests of one read are pinned to the version that the first one found (rule 10).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from phicrypt.core.broken_connections import MendedBody, with_retries
from phicrypt.core.byte_ranges import RangeRequest, Span, answered_range, body_of_range
from phicrypt.core.context import ANY_CONTEXT, AnyContext, plain_context, serialize_context
from phicrypt.core.location import location_pair
from phicrypt.core.required_context import NOTHING_REQUIRED, required_pairs
from phicrypt.core.streams import RejoinedStream
from phicrypt.core.suites import check_demands
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    FormatError,
    NotEncryptedError,
    UnsupportedOperationError,
)
from phicrypt.formats.esdk.header import MessageHeader, parse_header
from phicrypt.formats.esdk.opening import MessageOpener
from phicrypt.formats.esdk.sealing import footer_length_of
from phicrypt.formats.esdk.summary import claimed_plaintext_length
from phicrypt.formats.reader import StreamReader
from phicrypt.formats.s3ec.envelope import S3ecEnvelope, claims_s3ec
from phicrypt.s3.in_clear import (
    ESDK_FORMAT,
    FOOTER_LENGTH_NAME,
    FORMAT_NAME,
    FRAME_LENGTH_NAME,
    HEADER_LENGTH_NAME,
)
from phicrypt.s3.operations import OPERATIONS
from phicrypt.s3.reading.frames import Opened, StoredObject, framed_plaintext, ranged_plaintext
from phicrypt.s3.reading.plaintext_streams import PiecesStream, spool_for
from phicrypt.s3.reading.s3ec_objects import envelope_beside, envelope_of, open_s3ec
from phicrypt.s3.session import Boto3S3, Demands, S3Session

GET_OBJECT: Final = "s3.get_object"
"""The audit trail's name of a read; also of the source of a copy, as in IAM's permissions."""
HEADER_STEP_BYTES: Final = 1_024
_FIRST_PROBE_BYTES: Final = 128
"""Shorter than any header that phicrypt writes, so that the first probe fetches no frame."""
_MAX_REMEMBERED_BUCKETS: Final = 1_000
_IDENTIFYING_FIELDS: Final = ("version", "type", "algorithm suite id")
_PINNED_PARAMETERS: Final = (
    *("Bucket", "Key", "RequestPayer", "ExpectedBucketOwner"),
    *("SSECustomerAlgorithm", "SSECustomerKey", "SSECustomerKeyMD5"),
)
_FIRST_REQUEST_PARAMETERS: Final = frozenset(
    ("Bucket", "Key", "VersionId", "IfMatch", "IfModifiedSince", "IfNoneMatch", "IfUnmodifiedSince")
)
_EMPTY: Final = "the object is empty; an encrypted object holds a header at least"


def demands_of(s3_session: S3Session, own: Mapping[str, Any], operation: str = GET_OBJECT) -> Demands:
    """The demands in phicrypt's own parameters; ``ANY_CONTEXT`` drops the caller's pairs, never the location."""
    context, names = own.get("EncryptionContext"), own.get("RequiredContext")
    if names is None:
        names = s3_session.options.required_context
    pairs: Mapping[str, str] | None = None
    if not isinstance(context, AnyContext):
        pairs = {**s3_session.options.context, **plain_context(context)}
    required = NOTHING_REQUIRED
    if pairs or (names and pairs is None):
        pairs, required = s3_session.phi_session.contexts.expected(ANY_CONTEXT if pairs is None else pairs, names)
    elif names:
        required = required_pairs({}, names)
    require_signed, allow_uncommitted = (bool(own.get(name)) for name in ("RequireSigned", "AllowUncommitted"))
    return Demands(pairs, required, require_signed, allow_uncommitted, operation)


class Plaintext(NamedTuple):
    """What a read of one object gives.

    Attributes:
        stored: where it comes from.
        format_name: of the audit trail and of responses.
        body: the stream of the plaintext, or of its range.
        length_bytes: of that stream; of a whole object a claim (rule 10).
        span, total_bytes: of a range, which was verified to the total; None without one.
    """

    stored: StoredObject
    format_name: str
    body: Any
    length_bytes: int
    span: Span | None = None
    total_bytes: int | None = None


def open_whole(s3_session: S3Session, parameters: Mapping[str, Any], own: Mapping[str, Any]) -> Plaintext:
    """All of an object, in one request."""
    demands = demands_of(s3_session, own)
    stored, body, begun = with_retries(lambda: _begun_whole(s3_session, parameters))
    try:
        if isinstance(begun, S3ecEnvelope):
            verified, _, length = open_s3ec(s3_session, stored, begun, demands, body)
            return Plaintext(stored, f"s3ec-v{begun.version}", verified, length)
        opened = _opened(s3_session, stored, begun, demands)
        return whole_plaintext(s3_session, opened, body)
    except BaseException:
        body.close()
        raise


def _begun_whole(
    s3_session: S3Session, parameters: Mapping[str, Any]
) -> tuple[StoredObject, Any, S3ecEnvelope | MessageHeader]:
    """The first request, what the object is, and the stream of its bytes, of a message those behind the header."""
    stored, body = find(s3_session.client, parameters)
    try:
        envelope = detect(s3_session, stored)
        if envelope is not None:
            return stored, body, envelope
        joined = RejoinedStream(body)
        header = read_header(s3_session, stored, StreamReader(joined, read_ahead_bytes=HEADER_STEP_BYTES))
        return stored, joined.behind(header.length_bytes), header
    except BaseException:
        body.close()
        raise


def open_range(
    s3_session: S3Session, parameters: Mapping[str, Any], own: Mapping[str, Any], request: RangeRequest
) -> Plaintext:
    """A range of an unsigned object, in the requests for its header, its final frame and its frames."""
    demands = demands_of(s3_session, own)
    found = open_by_probe(s3_session, parameters, demands)
    if isinstance(found, Opened):
        stream, span, total = ranged_plaintext(found, request)
        return Plaintext(found.stored, "esdk", stream, span.length, span, total)
    stored, envelope = found
    body = MendedBody(stored.body, 0, stored.length_bytes)
    verified, span, total = open_s3ec(s3_session, stored, envelope, demands, body, request)
    return Plaintext(stored, f"s3ec-v{envelope.version}", verified, span.length, span, total)


def open_by_probe(
    s3_session: S3Session, parameters: Mapping[str, Any], demands: Demands
) -> Opened | tuple[StoredObject, S3ecEnvelope]:
    """Open an object by its first bytes only; an envelope where it is an S3 Encryption Client object."""
    first_bytes = _FIRST_PROBE_BYTES
    known = s3_session.header_rests.get(parameters["Bucket"])
    if known is not None:
        # What the headers seen in the bucket had beside their contexts, and the pairs that this one must
        # hold. A header is never shorter, so no byte of a frame is among them.
        pairs = _demanded_pairs(s3_session, parameters["Bucket"], parameters["Key"], demands)
        first_bytes = known + len(serialize_context(pairs))
    probe = HeaderProbe(s3_session, parameters, first_bytes)
    envelope = detect(s3_session, probe.stored)
    if envelope is not None:
        return probe.stored, envelope
    return _opened(s3_session, probe.stored, probe.header(), demands)


def whole_plaintext(s3_session: S3Session, opened: Opened, rest: Any) -> Plaintext:
    """All of an ESDK object, from the stream behind its header; its length is a claim."""
    stored, opener, use = opened
    header, limits = opener.header, s3_session.options.limits
    try:
        length = claimed_plaintext_length(header, stored.length_bytes)
    except FormatError as error:
        use.end(error)
        raise
    if header.is_framed and not header.suite.is_signed:
        return Plaintext(stored, "esdk", framed_plaintext(opened, rest), length)
    spool, close = spool_for(rest, limits)
    pieces = opener.pieces(StreamReader(rest), spool, limits)
    return Plaintext(stored, "esdk", PiecesStream(pieces, use, length=length, close=close), length)


# --- the first request ---------------------------------------------------------------------------


def find(client: Boto3S3, parameters: Mapping[str, Any], span: Span | None = None) -> tuple[StoredObject, Any]:
    """The first request; its body stream. Conditions of the caller apply to it.

    Raises botocore's ClientError as it is, NotEncryptedError for an empty object.
    """
    from botocore.exceptions import ClientError

    first = _first_parameters("get_object", parameters)
    if span is None:
        response = client.get_object(**first)
        return _stored(client, parameters, response, response["ContentLength"]), response["Body"]
    # S3 sends checksums of whole objects only, and would check nothing here.
    first.pop("ChecksumMode", None)
    try:
        response = client.get_object(**first, Range=span.header())
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 416:
            raise NotEncryptedError(_EMPTY) from None
        raise
    answered, total = answered_range(response)
    body = body_of_range(response, Span(0, answered.end), total)
    return _stored(client, parameters, response, total), body


def _found(client: Boto3S3, parameters: Mapping[str, Any], first_bytes: int) -> tuple[StoredObject, bytes]:
    stored, body = find(client, parameters, Span(0, first_bytes))
    return stored, body.read()


def find_by_head(client: Boto3S3, parameters: Mapping[str, Any]) -> StoredObject:
    """The first request, without a body."""
    response = client.head_object(**_first_parameters("head_object", parameters))
    return _stored(client, parameters, response, response["ContentLength"])


def _first_parameters(operation_name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    names = OPERATIONS[operation_name].forwarded | _FIRST_REQUEST_PARAMETERS
    return {name: value for name, value in parameters.items() if name in names}


def _stored(
    client: Boto3S3, parameters: Mapping[str, Any], response: Mapping[str, Any], length_bytes: int
) -> StoredObject:
    pinned = {name: parameters[name] for name in _PINNED_PARAMETERS if name in parameters}
    pinned["IfMatch"] = response["ETag"]
    # Of what has no versions a server may tell "null"; a caller's "null" is the object from before versioning.
    told = response.get("VersionId")
    version_id = parameters.get("VersionId") or (None if told == "null" else told)
    if version_id is not None:
        pinned["VersionId"] = version_id
    metadata = {name.lower(): value for name, value in response.get("Metadata", {}).items()}
    request = partial(client.get_object, **pinned)
    return StoredObject(pinned["Bucket"], pinned["Key"], response, metadata, length_bytes, request)


# --- formats -------------------------------------------------------------------------------------


def detect(s3_session: S3Session, stored: StoredObject) -> S3ecEnvelope | None:
    """The envelope of an S3 Encryption Client object; None for what must be an ESDK message.

    Raises UnsupportedOperationError for a format that ``read_formats`` does not name, FormatError,
    NotEncryptedError.
    """
    names = s3_session.options.read_formats
    metadata = stored.metadata
    claims_esdk = FORMAT_NAME in metadata
    if claims_s3ec(metadata):
        if claims_esdk:
            raise FormatError("the metadata claims two formats", field="metadata")
        return envelope_of(stored, names)
    if "s3ec-instruction-files" in names and not claims_esdk:
        envelope = envelope_beside(stored, names)
        if envelope is not None:
            return envelope
    if "esdk" not in names:
        if claims_esdk:
            raise UnsupportedOperationError("the object is an ESDK message; add 'esdk' to read_formats to read it")
        raise NotEncryptedError("the object's metadata is not that of an encrypting client; it is plaintext")
    if claims_esdk and metadata[FORMAT_NAME] != ESDK_FORMAT:
        raise UnsupportedOperationError("the object claims a format that this version of phicrypt does not know")
    return None


# --- headers and keys ----------------------------------------------------------------------------


def read_header(s3_session: S3Session, stored: StoredObject, reader: StreamReader) -> MessageHeader:
    """The header at the start of a stored object, checked against the metadata's hints.

    Raises NotEncryptedError where the bytes are no message and nothing claims that they are one,
    AuthenticationError where the metadata lies about the message.
    """
    try:
        header = parse_header(reader, s3_session.options.limits)
    except FormatError as error:
        if FORMAT_NAME not in stored.metadata and error.field in _IDENTIFYING_FIELDS:
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
        if stored.metadata.get(name, str(value)) != str(value):
            raise AuthenticationError("metadata lengths")
    rests, rest = s3_session.header_rests, header.length_bytes - len(header.context_bytes)
    if len(rests) > _MAX_REMEMBERED_BUCKETS:
        rests.clear()
    rests[stored.bucket] = min(rests.get(stored.bucket, rest), rest)
    return header


def hinted_length(metadata: Mapping[str, str], name: str, bound: int) -> int | None:
    """A length that the metadata claims, if it is a plausible number."""
    text = metadata.get(name, "")
    if text.isascii() and text.isdigit() and len(text) <= 10 and 0 < int(text) <= bound:
        return int(text)
    return None


class HeaderProbe:
    """Fetches a header in as few exact ranges as it can; a source for :class:`StreamReader`.

    The first request asks for a header's usual length; its answer carries the metadata, whose hint
    bounds the second one. Where the hints are missing or wrong, doubling steps follow.

    Attributes:
        stored: what the first request found.
    """

    def __init__(
        self, s3_session: S3Session, parameters: Mapping[str, Any], first_bytes: int = _FIRST_PROBE_BYTES
    ) -> None:
        self._s3_session = s3_session
        self.stored: StoredObject
        self._held: bytes
        self.stored, self._held = with_retries(lambda: _found(s3_session.client, parameters, first_bytes))
        self._position = 0

    def header(self) -> MessageHeader:
        """See :func:`read_header`."""
        return read_header(self._s3_session, self.stored, StreamReader(self, read_ahead_bytes=HEADER_STEP_BYTES))

    def read(self, size: int = -1, /) -> bytes:
        if not self._held:
            start, stored = self._position, self.stored
            longest = self._s3_session.options.limits.max_header_length_bytes
            hint = hinted_length(stored.metadata, HEADER_LENGTH_NAME, longest)
            end = hint if hint is not None and start < hint else start + max(start, HEADER_STEP_BYTES)
            span = Span(start, min(end, stored.length_bytes))
            if span.length > 0:
                self._held = with_retries(
                    lambda: body_of_range(stored.request(Range=span.header()), span, stored.length_bytes).read()
                )
        piece, self._held = (self._held, b"") if size < 0 else (self._held[:size], self._held[size:])
        self._position += len(piece)
        return piece


def _opened(s3_session: S3Session, stored: StoredObject, header: MessageHeader, demands: Demands) -> Opened:
    """The message of a parsed header after every demand of the reader was checked.

    Raises ConfigurationError where the caller gave no pair and the location is not bound (rule 8): that
    would accept every object that the keyring opens.
    """
    phi_session = s3_session.phi_session
    expected = _demanded_pairs(s3_session, stored.bucket, stored.object_key, demands)
    if not expected and not demands.required.pairs and demands.pairs is not None:
        raise ConfigurationError(
            "with bind_location=False a read names its pairs: EncryptionContext={…}, the client's context=, "
            "or ANY_CONTEXT"
        )
    use = phi_session.recorded(
        demands.operation,
        format="esdk",
        context=phi_session.contexts.loggable(header.context, header.context_bytes),
        required_names=demands.required.pairs,
        resource=("s3", stored.bucket, stored.object_key),
    )
    use.suite_id, use.message_id = header.suite.suite_id, header.message_id.hex()
    try:
        check_demands(
            header.suite, require_signed=demands.require_signed, allow_uncommitted=demands.allow_uncommitted
        )
        materials, use.cache_hit = phi_session.provider.decryption_materials(
            header.suite,
            header.context,
            header.encrypted_data_keys,
            expected=expected if expected or demands.required.pairs else None,
            context_bytes=header.context_bytes,
            required=demands.required,
        )
        use.origin = materials.origin
        return Opened(stored, MessageOpener(header, materials), use)
    except BaseException as error:
        use.end(error)
        raise


def _demanded_pairs(s3_session: S3Session, bucket: str, object_key: str, demands: Demands) -> dict[str, str]:
    """The pairs that an ESDK object must store, its location among them (rule 9)."""
    pairs = dict(demands.pairs or {})
    if s3_session.options.bind_location:
        pairs |= location_pair(bucket, object_key, s3_session.options.logical_buckets)
    return pairs
