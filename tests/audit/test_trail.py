"""The trail: one event, or one linked pair, per use; who acted; what happens when a sink fails."""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.interrupts import Interrupted, interrupted_everywhere

from phicrypt import PhiCrypt, RawAesKeyring
from phicrypt.audit import (
    BUFFERED,
    WRITE_THROUGH,
    AuditEvent,
    AuditTrail,
    Delivery,
    JsonlSink,
    Purpose,
    WithPolicy,
    acting,
    acting_as,
    delivery,
)
from phicrypt.audit.events import format_time, parse_time
from phicrypt.audit.sinks.memory import LoggingSink, RecordingSink
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.errors import (
    AuditError,
    AuthenticationError,
    ConfigurationError,
    FormatError,
    KeyAccessError,
    PhiCryptError,
)
from phicrypt.evidence.join import whole_uses
from phicrypt.evidence.log_lines import read_records
from phicrypt.evidence.verify import verify

ORIGIN = KeyOrigin(
    "aws-kms",
    "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "material-1",
    ("request-1", "request-2"),
    "c" * 32,
)


class FailingSink:
    def __init__(self) -> None:
        self.broken = True
        self.events: list[AuditEvent] = []

    def write(self, events: Sequence[AuditEvent]) -> None:
        if self.broken:
            raise OSError(28, "No space left on device")
        self.events.extend(events)

    def close(self) -> None:
        pass


def test_a_sealed_message_leaves_one_event_with_every_field() -> None:
    sink = RecordingSink()
    trail = AuditTrail([sink], application="portal")
    with acting_as("dr-4711", Purpose.TREATMENT):
        trail.record(
            "encrypt",
            format="esdk",
            suite_id=0x0478,
            message_id=b"\x01" * 32,
            context={"tenant": "clinic-7"},
            origin=ORIGIN,
            cache_hit=False,
            byte_count=1024,
            started_ns=time.perf_counter_ns(),
        )
    trail.flush()
    (event,) = sink.events
    fields = json.loads(event.to_json())
    assert fields == {
        "time": format_time(event.time_ns),
        "use_id": event.use_id,
        "kind": "use",
        "operation": "encrypt",
        "outcome": "success",
        "format": "esdk",
        "suite": "0x0478",
        "message_id": "01" * 32,
        "provider": "aws-kms",
        "key": ORIGIN.key_id,
        "key_material": "material-1",
        "request_ids": ["request-1", "request-2"],
        "correlation_id": "c" * 32,
        "cache_hit": False,
        "context": {"tenant": "clinic-7"},
        "actor": "dr-4711",
        "purpose": "treatment",
        "application": "portal",
        "bytes": 1024,
        "duration_us": event.duration_us,
    }
    assert event.duration_us is not None
    assert AuditEvent.from_dict(fields) == event._replace(time_ns=event.time_ns // 1000 * 1000)


def test_times_are_utc_with_microseconds() -> None:
    assert format_time(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456Z"
    assert parse_time("2023-11-14T22:13:20.123456Z") == 1_700_000_000_123_456_000
    assert parse_time("2023-11-14T23:13:20.123456+01:00") == 1_700_000_000_123_456_000
    with pytest.raises(ValueError):
        parse_time("2023-11-14T22:13:20")


def test_rule_20_decrypt_writes_a_begin_record_before_and_a_linked_end_record_after() -> None:
    sink = RecordingSink()
    trail = AuditTrail([sink])
    use = trail.begin("decrypt", format="esdk", message_id=b"m", context={"tenant": "clinic-7"})
    assert [(event.kind, event.outcome) for event in sink.events] == [("begin", "begun")]
    use.end(origin=ORIGIN, cache_hit=True, byte_count=7)
    use.end(byte_count=99)
    begin, end = sink.events
    assert begin.use_id == end.use_id
    assert (end.kind, end.outcome, end.byte_count, end.origin, end.cache_hit) == (
        "end",
        "success",
        7,
        ORIGIN,
        True,
    )
    assert end.message_id == begin.message_id == b"m".hex()
    assert begin.byte_count is None


def test_rule_20_a_begin_record_that_cannot_be_written_stops_the_operation() -> None:
    with pytest.raises(AuditError) as caught:
        AuditTrail([FailingSink()]).begin("decrypt")
    assert isinstance(caught.value.__cause__, OSError)


def test_an_end_record_that_cannot_be_written_stops_the_release() -> None:
    sink = FailingSink()
    sink.broken = False
    use = AuditTrail([sink]).begin("decrypt")
    sink.broken = True
    with pytest.raises(AuditError):
        use.end(byte_count=3)


@pytest.mark.parametrize(
    ("error", "outcome", "name", "reason"),
    [
        (AuthenticationError("frame tag"), "failed", "AuthenticationError", "frame tag"),
        (FormatError("secret text", field="header"), "failed", "FormatError", None),
        (
            KeyAccessError("no", operation="Decrypt", code="AccessDeniedException"),
            "denied",
            "KeyAccessError",
            None,
        ),
        (KeyAccessError("no", operation="Decrypt", code="ReadTimeoutError"), "failed", "KeyAccessError", None),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt", None),
        (GeneratorExit(), "interrupted", "GeneratorExit", None),
        (asyncio.CancelledError(), "interrupted", "CancelledError", None),
        (TimeoutError("secret text"), "failed", "TimeoutError", None),
    ],
)
def test_failures_and_interruptions_are_told_by_class_and_never_by_message(
    error: BaseException, outcome: str, name: str, reason: str | None
) -> None:
    sink = RecordingSink()
    with pytest.raises(type(error)), AuditTrail([sink]).begin("decrypt"):
        raise error
    end = sink.events[-1]
    assert (end.outcome, end.error) == (outcome, name)
    assert end.reason == (getattr(error, "code", None) or reason)
    assert "secret" not in end.to_json()


def test_an_interruption_wins_over_a_sink_that_fails() -> None:
    sink = FailingSink()
    sink.broken = False
    use = AuditTrail([sink]).begin("decrypt")
    sink.broken = True
    with pytest.raises(KeyboardInterrupt), use:
        raise KeyboardInterrupt


def test_an_interruption_wins_over_a_sink_that_fails_for_a_whole_use_too() -> None:
    trail = AuditTrail([FailingSink()], encrypt_policy=WRITE_THROUGH)
    trail.record("encrypt", error=KeyboardInterrupt())
    with pytest.raises(AuditError):
        trail.record("encrypt", error=ValueError())


@pytest.mark.parametrize("stored", [True, False])
def test_an_interruption_while_a_record_is_written_loses_neither_begin_nor_end(stored: bool) -> None:
    class Interrupted(RecordingSink):
        interruptions = 1

        def write(self, events: Sequence[AuditEvent]) -> None:
            if stored or not self.interruptions:
                super().write(events)
            if self.interruptions:
                self.interruptions -= 1
                raise KeyboardInterrupt

    sink = Interrupted()
    trail = AuditTrail([sink])
    with pytest.raises(KeyboardInterrupt):
        trail.begin("decrypt")
    gc.collect()
    trail.flush()
    assert {(event.kind, event.outcome) for event in sink.events} == {("begin", "begun"), ("end", "interrupted")}
    assert len({event.use_id for event in sink.events}) == 1
    use = trail.begin("decrypt")
    sink.interruptions = 1
    with pytest.raises(KeyboardInterrupt):
        use.end(byte_count=3)
    trail.flush()
    assert [event.outcome for event in whole_uses(sink.events)] == ["interrupted", "success"]


def test_an_abandoned_use_ends_as_interrupted() -> None:
    sink = RecordingSink()
    trail = AuditTrail([sink])
    use = trail.begin("decrypt_stream")
    del use
    gc.collect()
    trail.flush()
    assert [event.outcome for event in sink.events] == ["begun", "interrupted"]


def test_rule_20_a_use_whose_end_was_interrupted_before_its_record_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    sink = RecordingSink()
    trail = AuditTrail([sink])
    use = trail.begin("decrypt")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(type(use), "_event", interrupted)
        use.end()
    del use
    gc.collect()
    trail.flush()
    assert [event.outcome for event in sink.events] == ["begun", "interrupted"]


def test_rule_20_the_actor_is_captured_when_a_use_begins_and_carried_explicitly() -> None:
    sink = RecordingSink()
    trail = AuditTrail([sink])
    with acting_as("dr-1", "treatment"):
        use = trail.begin("decrypt_stream")
        token = trail.capture()
    with acting_as("dr-2", "payment"):
        use.end()
        thread = threading.Thread(target=lambda: trail.begin("part", captured=token).end())
        thread.start()
        thread.join()
    assert {event.actor for event in sink.events} == {"dr-1"}
    assert {event.purpose for event in sink.events} == {"treatment"}


def test_threads_and_tasks_keep_their_own_actor() -> None:
    sink = RecordingSink()
    trail = AuditTrail([sink])

    def work(name: str) -> None:
        with acting_as(name):
            time.sleep(0.001)
            trail.begin(name).end()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [f"thread-{number}" for number in range(20)]))

    async def task(name: str) -> None:
        with acting_as(name):
            await asyncio.sleep(0.001)
            trail.begin(name).end()

    async def tasks() -> None:
        await asyncio.gather(*(task(f"task-{number}") for number in range(20)))

    asyncio.run(tasks())
    assert len(sink.events) == 80
    assert all(event.actor == event.operation for event in sink.events)


def test_rule_20_require_actor_refuses_uses_without_one() -> None:
    sink = RecordingSink()
    trail = AuditTrail([sink], require_actor=True)
    for attempt in (lambda: trail.begin("decrypt"), lambda: trail.record("encrypt"), trail.check_actor):
        with pytest.raises(AuditError):
            attempt()
    assert sink.events == []
    with acting_as("dr-1"):
        trail.begin("decrypt").end()


def test_rule_20_an_interrupt_on_the_way_in_leaves_no_actor_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = acting._acting

    class Interrupted:
        """A signal comes right after the actor was set."""

        get, reset = staticmethod(variable.get), staticmethod(variable.reset)

        @staticmethod
        def set(value: acting.Acting) -> None:
            variable.set(value)
            raise KeyboardInterrupt

    trail = AuditTrail([RecordingSink()], require_actor=True)
    monkeypatch.setattr(acting, "_acting", Interrupted)
    with pytest.raises(KeyboardInterrupt), acting_as("dr-1"):
        pass
    with pytest.raises(AuditError):
        trail.begin("decrypt")


@pytest.mark.parametrize("actor", ["", "  ", "a\nb", "x" * 257, 7])
def test_acting_as_refuses_what_is_no_actor(actor: str) -> None:
    with pytest.raises(ConfigurationError), acting_as(actor):
        pass


@pytest.mark.parametrize("recipient", ["", "a\nb", "\ud800", 7])
def test_acting_as_refuses_what_is_no_recipient(recipient: str) -> None:
    with pytest.raises(ConfigurationError), acting_as("dr-1", recipient=recipient):
        pass


def test_acting_as_refuses_unknown_purposes() -> None:
    with pytest.raises(ConfigurationError), acting_as("dr-1", "curiosity"):
        pass


@pytest.mark.parametrize("kind", ["flush", "write"])
def test_an_interrupt_loses_no_event_that_waits(kind: str) -> None:
    names = [f"encrypt-{number}" for number in range(3)]

    def run(interrupted: Interrupted) -> None:
        sink = RecordingSink()
        trail = AuditTrail([sink], encrypt_policy=Delivery(max_buffered_events=1000, max_delay_seconds=60))
        for name in names:
            trail.record(name)
        interrupted(trail.flush if kind == "flush" else lambda: trail.record("decrypt", opening=True))
        trail.flush()
        written = [event.operation for event in sink.events if event.operation != "decrypt"]
        assert written in (names, names + names)  # twice, if it came between the write and the count

    assert interrupted_everywhere(delivery, run) > 2


def test_buffered_events_are_written_soon_and_in_order() -> None:
    sink = RecordingSink()
    trail = AuditTrail([sink], encrypt_policy=Delivery(max_buffered_events=1000, max_delay_seconds=0.01))
    for number in range(10):
        trail.record(f"encrypt-{number}")
    deadline = time.monotonic() + 10
    while len(sink.events) < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [event.operation for event in sink.events] == [f"encrypt-{number}" for number in range(10)]


def test_buffered_events_are_written_before_the_next_one_that_is_written_through() -> None:
    sink = RecordingSink()
    trail = AuditTrail([sink], encrypt_policy=Delivery(max_buffered_events=1000, max_delay_seconds=60))
    trail.record("encrypt")
    trail.begin("decrypt").end()
    assert [event.operation for event in sink.events] == ["encrypt", "decrypt", "decrypt"]


def test_a_failing_sink_stops_encryption_only_when_the_buffer_is_full() -> None:
    sink = FailingSink()
    trail = AuditTrail(
        [sink], encrypt_policy=Delivery(max_buffered_events=5, max_delay_seconds=60, batch_events=2)
    )
    for number in range(5):
        trail.record(f"encrypt-{number}")
    with pytest.raises(AuditError):
        trail.record("encrypt-5")
    with pytest.raises(AuditError):
        trail.flush()
    sink.broken = False
    trail.record("encrypt-6")
    trail.flush()
    assert [event.operation for event in sink.events] == [f"encrypt-{number}" for number in (0, 1, 2, 3, 4, 6)]


def test_each_sink_can_have_its_own_policy() -> None:
    failing, sink = FailingSink(), RecordingSink()
    trail = AuditTrail([WithPolicy(failing, decrypt_policy=BUFFERED), sink])
    trail.begin("decrypt").end()
    assert len(sink.events) == 2
    failing.broken = False
    trail.flush()
    assert len(failing.events) == 2


def test_what_is_no_sink_is_refused() -> None:
    for sinks in ([], [object()]):
        with pytest.raises(ConfigurationError):
            AuditTrail(sinks)  # type: ignore[arg-type]
    for policy in ({"max_buffered_events": -1}, {"max_delay_seconds": 0}, {"batch_events": 0}):
        with pytest.raises(ConfigurationError):
            Delivery(**policy)


def test_a_sink_may_itself_be_audited() -> None:
    inner = RecordingSink()
    trail: AuditTrail

    class EncryptingSink(RecordingSink):
        def write(self, events: Sequence[AuditEvent]) -> None:
            super().write(events)
            if events[0].operation != "seal-log":
                trail.record("seal-log", opening=True)

    sink = EncryptingSink()
    trail = AuditTrail([sink, inner])
    trail.begin("decrypt").end()
    assert [event.operation for event in inner.events].count("seal-log") == 2


def _child_uses(trail: AuditTrail, count: int) -> None:
    for _ in range(count):
        trail.record("child")
    os.kill(os.getpid(), 0)


def test_a_forked_child_writes_its_own_events_and_not_the_parents(tmp_path: Path) -> None:
    trail = AuditTrail(
        [JsonlSink(tmp_path / "audit.jsonl")],
        encrypt_policy=Delivery(max_buffered_events=1000, max_delay_seconds=60),
    )
    trail.record("parent")
    use = trail.begin("parent-stream", sealing=True)
    child = multiprocessing.get_context("fork").Process(target=_child_uses, args=(trail, 10))
    child.start()
    child.join()
    assert child.exitcode == 0
    use.end()
    trail.close()
    operations = [record.fields["operation"] for record in read_records(tmp_path / "audit.jsonl")]
    assert operations.count("parent") == 1
    assert operations.count("parent-stream") == 2
    assert operations.count("child") == 10
    assert len({record.fields["use_id"] for record in read_records(tmp_path / "audit.jsonl")}) == 14
    assert verify(tmp_path / "audit.jsonl").is_valid


def test_events_are_written_when_the_interpreter_ends(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=_record_and_leave, args=(str(tmp_path / "audit.jsonl"),))
    child.start()
    child.join()
    operations = [record.fields["operation"] for record in read_records(tmp_path / "audit.jsonl")]
    assert operations.count("child") == 5


def _record_and_leave(path: str) -> None:
    trail = AuditTrail([JsonlSink(path)], encrypt_policy=Delivery(max_buffered_events=1000, max_delay_seconds=60))
    for _ in range(5):
        trail.record("child")


def test_logging_sink_logs_one_line_of_json_per_event(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="phicrypt.audit.events"):
        AuditTrail([LoggingSink()]).begin("decrypt").end()
    assert [json.loads(record.message)["kind"] for record in caplog.records] == ["begin", "end"]


def test_audit_errors_belong_to_the_tree_of_errors() -> None:
    assert issubclass(AuditError, PhiCryptError)


def test_flush_writes_what_waits_and_keeps_cached_keys() -> None:
    sink = RecordingSink()
    trail = AuditTrail([sink], encrypt_policy=Delivery(max_buffered_events=10, max_delay_seconds=60))
    phi = PhiCrypt(RawAesKeyring("clinic", "k1", bytes(32)), audit=trail)
    phi.encrypt(b"x")
    waiting = len(sink.events)
    phi.flush()
    assert (waiting, [event.operation for event in sink.events]) == (0, ["encrypt"])
    phi.encrypt(b"y")
    phi.flush()
    assert sink.events[-1].cache_hit
    PhiCrypt(RawAesKeyring("clinic", "k1", bytes(32))).flush()


def test_flush_says_that_a_sink_does_not_take_what_waits() -> None:
    phi = PhiCrypt(RawAesKeyring("clinic", "k1", bytes(32)), audit=[FailingSink()])
    phi.encrypt(b"x")
    with pytest.raises(AuditError, match="FailingSink"):
        phi.flush()
