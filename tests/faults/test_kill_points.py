"""Processes that are killed at their work: ``python -m tests.faults --kills 200`` for acceptance."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.kills import KillingGround, run_kills
from faults.stage import BUCKET, CANARY, PATIENTS, stage
from faults.victims import ACTIONS, TENANT
from phicrypt.core.output_file import offers_unnamed_files

KILLS = int(os.environ.get("PHICRYPT_KILLS", "4"))
QUICK = ("update", "audit", "key-store", "transactions")
"""Uploads, downloads and the command line are killed in the tests of their own areas, too."""


def test_kills_lose_nothing_acknowledged_and_leave_no_plaintext() -> None:
    actions = tuple(ACTIONS) if len(QUICK) < KILLS else QUICK
    report = run_kills(KILLS, seed=4, actions=actions)
    assert report.violations == [], report.text()
    assert report.counts["kills"] == KILLS
    assert sum(report.counts[f"acknowledged by {action}"] for action in actions) > 0, report.text()


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KillingGround]:
    folder = tmp_path_factory.mktemp("kills")
    with stage(folder) as made:
        made.store().create_key(TENANT)
        yield KillingGround(made, folder, _starts_nothing, random.Random(1))


def _starts_nothing(told: dict[str, Any]) -> Any:
    raise AssertionError(told)


@pytest.fixture
def judged(grounds: KillingGround) -> Iterator[KillingGround]:
    grounds.report.violations.clear()
    yield grounds
    grounds.report.violations.clear()


def test_lost_files_and_plaintext_that_is_left_are_noticed(judged: KillingGround) -> None:
    left = Path(judged.folder) / ".k1.x.phicrypt-part"
    left.write_bytes(b"half of " + CANARY)
    (judged.folder / "k1-0").write_bytes(b"half")
    judged.check_files("k1", ["k1-1"])
    left.unlink()
    expected = ["the acknowledged file k1-1 is not there", "the file k1-0 is not whole"]
    if offers_unnamed_files():
        expected.append("plaintext is left in .k1.x.phicrypt-part")
    assert [what.partition(": ")[2] for what in judged.report.violations] == expected


def test_lost_objects_updates_and_halves_of_transactions_are_noticed(judged: KillingGround) -> None:
    judged.check_uploads("k2", ["k2/0"])
    item = {"clinic": {"S": "k2"}, "patient_id": {"S": "1"}, "note": {"S": ""}, "count": {"N": "3"}}
    judged.true.dynamodb.put_item(TableName=PATIENTS.table_name, Item=item)
    judged.check_count("k2", ["1", "2", "3", "4"])
    judged.check_count("k2", ["1", "2"])
    judged.check_count("k2", ["1"])
    note = judged.true.under_kms.encrypt(CANARY, context={"tenant": "7"}).hex()
    half = {**item, "patient_id": {"S": "0-1"}, "note": {"S": note}}
    judged.true.dynamodb.delete_item(
        TableName=PATIENTS.table_name, Key={n: item[n] for n in ("clinic", "patient_id")}
    )
    judged.true.dynamodb.put_item(TableName=PATIENTS.table_name, Item=half)
    judged.check_transactions("k2", [])
    assert [what.partition(": ")[2] for what in judged.report.violations] == [
        "the acknowledged object k2/0 is not there",
        "4 updates were acknowledged, 3 are there",
        "1 updates were acknowledged, 3 are there",
        "half a transaction is there",
    ]


def test_an_upload_that_was_begun_is_swept(judged: KillingGround) -> None:
    judged.true.raw_s3.create_multipart_upload(Bucket=BUCKET, Key="k3/0")
    before = judged.report.counts["uploads that the sweep aborted"]
    judged.check_uploads("k3", [])
    assert judged.report.counts["uploads that the sweep aborted"] == before + 1
    assert judged.report.violations == []
