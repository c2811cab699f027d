"""``RawRsaKeyring``: data keys wrapped under an RSA public key, opened with the private key that you hold.

The offline recovery recipient (rule 16): writers have the public key, and the private key lies in a safe or
an HSM and never meets them. AWS's raw RSA keyring format (``framework/raw-rsa-keyring.md``), so the AWS
Encryption SDK opens what it wraps with the same namespace, name and padding; its encrypted data keys are::

    provider id     the namespace
    provider info   the name, UTF-8
    ciphertext      RSAES-OAEP or RSAES-PKCS1-v1_5 of the data key, as long as the modulus

The format binds no context to the data key: the header's tag does. Whoever has the public key can make such a
data key, so it says nothing about who wrote a message, signed or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from phicrypt.core.key_origin import KeyOrigin, joined_origin
from phicrypt.core.materials import DecryptionMaterials, EncryptedDataKey, EncryptionMaterials
from phicrypt.core.steps import KeyringBase
from phicrypt.errors import AuthenticationError, ConfigurationError, KeyAccessError
from phicrypt.keys.wrapping import ciphertext_to_unwrap, unwrapped_data_key, wrap_data_key

if TYPE_CHECKING:
    from phicrypt.core.key_pairs import RsaDecrypter, RsaPrivateKey

RsaPaddingName: TypeAlias = Literal["oaep-sha1", "oaep-sha256", "oaep-sha384", "oaep-sha512", "pkcs1"]
_UNSAFE_PADDING = "pkcs1"


class RawRsaKeyring(KeyringBase):
    """``RawRsaKeyring("clinic", "recovery-2026", public_key=pem)`` writes for a key that lies elsewhere.

    Args:
        namespace, name: stand in clear in each message, and both sides agree on them; the namespace does not
            begin with ``aws-kms``.
        public_key: of at least 2,048 bits, SubjectPublicKeyInfo or PKCS #1 in PEM (text or bytes) or DER; None
            for a keyring that only opens. It is never derived from the private key.
        private_key: PKCS #8 or PKCS #1 in PEM or DER, or any object with ``decrypt(ciphertext, padding)``, such
            as a key in a PKCS #11 token or an HSM; None for a keyring that only writes. Such an object is called
            from several threads at once, and must not call phicrypt.
        password: of an encrypted ``private_key``.
        padding: ``"oaep-sha256"``, ``"oaep-sha1"``, ``"oaep-sha384"``, ``"oaep-sha512"`` (the hash of label and
            MGF1 alike), or ``"pkcs1"`` for PKCS #1 v1.5, which is neither written nor read unless it is named:
            its decryption tells attackers too much in many libraries. What does not open under it here looks like
            a data key that does not fit its message, whatever the reason was, a device's failure included.

    Raises ConfigurationError for unsuitable or weak keys, and for two halves that are not one pair.
    """

    __slots__ = (
        "_identity",
        "_modulus_length_bytes",
        "_padding",
        "_private_key",
        "_public_key",
        "name",
        "namespace",
    )

    def __init__(
        self,
        namespace: str,
        name: str,
        *,
        public_key: str | bytes | None = None,
        private_key: str | bytes | RsaDecrypter | None = None,
        password: str | bytes | None = None,
        padding: RsaPaddingName = "oaep-sha256",
    ) -> None:
        from phicrypt.core.key_pairs import RSA_PADDINGS, RsaPublicKey

        if not isinstance(padding, str) or padding not in RSA_PADDINGS:
            raise ConfigurationError(f"padding= is one of {', '.join(RSA_PADDINGS)}, not {padding!r}")
        if public_key is None and private_key is None:
            raise ConfigurationError("a raw RSA keyring needs public_key= to write, private_key= to open, or both")
        _check_names(namespace, name)
        self.namespace = namespace
        self.name = name
        self._padding = RSA_PADDINGS[padding]
        self._public_key = None if public_key is None else RsaPublicKey(public_key)
        self._private_key = None if private_key is None else _private_key_of(private_key, password)
        if private_key is None and password is not None:
            raise ConfigurationError("password= goes with an encrypted private_key=")
        self._modulus_length_bytes = self._checked_length()
        self._identity = (
            "raw-rsa",
            namespace,
            name,
            str(self._padding),
            self._public_key.der if self._public_key else None,
            self._private_identity(),
        )

    def _checked_length(self) -> int | None:
        """The modulus' length in bytes; None where only a device knows it."""
        private_der = getattr(self._private_key, "public_der", None)
        if self._public_key is None:
            return getattr(self._private_key, "modulus_length_bytes", None)
        if private_der is not None and private_der != self._public_key.der:
            raise ConfigurationError("public_key= and private_key= are not the two halves of one key")
        return (self._public_key.modulus_length_bits + 7) // 8

    def _private_identity(self) -> Hashable:
        if self._private_key is None:
            return None
        public_der = getattr(self._private_key, "public_der", None)
        # What another object opens is not known: it shares no cached key with any, now or later.
        return hashlib.sha256(public_der).digest() if isinstance(public_der, bytes) else object()

    def __repr__(self) -> str:
        return f"<RawRsaKeyring {self.namespace!r} {self.name!r} {self._padding!s}>"

    @property
    def padding(self) -> str:
        """The padding's name, such as ``"oaep-sha256"``."""
        return str(self._padding)

    @property
    def opens(self) -> bool:
        """Whether it has a private key."""
        return self._private_key is not None

    @property
    def caches_data_keys(self) -> bool:
        # A stand-in of `_open` would outlive the device's failure for which it stands.
        return not (self.opens and self._padding == _UNSAFE_PADDING)

    @property
    def binds_context_locally(self) -> bool:
        """True: the header's tag binds it, and nobody is asked."""
        return True

    def on_encrypt(self, materials: EncryptionMaterials) -> EncryptionMaterials:
        public_key = self._public_key
        if public_key is None:
            raise ConfigurationError(f"{self!r} has no public key: it opens, and cannot be written for")

        def wrap(plaintext_key: bytes) -> bytes:
            return public_key.encrypt(plaintext_key, self._padding)

        wrapped = wrap_data_key(materials, wrap)
        return materials.with_recipient(
            EncryptedDataKey(self.namespace, self.name.encode(), wrapped.ciphertext),
            data_key=wrapped.generated_data_key,
            symmetric_signing_key=wrapped.symmetric_signing_key,
            origin=joined_origin(materials.origin, KeyOrigin(self.namespace, self.name)),
        )

    def on_decrypt(
        self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
    ) -> DecryptionMaterials:
        failures: list[AuthenticationError | KeyAccessError] = []
        ours = (self.namespace, self.name.encode())
        for index, data_key in enumerate(encrypted_data_keys):
            if self._private_key is None or (data_key.provider_id, data_key.provider_info) != ours:
                continue
            try:
                return self._open(self._private_key, materials, index, data_key)
            except (AuthenticationError, KeyAccessError) as error:
                failures.append(error)
        raise failures[0] if failures else self._no_match(len(encrypted_data_keys))

    def _open(
        self,
        private_key: RsaPrivateKey | RsaDecrypter,
        materials: DecryptionMaterials,
        index: int,
        data_key: EncryptedDataKey,
    ) -> DecryptionMaterials:
        from phicrypt.core.primitives import random_bytes

        wrapped_key = ciphertext_to_unwrap(materials, data_key.ciphertext)
        if self._modulus_length_bytes not in (None, len(wrapped_key)):
            raise AuthenticationError("encrypted data key length")
        # Drawn before the outcome is known, for either outcome.
        stand_in = random_bytes(materials.suite.data_key_length_bytes)
        plaintext_key, refusal = self._decrypted(private_key, wrapped_key)
        is_one = plaintext_key is not None and len(plaintext_key) == len(stand_in)
        if self._padding == _UNSAFE_PADDING:
            # Bleichenbacher: nobody learns whether the padding was right. What was not opened becomes a key that
            # opens nothing, and the message fails at its header as it does under every other wrong key; nor is
            # another encrypted data key tried, whose success would tell.
            plaintext_key = plaintext_key if is_one else stand_in
        elif not is_one:
            raise refusal or AuthenticationError("encrypted data key")
        assert plaintext_key is not None
        unwrapped = unwrapped_data_key(materials, data_key.ciphertext, plaintext_key)
        return materials.with_data_key(
            unwrapped.data_key,
            recipient_index=index,
            origin=KeyOrigin(self.namespace, self.name),
            symmetric_signing_key=unwrapped.symmetric_signing_key,
        )

    def _decrypted(
        self, private_key: RsaPrivateKey | RsaDecrypter, wrapped_key: bytes
    ) -> tuple[bytes | None, KeyAccessError | None]:
        """What the private key opened, or nothing; and of a device the refusal, without its text."""
        try:
            plaintext_key = private_key.decrypt(wrapped_key, self._padding)
        except Exception as error:  # noqa: BLE001  (a device's library raises errors of its own)
            name = type(error).__name__
        else:
            return (
                bytes(plaintext_key) if isinstance(plaintext_key, bytes | bytearray | memoryview) else None
            ), None
        if getattr(private_key, "public_der", None) is not None:
            return None, None  # every reason is one to OAEP: a key of ours says no more
        return None, KeyAccessError(
            f"the private key object of {self!r} did not open an encrypted data key ({name}): the device's "
            "session, the key or its mechanism is not what the padding needs, or the message is another key's",
            operation="Decrypt",
            code=name,
        )

    def _no_match(self, count: int) -> KeyAccessError:
        if self._private_key is None:
            why = "this keyring has a public key only, and writes"
        else:
            why = f"none of the message's {count} encrypted data keys is for this namespace and name"
        return KeyAccessError(
            f"{self!r} cannot open the message: {why}", operation="Decrypt", code="NoMatchingDataKey"
        )


def _check_names(namespace: str, name: str) -> None:
    if not isinstance(namespace, str) or not namespace or namespace.startswith("aws-kms"):
        raise ConfigurationError("a raw RSA key namespace is non-empty text and does not begin with aws-kms")
    if not isinstance(name, str) or not name:
        raise ConfigurationError("a raw RSA key name is non-empty text")
    for text in (namespace, name):
        if len(text.encode(errors="replace")) > 65_535 or text != text.encode(errors="replace").decode():
            raise ConfigurationError("a raw RSA key's namespace and name are valid text of at most 65,535 bytes")


def _private_key_of(
    given: str | bytes | RsaDecrypter, password: str | bytes | None
) -> RsaPrivateKey | RsaDecrypter:
    from phicrypt.core.key_pairs import RsaDecrypter, RsaPrivateKey, is_software_key

    if isinstance(given, RsaPrivateKey):
        return given
    if isinstance(given, str | bytes | bytearray | memoryview) or is_software_key(given):
        return RsaPrivateKey(given, password=password)
    if not isinstance(given, RsaDecrypter):
        raise ConfigurationError(
            "private_key= takes a key in PEM or DER, or an object with decrypt(ciphertext, padding), not "
            f"{type(given).__name__}"
        )
    if password is not None:
        raise ConfigurationError("password= goes with an encrypted private_key=, not with an object that opens")
    return given
