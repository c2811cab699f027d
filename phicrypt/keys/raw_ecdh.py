"""``RawEcdhKeyring``: data keys that two organizations exchange under their key pairs, without any service.

Three ways, each made by its own name: ``static`` between two known keys, ``ephemeral`` to a known recipient from
nobody in particular, ``discovery`` for what anybody sealed to one's own key. AWS's raw ECDH keyring format
(``framework/raw-ecdh-keyring.md``; :mod:`phicrypt.keys.ecdh` says its bytes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from phicrypt.core.ecdh import RAW_ECDH_PROVIDER_ID, Parties, parties_of
from phicrypt.core.key_origin import KeyOrigin, joined_origin
from phicrypt.core.materials import DecryptionMaterials, EncryptedDataKey, EncryptionMaterials
from phicrypt.core.steps import KeyringBase
from phicrypt.errors import AuthenticationError, ConfigurationError, KeyAccessError
from phicrypt.keys.ecdh import counterpart_of, opened_with, sealed_for

if TYPE_CHECKING:
    from phicrypt.core.key_pairs import EcPrivateKey, EcPublicKey


class RawEcdhKeyring(KeyringBase):
    """``RawEcdhKeyring.static(private_key=ours, recipient_public_key=theirs)``, ``ephemeral`` or ``discovery``.

    Keys are on P-256, P-384 or P-521, and both sides' on one curve: public ones SubjectPublicKeyInfo in PEM (text
    or bytes) or DER, private ones PKCS #8 or SEC 1, encrypted ones with ``password=``.

    Attributes:
        way: ``"static"``, ``"ephemeral"`` or ``"discovery"``.
    """

    __slots__ = ("_identity", "_private_key", "_recipient", "way")

    way: str
    _private_key: EcPrivateKey | None
    _recipient: EcPublicKey | None

    def __init__(self) -> None:
        raise ConfigurationError(
            "a RawEcdhKeyring is made by .static(private_key=, recipient_public_key=), .ephemeral("
            "recipient_public_key=) or .discovery(private_key=)"
        )

    @classmethod
    def static(
        cls, *, private_key: str | bytes, recipient_public_key: str | bytes, password: str | bytes | None = None
    ) -> RawEcdhKeyring:
        """Writes and opens messages between two key pairs, in both directions.

        Only those two can seal so, or open: what opens came from one of them. Losing either private key gives
        away every message between them.

        Args:
            private_key: one's own.
            recipient_public_key: the other side's, for whom is written.
            password: of an encrypted private key.

        Raises ConfigurationError for unsuitable keys, and for keys on different curves.
        """
        from phicrypt.core.key_pairs import EcPrivateKey, EcPublicKey

        own = EcPrivateKey(private_key, password=password)
        recipient = EcPublicKey(recipient_public_key, "recipient_public_key=")
        if own.public_key.curve is not recipient.curve:
            raise ConfigurationError(
                f"private_key= is on {own.public_key.curve.name} and recipient_public_key= on "
                f"{recipient.curve.name}: both sides' keys are on one curve"
            )
        return cls._made("static", own, recipient)

    @classmethod
    def ephemeral(cls, *, recipient_public_key: str | bytes) -> RawEcdhKeyring:
        """Writes for a recipient, under a new key pair for each data key; opens nothing.

        The recipient opens with ``discovery``, and learns nothing about who wrote.

        Raises ConfigurationError for an unsuitable key.
        """
        from phicrypt.core.key_pairs import EcPublicKey

        return cls._made("ephemeral", None, EcPublicKey(recipient_public_key, "recipient_public_key="))

    @classmethod
    def discovery(cls, *, private_key: str | bytes, password: str | bytes | None = None) -> RawEcdhKeyring:
        """Opens what anybody sealed to one's own key; writes nothing.

        Who has the public key can seal so: whose message it is, the context or a signature must say.

        Raises ConfigurationError for an unsuitable key.
        """
        from phicrypt.core.key_pairs import EcPrivateKey

        return cls._made("discovery", EcPrivateKey(private_key, password=password), None)

    @classmethod
    def _made(cls, way: str, own: EcPrivateKey | None, recipient: EcPublicKey | None) -> RawEcdhKeyring:
        keyring = cls.__new__(cls)
        keyring.way = way
        keyring._private_key = own
        keyring._recipient = recipient
        keyring._identity = (
            RAW_ECDH_PROVIDER_ID,
            way,
            own.public_key.der if own else None,
            recipient.der if recipient else None,
        )
        return keyring

    def __repr__(self) -> str:
        named = {
            "from": self._private_key.public_key.fingerprint if self._private_key and self._recipient else None,
            "to": self._recipient.fingerprint
            if self._recipient
            else self._private_key and self._private_key.public_key.fingerprint,
        }
        return f"<RawEcdhKeyring {self.way}{''.join(f' {word} {one}' for word, one in named.items() if one)}>"

    @property
    def binds_context_locally(self) -> bool:
        """True: derivation and wrapping bind it here."""
        return True

    def on_encrypt(self, materials: EncryptionMaterials) -> EncryptionMaterials:
        from phicrypt.core.key_pairs import EcPrivateKey

        recipient = self._recipient
        if recipient is None:
            raise ConfigurationError(
                f"{self!r} only opens: write with .static or .ephemeral, for a recipient's key"
            )
        own = self._private_key or EcPrivateKey.generate(recipient.curve)
        parties = Parties(recipient.curve, own.public_key.point, recipient.point)
        wrapped = sealed_for(parties, lambda: own.exchange(recipient), materials)
        return materials.with_recipient(
            EncryptedDataKey(RAW_ECDH_PROVIDER_ID, parties.provider_info, wrapped.ciphertext),
            data_key=wrapped.generated_data_key,
            symmetric_signing_key=wrapped.symmetric_signing_key,
            origin=joined_origin(materials.origin, KeyOrigin(RAW_ECDH_PROVIDER_ID, recipient.fingerprint)),
        )

    def on_decrypt(
        self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
    ) -> DecryptionMaterials:
        failure: AuthenticationError | None = None
        for index, data_key in enumerate(encrypted_data_keys):
            try:
                opened = self._opened(materials, index, data_key)
            except AuthenticationError as error:
                failure = failure or error
                continue
            if opened is not None:
                return opened
        raise failure or self._no_match(len(encrypted_data_keys))

    def _opened(
        self, materials: DecryptionMaterials, index: int, data_key: EncryptedDataKey
    ) -> DecryptionMaterials | None:
        """The materials with what was sealed to this keyring; None for what is another's."""
        own = self._private_key
        parties = parties_of(data_key, own.public_key.curve) if own is not None else None
        if own is None or parties is None:
            return None
        counterpart = counterpart_of(parties, own.public_key.point, self._recipient)
        if counterpart is None:
            return None
        unwrapped = opened_with(parties, own.exchange(counterpart), materials, data_key.ciphertext)
        is_to_us = parties.recipient == own.public_key.point
        recipient = own.public_key if is_to_us else counterpart
        return materials.with_data_key(
            unwrapped.data_key,
            recipient_index=index,
            origin=KeyOrigin(RAW_ECDH_PROVIDER_ID, recipient.fingerprint),
            symmetric_signing_key=unwrapped.symmetric_signing_key,
        )

    def _no_match(self, count: int) -> KeyAccessError:
        if self._private_key is None:
            why = "an ephemeral keyring writes only; its recipient opens, with .discovery and the private key"
        else:
            why = f"none of the message's {count} encrypted data keys was sealed between these keys"
        return KeyAccessError(
            f"{self!r} cannot open the message: {why}", operation="Decrypt", code="NoMatchingDataKey"
        )
