"""Key pairs of recipients in the forms that people have them. RSA pairs are made once per process."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from support.recovery_keys import key_pair

CURVES: dict[str, ec.EllipticCurve] = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}
KMS_SPECS = {"p256": "ECC_NIST_P256", "p384": "ECC_NIST_P384", "p521": "ECC_NIST_P521"}


def public_pem(key: Any) -> str:
    """SubjectPublicKeyInfo in PEM, of a private or a public key."""
    public_key = key.public_key() if hasattr(key, "public_key") else key
    return public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def public_der(key: Any) -> bytes:
    public_key = key.public_key() if hasattr(key, "public_key") else key
    return bytes(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def private_pem(
    key: Any, *, traditional: bool = False, encoding: Encoding = Encoding.PEM, password: bytes | None = None
) -> bytes:
    """PKCS #8, or PKCS #1 and SEC 1 where ``traditional``, encrypted with a password."""
    kind = PrivateFormat.TraditionalOpenSSL if traditional else PrivateFormat.PKCS8
    protection = BestAvailableEncryption(password) if password else NoEncryption()
    return bytes(key.private_bytes(encoding, kind, protection))


def rsa_pair(number: int = 0, bits: int = 2048) -> Any:
    return key_pair(f"RSA_{bits}", number)


def ec_pair(curve: str = "p256") -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(CURVES[curve])
