"""The strict KMS with RSA keys: real RSA-OAEP, as KMS documents it for asymmetric encryption keys."""

from __future__ import annotations

import base64
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.strict_kms import StrictKms
from support.strict_kms_operations import Account, KmsError, Operations, Request

_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "RSAES_OAEP_SHA_1": hashes.SHA1,
    "RSAES_OAEP_SHA_256": hashes.SHA256,
}


class RsaOperations(Operations):
    """Adds GetPublicKey, and Decrypt under RSA keys."""

    def __init__(self, account: Account) -> None:
        super().__init__(account)
        self._private_keys: dict[str, rsa.RSAPrivateKey] = {}

    def _private_key(self, key_id: str, spec: str) -> rsa.RSAPrivateKey:
        if key_id not in self._private_keys:
            self._private_keys[key_id] = rsa.generate_private_key(65537, int(spec.removeprefix("RSA_")))
        return self._private_keys[key_id]

    def GetPublicKey(self, request: Request) -> dict[str, Any]:
        key = self.usable(request, request.parameters["KeyId"])
        public_key = self._private_key(key.key_id, key.spec).public_key()
        der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return {
            "KeyId": key.arn,
            "PublicKey": base64.b64encode(der).decode(),
            "KeySpec": key.spec,
            "KeyUsage": key.usage,
            "EncryptionAlgorithms": sorted(_HASHES),
        }

    def Decrypt(self, request: Request) -> dict[str, Any]:
        parameters = request.parameters
        algorithm = parameters.get("EncryptionAlgorithm", "SYMMETRIC_DEFAULT")
        if algorithm == "SYMMETRIC_DEFAULT":
            return super().Decrypt(request)
        if "KeyId" not in parameters or "EncryptionContext" in parameters:
            raise KmsError("ValidationException", "asymmetric keys need KeyId and take no EncryptionContext")
        key = self.usable(request, parameters["KeyId"])
        if not key.spec.startswith("RSA_"):
            raise KmsError("InvalidKeyUsageException", f"Algorithm {algorithm} and key spec do not match.")
        oaep = padding.OAEP(padding.MGF1(_HASHES[algorithm]()), _HASHES[algorithm](), None)
        try:
            plaintext = self._private_key(key.key_id, key.spec).decrypt(
                base64.b64decode(parameters["CiphertextBlob"]), oaep
            )
        except ValueError:
            raise KmsError("InvalidCiphertextException") from None
        return {
            "KeyId": key.arn,
            "Plaintext": base64.b64encode(plaintext).decode(),
            "EncryptionAlgorithm": algorithm,
        }


class StrictRsaKms(StrictKms):
    """A running strict KMS that also has RSA keys."""

    operations = RsaOperations


class RecoveryKey:
    """An RSA KMS key and its public half."""

    def __init__(self, kms: StrictKms, spec: str = "RSA_2048") -> None:
        self.kms = kms
        self.client = kms.client()
        self.arn = kms.create_key(KeySpec=spec, KeyUsage="ENCRYPT_DECRYPT")
        self.public_key: bytes = self.client.get_public_key(KeyId=self.arn)["PublicKey"]
        kms.requests.clear()
