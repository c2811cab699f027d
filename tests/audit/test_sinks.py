"""Sinks that append to a descriptor: they say when they cannot, they link to what stood before, and escape."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from phicrypt import PhiCrypt, RawAesKeyring
from phicrypt.audit import AuditTrail, JsonlSink, StdoutSink
from phicrypt.audit.delivery import SinkError
from phicrypt.audit.events import MAX_CONTEXT_BYTES, AuditEvent
from phicrypt.errors import AuditError
from phicrypt.evidence.log_lines import LogReading, read_records
from phicrypt.evidence.verify import verify
from phicrypt.recovery.break_glass import record_review


def event(number: int, **changes: object) -> AuditEvent:
    base = AuditEvent(1_700_000_000_000_000_000 + number, "use", f"u-{number}", "encrypt", "success")
    return base._replace(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "behind", [b"", b"x" * 300_000, b"garbage\n" * 40_000, b'{"phicrypt-audit":1,' + b"y" * 200_000]
)
def test_the_next_chain_follows_the_last_record_however_far_it_stands_from_the_end(
    tmp_path: Path, behind: bytes
) -> None:
    path = tmp_path / "audit.jsonl"
    for _ in range(2):
        sink = JsonlSink(path)
        sink.write([event(0, detail={"long": "z" * 150_000})])
        head = sink.head
        sink.close()
    assert head is not None
    path.write_bytes(path.read_bytes() + behind)
    sink = JsonlSink(path)
    sink.write([event(1)])
    sink.close()
    starts = [record for record in read_records(path) if record.fields["kind"] == "chain-start"]
    assert starts[-1].fields["detail"]["follows"] == head.sha256
    whole = path.read_bytes()
    path.write_bytes(
        whole[whole.rindex(b'{"phicrypt-audit":1,"chain":"' + starts[-1].chain_id.encode() + b'","sequence":0') :]
    )
    assert "missing" in verify(path).faults[0].what


def test_a_context_that_is_too_long_is_logged_by_its_names(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = JsonlSink(path)
    long_names = {f"{'n' * 400}{number}": "v" for number in range(100)}
    for context in ({"tenant": "x" * 60_000, "case": "7"}, {str(n): "v" * 50 for n in range(5_000)}, long_names):
        sink.write([event(0, context=context)])
    sink.close()
    assert max(map(len, path.read_bytes().splitlines())) < 2 * MAX_CONTEXT_BYTES + 1_000
    reading = LogReading()
    records = list(read_records(path, reading))
    assert reading.unread == 0
    assert list(records[1].event().context or ()) == ["tenant", "case"]
    assert "xxx" not in json.dumps(records[1].fields)


@pytest.mark.parametrize("grant_id", ['g1","actor":"innocent","x":"', 'g"}', "g\n{}"])
def test_a_grant_id_adds_no_members_to_the_record(tmp_path: Path, grant_id: str) -> None:
    path = tmp_path / "audit.jsonl"
    trail = AuditTrail([JsonlSink(path)])
    record_review(trail, grant_id, reviewer="officer")
    trail.close()
    (_, review) = read_records(path)
    assert review.is_intact
    assert review.event().break_glass == grant_id
    assert review.event().actor == "officer"
    assert set(review.fields) == {
        "purpose",
        "time",
        "use_id",
        "kind",
        "operation",
        "outcome",
        "actor",
        "break_glass",
        "detail",
    }


def test_a_sink_that_cannot_write_says_so_when_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "missing" / "audit.jsonl", tmp_path):
        with pytest.raises(AuditError, match=str(path)) as caught:
            JsonlSink(path)
        assert (caught.value.sink, caught.value.where) == ("JsonlSink", str(path))
    disk = SimpleNamespace(f_bavail=0, f_frsize=4096)
    with monkeypatch.context() as patch, pytest.raises(AuditError, match="No space left"):
        patch.setattr(os, "fstatvfs", lambda descriptor: disk)
        JsonlSink(tmp_path / "audit.jsonl")
    with pytest.raises(AuditError, match="StdoutSink"):
        StdoutSink(99_999)


def test_the_error_of_an_operation_names_sink_path_and_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.jsonl"
    phi = PhiCrypt(RawAesKeyring("clinic", "daily", bytes(32)), audit=[JsonlSink(path)])
    message = phi.encrypt(b"x", context={"tenant": "t"})
    phi.flush()

    def full(descriptor: int, payload: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(AuditError) as caught:
        patch.setattr(os, "write", full)
        phi.decrypt(message, context={"tenant": "t"})
    assert (caught.value.sink, caught.value.where) == ("JsonlSink", str(path))
    for part in ("JsonlSink", str(path), "No space left"):
        assert part in str(caught.value)


PROGRAM = """
import os, sys
from phicrypt import PhiCrypt, RawAesKeyring
from phicrypt.audit import StdoutSink
phi = PhiCrypt(RawAesKeyring("clinic", "daily", bytes(32)), audit=[StdoutSink()])
print("START RequestId: 1")
message = phi.encrypt(b"x", context={"tenant": "t"})
phi.decrypt(message, context={"tenant": "t"})
if os.fork() == 0:
    phi.decrypt(message, context={"tenant": "t"})
    os._exit(0)
os.wait()
print("END RequestId: 1")
phi.close()
"""


@pytest.fixture(scope="module")
def output() -> list[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, env=environment)
    return answer.stdout.splitlines(keepends=True)


def test_a_programs_standard_output_verifies_as_cloudwatch_exports_it(output: list[bytes], tmp_path: Path) -> None:
    dated = [b"2026-01-31T12:00:00.%03dZ " % number + line for number, line in enumerate(output)]
    folder = tmp_path / "exportedfiles" / "stream"
    folder.mkdir(parents=True)
    (folder / "000000.gz").write_bytes(gzip.compress(b"".join(dated[:4])))
    (folder / "000001.gz").write_bytes(gzip.compress(b"".join(dated[4:])))
    (tmp_path / "one.log").write_bytes(b"".join(dated))
    events = {"events": [{"logStreamName": "s", "message": line.decode().rstrip("\n")} for line in output]}
    (tmp_path / "filtered.json").write_text(json.dumps(events, indent=1))
    for path in (tmp_path / "exportedfiles", tmp_path / "one.log", tmp_path / "filtered.json"):
        result = verify(path)
        assert result.is_valid, result.faults
        assert (len(result.chains), result.records) == (2, 7)
        assert (result.reading.unread, result.reading.of_other_programs) == (0, 2)
    changed = [line for line in dated if b'"sequence":1,' not in line or b"begin" in line]
    assert len(changed) < len(dated)
    (tmp_path / "one.log").write_bytes(b"".join(changed))
    assert "missing" in verify(tmp_path / "one.log").faults[0].what
    (tmp_path / "one.log").write_bytes(b"".join(dated[:3]) + dated[3].replace(b'"sha256"', b'"sha257"'))
    assert not verify(tmp_path / "one.log").is_valid


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(b"nothing of ours\n", mtime=0),
        gzip.compress(b'2026-01-31T12:00:00Z {"phicrypt-audit":1\n', mtime=0)[:-6],
        b"2026-01-31T12:00:00Z hello\n",
        b'{"events": [{"message": 5}]}',
        b'{"events": [{"message": "x"}',
    ],
)
def test_rule_25_an_export_without_records_is_not_clean(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "export"
    path.write_bytes(content)
    result = verify(path)
    assert not result.is_valid
    assert result.reading.unread >= 1


def test_standard_output_that_is_full_stops_the_operation_and_the_chain_goes_on() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    sink = StdoutSink(writer)
    written = 0
    with pytest.raises(SinkError) as caught:
        for number in range(10_000):
            sink.write([event(number)])
            written += 1
    assert caught.value.written == 0
    content = os.read(reader, 1_000_000)
    sink.write([event(10_000)])
    content += os.read(reader, 1_000_000)
    uses = [
        json.loads(line)["event"]["use_id"]
        for line in content.splitlines()
        if line.endswith(b"}") and b"u-" in line
    ]
    assert uses == [*(f"u-{number}" for number in range(written)), "u-10000"]
