"""Sealing and opening the signed attributes of one item.

Keys (``encrypt-path-structure.md``, section "Calculate Cipherkey and Nonce")::

    commit key       HKDF-SHA512(data key, no salt, "AWS_DBE_COMMIT_KEY" ‖ message id, 32 bytes)
    field root key   HKDF-SHA512(data key, no salt, "AWS_DBE_DERIVE_KEY" ‖ message id, 32 bytes)
    field key i      44 bytes of AES-256-CTR(field root key, counter block i), for the i-th encrypted
                     attribute in the order of canonical paths: 32 bytes of key, 12 of nonce
    counter block i  "AwsDbeField" ‖ 0x2c ‖ 3 x i in four bytes

Three blocks of keystream are 48 bytes, so all field keys are one stretch of keystream.

Stored value of an encrypted attribute: type (2 bytes) ‖ AES-256-GCM(field key, AAD = canonical path,
body). Its type stands in clear, and is signed.

Footer, stored as ``aws_dbe_foot`` (``structured-encryption/footer.md``)::

    canonical hash = SHA-384(header ‖ 8-byte length and bytes of the whole context ‖ signed attributes)
    one attribute  = canonical path ‖ 8-byte length of the body ‖ "ENCRYPTED" or "PLAINTEXT" ‖ type ‖ body
    recipient tags   48 bytes each: HMAC-SHA384(the recipient's key, canonical hash), in the order of
                     the encrypted data keys
    signature        suite 0x6701: 103 bytes, ECDSA P-384 with SHA-384 over the canonical hash

A reader can check only its own recipient's tag.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from struct import Struct
from typing import Final, NamedTuple

from phicrypt.core.materials import DataKey, DecryptionMaterials, EncryptionMaterials
from phicrypt.core.primitives import (
    AESGCM,
    FIXED_SIGNATURE_LENGTH_BYTES,
    InvalidTag,
    aes_ctr_keystream,
    constant_time_equal,
    hkdf_expand_two,
    hkdf_extract,
    hmac_sha384,
    random_bytes,
)
from phicrypt.core.suites import TAG_LENGTH_BYTES
from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError
from phicrypt.formats.dbesdk.attributes import AttributeValue
from phicrypt.formats.dbesdk.header import MESSAGE_ID_LENGTH_BYTES, Header, serialize_header, verify_commitment
from phicrypt.formats.dbesdk.layout import Layout

TYPE_ID_LENGTH_BYTES: Final = 2
RECIPIENT_TAG_LENGTH_BYTES: Final = 48
_COMMIT_LABEL: Final = b"AWS_DBE_COMMIT_KEY"
_DERIVE_LABEL: Final = b"AWS_DBE_DERIVE_KEY"
_FIRST_COUNTER: Final = b"AwsDbeField" + bytes((44, 0, 0, 0, 0))
_FIELD_KEY: Final = Struct("32s12s4x")
"""Key and nonce of one attribute in the keystream; each takes whole cipher blocks."""
_JOINED_LENGTH_BYTES: Final = 64 * 1024
"""Up to here one join and one hash cost less than a hash of many pieces; beyond, a copy costs more."""

Terminal = tuple[bytes, bytes]
"""Type and body of an attribute value."""


class SealedRecord(NamedTuple):
    """What :func:`seal_record` made.

    Attributes:
        header_bytes: the value of ``aws_dbe_head``.
        footer_bytes: the value of ``aws_dbe_foot``.
        encrypted: the binary value of each encrypted attribute.
        message_id: as in the header.
    """

    header_bytes: bytes
    footer_bytes: bytes
    encrypted: dict[str, bytes]
    message_id: bytes


def seal_record(
    materials: EncryptionMaterials,
    layout: Layout,
    terminals: Sequence[Terminal],
    *,
    version: int,
    stored_context: Mapping[str, str],
) -> SealedRecord:
    """Encrypt and sign, with a message id of its own.

    Args:
        materials: with a data key that seals this record only, and one symmetric signing key for
            each encrypted data key.
        layout: the signed attributes.
        terminals: their values, in the layout's order.
        version: of the header, 1 or 2.
        stored_context: the pairs of the materials' context that a reader cannot compute.
    """
    assert materials.data_key is not None
    message_id = random_bytes(MESSAGE_ID_LENGTH_BYTES)
    commit_key, field_root_key = _derive(materials.data_key, message_id)
    header_bytes = serialize_header(
        materials,
        layout,
        version=version,
        message_id=message_id,
        stored_context=stored_context,
        commit_key=commit_key,
    )
    field_keys = _field_keys(field_root_key, len(layout.encrypted_names))
    stored: list[bytes] = []
    for path, is_encrypted, (type_id, body) in zip(layout.paths, layout.is_encrypted, terminals, strict=True):
        if is_encrypted:
            cipher_key, nonce = next(field_keys)
            body = AESGCM(cipher_key).encrypt(nonce, body, path)
        stored.append(type_id + body)
    canonical_hash = _canonical_hash(header_bytes, materials.context_bytes, layout, stored)
    footer = [hmac_sha384(key.key_bytes, canonical_hash) for key in materials.symmetric_signing_keys]
    if len(footer) != len(materials.encrypted_data_keys):
        raise _unsuitable_keyring()
    if materials.suite.is_signed:
        assert materials.signing_key is not None
        footer.append(materials.signing_key.sign_digest(hashlib.sha384(canonical_hash).digest()))
    encrypted = dict(zip(layout.encrypted_names, compress(stored, layout.is_encrypted), strict=True))
    return SealedRecord(header_bytes, b"".join(footer), encrypted, message_id)


def open_record(
    materials: DecryptionMaterials,
    header: Header,
    footer_bytes: bytes,
    layout: Layout,
    stored: Sequence[bytes],
) -> dict[str, Terminal]:
    """Verify everything, then decrypt; the type and body of each encrypted attribute by name.

    Args:
        materials: for the header's suite and encrypted data keys, and the item's whole context.
        header: as parsed; its commitment is checked here.
        footer_bytes: the value of ``aws_dbe_foot``.
        layout: the signed attributes, with the header's legend.
        stored: type and body of each, in the layout's order; for encrypted ones the binary value,
            which begins with the type of the plaintext.

    Raises AuthenticationError for anything changed, FormatError for a footer of another length,
    ConfigurationError for materials of a keyring that does not serve items.
    """
    assert materials.data_key is not None
    commit_key, field_root_key = _derive(materials.data_key, header.message_id)
    verify_commitment(header, commit_key)
    _verify_footer(materials, header, footer_bytes, layout, stored)
    field_keys = _field_keys(field_root_key, len(layout.encrypted_names))
    values = compress(stored, layout.is_encrypted)
    try:
        return {
            name: (
                value[:TYPE_ID_LENGTH_BYTES],
                AESGCM(cipher_key).decrypt(nonce, value[TYPE_ID_LENGTH_BYTES:], path),
            )
            for name, path, value, (cipher_key, nonce) in zip(
                layout.encrypted_names, layout.encrypted_paths, values, field_keys, strict=True
            )
        }
    except InvalidTag:
        raise AuthenticationError("attribute tag") from None


def encrypted_value(attribute: AttributeValue) -> bytes:
    """The stored value of an encrypted attribute, or AuthenticationError if it cannot be one.

    AWS's libraries sign its bytes but not that DynamoDB holds them as binary; here a text or number
    in its place is refused.
    """
    # type() first: isinstance of an abstract class costs more than everything else here.
    if (type(attribute) is dict or isinstance(attribute, Mapping)) and len(attribute) == 1:
        value = attribute.get("B")
        if isinstance(value, bytes) and len(value) >= TYPE_ID_LENGTH_BYTES + TAG_LENGTH_BYTES:
            return value
    raise AuthenticationError("encrypted attribute")


def _derive(data_key: DataKey, message_id: bytes) -> tuple[bytes, bytes]:
    """The commit key and the field root key."""
    pseudorandom_key = hkdf_extract("sha512", b"", data_key.key_bytes)
    return hkdf_expand_two("sha512", pseudorandom_key, _COMMIT_LABEL + message_id, _DERIVE_LABEL + message_id, 32)


def _field_keys(field_root_key: bytes, field_count: int) -> Iterator[tuple[bytes, bytes]]:
    """Cipher key and nonce of each encrypted attribute, in canonical order."""
    keystream = aes_ctr_keystream(field_root_key, _FIRST_COUNTER, field_count * _FIELD_KEY.size)
    return _FIELD_KEY.iter_unpack(keystream)


def _canonical_hash(header_bytes: bytes, context_bytes: bytes, layout: Layout, stored: Sequence[bytes]) -> bytes:
    pieces = [header_bytes, len(context_bytes).to_bytes(8, "big"), context_bytes]
    for path, mark, value in zip(layout.paths, layout.marks, stored, strict=True):
        pieces += (path, (len(value) - TYPE_ID_LENGTH_BYTES).to_bytes(8, "big"), mark, value)
    if sum(map(len, stored)) <= _JOINED_LENGTH_BYTES:
        return hashlib.sha384(b"".join(pieces)).digest()
    running = hashlib.sha384()
    for piece in pieces:
        running.update(piece)
    return running.digest()


def _verify_footer(
    materials: DecryptionMaterials,
    header: Header,
    footer_bytes: bytes,
    layout: Layout,
    stored: Sequence[bytes],
) -> None:
    if materials.symmetric_signing_key is None or materials.recipient_index is None:
        raise _unsuitable_keyring()
    tags_length = RECIPIENT_TAG_LENGTH_BYTES * len(header.encrypted_data_keys)
    curve = materials.suite.signature_curve
    expected_length = tags_length + (FIXED_SIGNATURE_LENGTH_BYTES[curve] if curve is not None else 0)
    if len(footer_bytes) != expected_length:
        raise FormatError(f"{expected_length} bytes were expected, {len(footer_bytes)} came", field="footer")
    canonical_hash = _canonical_hash(header.header_bytes, materials.context_bytes, layout, stored)
    start = RECIPIENT_TAG_LENGTH_BYTES * materials.recipient_index
    stored_tag = footer_bytes[start : start + RECIPIENT_TAG_LENGTH_BYTES]
    if not constant_time_equal(stored_tag, hmac_sha384(materials.symmetric_signing_key.key_bytes, canonical_hash)):
        raise AuthenticationError("recipient tag")
    if curve is not None:
        assert materials.verification_key is not None
        digest = hashlib.sha384(canonical_hash).digest()
        materials.verification_key.verify_digest(digest, footer_bytes[tags_length:])


def _unsuitable_keyring() -> ConfigurationError:
    return ConfigurationError(
        "the keyring does not serve DynamoDB items: it gives no signing key with an encrypted data key"
    )
