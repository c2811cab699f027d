"""One object on its way out: its metadata, and its ciphertext from bytes or from a stream.

Both formats seal in order and exactly once. What reaches botocore is always finished ciphertext.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from phicrypt.core.materials import EncryptionMaterials
from phicrypt.core.primitives import FIXED_SIGNATURE_LENGTH_BYTES
from phicrypt.core.streams import ReadableStream
from phicrypt.core.suites import AlgorithmSuite
from phicrypt.errors import ConfigurationError
from phicrypt.formats.esdk.random_access import RandomAccessSealer
from phicrypt.formats.esdk.sealing import MessageSealer
from phicrypt.formats.reader import StreamReader
from phicrypt.formats.s3ec.content import S3ecSealer
from phicrypt.messages.stream_uses import sealed_pieces

Buffer = bytes | bytearray | memoryview

METADATA_PREFIX: Final = "phicrypt-"
FORMAT_NAME: Final = "phicrypt-format"
HEADER_LENGTH_NAME: Final = "phicrypt-header-length"
FRAME_LENGTH_NAME: Final = "phicrypt-frame-length"
FOOTER_LENGTH_NAME: Final = "phicrypt-footer-length"
ESDK_FORMAT: Final = "esdk"
_PIECE_BYTES: Final = 512 * 1024


def footer_length_of(suite: AlgorithmSuite) -> int:
    """Bytes behind the last frame: the length field and the signature of a signed suite, else none."""
    curve = suite.signature_curve
    return 0 if curve is None else 2 + FIXED_SIGNATURE_LENGTH_BYTES[curve]


class OutgoingObject(Protocol):
    """A message that was begun and not sealed yet.

    Attributes:
        materials: what it is sealed under; for the audit trail and for charging the cache.
        metadata: what phicrypt adds to the object's user metadata: format and lengths only.
        message_id: of the message.
    """

    materials: EncryptionMaterials
    metadata: dict[str, str]
    message_id: bytes

    def seal_bytes(self, plaintext: Buffer, spare: bytearray) -> bytes | bytearray:
        """The whole ciphertext, in ``spare`` if that serves; once, and not with :meth:`seal_stream`."""
        ...

    def seal_stream(self, source: ReadableStream, charge: Callable[[int], None]) -> Iterator[memoryview | bytes]:
        """The ciphertext piece by piece; a piece is valid until the next one is asked for.

        ``charge`` is told of plaintext bytes before their ciphertext is given out.
        """
        ...


class OutgoingMessage:
    """An ESDK message."""

    def __init__(self, materials: EncryptionMaterials, sealer: MessageSealer) -> None:
        self.materials = materials
        self.message_id = sealer.message_id
        self.sealer = sealer
        self.metadata = {
            FORMAT_NAME: ESDK_FORMAT,
            HEADER_LENGTH_NAME: str(len(sealer.header)),
            FRAME_LENGTH_NAME: str(sealer.frame_length_bytes),
        }
        if materials.suite.is_signed:
            self.metadata[FOOTER_LENGTH_NAME] = str(footer_length_of(materials.suite))

    def seal_bytes(self, plaintext: Buffer, spare: bytearray) -> bytes | bytearray:
        if self.materials.suite.is_signed:
            return b"".join(map(bytes, self.seal_stream(_Once(plaintext), _charge_nothing)))
        frames = RandomAccessSealer(self.sealer)
        start = len(frames.header)
        resize(spare, start + frames.run_length_bytes(memoryview(plaintext).nbytes, is_last=True))
        with memoryview(spare) as output:
            output[:start] = frames.header
            frames.seal_run_into(1, plaintext, output[start:], is_last=True)
        return spare

    def seal_stream(self, source: ReadableStream, charge: Callable[[int], None]) -> Iterator[memoryview | bytes]:
        return sealed_pieces(self.sealer, source, charge)


class OutgoingS3ec:
    """A version 3 object of the S3 Encryption Client."""

    def __init__(self, materials: EncryptionMaterials) -> None:
        if materials.data_key is None or len(materials.encrypted_data_keys) != 1:
            raise ConfigurationError(
                "an S3 Encryption Client object holds one wrapped data key; a keyring of several recipients "
                "cannot write it"
            )
        self.materials = materials
        self.sealer = S3ecSealer(
            materials.data_key, materials.encrypted_data_keys[0].ciphertext, materials.context
        )
        self.message_id = self.sealer.envelope.nonce
        self.metadata = self.sealer.envelope.to_metadata()

    def seal_bytes(self, plaintext: Buffer, spare: bytearray) -> bytes | bytearray:
        return self.sealer.update(plaintext) + self.sealer.finish()

    def seal_stream(self, source: ReadableStream, charge: Callable[[int], None]) -> Iterator[memoryview | bytes]:
        reader = StreamReader(source, read_ahead_bytes=_PIECE_BYTES)
        while count := reader.available(_PIECE_BYTES):
            ciphertext = self.sealer.update(reader.take(count, "plaintext"))
            charge(count)
            yield ciphertext
        yield self.sealer.finish()


class _Once:
    """Bytes in memory as a source that is read once."""

    def __init__(self, data: Buffer) -> None:
        self._view = memoryview(data).cast("B")

    def read(self, size: int = -1, /) -> memoryview:
        count = len(self._view) if size < 0 else size
        piece, self._view = self._view[:count], self._view[count:]
        return piece


def _charge_nothing(_count: int) -> None:
    """For bytes that were charged when the materials were asked for."""


def resize(buffer: bytearray, length: int) -> None:
    """Give a buffer this length, keeping its memory where it has enough."""
    if len(buffer) > length:
        del buffer[length:]
    elif len(buffer) < length:
        buffer.extend(bytes(length - len(buffer)))
