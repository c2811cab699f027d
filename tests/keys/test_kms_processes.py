"""KmsKeyring: identity, clients, threads and forks."""

from __future__ import annotations

import copy
import os
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.keyring_support import (
    CONTEXT,
    EAST,
    WEST,
    kms_keyring,
    opens,
    to_encrypt,
)

from phicrypt.core.kms_calls import KmsAnswer
from phicrypt.core.suites import ESDK_SUITES
from phicrypt.errors import ConfigurationError
from phicrypt.keys.cache import CachePolicy
from phicrypt.keys.kms.keyring import KmsKeyring
from phicrypt.keys.provider import MaterialsProvider
from phicrypt.keys.raw_aes import RawAesKeyring
from phicrypt.testing import StrictKms

# --- identity, clients, processes ----------------------------------------------------------------


def test_rule_11_identity_tells_keys_clients_and_grant_tokens_apart(kms: StrictKms) -> None:
    arn, other = kms.create_key(), kms.create_key()
    client = kms.client()
    base = KmsKeyring(arn, client=client)
    assert KmsKeyring(arn, client=client).identity == base.identity
    assert hash(KmsKeyring(arn, client=client).identity) == hash(base.identity)
    different = [
        KmsKeyring(other, client=client),
        KmsKeyring(arn, client=client, decrypt_key_arns=[other]),
        KmsKeyring(arn, client=kms.client()),
        KmsKeyring(arn, client_factory=kms.client),
        KmsKeyring(arn, session=kms.session()),
        KmsKeyring(arn, client=client, grant_tokens=["one"]),
        KmsKeyring(arn, client=client, grant_tokens=["two"]),
        KmsKeyring(arn),
        KmsKeyring(arn),
        KmsKeyring(arn, use_fips_endpoint=True),
        KmsKeyring.discovery(account_ids=["1"], partition="aws", client=client),
        KmsKeyring.discovery(account_ids=["2"], partition="aws", client=client),
    ]
    assert len({one.identity for one in [base, *different]}) == len(different) + 1


def test_rule_11_identity_and_repr_show_no_grant_token_and_no_credentials(kms: StrictKms) -> None:
    ring = KmsKeyring(kms.create_key(), session=kms.session("AKIDSECRET"), grant_tokens=["token-canary"])
    for text in (repr(ring), str(ring.identity)):
        assert "token-canary" not in text
        assert "AKIDSECRET" not in text


def test_rule_12_the_client_factory_runs_in_prepare_and_not_in_the_flight(kms: StrictKms) -> None:
    east = kms.create_key(replicas=(WEST,))
    in_flight = threading.local()
    made: list[tuple[str, bool]] = []

    def factory(region: str) -> Any:
        made.append((region, getattr(in_flight, "on", False)))
        return kms.client(region)

    ring = KmsKeyring(east, client_factory=factory, failover_regions=[WEST])
    calls = {"on_encrypt": ring.on_encrypt, "on_decrypt": ring.on_decrypt}

    class Watched:
        identity = ring.identity
        caches_data_keys = True
        prepare = staticmethod(ring.prepare)

        def __getattr__(self, name: str) -> Any:
            def call(*arguments: Any) -> Any:
                in_flight.on = True
                try:
                    return calls[name](*arguments)
                finally:
                    in_flight.on = False

            return call

    provider = MaterialsProvider(Watched(), CachePolicy())
    suite = ESDK_SUITES[0x0478]
    sealed, _ = provider.encryption_materials(suite, CONTEXT, plaintext_length_bytes=1)
    with kms.region_down(EAST):
        provider.decryption_materials(suite, CONTEXT, sealed.encrypted_data_keys, expected=CONTEXT)
    assert made == [(EAST, False), (WEST, False)]


def test_a_factory_that_gives_a_client_of_another_region_is_refused(kms: StrictKms) -> None:
    ring = KmsKeyring(kms.create_key(WEST), client_factory=lambda region: kms.client(EAST))
    with pytest.raises(ConfigurationError, match="gave a client of Region us-east-1"):
        ring.on_encrypt(to_encrypt())


def test_threads_that_start_together_share_one_client(kms: StrictKms) -> None:
    session = kms.session()
    made: list[str] = []

    class Counting:
        def client(self, service: str, **settings: Any) -> Any:
            made.append(settings["region_name"])
            return session.client(service, **settings)

    arn = kms.create_key()
    ring = KmsKeyring(arn, session=Counting(), endpoint_url=kms.endpoint_url)
    barrier = threading.Barrier(16)
    results: list[int] = []

    def work() -> None:
        barrier.wait()
        results.append(len(ring.on_encrypt(to_encrypt()).data_key))

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [32] * 16
    assert made == [EAST]


def in_child(work: Callable[[], bytes]) -> bytes:
    """What ``work`` returns in a forked child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, work())
        except BaseException as error:
            os.write(writing, repr(error).encode()[:1000])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    return answer


@pytest.mark.parametrize("kind", ["client", "client_factory", "session"])
def test_a_forked_child_uses_connections_of_its_own(kms: StrictKms, kind: str) -> None:
    arn = kms.create_key()
    settings: dict[str, dict[str, Any]] = {
        "client": {"client": kms.client()},
        "client_factory": {"client_factory": kms.client},
        "session": {"session": kms.session(), "endpoint_url": kms.endpoint_url},
    }
    ring = KmsKeyring(arn, **settings[kind])
    sealed = ring.on_encrypt(to_encrypt())
    connections = len(kms.connections)

    def work() -> bytes:
        opens(ring, sealed)
        return b"opened"

    assert in_child(work) == b"opened"
    assert len(kms.connections) == connections + 1
    opens(ring, sealed)
    assert len(kms.connections) == connections + 1


def test_a_lock_that_another_thread_holds_at_the_fork_does_not_stop_the_child(kms: StrictKms) -> None:
    started, go_on = threading.Event(), threading.Event()
    parent = os.getpid()
    session = kms.session()

    class Slow:
        def client(self, service: str, **settings: Any) -> Any:
            if os.getpid() == parent:
                started.set()
                go_on.wait(10)
            return session.client(service, **settings)

    ring = KmsKeyring(kms.create_key(), session=Slow(), endpoint_url=kms.endpoint_url)
    thread = threading.Thread(target=lambda: ring.on_encrypt(to_encrypt()))
    thread.start()
    started.wait(10)
    try:
        assert in_child(lambda: b"%d" % len(ring.on_encrypt(to_encrypt()).data_key)) == b"32"
    finally:
        go_on.set()
        thread.join()


def test_a_handed_client_is_not_changed(kms: StrictKms) -> None:
    client = kms.client()
    before = dict(client.__dict__)
    ring = KmsKeyring(kms.create_key(), client=client, application="ward-app")
    opens(ring, ring.on_encrypt(to_encrypt()))
    assert client.__dict__ == before
    client.describe_key(KeyId=ring.key_arn)
    assert "phicrypt" not in kms.requests[-1].user_agent


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_cannot_be_copied_or_pickled(kms: StrictKms, duplicate: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="cannot be copied"):
        duplicate(kms_keyring(kms, kms.create_key()))
    with pytest.raises(TypeError, match="cannot be copied"):
        duplicate(KmsAnswer({"Plaintext": bytes(32)}, ("request-1",), "correlation-1"))


def test_materials_that_already_hold_a_data_key_are_refused(kms: StrictKms) -> None:
    ring = kms_keyring(kms, kms.create_key())
    sealed = ring.on_encrypt(to_encrypt())
    opened = opens(ring, sealed)
    with pytest.raises(ValueError, match="already hold"):
        ring.on_decrypt(opened, sealed.encrypted_data_keys)


def test_a_local_generator_leaves_its_origin_and_lists_the_kms_call(kms: StrictKms) -> None:
    local = RawAesKeyring("clinic", "key-1", bytes(32))
    sealed = kms_keyring(kms, kms.create_key()).on_encrypt(local.on_encrypt(to_encrypt()))
    assert sealed.origin.provider_id == "clinic"
    assert [call.operation for call in sealed.origin.other_calls] == ["Encrypt"]
