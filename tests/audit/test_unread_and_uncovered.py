"""What an audit must not call clean: unread lines and files, absent chains, uncovered hours, foreign shapes."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cloudtrail_records import deliver
from support.true_evidence import (
    ANCHOR_KEY_ARN,
    BUCKET,
    KEY_ARN,
    ROLE_ARN,
    SINCE,
    UNTIL,
    Evidence,
    judge,
    true_evidence,
)

from phicrypt.audit import JsonlSink
from phicrypt.audit.events import AuditEvent
from phicrypt.cli import run
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.errors import ConfigurationError
from phicrypt.evidence.anchors import anchors_in
from phicrypt.evidence.cloudtrail import Reading, read_bucket, read_folder
from phicrypt.evidence.digests import verify_bucket, verify_folder
from phicrypt.evidence.join import log_events
from phicrypt.evidence.log_lines import LogReading
from phicrypt.evidence.matching import Category, Matcher
from phicrypt.evidence.questions import by_actor, rows
from phicrypt.evidence.trail_events import parse_record
from phicrypt.evidence.verdict import AGREE, BROKEN, FINDINGS, NOT_COVERED, NOT_READ, verdict_of_chain
from phicrypt.evidence.verify import verify

Run = Callable[..., tuple[int, str, str]]
SHAPES = Path(__file__).parent / "cloudtrail_shapes"
TIMES = ("--since", "2026-01-31T00:00Z", "--until", "2026-01-31T05:00Z")
LOCATION = f"s3://{BUCKET}/AWSLogs"


@pytest.fixture(scope="module")
def base() -> Evidence:
    return true_evidence()


@pytest.fixture
def phicrypt(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "220")

    def command(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(["audit", *map(str, arguments)])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.fixture
def sides(base: Evidence, tmp_path: Path) -> tuple[Path, Path]:
    """The log, and a folder of copies of the bucket."""
    return write(base, tmp_path)


def write(evidence: Evidence, folder: Path) -> tuple[Path, Path]:
    log, trail = folder / "audit.jsonl", folder / "trail"
    log.write_bytes(evidence.log)
    for key, (content, _) in evidence.objects.items():
        (trail / key).parent.mkdir(parents=True, exist_ok=True)
        (trail / key).write_bytes(content)
    return log, trail


# Exit codes: one test for each


def joined(log: Path, trail: Path, *more: object) -> tuple[object, ...]:
    return ("join", "--log", log, "--trail", trail, "--principal", ROLE_ARN, *TIMES, *more)


def test_exit_code_0_both_sides_agree(sides: tuple[Path, Path], phicrypt: Run) -> None:
    code, out, _ = phicrypt(*joined(*sides))
    assert code == 0
    assert "Both sides agree" in out
    assert "covered: " in out
    assert "10 digests are copies without a signature" in out
    answer = json.loads(phicrypt(*joined(*sides), "--json")[1])
    assert (answer["verdict"], answer["exit_code"], len(answer["covered"])) == (AGREE, 0, 2)
    span = "2026-01-31T00:00:00Z to 2026-01-31T05:00:00Z, 5 digests"
    assert answer["covered"][1] == f"trail main in us-east-1 (account 111122223333): {span}"


def test_exit_code_1_findings_and_what_does_not_hold(sides: tuple[Path, Path], phicrypt: Run) -> None:
    log, trail = sides
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(line for line in lines if b'"use-4-' not in line))
    answer = phicrypt(*joined(log, trail), "--json")
    assert (answer[0], json.loads(answer[1])["verdict"]) == (1, BROKEN)
    log.write_bytes(b"".join(lines))
    next(trail.rglob("*us-east-1_20260131T0205Z*")).unlink()
    code, out, _ = phicrypt(*joined(log, trail))
    assert code == 1
    assert "the log file is missing" in out
    code, out, _ = phicrypt(*joined(log, trail), "--no-digests", "--json")
    assert (code, json.loads(out)["verdict"]) == (1, FINDINGS)
    assert "nobody signed" in json.loads(out)["remarks"][-1]


def test_exit_code_12_something_could_not_be_read(sides: tuple[Path, Path], phicrypt: Run, tmp_path: Path) -> None:
    log, trail = sides
    (trail / "cut.json.gz").write_bytes(gzip.compress(b'{"Records": []}')[:-4])
    (trail / "torn.json").write_bytes(b'{"Records": [{"eventVersion"')
    report = tmp_path / "report.html"
    code, out, error = phicrypt(*joined(log, trail), "--no-digests", "--html", report)
    assert code == 12
    assert "NOT READ: 2" in out
    assert "the first: cut.json.gz" in out
    assert "Both sides agree" not in out + report.read_text()
    assert "NOT READ: 2" in report.read_text()
    assert report.stat().st_mode & 0o777 == 0o600
    code, out, error = phicrypt(*joined(log, trail), "--no-digests", "--csv")
    assert (code, "NOT READ" in error) == (12, True)
    answer = json.loads(phicrypt(*joined(log, trail), "--no-digests", "--json")[1])
    assert (answer["verdict"], answer["not_read"]) == (NOT_READ, 2)


def test_exit_code_13_no_digest_covers_what_was_asked(sides: tuple[Path, Path], phicrypt: Run) -> None:
    log, trail = sides
    late = ("--since", "2026-01-31T00:00Z", "--until", "2026-01-31T09:00Z")
    code, out, _ = phicrypt("join", "--log", log, "--trail", trail, "--principal", ROLE_ARN, *late)
    assert code == 13
    assert "2026-01-31T05:00:00Z to 2026-01-31T09:00Z: no digest" in out
    answer = phicrypt("join", "--log", log, "--trail", trail, "--principal", ROLE_ARN, *late, "--json")
    assert json.loads(answer[1])["verdict"] == NOT_COVERED
    assert len(json.loads(answer[1])["not_covered"]) == 2


def test_the_report_opens_with_the_verdict_and_what_was_covered(
    sides: tuple[Path, Path], phicrypt: Run, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    report.write_text("old")
    report.chmod(0o644)
    phicrypt(*joined(*sides), "--html", report)
    text = report.read_text()
    places = [text.index(part) for part in ("<h1>", "Both sides agree", "covered: ", "unanchored", "class=tiles")]
    assert places == sorted(places)
    assert report.stat().st_mode & 0o777 == 0o600


# Rule 24


def test_rule_24_a_forged_unlisted_file_hides_no_event(base: Evidence, tmp_path: Path) -> None:
    changed = base.copy()
    key = next(key for key in changed.log_keys() if "us-east-1_20260131T0205Z" in key)
    stolen = changed.document(key)["Records"][0] | {"eventName": "DescribeKey"}
    changed.put(key.replace("us-east-1_20260131T0205Z_20", "us-east-1_20260131T0001Z_00"), {"Records": [stolen]})
    verdict = judge(changed, tmp_path)
    assert verdict.word == BROKEN
    assert any("T0001Z_00.json.gz: no digest names this log file" in problem for problem in verdict.broken)
    assert verdict.findings >= 1


@pytest.mark.parametrize(("kept", "named"), [(slice(2, None), "T020000Z"), (slice(None, -2), "_30.json.gz")])
def test_rule_24_digests_deleted_at_either_end_are_named(base: Evidence, kept: slice, named: str) -> None:
    changed = base.copy()
    keys = [key for key in changed.digest_keys() if "us-east-1" in key]
    for key in set(keys) - set(keys[kept]):
        del changed.objects[key]
    report = verify_bucket(changed, LOCATION, changed)
    assert report is not None
    assert any(named in line for line in [*report.problems, *report.not_covered])
    start = "00" if kept.start is None else "02"
    assert any(f"T{start}:00:00Z" in span and "3 digests" in span for span in report.covered)
    asked = verify_bucket(changed, LOCATION, changed, since_ns=SINCE, until_ns=UNTIL)
    assert asked is not None
    assert asked.not_covered


def test_rule_24_a_log_file_newer_than_the_last_digest_is_not_yet_covered(base: Evidence, tmp_path: Path) -> None:
    changed = base.copy()
    key = changed.log_keys()[-1]
    changed.put(key.replace("T04", "T05").replace("_40", "_50"), {"Records": []})
    report = verify_bucket(changed, LOCATION, changed)
    assert report is not None
    assert report.is_valid
    assert "not yet covered" in report.not_covered[0]
    assert judge(changed, tmp_path, until_ns=UNTIL).word == NOT_COVERED


def test_rule_24_two_files_of_one_name_in_a_folder_are_both_looked_at(base: Evidence, tmp_path: Path) -> None:
    _, trail = write(base, tmp_path)
    genuine = next(trail.rglob("*us-east-1_20260131T0105Z*"))
    for place in ("a", "z"):
        (trail / place).mkdir()
        (trail / place / genuine.name).write_bytes(gzip.compress(b'{"Records": []}'))
    report = verify_folder(trail)
    assert report is not None
    assert [problem.partition(":")[2] for problem in report.problems] == [" no digest names this log file"] * 2
    genuine.unlink()
    report = verify_folder(trail)
    assert report is not None
    assert any("was changed" in problem for problem in report.problems)


def test_rule_24_an_anchor_of_a_chain_that_the_log_does_not_hold_is_a_fault(
    tmp_path: Path, phicrypt: Run, base: Evidence
) -> None:
    """A log that was deleted, and a process that was started again."""
    log, trail = write(base, tmp_path)
    log.unlink()
    sink = JsonlSink(log)
    sink.write([AuditEvent(1, "use", "u", "encrypt", "success")])
    sink.close()
    code, out, _ = phicrypt("verify", log, "--trail", trail)
    assert code == 1
    assert "CloudTrail shows an anchor of a chain that the log does not hold" in out
    code, out, _ = phicrypt("verify", log, "--trail", trail, "--other-chains")
    assert code == 0
    assert out.count("not in this log") == 3
    assert phicrypt("verify", log, "--trail", trail, "--anchor-key", KEY_ARN)[0] == 0
    assert phicrypt("verify", log, "--trail", trail, "--anchor-key", ANCHOR_KEY_ARN)[0] == 1


def test_rule_24_verify_checks_digests_as_join_does(tmp_path: Path, phicrypt: Run, base: Evidence) -> None:
    log, trail = write(base, tmp_path)
    assert phicrypt("verify", log, "--trail", trail)[0] == 0
    (trail / "forged.json").write_text('{"Records": []}')
    code, out, _ = phicrypt("verify", log, "--trail", trail, "--json")
    assert (code, json.loads(out)["first_broken"]) == (1, ["forged.json: no digest names this log file"])
    code, out, _ = phicrypt("verify", log, "--trail", trail, "--no-digests")
    assert code == 0
    assert "nobody signed" in out


# Rule 25


@pytest.mark.parametrize(
    "damage",
    [
        lambda log: log.decode().encode("utf-16"),
        lambda log: log.replace(b"\n", b"\r\n"),
        lambda log: b'{"time": "2026-01-31", "message": "another program"}\n',
        lambda log: log.replace(b'"use_id":"use-4-1"', b'"use_id":5', 1),
        lambda log: log.replace(b'"previous"', b"\xed\xa0\x80", 1),
        lambda log: gzip.compress(log, mtime=0)[:-50],
        lambda log: gzip.compress(b"another program\n", mtime=0),
    ],
    ids=["utf-16", "crlf", "foreign", "damaged line", "raw surrogate", "cut gzip", "foreign gzip"],
)
def test_rule_25_no_question_is_answered_as_if_all_had_been_read(
    base: Evidence, tmp_path: Path, phicrypt: Run, damage: Callable[[bytes], bytes]
) -> None:
    log, trail = write(base, tmp_path)
    log.write_bytes(damage(base.log))
    option = ("--log", log)
    for command in (
        ("disclosures", *option),
        ("actor", "nobody", *option),
        ("actor", "nobody", *option, "--json"),
        ("who", *option, "--resource", "rt1-none"),
        ("incident", *option, "--key", KEY_ARN, "--from", "2026-01-01"),
        ("break-glass", *option),
    ):
        code, _, error = phicrypt(*command)
        assert code == 12, command
        assert "NOT READ" in error
        assert "audit.jsonl:" in error
    assert phicrypt("verify", log)[0] == 1
    assert phicrypt(*joined(log, trail))[0] == 1


def test_rule_25_a_whole_log_and_a_gzip_of_it_are_answered(base: Evidence, tmp_path: Path, phicrypt: Run) -> None:
    for content in (base.log, gzip.compress(base.log)):
        (tmp_path / "log").write_bytes(content)
        code, out, error = phicrypt("actor", "dr-1", "--log", tmp_path / "log", "--json")
        assert (code, error) == (0, "")
        assert len(json.loads(out)) > 1
    incident = phicrypt("incident", "--log", tmp_path / "log", "--key", KEY_ARN, "--from", "2026-01-01", "--json")
    assert json.loads(incident[1])["sealed_messages"] == 42


# Rule 26: one object in the bucket must not end the audit


@pytest.mark.parametrize(
    "content",
    [
        b'{"logFiles": 5, "digestEndTime": "2026-01-31T09:00:00Z"}',
        b'{"previousDigestS3Object": [], "digestEndTime": "2026-01-31T09:00:00Z"}',
        b"[" * 200_000,
        b'{"digestEndTime": 5}',
        b'"\xed\xa0\x80"',
        gzip.compress(b"{}," * 60_000_00, mtime=0),
    ],
    ids=["logFiles", "previous", "deep", "end", "surrogate", "bomb"],
)
@pytest.mark.parametrize("place", ["CloudTrail", "CloudTrail-Digest"])
def test_rule_26_one_hostile_object_is_counted_and_the_rest_is_judged(
    base: Evidence, tmp_path: Path, content: bytes, place: str
) -> None:
    changed = base.copy()
    changed.objects[f"AWSLogs/111122223333/{place}/us-east-1/2026/01/31/hostile.json.gz"] = (content, {})
    verdict = judge(changed, tmp_path)
    assert verdict.word == BROKEN
    assert verdict.unread
    assert verdict.findings == 0


def test_rule_26_an_object_that_cannot_be_fetched_is_counted(base: Evidence) -> None:
    from botocore.exceptions import ClientError

    class Denying(Evidence):
        def get_object(self, **question: str) -> dict[str, Any]:
            if "T0205Z" in question["Key"]:
                raise ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, "GetObject")
            return super().get_object(**question)

    reading = Reading()
    events = list(read_bucket(Denying(base.log, base.objects), LOCATION, reading=reading))
    assert events
    assert reading.problem_count == 2
    assert "cannot be fetched (AccessDenied)" in reading.problems[0]


# Files as people have them


def records_of(evidence: Evidence) -> list[dict[str, Any]]:
    return [record for key in evidence.log_keys() for record in evidence.document(key)["Records"]]


SHAPES_OF_FILES: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "log file": lambda records: json.dumps({"Records": records}),
    "lines": lambda records: "\n".join(map(json.dumps, records)) + "\n",
    "list": lambda records: json.dumps(records),
    "saved LookupEvents": lambda records: json.dumps(
        {"Events": [{"EventId": one["eventID"], "CloudTrailEvent": json.dumps(one)} for one in records]}, indent=4
    ),
    "saved LookupEvents, token first": lambda records: json.dumps(
        {"NextToken": "x", "Events": [{"CloudTrailEvent": json.dumps(one)} for one in records]}
    ),
    "EventBridge lines": lambda records: "\n".join(
        json.dumps({"detail-type": "AWS API Call via CloudTrail", "source": "aws.kms", "detail": one})
        for one in records
    ),
    "EventBridge, end to end": lambda records: "".join(
        json.dumps({"source": "aws.kms", "detail": one}) for one in records
    ),
}


@pytest.mark.parametrize("shape", SHAPES_OF_FILES)
@pytest.mark.parametrize("name", ["trail", "trail.txt", "CloudTrail-Insight.json", "trail.json.gz"])
def test_a_file_that_is_named_is_read_whatever_its_name_and_shape(
    base: Evidence, tmp_path: Path, shape: str, name: str
) -> None:
    records = records_of(base)
    content = SHAPES_OF_FILES[shape](records).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    reading = Reading()
    events = list(read_folder(tmp_path / name, reading=reading))
    assert reading.problem_count == 0, reading.problems
    assert [event.event_id for event in events] == [record["eventID"] for record in records]


def test_the_log_may_lie_in_the_folder_of_the_trail(base: Evidence, tmp_path: Path, phicrypt: Run) -> None:
    log, trail = write(base, tmp_path)
    log.rename(trail / "audit.jsonl")
    assert phicrypt(*joined(trail / "audit.jsonl", trail))[0] == 0


def test_a_named_file_that_is_none_is_refused_or_counted(base: Evidence, tmp_path: Path) -> None:
    digest = tmp_path / base.digest_keys()[0].rpartition("/")[2]
    digest.write_bytes(base.objects[base.digest_keys()[0]][0])
    with pytest.raises(ConfigurationError, match="digest"):
        list(read_folder(digest))
    for content in (b"", b"notes", b"{}", b"[]", b"5", b'{"Events": [{}]}'):
        (tmp_path / "file").write_bytes(content)
        reading = Reading()
        assert list(read_folder(tmp_path / "file", reading=reading)) == []
        assert reading.problem_count == 1, content


# Documented shapes


def findings_of(records: list[dict[str, Any]], *keys: str) -> tuple[list[str], Matcher]:
    with Matcher(key_arns=keys or (KEY_ARN,)) as matcher:
        for event in filter(None, map(parse_record, records)):
            matcher.add_record(event)
        matcher.finish()
        return [found.category for found in matcher.findings()], matcher


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("insight", []),
        ("service_invoked", [Category.SERVICE]),
        ("cross_account", [Category.TRAIL_ONLY]),
        ("assumed_role", [Category.TRAIL_ONLY]),
        ("denied_without_parameters", [Category.DENIED]),
        ("vpc_endpoint_denied", [Category.ENDPOINT]),
        ("reencrypt", [Category.TRAIL_ONLY]),
    ],
)
def test_documented_shapes_are_what_they_are(shape: str, expected: list[str]) -> None:
    reading = Reading()
    events = list(read_folder(SHAPES / f"{shape}.json", reading=reading))
    assert reading.problem_count == 0
    records = json.loads((SHAPES / f"{shape}.json").read_text())["Records"]
    assert findings_of(records)[0] == expected
    # Whatever is left out, the record is read or refused, and never more than it says.
    for record in records:
        for name in record:
            if name not in ("eventVersion", "eventTime"):
                lacking = {other: value for other, value in record.items() if other != name}
                assert len(findings_of([lacking])[0]) <= 1, name
    assert len(events) == (0 if shape == "insight" else 1)


def test_rule_24_network_activity_is_counted_beside_and_never_matched(base: Evidence, tmp_path: Path) -> None:
    records = records_of(base)
    beside = [
        record | {"eventCategory": "NetworkActivity", "eventType": "AwsVpceEvent", "eventID": f"vpce-{number}"}
        for number, record in enumerate(records)
    ]
    assert findings_of(records)[0].count(Category.TRAIL_ONLY) == 14
    found, matcher = findings_of([*beside, *records])
    assert found.count(Category.TRAIL_ONLY) == 14
    assert matcher.network_records == len(beside)
    assert Category.EXCEPTION not in found
    log = tmp_path / "audit.jsonl"
    log.write_bytes(base.log)
    with Matcher(principals=[ROLE_ARN]) as only_beside:
        for event in log_events(log):
            only_beside.add_use(event)
        deliver(tmp_path / "trail", beside)
        for trail_event in read_folder(tmp_path / "trail"):
            only_beside.add_record(trail_event)
        only_beside.finish()
        counts = only_beside.counts()
        assert counts[Category.MATCHED] == 0
        assert counts[Category.LOCAL_ONLY] == 17


@pytest.mark.parametrize("watched", ["source", "destination"])
def test_rule_24_reencrypt_is_watched_by_both_of_its_keys(watched: str) -> None:
    (record,) = json.loads((SHAPES / "reencrypt.json").read_text())["Records"]
    key_arn = record["requestParameters"][f"{watched}KeyId"]
    assert findings_of([record], key_arn)[0] == [Category.TRAIL_ONLY]
    assert findings_of([record | {"requestParameters": None}], key_arn)[0] == [Category.TRAIL_ONLY]
    assert findings_of([record | {"resources": None}], key_arn)[0] == [Category.TRAIL_ONLY]
    assert findings_of([record], "arn:aws:kms:us-east-1:111122223333:key/cccccccc")[0] == []


def test_rule_24_a_multi_region_key_is_watched_in_every_region(base: Evidence) -> None:
    here = "arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
    there = here.replace("us-east-1", "eu-west-1")
    (record,) = json.loads((SHAPES / "assumed_role.json").read_text())["Records"]
    replica = record | {"resources": [{"ARN": there}], "awsRegion": "eu-west-1"}
    assert findings_of([replica], here)[0] == [Category.TRAIL_ONLY]
    assert findings_of([replica], here.replace("111122223333", "444455556666"))[0] == []
    single = record | {"resources": [{"ARN": KEY_ARN.replace("us-east-1", "eu-west-1")}]}
    assert findings_of([single])[0] == []


def test_rule_24_the_same_event_id_with_other_content_is_an_exception(base: Evidence) -> None:
    record = records_of(base)[-2]
    record = record | {"resources": [{"ARN": KEY_ARN}]}
    for other in (
        record | {"eventName": "DescribeKey"},
        record | {"additionalEventData": {}},
        record | {"requestID": "x"},
    ):
        for order in ([record, other], [other, record]):
            assert Category.EXCEPTION in findings_of(order)[0], other
    assert findings_of([record, json.loads(json.dumps(record, sort_keys=True))])[0] == [Category.TRAIL_ONLY]
    elsewhere = record | {"resources": [{"ARN": KEY_ARN[:-1] + "f"}], "requestID": "x"}
    assert Category.EXCEPTION in findings_of([record, elsewhere])[0]
    shared = record | {"sharedEventID": "s"}
    twice = shared | {"eventID": "e2"}
    assert Category.EXCEPTION in findings_of([shared, twice])[0]
    hiding = shared | {"eventID": "e2", "recipientAccountId": "444455556666", "eventName": "DescribeKey"}
    assert Category.EXCEPTION in findings_of([hiding, shared])[0]


# Scale


def test_what_an_actor_used_is_streamed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "audit.jsonl"
    sink = JsonlSink(log)
    origin = KeyOrigin("aws-kms", KEY_ARN, None, ("r",), operation="Decrypt")
    event = AuditEvent(
        SINCE, "use", "u", "encrypt", "success", origin=origin, actor="dr-1", context={"tenant": "t"}
    )
    sink.write([event._replace(use_id=f"u-{number}") for number in range(20_000)])
    sink.close()
    assert run(["audit", "actor", "nobody", "--log", str(log), "--json"]) == 0
    tracemalloc.start()
    try:
        assert run(["audit", "actor", "dr-1", "--log", str(log), "--json"]) == 0
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
    assert len(json.loads(capfd.readouterr().out.removeprefix("[]\n"))) == 20_000


def test_a_verdict_of_a_chain_counts_what_is_no_record(tmp_path: Path, base: Evidence) -> None:
    log = tmp_path / "audit.jsonl"
    log.write_bytes(base.log + b"garbage\n")
    reading = LogReading()
    assert list(rows(log_events(log, reading), by_actor("nobody"))) == []
    assert str(reading.first_unread) == "audit.jsonl:48"
    anchors = anchors_in(read_bucket(base, LOCATION))
    verdict = verdict_of_chain(verify(log, anchors=anchors), trail=Reading())
    assert (verdict.word, verdict.unread, verdict.exit_code) == (BROKEN, 1, 1)
