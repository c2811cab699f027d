"""MAC keys: an HMAC key that stays in KMS, and local HMAC keys that KMS envelopes."""

from __future__ import annotations

import base64
import hmac
import json
from contextlib import suppress
from typing import Any, Final
from zlib import crc32

from phicrypt.core.kms_arn import configured_key_arn
from phicrypt.core.kms_calls import KmsAnswer, origin_of
from phicrypt.core.materials import KeyHolder
from phicrypt.core.primitives import random_bytes
from phicrypt.core.steps import KmsRequest, asked, run
from phicrypt.core.strict_json import parse_json
from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError, KeyAccessError
from phicrypt.keys.kms.answers import bytes_of, check_key, ciphertext_of, openings_disagree, plaintext_of
from phicrypt.keys.kms.clients import KmsClients

MAC_ALGORITHMS: Final = {"HMAC_SHA_256": "sha256", "HMAC_SHA_384": "sha384", "HMAC_SHA_512": "sha512"}
"""KMS's names, and hashlib's."""
MAX_ENVELOPE_LENGTH_BYTES: Final = 16 * 1024
_LOCAL_KEY_LENGTH_BYTES: Final = 64
_KEY_ID_LENGTH_BYTES: Final = 8
_MAX_MAC_LENGTH_BYTES: Final = 64


class KmsMacKey:
    """One KMS key, pinned by its ARN, that makes MACs or envelopes local MAC keys.

    KMS makes MACs with keys of usage GENERATE_VERIFY_MAC and envelopes with symmetric encryption
    keys; a key of the other kind is refused by KMS (InvalidKeyUsageException).

    Raises ConfigurationError for an alias, a client of another Region or an unknown algorithm.
    """

    def __init__(self, key_arn: str, clients: KmsClients, *, algorithm: str = "HMAC_SHA_256") -> None:
        self.arn = configured_key_arn(key_arn)
        self.key_arn = key_arn
        if algorithm not in MAC_ALGORITHMS:
            raise ConfigurationError(f"the MAC algorithm is one of {', '.join(MAC_ALGORITHMS)}, not {algorithm!r}")
        self.algorithm = algorithm
        clients.check_region(self.arn.region)
        self._clients = clients

    def __repr__(self) -> str:
        return f"<KmsMacKey {self.key_arn}>"

    def generate(self, message: bytes) -> tuple[bytes, KmsAnswer]:
        """GenerateMac over at most 4,096 bytes: the MAC. Raises KeyAccessError."""
        answer = self._call("GenerateMac", Message=message, MacAlgorithm=self.algorithm)
        mac = bytes_of(answer, "GenerateMac", self.arn, "Mac", most_bytes=_MAX_MAC_LENGTH_BYTES)
        return mac, answer

    def verify(self, message: bytes, mac: bytes) -> KmsAnswer:
        """VerifyMac. Raises AuthenticationError for a bad MAC, KeyAccessError for a refusal."""
        try:
            answer = self._call("VerifyMac", Message=message, Mac=mac, MacAlgorithm=self.algorithm)
        except KeyAccessError as error:
            if error.code == "KMSInvalidMacException":
                raise AuthenticationError("MAC") from error
            raise
        if answer.response.get("MacValid") is not True:
            raise AuthenticationError("MAC")
        return answer

    def new_local_key(self, purpose: str) -> tuple[bytes, KmsAnswer]:
        """The envelope of a new local key, to be stored wherever configuration is stored."""
        key_id = random_bytes(_KEY_ID_LENGTH_BYTES).hex()
        answer = self._call(
            "GenerateDataKey",
            NumberOfBytes=_LOCAL_KEY_LENGTH_BYTES,
            EncryptionContext=_envelope_context(key_id, purpose),
        )
        envelope = {
            "localMacKey": key_id,
            "kmsKey": self.key_arn,
            "ciphertext": base64.b64encode(ciphertext_of(answer, "GenerateDataKey", self.arn)).decode(),
        }
        return json.dumps(envelope).encode(), answer

    def open_local_key(self, envelope: bytes, purpose: str) -> tuple[LocalMacKey, tuple[KmsAnswer, ...]]:
        """The local key of an envelope, under this KMS key and made for this purpose, and the calls that it took.

        Two separate Decrypt calls must agree (rule 28): tokens under a key that one changed answer gave would
        never be found again. Raises FormatError for no envelope, KeyAccessError if KMS does not open it.
        """
        key_id, ciphertext = _read_envelope(envelope)
        answers: list[KmsAnswer] = []

        def opened() -> bytes:
            context = _envelope_context(key_id, purpose)
            answers.append(self._call("Decrypt", CiphertextBlob=ciphertext, EncryptionContext=context))
            return plaintext_of(answers[-1], "Decrypt", self.arn, _LOCAL_KEY_LENGTH_BYTES)

        try:
            for _ in range(2):
                first, second = opened(), opened()
                if hmac.compare_digest(first, second):
                    return LocalMacKey(key_id, second), tuple(answers)
            raise openings_disagree("Decrypt", self.arn, "one enveloped MAC key")
        except KeyAccessError as refusal:
            # CloudTrail shows each call, believed or not (rule 22); the refused one names itself.
            others = (one for one in answers if one.correlation_id != refusal.correlation_id)
            refusal.earlier_calls = tuple(origin_of(one, "Decrypt", self.arn) for one in others)
            raise

    def _call(self, operation: str, **parameters: Any) -> KmsAnswer:
        self._clients.prepare({self.arn.region})
        with_key = {"KeyId": self.key_arn, **parameters}
        answer: KmsAnswer = run(asked(KmsRequest(self.arn.region, operation, with_key, self._clients)))
        check_key(answer, operation, self.arn, also_by_id=True)
        return answer


class LocalMacKey(KeyHolder):
    """A 64-byte HMAC key in this process. Its ``repr`` shows its id only."""

    __slots__ = ("_check_value", "_mac_key", "key_id")

    def __init__(self, key_id: str, mac_key: bytes) -> None:
        self.key_id = key_id
        self._mac_key = mac_key
        self._check_value = crc32(mac_key)

    def __repr__(self) -> str:
        return f"<LocalMacKey {self.key_id}>"

    def generate(self, message: bytes, digest_name: str) -> bytes:
        """HMAC with hashlib's digest of that name.

        Raises KeyAccessError where the key changed in memory: its tokens would never be found again.
        """
        if crc32(self._mac_key) != self._check_value:
            raise KeyAccessError(
                f"the local MAC key {self.key_id} has changed in this process's memory; open its envelope again",
                operation="LocalMac",
                code="KeyChangedInMemory",
            )
        return hmac.digest(self._mac_key, message, digest_name)


def _envelope_context(key_id: str, purpose: str) -> dict[str, str]:
    if not isinstance(purpose, str) or not purpose:
        raise ConfigurationError("a purpose is non-empty text, such as 'search-tokens'")
    return {"phicrypt-mac-key": key_id, "phicrypt-mac-purpose": purpose}


def _read_envelope(envelope: bytes) -> tuple[str, bytes]:
    members = parse_json(envelope, field="MAC key envelope", max_bytes=MAX_ENVELOPE_LENGTH_BYTES)
    with suppress(ValueError, KeyError, TypeError):
        key_id, text = members["localMacKey"], members["ciphertext"]
        if len(bytes.fromhex(key_id)) == _KEY_ID_LENGTH_BYTES and len(key_id) == 2 * _KEY_ID_LENGTH_BYTES:
            return key_id, base64.b64decode(text, validate=True)
    raise FormatError("the JSON that new_local_key returned was expected", field="MAC key envelope")
