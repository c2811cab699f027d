"""The strict KMS's asymmetric and HMAC keys, as AWS's API reference describes them.

Real signatures and RSA-OAEP by ``cryptography``; RSA-PSS salts are as long as the digest, as in KMS.
A bad signature or MAC is an error, never an answer ``false``. A key pair is made with its key: no
later request waits for it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from phicrypt.testing.strict_kms_last_use import LastUseOperations
from phicrypt.testing.strict_kms_operations import KeyRecord, KmsError, Request

_RSA = [f"RSASSA_{scheme}_SHA_{bits}" for scheme in ("PSS", "PKCS1_V1_5") for bits in (256, 384, 512)]
ALGORITHMS = {
    "ECC_NIST_P256": ["ECDSA_SHA_256"],
    "ECC_NIST_P384": ["ECDSA_SHA_384"],
    "ECC_NIST_P521": ["ECDSA_SHA_512"],
    "ECC_SECG_P256K1": ["ECDSA_SHA_256"],
    "RSA_2048": _RSA,
    "RSA_3072": _RSA,
    "RSA_4096": _RSA,
    "ECC_NIST_EDWARDS25519": ["ED25519_SHA_512", "ED25519_PH_SHA_512"],
    "ML_DSA_44": ["ML_DSA_SHAKE_256"],
    "ML_DSA_65": ["ML_DSA_SHAKE_256"],
    "ML_DSA_87": ["ML_DSA_SHAKE_256"],
}
_OAEP_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "RSAES_OAEP_SHA_1": hashes.SHA1,
    "RSAES_OAEP_SHA_256": hashes.SHA256,
}
MACS = {"HMAC_256": "HMAC_SHA_256", "HMAC_384": "HMAC_SHA_384", "HMAC_512": "HMAC_SHA_512"}
_HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


_KEY_PAIRS: dict[str, Callable[[], Any]] = {
    "ECC_NIST_P256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ECC_NIST_P384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ECC_NIST_P521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ECC_SECG_P256K1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "RSA_2048": lambda: rsa.generate_private_key(65537, 2048),
    "RSA_3072": lambda: rsa.generate_private_key(65537, 3072),
    "RSA_4096": lambda: rsa.generate_private_key(65537, 4096),
    "ECC_NIST_EDWARDS25519": ed25519.Ed25519PrivateKey.generate,
    "ML_DSA_44": lambda: _mldsa().MLDSA44PrivateKey.generate(),
    "ML_DSA_65": lambda: _mldsa().MLDSA65PrivateKey.generate(),
    "ML_DSA_87": lambda: _mldsa().MLDSA87PrivateKey.generate(),
}


class AsymmetricOperations(LastUseOperations):
    """GetPublicKey, Decrypt under RSA keys, DeriveSharedSecret, Sign, Verify, GenerateMac and VerifyMac."""

    def new_key_pair(self, spec: str) -> Any:
        return _KEY_PAIRS[spec]() if spec in _KEY_PAIRS else None

    def GetPublicKey(self, request: Request) -> dict[str, Any]:
        key = self.account.find(request.parameters["KeyId"], request.region)
        self.account.authorize(request, key)
        if key.state == "Disabled":
            raise KmsError("DisabledException", f"{key.arn} is disabled.")
        if key.key_pair is None:
            raise KmsError("UnsupportedOperationException", f"{key.arn} is not an asymmetric key.")
        der = key.key_pair.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        algorithms = {
            "SIGN_VERIFY": {"SigningAlgorithms": ALGORITHMS.get(key.spec, [])},
            "KEY_AGREEMENT": {"KeyAgreementAlgorithms": ["ECDH"]},
        }.get(key.usage, {"EncryptionAlgorithms": sorted(_OAEP_HASHES)})
        return {
            "KeyId": key.arn,
            "PublicKey": _b64(der),
            "KeySpec": key.spec,
            "CustomerMasterKeySpec": key.spec,
            "KeyUsage": key.usage,
            **algorithms,
        }

    def Decrypt(self, request: Request) -> dict[str, Any]:
        parameters = request.parameters
        algorithm = parameters.get("EncryptionAlgorithm", "SYMMETRIC_DEFAULT")
        if algorithm == "SYMMETRIC_DEFAULT":
            return super().Decrypt(request)
        if "KeyId" not in parameters or "EncryptionContext" in parameters:
            raise KmsError("ValidationException", "asymmetric keys need KeyId and take no EncryptionContext")
        key = self.usable(request, parameters["KeyId"])
        if not key.spec.startswith("RSA_") or algorithm not in _OAEP_HASHES:
            raise KmsError("InvalidKeyUsageException", f"Algorithm {algorithm} and key spec do not match.")
        oaep = padding.OAEP(padding.MGF1(_OAEP_HASHES[algorithm]()), _OAEP_HASHES[algorithm](), None)
        try:
            plaintext = key.key_pair.decrypt(base64.b64decode(parameters["CiphertextBlob"]), oaep)
        except ValueError:
            raise KmsError("InvalidCiphertextException") from None
        return {"KeyId": key.arn, "Plaintext": _b64(plaintext), "EncryptionAlgorithm": algorithm}

    def DeriveSharedSecret(self, request: Request) -> dict[str, Any]:
        parameters = request.parameters
        key = self.usable(request, parameters["KeyId"], "KEY_AGREEMENT")
        if parameters["KeyAgreementAlgorithm"] != "ECDH":
            raise KmsError(
                "ValidationException", "1 validation error detected: Value at 'keyAgreementAlgorithm' …"
            )
        try:
            counterpart = load_der_public_key(base64.b64decode(parameters["PublicKey"]))
            secret = key.key_pair.exchange(ec.ECDH(), counterpart)
        except (ValueError, TypeError):
            raise KmsError("ValidationException", "The public key is not valid for the key agreement.") from None
        return {
            "KeyId": key.arn,
            "SharedSecret": _b64(secret),
            "KeyAgreementAlgorithm": "ECDH",
            "KeyOrigin": "AWS_KMS",
        }

    def Sign(self, request: Request) -> dict[str, Any]:
        key, algorithm, message, is_digest = self._signing(request)
        private_key = key.key_pair
        if algorithm.startswith("ECDSA"):
            signature = private_key.sign(message, ec.ECDSA(_hash(algorithm, is_digest)))
        elif algorithm.startswith("RSASSA"):
            signature = private_key.sign(message, _padding(algorithm), _hash(algorithm, is_digest))
        else:
            signature = private_key.sign(message)
        return {"KeyId": key.arn, "Signature": _b64(signature), "SigningAlgorithm": algorithm}

    def Verify(self, request: Request) -> dict[str, Any]:
        key, algorithm, message, is_digest = self._signing(request)
        signature = base64.b64decode(request.parameters["Signature"])
        public_key = key.key_pair.public_key()
        try:
            if algorithm.startswith("ECDSA"):
                public_key.verify(signature, message, ec.ECDSA(_hash(algorithm, is_digest)))
            elif algorithm.startswith("RSASSA"):
                public_key.verify(signature, message, _padding(algorithm), _hash(algorithm, is_digest))
            else:
                public_key.verify(signature, message)
        except InvalidSignature:
            raise KmsError("KMSInvalidSignatureException", "The signature is not valid.") from None
        return {"KeyId": key.arn, "SignatureValid": True, "SigningAlgorithm": algorithm}

    def _signing(self, request: Request) -> tuple[KeyRecord, str, bytes, bool]:
        key = self.usable(request, request.parameters["KeyId"], "SIGN_VERIFY")
        algorithm = request.parameters["SigningAlgorithm"]
        if algorithm not in ALGORITHMS[key.spec]:
            raise KmsError(
                "InvalidKeyUsageException", f"Algorithm {algorithm} and key spec {key.spec} do not match."
            )
        message = base64.b64decode(request.parameters["Message"])
        if not 1 <= len(message) <= 4096:
            raise KmsError("ValidationException", "1 validation error detected: Value at 'message' …")
        message_type = request.parameters.get("MessageType", "RAW")
        if message_type == "EXTERNAL_MU" or (message_type == "DIGEST" and not algorithm.startswith(("EC", "RS"))):
            raise KmsError("ValidationException", f"Message type {message_type} is not valid for {algorithm}.")
        return key, algorithm, message, message_type == "DIGEST"

    def GenerateMac(self, request: Request) -> dict[str, Any]:
        key, algorithm, tag = self._mac(request)
        return {"KeyId": key.arn, "Mac": _b64(tag), "MacAlgorithm": algorithm}

    def VerifyMac(self, request: Request) -> dict[str, Any]:
        key, algorithm, tag = self._mac(request)
        if not hmac.compare_digest(tag, base64.b64decode(request.parameters["Mac"])):
            raise KmsError("KMSInvalidMacException", "The MAC is not valid.")
        return {"KeyId": key.arn, "MacValid": True, "MacAlgorithm": algorithm}

    def _mac(self, request: Request) -> tuple[KeyRecord, str, bytes]:
        key = self.usable(request, request.parameters["KeyId"], "GENERATE_VERIFY_MAC")
        algorithm = request.parameters["MacAlgorithm"]
        if MACS[key.spec] != algorithm:
            raise KmsError(
                "InvalidKeyUsageException", f"Algorithm {algorithm} and key spec {key.spec} do not match."
            )
        message = base64.b64decode(request.parameters["Message"])
        if not 1 <= len(message) <= 4096:
            raise KmsError("ValidationException", "1 validation error detected: Value at 'message' …")
        digest = getattr(hashlib, f"sha{algorithm[-3:]}")
        return key, algorithm, hmac.new(key.materials[-1][1], message, digest).digest()


def _mldsa() -> Any:
    # Only builds of cryptography with a recent OpenSSL have ML-DSA: asked when such a key is made.
    from cryptography.hazmat.primitives.asymmetric import mldsa

    return mldsa


def _hash(algorithm: str, is_digest: bool) -> Any:
    chosen = _HASHES[algorithm[-3:]]
    return Prehashed(chosen) if is_digest else chosen


def _padding(algorithm: str) -> Any:
    if "PKCS1" in algorithm:
        return padding.PKCS1v15()
    chosen = _HASHES[algorithm[-3:]]
    return padding.PSS(padding.MGF1(chosen), chosen.digest_size)


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
