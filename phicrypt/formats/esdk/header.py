"""The message header, versions 1 and 2 (``data-format/message-header.md``).

::

    version 2                               version 1
    version              1  0x02            version              1  0x01
                                            type                 1  0x80
    suite id             2                  suite id             2
    message id          32                  message id          16
    context length       2                  context length       2
    context              …                  context              …
    count of data keys   2                  count of data keys   2
    encrypted data keys  …                  encrypted data keys  …
    content type         1  1 or 2          content type         1
                                            reserved             4  zeros
                                            IV length            1  12
    frame length         4                  frame length         4
    commitment          32
    ------------------------ end of the header body --------------------
                                            IV                  12
    authentication tag  16                  authentication tag  16

An encrypted data key is three fields, each with a two-byte length: provider id (UTF-8), provider
info, ciphertext.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from phicrypt.core.context import PUBLIC_KEY_NAME, parse_context, serialize_context
from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import EncryptedDataKey
from phicrypt.core.suites import (
    COMMITMENT_LENGTH_BYTES,
    ESDK_SUITES,
    IV_LENGTH_BYTES,
    TAG_LENGTH_BYTES,
    AlgorithmSuite,
)
from phicrypt.errors import FormatError, LimitExceededError
from phicrypt.formats.reader import ByteReader, StreamReader

NON_FRAMED: Final = 1
FRAMED: Final = 2
_TYPE: Final = 0x80
_MESSAGE_ID_LENGTH_BYTES: Final = {1: 16, 2: 32}
MAX_FRAME_LENGTH_BYTES: Final = 0xFFFFFFFF
_ZERO_IV: Final = bytes(IV_LENGTH_BYTES)


class MessageHeader(NamedTuple):
    """A parsed header; nothing in it is authentic until the tag was checked.

    Attributes:
        suite: the algorithm suite.
        message_id: 16 bytes in version 1, 32 in version 2.
        context, context_bytes: the encryption context and its canonical bytes, which are what wrapped
            data keys are bound to (the header's own order of pairs may differ; ``body`` keeps it).
        encrypted_data_keys: one per recipient, in the header's order.
        frame_length_bytes: plaintext bytes of a regular frame; 0 for a non-framed body.
        commitment: 32 bytes for committing suites, else ``b""``.
        body: the header body, which the tag authenticates.
        iv: nonce of the tag; zeros in version 2, where it is not written.
        tag: 16 bytes.
    """

    suite: AlgorithmSuite
    message_id: bytes
    context: Mapping[str, str]
    context_bytes: bytes
    encrypted_data_keys: tuple[EncryptedDataKey, ...]
    frame_length_bytes: int
    commitment: bytes
    body: bytes
    iv: bytes
    tag: bytes

    def __repr__(self) -> str:
        return f"<MessageHeader {self.suite.name}, context names {sorted(self.context)}>"

    @property
    def is_framed(self) -> bool:
        """Whether the body is a sequence of frames."""
        return self.frame_length_bytes > 0

    @property
    def length_bytes(self) -> int:
        """Length of the whole header, tag included."""
        written_iv = len(self.iv) if self.suite.message_format_version == 1 else 0
        return len(self.body) + written_iv + len(self.tag)

    def to_bytes(self) -> bytes:
        """The header as it stands in the message."""
        return self.body + (self.iv if self.suite.message_format_version == 1 else b"") + self.tag


def serialize_encrypted_data_keys(encrypted_data_keys: Sequence[EncryptedDataKey]) -> bytes:
    """Count and entries; raises LimitExceededError for a field that its length cannot express."""
    pieces = [len(encrypted_data_keys).to_bytes(2, "big")]
    for encrypted_data_key in encrypted_data_keys:
        for field in (
            encrypted_data_key.provider_id.encode(),
            encrypted_data_key.provider_info,
            encrypted_data_key.ciphertext,
        ):
            if len(field) > 0xFFFF:
                raise LimitExceededError(
                    "a field of an encrypted data key is too long", limit=0xFFFF, actual=len(field)
                )
            pieces += (len(field).to_bytes(2, "big"), field)
    return b"".join(pieces)


def serialize_header_body_v2(
    suite: AlgorithmSuite, message_id: bytes, constant_part: bytes, commitment: bytes
) -> bytes:
    """A version 2 header body around the part that :func:`constant_header_part_v2` gives."""
    return b"".join((b"\x02", suite.id_bytes, message_id, constant_part, commitment))


def constant_header_part_v2(
    context_bytes: bytes, encrypted_data_keys: Sequence[EncryptedDataKey], frame_length_bytes: int
) -> bytes:
    """What stands between message id and commitment: the same for all messages of one data key."""
    return b"".join(
        (
            len(context_bytes).to_bytes(2, "big"),
            context_bytes,
            serialize_encrypted_data_keys(encrypted_data_keys),
            bytes((FRAMED,)),
            frame_length_bytes.to_bytes(4, "big"),
        )
    )


def parse_header(reader: ByteReader | StreamReader, limits: ReadLimits) -> MessageHeader:
    """Read one header and stand after its tag.

    Raises FormatError for bytes that are not a header, LimitExceededError for one beyond
    ``limits``. Checks that ``aws-crypto-public-key`` is present exactly when the suite signs (rule 7).
    """
    parts = _HeaderParts(reader, limits)
    version = parts.take(1, "version")[0]
    if version not in _MESSAGE_ID_LENGTH_BYTES:
        raise FormatError(
            f"the first byte of a message is 1 or 2, {version} came; is this an AWS Encryption SDK message?",
            field="version",
            offset=parts.start,
        )
    if version == 1 and (message_type := parts.take(1, "type")[0]) != _TYPE:
        raise parts.wrong(f"0x80 was expected, 0x{message_type:02x} came", "type", 1)
    suite = _parse_suite(parts, version)
    message_id = parts.take(_MESSAGE_ID_LENGTH_BYTES[version], "message id")
    context_bytes, context = _parse_context_field(parts, limits)
    encrypted_data_keys = _parse_encrypted_data_keys(parts, limits)
    frame_length_bytes = _parse_frame_length(parts, version, limits)
    commitment = parts.take(COMMITMENT_LENGTH_BYTES, "commitment") if suite.is_committing else b""
    body = parts.so_far()
    iv = parts.take(IV_LENGTH_BYTES, "header IV") if version == 1 else _ZERO_IV
    tag = parts.take(TAG_LENGTH_BYTES, "header authentication tag")
    if (PUBLIC_KEY_NAME in context) != suite.is_signed:
        raise FormatError(
            "the context holds a verification key exactly when the suite signs; "
            f"suite {suite.name} {'lacks it' if suite.is_signed else 'must not have it'}",
            field=PUBLIC_KEY_NAME,
        )
    return MessageHeader(
        suite=suite,
        message_id=message_id,
        context=context,
        context_bytes=context_bytes,
        encrypted_data_keys=encrypted_data_keys,
        frame_length_bytes=frame_length_bytes,
        commitment=commitment,
        body=body,
        iv=iv,
        tag=tag,
    )


class _HeaderParts:
    """Takes a header's fields in order, keeps their bytes, and counts them against the bound."""

    __slots__ = ("_limit", "_pieces", "_reader", "length", "start")

    def __init__(self, reader: ByteReader | StreamReader, limits: ReadLimits) -> None:
        self._reader = reader
        self._limit = limits.max_header_length_bytes
        self._pieces: list[bytes] = []
        self.length = 0
        self.start = reader.offset

    def take(self, length_bytes: int, field: str) -> bytes:
        self.length += length_bytes
        if self.length > self._limit:
            raise LimitExceededError(
                "the message header is too long in bytes",
                limit=self._limit,
                actual=None,
                setting="ReadLimits.max_header_length_bytes",
            )
        piece = bytes(self._reader.take(length_bytes, field))
        self._pieces.append(piece)
        return piece

    def so_far(self) -> bytes:
        return b"".join(self._pieces)

    def wrong(self, what: str, field: str, length_bytes: int) -> FormatError:
        """An error about the field of ``length_bytes`` that was just taken."""
        return FormatError(what, field=field, offset=self.start + self.length - length_bytes)


def _parse_suite(parts: _HeaderParts, version: int) -> AlgorithmSuite:
    suite_id = int.from_bytes(parts.take(2, "algorithm suite id"), "big")
    suite = ESDK_SUITES.get(suite_id)
    if suite is None or suite.message_format_version != version:
        raise parts.wrong(
            f"0x{suite_id:04x} is not a suite of message format version {version}", "algorithm suite id", 2
        )
    return suite


def _parse_context_field(parts: _HeaderParts, limits: ReadLimits) -> tuple[bytes, Mapping[str, str]]:
    length = int.from_bytes(parts.take(2, "context length"), "big")
    if length > limits.max_context_length_bytes:
        raise LimitExceededError(
            "the encryption context is too long in bytes",
            limit=limits.max_context_length_bytes,
            actual=length,
            setting="ReadLimits.max_context_length_bytes",
        )
    offset = parts.start + parts.length
    context = parse_context(parts.take(length, "encryption context"), offset=offset)
    return serialize_context(context), context


def _parse_encrypted_data_keys(parts: _HeaderParts, limits: ReadLimits) -> tuple[EncryptedDataKey, ...]:
    count = int.from_bytes(parts.take(2, "encrypted data key count"), "big")
    if count == 0:
        raise parts.wrong("at least one encrypted data key was expected", "encrypted data key count", 2)
    if count > limits.max_encrypted_data_keys:
        raise LimitExceededError(
            "too many encrypted data keys",
            limit=limits.max_encrypted_data_keys,
            actual=count,
            setting="ReadLimits.max_encrypted_data_keys",
        )
    encrypted_data_keys = []
    for _ in range(count):
        fields = []
        for name in ("provider id", "provider info", "ciphertext"):
            length = int.from_bytes(parts.take(2, f"{name} length"), "big")
            fields.append(parts.take(length, name))
        try:
            encrypted_data_keys.append(EncryptedDataKey(fields[0].decode(), fields[1], fields[2]))
            continue
        except UnicodeDecodeError:
            pass
        # Not in the handler: Python's error holds the bytes, and would stay with ours as its context.
        raise FormatError("it is not valid UTF-8", field="provider id")
    return tuple(encrypted_data_keys)


def _parse_frame_length(parts: _HeaderParts, version: int, limits: ReadLimits) -> int:
    """From the content type to the frame length, which says 0 for a non-framed body."""
    content_type = parts.take(1, "content type")[0]
    if version == 1:
        if any(parts.take(4, "reserved")):
            raise parts.wrong("four zero bytes were expected", "reserved", 4)
        if (iv_length := parts.take(1, "IV length")[0]) != IV_LENGTH_BYTES:
            raise parts.wrong(f"{IV_LENGTH_BYTES} was expected, {iv_length} came", "IV length", 1)
    frame_length_bytes = int.from_bytes(parts.take(4, "frame length"), "big")
    _check_frame_length(parts, content_type, frame_length_bytes, limits)
    return frame_length_bytes


def _check_frame_length(
    parts: _HeaderParts, content_type: int, frame_length_bytes: int, limits: ReadLimits
) -> None:
    if content_type not in (NON_FRAMED, FRAMED):
        raise FormatError(f"1 or 2 was expected, {content_type} came", field="content type")
    if content_type == NON_FRAMED and frame_length_bytes != 0:
        raise parts.wrong(f"0 for a non-framed body was expected, {frame_length_bytes} came", "frame length", 4)
    if content_type == FRAMED and frame_length_bytes == 0:
        raise parts.wrong("a framed body needs a frame length above zero", "frame length", 4)
    if frame_length_bytes > limits.max_frame_length_bytes:
        raise LimitExceededError(
            "the frame length in bytes is too large",
            limit=limits.max_frame_length_bytes,
            actual=frame_length_bytes,
            setting="ReadLimits.max_frame_length_bytes",
        )
