"""The beacons of one item: computed from its plaintext, and the values by which an answer is judged again.

Numbers stand in texts in their normal form, as DynamoDB gives them back: AWS's libraries take them as the
writer spelt them, so that they do not find ``1.0`` by ``1`` (and fail on ``1E-5``, which comes back with a dot).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from phicrypt.dynamodb.search_plans import SearchPlan, Standard
from phicrypt.errors import ConfigurationError, FormatError
from phicrypt.formats.dbesdk.attributes import serialize
from phicrypt.formats.dbesdk.beacon_values import beacon_of_text, beacon_of_value, partition_of
from phicrypt.formats.dbesdk.compound_beacons import Hashes
from phicrypt.formats.dbesdk.locations import value_at
from phicrypt.formats.dbesdk.numbers import normalize_number

AttributeValue = Mapping[str, Any]
Item = Mapping[str, AttributeValue]


def beacons_of(plan: SearchPlan, item: Item, hashes: Hashes, partition: int = 0) -> dict[str, dict[str, Any]]:
    """The attributes ``aws_dbe_b_*`` of a plaintext item in the low-level shape.

    Raises ConfigurationError, without a value, where a beacon cannot be computed: an item that could not be
    found must not be written.
    """
    default = plan.config.partitions
    texts = with_normal_numbers(item, plan.text_attributes)
    found: dict[str, dict[str, Any]] = {}
    try:
        for one in plan.standard.values():
            if (
                one.beacon.is_stored
                and (value := _stored(one, item, texts, hashes, partition, default)) is not None
            ):
                found[one.beacon.attribute] = dict(value)
        for compound in plan.compounds.values():
            if not compound.is_signed:
                text = compound.text_of(texts, hashes, partition, default)
                if text is not None:
                    found[compound.attribute] = {"S": text}
        return found
    except FormatError as error:
        wrong = str(error)
    raise ConfigurationError(f"the item is not written, because it could not be found: {wrong}")


def signed_beacons_of(plan: SearchPlan, item: Item) -> dict[str, dict[str, Any]]:
    """The signed beacons of an item; one that is given already must be the same.

    Raises ConfigurationError, without a value.
    """
    found: dict[str, dict[str, Any]] = {}
    try:
        for name in plan.text_attributes & item.keys():
            serialize(item[name])  # refuses what is no attribute value: nothing has looked at the item yet
        texts = with_normal_numbers(item, plan.text_attributes)
        for compound in plan.signed_beacons:
            text = compound.text_of(texts, None)
            if text is not None:
                found[compound.name] = {"S": text}
    except FormatError as error:
        wrong = str(error)
    else:
        wrong = ""
    if wrong:
        raise ConfigurationError(f"the item is not written, because it could not be found: {wrong}")
    for compound in plan.signed_beacons:
        if compound.name in item and item[compound.name] != found.get(compound.name):
            raise ConfigurationError(
                f"the item holds another value of the signed beacon {compound.name!r} than its parts "
                "make; leave it out"
            )
    return found


def judged(plan: SearchPlan, item: Item, names: Iterable[str]) -> dict[str, AttributeValue]:
    """The plaintext item with the plain values of the beacons that an expression names.

    A value that cannot be made is missing, and matches nothing.
    """
    seen: dict[str, AttributeValue] = dict(item)
    texts = with_normal_numbers(item, plan.text_attributes)
    for name in names:
        value = _plain_value(plan, name, item, texts)
        if value is None:
            seen.pop(name, None)
        else:
            seen[name] = value
    return seen


def _plain_value(plan: SearchPlan, name: str, item: Item, texts: Item) -> AttributeValue | None:
    one = plan.standard.get(name)
    if one is not None and one.field is None:
        return value_at(one.location, item)
    try:
        if one is not None and one.field is not None:
            text = one.field.text_of(texts)
        else:
            text = plan.compounds[name].text_of(texts, None)
    except FormatError:
        return None
    return None if text is None else {"S": text}


def chosen_partition(plan: SearchPlan, item: Item, table_name: str) -> int:
    """The partition of a new item: the caller's choice, or by chance."""
    count = plan.config.max_partitions
    if count == 1:
        return 0
    select = plan.config.partition_of
    if select is None:
        return secrets.randbelow(count)
    chosen = select(item, count, table_name)
    if not isinstance(chosen, int) or isinstance(chosen, bool) or not 0 <= chosen < count:
        raise ConfigurationError(f"SearchConfig.partition_of gives a number from 0 to {count - 1}")
    return chosen


def with_normal_numbers(item: Item, names: Iterable[str]) -> Item:
    """The item with the numbers of these attributes in their normal form."""
    changed = {name: _normal(item[name]) for name in names if name in item and not item[name].keys() <= {"S", "B"}}
    return {**item, **changed} if changed else item


def _normal(value: AttributeValue) -> AttributeValue:
    ((kind, content),) = value.items()
    if kind == "N":
        return {"N": normalize_number(content)}
    if kind == "L":
        return {"L": [_normal(element) for element in content]}
    if kind == "M":
        return {"M": {name: _normal(element) for name, element in content.items()}}
    return value


def _stored(
    one: Standard, item: Item, texts: Item, hashes: Hashes, partition: int, default: int
) -> AttributeValue | None:
    hashing, of_beacon = hashes[one.beacon.hashed_as], partition_of(one.beacon, partition, default)
    if one.field is not None:
        text = one.field.text_of(texts)
        return None if text is None else {"S": beacon_of_text(one.beacon, hashing, text, of_beacon)}
    value = value_at(one.location, item)
    return None if value is None else beacon_of_value(one.beacon, hashing, value, of_beacon)
