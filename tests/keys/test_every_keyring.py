"""What every keyring keeps: documented, safe to hold, never copied, and it opens what it sealed."""

from __future__ import annotations

import asyncio
import copy
import importlib
import pickle
import pkgutil
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.keyring_support import kms_keyring, to_decrypt, to_encrypt
from support.recipient_keys import ec_pair, private_pem, public_pem, rsa_pair
from support.recovery_keys import RecoveryKey

import phicrypt.keys
from phicrypt import (
    HierarchicalKeyring,
    KmsEcdhKeyring,
    MultiKeyring,
    PhiCrypt,
    RawAesKeyring,
    RawEcdhKeyring,
    RawRsaKeyring,
)
from phicrypt.audit import RecordingSink
from phicrypt.core.materials import binds_context_locally
from phicrypt.core.steps import AwsRequest, arun, ask, decrypt_steps, encrypt_steps
from phicrypt.dynamodb import Action, TableConfig
from phicrypt.errors import ContextMismatchError
from phicrypt.keys.kms.rsa_keyring import KmsRsaKeyring
from phicrypt.testing import StaticBranchKeyStore, StrictKms

DOCS = Path(phicrypt.keys.__file__).parents[2] / "docs"
SECRET = bytes(range(32))
VERSION = "e9ce18a3-edb5-4272-9f86-1cacb7997ff6"


def raw_aes(kms: StrictKms) -> Any:
    return RawAesKeyring("clinic", "key-1", SECRET)


def hierarchical(kms: StrictKms) -> Any:
    return HierarchicalKeyring(StaticBranchKeyStore("clinic-7", VERSION, SECRET, bytes(32)), "clinic-7")


def rsa(kms: StrictKms) -> Any:
    recovery = RecoveryKey(kms)
    return KmsRsaKeyring(recovery.arn, public_key=recovery.public_key, client=recovery.client)


def kms_ecdh(kms: StrictKms) -> Any:
    arn = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="KEY_AGREEMENT")
    return KmsEcdhKeyring(arn, recipient_public_key=public_pem(ec_pair()), client=kms.client())


def raw_ecdh(kms: StrictKms) -> Any:
    return RawEcdhKeyring.static(private_key=private_pem(ec_pair()), recipient_public_key=public_pem(ec_pair()))


def raw_rsa(kms: StrictKms) -> Any:
    return RawRsaKeyring("clinic", "recovery-1", public_key=public_pem(rsa_pair()), private_key=rsa_pair())


EXAMPLES: dict[str, Callable[[StrictKms], Any]] = {
    "HierarchicalKeyring": hierarchical,
    "KmsEcdhKeyring": kms_ecdh,
    "KmsKeyring": lambda kms: kms_keyring(kms, kms.create_key()),
    "KmsRsaKeyring": rsa,
    "MultiKeyring": lambda kms: MultiKeyring(raw_aes(kms), kms_keyring(kms, kms.create_key())),
    "RawAesKeyring": raw_aes,
    "RawEcdhKeyring": raw_ecdh,
    "RawRsaKeyring": raw_rsa,
}
"""A new keyring needs an example here."""
SHOWN_TO_KMS = {"KmsKeyring", "MultiKeyring"}
"""Of the examples, those that show the encryption context to KMS. A new one is not to be among them."""


def keyrings() -> dict[str, type]:
    """Every public class below phicrypt.keys that seals and opens data keys."""
    modules = [
        importlib.import_module(one.name)
        for one in pkgutil.walk_packages(phicrypt.keys.__path__, "phicrypt.keys.")
        if not one.name.rpartition(".")[2].startswith("_")
    ]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if re.fullmatch(r"[A-Z]\w*Keyring", name)
        and isinstance(value, type)
        and value.__module__ == module.__name__
        and hasattr(value, "on_encrypt")
    }


by_keyring = pytest.mark.parametrize("name", sorted(EXAMPLES))


def test_every_keyring_has_an_example_here():
    assert set(keyrings()) == set(EXAMPLES)


def test_every_keyring_is_documented():
    text = "".join((DOCS / page).read_text() for page in ("keys.md", "branch-keys.md"))
    assert [name for name in keyrings() if f"`{name}" not in text] == []


@by_keyring
def test_a_keyring_opens_what_it_sealed_and_nothing_in_another_context(kms: StrictKms, name: str) -> None:
    phi = PhiCrypt(EXAMPLES[name](kms))
    message = phi.encrypt(b"hemoglobin 13.5 g/dL", context={"tenant": "clinic-7"})
    assert phi.decrypt(message, context={"tenant": "clinic-7"}) == b"hemoglobin 13.5 g/dL"
    with pytest.raises(ContextMismatchError):
        phi.decrypt(message, context={"tenant": "clinic-8"})


@by_keyring
def test_a_keyring_opens_the_items_that_it_sealed(kms: StrictKms, name: str) -> None:
    """Under the DB-ESDK's suites, whose data keys are wrapped by an intermediate key (rule 4)."""
    phi = PhiCrypt(EXAMPLES[name](kms))
    actions = {"patient": Action.SIGN_ONLY, "note": Action.ENCRYPT_AND_SIGN}
    # A KMS RSA recipient is for unsigned messages and items.
    table = TableConfig("patients", "patient", actions=actions, signed=name != "KmsRsaKeyring")
    item = {"patient": {"S": "p-1"}, "note": {"S": "hemoglobin 13.5 g/dL"}}
    sealed = phi.dynamodb.encrypt_item(item, table)
    assert sealed["note"] != item["note"]
    assert phi.dynamodb.decrypt_item(sealed, table) == item


@by_keyring
def test_a_keyring_is_neither_copied_nor_pickled_and_shows_no_key(kms: StrictKms, name: str) -> None:
    keyring = EXAMPLES[name](kms)
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            attempt(keyring)
    assert SECRET.hex() not in repr(keyring)
    assert repr(SECRET)[2:-1] not in repr(keyring)


@by_keyring
def test_a_keyring_asks_aws_by_its_steps_alone(kms: StrictKms, name: str) -> None:
    """So the asynchronous driver makes every call: what is asked elsewhere would block its loop."""
    keyring = EXAMPLES[name](kms)
    asked_before = len(kms.requests)
    requests: list[AwsRequest] = []

    async def call(request: AwsRequest) -> Any:
        requests.append(request)
        return await asyncio.to_thread(ask, request)

    sealed = asyncio.run(arun(encrypt_steps(keyring, to_encrypt()), call))
    opened = asyncio.run(arun(decrypt_steps(keyring, to_decrypt(), sealed.encrypted_data_keys), call))
    assert opened.data_key is not None
    assert sealed.data_key is not None
    assert opened.data_key.key_bytes == sealed.data_key.key_bytes
    assert len(kms.requests) - asked_before == len(requests)


@by_keyring
def test_a_keyring_has_an_identity_of_its_own_for_the_cache(kms: StrictKms, name: str) -> None:
    keyring = EXAMPLES[name](kms)
    assert hash(keyring.identity) == hash(keyring.identity)
    assert isinstance(keyring.caches_data_keys, bool)
    assert SECRET not in str(keyring.identity).encode("latin-1", "replace")


@by_keyring
def test_rule_35_a_required_value_goes_to_kms_with_a_kms_keyring_and_nowhere_else(
    kms: StrictKms, name: str
) -> None:
    keyring = EXAMPLES[name](kms)
    before = len(kms.requests)
    context, names = {"tenant": "clinic-7", "patient": "p-20391-canary"}, ("patient",)
    sink = RecordingSink()
    message = PhiCrypt(keyring, cache=None, audit=[sink]).encrypt(b"x", context=context, required_context=names)
    # Another client: nothing of what was written is cached there.
    phi = PhiCrypt(keyring, cache=None, audit=[sink])
    assert phi.decrypt(message, context=context, required_context=names) == b"x"
    asked = kms.requests[before:]
    shown = [one.operation for one in asked if "canary" in repr(one)]
    is_shown = not binds_context_locally(keyring)
    assert is_shown == (name in SHOWN_TO_KMS)
    assert bool(shown) == is_shown, shown
    if is_shown:
        calls = {"GenerateDataKey", "Encrypt", "Decrypt"}
        assert set(shown) <= calls
        assert {one.operation for one in asked if "clinic-7" in repr(one)} == set(shown)
    assert b"canary" not in message
    assert "canary" not in "".join(event.to_json() for event in sink.events)
