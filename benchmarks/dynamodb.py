"""DynamoDB items, encrypted and decrypted locally: the same low-level item on every side.

phicrypt wraps a fresh data key per item under a cached branch key, as the format demands; the legacy
client uses one static key for all items, which is less work. The partition key is signed only, every
other attribute is encrypted and signed.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

from benchmarks.measure import Bar, Case, Profile, Sampler, UnavailableError
from benchmarks.messages import offer
from benchmarks.peers import LEGACY_DYNAMODB, LegacyDynamoDbPeer
from phicrypt import HierarchicalKeyring, PhiCrypt
from phicrypt.audit import JsonlSink
from phicrypt.dynamodb import Action, TableConfig
from phicrypt.testing import StaticBranchKeyStore

PHICRYPT: Final = "phicrypt"
AUDITED: Final = "phicrypt, JSONL chain on"
FLOOR: Final = "boto3 serializer"
ATTRIBUTES: Final = (5, 20, 100)
VALUE_LENGTH: Final = 50
LONG_VALUE_BYTES: Final = 400_000
TABLE: Final = "patients"
PARTITION_KEY: Final = "patient_id"

Item = dict[str, Any]


def item_of(attributes: int) -> Item:
    """A low-level item of so many string attributes of 50 characters, the partition key among them."""
    item: Item = {PARTITION_KEY: {"S": "p" * VALUE_LENGTH}}
    for number in range(1, attributes):
        item[f"attribute_{number:03}"] = {"S": f"{number:03}".ljust(VALUE_LENGTH, "x")}
    return item


def long_item() -> Item:
    """One attribute of 400 KB, as large as DynamoDB allows an item to be (nearly)."""
    return {PARTITION_KEY: {"S": "p-1"}, "scan": {"B": bytes(range(256)) * (LONG_VALUE_BYTES // 256)}}


def table_for(item: Mapping[str, Any]) -> TableConfig:
    actions = {name: Action.SIGN_ONLY if name == PARTITION_KEY else Action.ENCRYPT_AND_SIGN for name in item}
    return TableConfig(
        table_name=TABLE, logical_table_name=TABLE, partition_key=PARTITION_KEY, sort_key=None, actions=actions
    )


def phi_with_branch_key(**options: Any) -> PhiCrypt:
    """phicrypt with a hierarchical keyring whose branch key is at hand."""
    store = StaticBranchKeyStore("tenant-7", "8d1fd4a2-6e4b-4d7c-9c11-3a1e7c2b9f10", bytes(32), bytes(range(32)))
    return PhiCrypt(keyring=HierarchicalKeyring(store, branch_key_id="tenant-7", ttl_seconds=3_600), **options)


def phi_operation(phi: PhiCrypt, direction: str, item: Item) -> Callable[[], object]:
    table, ddb = table_for(item), phi.dynamodb
    if direction == "encrypt":
        return lambda: ddb.encrypt_item(item, table)
    sealed = ddb.encrypt_item(item, table)
    if ddb.decrypt_item(sealed, table) != item:
        raise ValueError("the item did not come back")
    return lambda: ddb.decrypt_item(sealed, table)


def legacy_operation(direction: str, item: Item) -> Callable[[], object]:
    peer = LegacyDynamoDbPeer(TABLE, PARTITION_KEY)
    if direction == "encrypt":
        return lambda: peer.encrypt(item)
    sealed = peer.encrypt(item)
    return lambda: peer.decrypt(dict(sealed))  # it takes the signature out of the item that it is given


def serializer_operation(direction: str, item: Item) -> Callable[[], object]:
    """What boto3's resource does with each item, without any encryption: the floor of taste, not of work."""
    serialize, deserialize = TypeSerializer().serialize, TypeDeserializer().deserialize
    if direction == "encrypt":
        python = {name: deserialize(value) for name, value in item.items()}
        return lambda: {name: serialize(value) for name, value in python.items()}
    return lambda: {name: deserialize(value) for name, value in item.items()}


def item_contenders(direction: str, item: Item) -> Any:
    @contextlib.contextmanager
    def contenders(profile: Profile) -> Iterator[Mapping[str, Sampler | UnavailableError]]:
        with tempfile.TemporaryDirectory(prefix="phicrypt-bench-") as folder:
            audited = phi_with_branch_key(audit=[JsonlSink(Path(folder) / "audit.jsonl")])
            with audited, audited.acting_as("dr-4711", "treatment"):
                yield offer(
                    {
                        PHICRYPT: lambda: phi_operation(phi_with_branch_key(), direction, item),
                        AUDITED: lambda: phi_operation(audited, direction, item),
                        LEGACY_DYNAMODB: lambda: legacy_operation(direction, item),
                        FLOOR: lambda: serializer_operation(direction, item),
                    },
                    profile,
                )

    return contenders


def cases() -> Iterator[Case]:
    for direction in ("encrypt", "decrypt"):
        for attributes in ATTRIBUTES:
            bar = Bar(
                f"DynamoDB item of 20 attributes, {direction}, unsigned, branch key cached, vs {LEGACY_DYNAMODB} "
                "with a static key",
                PHICRYPT,
                "speedup",
                4,
                5.5,
                LEGACY_DYNAMODB,
            )
            yield Case(
                f"dynamodb-{direction}-{attributes}",
                f"{direction} an item of {attributes} attributes of {VALUE_LENGTH} B",
                item_contenders(direction, item_of(attributes)),
                payload_bytes=VALUE_LENGTH * attributes,
                bars=(bar,) if attributes == 20 else (),
            )
        yield Case(
            f"dynamodb-{direction}-400KB",
            f"{direction} an item with one attribute of 400 KB",
            item_contenders(direction, long_item()),
            payload_bytes=LONG_VALUE_BYTES,
            bars=(Bar(f"one 400 KB attribute, {direction} (seconds)", PHICRYPT, "value", 0.002, 0.001),),
        )
