"""phicrypt's keys for the AWS Encryption SDK's own client (extra ``esdk``).

For teams that keep ``EncryptionSDKClient``: a cryptographic materials manager that lends it
phicrypt's keyrings, cache, guard and audit trail::

    manager = PhiCryptMaterialsManager(phi, expect={"tenant": "clinic-7"})
    client = aws_encryption_sdk.EncryptionSDKClient()
    message, _ = client.encrypt(source=data, materials_manager=manager, encryption_context={"tenant": "clinic-7"})
    data, _ = client.decrypt(source=message, materials_manager=manager)

The SDK seals and opens the message; phicrypt sees that a key was used, not how the message ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aws_encryption_sdk.identifiers import AlgorithmSuite as SdkSuite
from aws_encryption_sdk.internal.crypto.authentication import Signer, Verifier
from aws_encryption_sdk.internal.crypto.elliptic_curve import generate_ecc_signing_key
from aws_encryption_sdk.internal.utils.commitment import (
    validate_commitment_policy_on_decrypt,
    validate_commitment_policy_on_encrypt,
)
from aws_encryption_sdk.materials_managers import DecryptionMaterials as SdkDecryptionMaterials
from aws_encryption_sdk.materials_managers import DecryptionMaterialsRequest, EncryptionMaterialsRequest
from aws_encryption_sdk.materials_managers import EncryptionMaterials as SdkEncryptionMaterials
from aws_encryption_sdk.materials_managers.base import CryptoMaterialsManager
from aws_encryption_sdk.structures import DataKey as SdkDataKey
from aws_encryption_sdk.structures import EncryptedDataKey as SdkEncryptedDataKey
from aws_encryption_sdk.structures import MasterKeyInfo

from phicrypt.client import PhiCrypt
from phicrypt.core.context import PUBLIC_KEY_NAME, AnyContext, AuditContext, check_expected_pairs
from phicrypt.core.materials import DecryptionMaterials, EncryptedDataKey, EncryptionMaterials
from phicrypt.core.required_context import RequiredPairs, required_names
from phicrypt.core.suites import AES_256_GCM_HKDF_SHA512_COMMIT_KEY, ESDK_SUITES
from phicrypt.errors import ConfigurationError, FormatError, LimitExceededError

_FORMAT = "esdk"


class PhiCryptMaterialsManager(CryptoMaterialsManager):  # type: ignore[misc]
    """A materials manager of the AWS Encryption SDK over a :class:`phicrypt.PhiCrypt`.

    Args:
        phi: whose keyring, cache, guard, limits and audit trail are lent.
        expect: the context pairs that each message to be opened must hold, or ``ANY_CONTEXT``; needed
            for decryption only. A reproduced context that the SDK is given is checked as well.
        allow_uncommitted: also open messages of suites without key commitment, where the SDK's own
            commitment policy allows it.
        required_context: names of pairs that messages are bound to and do not store; by default those of
            ``phi``. Of a message to be opened, ``expect`` holds their values.

    Writes suite 0x0478 unless the SDK is told an algorithm; only committing suites are written.
    """

    def __init__(
        self,
        phi: PhiCrypt,
        *,
        expect: Mapping[str, str] | AuditContext | AnyContext | None = None,
        allow_uncommitted: bool = False,
        required_context: Iterable[str] | None = None,
    ) -> None:
        self._phi_session = phi.session
        self._required = None if required_context is None else required_names(required_context)
        self._expect = expect
        self._allow_uncommitted = allow_uncommitted

    def get_encryption_materials(self, request: EncryptionMaterialsRequest) -> SdkEncryptionMaterials:
        """Materials for one message; see :meth:`phicrypt.PhiCrypt.encrypt` for what is raised."""
        algorithm = request.algorithm or SdkSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY
        validate_commitment_policy_on_encrypt(request.commitment_policy, algorithm)
        suite = ESDK_SUITES[algorithm.algorithm_id]
        if not suite.is_committing:
            raise ConfigurationError(
                f"phicrypt writes committing suites only, such as {AES_256_GCM_HKDF_SHA512_COMMIT_KEY.name}; "
                f"the AWS Encryption SDK was told {suite.name}"
            )
        phi_session = self._phi_session
        pairs, context_bytes, stored, required = phi_session.contexts.to_bind(
            request.encryption_context, self._required
        )
        signer = None
        if suite.is_signed:
            signer = Signer(algorithm=algorithm, key=generate_ecc_signing_key(algorithm=algorithm))
        with phi_session.recorded(
            "esdk.encrypt",
            format=_FORMAT,
            suite_id=suite.suite_id,
            context=stored,
            required_names=required.pairs,
            sealing=True,
            at_once=True,
        ) as use:
            materials, use.cache_hit = phi_session.provider.encryption_materials(
                suite,
                pairs,
                plaintext_length_bytes=request.plaintext_length,
                context_bytes=context_bytes,
                public_key=signer.encoded_public_key().decode() if signer is not None else None,
                required=required,
            )
            use.origin, use.byte_count = materials.origin, request.plaintext_length
        return _sdk_encryption_materials(algorithm, materials, signer)

    def decrypt_materials(self, request: DecryptionMaterialsRequest) -> SdkDecryptionMaterials:
        """The data key of one message; see :meth:`phicrypt.PhiCrypt.decrypt` for what is raised."""
        validate_commitment_policy_on_decrypt(request.commitment_policy, request.algorithm)
        phi_session = self._phi_session
        expected, required = phi_session.contexts.expected(self._expect, self._required)
        suite = ESDK_SUITES[request.algorithm.algorithm_id]
        if not suite.is_committing and not self._allow_uncommitted:
            raise ConfigurationError(f"{suite.name} does not commit to its key; allow_uncommitted=True opens it")
        if (PUBLIC_KEY_NAME in request.encryption_context) != suite.is_signed:
            raise FormatError("present exactly when the suite signs was expected", field=PUBLIC_KEY_NAME)
        _check_count(len(request.encrypted_data_keys), phi_session.limits.max_encrypted_data_keys)
        whole = {**request.encryption_context, **required.pairs}
        check_expected_pairs(whole, request.reproduced_encryption_context)
        encrypted_data_keys = sorted(
            EncryptedDataKey(key.key_provider.provider_id, key.key_provider.key_info, key.encrypted_data_key)
            for key in request.encrypted_data_keys
        )
        context = phi_session.contexts.loggable(request.encryption_context)
        with phi_session.recorded(
            "esdk.decrypt",
            format=_FORMAT,
            suite_id=suite.suite_id,
            context=context,
            required_names=required.pairs,
        ) as use:
            materials, use.cache_hit = phi_session.provider.decryption_materials(
                suite, request.encryption_context, encrypted_data_keys, expected=expected, required=required
            )
            use.origin = materials.origin
        opened = encrypted_data_keys[materials.recipient_index or 0]
        sdk_materials = _sdk_decryption_materials(request.algorithm, materials, opened)
        return _with_required(sdk_materials, required, encryption_context=whole)


def _check_count(count: int, bound: int) -> None:
    if count > bound:
        setting = "ReadLimits.max_encrypted_data_keys"
        raise LimitExceededError("too many encrypted data keys", limit=bound, actual=count, setting=setting)


def _sdk_decryption_materials(
    algorithm: SdkSuite, materials: DecryptionMaterials, opened: EncryptedDataKey
) -> SdkDecryptionMaterials:
    assert materials.data_key is not None
    verification_key = None
    if materials.suite.is_signed:
        verification_key = Verifier.from_encoded_point(
            algorithm=algorithm, encoded_point=materials.context[PUBLIC_KEY_NAME]
        ).key_bytes()
    key_info = MasterKeyInfo(opened.provider_id, opened.provider_info)
    return SdkDecryptionMaterials(
        data_key=SdkDataKey(key_info, materials.data_key.key_bytes, opened.ciphertext),
        verification_key=verification_key,
    )


def _sdk_encryption_materials(
    algorithm: SdkSuite, materials: EncryptionMaterials, signer: Signer | None
) -> SdkEncryptionMaterials:
    assert materials.data_key is not None
    recipients = [
        SdkEncryptedDataKey(MasterKeyInfo(key.provider_id, key.provider_info), key.ciphertext)
        for key in materials.encrypted_data_keys
    ]
    sdk_materials = SdkEncryptionMaterials(
        algorithm=algorithm,
        data_encryption_key=SdkDataKey(
            recipients[0].key_provider, materials.data_key.key_bytes, recipients[0].encrypted_data_key
        ),
        encrypted_data_keys=set(recipients),
        encryption_context=dict(materials.context),
        signing_key=signer.key_bytes() if signer is not None else None,
    )
    return _with_required(sdk_materials, materials.required)


def _with_required(sdk_materials: Any, required: RequiredPairs, **more: object) -> Any:
    """The SDK's materials with the names that it is not to store: it asks whether they have any."""
    if required.pairs:
        sdk_materials.required_encryption_context_keys = list(required.pairs)
        vars(sdk_materials).update(more)
    return sdk_materials
