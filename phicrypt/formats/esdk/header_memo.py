"""Headers that repeat are parsed once.

Between message id and commitment, all messages of one data key have the same bytes: the context,
the encrypted data keys and the frame length. Parsing them costs more than opening a small message.
"""

from __future__ import annotations

from typing import Final

from phicrypt.core.suites import COMMITMENT_LENGTH_BYTES, TAG_LENGTH_BYTES
from phicrypt.formats.esdk.header import MessageHeader

_PART_START: Final = 3 + 32
_AFTER_PART: Final = COMMITMENT_LENGTH_BYTES + TAG_LENGTH_BYTES
_MAX_PARTS: Final = 512
_MAX_PART_BYTES: Final = 4_096
_MAX_LENGTHS: Final = 8


class HeaderMemo:
    """Constant parts of headers of version 2 that were parsed under the same limits.

    The bytes of a part delimit themselves: a message that continues with bytes that were parsed
    once parses to the same values again. So a hit saves work and decides nothing; commitment and
    tag are checked for each message as ever. Bounded in parts and bytes; safe among threads,
    because a part never changes.
    """

    __slots__ = ("_known", "_lengths")

    def __init__(self) -> None:
        self._known: dict[bytes, MessageHeader] = {}
        self._lengths: tuple[int, ...] = ()

    def find(self, message: bytes) -> MessageHeader | None:
        """The header of a message whose constant part is known, else None."""
        for length in self._lengths:
            end = _PART_START + length
            known = self._known.get(message[_PART_START:end])
            if known is None or known.body[:3] != message[:3] or len(message) < end + _AFTER_PART:
                continue
            body_end = end + COMMITMENT_LENGTH_BYTES
            return MessageHeader(
                known.suite,
                message[3:_PART_START],
                known.context,
                known.context_bytes,
                known.encrypted_data_keys,
                known.frame_length_bytes,
                message[end:body_end],
                message[:body_end],
                known.iv,
                message[body_end : body_end + TAG_LENGTH_BYTES],
            )
        return None

    def keep(self, header: MessageHeader) -> None:
        """Remember the constant part of a parsed header, unless it is long or of version 1."""
        part = header.body[_PART_START:-COMMITMENT_LENGTH_BYTES]
        if header.suite.message_format_version != 2 or len(part) > _MAX_PART_BYTES:
            return
        is_new_length = len(part) not in self._lengths
        if len(self._known) >= _MAX_PARTS or (is_new_length and len(self._lengths) >= _MAX_LENGTHS):
            self._known, self._lengths = {}, ()
            is_new_length = True
        self._known[part] = header
        if is_new_length:
            self._lengths = (*self._lengths, len(part))
