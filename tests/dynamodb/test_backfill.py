"""Beacons for items that were written before, and the check that every item is found (rule 38)."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
from support.dynamodb_support import Server
from support.searched_tables import INDEXES, config, create, patient, static_keyring

from phicrypt import PhiCrypt
from phicrypt.dynamodb import search as s
from phicrypt.dynamodb.backfill import backfill_table
from phicrypt.dynamodb.config import TableConfig
from phicrypt.dynamodb.migration import verify_table
from phicrypt.dynamodb.walks import WalkOptions
from phicrypt.errors import ConfigurationError

SEARCH = s.SearchConfig(
    standard=[
        s.StandardBeacon("mrn", bits=12),
        s.StandardBeacon("email_lower", bits=15),
        s.StandardBeacon("last_name", 9),
    ],
    compound=[
        s.CompoundBeacon("lookup", "^", [s.SignedPart("clinic", "C-")], [s.EncryptedPart("last_name", "L-")])
    ],
    virtual=[s.VirtualField("email_lower", s.VirtualPart("email", s.Lower()))],
)


class Older:
    """A table of eight items that a writer without search wrote, and clients of both kinds."""

    def __init__(self, server: Server, search: s.SearchConfig = SEARCH) -> None:
        self.name = f"patients-{uuid.uuid4().hex[:8]}"
        self.raw = server.raw_client()
        create(self.raw, self.name, INDEXES)
        searched = config(self.name, search)
        plain = TableConfig(
            self.name,
            "patient_id",
            actions={name: action for name, action in searched.actions.items() if name != "where"},
            unsigned_attributes=("note",),
        )
        self.before = PhiCrypt(static_keyring()).dynamodb.client([plain], check_tables="never", **server.options())
        self.client = PhiCrypt(static_keyring()).dynamodb.client([searched], **server.options())
        for number in range(8):
            self.before.put_item(TableName=self.name, Item=patient(number))

    def stored(self, number: int = 0) -> dict[str, Any]:
        key = {"patient_id": {"S": f"p{number}"}}
        item: dict[str, Any] = self.raw.get_item(TableName=self.name, Key=key, ConsistentRead=True)["Item"]
        return item

    def found(self, mrn: str) -> int:
        answer = self.client.query(
            TableName=self.name,
            IndexName="by-mrn",
            KeyConditionExpression="mrn = :m",
            ExpressionAttributeValues={":m": {"S": mrn}},
        )
        return int(answer["Count"])


@pytest.fixture
def older(moto: Server) -> Older:
    return Older(moto)


def test_items_get_their_beacons_and_nothing_is_encrypted_again(older: Older) -> None:
    before = older.stored()
    assert (older.found("A-3"), verify_table(older.client, older.name).unfindable) == (0, 8)
    trial = backfill_table(older.client, older.name, dry_run=True)
    assert (trial.written_now, older.stored()) == (8, before)
    report = backfill_table(older.client, older.name)
    assert (report.written_now, report.found_before, report.is_complete) == (8, 0, True)
    after = older.stored()
    assert {name: value for name, value in after.items() if not name.startswith("aws_dbe_b_")} == before
    assert older.found("A-3") == 1
    assert verify_table(older.client, older.name).is_proven
    again = backfill_table(older.client, older.name)
    assert (again.written_now, again.found_before) == (0, 8)


def test_what_it_writes_is_what_a_writer_writes(older: Older) -> None:
    backfill_table(older.client, older.name)
    backfilled = {name: value for name, value in older.stored().items() if name.startswith("aws_dbe_b_")}
    older.client.put_item(TableName=older.name, Item=patient(0))
    assert backfilled == {name: value for name, value in older.stored().items() if name.startswith("aws_dbe_b_")}


@pytest.mark.parametrize("change", ["missing", "forged", "one too many"])
def test_rule_38_verify_finds_beacons_that_are_missing_or_wrong_and_the_backfill_mends_them(
    older: Older, change: str
) -> None:
    backfill_table(older.client, older.name)
    item = older.stored(2)
    if change == "missing":
        del item["aws_dbe_b_mrn"]
    elif change == "forged":
        item["aws_dbe_b_mrn"] = {"S": "fff" if item["aws_dbe_b_mrn"] != {"S": "fff"} else "eee"}
    else:
        del item["email"]
        older.client.put_item(TableName=older.name, Item=patient(2) | {"email": {"S": "x"}})
        item = older.stored(2) | {"aws_dbe_b_email_lower": {"S": "7fff"}}
    older.raw.put_item(TableName=older.name, Item=item)
    report = verify_table(older.client, older.name)
    assert (report.unfindable, report.verified, report.is_proven) == (1, 7, False)
    assert "A-2" not in str(report)
    assert backfill_table(older.client, older.name).written_now == 1
    assert verify_table(older.client, older.name).is_proven


def test_a_writer_who_comes_between_wins(older: Older) -> None:
    waiting = [patient(5, mrn={"S": "B-5"})]

    def write_first(**_: Any) -> None:
        if waiting:
            older.before.put_item(TableName=older.name, Item=waiting.pop())

    older.client.meta.events.register("before-send.dynamodb.UpdateItem", write_first)
    assert backfill_table(older.client, older.name, WalkOptions(segments=1)).is_complete
    assert (older.found("B-5"), older.found("A-5")) == (1, 0)
    assert verify_table(older.client, older.name).is_proven


def test_after_a_stop_it_goes_on_where_it_was(older: Older, tmp_path: Path) -> None:
    left = [3]

    def stop(**_: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    options = WalkOptions(segments=1, page_size=2, checkpoint_file=tmp_path / "position")
    older.client.meta.events.register("before-send.dynamodb.UpdateItem", stop)
    with pytest.raises(KeyboardInterrupt):
        backfill_table(older.client, older.name, options)
    report = backfill_table(older.client, older.name, options)
    assert report.is_complete
    assert report.written_now + report.found_before == 8
    assert verify_table(older.client, older.name).is_proven


def test_items_of_a_partition_keep_it(moto: Server) -> None:
    spread = s.SearchConfig(SEARCH.standard, SEARCH.compound, SEARCH.virtual, max_partitions=3)
    older = Older(moto, spread)
    backfill_table(older.client, older.name)
    before = [older.stored(number) for number in range(8)]
    for number in range(8):
        older.raw.put_item(
            TableName=older.name, Item={n: v for n, v in before[number].items() if n != "aws_dbe_b_lookup"}
        )
    assert backfill_table(older.client, older.name).written_now == 8
    assert [older.stored(number) for number in range(8)] == before


def test_a_table_without_search_and_an_item_without_its_beacons_are_refused(older: Older) -> None:
    with pytest.raises(ConfigurationError, match="no beacons"):
        backfill_table(older.before, older.name)
    older.before.put_item(TableName=older.name, Item=patient(1, last_name={"S": "Can^ary"}))
    report = backfill_table(older.client, older.name)
    assert (report.refused, report.is_complete, "ary" in str(report.reasons)) == (1, False, False)
