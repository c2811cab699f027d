"""The hash chain in a file: what verification names, and what survives crashes and full disks."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.interrupts import Interrupted, interrupted_everywhere

from phicrypt.audit import AuditTrail, JsonlSink, jsonl
from phicrypt.audit.delivery import SinkError
from phicrypt.audit.events import AuditEvent
from phicrypt.audit.sinks.chain import ChainHead
from phicrypt.audit.sinks.jsonl import manifest_path
from phicrypt.errors import AuditError, ConfigurationError
from phicrypt.evidence.log_lines import read_records
from phicrypt.evidence.verify import verify

SECONDS = float(os.environ.get("PHICRYPT_AUDIT_SECONDS", "2"))
KILLS = int(os.environ.get("PHICRYPT_AUDIT_KILLS", "8"))


def event(number: int) -> AuditEvent:
    return AuditEvent(
        1_700_000_000_000_000_000 + number, "use", f"u-{number}", "encrypt", "success", byte_count=number
    )


def write_log(path: Path, count: int = 10) -> list[bytes]:
    sink = JsonlSink(path)
    for number in range(count):
        sink.write([event(number)])
    sink.close()
    return path.read_bytes().splitlines(keepends=True)


def test_each_line_carries_the_hash_of_the_one_before(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in write_log(tmp_path / "audit.jsonl")]
    assert [line["sequence"] for line in lines] == list(range(11))
    assert [line["previous"] for line in lines] == ["0" * 64, *(line["sha256"] for line in lines[:-1])]
    assert [line["event"]["kind"] for line in lines] == ["chain-start"] + ["use"] * 10
    result = verify(tmp_path / "audit.jsonl")
    assert result.is_valid
    assert result.records == 11
    assert os.stat(tmp_path / "audit.jsonl").st_mode & 0o777 == 0o600


@pytest.fixture(scope="module")
def intact_log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    return path, write_log(path)


@settings(max_examples=int(os.environ.get("PHICRYPT_FUZZ_CASES", "200")), deadline=None)
@given(data=st.data())
def test_any_line_changed_removed_inserted_or_moved_is_named(
    intact_log: tuple[Path, list[bytes]], data: st.DataObject
) -> None:
    path, lines = intact_log
    at = data.draw(st.integers(0, len(lines) - 1))
    what = data.draw(st.sampled_from(["change", "remove", "insert", "swap", "garbage"]))
    changed = list(lines)
    broken_at = at
    if what == "change":
        position = data.draw(st.integers(0, len(lines[at]) - 2))
        altered = bytearray(lines[at])
        altered[position] ^= data.draw(st.integers(1, 127))
        changed[at] = bytes(altered)
    elif what == "remove":
        if at == len(lines) - 1:
            return  # cutting the end is what anchors are for
        del changed[at]
    elif what == "insert":
        changed.insert(at + 1, lines[data.draw(st.integers(0, at))])
        broken_at = at + 1
    elif what == "swap":
        other = data.draw(st.integers(0, len(lines) - 1).filter(lambda index: index != at))
        changed[at], changed[other] = changed[other], changed[at]
        broken_at = min(at, other)
    else:
        changed[at] = b"garbage\n"
    path.write_bytes(b"".join(changed))
    result = verify(path)
    assert not result.is_valid
    line_feed_changed = b"".join(changed).splitlines(keepends=True) != changed
    if not line_feed_changed:
        assert result.faults[0].place.line in (broken_at + 1, broken_at + 2)


def test_a_value_changed_in_a_record_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    lines = write_log(path)
    path.write_bytes(b"".join([*lines[:4], lines[4].replace(b'"encrypt"', b'"decrypt"'), *lines[5:]]))
    result = verify(path)
    assert (result.faults[0].place.line, result.faults[0].sequence) == (5, 4)
    assert "changed" in result.faults[0].what
    assert "audit.jsonl:5" in result.what_it_proves()


def rewrite(lines: list[bytes], number: int) -> list[bytes]:
    """What an intruder does who knows the format: change one record, and recompute the rest."""
    import hashlib

    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    records[number]["event"]["operation"] = "nothing to see"
    for index in range(number, len(records)):
        if index:
            records[index]["previous"] = records[index - 1]["sha256"]
        del records[index]["sha256"]
        body = json.dumps(records[index], separators=(",", ":"))[:-1]
        records[index]["sha256"] = hashlib.sha256(body.encode()).hexdigest()
    return [json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in records]


def test_rule_21_a_recomputed_log_verifies_alone_and_fails_against_its_anchors(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    lines = write_log(path)
    anchors = [ChainHead(record.chain_id, record.sequence, record.sha256) for record in read_records(path)][3::4]
    honest = verify(path, anchors=anchors)
    assert honest.is_valid
    assert honest.anchors_confirmed == len(anchors) == 2
    path.write_bytes(b"".join(rewrite(lines, 2)))
    alone = verify(path)
    assert alone.is_valid
    assert "not show that the log was not rewritten" in alone.what_it_proves()
    result = verify(path, anchors=anchors)
    assert not result.is_valid
    assert result.faults[0].sequence == 3
    assert "rewritten" in result.faults[0].what


def test_rule_21_a_truncated_log_fails_against_its_anchors(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    lines = write_log(path)
    head = [ChainHead(record.chain_id, record.sequence, record.sha256) for record in read_records(path)][-1]
    path.write_bytes(b"".join(lines[:-1]))
    assert verify(path).is_valid
    result = verify(path, anchors=[head])
    assert not result.is_valid
    assert "truncated" in result.faults[0].what


def test_rule_21_what_lies_after_the_last_anchor_is_reported_as_unanchored(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path)
    records = list(read_records(path))
    anchor = ChainHead(records[6].chain_id, 6, records[6].sha256)
    result = verify(path, anchors=[anchor])
    assert result.is_valid
    assert result.chains[anchor.chain_id].unanchored == 4
    assert "4 records lie after the last anchor" in result.what_it_proves()


def test_rule_21_two_different_anchors_of_one_record_are_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path)
    record = list(read_records(path))[6]
    anchors = [ChainHead(record.chain_id, 6, record.sha256), ChainHead(record.chain_id, 6, "f" * 64)]
    assert not verify(path, anchors=anchors).is_valid


def test_anchors_of_a_chain_that_is_gone_are_reported_and_can_be_demanded(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path)
    foreign = ChainHead("a" * 32, 5, "b" * 64)
    assert verify(path, anchors=[foreign]).unknown_anchors == [foreign]
    assert verify(path, anchors=[foreign], expect_all_chains=False).is_valid
    assert not verify(path, anchors=[foreign], expect_all_chains=True).is_valid


def test_a_whole_chain_removed_before_another_is_named(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path, 3)
    write_log(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    assert verify(path).is_valid
    path.write_bytes(b"".join(lines[4:]))
    result = verify(path)
    assert "missing" in result.faults[0].what


@pytest.mark.parametrize("kept", [1, 30, 200])
def test_a_torn_last_line_is_recovered_and_recorded(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "audit.jsonl"
    lines = write_log(path)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
    torn = verify(path)
    assert torn.is_valid
    assert [place.line for place in torn.torn] == [11]
    write_log(path, 2)
    records = list(read_records(path))
    start = [record for record in records if record.fields["kind"] == "chain-start"][1]
    assert start.fields["detail"]["recovered_bytes"] == kept
    assert start.fields["detail"]["follows"] == records[9].sha256
    result = verify(path)
    assert result.is_valid
    assert [place.line for place in result.torn] == [11]


def test_a_process_that_goes_on_behind_anothers_torn_line_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    living = JsonlSink(path)
    living.write([event(0)])
    dying = JsonlSink(path)
    dying.write([event(1)])
    dying.close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines) + lines[-1].replace(b'"sequence":1', b'"sequence":2')[:200])
    living.write([event(2)])
    result = verify(path)
    assert result.is_valid
    assert len(result.torn) == 1
    assert [record.fields["use_id"] for record in read_records(path) if record.fields["kind"] == "use"] == [
        "u-0",
        "u-1",
        "u-2",
    ]


class FullDisk:
    """os.write that takes only some bytes, then none, then all."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.real = os.write

    def __call__(self, descriptor: int, payload: bytes) -> int:
        if self.capacity <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.real(descriptor, payload[: self.capacity])
        self.capacity -= written
        return written


@pytest.mark.parametrize("capacity", [0, 1, 300, 700, 1500])
def test_a_full_disk_stops_the_operation_and_the_chain_goes_on_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capacity: int
) -> None:
    path = tmp_path / "audit.jsonl"
    sink = JsonlSink(path)
    sink.write([event(0)])
    disk = FullDisk(capacity)
    monkeypatch.setattr("phicrypt.audit.sinks.jsonl.os.write", disk)
    with pytest.raises(SinkError) as caught:
        sink.write([event(number) for number in range(1, 10)])
    stored = caught.value.written
    disk.capacity = 1_000_000
    sink.write([event(number) for number in range(1 + stored, 10)])
    assert [record.fields["bytes"] for record in read_records(path) if record.fields["kind"] == "use"] == list(
        range(10)
    )
    result = verify(path)
    assert result.is_valid
    assert len(result.chains) == 1


def test_a_full_disk_when_the_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    disk = FullDisk(50)
    sink = JsonlSink(path)
    with monkeypatch.context() as patch:
        patch.setattr("phicrypt.audit.sinks.jsonl.os.write", disk)
        with pytest.raises(SinkError) as caught:
            sink.write([event(0)])
        assert caught.value.written == 0
    sink.write([event(0)])
    assert verify(path).is_valid


def test_an_unwritable_file_stops_decryption_before_plaintext(tmp_path: Path) -> None:
    with pytest.raises(AuditError):
        AuditTrail([JsonlSink(tmp_path / "missing" / "audit.jsonl")]).begin("decrypt")
    with pytest.raises(AuditError):
        AuditTrail([JsonlSink(tmp_path)]).begin("decrypt")


def test_an_interrupt_while_the_file_is_closed_lets_no_event_into_another_file(tmp_path: Path) -> None:
    def run(interrupted: Interrupted) -> None:
        sink = JsonlSink(tmp_path / "audit.jsonl")
        sink.write([event(1)])
        interrupted(sink.close)
        with open(tmp_path / "record", "wb") as file:  # may get the number of the closed one
            sink.write([event(2)])
            assert os.fstat(file.fileno()).st_size == 0
        sink.close()

    assert interrupted_everywhere(jsonl, run) > 0


def test_an_interruption_in_mid_write_leaves_valid_chains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.jsonl"
    sink = JsonlSink(path)
    sink.write([event(0)])
    real = os.write

    def interrupted(descriptor: int, payload: bytes) -> int:
        real(descriptor, payload)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("phicrypt.audit.sinks.jsonl.os.write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sink.write([event(1)])
    sink.write([event(2)])
    assert verify(path).is_valid


def test_an_interruption_while_the_file_is_closed_leaves_a_sink_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor that was closed and not forgotten soon names another file."""
    path = tmp_path / "audit.jsonl"
    sink = JsonlSink(path)
    sink.write([event(0)])
    real = os.close

    def interrupted(descriptor: int) -> None:
        real(descriptor)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("phicrypt.audit.sinks.jsonl.os.close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sink.close()
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    sink.write([event(1)])
    assert os.fstat(other).st_size == 0
    os.close(other)
    assert verify(path).is_valid
    assert [record.fields["use_id"] for record in read_records(path) if record.fields["kind"] == "use"] == [
        "u-0",
        "u-1",
    ]


def test_a_signal_handler_in_mid_write_neither_hangs_nor_loses_its_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    sink = JsonlSink(path)
    sink.write([event(0)])
    real = os.write
    signals = iter([True])

    def signalled(descriptor: int, payload: bytes) -> int:
        if next(signals, False):
            sink.write([event(2)])  # what a handler would do, in the same thread
        return real(descriptor, payload)

    monkeypatch.setattr("phicrypt.audit.sinks.jsonl.os.write", signalled)
    sink.write([event(1)])
    uses = [record.fields["use_id"] for record in read_records(path) if record.fields["kind"] == "use"]
    assert uses == ["u-0", "u-1", "u-2"]
    assert verify(path).is_valid


def test_rotation_lists_segments_and_chains_go_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = JsonlSink(path, max_segment_bytes=20_000)
    for number in range(2_000):
        sink.write([event(number)])
    sink.rotate()
    sink.write([event(2_000)])
    segments = [json.loads(line)["segment"] for line in manifest_path(path).read_text().splitlines()]
    assert len(segments) > 3
    assert sorted(segments) == sorted(file.name for file in tmp_path.glob("audit.*Z.jsonl"))
    result = verify(path)
    assert result.is_valid
    assert len(result.chains) == 1
    assert result.records == 2_002
    (tmp_path / segments[1]).unlink()
    assert "missing" in verify(path).faults[0].what


@pytest.mark.parametrize("removed", [0, 1, 2])
@pytest.mark.parametrize("manifest", ["kept", "edited"])
def test_a_whole_segment_removed_is_named_where_no_chain_goes_on_behind_it(
    tmp_path: Path, removed: int, manifest: str
) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(3):
        sink = JsonlSink(path)
        sink.write([event(number) for number in range(3)])
        sink.rotate()
        sink.close()
    write_log(path, 3)
    assert verify(path).is_valid
    listed = manifest_path(path).read_text().splitlines(keepends=True)
    (tmp_path / json.loads(listed[removed])["segment"]).unlink()
    if manifest == "edited":
        manifest_path(path).write_text("".join(listed[:removed] + listed[removed + 1 :]))
    result = verify(path)
    assert not result.is_valid
    assert "missing" in result.faults[0].what


def test_a_segment_that_a_crash_left_listed_and_not_renamed_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = JsonlSink(path)
    sink.write([event(number) for number in range(3)])
    sink.rotate()
    (listed,) = manifest_path(path).read_text().splitlines()
    (tmp_path / json.loads(listed)["segment"]).rename(path)
    assert verify(path).is_valid


def test_two_processes_rotating_one_file_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_write_rotating, args=(path, number)) for number in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    result = verify(path)
    assert result.is_valid, result.faults[:3]
    assert len(result.chains) == 2
    assert result.records == 2 * 3_001
    assert len(manifest_path(path).read_text().splitlines()) > 3


def _write_rotating(path: Path, number: int) -> None:
    sink = JsonlSink(path, max_segment_bytes=100_000)
    for index in range(3_000):
        sink.write([event(number * 3_000 + index)])


def test_eight_processes_with_four_threads_leave_one_valid_chain_each_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = JsonlSink(path)
    sink.write([event(0)])
    context = multiprocessing.get_context("fork")
    counts = context.Queue()
    children = [context.Process(target=_write_in_threads, args=(sink, counts)) for _ in range(8)]
    for child in children:
        child.start()
    expected = sum(counts.get() for _ in children)
    for child in children:
        child.join()
        assert child.exitcode == 0
    result = verify(path)
    assert result.is_valid, result.faults[:3]
    assert not result.torn
    assert len(result.chains) == 9
    written = [record.fields["use_id"] for record in read_records(path) if record.fields["kind"] == "use"]
    assert len(written) == len(set(written)) == expected + 1
    assert expected > 1_000


def _write_in_threads(sink: JsonlSink, counts: Any) -> None:
    until = time.monotonic() + SECONDS
    totals = [0] * 4

    def write(thread: int) -> None:
        while time.monotonic() < until:
            number = totals[thread]
            use = f"{os.getpid()}-{thread}-{number}"
            sink.write([event(number)._replace(use_id=use)])
            totals[thread] += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts.put(sum(totals))


def test_kill_at_random_moments_loses_at_most_the_event_being_written(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("fork")
    generator = random.Random(7)
    for round_number in range(KILLS):
        reader, writer = os.pipe()
        child = context.Process(target=_write_until_killed, args=(path, round_number, writer))
        child.start()
        os.close(writer)
        os.read(reader, 1)
        time.sleep(generator.uniform(0, 0.03))
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        with os.fdopen(reader, "rb") as pipe:
            confirmed = pipe.read().count(b"\n")
        kept = [
            int(record.fields["use_id"].rpartition("-")[2])
            for record in read_records(path)
            if record.fields["use_id"].startswith(f"r{round_number}-")
        ]
        # Everything that was confirmed is there, and at most the one event that was being written besides.
        assert kept == list(range(len(kept)))
        assert confirmed <= len(kept) <= confirmed + 1
    result = verify(path)
    assert result.is_valid, result.faults[:3]
    assert KILLS // 2 <= len(result.chains) <= KILLS  # on a busy machine some die before they write


def _write_until_killed(path: Path, round_number: int, writer: int) -> None:
    sink = JsonlSink(path)
    os.set_blocking(writer, True)
    number = 0
    os.write(writer, b".")
    while True:
        sink.write([event(number)._replace(use_id=f"r{round_number}-{number}")])
        os.write(writer, b"\n")
        number += 1
        time.sleep(0.00002)


def test_a_log_full_of_fragments_is_verified_in_linear_time(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path, 4_000)
    records = path.read_bytes()
    path.write_bytes(b'{"phicrypt-audit":1,"chain":"0123\n' * 10_000 + records)
    started = time.process_time()
    result = verify(path)
    assert time.process_time() - started < 10
    assert (result.fault_count, result.records) == (10_000, 4_001)
    assert result.faults[0].place.line == 1


def test_the_first_broken_line_is_named_before_a_thousand_others(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path, 1_500)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"changed\n" + b"".join(reversed(lines[1:])))
    result = verify(path)
    assert result.fault_count > 1_000
    assert result.faults[0].place.line == 1


def test_a_missing_log_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        verify(tmp_path / "none.jsonl")


def test_rule_26_hostile_logs_are_faults_and_never_crashes(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    line = write_log(path, 1)[0]
    for content in (
        b"\x00\xff" * 1000,
        b'{"phicrypt-audit":1,"chain":"' * 50 + b"\n",
        line.replace(b'"sequence":0', b'"sequence":"0"'),
        line.replace(b'"event":{', b'"event":[{'),
        b"[" * 100_000 + b"\n",
        b"x" * 3_000_000,
    ):
        path.write_bytes(line + content + b"\n" + line)
        assert not verify(path).is_valid


@pytest.mark.parametrize("number", [1, 5, 9])
def test_rule_21_a_record_exchanged_for_one_with_a_hash_of_its_own_is_named(tmp_path: Path, number: int) -> None:
    """An edit that recomputes one line and not those behind it: every line is intact by itself."""
    path = tmp_path / "audit.jsonl"
    lines = write_log(path)
    path.write_bytes(b"".join([*lines[:number], rewrite(lines, number)[number], *lines[number + 1 :]]))
    result = verify(path)
    assert not result.is_valid
    assert len(result.faults) == 1
    assert result.faults[0].place.line == number + 2
    assert "does not follow" in result.faults[0].what
