"""Break-glass (rule 16), resource tokens (rule 23) and role sessions that name a person."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from support.cloudtrail_records import ROLE_ARN, record_of
from support.recipient_keys import public_pem
from support.recovery_keys import key_pair

from phicrypt import ANY_CONTEXT, KmsKeyring, MultiKeyring, PhiCrypt, RawAesKeyring, RawRsaKeyring
from phicrypt.audit import AuditEvent, AuditTrail, RecordingSink, assume_role
from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import Keyring
from phicrypt.errors import (
    AuditError,
    ConfigurationError,
    ContextMismatchError,
    KeyAccessError,
    LimitExceededError,
    PhiInContextError,
    UnsupportedOperationError,
)
from phicrypt.evidence.cloudtrail import parse_record
from phicrypt.evidence.matching import Category, Matcher
from phicrypt.evidence.questions import grants
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.keys.kms.rsa_keyring import KmsRsaKeyring
from phicrypt.recovery.break_glass import BreakGlass, break_glass, record_review
from phicrypt.testing import StrictKms, mark_as_double
from phicrypt.witness import ResourceTokens

PUBLIC_KEY = public_pem(key_pair())
REASON = "the on-call physician cannot reach the tenant's key"


@pytest.fixture
def kms() -> Iterator[StrictKms]:
    with StrictKms() as running:
        yield running


@pytest.fixture
def recipient(kms: StrictKms) -> tuple[str, bytes]:
    """ARN and public key of the break-glass key."""
    key_arn = kms.create_key(KeyUsage="ENCRYPT_DECRYPT", KeySpec="RSA_2048", private_key=key_pair())
    return key_arn, kms.client().get_public_key(KeyId=key_arn)["PublicKey"]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def writer_of(recipient: tuple[str, bytes], sink: Any) -> PhiCrypt:
    key_arn, public_key = recipient
    everyday = RawAesKeyring("clinic", "everyday", b"e" * 32)
    return PhiCrypt(
        keyring=MultiKeyring(everyday, KmsRsaKeyring(key_arn, public_key=public_key)), audit=[sink] if sink else ()
    )


def test_rule_16_break_glass_opens_by_the_rsa_recipient_under_its_own_role_and_on_record(
    kms: StrictKms, recipient: tuple[str, bytes]
) -> None:
    sink = RecordingSink()
    phi = writer_of(recipient, sink)
    message = phi.encrypt(b"the record", context={"tenant": "clinic-7"})
    assert [request.operation for request in kms.requests if request.operation != "CreateKey"] == ["GetPublicKey"]
    emergency = kms.client(access_key_id="AKIDEMERGENCY")
    with phi.break_glass(actor="dr-4711", reason=REASON, expires_in_seconds=600, client=emergency) as grant:
        assert grant.decrypt(message, context={"tenant": "clinic-7"}) == b"the record"
        assert grant.decrypt(message, context=ANY_CONTEXT) == b"the record"
    assert phi.trail is not None
    phi.trail.flush()
    opened = [request for request in kms.requests if request.operation == "Decrypt"]
    assert [request.access_key_id for request in opened] == ["AKIDEMERGENCY"] * 2
    events = [event for event in sink.events if event.break_glass == grant.grant_id]
    assert [event.kind for event in events] == [
        "break-glass-open",
        *["begin", "end"] * 2,
        "break-glass-close",
    ]
    assert {event.actor for event in events} == {"dr-4711"}
    assert {event.purpose for event in events} == {"emergency"}
    assert events[0].detail == {"reason": REASON, "expires_in_seconds": 600}
    assert events[-1].detail == {"uses": 2}


def test_rule_16_break_glass_opens_by_a_private_key_that_daily_clients_never_had() -> None:
    sink = RecordingSink()
    everyday = RawAesKeyring("clinic", "everyday", b"e" * 32)
    phi = PhiCrypt(MultiKeyring(everyday, RawRsaKeyring("clinic", "safe", public_key=PUBLIC_KEY)), audit=[sink])
    message = phi.encrypt(b"the record", context={"tenant": "clinic-7"})
    terms: Any = {"actor": "dr-4711", "reason": REASON, "expires_in_seconds": 60}
    with pytest.raises(ConfigurationError, match="keyring=RawRsaKeyring"), phi.break_glass(**terms):
        pass
    safe = RawRsaKeyring("clinic", "safe", private_key=key_pair())
    with phi.break_glass(**terms, keyring=safe) as grant:
        assert grant.decrypt(message, context={"tenant": "clinic-7"}) == b"the record"
    assert phi.trail is not None
    phi.trail.flush()
    ends = [event for event in sink.events if event.break_glass == grant.grant_id and event.kind == "end"]
    assert [(one.outcome, one.origin.provider_id, one.origin.key_id) for one in ends] == [
        ("success", "clinic", "safe")
    ]


def test_break_glass_is_matched_with_cloudtrail_under_the_emergency_role(
    kms: StrictKms, recipient: tuple[str, bytes]
) -> None:
    """The trail's own principal is another: with it, every emergency would look like a stolen request id."""
    sink = RecordingSink()
    trail = AuditTrail([sink], principal="arn:aws:iam::111122223333:role/Everyday")
    key_arn, public_key = recipient
    everyday = RawAesKeyring("clinic", "everyday", b"e" * 32)
    phi = PhiCrypt(MultiKeyring(everyday, KmsRsaKeyring(key_arn, public_key=public_key)), audit=trail)
    message = phi.encrypt(b"x")
    trail.flush()
    for principal, expected in ((ROLE_ARN, Category.MATCHED), (None, Category.PROBABLE)):
        sink.events.clear()
        with phi.break_glass(
            actor="dr-1", reason=REASON, expires_in_seconds=60, client=kms.client(), principal=principal
        ) as grant:
            grant.decrypt(message, context=ANY_CONTEXT)
        assert {event.principal for event in sink.events} == {principal}
        with Matcher() as matcher:
            for event in sink.events:
                matcher.add_use(event)
            record = parse_record(record_of(kms.requests[-1], key_arn))
            assert record is not None
            matcher.add_record(record)
            matcher.finish()
            assert [found.category for found in matcher.findings()] == [expected]
    assert trail.principal == "arn:aws:iam::111122223333:role/Everyday"


def test_rule_16_break_glass_expires_and_says_so(kms: StrictKms, recipient: tuple[str, bytes]) -> None:
    phi = writer_of(recipient, RecordingSink())
    message = phi.encrypt(b"x")
    clock = Clock()
    with break_glass(
        phi, actor="dr-1", reason=REASON, expires_in_seconds=60, client=kms.client(), clock=clock
    ) as grant:
        clock.now += 59.9
        assert grant.decrypt(message, context=ANY_CONTEXT) == b"x"
        clock.now += 0.1
        with pytest.raises(UnsupportedOperationError):
            grant.decrypt(message, context=ANY_CONTEXT)
    clock.now = 0
    with pytest.raises(UnsupportedOperationError):
        grant.decrypt(message, context=ANY_CONTEXT)


@pytest.mark.parametrize(
    "terms",
    [
        {"reason": ""},
        {"reason": "   because   "},
        {"reason": "x" * 1_001},
        {"reason": None},
        {"expires_in_seconds": 0},
        {"expires_in_seconds": 13 * 3_600},
        {"actor": ""},
    ],
)
def test_break_glass_is_refused_without_reason_actor_or_expiry(
    recipient: tuple[str, bytes], terms: dict[str, Any]
) -> None:
    sink = RecordingSink()
    terms = {"actor": "dr-1", "reason": REASON, "expires_in_seconds": 60} | terms
    with pytest.raises(ConfigurationError), break_glass(writer_of(recipient, sink), **terms):
        pytest.fail("opened")
    assert sink.events == []


def test_break_glass_is_refused_without_a_trail_or_a_recipient(recipient: tuple[str, bytes]) -> None:
    terms = {"actor": "dr-1", "reason": REASON, "expires_in_seconds": 60}
    with pytest.raises(AuditError), break_glass(writer_of(recipient, None), **terms):
        pytest.fail("opened")
    plain = PhiCrypt(keyring=RawAesKeyring("clinic", "everyday", b"e" * 32), audit=[RecordingSink()])
    with pytest.raises(ConfigurationError), break_glass(plain, **terms):
        pytest.fail("opened")


def test_break_glass_is_refused_when_the_trail_cannot_be_written(recipient: tuple[str, bytes]) -> None:
    class Broken:
        def write(self, events: object) -> None:
            raise OSError

        def close(self) -> None:
            pass

    with (
        pytest.raises(AuditError),
        break_glass(writer_of(recipient, Broken()), actor="dr-1", reason=REASON, expires_in_seconds=60),
    ):
        pytest.fail("opened")


def test_a_reason_with_phi_is_refused_and_not_recorded(recipient: tuple[str, bytes]) -> None:
    sink = RecordingSink()
    with (
        pytest.raises(PhiInContextError),
        break_glass(
            writer_of(recipient, sink), actor="d", reason="patient 123-45-6789 in shock", expires_in_seconds=60
        ),
    ):
        pytest.fail("opened")
    assert sink.events == []


def test_a_reason_is_checked_by_the_clients_own_guard_too(recipient: tuple[str, bytes]) -> None:
    key_arn, public_key = recipient
    sink = RecordingSink()
    phi = PhiCrypt(
        MultiKeyring(RawAesKeyring("clinic", "k", bytes(32)), KmsRsaKeyring(key_arn, public_key=public_key)),
        audit=[sink],
        guard=PhiGuard(mrn_patterns=[r"\bH\d{7}\b"]),
    )
    with (
        pytest.raises(PhiInContextError),
        phi.break_glass(actor="dr-1", reason="patient H1234567 in theatre", expires_in_seconds=60),
    ):
        pass
    assert sink.events == []


def test_a_review_note_with_phi_is_refused_and_not_recorded() -> None:
    sink = RecordingSink()
    with pytest.raises(PhiInContextError) as caught:
        record_review(AuditTrail([sink]), "g-1", reviewer="officer-1", note="was for 123-45-6789")
    assert "6789" not in str(caught.value)
    assert sink.events == []


def test_a_grant_only_opens(kms: StrictKms, recipient: tuple[str, bytes]) -> None:
    phi = writer_of(recipient, RecordingSink())
    with break_glass(phi, actor="d", reason=REASON, expires_in_seconds=60, client=kms.client()) as grant:
        for name in ("encrypt", "s3", "cache", "acting_as", "provider", "_phi_"):
            with pytest.raises(AttributeError):
                getattr(grant, name)


def opened(grant: BreakGlass, way: str, message: bytes, **demands: Any) -> bytes:
    if way == "decrypt":
        return grant.decrypt(message, **demands)
    if way == "decrypting_reader":
        return grant.decrypting_reader(io.BytesIO(message), **demands).read()
    sink = io.BytesIO()
    assert grant.decrypt_stream(io.BytesIO(message), sink, **demands) == len(sink.getvalue())
    return sink.getvalue()


every_way = pytest.mark.parametrize("way", ["decrypt", "decrypt_stream", "decrypting_reader"])


@every_way
def test_a_grant_opens_what_the_client_opens(kms: StrictKms, recipient: tuple[str, bytes], way: str) -> None:
    """Ten recipients under raised limits, and the recovery recipient in a MultiKeyring within another."""
    everyday = [RawAesKeyring("clinic", f"everyday-{number}", bytes([number]) * 32) for number in range(9)]
    inner = MultiKeyring(everyday[0], KmsRsaKeyring(recipient[0], public_key=recipient[1]))
    keyring = MultiKeyring(everyday[1], MultiKeyring(inner), *everyday[2:], max_encrypted_data_keys=10)
    limits = ReadLimits(max_encrypted_data_keys=10, max_frame_length_bytes=32 * 1024 * 1024)
    phi = PhiCrypt(keyring, audit=[RecordingSink()], limits=limits, frame_length_bytes=32 * 1024 * 1024)
    message = phi.encrypt(b"the record", context={"tenant": "clinic-7"})
    assert phi.decrypt(message, context={"tenant": "clinic-7"}) == b"the record"
    with phi.break_glass(actor="d", reason=REASON, expires_in_seconds=60, client=kms.client()) as grant:
        assert len(grant.inspect(message).recipients) == 10
        assert opened(grant, way, message, context={"tenant": "clinic-7"}) == b"the record"
        with pytest.raises(ContextMismatchError):
            opened(grant, way, message, context={"tenant": "clinic-8"})
        assert grant.uses == 3


@every_way
def test_a_grant_demands_signatures_as_the_client_does(way: str) -> None:
    emergency = RawAesKeyring("clinic", "emergency", b"g" * 32)
    keyring = MultiKeyring(RawAesKeyring("clinic", "everyday", b"e" * 32), emergency)
    phi = PhiCrypt(keyring, audit=[RecordingSink()])
    with phi.break_glass(actor="d", reason=REASON, expires_in_seconds=60, keyring=emergency) as grant:
        signed = phi.encrypt(b"the record", signed=True)
        assert opened(grant, way, signed, context=ANY_CONTEXT, require_signed=True) == b"the record"
        with pytest.raises(UnsupportedOperationError, match="signed"):
            opened(grant, way, phi.encrypt(b"x"), context=ANY_CONTEXT, require_signed=True)


@every_way
def test_a_grant_believes_no_more_than_the_client(way: str) -> None:
    keyring = RawAesKeyring("clinic", "everyday", b"e" * 32)
    message = PhiCrypt(keyring).encrypt(b"x")
    limits = ReadLimits(max_frame_length_bytes=64)
    phi = PhiCrypt(keyring, audit=[RecordingSink()], limits=limits, frame_length_bytes=64)
    with (
        phi.break_glass(actor="d", reason=REASON, expires_in_seconds=60, keyring=keyring) as grant,
        pytest.raises(LimitExceededError),
    ):
        opened(grant, way, message, context=ANY_CONTEXT)


def test_a_grant_demands_the_context() -> None:
    keyring = RawAesKeyring("clinic", "everyday", b"e" * 32)
    phi = PhiCrypt(keyring, audit=[RecordingSink()])
    message = phi.encrypt(b"x")
    with (
        phi.break_glass(actor="d", reason=REASON, expires_in_seconds=60, keyring=keyring) as grant,
        pytest.raises(ConfigurationError, match="context"),
    ):
        grant.decrypt(message)  # type: ignore[call-arg]


@pytest.mark.parametrize("whose", ["the recipient's own", "the everyday keyring's"])
def test_a_grant_under_a_roles_session_asks_where_the_clients_keyrings_ask(
    kms: StrictKms, recipient: tuple[str, bytes], whose: str
) -> None:
    """Endpoint and application were given once, to a keyring; the role gives credentials only."""
    place = {"endpoint_url": kms.endpoint_url, "application": "ward"}
    everyday: Keyring = RawAesKeyring("clinic", "everyday", b"e" * 32)
    emergency = KmsRsaKeyring(recipient[0], public_key=recipient[1])
    if whose == "the recipient's own":
        emergency = KmsRsaKeyring(recipient[0], public_key=recipient[1], **place)
    else:
        everyday = KmsKeyring(kms.create_key(), session=kms.session(), **place)
    phi = PhiCrypt(MultiKeyring(everyday, emergency), audit=[RecordingSink()])
    message = phi.encrypt(b"the record", context={"tenant": "clinic-7"})
    role = boto3.Session(
        aws_access_key_id="AKIDEMERGENCY", aws_secret_access_key="secret", region_name="us-east-1"
    )
    with phi.break_glass(actor="d", reason=REASON, expires_in_seconds=60, session=role) as grant:
        assert grant.decrypt(message, context={"tenant": "clinic-7"}) == b"the record"
    asked = kms.requests[-1]
    assert (asked.operation, asked.access_key_id) == ("Decrypt", "AKIDEMERGENCY")
    assert "phicrypt-app/ward" in asked.user_agent


def test_a_grant_shows_the_grant_tokens_of_its_recipient(kms: StrictKms, recipient: tuple[str, bytes]) -> None:
    emergency = KmsRsaKeyring(recipient[0], public_key=recipient[1], grant_tokens=["unknown here"])
    phi = PhiCrypt(
        MultiKeyring(RawAesKeyring("clinic", "everyday", b"e" * 32), emergency), audit=[RecordingSink()]
    )
    message = phi.encrypt(b"the record", context={"tenant": "clinic-7"})
    with (
        phi.break_glass(actor="d", reason=REASON, expires_in_seconds=60, client=kms.client()) as grant,
        pytest.raises(KeyAccessError, match="a grant token is not valid"),
    ):
        grant.decrypt(message, context={"tenant": "clinic-7"})


def test_a_denied_role_opens_nothing_and_leaves_its_attempt(kms: StrictKms, recipient: tuple[str, bytes]) -> None:
    sink = RecordingSink()
    phi = writer_of(recipient, sink)
    message = phi.encrypt(b"x")
    kms.deny(recipient[0], "Decrypt")
    with (
        pytest.raises(KeyAccessError),
        break_glass(phi, actor="d", reason=REASON, expires_in_seconds=60, client=kms.client()) as grant,
    ):
        grant.decrypt(message, context=ANY_CONTEXT)
    tail = [(event.kind, event.outcome, event.error) for event in sink.events[-2:]]
    assert tail == [("end", "denied", "KeyAccessError"), ("break-glass-close", "success", "KeyAccessError")]


def test_grants_await_review_by_somebody_else(kms: StrictKms, recipient: tuple[str, bytes]) -> None:
    sink = RecordingSink()
    trail = AuditTrail([sink])
    phi = PhiCrypt(keyring=writer_of(recipient, None).provider.keyring, audit=trail)
    message = phi.encrypt(b"x")
    with break_glass(phi, actor="dr-1", reason=REASON, expires_in_seconds=60, client=kms.client()) as grant:
        grant.decrypt(message, context=ANY_CONTEXT)
    (waiting,) = grants(sink.events)
    assert (waiting.actor, waiting.reason, waiting.uses, waiting.is_closed) == ("dr-1", REASON, 1, True)
    assert waiting.reviewed_by == ""
    record_review(trail, grant.grant_id, reviewer="dr-1")
    assert grants(sink.events)[0].reviewed_by == ""
    record_review(trail, grant.grant_id, reviewer="officer-2", note="justified")
    assert grants(sink.events)[0].reviewed_by == "officer-2"


# Resource tokens


def test_rule_23_tokens_are_equal_for_equal_resources_and_name_none(kms: StrictKms, tmp_path: Path) -> None:
    keyring = KmsKeyring(kms.create_key(), client=kms.client())
    tokens = ResourceTokens.create(tmp_path / "tokens.json", keyring)
    one = tokens.token(("s3", "bucket", "patients/jane-doe.pdf"))
    assert one == tokens.token(("s3", "bucket", "patients/jane-doe.pdf"))
    others = {
        tokens.token(("s3", "bucket", "patients/jane-doe.pdF")),
        tokens.token(("s3", "bucketpatients", "/jane-doe.pdf")),
        tokens.token(("dynamodb", "bucket", "patients/jane-doe.pdf")),
        tokens.token(("s3", "bucket", "patients", "jane-doe.pdf")),
    }
    assert one not in others
    assert len(others) == 4
    assert "jane" not in one
    assert (tmp_path / "tokens.json").stat().st_mode & 0o777 == 0o600


def test_rule_23_old_tokens_stay_findable_after_rotation(kms: StrictKms, tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    keyring = KmsKeyring(kms.create_key(), client=kms.client())
    old = ResourceTokens.create(path, keyring).token(("s3", "b", "k"))
    rotated = ResourceTokens.rotate(path, keyring)
    new = rotated.token(("s3", "b", "k"))
    assert new != old
    assert new.split("-")[1] != old.split("-")[1]
    assert ResourceTokens.load(path, keyring).all_tokens(("s3", "b", "k")) == [new, old]


def test_rule_23_the_key_file_is_sealed_by_kms(kms: StrictKms, tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    key_arn = kms.create_key()
    ResourceTokens.create(path, KmsKeyring(key_arn, client=kms.client()))
    kms.disable(key_arn)
    with pytest.raises(KeyAccessError):
        ResourceTokens.load(path, KmsKeyring(key_arn, client=kms.client()))
    kms.enable(key_arn)
    document = json.loads(path.read_text())
    document["token_keys"][0]["id"] = "ffffffff"
    path.write_text(json.dumps(document))
    with pytest.raises(Exception, match="context"):
        ResourceTokens.load(path, KmsKeyring(key_arn, client=kms.client()))


@pytest.mark.parametrize(
    "content",
    [
        '{"version": 1, "token_keys": [{"id": "a", "sealed": "abc"}]}',
        '{"version": 1, "token_keys": [{"id": "a", "sealed": "\u00e9"}]}',
        '{"version": 1, "token_keys": [], "token_keys": [{"id": "a", "sealed": "YWJj"}]}',
        "[" * 100_000,
    ],
)
def test_rule_32_a_changed_token_key_file_is_refused_in_our_own_words(content: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="no token key file"):
        ResourceTokens.load(tmp_path / "bad.json", RawAesKeyring("n", "k", bytes(32)))


def test_bad_token_key_files_and_keys_are_refused(tmp_path: Path) -> None:
    keyring = RawAesKeyring("n", "k", bytes(32))
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ConfigurationError):
        ResourceTokens.load(tmp_path / "bad.json", keyring)
    with pytest.raises(ConfigurationError):
        ResourceTokens.create(tmp_path / "bad.json", keyring)
    for token_keys in ({}, {"a": b"short"}, {"a-b": bytes(32)}):
        with pytest.raises(ConfigurationError):
            ResourceTokens(token_keys)


def test_rule_23_events_carry_the_token_and_never_the_resource() -> None:
    sink = RecordingSink()
    tokens = ResourceTokens({"k1": b"s" * 32})
    trail = AuditTrail([sink], resource_tokens=tokens)
    trail.begin("s3.get_object", resource=("s3", "bucket", "jane-doe.pdf")).end()
    assert {event.resource for event in sink.events} == {tokens.token(("s3", "bucket", "jane-doe.pdf"))}
    assert all("jane" not in event.to_json() for event in sink.events)
    assert "s" * 32 not in repr(tokens)
    assert isinstance(sink.events[0], AuditEvent)


# Role sessions


@mark_as_double
class FakeSts:
    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {}

    def assume_role(self, **parameters: Any) -> dict[str, Any]:
        self.parameters = parameters
        return {"Credentials": {"AccessKeyId": "AKIDSESSION", "SecretAccessKey": "s", "SessionToken": "t"}}


def test_a_role_session_carries_the_actor_as_session_name_and_source_identity() -> None:
    sts = FakeSts()
    session = assume_role("arn:aws:iam::111122223333:role/Reader", actor="dr-4711", client=sts)
    assert sts.parameters == {
        "RoleArn": "arn:aws:iam::111122223333:role/Reader",
        "RoleSessionName": "dr-4711",
        "SourceIdentity": "dr-4711",
        "DurationSeconds": 3_600,
    }
    assert session.get_credentials().access_key == "AKIDSESSION"
    for wrong in (
        {"actor": "d r"},
        {"actor": "x"},
        {"actor": "x" * 65},
        {"actor": "dr-1", "duration_seconds": 60},
    ):
        with pytest.raises(ConfigurationError):
            assume_role("arn:aws:iam::111122223333:role/Reader", client=sts, **wrong)
