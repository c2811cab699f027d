"""``RawAesKeyring``: data keys wrapped under an AES key that the caller holds.

For offline use and tests; AWS's raw AES keyring format (``framework/raw-aes-keyring.md``), so the
AWS Encryption SDK opens what it wraps with the same namespace, name and wrapping key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from phicrypt.core.key_origin import KeyOrigin, joined_origin
from phicrypt.core.materials import DecryptionMaterials, EncryptedDataKey, EncryptionMaterials
from phicrypt.core.primitives import open_gcm, random_bytes, seal_gcm
from phicrypt.core.steps import KeyringBase
from phicrypt.errors import AuthenticationError, ConfigurationError, KeyAccessError
from phicrypt.keys.wrapping import UnwrappedDataKey, unwrap_data_key, wrap_data_key

_IV_LENGTH_BYTES: Final = 12
_TAG_LENGTH_BYTES: Final = 16


class RawAesKeyring(KeyringBase):
    """Wraps data keys with AES-GCM under a local wrapping key of 16, 24 or 32 bytes.

    The encrypted data key's provider id is the namespace; its provider info is::

        name                UTF-8
        tag length in bits  4 bytes, 128
        IV length in bytes  4 bytes, 12
        IV                  12 bytes

    and its ciphertext is the wrapped data key followed by the 16-byte tag. The serialized context
    is the AAD.

    Raises ConfigurationError for a wrapping key of another length, or the namespace ``aws-kms``.
    """

    __slots__ = ("_identity", "_provider_info_prefix", "_wrapping_key", "name", "namespace")

    def __init__(self, namespace: str, name: str, wrapping_key: bytes) -> None:
        if not isinstance(wrapping_key, bytes) or len(wrapping_key) not in (16, 24, 32):
            raise ConfigurationError("a raw AES wrapping key is 16, 24 or 32 bytes")
        for text in (namespace, name):
            if not isinstance(text, str) or any("\ud800" <= character <= "\udfff" for character in text):
                raise ConfigurationError("a raw AES key has a namespace and a name of valid Unicode text")
        if not namespace or namespace.startswith("aws-kms"):
            raise ConfigurationError("a raw AES key namespace is non-empty and does not begin with aws-kms")
        if not name:
            raise ConfigurationError("a raw AES key name is non-empty")
        self.namespace = namespace
        self.name = name
        self._wrapping_key = wrapping_key
        self._provider_info_prefix = (
            name.encode() + (_TAG_LENGTH_BYTES * 8).to_bytes(4, "big") + _IV_LENGTH_BYTES.to_bytes(4, "big")
        )
        # The digest tells two wrapping keys of one name apart in a shared cache; it never leaves the process.
        self._identity = ("raw-aes", namespace, name, hashlib.sha256(wrapping_key).digest())

    def __repr__(self) -> str:
        return f"<RawAesKeyring {self.namespace!r} {self.name!r}>"

    @property
    def binds_context_locally(self) -> bool:
        return True

    def on_encrypt(self, materials: EncryptionMaterials) -> EncryptionMaterials:
        iv = random_bytes(_IV_LENGTH_BYTES)

        def wrap(plaintext_key: bytes) -> bytes:
            return seal_gcm(self._wrapping_key, iv, plaintext_key, materials.context_bytes)

        wrapped = wrap_data_key(materials, wrap)
        encrypted_data_key = EncryptedDataKey(self.namespace, self._provider_info_prefix + iv, wrapped.ciphertext)
        return materials.with_recipient(
            encrypted_data_key,
            data_key=wrapped.generated_data_key,
            symmetric_signing_key=wrapped.symmetric_signing_key,
            origin=joined_origin(materials.origin, KeyOrigin(self.namespace, self.name)),
        )

    def on_decrypt(
        self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
    ) -> DecryptionMaterials:
        info_length = len(self._provider_info_prefix) + _IV_LENGTH_BYTES
        refusal: AuthenticationError | None = None
        for index, encrypted_data_key in enumerate(encrypted_data_keys):
            info = encrypted_data_key.provider_info
            if (
                encrypted_data_key.provider_id != self.namespace
                or len(info) != info_length
                or not info.startswith(self._provider_info_prefix)
            ):
                continue
            iv = info[-_IV_LENGTH_BYTES:]

            def unwrap(ciphertext: bytes, iv: bytes = iv) -> bytes:
                return open_gcm(
                    self._wrapping_key, iv, ciphertext, materials.context_bytes, reason="encrypted data key"
                )

            try:
                unwrapped: UnwrappedDataKey = unwrap_data_key(materials, encrypted_data_key.ciphertext, unwrap)
            except AuthenticationError as error:
                refusal = error
                continue
            return materials.with_data_key(
                unwrapped.data_key,
                recipient_index=index,
                origin=KeyOrigin(self.namespace, self.name),
                symmetric_signing_key=unwrapped.symmetric_signing_key,
            )
        if refusal is not None:
            raise refusal
        raise KeyAccessError(
            f"none of the message's {len(encrypted_data_keys)} encrypted data keys opens with the raw AES "
            f"wrapping key {self.namespace!r} {self.name!r}",
            operation="Decrypt",
            code="NoMatchingDataKey",
        )
