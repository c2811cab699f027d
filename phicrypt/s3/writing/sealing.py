"""One object on its way out: its metadata, and its ciphertext from bytes or from a stream.

Both formats seal in order and exactly once. What reaches botocore is always finished ciphertext.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from phicrypt.audit.uses import Use
from phicrypt.core.context import check_bindable, plain_context
from phicrypt.core.location import location_pair
from phicrypt.core.materials import EncryptionMaterials
from phicrypt.core.required_context import NOTHING_REQUIRED, RequiredPairs, required_pairs, without_required
from phicrypt.core.streams import ReadableStream
from phicrypt.core.suites import (
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384,
    AlgorithmSuite,
)
from phicrypt.errors import ConfigurationError
from phicrypt.formats.esdk.pieces import sealed_pieces
from phicrypt.formats.esdk.random_access import RandomAccessSealer
from phicrypt.formats.esdk.sealing import MessageSealer, footer_length_of
from phicrypt.formats.reader import StreamReader
from phicrypt.formats.s3ec.content import S3ecSealer
from phicrypt.formats.s3ec.envelope import S3EC_V3_SUITE, kms_context_of
from phicrypt.s3.in_clear import (
    ESDK_FORMAT,
    FOOTER_LENGTH_NAME,
    FORMAT_NAME,
    FRAME_LENGTH_NAME,
    HEADER_LENGTH_NAME,
    check_object_key,
)
from phicrypt.s3.options import S3Options, check_s3ec_keyring, refuse_required_context
from phicrypt.s3.session import S3Session

Buffer = bytes | bytearray | memoryview

REWRAP: Final = "s3.rewrap"
"""The audit trail's name of a change of keys."""
_PIECE_BYTES: Final = 512 * 1024


class OutgoingObject(Protocol):
    """A message that was begun and not sealed yet.

    Attributes:
        materials: what it is sealed under; for the audit trail and for charging the cache.
        metadata: what phicrypt adds to the object's user metadata: format and lengths only.
        message_id: of the message.
    """

    materials: EncryptionMaterials
    metadata: dict[str, str]
    message_id: bytes

    def seal_bytes(self, plaintext: Buffer, spare: bytearray) -> bytes | bytearray:
        """The whole ciphertext, in ``spare`` if that serves; once, and not with :meth:`seal_stream`."""
        ...

    def seal_stream(self, source: ReadableStream, charge: Callable[[int], None]) -> Iterator[memoryview | bytes]:
        """The ciphertext piece by piece; a piece is valid until the next one is asked for.

        ``charge`` is told of plaintext bytes before their ciphertext is given out.
        """
        ...


class OutgoingMessage:
    """An ESDK message."""

    def __init__(self, materials: EncryptionMaterials, sealer: MessageSealer) -> None:
        self.materials = materials
        self.message_id = sealer.message_id
        self.sealer = sealer
        self.metadata = {
            FORMAT_NAME: ESDK_FORMAT,
            HEADER_LENGTH_NAME: str(len(sealer.header)),
            FRAME_LENGTH_NAME: str(sealer.frame_length_bytes),
        }
        if materials.suite.is_signed:
            self.metadata[FOOTER_LENGTH_NAME] = str(footer_length_of(materials.suite))

    def seal_bytes(self, plaintext: Buffer, spare: bytearray) -> bytes | bytearray:
        if self.materials.suite.is_signed:
            return b"".join(map(bytes, self.seal_stream(io.BytesIO(plaintext), _charge_nothing)))
        frames = RandomAccessSealer(self.sealer)
        start = len(frames.header)
        resize(spare, start + frames.run_length_bytes(memoryview(plaintext).nbytes, is_last=True))
        with memoryview(spare) as output:
            output[:start] = frames.header
            frames.seal_run_into(1, plaintext, output[start:], is_last=True)
        return spare

    def seal_stream(self, source: ReadableStream, charge: Callable[[int], None]) -> Iterator[memoryview | bytes]:
        return sealed_pieces(self.sealer, source, charge)


class OutgoingS3ec:
    """A version 3 object of the S3 Encryption Client."""

    def __init__(self, materials: EncryptionMaterials) -> None:
        if materials.data_key is None or len(materials.encrypted_data_keys) != 1:
            raise ConfigurationError(
                "an S3 Encryption Client object holds one wrapped data key; a keyring of several recipients "
                "cannot write it"
            )
        self.materials = materials
        self.sealer = S3ecSealer(
            materials.data_key, materials.encrypted_data_keys[0].ciphertext, materials.context
        )
        self.message_id = self.sealer.envelope.nonce
        self.metadata = self.sealer.envelope.to_metadata()

    def seal_bytes(self, plaintext: Buffer, spare: bytearray) -> bytes | bytearray:
        return self.sealer.update(plaintext) + self.sealer.finish()

    def seal_stream(self, source: ReadableStream, charge: Callable[[int], None]) -> Iterator[memoryview | bytes]:
        reader = StreamReader(source, read_ahead_bytes=_PIECE_BYTES)
        while count := reader.available(_PIECE_BYTES):
            ciphertext = self.sealer.update(reader.take(count, "plaintext"))
            charge(count)
            yield ciphertext
        yield self.sealer.finish()


def _charge_nothing(_count: int) -> None:
    """For bytes that were charged when the materials were asked for."""


def resize(buffer: bytearray, length: int) -> None:
    """Give a buffer this length, keeping its memory where it has enough."""
    if len(buffer) > length:
        del buffer[length:]
    elif len(buffer) < length:
        buffer.extend(bytes(length - len(buffer)))


# --- beginning an object -------------------------------------------------------------------------


def check_new_object(
    s3_session: S3Session, bucket: str, object_key: str, own: Mapping[str, Any], *, is_rewrapped: bool = False
) -> tuple[Mapping[str, str], RequiredPairs]:
    """All pairs that a new object is bound to, and those that it does not store.

    Raises before anything is sealed or sent. The key of an object that ``is_rewrapped`` is not guarded: it is
    there already, under that key.
    """
    phi_session, options = s3_session.phi_session, s3_session.options
    guard, names = phi_session.guard, own.get("RequiredContext")
    if names is None:
        names = options.required_context
    pairs = {**options.context, **plain_context(own.get("EncryptionContext"))}
    pairs = phi_session.contexts.guarded(pairs, names)
    check_bindable(pairs)
    required = required_pairs(pairs, names) if names else NOTHING_REQUIRED
    if options.format == "s3ec":
        refuse_required_context(names)
        pairs = kms_context_of(pairs, S3EC_V3_SUITE)
    elif options.bind_location:
        pairs |= location_pair(bucket, object_key, options.logical_buckets)
    if not is_rewrapped:
        check_object_key(guard, object_key)
    if s3_session.write_guard is not None:
        s3_session.write_guard.check(bucket)
    return pairs, required


def begin_object(
    s3_session: S3Session,
    operation: str,
    bucket: str,
    object_key: str,
    own: Mapping[str, Any],
    plaintext_length_bytes: int | None,
) -> tuple[OutgoingObject, Use]:
    """Materials and a sealed header (or envelope) for one new object, and its audited use.

    ``operation`` is how the audit trail names it, such as ``"s3.put_object"``. With a known length the
    bytes are charged here; else ``use.count`` charges them as they pass.
    """
    context, required = check_new_object(s3_session, bucket, object_key, own, is_rewrapped=operation == REWRAP)
    phi_session, suite = s3_session.phi_session, _suite_to_write(s3_session.options)
    provider = phi_session.provider
    use = phi_session.recorded(
        operation,
        format="s3ec-v3" if suite is S3EC_V3_SUITE else "esdk",
        context=without_required(context, required),
        required_names=required.pairs,
        resource=("s3", bucket, object_key),
        sealing=True,
    )
    try:
        if suite is S3EC_V3_SUITE:
            check_s3ec_keyring(provider.keyring)
        materials, use.cache_hit = provider.encryption_materials(
            suite, context, plaintext_length_bytes=plaintext_length_bytes, required=required
        )
        outgoing = _outgoing(materials, s3_session.options)
    except BaseException as error:
        use.end(error)
        raise
    if plaintext_length_bytes is None:
        use.charge = lambda count: provider.charge(materials, count)
    use.suite_id, use.message_id, use.origin = suite.suite_id, outgoing.message_id.hex(), materials.origin
    return outgoing, use


def _suite_to_write(options: S3Options) -> AlgorithmSuite:
    if options.format == "s3ec":
        return S3EC_V3_SUITE
    if options.signed:
        return AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384
    return AES_256_GCM_HKDF_SHA512_COMMIT_KEY


def _outgoing(materials: EncryptionMaterials, options: S3Options) -> OutgoingObject:
    if materials.suite is S3EC_V3_SUITE:
        return OutgoingS3ec(materials)
    return OutgoingMessage(materials, MessageSealer(materials, options.frame_length_bytes, options.limits))
