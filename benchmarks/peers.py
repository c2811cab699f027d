"""The libraries that phicrypt is measured beside, each set up to do the same work with the same keys."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

from benchmarks.measure import UnavailableError
from phicrypt import CachePolicy, PhiCrypt, RawAesKeyring

WRAPPING_KEY: Final = bytes(range(32))
CONTEXT: Final = {"tenant": "clinic-7", "resource": "DiagnosticReport"}
MAX_AGE_SECONDS: Final = 3_600
MAX_MESSAGES: Final = 2**30
"""The same bounds for all caches, so large that warm stays warm."""

ESDK: Final = "aws-encryption-sdk"
MPL: Final = "aws-encryption-sdk[MPL]"
TINK: Final = "tink"
LEGACY_DYNAMODB: Final = "dynamodb-encryption-sdk"


def phi_with_raw_key(**options: Any) -> PhiCrypt:
    """phicrypt with a raw AES keyring and a cache that stays warm."""
    options.setdefault(
        "cache", CachePolicy(max_age_seconds=MAX_AGE_SECONDS, max_messages=MAX_MESSAGES, max_bytes=2**62)
    )
    return PhiCrypt(keyring=RawAesKeyring(namespace="clinic", name="key-1", wrapping_key=WRAPPING_KEY), **options)


class EsdkPeer:
    """The AWS Encryption SDK with its caching manager over a raw AES key, or over a keyring of the MPL."""

    def __init__(self, keyring: Any = None, *, master_key_provider: Any = None) -> None:
        try:
            import aws_encryption_sdk
        except ImportError as error:
            raise UnavailableError(f"aws-encryption-sdk is not installed ({error})") from None
        from aws_encryption_sdk.identifiers import Algorithm, CommitmentPolicy

        self._client = aws_encryption_sdk.EncryptionSDKClient(
            commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT
        )
        self._suites = {
            False: Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
            True: Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384,
        }
        if keyring is not None:
            self._keys = {"keyring": keyring}
        else:
            self._keys = {"materials_manager": self._caching_manager(master_key_provider or _raw_provider())}

    @staticmethod
    def _caching_manager(master_key_provider: Any) -> Any:
        import aws_encryption_sdk

        return aws_encryption_sdk.CachingCryptoMaterialsManager(
            master_key_provider=master_key_provider,
            cache=aws_encryption_sdk.LocalCryptoMaterialsCache(1_000),
            max_age=float(MAX_AGE_SECONDS),
            max_messages_encrypted=MAX_MESSAGES,
        )

    def encrypt(
        self, plaintext: bytes, *, signed: bool = False, context: Mapping[str, str] = CONTEXT, **options: Any
    ) -> bytes:
        message: bytes = self._client.encrypt(
            source=plaintext,
            encryption_context=dict(context),
            algorithm=self._suites[signed],
            **self._keys,
            **options,
        )[0]
        return message

    def decrypt(self, message: bytes) -> bytes:
        plaintext: bytes = self._client.decrypt(source=message, **self._keys)[0]
        return plaintext

    def stream(self, mode: str, source: Any, sink: Any, read_bytes: int, **options: Any) -> None:
        """File to file; ``mode`` is ``"e"`` or ``"d"``."""
        if mode == "e":
            options = {"encryption_context": CONTEXT, "algorithm": self._suites[False], **options}
        with self._client.stream(mode=mode, source=source, **self._keys, **options) as stream:
            while piece := stream.read(read_bytes):
                sink.write(piece)


def _raw_provider() -> Any:
    from aws_encryption_sdk.identifiers import EncryptionKeyType, WrappingAlgorithm
    from aws_encryption_sdk.internal.crypto.wrapping_keys import WrappingKey
    from aws_encryption_sdk.key_providers.raw import RawMasterKeyProvider

    class Provider(RawMasterKeyProvider):
        provider_id = "clinic"

        def _get_raw_key(self, key_id: bytes) -> WrappingKey:
            return WrappingKey(
                wrapping_algorithm=WrappingAlgorithm.AES_256_GCM_IV12_TAG16_NO_PADDING,
                wrapping_key=WRAPPING_KEY,
                wrapping_key_type=EncryptionKeyType.SYMMETRIC,
            )

    provider = Provider()
    provider.add_master_key(b"key-1")
    return provider


def mpl_raw_keyring() -> Any:
    """AWS's material providers library: a raw AES keyring, which generates and wraps a data key per message."""
    mpl, models = _material_providers()
    return mpl.create_raw_aes_keyring(
        input=models.CreateRawAesKeyringInput(
            key_namespace="clinic",
            key_name="key-1",
            wrapping_key=WRAPPING_KEY,
            wrapping_alg=models.AesWrappingAlg.ALG_AES256_GCM_IV12_TAG16,
        )
    )


def mpl_hierarchical_keyring(
    table_name: str, logical_name: str, kms_key_arn: str, branch_key_id: str, dynamodb: Any, kms: Any
) -> Any:
    """AWS's hierarchical keyring over a key store that exists."""
    mpl, models = _material_providers()
    from aws_cryptographic_material_providers.keystore import KeyStore
    from aws_cryptographic_material_providers.keystore import models as store_models
    from aws_cryptographic_material_providers.keystore.config import KeyStoreConfig

    store = KeyStore(
        config=KeyStoreConfig(
            ddb_client=dynamodb,
            ddb_table_name=table_name,
            logical_key_store_name=logical_name,
            kms_client=kms,
            kms_configuration=store_models.KMSConfigurationKmsKeyArn(value=kms_key_arn),
        )
    )
    return mpl.create_aws_kms_hierarchical_keyring(
        input=models.CreateAwsKmsHierarchicalKeyringInput(
            key_store=store, branch_key_id=branch_key_id, ttl_seconds=MAX_AGE_SECONDS
        )
    )


def _material_providers() -> tuple[Any, Any]:
    try:
        from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders, models
        from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
    except ImportError as error:
        raise UnavailableError(f"aws-encryption-sdk[MPL] is not installed ({error})") from None
    return AwsCryptographicMaterialProviders(config=MaterialProvidersConfig()), models


def tink_envelope() -> Any:
    """tink's KmsEnvelopeAead over a remote that answers at once; it calls the remote for every message."""
    aead = _tink("aead")
    aead.register()

    class Remote(aead.Aead):  # type: ignore[misc, name-defined]
        def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
            return plaintext[::-1]

        def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
            return ciphertext[::-1]

    return aead.KmsEnvelopeAead(aead.aead_key_templates.AES256_GCM, Remote())


def tink_streaming() -> Any:
    """tink's streaming AEAD with segments of 1 MiB, under a local key."""
    streaming_aead = _tink("streaming_aead")
    import tink

    streaming_aead.register()
    template = streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB
    return tink.new_keyset_handle(template).primitive(streaming_aead.StreamingAead)


def _tink(module: str) -> Any:
    try:
        import importlib

        return importlib.import_module(f"tink.{module}")
    except ImportError as error:
        raise UnavailableError(f"tink is not installed ({error})") from None


class LegacyDynamoDbPeer:
    """dynamodb-encryption-sdk with one static AES-256 key and one static HMAC-SHA-256 key; low-level items."""

    def __init__(self, table_name: str, partition_key: str) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from dynamodb_encryption_sdk.delegated_keys.jce import JceNameLocalDelegatedKey
                from dynamodb_encryption_sdk.encrypted import CryptoConfig, item
                from dynamodb_encryption_sdk.identifiers import CryptoAction, EncryptionKeyType, KeyEncodingType
                from dynamodb_encryption_sdk.material_providers.static import StaticCryptographicMaterialsProvider
                from dynamodb_encryption_sdk.materials.raw import RawDecryptionMaterials, RawEncryptionMaterials
                from dynamodb_encryption_sdk.structures import AttributeActions, EncryptionContext
        except ImportError as error:
            raise UnavailableError(f"dynamodb-encryption-sdk is not installed ({error})") from None

        def local_key(algorithm: str) -> Any:
            return JceNameLocalDelegatedKey(
                key=WRAPPING_KEY,
                algorithm=algorithm,
                key_type=EncryptionKeyType.SYMMETRIC,
                key_encoding=KeyEncodingType.RAW,
            )

        cipher, mac = local_key("AES"), local_key("HmacSHA256")
        provider = StaticCryptographicMaterialsProvider(
            encryption_materials=RawEncryptionMaterials(encryption_key=cipher, signing_key=mac),
            decryption_materials=RawDecryptionMaterials(decryption_key=cipher, verification_key=mac),
        )
        self._config = CryptoConfig(
            materials_provider=provider,
            encryption_context=EncryptionContext(table_name=table_name, partition_key_name=partition_key),
            attribute_actions=AttributeActions(
                default_action=CryptoAction.ENCRYPT_AND_SIGN,
                attribute_actions={partition_key: CryptoAction.SIGN_ONLY},
            ),
        )
        self._encrypt: Callable[..., dict[str, Any]] = item.encrypt_dynamodb_item
        self._decrypt: Callable[..., dict[str, Any]] = item.decrypt_dynamodb_item

    def encrypt(self, item: Mapping[str, Any]) -> dict[str, Any]:
        return self._encrypt(item, self._config)

    def decrypt(self, item: Mapping[str, Any]) -> dict[str, Any]:
        return self._decrypt(item, self._config)
