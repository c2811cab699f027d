"""A call for a key ends within its deadline, whatever the network does (rule 29)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from support.forks import in_child
from support.slow_servers import SlowServer

from phicrypt import (
    BranchKeyStore,
    HierarchicalKeyring,
    KmsKeyring,
    MultiKeyring,
    PhiCrypt,
    RawAesKeyring,
)
from phicrypt.audit import RecordingSink
from phicrypt.core.breaker import Breakers
from phicrypt.core.deadlines import Course
from phicrypt.core.key_threads import KEY_THREADS, MAX_HUNG, MAX_WAITED_FOR, KeyThreads, TooManyHung, is_key_thread
from phicrypt.core.materials import DecryptionMaterials, EncryptedDataKey, EncryptionMaterials
from phicrypt.core.steps import BlockingCall, KmsRequest, Steps, TableRequest, run
from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.keys.cache import CachePolicy, KeyCache
from phicrypt.keys.kms.clients import KmsClients
from phicrypt.testing import StrictKms

ROOT = Path(__file__).parents[2]
ARN = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
DEADLINE = 0.15
WITHIN = DEADLINE + 4
"""Room for a machine that is busy; without a deadline the silent server takes 30 seconds, the other for ever."""
CONTEXT = {"tenant": "clinic-7"}


@pytest.fixture(params=["silent", "trickling"])
def slow(request: pytest.FixtureRequest) -> Iterator[SlowServer]:
    with SlowServer(request.param) as server:
        yield server


def refused(work: Callable[[], object]) -> KeyAccessError:
    """The error of work that ends within its deadline."""
    begun = time.monotonic()
    with pytest.raises(KeyAccessError) as caught:
        work()
    assert time.monotonic() - begun < WITHIN
    return caught.value


def store_of(server: SlowServer, **settings: Any) -> BranchKeyStore:
    return BranchKeyStore(
        "keys",
        "clinic-keys",
        ARN,
        dynamodb_client=server.client("dynamodb"),
        deadline_seconds=DEADLINE,
        **settings,
    )


USES: dict[str, Callable[[SlowServer], Callable[[], object]]] = {
    "encrypt": lambda server: lambda: phi_of(server).encrypt(b"x", context=CONTEXT),
    "encrypt signed": lambda server: lambda: phi_of(server).encrypt(b"x", context=CONTEXT, signed=True),
    "encrypt uncached": lambda server: (
        lambda: PhiCrypt(keyring_of(server), cache=None).encrypt(b"x", context=CONTEXT)
    ),
    "a client of our own": lambda server: (
        lambda: PhiCrypt(
            KmsKeyring(
                ARN,
                session=boto3.Session("a", "b", region_name="us-east-1"),
                endpoint_url=server.endpoint_url,
                deadline_seconds=DEADLINE,
            )
        ).encrypt(b"x", context=CONTEXT)
    ),
    "decrypt": lambda server: lambda: phi_of(server).decrypt(MESSAGE, context=CONTEXT),
    "branch key": lambda server: lambda: PhiCrypt(HierarchicalKeyring(store_of(server), "tenant")).encrypt(b"x"),
    "fetch_active": lambda server: lambda: store_of(server).fetch_active("tenant"),
    "fetch_beacon_key": lambda server: lambda: store_of(server).fetch_beacon_key("tenant"),
    "rotate": lambda server: lambda: store_of(server).rotate("tenant"),
    "create_key": lambda server: lambda: store_of(server, kms_client=server.client("kms")).create_key("tenant"),
    "mac": lambda server: lambda: PhiCrypt(keyring_of(server)).mac(ARN).generate(b"x", resource="r", purpose="p"),
    "sign": lambda server: lambda: PhiCrypt(keyring_of(server)).signer(ARN).sign(b"x", resource="r", purpose="p"),
    "alias": lambda server: (
        lambda: KmsKeyring.from_alias("alias/clinic", client=server.client("kms"), deadline_seconds=DEADLINE)
    ),
}


def keyring_of(server: SlowServer) -> KmsKeyring:
    return KmsKeyring(ARN, client=server.client("kms"), deadline_seconds=DEADLINE)


def phi_of(server: SlowServer) -> PhiCrypt:
    return PhiCrypt(keyring_of(server))


class KmsNamed(RawAesKeyring):
    """Writes what looks like a data key of KMS."""

    def on_encrypt(self, materials: EncryptionMaterials) -> EncryptionMaterials:
        sealed = super().on_encrypt(materials)
        return EncryptionMaterials(
            sealed.suite,
            sealed.context,
            sealed.context_bytes,
            data_key=sealed.data_key,
            encrypted_data_keys=(EncryptedDataKey("aws-kms", ARN.encode(), bytes(100)),),
        )


MESSAGE = PhiCrypt(KmsNamed("clinic", "key-1", bytes(32))).encrypt(b"x", context=CONTEXT)


@pytest.mark.parametrize("use", USES)
def test_rule_29_every_use_of_a_key_ends_within_its_deadline(slow: SlowServer, use: str) -> None:
    error = refused(USES[use](slow))
    assert error.code == "DeadlineExceeded"
    assert error.is_retryable
    assert error.is_outage
    assert "0.15 seconds (deadline_seconds)" in str(error)
    assert "try again" in str(error)


@pytest.mark.parametrize("same", [True, False], ids=["one key", "a key each"])
def test_rule_29_sixty_four_callers_end_together_and_threads_stay_bounded(slow: SlowServer, same: bool) -> None:
    phi = phi_of(slow)
    together = threading.Barrier(64)

    def use(number: int) -> KeyAccessError:
        together.wait()
        return refused(lambda: phi.encrypt(b"x", context={"tenant": "one" if same else str(number)}))

    with ThreadPoolExecutor(64) as pool:
        errors = list(pool.map(use, range(64)))
    assert {error.code for error in errors} <= {"DeadlineExceeded", "EndpointLeftAlone"}
    assert all(error.is_outage and error.is_retryable for error in errors)
    if same:
        assert slow.requests <= 8, "those who came together waited for one call"
    ours = [thread for thread in threading.enumerate() if thread.name == "phicrypt-keys"]
    assert len(ours) <= MAX_WAITED_FOR + MAX_HUNG
    assert KEY_THREADS.stats().waited_for == 0


def until(condition: Callable[[], bool]) -> None:
    for _ in range(400):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it did not come to pass within four seconds")


def test_rule_29_an_answer_that_comes_late_serves_later_calls(kms: StrictKms) -> None:
    phi = PhiCrypt(KmsKeyring(kms.create_key(), client=kms.client(), deadline_seconds=0.1))
    kms.hang(0.4)
    assert refused(lambda: phi.encrypt(b"x", context=CONTEXT)).code == "DeadlineExceeded"
    until(lambda: phi.cache.stats().entries == 1)
    assert phi.decrypt(phi.encrypt(b"x", context=CONTEXT), context=CONTEXT) == b"x"
    assert [operation for operation, _ in kms.operations_called()] == ["GenerateDataKey", "Decrypt"]


def test_rule_12_an_answer_that_comes_late_is_forgotten_where_the_cache_was_cleared(kms: StrictKms) -> None:
    phi = PhiCrypt(KmsKeyring(kms.create_key(), client=kms.client(), deadline_seconds=0.1))
    kms.hang(0.4)
    refused(lambda: phi.encrypt(b"x", context=CONTEXT))
    phi.cache.clear()
    until(lambda: KEY_THREADS.stats().hung == 0)
    assert phi.cache.stats().entries == 0
    assert len(kms.operations_called()) == 1, "nobody waits, so nothing is loaded anew"


def test_a_later_load_is_not_replaced_by_an_earlier_one_that_came_late() -> None:
    via = Slow(Decrypt=0.3)
    cache: KeyCache[str] = KeyCache(CachePolicy())

    def load() -> Steps[str]:
        return (yield KmsRequest(None, "Decrypt", {}, via))

    with pytest.raises(KeyAccessError):
        run(cache.load_steps("k", load))
    assert cache.get_or_load("k", lambda: "younger") == ("younger", False)
    until(lambda: bool(via.answered) and KEY_THREADS.stats().hung == 0)
    assert cache.find("k") == "younger"


def test_rule_22_a_call_that_was_given_up_is_on_record(kms: StrictKms) -> None:
    sink = RecordingSink()
    keyring = KmsKeyring(kms.create_key(), client=kms.client(), deadline_seconds=0.1)
    kms.hang(0.3)
    with PhiCrypt(keyring, audit=[sink]) as phi:
        error = refused(lambda: phi.encrypt(b"x", context=CONTEXT))
    (request,) = kms.requests
    assert error.correlation_id is not None
    assert error.correlation_id in request.user_agent
    assert error.unanswered_attempts == 1
    (event,) = [event for event in sink.events if event.outcome != "success"]
    assert error.correlation_id in str(event)


# --- writes ----------------------------------------------------------------------------------------


class Slow:
    """Who is asked: answers each operation after so many seconds."""

    deadline_seconds = 0.1

    def __init__(self, **seconds: float) -> None:
        self.breakers = Breakers()
        self.answered: list[str] = []
        self._seconds = seconds

    def ask(self, request: Any) -> str:
        time.sleep(self._seconds.get(request.operation, 0))
        self.answered.append(request.operation)
        return "answer"


def read_and_write(via: Slow) -> Steps[str]:
    yield TableRequest(None, "GetItem", {}, via)
    return (yield TableRequest(None, "TransactWriteItems", {}, via))


def test_rule_29_a_write_is_never_cut() -> None:
    via = Slow(TransactWriteItems=0.3)
    assert run(read_and_write(via)) == "answer"
    assert via.answered == ["GetItem", "TransactWriteItems"]


@pytest.mark.parametrize("leads_a_load", [False, True])
def test_rule_29_a_write_does_not_begin_after_the_deadline(leads_a_load: bool) -> None:
    via = Slow(GetItem=0.3)
    cache: KeyCache[str] = KeyCache(CachePolicy())
    load = partial(read_and_write, via)
    with pytest.raises(KeyAccessError, match="deadline_seconds"):
        run(cache.load_steps("k", load)) if leads_a_load else run(load())
    until(lambda: via.answered == ["GetItem"] and KEY_THREADS.stats().hung == 0)
    assert via.answered == ["GetItem"]


def test_steps_that_keep_nothing_end_with_the_call_that_hung() -> None:
    via = Slow(Decrypt=0.3)

    def twice() -> Steps[str]:
        yield KmsRequest(None, "Decrypt", {}, via)
        return (yield KmsRequest(None, "Encrypt", {}, via))

    with pytest.raises(KeyAccessError):
        run(twice())
    until(lambda: KEY_THREADS.stats().hung == 0)
    assert via.answered == ["Decrypt"]


def test_a_load_that_begins_after_its_caller_left_keeps_nobody_waiting() -> None:
    """Its steps go on for the cache's sake, and others who ask for the same entry load it by themselves."""
    via = Slow(Decrypt=0.3, Encrypt=1.0)
    cache: KeyCache[str] = KeyCache(CachePolicy())

    def second() -> Steps[str]:
        return (yield KmsRequest(None, "Encrypt", {}, via))

    def first() -> Steps[str]:
        yield KmsRequest(None, "Decrypt", {}, via)
        return (yield from cache.load_steps("second", second))[0]

    with pytest.raises(KeyAccessError):
        run(cache.load_steps("first", first))
    until(lambda: via.answered == ["Decrypt"])
    time.sleep(0.02)
    assert cache.get_or_load("second", lambda: "loaded")[0] == "loaded"


# --- callers ---------------------------------------------------------------------------------------


def test_an_alarm_of_the_callers_own_ends_its_waiting_at_once() -> None:
    def ring(number: int, frame: object) -> None:
        raise TimeoutError("the caller's alarm")

    with SlowServer("silent") as server:
        phi = PhiCrypt(KmsKeyring(ARN, client=server.client("kms"), deadline_seconds=20))
        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        begun = time.monotonic()
        try:
            with pytest.raises(TimeoutError, match="the caller's alarm"):
                phi.encrypt(b"x", context=CONTEXT)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert time.monotonic() - begun < 5
        until(lambda: KEY_THREADS.stats().waited_for == 0)


def test_local_keyrings_and_cache_hits_use_no_thread(kms: StrictKms) -> None:
    seen: list[bool] = []

    class Watching(RawAesKeyring):
        def on_encrypt(self, materials: EncryptionMaterials) -> EncryptionMaterials:
            seen.append(is_key_thread())
            return super().on_encrypt(materials)

    PhiCrypt(Watching("clinic", "key-1", bytes(32))).encrypt(b"x")
    assert seen == [False]
    phi = PhiCrypt(KmsKeyring(kms.create_key(), client=kms.client()))
    phi.encrypt(b"x")
    begun = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeyThreads, "start", lambda *_: begun.append(1))
        phi.encrypt(b"x")
    assert begun == []


def test_a_keyring_of_ones_own_within_a_key_thread_needs_no_other(kms: StrictKms) -> None:
    class Around(KmsKeyring):
        def on_decrypt(self, materials: DecryptionMaterials, data_keys: Any) -> DecryptionMaterials:
            assert is_key_thread(), "the call of the first keyring had begun already"
            return super().on_decrypt(materials, data_keys)

    arn, other = kms.create_key(), kms.create_key()
    writer = PhiCrypt(MultiKeyring(KmsKeyring(arn, client=kms.client()), KmsKeyring(other, client=kms.client())))
    message = writer.encrypt(b"x", context=CONTEXT)
    kms.disable(arn)
    reader = PhiCrypt(MultiKeyring(KmsKeyring(arn, client=kms.client()), Around(other, client=kms.client())))
    assert reader.decrypt(message, context=CONTEXT) == b"x"


def test_a_load_within_the_code_of_a_users_keyring_keeps_nobody_waiting_either() -> None:
    via = Slow(Encrypt=3.0)
    cache: KeyCache[str] = KeyCache(CachePolicy())

    def inner() -> Steps[str]:
        return (yield KmsRequest(None, "Encrypt", {}, via))

    def outer() -> Steps[Any]:
        yield KmsRequest(None, "Decrypt", {}, via)
        return (yield BlockingCall(lambda: run(cache.load_steps("inner", inner))))

    begun = time.monotonic()
    with pytest.raises(KeyAccessError):
        run(outer())
    assert cache.get_or_load("inner", lambda: "loaded")[0] == "loaded"
    assert time.monotonic() - begun < 2.5, "the inner call goes on, and nobody waits for it"


def test_a_child_of_a_process_whose_threads_hang_has_threads_of_its_own(kms: StrictKms) -> None:
    arn = kms.create_key()
    with SlowServer("silent") as server:
        refused(lambda: phi_of(server).encrypt(b"x", context=CONTEXT))
        assert KEY_THREADS.stats().hung

        def work() -> str:
            at_first = KEY_THREADS.stats()
            PhiCrypt(KmsKeyring(arn, session=kms.session(), endpoint_url=kms.endpoint_url)).encrypt(b"x")
            return f"{at_first.threads} {at_first.hung} {KEY_THREADS.stats().threads}"

        assert in_child(work) == "0 0 1"


def test_a_hung_call_keeps_no_process_from_ending() -> None:
    program = """
        import atexit, sys
        from phicrypt import KmsKeyring, PhiCrypt, RawAesKeyring
        from phicrypt.errors import KeyAccessError
        from support.slow_servers import SlowServer

        server = SlowServer("silent").__enter__()
        phi = PhiCrypt(KmsKeyring(sys.argv[1], client=server.client("kms"), deadline_seconds=0.2))

        @atexit.register
        def at_the_end():
            try:
                phi.encrypt(b"x", context={"tenant": "clinic-8"})
            except KeyAccessError as error:
                print(error.code, flush=True)

        try:
            phi.encrypt(b"x", context={"tenant": "clinic-7"})
        except KeyAccessError as error:
            print(error.code, flush=True)
    """
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), ARN],
        capture_output=True, text=True, env=environment, timeout=20, check=True,
    )  # fmt: skip
    assert ended.stdout.split() == ["DeadlineExceeded", "DeadlineExceeded"], ended.stderr


# --- threads ---------------------------------------------------------------------------------------


def test_threads_are_bounded_and_what_waits_for_one_is_done_in_turn() -> None:
    threads = KeyThreads(max_waited_for=2)
    release, running, most = threading.Event(), [], []

    def work(number: int) -> int:
        running.append(number)
        most.append(len(running))
        release.wait(5)
        running.remove(number)
        return number

    jobs = [threads.start(lambda number=number: work(number)) for number in range(6)]
    until(lambda: len(running) == 2)
    assert threads.stats().threads == 2
    assert threads.stats().waited_for == 6
    release.set()
    for number, job in enumerate(jobs):
        assert job is not None
        assert job.wait(5)
        assert job.outcome() == number
    assert max(most) == 2
    assert threads.stats().waited_for == 0


def test_hung_threads_make_room_until_too_many_hang() -> None:
    threads = KeyThreads(max_waited_for=1, max_hung=2)
    release = threading.Event()
    done: list[int] = []
    hung = [threads.start(lambda: release.wait(5)) for _ in range(2)]
    queued = threads.start(lambda: done.append(1))
    for job in hung:
        assert job is not None
        until(lambda job=job: job.has_begun)
        assert threads.abandon(job)
    assert queued is not None
    assert queued.wait(5), "it did not wait for those who hang"
    with pytest.raises(TooManyHung):
        threads.start(lambda: None)
    release.set()
    until(lambda: threads.stats().hung == 0)
    again = threads.start(lambda: done.append(2))
    assert again is not None
    assert again.wait(5)
    assert done == [1, 2]


def test_what_was_given_up_before_it_began_is_not_done() -> None:
    threads = KeyThreads(max_waited_for=1)
    release, done = threading.Event(), []
    first = threads.start(lambda: release.wait(5))
    second = threads.start(lambda: done.append("second"))
    third = threads.start(lambda: done.append("third"))
    assert first is not None and second is not None and third is not None
    assert threads.abandon(second)
    release.set()
    assert third.wait(5)
    assert done == ["third"]
    assert not threads.abandon(first), "it was done"


def test_idle_threads_end() -> None:
    threads = KeyThreads(idle_seconds=0.02)
    job = threads.start(lambda: 1)
    assert job is not None and job.wait(5)
    until(lambda: threads.stats().threads == 0)
    again = threads.start(lambda: 2)
    assert again is not None and again.wait(5)
    assert again.outcome() == 2


def test_when_too_many_calls_hang_the_next_is_refused_at_once() -> None:
    threads = KeyThreads(max_hung=1)
    release = threading.Event()
    job = threads.start(lambda: release.wait(5))
    assert job is not None
    until(lambda: job.has_begun)
    threads.abandon(job)
    course = Course([], threads)
    given_up: list[object] = []
    course.lead(given_up.append)
    driven = course.answer(KmsRequest("us-east-1", "Decrypt", {"KeyId": ARN}, Slow()))
    driven.send(None)
    with pytest.raises(KeyAccessError, match="earlier calls still hang") as caught:
        course.finish(driven)
    assert (caught.value.code, caught.value.is_retryable) == ("TooManyHungCalls", True)
    release.set()


@pytest.mark.parametrize("deadline", [0, -1, float("nan"), 601, True, "10", None])
def test_a_deadline_is_a_number_of_seconds(deadline: Any) -> None:
    with pytest.raises(ConfigurationError, match="deadline_seconds"):
        KmsClients(deadline_seconds=deadline)
