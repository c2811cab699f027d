"""The message body: frames, their sizes and their cipher (``data-format/message-body.md``).

::

    regular frame                           final frame
                                            end marker           4  0xFFFFFFFF
    sequence number      4  from 1          sequence number      4
    IV                  12                  IV                  12
                                            content length       4  0 to frame length
    encrypted content       frame length    encrypted content
    tag                 16                  tag                 16

    non-framed body: IV 12, content length 8, encrypted content, tag 16

phicrypt writes the sequence number in 12 bytes, big-endian, as a frame's IV. A reader takes the IV
that stands in the frame: official vectors have frames with other IVs, and the tag covers it. The AAD of each is::

    message id ‖ content label ‖ sequence number 4 ‖ plaintext length 8

(``data-format/message-body-aad.md``). Everything here works on one frame at a given sequence
number; who calls :meth:`FrameCipher.seal_regular_frames_into` answers for never using a number twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from phicrypt.core.byte_ranges import Span
from phicrypt.core.primitives import AESGCM, InvalidTag
from phicrypt.core.process import ProcessBound
from phicrypt.core.suites import TAG_LENGTH_BYTES
from phicrypt.errors import AuthenticationError, FormatError, LimitExceededError

Buffer = bytes | bytearray | memoryview

END_MARKER: Final = b"\xff\xff\xff\xff"
MAX_SEQUENCE_NUMBER: Final = 0xFFFFFFFE
"""0xFFFFFFFF would read as the end marker in a regular frame."""
MAX_NON_FRAMED_LENGTH_BYTES: Final = 2**36 - 32
"""AES-GCM's bound on one message (NIST SP 800-38D section 5.2.1.1)."""

REGULAR_OVERHEAD_BYTES: Final = 4 + 12 + TAG_LENGTH_BYTES
FINAL_OVERHEAD_BYTES: Final = 4 + 4 + 12 + 4 + TAG_LENGTH_BYTES
REGULAR_HEAD_BYTES: Final = 16
FINAL_HEAD_BYTES: Final = 24

_RUN_BYTES: Final = 1024 * 1024
_MAX_FRAMES_IN_RUN: Final = 4_096

_REGULAR_LABEL: Final = b"AWSKMSEncryptionClient Frame"
_FINAL_LABEL: Final = b"AWSKMSEncryptionClient Final Frame"
_SINGLE_BLOCK_LABEL: Final = b"AWSKMSEncryptionClient Single Block"
_IV_PADDING: Final = bytes(8)
_FIRST_NUMBER: Final = b"\x00\x00\x00\x01"
_FIRST_IV: Final = _IV_PADDING + _FIRST_NUMBER
_ONLY_FRAME_HEAD: Final = END_MARKER + _FIRST_NUMBER + _FIRST_IV


def frame_iv(sequence_number: int) -> bytes:
    """The IV of a frame: its sequence number, zero-padded to 12 bytes."""
    return _IV_PADDING + sequence_number.to_bytes(4, "big")


def single_block_aad(message_id: bytes, length_bytes: int) -> bytes:
    """AAD of a non-framed body; its sequence number is 1."""
    return message_id + _SINGLE_BLOCK_LABEL + b"\x00\x00\x00\x01" + length_bytes.to_bytes(8, "big")


def frames_in_run(frame_length_bytes: int) -> int:
    """How many frames a stream reads, seals or opens, and writes at once: about a mebibyte of them.

    More would leave the processor's cache between these steps; less pays more calls for each byte.
    Fewer of tiny frames, whose heads and tags take many times the memory of their content.
    """
    return min(max(1, _RUN_BYTES // frame_length_bytes), _MAX_FRAMES_IN_RUN)


@dataclass(frozen=True, slots=True)
class FramedLayout:
    """Where the frames of an unsigned framed body stand.

    Attributes:
        frame_length_bytes: plaintext bytes of a regular frame.
        header_length_bytes: where the first frame begins in the message.
        regular_frames: how many regular frames come before the final one.
        final_length_bytes: plaintext bytes of the final frame, 0 to ``frame_length_bytes``.
    """

    frame_length_bytes: int
    header_length_bytes: int
    regular_frames: int
    final_length_bytes: int

    @property
    def plaintext_length_bytes(self) -> int:
        """A claim until the final frame was verified (rule 10)."""
        return self.regular_frames * self.frame_length_bytes + self.final_length_bytes

    @property
    def body_length_bytes(self) -> int:
        """Length of all frames together."""
        return (
            self.frame_offset(self.regular_frames + 1) - self.header_length_bytes + self.final_frame_length_bytes
        )

    @property
    def final_frame_length_bytes(self) -> int:
        """Length of the whole final frame."""
        return FINAL_OVERHEAD_BYTES + self.final_length_bytes

    @property
    def final_number(self) -> int:
        """The sequence number of the final frame, which is also the count of frames."""
        return self.regular_frames + 1

    def frame_offset(self, sequence_number: int) -> int:
        """Where a frame begins in the message, in bytes from the message's first."""
        return self.header_length_bytes + (sequence_number - 1) * (
            self.frame_length_bytes + REGULAR_OVERHEAD_BYTES
        )

    def frames_span(self, first: int, last: int) -> Span:
        """Where frames ``first`` to ``last`` (from 1, both included) stand in the message."""
        end = self.frame_offset(last + 1)
        if last == self.final_number:
            end = self.frame_offset(last) + self.final_frame_length_bytes
        return Span(self.frame_offset(first), end)

    def plaintext_span(self, first: int, last: int) -> Span:
        """Which plaintext bytes frames ``first`` to ``last`` hold."""
        end = last * self.frame_length_bytes
        if last == self.final_number:
            end = self.plaintext_length_bytes
        return Span((first - 1) * self.frame_length_bytes, end)

    def frames_of(self, plaintext: Span) -> tuple[int, int]:
        """The first and last frame that hold a non-empty span of the plaintext."""
        first = plaintext.start // self.frame_length_bytes + 1
        return first, (plaintext.end - 1) // self.frame_length_bytes + 1


def layout_for_plaintext(
    plaintext_length_bytes: int, frame_length_bytes: int, header_length_bytes: int
) -> FramedLayout:
    """How phicrypt lays out a plaintext: the final frame is full where the length is a multiple.

    Raises LimitExceededError for a plaintext of more frames than sequence numbers.
    """
    regular = max(0, (plaintext_length_bytes - 1) // frame_length_bytes)
    if regular + 1 > MAX_SEQUENCE_NUMBER:
        raise LimitExceededError(
            "the message has too many frames; choose a longer frame", limit=MAX_SEQUENCE_NUMBER, actual=regular + 1
        )
    return FramedLayout(
        frame_length_bytes, header_length_bytes, regular, plaintext_length_bytes - regular * frame_length_bytes
    )


def layout_of_body(body_length_bytes: int, frame_length_bytes: int, header_length_bytes: int) -> FramedLayout:
    """The only layout that a body of this length can have.

    Raises FormatError for a length that no body of such frames has. What it says of lengths is a
    claim until the final frame at that place was verified.
    """
    rest = body_length_bytes - FINAL_OVERHEAD_BYTES
    regular, final_length = divmod(rest, frame_length_bytes + REGULAR_OVERHEAD_BYTES)
    if rest < 0 or final_length > frame_length_bytes:
        raise FormatError(
            f"no body of {frame_length_bytes}-byte frames is {body_length_bytes} bytes long; "
            "the message is truncated or extended",
            field="message body",
            offset=header_length_bytes,
        )
    return FramedLayout(frame_length_bytes, header_length_bytes, regular, final_length)


class FrameCipher(ProcessBound):
    """The cipher of one message's frames. Sealing is bound to the process that made it (rule 1)."""

    __slots__ = ("_final_aad", "_gcm", "_regular_aad", "_regular_length", "frame_length_bytes")

    def __init__(self, gcm: AESGCM, message_id: bytes, frame_length_bytes: int) -> None:
        super().__init__()
        self._gcm = gcm
        self._regular_aad = message_id + _REGULAR_LABEL
        self._final_aad = message_id + _FINAL_LABEL
        self._regular_length = frame_length_bytes.to_bytes(8, "big")
        self.frame_length_bytes = frame_length_bytes

    def __repr__(self) -> str:
        return "<FrameCipher>"

    def seal_regular_frames_into(self, first_number: int, plaintext: memoryview, output: memoryview) -> None:
        """Write whole regular frames, for a plaintext of a whole number of frame lengths.

        One tight loop for all frames: at 128 KiB a frame's cipher takes 13 µs, and a call with
        objects of its own for each frame would take a quarter of that again.
        """
        self.check_process()
        frame_length = self.frame_length_bytes
        stride = frame_length + REGULAR_OVERHEAD_BYTES
        count = len(plaintext) // frame_length
        _check_sequence_number(first_number)  # the header's tag was sealed under the IV of number 0
        _check_sequence_number(first_number + count - 1)
        encrypt_into, aad_start, aad_end = self._gcm.encrypt_into, self._regular_aad, self._regular_length
        for index in range(count):
            sequence = (first_number + index).to_bytes(4, "big")
            iv = _IV_PADDING + sequence
            start, at = index * frame_length, index * stride
            content = at + REGULAR_HEAD_BYTES
            output[at:content] = sequence + iv
            encrypt_into(
                iv,
                plaintext[start : start + frame_length],
                aad_start + sequence + aad_end,
                output[content : at + stride],
            )

    def seal_final_into(self, sequence_number: int, plaintext: Buffer, output: memoryview) -> None:
        """Write the whole final frame of 0 to ``frame_length_bytes`` of plaintext."""
        self.check_process()
        output[:FINAL_HEAD_BYTES] = final_frame_head(sequence_number, len(plaintext))
        self._gcm.encrypt_into(
            frame_iv(sequence_number),
            plaintext,
            self._aad_of_final(sequence_number, len(plaintext)),
            output[FINAL_HEAD_BYTES:],
        )

    def open_regular_frames_into(self, first_number: int, frames: memoryview, output: memoryview) -> None:
        """Verify whole regular frames and write their plaintext, in one tight loop as above.

        On failure the frame's output is zeroed and AuthenticationError or FormatError is raised;
        earlier frames of the call stand verified in the output, which is the caller's to discard.
        """
        frame_length = self.frame_length_bytes
        stride = frame_length + REGULAR_OVERHEAD_BYTES
        decrypt_into, aad_start, aad_end = self._gcm.decrypt_into, self._regular_aad, self._regular_length
        for index in range(len(frames) // stride):
            sequence = (first_number + index).to_bytes(4, "big")
            start, at = index * frame_length, index * stride
            if frames[at : at + 4] != sequence:
                raise _wrong_place(first_number + index)
            plaintext = output[start : start + frame_length]
            try:
                decrypt_into(
                    frames[at + 4 : at + REGULAR_HEAD_BYTES],
                    frames[at + REGULAR_HEAD_BYTES : at + stride],
                    aad_start + sequence + aad_end,
                    plaintext,
                )
            except InvalidTag:
                plaintext[:] = b"\0" * frame_length  # no call, so no signal comes before it
                raise AuthenticationError("frame tag") from None

    def open_final_into(self, sequence_number: int, frame: memoryview, output: memoryview) -> None:
        """Verify a whole final frame (end marker included) and write its plaintext."""
        check_final_head(sequence_number, frame)
        length = len(frame) - FINAL_OVERHEAD_BYTES
        aad = self._aad_of_final(sequence_number, length)
        try:
            self._gcm.decrypt_into(frame[8:20], frame[FINAL_HEAD_BYTES:], aad, output)
        except InvalidTag:
            output[:] = b"\0" * length
            raise AuthenticationError("frame tag") from None

    def _aad_of_final(self, sequence_number: int, length_bytes: int) -> bytes:
        return self._final_aad + sequence_number.to_bytes(4, "big") + length_bytes.to_bytes(8, "big")


def seal_only_frame(gcm: AESGCM, message_id: bytes, plaintext: Buffer) -> tuple[bytes, bytes]:
    """Head and content of the final frame of a body that has no other."""
    length = len(plaintext)
    aad = message_id + _FINAL_LABEL + _FIRST_NUMBER + length.to_bytes(8, "big")
    return _ONLY_FRAME_HEAD + length.to_bytes(4, "big"), gcm.encrypt(_FIRST_IV, plaintext, aad)


def open_only_frame(gcm: AESGCM, message_id: bytes, frame: memoryview) -> bytes:
    """The plaintext of a body that is one final frame. Raises FormatError, AuthenticationError."""
    check_final_head(1, frame)
    aad = message_id + _FINAL_LABEL + _FIRST_NUMBER + (len(frame) - FINAL_OVERHEAD_BYTES).to_bytes(8, "big")
    try:
        return gcm.decrypt(frame[8:20], frame[FINAL_HEAD_BYTES:], aad)
    except InvalidTag:
        raise AuthenticationError("frame tag") from None


def check_final_head(sequence_number: int, frame: memoryview) -> None:
    """Raise FormatError unless these bytes are one whole final frame with this sequence number."""
    content_length = len(frame) - FINAL_OVERHEAD_BYTES
    head = bytes(frame[:FINAL_HEAD_BYTES])
    if (
        head[:8] != END_MARKER + sequence_number.to_bytes(4, "big")
        or content_length < 0
        or head[20:] != content_length.to_bytes(4, "big")
    ):
        raise _wrong_place(sequence_number)


def final_frame_head(sequence_number: int, length_bytes: int) -> bytes:
    """The 24 bytes before the content of a final frame."""
    _check_sequence_number(sequence_number)
    sequence = sequence_number.to_bytes(4, "big")
    return b"".join((END_MARKER, sequence, _IV_PADDING, sequence, length_bytes.to_bytes(4, "big")))


def _check_sequence_number(sequence_number: int) -> None:
    if not 1 <= sequence_number <= MAX_SEQUENCE_NUMBER:
        raise LimitExceededError(
            "the message has too many frames; choose a longer frame",
            limit=MAX_SEQUENCE_NUMBER,
            actual=sequence_number,
        )


def _wrong_place(sequence_number: int) -> FormatError:
    return FormatError(
        f"frame {sequence_number} was expected here, with its own sequence number and length",
        field="frame head",
    )
