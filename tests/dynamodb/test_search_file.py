"""``[search]`` of a table configuration's file says the same as a SearchConfig."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from phicrypt.dynamodb import search as s
from phicrypt.dynamodb.config_file import read_config_file
from phicrypt.errors import ConfigurationError

TABLE = """
[table]
partition_key = "patient_id"
[table.actions]
patient_id = "SIGN_ONLY"
clinic = "SIGN_ONLY"
mrn = "ENCRYPT_AND_SIGN"
email = "ENCRYPT_AND_SIGN"
last_name = "ENCRYPT_AND_SIGN"
birth_date = "ENCRYPT_AND_SIGN"
"""

SEARCH = """
[search]
complete_since = 2026-05-01
max_partitions = 3

[[search.standard]]
name = "mrn"
bits = 15
partitions = 1

[[search.standard]]
name = "email_lower"
bits = 12

[[search.standard]]
name = "last_name"
bits = 9

[[search.standard]]
name = "birth_date"
bits = 9
style = "partOnly"

[[search.virtual]]
name = "email_lower"
parts = [{ location = "email", transforms = [["lower"], ["segment", "@", 1]] }]

[[search.compound]]
name = "at_clinic"
split = "^"
signed = [{ name = "clinic", prefix = "C-" }]
encrypted = [{ name = "last_name", prefix = "L-" }, { name = "birth_date", prefix = "B-" }]
constructors = [["clinic", "last_name", "birth_date?"]]

[search.beacon_key]
attribute = "clinic"
"""

SAME = s.SearchConfig(
    standard=[
        s.StandardBeacon("mrn", 15, partitions=1),
        s.StandardBeacon("email_lower", 12),
        s.StandardBeacon("last_name", 9),
        s.StandardBeacon("birth_date", 9, style="partOnly"),
    ],
    compound=[
        s.CompoundBeacon(
            "at_clinic",
            "^",
            [s.SignedPart("clinic", "C-")],
            [s.EncryptedPart("last_name", "L-"), s.EncryptedPart("birth_date", "B-")],
            [s.Constructor("clinic", "last_name", s.OptionalPart("birth_date"))],
        )
    ],
    virtual=[s.VirtualField("email_lower", s.VirtualPart("email", s.Lower(), s.Segment("@", 1)))],
    beacon_key=s.BeaconKeyByAttribute("clinic"),
    max_partitions=3,
    complete_since=date(2026, 5, 1),
)


def test_a_file_says_the_same_as_the_library(tmp_path: Path) -> None:
    (tmp_path / "table.toml").write_text(TABLE + SEARCH)
    assert read_config_file(tmp_path / "table.toml").for_table("patients").search == SAME


def test_without_search_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "table.toml").write_text(TABLE)
    assert read_config_file(tmp_path / "table.toml").for_table("patients").search is None


@pytest.mark.parametrize(
    ("search", "why"),
    [
        ({"standard": [{"name": "mrn"}]}, "bits"),
        ({"standard": [{"name": "mrn", "bits": 64}]}, "63"),
        ({"standard": [{"name": "clinic", "bits": 6}]}, "clinic"),
        ({"standard": [{"name": "mrn", "bits": 6}], "beacon_key": {}}, "beacon_key"),
        (
            {
                "standard": [{"name": "mrn", "bits": 6}],
                "virtual": [{"name": "v", "parts": [{"location": "mrn", "transforms": [["reverse"]]}]}],
            },
            "transform",
        ),
        ({"standard": [{"name": "mrn", "bits": 6, "colour": 1}]}, "colour"),
    ],
)
def test_a_search_that_cannot_be_is_refused_by_name(tmp_path: Path, search: object, why: str) -> None:
    actions = {"patient_id": "SIGN_ONLY", "clinic": "SIGN_ONLY", "mrn": "ENCRYPT_AND_SIGN"}
    table = {"partition_key": "patient_id", "actions": actions}
    (tmp_path / "table.json").write_text(json.dumps({"table": table, "search": search}))
    with pytest.raises(ConfigurationError, match=why):
        read_config_file(tmp_path / "table.json").for_table("patients")
