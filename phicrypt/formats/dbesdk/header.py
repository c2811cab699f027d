"""The header of an encrypted item, stored as ``aws_dbe_head`` (``structured-encryption/header.md``)::

    format version       1 byte    1, or 2 where attributes are included in the context
    flavor               1 byte    the second byte of the suite: 0x67 00 or 0x67 01
    message id           32 bytes  random, new for each encryption
    encrypt legend       2 bytes of length, then one byte for each signed attribute
    encryption context   2 bytes of count, then pairs of 2-byte-length-prefixed name and value:
                         only those pairs that a reader cannot compute from the item
    encrypted data keys  1 byte of count, then for each: provider id, provider info, ciphertext,
                         each with 2 bytes of length
    commitment           32 bytes  HMAC-SHA512, truncated, over all that is before it

The text says HMAC-SHA384 for the commitment; the libraries and the vectors use SHA-512.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Final, NamedTuple

from phicrypt.core.context import MAX_FIELD_LENGTH_BYTES, PUBLIC_KEY_NAME, parse_context, serialize_context
from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import EncryptedDataKey, EncryptionMaterials
from phicrypt.core.primitives import constant_time_equal, hmac_sha512
from phicrypt.core.suites import COMMITMENT_LENGTH_BYTES, DBE_SUITES, AlgorithmSuite
from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError, LimitExceededError
from phicrypt.formats.dbesdk.layout import Layout
from phicrypt.formats.reader import truncated

HEADER_ATTRIBUTE: Final = "aws_dbe_head"
FOOTER_ATTRIBUTE: Final = "aws_dbe_foot"
MESSAGE_ID_LENGTH_BYTES: Final = 32
_FAMILY: Final = 0x67
_BEGINNING: Final = Struct(">BB32sH")
"""Version, flavor, message id, length of the legend."""
_LEGEND_OFFSET: Final = 34


class Header(NamedTuple):
    """A parsed header. Nothing in it is authenticated before its commitment and the footer are.

    Attributes:
        version: 1 or 2.
        suite: the algorithm suite.
        message_id: 32 bytes.
        legend: one byte for each signed attribute.
        stored_context: the pairs that the header carries.
        encrypted_data_keys: one for each recipient.
        header_bytes: the whole header as stored.
    """

    version: int
    suite: AlgorithmSuite
    message_id: bytes
    legend: bytes
    stored_context: Mapping[str, str]
    encrypted_data_keys: tuple[EncryptedDataKey, ...]
    header_bytes: bytes


def parse_header(header_bytes: bytes, limits: ReadLimits) -> Header:
    """The header's fields; every length is checked before it is used.

    Raises FormatError for anything that no writer produces, LimitExceededError for a longer header,
    context or list of encrypted data keys than the limits allow.
    """
    if len(header_bytes) > limits.max_header_length_bytes:
        raise LimitExceededError(
            "the item's header is too long in bytes",
            limit=limits.max_header_length_bytes,
            actual=len(header_bytes),
            setting="ReadLimits.max_header_length_bytes",
        )
    length = len(header_bytes)
    if length < _BEGINNING.size:
        raise truncated("header", 0, _BEGINNING.size, length)
    version, flavor, message_id, _ = _BEGINNING.unpack_from(header_bytes)
    if version not in (1, 2):
        raise FormatError(f"1 or 2 was expected, {version} came", field="format version", offset=0)
    suite = DBE_SUITES.get(_FAMILY << 8 | flavor)
    if suite is None:
        raise FormatError(f"0 or 1 was expected, {flavor} came", field="flavor", offset=1)
    legend, offset = _counted(header_bytes, _LEGEND_OFFSET, "encrypt legend")
    stored_context, offset = _parse_stored_context(header_bytes, offset, limits)
    encrypted_data_keys, offset = _parse_encrypted_data_keys(header_bytes, offset, limits)
    if length < offset + COMMITMENT_LENGTH_BYTES:
        raise truncated("commitment", offset, COMMITMENT_LENGTH_BYTES, length - offset)
    if length > offset + COMMITMENT_LENGTH_BYTES:
        raise FormatError(
            "bytes are left over after it", field="commitment", offset=offset + COMMITMENT_LENGTH_BYTES
        )
    if suite.is_signed != (PUBLIC_KEY_NAME in stored_context):
        raise FormatError("a verification key is there exactly when the suite signs", field=PUBLIC_KEY_NAME)
    return Header(version, suite, message_id, legend, stored_context, encrypted_data_keys, header_bytes)


def serialize_header(
    materials: EncryptionMaterials,
    layout: Layout,
    *,
    version: int,
    message_id: bytes,
    stored_context: Mapping[str, str],
    commit_key: bytes,
) -> bytes:
    """The whole header with its commitment under a key that was derived from data key and message id."""
    pieces = [
        bytes((version, materials.suite.suite_id & 0xFF)),
        message_id,
        len(layout.legend).to_bytes(2, "big"),
        layout.legend,
        # Unlike an empty context elsewhere, one without pairs is written as a count of zero here.
        serialize_context(stored_context) if stored_context else b"\x00\x00",
        len(materials.encrypted_data_keys).to_bytes(1, "big"),
    ]
    for encrypted_data_key in materials.encrypted_data_keys:
        for part in (
            encrypted_data_key.provider_id.encode(),
            encrypted_data_key.provider_info,
            encrypted_data_key.ciphertext,
        ):
            if len(part) > MAX_FIELD_LENGTH_BYTES:
                raise ConfigurationError("a keyring wrote an encrypted data key with a field over 65,535 bytes")
            pieces += (len(part).to_bytes(2, "big"), part)
    partial = b"".join(pieces)
    return partial + _commitment(commit_key, partial)


def _commitment(commit_key: bytes, partial_header: bytes) -> bytes:
    """The 32 bytes that bind a header to its data key."""
    return hmac_sha512(commit_key, partial_header)[:COMMITMENT_LENGTH_BYTES]


def verify_commitment(header: Header, commit_key: bytes) -> None:
    """Raise AuthenticationError unless the header was made with this data key."""
    partial = header.header_bytes[:-COMMITMENT_LENGTH_BYTES]
    stored = header.header_bytes[-COMMITMENT_LENGTH_BYTES:]
    if not constant_time_equal(stored, _commitment(commit_key, partial)):
        raise AuthenticationError("commitment")


# These take from bytes by offset, because a reader's views of such small fields cost three times as much.


def _number(header_bytes: bytes, offset: int, length_bytes: int, field: str) -> tuple[int, int]:
    """A big-endian number, and where it ends; FormatError if the header ends before that."""
    end = offset + length_bytes
    if end > len(header_bytes):
        raise truncated(field, offset, length_bytes, len(header_bytes) - offset)
    return int.from_bytes(header_bytes[offset:end], "big"), end


def _counted(header_bytes: bytes, offset: int, field: str) -> tuple[bytes, int]:
    """As many bytes as the two bytes before them say, and where they end; FormatError as above."""
    start = offset + 2
    # Where the two bytes themselves are cut short, any number that is read from them ends beyond the header.
    end = start + int.from_bytes(header_bytes[offset:start], "big")
    if end > len(header_bytes):
        raise truncated(field, offset, end - offset, len(header_bytes) - offset)
    return header_bytes[start:end], end


def _parse_stored_context(header_bytes: bytes, start: int, limits: ReadLimits) -> tuple[Mapping[str, str], int]:
    field = "encryption context"
    count, end = _number(header_bytes, start, 2, field)
    if count == 0:
        return parse_context(b""), end
    for _ in range(2 * count):
        _, end = _counted(header_bytes, end, field)
    if end - start > limits.max_context_length_bytes:
        raise LimitExceededError(
            "the header's encryption context is too long in bytes",
            limit=limits.max_context_length_bytes,
            actual=end - start,
            setting="ReadLimits.max_context_length_bytes",
        )
    serialized = header_bytes[start:end]
    context = parse_context(serialized, offset=start)
    if serialize_context(context) != serialized:
        raise FormatError("names must be sorted by their bytes", field=field, offset=start)
    return context, end


def _parse_encrypted_data_keys(
    header_bytes: bytes, start: int, limits: ReadLimits
) -> tuple[tuple[EncryptedDataKey, ...], int]:
    field = "encrypted data keys"
    count, end = _number(header_bytes, start, 1, field)
    if count == 0:
        raise FormatError("at least one was expected", field=field, offset=start)
    if count > limits.max_encrypted_data_keys:
        raise LimitExceededError(
            "the item's header has too many encrypted data keys",
            limit=limits.max_encrypted_data_keys,
            actual=count,
            setting="ReadLimits.max_encrypted_data_keys",
        )
    keys = []
    for _ in range(count):
        provider_start = end
        provider_id, end = _counted(header_bytes, end, field)
        provider_info, end = _counted(header_bytes, end, field)
        ciphertext, end = _counted(header_bytes, end, field)
        try:
            keys.append(EncryptedDataKey(provider_id.decode(), provider_info, ciphertext))
            continue
        except UnicodeDecodeError:
            pass
        # Not in the handler: Python's error holds the bytes, and would stay with ours as its context.
        raise FormatError("a provider id is not valid UTF-8", field=field, offset=provider_start)
    return tuple(keys), end
