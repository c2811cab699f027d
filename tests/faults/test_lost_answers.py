"""A write that arrives while its answer is lost is done once."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from faults.exchange import Incoming
from faults.kinds import FAULTS, Fault
from faults.stage import PATIENTS, Desk, stage
from phicrypt.dynamodb.updates import update_encrypted

ITEM_KEY = {"clinic": {"S": "north"}, "patient_id": {"S": "1"}}


def loses_the_first_answer_to(operation: str) -> Any:
    lost: list[str] = []

    def choose(request: Incoming, chance: random.Random) -> Fault | None:
        if request.operation == operation and not lost:
            lost.append(operation)
            return FAULTS["reset-after"]
        return None

    return choose


def increment(item: dict[str, Any]) -> None:
    item["count"] = {"N": str(int(item["count"]["N"]) + 1)}


def test_rule_18_an_update_whose_answer_was_lost_is_not_made_a_second_time(tmp_path: Path) -> None:
    with stage(tmp_path) as made:
        made.store().create_key("tenant")
        desk = Desk(made, "w1", "tenant")
        item = {**ITEM_KEY, "note": {"S": "canary"}, "count": {"N": "0"}}
        desk.dynamodb.put_item(TableName=PATIENTS.table_name, Item=item)
        made.proxy.choose = loses_the_first_answer_to("UpdateItem")
        changed = update_encrypted(desk.dynamodb, PATIENTS.table_name, ITEM_KEY, increment)
        read = desk.dynamodb.get_item(TableName=PATIENTS.table_name, Key=ITEM_KEY, ConsistentRead=True)["Item"]
    assert changed is not None
    assert changed["count"] == read["count"] == {"N": "1"}
    assert [event.fault for event in made.proxy.take_events("w1") if event.fault] == ["reset-after"]
