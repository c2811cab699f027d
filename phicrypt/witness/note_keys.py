"""Keys that sign a log's checkpoints: one in a file, or one in KMS.

::

    LocalNoteKey.load("clinic.example/audit/portal", "portal.pem")
    KmsNoteKey("clinic.example/audit/portal", "arn:aws:kms:…:key/…")     # ECC_NIST_EDWARDS25519 or ML_DSA_44

What they make are the signatures that C2SP defines for logs: plain Ed25519 (type 0x01) and ML-DSA-44
cosignatures (type 0x06), which C2SP recommends. ``verifier_key`` is what others are given to check with.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self

from phicrypt.core.key_origin import KMS_PROVIDER_ID, KeyOrigin
from phicrypt.core.kms_arn import configured_key_arn
from phicrypt.core.primitives import LocalSigningKey, new_signing_key_pem
from phicrypt.errors import ConfigurationError
from phicrypt.formats.checkpoints import Checkpoint, check_signature, made_signature, signed_message
from phicrypt.formats.notes import ED25519, ML_DSA_44_COSIGNATURE, NoteSignature, VerifierKey
from phicrypt.keys.kms.calls import call_kms, kms_client, safe_kms_client, tagged

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient

LOCAL_PROVIDER_ID: Final = "checkpoint-key"
_KMS_ALGORITHMS: Final = {"ED25519_SHA_512": ED25519, "ML_DSA_SHAKE_256": ML_DSA_44_COSIGNATURE}
_MAX_FILE_BYTES: Final = 65_536
_SHORT_DER_BYTES: Final = 64
"""A public key of Ed25519 is shorter, one of ML-DSA-44 is not."""
ALGORITHMS: Final = ("ed25519", "ml-dsa-44")
"""Of keys that are made here."""


class SignedNote(NamedTuple):
    """A signature over a checkpoint, and the call or key that made it, for the audit trail."""

    signature: NoteSignature
    origin: KeyOrigin


class NoteKey(Protocol):
    """What signs checkpoints of one log."""

    @property
    def verifier_key(self) -> VerifierKey:
        """The public key under the log's origin."""

    def sign(self, checkpoint: Checkpoint) -> SignedNote:
        """Sign a checkpoint of the log."""


class LocalNoteKey:
    """An Ed25519 or ML-DSA-44 key in a PEM file of mode 0600.

    Whoever can read the file can sign other checkpoints: give it to the program that makes checkpoints,
    not to the one whose log it is, or use a witness.

    Args:
        origin: the log's name in its checkpoints, a URL without scheme such as
            ``"clinic.example/audit/portal"``; no two logs have the same.
        private_key: the key.
    """

    def __init__(self, origin: str, private_key: LocalSigningKey) -> None:
        der = private_key.public_key_der()
        kind = ED25519 if len(der) < _SHORT_DER_BYTES else ML_DSA_44_COSIGNATURE
        self.verifier_key = VerifierKey.from_der(origin, kind, der)
        self._private_key = private_key

    def __repr__(self) -> str:
        return f"<LocalNoteKey {self.verifier_key.name}+{self.verifier_key.key_id.hex()}>"

    @classmethod
    def load(cls, origin: str, path: str | os.PathLike[str]) -> Self:
        """The key from its file. Raises ConfigurationError."""
        try:
            with open(path, "rb") as file:
                pem = file.read(_MAX_FILE_BYTES)
        except OSError as error:
            reason = error.strerror
        else:
            return cls(origin, LocalSigningKey(pem))
        raise ConfigurationError(f"the signing key cannot be read: {reason}")

    @classmethod
    def create(cls, origin: str, path: str | os.PathLike[str], *, algorithm: str = "ed25519") -> Self:
        """Make a new key and its file, mode 0600. Raises ConfigurationError if the file exists."""
        if algorithm not in ALGORITHMS:
            raise ConfigurationError(f"the algorithm of a signing key is one of {', '.join(ALGORITHMS)}")
        pem = new_signing_key_pem(algorithm)
        key = cls(origin, LocalSigningKey(pem))
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            reason = error.strerror
        else:
            with open(descriptor, "wb") as file:
                file.write(pem)
            return key
        raise ConfigurationError(f"the signing key {Path(path).name} cannot be made: {reason}")

    def sign(self, checkpoint: Checkpoint) -> SignedNote:
        """Sign a checkpoint."""
        text, seconds = checkpoint.text(), int(time.time())
        signature = self._private_key.sign(signed_message(self.verifier_key, text, seconds))
        name = f"{self.verifier_key.name}+{self.verifier_key.key_id.hex()}"
        return SignedNote(
            made_signature(self.verifier_key, signature, seconds), KeyOrigin(LOCAL_PROVIDER_ID, name)
        )


class KmsNoteKey:
    """A KMS key of spec ``ECC_NIST_EDWARDS25519`` or ``ML_DSA_44``: who signs stands in CloudTrail.

    The caller needs ``kms:Sign`` and ``kms:GetPublicKey`` on it.

    Args:
        origin: as of :class:`LocalNoteKey`.
        key_arn: the key's ARN.
        client: a boto3 KMS client; None makes one for the key's Region.
    """

    def __init__(self, origin: str, key_arn: str, *, client: KMSClient | None = None) -> None:
        self._region = configured_key_arn(key_arn).region
        self._origin = origin
        self._key_arn = key_arn
        self._client = safe_kms_client(client) if client is not None else None
        self._known: tuple[VerifierKey, str] | None = None

    def __repr__(self) -> str:
        return f"<KmsNoteKey {self._origin} under {self._key_arn}>"

    @property
    def verifier_key(self) -> VerifierKey:
        """The public key; asks KMS once. Raises KeyAccessError, ConfigurationError."""
        return self._load()[0]

    def sign(self, checkpoint: Checkpoint) -> SignedNote:
        """Sign a checkpoint by KMS. Raises KeyAccessError; NoteSignatureError if the answer does not verify."""
        key, algorithm = self._load()
        text, seconds = checkpoint.text(), int(time.time())
        answer = call_kms(
            self._kms(),
            "Sign",
            key_arn=self._key_arn,
            KeyId=self._key_arn,
            Message=signed_message(key, text, seconds),
            MessageType="RAW",
            SigningAlgorithm=algorithm,
        )
        signature = made_signature(key, answer.response["Signature"], seconds)
        check_signature(key, text, signature)
        origin = KeyOrigin(
            KMS_PROVIDER_ID,
            self._key_arn,
            request_ids=answer.request_ids,
            correlation_id=answer.correlation_id,
            operation="Sign",
            unanswered_attempts=answer.unanswered_attempts,
        )
        return SignedNote(signature, origin)

    def _kms(self) -> Any:
        if self._client is None:
            self._client = kms_client(self._region)
        return tagged(self._client)

    def _load(self) -> tuple[VerifierKey, str]:
        if self._known is None:
            response = call_kms(self._kms(), "GetPublicKey", key_arn=self._key_arn, KeyId=self._key_arn).response
            algorithm = next((one for one in response["SigningAlgorithms"] if one in _KMS_ALGORITHMS), None)
            if algorithm is None or response.get("KeySpec") not in ("ECC_NIST_EDWARDS25519", "ML_DSA_44"):
                raise ConfigurationError(
                    f"{self._key_arn} is of spec {response.get('KeySpec')}; checkpoints are signed by keys of "
                    "ECC_NIST_EDWARDS25519 or ML_DSA_44, for which C2SP defines signatures"
                )
            key = VerifierKey.from_der(self._origin, _KMS_ALGORITHMS[algorithm], response["PublicKey"])
            self._known = key, algorithm
        return self._known
