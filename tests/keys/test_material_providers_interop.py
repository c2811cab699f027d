"""Encrypted data keys pass both ways between phicrypt's keyrings and AWS's material providers library."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support.keyring_support import CONTEXT, EAST, WEST, in_region, opens, to_decrypt, to_encrypt
from support.recipient_keys import CURVES, KMS_SPECS, ec_pair, private_pem, public_der, public_pem, rsa_pair

from phicrypt.core.materials import EncryptedDataKey, Keyring
from phicrypt.core.suites import DBE_SUITES, ESDK_SUITES, AlgorithmSuite
from phicrypt.keys.kms.ecdh_keyring import KmsEcdhKeyring
from phicrypt.keys.kms.keyring import KmsKeyring
from phicrypt.keys.multi import MultiKeyring
from phicrypt.keys.raw_aes import RawAesKeyring
from phicrypt.keys.raw_ecdh import RawEcdhKeyring
from phicrypt.keys.raw_rsa import RawRsaKeyring
from phicrypt.testing import StrictKms

pytest.importorskip("aws_cryptographic_material_providers.mpl", reason="the MPL is not installed")

SUITES = [ESDK_SUITES[0x0478], ESDK_SUITES[0x0114], ESDK_SUITES[0x0146], DBE_SUITES[0x6700]]


@pytest.fixture(scope="module")
def mpl() -> Any:
    from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
    from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig

    return AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())


def suite_id(suite: AlgorithmSuite) -> Any:
    from aws_cryptographic_material_providers.mpl import models

    kind = models.AlgorithmSuiteIdDBE if suite.has_symmetric_signature else models.AlgorithmSuiteIdESDK
    return kind(f"0x{suite.suite_id:04X}")


def theirs_encrypts(mpl: Any, keyring: Any, suite: AlgorithmSuite) -> Any:
    from aws_cryptographic_material_providers.mpl import models

    materials = mpl.initialize_encryption_materials(
        models.InitializeEncryptionMaterialsInput(
            algorithm_suite_id=suite_id(suite), encryption_context=CONTEXT, required_encryption_context_keys=[]
        )
    )
    return keyring.on_encrypt(models.OnEncryptInput(materials=materials)).materials


def theirs_decrypts(
    mpl: Any, keyring: Any, suite: AlgorithmSuite, encrypted_data_keys: tuple[EncryptedDataKey, ...]
) -> Any:
    from aws_cryptographic_material_providers.mpl import models

    materials = mpl.initialize_decryption_materials(
        models.InitializeDecryptionMaterialsInput(
            algorithm_suite_id=suite_id(suite), encryption_context=CONTEXT, required_encryption_context_keys=[]
        )
    )
    converted = [
        models.EncryptedDataKey(
            key_provider_id=one.provider_id, key_provider_info=one.provider_info, ciphertext=one.ciphertext
        )
        for one in encrypted_data_keys
    ]
    return keyring.on_decrypt(models.OnDecryptInput(materials=materials, encrypted_data_keys=converted)).materials


def passes_both_ways(mpl: Any, ours: Keyring, theirs: Any, suite: AlgorithmSuite) -> None:
    sealed = ours.on_encrypt(to_encrypt(suite=suite))
    read = theirs_decrypts(mpl, theirs, suite, sealed.encrypted_data_keys)
    assert bytes(read.plaintext_data_key) == sealed.data_key.key_bytes
    written = theirs_encrypts(mpl, theirs, suite)
    opened = ours.on_decrypt(
        to_decrypt(suite=suite),
        [
            EncryptedDataKey(one.key_provider_id, bytes(one.key_provider_info), bytes(one.ciphertext))
            for one in written.encrypted_data_keys
        ],
    )
    assert opened.data_key.key_bytes == bytes(written.plaintext_data_key)
    if suite.has_symmetric_signature:
        assert bytes(read.symmetric_signing_key) == sealed.symmetric_signing_keys[0].key_bytes
        assert opened.symmetric_signing_key.key_bytes == bytes(written.symmetric_signing_keys[0])


def their_raw_aes(mpl: Any, wrapping_key: bytes) -> Any:
    from aws_cryptographic_material_providers.mpl import models

    return mpl.create_raw_aes_keyring(
        models.CreateRawAesKeyringInput(
            key_namespace="clinic",
            key_name="schlüssel-1",
            wrapping_key=wrapping_key,
            wrapping_alg=f"ALG_AES{len(wrapping_key) * 8}_GCM_IV12_TAG16",
        )
    )


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: f"{suite.suite_id:04x}")
@pytest.mark.parametrize("length_bytes", [16, 24, 32])
def test_raw_aes_both_ways(mpl: Any, suite: AlgorithmSuite, length_bytes: int) -> None:
    wrapping_key = bytes(range(length_bytes))
    ours = RawAesKeyring("clinic", "schlüssel-1", wrapping_key)
    passes_both_ways(mpl, ours, their_raw_aes(mpl, wrapping_key), suite)


@pytest.fixture
def stage(kms: StrictKms) -> SimpleNamespace:
    arn = kms.create_key(replicas=(WEST,))
    return SimpleNamespace(kms=kms, arn=arn, ours=KmsKeyring(arn, client_factory=kms.client))


def their_kms(mpl: Any, stage: SimpleNamespace) -> Any:
    from aws_cryptographic_material_providers.mpl import models

    return mpl.create_aws_kms_keyring(
        models.CreateAwsKmsKeyringInput(kms_key_id=stage.arn, kms_client=stage.kms.client(EAST))
    )


def their_kms_replica(mpl: Any, stage: SimpleNamespace) -> Any:
    from aws_cryptographic_material_providers.mpl import models

    return mpl.create_aws_kms_mrk_keyring(
        models.CreateAwsKmsMrkKeyringInput(
            kms_key_id=in_region(stage.arn, WEST), kms_client=stage.kms.client(WEST)
        )
    )


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: f"{suite.suite_id:04x}")
@pytest.mark.parametrize("their_keyring", [their_kms, their_kms_replica])
def test_kms_both_ways(
    mpl: Any, stage: SimpleNamespace, suite: AlgorithmSuite, their_keyring: Callable[..., Any]
) -> None:
    passes_both_ways(mpl, stage.ours, their_keyring(mpl, stage), suite)


def test_both_send_kms_the_same_requests(mpl: Any, stage: SimpleNamespace) -> None:
    passes_both_ways(mpl, stage.ours, their_kms(mpl, stage), ESDK_SUITES[0x0478])
    our_generate, their_decrypt, their_generate, our_decrypt = (one.parameters for one in stage.kms.requests)
    assert our_generate == {name: value for name, value in their_generate.items() if value != []}
    assert set(our_decrypt) == {name for name, value in their_decrypt.items() if value != []}


@pytest.mark.parametrize("suite", [ESDK_SUITES[0x0478], DBE_SUITES[0x6700]], ids=["esdk", "dbe"])
def test_multi_keyring_both_ways(mpl: Any, stage: SimpleNamespace, suite: AlgorithmSuite) -> None:
    from aws_cryptographic_material_providers.mpl import models

    local = RawAesKeyring("clinic", "schlüssel-1", bytes(32))
    theirs = mpl.create_multi_keyring(
        models.CreateMultiKeyringInput(
            generator=their_kms(mpl, stage), child_keyrings=[their_raw_aes(mpl, bytes(32))]
        )
    )
    passes_both_ways(mpl, MultiKeyring(stage.ours, local), theirs, suite)
    sealed = MultiKeyring(stage.ours, local).on_encrypt(to_encrypt(suite=suite))
    read = theirs_decrypts(mpl, their_raw_aes(mpl, bytes(32)), suite, sealed.encrypted_data_keys)
    assert bytes(read.plaintext_data_key) == opens(local, sealed).data_key.key_bytes


PADDINGS = {
    "pkcs1": "PKCS1",
    "oaep-sha1": "OAEP_SHA1_MGF1",
    "oaep-sha256": "OAEP_SHA256_MGF1",
    "oaep-sha384": "OAEP_SHA384_MGF1",
    "oaep-sha512": "OAEP_SHA512_MGF1",
}


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: f"{suite.suite_id:04x}")
@pytest.mark.parametrize("padding", PADDINGS)
def test_raw_rsa_both_ways(mpl: Any, suite: AlgorithmSuite, padding: Any) -> None:
    from aws_cryptographic_material_providers.mpl import models

    pair = rsa_pair()
    theirs = mpl.create_raw_rsa_keyring(
        models.CreateRawRsaKeyringInput(
            key_namespace="clinic",
            key_name="schlüssel-1",
            padding_scheme=PADDINGS[padding],
            public_key=public_pem(pair).encode(),
            private_key=private_pem(pair),
        )
    )
    ours = RawRsaKeyring("clinic", "schlüssel-1", public_key=public_pem(pair), private_key=pair, padding=padding)
    passes_both_ways(mpl, ours, theirs, suite)


def their_raw_ecdh(mpl: Any, curve: str, configuration: Any) -> Any:
    from aws_cryptographic_material_providers.mpl import models

    return mpl.create_raw_ecdh_keyring(
        models.CreateRawEcdhKeyringInput(key_agreement_scheme=configuration, curve_spec=KMS_SPECS[curve])
    )


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: f"{suite.suite_id:04x}")
@pytest.mark.parametrize("curve", CURVES)
def test_raw_ecdh_both_ways(mpl: Any, suite: AlgorithmSuite, curve: str) -> None:
    from aws_cryptographic_material_providers.mpl import models

    ours, theirs = ec_pair(curve), ec_pair(curve)
    static = their_raw_ecdh(
        mpl,
        curve,
        models.RawEcdhStaticConfigurationsRawPrivateKeyToStaticPublicKey(
            models.RawPrivateKeyToStaticPublicKeyInput(
                sender_static_private_key=private_pem(theirs), recipient_public_key=public_der(ours)
            )
        ),
    )
    ring = RawEcdhKeyring.static(private_key=private_pem(ours), recipient_public_key=public_pem(theirs))
    passes_both_ways(mpl, ring, static, suite)
    discovery = their_raw_ecdh(
        mpl,
        curve,
        models.RawEcdhStaticConfigurationsPublicKeyDiscovery(
            models.PublicKeyDiscoveryInput(recipient_static_private_key=private_pem(theirs))
        ),
    )
    sealed = RawEcdhKeyring.ephemeral(recipient_public_key=public_pem(theirs)).on_encrypt(to_encrypt(suite=suite))
    read = theirs_decrypts(mpl, discovery, suite, sealed.encrypted_data_keys)
    assert bytes(read.plaintext_data_key) == sealed.data_key.key_bytes
    ephemeral = their_raw_ecdh(
        mpl,
        curve,
        models.RawEcdhStaticConfigurationsEphemeralPrivateKeyToStaticPublicKey(
            models.EphemeralPrivateKeyToStaticPublicKeyInput(recipient_public_key=public_der(ours))
        ),
    )
    written = theirs_encrypts(mpl, ephemeral, suite)
    (one,) = written.encrypted_data_keys
    data_key = EncryptedDataKey(one.key_provider_id, bytes(one.key_provider_info), bytes(one.ciphertext))
    opened = RawEcdhKeyring.discovery(private_key=private_pem(ours)).on_decrypt(
        to_decrypt(suite=suite), [data_key]
    )
    assert opened.data_key.key_bytes == bytes(written.plaintext_data_key)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: f"{suite.suite_id:04x}")
def test_kms_ecdh_both_ways(mpl: Any, kms: StrictKms, suite: AlgorithmSuite) -> None:
    from aws_cryptographic_material_providers.mpl import models

    ours = kms.create_key(KeySpec="ECC_NIST_P384", KeyUsage="KEY_AGREEMENT")
    theirs = kms.create_key(KeySpec="ECC_NIST_P384", KeyUsage="KEY_AGREEMENT")
    public_keys = {arn: public_der(kms.key(arn).key_pair) for arn in (ours, theirs)}
    static = models.KmsEcdhStaticConfigurationsKmsPrivateKeyToStaticPublicKey(
        models.KmsPrivateKeyToStaticPublicKeyInput(
            sender_kms_identifier=theirs,
            sender_public_key=public_keys[theirs],
            recipient_public_key=public_keys[ours],
        )
    )
    their_keyring = mpl.create_aws_kms_ecdh_keyring(
        models.CreateAwsKmsEcdhKeyringInput(
            key_agreement_scheme=static, curve_spec="ECC_NIST_P384", kms_client=kms.client(EAST)
        )
    )
    ring = KmsEcdhKeyring(
        ours, public_key=public_keys[ours], recipient_public_key=public_keys[theirs], client=kms.client()
    )
    passes_both_ways(mpl, ring, their_keyring, suite)
    our_write, their_read, their_write, our_read = (one.parameters for one in kms.requests)
    assert set(our_write) == set(our_read) == {name for name, value in their_read.items() if value != []}
    assert our_write["PublicKey"] == our_read["PublicKey"]
    assert their_write["PublicKey"] == their_read["PublicKey"]
