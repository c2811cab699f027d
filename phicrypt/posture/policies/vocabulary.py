"""Words of IAM and KMS that a policy may use: what is not among them does nothing, or is refused."""

from __future__ import annotations

from typing import Final

_OPERATORS: Final = """
StringEquals StringNotEquals StringEqualsIgnoreCase StringNotEqualsIgnoreCase StringLike StringNotLike
NumericEquals NumericNotEquals NumericLessThan NumericLessThanEquals NumericGreaterThan
NumericGreaterThanEquals DateEquals DateNotEquals DateLessThan DateLessThanEquals DateGreaterThan
DateGreaterThanEquals Bool BinaryEquals IpAddress NotIpAddress ArnEquals ArnLike ArnNotEquals ArnNotLike Null
"""
_CONDITION_KEYS: Final = """
BypassPolicyLockoutSafetyCheck CallerAccount CustomerMasterKeySpec CustomerMasterKeyUsage DataKeyPairSpec
EncryptionAlgorithm EncryptionContextKeys ExpirationModel GrantConstraintType GrantIsForAWSResource
GrantOperations GranteePrincipal KeyAgreementAlgorithm KeyOrigin KeySpec KeyUsage MacAlgorithm MessageType
MultiRegion MultiRegionKeyType PrimaryRegion ReEncryptOnSameKey RequestAlias ResourceAliases ReplicaRegion
RetiringPrincipal RotationPeriodInDays ScheduleKeyDeletionPendingWindowInDays SigningAlgorithm ValidTo
ViaService WrappingAlgorithm WrappingKeySpec
"""
_ACTIONS: Final = """
CancelKeyDeletion ConnectCustomKeyStore CreateAlias CreateCustomKeyStore CreateGrant CreateKey Decrypt
DeleteAlias DeleteCustomKeyStore DeleteImportedKeyMaterial DeriveSharedSecret DescribeCustomKeyStores
DescribeKey DisableKey DisableKeyRotation DisconnectCustomKeyStore EnableKey EnableKeyRotation Encrypt
GenerateDataKey GenerateDataKeyPair GenerateDataKeyPairWithoutPlaintext GenerateDataKeyWithoutPlaintext
GenerateMac GenerateRandom GetKeyLastUsage GetKeyPolicy GetKeyRotationStatus GetParametersForImport
GetPublicKey ImportKeyMaterial ListAliases ListGrants ListKeyPolicies ListKeyRotations ListKeys
ListResourceTags ListRetirableGrants PutKeyPolicy ReEncryptFrom ReEncryptTo ReplicateKey RetireGrant
RevokeGrant RotateKeyOnDemand ScheduleKeyDeletion Sign SynchronizeMultiRegionKey TagResource UntagResource
UpdateAlias UpdateCustomKeyStore UpdateKeyDescription UpdatePrimaryRegion Verify VerifyMac
"""

OPERATORS: Final = frozenset(operator.lower() for operator in _OPERATORS.split())
"""IAM's condition operators in lower case, without ``ForAnyValue:`` and ``IfExists``."""
KMS_CONDITION_KEYS: Final = frozenset(f"kms:{name.lower()}" for name in _CONDITION_KEYS.split())
KMS_ACTIONS: Final = tuple(f"kms:{name}" for name in _ACTIONS.split())
