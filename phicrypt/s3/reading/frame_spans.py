"""Which frames hold which bytes of an encrypted object; arithmetic only, no I/O.

An unsigned object is a framed message (:mod:`phicrypt.formats.esdk.frames`): a header of H bytes,
then frames of L plaintext bytes, the last one final. So every offset follows from H, L and the
stored length. What follows from a stored length is a claim of whoever can write the bucket, until
the final frame at that place has been opened (rule 10).
"""

from __future__ import annotations

from phicrypt.errors import UnsupportedOperationError
from phicrypt.formats.esdk.frames import FramedLayout, layout_of_body
from phicrypt.formats.esdk.header import MessageHeader
from phicrypt.s3.reading.ranges import Span


def layout_of_object(header: MessageHeader, stored_length_bytes: int) -> FramedLayout:
    """The only layout of an unsigned framed message of this stored length.

    Raises FormatError where there is none (the object was cut or extended), and
    UnsupportedOperationError for signed and non-framed messages, whose end is known last.
    """
    if header.suite.is_signed or not header.is_framed:
        raise UnsupportedOperationError(
            "a signed or non-framed object is verified at its very end, so no part of it can be read alone; "
            "read the whole object"
        )
    return layout_of_body(
        stored_length_bytes - header.length_bytes, header.frame_length_bytes, header.length_bytes
    )


def final_number(layout: FramedLayout) -> int:
    """The sequence number of the final frame, which is also the count of frames."""
    return layout.regular_frames + 1


def frames_span(layout: FramedLayout, first: int, last: int) -> Span:
    """Where frames ``first`` to ``last`` (from 1, both included) stand in the stored object."""
    end = layout.frame_offset(last + 1)
    if last == final_number(layout):
        end = layout.frame_offset(last) + layout.final_frame_length_bytes
    return Span(layout.frame_offset(first), end)


def plaintext_span(layout: FramedLayout, sequence_number: int) -> Span:
    """Which plaintext bytes a frame holds."""
    start = (sequence_number - 1) * layout.frame_length_bytes
    is_final = sequence_number == final_number(layout)
    return Span(start, start + (layout.final_length_bytes if is_final else layout.frame_length_bytes))


def frames_of(layout: FramedLayout, plaintext: Span) -> tuple[int, int]:
    """The first and last frame that hold a non-empty span of the plaintext."""
    first = plaintext.start // layout.frame_length_bytes + 1
    return first, (plaintext.end - 1) // layout.frame_length_bytes + 1
