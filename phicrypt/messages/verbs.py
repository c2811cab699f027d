"""Messages: bytes and streams to and from the AWS Encryption SDK's format."""

from __future__ import annotations

from typing import Any

from phicrypt.core.context import AnyContext
from phicrypt.core.materials import DecryptionMaterials, EncryptionMaterials
from phicrypt.core.streams import ReadableStream, WritableStream, write_all
from phicrypt.errors import ConfigurationError
from phicrypt.formats.esdk.frames import Buffer
from phicrypt.formats.esdk.header import MessageHeader
from phicrypt.formats.esdk.opening import open_message, open_message_into
from phicrypt.formats.esdk.sealing import seal_message, seal_message_into
from phicrypt.formats.esdk.summary import MessageSummary, summarize
from phicrypt.formats.reader import ByteReader, StreamReader
from phicrypt.guard.bound_contexts import Context
from phicrypt.messages.stream_uses import StreamUse, sealed_pieces
from phicrypt.messages.streams import DecryptingReader, EncryptingReader, SeekableDecryptingReader
from phicrypt.messages.uses import MessageUses


class MessageClient(MessageUses):
    """Encrypts and decrypts messages with a provider's keys; :class:`phicrypt.PhiCrypt` is one."""

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

        def seal(materials: EncryptionMaterials, plaintext: Buffer) -> tuple[bytes, bytes]:
            return seal_message(materials, plaintext, frame_length, self.limits, threads=self.threads)

        frame_length = self._frame_length(frame_length_bytes)
        return self._seal_once("encrypt", plaintext, context, signed, seal)

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
        output = _writable_view(buffer, plaintext)

        def seal(materials: EncryptionMaterials, plaintext: Buffer) -> tuple[int, bytes]:
            return seal_message_into(materials, plaintext, frame_length, output, self.limits, threads=self.threads)

        frame_length = self._frame_length(frame_length_bytes)
        return self._seal_once("encrypt_into", plaintext, context, signed, seal)

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
            plaintext = open_message(header, materials, reader, self._spool, self.limits, threads=self.threads)
            return plaintext, len(plaintext)

        return self._open_once("decrypt", message, context, require_signed, allow_uncommitted, open_whole)

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
        output = _writable_view(buffer, message)
        length = 0

        def open_whole(
            header: MessageHeader, materials: DecryptionMaterials, reader: ByteReader
        ) -> tuple[int, int]:
            nonlocal length
            length = open_message_into(
                header, materials, reader, self._spool, self.limits, output, threads=self.threads
            )
            return length, length

        try:
            return self._open_once("decrypt_into", message, context, require_signed, allow_uncommitted, open_whole)
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
        the frames it needs. See :class:`phicrypt.messages.streams.DecryptingReader` for what closing does.
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


def _writable_view(buffer: bytearray | memoryview, source: Buffer) -> memoryview:
    view = memoryview(buffer)
    if view.readonly or not view.c_contiguous:
        raise ConfigurationError("a writable contiguous buffer was expected, such as a bytearray")
    if isinstance(source, bytearray | memoryview) and memoryview(source).obj is view.obj:
        raise ConfigurationError(
            "the buffer belongs to the object that is read from, and would overwrite it; give it memory of its own"
        )
    return view.cast("B")
