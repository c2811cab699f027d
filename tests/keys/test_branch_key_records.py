"""Rows of the key store as pure values, and what a process remembers of them."""

from __future__ import annotations

import gc
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.key_stores import refusal_of

from phicrypt.errors import KeyAccessError
from phicrypt.keys.branch_keys import records
from phicrypt.keys.branch_keys.steps import ProcessMemory

ID = "clinic-7"
ARN = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
CASES = int(os.environ.get("PHICRYPT_FUZZ_CASES", "300"))


def version_record() -> records.BranchKeyRecord:
    context = records.first_version_context(
        ID, logical_name="keys", kms_key_arn=ARN, custom_context={"department": "cardiology"}
    )
    return records.BranchKeyRecord(context, b"wrapped")


def parsed(item: Any, row_type: str) -> records.BranchKeyRecord:
    return records.parse_record(item, branch_key_id=ID, row_type=row_type, logical_name="keys")


def every_record() -> list[records.BranchKeyRecord]:
    version = version_record()
    return [
        version,
        records.BranchKeyRecord(records.active_context(version.context), b"wrapped"),
        records.BranchKeyRecord(records.beacon_context(version.context), b"wrapped"),
    ]


@pytest.mark.parametrize("record", every_record(), ids=["version", "active", "beacon"])
def test_a_row_reads_back_as_the_record_that_was_written(record: records.BranchKeyRecord) -> None:
    item = records.to_item(record)
    assert "tablename" not in item and item["hierarchy-version"] == {"N": "1"}
    assert parsed(item, record.context["type"]) == record
    assert record.custom_context == {"department": "cardiology"}


def test_the_active_row_copies_its_version() -> None:
    version, active, _ = every_record()
    assert active.context["version"] == version.context["type"]
    assert active.version == parsed(records.to_item(active), "branch:ACTIVE").version
    successor = records.next_version_context(active)
    assert "version" not in successor and successor["type"] != version.context["type"]
    assert successor["create-time"] > version.create_time
    assert successor["aws-crypto-ec:department"] == "cardiology"


@pytest.mark.parametrize(
    "change",
    [
        {"hierarchy-version": {"N": "2"}},
        {"hierarchy-version": {"S": "1"}},
        {"enc": {"S": "wrapped"}},
        {"enc": {"B": b""}},
        {"enc": {"B": bytes(6_145)}},
        {"create-time": {"S": "yesterday"}},
        {"create-time": {"S": "2026-02-30T00:00:00Z"}},
        {"create-time": {"S": "2026-02-03T00:00:00+00:00"}},
        {"kms-arn": {"S": ARN, "N": "1"}},
        {"branch-key-id": {"S": "clinic-8"}},
        {"type": {"S": "branch:ACTIVE"}},
        {"version": {"S": "branch:version:e9ce18a3-edb5-4272-9f86-1cacb7997ff6"}},
        {"tablename": {"S": "keys"}},
        {"note": {"N": "1"}},
    ],
)
def test_refuses_rows_that_no_key_store_writes(change: dict[str, Any]) -> None:
    record = version_record()
    item = {**records.to_item(record), **change}
    assert refusal_of(lambda: parsed(item, record.context["type"])).code == "InvalidBranchKeyRecord"


@pytest.mark.parametrize(
    "named", ["e9ce18a3-edb5-4272-9f86-1cacb7997ff6", "branch:version:", "branch:version:1", ""]
)
def test_refuses_an_active_row_that_names_no_version(named: str) -> None:
    active = every_record()[1]
    for item in (
        {**records.to_item(active), "version": {"S": named}},
        {name: value for name, value in records.to_item(active).items() if name != "version"},
    ):
        refusal_of(lambda item=item: parsed(item, "branch:ACTIVE"))


_values = st.one_of(
    st.fixed_dictionaries({"S": st.text(max_size=40)}),
    st.fixed_dictionaries({"N": st.sampled_from(["1", "2", "x"])}),
    st.fixed_dictionaries({"B": st.binary(max_size=40)}),
    st.just({}),
    st.just({"S": "a", "B": b"b"}),
)
_names = st.sampled_from(
    ["branch-key-id", "type", "enc", "kms-arn", "create-time", "hierarchy-version", "version", "tablename", "x"]
)


@settings(max_examples=CASES, deadline=None)
@given(
    changes=st.dictionaries(_names, st.one_of(st.none(), _values), max_size=4),
    kind=st.sampled_from([0, 1, 2]),
)
def test_any_row_is_either_refused_or_the_one_that_was_asked_for(changes: dict[str, Any], kind: int) -> None:
    record = every_record()[kind]
    item = {**records.to_item(record), **changes}
    item = {name: value for name, value in item.items() if value is not None}
    try:
        found = parsed(item, record.context["type"])
    except KeyAccessError as error:
        assert error.code == "InvalidBranchKeyRecord"
        return
    assert found.context["branch-key-id"] == ID and found.context["type"] == record.context["type"]
    assert found.context["tablename"] == "keys" and found.context["hierarchy-version"] == "1"
    assert set(found.context) == (set(item) - {"enc"}) | {"tablename"}


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2023-06-03T19:03:29Z", 0),
        ("2023-06-03T19:03:29.358Z", 358_000),
        ("2023-06-03T19:03:29.000001Z", 1),
        ("2023-06-03T19:03:29.123456789Z", 123_456),
    ],
)
def test_create_times_of_every_precision_are_read(text: str, microsecond: int) -> None:
    assert records.time_of(text) == datetime(2023, 6, 3, 19, 3, 29, microsecond, tzinfo=UTC)


def test_a_create_time_never_goes_back() -> None:
    future = datetime.now(UTC) + timedelta(days=1)
    after = records.create_time_after(records.format_time(future))
    assert records.time_of(after) == future + timedelta(microseconds=1)
    assert records.create_time_after(None) <= records.create_time_after("2023-06-03T19:03:29Z")


def versions(count: int) -> list[tuple[str, str]]:
    """Versions and their create-times, a second apart."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    return [(f"version-{at}", records.format_time(begin + timedelta(seconds=at))) for at in range(count)]


def test_rule_14_memory_never_goes_back_with_many_threads() -> None:
    memory = ProcessMemory()
    row = "row"
    for former, (version, create_time) in itertools.pairwise(versions(50)):
        memory.replaced(row, former[0], version, create_time)

    def see(seen: tuple[str, str]) -> bool:
        return memory.see(row, *seen, memory.changes(row)) is None

    with ThreadPoolExecutor(16) as pool:
        accepted = list(pool.map(see, versions(50) * 5))
    assert accepted == ([False] * 49 + [True]) * 5
    assert memory.see("another row", *versions(1)[0], 0) is None


def test_rule_14_a_row_that_was_read_before_another_change_is_read_again() -> None:
    memory = ProcessMemory()
    first, second, third = versions(3)
    assert memory.see("row", *first, 0) is None
    late = memory.changes("row")
    assert memory.see("row", *third, memory.changes("row")) is None
    assert memory.see("row", *second, late) is not None, "its reader began before the third was seen"
    assert memory.see("row", *third, late) is None, "what stands there now was read"
    assert memory.see("row", *first, memory.changes("row")) is not None


@pytest.mark.parametrize("hours", [-25.9, -8, 0, 14])
def test_rule_30_a_version_of_another_writers_clock_is_taken_and_the_former_one_is_not(hours: float) -> None:
    """AWS's library for Go writes 00:42:54Z in Los Angeles at 08:42:54Z."""
    memory = ProcessMemory()
    ours = datetime(2026, 1, 1, 8, 42, 54, tzinfo=UTC)
    theirs = records.format_time(ours + timedelta(hours=hours))
    assert memory.see("row", "ours", records.format_time(ours), 0) is None
    assert memory.see("row", "theirs", theirs, 0) is None
    refusal = memory.see("row", "ours", records.format_time(ours), memory.changes("row"))
    assert refusal is not None and refusal.code == "BranchKeyRolledBack"


def test_rule_30_a_version_beyond_every_clock_is_refused_with_both_times() -> None:
    memory = ProcessMemory()
    assert memory.see("row", "new", "2026-01-03T00:00:00Z", 0) is None
    refusal = memory.see("row", "old", "2026-01-01T21:59:59Z", 0)
    assert refusal is not None and refusal.code == "BranchKeyRolledBack"
    assert "2026-01-01T21:59:59" in str(refusal) and "2026-01-03T00:00:00" in str(refusal)


class _Holder:
    def __init__(self) -> None:
        self.forgotten: list[str] = []

    def forget(self, branch_key_id: str) -> None:
        self.forgotten.append(branch_key_id)


def test_no_holder_is_lost_when_many_threads_register() -> None:
    memory = ProcessMemory()
    holders = [_Holder() for _ in range(400)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda holder: memory.add_holder("scope", holder.forget), holders))
    memory.forget("scope", ID)
    memory.forget("another scope", "x")
    assert all(holder.forgotten == [ID] for holder in holders)


def test_holders_are_held_weakly() -> None:
    memory = ProcessMemory()
    holder = _Holder()
    memory.add_holder("scope", holder.forget)
    del holder
    gc.collect()
    memory.forget("scope", ID)
    kept = _Holder()
    memory.add_holder("scope", kept.forget)
    assert len(memory._holders["scope"]) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_remembers_and_does_not_wait_for_the_parents_lock() -> None:
    from phicrypt.keys.branch_keys.steps import process_memory

    row = ("forked", os.getpid())
    process_memory.replaced(row, "first", "second", "2026-01-02T00:00:00Z")
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with process_memory._lock:
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        refusal = process_memory.see(row, "first", "2026-01-01T00:00:00Z", process_memory.changes(row))
        os._exit(1 if refusal is None else 7)
    done.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
