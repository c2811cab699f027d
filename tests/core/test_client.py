"""The client's contract: contexts, arguments, the guard, and what the audit trail is told."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest
from support.keys_fakes import CountingKeyring
from support.messages import CONTEXT, raw_client, take_apart

from phicrypt import ANY_CONTEXT, AuditContext, MultiKeyring, PhiCrypt, Purpose, RawAesKeyring
from phicrypt.audit import AuditEvent
from phicrypt.core.limits import ReadLimits
from phicrypt.errors import (
    AuditError,
    AuthenticationError,
    ConfigurationError,
    ContextMismatchError,
    KeyAccessError,
    LimitExceededError,
    PhiCryptError,
    PhiInContextError,
)
from phicrypt.formats.esdk.header import parse_header
from phicrypt.formats.reader import ByteReader
from phicrypt.guard.phi_guard import PhiGuard


class RecordingSink:
    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.failing = False

    def write(self, events: Sequence[AuditEvent]) -> None:
        if self.failing:
            raise OSError("disk full")
        self.events += events

    def close(self) -> None:
        pass


def test_the_readme_example_holds() -> None:
    phi = raw_client()
    message = phi.encrypt(b"...", context={"tenant": "clinic-7", "resource": "DiagnosticReport"})
    assert phi.decrypt(message, context={"tenant": "clinic-7"}) == b"..."


@pytest.mark.parametrize("buffer", [bytes, bytearray, memoryview])
def test_any_buffer_is_encrypted_and_decrypted(buffer: type) -> None:
    phi = raw_client()
    message = phi.encrypt(buffer(b"payload"), context=CONTEXT)
    assert phi.decrypt(buffer(message), context=CONTEXT) == b"payload"


def test_a_buffer_of_wider_items_is_its_bytes_and_a_scattered_one_is_refused() -> None:
    phi = raw_client()
    wide = memoryview(bytes(range(64))).cast("I")
    assert phi.decrypt(phi.encrypt(wide, context=CONTEXT), context=CONTEXT) == bytes(range(64))
    message = phi.encrypt(bytes(64), context=CONTEXT)
    for call in (
        lambda: phi.encrypt(memoryview(bytes(64))[::2], context=CONTEXT),
        lambda: phi.decrypt(memoryview(message)[::2], context=CONTEXT),
    ):
        with pytest.raises(ConfigurationError, match="contiguous"):
            call()


def test_text_for_bytes_is_refused_with_the_remedy() -> None:
    phi = raw_client()
    for call in (
        lambda: phi.encrypt("text", context=CONTEXT),  # type: ignore[arg-type]
        lambda: phi.decrypt("text", context=CONTEXT),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigurationError, match=r"\.encode\(\)"):
            call()


def test_rule_08_decrypt_needs_an_expected_context() -> None:
    phi = raw_client()
    message = phi.encrypt(b"x", context=CONTEXT)
    for missing in (None, {}, AuditContext()):
        with pytest.raises(ConfigurationError, match="ANY_CONTEXT"):
            phi.decrypt(message, context=missing)
    with pytest.raises(ConfigurationError):
        phi.decrypt(message)
    assert phi.decrypt(message, context=ANY_CONTEXT) == b"x"


def test_rule_08_expected_pairs_are_compared_before_any_key_is_used() -> None:
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring)
    message = raw_client().encrypt(b"x", context={"tenant": "a", "more": "b"})
    for expected in ({"tenant": "b"}, {"absent": "a"}, {"tenant": "a", "more": "c"}):
        with pytest.raises(ContextMismatchError) as caught:
            phi.decrypt(message, context=expected)
        assert not set(expected.values()) & set(str(caught.value).split())
    assert keyring.decrypts == 0
    assert phi.decrypt(message, context={"more": "b"}) == b"x"


@pytest.mark.parametrize("name", ["aws-crypto-public-key", "aws-crypto-x", "phicrypt-location"])
def test_rule_08_reserved_names_are_refused_in_callers_contexts(name: str) -> None:
    phi = raw_client()
    message = phi.encrypt(b"x", context=CONTEXT)
    for call in (
        lambda: phi.encrypt(b"x", context={name: "v"}),
        lambda: phi.decrypt(message, context={name: "v"}),
        lambda: phi.encrypt_stream(io.BytesIO(b""), io.BytesIO(), context={name: "v"}),
    ):
        with pytest.raises(ConfigurationError, match="reserved"):
            call()


@pytest.mark.parametrize(
    "context", [{"a": 1}, {1: "a"}, {"": "a"}, ["a"], "a", {"a": ["unhashable"]}, {"a": "\ud800"}, ANY_CONTEXT]
)
def test_contexts_that_are_not_text_are_refused(context: Any) -> None:
    with pytest.raises(ConfigurationError):
        raw_client().encrypt(b"x", context=context)


def test_audit_context_binds_its_typed_pairs() -> None:
    phi = raw_client()
    context = AuditContext(tenant="clinic-7", application="viewer", dataset="ct-2026", resource_type="Scan")
    message = phi.encrypt(b"x", context=context)
    assert phi.decrypt(message, context={"tenant": "clinic-7", "resource-type": "Scan"}) == b"x"
    assert phi.inspect(message).context_names == ("application", "dataset", "resource-type", "tenant")


def test_the_guard_refuses_phi_in_contexts_and_names_the_name_only() -> None:
    phi = raw_client()
    with pytest.raises(PhiInContextError) as caught:
        phi.encrypt(b"x", context={"tenant": "clinic-7", "subject": "123-45-6789"})
    assert caught.value.names == ("subject",)
    assert "6789" not in str(caught.value)
    assert raw_client(guard=None).encrypt(b"x", context={"subject": "123-45-6789"})


def test_a_guard_that_hashes_lets_decrypt_repeat_the_callers_context() -> None:
    phi = raw_client(guard=PhiGuard(mode="hash", hash_key=bytes(32)))
    context = {"subject": "123-45-6789"}
    message = phi.encrypt(b"x", context=context)
    assert b"6789" not in message
    assert phi.decrypt(message, context=context) == b"x"


@pytest.mark.parametrize("frame_length", [0, -1, 2**32, 16 * 1024 * 1024 + 1, 1.5, True])
def test_frame_lengths_that_could_not_be_read_back_are_refused(frame_length: Any) -> None:
    with pytest.raises(ConfigurationError):
        raw_client().encrypt(b"x", context=CONTEXT, frame_length_bytes=frame_length)
    with pytest.raises(ConfigurationError):
        raw_client(frame_length_bytes=frame_length)


def test_rule_16_a_message_never_has_more_data_keys_than_its_own_reader_accepts() -> None:
    keyrings = [RawAesKeyring("clinic", f"key-{number}", bytes(32)) for number in range(3)]
    phi = PhiCrypt(MultiKeyring(keyrings[0], *keyrings[1:]), limits=ReadLimits(max_encrypted_data_keys=2))
    with pytest.raises(LimitExceededError):
        phi.encrypt(b"x", context=CONTEXT)


def test_each_recipient_of_a_multi_keyring_opens_the_message_alone() -> None:
    keyrings = [RawAesKeyring("clinic", f"key-{number}", bytes((number,)) * 32) for number in range(3)]
    message = PhiCrypt(MultiKeyring(keyrings[0], *keyrings[1:])).encrypt(b"x", context=CONTEXT)
    for keyring in keyrings:
        assert PhiCrypt(keyring).decrypt(message, context=CONTEXT) == b"x"
    with pytest.raises(KeyAccessError):
        PhiCrypt(RawAesKeyring("clinic", "key-9", bytes(32))).decrypt(message, context=CONTEXT)


def test_the_wrong_wrapping_key_is_refused() -> None:
    message = raw_client().encrypt(b"x", context=CONTEXT)
    with pytest.raises(AuthenticationError):
        PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(32))).decrypt(message, context=CONTEXT)
    with pytest.raises(KeyAccessError):
        PhiCrypt(RawAesKeyring("clinic", "key-2", bytes(range(32)))).decrypt(message, context=CONTEXT)


def test_rule_03_every_message_has_its_own_id_and_derived_key() -> None:
    phi = raw_client()
    messages = [phi.encrypt(b"the same", context=CONTEXT) for _ in range(50)]
    assert len({message[3:35] for message in messages}) == 50
    assert len({take_apart(message).final for message in messages}) == 50


def test_inspect_needs_no_key_and_tells_no_context_values() -> None:
    phi = raw_client()
    message = phi.encrypt(bytes(1000), context=CONTEXT, frame_length_bytes=300)
    summary = phi.inspect(message)
    assert summary.suite_id == "0x0478"
    assert summary.context_names == ("tenant",)
    assert (summary.frame_length_bytes, summary.plaintext_length_bytes) == (300, 1000)
    assert [recipient.key_id for recipient in summary.recipients] == ["key-1"]
    assert "clinic-7" not in repr(summary)
    source = io.BytesIO(b"before" + message)
    source.seek(6)
    assert phi.inspect(source) == summary
    assert source.tell() == 6


def test_a_parsed_header_shows_no_context_values() -> None:
    header = parse_header(ByteReader(raw_client().encrypt(b"x", context=CONTEXT)), ReadLimits())
    assert header.context == CONTEXT
    assert "clinic-7" not in repr(header)


def test_authentication_errors_have_one_text_for_all_causes() -> None:
    phi = raw_client()
    message = phi.encrypt(b"x", context=CONTEXT, signed=True)
    texts = set()
    for position in (10, 300, len(message) - 130, len(message) - 5):
        changed = message[:position] + bytes((message[position] ^ 1,)) + message[position + 1 :]
        with pytest.raises(PhiCryptError) as caught:
            phi.decrypt(changed, context=ANY_CONTEXT)
        if isinstance(caught.value, AuthenticationError):
            texts.add(str(caught.value))
    assert len(texts) == 1


def test_a_keyring_is_expected() -> None:
    with pytest.raises(ConfigurationError, match="keyring"):
        PhiCrypt("arn:aws:kms:us-east-1:111122223333:key/x")  # type: ignore[arg-type]


def operations(phi: PhiCrypt) -> dict[str, Any]:
    """Each operation on messages, as a function without arguments."""
    message = raw_client().encrypt(bytes(100), context=CONTEXT, frame_length_bytes=64)

    def read(reader: Any) -> bytes:
        with reader as opened:
            data: bytes = opened.read()
        return data

    return {
        "encrypt": lambda: phi.encrypt(bytes(100), context=CONTEXT),
        "decrypt": lambda: phi.decrypt(message, context=CONTEXT),
        "encrypt_stream": lambda: phi.encrypt_stream(io.BytesIO(bytes(100)), io.BytesIO(), context=CONTEXT),
        "decrypt_stream": lambda: phi.decrypt_stream(io.BytesIO(message), io.BytesIO(), context=CONTEXT),
        "encrypting_reader": lambda: read(phi.encrypting_reader(io.BytesIO(bytes(100)), context=CONTEXT)),
        "decrypting_reader": lambda: read(phi.decrypting_reader(io.BytesIO(message), context=CONTEXT)),
    }


@pytest.mark.parametrize("operation", list(operations(raw_client())))
@pytest.mark.parametrize("fails", [False, True])
def test_rule_20_each_operation_leaves_one_event_or_one_linked_pair(operation: str, fails: bool) -> None:
    sink = RecordingSink()
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring, audit=[sink])
    if fails:
        keyring.failures = [KeyAccessError("denied", operation="x", code="AccessDeniedException")]
        with pytest.raises(KeyAccessError):
            operations(phi)[operation]()
    else:
        operations(phi)[operation]()
    assert phi.trail is not None
    phi.trail.flush()
    kinds = [event.kind for event in sink.events]
    assert kinds == (["use"] if operation == "encrypt" else ["begin", "end"])
    last = sink.events[-1]
    assert {event.use_id for event in sink.events} == {last.use_id}
    assert {event.operation for event in sink.events} == {operation}
    assert last.outcome == ("denied" if fails else "success")
    if not fails:
        assert last.byte_count == 100
    assert last.context == CONTEXT


def test_rule_20_the_begin_record_is_written_before_the_key_is_asked_for() -> None:
    sink = RecordingSink()
    keyring = CountingKeyring()
    seen = []
    keyring._call = lambda: seen.append([event.kind for event in sink.events])  # type: ignore[method-assign]
    phi = PhiCrypt(keyring, audit=[sink])
    phi.decrypt(raw_client().encrypt(b"x", context=CONTEXT), context=CONTEXT)
    assert seen == [["begin"]]


@pytest.mark.parametrize("operation", ["decrypt", "decrypt_stream", "decrypting_reader"])
def test_a_sink_that_fails_stops_whatever_opens(operation: str) -> None:
    sink = RecordingSink()
    sink.failing = True
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring, audit=[sink])
    with pytest.raises(AuditError):
        operations(phi)[operation]()
    assert keyring.decrypts == 0


def test_rule_20_a_reader_keeps_the_actor_of_its_opening() -> None:
    sink = RecordingSink()
    phi = raw_client(audit=[sink])
    message = raw_client().encrypt(b"x", context=CONTEXT)
    with phi.acting_as(actor="dr-4711", purpose=Purpose.TREATMENT, recipient="lab-3"):
        reader = phi.decrypting_reader(io.BytesIO(message), context=CONTEXT)
    reader.read()
    reader.close()
    assert [(event.kind, event.actor, event.purpose, event.recipient) for event in sink.events] == [
        ("begin", "dr-4711", "treatment", "lab-3"),
        ("end", "dr-4711", "treatment", "lab-3"),
    ]


def test_rule_20_require_actor_refuses_uses_without_one() -> None:
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring, audit=[RecordingSink()], require_actor=True)
    for operation in operations(phi).values():
        with pytest.raises(AuditError, match="acting_as"):
            operation()
    assert (keyring.encrypts, keyring.decrypts) == (0, 0)
    with phi.acting_as("dr-4711"):
        assert phi.encrypt(b"x", context=CONTEXT)
    with pytest.raises(ConfigurationError):
        PhiCrypt(keyring, require_actor=True)


def test_rule_20_actor_and_purpose_never_enter_the_message() -> None:
    phi = raw_client(audit=[RecordingSink()])
    with phi.acting_as(actor="dr-4711", purpose=Purpose.TREATMENT):
        message = phi.encrypt(b"x", context=CONTEXT)
    assert b"4711" not in message
    assert phi.inspect(message).context_names == ("tenant",)


def test_phi_in_a_foreign_messages_context_is_withheld_from_the_trail() -> None:
    sink = RecordingSink()
    context = {"ssn": "123-45-6789", "987-65-4321": "x", "tenant": "clinic-7"}
    message = raw_client(guard=None).encrypt(b"x", context=context)
    raw_client(audit=[sink]).decrypt(message, context={"tenant": "clinic-7"})
    written = " ".join(event.to_json() for event in sink.events)
    assert "6789" not in written
    assert "4321" not in written
    assert "clinic-7" in written


def test_closing_writes_waiting_events_and_forgets_keys() -> None:
    sink = RecordingSink()
    with raw_client(audit=[sink]) as phi:
        phi.encrypt(b"x", context=CONTEXT)
    assert len(sink.events) == 1
    assert phi.cache.stats().entries == 0


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("size", [0, 1, 100, 64 * 1024, 5 * 1024 * 1024 + 3])
def test_buffers_of_the_caller_are_written_and_read(size: int, signed: bool) -> None:
    phi = raw_client(frame_length_bytes=64 * 1024, threads=2)
    plaintext = bytes(range(256)) * (size // 256) + bytes(size % 256)
    sealed = bytearray(size + 10_000)
    length = phi.encrypt_into(plaintext, sealed, context=CONTEXT, signed=signed)
    assert phi.decrypt(bytes(sealed[:length]), context=CONTEXT) == plaintext
    opened = bytearray(size)
    assert phi.decrypt_into(sealed[:length], opened, context=CONTEXT) == size
    assert opened == plaintext


def test_a_buffer_that_is_too_short_or_read_only_is_refused() -> None:
    phi = raw_client()
    message = phi.encrypt(bytes(100), context=CONTEXT, frame_length_bytes=64)
    for call in (
        lambda: phi.encrypt_into(bytes(100), bytearray(100), context=CONTEXT),
        lambda: phi.decrypt_into(message, bytearray(99), context=CONTEXT),
        lambda: phi.decrypt_into(message, memoryview(bytes(100)), context=CONTEXT),
    ):
        with pytest.raises(ConfigurationError, match="buffer"):
            call()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_rule_06_a_buffer_holds_nothing_of_a_message_that_does_not_verify(signed: bool, threads: int) -> None:
    phi = raw_client(frame_length_bytes=64 * 1024, threads=threads)
    size = 3 * 1024 * 1024
    message = bytearray(phi.encrypt(b"\xaa" * size, context=CONTEXT, signed=signed))
    message[-10] ^= 1
    buffer = bytearray(size)
    with pytest.raises(PhiCryptError):
        phi.decrypt_into(message, buffer, context=CONTEXT)
    assert buffer == bytes(size)


def test_two_threads_seal_and_open_what_one_opens_and_seals() -> None:
    one, two = raw_client(frame_length_bytes=64 * 1024), raw_client(frame_length_bytes=64 * 1024, threads=2)
    plaintext = bytes(range(256)) * (20 * 1024 + 1)
    assert one.decrypt(two.encrypt(plaintext, context=CONTEXT), context=CONTEXT) == plaintext
    message = one.encrypt(plaintext, context=CONTEXT)
    assert two.decrypt(message, context=CONTEXT) == plaintext
    for position in (1000, len(message) // 2, len(message) - 1):
        changed = message[:position] + bytes((message[position] ^ 1,)) + message[position + 1 :]
        with pytest.raises(PhiCryptError):
            two.decrypt(changed, context=CONTEXT)
    sink = io.BytesIO()
    two.encrypt_stream(io.BytesIO(plaintext), sink, context=CONTEXT)
    assert one.decrypt(sink.getvalue(), context=CONTEXT) == plaintext


@pytest.mark.parametrize("threads", [0, 65, 1.5, True])
def test_threads_outside_their_bounds_are_refused(threads: Any) -> None:
    with pytest.raises(ConfigurationError):
        raw_client(threads=threads)
