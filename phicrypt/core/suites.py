"""Algorithm suites by identifier: lengths, key derivation, commitment, signature.

The values are those of the algorithm suite tables in ``framework/algorithm-suites.md`` of the AWS
Encryption SDK specification. A suite says what a format must do; it holds no key and no code.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final

from phicrypt.errors import FormatError, UnsupportedOperationError


class Kdf(Enum):
    """Key derivation from data key to message key."""

    IDENTITY = "identity"
    """The data key encrypts directly; such a data key must never be shared between messages."""
    HKDF_SHA256 = "sha256"
    HKDF_SHA384 = "sha384"
    HKDF_SHA512 = "sha512"


class Curve(Enum):
    """Curve of the message signature; its hash is SHA-256 for P-256 and SHA-384 for P-384."""

    P256 = "secp256r1"
    P384 = "secp384r1"


@dataclass(frozen=True, slots=True, eq=False)
class AlgorithmSuite:
    """One row of the specification's table. Compared by identity: there is one object per suite.

    Attributes:
        suite_id: two-byte identifier as it stands in headers.
        name: the specification's name.
        message_format_version: 1 or 2 for ESDK suites.
        data_key_length_bytes: length of the data key and of the derived message key.
        kdf: derivation of the message key.
        is_committing: whether the header commits to the data key.
        signature_curve: curve of the asymmetric signature, or None.
        has_symmetric_signature: DB-ESDK suites: one HMAC-SHA384 tag per recipient, and data keys
            wrapped through an intermediate key.
    """

    suite_id: int
    name: str
    message_format_version: int
    data_key_length_bytes: int
    kdf: Kdf
    is_committing: bool
    signature_curve: Curve | None
    has_symmetric_signature: bool = False

    @property
    def id_bytes(self) -> bytes:
        """The identifier as two big-endian bytes."""
        return self.suite_id.to_bytes(2, "big")

    @property
    def is_signed(self) -> bool:
        """Whether messages of this suite end with an asymmetric signature."""
        return self.signature_curve is not None

    @property
    def derives_message_keys(self) -> bool:
        """Whether each message gets a key of its own, so that a data key may be cached (rule 5)."""
        return self.kdf is not Kdf.IDENTITY

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return (suite_by_id, (self.suite_id,))


IV_LENGTH_BYTES: Final = 12
"""Length of every suite's GCM nonce."""
TAG_LENGTH_BYTES: Final = 16
"""Length of every suite's GCM tag."""
COMMITMENT_LENGTH_BYTES: Final = 32
"""Length of the commitment in the headers of committing suites."""


def _esdk(
    suite_id: int, name: str, version: int, length: int, kdf: Kdf, curve: Curve | None = None
) -> AlgorithmSuite:
    return AlgorithmSuite(suite_id, name, version, length, kdf, version == 2, curve)


AES_256_GCM_HKDF_SHA512_COMMIT_KEY: Final = _esdk(
    0x0478, "ALG_AES_256_GCM_HKDF_SHA512_COMMIT_KEY", 2, 32, Kdf.HKDF_SHA512
)
"""0x0478, what phicrypt writes by default."""
AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384: Final = _esdk(
    0x0578, "ALG_AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384", 2, 32, Kdf.HKDF_SHA512, Curve.P384
)
"""0x0578, what phicrypt writes with ``signed=True``."""
DBE_COMMIT_KEY_SYMSIG_HMAC_SHA384: Final = AlgorithmSuite(
    0x6700,
    "ALG_AES_256_GCM_HKDF_SHA512_COMMIT_KEY_SYMSIG_HMAC_SHA384",
    1,
    32,
    Kdf.HKDF_SHA512,
    True,
    None,
    True,
)
"""0x6700, DynamoDB items by default."""
DBE_COMMIT_KEY_ECDSA_P384_SYMSIG_HMAC_SHA384: Final = AlgorithmSuite(
    0x6701,
    "ALG_AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384_SYMSIG_HMAC_SHA384",
    1,
    32,
    Kdf.HKDF_SHA512,
    True,
    Curve.P384,
    True,
)
"""0x6701, DynamoDB items with ``signed=True``."""

ESDK_SUITES: Final = MappingProxyType(
    {
        suite.suite_id: suite
        for suite in (
            _esdk(0x0014, "ALG_AES_128_GCM_IV12_TAG16_NO_KDF", 1, 16, Kdf.IDENTITY),
            _esdk(0x0046, "ALG_AES_192_GCM_IV12_TAG16_NO_KDF", 1, 24, Kdf.IDENTITY),
            _esdk(0x0078, "ALG_AES_256_GCM_IV12_TAG16_NO_KDF", 1, 32, Kdf.IDENTITY),
            _esdk(0x0114, "ALG_AES_128_GCM_IV12_TAG16_HKDF_SHA256", 1, 16, Kdf.HKDF_SHA256),
            _esdk(0x0146, "ALG_AES_192_GCM_IV12_TAG16_HKDF_SHA256", 1, 24, Kdf.HKDF_SHA256),
            _esdk(0x0178, "ALG_AES_256_GCM_IV12_TAG16_HKDF_SHA256", 1, 32, Kdf.HKDF_SHA256),
            _esdk(
                0x0214,
                "ALG_AES_128_GCM_IV12_TAG16_HKDF_SHA256_ECDSA_P256",
                1,
                16,
                Kdf.HKDF_SHA256,
                Curve.P256,
            ),
            _esdk(
                0x0346,
                "ALG_AES_192_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384",
                1,
                24,
                Kdf.HKDF_SHA384,
                Curve.P384,
            ),
            _esdk(
                0x0378,
                "ALG_AES_256_GCM_IV12_TAG16_HKDF_SHA384_ECDSA_P384",
                1,
                32,
                Kdf.HKDF_SHA384,
                Curve.P384,
            ),
            AES_256_GCM_HKDF_SHA512_COMMIT_KEY,
            AES_256_GCM_HKDF_SHA512_COMMIT_KEY_ECDSA_P384,
        )
    }
)
"""Every suite of ESDK messages, by identifier."""

DBE_SUITES: Final = MappingProxyType(
    {
        suite.suite_id: suite
        for suite in (DBE_COMMIT_KEY_SYMSIG_HMAC_SHA384, DBE_COMMIT_KEY_ECDSA_P384_SYMSIG_HMAC_SHA384)
    }
)
"""Both suites of encrypted DynamoDB items, by identifier."""


def suite_by_id(suite_id: int) -> AlgorithmSuite:
    """The suite with this identifier, of any format; raises FormatError where there is none."""
    suite = ESDK_SUITES.get(suite_id) or DBE_SUITES.get(suite_id)
    if suite is None:
        raise FormatError(f"unknown algorithm suite 0x{suite_id:04x}", field="algorithm suite id")
    return suite


def check_demands(suite: AlgorithmSuite, *, require_signed: bool, allow_uncommitted: bool) -> None:
    """Raise UnsupportedOperationError where a reader demands more of a suite, before any key is used (rule 7)."""
    if require_signed and not suite.is_signed:
        raise UnsupportedOperationError(f"a signed message was required; this one is {suite.name}")
    if not suite.is_committing and not allow_uncommitted:
        raise UnsupportedOperationError(
            f"the message's suite {suite.name} does not commit to its key; "
            "pass allow_uncommitted=True to open old messages from a writer you trust"
        )
