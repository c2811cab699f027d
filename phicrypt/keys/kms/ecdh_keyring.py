"""``KmsEcdhKeyring``: data keys under a secret that KMS shares with another organization's key.

The private key stays in KMS (KeyUsage KEY_AGREEMENT), which computes the shared secret in DeriveSharedSecret; the
other side's may lie in its own KMS or in its hands (:class:`phicrypt.keys.raw_ecdh.RawEcdhKeyring`). One side
opens what the other sealed, whichever keyring it has. ``framework/aws-kms/aws-kms-ecdh-keyring.md``;
:mod:`phicrypt.keys.ecdh` says the bytes. No context goes to KMS: it is bound here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from phicrypt.core.deadlines import DEADLINE_SECONDS
from phicrypt.core.ecdh import KMS_ECDH_PROVIDER_ID, Parties, parties_of
from phicrypt.core.key_origin import joined_origin
from phicrypt.core.kms_arn import configured_key_arn
from phicrypt.core.kms_calls import KmsAnswer, combined_refusal, origin_of
from phicrypt.core.materials import DecryptionMaterials, EncryptedDataKey, EncryptionMaterials
from phicrypt.core.steps import KmsRequest, SteppedKeyring, Steps
from phicrypt.errors import AuthenticationError, ConfigurationError, KeyAccessError
from phicrypt.keys.ecdh import counterpart_of, opened_with, sealed_for
from phicrypt.keys.kms.answers import unexpected_answer
from phicrypt.keys.kms.clients import KmsClients

if TYPE_CHECKING:
    from boto3.session import Session as Boto3Session
    from mypy_boto3_kms.client import KMSClient

    from phicrypt.core.key_pairs import EcCurve, EcPublicKey


class KmsEcdhKeyring(SteppedKeyring):
    """``KmsEcdhKeyring(key_arn, recipient_public_key=pem)``: messages between a KMS key and another key pair.

    Args:
        key_arn: the ARN of one's own KMS key, on P-256, P-384 or P-521 with KeyUsage KEY_AGREEMENT.
        recipient_public_key: the other side's, for whom is written and from whom is opened: SubjectPublicKeyInfo
            in PEM (text or bytes) or DER, as KMS GetPublicKey gives it. None for a keyring that writes nothing
            and opens what anybody sealed to the KMS key.
        public_key: that of the KMS key itself; None asks KMS GetPublicKey, once, where it is needed: for
            writing, and for opening without ``recipient_public_key``.
        client, grant_tokens, session, endpoint_url, use_fips_endpoint, application, deadline_seconds: as for
            ``KmsKeyring``.

    One DeriveSharedSecret call per data key. Only the configured key is asked. Raises ConfigurationError for an
    unsuitable key or ARN, and for keys on different curves.
    """

    __slots__ = ("_clients", "_counterpart", "_grant_tokens", "_identity", "_key", "_own")

    def __init__(
        self,
        key_arn: str,
        *,
        recipient_public_key: str | bytes | None = None,
        public_key: str | bytes | None = None,
        client: KMSClient | None = None,
        grant_tokens: Iterable[str] = (),
        session: Boto3Session | None = None,
        endpoint_url: str | None = None,
        use_fips_endpoint: bool = False,
        application: str | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        from phicrypt.core.key_pairs import EcPublicKey

        self._key = configured_key_arn(key_arn)
        self._counterpart = None
        if recipient_public_key is not None:
            self._counterpart = EcPublicKey(recipient_public_key, "recipient_public_key=")
        self._own = None if public_key is None else EcPublicKey(public_key)
        if self._own is not None and self._counterpart is not None:
            _check_one_curve(self._own.curve, self._counterpart.curve)
        self._grant_tokens = list(grant_tokens)
        self._clients = KmsClients(
            client=client,
            session=session,
            endpoint_url=endpoint_url,
            use_fips_endpoint=use_fips_endpoint,
            application=application,
            deadline_seconds=deadline_seconds,
        )
        self._clients.check_region(self._key.region)
        self._identity = (
            KMS_ECDH_PROVIDER_ID,
            str(self._key),
            self._counterpart.der if self._counterpart else None,
            self._own.der if self._own else None,
            self._clients.authority,
            tuple(hashlib.sha256(token.encode()).digest() for token in self._grant_tokens),
        )

    def __repr__(self) -> str:
        return (
            f"<KmsEcdhKeyring {self._key}{f' with {self._counterpart.fingerprint}' if self._counterpart else ''}>"
        )

    @property
    def key_arn(self) -> str:
        """The KMS key's ARN."""
        return str(self._key)

    @property
    def kms_clients(self) -> KmsClients:
        """The AWS side of this keyring, for others to use."""
        return self._clients

    @property
    def binds_context_locally(self) -> bool:
        """True: derivation and wrapping bind it here; KMS sees a public key only."""
        return True

    def encrypt_steps(self, materials: EncryptionMaterials) -> Steps[EncryptionMaterials]:
        counterpart = self._counterpart
        if counterpart is None:
            raise ConfigurationError(f"{self!r} only opens: write with recipient_public_key=, for the other side")
        own = yield from self._own_public_key()
        _check_one_curve(own.curve, counterpart.curve)
        answer = yield from self._derive(counterpart)
        secret = _secret_of(answer, counterpart.curve, self)
        parties = Parties(counterpart.curve, own.point, counterpart.point)
        wrapped = sealed_for(parties, lambda: secret, materials)
        return materials.with_recipient(
            EncryptedDataKey(KMS_ECDH_PROVIDER_ID, parties.provider_info, wrapped.ciphertext),
            data_key=wrapped.generated_data_key,
            symmetric_signing_key=wrapped.symmetric_signing_key,
            origin=joined_origin(materials.origin, origin_of(answer, "DeriveSharedSecret", self._key)),
        )

    def decrypt_steps(
        self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
    ) -> Steps[DecryptionMaterials]:
        failures: list[AuthenticationError | KeyAccessError] = []
        ours = [one for one in enumerate(encrypted_data_keys) if self._may_be_ours(one[1])]
        for index, data_key in ours:
            try:
                opened = yield from self._open(materials, index, data_key)
            except (AuthenticationError, KeyAccessError) as error:
                failures.append(error)
                continue
            if opened is not None:
                return opened
        refusals = [error for error in failures if isinstance(error, KeyAccessError)]
        if refusals:
            raise combined_refusal(refusals)
        raise failures[0] if failures else self._no_match(len(encrypted_data_keys))

    def _may_be_ours(self, data_key: EncryptedDataKey) -> bool:
        """Whether it is an ECDH data key at all, so that nobody is asked about another's."""
        from phicrypt.core.key_pairs import EC_CURVES

        return any(parties_of(data_key, curve) is not None for curve in EC_CURVES)

    def _open(
        self, materials: DecryptionMaterials, index: int, data_key: EncryptedDataKey
    ) -> Steps[DecryptionMaterials | None]:
        own = self._own
        if self._counterpart is None:
            own = yield from self._own_public_key()
        known = self._counterpart or own
        assert known is not None
        parties = parties_of(data_key, known.curve)
        if parties is None:
            return None
        counterpart = counterpart_of(parties, own.point if own else None, self._counterpart)
        if counterpart is None:
            return None
        answer = yield from self._derive(counterpart)
        secret = _secret_of(answer, counterpart.curve, self)
        unwrapped = opened_with(parties, secret, materials, data_key.ciphertext)
        return materials.with_data_key(
            unwrapped.data_key,
            recipient_index=index,
            origin=origin_of(answer, "DeriveSharedSecret", self._key),
            symmetric_signing_key=unwrapped.symmetric_signing_key,
        )

    def _derive(self, counterpart: EcPublicKey) -> Steps[KmsAnswer]:
        parameters: dict[str, Any] = {
            "KeyId": self.key_arn,
            "KeyAgreementAlgorithm": "ECDH",
            "PublicKey": counterpart.der,
            "GrantTokens": self._grant_tokens,
        }
        return cast(
            KmsAnswer, (yield KmsRequest(self._key.region, "DeriveSharedSecret", parameters, self._clients))
        )

    def _own_public_key(self) -> Steps[EcPublicKey]:
        """The KMS key's own, asked once. It is no secret, and a false one seals and opens nothing."""
        from phicrypt.core.key_pairs import EcPublicKey

        if self._own is not None:
            return self._own
        parameters = {"KeyId": self.key_arn, "GrantTokens": self._grant_tokens}
        answer: KmsAnswer = yield KmsRequest(self._key.region, "GetPublicKey", parameters, self._clients)
        encoded, usage = answer.response.get("PublicKey"), answer.response.get("KeyUsage")
        if answer.response.get("KeyId") != self.key_arn or not isinstance(encoded, bytes):
            raise unexpected_answer(
                "GetPublicKey", self._key, "the answer names another key, or holds none", answer
            )
        if usage != "KEY_AGREEMENT":
            raise ConfigurationError(
                f"{self.key_arn} has KeyUsage {usage}; a shared secret needs a key made with KEY_AGREEMENT, on "
                "ECC_NIST_P256, ECC_NIST_P384 or ECC_NIST_P521"
            )
        self._own = EcPublicKey(encoded, f"the public key of {self.key_arn}")
        return self._own

    def _no_match(self, count: int) -> KeyAccessError:
        return KeyAccessError(
            f"{self!r} cannot open the message: none of its {count} encrypted data keys was sealed to this key"
            + (" with that counterpart" if self._counterpart else ""),
            operation="DeriveSharedSecret",
            code="NoMatchingDataKey",
            key_arn=self.key_arn,
        )


def _secret_of(answer: KmsAnswer, curve: EcCurve, keyring: KmsEcdhKeyring) -> bytes:
    """The shared secret of an answer; KeyAccessError unless it is one of this key and curve."""
    response = answer.response
    secret = response.get("SharedSecret")
    if (
        response.get("KeyId") != keyring.key_arn
        or response.get("KeyAgreementAlgorithm", "ECDH") != "ECDH"
        or not isinstance(secret, bytes)
        or len(secret) != curve.secret_length_bytes
    ):
        what = f"a shared secret of {curve.secret_length_bytes} bytes under that key was expected"
        raise unexpected_answer("DeriveSharedSecret", configured_key_arn(keyring.key_arn), what, answer)
    return secret


def _check_one_curve(own: EcCurve, counterpart: EcCurve) -> None:
    if own is not counterpart:
        raise ConfigurationError(
            f"the KMS key is on {own.name} and recipient_public_key= on {counterpart.name}: both sides' keys are "
            "on one curve"
        )
