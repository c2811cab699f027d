"""Own vectors for a plain checkout: what AWS's library for Python wrote for RSA and ECDH key pairs."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from support.recipient_keys import KMS_SPECS

from phicrypt import KmsEcdhKeyring, PhiCrypt, RawEcdhKeyring, RawRsaKeyring
from phicrypt.testing import StrictKms

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("key_pair_vectors.json").read_text())
PLAINTEXT = VECTORS["plaintext"].encode()


def opened(keyring: Any, message: str) -> bytes:
    return PhiCrypt(keyring).decrypt(base64.b64decode(message), context=VECTORS["context"])


@pytest.mark.parametrize("padding", VECTORS["rsa"]["messages"])
def test_rsa_messages_of_every_padding_open(padding: Any) -> None:
    key = VECTORS["rsa"]
    private_key = load_pem_private_key(key["private_key"].encode(), None, unsafe_skip_rsa_key_validation=True)
    ring = RawRsaKeyring(key["namespace"], key["name"], private_key=private_key, padding=padding)
    assert opened(ring, key["messages"][padding]) == PLAINTEXT


@pytest.mark.parametrize("curve", VECTORS["ecdh"])
def test_ecdh_messages_of_every_curve_open_in_every_way(curve: str) -> None:
    keys = VECTORS["ecdh"][curve]
    discovery = RawEcdhKeyring.discovery(private_key=keys["recipient_private_key"])
    recipient = RawEcdhKeyring.static(
        private_key=keys["recipient_private_key"], recipient_public_key=keys["sender_public_key"]
    )
    sender = RawEcdhKeyring.static(
        private_key=keys["sender_private_key"], recipient_public_key=keys["recipient_public_key"]
    )
    for message in (keys["static"], keys["kms"]):
        for ring in (discovery, recipient, sender):
            assert opened(ring, message) == PLAINTEXT
    assert opened(discovery, keys["ephemeral"]) == PLAINTEXT


@pytest.mark.parametrize("curve", VECTORS["ecdh"])
def test_ecdh_messages_open_with_either_sides_key_in_kms(kms: StrictKms, curve: str) -> None:
    keys = VECTORS["ecdh"][curve]
    for own, other in (("recipient", "sender"), ("sender", "recipient")):
        private_key = load_pem_private_key(keys[f"{own}_private_key"].encode(), None)
        arn = kms.create_key(KeySpec=KMS_SPECS[curve], KeyUsage="KEY_AGREEMENT", private_key=private_key)
        ring = KmsEcdhKeyring(arn, recipient_public_key=keys[f"{other}_public_key"], client=kms.client())
        for message in (keys["static"], keys["kms"]):
            assert opened(ring, message) == PLAINTEXT
