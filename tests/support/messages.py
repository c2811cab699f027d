"""Messages for tests: short ones with a known key, and their frames taken apart."""

from __future__ import annotations

from dataclasses import dataclass

from phicrypt import PhiCrypt, RawAesKeyring
from phicrypt.core.limits import ReadLimits
from phicrypt.formats.esdk.frames import REGULAR_OVERHEAD_BYTES
from phicrypt.formats.esdk.header import parse_header
from phicrypt.formats.reader import ByteReader

WRAPPING_KEY = bytes(range(32))
CONTEXT = {"tenant": "clinic-7"}


def raw_client(**options: object) -> PhiCrypt:
    """A client with a local wrapping key."""
    return PhiCrypt(RawAesKeyring("clinic", "key-1", WRAPPING_KEY), **options)  # type: ignore[arg-type]


@dataclass
class Parts:
    """A message's header, regular frames, final frame and footer, as bytes."""

    header: bytes
    frames: list[bytes]
    final: bytes
    footer: bytes

    def join(self) -> bytes:
        return self.header + b"".join(self.frames) + self.final + self.footer


def take_apart(message: bytes) -> Parts:
    """Split a framed message of version 2 at its frames."""
    header = parse_header(ByteReader(message), ReadLimits())
    position = header.length_bytes
    stride = header.frame_length_bytes + REGULAR_OVERHEAD_BYTES
    frames = []
    while message[position : position + 4] != b"\xff\xff\xff\xff":
        frames.append(message[position : position + stride])
        position += stride
    content_length = int.from_bytes(message[position + 20 : position + 24], "big")
    end = position + 40 + content_length
    return Parts(message[: header.length_bytes], frames, message[position:end], message[end:])
