"""An asymmetric KMS key that signs: raw signatures by KMS, verification by KMS or with its public key."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from phicrypt.core.kms_arn import configured_key_arn
from phicrypt.core.kms_calls import KmsAnswer
from phicrypt.core.primitives import SIGNING_ALGORITHMS, SignaturePublicKey
from phicrypt.core.steps import KmsRequest, asked, run
from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError, KeyAccessError
from phicrypt.keys.kms.answers import bytes_of, check_key
from phicrypt.keys.kms.clients import KmsClients

MAX_RAW_MESSAGE_LENGTH_BYTES: Final = 4_096
MAX_SIGNATURE_LENGTH_BYTES: Final = 6_144
MAX_PUBLIC_KEY_LENGTH_BYTES: Final = 8_192
"""KMS's own bounds."""


class KmsSigningKey:
    """One asymmetric KMS key of usage SIGN_VERIFY, pinned by its ARN.

    The public key is read once and kept for ``public_key_ttl_seconds``; a public key never changes,
    the TTL bounds how long a key that may no longer be read goes on verifying here. A signature that
    does not verify under it is never returned.

    Args:
        key_arn: the key's ARN, never an alias: an alias can be pointed at another key.
        clients: give the client of the key's Region.
        algorithm: KMS's name; None takes the key's own (RSA keys: ``RSASSA_PSS_SHA_256``).
        public_key_ttl_seconds: at most a day.

    Raises ConfigurationError for anything but a key ARN, a client of another Region, an unknown
    algorithm or a TTL out of bounds.
    """

    def __init__(
        self,
        key_arn: str,
        clients: KmsClients,
        *,
        algorithm: str | None = None,
        public_key_ttl_seconds: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.arn = configured_key_arn(key_arn)
        self.key_arn = key_arn
        if algorithm is not None and algorithm not in SIGNING_ALGORITHMS:
            raise ConfigurationError(
                f"the signing algorithm {algorithm!r} is not used here; one of {', '.join(SIGNING_ALGORITHMS)}"
            )
        if not 0 < public_key_ttl_seconds <= 86_400:
            raise ConfigurationError("public_key_ttl_seconds is above 0 and at most 86,400")
        clients.check_region(self.arn.region)
        self._clients = clients
        self._algorithm = algorithm
        self._ttl_seconds = public_key_ttl_seconds
        self._clock = clock
        self._cached: tuple[float, SignaturePublicKey, bytes] | None = None

    def __repr__(self) -> str:
        return f"<KmsSigningKey {self.key_arn}>"

    def public_key(self) -> SignaturePublicKey:
        """The public key, from the cache or by GetPublicKey. Raises KeyAccessError, ConfigurationError."""
        return self._load()[1]

    def public_key_der(self) -> bytes:
        """SubjectPublicKeyInfo, for publication to those who verify without KMS."""
        return self._load()[2]

    @property
    def algorithm(self) -> str:
        """KMS's name of the algorithm in use; asks for the public key where none was given."""
        return self._algorithm or self.public_key().algorithms[0]

    def sign(self, message: bytes) -> KmsAnswer:
        """Sign a raw message of at most 4,096 bytes (Sign, message type RAW); ``response["Signature"]``.

        Raises KeyAccessError, ConfigurationError; AuthenticationError if KMS's answer does not verify.
        """
        algorithm, public_key = self.algorithm, self.public_key()
        answer = self._call("Sign", Message=message, MessageType="RAW", SigningAlgorithm=algorithm)
        signature = bytes_of(answer, "Sign", self.arn, "Signature", most_bytes=MAX_SIGNATURE_LENGTH_BYTES)
        public_key.verify(algorithm, message, signature)
        return answer

    def verify(self, message: bytes, signature: bytes) -> None:
        """Verify with the cached public key. Raises AuthenticationError."""
        self.public_key().verify(self.algorithm, message, signature)

    def verify_by_kms(self, message: bytes, signature: bytes) -> KmsAnswer:
        """Verify by KMS, which refuses disabled keys too.

        Raises AuthenticationError for a bad signature, KeyAccessError for a refusal.
        """
        try:
            answer = self._call(
                "Verify", Message=message, MessageType="RAW", Signature=signature, SigningAlgorithm=self.algorithm
            )
        except KeyAccessError as error:
            if error.code == "KMSInvalidSignatureException":
                raise AuthenticationError("signature") from error
            raise
        if answer.response.get("SignatureValid") is not True:
            raise AuthenticationError("signature")
        return answer

    def _call(self, operation: str, **parameters: Any) -> KmsAnswer:
        self._clients.prepare({self.arn.region})
        with_key = {"KeyId": self.key_arn, **parameters}
        answer: KmsAnswer = run(asked(KmsRequest(self.arn.region, operation, with_key, self._clients)))
        check_key(answer, operation, self.arn, also_by_id=True)
        return answer

    def _load(self) -> tuple[float, SignaturePublicKey, bytes]:
        cached = self._cached
        if cached is not None and cached[0] > self._clock():
            return cached
        answer = self._call("GetPublicKey")
        response = answer.response
        if response.get("KeyUsage") != "SIGN_VERIFY":
            raise ConfigurationError(
                f"{self.key_arn} has the key usage {str(response.get('KeyUsage'))[:40]}; signing needs SIGN_VERIFY"
            )
        der = bytes_of(answer, "GetPublicKey", self.arn, "PublicKey", most_bytes=MAX_PUBLIC_KEY_LENGTH_BYTES)
        try:
            public_key = SignaturePublicKey(der)
        except FormatError as error:
            offered = ", ".join(response.get("SigningAlgorithms", ())) or "none"
            raise ConfigurationError(
                f"{self.key_arn} cannot be used for signatures here ({error}); KMS offers {offered} for it"
            ) from None
        if self._algorithm is not None and self._algorithm not in public_key.algorithms:
            raise ConfigurationError(
                f"{self._algorithm} does not suit {self.key_arn}: it signs with {', '.join(public_key.algorithms)}"
            )
        self._cached = loaded = (self._clock() + self._ttl_seconds, public_key, der)
        return loaded
