"""Rule 28: a key that is kept is compared with its check value when it is used, for memory fails as well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.s3_support import flip

from phicrypt import ANY_CONTEXT, HierarchicalKeyring, KmsKeyring, PhiCrypt
from phicrypt.errors import KeyAccessError
from phicrypt.keys.branch_keys import BranchKey
from phicrypt.testing import StaticBranchKeyStore, StrictKms

CONTEXT = {"tenant": "clinic-7"}
VERSION = "e9ce18a3-edb5-4272-9f86-1cacb7997ff6"


@pytest.fixture(scope="module")
def kms() -> Iterator[StrictKms]:
    with StrictKms() as running:
        yield running


class Remembering:
    """A keyring around another one, and the data keys that went through it."""

    def __init__(self, keyring: Any) -> None:
        self._keyring = keyring
        self.data_keys: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keyring, name)

    def on_encrypt(self, materials: Any) -> Any:
        return self._seen(self._keyring.on_encrypt(materials))

    def on_decrypt(self, materials: Any, encrypted_data_keys: Any) -> Any:
        return self._seen(self._keyring.on_decrypt(materials, encrypted_data_keys))

    def _seen(self, materials: Any) -> Any:
        self.data_keys.append(materials.data_key)
        return materials


def test_rule_28_a_data_key_that_changed_in_memory_seals_nothing(kms: StrictKms) -> None:
    arn = kms.create_key()
    keyring = Remembering(KmsKeyring(arn, client=kms.client()))
    phi, sound = PhiCrypt(keyring), PhiCrypt(KmsKeyring(arn, client=kms.client()))
    messages = [phi.encrypt(b"note", context=CONTEXT)]
    keyring.data_keys[0].key_bytes = flip(keyring.data_keys[0].key_bytes, 7)
    messages += [phi.encrypt(b"note", context=CONTEXT) for _ in range(3)]
    assert {sound.decrypt(message, context=CONTEXT) for message in messages} == {b"note"}
    assert len(keyring.data_keys) == 2, "one new data key takes its place"


def test_rule_28_a_data_key_that_changed_in_memory_is_opened_anew(kms: StrictKms) -> None:
    arn = kms.create_key()
    message = PhiCrypt(KmsKeyring(arn, client=kms.client())).encrypt(b"note", context=CONTEXT)
    keyring = Remembering(KmsKeyring(arn, client=kms.client()))
    reader = PhiCrypt(keyring)
    assert reader.decrypt(message, context=CONTEXT) == b"note"
    keyring.data_keys[0].key_bytes = flip(keyring.data_keys[0].key_bytes, 7)
    assert reader.decrypt(message, context=CONTEXT) == b"note"


class Fetching(StaticBranchKeyStore):
    """A store that remembers what it gave, each time another object."""

    given: list[BranchKey]

    def fetch_active(self, branch_key_id: str) -> BranchKey:
        return self._another(super().fetch_active(branch_key_id))

    def fetch_version(self, branch_key_id: str, version: str) -> BranchKey:
        return self._another(super().fetch_version(branch_key_id, version))

    def _another(self, branch_key: BranchKey) -> BranchKey:
        self.given.append(BranchKey(branch_key.branch_key_id, branch_key.version, branch_key.key_bytes))
        return self.given[-1]


def test_rule_28_a_branch_key_that_changed_in_memory_is_fetched_anew() -> None:
    store = Fetching("clinic-7", VERSION, bytes(range(32)), bytes(32))
    store.given = []
    messages = []
    held = HierarchicalKeyring(store, "clinic-7")
    writer = PhiCrypt(held)
    messages.append(writer.encrypt(b"note", context=CONTEXT))
    for branch_key in [*store.given, *(entry.value for entry in held.cache._entries.by_key.values())]:
        branch_key.key_bytes = flip(branch_key.key_bytes, 3)
    messages += [writer.encrypt(b"note", context=CONTEXT) for _ in range(2)]
    sound = StaticBranchKeyStore("clinic-7", VERSION, bytes(range(32)), bytes(32))
    for reader in (writer, PhiCrypt(HierarchicalKeyring(sound, "clinic-7"))):
        assert {reader.decrypt(message, context=ANY_CONTEXT) for message in messages} == {b"note"}


def test_rule_28_a_local_mac_key_that_changed_in_memory_makes_no_token(kms: StrictKms) -> None:
    arn = kms.create_key()
    mac = PhiCrypt(KmsKeyring(arn, client=kms.client())).mac(arn)
    local = mac.local([mac.new_local_key("search-tokens")], purpose="search-tokens")
    token = local.generate(b"7", resource="r")
    (kept,) = local._keys.values()
    kept._mac_key = flip(kept._mac_key, 7)
    for use in (lambda: local.generate(b"7", resource="r"), lambda: local.verify(b"7", token, resource="r")):
        with pytest.raises(KeyAccessError) as refused:
            use()
        assert refused.value.code == "KeyChangedInMemory"
