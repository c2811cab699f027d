"""The cryptographic primitives, and beside :mod:`phicrypt.core.key_pairs` the only importer of ``cryptography``.

Those that need hashes alone stand in :mod:`phicrypt.core.keyed_hashes` and are offered here too.

Thin functions with bytes in and bytes out. Randomness comes from ``os.urandom`` at each use; a tag
that does not verify raises :class:`~phicrypt.errors.AuthenticationError`; secrets are compared in
constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from phicrypt.core.keyed_hashes import (
    hkdf,
    hkdf_expand,
    hkdf_expand_two,
    hkdf_extract,
    hmac_digest,
    hmac_sha384,
    hmac_sha512,
    kdf_counter_mode_sha256,
)
from phicrypt.core.suites import Curve
from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = [
    "AESGCM",
    "GcmStreamOpener",
    "GcmStreamSealer",
    "InvalidTag",
    "LocalSigningKey",
    "SIGNING_ALGORITHMS",
    "SignaturePublicKey",
    "SigningKey",
    "VerificationKey",
    "aes_ctr_keystream",
    "constant_time_equal",
    "hkdf",
    "hkdf_expand",
    "hkdf_expand_two",
    "hkdf_extract",
    "hmac_digest",
    "hmac_sha384",
    "hmac_sha512",
    "kdf_counter_mode_sha256",
    "new_signature_digest",
    "new_signing_key_pem",
    "open_gcm",
    "random_bytes",
    "seal_gcm",
    "verify_rsa_pkcs1_sha256",
]

random_bytes: Final[Callable[[int], bytes]] = os.urandom
"""``random_bytes(n)``: n bytes from the operating system's generator, no pool (rule 5)."""

constant_time_equal = hmac.compare_digest
"""``constant_time_equal(a, b)``: compare two byte strings without leaking where they differ."""


def seal_gcm(cipher_key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """AES-GCM: ciphertext followed by the 16-byte tag. The caller owns the uniqueness of the nonce."""
    return AESGCM(cipher_key).encrypt(nonce, plaintext, aad)


def open_gcm(cipher_key: bytes, nonce: bytes, ciphertext_and_tag: bytes, aad: bytes, *, reason: str) -> bytes:
    """AES-GCM: the plaintext, or AuthenticationError(reason) if the tag does not verify."""
    try:
        return AESGCM(cipher_key).decrypt(nonce, ciphertext_and_tag, aad)
    except InvalidTag:
        raise AuthenticationError(reason) from None


class GcmStreamOpener:
    """AES-GCM decryption piece by piece, for bodies with one tag at their end.

    What :meth:`update` returns is **unverified** until :meth:`verify` has passed; callers drop it in a
    first pass and decrypt again in a second one.
    """

    __slots__ = ("_decryptor",)

    def __init__(self, cipher_key: bytes, nonce: bytes, aad: bytes) -> None:
        self._decryptor = Cipher(algorithms.AES(cipher_key), modes.GCM(nonce)).decryptor()
        self._decryptor.authenticate_additional_data(aad)

    def update(self, ciphertext: bytes | memoryview) -> bytes:
        """The plaintext of the next piece, unverified."""
        return self._decryptor.update(ciphertext)

    def verify(self, tag: bytes, *, reason: str) -> None:
        """Raise AuthenticationError(reason) unless all that was given fits the tag."""
        try:
            self._decryptor.finalize_with_tag(tag)
        except InvalidTag:
            raise AuthenticationError(reason) from None


class GcmStreamSealer:
    """AES-GCM encryption piece by piece. The caller owns the uniqueness of the nonce."""

    __slots__ = ("_encryptor",)

    def __init__(self, cipher_key: bytes, nonce: bytes, aad: bytes) -> None:
        self._encryptor = Cipher(algorithms.AES(cipher_key), modes.GCM(nonce)).encryptor()
        self._encryptor.authenticate_additional_data(aad)

    def update(self, plaintext: bytes | bytearray | memoryview) -> bytes:
        """The ciphertext of the next piece, of the same length."""
        return self._encryptor.update(plaintext)

    def finish(self) -> bytes:
        """The 16-byte tag over all pieces."""
        self._encryptor.finalize()
        return self._encryptor.tag


_counter_mode: Final = lru_cache(16)(modes.CTR)
"""The mode that begins at a counter block; callers have one or two, and it holds no key."""


def aes_ctr_keystream(cipher_key: bytes, initial_counter: bytes, length_bytes: int) -> bytes:
    """The first bytes of the AES-256-CTR keystream that starts at a 16-byte counter block."""
    encryptor = Cipher(algorithms.AES256(cipher_key), _counter_mode(initial_counter)).encryptor()
    return encryptor.update(bytes(length_bytes))


def _hash_name(curve: Curve) -> str:
    return "sha256" if curve is Curve.P256 else "sha384"


def new_signature_digest(curve: Curve) -> hashlib._Hash:
    """The running hash that is signed with this curve: SHA-256 for P-256, SHA-384 for P-384."""
    return hashlib.new(_hash_name(curve))


class SigningKey:
    """An ephemeral ECDSA key pair. The private key lives in OpenSSL only and is never exported."""

    __slots__ = ("_private_key", "curve")

    def __init__(self, curve: Curve) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self.curve = curve
        self._private_key: ec.EllipticCurvePrivateKey = ec.generate_private_key(_curve_object(curve))

    def __repr__(self) -> str:
        return f"<SigningKey {self.curve.name}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a signing key cannot be copied or pickled")

    def compressed_public_key(self) -> bytes:
        """The public point, compressed (SEC 1 section 2.3.3): 33 bytes for P-256, 49 for P-384."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self._private_key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)

    def sign_digest(self, digest: bytes) -> bytes:
        """DER signature over a digest, with RFC 6979's deterministic nonce (rule 5).

        The length is always :data:`FIXED_SIGNATURE_LENGTH_BYTES` of the curve: DB-ESDK's footer
        needs it, and AWS's libraries write it so in ESDK messages. Where the deterministic
        signature is shorter or longer, its ``s`` is negated (an equally valid signature); where
        that does not help, random nonces are drawn until one fits.
        """
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import (
            Prehashed,
            decode_dss_signature,
            encode_dss_signature,
        )

        algorithm = hashes.SHA256() if self.curve is Curve.P256 else hashes.SHA384()
        wanted = FIXED_SIGNATURE_LENGTH_BYTES[self.curve]
        signature = self._private_key.sign(digest, ec.ECDSA(Prehashed(algorithm), deterministic_signing=True))
        while len(signature) != wanted:
            r, s = decode_dss_signature(signature)
            signature = encode_dss_signature(r, _CURVE_ORDER[self.curve] - s)
            if len(signature) != wanted:
                signature = self._private_key.sign(digest, ec.ECDSA(Prehashed(algorithm)))
        return signature


FIXED_SIGNATURE_LENGTH_BYTES: Final = {Curve.P256: 71, Curve.P384: 103}
"""Length of the DER signatures that AWS's libraries write, by curve."""

_CURVE_ORDER: Final = {
    Curve.P256: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    Curve.P384: int(
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973",
        16,
    ),
}


class VerificationKey:
    """An ECDSA public key, read from its compressed point."""

    __slots__ = ("_public_key", "curve")

    def __init__(self, curve: Curve, compressed_point: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        expected = {Curve.P256: 33, Curve.P384: 49}[curve]
        if len(compressed_point) != expected or compressed_point[0] not in (2, 3):
            raise FormatError(
                f"a compressed {curve.name} point of {expected} bytes was expected, "
                f"{len(compressed_point)} bytes came",
                field="aws-crypto-public-key",
            )
        self.curve = curve
        public_key: ec.EllipticCurvePublicKey | None = None
        with suppress(ValueError):
            public_key = ec.EllipticCurvePublicKey.from_encoded_point(_curve_object(curve), compressed_point)
        if public_key is None:
            raise FormatError("the point is not on the curve", field="aws-crypto-public-key")
        self._public_key = public_key

    def verify_digest(self, digest: bytes, signature: bytes) -> None:
        """Raise AuthenticationError unless the DER signature fits the digest."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

        algorithm = hashes.SHA256() if self.curve is Curve.P256 else hashes.SHA384()
        try:
            self._public_key.verify(signature, digest, ec.ECDSA(Prehashed(algorithm)))
        except InvalidSignature:
            raise AuthenticationError("signature") from None


def _curve_object(curve: Curve) -> ec.EllipticCurve:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.SECP256R1() if curve is Curve.P256 else ec.SECP384R1()


def verify_rsa_pkcs1_sha256(public_key_der: bytes, message: bytes, signature: bytes) -> None:
    """RSASSA-PKCS1-v1_5 with SHA-256 under a PKCS #1 or SubjectPublicKeyInfo key: CloudTrail's digest files.

    Raises AuthenticationError unless the signature fits, and for bytes that are no RSA key.
    """
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        public_key = load_der_public_key(public_key_der)
    except ValueError:
        public_key = None
    if not isinstance(public_key, rsa.RSAPublicKey):
        raise AuthenticationError("public key")
    try:
        public_key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise AuthenticationError("signature") from None


class SignaturePublicKey:
    """The public half of an asymmetric KMS key, for verifying without KMS.

    Args:
        public_key_der: SubjectPublicKeyInfo, as KMS GetPublicKey returns it.

    Raises FormatError for bytes that are no public key of a kind that :data:`SIGNING_ALGORITHMS` names.
    """

    __slots__ = ("_public_key", "algorithms")

    def __init__(self, public_key_der: bytes) -> None:
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        self._public_key: Any = None
        with suppress(ValueError, UnsupportedAlgorithm):
            self._public_key = load_der_public_key(public_key_der)
        if self._public_key is None:
            raise FormatError("a DER public key was expected", field="public key")
        self.algorithms = _algorithms_of(self._public_key)
        if not self.algorithms:
            raise FormatError("keys of this kind are not used for signatures here", field="public key")

    def verify(self, algorithm: str, message: bytes, signature: bytes) -> None:
        """Raise AuthenticationError unless the signature fits the whole message.

        Raises FormatError where the algorithm does not suit the key.
        """
        if algorithm not in self.algorithms:
            raise FormatError(
                f"{algorithm!r} does not suit this key; it verifies {', '.join(self.algorithms)}",
                field="signing algorithm",
            )
        try:
            self._verify(algorithm, message, signature)
        except InvalidSignature:
            raise AuthenticationError("signature") from None

    def _verify(self, algorithm: str, message: bytes, signature: bytes) -> None:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, padding

        if algorithm in ("ED25519_SHA_512", "ML_DSA_SHAKE_256"):
            self._public_key.verify(signature, message)
            return
        digest: hashes.HashAlgorithm = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}[
            algorithm[-3:]
        ]
        if algorithm.startswith("ECDSA"):
            self._public_key.verify(signature, message, ec.ECDSA(digest))
        else:
            # KMS salts with as many bytes as the digest has; other signers may choose, which harms nobody.
            scheme = padding.PSS(padding.MGF1(digest), padding.PSS.AUTO)
            self._public_key.verify(signature, message, scheme, digest)


SIGNING_ALGORITHMS: Final = (
    "ECDSA_SHA_256",
    "ECDSA_SHA_384",
    "RSASSA_PSS_SHA_256",
    "RSASSA_PSS_SHA_384",
    "RSASSA_PSS_SHA_512",
    "ED25519_SHA_512",
    "ML_DSA_SHAKE_256",
)
"""KMS's names of the signing algorithms in use: ECDSA on P-256 and P-384, RSA-PSS, Ed25519, ML-DSA.
Left out on purpose: PKCS #1 v1.5, secp256k1, P-521 and SM2, and Ed25519ph, which hashes twice in KMS.
"""


def _algorithms_of(public_key: object) -> tuple[str, ...]:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(public_key, rsa.RSAPublicKey):
        return SIGNING_ALGORITHMS[2:5] if public_key.key_size >= 2048 else ()
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        by_curve = {"secp256r1": SIGNING_ALGORITHMS[:1], "secp384r1": SIGNING_ALGORITHMS[1:2]}
        return by_curve.get(public_key.curve.name, ())
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        return ("ED25519_SHA_512",)
    if type(public_key).__name__.startswith("MLDSA"):
        return ("ML_DSA_SHAKE_256",)
    return ()


class LocalSigningKey:
    """An Ed25519 or ML-DSA-44 private key, from PKCS #8 in PEM without a password; no error holds its bytes."""

    __slots__ = ("_private_key",)

    def __init__(self, pem: bytes) -> None:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            self._private_key: Any = load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            self._private_key = None
        if type(self._private_key).__name__ not in ("Ed25519PrivateKey", "MLDSA44PrivateKey"):
            raise ConfigurationError("an Ed25519 or ML-DSA-44 private key in PEM (PKCS #8) was expected")

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a signing key cannot be copied or pickled")

    def public_key_der(self) -> bytes:
        """SubjectPublicKeyInfo."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return bytes(self._private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    def sign(self, message: bytes) -> bytes:
        """The bare signature over the whole message."""
        return bytes(self._private_key.sign(message))


def new_signing_key_pem(algorithm: str) -> bytes:
    """A new private key as :class:`LocalSigningKey` takes it: ``"ed25519"`` or ``"ml-dsa-44"``."""
    from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    kinds: dict[str, Any] = {"ed25519": ed25519.Ed25519PrivateKey, "ml-dsa-44": mldsa.MLDSA44PrivateKey}
    try:
        private_key = kinds[algorithm].generate()
    except UnsupportedAlgorithm:
        raise ConfigurationError(f"the installed 'cryptography' makes no keys of {algorithm}") from None
    return bytes(private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
