"""Tables that are searched by beacons: their configuration, their indexes, their patients."""

from __future__ import annotations

from typing import Any

from phicrypt.dynamodb import Action, TableConfig
from phicrypt.dynamodb import search as s
from phicrypt.keys.branch_keys.keyring import HierarchicalKeyring
from phicrypt.testing import StaticBranchKeyStore

VERSION = "f60c4d1c-3a6a-4a33-9a5c-3f1d9f8b1e11"


def static_keyring() -> HierarchicalKeyring:
    store = StaticBranchKeyStore("tenant-7", VERSION, bytes(range(32)), bytes(range(1, 33)))
    return HierarchicalKeyring(store, branch_key_id="tenant-7")


def config(table_name: str, search: s.SearchConfig | None = None, **changes: Action) -> TableConfig:
    actions = dict.fromkeys(("mrn", "email", "last_name", "address", "tags"), Action.ENCRYPT_AND_SIGN)
    actions |= {"patient_id": Action.SIGN_ONLY, "clinic": Action.SIGN_ONLY, "note": Action.DO_NOTHING}
    if changes:  # where one attribute is in the context, the key is too
        actions |= {"patient_id": Action.SIGN_AND_INCLUDE_IN_CONTEXT, **changes}
    return TableConfig(
        table_name, "patient_id", actions=actions, unsigned_attributes=("note",), search=search or everything()
    )


def everything(**more: Any) -> s.SearchConfig:
    return s.SearchConfig(
        standard=[
            s.StandardBeacon("mrn", bits=2),
            s.StandardBeacon("email_lower", bits=15),
            s.StandardBeacon("last_name", bits=1),
            s.StandardBeacon("city", bits=10, location="address.city"),
            s.StandardBeacon("tags", bits=12, style="asSet"),
        ],
        compound=[
            s.CompoundBeacon("lookup", "^", [s.SignedPart("clinic", "C-")], [s.EncryptedPart("last_name", "L-")]),
            s.CompoundBeacon("where", "#", [s.SignedPart("clinic", "c:")]),
        ],
        virtual=[s.VirtualField("email_lower", s.VirtualPart("email", s.Lower()))],
        **more,
    )


def patient(number: int, **values: Any) -> dict[str, Any]:
    item = {
        "patient_id": {"S": f"p{number}"},
        "mrn": {"S": f"A-{number}"},
        "email": {"S": f"User{number}@Example.org"},
        "last_name": {"S": ["Smith", "Ng", "Garcia"][number % 3]},
        "address": {"M": {"city": {"S": ["Rome", "Oslo"][number % 2]}}},
        "tags": {"SS": ["all", f"t{number % 4}"]},
        "clinic": {"S": ["north", "south"][number % 2]},
    }
    return {**item, **values}


INDEXES = {"by-mrn": "aws_dbe_b_mrn", "by-email": "aws_dbe_b_email_lower", "by-lookup": "aws_dbe_b_lookup"}


def create(raw: Any, name: str, indexes: dict[str, str] = INDEXES, projection: str = "ALL") -> None:
    raw.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "patient_id", "KeyType": "HASH"}],
        AttributeDefinitions=[
            {"AttributeName": one, "AttributeType": "S"} for one in ("patient_id", *indexes.values())
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": index,
                "KeySchema": [{"AttributeName": attribute, "KeyType": "HASH"}],
                "Projection": {"ProjectionType": projection},
            }
            for index, attribute in indexes.items()
        ],
        BillingMode="PAY_PER_REQUEST",
    )
