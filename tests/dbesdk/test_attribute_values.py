"""Attribute values as bytes: one serialization per value, and nothing read beyond its container."""

from __future__ import annotations

import contextlib
import os
from decimal import Decimal
from typing import Any

import pytest
from boto3.dynamodb.types import DYNAMODB_CONTEXT
from hypothesis import given, settings
from hypothesis import strategies as st

from phicrypt.errors import FormatError, LimitExceededError, PhiCryptError
from phicrypt.formats.dbesdk.attributes import MAX_DEPTH, deserialize, serialize
from phicrypt.formats.dbesdk.numbers import exponent_form, normalize_number

CASES = int(os.environ.get("PHICRYPT_FUZZ_CASES", "200"))

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
numbers = st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**20), max_value=10**20).map(
    str
)
scalars: st.SearchStrategy[dict[str, Any]] = st.one_of(
    texts.map(lambda text: {"S": text}),
    numbers.map(lambda number: {"N": number}),
    st.binary(max_size=12).map(lambda content: {"B": content}),
    st.booleans().map(lambda flag: {"BOOL": flag}),
    st.just({"NULL": True}),
    st.lists(texts, unique=True, max_size=5).map(lambda members: {"SS": members}),
    st.lists(st.integers(-(10**9), 10**9).map(str), unique=True, max_size=5).map(lambda members: {"NS": members}),
    st.lists(st.binary(max_size=6), unique=True, max_size=5).map(lambda members: {"BS": members}),
)
attribute_values: st.SearchStrategy[dict[str, Any]] = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda members: {"L": members}),
        st.dictionaries(texts.filter(bool), inner, max_size=4).map(lambda members: {"M": members}),
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("value", "type_id", "body"),
    [
        ({"NULL": True}, "0000", ""),
        ({"S": "é"}, "0001", "c3a9"),
        ({"N": "01.50"}, "0002", "312e35"),
        ({"B": b"\x00"}, "ffff", "00"),
        ({"BOOL": False}, "0004", "00"),
        ({"BOOL": True}, "0004", "01"),
        ({"SS": ["b", "a"]}, "0101", "00000002 00000001 61 00000001 62"),
        ({"NS": ["2", "10"]}, "0102", "00000002 00000002 3130 00000001 32"),
        ({"BS": [b"\xff", b""]}, "01ff", "00000002 00000000 00000001 ff"),
        ({"M": {"b": {"NULL": True}, "a": {"S": "x"}}}, "0200",
         "00000002 0001 00000001 61 0001 00000001 78 0001 00000001 62 0000 00000000"),
        ({"L": [{"N": "1"}, {"L": []}]}, "0300", "00000002 0002 00000001 31 0300 00000004 00000000"),
        ({"SS": []}, "0101", "00000000"),
    ],
)  # fmt: skip
def test_serializes_each_type_as_specified(value: dict[str, Any], type_id: str, body: str) -> None:
    assert serialize(value) == (bytes.fromhex(type_id), bytes.fromhex(body))


def test_sorts_texts_by_utf16_code_units_not_by_code_points() -> None:
    # U+FF61 comes after the surrogate pair of U+10002, although its code point is lower.
    later, earlier = "｡", "\U00010002"
    assert serialize({"SS": [later, earlier]}) == serialize({"SS": [earlier, later]})
    _, body = serialize({"SS": [later, earlier]})
    assert body.index(earlier.encode()) < body.index(later.encode())
    _, body = serialize({"M": {later: {"NULL": True}, earlier: {"NULL": True}}})
    assert body.index(earlier.encode()) < body.index(later.encode())


@settings(max_examples=CASES, deadline=None)
@given(attribute_values)
def test_serialization_is_a_normal_form(value: dict[str, Any]) -> None:
    type_id, body = serialize(value)
    read_back = deserialize(type_id, body)
    assert read_back.keys() == value.keys()
    assert serialize(read_back) == (type_id, body)


@settings(max_examples=CASES, deadline=None)
@given(
    st.lists(texts, unique=True, min_size=2, max_size=6).flatmap(
        lambda s: st.tuples(st.just(s), st.permutations(s))
    )
)
def test_order_of_set_members_and_map_names_does_not_matter(orders: tuple[list[str], list[str]]) -> None:
    one, other = orders
    assert serialize({"SS": one}) == serialize({"SS": other})
    names = [[name or "x" for name in order] for order in orders]
    maps = [{"M": {name: {"S": name} for name in order}} for order in names]
    assert serialize(maps[0]) == serialize(maps[1])


@settings(max_examples=CASES, deadline=None)
@given(attribute_values, attribute_values)
def test_different_values_have_different_bytes(one: dict[str, Any], other: dict[str, Any]) -> None:
    if deserialize(*serialize(one)) != deserialize(*serialize(other)):
        assert serialize(one) != serialize(other)


@settings(max_examples=CASES, deadline=None)
@given(attribute_values, st.data())
def test_changed_bytes_never_read_beyond_their_container(value: dict[str, Any], data: st.DataObject) -> None:
    type_id, body = serialize(value)
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        if changed:
            changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(changed[: data.draw(st.integers(0, len(changed)))])
    with contextlib.suppress(PhiCryptError):
        deserialize(type_id, cut)


@pytest.mark.parametrize(
    ("type_id", "body"),
    [
        ("0005", ""),
        ("0000", "00"),
        ("0004", ""),
        ("0004", "02"),
        ("0001", "ff"),
        ("0002", "ff"),
        ("0101", "00000001"),
        ("0101", "ffffffff 00000001 61"),
        ("0101", "00000001 ffffffff 61"),
        ("0101", "00000002 00000001 61 00000001 61"),
        ("0101", "00000001 00000001 61 00"),
        ("0200", "00000001 0002 00000001 61 0000 00000000"),
        ("0200", "00000001 0001 00000000 0000 00000000 00"),
        ("0200", "00000002 0001 00000001 61 0000 00000000 0001 00000001 61 0000 00000000"),
        ("0300", "00000001 0000 00000000 00"),
        ("0300", "00000001 0300 00000005 0000000000"),
    ],
)
def test_refuses_malformed_bodies(type_id: str, body: str) -> None:
    with pytest.raises(FormatError):
        deserialize(bytes.fromhex(type_id), bytes.fromhex(body))


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"S": "a", "N": "1"},
        {"X": "a"},
        "text",
        {"S": 1},
        {"S": "\ud800"},
        {"N": 1},
        {"N": "one"},
        {"B": "text"},
        {"BOOL": 1},
        {"NULL": False},
        {"SS": "ab"},
        {"SS": ["a", "a"]},
        {"NS": ["1", "1.0"]},
        {"BS": [b"a", b"a"]},
        {"M": {1: {"NULL": True}}},
        {"L": {"S": "a"}},
        {"L": ["a"]},
    ],
)
def test_refuses_what_is_no_attribute_value(value: Any) -> None:
    with pytest.raises(FormatError):
        serialize(value)


def test_maps_may_have_an_empty_name_as_java_writes_them() -> None:
    body = bytes.fromhex("00000002 0001 00000000 0001 00000001 78 0001 00000001 61 0000 00000000")
    value = {"M": {"": {"S": "x"}, "a": {"NULL": True}}}
    assert serialize(value) == (b"\x02\x00", body)
    assert deserialize(b"\x02\x00", body) == value
    twice = bytes.fromhex("00000002" + 2 * "0001 00000000 0000 00000000")
    with pytest.raises(FormatError):
        deserialize(b"\x02\x00", twice)


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("1" + "0" * 38, "1E+38"),
        ("-12" + "0" * 100, "-12E+100"),
        ("9" * 38 + "0" * 88, "9" * 38 + "E+88"),
        ("1" + "0" * 37, "1" + "0" * 37),
        ("-" + "9" * 38, "-" + "9" * 38),
        ("0." + "0" * 129 + "1", "0." + "0" * 129 + "1"),
        ("12345678901234567890.123456789012345678", "12345678901234567890.123456789012345678"),
    ],
)
def test_long_numbers_have_a_form_of_38_digits(text: str, short: str) -> None:
    assert exponent_form(text) == short
    assert DYNAMODB_CONTEXT.create_decimal(short) == Decimal(text)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"S": "x"}
    for _ in range(depth - 1):
        value = {"L": [value]}
    return value


def test_nests_to_depth_32_and_no_deeper() -> None:
    type_id, body = serialize(nested(MAX_DEPTH))
    assert deserialize(type_id, body) == nested(MAX_DEPTH)
    with pytest.raises(LimitExceededError):
        serialize(nested(MAX_DEPTH + 1))
    deeper = (1).to_bytes(4, "big") + type_id + len(body).to_bytes(4, "big") + body
    with pytest.raises(LimitExceededError):
        deserialize(type_id, deeper)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("0", "0"), ("-0", "0"), ("+0.000", "0"), ("0e99999999", "0"), ("00.0011", "0.0011"), ("2000.000", "2000"),
        ("1.5E2", "150"), ("-1.50e-3", "-0.0015"), (".5", "0.5"), ("5.", "5"), ("+7", "7"), ("100", "100"),
        ("1e125", "1" + "0" * 125), ("1e-130", "0." + "0" * 129 + "1"), ("000001", "1"), ("1e000005", "100000"),
        ("9" * 38, "9" * 38), ("9" * 38 + "0" * 88, "9" * 38 + "0" * 88),
        ("0." + "0" * 91 + "9" * 38, "0." + "0" * 91 + "9" * 38),
    ],
)  # fmt: skip
def test_normalizes_numbers_as_dynamodb_does(text: str, normal: str) -> None:
    assert normalize_number(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        "", "-", ".", "+.", "e5", "1e", "1e+", "--1", " 1", "1\n", "1_0", "0x1", "NaN", "Infinity",
        "\uff11", "1,5", "1e1.5",
        "1e126", "1e-131", "9" * 39, "1." + "0" * 38 + "1", "1e99999999999999999999", "1" * 5000,
    ],
)  # fmt: skip
def test_refuses_what_dynamodb_stores_as_no_number(text: str) -> None:
    with pytest.raises(FormatError):
        normalize_number(text)


def test_errors_do_not_show_the_value() -> None:
    for value in ({"N": "5550123x"}, {"NS": ["5550123", "5550123.0"]}, {"SS": ["5550123", "5550123"]}):
        with pytest.raises(FormatError) as caught:
            serialize(value)
        assert "5550123" not in str(caught.value)


@settings(max_examples=CASES, deadline=None)
@given(numbers, st.integers(-20, 20))
def test_normal_form_keeps_the_number_and_is_stable(number: str, exponent: int) -> None:
    spelled = f"{number}e{exponent}"
    normal = normalize_number(spelled)
    assert Decimal(normal) == Decimal(spelled)
    assert normalize_number(normal) == normal
    assert "e" not in normal.lower()
