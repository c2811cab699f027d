"""Messages of AWS's material providers library, keyring by keyring; those of KMS ask the one right question.

Messages with required context stand in ``tests/core``. Own vectors of the same kinds, for a checkout without the
official ones: :mod:`tests.keys.test_key_pair_vectors`.
"""

from __future__ import annotations

import base64
import functools
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from support.official_vectors import load_vectors

from phicrypt import (
    ANY_CONTEXT,
    HierarchicalKeyring,
    KmsEcdhKeyring,
    KmsKeyring,
    MultiKeyring,
    PhiCrypt,
    RawAesKeyring,
    RawEcdhKeyring,
    RawRsaKeyring,
)
from phicrypt.core.limits import ReadLimits
from phicrypt.errors import KeyAccessError
from phicrypt.formats.esdk.header import MessageHeader, parse_header
from phicrypt.formats.reader import ByteReader
from phicrypt.keys.kms.rsa_keyring import KmsRsaKeyring
from phicrypt.testing import StaticBranchKeyStore, mark_as_double

FOLDER = "esdk-mpl"
REQUIRED = "required-encryption-context-cmm"
_DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "vectors"


class AskedOnly:
    """A KMS that refuses everything, and remembers what it was asked."""

    def __init__(self, region: str) -> None:
        self.region = region
        self.asked: list[tuple[str, str, Mapping[str, Any]]] = []

    def _refuse(self, operation: str, parameters: Mapping[str, Any]) -> Any:
        self.asked.append((self.region, operation, parameters))
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": ""}}, operation)

    def decrypt(self, **parameters: Any) -> Any:
        return self._refuse("Decrypt", parameters)

    def derive_shared_secret(self, **parameters: Any) -> Any:
        return self._refuse("DeriveSharedSecret", parameters)


def vectors() -> dict[str, Any]:
    tests = load_vectors(FOLDER, "decrypt-manifest.json")["tests"]
    scenarios = {name: one["decryption-scenario"] for name, one in tests.items()}
    return {name: one for name, one in scenarios.items() if one["decryptKeyDescription"]["type"] != REQUIRED}


def content(uri: str) -> bytes:
    root = Path(os.environ.get("PHICRYPT_VECTORS") or _DEFAULT)
    return root.joinpath(FOLDER, uri.removeprefix("file://")).read_bytes()


def header_of(message: bytes) -> MessageHeader:
    return parse_header(ByteReader(message), ReadLimits())


def keyring_of(description: Mapping[str, Any], keys: Mapping[str, Any], kms: AskedOnly) -> Any:
    """The keyring that a vector's key description asks for."""
    kind = description["type"]
    client = mark_as_double(kms)
    if kind == "multi-keyring":
        described = [description["generator"], *description["childKeyrings"]]
        return MultiKeyring(*(keyring_of(one, keys, kms) for one in described))
    if kind == "aws-kms-mrk-aware-discovery":
        accounts = description["aws-kms-discovery-filter"]
        return KmsKeyring.discovery(
            account_ids=accounts["account-ids"],
            partition=accounts["partition"],
            regions=[description["default-mrk-region"]],
            client=client,
        )
    if kind == "raw-ecdh":
        return raw_ecdh(description, keys)
    named = keys[description["key"]]
    if kind == "raw" and description["encryption-algorithm"] == "aes":
        return RawAesKeyring(description["provider-id"], named["key-id"], base64.b64decode(named["material"]))
    if kind == "raw":
        scheme, digest = description["padding-algorithm"], description["padding-hash"]
        padding = scheme if scheme == "pkcs1" else f"oaep-{digest}"
        private_key = rsa_key(named["material"])
        return RawRsaKeyring(description["provider-id"], named["key-id"], padding=padding, private_key=private_key)
    if kind == "aws-kms-hierarchy":
        secrets = (base64.b64decode(named[name]) for name in ("branchKey", "beaconKey"))
        store = StaticBranchKeyStore(named["key-id"], named["branchKeyVersion"], *secrets)
        return HierarchicalKeyring(store, named["key-id"])
    assert kind == "aws-kms-rsa", kind
    return KmsRsaKeyring(named["key-id"], algorithm=description["encryption-algorithm"], client=client)


@functools.cache
def rsa_key(pem: str) -> Any:
    """Read once and without the checks, which take seconds for 4,096 bits; others hold that PEM is read."""
    return load_pem_private_key(pem.encode(), None, unsafe_skip_rsa_key_validation=True)


def raw_ecdh(description: Mapping[str, Any], keys: Mapping[str, Any]) -> RawEcdhKeyring:
    private_key = keys[description["recipient"]]["recipient-material"]
    if description["schema"] == "discovery":
        return RawEcdhKeyring.discovery(private_key=private_key)
    sender = base64.b64decode(keys[description["sender"]]["sender-material-public-key"])
    return RawEcdhKeyring.static(private_key=private_key, recipient_public_key=sender)


def decrypted(keyring: Any, message: bytes) -> bytes:
    return PhiCrypt(keyring).decrypt(message, context=ANY_CONTEXT, allow_uncommitted=True)


def test_every_message_of_a_key_at_hand_opens() -> None:
    keys, opened = load_vectors(FOLDER, "keys.json")["keys"], Counter[str]()
    for vector in vectors().values():
        kind = vector["decryptKeyDescription"]["type"]
        if kind in ("aws-kms-rsa", "aws-kms-mrk-aware-discovery"):
            continue
        keyring = keyring_of(vector["decryptKeyDescription"], keys, AskedOnly("us-west-2"))
        assert decrypted(keyring, content(vector["ciphertext"])) == content(vector["result"])
        opened[kind] += 1
    assert opened == {"raw": 19, "raw-ecdh": 11, "aws-kms-hierarchy": 4, "multi-keyring": 4}


def test_messages_of_kms_ask_the_one_right_question() -> None:
    keys, asked = load_vectors(FOLDER, "keys.json")["keys"], Counter[str]()
    for vector in vectors().values():
        description = vector["decryptKeyDescription"]
        kind = description["type"]
        if kind not in ("aws-kms-rsa", "aws-kms-mrk-aware-discovery"):
            continue
        kms, message = AskedOnly("us-west-2"), content(vector["ciphertext"])
        with pytest.raises(KeyAccessError):
            decrypted(keyring_of(description, keys, kms), message)
        header = header_of(message)
        (data_key,) = header.encrypted_data_keys
        ((region, operation, parameters),) = kms.asked
        assert (region, operation, parameters["CiphertextBlob"]) == ("us-west-2", "Decrypt", data_key.ciphertext)
        stored = data_key.provider_info.decode()
        if kind == "aws-kms-rsa":
            assert parameters["KeyId"] == stored == keys[description["key"]]["key-id"]
            assert parameters["EncryptionAlgorithm"] == description["encryption-algorithm"]
            assert "EncryptionContext" not in parameters
        else:
            assert parameters["KeyId"] == stored.replace("us-east-1", "us-west-2")
            assert parameters.get("EncryptionContext", {}) == header.context
        asked[kind] += 1
    assert asked == {"aws-kms-rsa": 6, "aws-kms-mrk-aware-discovery": 4}


@pytest.mark.parametrize("curve", ["256", "384", "521"])
def test_the_vectors_kms_keys_of_ecdh_ask_the_one_right_question(curve: str) -> None:
    """The keys of the official ECDH vectors under KMS, with a message between them that their raw twin wrote."""
    keys = load_vectors(FOLDER, "keys.json")["keys"]
    named, pair = keys[f"us-west-2-{curve}-ecc"], keys[f"ecc-{curve}-private"]
    recipient = base64.b64decode(named["recipient-material-public-key"])
    writer = RawEcdhKeyring.static(private_key=pair["sender-material"], recipient_public_key=recipient)
    message = PhiCrypt(writer).encrypt(b"note", context={"tenant": "clinic-7"})
    kms = AskedOnly("us-west-2")
    sender = base64.b64decode(pair["sender-material-public-key"])
    ours = KmsEcdhKeyring(named["recipient-material"], recipient_public_key=sender, client=mark_as_double(kms))
    with pytest.raises(KeyAccessError):
        decrypted(ours, message)
    assert kms.asked == [
        (
            "us-west-2",
            "DeriveSharedSecret",
            {"KeyId": named["recipient-material"], "KeyAgreementAlgorithm": "ECDH", "PublicKey": sender},
        )
    ]
