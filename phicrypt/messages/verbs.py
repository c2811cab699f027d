"""Messages: bytes and streams to and from the AWS Encryption SDK's format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from phicrypt.core.context import AnyContext
from phicrypt.core.materials import DecryptionMaterials, EncryptionMaterials
from phicrypt.core.memory import as_bytes, writable_view
from phicrypt.core.streams import ReadableStream, WritableStream, write_all
from phicrypt.formats.esdk.frames import Buffer
from phicrypt.formats.esdk.header import MessageHeader
from phicrypt.formats.esdk.opening import open_message, open_message_into
from phicrypt.formats.esdk.pieces import sealed_pieces
from phicrypt.formats.esdk.sealing import seal_message, seal_message_into
from phicrypt.formats.esdk.summary import MessageSummary, summarize
from phicrypt.formats.reader import ByteReader, StreamReader
from phicrypt.guard.bound_contexts import Context
from phicrypt.messages.streams import DecryptingReader, EncryptingReader, SeekableDecryptingReader
from phicrypt.messages.uses import MessageUses


class MessageClient(MessageUses):
    """Encrypts and decrypts messages with a session's keys; :class:`phicrypt.PhiCrypt` is one.

    Sealing one message in memory leaves one audit event; whatever opens, and every stream, leaves a begin
    event before the first plaintext byte and a linked end event (rule 20).
    """

    def encrypt(
        self,
        plaintext: Buffer,
        *,
        context: Context | None = None,
        signed: bool = False,
        frame_length_bytes: int | None = None,
        required_context: Iterable[str] | None = None,
    ) -> bytes:
        """Encrypt bytes into an AWS Encryption SDK message.

        Args:
            plaintext: bytes; ``str`` is refused, encode it first.
            context: pairs bound to the message; they stand in clear in it and in CloudTrail.
            signed: sign with a fresh ECDSA P-384 key (suite 0x0578 instead of 0x0478).
            frame_length_bytes: overrides the client's for this message.
            required_context: names of pairs of ``context`` that the message is bound to and does not store;
                overrides the client's, ``()`` for none. A ``KmsKeyring`` still shows them to KMS.

        Raises ConfigurationError, PhiInContextError, KeyAccessError, LimitExceededError, AuditError.
        """

        def seal(materials: EncryptionMaterials, plaintext: Buffer, frame_length: int) -> tuple[bytes, bytes]:
            return seal_message(
                materials, plaintext, frame_length, phi_session.limits, threads=phi_session.threads
            )

        phi_session = self.session
        plaintext = as_bytes(plaintext, "plaintext")  # first: reading a context runs code of the caller's
        bound = phi_session.contexts.to_bind(context, required_context)
        return self._seal("encrypt", plaintext, bound, signed, frame_length_bytes, seal)

    def encrypt_into(
        self,
        plaintext: Buffer,
        buffer: bytearray | memoryview,
        *,
        context: Context | None = None,
        signed: bool = False,
        frame_length_bytes: int | None = None,
        required_context: Iterable[str] | None = None,
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
        plaintext = as_bytes(plaintext, "plaintext")  # first: reading a context runs code of the caller's
        bound = phi_session.contexts.to_bind(context, required_context)
        return self._seal("encrypt_into", plaintext, bound, signed, frame_length_bytes, seal)

    def decrypt(
        self,
        message: Buffer,
        *,
        context: Context | AnyContext | None = None,
        require_signed: bool = False,
        allow_uncommitted: bool = False,
        required_context: Iterable[str] | None = None,
    ) -> bytes:
        """The plaintext of an AWS Encryption SDK message, after all of it was verified.

        Args:
            message: a whole message of format version 1 or 2.
            context: the pairs that the message must hold (others may be there too). Required;
                ``ANY_CONTEXT`` accepts whatever the message holds.
            require_signed: refuse unsigned messages, before any key is used.
            allow_uncommitted: also open messages of suites without key commitment, which the
                AWS Encryption SDK wrote before its version 2.
            required_context: names of pairs of ``context`` that the message must not store; overrides the
                client's. Their values are compared by the header's tag.

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
        message, expected = as_bytes(message, "message"), self.session.contexts.expected(context, required_context)
        return self._open("decrypt", message, expected, require_signed, allow_uncommitted, open_whole)

    def decrypt_into(
        self,
        message: Buffer,
        buffer: bytearray | memoryview,
        *,
        context: Context | AnyContext | None = None,
        require_signed: bool = False,
        allow_uncommitted: bool = False,
        required_context: Iterable[str] | None = None,
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
            message, expected = (
                as_bytes(message, "message"),
                self.session.contexts.expected(context, required_context),
            )
            return self._open("decrypt_into", message, expected, require_signed, allow_uncommitted, open_whole)
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
        required_context: Iterable[str] | None = None,
    ) -> int:
        """Encrypt a binary source into a binary sink; returns the bytes written.

        Neither is closed. After an error the sink holds a truncated message, which nothing opens.
        """
        bound = self.session.contexts.to_bind(context, required_context)
        sealer, use = self._sealer("encrypt_stream", bound, signed, frame_length_bytes)
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
        required_context: Iterable[str] | None = None,
    ) -> int:
        """Decrypt a binary source into a binary sink; returns the bytes written.

        Each frame is verified before it is written, the last one only after the signature and the
        end of the source were checked. **After an error, discard what the sink holds**: verified
        frames of a message that turned out incomplete or not signed as claimed.
        """
        expected = self.session.contexts.expected(context, required_context)
        reader = StreamReader(source)
        header = self._parse("decrypt_stream", reader)
        with self._begun("decrypt_stream", header, expected) as use, self._spool() as spool:
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
        required_context: Iterable[str] | None = None,
    ) -> EncryptingReader:
        """A readable binary object that yields the message of ``source``; never seekable (rule 2)."""
        bound = self.session.contexts.to_bind(context, required_context)
        sealer, use = self._sealer("encrypting_reader", bound, signed, frame_length_bytes)
        return EncryptingReader(sealer, source, use)

    def decrypting_reader(
        self,
        source: ReadableStream,
        *,
        context: Context | AnyContext | None = None,
        require_signed: bool = False,
        allow_uncommitted: bool = False,
        required_context: Iterable[str] | None = None,
    ) -> DecryptingReader:
        """A readable binary object that yields the plaintext of the message in ``source``.

        Seekable when the source is and the message is framed and unsigned; then a seek reads only
        the frames it needs. See :class:`phicrypt.messages.streams.DecryptingReader` for what closing does.
        """
        expected = self.session.contexts.expected(context, required_context)
        seekable: Any = getattr(source, "seekable", None)
        can_seek = seekable is not None and seekable()
        message_start: int = source.tell() if can_seek else 0  # type: ignore[attr-defined]
        reader = StreamReader(source)
        header = self._parse("decrypting_reader", reader)
        use, limits = self._begun("decrypting_reader", header, expected), self.session.limits
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
        lengths, and stands where it stood). The names that this client declares as required context are
        told beside it: no message stores them. Raises FormatError and LimitExceededError.
        """
        declared = tuple(sorted(self.session.contexts.required_context))
        return replace(summarize(message, self.session.limits), required_context_names=declared)
