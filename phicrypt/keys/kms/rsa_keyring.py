"""``KmsRsaKeyring``: data keys wrapped offline with an RSA public key, opened by KMS only.

The recovery or break-glass recipient beside a ``HierarchicalKeyring`` (rule 16): writing makes no
KMS call and shows KMS no context, and only a role that may call Decrypt with the private key in KMS
opens. ``framework/aws-kms/aws-kms-rsa-keyring.md``; its encrypted data keys are::

    provider id     "aws-kms-rsa"
    provider info   the KMS key's ARN
    ciphertext      RSAES-OAEP(SHA-384 of the serialized context (48 bytes) ‖ data key)

Whoever has the public key can make such a data key, so it says nothing about who wrote a message;
signed suites, which would pretend to, are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Literal

from phicrypt.core.deadlines import DEADLINE_SECONDS
from phicrypt.core.key_origin import KeyOrigin, joined_origin
from phicrypt.core.key_pairs import RsaPublicKey
from phicrypt.core.kms_arn import configured_key_arn, key_arn_of_message
from phicrypt.core.kms_calls import KmsAnswer, combined_refusal, origin_of
from phicrypt.core.materials import DecryptionMaterials, EncryptedDataKey, EncryptionMaterials
from phicrypt.core.primitives import constant_time_equal
from phicrypt.core.steps import KmsRequest, SteppedKeyring, Steps
from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError, KeyAccessError
from phicrypt.keys.kms.answers import unexpected_answer
from phicrypt.keys.kms.clients import KmsClients
from phicrypt.keys.wrapping import ciphertext_to_unwrap, unwrapped_data_key, wrap_data_key

if TYPE_CHECKING:
    from boto3.session import Session as Boto3Session
    from mypy_boto3_kms.client import KMSClient

RSA_PROVIDER_ID: Final = "aws-kms-rsa"
_HASHES: Final = {"RSAES_OAEP_SHA_1": "sha1", "RSAES_OAEP_SHA_256": "sha256"}
_DIGEST_LENGTH_BYTES: Final = 48
_CIPHERTEXT_LENGTHS_BYTES: Final = (256, 384, 512)
"""Of KMS's RSA keys: 2,048, 3,072 and 4,096 bits."""


class KmsRsaKeyring(SteppedKeyring):
    """Wraps data keys under an RSA public key; opens them with the private key in KMS.

    Args:
        key_arn: the ARN of the RSA KMS key (KeyUsage ENCRYPT_DECRYPT); aliases are refused.
        public_key: its public key as KMS GetPublicKey gives it (DER), or PEM, of at least 2,048
            bits; None for a keyring that only opens. That it belongs to ``key_arn`` is the
            caller's word: check with one decryption (``phicrypt drill``) before relying on it.
        algorithm: the padding, ``RSAES_OAEP_SHA_256`` or ``RSAES_OAEP_SHA_1``.
        client, grant_tokens, session, endpoint_url, use_fips_endpoint, application, deadline_seconds: as
            for ``KmsKeyring``; used for opening only. **With a public key and none of client, session
            and endpoint the keyring only writes** and never calls KMS, so that daily readers do
            not knock at the recovery key.

    Raises ConfigurationError for an unsuitable key, ARN or algorithm.
    """

    __slots__ = ("_clients", "_grant_tokens", "_identity", "_key", "_public_key", "algorithm")

    def __init__(
        self,
        key_arn: str,
        *,
        public_key: bytes | str | None = None,
        algorithm: Literal["RSAES_OAEP_SHA_256", "RSAES_OAEP_SHA_1"] = "RSAES_OAEP_SHA_256",
        client: KMSClient | None = None,
        grant_tokens: Iterable[str] = (),
        session: Boto3Session | None = None,
        endpoint_url: str | None = None,
        use_fips_endpoint: bool = False,
        application: str | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        if algorithm not in _HASHES:
            raise ConfigurationError(f"the RSA padding is one of {', '.join(_HASHES)}, not {algorithm!r}")
        self._key = configured_key_arn(key_arn)
        self.algorithm = algorithm
        self._public_key = None if public_key is None else RsaPublicKey(public_key)
        self._grant_tokens = list(grant_tokens)
        self._clients: KmsClients | None = None
        if public_key is None or client is not None or session is not None or endpoint_url or use_fips_endpoint:
            self._clients = KmsClients(
                client=client,
                session=session,
                endpoint_url=endpoint_url,
                use_fips_endpoint=use_fips_endpoint,
                application=application,
                deadline_seconds=deadline_seconds,
            )
            self._clients.check_region(self._key.region)
        self._identity = self._identify()

    def __repr__(self) -> str:
        return f"<KmsRsaKeyring {self._key}>"

    @property
    def key_arn(self) -> str:
        """The RSA KMS key's ARN."""
        return str(self._key)

    @property
    def kms_clients(self) -> KmsClients | None:
        """The AWS side of this keyring, for others to use; None where it only writes."""
        return self._clients

    def opening_with(self, clients: KmsClients) -> KmsRsaKeyring:
        """The same key, padding and grant tokens with other clients; it opens only."""
        other = KmsRsaKeyring(str(self._key), algorithm=self.algorithm, grant_tokens=self._grant_tokens)
        clients.check_region(self._key.region)
        other._clients = clients
        other._identity = other._identify()
        return other

    def _identify(self) -> Hashable:
        """What its cached data keys are told apart by (rule 11)."""
        return (
            RSA_PROVIDER_ID,
            str(self._key),
            self.algorithm,
            self._public_key.der if self._public_key else None,
            self._clients.authority if self._clients else None,
            tuple(hashlib.sha256(token.encode()).digest() for token in self._grant_tokens),
        )

    @property
    def binds_context_locally(self) -> bool:
        """True: what KMS opens holds a digest of the context, and the call names no context."""
        return True

    def encrypt_steps(self, materials: EncryptionMaterials) -> Steps[EncryptionMaterials]:
        yield from ()  # the public key is at hand: nobody is asked
        public_key = self._public_key
        if public_key is None:
            raise ConfigurationError(f"{self!r} has no public key: it opens, and cannot be written for")
        if materials.suite.is_signed:
            raise ConfigurationError(
                "an RSA recipient is for unsigned messages: everyone has the public key, so a signature beside "
                "it would prove nothing; leave signed=False or leave this keyring out"
            )
        digest = hashlib.sha384(materials.context_bytes).digest()

        def wrap(plaintext_key: bytes) -> bytes:
            return public_key.encrypt_oaep(digest + plaintext_key, hash_name=_HASHES[self.algorithm])

        wrapped = wrap_data_key(materials, wrap)
        return materials.with_recipient(
            EncryptedDataKey(RSA_PROVIDER_ID, self.key_arn.encode(), wrapped.ciphertext),
            data_key=wrapped.generated_data_key,
            symmetric_signing_key=wrapped.symmetric_signing_key,
            origin=joined_origin(materials.origin, KeyOrigin(RSA_PROVIDER_ID, self.key_arn)),
        )

    def decrypt_steps(
        self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
    ) -> Steps[DecryptionMaterials]:
        failures: list[AuthenticationError | KeyAccessError] = []
        malformed: FormatError | None = None
        for index, data_key in enumerate(encrypted_data_keys):
            if self._clients is None or materials.suite.is_signed or data_key.provider_id != RSA_PROVIDER_ID:
                continue
            try:
                stored = key_arn_of_message(data_key.provider_info)
            except FormatError as error:
                malformed = error  # another recipient's: it must not keep this one from reading
                continue
            if not self._key.is_same_key_as(stored):
                continue
            try:
                return (yield from self._open(self._clients, materials, index, data_key))
            except (AuthenticationError, KeyAccessError) as error:
                failures.append(error)
        refusals = [error for error in failures if isinstance(error, KeyAccessError)]
        if refusals:
            raise combined_refusal(refusals)
        raise failures[0] if failures else malformed or self._no_match(materials)

    def _open(
        self, clients: KmsClients, materials: DecryptionMaterials, index: int, data_key: EncryptedDataKey
    ) -> Steps[DecryptionMaterials]:
        wrapped_key = ciphertext_to_unwrap(materials, data_key.ciphertext)
        if len(wrapped_key) not in _CIPHERTEXT_LENGTHS_BYTES:
            raise AuthenticationError("encrypted data key length")
        parameters = {
            "KeyId": self.key_arn,
            "CiphertextBlob": wrapped_key,
            "EncryptionAlgorithm": self.algorithm,
            "GrantTokens": self._grant_tokens,
        }
        answer: KmsAnswer = yield KmsRequest(self._key.region, "Decrypt", parameters, clients)
        plaintext = answer.response.get("Plaintext")
        if answer.response.get("KeyId") != self.key_arn or not isinstance(plaintext, bytes):
            raise unexpected_answer("Decrypt", self._key, "the answer names another key, or holds none", answer)
        digest = hashlib.sha384(materials.context_bytes).digest()
        if not constant_time_equal(plaintext[:_DIGEST_LENGTH_BYTES], digest):
            raise AuthenticationError("context digest")
        unwrapped = unwrapped_data_key(materials, data_key.ciphertext, plaintext[_DIGEST_LENGTH_BYTES:])
        return materials.with_data_key(
            unwrapped.data_key,
            recipient_index=index,
            origin=origin_of(answer, "Decrypt", self._key),
            symmetric_signing_key=unwrapped.symmetric_signing_key,
        )

    def _no_match(self, materials: DecryptionMaterials) -> KeyAccessError:
        if self._clients is None:
            why = "this keyring has a public key and no KMS client, and only writes"
        elif materials.suite.is_signed:
            why = "the message is signed, and an RSA recipient is for unsigned messages"
        else:
            why = "none of the message's encrypted data keys is for it"
        return KeyAccessError(
            f"the RSA key {self.key_arn} cannot open the message: {why}",
            operation="Decrypt",
            code="NoMatchingDataKey",
            key_arn=self.key_arn,
        )
