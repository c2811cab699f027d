"""Folders, buckets and records that somebody prepared: what hides something is counted and ends nothing."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
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

from phicrypt.cli import run
from phicrypt.errors import ConfigurationError
from phicrypt.evidence.anchors import anchors_in
from phicrypt.evidence.cloudtrail import Reading, read_bucket, read_folder
from phicrypt.evidence.digests import verify_bucket, verify_folder
from phicrypt.evidence.join import join, trail_source
from phicrypt.evidence.matching import Category, Matcher
from phicrypt.evidence.trail_events import parse_record
from phicrypt.evidence.verdict import AGREE, BROKEN, NOT_COVERED, verdict_of_join

LOCATION = f"s3://{BUCKET}/AWSLogs"
TIMES = ("--since", "2026-01-31T00:00Z", "--until", "2026-01-31T05:00Z")


@pytest.fixture(scope="module")
def base() -> Evidence:
    return true_evidence()


@pytest.fixture
def sides(base: Evidence, tmp_path: Path) -> tuple[Path, Path]:
    log, trail = tmp_path / "audit.jsonl", tmp_path / "trail"
    log.write_bytes(base.log)
    for key, (content, _) in base.objects.items():
        (trail / key).parent.mkdir(parents=True, exist_ok=True)
        (trail / key).write_bytes(content)
    return log, trail


def joined(log: Path, trail: Path | str, *more: str) -> int:
    return run(["audit", "join", "--log", str(log), "--trail", str(trail), "--principal", ROLE_ARN, *TIMES, *more])


# Folders


def a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe.json.gz")


def a_folder_named_as_a_file(folder: Path) -> None:
    (folder / "folder.json").mkdir()


def a_link_to_nothing(folder: Path) -> None:
    (folder / "link.json.gz").symlink_to("nothing")


def a_link_to_itself(folder: Path) -> None:
    (folder / "loop.json").symlink_to("loop.json")


def a_link_to_a_device(folder: Path) -> None:
    (folder / "zero.json").symlink_to("/dev/zero")


def a_link_to_a_folder(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder / "more").symlink_to(folder.parent / "elsewhere")


def a_file_that_cannot_be_read(folder: Path) -> None:
    (folder / "memory.json").symlink_to("/proc/self/mem")


def a_digest_that_is_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "111122223333_CloudTrail-Digest_us-east-1_main_us-east-1_20260131T060000Z.json.gz")


def a_digest_that_cannot_be_read(folder: Path) -> None:
    name = "111122223333_CloudTrail-Digest_us-east-1_main_us-east-1_20260131T060000Z.json.gz"
    (folder / name).symlink_to("/proc/self/mem")


@pytest.mark.parametrize(
    "put",
    [
        a_pipe,
        a_folder_named_as_a_file,
        a_link_to_nothing,
        a_link_to_itself,
        a_link_to_a_device,
        a_link_to_a_folder,
        a_file_that_cannot_be_read,
        a_digest_that_is_a_pipe,
        a_digest_that_cannot_be_read,
    ],
)
def test_rule_25_what_hides_in_a_folder_is_counted_and_ends_nothing(
    sides: tuple[Path, Path], put: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    log, trail = sides
    put(trail)
    assert joined(log, trail) in (1, 12)
    assert joined(log, trail, "--no-digests") == (0 if put is a_digest_that_cannot_be_read else 12)
    assert run(["audit", "verify", str(log), "--trail", str(trail)]) in (1, 12)


def test_rule_25_a_folder_that_cannot_be_listed_is_counted(
    sides: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for everybody but root, who runs tests in containers."""
    scandir = os.scandir

    def denied(path: Any) -> Any:
        if str(path).endswith("us-east-1"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    reading = Reading()
    assert list(read_folder(sides[1], reading=reading))
    assert reading.problems == ["us-east-1: the folder cannot be listed (Permission denied)"] * 2


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", "pipe"])
def test_a_trail_that_is_neither_file_nor_folder_is_refused_by_name(tmp_path: Path, path: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="pipes and devices are not read"):
        list(read_folder(tmp_path / path))


def test_files_that_are_passed_over_are_said(sides: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    log, trail = sides
    (trail / "notes.txt").write_text("x")
    assert joined(log, trail) == 0
    assert "1 files of the trail's folder were not opened" in capfd.readouterr().out


# Buckets


class Changing(Evidence):
    """A bucket whose objects answer as they were, once, and then as somebody wants."""

    def __init__(self, base: Evidence, content: bytes | None) -> None:
        super().__init__(base.log, dict(base.objects), base.anchored_lines)
        self.content = content
        self.seen: set[str] = set()

    def get_object(self, **question: str) -> dict[str, Any]:
        answer = super().get_object(**question)
        if (
            "us-east-1_20260131T02" in question["Key"]
            and question["Key"] in self.seen
            and self.content is not None
        ):
            answer["Body"] = io.BytesIO(self.content)
        self.seen.add(question["Key"])
        return answer


def test_rule_24_what_is_read_is_what_was_compared_with_digests(base: Evidence, tmp_path: Path) -> None:
    assert judge(Changing(base, None), tmp_path).word == AGREE
    key = next(key for key in base.log_keys() if "us-east-1_20260131T0205Z" in key)
    for content in (
        json.dumps({"Records": []}).encode(),
        json.dumps({"Records": base.document(key)["Records"] * 2}).encode(),
    ):
        verdict = judge(Changing(base, content), tmp_path)
        assert verdict.word == BROKEN
        assert any("it changed meanwhile" in problem for problem in verdict.broken)


class Failing(Evidence):
    """A bucket of which some objects cannot be had."""

    def __init__(self, base: Evidence, part: str, error: BaseException, *, late: bool) -> None:
        super().__init__(base.log, dict(base.objects), base.anchored_lines)
        self.part, self.error, self.late = part, error, late

    def get_object(self, **question: str) -> dict[str, Any]:
        answer = super().get_object(**question)
        if self.part in question["Key"]:
            if not self.late:
                raise self.error
            answer["Body"] = _Cut(self.error)
        return answer


class _Cut(io.BytesIO):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def read(self, size: int | None = -1, /) -> bytes:
        raise self.error


@pytest.mark.parametrize("part", ["_CloudTrail_us-east-1_20260131T02", "_CloudTrail-Digest_us-east-1"])
@pytest.mark.parametrize("late", [False, True])
def test_rule_26_objects_that_cannot_be_had_are_counted_and_end_nothing(
    base: Evidence, tmp_path: Path, part: str, late: bool
) -> None:
    from botocore.exceptions import ClientError, ReadTimeoutError

    for error in (
        ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, "GetObject"),
        ReadTimeoutError(endpoint_url="https://s3"),
        OSError(5, "Input/output error"),
    ):
        if late and isinstance(error, ClientError):
            continue  # S3 refuses before the body
        verdict = judge(Failing(base, part, error, late=late), tmp_path)
        assert verdict.word == BROKEN, error
        assert verdict.unread


def test_rule_24_where_a_time_is_asked_it_is_not_covered_without_any_digest(
    base: Evidence, sides: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changed = base.copy()
    for key in changed.digest_keys():
        del changed.objects[key]
    verdict = judge(changed, tmp_path)
    assert (verdict.word, verdict.exit_code) == (NOT_COVERED, 13)
    assert list(verdict.not_covered) == [
        "from 2026-01-31T00:00Z to 2026-01-31T05:00Z: no digest of any trail or Region"
    ]
    log, trail = sides
    for digest in trail.rglob("*Digest_*"):
        digest.unlink()
    capfd.readouterr()
    assert joined(log, trail) == 13
    assert joined(log, trail, "--no-digests") == 0
    assert run(["audit", "join", "--log", str(log), "--trail", str(trail), "--principal", ROLE_ARN]) == 0
    assert run(["audit", "verify", str(log), "--trail", str(trail)]) == 0
    out = " ".join(capfd.readouterr().out.split())
    assert out.count("nobody signed what stands here as CloudTrail's") == 4
    assert out.count("Both sides agree, but nobody signed CloudTrail's") == 2


def test_rule_24_a_region_of_a_watched_key_without_digests_is_not_covered(base: Evidence, tmp_path: Path) -> None:
    changed = base.copy()
    elsewhere = KEY_ARN.replace("us-east-1", "us-west-2")
    log = tmp_path / "audit.jsonl"
    log.write_bytes(changed.log)
    read, check = trail_source(LOCATION, client=lambda service: changed)
    with join(
        log,
        read,
        since_ns=SINCE,
        until_ns=UNTIL,
        key_arns=[elsewhere],
        principals=[ROLE_ARN],
        digests=check(SINCE, UNTIL),
    ) as found:
        verdict = verdict_of_join(found)
    assert verdict.word == NOT_COVERED
    assert verdict.not_covered == ("us-west-2: no digest, although a key of this Region is watched",)


def test_rule_24_hours_between_two_digests_are_not_covered(base: Evidence, sides: tuple[Path, Path]) -> None:
    """Copies without signatures: whoever takes a digest out can mend the one behind it."""
    _, trail = sides
    files = sorted(trail.rglob("*Digest_us-east-1*"))
    digests = [json.loads(gzip.decompress(file.read_bytes())) for file in files]
    digests[3] |= {name: value for name, value in digests[2].items() if name.startswith("previous")}
    for entry in digests[2]["logFiles"]:
        next(trail.rglob(entry["s3Object"].rpartition("/")[2])).unlink()
    files[2].unlink()
    files[4].unlink()  # which would name the true one
    files[3].write_bytes(gzip.compress(json.dumps(digests[3]).encode()))
    report = verify_folder(trail, since_ns=SINCE, until_ns=UNTIL - 3_600 * 10**9)
    assert report is not None
    gap = "from 2026-01-31T02:00:00Z to 2026-01-31T03:00:00Z: no digest"
    assert any(gap in line for line in report.not_covered)
    late = verify_folder(trail, since_ns=SINCE + 3 * 3_600 * 10**9)
    assert late is not None
    assert not any(gap in line for line in late.not_covered)


def test_rule_24_a_second_digest_of_one_hour_is_named(base: Evidence, sides: tuple[Path, Path]) -> None:
    _, trail = sides
    file = sorted(trail.rglob("*Digest_us-east-1*"))[2]
    fields = json.loads(gzip.decompress(file.read_bytes()))
    other = fields | {"digestS3Object": fields["digestS3Object"].replace("0000Z", "0001Z"), "logFiles": []}
    file.with_name(file.name.replace("0000Z", "0001Z")).write_bytes(gzip.compress(json.dumps(other).encode()))
    report = verify_folder(trail)
    assert report is not None
    assert any("the digest behind it names another one before" in problem for problem in report.problems)
    file.with_name(file.name.replace("0000Z", "0001Z")).write_bytes(
        gzip.compress(json.dumps(fields | {"logFiles": []}).encode())
    )
    report = verify_folder(trail)
    assert report is not None
    assert not report.is_valid


def test_a_digest_under_a_key_that_cloudtrail_does_not_know_is_said_so(base: Evidence) -> None:
    class WithoutKeys(Evidence):
        def list_public_keys(self, **question: Any) -> dict[str, Any]:
            return {"PublicKeyList": []}

    report = verify_bucket(WithoutKeys(base.log, base.objects), LOCATION, WithoutKeys(b"", {}))
    assert report is not None
    assert report.problem_count == 10
    assert all("no public key of the fingerprint" in problem for problem in report.problems)


# Records: every member with every type of JSON

KINDS_OF_JSON: tuple[Any, ...] = (None, True, 5, 1.5, "", "x", [], [1], ["x"], {}, {"x": 1})
MEMBERS = (
    *("eventVersion", "userIdentity", "eventTime", "eventSource", "eventName", "awsRegion", "sourceIPAddress"),
    *("userAgent", "requestParameters", "responseElements", "requestID", "eventID", "resources", "eventType"),
    *("errorCode", "recipientAccountId", "eventCategory", "sharedEventID"),
)


@pytest.mark.parametrize("member", MEMBERS)
def test_rule_26_a_member_of_another_kind_is_not_judged_as_if_it_were_missing(base: Evidence, member: str) -> None:
    key = next(key for key in base.log_keys() if "us-east-1_20260131T0205Z" in key)
    record = next(one for one in base.document(key)["Records"] if one["resources"][0]["ARN"] == KEY_ARN)
    kind = type(record.get(member, ""))
    for value in KINDS_OF_JSON:
        refused = found = None
        try:
            found = parse_record(record | {member: value})
        except ValueError as error:
            refused = error
        if value is not None and not isinstance(value, kind if kind is not type(None) else dict):
            assert refused is not None, value
        elif found is not None:
            with Matcher(key_arns=[KEY_ARN]) as matcher:
                matcher.add_record(found)
                matcher.finish()
                counts = matcher.counts()
            hidden = matcher.of_other_keys + matcher.network_records
            judged = (Category.TRAIL_ONLY, Category.DENIED, Category.ADMINISTRATION)
            assert sum(counts[category] for category in judged) + hidden == 1, value
            assert counts[Category.ADMINISTRATION] == (member == "eventName" and value == "x")
        else:
            assert refused is not None or member == "eventSource"


@pytest.mark.parametrize(
    "path",
    [
        ("userIdentity", "arn"),
        ("userIdentity", "sessionContext"),
        ("userIdentity", "sessionContext", "sessionIssuer"),
        ("userIdentity", "invokedBy"),
        ("requestParameters", "encryptionContext"),
        ("requestParameters", "keyId"),
        ("responseElements", "keyId"),
    ],
)
def test_rule_26_members_within_members_are_of_their_kind(base: Evidence, path: tuple[str, ...]) -> None:
    (record, *_) = base.document(base.log_keys()[-1])["Records"]
    is_object = path[-1] in ("sessionContext", "sessionIssuer", "encryptionContext")
    for value in (5, True, [], ["x"], "x" if is_object else {"x": 1}):
        changed = json.loads(json.dumps(record)) | {"resources": []}
        parent = changed
        for name in path[:-1]:
            parent[name] = parent.get(name) or {}
            parent = parent[name]
        parent[path[-1]] = value
        with pytest.raises(ValueError, match=path[-1]):
            parse_record(changed)


# What is watched and believed is named exactly


@pytest.mark.parametrize("option", ["--key", "--anchor-key"])
@pytest.mark.parametrize("value", ["alias/clinic", "1234abcd-12ab-34cd-56ef-1234567890ab", KEY_ARN[:-40], "*"])
def test_what_names_no_key_is_refused_instead_of_watching_none(
    sides: tuple[Path, Path], option: str, value: str, capfd: pytest.CaptureFixture[str]
) -> None:
    log, trail = sides
    assert joined(log, trail, option, value) == 2
    assert f"{option} is a key's own ARN" in capfd.readouterr().err
    if option == "--anchor-key":
        assert run(["audit", "verify", str(log), "--trail", str(trail), option, value]) == 2


def test_an_anchor_of_a_replica_is_an_anchor(base: Evidence) -> None:
    here = ANCHOR_KEY_ARN.replace("key/aaaaaaaa-12ab-34cd-56ef-", "key/mrk-")
    there = here.replace("us-east-1", "eu-west-1")
    records = [
        record._replace(key_arn=there)
        for record in read_bucket(base, LOCATION)
        if record.key_arn == ANCHOR_KEY_ARN
    ]
    assert len(set(anchors_in(records, key_arn=here))) == 3
    assert list(anchors_in(records, key_arn=ANCHOR_KEY_ARN)) == []


def test_rule_25_reviewing_says_when_the_log_could_not_be_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "audit.jsonl"
    log.write_bytes(b"garbage\n")
    assert run(["audit", "review", "g-1", "--log", str(log), "--reviewer", "dr-2"]) == 12
    assert "NOT READ: 1" in capfd.readouterr().err
    assert log.read_bytes() == b"garbage\n"
