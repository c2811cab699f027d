"""Search configurations of the official vectors as phicrypt's own."""

from __future__ import annotations

import base64
from typing import Any

from phicrypt.dynamodb import Action, TableConfig
from phicrypt.dynamodb import search as s
from phicrypt.formats.dbesdk.beacon_values import beacon_hash
from phicrypt.formats.dbesdk.compound_beacons import Hashes

_TRANSFORMS = {
    "upper": s.Upper,
    "lower": s.Lower,
    "insert": s.Insert,
    "prefix": s.Prefix,
    "suffix": s.Suffix,
    "substring": s.Substring,
    "segment": s.Segment,
    "segments": s.Segments,
}


def transform_of(written: list[Any]) -> s.Transform:
    return _TRANSFORMS[written[0]](*written[1:])


def search_of(written: dict[str, Any], **more: Any) -> s.SearchConfig:
    return s.SearchConfig(
        standard=tuple(standard_of(one) for one in written.get("standard", ())),
        compound=tuple(compound_of(one) for one in written.get("compound", ())),
        virtual=tuple(virtual_of(one) for one in written.get("virtual", ())),
        signed_parts=tuple(signed_of(one) for one in written.get("globalSigned", ())),
        encrypted_parts=tuple(
            s.EncryptedPart(one["name"], one["prefix"]) for one in written.get("globalEncrypted", ())
        ),
        beacon_key=s.BeaconKeyByAttribute(written["multiField"]) if "multiField" in written else None,
        **more,
    )


def standard_of(one: dict[str, Any]) -> s.StandardBeacon:
    return s.StandardBeacon(
        one["name"],
        one["length"],
        one.get("loc", ""),
        style=one.get("style"),
        shared_with=one.get("other"),
        partitions=one.get("numberOfPartitions"),
    )


def compound_of(one: dict[str, Any]) -> s.CompoundBeacon:
    constructors = [
        s.Constructor(*(name if required else s.OptionalPart(name) for name, required in parts))
        for parts in one.get("constructors", ())
    ]
    return s.CompoundBeacon(
        one["name"],
        one["split"],
        tuple(signed_of(part) for part in one.get("signed", ())),
        tuple(s.EncryptedPart(part["name"], part["prefix"]) for part in one.get("encrypted", ())),
        tuple(constructors),
    )


def signed_of(part: dict[str, Any]) -> s.SignedPart:
    return s.SignedPart(part["name"], part["prefix"], part.get("loc", ""))


def virtual_of(one: dict[str, Any]) -> s.VirtualField:
    parts = (s.VirtualPart(part["loc"], *map(transform_of, part.get("trans", ()))) for part in one["parts"])
    return s.VirtualField(one["name"], *parts)


def table_of(
    actions: dict[str, str], search: s.SearchConfig | None, partition_key: str = "pk", **more: Any
) -> TableConfig:
    return TableConfig(
        "patients",
        partition_key,
        actions={partition_key: Action.SIGN_ONLY, **{name: Action(action) for name, action in actions.items()}},
        unsigned_attributes=tuple(name for name, action in actions.items() if action == "DO_NOTHING"),
        search=search,
        **more,
    )


def hashes_of(table: TableConfig, beacon_key: bytes) -> Hashes:
    assert table.search_plan is not None
    return {name: beacon_hash(beacon_key, name) for name in table.search_plan.hashed_names}


def value_of(written: Any) -> Any:
    """An attribute value of the files: binary is base64, plain text means S."""
    if isinstance(written, str):
        return {"S": written}
    ((kind, content),) = written.items()
    if kind == "B":
        return {"B": base64.b64decode(content)}
    if kind == "BS":
        return {"BS": [base64.b64decode(one) for one in content]}
    if kind == "L":
        return {"L": [value_of(one) for one in content]}
    if kind == "M":
        return {"M": {name: value_of(one) for name, one in content.items()}}
    return written


def item_of(written: dict[str, Any]) -> dict[str, Any]:
    return {name: value_of(value) for name, value in written.items()}
