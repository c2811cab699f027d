"""What tests of DynamoDB items share: a phi with a static branch key, and items of every kind."""

from __future__ import annotations

import base64
import os
import random
from typing import Any

from phicrypt.client import PhiCrypt
from phicrypt.dynamodb import Action, TableConfig
from phicrypt.keys.branch_keys.keyring import HierarchicalKeyring
from phicrypt.keys.raw_aes import RawAesKeyring
from phicrypt.testing import StaticBranchKeyStore

EVERY_TYPE: dict[str, Any] = {
    "text": {"S": "Grüße 𐀂｡"},
    "empty text": {"S": ""},
    "number": {"N": "-12.5"},
    "binary": {"B": b"\x00\xff"},
    "empty binary": {"B": b""},
    "yes": {"BOOL": True},
    "no": {"BOOL": False},
    "nothing": {"NULL": True},
    "texts": {"SS": ["a", "b"]},
    "numbers": {"NS": ["1", "2.5"]},
    "binaries": {"BS": [b"", b"\x01"]},
    "empty list": {"L": []},
    "empty map": {"M": {}},
    "nested": {"M": {"a": {"L": [{"S": "x"}, {"M": {"deep": {"NS": ["3"]}}}]}, "b": {"NULL": True}}},
}
"""One attribute of every type, in the order and spelling that DynamoDB would answer."""


def static_keyring(branch_key: bytes | None = None) -> HierarchicalKeyring:
    store = StaticBranchKeyStore(
        "tenant-7", "f60c4d1c-3a6a-4a33-9a5c-3f1d9f8b1e11", branch_key or os.urandom(32), os.urandom(32)
    )
    return HierarchicalKeyring(store, branch_key_id="tenant-7")


def phi_with(keyring: Any, **options: Any) -> PhiCrypt:
    return PhiCrypt(keyring=keyring, **options)


def raw_aes_keyring(wrapping_key: bytes = bytes(32)) -> RawAesKeyring:
    return RawAesKeyring(namespace="clinic", name="key-1", wrapping_key=wrapping_key)


def patients(**changes: Any) -> TableConfig:
    """A table with every action of version 1, whose other attributes are encrypted on request."""
    settings: dict[str, Any] = {
        "table_name": "patients",
        "partition_key": "patient_id",
        "sort_key": "visit",
        "actions": {
            "patient_id": Action.SIGN_ONLY,
            "visit": Action.SIGN_ONLY,
            "name": Action.ENCRYPT_AND_SIGN,
            "clinic": Action.SIGN_ONLY,
            "note": Action.DO_NOTHING,
        },
        "unsigned_attributes": ("note",),
        "unsigned_prefix": ":",
    }
    return TableConfig(**{**settings, **changes})


def table_of_every_type(action: Action, *, include_in_context: bool = False, **changes: Any) -> TableConfig:
    """A table for :func:`item_of_every_type` whose non-key attributes all have one action."""
    key_action = Action.SIGN_AND_INCLUDE_IN_CONTEXT if include_in_context else Action.SIGN_ONLY
    actions = {"patient_id": key_action, **dict.fromkeys(EVERY_TYPE, action)}
    return TableConfig(table_name="types", partition_key="patient_id", actions=actions, **changes)


def item_of_every_type() -> dict[str, Any]:
    return {"patient_id": {"S": "p-1"}, **EVERY_TYPE}


def patient(**changes: Any) -> dict[str, Any]:
    """An item of :func:`patients`."""
    return {
        "patient_id": {"S": "p-1"},
        "visit": {"S": "2026-01-01"},
        "name": {"S": "canary-name"},
        "clinic": {"S": "north"},
        "note": {"S": "free to change"},
        **changes,
    }


def random_table_and_item(chance: random.Random) -> tuple[TableConfig, dict[str, Any]]:
    """A table of random actions, version and suite, and an item of it with random attributes."""
    version_2 = chance.random() < 0.4
    choices = [Action.ENCRYPT_AND_SIGN, Action.SIGN_ONLY]
    if version_2:
        choices.append(Action.SIGN_AND_INCLUDE_IN_CONTEXT)
    key_action = Action.SIGN_AND_INCLUDE_IN_CONTEXT if version_2 else Action.SIGN_ONLY
    names = chance.sample([*EVERY_TYPE, "ä", "𐀂", "a.b", "a[0]"], chance.randint(3, 10))
    item = {name: chance.choice(list(EVERY_TYPE.values())) for name in names}
    item |= {"patient_id": {"S": f"p-{chance.randrange(99)}"}, "visit": {"N": str(chance.randrange(99))}}
    actions = {name: chance.choice(choices) for name in names} | {"patient_id": key_action, "visit": key_action}
    table = patients(actions=actions | {"note": Action.DO_NOTHING}, signed=chance.random() < 0.3)
    return table, item | {"note": {"S": "free"}, ":free": {"S": "free"}}


def from_vector_json(value: Any) -> dict[str, Any]:
    """The vectors' shorthand for attribute values: text is S, a number is N, otherwise tagged."""
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, int | float):
        return {"N": str(value)}
    ((tag, content),) = value.items()
    if tag == "B":
        return {tag: base64.b64decode(content)}
    if tag == "BS":
        return {tag: [base64.b64decode(member) for member in content]}
    if tag == "L":
        return {tag: [from_vector_json(member) for member in content]}
    if tag == "M":
        return {tag: {name: from_vector_json(member) for name, member in content.items()}}
    return {tag: content}
