"""What the verbs do with their session: materials of a message, its sealer or opener, and a use on record."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from phicrypt.audit.trail import NO_TRAIL
from phicrypt.audit.uses import Use
from phicrypt.core.materials import DecryptionMaterials, EncryptionMaterials, KeyHolder
from phicrypt.core.spool import CiphertextSpool
from phicrypt.core.suites import (
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
    AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384,
    AlgorithmSuite,
    check_demands,
)
from phicrypt.formats.esdk.frames import Buffer
from phicrypt.formats.esdk.header import MessageHeader, parse_header
from phicrypt.formats.esdk.header_memo import HeaderMemo
from phicrypt.formats.esdk.opening import MessageOpener
from phicrypt.formats.esdk.sealing import MessageSealer, check_frame_length
from phicrypt.formats.reader import ByteReader, StreamReader
from phicrypt.guard.bound_contexts import BoundContext, ExpectedContext
from phicrypt.session import Session

_FORMAT: Final = "esdk"
T = TypeVar("T")


class MessageUses(KeyHolder):
    """A session's keys, as messages use them; :class:`~phicrypt.messages.verbs.MessageClient` has the verbs.

    Attributes:
        session: keys, guard, audit trail and bounds.
    """

    def __init__(self, phi_session: Session) -> None:
        check_frame_length(phi_session.frame_length_bytes, phi_session.limits)
        self.session = phi_session
        self._headers = HeaderMemo()

    def _seal(
        self,
        operation: str,
        plaintext: Buffer,
        bound: BoundContext,
        signed: bool,
        frame_length_bytes: int | None,
        seal: Callable[[EncryptionMaterials, Buffer, int], tuple[T, bytes]],
    ) -> T:
        """Seal one message in memory, on record; ``seal`` gives the result and the message id.

        The plaintext is held by :func:`phicrypt.core.memory.as_bytes`.
        """
        phi_session = self.session
        pairs, context_bytes, stored, required = bound
        suite, byte_count = _suite_to_write(signed), len(plaintext)
        frame_length = phi_session.frame_length_bytes if frame_length_bytes is None else frame_length_bytes
        trail = phi_session.trail
        if trail is NO_TRAIL:  # even a use that records nothing costs 10% of 1 KiB
            materials, _ = phi_session.provider.encryption_materials(
                suite,
                pairs,
                plaintext_length_bytes=byte_count,
                context_bytes=context_bytes,
                required=required,
            )
            return seal(materials, plaintext, frame_length)[0]
        with trail.recorded(
            operation,
            format=_FORMAT,
            suite_id=suite.suite_id,
            context=stored,
            required_names=required.pairs,
            sealing=True,
            at_once=True,
        ) as use:
            materials, use.cache_hit = phi_session.provider.encryption_materials(
                suite,
                pairs,
                plaintext_length_bytes=byte_count,
                context_bytes=context_bytes,
                required=required,
            )
            use.origin = materials.origin
            result, message_id = seal(materials, plaintext, frame_length)
            use.message_id, use.byte_count = message_id.hex(), byte_count
        return result

    def _sealer(
        self, operation: str, bound: BoundContext, signed: bool, frame_length_bytes: int | None
    ) -> tuple[MessageSealer, Use]:
        """A stream's sealer, and its use, which has begun."""
        phi_session = self.session
        suite = _suite_to_write(signed)
        frame_length = phi_session.frame_length_bytes if frame_length_bytes is None else frame_length_bytes
        use = phi_session.recorded(
            operation,
            format=_FORMAT,
            suite_id=suite.suite_id,
            context=bound.stored,
            required_names=bound.required.pairs,
            sealing=True,
        )
        use.byte_count = 0
        try:
            materials, use.cache_hit = phi_session.provider.encryption_materials(
                suite,
                bound.pairs,
                plaintext_length_bytes=None,
                context_bytes=bound.context_bytes,
                required=bound.required,
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
        expected: ExpectedContext,
        require_signed: bool,
        allow_uncommitted: bool,
        open_whole: Callable[[MessageHeader, DecryptionMaterials, ByteReader], tuple[T, int]],
    ) -> T:
        """Open one message in memory, on record."""
        header = self._headers.find(message) if type(message) is bytes else None
        reader = ByteReader(message, 0 if header is None else header.length_bytes)
        if header is None:
            header = self._parse(operation, reader)
        if self.session.trail is NO_TRAIL:  # as above: 7%
            materials, _ = self._materials_to_open(header, expected, require_signed, allow_uncommitted)
            return open_whole(header, materials, reader)[0]
        with self._begun(operation, header, expected) as use:
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

    def _begun(self, operation: str, header: MessageHeader, expected: ExpectedContext) -> Use:
        """The use that opens a message, whose begin is on record."""
        return self.session.trail.recorded(
            operation,
            format=_FORMAT,
            suite_id=header.suite.suite_id,
            message_id=header.message_id,
            context=self.session.contexts.loggable(header.context, header.context_bytes),
            required_names=expected.required.pairs,
        )

    def _opener(
        self,
        header: MessageHeader,
        expected: ExpectedContext,
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
        expected: ExpectedContext,
        require_signed: bool,
        allow_uncommitted: bool,
    ) -> tuple[DecryptionMaterials, bool]:
        """Check what the caller demands of the suite, before any key is used (rule 7), then get the key."""
        check_demands(header.suite, require_signed=require_signed, allow_uncommitted=allow_uncommitted)
        return self.session.provider.decryption_materials(
            header.suite,
            header.context,
            header.encrypted_data_keys,
            expected=expected.stored,
            context_bytes=header.context_bytes,
            required=expected.required,
        )

    def _spool(self) -> CiphertextSpool:
        limits = self.session.limits
        return CiphertextSpool(memory_bytes=limits.spool_memory_bytes, max_bytes=limits.max_spool_bytes)


def _suite_to_write(signed: bool) -> AlgorithmSuite:
    return AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384 if signed else AES_256_GCM_HKDF_SHA512_COMMIT_KEY
