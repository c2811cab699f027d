"""Bounds, single flight and isolation of the cache of data keys (rules 5, 11, 12)."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping

import pytest
from support.keys_fakes import CountingKeyring, throttled

from phicrypt import CachePolicy, PhiCrypt, RawAesKeyring
from phicrypt.core.context import serialize_context
from phicrypt.core.materials import EncryptionMaterials
from phicrypt.core.suites import ESDK_SUITES, AlgorithmSuite
from phicrypt.errors import AuthenticationError, ConfigurationError, ContextMismatchError, KeyAccessError
from phicrypt.formats.esdk.sealing import seal_message
from phicrypt.keys.cache import KeyCache

CONTEXT = {"tenant": "clinic-7"}


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def in_threads(count: int, work: Callable[[], object]) -> list[object]:
    """Run the work in many threads that start together; return values and exceptions."""
    start = threading.Barrier(count)
    results: list[object] = []

    def run() -> None:
        start.wait(30)
        try:
            results.append(work())
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == count
    return results


def test_ten_thousand_messages_in_one_window_make_one_call() -> None:
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring)
    for _ in range(10_000):
        phi.encrypt(b"x", context=CONTEXT)
    assert keyring.encrypts == 1
    assert phi.cache.stats().hits == 9_999


def test_two_hundred_threads_on_a_cold_cache_make_one_call_and_across_an_expiry_one_more() -> None:
    keyring = CountingKeyring(delay_seconds=0.2)
    clock = Clock()
    phi = PhiCrypt(keyring)
    phi.provider.cache._clock = clock
    messages = in_threads(200, lambda: phi.encrypt(b"x", context=CONTEXT))
    assert all(isinstance(message, bytes) for message in messages)
    assert keyring.encrypts == 1
    clock.now += 299
    in_threads(10, lambda: phi.encrypt(b"x", context=CONTEXT))
    assert keyring.encrypts == 1
    clock.now += 1
    in_threads(200, lambda: phi.encrypt(b"x", context=CONTEXT))
    assert keyring.encrypts == 2
    stats = phi.cache.stats()
    assert stats.evictions == {"age": 1}
    assert stats.coalesced > 0


def test_the_decrypt_side_is_cached_and_single_flight_as_well() -> None:
    keyring = CountingKeyring(delay_seconds=0.1)
    phi = PhiCrypt(keyring)
    message = phi.encrypt(b"x", context=CONTEXT)
    assert in_threads(50, lambda: phi.decrypt(message, context=CONTEXT)) == [b"x"] * 50
    assert keyring.decrypts == 1


def test_a_hit_never_extends_the_age() -> None:
    keyring, clock = CountingKeyring(), Clock()
    phi = PhiCrypt(keyring, cache=CachePolicy(max_age_seconds=10))
    phi.provider.cache._clock = clock
    for _ in range(30):
        phi.encrypt(b"x", context=CONTEXT)
        clock.now += 1
    assert keyring.encrypts == 3


def test_the_age_counts_from_before_the_call_that_fetched_the_key() -> None:
    clock = Clock()
    cache: KeyCache[int] = KeyCache(CachePolicy(max_age_seconds=10), clock=clock)

    def slow() -> int:
        clock.now += 6
        return 1

    cache.get_or_load("k", slow)
    clock.now += 5
    assert cache.get_or_load("k", lambda: 2) == (2, False)


def test_bound_on_messages() -> None:
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring, cache=CachePolicy(max_messages=5))
    for _ in range(11):
        phi.encrypt(b"x", context=CONTEXT)
    assert keyring.encrypts == 3
    assert phi.cache.stats().evictions == {"messages": 2}


def test_bound_on_bytes() -> None:
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring, cache=CachePolicy(max_bytes=100))
    for _ in range(4):
        phi.encrypt(bytes(50), context=CONTEXT)
    assert keyring.encrypts == 2
    phi.encrypt(bytes(500), context=CONTEXT)
    phi.encrypt(bytes(1), context=CONTEXT)
    assert keyring.encrypts == 4


@pytest.mark.parametrize("way", ["encrypt_stream", "encrypting_reader"])
def test_streams_are_charged_as_their_bytes_pass(way: str) -> None:
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring, cache=CachePolicy(max_bytes=1000), frame_length_bytes=100)
    phi.encrypt(b"", context=CONTEXT)
    if way == "encrypt_stream":
        phi.encrypt_stream(io.BytesIO(bytes(999)), io.BytesIO(), context=CONTEXT)
    else:
        phi.encrypting_reader(io.BytesIO(bytes(999)), context=CONTEXT).read()
    phi.encrypt(b"1", context=CONTEXT)
    assert keyring.encrypts == 1
    phi.encrypt(b"", context=CONTEXT)
    assert keyring.encrypts == 2


def test_waiters_of_a_flight_are_charged() -> None:
    keyring = CountingKeyring(delay_seconds=0.2)
    phi = PhiCrypt(keyring, cache=CachePolicy(max_messages=10))
    in_threads(40, lambda: phi.encrypt(b"x", context=CONTEXT))
    assert keyring.encrypts == 4


def test_bound_on_entries_drops_the_least_recently_used() -> None:
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring, cache=CachePolicy(max_entries=2))
    for tenant in ("a", "b", "a", "c", "a"):
        phi.encrypt(b"x", context={"tenant": tenant})
    assert keyring.encrypts == 3
    assert phi.cache.stats().entries == 2
    phi.encrypt(b"x", context={"tenant": "b"})
    assert keyring.encrypts == 4


@pytest.mark.parametrize(
    "bounds",
    [
        {"max_age_seconds": 0},
        {"max_age_seconds": 86_401},
        {"max_messages": 0},
        {"max_messages": 2**32 + 1},
        {"max_messages": 1.5},
        {"max_bytes": -1},
        {"max_bytes": 2**63},
        {"max_entries": 0},
        {"max_entries": 100_001},
        {"max_entries": True},
    ],
)
def test_policy_outside_its_ceilings_is_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        CachePolicy(**bounds)  # type: ignore[arg-type]


def test_a_failed_flight_is_not_cached_and_its_waiters_see_its_error() -> None:
    keyring = CountingKeyring()
    keyring.gate = threading.Event()
    keyring.failures = [throttled()]
    phi = PhiCrypt(keyring)
    results: list[object] = []
    threads = [threading.Thread(target=lambda: results.append(_outcome(phi))) for _ in range(20)]
    for thread in threads:
        thread.start()
    keyring.entered.wait(10)
    while phi.provider.cache.stats().misses < 20:
        pass
    keyring.gate.set()
    for thread in threads:
        thread.join(10)
    assert keyring.encrypts <= 2  # a thread may miss after the flight has landed
    assert any(isinstance(result, KeyAccessError) for result in results)
    assert isinstance(phi.encrypt(b"x", context=CONTEXT), bytes)


def _outcome(phi: PhiCrypt) -> object:
    try:
        return phi.encrypt(b"x", context=CONTEXT)
    except KeyAccessError as error:
        return error


def test_rule_12_waiters_do_not_inherit_a_leaders_keyboard_interrupt() -> None:
    cache: KeyCache[str] = KeyCache(CachePolicy())
    leading, release = threading.Event(), threading.Event()
    outcomes: list[object] = []

    def interrupted() -> str:
        leading.set()
        release.wait(10)
        raise KeyboardInterrupt

    def lead() -> None:
        try:
            cache.get_or_load("k", interrupted)
        except KeyboardInterrupt as error:
            outcomes.append(error)

    leader = threading.Thread(target=lead)
    leader.start()
    leading.wait(10)
    waiter = threading.Thread(target=lambda: outcomes.append(cache.get_or_load("k", lambda: "fresh")))
    waiter.start()
    while cache.stats().coalesced < 1:
        pass
    release.set()
    leader.join(10)
    waiter.join(10)
    assert sorted(map(type, outcomes), key=str) == sorted([KeyboardInterrupt, tuple], key=str)
    assert ("fresh", False) in outcomes


@pytest.mark.parametrize("how", ["clear", "purge"])
def test_rule_12_a_flight_that_ends_after_clear_neither_stores_nor_returns_its_key(how: str) -> None:
    cache: KeyCache[str] = KeyCache(CachePolicy())
    values = iter(["revoked", "fresh"])
    loads = []

    def load() -> str:
        value = next(values)
        loads.append(value)
        if value == "revoked":
            cache.clear() if how == "clear" else cache.purge("arn")
        return value

    assert cache.get_or_load("k", load, tag_of=lambda _: "arn") == ("fresh", False)
    assert loads == ["revoked", "fresh"]
    assert cache.get_or_load("k", load) == ("fresh", True)


def test_purge_by_key_arn_drops_only_that_keys_entries() -> None:
    one, two = CountingKeyring("key-1"), CountingKeyring("key-2")
    phi = PhiCrypt(one)
    other = PhiCrypt(two)
    other.provider.cache = phi.provider.cache
    phi.encrypt(b"x", context=CONTEXT)
    other.encrypt(b"x", context=CONTEXT)
    phi.cache.purge("key-1")
    phi.encrypt(b"x", context=CONTEXT)
    other.encrypt(b"x", context=CONTEXT)
    assert (one.encrypts, two.encrypts) == (2, 1)


def test_rule_11_entries_differ_by_context_suite_keyring_partition_and_side() -> None:
    keyring = CountingKeyring()
    shared: KeyCache[object] = KeyCache(CachePolicy())
    phi = PhiCrypt(keyring)
    partitioned = PhiCrypt(keyring, partition="other")
    same = PhiCrypt(keyring)
    for client in (phi, partitioned, same):
        client.provider.cache = shared  # type: ignore[assignment]
    phi.encrypt(b"x", context={"tenant": "a"})
    phi.encrypt(b"x", context={"tenant": "a", "more": "b"})
    assert keyring.encrypts == 2
    partitioned.encrypt(b"x", context={"tenant": "a"})
    assert keyring.encrypts == 3
    message = same.encrypt(b"x", context={"tenant": "a"})
    assert keyring.encrypts == 3
    assert keyring.decrypts == 0
    phi.decrypt(message, context={"tenant": "a"})
    assert keyring.decrypts == 1  # a key known from encrypting does not decrypt
    phi.encrypt(b"x", context={"tenant": "b"})
    assert keyring.encrypts == 4


def test_rule_11_a_key_learned_by_decrypting_never_encrypts() -> None:
    writer = PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(range(32))))
    keyring = CountingKeyring()
    reader = PhiCrypt(keyring)
    reader.decrypt(writer.encrypt(b"x", context=CONTEXT), context=CONTEXT)
    assert (keyring.encrypts, keyring.decrypts) == (0, 1)
    reader.encrypt(b"x", context=CONTEXT)
    assert keyring.encrypts == 1


def test_rule_08_expected_pairs_are_compared_again_on_cache_hits() -> None:
    phi = PhiCrypt(CountingKeyring())
    message = phi.encrypt(b"x", context={"tenant": "a"})
    assert phi.decrypt(message, context={"tenant": "a"}) == b"x"
    with pytest.raises(ContextMismatchError):
        phi.decrypt(message, context={"tenant": "b"})


def test_rule_05_signed_messages_never_share_a_data_key_or_a_signing_key() -> None:
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring)
    headers = {phi.encrypt(b"x", context=CONTEXT, signed=True)[35:200] for _ in range(3)}
    assert keyring.encrypts == 3
    assert len(headers) == 3


def test_rule_05_materials_of_suites_without_derivation_are_never_cached() -> None:
    keyring = CountingKeyring()
    provider = PhiCrypt(keyring).provider
    suite = ESDK_SUITES[0x0078]
    materials = [provider.encryption_materials(suite, CONTEXT, plaintext_length_bytes=1)[0] for _ in range(2)]
    assert keyring.encrypts == 2
    for _ in range(2):
        provider.decryption_materials(
            suite,
            CONTEXT,
            materials[0].encrypted_data_keys,
            expected=None,
            context_bytes=serialize_context(CONTEXT),
        )
    assert keyring.decrypts == 2


def test_without_a_policy_every_message_asks_the_keyring() -> None:
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring, cache=None)
    for _ in range(3):
        phi.encrypt(b"x", context=CONTEXT)
    assert keyring.encrypts == 3


def test_clear_forgets_everything_at_once() -> None:
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring)
    phi.encrypt(b"x", context=CONTEXT)
    phi.cache.clear()
    assert phi.cache.stats().entries == 0
    phi.encrypt(b"x", context=CONTEXT)
    assert keyring.encrypts == 2


def test_rule_11_entries_for_opening_differ_by_context_suite_and_encrypted_data_keys() -> None:
    """Whoever knows one data key could otherwise have it used for another context, or by another suite."""
    keyring = CountingKeyring()
    provider = PhiCrypt(keyring).provider
    committing, legacy = ESDK_SUITES[0x0478], ESDK_SUITES[0x0178]
    sealed, _ = provider.encryption_materials(committing, CONTEXT, plaintext_length_bytes=0)

    def opened(suite: AlgorithmSuite = committing, context: Mapping[str, str] = CONTEXT, copies: int = 1) -> bool:
        recipients = sealed.encrypted_data_keys * copies
        materials, is_hit = provider.decryption_materials(suite, context, recipients, expected=None)
        assert materials.suite is suite
        assert materials.context == context
        return is_hit

    for _ in range(2):
        first_time = keyring.decrypts == 0
        assert opened() is not first_time
        assert opened(legacy) is not first_time
        assert opened(copies=2) is not first_time
        for _ in range(2):  # a wrapped key is bound to its context: with a hit this would open
            with pytest.raises(AuthenticationError):
                opened(context={"tenant": "clinic-8"})
    assert opened()


def test_rule_11_a_recipient_who_moves_a_data_key_to_another_context_opens_nothing() -> None:
    keyring = CountingKeyring()
    phi = PhiCrypt(keyring)
    assert phi.decrypt(phi.encrypt(b"x", context=CONTEXT), context=CONTEXT) == b"x"
    known, _ = phi.provider.encryption_materials(ESDK_SUITES[0x0478], CONTEXT, plaintext_length_bytes=0)
    other = {"tenant": "clinic-8"}
    moved = EncryptionMaterials(
        known.suite,
        other,
        serialize_context(other),
        data_key=known.data_key,
        encrypted_data_keys=known.encrypted_data_keys,
    )
    forged, _ = seal_message(moved, b"another patient's", 4_096)
    with pytest.raises(AuthenticationError):
        phi.decrypt(forged, context=other)


def test_rule_11_entries_for_sealing_differ_by_suite() -> None:
    keyring = CountingKeyring()
    provider = PhiCrypt(keyring).provider
    for suite_id in (0x0478, 0x0178, 0x0478):
        materials, _ = provider.encryption_materials(ESDK_SUITES[suite_id], CONTEXT, plaintext_length_bytes=0)
        assert materials.suite.suite_id == suite_id
    assert keyring.encrypts == 2
