"""One item's way from the verb to the bytes that leave, and from those that come to the answer.

``python -m pytest tests/dynamodb/test_path_of_an_item.py -s`` prints the paths.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import pytest
from support.dynamodb_support import Clinic, Server, key, open_clinic, patient
from support.module_path import ModulePath, followed

from phicrypt import PhiCrypt, RawAesKeyring
from phicrypt.audit import RecordingSink

CHECKED = {"layer", "requests", "operations", "tables", "table_checks", "checks", "config"}
"""What looks at a request, before anything is sealed or sent."""
SEALED = {"items", "item_layouts", "config", "shapes"}
SENT_AND_ANSWERED = {"requests", "layer", "tables", "answers"}
OPENED = {"answers", "layer", "tables", "items", "item_layouts", "config", "shapes", "matching"}
MAX_VISITS = {"put_item": 40, "get_item": 60}


@pytest.fixture(params=["no audit trail", "an audit trail"])
def used_clinic(request: pytest.FixtureRequest, moto: Server) -> Clinic:
    """With a table that was written and read before, so that nothing is left to look up."""
    sinks = [RecordingSink()] if request.param == "an audit trail" else []
    clinic = open_clinic(moto, PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(32)), audit=sinks))
    clinic.client.put_item(TableName=clinic.name, Item=patient())
    clinic.client.get_item(TableName=clinic.name, Key=key())
    return clinic


def path_of(clinic: Clinic, verb: str, **request: Any) -> ModulePath:
    with followed("phicrypt.dynamodb") as path:
        getattr(clinic.client, verb)(TableName=clinic.name, **request)
    # It stands around boto3's own method, so that the end of each handler would count as a return into it.
    inside = [module for module in path.visits if module != "refused_values"]
    path.visits[:] = [module for place, module in enumerate(inside) if inside[place - 1 : place] != [module]]
    print(f"{verb}: {path}")
    assert len(path.visits) <= MAX_VISITS[verb]
    return path


def test_a_put_is_checked_whole_then_sealed_then_sent_and_answered(used_clinic: Clinic) -> None:
    visits = path_of(used_clinic, "put_item", Item=patient()).visits
    before = list(takewhile(lambda module: module != "items", visits))
    after = list(takewhile(lambda module: module != "items", reversed(visits)))
    sealing = visits[len(before) : len(visits) - len(after)]
    assert set(before) <= CHECKED
    assert set(sealing) <= SEALED
    assert set(after) <= SENT_AND_ANSWERED
    assert before[0] == after[0] == "layer"


def test_a_get_is_checked_before_it_is_sent_and_opened_after_it_is_answered(used_clinic: Clinic) -> None:
    visits = path_of(used_clinic, "get_item", Key=key()).visits
    before = list(takewhile(lambda module: module != "answers", visits))
    assert set(before) <= CHECKED
    assert set(visits[len(before) :]) <= OPENED
