"""RawEcdhKeyring: AWS's raw ECDH keyring format, and who can seal and open in each of its three ways."""

from __future__ import annotations

import copy
import hashlib
import hmac
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.keyring_support import CONTEXT, changed, opens, to_decrypt, to_encrypt
from support.recipient_keys import CURVES, ec_pair, private_pem, public_der, public_pem, rsa_pair

from phicrypt import MultiKeyring, PhiCrypt, RawEcdhKeyring
from phicrypt.core.materials import EncryptedDataKey
from phicrypt.core.suites import DBE_SUITES, ESDK_SUITES, AlgorithmSuite
from phicrypt.errors import AuthenticationError, ConfigurationError, KeyAccessError

SUITES = [*ESDK_SUITES.values(), *DBE_SUITES.values()]
OURS, THEIRS, STRANGER = ec_pair(), ec_pair(), ec_pair()


def static(own: Any = OURS, other: Any = THEIRS) -> RawEcdhKeyring:
    return RawEcdhKeyring.static(private_key=private_pem(own), recipient_public_key=public_pem(other))


def ephemeral(other: Any = THEIRS) -> RawEcdhKeyring:
    return RawEcdhKeyring.ephemeral(recipient_public_key=public_pem(other))


def discovery(own: Any = THEIRS) -> RawEcdhKeyring:
    return RawEcdhKeyring.discovery(private_key=private_pem(own))


def point_of(pair: Any) -> bytes:
    return bytes(pair.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint))


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: f"{suite.suite_id:04x}")
def test_every_way_opens_under_every_curve_and_suite(curve: str, suite: AlgorithmSuite) -> None:
    ours, theirs = ec_pair(curve), ec_pair(curve)
    sealed = static(ours, theirs).on_encrypt(to_encrypt(suite=suite))
    for opener in (static(ours, theirs), static(theirs, ours), discovery(theirs)):
        opens(opener, sealed)
    opens(discovery(theirs), ephemeral(theirs).on_encrypt(to_encrypt(suite=suite)))


def test_layout_of_the_encrypted_data_key() -> None:
    materials = to_encrypt()
    sealed = static().on_encrypt(materials)
    (wrapped,) = sealed.encrypted_data_keys
    sender, recipient = point_of(OURS), point_of(THEIRS)
    assert wrapped.provider_id == "raw-ecdh"
    assert wrapped.provider_info == b"\x01\x00\x00\x00\x21" + recipient + b"\x00\x00\x00\x21" + sender
    salt, commitment, sealed_key = wrapped.ciphertext[:32], wrapped.ciphertext[32:64], wrapped.ciphertext[64:]
    fixed = (
        b"ecdh-key-derivation\0p256\0HMAC_SHA384\0" + sender + recipient + b"\0\x01\0" + materials.context_bytes
    )
    secret = OURS.exchange(ec.ECDH(), THEIRS.public_key())
    derived = b"".join(
        hmac.digest(secret, number.to_bytes(4, "big") + fixed + b"\0" + salt + (512).to_bytes(4, "big"), "sha384")
        for number in (1, 2)
    )
    assert commitment == derived[:32]
    assert AESGCM(derived[32:64]).decrypt(bytes(12), sealed_key, fixed) == sealed.data_key.key_bytes


def test_salt_data_key_and_ephemeral_key_are_new_each_time() -> None:
    ring = ephemeral()
    sealed = [ring.on_encrypt(to_encrypt()) for _ in range(20)]
    wrapped = [one.encrypted_data_keys[0] for one in sealed]
    assert len({one.provider_info for one in wrapped}) == 20
    assert len({one.ciphertext[:32] for one in wrapped}) == 20
    assert len({one.data_key.key_bytes for one in sealed}) == 20
    both = [static().on_encrypt(to_encrypt()).encrypted_data_keys[0] for _ in range(20)]
    assert len({one.ciphertext[:32] for one in both}) == 20  # under an IV of zeros, the salt is what must be new


def test_a_static_keyring_opens_in_both_directions_and_nobody_elses() -> None:
    phi_ours, phi_theirs = PhiCrypt(static()), PhiCrypt(static(THEIRS, OURS))
    for writer, reader in ((phi_ours, phi_theirs), (phi_theirs, phi_ours), (phi_ours, phi_ours)):
        assert reader.decrypt(writer.encrypt(b"note", context=CONTEXT), context=CONTEXT) == b"note"
    for writer in (static(STRANGER, THEIRS), static(STRANGER, OURS), ephemeral(OURS), ephemeral(THEIRS)):
        sealed = writer.on_encrypt(to_encrypt())
        with pytest.raises(KeyAccessError, match="sealed between these keys") as caught:
            static().on_decrypt(to_decrypt(), sealed.encrypted_data_keys)
        assert caught.value.code == "NoMatchingDataKey"


def test_discovery_opens_whatever_was_sealed_to_its_key_and_nothing_else() -> None:
    for writer in (static(), static(STRANGER, THEIRS), ephemeral()):
        opens(discovery(), writer.on_encrypt(to_encrypt()))
    for writer in (static(THEIRS, OURS), ephemeral(OURS)):  # sealed by the key is not sealed to it
        with pytest.raises(KeyAccessError):
            discovery().on_decrypt(to_decrypt(), writer.on_encrypt(to_encrypt()).encrypted_data_keys)


def test_each_way_does_only_what_it_is_for() -> None:
    with pytest.raises(ConfigurationError, match="only opens"):
        discovery().on_encrypt(to_encrypt())
    sealed = ephemeral().on_encrypt(to_encrypt())
    with pytest.raises(KeyAccessError, match="writes only"):
        ephemeral().on_decrypt(to_decrypt(), sealed.encrypted_data_keys)
    with pytest.raises(ConfigurationError, match=r"\.static"):
        RawEcdhKeyring()


def test_a_recipient_in_another_organization_beside_ones_own_key() -> None:
    own = ec_pair("p384")
    phi = PhiCrypt(MultiKeyring(static(own, own), ephemeral()))
    message = phi.encrypt(b"note", context=CONTEXT)
    assert phi.decrypt(message, context=CONTEXT) == b"note"
    assert PhiCrypt(discovery()).decrypt(message, context=CONTEXT) == b"note"


@pytest.mark.parametrize("suite", [ESDK_SUITES[0x0478], DBE_SUITES[0x6700]], ids=["esdk", "dbe"])
def test_no_changed_bit_opens(suite: AlgorithmSuite) -> None:
    ring = static()
    (wrapped,) = ring.on_encrypt(to_encrypt(suite=suite)).encrypted_data_keys
    for field in ("provider_info", "ciphertext"):
        original = getattr(wrapped, field)
        for bit in range(0, len(original) * 8, 3):
            other = bytearray(original)
            other[bit // 8] ^= 1 << bit % 8
            with pytest.raises((KeyAccessError, AuthenticationError)):
                ring.on_decrypt(to_decrypt(suite=suite), [changed(wrapped, **{field: bytes(other)})])


@pytest.mark.parametrize("suite", [ESDK_SUITES[0x0478], DBE_SUITES[0x6700]], ids=["esdk", "dbe"])
@pytest.mark.parametrize("field", ["provider_info", "ciphertext"])
def test_no_truncated_or_extended_data_key_opens(suite: AlgorithmSuite, field: str) -> None:
    (wrapped,) = static().on_encrypt(to_encrypt(suite=suite)).encrypted_data_keys
    original = getattr(wrapped, field)
    for other in (*(original[:length] for length in range(len(original))), original + b"\x00"):
        for ring in (static(), discovery()):
            with pytest.raises((KeyAccessError, AuthenticationError)):
                ring.on_decrypt(to_decrypt(suite=suite), [changed(wrapped, **{field: other})])


@pytest.mark.parametrize("context", [{}, {"tenant": "clinic-7"}, {**CONTEXT, "tenant": "clinic-8"}])
def test_another_context_does_not_open(context: dict[str, str]) -> None:
    sealed = static().on_encrypt(to_encrypt())
    with pytest.raises(AuthenticationError) as caught:
        static().on_decrypt(to_decrypt(context), sealed.encrypted_data_keys)
    assert "clinic-7" not in str(caught.value)


def test_parties_that_were_swapped_do_not_open() -> None:
    (wrapped,) = static().on_encrypt(to_encrypt()).encrypted_data_keys
    swapped = b"\x01\x00\x00\x00\x21" + point_of(OURS) + b"\x00\x00\x00\x21" + point_of(THEIRS)
    for ring in (static(), static(THEIRS, OURS)):
        with pytest.raises(AuthenticationError):
            ring.on_decrypt(to_decrypt(), [changed(wrapped, provider_info=swapped)])


def test_a_sender_off_the_curve_ends_nothing_but_its_own_data_key() -> None:
    (wrapped,) = ephemeral().on_encrypt(to_encrypt()).encrypted_data_keys
    head = b"\x01\x00\x00\x00\x21" + point_of(THEIRS) + b"\x00\x00\x00\x21"
    no_points = [b"\x02" + b"\xff" * 32, b"\x00" * 33, b"\x04" + bytes(32), b"\x05" + point_of(OURS)[1:]]
    forged = [changed(wrapped, provider_info=head + point) for point in no_points]
    for one in forged:
        with pytest.raises(AuthenticationError):
            discovery().on_decrypt(to_decrypt(), [one])
    assert discovery().on_decrypt(to_decrypt(), [*forged, wrapped]).recipient_index == len(forged)


def test_encrypted_data_keys_of_others_are_passed_over_whatever_they_hold() -> None:
    sealed = static().on_encrypt(to_encrypt())
    (ours,) = sealed.encrypted_data_keys
    others = [
        EncryptedDataKey("raw-ecdh", b"", b""),
        EncryptedDataKey("raw-ecdh", b"\x01", b"x"),
        EncryptedDataKey("aws-kms-ecdh", b"\x01" + b"\xff" * 74, bytes(112)),
        EncryptedDataKey("aws-kms", b"\xff\xfe", bytes(10)),
        changed(ours, provider_info=b"\x02" + ours.provider_info[1:]),
        changed(ours, ciphertext=b""),
        changed(ours, provider_id="raw-ecdh "),
        ephemeral(STRANGER).on_encrypt(to_encrypt()).encrypted_data_keys[0],
        ephemeral(ec_pair("p521")).on_encrypt(to_encrypt()).encrypted_data_keys[0],
    ]
    opened = static().on_decrypt(to_decrypt(), [*others, ours])
    assert opened.recipient_index == len(others)
    assert opened.data_key.key_bytes == sealed.data_key.key_bytes


def test_what_a_kms_keyring_sealed_opens_under_its_provider_id() -> None:
    (wrapped,) = static().on_encrypt(to_encrypt()).encrypted_data_keys
    for ring in (static(THEIRS, OURS), discovery()):
        assert ring.on_decrypt(to_decrypt(), [changed(wrapped, provider_id="aws-kms-ecdh")]).data_key


def test_a_data_key_of_another_suites_length_does_not_open() -> None:
    sealed = static().on_encrypt(to_encrypt(suite=ESDK_SUITES[0x0114]))
    with pytest.raises(AuthenticationError):
        static().on_decrypt(to_decrypt(suite=ESDK_SUITES[0x0478]), sealed.encrypted_data_keys)


def test_rule_35_required_pairs_are_bound_to_the_data_key_itself() -> None:
    phi = PhiCrypt(static(), required_context=("patient",))
    message = phi.encrypt(b"note", context={**CONTEXT, "patient": "p-1"})
    assert phi.decrypt(message, context={**CONTEXT, "patient": "p-1"}) == b"note"
    with pytest.raises(AuthenticationError) as caught:
        phi.decrypt(message, context={**CONTEXT, "patient": "p-2"})
    assert caught.value.reason == "encrypted data key"


def test_unsuitable_keys_are_refused_in_words() -> None:
    for attempt, words in (
        (lambda: static(OURS, ec_pair("p384")), "on p256 and recipient_public_key= on p384"),
        (lambda: static(OURS, rsa_pair()), "recipient_public_key= takes a public key of an elliptic curve"),
        (lambda: discovery(rsa_pair()), "private_key= takes a private key of an elliptic curve"),
        (lambda: ephemeral(ec.generate_private_key(ec.SECP256K1())), "P-256, P-384 or P-521"),
        (lambda: RawEcdhKeyring.ephemeral(recipient_public_key=private_pem(THEIRS)), "a private one"),
        (lambda: RawEcdhKeyring.discovery(private_key=public_pem(THEIRS)), "a public one"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            attempt()


def test_an_encrypted_private_key_opens_with_its_password() -> None:
    sealed = ephemeral().on_encrypt(to_encrypt())
    encoded = private_pem(THEIRS, password=b"correct horse")
    opens(RawEcdhKeyring.discovery(private_key=encoded, password="correct horse"), sealed)
    both = RawEcdhKeyring.static(
        private_key=encoded, password=b"correct horse", recipient_public_key=public_der(OURS)
    )
    opens(both, static().on_encrypt(to_encrypt()))


def test_the_origin_names_the_recipients_key_by_the_digest_that_openssl_gives() -> None:
    expected = f"p256:{hashlib.sha256(public_der(THEIRS)).hexdigest()}"
    sealed = static().on_encrypt(to_encrypt())
    assert (sealed.origin.provider_id, sealed.origin.key_id) == ("raw-ecdh", expected)
    for opener in (static(), static(THEIRS, OURS), discovery()):
        assert opens(opener, sealed).origin.key_id == expected
    assert expected in repr(discovery()) and expected in repr(ephemeral())


def test_rule_11_identity_tells_ways_and_keys_apart() -> None:
    different = [
        static(),
        static(THEIRS, OURS),
        static(STRANGER, THEIRS),
        ephemeral(),
        ephemeral(OURS),
        discovery(),
        discovery(OURS),
    ]
    assert len({one.identity for one in different}) == len(different)
    assert static().identity == static().identity
    secret = format(OURS.private_numbers().private_value, "x")
    assert secret not in repr(static()) and OURS.private_numbers().private_value.to_bytes(32, "big") not in str(
        static().identity
    ).encode("latin-1", "replace")


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_cannot_be_copied_or_pickled(duplicate: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="cannot be copied"):
        duplicate(static())
