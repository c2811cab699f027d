"""The join of local log and CloudTrail: what is matched, what is missing on either side, what is never matched."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import resource
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.cloudtrail_records import ROLE_ARN, SESSION_ARN, deliver, record_of
from support.key_stores import KeyStores

from phicrypt import CachePolicy, HierarchicalKeyring, KmsKeyring, MultiKeyring, PhiCrypt, Purpose
from phicrypt.audit import AuditEvent, AuditTrail, JsonlSink
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.evidence.cloudtrail import Reading, TrailEvent, look_up, parse_record, read_bucket, read_folder
from phicrypt.evidence.join import Joined, join, log_events, trail_source, whole_uses
from phicrypt.evidence.matching import Category, Matcher
from phicrypt.evidence.report import render
from phicrypt.evidence.verify import verify
from phicrypt.keys.kms.tagging import tagged_call
from phicrypt.testing import StrictKms, local_aws


@pytest.fixture
def kms() -> Iterator[StrictKms]:
    with StrictKms() as running:
        yield running


def client_of(kms: StrictKms, key_arn: str, log: Path, *, max_messages: int = 1, **settings: Any) -> PhiCrypt:
    return PhiCrypt(
        keyring=KmsKeyring(key_arn, client=kms.client(**settings)),
        cache=CachePolicy(max_messages=max_messages),
        audit=AuditTrail([JsonlSink(log)], application="portal", principal=ROLE_ARN),
    )


@contextmanager
def joined(log: Path, trail: Path, **settings: Any) -> Iterator[Joined]:
    read, _ = trail_source(str(trail), client=lambda service: None)
    with join(log, read, **settings) as result:
        yield result


def test_fifty_thousand_mixed_uses_with_gaps_on_both_sides(kms: StrictKms, tmp_path: Path) -> None:
    """3% of the calls are missing in CloudTrail, and 3% are in CloudTrail but not in the log."""
    generator = random.Random(20260131)
    key_arn = kms.create_key()
    phi = client_of(kms, key_arn, tmp_path / "all.jsonl", max_messages=30)
    uses = 0
    while uses < 50_000:
        context = {"tenant": f"clinic-{generator.randrange(5)}"}
        with phi.acting_as(f"dr-{generator.randrange(20)}", generator.choice(list(Purpose))):
            message = phi.encrypt(b"x", context=context)
            uses += 1
            for _ in range(generator.randrange(2, 60)):
                assert phi.decrypt(message, context=context) == b"x"
                uses += 1
    assert phi.trail is not None
    phi.trail.close()

    requests = [request for request in kms.requests if request.operation != "CreateKey"]
    assert len(requests) > 1_000
    generator.shuffle(requests)
    gap = len(requests) * 3 // 100
    not_in_trail = {request.request_id for request in requests[:gap]}
    not_in_log = {request.request_id for request in requests[gap : 2 * gap]}
    deliver(
        tmp_path / "trail",
        (record_of(request, key_arn) for request in requests if request.request_id not in not_in_trail),
    )
    with (tmp_path / "audit.jsonl").open("wb") as kept:
        for line in (tmp_path / "all.jsonl").read_bytes().splitlines(keepends=True):
            request_ids = json.loads(line)["event"].get("request_ids", ())
            if not not_in_log.intersection(request_ids):
                kept.write(line)

    with joined(tmp_path / "audit.jsonl", tmp_path / "trail") as result:
        counts = result.matcher.counts()
        assert {finding.request_id for finding in result.matcher.findings(Category.LOCAL_ONLY)} == not_in_trail
        assert {finding.request_id for finding in result.matcher.findings(Category.TRAIL_ONLY)} == not_in_log
        assert counts[Category.MATCHED] == len(requests) - 2 * gap
        assert sum(counts.values()) == len(requests)
        assert result.statistics.cached > 40_000


@pytest.fixture
def one_call(kms: StrictKms, tmp_path: Path) -> tuple[Path, str, dict[str, Any]]:
    """A log with one KMS call, its key, and CloudTrail's record of it."""
    key_arn = kms.create_key()
    phi = client_of(kms, key_arn, tmp_path / "audit.jsonl")
    with phi.acting_as("dr-4711", Purpose.TREATMENT):
        phi.encrypt(b"x", context={"tenant": "clinic-7"})
    phi.close()
    return tmp_path / "audit.jsonl", key_arn, record_of(kms.requests[-1], key_arn)


def categories(log: Path, records: Iterable[dict[str, Any]], **settings: Any) -> list[str]:
    def read(since: int | None, until: int | None, reading: Reading) -> Iterator[TrailEvent]:
        for record in records:
            event = parse_record(record)
            if event is not None:
                yield event

    with join(log, read, **settings) as result:
        return [finding.category for finding in result.matcher.findings()]


def test_rule_22_equal_request_id_operation_key_and_principal_match(
    one_call: tuple[Path, str, dict[str, Any]],
) -> None:
    log, _, record = one_call
    assert categories(log, [record]) == [Category.MATCHED]


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"eventName": "Decrypt"}, "operation"),
        ({"userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::111122223333:user/mallory"}}, "principal"),
    ],
)
def test_rule_22_our_request_id_with_another_operation_or_principal_is_an_exception(
    one_call: tuple[Path, str, dict[str, Any]], change: dict[str, Any], note: str
) -> None:
    log, _, record = one_call
    assert categories(log, [record | change]) == [Category.EXCEPTION]


def test_rule_22_our_request_id_with_another_key_is_an_exception(
    one_call: tuple[Path, str, dict[str, Any]],
) -> None:
    log, key_arn, record = one_call
    other = key_arn[:-12] + "000000000000"
    record["resources"][0]["ARN"] = other
    assert categories(log, [record], key_arns=[other]) == [Category.EXCEPTION]
    assert categories(log, [record]) == [Category.EXCEPTION]  # nor does it escape under a key that is not watched


def test_rule_22_a_foreign_use_that_copies_a_correlation_id_is_never_matched(
    one_call: tuple[Path, str, dict[str, Any]],
) -> None:
    log, _, record = one_call
    same_role = record | {"requestID": "foreign-1", "eventID": "foreign-1"}
    other_role = same_role | {
        "eventID": "foreign-2",
        "userIdentity": {"type": "AssumedRole", "arn": "arn:aws:sts::111122223333:assumed-role/Other/mallory"},
    }
    much_later = same_role | {"eventID": "foreign-3", "eventTime": "2099-01-01T00:00:00Z"}
    for foreign, expected in (
        (same_role, Category.EXCEPTION),  # the call was answered, at its only attempt
        (other_role, Category.EXCEPTION),
        (much_later, Category.EXCEPTION),
        (same_role | {"eventName": "Decrypt"}, Category.EXCEPTION),
    ):
        assert sorted(categories(log, [record, foreign])) == sorted([Category.MATCHED, expected])
        assert Category.MATCHED not in categories(log, [foreign])


def test_rule_22_a_correlation_id_that_is_reused_is_an_exception_each_time(
    one_call: tuple[Path, str, dict[str, Any]],
) -> None:
    log, _, record = one_call
    copies = [record | {"requestID": f"foreign-{number}", "eventID": f"foreign-{number}"} for number in range(10)]
    found = categories(log, [record, *copies])
    assert found.count(Category.MATCHED) == 1
    assert found.count(Category.EXCEPTION) == 10


def test_rule_22_a_correlation_id_stands_for_as_many_records_as_attempts_went_unanswered(
    kms: StrictKms, tmp_path: Path
) -> None:
    key_arn = kms.create_key()
    phi = client_of(kms, key_arn, tmp_path / "audit.jsonl", read_timeout_seconds=0.2, max_attempts=2)
    kms.hang(1)
    phi.encrypt(b"x", context={"tenant": "clinic-7"})
    phi.close()
    (use,) = [event for event in log_events(tmp_path / "audit.jsonl") if event.kind == "use"]
    assert use.origin is not None
    assert (len(use.origin.request_ids), use.origin.unanswered_attempts) == (1, 1)
    lost, answered = [record_of(request, key_arn) for request in kms.requests if request.operation != "CreateKey"]
    assert sorted(categories(tmp_path / "audit.jsonl", [lost, answered])) == [Category.MATCHED, Category.PROBABLE]
    copy = lost | {"requestID": "foreign-1", "eventID": "foreign-1"}
    found = categories(tmp_path / "audit.jsonl", [lost, answered, copy])
    assert sorted(found) == [Category.EXCEPTION, Category.MATCHED, Category.PROBABLE]


def test_rule_22_a_request_id_that_cloudtrail_shows_twice_is_an_exception(
    one_call: tuple[Path, str, dict[str, Any]],
) -> None:
    log, _, record = one_call
    assert categories(log, [record, record]) == [Category.MATCHED]  # delivered twice, under one event id
    assert categories(log, [record, record | {"eventID": "other"}]) == [Category.EXCEPTION] * 2


def test_rule_22_records_of_both_accounts_of_a_call_are_one(one_call: tuple[Path, str, dict[str, Any]]) -> None:
    """The account that owns the key has a record of its own, which does not name the other's principal."""
    log, _, record = one_call
    callers = record | {"sharedEventID": "shared-1"}
    owners = callers | {
        "eventID": "owners-1",
        "recipientAccountId": "444455556666",
        "userIdentity": {"type": "AWSAccount", "principalId": "AROAEXAMPLE:i-0abc", "accountId": "111122223333"},
    }
    assert categories(log, [callers, owners]) == [Category.MATCHED]
    assert categories(log, [owners]) == [Category.PROBABLE]


def test_rule_22_without_a_principal_nothing_is_more_than_probable(kms: StrictKms, tmp_path: Path) -> None:
    key_arn = kms.create_key()
    with PhiCrypt(
        keyring=KmsKeyring(key_arn, client=kms.client()), audit=[JsonlSink(tmp_path / "audit.jsonl")]
    ) as phi:
        phi.encrypt(b"x")
    record = record_of(kms.requests[-1], key_arn)
    assert categories(tmp_path / "audit.jsonl", [record]) == [Category.PROBABLE]
    for principal in (ROLE_ARN, SESSION_ARN):
        assert categories(tmp_path / "audit.jsonl", [record], principals=[principal]) == [Category.MATCHED]


def test_rule_22_a_throttled_call_retried_three_times_is_one_use_with_three_request_ids(
    kms: StrictKms, tmp_path: Path
) -> None:
    key_arn = kms.create_key()
    phi = client_of(kms, key_arn, tmp_path / "audit.jsonl", max_attempts=4)
    kms.throttle(2)
    phi.encrypt(b"x", context={"tenant": "clinic-7"})
    phi.close()
    attempts = [request for request in kms.requests if request.operation == "GenerateDataKey"]
    assert len(attempts) == 3
    (use,) = [event for event in log_events(tmp_path / "audit.jsonl") if event.kind == "use"]
    assert use.origin is not None
    assert use.origin.request_ids == tuple(attempt.request_id for attempt in attempts)
    found = categories(tmp_path / "audit.jsonl", [record_of(attempt, key_arn) for attempt in attempts])
    assert sorted(found) == [Category.ATTEMPT, Category.ATTEMPT, Category.MATCHED]


def test_rule_22_uses_by_aws_services_are_a_class_of_their_own(one_call: tuple[Path, str, dict[str, Any]]) -> None:
    log, _, record = one_call
    by_service = record | {
        "requestID": "s3-1",
        "eventID": "s3-1",
        "userAgent": "s3.amazonaws.com",
        "userIdentity": {"type": "AWSService", "invokedBy": "s3.amazonaws.com"},
    }
    assert sorted(categories(log, [record, by_service])) == [Category.SERVICE, Category.MATCHED]


def test_a_denied_call_is_recorded_on_both_sides(kms: StrictKms, tmp_path: Path) -> None:
    key_arn = kms.create_key()
    phi = client_of(kms, key_arn, tmp_path / "audit.jsonl")
    kms.deny(key_arn, "GenerateDataKey")
    with pytest.raises(KeyAccessError):
        phi.encrypt(b"x")
    phi.close()
    (use,) = [event for event in log_events(tmp_path / "audit.jsonl") if event.kind == "use"]
    assert (use.outcome, use.error, use.reason) == ("denied", "KeyAccessError", "AccessDeniedException")
    record = record_of(kms.requests[-1], key_arn)
    assert categories(tmp_path / "audit.jsonl", [record]) == [Category.DENIED]
    assert categories(tmp_path / "audit.jsonl", []) == [Category.LOCAL_ONLY]
    success = {name: value for name, value in record.items() if not name.startswith("error")}
    assert categories(tmp_path / "audit.jsonl", [success]) == [Category.EXCEPTION]


def test_every_call_for_several_recipients_is_named_also_when_the_last_one_is_denied(
    kms: StrictKms, tmp_path: Path
) -> None:
    arns = [kms.create_key() for _ in range(3)]
    keyring = MultiKeyring(*(KmsKeyring(arn, client=kms.client()) for arn in arns))
    trail = AuditTrail([JsonlSink(tmp_path / "audit.jsonl")], principal=ROLE_ARN)
    kms.deny(arns[2])
    with PhiCrypt(keyring, audit=trail) as phi, pytest.raises(KeyAccessError):
        phi.encrypt(b"x")
    calls = [request for request in kms.requests if request.operation != "CreateKey"]
    assert [request.operation for request in calls] == ["GenerateDataKey", "Encrypt", "Encrypt"]
    records = [record_of(request, arn) for request, arn in zip(calls, arns, strict=True)]
    found = categories(tmp_path / "audit.jsonl", records)
    assert sorted(found) == [Category.DENIED, Category.MATCHED, Category.MATCHED]


def test_a_branch_key_fetched_for_a_second_recipient_is_named(kms: StrictKms, tmp_path: Path) -> None:
    key_arn = kms.create_key()
    with local_aws() as aws:
        store = KeyStores(aws, kms).new_store()
        store.create_key("tenant-7")
        kms.requests.clear()
        keyring = MultiKeyring(
            KmsKeyring(key_arn, client=kms.client()), HierarchicalKeyring(store, branch_key_id="tenant-7")
        )
        trail = AuditTrail([JsonlSink(tmp_path / "audit.jsonl")], principal=ROLE_ARN)
        with PhiCrypt(keyring, audit=trail) as phi:
            phi.encrypt(b"x")
    records = [record_of(request, request.parameters["KeyId"]) for request in kms.requests]
    assert len(records) == 3, "the branch key is opened twice (rule 28)"
    assert categories(tmp_path / "audit.jsonl", records) == [Category.MATCHED] * 3


def test_a_denied_call_of_which_cloudtrail_names_no_key_is_still_ours(kms: StrictKms, tmp_path: Path) -> None:
    key_arn = kms.create_key()
    phi = client_of(kms, key_arn, tmp_path / "audit.jsonl")
    phi.encrypt(b"x")
    first = record_of(kms.requests[-1], key_arn)
    kms.deny(key_arn, "GenerateDataKey")
    with pytest.raises(KeyAccessError):
        phi.encrypt(b"x")
    phi.close()
    bare = record_of(kms.requests[-1], key_arn) | {"resources": None, "requestParameters": None}
    assert sorted(categories(tmp_path / "audit.jsonl", [first, bare])) == [Category.DENIED, Category.MATCHED]
    foreign = bare | {
        "requestID": "foreign",
        "eventID": "foreign",
        "userAgent": "curl",
        "errorMessage": f"User: mallory is not authorized to perform: kms:Decrypt on resource: {key_arn}",
    }
    found = categories(tmp_path / "audit.jsonl", [first, bare, foreign])
    assert sorted(found) == [Category.DENIED, Category.DENIED, Category.MATCHED]


def test_a_call_whose_answer_never_came_is_probable_by_its_correlation_id(kms: StrictKms, tmp_path: Path) -> None:
    key_arn = kms.create_key()
    phi = client_of(kms, key_arn, tmp_path / "audit.jsonl", read_timeout_seconds=0.2)
    kms.hang(1)
    with pytest.raises(KeyAccessError):
        phi.encrypt(b"x")
    phi.close()
    assert categories(tmp_path / "audit.jsonl", []) == []
    assert categories(tmp_path / "audit.jsonl", [record_of(kms.requests[-1], key_arn)]) == [Category.PROBABLE]


def test_key_administration_is_listed_and_descriptions_are_not(one_call: tuple[Path, str, dict[str, Any]]) -> None:
    log, _, record = one_call
    disable = record | {"eventName": "DisableKey", "requestID": "a-1", "eventID": "a-1"}
    describe = record | {"eventName": "DescribeKey", "requestID": "a-2", "eventID": "a-2"}
    assert sorted(categories(log, [record, disable, describe])) == [Category.ADMINISTRATION, Category.MATCHED]


def test_records_of_other_keys_are_not_ours_to_judge(one_call: tuple[Path, str, dict[str, Any]]) -> None:
    log, key_arn, record = one_call
    other = json.loads(json.dumps(record)) | {"requestID": "o-1", "eventID": "o-1"}
    other["resources"][0]["ARN"] = key_arn[:-12] + "000000000000"
    assert categories(log, [record, other]) == [Category.MATCHED]


@pytest.mark.parametrize("minutes", [-9, 9])
def test_clocks_that_disagree_by_minutes_do_not_matter(
    one_call: tuple[Path, str, dict[str, Any]], minutes: int
) -> None:
    log, _, record = one_call
    (use,) = [event for event in log_events(log) if event.kind == "use"]
    shifted = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(use.time_ns // 10**9 + minutes * 60))
    assert categories(log, [record | {"eventTime": shifted}]) == [Category.MATCHED]
    around = {"since_ns": use.time_ns - 10**9, "until_ns": use.time_ns + 10**9}
    assert Category.LOCAL_ONLY not in categories(log, [record | {"eventTime": shifted}], **around)


def test_only_what_happened_in_the_asked_time_is_judged(one_call: tuple[Path, str, dict[str, Any]]) -> None:
    log, _, record = one_call
    (use,) = [event for event in log_events(log) if event.kind == "use"]
    assert categories(log, [], since_ns=use.time_ns + 1) == []
    assert categories(log, [], until_ns=use.time_ns - 1) == []
    old = record | {"requestID": "f", "eventID": "f", "userAgent": "other", "eventTime": "2020-01-01T00:00:00Z"}
    assert categories(log, [record, old]) == [Category.TRAIL_ONLY, Category.MATCHED]
    assert categories(log, [record, old], since_ns=use.time_ns - 60 * 10**9) == [Category.MATCHED]


# What CloudTrail delivers, whole and broken


def test_rule_25_broken_files_are_named_and_the_rest_is_used(
    one_call: tuple[Path, str, dict[str, Any]], tmp_path: Path
) -> None:
    log, _, record = one_call
    trail = tmp_path / "trail"
    foreign = record | {"eventSource": "s3.amazonaws.com", "eventName": "GetObject"}
    future = record | {"eventVersion": "2.0"}
    deliver(
        trail, [foreign, future, record, {"eventVersion": "1.08"}, "text", record | {"eventTime": "yesterday"}]
    )
    whole = next(trail.iterdir()).read_bytes()
    (trail / "cut.json.gz").write_bytes(whole[: len(whole) // 2])
    (trail / "corrupt.json.gz").write_bytes(whole[:30] + b"\xff\xff\xff" + whole[33:])
    (trail / "cut.json").write_bytes(gzip.decompress(whole)[:-20])
    (trail / "other.json").write_text('{"nothing": []}')
    (trail / "list.json").write_text("[]")
    (trail / "deep.json").write_text("[" * 100_000)
    (trail / "notes.txt").write_text("not read")
    with joined(log, trail) as result:
        assert result.matcher.counts()[Category.MATCHED] == 1
        # Of the two files that are cut, what stands before the cut is evidence too.
        assert result.reading.of_other_services == 4
        named = "\n".join(result.reading.problems)
    assert result.reading.problem_count == 11
    for what in ("cut.json.gz: corrupt or truncated gzip", "corrupt.json.gz: corrupt", "cut.json: truncated JSON"):
        assert what in named
    assert "unknown CloudTrail version" in named
    assert "not a CloudTrail record" in named
    assert "no valid eventTime" in named


@pytest.mark.parametrize(
    "change",
    [
        {"requestID": "\ud800"},
        {"userIdentity": {"type": "IAMUser", "arn": "\ud800"}},
        {"eventName": "De\ud800crypt", "errorCode": "\udfff"},
        {"eventTime": "9999-12-31T23:59:59Z"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_rule_26_a_record_that_nothing_can_store_does_not_end_the_join(
    one_call: tuple[Path, str, dict[str, Any]], tmp_path: Path, change: dict[str, Any]
) -> None:
    log, _, record = one_call
    hostile = record | {"requestID": "foreign-1", "eventID": "foreign-1", "userAgent": "x"} | change
    deliver(tmp_path / "trail", [hostile, record])
    with joined(log, tmp_path / "trail") as result:
        assert result.matcher.counts()[Category.MATCHED] == 1
        assert render(result, title="x").encode()


@pytest.mark.parametrize(
    "change",
    [
        {"actor": {}},
        {"actor": 5},
        {"actor": "\ud800"},
        {"purpose": []},
        {"key": ["x"]},
        {"request_ids": 5},
        {"other_calls": [5]},
        {"context": {"a": 5}},
        {"time": "9999-12-31T23:59:59Z"},
        {"correlation_id": [1]},
    ],
    ids=str,
)
def test_a_line_that_was_edited_into_no_event_does_not_end_the_join(
    one_call: tuple[Path, str, dict[str, Any]], tmp_path: Path, change: dict[str, Any]
) -> None:
    log, key_arn, record = one_call
    *lines, last = log.read_text().splitlines()
    edited = json.loads(last)
    edited["event"] |= change
    path = tmp_path / "edited.jsonl"
    path.write_text("\n".join([*lines, json.dumps(edited, separators=(",", ":"))]) + "\n")
    deliver(tmp_path / "trail", [record])
    with joined(path, tmp_path / "trail", key_arns=[key_arn]) as result:
        assert result.matcher.counts()[Category.TRAIL_ONLY] == 1
        assert render(result, title="x").encode()
    assert not verify(path).is_valid


def test_rule_26_a_file_that_inflates_beyond_the_bound_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phicrypt.evidence.cloudtrail.MAX_FILE_LENGTH_BYTES", 1_000_000)
    (tmp_path / "bomb.json.gz").write_bytes(gzip.compress(bytes(50_000_000)))
    reading = Reading()
    assert list(read_folder(tmp_path, reading=reading)) == []
    assert "longer than" in reading.problems[0]


def test_a_missing_folder_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        list(read_folder(tmp_path / "none"))
    with pytest.raises(ConfigurationError):
        trail_source("ftp://x", client=lambda service: None)


class LookupClient:
    """LookupEvents with pages, and throttled at every third call."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.records = records
        self.calls = 0

    def lookup_events(self, **question: Any) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        self.calls += 1
        if self.calls % 3 == 0:
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": ""}}, "LookupEvents")
        assert question["LookupAttributes"] == [
            {"AttributeKey": "EventSource", "AttributeValue": "kms.amazonaws.com"}
        ]
        start = int(question.get("NextToken", 0))
        page = self.records[start : start + 2]
        answer: dict[str, Any] = {"Events": [{"CloudTrailEvent": json.dumps(record)} for record in page]}
        if start + 2 < len(self.records):
            answer["NextToken"] = str(start + 2)
        return answer


def test_lookup_pages_two_a_second_and_waits_when_throttled(one_call: tuple[Path, str, dict[str, Any]]) -> None:
    _, _, record = one_call
    records = [record | {"eventID": str(number)} for number in range(9)]
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    client = LookupClient(records)
    events = list(look_up(client, sleep=sleep, clock=lambda: now))
    assert [event.event_id for event in events] == [str(number) for number in range(9)]
    assert now >= 4 * 0.5


class Bucket:
    """The two S3 verbs that reading needs."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.fetched: list[str] = []

    def get_paginator(self, name: str) -> Any:
        assert name == "list_objects_v2"
        return self

    def paginate(self, **question: str) -> Iterator[dict[str, Any]]:
        yield {
            "Contents": [
                {"Key": object_key} for object_key in self.objects if object_key.startswith(question["Prefix"])
            ]
        }

    def get_object(self, **question: str) -> dict[str, Any]:
        self.fetched.append(question["Key"])
        return {"Body": io.BytesIO(self.objects[question["Key"]])}


def test_only_the_days_that_are_asked_are_fetched_from_a_bucket(
    one_call: tuple[Path, str, dict[str, Any]],
) -> None:
    _, _, record = one_call
    content = gzip.compress(json.dumps({"Records": [record | {"eventTime": "2026-01-10T12:00:00Z"}]}).encode())
    prefix = "AWSLogs/111122223333/CloudTrail/us-east-1"
    days = {f"{prefix}/2026/01/{day:02d}/x.json.gz": content for day in range(1, 21)}
    bucket = Bucket(days | {"AWSLogs/111122223333/CloudTrail-Digest/us-east-1/2026/01/10/d.json.gz": b""})
    since, until = 1_768_003_200 * 10**9, 1_768_089_600 * 10**9  # 2026-01-10, one day
    events = list(read_bucket(bucket, "s3://logs/AWSLogs", since_ns=since, until_ns=until))
    assert len(bucket.fetched) <= 4
    assert f"{prefix}/2026/01/10/x.json.gz" in bucket.fetched
    assert len(events) == len(bucket.fetched)


def test_memory_does_not_grow_with_the_number_of_records() -> None:
    """PHICRYPT_AUDIT_RECORDS=1000000 is the full size; the bound is the same."""
    count = int(os.environ.get("PHICRYPT_AUDIT_RECORDS", "100000"))
    key_arn = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

    def use(number: int) -> AuditEvent:
        origin = KeyOrigin(
            "aws-kms", key_arn, None, (f"request-{number}",), f"{number:032x}", operation="GenerateDataKey"
        )
        return AuditEvent(
            number * 10**6, "use", f"u-{number}", "encrypt", "success", origin=origin, principal=ROLE_ARN
        )

    def record(number: int) -> TrailEvent:
        return TrailEvent(
            *(f"event-{number}", number * 10**6, "GenerateDataKey", f"request-{number}", key_arn, SESSION_ARN),
            *(ROLE_ARN, "", "", "", "", "", "", "", f"{number:032x}", {}),
        )

    with Matcher() as matcher:
        at_start = 0
        for number in range(count):
            matcher.add_use(use(number))
            if number == 20_000:
                at_start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(count):
            matcher.add_record(record(number))
        matcher.finish()
        assert matcher.counts()[Category.MATCHED] == count
        assert sum(1 for _ in matcher.findings()) == count
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - at_start
    assert grown_kib < 100_000  # a million records kept in memory are far more than ten times this


def test_begin_without_end_is_one_use_and_pairs_are_one(tmp_path: Path) -> None:
    trail = AuditTrail([JsonlSink(tmp_path / "audit.jsonl")])
    trail.begin("decrypt").end()
    lost: Any = trail.begin("decrypt")
    lost._is_open = False  # as if the process had died
    trail.record("encrypt", opening=True)
    uses = [use for use in whole_uses(log_events(tmp_path / "audit.jsonl")) if use.kind != "chain-start"]
    assert [use.outcome for use in uses] == ["success", "success", "begun"]


def test_every_kms_call_says_phicrypt_and_its_correlation_id(kms: StrictKms) -> None:
    key_arn = kms.create_key()
    with tagged_call() as call:
        PhiCrypt(keyring=KmsKeyring(key_arn, client=kms.client())).encrypt(b"x")
    event = parse_record(record_of(kms.requests[-1], key_arn))
    assert event is not None
    assert event.user_agent.startswith("phicrypt/")
    assert len(event.correlation_id) == 32
    assert call.correlation_id != event.correlation_id
