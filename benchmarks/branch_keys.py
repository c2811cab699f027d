"""Branch keys: messages per tenant without KMS, many threads, and how many KMS calls that saves.

The local AWS is moto; KMS calls are counted where boto3 sends them (``before-send``), and each is
given a round trip of 20 ms, so that callers meet while one is under way.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from benchmarks.measure import Bar, Case, Profile, Sampler, UnavailableError
from benchmarks.messages import offer, phi_operation
from benchmarks.peers import CONTEXT, ESDK, MPL, EsdkPeer, mpl_hierarchical_keyring
from phicrypt import BranchKeyStore, HierarchicalKeyring, KmsKeyring, PhiCrypt
from phicrypt.testing import local_aws

PHICRYPT: Final = "phicrypt"
HIERARCHICAL_PEER: Final = f"{MPL}, hierarchical keyring"
TENANTS: Final = 20
THREADS: Final = 64
COLD_THREADS: Final = 200
ROUND_TRIP_SECONDS: Final = 0.02
_STORE: Final = "branch-keys"

Offered = Mapping[str, Sampler | UnavailableError]


class KmsCalls:
    """Counts KMS calls of the clients that it makes, and slows them down to a network's pace."""

    def __init__(self, aws: Any) -> None:
        self._lock = threading.Lock()
        self._aws = aws
        self.count = 0

    def client(self) -> Any:
        client = self._aws.client("kms")
        client.meta.events.register("before-send.kms", self._on_send)
        return client

    def _on_send(self, **_: Any) -> None:
        with self._lock:
            self.count += 1
        time.sleep(ROUND_TRIP_SECONDS)


@contextlib.contextmanager
def stocked_store(tenants: int) -> Iterator[tuple[Any, KmsCalls, Callable[[], BranchKeyStore]]]:
    """A key store with branch keys ``tenant-0`` and so on; makes further clients of it."""
    with local_aws() as aws:
        calls = KmsCalls(aws)

        def store() -> BranchKeyStore:
            return BranchKeyStore(
                _STORE, _STORE, aws.kms_key_arn, dynamodb_client=aws.client("dynamodb"), kms_client=calls.client()
            )

        first = store()
        first.create_table(deletion_protection=False)
        for number in range(tenants):
            first.create_key(f"tenant-{number}")
        calls.count = 0
        yield aws, calls, store


def hierarchical_contenders(direction: Any) -> Any:
    """The same branch key in the same table for both libraries, fetched once and cached."""

    @contextlib.contextmanager
    def contenders(profile: Profile) -> Iterator[Offered]:
        payload = bytes(1_024)
        with stocked_store(1) as (aws, _calls, store):
            phi = PhiCrypt(keyring=HierarchicalKeyring(store(), branch_key_id="tenant-0", ttl_seconds=3_600))

            def peer() -> EsdkPeer:
                clients = (aws.client("dynamodb"), aws.client("kms"))
                return EsdkPeer(mpl_hierarchical_keyring(_STORE, _STORE, aws.kms_key_arn, "tenant-0", *clients))

            def peer_operation() -> Callable[[], object]:
                one = peer()
                if direction == "encrypt":
                    return lambda: one.encrypt(payload)
                message = one.encrypt(payload)
                return lambda: one.decrypt(message)

            yield offer(
                {
                    PHICRYPT: lambda: phi_operation(phi, direction, payload),
                    HIERARCHICAL_PEER: peer_operation,
                },
                profile,
            )

    return contenders


def tenant_phi(store: BranchKeyStore) -> PhiCrypt:
    keyring = HierarchicalKeyring(store, branch_key_id=lambda context: context["tenant"], ttl_seconds=3_600)
    return PhiCrypt(keyring=keyring)


def run_in_threads(threads: int, work: Callable[[int], object]) -> float:
    """Start all threads, let them go at once; seconds until the last has finished."""
    barrier = threading.Barrier(threads + 1)

    def one(number: int) -> None:
        barrier.wait()
        work(number)

    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(one, number) for number in range(threads)]
        barrier.wait()
        start = time.perf_counter()
        for future in futures:
            future.result()
        return time.perf_counter() - start


@contextlib.contextmanager
def tenants_contenders(profile: Profile) -> Iterator[Offered]:
    """Seconds per message, 64 threads over 20 tenants, each round from a cold cache and from a warm one."""
    messages_per_thread = int(profile.choose(quick=10, full=100))
    payload = bytes(1_024)
    with stocked_store(TENANTS) as (_, _calls, store):
        warm = tenant_phi(store())
        for number in range(TENANTS):
            warm.encrypt(payload, context={"tenant": f"tenant-{number}"})

        def seconds_per_message(phi: PhiCrypt, threads: int) -> float:
            def work(thread: int) -> None:
                for number in range(messages_per_thread):
                    phi.encrypt(payload, context={"tenant": f"tenant-{(thread + number) % TENANTS}"})

            return run_in_threads(threads, work) / (threads * messages_per_thread)

        yield {
            f"{PHICRYPT}, warm": lambda: seconds_per_message(warm, THREADS),
            f"{PHICRYPT}, cold": lambda: seconds_per_message(tenant_phi(store()), THREADS),
            f"{PHICRYPT}, warm, one thread": lambda: seconds_per_message(warm, 1),
        }


@contextlib.contextmanager
def tenant_calls_contenders(profile: Profile) -> Iterator[Offered]:
    """KMS calls for 64 threads that write for 20 tenants from a cold cache; two per tenant at least (rule 28)."""
    with stocked_store(TENANTS) as (aws, calls, store):

        def counted(encrypt: Callable[[str], object]) -> float:
            before = calls.count

            def work(thread: int) -> None:
                for number in range(TENANTS):
                    encrypt(f"tenant-{(thread + number) % TENANTS}")

            run_in_threads(THREADS, work)
            return calls.count - before

        def branch_keys() -> float:
            phi = tenant_phi(store())
            return counted(lambda tenant: phi.encrypt(b"x", context={"tenant": tenant}))

        def data_keys() -> float:
            phi = PhiCrypt(keyring=KmsKeyring(aws.kms_key_arn, client=calls.client()))
            return counted(lambda tenant: phi.encrypt(b"x", context={"tenant": tenant}))

        yield {f"{PHICRYPT}, hierarchical keyring": branch_keys, f"{PHICRYPT}, KMS keyring with cache": data_keys}


def _cold_start(calls: KmsCalls, threads: int, encrypt: Callable[[], object]) -> float:
    before = calls.count
    run_in_threads(threads, lambda _: encrypt())
    return calls.count - before


@contextlib.contextmanager
def cold_entry_contenders(profile: Profile) -> Iterator[Offered]:
    """KMS calls when 200 threads ask for the same data key at once."""
    with local_aws() as aws:
        calls = KmsCalls(aws)

        def own() -> float:
            phi = PhiCrypt(keyring=KmsKeyring(aws.kms_key_arn, client=calls.client()))
            return _cold_start(calls, COLD_THREADS, lambda: phi.encrypt(b"x", context=CONTEXT))

        def peer() -> float:
            one = EsdkPeer(master_key_provider=kms_master_key(aws.kms_key_arn, calls.client()))
            return _cold_start(calls, COLD_THREADS, lambda: one.encrypt(b"x"))

        yield {PHICRYPT: own, ESDK: peer}


def kms_master_key(key_arn: str, client: Any) -> Any:
    """The AWS Encryption SDK's KMS master key with a client that counts."""
    try:
        from aws_encryption_sdk.key_providers.kms import KMSMasterKey, KMSMasterKeyConfig
    except ImportError as error:
        raise UnavailableError(f"aws-encryption-sdk is not installed ({error})") from None
    return KMSMasterKey(config=KMSMasterKeyConfig(key_id=key_arn, client=client))


@contextlib.contextmanager
def thousand_contenders(profile: Profile) -> Iterator[Offered]:
    """KMS calls for 1,000 messages of 10 tenants, one after another."""
    tenants = 10
    messages = int(profile.choose(quick=100, full=1_000))
    with stocked_store(tenants) as (aws, calls, store):
        key_arn = aws.kms_key_arn

        def counted(make: Callable[[], PhiCrypt]) -> Sampler:
            def sample() -> float:
                phi, before = make(), calls.count
                for number in range(messages):
                    phi.encrypt(b"x", context={"tenant": f"tenant-{number % tenants}"})
                return calls.count - before

            return sample

        yield {
            f"{PHICRYPT}, hierarchical keyring": counted(lambda: tenant_phi(store())),
            f"{PHICRYPT}, KMS keyring with cache": counted(
                lambda: PhiCrypt(keyring=KmsKeyring(key_arn, client=calls.client()))
            ),
            f"{PHICRYPT}, KMS keyring without cache": counted(
                lambda: PhiCrypt(keyring=KmsKeyring(key_arn, client=calls.client()), cache=None)
            ),
        }


def cases() -> Iterator[Case]:
    for direction in ("encrypt", "decrypt"):
        bar = Bar(
            f"{direction} 1 KiB with the hierarchical keyring, branch key cached, vs {HIERARCHICAL_PEER}",
            PHICRYPT,
            "speedup",
            20,
            40,
            HIERARCHICAL_PEER,
        )
        yield Case(
            f"hierarchical-{direction}-1KiB",
            f"{direction} 1 KiB under a cached branch key",
            hierarchical_contenders(direction),
            payload_bytes=1_024,
            bars=(bar,),
        )
    yield Case(
        "tenants-64-threads",
        f"a message of 1 KiB, {THREADS} threads, {TENANTS} tenants, KMS at {ROUND_TRIP_SECONDS * 1e3:.0f} ms",
        tenants_contenders,
        rounds=(1, 5),
    )
    yield Case(
        "kms-calls-20-tenants",
        f"KMS calls of {THREADS} cold threads that write for {TENANTS} tenants ({THREADS * TENANTS:,} messages)",
        tenant_calls_contenders,
        unit="calls",
        rounds=(1, 2),
    )
    yield Case(
        "kms-calls-200-threads",
        f"KMS calls of {COLD_THREADS} threads on a cold entry",
        cold_entry_contenders,
        unit="calls",
        bars=(Bar(f"KMS calls for {COLD_THREADS} threads on a cold entry", PHICRYPT, "value", 1, 1),),
        rounds=(1, 3),
    )
    yield Case(
        "kms-calls-1000-messages",
        "KMS calls for 1,000 messages of 10 tenants, one after another",
        thousand_contenders,
        unit="calls",
        rounds=(1, 1),
    )
