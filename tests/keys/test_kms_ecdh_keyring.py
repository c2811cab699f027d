"""KmsEcdhKeyring: a secret that KMS shares, what is asked of it, and what is believed of its answers."""

from __future__ import annotations

from typing import Any

import pytest
from support.cloudtrail_records import record_of
from support.keyring_support import CONTEXT, changed, opens, to_decrypt, to_encrypt
from support.recipient_keys import CURVES, KMS_SPECS, ec_pair, private_pem, public_der, public_pem, rsa_pair

from phicrypt import KmsEcdhKeyring, PhiCrypt, RawEcdhKeyring
from phicrypt.audit import RecordingSink
from phicrypt.core.key_pairs import EcPublicKey
from phicrypt.core.materials import EncryptedDataKey
from phicrypt.core.suites import DBE_SUITES, ESDK_SUITES, AlgorithmSuite
from phicrypt.errors import AuthenticationError, ConfigurationError, KeyAccessError
from phicrypt.evidence.cloudtrail import parse_record
from phicrypt.evidence.matching import Category, Matcher
from phicrypt.testing import StrictKms, mark_as_double

SUITES = [*ESDK_SUITES.values(), *DBE_SUITES.values()]


class Sides:
    """Our key in KMS, theirs in their hands."""

    def __init__(self, kms: StrictKms, curve: str = "p256") -> None:
        self.kms = kms
        self.client = kms.client()
        self.arn = kms.create_key(KeySpec=KMS_SPECS[curve], KeyUsage="KEY_AGREEMENT")
        self.public_key = public_der(kms.key(self.arn).key_pair)
        self.theirs = ec_pair(curve)

    def ours(self, **settings: Any) -> KmsEcdhKeyring:
        given = {"recipient_public_key": public_pem(self.theirs), "client": self.client, **settings}
        return KmsEcdhKeyring(self.arn, **given)

    def open_with_theirs(self) -> RawEcdhKeyring:
        return RawEcdhKeyring.static(private_key=private_pem(self.theirs), recipient_public_key=self.public_key)

    def asked(self) -> list[str]:
        return [one.operation for one in self.kms.requests]


@pytest.fixture
def sides(kms: StrictKms) -> Sides:
    return Sides(kms)


@pytest.mark.parametrize("curve", CURVES)
def test_both_sides_open_what_either_sealed(kms: StrictKms, curve: str) -> None:
    sides = Sides(kms, curve)
    ours, theirs = sides.ours(), sides.open_with_theirs()
    for suite in SUITES:
        for writer, reader in ((ours, theirs), (theirs, ours), (ours, ours)):
            opens(reader, writer.on_encrypt(to_encrypt(suite=suite)))
    discovery = RawEcdhKeyring.discovery(private_key=private_pem(sides.theirs))
    opens(discovery, ours.on_encrypt(to_encrypt()))


def test_both_sides_may_have_their_keys_in_kms(kms: StrictKms, sides: Sides) -> None:
    theirs = Sides(kms)
    ours = sides.ours(recipient_public_key=theirs.public_key)
    sealed = ours.on_encrypt(to_encrypt())
    opens(theirs.ours(recipient_public_key=sides.public_key), sealed)
    opens(KmsEcdhKeyring(theirs.arn, client=theirs.client), sealed)


def test_writing_asks_for_the_public_key_once_and_derives_once_per_data_key(sides: Sides) -> None:
    ring = sides.ours()
    for _ in range(3):
        ring.on_encrypt(to_encrypt())
    assert sides.asked() == ["GetPublicKey", *["DeriveSharedSecret"] * 3]
    assert sides.kms.requests[1].parameters == {
        "KeyId": sides.arn,
        "KeyAgreementAlgorithm": "ECDH",
        "PublicKey": sides.kms.requests[1].parameters["PublicKey"],
    }


def test_with_the_public_key_at_hand_nobody_is_asked_for_it(sides: Sides) -> None:
    sealed = sides.ours(public_key=sides.public_key).on_encrypt(to_encrypt())
    assert sides.asked() == ["DeriveSharedSecret"]
    opens(sides.open_with_theirs(), sealed)


def test_opening_is_one_request_with_the_configured_counterpart(sides: Sides) -> None:
    sealed = sides.open_with_theirs().on_encrypt(to_encrypt())
    opened = opens(sides.ours(grant_tokens=[]), sealed)
    (request,) = sides.kms.requests
    assert (request.operation, request.parameters["KeyId"]) == ("DeriveSharedSecret", sides.arn)
    assert set(request.parameters) == {"KeyId", "KeyAgreementAlgorithm", "PublicKey"}
    origin = opened.origin
    assert (origin.operation, origin.key_id, origin.request_ids) == (
        "DeriveSharedSecret",
        sides.arn,
        (request.request_id,),
    )


def test_the_context_stays_here(sides: Sides) -> None:
    ring = sides.ours()
    opens(ring, ring.on_encrypt(to_encrypt()))
    assert ring.binds_context_locally
    assert all("clinic-7" not in str(one.parameters) for one in sides.kms.requests)


def test_without_a_counterpart_it_opens_what_anybody_sealed_to_it_and_writes_nothing(sides: Sides) -> None:
    ring = KmsEcdhKeyring(sides.arn, client=sides.client)
    for writer in (sides.open_with_theirs(), RawEcdhKeyring.ephemeral(recipient_public_key=sides.public_key)):
        opens(ring, writer.on_encrypt(to_encrypt()))
    with pytest.raises(ConfigurationError, match="only opens"):
        ring.on_encrypt(to_encrypt())
    sealed = RawEcdhKeyring.ephemeral(recipient_public_key=public_pem(sides.theirs)).on_encrypt(to_encrypt())
    with pytest.raises(KeyAccessError, match="sealed to this key"):
        ring.on_decrypt(to_decrypt(), sealed.encrypted_data_keys)


@pytest.mark.parametrize("way", ["with a counterpart", "without one"])
def test_nobody_is_asked_about_the_messages_of_others(sides: Sides, way: str) -> None:
    ring = sides.ours() if way == "with a counterpart" else KmsEcdhKeyring(sides.arn, client=sides.client)
    others = [
        EncryptedDataKey("aws-kms", sides.arn.encode(), bytes(100)),
        EncryptedDataKey("aws-kms-ecdh", b"", b""),
        EncryptedDataKey("raw-ecdh", b"\x01" * 75, bytes(112)),
    ]
    with pytest.raises(KeyAccessError) as caught:
        ring.on_decrypt(to_decrypt(), others)
    assert caught.value.code == "NoMatchingDataKey"
    assert sides.asked() == []
    stranger = RawEcdhKeyring.ephemeral(recipient_public_key=public_pem(ec_pair())).on_encrypt(to_encrypt())
    with pytest.raises(KeyAccessError):
        ring.on_decrypt(to_decrypt(), stranger.encrypted_data_keys)
    assert "DeriveSharedSecret" not in sides.asked()


def test_a_sender_off_the_curve_is_passed_over_before_kms_is_asked(sides: Sides) -> None:
    ring = KmsEcdhKeyring(sides.arn, client=sides.client, public_key=sides.public_key)
    (good,) = sides.open_with_theirs().on_encrypt(to_encrypt()).encrypted_data_keys
    forged = changed(good, provider_info=good.provider_info[:-33] + b"\x02" + b"\xff" * 32)
    with pytest.raises(AuthenticationError):
        ring.on_decrypt(to_decrypt(), [forged])
    assert sides.asked() == []
    assert ring.on_decrypt(to_decrypt(), [forged, good]).recipient_index == 1


@pytest.mark.parametrize("suite", [ESDK_SUITES[0x0478], DBE_SUITES[0x6700]], ids=["esdk", "dbe"])
def test_no_changed_data_key_or_context_opens(sides: Sides, suite: AlgorithmSuite) -> None:
    ring = sides.ours(public_key=sides.public_key)
    (wrapped,) = ring.on_encrypt(to_encrypt(suite=suite)).encrypted_data_keys
    for field in ("provider_info", "ciphertext"):
        original = getattr(wrapped, field)
        for place in range(0, len(original), 7):
            other = bytearray(original)
            other[place] ^= 1
            with pytest.raises((KeyAccessError, AuthenticationError)):
                ring.on_decrypt(to_decrypt(suite=suite), [changed(wrapped, **{field: bytes(other)})])
    with pytest.raises(AuthenticationError):
        ring.on_decrypt(to_decrypt({**CONTEXT, "tenant": "clinic-8"}, suite), [wrapped])


@pytest.mark.parametrize(
    ("befalls", "code"),
    [
        (StrictKms.disable, "DisabledException"),
        (StrictKms.schedule_deletion, "KMSInvalidStateException"),
        (StrictKms.deny, "AccessDeniedException"),
        (lambda kms, arn: setattr(kms.key(arn), "usage", "SIGN_VERIFY"), "InvalidKeyUsageException"),
        (lambda kms, arn: kms.fail("KMSInternalException"), "KMSInternalException"),
    ],
)
def test_what_befalls_the_key_is_said(sides: Sides, befalls: Any, code: str) -> None:
    ring = sides.ours(public_key=sides.public_key)
    (wrapped,) = ring.on_encrypt(to_encrypt()).encrypted_data_keys
    befalls(sides.kms, sides.arn)
    with pytest.raises(KeyAccessError) as caught:
        ring.on_decrypt(to_decrypt(), [wrapped])
    assert (caught.value.code, caught.value.operation) == (code, "DeriveSharedSecret")


class Liar:
    """A KMS that answers otherwise."""

    def __init__(self, client: Any, **lies: Any) -> None:
        self.client = client
        self.lies = lies

    def get_public_key(self, **parameters: Any) -> dict[str, Any]:
        return {**self.client.get_public_key(**parameters), **self.lies.get("get_public_key", {})}

    def derive_shared_secret(self, **parameters: Any) -> dict[str, Any]:
        return {**self.client.derive_shared_secret(**parameters), **self.lies.get("derive_shared_secret", {})}


@pytest.mark.parametrize(
    "lie",
    [
        {"KeyId": "arn:aws:kms:us-east-1:111122223333:key/another"},
        {"SharedSecret": b""},
        {"SharedSecret": bytes(31)},
        {"SharedSecret": bytes(48)},
        {"SharedSecret": "x" * 32},
        {"SharedSecret": None},
        {"KeyAgreementAlgorithm": "X25519"},
    ],
    ids=str,
)
def test_answers_that_kms_would_not_give_are_refused(sides: Sides, lie: dict[str, Any]) -> None:
    client = mark_as_double(Liar(sides.client, derive_shared_secret=lie))
    ring = sides.ours(client=client, public_key=sides.public_key)
    sealed = sides.open_with_theirs().on_encrypt(to_encrypt())
    for attempt in (
        lambda: ring.on_encrypt(to_encrypt()),
        lambda: ring.on_decrypt(to_decrypt(), sealed.encrypted_data_keys),
    ):
        with pytest.raises(KeyAccessError) as caught:
            attempt()
        assert caught.value.code == "UnexpectedAnswer"


def test_a_false_shared_secret_opens_nothing(sides: Sides) -> None:
    client = mark_as_double(Liar(sides.client, derive_shared_secret={"SharedSecret": bytes(32)}))
    sealed = sides.open_with_theirs().on_encrypt(to_encrypt())
    with pytest.raises(AuthenticationError):
        sides.ours(client=client).on_decrypt(to_decrypt(), sealed.encrypted_data_keys)


def test_public_keys_that_are_not_the_kms_keys_are_refused(sides: Sides) -> None:
    for lie, error, words in (
        ({"KeyId": "another"}, KeyAccessError, "names another key"),
        ({"PublicKey": None}, KeyAccessError, "holds none"),
        ({"KeyUsage": "SIGN_VERIFY"}, ConfigurationError, "KEY_AGREEMENT"),
        ({"PublicKey": public_der(rsa_pair())}, ConfigurationError, "elliptic curve"),
        ({"PublicKey": public_der(ec_pair("p384"))}, ConfigurationError, "one curve"),
        ({"PublicKey": b"\x30"}, ConfigurationError, "no such key"),
    ):
        ring = sides.ours(client=mark_as_double(Liar(sides.client, get_public_key=lie)))
        with pytest.raises(error, match=words):
            ring.on_encrypt(to_encrypt())


def test_unsuitable_settings_are_refused(sides: Sides) -> None:
    for settings, words in (
        ({"recipient_public_key": public_pem(rsa_pair())}, "recipient_public_key= takes"),
        ({"recipient_public_key": private_pem(sides.theirs)}, "a private one"),
        ({"public_key": public_pem(ec_pair("p521"))}, "one curve"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            sides.ours(**settings)
    with pytest.raises(ConfigurationError):
        KmsEcdhKeyring("alias/exchange", recipient_public_key=public_pem(sides.theirs), client=sides.client)


def test_grant_tokens_go_with_every_call(sides: Sides) -> None:
    token = sides.kms.grant(sides.arn, "DeriveSharedSecret")
    sides.ours(grant_tokens=[token]).on_encrypt(to_encrypt())
    assert [one.grant_tokens for one in sides.kms.requests] == [[token], [token]]


def test_rule_11_identity_tells_keys_and_counterparts_apart(kms: StrictKms, sides: Sides) -> None:
    other = Sides(kms)
    different = [
        sides.ours(),
        other.ours(),
        sides.ours(recipient_public_key=other.public_key),
        sides.ours(recipient_public_key=None),
        sides.ours(public_key=sides.public_key),
        sides.ours(client=kms.client()),
    ]
    assert len({one.identity for one in different}) == len(different)
    ring = sides.ours()
    before = ring.identity
    ring.on_encrypt(to_encrypt())
    assert ring.identity == before


def test_each_use_is_matched_with_cloudtrail_by_its_request(sides: Sides) -> None:
    sink = RecordingSink()
    with PhiCrypt(sides.ours(), cache=None, audit=[sink]) as phi:
        message = phi.encrypt(b"note", context=CONTEXT)
        assert phi.decrypt(message, context=CONTEXT) == b"note"
    with Matcher() as matcher:
        for event in sink.events:
            matcher.add_use(event)
        for request in sides.kms.requests:
            record = parse_record(record_of(request, sides.arn))
            assert record is not None
            matcher.add_record(record)
        matcher.finish()
        found = [finding.category for finding in matcher.findings()]
    assert set(found) <= {Category.MATCHED, Category.PROBABLE}, found
    assert len(found) >= 2


def test_a_message_between_two_organizations(sides: Sides) -> None:
    message = PhiCrypt(sides.ours()).encrypt(b"note", context=CONTEXT, signed=True)
    theirs = PhiCrypt(sides.open_with_theirs())
    assert theirs.decrypt(message, context=CONTEXT, require_signed=True) == b"note"
    summary = theirs.inspect(message)
    assert summary.recipients[0].provider_id == "aws-kms-ecdh"
    assert EcPublicKey(public_pem(sides.theirs)).fingerprint in repr(sides.ours())
