"""Reading a message: nothing leaves before it is authenticated (``client-apis/decrypt.md``, rule 6).

The order is fixed: commitment, header tag, then frame by frame. The last piece of a message is
held until everything behind it has been checked: the signature of signed suites, and that no byte
follows the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import TYPE_CHECKING, Final

from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import DecryptionMaterials
from phicrypt.core.memory import bytes_to_fill, page_memory
from phicrypt.core.primitives import AESGCM, GcmStreamOpener, InvalidTag, constant_time_equal, new_signature_digest
from phicrypt.core.process import ProcessBound
from phicrypt.core.suites import IV_LENGTH_BYTES, TAG_LENGTH_BYTES
from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError, LimitExceededError
from phicrypt.formats.esdk.derivation import derive_keys
from phicrypt.formats.esdk.frames import (
    END_MARKER,
    FINAL_HEAD_BYTES,
    FINAL_OVERHEAD_BYTES,
    MAX_NON_FRAMED_LENGTH_BYTES,
    REGULAR_OVERHEAD_BYTES,
    FrameCipher,
    FramedLayout,
    frames_in_run,
    layout_of_body,
    open_only_frame,
    single_block_aad,
)
from phicrypt.formats.esdk.header import MessageHeader
from phicrypt.formats.esdk.parallel import in_shares
from phicrypt.formats.reader import ByteReader, StreamReader

if TYPE_CHECKING:
    import hashlib

    from phicrypt.core.spool import CiphertextSpool

_CHUNK_BYTES: Final = 256 * 1024
_MAX_SIGNATURE_LENGTH_BYTES: Final = 512
"""A DER signature over P-384 has at most 104 bytes; the bound only stops absurd claims."""


class MessageOpener(ProcessBound):
    """One message being read, after its header was authenticated.

    Raises AuthenticationError from the constructor if the commitment or the header's tag does not
    verify under the materials' data key.
    """

    __slots__ = ("_digest", "_message_key", "_verification_key", "cipher", "header")

    def __init__(self, header: MessageHeader, materials: DecryptionMaterials) -> None:
        super().__init__()
        message_key, gcm = _verify_header(header, materials)
        self.header = header
        self.cipher = FrameCipher(gcm, header.message_id, header.frame_length_bytes)
        self._message_key = message_key if header.frame_length_bytes == 0 else b""
        self._verification_key = materials.verification_key
        self._digest: hashlib._Hash | None = None
        if header.suite.signature_curve is not None:
            if materials.verification_key is None:
                raise ConfigurationError("the materials of a signed suite hold no verification key")
            self._digest = new_signature_digest(header.suite.signature_curve)
            self._digest.update(header.to_bytes())

    def __repr__(self) -> str:
        return f"<MessageOpener {self.header.suite.name}>"

    def pieces(
        self, reader: ByteReader | StreamReader, spool: CiphertextSpool, limits: ReadLimits
    ) -> Iterator[memoryview]:
        """Authenticated plaintext in order. A piece is valid until the next one is asked for.

        ``spool`` takes the ciphertext of a non-framed body until it is verified as a whole. Raises
        AuthenticationError, FormatError and LimitExceededError; after one of them nothing more comes.
        """
        if self.header.is_framed:
            return self._framed_pieces(reader)
        return self._non_framed_pieces(reader, spool, limits)

    def _framed_pieces(self, reader: ByteReader | StreamReader) -> Iterator[memoryview]:
        frame_length = self.header.frame_length_bytes
        frames = frames_in_run(frame_length)
        if isinstance(reader, StreamReader):
            reader.read_ahead(frames * (frame_length + REGULAR_OVERHEAD_BYTES))
        plaintext = page_memory(frames * frame_length)
        sequence_number = 1
        while count := self._regular_frames_held(reader, frames):
            run = reader.take(count * (frame_length + REGULAR_OVERHEAD_BYTES), "frame")
            opened = plaintext[: count * frame_length]
            self.cipher.open_regular_frames_into(sequence_number, run, opened)
            self._sign_over(run)
            yield opened
            sequence_number += count
        content_length = int.from_bytes(reader.peek(FINAL_HEAD_BYTES, "final frame head")[-4:], "big")
        if content_length > frame_length:
            raise FormatError(
                f"at most the frame length of {frame_length} was expected, {content_length} came",
                field="final frame content length",
                offset=reader.offset + FINAL_HEAD_BYTES - 4,
            )
        frame = reader.take(content_length + FINAL_OVERHEAD_BYTES, "final frame")
        self.cipher.open_final_into(sequence_number, frame, plaintext[:content_length])
        self._sign_over(frame)
        self._finish(reader)
        yield plaintext[:content_length]

    def _regular_frames_held(self, reader: ByteReader | StreamReader, at_most: int) -> int:
        """How many regular frames come next: one is waited for, more count if they are in memory.

        0 before the final frame.
        """
        if bytes(reader.held(4, "frame sequence number")[:4]) == END_MARKER:
            return 0
        stride = self.header.frame_length_bytes + REGULAR_OVERHEAD_BYTES
        held = reader.held(stride, "frame")
        count = min(at_most, len(held) // stride)
        markers = list(Struct(f"4s{stride - 4}x").iter_unpack(held[: count * stride]))
        return markers.index((END_MARKER,)) if (END_MARKER,) in markers else count

    def _non_framed_pieces(
        self, reader: ByteReader | StreamReader, spool: CiphertextSpool, limits: ReadLimits
    ) -> Iterator[memoryview]:
        head = bytes(reader.take(IV_LENGTH_BYTES + 8, "non-framed body head"))
        iv, length = head[:IV_LENGTH_BYTES], int.from_bytes(head[IV_LENGTH_BYTES:], "big")
        bound = min(limits.max_spool_bytes, MAX_NON_FRAMED_LENGTH_BYTES)
        if length > bound:
            raise LimitExceededError(
                "the non-framed body is too long in bytes",
                limit=bound,
                actual=length,
                setting="" if bound == MAX_NON_FRAMED_LENGTH_BYTES else "ReadLimits.max_spool_bytes",
            )
        aad = single_block_aad(self.header.message_id, length)
        self._sign_over(head)
        verifier = GcmStreamOpener(self._message_key, iv, aad)
        remaining = length
        while remaining:
            chunk = reader.take(min(remaining, _CHUNK_BYTES), "encrypted content")
            verifier.update(chunk)  # the plaintext is dropped: nothing is verified yet
            spool.append(chunk)
            self._sign_over(chunk)
            remaining -= len(chunk)
        tag = bytes(reader.take(TAG_LENGTH_BYTES, "body authentication tag"))
        verifier.verify(tag, reason="body tag")
        self._sign_over(tag)
        self._finish(reader)
        opener = GcmStreamOpener(self._message_key, iv, aad)
        for verified_chunk in spool.verified_chunks():
            yield memoryview(opener.update(verified_chunk))

    def _sign_over(self, piece: memoryview | bytes) -> None:
        if self._digest is not None:
            self._digest.update(piece)

    def _finish(self, reader: ByteReader | StreamReader) -> None:
        """Check what stands behind the body: the footer's signature, and nothing else."""
        if self._digest is not None and self._verification_key is not None:
            length = reader.take_int(2, "signature length")
            if length > _MAX_SIGNATURE_LENGTH_BYTES:
                raise FormatError(
                    f"at most {_MAX_SIGNATURE_LENGTH_BYTES} bytes were expected, {length} came",
                    field="signature length",
                    offset=reader.offset - 2,
                )
            signature = bytes(reader.take(length, "signature"))
            self._verification_key.verify_digest(self._digest.digest(), signature)
        if not reader.at_end():
            raise FormatError(
                "bytes follow the end of the message; nothing of the last frame was released",
                field="end of message",
                offset=reader.offset,
            )


def _verify_header(header: MessageHeader, materials: DecryptionMaterials) -> tuple[bytes, AESGCM]:
    """The message key and its cipher, after commitment and header tag were verified."""
    if materials.data_key is None:
        raise ConfigurationError("the keyring returned no data key")
    message_key, commitment = derive_keys(header.suite, materials.data_key, header.message_id)
    if not constant_time_equal(commitment, header.commitment):
        raise AuthenticationError("commitment")
    gcm = AESGCM(message_key)
    try:
        gcm.decrypt(header.iv, header.tag, header.body + materials.required.serialized)
    except InvalidTag:
        raise AuthenticationError("header tag") from None
    return message_key, gcm


def open_message(
    header: MessageHeader,
    materials: DecryptionMaterials,
    reader: ByteReader,
    new_spool: Callable[[], CiphertextSpool],
    limits: ReadLimits,
    *,
    threads: int = 1,
) -> bytes:
    """The whole plaintext of a message in memory; the reader stands behind the header.

    Nothing is returned before everything is verified. Frames of unsigned messages are opened
    straight into the result, so that payload bytes are written exactly once.
    """
    is_unsigned = header.frame_length_bytes > 0 and header.suite.signature_curve is None
    if is_unsigned and reader.remaining() <= header.frame_length_bytes + FINAL_OVERHEAD_BYTES:
        # One frame: the same checks as below, without the objects that keep a position.
        gcm = _verify_header(header, materials)[1]
        return open_only_frame(gcm, header.message_id, reader.take(reader.remaining(), "message body"))
    opener = MessageOpener(header, materials)
    layout = whole_layout(opener, reader)
    if layout is None:
        with new_spool() as spool:
            return b"".join([bytes(piece) for piece in opener.pieces(reader, spool, limits)])
    body = reader.take(layout.body_length_bytes, "message body")
    buffer = bytes_to_fill(layout.plaintext_length_bytes)
    with buffer.getbuffer() as plaintext:
        _open_frames_into(opener.cipher, layout, body, plaintext, threads)
    return buffer.getvalue()


def open_message_into(
    header: MessageHeader,
    materials: DecryptionMaterials,
    reader: ByteReader,
    new_spool: Callable[[], CiphertextSpool],
    limits: ReadLimits,
    output: memoryview,
    *,
    threads: int = 1,
) -> int:
    """The same into a caller's buffer; returns the plaintext's length in bytes.

    Raises ConfigurationError for a buffer that is too short. After any error the buffer is zeroed:
    nothing of a message that did not verify as a whole stays in it.
    """
    opener = MessageOpener(header, materials)
    written = 0
    try:
        layout = whole_layout(opener, reader)
        if layout is not None:
            written = layout.plaintext_length_bytes
            _check_room(output, written)
            body = reader.take(layout.body_length_bytes, "message body")
            _open_frames_into(opener.cipher, layout, body, output[:written], threads)
            return written
        with new_spool() as spool:
            for piece in opener.pieces(reader, spool, limits):
                start, written = written, written + len(piece)
                _check_room(output, written)
                output[start:written] = piece
    except BaseException:
        cleared = min(written, len(output))
        output[:cleared] = bytes(cleared)
        raise
    return written


def whole_layout(opener: MessageOpener, reader: ByteReader) -> FramedLayout | None:
    """The layout of a framed unsigned body in memory; None where only reading in order tells it."""
    header = opener.header
    if not header.is_framed or header.suite.is_signed:
        return None
    return layout_of_body(reader.remaining(), header.frame_length_bytes, header.length_bytes)


def _check_room(output: memoryview, wanted_bytes: int) -> None:
    if wanted_bytes > len(output):
        raise ConfigurationError(f"the buffer has {len(output)} bytes; the plaintext has {wanted_bytes} or more")


def _open_frames_into(
    cipher: FrameCipher, layout: FramedLayout, body: memoryview, plaintext: memoryview, threads: int
) -> None:
    """Open every frame into its place; whatever fails, the caller must not release the output."""
    frame_length = layout.frame_length_bytes
    stride = frame_length + REGULAR_OVERHEAD_BYTES

    def open_share(first: int, share: int) -> None:
        end = first + share
        cipher.open_regular_frames_into(
            first + 1,
            body[first * stride : end * stride],
            plaintext[first * frame_length : end * frame_length],
        )

    in_shares(layout.regular_frames, frame_length, threads, open_share)
    cipher.open_final_into(
        layout.regular_frames + 1,
        body[layout.regular_frames * stride :],
        plaintext[layout.regular_frames * frame_length :],
    )
