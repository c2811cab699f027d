"""RawRsaKeyring: AWS's raw RSA keyring format, offline recovery, and what an attacker learns from failures."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding as paddings
from support.keyring_support import changed, opens, to_decrypt, to_encrypt
from support.recipient_keys import ec_pair, private_pem, public_der, public_pem, rsa_pair

from phicrypt import ANY_CONTEXT, MultiKeyring, PhiCrypt, RawAesKeyring, RawRsaKeyring
from phicrypt.core.suites import DBE_SUITES, ESDK_SUITES, AlgorithmSuite
from phicrypt.errors import AuthenticationError, ConfigurationError, KeyAccessError

PADDINGS = ["oaep-sha1", "oaep-sha256", "oaep-sha384", "oaep-sha512", "pkcs1"]
SUITES = [*ESDK_SUITES.values(), *DBE_SUITES.values()]
CONTEXT = {"tenant": "clinic-7"}


def keyring(number: int = 0, *, halves: str = "both", **settings: Any) -> RawRsaKeyring:
    """A keyring of the RSA pair of that number, with its public half, its private half, or both."""
    pair = rsa_pair(number)
    given = {"namespace": "clinic", "name": "recovery-1", **settings}
    if halves != "private":
        given.setdefault("public_key", public_pem(pair))
    if halves != "public":
        given.setdefault("private_key", pair)  # read from PEM it is checked, which takes a while
    return RawRsaKeyring(**given)


class Device:
    """A private key that stays where it is, as in an HSM."""

    def __repr__(self) -> str:  # names cases: an address in it would name them otherwise in each process
        return "<a device>"

    def __init__(self, number: int = 0, failure: Exception | None = None, answer: Any = None) -> None:
        self.pair = rsa_pair(number)
        self.failure = failure
        self.answer = answer
        self.asked: list[str] = []

    def decrypt(self, ciphertext: bytes, padding: Any) -> Any:
        self.asked.append(padding)
        if self.failure is not None:
            raise self.failure
        return self.answer if self.answer is not None else self.pair.decrypt(ciphertext, padding)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: f"{suite.suite_id:04x}")
def test_opens_what_it_sealed_under_every_padding_and_suite(padding: str, suite: AlgorithmSuite) -> None:
    ring = keyring(padding=padding)
    sealed = ring.on_encrypt(to_encrypt(suite=suite))
    assert opens(ring, sealed).origin.key_id == "recovery-1"


@pytest.mark.parametrize("padding", PADDINGS)
def test_layout_of_the_encrypted_data_key(padding: str) -> None:
    sealed = keyring(padding=padding).on_encrypt(to_encrypt())
    (wrapped,) = sealed.encrypted_data_keys
    assert (wrapped.provider_id, wrapped.provider_info) == ("clinic", b"recovery-1")
    digests = {"sha1": hashes.SHA1, "sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}
    digest = digests.get(padding.removeprefix("oaep-"))
    used = paddings.OAEP(paddings.MGF1(digest()), digest(), None) if digest else paddings.PKCS1v15()
    assert rsa_pair().decrypt(wrapped.ciphertext, used) == sealed.data_key.key_bytes


def test_a_writer_has_the_public_key_alone_and_the_reader_the_private_one() -> None:
    writer, reader = keyring(halves="public"), keyring(halves="private")
    sealed = writer.on_encrypt(to_encrypt())
    opens(reader, sealed)
    with pytest.raises(KeyAccessError, match="public key only, and writes") as caught:
        writer.on_decrypt(to_decrypt(), sealed.encrypted_data_keys)
    assert caught.value.code == "NoMatchingDataKey"
    with pytest.raises(ConfigurationError, match="has no public key"):
        reader.on_encrypt(to_encrypt())
    assert (writer.opens, reader.opens) == (False, True)


def test_keys_are_taken_in_every_form() -> None:
    pair = rsa_pair()
    sealed = keyring(public_key=public_der(pair)).on_encrypt(to_encrypt())
    secret = b"correct horse"
    for private_key, password in (
        (private_pem(pair).decode(), None),
        (private_pem(pair, traditional=True), None),
        (private_pem(pair, password=secret), secret),
        (private_pem(pair, password=secret), secret.decode()),
        (pair, None),
    ):
        opens(keyring(halves="private", private_key=private_key, password=password), sealed)


def test_rule_16_messages_with_a_recovery_recipient_open_with_either_key() -> None:
    daily = RawAesKeyring("clinic", "daily", bytes(range(32)))
    phi = PhiCrypt(MultiKeyring(daily, keyring(halves="public")))
    message = phi.encrypt(b"note", context=CONTEXT)
    for reader in (daily, keyring(halves="private"), MultiKeyring(keyring(halves="private"), daily)):
        assert PhiCrypt(reader).decrypt(message, context=CONTEXT) == b"note"
    with pytest.raises(KeyAccessError):
        PhiCrypt(keyring(halves="public")).decrypt(message, context=CONTEXT)


@pytest.mark.parametrize("padding", PADDINGS)
def test_a_device_opens_with_the_padding_that_was_named(padding: str) -> None:
    device = Device()
    ring = RawRsaKeyring("clinic", "recovery-1", private_key=device, padding=padding)
    opens(ring, keyring(halves="public", padding=padding).on_encrypt(to_encrypt()))
    assert device.asked == [padding]
    assert ring.opens


def test_a_device_may_answer_with_any_bytes_like_object() -> None:
    sealed = keyring().on_encrypt(to_encrypt())
    for answer in (bytearray(sealed.data_key.key_bytes), memoryview(sealed.data_key.key_bytes)):
        opens(keyring(halves="private", private_key=Device(answer=answer)), sealed)
    for answer in ("text" * 8, 32, [1] * 32):
        with pytest.raises(AuthenticationError):
            opens(keyring(halves="private", private_key=Device(answer=answer)), sealed)


def test_what_a_device_says_stays_with_the_device() -> None:
    device = Device(failure=RuntimeError("PIN 12345 wrong"))
    with pytest.raises(KeyAccessError) as caught:
        opens(keyring(halves="private", private_key=device), keyring().on_encrypt(to_encrypt()))
    assert caught.value.code == "RuntimeError"
    assert "12345" not in str(caught.value)
    assert caught.value.__context__ is None and caught.value.__cause__ is None


def test_a_device_is_not_asked_about_the_messages_of_others() -> None:
    device = Device()
    ring = RawRsaKeyring("clinic", "recovery-1", private_key=device)
    sealed = keyring(name="recovery-2").on_encrypt(to_encrypt())
    with pytest.raises(KeyAccessError, match="none of the message's 1"):
        ring.on_decrypt(to_decrypt(), sealed.encrypted_data_keys)
    assert device.asked == []


def test_a_device_is_not_asked_about_what_is_no_ciphertext_of_its_length() -> None:
    device = Device()
    ring = keyring(private_key=device)
    (ours,) = ring.on_encrypt(to_encrypt()).encrypted_data_keys
    for ciphertext in (b"", ours.ciphertext[1:], ours.ciphertext + b"\x00"):
        with pytest.raises(AuthenticationError) as caught:
            ring.on_decrypt(to_decrypt(), [changed(ours, ciphertext=ciphertext)])
        assert caught.value.reason == "encrypted data key length"
    assert device.asked == []


@pytest.mark.parametrize("padding", PADDINGS)
def test_another_padding_than_the_one_named_does_not_open(padding: str) -> None:
    message = PhiCrypt(keyring(padding=padding)).encrypt(b"note", context=CONTEXT)
    for other in PADDINGS:
        reader = PhiCrypt(keyring(padding=other))
        if other == padding:
            assert reader.decrypt(message, context=CONTEXT) == b"note"
            continue
        with pytest.raises(AuthenticationError):
            reader.decrypt(message, context=CONTEXT)


def test_another_keyring_does_not_open() -> None:
    sealed = keyring().on_encrypt(to_encrypt())
    for other in (keyring(name="recovery-2"), keyring(namespace="clinic-2"), keyring(name="recovery-")):
        with pytest.raises(KeyAccessError):
            other.on_decrypt(to_decrypt(), sealed.encrypted_data_keys)
    with pytest.raises(AuthenticationError):
        keyring(1).on_decrypt(to_decrypt(), sealed.encrypted_data_keys)


def test_encrypted_data_keys_of_others_are_passed_over_whatever_they_hold() -> None:
    ring = keyring()
    sealed = ring.on_encrypt(to_encrypt())
    (ours,) = sealed.encrypted_data_keys
    (theirs,) = keyring(1).on_encrypt(to_encrypt()).encrypted_data_keys
    others = [
        changed(ours, provider_info=b""),
        changed(ours, provider_id="aws-kms", provider_info=b"\xff"),
        changed(ours, ciphertext=b""),
        changed(ours, ciphertext=ours.ciphertext + b"\x00"),
        changed(ours, ciphertext=b"\xff" * 256),
        theirs,  # another key of the same name
    ]
    opened = ring.on_decrypt(to_decrypt(), [*others, ours])
    assert opened.data_key.key_bytes == sealed.data_key.key_bytes
    assert opened.recipient_index == len(others)


def hostile_ciphertexts(padding: str) -> list[bytes]:
    """Ciphertexts whose plaintexts fail at every place where an unpadding could."""
    public_key = rsa_pair().public_key()
    numbers = public_key.public_numbers()

    def raw(block: bytes) -> bytes:
        return pow(int.from_bytes(block, "big"), numbers.e, numbers.n).to_bytes(256, "big")

    filler = bytes(1 + number % 255 for number in range(256))
    pkcs1 = paddings.PKCS1v15()
    sha256 = hashes.SHA256()
    return [
        raw(b"\x00\x02" + filler[:221] + b"\x00" + bytes(32)),  # right, with another data key
        raw(b"\x00\x02" + filler[:222] + b"\x00" + bytes(31)),  # right, too short
        raw(b"\x00\x02" + filler[:254]),  # no separator
        raw(b"\x00\x01" + filler[:221] + b"\x00" + bytes(32)),  # another block type
        raw(b"\x01\x02" + filler[:221] + b"\x00" + bytes(32)),  # a first byte that is not zero
        raw(b"\x00\x02" + filler[:4] + b"\x00" + filler[:249]),  # padding that is too short
        raw(bytes(255) + b"\x01"),
        public_key.encrypt(bytes(32), pkcs1),
        public_key.encrypt(b"", pkcs1),
        public_key.encrypt(bytes(16), paddings.OAEP(paddings.MGF1(sha256), sha256, None)),
        (numbers.n - 1).to_bytes(256, "big"),
        numbers.n.to_bytes(256, "big"),
        b"\xff" * 256,
        bytes(256),
    ]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("opener", ["key", "device", "failing device"])
def test_no_failure_tells_why(padding: str, opener: str) -> None:
    """One error, whatever was wrong with the padding: Bleichenbacher's and Manger's attacks need two."""
    ring = keyring(padding=padding)
    message = PhiCrypt(ring).encrypt(b"note", context=CONTEXT)
    (wrapped,) = ring.on_encrypt(to_encrypt()).encrypted_data_keys
    if opener != "key":
        failure = ValueError("padding") if opener == "failing device" else None
        ring = RawRsaKeyring("clinic", "recovery-1", private_key=Device(failure=failure), padding=padding)
    phi = PhiCrypt(ring, cache=None)
    start = message.index(b"recovery-1") + len("recovery-1") + 2
    seen = set()
    for ciphertext in hostile_ciphertexts(padding):
        assert len(ciphertext) == len(wrapped.ciphertext)
        forged = message[:start] + ciphertext + message[start + 256 :]
        with pytest.raises((AuthenticationError, KeyAccessError)) as caught:
            phi.decrypt(forged, context=CONTEXT)
        assert caught.value.__context__ is None and caught.value.__cause__ is None
        seen.add((type(caught.value), str(caught.value)))
    if padding == "pkcs1" or opener == "key" or opener == "failing device":
        assert len(seen) == 1
    if padding == "pkcs1":
        assert seen == {(AuthenticationError, str(AuthenticationError("commitment")))}


def test_under_pkcs1_no_second_data_key_tells_whether_the_first_was_well_padded() -> None:
    """A message with a probe and a good data key would open exactly where the probe was badly padded."""
    ring = keyring(padding="pkcs1")
    (good,) = ring.on_encrypt(to_encrypt()).encrypted_data_keys
    for probe in hostile_ciphertexts("pkcs1"):
        opened = ring.on_decrypt(to_decrypt(), [changed(good, ciphertext=probe), good])
        assert opened.recipient_index == 0


def test_a_stand_in_is_new_each_time_and_kept_in_no_cache() -> None:
    ring = keyring(padding="pkcs1")
    (good,) = ring.on_encrypt(to_encrypt()).encrypted_data_keys
    probe = [changed(good, ciphertext=os.urandom(1).rjust(256, b"\x01"))]
    stand_ins = {ring.on_decrypt(to_decrypt(), probe).data_key.key_bytes for _ in range(3)}
    assert len(stand_ins) == 3
    assert not ring.caches_data_keys
    assert keyring(padding="pkcs1", halves="public").caches_data_keys
    assert keyring().caches_data_keys


def test_a_device_that_failed_under_pkcs1_opens_when_it_is_back() -> None:
    device = Device(failure=OSError("session lost"))
    phi = PhiCrypt(RawRsaKeyring("clinic", "recovery-1", private_key=device, padding="pkcs1"))
    message = PhiCrypt(keyring(halves="public", padding="pkcs1")).encrypt(b"note", context=CONTEXT)
    with pytest.raises(AuthenticationError):
        phi.decrypt(message, context=CONTEXT)
    device.failure = None
    assert phi.decrypt(message, context=CONTEXT) == b"note"


def test_a_changed_message_context_or_data_key_does_not_open() -> None:
    """RSA binds no context: the header does, by the commitment and its tag."""
    phi = PhiCrypt(keyring(), cache=None)
    message = phi.encrypt(b"note", context=CONTEXT)
    place = message.index(b"clinic-7")
    for at in (place, message.index(b"recovery-1") + 20, len(message) - 1):
        forged = bytearray(message)
        forged[at] ^= 1
        with pytest.raises(AuthenticationError):
            phi.decrypt(bytes(forged), context=ANY_CONTEXT)


@pytest.mark.parametrize("padding", ["oaep-sha256", "pkcs1"])
def test_rule_35_required_pairs_are_bound_by_the_header_though_no_data_key_holds_them(padding: str) -> None:
    phi = PhiCrypt(keyring(padding=padding), required_context=("patient",))
    assert phi.provider.keyring.binds_context_locally  # type: ignore[attr-defined]
    message = phi.encrypt(b"note", context={**CONTEXT, "patient": "p-1"})
    assert phi.decrypt(message, context={**CONTEXT, "patient": "p-1"}) == b"note"
    with pytest.raises(AuthenticationError):
        phi.decrypt(message, context={**CONTEXT, "patient": "p-2"})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"padding": "oaep-md5"}, "padding= is one of oaep-sha1"),
        ({"padding": None}, "padding= is one of"),
        ({"padding": ["pkcs1"]}, "padding= is one of"),
        ({"namespace": "aws-kms"}, "aws-kms"),
        ({"namespace": ""}, "non-empty"),
        ({"namespace": 7}, "non-empty"),
        ({"name": ""}, "non-empty"),
        ({"name": "\ud800"}, "valid text"),
        ({"name": "x" * 65_536}, "65,535 bytes"),
        ({"public_key": None, "private_key": None}, "needs public_key= to write"),
        ({"private_key": 17}, "an object with decrypt"),
        ({"private_key": None, "password": "x"}, "goes with an encrypted private_key="),
        ({"private_key": Device(), "password": "x"}, "not with an object"),
        ({"private_key": "recovery.pem"}, "not its name"),
    ],
    ids=str,
)
def test_unsuitable_settings_are_refused_in_words(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        keyring(**settings)


def test_halves_of_two_pairs_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="not the two halves of one key"):
        keyring(public_key=public_pem(rsa_pair(1)))


def test_keys_of_curves_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="public_key= takes an RSA public key"):
        keyring(public_key=public_pem(ec_pair()))
    with pytest.raises(ConfigurationError, match="private_key= takes an RSA private key"):
        keyring(private_key=private_pem(ec_pair()))


def test_rule_11_identity_tells_keys_paddings_and_devices_apart_without_showing_them() -> None:
    device = Device()
    different = [
        keyring(),
        keyring(1),
        keyring(halves="public"),
        keyring(halves="private"),
        keyring(padding="oaep-sha1"),
        keyring(name="recovery-2"),
        keyring(namespace="archive"),
        keyring(private_key=device),
        keyring(private_key=device),  # what opens in a device is known to the device alone
    ]
    assert len({one.identity for one in different}) == len(different)
    assert keyring().identity == keyring().identity
    secret = private_pem(rsa_pair()).decode().splitlines()[1]
    for text in (repr(keyring()), repr(keyring().identity)):
        assert secret not in text
    assert repr(keyring()) == "<RawRsaKeyring 'clinic' 'recovery-1' oaep-sha256>"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_cannot_be_copied_or_pickled(duplicate: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="cannot be copied"):
        duplicate(keyring())
