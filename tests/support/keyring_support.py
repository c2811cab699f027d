"""Materials for tests of keyrings, without formats; and keyrings on the strict KMS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from phicrypt.core.context import serialize_context
from phicrypt.core.materials import DecryptionMaterials, EncryptedDataKey, EncryptionMaterials, Keyring
from phicrypt.core.suites import AES_256_GCM_HKDF_SHA512_COMMIT_KEY, AlgorithmSuite
from phicrypt.keys.kms.keyring import KmsKeyring
from phicrypt.testing import StrictKms

CONTEXT = {"tenant": "clinic-7", "resource": "DiagnosticReport"}


def to_encrypt(
    context: Mapping[str, str] = CONTEXT, suite: AlgorithmSuite = AES_256_GCM_HKDF_SHA512_COMMIT_KEY
) -> EncryptionMaterials:
    return EncryptionMaterials(suite, context, serialize_context(context))


def to_decrypt(
    context: Mapping[str, str] = CONTEXT, suite: AlgorithmSuite = AES_256_GCM_HKDF_SHA512_COMMIT_KEY
) -> DecryptionMaterials:
    return DecryptionMaterials(suite, context, serialize_context(context))


def opens(keyring: Keyring, sealed: EncryptionMaterials) -> DecryptionMaterials:
    """The decryption materials, whose keys must equal those that were sealed."""
    opened = keyring.on_decrypt(to_decrypt(sealed.context, sealed.suite), sealed.encrypted_data_keys)
    assert opened.data_key is not None
    assert sealed.data_key is not None
    assert opened.data_key.key_bytes == sealed.data_key.key_bytes
    if sealed.symmetric_signing_keys:
        assert opened.symmetric_signing_key is not None
        expected = sealed.symmetric_signing_keys[opened.recipient_index or 0]
        assert opened.symmetric_signing_key.key_bytes == expected.key_bytes
    return opened


def changed(encrypted_data_key: EncryptedDataKey, **fields: Any) -> EncryptedDataKey:
    """The same encrypted data key with other fields."""
    names = ("provider_id", "provider_info", "ciphertext")
    return EncryptedDataKey(**{name: fields.get(name, getattr(encrypted_data_key, name)) for name in names})


EAST, WEST, DUBLIN = "us-east-1", "us-west-2", "eu-west-1"


def in_region(arn: str, region: str) -> str:
    return arn.replace(EAST, region)


def kms_keyring(kms: StrictKms, arn: str, **settings: Any) -> KmsKeyring:
    """A keyring whose clients reach the strict KMS once per call."""
    return KmsKeyring(arn, client_factory=kms.client, **settings)


REFUSALS: dict[str, tuple[Callable[[StrictKms, str], Any], str]] = {
    "disabled": (StrictKms.disable, "DisabledException"),
    "pending deletion": (StrictKms.schedule_deletion, "KMSInvalidStateException"),
    "denied": (StrictKms.deny, "AccessDeniedException"),
    "throttled": (lambda kms, arn: kms.throttle(times=1), "ThrottlingException"),
    "gone": (lambda kms, arn: kms.account.keys.clear(), "NotFoundException"),
    "out of service": (lambda kms, arn: kms.fail("KMSInternalException"), "KMSInternalException"),
    "wrong use": (lambda kms, arn: setattr(kms.key(arn), "usage", "SIGN_VERIFY"), "InvalidKeyUsageException"),
}
"""What may befall a key, and the code that KMS answers then."""
