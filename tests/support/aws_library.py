"""AWS's material providers library for Python, set up over the local stack: key stores, keyrings, messages.

Import it only after ``pytest.importorskip("aws_cryptographic_material_providers")``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import aws_encryption_sdk
from aws_cryptographic_material_providers.keystore import KeyStore
from aws_cryptographic_material_providers.keystore import models as store_models
from aws_cryptographic_material_providers.keystore.config import KeyStoreConfig
from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders, models
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
from aws_encryption_sdk import CommitmentPolicy
from aws_encryption_sdk.identifiers import AlgorithmSuite as SdkSuite

from phicrypt.core.context import serialize_context
from phicrypt.core.materials import DataKey, EncryptedDataKey, EncryptionMaterials
from phicrypt.core.suites import AlgorithmSuite

mpl = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())
_sdk = aws_encryption_sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)


class AwsKeyStore:
    """AWS's key store over the same table."""

    def __init__(
        self,
        table_name: str,
        logical_name: str,
        kms_key_arn: str,
        dynamodb: Any,
        kms: Any,
        *,
        multi_region: bool = False,
    ) -> None:
        configuration = (
            store_models.KMSConfigurationKmsMRKeyArn if multi_region else store_models.KMSConfigurationKmsKeyArn
        )
        self.store = KeyStore(
            config=KeyStoreConfig(
                ddb_client=dynamodb,
                ddb_table_name=table_name,
                logical_key_store_name=logical_name,
                kms_client=kms,
                kms_configuration=configuration(value=kms_key_arn),
            )
        )

    def create_table(self) -> None:
        self.store.create_key_store(input=store_models.CreateKeyStoreInput())

    def create_key(self, branch_key_id: str, context: Mapping[str, str]) -> None:
        self.store.create_key(
            input=store_models.CreateKeyInput(
                branch_key_identifier=branch_key_id, encryption_context=dict(context)
            )
        )

    def rotate(self, branch_key_id: str) -> None:
        self.store.version_key(input=store_models.VersionKeyInput(branch_key_identifier=branch_key_id))

    def active(self, branch_key_id: str) -> Any:
        return self.store.get_active_branch_key(
            input=store_models.GetActiveBranchKeyInput(branch_key_identifier=branch_key_id)
        ).branch_key_materials

    def version(self, branch_key_id: str, version: str) -> Any:
        return self.store.get_branch_key_version(
            input=store_models.GetBranchKeyVersionInput(
                branch_key_identifier=branch_key_id, branch_key_version=version
            )
        ).branch_key_materials

    def beacon_key(self, branch_key_id: str) -> bytes:
        answer = self.store.get_beacon_key(
            input=store_models.GetBeaconKeyInput(branch_key_identifier=branch_key_id)
        )
        return bytes(answer.beacon_key_materials.beacon_key)

    def keyring(self, branch_key_id: str) -> Any:
        return mpl.create_aws_kms_hierarchical_keyring(
            input=models.CreateAwsKmsHierarchicalKeyringInput(
                key_store=self.store, branch_key_id=branch_key_id, ttl_seconds=600
            )
        )


def rsa_keyring(key_arn: str, algorithm: str, public_key: bytes | None, kms: Any) -> Any:
    """AWS's RSA keyring; the public key in DER."""
    pem = None
    if public_key is not None:
        body = base64.encodebytes(public_key)
        pem = b"-----BEGIN PUBLIC KEY-----\n" + body + b"-----END PUBLIC KEY-----\n"
    return mpl.create_aws_kms_rsa_keyring(
        input=models.CreateAwsKmsRsaKeyringInput(
            kms_key_id=key_arn, encryption_algorithm=algorithm, public_key=pem, kms_client=kms
        )
    )


def encrypt(keyring: Any, plaintext: bytes, context: Mapping[str, str], *, signed: bool = False) -> bytes:
    suite = (
        SdkSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384
        if signed
        else SdkSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
    )
    message, _ = _sdk.encrypt(source=plaintext, keyring=keyring, encryption_context=dict(context), algorithm=suite)
    return bytes(message)


def decrypt(keyring: Any, message: bytes) -> bytes:
    plaintext, _ = _sdk.decrypt(source=message, keyring=keyring)
    return bytes(plaintext)


def wrap(keyring: Any, suite: AlgorithmSuite, context: Mapping[str, str]) -> EncryptionMaterials:
    """What AWS's keyring makes of fresh materials, as ours. Its signed suites add a public key to the context."""
    info = mpl.get_algorithm_suite_info(suite.id_bytes)
    fresh = mpl.initialize_encryption_materials(
        models.InitializeEncryptionMaterialsInput(
            algorithm_suite_id=info.id,
            encryption_context=dict(context),
            required_encryption_context_keys=[],
            signing_key=b"unused" if suite.is_signed else None,
            verification_key=b"unused" if suite.is_signed else None,
        )
    )
    made = keyring.on_encrypt(models.OnEncryptInput(materials=fresh)).materials
    return EncryptionMaterials(
        suite,
        made.encryption_context,
        serialize_context(made.encryption_context),
        data_key=DataKey(bytes(made.plaintext_data_key)),
        encrypted_data_keys=tuple(
            EncryptedDataKey(one.key_provider_id, bytes(one.key_provider_info), bytes(one.ciphertext))
            for one in made.encrypted_data_keys
        ),
        symmetric_signing_keys=tuple(DataKey(bytes(one)) for one in made.symmetric_signing_keys or ()),
    )


def unwrap(keyring: Any, sealed: EncryptionMaterials) -> tuple[bytes, bytes | None]:
    """Data key and symmetric signing key as AWS's keyring opens them."""
    info = mpl.get_algorithm_suite_info(sealed.suite.id_bytes)
    fresh = mpl.initialize_decryption_materials(
        models.InitializeDecryptionMaterialsInput(
            algorithm_suite_id=info.id,
            encryption_context=dict(sealed.context),
            required_encryption_context_keys=[],
        )
    )
    data_keys = [
        models.EncryptedDataKey(
            key_provider_id=one.provider_id, key_provider_info=one.provider_info, ciphertext=one.ciphertext
        )
        for one in sealed.encrypted_data_keys
    ]
    made = keyring.on_decrypt(models.OnDecryptInput(materials=fresh, encrypted_data_keys=data_keys)).materials
    signing_key = made.symmetric_signing_key
    return bytes(made.plaintext_data_key), bytes(signing_key) if signing_key is not None else None
