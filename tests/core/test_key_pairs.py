"""Recipients' key pairs: every form that people have, and what is refused before anything is sealed under it."""

from __future__ import annotations

import base64
import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.recipient_keys import CURVES, ec_pair, private_pem, public_der, public_pem, rsa_pair

from phicrypt.core.key_pairs import (
    EC_CURVES,
    RSA_PADDINGS,
    EcPrivateKey,
    EcPublicKey,
    RsaPrivateKey,
    RsaPublicKey,
)
from phicrypt.errors import AuthenticationError, ConfigurationError

PASSWORD = "correct horse battery staple"


@pytest.mark.parametrize("traditional", [False, True], ids=["pkcs8", "pkcs1"])
@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER], ids=["pem", "der"])
def test_an_rsa_private_key_is_read_in_every_form(traditional: bool, encoding: Encoding) -> None:
    encoded = private_pem(rsa_pair(), traditional=traditional, encoding=encoding)
    read = RsaPrivateKey(encoded)
    assert read.public_der == public_der(rsa_pair())
    assert read.modulus_length_bytes == 256


@pytest.mark.parametrize("traditional", [False, True], ids=["pkcs8", "sec1"])
@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER], ids=["pem", "der"])
@pytest.mark.parametrize("curve", CURVES)
def test_a_private_key_of_a_curve_is_read_in_every_form(curve: str, traditional: bool, encoding: Encoding) -> None:
    pair = ec_pair(curve)
    encoded = private_pem(pair, traditional=traditional, encoding=encoding)
    assert EcPrivateKey(encoded).public_key.der == public_der(pair)


@pytest.mark.parametrize("password", [PASSWORD, PASSWORD.encode()], ids=["text", "bytes"])
def test_an_encrypted_private_key_is_read_with_its_password(password: str | bytes) -> None:
    pair = ec_pair()
    encoded = private_pem(pair, password=PASSWORD.encode())
    assert EcPrivateKey(encoded.decode(), password=password).public_key.der == public_der(pair)


@pytest.mark.parametrize("form", [public_pem, public_der, lambda key: public_pem(key).encode()])
def test_public_keys_are_read_as_text_pem_and_der(form: Callable[[Any], Any]) -> None:
    assert RsaPublicKey(form(rsa_pair())).der == public_der(rsa_pair())
    pair = ec_pair("p384")
    assert EcPublicKey(form(pair)).der == public_der(pair)


def test_a_compressed_public_key_is_the_same_key() -> None:
    pair = ec_pair()
    point = pair.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    assert EcPublicKey.at_point(EC_CURVES[0], point).der == public_der(pair)
    assert EcPublicKey(public_der(pair)).point == point


def test_a_key_of_the_cryptography_library_itself_is_taken() -> None:
    pair = ec_pair()
    assert EcPrivateKey(pair).public_key.der == EcPublicKey(pair.public_key()).der
    assert RsaPrivateKey(rsa_pair()).public_der == RsaPublicKey(rsa_pair().public_key()).der


WRONG_PUBLIC: dict[str, tuple[Any, str]] = {
    "private": (private_pem(rsa_pair()), "private one"),
    "certificate": (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "x509"),
    "path": ("keys/clinic.pub", "not its name"),
    "empty": (b"", "no such key"),
    "number": (17, "not int"),
    "damaged": (public_pem(rsa_pair())[:200], "no such key"),
    "edwards": (public_pem(ed25519.Ed25519PrivateKey.generate()), "takes"),
    "surrogate": ("\ud800", "no such key"),
}


@pytest.mark.parametrize("case", WRONG_PUBLIC)
@pytest.mark.parametrize("reader", [RsaPublicKey, EcPublicKey])
def test_what_is_no_public_key_is_refused_in_words(reader: Any, case: str) -> None:
    encoded, words = WRONG_PUBLIC[case]
    with pytest.raises(ConfigurationError, match=words) as caught:
        reader(encoded, "recipient_public_key=")
    assert str(caught.value).startswith("recipient_public_key=")
    assert caught.value.__context__ is None


def test_an_rsa_key_is_none_of_a_curve_and_the_reverse() -> None:
    with pytest.raises(ConfigurationError, match="elliptic curve; this is an RSA key"):
        EcPublicKey(public_pem(rsa_pair()))
    with pytest.raises(ConfigurationError, match="RSA public key; this is a key of an elliptic curve"):
        RsaPublicKey(public_pem(ec_pair()))
    with pytest.raises(ConfigurationError, match="elliptic curve; this is an RSA key"):
        EcPrivateKey(private_pem(rsa_pair()))
    with pytest.raises(ConfigurationError, match="RSA private key; this is a key of an elliptic curve"):
        RsaPrivateKey(private_pem(ec_pair()))


def test_passwords_that_do_not_fit_are_refused_in_words() -> None:
    encoded, plain = private_pem(ec_pair(), password=PASSWORD.encode()), private_pem(ec_pair())
    for arguments, words in (
        ({"encoded": encoded}, "is encrypted: pass its password="),
        ({"encoded": encoded, "password": "another"}, "does not open"),
        ({"encoded": plain, "password": "another"}, "is not encrypted"),
        ({"encoded": plain, "password": 17}, "text or bytes"),
        ({"encoded": public_pem(ec_pair())}, "a public one"),
        ({"encoded": "clinic.pem"}, "not its name"),
        ({"encoded": plain[:60]}, "no such key"),
    ):
        with pytest.raises(ConfigurationError, match=words) as caught:
            EcPrivateKey(**arguments)
        assert caught.value.__context__ is None
        assert "another" not in str(caught.value)


def test_short_rsa_keys_are_refused() -> None:
    weak = rsa.generate_private_key(65537, 1024)
    for attempt in (lambda: RsaPublicKey(public_pem(weak)), lambda: RsaPrivateKey(private_pem(weak))):
        with pytest.raises(ConfigurationError, match="at least 2048 bits"):
            attempt()


def _with_numbers(exponent: int, modulus: int) -> bytes:
    return public_der(rsa.RSAPublicNumbers(exponent, modulus).public_key())


@pytest.mark.parametrize("exponent", [3, 5, 17, 257, 65535, 2**256 + 1], ids=str)
def test_rsa_exponents_outside_of_fips_186_5_are_refused(exponent: int) -> None:
    modulus = rsa_pair().public_key().public_numbers().n
    with pytest.raises(ConfigurationError, match="exponent"):
        RsaPublicKey(_with_numbers(exponent, modulus))


@pytest.mark.parametrize("factor", [3, 5, 17, 751])
def test_a_modulus_with_a_small_factor_is_refused(factor: int) -> None:
    modulus = rsa_pair().public_key().public_numbers().n
    with pytest.raises(ConfigurationError, match="small factor"):
        RsaPublicKey(_with_numbers(65537, modulus * factor))


def test_the_small_primes_are_the_odd_ones_below_752() -> None:
    from phicrypt.core.key_pairs import _SMALL_PRIMES

    for number in range(3, 752):
        is_prime = all(number % divisor for divisor in range(2, number))
        assert (math.gcd(number, _SMALL_PRIMES) == number) == (is_prime or _is_squarefree_and_odd(number))


def _is_squarefree_and_odd(number: int) -> bool:
    return number % 2 == 1 and all(number % (divisor * divisor) for divisor in range(2, number))


@pytest.mark.parametrize("curve", [ec.SECP256K1(), ec.SECP224R1(), ec.BrainpoolP256R1()], ids=lambda one: one.name)
def test_other_curves_are_refused(curve: ec.EllipticCurve) -> None:
    pair = ec.generate_private_key(curve)
    with pytest.raises(ConfigurationError, match="P-256, P-384 or P-521; this one is on"):
        EcPublicKey(public_pem(pair))
    with pytest.raises(ConfigurationError, match="P-256, P-384 or P-521; this one is on"):
        EcPrivateKey(private_pem(pair))


def test_other_kinds_of_keys_are_refused() -> None:
    other = dsa.generate_private_key(1024)
    for attempt in (
        lambda: RsaPrivateKey(private_pem(other)),
        lambda: EcPublicKey(public_pem(other)),
        lambda: EcPrivateKey(private_pem(ed25519.Ed25519PrivateKey.generate())),
    ):
        with pytest.raises(ConfigurationError):
            attempt()


@pytest.mark.parametrize("curve", EC_CURVES, ids=lambda one: one.name)
def test_points_off_the_curve_and_at_infinity_are_refused(curve: Any) -> None:
    encoded = bytearray(public_der(ec_pair(curve.name)))
    encoded[-1] ^= 1
    with pytest.raises(ConfigurationError, match="not on its curve"):
        EcPublicKey(bytes(encoded))
    infinity = _spki_with_point(public_der(ec_pair(curve.name)), b"\x00")
    with pytest.raises(ConfigurationError):
        EcPublicKey(infinity)
    refused = 0
    for x in range(64):
        point = b"\x02" + x.to_bytes(curve.secret_length_bytes, "big")
        try:
            EcPublicKey.at_point(curve, point)
        except AuthenticationError:
            refused += 1
    assert 10 < refused < 54  # about half of all x have no point


@pytest.mark.parametrize(
    "point",
    [
        b"",
        b"\x00",
        b"\x00" * 33,
        b"\x04" + bytes(32),
        b"\x02" + b"\xff" * 32,
        b"\x02" + bytes(33),
        b"\x05" + bytes(32),
    ],
)
def test_malformed_points_are_an_authentication_error(point: bytes) -> None:
    with pytest.raises(AuthenticationError) as caught:
        EcPublicKey.at_point(EC_CURVES[0], point)
    assert caught.value.__context__ is None


def test_an_uncompressed_point_is_none_of_a_message() -> None:
    point = ec_pair().public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    with pytest.raises(AuthenticationError):
        EcPublicKey.at_point(EC_CURVES[0], point)


def _spki_with_point(encoded: bytes, point: bytes) -> bytes:
    """SubjectPublicKeyInfo with another point in its bit string; lengths below 128 only."""
    start = encoded.index(b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01")
    algorithm = encoded[start - 2 : start + encoded[start - 1]]
    bit_string = b"\x03" + bytes([len(point) + 1]) + b"\x00" + point
    body = algorithm + bit_string
    return b"\x30" + bytes([len(body)]) + body


def test_both_sides_share_the_secret_that_openssl_computes() -> None:
    for curve in EC_CURVES:
        ours, theirs = ec_pair(curve.name), ec_pair(curve.name)
        secret = EcPrivateKey(ours).exchange(EcPublicKey(theirs.public_key()))
        assert secret == theirs.exchange(ec.ECDH(), ours.public_key())
        assert len(secret) == curve.secret_length_bytes


def test_a_padding_is_its_name_and_the_librarys_object_at_once() -> None:
    assert list(RSA_PADDINGS) == ["oaep-sha1", "oaep-sha256", "oaep-sha384", "oaep-sha512", "pkcs1"]
    digests = {"oaep-sha1": hashes.SHA1(), "oaep-sha256": hashes.SHA256(), "oaep-sha512": hashes.SHA512()}
    for name, digest in digests.items():
        sealed = RsaPublicKey(public_pem(rsa_pair())).encrypt(b"data key", RSA_PADDINGS[name])
        assert rsa_pair().decrypt(sealed, padding.OAEP(padding.MGF1(digest), digest, None)) == b"data key"
        assert {RSA_PADDINGS[name]: 1}[name] == 1
    sealed = RsaPublicKey(public_pem(rsa_pair())).encrypt(b"data key", RSA_PADDINGS["pkcs1"])
    assert rsa_pair().decrypt(sealed, padding.PKCS1v15()) == b"data key"


def test_no_private_key_is_copied_pickled_or_shown() -> None:
    encoded = private_pem(rsa_pair())
    secret = format(rsa_pair().private_numbers().d, "x")[:32]
    for key in (RsaPrivateKey(encoded), EcPrivateKey(private_pem(ec_pair()))):
        for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                attempt(key)
        assert secret not in repr(key)
        assert base64.b64encode(encoded).decode() not in repr(key)
