"""Writing a message: header, frames in order, footer (``client-apis/encrypt.md``).

The message id, the derivation and the seal of the header happen in one call, and a sealer belongs
to its process: no message key is ever used at a position twice (rules 1 and 3). A header is sealed
once; there is no way to seal another one under the same data key and message id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import EncryptionMaterials
from phicrypt.core.memory import bytes_to_fill
from phicrypt.core.primitives import AESGCM, FIXED_SIGNATURE_LENGTH_BYTES, new_signature_digest, random_bytes
from phicrypt.core.process import ProcessBound
from phicrypt.core.suites import IV_LENGTH_BYTES, AlgorithmSuite
from phicrypt.errors import ConfigurationError, LimitExceededError
from phicrypt.formats.esdk.derivation import derive_keys
from phicrypt.formats.esdk.frames import (
    FINAL_OVERHEAD_BYTES,
    REGULAR_OVERHEAD_BYTES,
    Buffer,
    FrameCipher,
    layout_for_plaintext,
    seal_only_frame,
)
from phicrypt.formats.esdk.header import constant_header_part_v2, serialize_header_body_v2
from phicrypt.formats.esdk.parallel import in_shares

if TYPE_CHECKING:
    import hashlib

DEFAULT_FRAME_LENGTH_BYTES: Final = 128 * 1024
"""Plaintext bytes of a frame: near the cipher's own speed, and small enough for ranged reads."""
_ZERO_IV: Final = bytes(IV_LENGTH_BYTES)
_MESSAGE_ID_LENGTH_BYTES: Final = 32
_FOOTER_LENGTH_FIELD_BYTES: Final = 2


def footer_length_of(suite: AlgorithmSuite) -> int:
    """Bytes behind the last frame: the length field and the signature of a signed suite, else none."""
    curve = suite.signature_curve
    return 0 if curve is None else _FOOTER_LENGTH_FIELD_BYTES + FIXED_SIGNATURE_LENGTH_BYTES[curve]


class MessageSealer(ProcessBound):
    """One message being written, in version 2 of the format.

    Attributes:
        message_id: 32 random bytes.
        header: the sealed header, to be written first.
        frame_length_bytes: plaintext bytes of a regular frame.

    Raises ConfigurationError for materials of a suite that phicrypt does not write, and
    LimitExceededError for a header that phicrypt's own reader would refuse.
    """

    __slots__ = ("_cipher", "_digest", "_materials", "_next", "frame_length_bytes", "header", "message_id")

    def __init__(
        self, materials: EncryptionMaterials, frame_length_bytes: int, limits: ReadLimits | None = None
    ) -> None:
        super().__init__()
        if materials.suite.message_format_version != 2 or materials.data_key is None:
            raise not_writable(materials.suite)
        self._materials = materials
        self.frame_length_bytes = frame_length_bytes
        constant_part = materials.header_parts.get(frame_length_bytes) or header_part_of(
            materials, frame_length_bytes, limits or ReadLimits()
        )
        self.message_id = random_bytes(_MESSAGE_ID_LENGTH_BYTES)
        message_key, commitment = derive_keys(materials.suite, materials.data_key, self.message_id)
        body = serialize_header_body_v2(materials.suite, self.message_id, constant_part, commitment)
        gcm = AESGCM(message_key)
        self.header = body + gcm.encrypt(_ZERO_IV, b"", body + materials.required.serialized)
        self._cipher = FrameCipher(gcm, self.message_id, frame_length_bytes)
        self._next = 1
        self._digest: hashlib._Hash | None = None
        if materials.suite.signature_curve is not None:
            self._digest = new_signature_digest(materials.suite.signature_curve)
            self._digest.update(self.header)

    def __repr__(self) -> str:
        return f"<MessageSealer {self._materials.suite.name}, next frame {self._next}>"

    def seal_regular_into(self, plaintext: Buffer, output: memoryview, *, threads: int = 1) -> int:
        """Write the next regular frames, for a plaintext of a whole number of frame lengths.

        Returns their length in bytes. ``threads`` seal long runs of long frames together.
        """
        frame_length, stride = self.frame_length_bytes, self.frame_length_bytes + REGULAR_OVERHEAD_BYTES
        source = memoryview(plaintext).cast("B")
        count = len(source) // frame_length
        written = output[: count * stride]
        first_number = self._take_number()

        def seal_share(first: int, share: int) -> None:
            end = first + share
            self._cipher.seal_regular_frames_into(
                first_number + first,
                source[first * frame_length : end * frame_length],
                written[first * stride : end * stride],
            )

        in_shares(count, frame_length, threads, seal_share)
        if self._digest is not None:
            self._digest.update(written)
        self._next = first_number + count  # only now: after a failure the message has a gap
        return len(written)

    def seal_final_into(self, plaintext: Buffer, output: memoryview) -> int:
        """Write the final frame; returns its length in bytes. Nothing can be sealed afterwards."""
        written = output[: len(plaintext) + FINAL_OVERHEAD_BYTES]
        sequence_number = self._take_number()
        self._cipher.seal_final_into(sequence_number, plaintext, written)
        if self._digest is not None:
            self._digest.update(written)
        return len(written)

    def _take_number(self) -> int:
        """The next frame's number. Until the caller sets another one, nothing more can be sealed."""
        sequence_number, self._next = self._next, 0
        if sequence_number == 0:
            raise ConfigurationError(
                "the message has its final frame, or sealing it failed; sealing on would use a nonce twice"
            )
        return sequence_number

    def unsigned_length_bytes(self, plaintext_length_bytes: int) -> int:
        """Length of header and frames together, for a plaintext of this length."""
        layout = layout_for_plaintext(plaintext_length_bytes, self.frame_length_bytes, len(self.header))
        return len(self.header) + layout.body_length_bytes

    @property
    def longest_footer_bytes(self) -> int:
        """At most this many bytes follow the frames."""
        return footer_length_of(self._materials.suite)

    def footer(self) -> bytes:
        """The footer, after the final frame: ``b""`` for unsigned suites.

        Two bytes of length and the DER signature (``data-format/message-footer.md``).
        """
        if self._next != 0:
            raise ConfigurationError("the footer follows the final frame")
        if self._digest is None or self._materials.signing_key is None:
            return b""
        signature = self._materials.signing_key.sign_digest(self._digest.digest())
        return len(signature).to_bytes(_FOOTER_LENGTH_FIELD_BYTES, "big") + signature

    def release_for_random_access(self) -> tuple[bytes, FrameCipher]:
        """Header and frame cipher, handed over before any frame was sealed here.

        This sealer seals nothing afterwards: one object alone answers for the message's nonces.
        """
        if self._next != 1 or self._digest is not None:
            raise ConfigurationError("only an unsigned message without frames can be handed over")
        self._next = 0
        return self.header, self._cipher


def header_part_of(materials: EncryptionMaterials, frame_length_bytes: int, limits: ReadLimits) -> bytes:
    """The constant part of the header, computed once for each cached data key and frame length."""
    check_frame_length(frame_length_bytes, limits)
    if not materials.encrypted_data_keys:
        raise ConfigurationError("the keyring gave no encrypted data key; nobody could open the message")
    if len(materials.encrypted_data_keys) > limits.max_encrypted_data_keys:
        raise LimitExceededError(
            "more encrypted data keys than phicrypt's own reader accepts",
            limit=limits.max_encrypted_data_keys,
            actual=len(materials.encrypted_data_keys),
            setting="ReadLimits.max_encrypted_data_keys",
        )
    part = constant_header_part_v2(
        materials.stored_context_bytes, materials.encrypted_data_keys, frame_length_bytes
    )
    fixed_length = 3 + _MESSAGE_ID_LENGTH_BYTES + 32 + 16
    if len(part) + fixed_length > limits.max_header_length_bytes:
        raise LimitExceededError(
            "the message header is longer in bytes than phicrypt's own reader accepts",
            limit=limits.max_header_length_bytes,
            actual=len(part) + fixed_length,
            setting="ReadLimits.max_header_length_bytes",
        )
    materials.header_parts[frame_length_bytes] = part
    return part


def check_frame_length(frame_length_bytes: int, limits: ReadLimits) -> None:
    """Raise ConfigurationError unless frames of this length can be written and read back."""
    if (
        not isinstance(frame_length_bytes, int)
        or isinstance(frame_length_bytes, bool)
        or not 1 <= frame_length_bytes <= limits.max_frame_length_bytes
    ):
        raise ConfigurationError(
            f"the frame length is a whole number of bytes from 1 to {limits.max_frame_length_bytes} "
            f"(max_frame_length_bytes), {frame_length_bytes!r} came"
        )


def seal_message(
    materials: EncryptionMaterials,
    plaintext: Buffer,
    frame_length_bytes: int,
    limits: ReadLimits | None = None,
    *,
    threads: int = 1,
) -> tuple[bytes, bytes]:
    """A whole message from bytes in memory; returns the message and its message id.

    The output is allocated once and every frame is sealed into its place, so that payload bytes are
    written exactly once.
    """
    length = len(plaintext)
    if length <= frame_length_bytes and not materials.suite.is_signed:
        return _seal_one_frame(materials, plaintext, frame_length_bytes, limits)
    sealer = MessageSealer(materials, frame_length_bytes, limits)
    buffer = bytes_to_fill(sealer.unsigned_length_bytes(length))
    with buffer.getbuffer() as output:
        seal_unsigned_part_into(sealer, plaintext, output, threads)
    footer = sealer.footer()
    message = buffer.getvalue()
    return (message + footer if footer else message), sealer.message_id


def _seal_one_frame(
    materials: EncryptionMaterials, plaintext: Buffer, frame_length_bytes: int, limits: ReadLimits | None
) -> tuple[bytes, bytes]:
    """The bytes that a MessageSealer would give for one frame, without keeping a position.

    Most messages of a database or a queue are this small, and there the sealer's objects cost as
    much as its cipher. Nothing that could be used twice outlives this call.
    """
    suite = materials.suite
    if suite.message_format_version != 2 or materials.data_key is None:
        raise not_writable(suite)
    constant_part = materials.header_parts.get(frame_length_bytes) or header_part_of(
        materials, frame_length_bytes, limits or ReadLimits()
    )
    message_id = random_bytes(_MESSAGE_ID_LENGTH_BYTES)
    message_key, commitment = derive_keys(suite, materials.data_key, message_id)
    gcm = AESGCM(message_key)
    header_body = serialize_header_body_v2(suite, message_id, constant_part, commitment)
    header_tag = gcm.encrypt(_ZERO_IV, b"", header_body + materials.required.serialized)
    return b"".join((header_body, header_tag, *seal_only_frame(gcm, message_id, plaintext))), message_id


def not_writable(suite: AlgorithmSuite) -> ConfigurationError:
    """The error for materials that no message is written with."""
    return ConfigurationError(f"messages are written with committing suites only, not {suite.name}")


def seal_message_into(
    materials: EncryptionMaterials,
    plaintext: Buffer,
    frame_length_bytes: int,
    output: memoryview,
    limits: ReadLimits | None = None,
    *,
    threads: int = 1,
) -> tuple[int, bytes]:
    """The same into a caller's buffer; returns the message's length in bytes and its message id.

    Raises ConfigurationError, with the length that is needed, for a buffer that is too short:
    nothing has been sealed then.
    """
    sealer = MessageSealer(materials, frame_length_bytes, limits)
    unsigned_length = sealer.unsigned_length_bytes(len(plaintext))
    longest = unsigned_length + sealer.longest_footer_bytes
    if len(output) < longest:
        raise ConfigurationError(
            f"the buffer has {len(output)} bytes; a message of this plaintext, context and keyring needs {longest}"
        )
    seal_unsigned_part_into(sealer, plaintext, output, threads)
    footer = sealer.footer()
    output[unsigned_length : unsigned_length + len(footer)] = footer
    return unsigned_length + len(footer), sealer.message_id


def seal_unsigned_part_into(sealer: MessageSealer, plaintext: Buffer, output: memoryview, threads: int) -> None:
    """Header and all frames, to the start of ``output``."""
    source = memoryview(plaintext).cast("B")
    header_length = len(sealer.header)
    layout = layout_for_plaintext(len(source), sealer.frame_length_bytes, header_length)
    final_start = layout.regular_frames * sealer.frame_length_bytes
    output[:header_length] = sealer.header
    body_end = header_length
    if final_start:
        body_end += sealer.seal_regular_into(source[:final_start], output[header_length:], threads=threads)
    sealer.seal_final_into(source[final_start:], output[body_end:])
