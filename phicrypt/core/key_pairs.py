"""Key pairs of recipients, RSA and NIST curves: read in the forms that people have, judged, and used.

::

    RsaPublicKey(pem_or_der)                      # SubjectPublicKeyInfo or PKCS #1
    RsaPrivateKey(pem_or_der, password=b"…")      # PKCS #8 or PKCS #1, encrypted or not
    EcPublicKey(pem_or_der), EcPrivateKey(…)      # SubjectPublicKeyInfo; PKCS #8 or SEC 1

Weak keys end here, before anything is sealed under them: RSA below 2,048 bits, with a public exponent outside
of FIPS 186-5's range or a modulus with a small factor; points off their curve, curves that AWS's keyrings do
not know. No error holds a byte of a key. Beside :mod:`phicrypt.core.primitives` the only importer of
``cryptography``.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Final, Protocol, runtime_checkable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from phicrypt.core.materials import KeyHolder
from phicrypt.errors import AuthenticationError, ConfigurationError

MIN_MODULUS_LENGTH_BITS: Final = 2_048
_MIN_EXPONENT: Final = 65_537
_MAX_EXPONENT_LENGTH_BITS: Final = 256
"""FIPS 186-5, appendix A.1.1: 2^16 < e < 2^256, and odd."""
_SMALL_PRIMES: Final = math.prod(n for n in range(3, 752) if all(n % d for d in range(2, math.isqrt(n) + 1)))
"""The odd primes below 752, which divide no sound modulus (SP 800-89, section 5.3.3)."""


class OaepPadding(str, padding.OAEP):
    """RSAES-OAEP, one hash for label and MGF1: a name such as ``"oaep-sha256"``, and ``cryptography``'s object."""

    __slots__ = ()

    def __new__(cls, name: str, algorithm: hashes.HashAlgorithm) -> OaepPadding:
        return str.__new__(cls, name)

    def __init__(self, name: str, algorithm: hashes.HashAlgorithm) -> None:
        padding.OAEP.__init__(self, padding.MGF1(algorithm), algorithm, None)


class Pkcs1Padding(str, padding.PKCS1v15):
    """RSAES-PKCS1-v1_5: the name ``"pkcs1"``, and ``cryptography``'s object."""

    __slots__ = ()


RsaPadding = OaepPadding | Pkcs1Padding
RSA_PADDINGS: Final[dict[str, RsaPadding]] = {
    str(one): one
    for one in (
        OaepPadding("oaep-sha1", hashes.SHA1()),  # noqa: S303  (in OAEP, and of AWS's format)
        OaepPadding("oaep-sha256", hashes.SHA256()),
        OaepPadding("oaep-sha384", hashes.SHA384()),
        OaepPadding("oaep-sha512", hashes.SHA512()),
        Pkcs1Padding("pkcs1"),
    )
}
"""The paddings of AWS's raw RSA keyring, by their names here."""


@runtime_checkable
class RsaDecrypter(Protocol):
    """A private key that stays where it is: in a PKCS #11 token, an HSM, a smart card.

    ``padding`` is the keyring's, such as ``"oaep-sha256"``, and at the same time the padding object of
    ``cryptography``, so that a key of that library is such an object too.
    """

    def decrypt(self, ciphertext: bytes, padding: Any) -> bytes:
        """The plaintext; raises whatever the device raises."""
        ...


class RsaPublicKey:
    """An RSA public key: SubjectPublicKeyInfo or PKCS #1, in PEM (text or bytes) or DER.

    Attributes:
        der: its canonical SubjectPublicKeyInfo.
        modulus_length_bits: length of the modulus, at least 2,048.

    Raises ConfigurationError for anything else, and for weak keys.
    """

    __slots__ = ("_public_key", "der", "modulus_length_bits")

    def __init__(self, encoded: object, parameter: str = "public_key=") -> None:
        public_key = _read_public_key(encoded, parameter)
        if not isinstance(public_key, rsa.RSAPublicKey):
            raise ConfigurationError(f"{parameter} takes an RSA public key; this is {_kind(public_key)}")
        _judge_rsa(public_key, parameter)
        self._public_key = public_key
        self.der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.modulus_length_bits = public_key.key_size

    def encrypt_oaep(self, plaintext: bytes, *, hash_name: str) -> bytes:
        """RSAES-OAEP with MGF1 of the same hash (``"sha1"`` to ``"sha512"``), empty label."""
        return self.encrypt(plaintext, RSA_PADDINGS[f"oaep-{hash_name}"])

    def encrypt(self, plaintext: bytes, rsa_padding: RsaPadding) -> bytes:
        """The plaintext under this key, as long as its modulus."""
        return self._public_key.encrypt(plaintext, rsa_padding)


class RsaPrivateKey(KeyHolder):
    """An RSA private key: PKCS #8 or PKCS #1, in PEM (text or bytes) or DER, encrypted or not.

    Attributes:
        public_der: SubjectPublicKeyInfo of its public half.
        modulus_length_bytes: how long its ciphertexts are.

    Raises ConfigurationError for anything else, for weak keys, and without the right password.
    """

    __slots__ = ("_private_key", "modulus_length_bytes", "public_der")

    def __init__(
        self, encoded: object, *, password: str | bytes | None = None, parameter: str = "private_key="
    ) -> None:
        private_key = _read_private_key(encoded, password, parameter)
        if not isinstance(private_key, rsa.RSAPrivateKey):
            raise ConfigurationError(f"{parameter} takes an RSA private key; this is {_kind(private_key)}")
        public_key = private_key.public_key()
        _judge_rsa(public_key, parameter)
        self._private_key = private_key
        self.public_der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.modulus_length_bytes = (private_key.key_size + 7) // 8

    def __repr__(self) -> str:
        return f"<RsaPrivateKey of {self.modulus_length_bytes * 8} bits>"

    def decrypt(self, ciphertext: bytes, padding: RsaPadding) -> bytes:
        """The plaintext; ValueError for whatever does not open."""
        return self._private_key.decrypt(ciphertext, padding)


class EcCurve:
    """A curve of AWS's ECDH keyrings.

    Attributes:
        name: as it stands in derivations, ``"p256"``.
        point_length_bytes: of a compressed point.
        secret_length_bytes: of a shared secret.
    """

    __slots__ = ("curve", "name", "point_length_bytes", "secret_length_bytes")

    def __init__(self, name: str, curve: ec.EllipticCurve) -> None:
        self.name = name
        self.curve = curve
        self.secret_length_bytes = (curve.key_size + 7) // 8
        self.point_length_bytes = 1 + self.secret_length_bytes

    def __repr__(self) -> str:
        return f"<EcCurve {self.name}>"


_CURVES: Final = {
    curve.name: EcCurve(name, curve)
    for name, curve in (("p256", ec.SECP256R1()), ("p384", ec.SECP384R1()), ("p521", ec.SECP521R1()))
}

EC_CURVES: Final = tuple(_CURVES.values())


class EcPublicKey:
    """A public key on P-256, P-384 or P-521: SubjectPublicKeyInfo, in PEM (text or bytes) or DER.

    Attributes:
        curve: its curve.
        point: the compressed point (SEC 1, section 2.3.3).
        der: its canonical SubjectPublicKeyInfo, with the uncompressed point.

    Raises ConfigurationError for anything else.
    """

    __slots__ = ("_public_key", "curve", "der", "point")

    def __init__(self, encoded: object, parameter: str = "public_key=") -> None:
        public_key = _read_public_key(encoded, parameter)
        if not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise ConfigurationError(
                f"{parameter} takes a public key of an elliptic curve; this is {_kind(public_key)}"
            )
        self._take(public_key, parameter)

    @classmethod
    def at_point(cls, curve: EcCurve, point: bytes) -> EcPublicKey:
        """The key at a compressed point that stood in a message; AuthenticationError if it is not on the curve."""
        if len(point) != curve.point_length_bytes or point[0] not in (2, 3):
            raise AuthenticationError("public key of the encrypted data key")
        try:
            public_key = ec.EllipticCurvePublicKey.from_encoded_point(curve.curve, point)
        except ValueError:
            public_key = None
        if public_key is None:
            raise AuthenticationError("public key of the encrypted data key")
        return cls._of(public_key)

    @classmethod
    def _of(cls, public_key: ec.EllipticCurvePublicKey, parameter: str = "private_key=") -> EcPublicKey:
        made = cls.__new__(cls)
        made._take(public_key, parameter)
        return made

    def _take(self, public_key: ec.EllipticCurvePublicKey, parameter: str) -> None:
        curve = _CURVES.get(public_key.curve.name)
        if curve is None:
            raise ConfigurationError(
                f"{parameter} takes a key on P-256, P-384 or P-521; this one is on {public_key.curve.name}"
            )
        self._public_key = public_key
        self.curve = curve
        self.point = public_key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        self.der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def __repr__(self) -> str:
        return f"<EcPublicKey {self.fingerprint}>"

    @property
    def fingerprint(self) -> str:
        """``p256:`` and the SHA-256 of :attr:`der`: ``openssl pkey -pubin -in FILE -outform DER | sha256sum``."""
        return f"{self.curve.name}:{hashlib.sha256(self.der).hexdigest()}"


class EcPrivateKey(KeyHolder):
    """A private key on P-256, P-384 or P-521: PKCS #8 or SEC 1, in PEM (text or bytes) or DER, encrypted or not.

    Attributes:
        public_key: its public half.

    Raises ConfigurationError for anything else, and without the right password.
    """

    __slots__ = ("_private_key", "public_key")

    def __init__(
        self, encoded: object, *, password: str | bytes | None = None, parameter: str = "private_key="
    ) -> None:
        private_key = _read_private_key(encoded, password, parameter)
        if not isinstance(private_key, ec.EllipticCurvePrivateKey):
            raise ConfigurationError(
                f"{parameter} takes a private key of an elliptic curve; this is {_kind(private_key)}"
            )
        self._private_key = private_key
        self.public_key = EcPublicKey._of(private_key.public_key(), parameter)

    @classmethod
    def generate(cls, curve: EcCurve) -> EcPrivateKey:
        """A new key pair, which nobody else ever sees."""
        made = cls.__new__(cls)
        made._private_key = ec.generate_private_key(curve.curve)
        made.public_key = EcPublicKey._of(made._private_key.public_key())
        return made

    def __repr__(self) -> str:
        return f"<EcPrivateKey of {self.public_key.fingerprint}>"

    def exchange(self, other: EcPublicKey) -> bytes:
        """The shared secret: the x coordinate, as long as the curve's field."""
        return self._private_key.exchange(ec.ECDH(), other._public_key)


def is_software_key(given: object) -> bool:
    """Whether it is a private key that was read already, here or by ``cryptography`` itself."""
    return isinstance(given, RsaPrivateKey | EcPrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)


def needs_password(encoded: bytes) -> bool:
    """Whether a private key is encrypted, for who asks for the password only then."""
    load = load_der_private_key if _pem_label(encoded) is None else load_pem_private_key
    try:
        load(encoded, None, unsafe_skip_rsa_key_validation=True)  # read here for its form alone
    except TypeError:
        return True
    except (ValueError, UnsupportedAlgorithm):
        pass
    return False


def _judge_rsa(public_key: rsa.RSAPublicKey, parameter: str) -> None:
    """Raise ConfigurationError for a key that should not be sealed under, nor opened with."""
    if public_key.key_size < MIN_MODULUS_LENGTH_BITS:
        raise ConfigurationError(
            f"{parameter}: an RSA recipient's key has at least {MIN_MODULUS_LENGTH_BITS} bits, this one has "
            f"{public_key.key_size}"
        )
    numbers = public_key.public_numbers()
    if numbers.e < _MIN_EXPONENT or numbers.e.bit_length() > _MAX_EXPONENT_LENGTH_BITS or numbers.e % 2 == 0:
        raise ConfigurationError(
            f"{parameter}: the public exponent of an RSA recipient's key is odd, {_MIN_EXPONENT} or larger and of "
            f"at most {_MAX_EXPONENT_LENGTH_BITS} bits; make a key with the usual exponent of 65537"
        )
    if numbers.n % 2 == 0 or math.gcd(numbers.n, _SMALL_PRIMES) != 1:
        raise ConfigurationError(f"{parameter}: the modulus of this RSA key has a small factor; make another key")


def _read_public_key(encoded: object, parameter: str) -> Any:
    if isinstance(encoded, RsaPublicKey | EcPublicKey):
        return encoded._public_key
    if isinstance(encoded, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        return encoded
    raw = _bytes_of(encoded, parameter)
    label = _pem_label(raw)
    if label is not None and "PRIVATE" in label:
        raise ConfigurationError(
            f"{parameter} takes a public key; this is a private one, which stays with whoever opens: "
            "openssl pkey -in FILE -pubout gives its public half"
        )
    if label == "CERTIFICATE":
        raise ConfigurationError(
            f"{parameter} takes a public key; this is a certificate, which nobody verified here: "
            "verify it, then openssl x509 -in FILE -noout -pubkey gives its key"
        )
    try:
        return load_der_public_key(raw) if label is None else load_pem_public_key(raw)
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise ConfigurationError(
        f"{parameter} takes a public key as SubjectPublicKeyInfo in PEM (-----BEGIN PUBLIC KEY-----) or DER; this "
        "is no such key, or its point is not on its curve" + _perhaps_a_path(encoded)
    )


def _read_private_key(encoded: object, password: str | bytes | None, parameter: str) -> Any:
    if isinstance(encoded, RsaPrivateKey | EcPrivateKey):
        return encoded._private_key
    if isinstance(encoded, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        return encoded
    raw = _bytes_of(encoded, parameter)
    label = _pem_label(raw)
    if label is not None and "PUBLIC" in label:
        raise ConfigurationError(f"{parameter} takes a private key; this is a public one")
    if password is not None and not isinstance(password, str | bytes):
        raise ConfigurationError(f"password= takes text or bytes, not {type(password).__name__}")
    secret = password.encode() if isinstance(password, str) else password
    load = load_der_private_key if label is None else load_pem_private_key
    is_about_password = False
    try:
        return load(raw, secret)
    except TypeError:  # a password without encryption, or encryption without a password
        is_about_password = True
    except (ValueError, UnsupportedAlgorithm):
        pass
    if is_about_password:
        raise ConfigurationError(
            f"{parameter} is encrypted: pass its password="
            if password is None
            else f"{parameter} is not encrypted, and takes no password"
        )
    if password is not None:
        raise ConfigurationError(f"{parameter}: the password does not open this key, or it is no private key")
    raise ConfigurationError(
        f"{parameter} takes a private key in PEM (-----BEGIN PRIVATE KEY-----) or DER; this is no such key, or it "
        "contradicts itself" + _perhaps_a_path(encoded)
    )


def _bytes_of(encoded: object, parameter: str) -> bytes:
    if isinstance(encoded, bytes | bytearray | memoryview):
        return bytes(encoded)
    if isinstance(encoded, str):
        return encoded.encode(errors="replace")
    raise ConfigurationError(
        f"{parameter} takes a key in PEM or DER, as text or bytes, not {type(encoded).__name__}; read the "
        "file first"
    )


def _pem_label(raw: bytes) -> str | None:
    """``"PUBLIC KEY"`` of a PEM text; None for whatever is none."""
    _, begin, rest = raw[:4096].partition(b"-----BEGIN ")
    label, end, _ = rest.partition(b"-----")
    return label.decode("ascii", "replace") if begin and end else None


def _perhaps_a_path(encoded: object) -> str:
    is_short_text = isinstance(encoded, str) and len(encoded) < 256 and "\n" not in encoded
    return "; pass what stands in the file, not its name" if is_short_text else ""


def _kind(found: object) -> str:
    """What a key is instead, for errors."""
    name = type(found).__name__.strip("_")
    kinds = {"RSA": "an RSA key", "EC": "a key of an elliptic curve", "Ed": "an Edwards curve's key"}
    return next((kind for start, kind in kinds.items() if name.startswith(start)), "a key of another kind")
