"""Random questions over beacons, asked of a server that sees hashes only: the answer is that of the plaintext.

The server is simulated by evaluating what is sent on what is stored. With one to three bits equal hashes of
different values are everywhere, so a question that trusted them would be found out.
"""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from support.beacon_vectors import hashes_of

from phicrypt.dynamodb import Action, TableConfig
from phicrypt.dynamodb import search as s
from phicrypt.dynamodb.expressions import parse_condition
from phicrypt.dynamodb.item_beacons import beacons_of, chosen_partition, judged
from phicrypt.dynamodb.lookups import looked_up, touches_hidden
from phicrypt.dynamodb.matching import matches
from phicrypt.dynamodb.requests import checked_condition
from phicrypt.errors import ConfigurationError, UnsupportedOperationError

CASES = int(os.environ.get("PHICRYPT_FUZZ_CASES", "400"))
BEACON_KEY = bytes(range(32))
NAMES = ["Smith", "Smithson", "Ng", "", "smith", "Ng-a"]
CLINICS = ["north", "south", "nor", "n"]


def searched(rng: random.Random, partitions: int) -> TableConfig:
    bits = lambda: rng.randint(1, 3)  # noqa: E731
    shared = bits()
    search = s.SearchConfig(
        standard=(
            s.StandardBeacon("last", bits()),
            s.StandardBeacon("mrn", shared),
            s.StandardBeacon("old_mrn", shared, style="shared", shared_with="mrn"),
            s.StandardBeacon("tags", bits(), style="asSet"),
            s.StandardBeacon("city", bits(), "address.city"),
            s.StandardBeacon("tag", bits(), partitions=1 if partitions > 1 else None),
            s.StandardBeacon("dob", bits(), style="partOnly"),
        ),
        compound=(
            s.CompoundBeacon(
                "lookup",
                "^",
                [s.SignedPart("clinic", "C-"), s.SignedPart("year", "Y-")],
                [s.EncryptedPart("last", "L-"), s.EncryptedPart("dob", "D-")],
                [
                    s.Constructor("clinic", "last", s.OptionalPart("dob")),
                    s.Constructor("year", s.OptionalPart("last"), "dob"),
                ],
            ),
            s.CompoundBeacon("place", "#", [s.SignedPart("clinic", "c:"), s.SignedPart("year", "y:")]),
        ),
        virtual=(s.VirtualField("tag", s.VirtualPart("last", s.Lower(), s.Prefix(2)), s.VirtualPart("clinic")),),
        max_partitions=partitions,
    )
    hidden = ("last", "mrn", "old_mrn", "tags", "address", "dob", "note")
    actions = dict.fromkeys(hidden, Action.ENCRYPT_AND_SIGN) | dict.fromkeys(
        ("pk", "clinic", "year"), Action.SIGN_ONLY
    )
    return TableConfig("patients", "pk", actions=actions, search=search)


def item(rng: random.Random, number: int) -> dict[str, Any]:
    values: dict[str, Any] = {
        "last": {"S": rng.choice(NAMES)},
        "mrn": rng.choice([{"S": "1"}, {"N": "1"}, {"N": "2"}, {"S": "2"}]),
        "old_mrn": rng.choice([{"S": "1"}, {"N": "2"}]),
        "tags": {"SS": rng.sample(["a", "b", "c", "d"], rng.randint(1, 3))},
        "address": {"M": {"city": {"S": rng.choice(["Rome", "Oslo"])}}},
        "dob": {"S": rng.choice(["1970", "1980"])},
        "clinic": {"S": rng.choice(CLINICS)},
        "year": {"S": rng.choice(["2025", "2026"])},
        "note": {"S": "x"},
    }
    return {"pk": {"S": str(number)}} | {name: value for name, value in values.items() if rng.random() < 0.8}


class Asked:
    """A random filter, with the values that it names."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.values: dict[str, Any] = {}
        self.text = self.tree(3)

    def value(self, value: Any) -> str:
        name = f":v{len(self.values)}"
        self.values[name] = value
        return name

    def tree(self, depth: int) -> str:
        if depth == 0 or self.rng.random() < 0.3:
            return self.leaf()
        if self.rng.random() < 0.12:
            return f"NOT ({self.tree(depth - 1)})"
        word = self.rng.choice([" AND ", " OR "])
        return "(" + word.join(self.tree(depth - 1) for _ in range(2)) + ")"

    def compound(self) -> str:
        rng = self.rng
        pieces = [
            "C-" + rng.choice(CLINICS),
            "L-" + rng.choice([*NAMES, "Sm"]),
            "D-" + rng.choice(["1970", "198", ""]),
        ]
        if rng.random() < 0.3:
            pieces = ["Y-" + rng.choice(["2025", "20"]), "L-" + rng.choice(NAMES), "D-" + rng.choice(["1970", ""])]
            if rng.random() < 0.3:
                del pieces[1]
        start, end = rng.choice([(0, 3), (0, 2), (0, 1), (1, 2), (1, 3)])
        return "^".join(pieces[start:end] or pieces[:1])

    def leaf(self) -> str:
        rng = self.rng
        plain = self.value
        choices = (
            lambda: f"last = {plain({'S': rng.choice(NAMES)})}",
            lambda: f"{plain({'N': rng.choice(['1', '1.0', '2'])})} = mrn",
            lambda: f"mrn IN ({plain({'S': '1'})}, {plain({'N': '2'})})",
            lambda: "mrn = old_mrn",
            lambda: f"contains(tags, {plain({'S': rng.choice('abcd')})})",
            lambda: f"contains({plain({'SS': ['Smith', 'Ng']})}, last)",
            lambda: f"tags = {plain({'SS': ['b', 'a']})}",
            lambda: f"city = {plain({'S': 'Rome'})}",
            lambda: f"tag = {plain({'S': rng.choice(['smnorth', 'ngsouth', 'Smnorth'])})}",
            lambda: f"lookup = {plain({'S': self.compound()})}",
            lambda: f"begins_with(lookup, {plain({'S': self.compound()})})",
            lambda: f"contains(lookup, {plain({'S': self.compound()})})",
            lambda: f"lookup {rng.choice(['<', '<=', '>', '>='])} {plain({'S': self.compound()})}",
            lambda: f"lookup BETWEEN {plain({'S': self.compound()})} AND {plain({'S': self.compound()})}",
            lambda: f"attribute_exists({rng.choice(['last', 'mrn', 'note', 'clinic'])})",
            lambda: f"attribute_not_exists({rng.choice(['last', 'note', 'year'])})",
            lambda: f"clinic = {plain({'S': 'north'})}",
            lambda: f"begins_with(place, {plain({'S': 'c:nor'})})",
            lambda: f"size(year) > {plain({'N': '3'})}",
            lambda: f"last <> {plain({'S': 'Ng'})}",
            lambda: f"address.city = {plain({'S': 'Rome'})}",
        )
        return rng.choice(choices)()


def hashes(table: TableConfig, *_: object) -> Any:
    return hashes_of(table, BEACON_KEY)


def stored(table: TableConfig, plaintext: dict[str, Any]) -> dict[str, Any]:
    """What DynamoDB has of an item: ciphertext in the place of what is encrypted, and beacons."""
    plan = table.search_plan
    assert plan is not None
    beacons = beacons_of(
        plan, plaintext, hashes_of(table, BEACON_KEY), chosen_partition(plan, plaintext, "patients")
    )
    place = (
        {"S": plan.compounds["place"].text_of(plaintext, None)} if {"clinic", "year"} <= plaintext.keys() else None
    )
    hidden = {n: {"B": b"?"} if table.actions[n] is Action.ENCRYPT_AND_SIGN else v for n, v in plaintext.items()}
    return hidden | beacons | ({"place": place} if place else {})


def test_rule_37_random_questions_are_answered_as_over_plaintext_or_refused() -> None:
    rng = random.Random(37)
    answered = refused = candidates = right = 0
    while answered + refused < CASES:
        partitions = rng.choice([1, 1, 2, 4])
        table = searched(rng, partitions)
        plan = table.search_plan
        assert plan is not None
        plain = [item(rng, number) for number in range(40)]
        for one in plain:
            if {"clinic", "year"} <= one.keys():
                one["place"] = {"S": plan.compounds["place"].text_of(one, None)}
        held = [stored(table, {n: v for n, v in one.items() if n != "place"}) for one in plain]
        for _ in range(10):
            question = Asked(rng)
            asked = {"FilterExpression": question.text, "ExpressionAttributeValues": question.values}
            condition = checked_condition(asked, "FilterExpression", table, "Scan", is_question=True)
            assert condition is not None
            if not touches_hidden(condition, table):
                continue
            try:
                sent, lookup = looked_up(asked, None, condition, table, hashes, "Scan")
            except (UnsupportedOperationError, ConfigurationError) as error:
                assert not any(name in str(error) for name in ("Smith", "Rome", "1970"))
                refused += 1
                continue
            shown = repr(sent)
            assert not any(name in shown for name in ("Smith", "Rome", "1970"))
            asked_for = parse_condition(sent["FilterExpression"], sent.get("ExpressionAttributeNames"))
            found = [
                number
                for number, one in enumerate(held)
                if matches(asked_for, one, sent.get("ExpressionAttributeValues", {}))
            ]
            kept = [number for number in found if lookup.matches(plain[number])]
            wanted = [
                number
                for number, one in enumerate(plain)
                if matches(condition, judged(plan, one, lookup.names), question.values)
            ]
            assert kept == wanted, (question.text, sent["FilterExpression"])
            answered += 1
            candidates += len(found)
            right += len(kept)
    assert answered > CASES // 5
    assert candidates > right > 0


@pytest.mark.parametrize(
    "name", ["insurance", "notes", "order_id", "and_more", "sized", "contains_x", "between_us", "in_ward"]
)
def test_rule_36_a_name_that_begins_like_a_keyword_is_a_name(name: str) -> None:
    table = TableConfig(
        "t",
        "pk",
        actions={"pk": Action.SIGN_ONLY, name: Action.ENCRYPT_AND_SIGN},
        search=s.SearchConfig([s.StandardBeacon(name, 8)]),
    )
    asked = {"FilterExpression": f"{name} = :v", "ExpressionAttributeValues": {":v": {"S": "canary"}}}
    condition = checked_condition(asked, "FilterExpression", table, "Scan", is_question=True)
    sent, _ = looked_up(asked, None, condition, table, hashes, "Scan")
    assert "canary" not in repr(sent)
    assert sent["FilterExpression"] == "#b0 = :b0"
    assert sent["ExpressionAttributeNames"] == {"#b0": f"aws_dbe_b_{name}"}
