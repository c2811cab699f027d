"""AWS's own decrypt vectors for encrypted DynamoDB items."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from support.dbesdk_support import from_vector_json, phi_with
from support.official_vectors import load_vectors

from phicrypt.dynamodb import Action, TableConfig
from phicrypt.dynamodb.items import open_item
from phicrypt.errors import PhiCryptError
from phicrypt.formats.dbesdk.attributes import serialize
from phicrypt.keys.branch_keys.keyring import HierarchicalKeyring
from phicrypt.testing import StaticBranchKeyStore

MANIFESTS = ("decrypt_java_32.json", "decrypt_java_33.json", "decrypt_dotnet_32.json", "decrypt_dotnet_33.json")


def vector_phi() -> Any:
    key = load_vectors("dbesdk", "keys.json")["static-branch-key-1"]
    store = StaticBranchKeyStore(
        key["branch-key-id"],
        key["branch-key-version"],
        base64.b64decode(key["branch-key"]),
        base64.b64decode(key["beacon-key"]),
    )
    return phi_with(HierarchicalKeyring(store, branch_key_id=key["branch-key-id"]))


def vector_table(config: dict[str, Any]) -> TableConfig:
    return TableConfig(
        table_name="GazelleVectorTable",
        partition_key="RecNum",
        actions={name: Action(action) for name, action in config["attributeActionsOnEncrypt"].items()},
        unsigned_attributes=tuple(config.get("allowedUnsignedAttributes", ())),
        unsigned_prefix=config.get("allowedUnsignedAttributePrefix"),
        signed="ECDSA" in config.get("algorithmSuiteId", "ECDSA"),
    )


def in_normal_form(item: dict[str, Any]) -> dict[str, tuple[bytes, bytes]]:
    return {name: serialize(value) for name, value in item.items()}


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_official_vectors(manifest: str) -> None:
    vectors = load_vectors("dbesdk", manifest)
    phi = vector_phi()
    outcomes = {"positive-decrypt": 0, "negative-decrypt": 0}
    for number, vector in vectors["tests"].items():
        encrypted = {name: from_vector_json(value) for name, value in vector["encrypted"].items()}
        table = vector_table(vector["config"])
        if vector["type"] == "negative-decrypt":
            with pytest.raises(PhiCryptError):
                open_item(phi.session, encrypted, table)
        else:
            plaintext = {name: from_vector_json(value) for name, value in vector["plaintext"].items()}
            opened = open_item(phi.session, encrypted, table)
            assert in_normal_form(opened.item) == in_normal_form(plaintext), number
        outcomes[vector["type"]] += 1
    assert outcomes["positive-decrypt"] > 0
    assert outcomes["negative-decrypt"] > 0
