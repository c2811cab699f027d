"""AWS's own values of beacons: constants of its unit tests, and what its library for Java stored and refused."""

from __future__ import annotations

from typing import Any

import pytest
from support.beacon_vectors import (
    compound_of,
    hashes_of,
    item_of,
    search_of,
    standard_of,
    table_of,
    transform_of,
    value_of,
)
from support.official_vectors import load_vectors

from phicrypt.dynamodb.item_beacons import beacons_of, signed_beacons_of
from phicrypt.dynamodb.search import SearchConfig
from phicrypt.errors import ConfigurationError, FormatError, PhiCryptError
from phicrypt.formats.dbesdk.beacon_values import BeaconHash, beacon_of_text, beacon_of_value, truncated
from phicrypt.formats.dbesdk.compound_beacons import after_common, is_ordered
from phicrypt.formats.dbesdk.numbers import normalize_number
from phicrypt.formats.dbesdk.virtual_fields import transformed

BEACON_KEY = bytes.fromhex("0102030405")


@pytest.fixture(scope="module")
def constants() -> dict[str, Any]:
    return load_vectors("dbesdk-beacons", "dafny-constants.json")


@pytest.fixture(scope="module")
def table(constants: dict[str, Any]) -> Any:
    return table_of(constants["actions"], search_of(constants["search"]))


def test_one_beacon(constants: dict[str, Any], table: Any) -> None:
    hashes = hashes_of(table, BEACON_KEY)
    for name, value, bits, wanted in constants["one beacon: name, value, bits, beacon"]:
        beacon = table.search_plan.standard[name].beacon
        assert beacon.bits == bits
        assert beacon_of_text(beacon, hashes[name], value, 0) == wanted


def test_truncation_and_partition_byte(constants: dict[str, Any]) -> None:
    for bits, text in constants["truncation of 01020304050607b7: bits, text"]:
        assert truncated(bytes.fromhex("01020304050607b7"), bits) == text
    hashing = BeaconHash(bytes.fromhex("0102"))
    for message, byte, first, beacon in constants[
        "hmac with key 0102: message, partition byte, first 8 bytes, 8-bit beacon"
    ]:
        partition = int(byte or "0", 16)
        assert hashing.of(bytes.fromhex(message), 8, partition) == beacon
        assert hashing.of(bytes.fromhex(message), 63, partition) == f"{int(first, 16) & (2**63 - 1):016x}"


def test_beacons_of_an_item(constants: dict[str, Any], table: Any) -> None:
    item, wanted = item_of(constants["item"]), constants["stored with the item"]
    found = beacons_of(table.search_plan, item, hashes_of(table, BEACON_KEY))
    assert {name: found[name]["S"] for name in wanted} == wanted


def test_values_that_are_asked_for(constants: dict[str, Any], table: Any) -> None:
    plan, hashes = table.search_plan, hashes_of(table, BEACON_KEY)
    for placeholder, (asked, sent) in constants["query values"].items():
        name = placeholder[1:]
        compound = plan.compounds.get(name) or plan.compounds.get(name[:-1])
        if compound is not None:
            assert compound.asked(asked["S"], hashes) == sent["S"], name
        else:
            one = plan.standard[name]
            assert beacon_of_value(one.beacon, hashes[one.beacon.hashed_as], asked, 0) == sent, name


def test_compound_values_that_can_be_made_and_those_that_cannot(constants: dict[str, Any], table: Any) -> None:
    mixed = table.search_plan.compounds["Mixed"]
    for value in constants["compound Mixed accepts"]:
        assert mixed.pieces_of(value)
    for value in constants["compound Mixed refuses"]:
        with pytest.raises(ConfigurationError) as caught:
            mixed.pieces_of(value)
        assert value not in str(caught.value)


def test_values_that_can_be_compared_by_order(constants: dict[str, Any], table: Any) -> None:
    compound = table.search_plan.compounds["NameTitle"]
    for low, high, allowed in constants["NameTitle BETWEEN: low, high, allowed"]:
        rests = after_common(compound.pieces_of(low), compound.pieces_of(high))
        assert all(map(is_ordered, rests)) == allowed, (low, high)


def test_styles(constants: dict[str, Any]) -> None:
    actions = {"std2": "ENCRYPT_AND_SIGN", "partOnly": "ENCRYPT_AND_SIGN", "setAttr": "ENCRYPT_AND_SIGN"}
    std2 = {"name": "std2", "length": 24}
    for case in constants["styles"]:
        compounds = [compound_of(case["compound"])] if "compound" in case else []
        standard = [standard_of(std2), standard_of(case["beacon"])]
        table = table_of(actions, SearchConfig(tuple(standard), tuple(compounds)))
        hashes = hashes_of(table, BEACON_KEY)
        if "item" in case:
            assert beacons_of(table.search_plan, case["item"], hashes) == case["stored"]
        if "refused item" in case:
            with pytest.raises(ConfigurationError):
                beacons_of(table.search_plan, case["refused item"], hashes)
        if "query" in case:
            _, given, sent = case["query"]
            beacon = standard[1]
            assert beacon_of_value(beacon, hashes[beacon.name], given[":v"], 0) == sent[":v"]
            with pytest.raises(FormatError):
                beacon_of_value(beacon, hashes[beacon.name], value_of(case["refused value"]), 0)


def test_transforms(constants: dict[str, Any]) -> None:
    for transform, text, wanted in constants["transforms: transform, in, out"]:
        assert transformed(text, [transform_of(transform)], "field") == wanted, transform


def test_what_aws_library_for_java_stored() -> None:
    """Numbers in texts are taken as spelt here, as Java takes them; phicrypt writes them in their normal form."""
    vectors = load_vectors("dbesdk-beacons", "java-recorded.json")
    table = table_of(vectors["actions"], search_of(vectors["search"]))
    assert table.search_plan is not None
    plan = table.search_plan._replace(text_attributes=frozenset())
    hashes = hashes_of(table, bytes.fromhex(vectors["beacon key"]))
    values = refused = 0
    for vector in vectors["items"]:
        item = item_of(vector["item"])
        if vector["stored"] is None:
            with pytest.raises(PhiCryptError):
                beacons_of(plan, item, hashes) | signed_beacons_of(plan, item)
            refused += 1
            continue
        found = beacons_of(plan, item, hashes) | signed_beacons_of(plan, item)
        assert {name: _comparable(value) for name, value in found.items()} == {
            name: _comparable(value) for name, value in vector["stored"].items()
        }
        values += len(found)
    assert (values > 1_000, refused > 5) == (True, True)


def test_numbers_in_their_normal_form_have_javas_beacons() -> None:
    vectors = load_vectors("dbesdk-beacons", "java-recorded.json")
    table = table_of(vectors["actions"], search_of(vectors["search"]))
    hashes = hashes_of(table, bytes.fromhex(vectors["beacon key"]))
    compared = 0
    for vector in vectors["items"]:
        item = item_of(vector["item"])
        spelt = [value["N"] for value in item.values() if "N" in value]
        if vector["stored"] is None or spelt != list(map(normalize_number, spelt)):
            continue
        found = beacons_of(table.search_plan, item, hashes)
        assert {name: _comparable(value) for name, value in found.items()} == {
            name: _comparable(value) for name, value in vector["stored"].items() if name.startswith("aws_dbe_b_")
        }
        compared += 1
    assert compared > 20


def _comparable(value: Any) -> Any:
    return sorted(value["SS"]) if "SS" in value else value


def test_configurations_that_aws_library_for_java_refuses() -> None:
    vectors = load_vectors("dbesdk-beacons", "java-refused-configurations.json")
    for what, written in vectors["refused search configurations"].items():
        with pytest.raises(ConfigurationError):
            table_of(vectors["actions"], search_of(written))
            pytest.fail(what)
