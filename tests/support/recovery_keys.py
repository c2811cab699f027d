"""An RSA recovery key in the strict KMS. Key pairs are made once per process: they take a while."""

from __future__ import annotations

import functools

from cryptography.hazmat.primitives.asymmetric import rsa

from phicrypt.testing import StrictKms


@functools.cache
def key_pair(spec: str = "RSA_2048", number: int = 0) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, int(spec.removeprefix("RSA_")))


class RecoveryKey:
    """An RSA KMS key and its public half; ``number`` tells key pairs apart."""

    def __init__(self, kms: StrictKms, spec: str = "RSA_2048", *, number: int = 0) -> None:
        self.kms = kms
        self.client = kms.client()
        self.arn = kms.create_key(KeySpec=spec, KeyUsage="ENCRYPT_DECRYPT", private_key=key_pair(spec, number))
        self.public_key: bytes = self.client.get_public_key(KeyId=self.arn)["PublicKey"]
        kms.requests.clear()
