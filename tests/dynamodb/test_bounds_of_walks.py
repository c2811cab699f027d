"""Bounds of walks over a table, and of names and files, that are easily lost without anybody noticing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from support.dynamodb_support import patient_config

from phicrypt import PhiCrypt
from phicrypt.dynamodb.config_file import read_config_file
from phicrypt.dynamodb.migration import MAX_SEGMENTS, WalkOptions
from phicrypt.dynamodb.survey import MAX_ITEM_BYTES
from phicrypt.errors import ConfigurationError


@pytest.mark.parametrize(
    "options",
    [{"segments": 0}, {"segments": -1}, {"segments": MAX_SEGMENTS + 1}, {"page_size": 0}, {"page_size": -5}],
)
def test_a_walk_has_segments_and_pages(options: dict[str, int]) -> None:
    WalkOptions(segments=MAX_SEGMENTS, page_size=1)
    with pytest.raises(ConfigurationError):
        WalkOptions(**options)


def test_an_item_has_400_kib_as_dynamodb_counts() -> None:
    assert MAX_ITEM_BYTES == 400 * 1024


@pytest.mark.parametrize("name", ["", 7, None, b"name"])
def test_attributes_have_names_that_are_texts(phi: PhiCrypt, name: Any) -> None:
    item = {"patient_id": {"S": "p"}, "visit": {"N": "1"}, name: {"S": "x"}}
    with pytest.raises(ConfigurationError):
        phi.dynamodb.encrypt_item(item, patient_config("patients"))


def test_what_was_read_from_a_configuration_file_does_not_change(tmp_path: Path) -> None:
    file = tmp_path / "patients.toml"
    file.write_text('[table]\npartition_key = "p"\nactions = { p = "SIGN_ONLY" }\n')
    config: Any = read_config_file(file)
    with pytest.raises(ValidationError):
        config.table = None
    assert config.table.partition_key == "p"
