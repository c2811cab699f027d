"""Direct and intermediate wrapping of data keys, shared by every keyring.

ESDK suites wrap the data key itself. DB-ESDK suites wrap an intermediate key, from which two keys
are derived: one wraps the data key, the other signs the item for this recipient
(``framework/algorithm-suites.md``, section "Intermediate Key Wrapping")::

    ciphertext = AES-256-GCM(KEK, IV of zeros, AAD = context, data key)   32 + 16 bytes
               ‖ the intermediate key as the provider wraps it            the rest
    KEK      = HKDF-SHA512(intermediate key, no salt, "AWS_MPL_INTERMEDIATE_KEYWRAP_ENC", 32 bytes)
    MAC key  = HKDF-SHA512(intermediate key, no salt, "AWS_MPL_INTERMEDIATE_KEYWRAP_MAC", 32 bytes)

The IV is zero, so an intermediate key wraps exactly one data key and is never kept (rule 4): a
provider generates it for :func:`wrapped_data_key`, or opens it for :func:`unwrapped_data_key`, and
forgets it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from phicrypt.core.materials import DataKey, DecryptionMaterials, EncryptionMaterials
from phicrypt.core.primitives import hkdf_expand_two, hkdf_extract, open_gcm, random_bytes, seal_gcm
from phicrypt.core.suites import IV_LENGTH_BYTES, TAG_LENGTH_BYTES, AlgorithmSuite
from phicrypt.errors import AuthenticationError

_ENC_INFO: Final = b"AWS_MPL_INTERMEDIATE_KEYWRAP_ENC"
_MAC_INFO: Final = b"AWS_MPL_INTERMEDIATE_KEYWRAP_MAC"
_ZERO_IV: Final = bytes(IV_LENGTH_BYTES)


class WrappedDataKey(NamedTuple):
    """The ciphertext for the encrypted data key, and what was generated on the way."""

    ciphertext: bytes
    generated_data_key: DataKey | None
    symmetric_signing_key: DataKey | None


class UnwrappedDataKey(NamedTuple):
    """The data key, and the recipient's signing key for DB-ESDK suites."""

    data_key: DataKey
    symmetric_signing_key: DataKey | None


def key_to_wrap(materials: EncryptionMaterials) -> bytes | None:
    """The data key that the provider is to wrap; None where it wraps a new key of the suite's length."""
    if materials.data_key is None or materials.suite.has_symmetric_signature:
        return None
    return materials.data_key.key_bytes


def wrapped_data_key(materials: EncryptionMaterials, plaintext_key: bytes, ciphertext: bytes) -> WrappedDataKey:
    """What becomes of the key that the provider wrapped: the data key itself, or its intermediate key.

    Raises AuthenticationError for a plaintext key that has not the suite's length.
    """
    suite = materials.suite
    _check_length(plaintext_key, suite)
    if not suite.has_symmetric_signature:
        return WrappedDataKey(ciphertext, DataKey(plaintext_key) if materials.data_key is None else None, None)
    generated = DataKey(random_bytes(suite.data_key_length_bytes)) if materials.data_key is None else None
    data_key = generated or materials.data_key
    assert data_key is not None
    wrapping_key, signing_key = _derive(plaintext_key)
    sealed = seal_gcm(wrapping_key, _ZERO_IV, data_key.key_bytes, materials.context_bytes)
    return WrappedDataKey(sealed + ciphertext, generated, signing_key)


def wrap_data_key(
    materials: EncryptionMaterials,
    wrap: Callable[[bytes], bytes],
    *,
    generate: Callable[[int], tuple[bytes, bytes]] | None = None,
) -> WrappedDataKey:
    """Wrap the materials' data key for one recipient, generating it if there is none yet.

    Args:
        materials: those that the keyring was given.
        wrap: the provider's wrapping of a plaintext key of the suite's length.
        generate: the provider's own generation, ``length_bytes -> (plaintext key, wrapped key)``;
            without it the key is random bytes, wrapped by ``wrap``.
    """
    plaintext_key = key_to_wrap(materials)
    if plaintext_key is None and generate is not None:
        return wrapped_data_key(materials, *generate(materials.suite.data_key_length_bytes))
    if plaintext_key is None:
        plaintext_key = random_bytes(materials.suite.data_key_length_bytes)
    return wrapped_data_key(materials, plaintext_key, wrap(plaintext_key))


def ciphertext_to_unwrap(materials: DecryptionMaterials, ciphertext: bytes) -> bytes:
    """What of an encrypted data key's ciphertext the provider is to open; AuthenticationError if too short."""
    suite = materials.suite
    if not suite.has_symmetric_signature:
        return ciphertext
    sealed_length = suite.data_key_length_bytes + TAG_LENGTH_BYTES
    if len(ciphertext) <= sealed_length:
        raise AuthenticationError("encrypted data key too short")
    return ciphertext[sealed_length:]


def unwrapped_data_key(
    materials: DecryptionMaterials, ciphertext: bytes, plaintext_key: bytes
) -> UnwrappedDataKey:
    """The data key, by the plaintext key that the provider opened in the encrypted data key's ciphertext.

    Raises AuthenticationError if it does not verify or the key has not the suite's length.
    """
    suite = materials.suite
    _check_length(plaintext_key, suite)
    if not suite.has_symmetric_signature:
        return UnwrappedDataKey(DataKey(plaintext_key), None)
    wrapping_key, signing_key = _derive(plaintext_key)
    data_key = open_gcm(
        wrapping_key,
        _ZERO_IV,
        ciphertext[: suite.data_key_length_bytes + TAG_LENGTH_BYTES],
        materials.context_bytes,
        reason="encrypted data key",
    )
    return UnwrappedDataKey(DataKey(data_key), signing_key)


def unwrap_data_key(
    materials: DecryptionMaterials, ciphertext: bytes, unwrap: Callable[[bytes], bytes]
) -> UnwrappedDataKey:
    """Open one encrypted data key's ciphertext with the provider's ``unwrap``.

    Raises AuthenticationError if it does not verify or the key has not the suite's length, and
    whatever ``unwrap`` raises.
    """
    return unwrapped_data_key(materials, ciphertext, unwrap(ciphertext_to_unwrap(materials, ciphertext)))


def _check_length(plaintext_key: bytes, suite: AlgorithmSuite) -> None:
    if len(plaintext_key) != suite.data_key_length_bytes:
        raise AuthenticationError("data key length")


def _derive(intermediate_key: bytes) -> tuple[bytes, DataKey]:
    """The key-encryption key and the recipient's signing key, 32 bytes each."""
    pseudorandom_key = hkdf_extract("sha512", b"", intermediate_key)
    wrapping_key, signing_key = hkdf_expand_two("sha512", pseudorandom_key, _ENC_INFO, _MAC_INFO, 32)
    return wrapping_key, DataKey(signing_key)
