"""Messages: bytes and streams to and from the AWS Encryption SDK's format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from phicrypt.audit.trail import NO_TRAIL
from phicrypt.audit.uses import Use
from phicrypt.core.context import AnyContext
from phicrypt.core.materials import DecryptionMaterials, EncryptionMaterials, KeyHolder
from phicrypt.core.memory import as_bytes, writable_view
from phicrypt.core.spool import CiphertextSpool
from phicrypt.core.streams import ReadableStream, WritableStream, write_all
from phicrypt.core.suites import (
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384,
    AlgorithmSuite,
    check_demands,
)
from phicrypt.formats.esdk.frames import Buffer
from phicrypt.formats.esdk.header import MessageHeader, parse_header
from phicrypt.formats.esdk.header_memo import HeaderMemo
from phicrypt.formats.esdk.opening import MessageOpener, open_message, open_message_into
from phicrypt.formats.esdk.pieces import sealed_pieces
from phicrypt.formats.esdk.sealing import MessageSealer, check_frame_length, seal_message, seal_message_into
from phicrypt.formats.esdk.summary import MessageSummary, summarize
from phicrypt.formats.reader import ByteReader, StreamReader
from phicrypt.guard.bound_contexts import Context
from phicrypt.messages.streams import DecryptingReader, EncryptingReader, SeekableDecryptingReader
from phicrypt.session import Session

_FORMAT: Final = "esdk"
T = TypeVar("T")


class MessageClient(KeyHolder):
    """Encrypts and decrypts messages with a session's keys; :class:`phicrypt.PhiCrypt` is one.

    Sealing one message in memory leaves one audit event; whatever opens, and every stream, leaves a begin
    event before the first plaintext byte and a linked end event (rule 20).
    """

    def __init__(self, phi_session: Session) -> None:
        check_frame_length(phi_session.frame_length_bytes, phi_session.limits)
        self.session = phi_session
        self._headers = HeaderMemo()

    def encrypt(
        self,
        plaintext: Buffer,
        *,
        context: Context | None = None,
        signed: bool = False,
        frame_length_bytes: int | None = None,
    ) -> bytes:
        """Encrypt bytes into an AWS Encryption SDK message.

        Args:
            plaintext: bytes; ``str`` is refused, encode it first.
            context: pairs bound to the message; they stand in clear in it and in CloudTrail.
            signed: sign with a fresh ECDSA P-384 key (suite 0x0578 instead of 0x0478).
            frame_length_bytes: overrides the client's for this message.

        Raises ConfigurationError, PhiInContextError, KeyAccessError, LimitExceededError, AuditError.
        """

        def seal(materials: EncryptionMaterials, plaintext: Buffer, frame_length: int) -> tuple[bytes, bytes]:
            return seal_message(
                materials, plaintext, frame_length, phi_session.limits, threads=phi_session.threads
            )

        phi_session = self.session
        return self._seal("encrypt", plaintext, context, signed, frame_length_bytes, seal)

    def encrypt_into(
        self,
        plaintext: Buffer,
        buffer: bytearray | memoryview,
        *,
        context: Context | None = None,
        signed: bool = False,
        frame_length_bytes: int | None = None,
    ) -> int:
        """:meth:`encrypt` into a caller's buffer; returns the length of the message in bytes.

        Reusing one buffer for many large messages saves the page faults of fresh memory, which cost
        more than the cipher. Raises ConfigurationError, naming the needed length, if it is too short,
        and for a buffer that is part of the same object as the plaintext.
        """
        output = writable_view(buffer, plaintext)

        def seal(materials: EncryptionMaterials, plaintext: Buffer, frame_length: int) -> tuple[int, bytes]:
            return seal_message_into(
                materials, plaintext, frame_length, output, phi_session.limits, threads=phi_session.threads
            )

        phi_session = self.session
        return self._seal("encrypt_into", plaintext, context, signed, frame_length_bytes, seal)

    def decrypt(
        self,
        message: Buffer,
        *,
        context: Context | AnyContext | None = None,
        require_signed: bool = False,
        allow_uncommitted: bool = False,
    ) -> bytes:
        """The plaintext of an AWS Encryption SDK message, after all of it was verified.

        Args:
            message: a whole message of format version 1 or 2.
            context: the pairs that the message must hold (others may be there too). Required;
                ``ANY_CONTEXT`` accepts whatever the message holds.
            require_signed: refuse unsigned messages, before any key is used.
            allow_uncommitted: also open messages of suites without key commitment, which the
                AWS Encryption SDK wrote before its version 2.

        Raises ConfigurationError, FormatError, LimitExceededError, ContextMismatchError,
        UnsupportedOperationError, KeyAccessError, AuthenticationError, AuditError.
        """

        def open_whole(
            header: MessageHeader, materials: DecryptionMaterials, reader: ByteReader
        ) -> tuple[bytes, int]:
            plaintext = open_message(
                header, materials, reader, self._spool, phi_session.limits, threads=phi_session.threads
            )
            return plaintext, len(plaintext)

        phi_session = self.session
        return self._open("decrypt", message, context, require_signed, allow_uncommitted, open_whole)

    def decrypt_into(
        self,
        message: Buffer,
        buffer: bytearray | memoryview,
        *,
        context: Context | AnyContext | None = None,
        require_signed: bool = False,
        allow_uncommitted: bool = False,
    ) -> int:
        """:meth:`decrypt` into a caller's buffer; returns the length of the plaintext in bytes.

        The buffer must not be read before this returns: frames are opened straight into it, and it is
        zeroed after any error, one of the audit trail included. It is no part of the message's object.
        """
        output = writable_view(buffer, message)
        length = 0

        def open_whole(
            header: MessageHeader, materials: DecryptionMaterials, reader: ByteReader
        ) -> tuple[int, int]:
            nonlocal length
            length = open_message_into(
                header, materials, reader, self._spool, phi_session.limits, output, threads=phi_session.threads
            )
            return length, length

        phi_session = self.session
        try:
            return self._open("decrypt_into", message, context, require_signed, allow_uncommitted, open_whole)
        except BaseException:
            output[:length] = bytes(length)
            raise

    def encrypt_stream(
        self,
        source: ReadableStream,
        sink: WritableStream,
        *,
        context: Context | None = None,
        signed: bool = False,
        frame_length_bytes: int | None = None,
    ) -> int:
        """Encrypt a binary source into a binary sink; returns the bytes written.

        Neither is closed. After an error the sink holds a truncated message, which nothing opens.
        """
        sealer, use = self._sealer("encrypt_stream", context, signed, frame_length_bytes)
        with use:
            return sum(write_all(sink, piece) for piece in sealed_pieces(sealer, source, use.count))

    def decrypt_stream(
        self,
        source: ReadableStream,
        sink: WritableStream,
        *,
        context: Context | AnyContext | None = None,
        require_signed: bool = False,
        allow_uncommitted: bool = False,
    ) -> int:
        """Decrypt a binary source into a binary sink; returns the bytes written.

        Each frame is verified before it is written, the last one only after the signature and the
        end of the source were checked. **After an error, discard what the sink holds**: verified
        frames of a message that turned out incomplete or not signed as claimed.
        """
        expected = self.session.contexts.expected(context)
        reader = StreamReader(source)
        header = self._parse("decrypt_stream", reader)
        with self._begun("decrypt_stream", header) as use, self._spool() as spool:
            opener = self._opener(header, expected, require_signed, allow_uncommitted, use)
            for piece in opener.pieces(reader, spool, self.session.limits):
                use.count(write_all(sink, piece))
            return use.byte_count or 0

    def encrypting_reader(
        self,
        source: ReadableStream,
        *,
        context: Context | None = None,
        signed: bool = False,
        frame_length_bytes: int | None = None,
    ) -> EncryptingReader:
        """A readable binary object that yields the message of ``source``; never seekable (rule 2)."""
        sealer, use = self._sealer("encrypting_reader", context, signed, frame_length_bytes)
        return EncryptingReader(sealer, source, use)

    def decrypting_reader(
        self,
        source: ReadableStream,
        *,
        context: Context | AnyContext | None = None,
        require_signed: bool = False,
        allow_uncommitted: bool = False,
    ) -> DecryptingReader:
        """A readable binary object that yields the plaintext of the message in ``source``.

        Seekable when the source is and the message is framed and unsigned; then a seek reads only
        the frames it needs. See :class:`phicrypt.messages.streams.DecryptingReader` for what closing does.
        """
        expected = self.session.contexts.expected(context)
        seekable: Any = getattr(source, "seekable", None)
        can_seek = seekable is not None and seekable()
        message_start: int = source.tell() if can_seek else 0  # type: ignore[attr-defined]
        reader = StreamReader(source)
        header = self._parse("decrypting_reader", reader)
        use, limits = self._begun("decrypting_reader", header), self.session.limits
        try:
            opener = self._opener(header, expected, require_signed, allow_uncommitted, use)
            if can_seek and header.is_framed and not header.suite.is_signed:
                return SeekableDecryptingReader(opener, reader, limits, use, source, message_start)
            return DecryptingReader(opener, reader, limits, use)
        except BaseException as error:
            use.end(error)
            raise

    def inspect(self, message: Buffer | ReadableStream) -> MessageSummary:
        """What a message says about itself, without any key: nothing in the answer is verified.

        Takes bytes or a binary source (of which it reads the header; a seekable one also tells the
        lengths, and stands where it stood). Raises FormatError and LimitExceededError.
        """
        return summarize(message, self.session.limits)

    def _seal(
        self,
        operation: str,
        plaintext: Buffer,
        context: Context | None,
        signed: bool,
        frame_length_bytes: int | None,
        seal: Callable[[EncryptionMaterials, Buffer, int], tuple[T, bytes]],
    ) -> T:
        """Seal one message in memory, on record; ``seal`` gives the result and the message id."""
        phi_session = self.session
        plaintext = as_bytes(plaintext, "plaintext")
        pairs, context_bytes = phi_session.contexts.to_bind(context)
        suite, byte_count = _suite_to_write(signed), len(plaintext)
        frame_length = phi_session.frame_length_bytes if frame_length_bytes is None else frame_length_bytes
        trail = phi_session.trail
        if trail is NO_TRAIL:  # even a use that records nothing costs 10% of 1 KiB
            materials, _ = phi_session.provider.encryption_materials(
                suite, pairs, plaintext_length_bytes=byte_count, context_bytes=context_bytes
            )
            return seal(materials, plaintext, frame_length)[0]
        with trail.recorded(
            operation, format=_FORMAT, suite_id=suite.suite_id, context=pairs, sealing=True, at_once=True
        ) as use:
            materials, use.cache_hit = phi_session.provider.encryption_materials(
                suite, pairs, plaintext_length_bytes=byte_count, context_bytes=context_bytes
            )
            use.origin = materials.origin
            result, message_id = seal(materials, plaintext, frame_length)
            use.message_id, use.byte_count = message_id.hex(), byte_count
        return result

    def _sealer(
        self, operation: str, context: Context | None, signed: bool, frame_length_bytes: int | None
    ) -> tuple[MessageSealer, Use]:
        """A stream's sealer, and its use, which has begun."""
        phi_session = self.session
        pairs, context_bytes = phi_session.contexts.to_bind(context)
        suite = _suite_to_write(signed)
        frame_length = phi_session.frame_length_bytes if frame_length_bytes is None else frame_length_bytes
        use = phi_session.recorded(operation, format=_FORMAT, suite_id=suite.suite_id, context=pairs, sealing=True)
        use.byte_count = 0
        try:
            materials, use.cache_hit = phi_session.provider.encryption_materials(
                suite, pairs, plaintext_length_bytes=None, context_bytes=context_bytes
            )
            use.origin = materials.origin
            sealer = MessageSealer(materials, frame_length, phi_session.limits)
        except BaseException as error:
            use.end(error)
            raise
        use.charge = partial(phi_session.provider.charge, materials)
        use.message_id = sealer.message_id.hex()
        return sealer, use

    def _open(
        self,
        operation: str,
        message: Buffer,
        context: Context | AnyContext | None,
        require_signed: bool,
        allow_uncommitted: bool,
        open_whole: Callable[[MessageHeader, DecryptionMaterials, ByteReader], tuple[T, int]],
    ) -> T:
        """Open one message in memory, on record."""
        message = as_bytes(message, "message")
        expected = self.session.contexts.expected(context)
        header = self._headers.find(message) if type(message) is bytes else None
        reader = ByteReader(message, 0 if header is None else header.length_bytes)
        if header is None:
            header = self._parse(operation, reader)
        if self.session.trail is NO_TRAIL:  # as above: 7%
            materials, _ = self._materials_to_open(header, expected, require_signed, allow_uncommitted)
            return open_whole(header, materials, reader)[0]
        with self._begun(operation, header) as use:
            materials, use.cache_hit = self._materials_to_open(header, expected, require_signed, allow_uncommitted)
            use.origin = materials.origin
            result, use.byte_count = open_whole(header, materials, reader)
        return result

    def _parse(self, operation: str, reader: ByteReader | StreamReader) -> MessageHeader:
        """The message's header; one that does not parse leaves one event."""
        trail = self.session.trail
        trail.check_actor()
        try:
            header = parse_header(reader, self.session.limits)
        except BaseException as error:
            trail.recorded(operation, format=_FORMAT, at_once=True).end(error)
            raise
        self._headers.keep(header)
        return header

    def _begun(self, operation: str, header: MessageHeader) -> Use:
        """The use that opens a message, whose begin is on record."""
        return self.session.trail.recorded(
            operation,
            format=_FORMAT,
            suite_id=header.suite.suite_id,
            message_id=header.message_id,
            context=self.session.contexts.loggable(header.context, header.context_bytes),
        )

    def _opener(
        self,
        header: MessageHeader,
        expected: Mapping[str, str] | None,
        require_signed: bool,
        allow_uncommitted: bool,
        use: Use,
    ) -> MessageOpener:
        use.byte_count = 0
        materials, use.cache_hit = self._materials_to_open(header, expected, require_signed, allow_uncommitted)
        use.origin = materials.origin
        return MessageOpener(header, materials)

    def _materials_to_open(
        self,
        header: MessageHeader,
        expected: Mapping[str, str] | None,
        require_signed: bool,
        allow_uncommitted: bool,
    ) -> tuple[DecryptionMaterials, bool]:
        """Check what the caller demands of the suite, before any key is used (rule 7), then get the key."""
        check_demands(header.suite, require_signed=require_signed, allow_uncommitted=allow_uncommitted)
        return self.session.provider.decryption_materials(
            header.suite,
            header.context,
            header.encrypted_data_keys,
            expected=expected,
            context_bytes=header.context_bytes,
        )

    def _spool(self) -> CiphertextSpool:
        limits = self.session.limits
        return CiphertextSpool(memory_bytes=limits.spool_memory_bytes, max_bytes=limits.max_spool_bytes)


def _suite_to_write(signed: bool) -> AlgorithmSuite:
    return AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384 if signed else AES_256_GCM_HKDF_SHA512_COMMIT_KEY
