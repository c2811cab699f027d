"""Objects of the S3 Encryption Client: which metadata is believed, their data key, and their plaintext.

One tag covers the body, so all of it is read and verified before the first byte is given out (rule 6).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from phicrypt.audit.uses import Use
from phicrypt.core.broken_connections import MendedBody, with_retries
from phicrypt.core.byte_ranges import RangeRequest, Span
from phicrypt.core.materials import DataKey, EncryptedDataKey
from phicrypt.core.process import ProcessBound
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    ContextMismatchError,
    FormatError,
    UnsupportedOperationError,
)
from phicrypt.formats.s3ec.content import open_content, plaintext_length_of, verified_content
from phicrypt.formats.s3ec.envelope import (
    INSTRUCTION_SUFFIX,
    MAX_INSTRUCTION_LENGTH_BYTES,
    S3ecEnvelope,
    needs_instruction_file,
    parse_envelope,
    parse_instruction_file,
)
from phicrypt.s3.options import check_s3ec_keyring, refuse_required_context
from phicrypt.s3.reading.frames import StoredObject
from phicrypt.s3.reading.plaintext_streams import PiecesStream, spool_for
from phicrypt.s3.session import Demands, S3Session

_CHUNK_BYTES: Final = 256 * 1024
_UNPINNED: Final = ("IfMatch", "VersionId")


def envelope_of(stored: StoredObject, names: frozenset[str]) -> S3ecEnvelope:
    """The envelope of an object whose metadata claims one, if ``read_formats`` names its format (rule 7)."""
    if not names & {"s3ec-v3", "s3ec-v2"}:
        raise UnsupportedOperationError(
            "the object claims to be one of the S3 Encryption Client, which read_formats does not name; the "
            "bucket may have been tampered with. Add 's3ec-v3' or 's3ec-v2' to read_formats to accept such objects"
        )
    instruction = None
    if needs_instruction_file(stored.metadata):
        if "s3ec-instruction-files" not in names:
            raise UnsupportedOperationError(
                "the object's wrapped data key stands in an instruction file; add 's3ec-instruction-files' to "
                "read_formats to accept such files"
            )
        instruction = _instruction_file(stored)
    return _accepted(parse_envelope(stored.metadata, instruction), names)


def envelope_beside(stored: StoredObject, names: frozenset[str]) -> S3ecEnvelope | None:
    """The envelope in the instruction file of an object whose own metadata claims nothing; None without one."""
    instruction = _instruction_file(stored)
    return None if instruction is None else _accepted(parse_envelope(stored.metadata, instruction), names)


def _accepted(envelope: S3ecEnvelope, names: frozenset[str]) -> S3ecEnvelope:
    name = f"s3ec-v{envelope.version}"
    if name not in names:
        raise UnsupportedOperationError(
            f"the object has version {envelope.version} of the S3 Encryption Client's format; add {name!r} to "
            "read_formats to accept it"
        )
    return envelope


def _instruction_file(stored: StoredObject) -> dict[str, str] | None:
    """The metadata in the object whose name has a suffix more; None where there is none."""
    from botocore.exceptions import ClientError

    beside = {name: value for name, value in stored.request.keywords.items() if name not in _UNPINNED}
    beside["Key"] += INSTRUCTION_SUFFIX
    try:
        return parse_instruction_file(with_retries(lambda: _beginning(stored.request.func(**beside)["Body"])))
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "NoSuchKey":
            return None
        raise


def _beginning(body: Any) -> bytes:
    with closing(body):
        content: bytes = body.read(MAX_INSTRUCTION_LENGTH_BYTES + 1)
    return content


def open_data_key(
    s3_session: S3Session, stored: StoredObject, envelope: S3ecEnvelope, demands: Demands
) -> tuple[DataKey, Use]:
    """The data key of an object, and its audited use; its context must equal the reader's (rule 7)."""
    phi_session = s3_session.phi_session
    use = phi_session.recorded(
        demands.operation,
        format=f"s3ec-v{envelope.version}",
        context=phi_session.contexts.loggable(envelope.kms_context),
        resource=("s3", stored.bucket, stored.object_key),
    )
    use.suite_id, use.message_id = envelope.suite.suite_id, envelope.nonce.hex()
    try:
        _check_equal_context(envelope, demands)
        key_arn = check_s3ec_keyring(phi_session.provider.keyring)
        wrapped = EncryptedDataKey("aws-kms", key_arn.encode(), envelope.wrapped_data_key)
        materials, use.cache_hit = phi_session.provider.decryption_materials(
            envelope.suite, envelope.kms_context, (wrapped,), expected=envelope.kms_context
        )
        use.origin = materials.origin
    except BaseException as error:
        use.end(error)
        raise
    assert materials.data_key is not None
    return materials.data_key, use


def _check_equal_context(envelope: S3ecEnvelope, demands: Demands) -> None:
    if demands.require_signed:
        raise ConfigurationError("S3 Encryption Client objects are never signed; RequireSigned refuses them all")
    refuse_required_context(demands.required.pairs)
    stored = envelope.caller_context
    if demands.pairs is not None and stored != demands.pairs:
        raise ContextMismatchError({name for name, _ in stored.items() ^ demands.pairs.items()})


def open_s3ec(
    s3_session: S3Session,
    stored: StoredObject,
    envelope: S3ecEnvelope,
    demands: Demands,
    body: Any,
    request: RangeRequest | None = None,
) -> tuple[PiecesStream, Span, int]:
    """The plaintext of an object, the span of it, and its whole length.

    ``body`` is verified at the first read of the whole object, at once for a range. It is closed with the
    stream, and after an error.
    """
    length, data_key, use = _begun(s3_session, stored, envelope, demands, body)
    spool, close = spool_for(body, s3_session.options.limits)

    def verified() -> Iterator[bytes]:
        return open_content(envelope, data_key, _chunks(body), spool)

    def lazily() -> Iterator[bytes]:
        yield from verified()

    if request is None:
        return PiecesStream(lazily(), use, length=length, close=close), Span(0, length), length
    try:
        pieces = verified()
        span = request.resolve(length)
        if span is None:
            raise request.refusal(length)
    except BaseException as error:
        close()
        use.end(error)
        raise
    return PiecesStream(_window(pieces, span), use, length=span.length, close=close), span, length


def _begun(
    s3_session: S3Session, stored: StoredObject, envelope: S3ecEnvelope, demands: Demands, body: Any
) -> tuple[int, DataKey, Use]:
    """The plaintext length, the data key and the use; after an error ``body`` is let go."""
    try:
        length = plaintext_length_of(stored.length_bytes)
        if envelope.claimed_length_bytes not in (None, length):
            raise AuthenticationError("metadata lengths")
        return length, *open_data_key(s3_session, stored, envelope, demands)
    except BaseException:
        body.close()
        raise


def _chunks(body: Any) -> Iterator[bytes]:
    return iter(lambda: body.read(_CHUNK_BYTES), b"")


class VerifiedObject(ProcessBound):
    """An object that was verified whole when it was opened, and is read by place from its ciphertext.

    Any number of threads may read it, one after another. Whoever reads backwards opens it from the begin again.

    Attributes:
        use: the audited use.
        claimed_length_bytes: of the plaintext; no claim, as all of it was verified.
        piece_bytes: how much is opened at once.
    """

    piece_bytes = _CHUNK_BYTES

    def __init__(
        self, s3_session: S3Session, stored: StoredObject, envelope: S3ecEnvelope, demands: Demands
    ) -> None:
        super().__init__()
        body = MendedBody(stored.body, 0, stored.length_bytes)
        self.claimed_length_bytes, data_key, self.use = _begun(s3_session, stored, envelope, demands, body)
        spool, self._release = spool_for(body, s3_session.options.limits)
        try:
            self._from_begin = verified_content(envelope, data_key, _chunks(body), spool)
        except BaseException as error:
            self.close(error)
            raise
        self._one_at_a_time = threading.Lock()
        self._pieces = self._from_begin()
        self._start, self._piece = 0, b""

    def verified_length(self) -> int:
        """The plaintext length."""
        return self.claimed_length_bytes

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """The plaintext at an offset; fewer bytes only at the end (rule 43)."""
        plaintext = self.open_at(offset_bytes, length_bytes)
        self.count(len(plaintext))
        return plaintext

    def count(self, byte_count: int) -> None:
        """That much plaintext is given out, by one of several threads."""
        with self._one_at_a_time:
            self.use.count(byte_count)

    def open_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """:meth:`read_at` for who counts what is given out."""
        self.check_process()
        span = Span.within(self.claimed_length_bytes, offset_bytes, length_bytes)
        with self._one_at_a_time:
            try:
                return b"".join(self._through(span))
            except BaseException:
                # An interrupt may have come between a piece and its place: begin anew, or all would be shifted.
                self._start = self.claimed_length_bytes + 1
                raise

    def _through(self, span: Span) -> Iterator[bytes]:
        if span.start < self._start:
            self._pieces = self._from_begin()
            self._start, self._piece = 0, b""
        while span.length:
            end = self._start + len(self._piece)
            yield self._piece[max(0, span.start - self._start) : max(0, span.end - self._start)]
            if end >= span.end:
                return
            piece = next(self._pieces, None)
            if piece is None:
                raise FormatError("the body holds fewer bytes than announced", field="S3EC body")
            self._piece, self._start = piece, end

    def close(self, failure: BaseException | None) -> None:
        """Let go of the ciphertext, and end the use, as failed if ``failure`` is given."""
        self._release()
        self.use.end(failure)


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
