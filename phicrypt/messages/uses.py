"""Each use of a key by a message, with its audit events: what the verbs of the client have in common.

Sealing one message leaves one audit event; whatever opens, and every stream, leaves a begin event
before the first plaintext byte and a linked end event (rule 20).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from phicrypt.audit.trail import NO_TRAIL
from phicrypt.core.context import AnyContext
from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import DecryptionMaterials, EncryptionMaterials, KeyHolder
from phicrypt.core.spool import CiphertextSpool
from phicrypt.core.suites import (
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384,
    AlgorithmSuite,
)
from phicrypt.errors import ConfigurationError, UnsupportedOperationError
from phicrypt.formats.esdk.frames import Buffer
from phicrypt.formats.esdk.header import MessageHeader, parse_header
from phicrypt.formats.esdk.header_memo import HeaderMemo
from phicrypt.formats.esdk.opening import MessageOpener
from phicrypt.formats.esdk.sealing import MessageSealer, check_frame_length
from phicrypt.formats.reader import ByteReader, StreamReader
from phicrypt.guard.bound_contexts import Context, ContextBinding
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.keys.provider import MaterialsProvider
from phicrypt.messages.stream_uses import StreamUse
from phicrypt.session import Session

if TYPE_CHECKING:
    from phicrypt.audit.trail import AuditTrail
    from phicrypt.audit.uses import Use

_FORMAT: Final = "esdk"
T = TypeVar("T")


class MessageUses(KeyHolder):
    """Materials, contexts and audit events around the sealing and opening of messages."""

    def __init__(
        self,
        provider: MaterialsProvider,
        trail: AuditTrail | None,
        guard: PhiGuard | None,
        limits: ReadLimits,
        frame_length_bytes: int,
        threads: int,
    ) -> None:
        check_frame_length(frame_length_bytes, limits)
        self.provider = provider
        self.trail = trail
        self.guard = guard
        self.limits = limits
        self.frame_length_bytes = frame_length_bytes
        self.threads = threads
        self.contexts = ContextBinding(guard)
        self.session = Session(
            provider, self.contexts, guard, trail or NO_TRAIL, limits, frame_length_bytes, threads
        )
        self._headers = HeaderMemo()

    def _seal_once(
        self,
        operation: str,
        plaintext: Buffer,
        context: Context | None,
        signed: bool,
        seal: Callable[[EncryptionMaterials, Buffer], tuple[T, bytes]],
    ) -> T:
        """Seal one message in memory, with its one audit event; ``seal`` gives the result and the message id."""
        plaintext = _as_bytes(plaintext, "plaintext")
        pairs, context_bytes = self.contexts.to_bind(context)
        suite = _suite_to_write(signed)
        byte_count = len(plaintext)
        trail = self.trail
        if trail is None:
            materials, _ = self.provider.encryption_materials(
                suite, pairs, plaintext_length_bytes=byte_count, context_bytes=context_bytes
            )
            return seal(materials, plaintext)[0]
        started_ns = time.perf_counter_ns()
        acting = trail.check_actor()
        try:
            materials, hit = self.provider.encryption_materials(
                suite, pairs, plaintext_length_bytes=byte_count, context_bytes=context_bytes
            )
            result, message_id = seal(materials, plaintext)
        except BaseException as error:
            trail.record(
                operation,
                format=_FORMAT,
                suite_id=suite.suite_id,
                context=pairs,
                started_ns=started_ns,
                error=error,
                captured=acting,
            )
            raise
        trail.record(
            operation,
            format=_FORMAT,
            suite_id=suite.suite_id,
            message_id=message_id,
            context=pairs,
            origin=materials.origin,
            cache_hit=hit,
            byte_count=byte_count,
            started_ns=started_ns,
            captured=acting,
        )
        return result

    def _open_once(
        self,
        operation: str,
        message: Buffer,
        context: Context | AnyContext | None,
        require_signed: bool,
        allow_uncommitted: bool,
        open_whole: Callable[[MessageHeader, DecryptionMaterials, ByteReader], tuple[T, int]],
    ) -> T:
        """Open one message in memory, between its two audit events."""
        message = _as_bytes(message, "message")
        expected = self.contexts.expected(context)
        known = self._headers.find(message) if type(message) is bytes else None
        reader = ByteReader(message, 0 if known is None else known.length_bytes)
        header, use = self._begin_opening(operation, reader, known)
        try:
            materials, hit = self.materials_to_open(header, expected, require_signed, allow_uncommitted)
            if use is not None:
                use.origin, use.cache_hit = materials.origin, hit
            result, byte_count = open_whole(header, materials, reader)
        except BaseException as error:
            if use is not None:
                use.end(error=error)
            raise
        if use is not None:
            use.end(byte_count=byte_count)
        return result

    def _begin_sealing(
        self, operation: str, context: Context | None, signed: bool, frame_length_bytes: int | None
    ) -> tuple[MessageSealer, StreamUse]:
        pairs, context_bytes = self.contexts.to_bind(context)
        suite = _suite_to_write(signed)
        frame_length = self._frame_length(frame_length_bytes)
        audit_use = None
        if self.trail is not None:
            audit_use = self.trail.recorded(
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
        trail = self.trail
        if header is None:
            if trail is not None:
                trail.check_actor()
            try:
                header = parse_header(reader, self.limits)
            except BaseException as error:
                if trail is not None:
                    trail.record(operation, format=_FORMAT, error=error, opening=True)
                raise
            self._headers.keep(header)
        if trail is None:
            return header, None
        return header, trail.recorded(
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


def _as_bytes(value: object, name: str) -> Buffer:
    """The value as a buffer whose ``len`` is its number of bytes; raises ConfigurationError for others."""
    if type(value) is bytes:
        return value
    if isinstance(value, (bytes, bytearray)):
        return memoryview(value)  # its length cannot change under us, nor be another than it says
    if isinstance(value, memoryview) and value.c_contiguous:
        return value.cast("B")
    hint = "; encode it first: text.encode()" if isinstance(value, str) else ""
    raise ConfigurationError(f"{name} is bytes or a contiguous buffer, {type(value).__name__} came{hint}")
