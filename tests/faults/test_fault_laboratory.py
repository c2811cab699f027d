"""The laboratory itself: its faults are what their names say, and its judges notice what they are for."""

from __future__ import annotations

import base64
import http.client
import json
import random
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

from faults.contents import Content, bytes_of, named
from faults.exchange import Answer, Event, Incoming, tells_whole_lie
from faults.kinds import FAULTS, flipped
from faults.ledger import ABSENT, Ledger
from faults.proxy import FaultyProxy, always, some_faults
from faults.stage import BUCKET, CANARY, Desk, Stage, canaries, stage
from faults.uses import UsesOfCalls
from faults.worker import CALLS, Worker, wrong_label
from phicrypt.audit.events import AuditEvent
from phicrypt.errors import KeyAccessError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("faults")) as one:
        yield one


@pytest.fixture(autouse=True)
def no_fault_afterwards(made: Stage) -> Iterator[None]:
    yield
    made.proxy.choose = lambda request, chance: None


KMS_ANSWER = {"x-amz-target": "TrentService.ListAliases", "content-type": "application/x-amz-json-1.1"}


def asked(proxy: FaultyProxy, tag: str = "t") -> tuple[int, dict[str, str], bytes]:
    """One request to KMS through the proxy, without botocore."""
    host, port = proxy.endpoint_url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=1)
    try:
        connection.request("POST", "/", body=b"{}", headers={**KMS_ANSWER, "user-agent": f"lab/{tag}"})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["reset-before", "reset-after", "cut", "silent", "trickling"])
def test_what_is_no_answer_ends_the_connection(made: Stage, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made.proxy.choose = always(name, service="kms")
    monkeypatch.setattr("faults.kinds.TRICKLE_SECONDS", 0.6)
    with pytest.raises((OSError, http.client.HTTPException)):
        asked(made.proxy)


@pytest.mark.parametrize(("name", "arrivals"), [("reset-before", 0), ("reset-after", 1), ("duplicated", 2)])
def test_a_request_arrives_as_often_as_its_fault_says(made: Stage, name: str, arrivals: int) -> None:
    made.proxy.choose = always(name, service="kms")
    before = len(made.kms.requests)
    if arrivals == 2:
        asked(made.proxy)
    else:
        with pytest.raises((OSError, http.client.HTTPException)):
            asked(made.proxy)
    assert len(made.kms.requests) - before == arrivals


@pytest.mark.parametrize(
    ("name", "status", "content_type"),
    [("html", 200, "text/html"), ("empty", 200, None), ("throttled", 400, "json"), ("failing", 500, "json")],
)
def test_answers_that_no_service_or_no_server_gave(
    made: Stage, name: str, status: int, content_type: str | None
) -> None:
    made.proxy.choose = always(name, service="kms")
    found, headers, body = asked(made.proxy)
    assert found == status
    assert (content_type or "") in headers.get("Content-Type", "")
    assert bool(body) == (name != "empty")
    has_request_id = any(header.lower() == "x-amzn-requestid" for header in headers)
    assert has_request_id == (name in ("throttled", "failing"))


def test_a_swapped_answer_is_one_that_somebody_else_waited_for(made: Stage) -> None:
    made.proxy.choose = always("swapped", service="kms")
    with pytest.raises((OSError, http.client.HTTPException)):
        asked(made.proxy, "first")  # it is left for the next who asks
    first = made.kms.requests[-1].request_id
    _, headers, _ = asked(made.proxy, "second")
    assert headers["x-amzn-RequestId"] == first != made.kms.requests[-1].request_id


def test_a_repeated_answer_has_its_request_id_again(made: Stage) -> None:
    _, true, _ = asked(made.proxy, "again")
    made.proxy.choose = always("repeated", service="kms")
    assert asked(made.proxy, "again")[1]["x-amzn-RequestId"] == true["x-amzn-RequestId"]


def test_a_flipped_answer_differs_in_one_bit_and_has_the_checksum_of_what_it_is() -> None:
    body = b'{"Item": {}}'
    answer = Answer(200, (("x-amz-crc32", str(zlib.crc32(body))),), body)
    changed = answer.with_body(flipped(body, random.Random(1)))
    assert sum((one ^ other).bit_count() for one, other in zip(body, changed.body, strict=True)) == 1
    assert changed.headers == (("x-amz-crc32", str(zlib.crc32(changed.body))),)


def test_the_same_seed_chooses_the_same_faults() -> None:
    request = Incoming("POST", "/", (("x-amz-target", "TrentService.Decrypt"),), b"")

    def chosen(seed: int) -> list[str]:
        chance, choose = random.Random(seed), some_faults(0.5)
        return [fault.name if (fault := choose(request, chance)) else "" for _ in range(60)]

    assert chosen(1) == chosen(1) != chosen(2)
    assert {FAULTS[name].kind for name in chosen(1) if name} >= {"transport", "delay"}
    assert "slow-down" not in chosen(1), "that is S3's own"


# --- judges ---------------------------------------------------------------------------------------


def dynamodb(operation: str) -> Incoming:
    return Incoming("POST", "/", (("x-amz-target", f"DynamoDB_20120810.{operation}"),), b"")


def json_answer(document: Any, status: int = 200) -> Answer:
    return Answer(status, (), json.dumps(document).encode())


@pytest.mark.parametrize(
    ("operation", "true", "delivered", "is_lie"),
    [
        ("GetItem", {"Item": {"a": {}}}, {}, True),
        ("GetItem", {"Item": {"a": {}}}, {"Itfm": {"a": {}}}, True),
        ("GetItem", {"Item": {"a": {}}}, {"Item": {"b": {}}}, False),
        ("Query", {"Items": [{}, {}], "Count": 2}, {"Items": [{}], "Count": 1}, True),
        ("Query", {"Items": [{}], "Count": 1}, {"Items": [{}], "Count": 1}, False),
        ("BatchGetItem", {"Responses": {"t": [{"a": {}}]}}, {"Responses": {"t": []}}, True),
        ("TransactGetItems", {"Responses": [{"Item": {"a": {}}}]}, {"Responses": [{}]}, True),
    ],
)
def test_a_whole_lie_leaves_out_what_is_there(operation: str, true: Any, delivered: Any, is_lie: bool) -> None:
    given = json_answer(true), json_answer(delivered)
    assert tells_whole_lie(dynamodb(operation), *given, was_forwarded=True) == is_lie


def test_a_whole_lie_acknowledges_what_was_not_done() -> None:
    done, refused = json_answer({}), json_answer({"__type": "ConditionalCheckFailedException"}, 400)
    put = dynamodb("PutItem")
    assert tells_whole_lie(put, refused, done, was_forwarded=True)
    assert tells_whole_lie(put, done, done, was_forwarded=False)
    assert not tells_whole_lie(put, done, done, was_forwarded=True)
    assert not tells_whole_lie(put, done, refused, was_forwarded=True)


def test_the_ledger_allows_what_may_be_there_and_nothing_else() -> None:
    ledger = Ledger()
    place = ledger.place("item", 1)
    for value, is_acknowledged in (("first", True), ("second", False)):
        place.may_become(value)
        if is_acknowledged:
            ledger.judge_write(place, value, was_lied_to=False)
    for value in ("first", "second"):
        ledger.judge_read(place, value, was_lied_to=False)
    assert ledger.violations == []
    ledger.judge_read(place, ABSENT, was_lied_to=True)
    assert ledger.counts["apart: absent, since a whole answer said so"] == 1
    ledger.judge_read(place, ABSENT, was_lied_to=False)
    ledger.judge_read(place, "third", was_lied_to=True)
    assert [kind for kind, _ in ledger.violations] == ["absent", "wrong"]


def test_an_earlier_value_is_wrong_unless_a_whole_answer_held_it() -> None:
    ledger = Ledger()
    place = ledger.place("item", 1)
    for value in ("first", "second"):
        place.may_become(value)
        ledger.judge_write(place, value, was_lied_to=False)
    ledger.judge_read(place, "first", was_lied_to=True)
    assert ledger.violations == []
    ledger.judge_read(place, "first", was_lied_to=False)
    assert [kind for kind, _ in ledger.violations] == ["wrong"]


def test_a_write_that_only_a_lie_acknowledged_takes_nothing_back() -> None:
    ledger = Ledger()
    place = ledger.place("item", 1)
    place.may_become("new")
    ledger.judge_write(place, "new", was_lied_to=True)
    assert place.possible == {ABSENT, "new"}


@pytest.mark.parametrize(
    ("kinds", "is_retryable", "is_outage", "is_right"),
    [
        ({"transport"}, True, True, True),
        ({"transport"}, False, False, False),
        ({"server"}, True, True, True),
        ({"throttling"}, True, False, True),
        ({"throttling"}, True, True, False),
        ({"forged"}, False, False, True),
        ({"forged"}, True, False, False),
        (set(), True, True, False),
        ({"forged", "transport"}, True, True, True),
    ],
)
def test_labels_follow_from_what_was_done(
    kinds: set[str], is_retryable: bool, is_outage: bool, is_right: bool
) -> None:
    error = KeyAccessError("", operation="Decrypt", code="X", is_retryable=is_retryable, is_outage=is_outage)
    events = [Event("w1", "kms", "Decrypt", "a fault", kind) for kind in kinds]
    assert (wrong_label(error, events) == "") == is_right


def test_a_busy_machines_time_out_is_no_refusal_without_a_fault(
    made: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(made, 93, seed=1)
    late = KeyAccessError("", operation="Decrypt", code="ReadTimeoutError", is_retryable=True, is_outage=True)
    for error in (late, ReadTimeoutError(endpoint_url="x")):
        monkeypatch.setattr(worker.desk.s3, "put_object", _raising(error))
        worker.make_call("s3.put_object")
    assert worker.ledger.violations == []
    assert worker.ledger.counts["time-outs that no fault made"] == 2
    worker.close()


@pytest.mark.parametrize("shape", [bytes, lambda text: base64.b64encode(b"." + text), lambda t: t.hex().encode()])
def test_a_canary_in_a_request_is_seen(made: Stage, shape: Any) -> None:
    made.proxy.leaks.clear()
    body = shape(b"note: " + CANARY + b" and more")
    made.client("s3", "leaky").put_object(Bucket=BUCKET, Key="leaky", Body=body)
    assert made.proxy.leaks == ["s3 PUT"]
    made.proxy.leaks.clear()


def test_the_canary_has_a_form_for_each_place_in_base64() -> None:
    for shift in range(3):
        assert any(one in base64.b64encode(b"x" * shift + CANARY) for one in canaries())


def test_contents_differ_and_are_told_apart() -> None:
    contents = {Content(number, size) for number in range(3) for size in (1, 200)}
    assert len({bytes_of(one) for one in contents}) == len(contents)
    assert named(bytes_of(Content(2, 200)), {Content(1, 200), Content(2, 200)}) == Content(2, 200)
    assert isinstance(named(b"else", {Content(1, 200)}), str)


def event(kind: str, use_id: str, outcome: str = "success") -> AuditEvent:
    return AuditEvent(0, kind, use_id, "decrypt", outcome, actor="w1-1")


def test_uses_without_an_end_and_ends_without_a_beginning_are_seen() -> None:
    sink = UsesOfCalls()
    sink.write([event("begin", "a", "begun"), event("begin", "b", "begun"), event("end", "b"), event("end", "c")])
    uses = sink.take("w1-1")
    assert (uses.open, uses.strays, uses.succeeded("decrypt")) == ({"a"}, ["c"], 2)
    assert sink.take("w1-1").ended == {}


def test_a_worker_notices_a_foreign_exception_and_a_refusal_without_a_fault(
    made: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(made, 90, seed=1)
    for error in (KeyError("UploadId"), KeyAccessError("", operation="Decrypt", code="X")):
        monkeypatch.setattr(worker.desk.s3, "put_object", _raising(error))
        worker.make_call("s3.put_object")
    assert [kind for kind, _ in worker.ledger.violations] == [
        "foreign exception",
        "refused without a fault",
        "refused without a fault",
    ]
    worker.close()


def _raising(error: Exception) -> Any:
    def put_object(**_: Any) -> None:
        raise error

    return put_object


def test_a_worker_notices_a_lost_write_and_a_use_that_nobody_recorded(
    made: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(made, 91, seed=1)
    monkeypatch.setattr(
        worker.desk.s3, "put_object", lambda **_: {}
    )  # acknowledged, and neither stored nor recorded
    for _ in range(4):
        worker.make_call("s3.put_object")
    for _ in range(12):
        worker.make_call("s3.get_object")
    assert {kind for kind, _ in worker.ledger.violations} == {"audit", "absent"}
    worker.close()


def test_each_call_of_the_mix_is_made_once_without_a_fault(made: Stage) -> None:
    worker = Worker(made, 92, seed=1)
    for name in CALLS:
        worker.make_call(name)
    assert worker.ledger.violations == []
    assert worker.ledger.counts["calls"] == len(CALLS)
    worker.close()


def test_a_desk_without_a_tag_goes_past_the_proxy(made: Stage) -> None:
    made.proxy.choose = always("reset-before", service="s3")
    desk = Desk(made, "", "tenant-direct")
    made.store().create_key("tenant-direct")
    desk.s3.put_object(Bucket=BUCKET, Key="direct", Body=b"x")
    assert desk.s3.get_object(Bucket=BUCKET, Key="direct")["Body"].read() == b"x"
    with pytest.raises((ClientError, BotoCoreError)):
        Desk(made, "through", "tenant-direct").raw_s3.get_object(Bucket=BUCKET, Key="direct")
    assert Path(made.log).exists()
