"""The hierarchical keyring: format, tenants, versions, supplier, cache, revocation, what KMS sees."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import os
import pickle
import threading
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from support.key_stores import (
    CONTEXT,
    SUITES,
    KeyStores,
    key_stores,
    opened,
    refusal_of,
    to_decrypt,
    to_encrypt,
    with_ciphertext,
)
from support.keyring_support import EAST

from phicrypt import ANY_CONTEXT, HierarchicalKeyring, MultiKeyring, PhiCrypt, RawAesKeyring
from phicrypt.audit import RecordingSink
from phicrypt.core.context import serialize_context
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.core.suites import AlgorithmSuite
from phicrypt.errors import AuthenticationError, ConfigurationError, KeyAccessError
from phicrypt.keys.branch_keys import BranchKey
from phicrypt.testing import StaticBranchKeyStore

ID = "clinic-7"
VERSION = "e9ce18a3-edb5-4272-9f86-1cacb7997ff6"
BRANCH_KEY = bytes(range(32))
by_suite = pytest.mark.parametrize("suite", SUITES, ids=lambda suite: f"{suite.suite_id:04x}")


@pytest.fixture(scope="module")
def stores() -> Iterator[KeyStores]:
    with key_stores() as made:
        yield made


def static_keyring(
    branch_key_id: str = ID, branch_key: bytes = BRANCH_KEY, **settings: Any
) -> HierarchicalKeyring:
    store = StaticBranchKeyStore(branch_key_id, VERSION, branch_key, bytes(32))
    return HierarchicalKeyring(store, branch_key_id=branch_key_id, **settings)


def by_tenant(context: Mapping[str, str]) -> str:
    return context["tenant"]


def test_the_encrypted_data_key_has_the_published_layout() -> None:
    sealed = static_keyring().on_encrypt(to_encrypt())
    (data_key,) = sealed.encrypted_data_keys
    assert (data_key.provider_id, data_key.provider_info) == ("aws-kms-hierarchy", b"clinic-7")
    salt, iv, version, wrapped = (
        data_key.ciphertext[:16],
        data_key.ciphertext[16:28],
        data_key.ciphertext[28:44],
        data_key.ciphertext[44:],
    )
    assert version == uuid.UUID(VERSION).bytes
    # NIST SP 800-108 in counter mode, one block: counter, label, zero, salt as context, length in bits.
    block = b"\0\0\0\1" + b"aws-kms-hierarchy" + b"\0" + salt + (256).to_bytes(4, "big")
    wrapping_key = hmac.digest(BRANCH_KEY, block, hashlib.sha256)
    aad = b"aws-kms-hierarchy" + b"clinic-7" + version + serialize_context(CONTEXT)
    assert sealed.data_key is not None
    assert AESGCM(wrapping_key).decrypt(iv, wrapped, aad) == sealed.data_key.key_bytes


@by_suite
def test_opens_what_it_wrapped(suite: AlgorithmSuite) -> None:
    keyring = static_keyring()
    assert opened(keyring, keyring.on_encrypt(to_encrypt(suite=suite)))
    assert opened(keyring, keyring.on_encrypt(to_encrypt({}, suite)))


@by_suite
def test_wraps_a_data_key_that_another_keyring_generated(suite: AlgorithmSuite) -> None:
    local = RawAesKeyring("clinic", "key-1", bytes(32))
    keyring = static_keyring()
    sealed = MultiKeyring(local, keyring).on_encrypt(to_encrypt(suite=suite))
    assert [one.provider_id for one in sealed.encrypted_data_keys] == ["clinic", "aws-kms-hierarchy"]
    assert opened(keyring, sealed) and opened(local, sealed)
    assert sealed.origin is not None and sealed.origin.key_id == "key-1"


@by_suite
def test_every_changed_byte_of_the_ciphertext_is_refused(suite: AlgorithmSuite) -> None:
    keyring = static_keyring()
    (data_key,) = keyring.on_encrypt(to_encrypt(suite=suite)).encrypted_data_keys
    for position in range(len(data_key.ciphertext)):
        changed = bytearray(data_key.ciphertext)
        changed[position] ^= 1
        with pytest.raises((AuthenticationError, KeyAccessError)):
            keyring.on_decrypt(to_decrypt(suite=suite), [with_ciphertext(data_key, bytes(changed))])


@by_suite
def test_every_other_length_of_the_ciphertext_is_refused(suite: AlgorithmSuite) -> None:
    keyring = static_keyring()
    (data_key,) = keyring.on_encrypt(to_encrypt(suite=suite)).encrypted_data_keys
    wrong = [data_key.ciphertext[:length] for length in range(len(data_key.ciphertext))]
    for ciphertext in (*wrong, data_key.ciphertext + b"\0"):
        with pytest.raises(AuthenticationError):
            keyring.on_decrypt(to_decrypt(suite=suite), [with_ciphertext(data_key, ciphertext)])


def test_another_context_does_not_open() -> None:
    keyring = static_keyring()
    sealed = keyring.on_encrypt(to_encrypt())
    for context in ({}, {**CONTEXT, "tenant": "clinic-8"}, {**CONTEXT, "more": "x"}):
        with pytest.raises(AuthenticationError):
            opened(keyring, sealed, context=context)


def test_another_tenants_data_key_is_never_looked_up() -> None:
    sealed = static_keyring("clinic-8").on_encrypt(to_encrypt())
    assert refusal_of(lambda: opened(static_keyring(), sealed)).code == "NoMatchingDataKey"


def test_a_data_key_relabelled_with_this_tenants_id_does_not_open() -> None:
    sealed = static_keyring("clinic-8").on_encrypt(to_encrypt())
    (data_key,) = sealed.encrypted_data_keys
    relabelled = type(data_key)(data_key.provider_id, b"clinic-7", data_key.ciphertext)
    with pytest.raises(AuthenticationError):
        static_keyring().on_decrypt(to_decrypt(), [relabelled])


def test_finds_its_data_key_among_others_and_names_its_place() -> None:
    mine = static_keyring()
    sealed = mine.on_encrypt(to_encrypt())
    (data_key,) = sealed.encrypted_data_keys
    broken = with_ciphertext(data_key, bytes(len(data_key.ciphertext)))
    other = static_keyring("clinic-8").on_encrypt(to_encrypt()).encrypted_data_keys
    found = mine.on_decrypt(to_decrypt(), [*other, broken, data_key])
    assert found.recipient_index == 2


def test_rule_04_intermediate_key_wraps_exactly_one_data_key() -> None:
    keyring = static_keyring()
    materials = [keyring.on_encrypt(to_encrypt(suite=SUITES[2])) for _ in range(64)]
    intermediate = {one.encrypted_data_keys[0].ciphertext[48:] for one in materials}
    mac_keys = {one.symmetric_signing_keys[0].key_bytes for one in materials}
    assert len(intermediate) == len(mac_keys) == 64


def test_salt_and_iv_are_fresh_for_each_data_key() -> None:
    keyring = static_keyring()
    drawn = {keyring.on_encrypt(to_encrypt()).encrypted_data_keys[0].ciphertext[:28] for _ in range(256)}
    assert len(drawn) == 256


def test_static_store_takes_the_documented_arguments_and_knows_one_key() -> None:
    store = StaticBranchKeyStore(
        branch_key_id="any text", version=VERSION, branch_key=BRANCH_KEY, beacon_key=b"b" * 32
    )
    assert store.fetch_active("any text").key_bytes == BRANCH_KEY
    assert store.fetch_version("any text", VERSION).version == VERSION
    assert store.fetch_beacon_key("any text").key_bytes == b"b" * 32
    for call in (store.fetch_active, store.fetch_beacon_key):
        assert refusal_of(lambda call=call: call("other")).code == "BranchKeyNotFound"
    refusal_of(lambda: store.fetch_version("any text", str(uuid.uuid4())))


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_branch_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ConfigurationError):
        StaticBranchKeyStore(ID, VERSION, bytes(length), bytes(32))


@pytest.mark.parametrize(
    "settings", [{"ttl_seconds": 0}, {"ttl_seconds": -1}, {"ttl_seconds": 86_401}, {"max_entries": 0}]
)
def test_bounds_of_the_cache_are_checked(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        static_keyring(**settings)


@pytest.mark.parametrize("answer", ["", None, 7, b"clinic-7", "x" * 2049])
def test_a_supplier_that_returns_no_id_is_refused(answer: Any) -> None:
    store = StaticBranchKeyStore(ID, VERSION, BRANCH_KEY, bytes(32))
    with pytest.raises(ConfigurationError):
        HierarchicalKeyring(store, branch_key_id=lambda context: answer).on_encrypt(to_encrypt())


def test_rule_35_a_required_value_reaches_neither_kms_nor_the_key_stores_table(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key("clinic-7")
    sent: list[str] = []
    stores.dynamodb.meta.events.register(
        "before-send.dynamodb", lambda request, **_: sent.append(repr(request.body))
    )
    before = len(stores.kms.requests)
    context = {"tenant": "clinic-7", "patient": "078-05-1120"}  # judged by no guard: it stays here
    phi = PhiCrypt(HierarchicalKeyring(store, "clinic-7"), required_context=("patient",))
    message = phi.encrypt(b"x", context=context)
    fresh = PhiCrypt(HierarchicalKeyring(store, "clinic-7"), required_context=("patient",))
    assert fresh.decrypt(message, context=context) == b"x"
    assert sent
    asked = [repr(request) for request in stores.kms.requests[before:]]
    assert asked
    assert not any("078-05-1120" in one for one in (*sent, *asked))


def test_versions_and_tenants_stand_side_by_side(stores: KeyStores) -> None:
    store = stores.new_store()
    sealed = []
    keyring = HierarchicalKeyring(store, branch_key_id=by_tenant)
    for tenant in ("clinic-1", "clinic-2"):
        store.create_key(tenant)
        for _ in range(3):
            sealed.append(keyring.on_encrypt(to_encrypt({"tenant": tenant})))
            store.rotate(tenant)
    versions = {one.encrypted_data_keys[0].ciphertext[28:44] for one in sealed}
    assert len(versions) == 6  # each rotation in this process takes effect at once
    for reader in (keyring, HierarchicalKeyring(store, branch_key_id=by_tenant)):
        assert all(opened(reader, one) for one in sealed)


def test_rule_08_the_supplier_sees_only_expected_names_on_decrypt() -> None:
    seen: list[dict[str, str]] = []

    def supplier(context: Mapping[str, str]) -> str:
        seen.append(dict(context))
        return ID

    store = StaticBranchKeyStore(ID, VERSION, BRANCH_KEY, bytes(32))
    phi = PhiCrypt(keyring=HierarchicalKeyring(store, branch_key_id=supplier))
    for signed in (False, True):
        message = phi.encrypt(b"x", context=CONTEXT, signed=signed)
        assert seen.pop() == CONTEXT
        phi.decrypt(message, context={"resource": "DiagnosticReport"})
        assert seen.pop() == {"resource": "DiagnosticReport"}
        phi.decrypt(message, context=ANY_CONTEXT)
        assert seen.pop() == CONTEXT


def test_rule_08_a_mismatch_is_found_before_the_supplier_runs() -> None:
    store = StaticBranchKeyStore(ID, VERSION, BRANCH_KEY, bytes(32))
    calls: list[str] = []
    keyring = HierarchicalKeyring(store, branch_key_id=lambda context: calls.append("call") or ID)  # type: ignore[func-returns-value]
    phi = PhiCrypt(keyring=keyring)
    message = phi.encrypt(b"x", context=CONTEXT)
    calls.clear()
    with pytest.raises(Exception, match="tenant"):
        phi.decrypt(message, context={"tenant": "clinic-8"})
    assert calls == []


def test_a_supplier_that_needs_an_unexpected_name_says_which() -> None:
    store = StaticBranchKeyStore(ID, VERSION, BRANCH_KEY, bytes(32))
    phi = PhiCrypt(keyring=HierarchicalKeyring(store, branch_key_id=by_tenant))
    message = phi.encrypt(b"x", context={"tenant": ID, "kind": "note"})
    with pytest.raises(ConfigurationError, match="'tenant'"):
        phi.decrypt(message, context={"kind": "note"})
    assert phi.decrypt(message, context={"tenant": ID}) == b"x"


def test_errors_of_the_supplier_itself_pass_through() -> None:
    def broken(context: Mapping[str, str]) -> str:
        return {"a": "b"}[context["tenant"]]

    with pytest.raises(KeyError):
        HierarchicalKeyring(
            StaticBranchKeyStore(ID, VERSION, BRANCH_KEY, bytes(32)), branch_key_id=broken
        ).on_encrypt(to_encrypt())


def test_rule_11_a_key_learned_by_decrypting_never_encrypts(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    sealed = HierarchicalKeyring(store, ID).on_encrypt(to_encrypt())
    keyring = HierarchicalKeyring(store, ID)
    stores.kms.requests.clear()
    opened(keyring, sealed)
    keyring.on_encrypt(to_encrypt())
    types = [one.parameters["EncryptionContext"]["type"] for one in stores.kms.requests]
    assert types[0].startswith("branch:version:") and types[1:] == ["branch:ACTIVE"]


def test_rule_11_stores_differ_by_table_name_key_client_and_tokens(stores: KeyStores) -> None:
    arn = stores.kms.create_key()
    client = stores.kms.client()
    one = stores.another("table", arn, kms_client=client)
    same = stores.another("table", arn, kms_client=client)
    assert one.identity == same.identity and hash(one.identity) == hash(same.identity)
    assert HierarchicalKeyring(one, ID).identity == HierarchicalKeyring(same, ID).identity
    others = [
        stores.another("other", arn, kms_client=client),
        stores.another("table", stores.kms.create_key(), kms_client=client),
        stores.another("table", arn, kms_client=client, logical_name="other"),
        stores.another("table", arn),  # another client: perhaps other credentials
        stores.another("table", arn, kms_client=client, grant_tokens=("token",)),
        stores.another("table", arn, kms_client=client, max_active_age_seconds=60),
    ]
    assert len({one.identity, *(other.identity for other in others)}) == 1 + len(others)
    suppliers = [HierarchicalKeyring(one, by_tenant).identity for _ in range(2)]
    assert suppliers[0] != suppliers[1]


def test_rule_12_64_threads_over_20_tenants_fetch_each_branch_key_once(stores: KeyStores) -> None:
    store = stores.new_store()
    tenants = [f"tenant-{number:02}" for number in range(20)]
    for tenant in tenants:
        store.create_key(tenant)
    phi = PhiCrypt(keyring=HierarchicalKeyring(store, branch_key_id=by_tenant))
    barrier = threading.Barrier(64)

    def write(worker: int) -> list[bytes]:
        barrier.wait()
        shifted = tenants[worker % 20 :] + tenants[: worker % 20]
        return [phi.encrypt(b"note", context={"tenant": tenant}) for tenant in shifted]

    stores.kms.requests.clear()
    with ThreadPoolExecutor(64) as pool:
        written = list(pool.map(write, range(64)))
    assert stores.kms.operations_called() == [("Decrypt", "us-east-1")] * 40, "each is opened twice (rule 28)"
    reader = PhiCrypt(keyring=HierarchicalKeyring(store, branch_key_id=by_tenant))
    stores.kms.requests.clear()
    barrier.reset()

    def read(messages: list[bytes]) -> int:
        barrier.wait()
        return sum(reader.decrypt(message, context=ANY_CONTEXT) == b"note" for message in messages)

    with ThreadPoolExecutor(64) as pool:
        assert sum(pool.map(read, written)) == 64 * 20
    assert len(stores.kms.requests) == 20


def test_100_000_messages_within_the_ttl_make_no_further_kms_call(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    keyring = HierarchicalKeyring(store, ID)
    phi = PhiCrypt(keyring=keyring)
    message = phi.encrypt(b"note", context=CONTEXT)
    phi.decrypt(message, context=CONTEXT)
    stores.kms.requests.clear()
    stores.aws.requests.clear()
    wrapped = to_encrypt()
    for _ in range(99_000):
        keyring.on_encrypt(wrapped)
    for _ in range(1_000):
        phi.decrypt(phi.encrypt(b"note", context=CONTEXT), context=CONTEXT)
    assert stores.kms.requests == [] and stores.aws.requests == []


class Flipping(StaticBranchKeyStore):
    """A store of which some openings, counted from 1, come back with one bit changed."""

    def __init__(self, *changed: int) -> None:
        super().__init__(ID, VERSION, BRANCH_KEY, bytes(32))
        self.changed = changed
        self.openings = 0

    def opened(self, branch_key: Any) -> Any:
        self.openings += 1
        if self.openings not in self.changed:
            return branch_key
        flipped = bytes([branch_key.key_bytes[0] ^ 1]) + branch_key.key_bytes[1:]
        return BranchKey(branch_key.branch_key_id, branch_key.version, flipped)

    def fetch_active(self, branch_key_id: str) -> Any:
        return self.opened(super().fetch_active(branch_key_id))

    def fetch_version(self, branch_key_id: str, version: str) -> Any:
        return self.opened(super().fetch_version(branch_key_id, version))


@pytest.mark.parametrize("changed", [(), (1,), (2,)], ids=["none", "the active row", "the version's row"])
def test_rule_28_what_is_written_under_one_changed_answer_can_be_read(changed: tuple[int, ...]) -> None:
    phi = PhiCrypt(HierarchicalKeyring(Flipping(*changed), ID))
    messages = [phi.encrypt(b"note", context={"tenant": "a"}) for _ in range(100)]
    sound = PhiCrypt(HierarchicalKeyring(StaticBranchKeyStore(ID, VERSION, BRANCH_KEY, bytes(32)), ID))
    for reader in (phi, sound):
        assert {reader.decrypt(message, context=ANY_CONTEXT) for message in messages} == {b"note"}


@pytest.mark.parametrize("changed", [(1, 3), (2, 4), (1, 4), (2, 3)])
def test_rule_28_nothing_is_sealed_while_the_openings_disagree(changed: tuple[int, ...]) -> None:
    phi = PhiCrypt(HierarchicalKeyring(Flipping(*changed), ID))
    with pytest.raises(KeyAccessError) as refused:
        phi.encrypt(b"note", context={"tenant": "a"})
    assert (refused.value.code, refused.value.is_retryable) == ("BranchKeyVersionsDisagree", False)


class Calling(Flipping):
    """The same, where each opening is a call of KMS with a request id: 1, 2, …"""

    def opened(self, branch_key: Any) -> Any:
        found = super().opened(branch_key)
        number = str(self.openings)
        call = KeyOrigin("aws-kms", EAST, request_ids=(number,), correlation_id=number, operation="Decrypt")
        return BranchKey(found.branch_key_id, found.version, found.key_bytes, call=call)


@pytest.mark.parametrize(
    ("changed", "calls"),
    [((), "12"), ((1,), "1234"), ((2,), "1234"), ((1, 3), "1234")],
    ids=["agreed", "the active row", "the version's row", "for good"],
)
def test_rule_22_every_call_of_both_openings_is_recorded(changed: tuple[int, ...], calls: str) -> None:
    """CloudTrail shows those whose answers were not believed as well."""
    sink = RecordingSink()
    with PhiCrypt(HierarchicalKeyring(Calling(*changed), ID), audit=[sink]) as phi, suppress(KeyAccessError):
        phi.encrypt(b"note", context={"tenant": "a"})
    origin = sink.events[-1].origin
    assert origin is not None
    recorded = [call.request_ids for call in (origin, *origin.other_calls)]
    assert sorted(recorded) == [(number,) for number in calls]


def test_rule_28_the_second_opening_serves_the_decryptions_that_follow() -> None:
    store = Flipping()
    phi = PhiCrypt(HierarchicalKeyring(store, ID))
    message = phi.encrypt(b"note", context={"tenant": "a"})
    assert phi.decrypt(message, context=ANY_CONTEXT) == b"note"
    assert store.openings == 2
    reader = PhiCrypt(HierarchicalKeyring(store, ID))
    assert reader.decrypt(message, context=ANY_CONTEXT) == b"note"
    assert store.openings == 3, "a reader opens once"


def test_rule_12_a_key_fetched_before_a_clear_is_neither_stored_nor_returned(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    arn = store.kms_key_arn
    entered, go_on = threading.Event(), threading.Event()

    class Slow:
        """The store, whose answers wait."""

        identity, on_purge, fetch_version = store.identity, store.on_purge, store.fetch_version

        def fetch_active(self, branch_key_id: str) -> Any:
            branch_key = store.fetch_active(branch_key_id)
            entered.set()
            go_on.wait(10)
            return branch_key

    keyring = HierarchicalKeyring(Slow(), ID)
    with ThreadPoolExecutor(1) as pool:
        flight = pool.submit(keyring.on_encrypt, to_encrypt())
        assert entered.wait(10)
        stores.kms.disable(arn)
        keyring.clear_cache()
        go_on.set()
        assert isinstance(flight.exception(10), KeyAccessError)


def test_rule_12_the_supplier_runs_outside_locks_and_flights(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    store.create_key("names")
    names = HierarchicalKeyring(store, "names")

    def supplier(context: Mapping[str, str]) -> str:
        names.on_encrypt(to_encrypt())  # uses keys itself
        keyring.clear_cache()
        return ID

    keyring = HierarchicalKeyring(store, branch_key_id=supplier)
    assert opened(keyring, keyring.on_encrypt(to_encrypt()))


def test_revoked_access_stops_decryption_within_the_ttl(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    keyring = HierarchicalKeyring(store, ID, ttl_seconds=600)
    phi = PhiCrypt(keyring=keyring)
    message = phi.encrypt(b"note", context=CONTEXT)
    now = 1_000.0
    keyring.cache._clock = lambda: now
    keyring.clear_cache()
    phi.decrypt(message, context=CONTEXT)
    stores.kms.disable(store.kms_key_arn)
    now += 599.9
    assert phi.decrypt(message, context=CONTEXT) == b"note"
    now += 0.2
    for _ in range(2):
        assert refusal_of(lambda: phi.decrypt(message, context=CONTEXT)).code == "DisabledException"
    assert refusal_of(lambda: phi.encrypt(b"note", context=CONTEXT)).code == "DisabledException"
    stores.kms.enable(store.kms_key_arn)
    assert phi.decrypt(message, context=CONTEXT) == b"note"


@pytest.mark.parametrize("among_others", [False, True])
def test_revoked_access_stops_decryption_at_once_after_a_clear(stores: KeyStores, among_others: bool) -> None:
    store = stores.new_store()
    store.create_key(ID)
    keyring = HierarchicalKeyring(store, ID, ttl_seconds=86_400)
    phi = PhiCrypt(keyring=MultiKeyring(MultiKeyring(keyring)) if among_others else keyring)
    message = phi.encrypt(b"note", context=CONTEXT)
    assert phi.decrypt(message, context=CONTEXT) == b"note"
    stores.kms.disable(store.kms_key_arn)
    assert phi.decrypt(message, context=CONTEXT) == b"note"
    phi.cache.clear()
    assert refusal_of(lambda: phi.decrypt(message, context=CONTEXT)).code == "DisabledException"


def test_the_message_context_never_appears_in_a_kms_request(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    stores.kms.requests.clear()
    phi = PhiCrypt(keyring=HierarchicalKeyring(store, ID))
    context = {"patient-token": "tok-5f2e", "ward": "icu-north"}
    message = phi.encrypt(b"note", context=context)
    signed = phi.encrypt(b"note", context=context, signed=True)
    for one in (message, signed):
        phi.decrypt(one, context=context)
    store.rotate(ID)
    store.fetch_beacon_key(ID)
    assert len(stores.kms.requests) >= 5
    for request in stores.kms.requests:
        sent = json.dumps(request.parameters) + request.user_agent
        for text in ("patient-token", "tok-5f2e", "ward", "icu-north"):
            assert text not in sent


def test_origin_names_kms_key_branch_key_and_the_fetching_call(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    keyring = HierarchicalKeyring(store, ID)
    stores.kms.requests.clear()
    first, second = (keyring.on_encrypt(to_encrypt()) for _ in range(2))
    request, again = stores.kms.requests
    assert first.origin is not None and second.origin == first.origin
    assert [call.request_ids for call in first.origin.other_calls] == [(again.request_id,)]
    arn, _, name = first.origin.key_id.partition("#")
    assert arn == store.kms_key_arn and name == f"{ID}/{store.fetch_active(ID).version}"
    assert first.origin.request_ids == (request.request_id,)
    assert first.origin.correlation_id is not None and first.origin.correlation_id in request.user_agent
    assert (first.key_was_cached, second.key_was_cached) == (False, True)


@pytest.mark.parametrize("act", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deepcopy", "pickle"])
def test_nothing_that_holds_a_branch_key_can_be_copied(act: Any, stores: KeyStores) -> None:
    static = StaticBranchKeyStore(ID, VERSION, BRANCH_KEY, bytes(32))
    store = stores.another("table", stores.kms.create_key())
    for holder in (
        HierarchicalKeyring(static, ID),
        static,
        static.fetch_active(ID),
        static.fetch_beacon_key(ID),
        store,
    ):
        with pytest.raises(TypeError):
            act(holder)
        assert BRANCH_KEY.hex() not in repr(holder) and repr(BRANCH_KEY) not in repr(holder)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_starts_with_an_empty_cache_and_its_own_connections(stores: KeyStores) -> None:
    store = stores.new_store()
    store.create_key(ID)
    keyring = HierarchicalKeyring(store, ID)
    sealed = keyring.on_encrypt(to_encrypt())
    stores.kms.requests.clear()
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if opened(keyring, sealed) and keyring.on_encrypt(to_encrypt()) else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert stores.kms.operations_called() == [("Decrypt", "us-east-1")] * 2
    assert opened(keyring, sealed)


def test_a_source_that_gives_the_same_key_each_time_collects_no_calls() -> None:
    store = StaticBranchKeyStore(ID, VERSION, BRANCH_KEY, bytes(32))
    keyring = HierarchicalKeyring(store, ID)
    for _ in range(3):
        keyring.clear_cache()
        sealed = keyring.on_encrypt(to_encrypt())
        assert sealed.origin is not None and len(sealed.origin.other_calls) == 1
    assert store.fetch_active(ID).origin.other_calls == ()
