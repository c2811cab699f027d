"""Key providers of the AWS Encryption SDK for the keys that the tests use."""

from __future__ import annotations

from aws_encryption_sdk.identifiers import EncryptionKeyType, WrappingAlgorithm
from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider

from support.messages import WRAPPING_KEY


class _RawProvider(RawMasterKeyProvider):
    provider_id = "clinic"

    def _get_raw_key(self, key_id: bytes) -> WrappingKey:
        return WrappingKey(
            wrapping_algorithm=WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
            wrapping_key=WRAPPING_KEY,
            wrapping_key_type=EncryptionKeyType.SYMMETRIC,
        )


def raw_provider() -> RawMasterKeyProvider:
    provider = _RawProvider()
    provider.add_master_key(b"key-1")
    return provider
