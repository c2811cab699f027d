"""Messages: bytes and streams to and from the AWS Encryption SDK's format, with their audit events.

Sealing one message leaves one audit event; whatever opens, and every stream, leaves a begin event
before the first plaintext byte and a linked end event (rule 20).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from phicrypt.context import AnyContext
from phicrypt.context_binding import Context, ContextBinding
from phicrypt.errors import ConfigurationError, UnsupportedOperationError
from phicrypt.formats.esdk.frames import Buffer
from phicrypt.formats.esdk.header import MessageHeader, parse_header
from phicrypt.formats.esdk.header_memo import HeaderMemo
from phicrypt.formats.esdk.opening import MessageOpener, open_message
from phicrypt.formats.esdk.sealing import MessageSealer, check_frame_length, seal_message
from phicrypt.formats.esdk.summary import MessageSummary, summarize
from phicrypt.formats.reader import ByteReader, ReadableStream, ReadLimits, StreamReader
from phicrypt.guard import PhiGuard
from phicrypt.keys.provider import MaterialsProvider
from phicrypt.materials import DecryptionMaterials, EncryptionMaterials, KeyHolder
from phicrypt.spool import CiphertextSpool
from phicrypt.streams import (
    DecryptingReader,
    EncryptingReader,
    SeekableDecryptingReader,
    StreamUse,
    WritableStream,
    sealed_pieces,
    write_all,
)
from phicrypt.suites import (
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384,
    AlgorithmSuite,
)

if TYPE_CHECKING:
    from phicrypt.audit.trail import AuditTrail, Use

_FORMAT: Final = "esdk"


class MessageClient(KeyHolder):
    """Encrypts and decrypts messages with a provider's keys; :class:`phicrypt.PhiCrypt` is one."""

    def __init__(
        self,
        provider: MaterialsProvider,
        trail: AuditTrail | None,
        guard: PhiGuard | None,
        limits: ReadLimits,
        frame_length_bytes: int,
    ) -> None:
        check_frame_length(frame_length_bytes, limits)
        self.provider = provider
        self.trail = trail
        self.guard = guard
        self.limits = limits
        self.frame_length_bytes = frame_length_bytes
        self.contexts = ContextBinding(guard)
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
        _check_bytes(plaintext, "plaintext")
        pairs, context_bytes = self.contexts.to_bind(context)
        suite = _suite_to_write(signed)
        frame_length = self._frame_length(frame_length_bytes)
        if self.trail is not None:
            return self._encrypt_audited(self.trail, plaintext, suite, pairs, context_bytes, frame_length)
        materials, _ = self.provider.encryption_materials(
            suite, pairs, plaintext_length_bytes=len(plaintext), context_bytes=context_bytes
        )
        return seal_message(materials, plaintext, frame_length, self.limits)[0]

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
        _check_bytes(message, "message")
        expected = self.contexts.expected(context)
        known = self._headers.find(message) if type(message) is bytes else None
        reader = ByteReader(message, 0 if known is None else known.length_bytes)
        header, use = self._begin_opening("decrypt", reader, known)
        spool = self._spool()
        try:
            opener = self._opener(header, expected, require_signed, allow_uncommitted, use)
            plaintext = open_message(opener, reader, spool, self.limits)
        except BaseException as error:
            if use is not None:
                use.end(error=error)
            raise
        finally:
            spool.close()
        if use is not None:
            use.end(byte_count=len(plaintext))
        return plaintext

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
        sealer, use = self._begin_sealing("encrypt_stream", context, signed, frame_length_bytes)
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
        expected = self.contexts.expected(context)
        reader = StreamReader(source)
        header, audit_use = self._begin_opening("decrypt_stream", reader)
        with StreamUse(audit_use) as use, self._spool() as spool:
            opener = self._opener(header, expected, require_signed, allow_uncommitted, audit_use)
            for piece in opener.pieces(reader, spool, self.limits):
                use.count(write_all(sink, piece))
            return use.byte_count

    def encrypting_reader(
        self,
        source: ReadableStream,
        *,
        context: Context | None = None,
        signed: bool = False,
        frame_length_bytes: int | None = None,
    ) -> EncryptingReader:
        """A readable binary object that yields the message of ``source``; never seekable (rule 2)."""
        sealer, use = self._begin_sealing("encrypting_reader", context, signed, frame_length_bytes)
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
        the frames it needs. See :class:`phicrypt.streams.DecryptingReader` for what closing does.
        """
        expected = self.contexts.expected(context)
        seekable: Any = getattr(source, "seekable", None)
        can_seek = seekable is not None and seekable()
        message_start: int = source.tell() if can_seek else 0  # type: ignore[attr-defined]
        reader = StreamReader(source)
        header, audit_use = self._begin_opening("decrypting_reader", reader)
        use = StreamUse(audit_use)
        try:
            opener = self._opener(header, expected, require_signed, allow_uncommitted, audit_use)
            if can_seek and header.is_framed and not header.suite.is_signed:
                return SeekableDecryptingReader(opener, reader, self.limits, use, source, message_start)
            return DecryptingReader(opener, reader, self.limits, use)
        except BaseException as error:
            use.end(error)
            raise

    def inspect(self, message: Buffer | ReadableStream) -> MessageSummary:
        """What a message says about itself, without any key: nothing in the answer is verified.

        Takes bytes or a binary source (of which it reads the header; a seekable one also tells the
        lengths, and stands where it stood). Raises FormatError and LimitExceededError.
        """
        return summarize(message, self.limits)

    def _encrypt_audited(
        self,
        trail: AuditTrail,
        plaintext: Buffer,
        suite: AlgorithmSuite,
        pairs: dict[str, str],
        context_bytes: bytes,
        frame_length_bytes: int,
    ) -> bytes:
        started_ns = time.perf_counter_ns()
        acting = trail.check_actor()
        try:
            materials, hit = self.provider.encryption_materials(
                suite, pairs, plaintext_length_bytes=len(plaintext), context_bytes=context_bytes
            )
            message, message_id = seal_message(materials, plaintext, frame_length_bytes, self.limits)
        except BaseException as error:
            trail.record(
                "encrypt",
                format=_FORMAT,
                suite_id=suite.suite_id,
                context=pairs,
                started_ns=started_ns,
                error=error,
                captured=acting,
            )
            raise
        trail.record(
            "encrypt",
            format=_FORMAT,
            suite_id=suite.suite_id,
            message_id=message_id,
            context=pairs,
            origin=materials.origin,
            cache_hit=hit,
            byte_count=len(plaintext),
            started_ns=started_ns,
            captured=acting,
        )
        return message

    def _begin_sealing(
        self, operation: str, context: Context | None, signed: bool, frame_length_bytes: int | None
    ) -> tuple[MessageSealer, StreamUse]:
        pairs, context_bytes = self.contexts.to_bind(context)
        suite = _suite_to_write(signed)
        frame_length = self._frame_length(frame_length_bytes)
        audit_use = None
        if self.trail is not None:
            audit_use = self.trail.begin(
                operation, format=_FORMAT, suite_id=suite.suite_id, context=pairs, sealing=True
            )
        use = StreamUse(audit_use)
        try:
            materials, hit = self.provider.encryption_materials(
                suite, pairs, plaintext_length_bytes=None, context_bytes=context_bytes
            )
            sealer = MessageSealer(materials, frame_length, self.limits)
        except BaseException as error:
            use.end(error)
            raise
        use.charge = _charge_to(self.provider, materials)
        if audit_use is not None:
            audit_use.origin, audit_use.cache_hit = materials.origin, hit
            audit_use.message_id = sealer.message_id.hex()
        return sealer, use

    def _begin_opening(
        self, operation: str, reader: ByteReader | StreamReader, header: MessageHeader | None = None
    ) -> tuple[MessageHeader, Use | None]:
        """Parse the header and write the begin event; a header that does not parse leaves one event."""
        if self.trail is not None:
            self.trail.check_actor()
        try:
            if header is None:
                header = parse_header(reader, self.limits)
                self._headers.keep(header)
        except BaseException as error:
            if self.trail is not None:
                self.trail.record(operation, format=_FORMAT, error=error, opening=True)
            raise
        if self.trail is None:
            return header, None
        return header, self.trail.begin(
            operation,
            format=_FORMAT,
            suite_id=header.suite.suite_id,
            message_id=header.message_id,
            context=self.contexts.loggable(header.context, header.context_bytes),
        )

    def materials_to_open(
        self,
        header: MessageHeader,
        expected: Mapping[str, str] | None,
        require_signed: bool,
        allow_uncommitted: bool,
    ) -> tuple[DecryptionMaterials, bool]:
        """Check what the caller demands of the suite, before any key is used (rule 7), then get the key."""
        suite = header.suite
        if require_signed and not suite.is_signed:
            raise UnsupportedOperationError(f"a signed message was required; this one is {suite.name}")
        if not suite.is_committing and not allow_uncommitted:
            raise UnsupportedOperationError(
                f"the message's suite {suite.name} does not commit to its key; "
                "pass allow_uncommitted=True to open old messages from a writer you trust"
            )
        return self.provider.decryption_materials(
            suite,
            header.context,
            header.encrypted_data_keys,
            expected=expected,
            context_bytes=header.context_bytes,
        )

    def _opener(
        self,
        header: MessageHeader,
        expected: Mapping[str, str] | None,
        require_signed: bool,
        allow_uncommitted: bool,
        use: Use | None,
    ) -> MessageOpener:
        materials, hit = self.materials_to_open(header, expected, require_signed, allow_uncommitted)
        if use is not None:
            use.origin, use.cache_hit = materials.origin, hit
        return MessageOpener(header, materials)

    def _frame_length(self, frame_length_bytes: int | None) -> int:
        return self.frame_length_bytes if frame_length_bytes is None else frame_length_bytes

    def _spool(self) -> CiphertextSpool:
        return CiphertextSpool(memory_bytes=self.limits.spool_memory_bytes, max_bytes=self.limits.max_spool_bytes)


def _charge_to(provider: MaterialsProvider, materials: EncryptionMaterials) -> Any:
    return lambda byte_count: provider.charge(materials, byte_count)


def _suite_to_write(signed: bool) -> AlgorithmSuite:
    return AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384 if signed else AES_256_GCM_HKDF_SHA512_COMMIT_KEY


def _check_bytes(value: object, name: str) -> None:
    if not isinstance(value, bytes | bytearray | memoryview):
        hint = "; encode it first: text.encode()" if isinstance(value, str) else ""
        raise ConfigurationError(f"{name} is bytes, {type(value).__name__} came{hint}")
