"""The table of suites is the one of AWS's library, and each suite is documented."""

from __future__ import annotations

from pathlib import Path

import pytest
from aws_encryption_sdk.identifiers import AlgorithmSuite as SdkSuite

import phicrypt
from phicrypt.core.suites import DBE_SUITES, ESDK_SUITES, Kdf, suite_by_id

DOCS = Path(phicrypt.__file__).parents[1] / "docs"
THEIRS = {suite.algorithm_id: suite for suite in SdkSuite}


def test_every_suite_of_the_library_is_known_and_no_other():
    assert set(ESDK_SUITES) == set(THEIRS)


@pytest.mark.parametrize("suite_id", sorted(THEIRS), ids=hex)
def test_a_suite_has_the_librarys_lengths_derivation_commitment_and_signature(suite_id):
    ours, theirs = ESDK_SUITES[suite_id], THEIRS[suite_id]
    assert ours.data_key_length_bytes == theirs.data_key_len
    assert ours.message_format_version == theirs.message_format_version
    assert ours.is_committing == theirs.is_committing()
    assert ours.is_signed == theirs.is_signing()
    hash_name = theirs.kdf_hash_type().name if theirs.kdf_hash_type else None
    assert ours.kdf is (Kdf.IDENTITY if hash_name is None else Kdf(hash_name))
    assert suite_by_id(suite_id) is ours


@pytest.mark.parametrize("suite_id", [*ESDK_SUITES, *DBE_SUITES], ids=hex)
def test_a_suite_is_documented(suite_id):
    page = "messages.md" if suite_id in ESDK_SUITES else "formats/dbesdk.md"
    assert f"0x{suite_id:04x}" in (DOCS / page).read_text()
