"""The expression parser: what it reads, what it refuses, and how conditions are evaluated."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phicrypt.dynamodb.expression_tree import (
    And,
    Between,
    Call,
    Comparison,
    Membership,
    Not,
    Or,
    Path,
    Value,
    paths,
    placeholders,
)
from phicrypt.dynamodb.expressions import parse_condition, parse_projection, parse_update
from phicrypt.dynamodb.matching import matches
from phicrypt.errors import ConfigurationError, LimitExceededError


def attributes(tree: object) -> list[str]:
    return [path.attribute for path in paths(tree)]


def test_and_binds_tighter_than_or_and_not_tightest() -> None:
    tree = parse_condition("a = :x OR NOT b = :y AND c <> :z")
    equal_a, equal_b = (Comparison("=", Path((n,)), Value(v)) for n, v in (("a", ":x"), ("b", ":y")))
    assert tree == Or((equal_a, And((Not(equal_b), Comparison("<>", Path(("c",)), Value(":z"))))))


def test_keywords_are_read_in_any_case() -> None:
    assert parse_condition("a between :l and :h") == Between(Path(("a",)), Value(":l"), Value(":h"))
    assert parse_condition("a in (:x, b)") == Membership(Path(("a",)), (Value(":x"), Path(("b",))))


def test_paths_resolve_placeholders_without_splitting_dots() -> None:
    tree = parse_condition("#a.b[3].#c = :x", {"#a": "has.dots", "#c": "d"})
    assert paths(tree) == [Path(("has.dots", "b", 3, "d"))]


def test_parentheses_hold_conditions_or_operands() -> None:
    equal = Comparison("=", Path(("a",)), Value(":x"))
    assert parse_condition("((a = :x))") == parse_condition("(a) = (:x)") == equal
    assert parse_condition("(a = :x) AND (size(b) > :n OR (c) IN (:y))") == And(
        (
            equal,
            Or(
                (
                    Comparison(">", Call("size", (Path(("b",)),)), Value(":n")),
                    Membership(Path(("c",)), (Value(":y"),)),
                )
            ),
        )
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("attribute_exists(ssn)", ["ssn"]),
        ("attribute_not_exists(a.ssn)", ["a"]),
        ("begins_with(a, ssn)", ["a", "ssn"]),
        ("NOT (contains(a, :v) AND size(ssn) > b)", ["a", "ssn", "b"]),
        ("a BETWEEN ssn AND c", ["a", "ssn", "c"]),
        ("a IN (:v, ssn)", ["a", "ssn"]),
        (":v = ssn", ["ssn"]),
        ("ssn[0][1] = :v", ["ssn"]),
        ("attribute_type(ssn,:t)", ["ssn"]),
        ("a=:v and\nnot\tssn<>:w", ["a", "ssn"]),
    ],
)
def test_every_touched_attribute_is_found(text: str, expected: list[str]) -> None:
    assert attributes(parse_condition(text)) == expected


def test_updates_name_targets_and_operands() -> None:
    update = parse_update(
        "SET a = :x, b.c[1] = if_not_exists(d, :y) + e, f = list_append(f, :z) "
        "REMOVE g, #h ADD i :one DELETE j :two",
        {"#h": "h.h"},
    )
    assert attributes(update.targets) == ["a", "b", "f", "g", "h.h", "i", "j"]
    assert attributes(update.operands) == ["d", "e", "f"]
    assert placeholders(update) == {":x", ":y", ":z", ":one", ":two"}


def test_projections_are_lists_of_paths() -> None:
    assert parse_projection("a, #b.c, d[0]", {"#b": "b"}) == (Path(("a",)), Path(("b", "c")), Path(("d", 0)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a =",
        "a = :x b = :y",
        "a = :x AND",
        "a = :x)",
        "(a = :x",
        "a == :x",
        "#undefined = :x",
        "a-b = :x",
        "a[b] = :x",
        "a[-1] = :x",
        "1a = :x",
        "size(a)",
        "unknown(a)",
        "attribute_exists(a, b)",
        "begins_with(a)",
        "a BETWEEN :x",
        "a IN ()",
        "a IN :x",
        "a = :x; b = :y",
        'a = "text"',
        "a = :x AND NOT",
        "and = :x",
        "ä = :x",
        "a = :x -- b",
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_condition(text)


@pytest.mark.parametrize(
    "text",
    ["", "SET", "SET a", "SET a = :x SET b = :y", "REMOVE", "ADD a", "SET a = attribute_exists(b)", "PUT a :x"],
)
def test_what_is_no_update_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_update(text)


@pytest.mark.parametrize(
    "text", ["(" * 2000 + "a = :x" + ")" * 2000, "NOT " * 900 + "a = :x", "a = " + "size(" * 700]
)
def test_deep_nesting_is_refused_without_exhausting_the_stack(text: str) -> None:
    with pytest.raises(LimitExceededError):
        parse_condition(text)


def test_overlong_expressions_are_refused() -> None:
    with pytest.raises(LimitExceededError):
        parse_condition("a = :x OR " * 500 + "a = :x")


@settings(max_examples=300)
@given(st.text(alphabet="ab #:()[]<>=,.+-01SETandORNOTin\n\u00e9", max_size=60))
def test_random_text_is_parsed_or_refused(text: str) -> None:
    for parse in (parse_condition, parse_projection, parse_update):
        with contextlib.suppress(ConfigurationError, LimitExceededError):
            parse(text, {"#a": "a"})


ITEM: dict[str, Any] = {
    "s": {"S": "hello"},
    "n": {"N": "10"},
    "b": {"B": b"\x01\xff"},
    "l": {"L": [{"N": "1"}, {"S": "x"}]},
    "m": {"M": {"k": {"S": "v"}}},
    "ss": {"SS": ["a", "b"]},
    "ns": {"NS": ["1", "2"]},
    "null": {"NULL": True},
}
VALUES: dict[str, Any] = {
    ":hello": {"S": "hello"},
    ":he": {"S": "he"},
    ":z": {"S": "z"},
    ":emoji": {"S": "\U0001f600"},
    ":nine": {"N": "9"},
    ":ten": {"N": "10.0"},
    ":five": {"N": "5"},
    ":b1": {"B": b"\x01"},
    ":one": {"N": "1.00"},
    ":a": {"S": "a"},
    ":type": {"S": "N"},
    ":ns": {"NS": ["2.0", "1"]},
    ":v": {"S": "v"},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s = :hello", True),
        ("s <> :hello", False),
        ("missing <> :hello", True),
        ("missing = :hello", False),
        ("n = :ten", True),
        ("n > :nine", True),
        ("s > :nine", False),
        ("n BETWEEN :nine AND :ten", True),
        ("s < :emoji", True),
        ("b > :b1", True),
        ("begins_with(b, :b1)", True),
        ("begins_with(s, :he)", True),
        ("begins_with(n, :he)", False),
        ("contains(s, :he)", True),
        ("contains(l, :one)", True),
        ("contains(ss, :a)", True),
        ("contains(ns, :one)", True),
        ("contains(ss, :z)", False),
        ("ns = :ns", True),
        ("m.k = :v", True),
        ("l[1] = :z", False),
        ("l[7] = :z", False),
        ("size(s) = :five", True),
        ("size(n) = :five", False),
        ("attribute_exists(null) AND attribute_not_exists(missing)", True),
        ("attribute_type(n, :type)", True),
        ("s IN (:z, :hello)", True),
        ("NOT (s = :z OR n = :nine)", True),
    ],
)
def test_conditions_are_evaluated_as_dynamodb_does(text: str, expected: bool) -> None:
    assert matches(parse_condition(text), ITEM, VALUES) is expected


def test_conditions_agree_with_dynamodb(server: Any) -> None:
    """The same conditions as filters of a real server give the same answers."""
    raw = server.raw_client()
    name = "expressions"
    raw.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    raw.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    item = {name: value for name, value in ITEM.items() if name != "null"} | {"pk": {"S": "1"}}
    raw.put_item(TableName=name, Item=item)
    names = {f"#{attribute}": attribute for attribute in (*ITEM, "missing", "k")}
    for text in CONDITIONS_FOR_SERVERS + ([] if server.name == "moto" else CONDITIONS_BEYOND_MOTO):
        tree = parse_condition(text, names)
        used_names = {token: names[token] for token in re.findall(r"#\w+", text)}
        values = {placeholder: VALUES[placeholder] for placeholder in placeholders(tree)}
        found = raw.scan(
            TableName=name,
            FilterExpression=text,
            ExpressionAttributeNames=used_names,
            ExpressionAttributeValues=values,
        )["Count"]
        assert matches(tree, item, values) is bool(found), text


CONDITIONS_FOR_SERVERS = [
    "#s = :hello",
    "#missing <> :hello",
    "#n = :ten",
    "#n > :nine",
    "#n BETWEEN :nine AND :ten",
    "#s < :emoji",
    "#b > :b1",
    "begins_with(#s, :he)",
    "contains(#s, :he)",
    "contains(#ss, :a)",
    "#m.#k = :v",
    "#l[1] = :z",
    "size(#s) = :five",
    "attribute_type(#n, :type)",
    "#s IN (:z, :hello)",
    "NOT (#s = :z OR #n = :nine)",
]
CONDITIONS_BEYOND_MOTO = [
    "begins_with(#b, :b1)",
    "#s > :nine",
    "contains(#ns, :one)",
    "#ns = :ns",
    "contains(#l, :one)",
]
"""moto fails on operands of two types, compares numbers in sets as text and prefixes of binaries in base64."""
