"""Objects of the S3 Encryption Client: which metadata is believed, their data key, and their plaintext.

One tag covers the body, so all of it is read and verified before the first byte is given out (rule 6).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from phicrypt.audit.uses import Use
from phicrypt.core.byte_ranges import RangeRequest, Span
from phicrypt.core.materials import DataKey, EncryptedDataKey
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    ContextMismatchError,
    UnsupportedOperationError,
)
from phicrypt.formats.s3ec.content import open_content, plaintext_length_of
from phicrypt.formats.s3ec.envelope import (
    INSTRUCTION_SUFFIX,
    MAX_INSTRUCTION_LENGTH_BYTES,
    S3ecEnvelope,
    needs_instruction_file,
    parse_envelope,
    parse_instruction_file,
)
from phicrypt.s3.options import check_s3ec_keyring
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
        response = stored.request.func(**beside)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "NoSuchKey":
            return None
        raise
    body = response["Body"].read(MAX_INSTRUCTION_LENGTH_BYTES + 1)
    response["Body"].close()
    return parse_instruction_file(body)


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
    try:
        length = plaintext_length_of(stored.length_bytes)
        if envelope.claimed_length_bytes not in (None, length):
            raise AuthenticationError("metadata lengths")
        data_key, use = open_data_key(s3_session, stored, envelope, demands)
    except BaseException:
        body.close()
        raise
    spool, close = spool_for(body, s3_session.options.limits)

    def verified() -> Iterator[bytes]:
        return open_content(envelope, data_key, iter(lambda: body.read(_CHUNK_BYTES), b""), spool)

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
