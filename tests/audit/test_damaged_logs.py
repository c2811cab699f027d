"""Logs that were damaged or thinned out: no question is answered as if they were whole."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from support.true_evidence import KEY_ARN, Evidence, true_evidence

from phicrypt.audit import JsonlSink
from phicrypt.audit.events import AuditEvent
from phicrypt.audit.sinks.jsonl import rotated_segments
from phicrypt.cli import run
from phicrypt.evidence.join import log_events
from phicrypt.evidence.log_lines import LogReading, read_records
from phicrypt.evidence.verify import verify

Damage = Callable[[list[bytes]], bytes]


@pytest.fixture(scope="module")
def base() -> Evidence:
    return true_evidence()


def whole(lines: list[bytes]) -> bytes:
    return b"".join(lines)


def codes(log: Path) -> set[int]:
    option = ("--log", str(log))
    return {
        run(["audit", *command])
        for command in (
            ("disclosures", *option),
            ("actor", "dr-1", *option, "--json"),
            ("who", *option, "--resource", "rt1-none"),
            ("incident", *option, "--key", KEY_ARN, "--from", "2026-01-01"),
            ("break-glass", *option),
        )
    }


UNREADABLE: dict[str, Damage] = {
    "a foreign file without a line feed": lambda lines: b"not a log",
    "bytes of a program": lambda lines: bytes(range(11, 256)) * 3,
    "UTF-16 without a line feed": lambda lines: "not a log".encode("utf-16"),
    "zeros at the end, as a power loss leaves": lambda lines: whole(lines) + bytes(4_096),
    "other bytes at the end": lambda lines: whole(lines) + b"garbage",
    "half a foreign JSON line at the end": lambda lines: whole(lines) + b'{"time": "2026',
    "a damaged line within a gzip": lambda lines: gzip.compress(
        whole(lines[:3]) + b"garbage\n" + whole(lines[3:])
    ),
    "bytes behind a gzip": lambda lines: gzip.compress(whole(lines)) + b"xx",
    "two records on one line": lambda lines: whole(lines[:3])[:-1] + whole(lines[3:]),
    "a torn write of another predecessor": lambda lines: (
        whole(lines[:5]) + lines[5].replace(b'"previous":"', b'"previous":"0')[:200] + b"\n" + whole(lines[5:])
    ),
    "a chain that is no text": lambda lines: whole(lines) + b'{"phicrypt-audit":1,"chain":"",' + lines[1][62:],
}
ALTERED: dict[str, Damage] = {
    "another actor": lambda lines: whole(lines).replace(b'"actor":"dr-', b'"actor":"mr-', 1),
    "a flipped digit of a hash": lambda lines: whole([*lines[:4], lines[4][:-4] + b'g"}\n', *lines[5:]]),
    "a record less": lambda lines: whole(lines[:5] + lines[6:]),
    "the first records less": lambda lines: whole(lines[3:]),
    "a record twice": lambda lines: whole([*lines[:5], lines[4], *lines[5:]]),
    "two records exchanged": lambda lines: whole([*lines[:5], lines[6], lines[5], *lines[7:]]),
    "half a record, and the next on its line": lambda lines: whole([*lines[:3], lines[3][:200], *lines[4:]]),
}


@pytest.mark.parametrize("damage", UNREADABLE)
def test_rule_25_what_is_no_record_is_not_read_wherever_it_stands(
    base: Evidence, tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "audit.jsonl"
    log.write_bytes(UNREADABLE[damage](base.lines()))
    assert codes(log) == {12}
    assert "audit.jsonl:" in capfd.readouterr().err
    assert run(["audit", "verify", str(log)]) == 1


@pytest.mark.parametrize("damage", ALTERED)
def test_rule_25_a_question_to_a_log_that_was_altered_says_so(
    base: Evidence, tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "audit.jsonl"
    log.write_bytes(ALTERED[damage](base.lines()))
    assert codes(log) == {1}
    error = capfd.readouterr().err
    assert "BROKEN" in error
    assert "audit.jsonl:" in error
    assert run(["audit", "verify", str(log)]) == 1


def test_records_that_lost_their_line_feed_are_both_answered(base: Evidence, tmp_path: Path) -> None:
    lines = base.lines()
    log = tmp_path / "audit.jsonl"
    log.write_bytes(whole(lines).replace(b"}\n", b"}"))
    reading = LogReading()
    assert len(list(read_records(log, reading))) == len(lines)
    assert reading.unread == len(lines) - 1


def test_what_a_crash_leaves_is_no_damage(base: Evidence, tmp_path: Path) -> None:
    lines = base.lines()
    log = tmp_path / "audit.jsonl"
    for kept in (1, 5, 40, 200, len(lines[-1]) - 1):
        log.write_bytes(whole(lines[:-1]) + lines[-1][:kept])
        assert codes(log) == {0}, kept
        assert verify(log).is_valid


def test_rule_25_a_rotated_segment_that_is_gone_is_not_read(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    sink = JsonlSink(log)
    for number in range(6):
        sink.write([AuditEvent(number, "use", f"u-{number}", "encrypt", "success")])
        sink.rotate()
    sink.close()
    assert codes(log) == {0}
    rotated_segments(log)[0].path.unlink()
    reading = LogReading()
    assert 0 < len(list(log_events(log, reading))) < 6
    assert reading.unread == 1
    assert codes(log) == {12}


def test_rule_25_a_cut_gzip_is_not_explained_by_the_file_behind_it(base: Evidence, tmp_path: Path) -> None:
    folder = tmp_path / "segments"
    folder.mkdir()
    lines = base.lines()
    (folder / "1.jsonl.gz").write_bytes(gzip.compress(whole(lines[:9]))[:-30])
    (folder / "2.jsonl").write_bytes(whole(lines[9:]))
    reading = LogReading()
    list(read_records(folder, reading))
    assert (reading.unread, reading.torn) == (1, 0)
