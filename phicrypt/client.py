"""``PhiCrypt``: one object that holds a keyring, a bounded cache, a guard and an audit trail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from phicrypt.context import AnyContext, AuditContext, expected_context, plain_context, serialize_context
from phicrypt.errors import ConfigurationError, UnsupportedOperationError
from phicrypt.formats.esdk.frames import Buffer
from phicrypt.formats.esdk.header import MessageHeader, parse_header
from phicrypt.formats.esdk.opening import MessageOpener, open_message
from phicrypt.formats.esdk.sealing import (
    DEFAULT_FRAME_LENGTH_BYTES,
    MessageSealer,
    check_frame_length,
    seal_message,
)
from phicrypt.formats.esdk.summary import MessageSummary, summarize
from phicrypt.formats.reader import ByteReader, ReadableStream, ReadLimits, StreamReader
from phicrypt.guard import PhiGuard
from phicrypt.keys.cache import CachePolicy
from phicrypt.keys.provider import CacheControl, MaterialsProvider
from phicrypt.materials import DecryptionMaterials, EncryptionMaterials, KeyHolder, Keyring
from phicrypt.spool import CiphertextSpool
from phicrypt.streams import (
    DecryptingReader,
    EncryptingReader,
    SeekableDecryptingReader,
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
    from phicrypt.audit.trail import AuditTrail

_MEMO_CONTEXTS: Final = 1_024
Context = Mapping[str, str] | AuditContext


class PhiCrypt(KeyHolder):
    """Encrypts and decrypts under the keys of a keyring. Make one, share it among threads.

    Args:
        keyring: where data keys come from.
        cache: bounds on cached data keys; None calls the keyring for every message.
        audit: sinks of the audit trail (:mod:`phicrypt.audit`); none by default.
        guard: refuses contexts that look like PHI; by default one that refuses, None switches it off.
        limits: bounds on what is believed of a message that is read.
        frame_length_bytes: plaintext bytes of a frame in what is written.
        partition: keeps this object's cached keys apart from another's.

    Safe to share among threads; after a fork the child starts with an empty cache; cannot be copied
    or pickled, because it leads to keys.
    """

    def __init__(
        self,
        keyring: Keyring,
        *,
        cache: CachePolicy | None = CachePolicy(),  # noqa: B008 - frozen
        audit: Iterable[Any] | AuditTrail = (),
        guard: PhiGuard | None = PhiGuard(),  # noqa: B008 - holds no state that callers could share by accident
        limits: ReadLimits = ReadLimits(),  # noqa: B008 - frozen
        frame_length_bytes: int = DEFAULT_FRAME_LENGTH_BYTES,
        partition: str = "",
    ) -> None:
        if not isinstance(keyring, Keyring):
            raise ConfigurationError(
                f"a keyring was expected (KmsKeyring, HierarchicalKeyring, …), {type(keyring).__name__} came"
            )
        check_frame_length(frame_length_bytes, limits)
        self.provider = MaterialsProvider(keyring, cache, partition=partition)
        self.cache = CacheControl(self.provider)
        self.guard = guard
        self.limits = limits
        self.frame_length_bytes = frame_length_bytes
        self.trail: AuditTrail | None = None
        self._contexts: dict[tuple[tuple[str, str], ...], tuple[dict[str, str], bytes]] = {}

    def __repr__(self) -> str:
        return f"<PhiCrypt with {self.provider.keyring!r}>"

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

        Raises ConfigurationError, PhiInContextError, KeyAccessError, LimitExceededError.
        """
        _check_bytes(plaintext, "plaintext")
        pairs, context_bytes = self._context_to_bind(context)
        materials, _ = self.provider.encryption_materials(
            _suite_to_write(signed),
            pairs,
            plaintext_length_bytes=len(plaintext),
            context_bytes=context_bytes,
        )
        message, _ = seal_message(materials, plaintext, frame_length_bytes or self.frame_length_bytes, self.limits)
        return message

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
        UnsupportedOperationError, KeyAccessError, AuthenticationError.
        """
        _check_bytes(message, "message")
        expected = expected_context(context)
        reader = ByteReader(message)
        header = parse_header(reader, self.limits)
        opener = self._opener(header, expected, require_signed, allow_uncommitted)
        spool = self._spool()
        try:
            return open_message(opener, reader, spool, self.limits)
        finally:
            spool.close()

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
        sealer, materials = self._sealer(context, signed, frame_length_bytes)
        return sum(
            write_all(sink, piece)
            for piece in sealed_pieces(sealer, source, lambda count: self.provider.charge(materials, count))
        )

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
        expected = expected_context(context)
        reader = StreamReader(source)
        header = parse_header(reader, self.limits)
        opener = self._opener(header, expected, require_signed, allow_uncommitted)
        with self._spool() as spool:
            return sum(write_all(sink, piece) for piece in opener.pieces(reader, spool, self.limits))

    def encrypting_reader(
        self,
        source: ReadableStream,
        *,
        context: Context | None = None,
        signed: bool = False,
        frame_length_bytes: int | None = None,
    ) -> EncryptingReader:
        """A readable binary object that yields the message of ``source``; never seekable (rule 2)."""
        sealer, materials = self._sealer(context, signed, frame_length_bytes)
        return EncryptingReader(sealer, source, lambda count: self.provider.charge(materials, count))

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
        expected = expected_context(context)
        seekable = getattr(source, "seekable", None)
        can_seek = seekable is not None and seekable()
        message_start: int = source.tell() if can_seek else 0  # type: ignore[attr-defined]
        reader = StreamReader(source)
        header = parse_header(reader, self.limits)
        opener = self._opener(header, expected, require_signed, allow_uncommitted)
        if can_seek and header.is_framed and not header.suite.is_signed:
            return SeekableDecryptingReader(opener, reader, source, self.limits, message_start)
        return DecryptingReader(opener, reader, self.limits)

    def inspect(self, message: Buffer | ReadableStream) -> MessageSummary:
        """What a message says about itself, without any key: nothing in the answer is verified.

        Takes bytes or a binary source (of which it reads the header, or all for the lengths if it is
        seekable). Raises FormatError and LimitExceededError.
        """
        return summarize(message, self.limits)

    def _context_to_bind(self, context: Context | None) -> tuple[dict[str, str], bytes]:
        """The checked and guarded pairs with their canonical bytes; contexts repeat, so they are kept."""
        memo_key = tuple(context.items()) if type(context) is dict else None
        if memo_key is not None:
            try:
                known = self._contexts.get(memo_key)
            except TypeError:  # an unhashable value, which plain_context names
                known = None
            if known is not None:
                return known
        pairs = plain_context(context)
        if self.guard is not None:
            pairs = dict(self.guard.check(pairs))
        checked = (pairs, serialize_context(pairs))
        if memo_key is not None:
            if len(self._contexts) >= _MEMO_CONTEXTS:
                self._contexts.clear()
            self._contexts[memo_key] = checked
        return checked

    def _sealer(
        self, context: Context | None, signed: bool, frame_length_bytes: int | None
    ) -> tuple[MessageSealer, EncryptionMaterials]:
        pairs, context_bytes = self._context_to_bind(context)
        materials, _ = self.provider.encryption_materials(
            _suite_to_write(signed), pairs, plaintext_length_bytes=None, context_bytes=context_bytes
        )
        return MessageSealer(materials, frame_length_bytes or self.frame_length_bytes, self.limits), materials

    def _opener(
        self,
        header: MessageHeader,
        expected: Mapping[str, str] | None,
        require_signed: bool,
        allow_uncommitted: bool,
    ) -> MessageOpener:
        return MessageOpener(header, self._materials_for(header, expected, require_signed, allow_uncommitted)[0])

    def _materials_for(
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

    def _spool(self) -> CiphertextSpool:
        return CiphertextSpool(memory_bytes=self.limits.spool_memory_bytes, max_bytes=self.limits.max_spool_bytes)


def _suite_to_write(signed: bool) -> AlgorithmSuite:
    return AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384 if signed else AES_256_GCM_HKDF_SHA512_COMMIT_KEY


def _check_bytes(value: object, name: str) -> None:
    if not isinstance(value, bytes | bytearray | memoryview):
        hint = "; encode it first: text.encode()" if isinstance(value, str) else ""
        raise ConfigurationError(f"{name} is bytes, {type(value).__name__} came{hint}")
