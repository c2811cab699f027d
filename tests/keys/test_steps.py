"""Steps without I/O: the keyrings' and the store's decisions, driven by answers, by tasks and by clients."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from support.key_stores import CONTEXT, SUITES, to_decrypt, to_encrypt
from support.keys_fakes import CountingKeyring
from support.step_answers import Answers

from phicrypt import HierarchicalKeyring, KmsKeyring, MultiKeyring, RawAesKeyring
from phicrypt.core.materials import DecryptionMaterials, EncryptedDataKey, EncryptionMaterials
from phicrypt.core.steps import (
    BlockingCall,
    KmsRequest,
    Steps,
    TableRequest,
    arun,
    ask,
    run,
    shell_of,
    steps_of,
)
from phicrypt.errors import AuthenticationError, ConfigurationError, KeyAccessError
from phicrypt.keys.branch_keys import records
from phicrypt.keys.branch_keys.store import BranchKeyStore, FailoverRegion
from phicrypt.keys.branch_keys.table import ConditionFailed
from phicrypt.keys.cache import CachePolicy, KeyCache
from phicrypt.keys.kms.rsa_keyring import KmsRsaKeyring
from phicrypt.keys.provider import MaterialsProvider
from phicrypt.testing import mark_as_double

ARN = "arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"
WEST_ARN = ARN.replace("us-east-1", "us-west-2")
KEY = bytes(range(32))
WRAPPED = b"wrapped by KMS"
SUITE = SUITES[0]


def refusal(code: str, *, is_outage: bool = False) -> KeyAccessError:
    return KeyAccessError(code, operation="Decrypt", code=code, is_outage=is_outage, is_retryable=is_outage)


@pytest.fixture(autouse=True)
def no_client_is_ever_made(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    monkeypatch.setattr(boto3.Session, "client", lambda *_, **__: pytest.fail("a client was made"))


def generated(request: KmsRequest) -> dict[str, Any]:
    return {"KeyId": request.parameters["KeyId"], "Plaintext": KEY, "CiphertextBlob": WRAPPED}


KMS = {"GenerateDataKey": generated, "Encrypt": generated, "Decrypt": generated}


# --- drivers ---------------------------------------------------------------------------------------


def two_calls() -> Steps[list[Any]]:
    first = yield KmsRequest("us-east-1", "Decrypt", {"KeyId": "a"})
    try:
        second = yield KmsRequest("us-west-2", "Decrypt", {"KeyId": "b"})
    except KeyAccessError as error:
        second = error.code
    return [first, second]


def test_a_driver_sends_answers_and_throws_refusals_in() -> None:
    def call(request: KmsRequest) -> str:
        if request.region == "us-west-2":
            raise refusal("Denied")
        return "answer"

    async def call_later(request: KmsRequest) -> str:
        await asyncio.sleep(0)
        return call(request)

    assert run(two_calls(), call) == ["answer", "Denied"]
    assert asyncio.run(arun(two_calls(), call_later)) == ["answer", "Denied"]


@pytest.mark.parametrize("is_async", [False, True])
def test_an_interrupt_of_a_call_runs_the_cleanup_of_the_steps(is_async: bool) -> None:
    cleaned: list[str] = []

    def steps() -> Steps[None]:
        try:
            yield KmsRequest("us-east-1", "Decrypt", {})
        finally:
            cleaned.append("cleaned")

    def call(request: KmsRequest) -> None:
        raise KeyboardInterrupt

    async def call_later(request: KmsRequest) -> None:
        raise asyncio.CancelledError

    with pytest.raises((KeyboardInterrupt, asyncio.CancelledError)):
        asyncio.run(arun(steps(), call_later)) if is_async else run(steps(), call)
    assert cleaned == ["cleaned"]


@pytest.mark.parametrize("is_async", [False, True])
def test_what_the_steps_raise_has_no_context_and_no_frame_with_an_answer(is_async: bool) -> None:
    """Rule 32: the driver's own frames hold nothing of what KMS answered."""

    def steps() -> Steps[None]:
        yield KmsRequest("us-east-1", "GenerateDataKey", {})
        refusals = []
        try:
            yield KmsRequest("us-east-1", "Decrypt", {})
        except KeyAccessError as error:
            refusals.append(error)
        raise AuthenticationError("tag")

    answers = Answers({"GenerateDataKey": {"Plaintext": KEY}, "Decrypt": refusal("Denied")})
    with pytest.raises(AuthenticationError) as caught:
        asyncio.run(arun(steps(), answers.call)) if is_async else run(steps(), answers)
    assert caught.value.__context__ is None
    trace, drivers = caught.value.__traceback__, []
    while trace is not None:
        held = trace.tb_frame.f_locals
        if "steps" in held:
            drivers.append(trace.tb_frame.f_code.co_name)
            assert held.get("answer") is held.get("refusal") is None
        trace = trace.tb_next
    assert "_drive" in drivers


def test_a_request_is_a_value_that_shows_no_parameter_and_is_not_copied() -> None:
    request = KmsRequest("us-east-1", "Encrypt", {"Plaintext": KEY}, SimpleNamespace())
    assert request == KmsRequest("us-east-1", "Encrypt", {"Plaintext": KEY})
    assert request != KmsRequest("us-west-2", "Encrypt", {"Plaintext": KEY})
    assert request != TableRequest("us-east-1", "Encrypt", {"Plaintext": KEY})
    assert repr(request) == "<KmsRequest Encrypt in us-east-1>"
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied"):
            duplicate(request)
    with pytest.raises(ValueError, match="names nobody"):
        ask(KmsRequest("us-east-1", "Encrypt", {}))


class Plain:
    """A worker without steps."""

    def work(self, number: int) -> int:
        return number + 1


class Stepped:
    def steps(self, number: int) -> Steps[int]:
        return (yield KmsRequest("us-east-1", "Decrypt", {})) + number

    @shell_of("steps")
    def work(self, number: int) -> int:
        return run(self.steps(number))


class Overriding(Stepped):
    def work(self, number: int) -> int:
        return number * 10


class Around:
    def __getattr__(self, name: str) -> Any:
        return getattr(Stepped(), name) if name != "work" else lambda number: -number


@pytest.mark.parametrize(
    ("worker", "result", "calls"), [(Plain(), 8, 0), (Stepped(), 107, 1), (Overriding(), 70, 0), (Around(), -7, 0)]
)
def test_whoever_has_no_steps_or_overrides_the_method_is_called_by_it(
    worker: Any, result: int, calls: int
) -> None:
    made: list[Any] = []

    def call(request: Any) -> int:
        made.append(request)
        return 100

    assert run(steps_of(worker, "work", 7), call) == result
    assert len(made) == calls


def test_blocking_code_does_not_block_the_event_loop() -> None:
    released = threading.Event()

    async def both() -> tuple[bool, None]:
        blocked = arun(steps_of(SimpleNamespace(work=lambda: released.wait(10)), "work"), Answers({}).call)
        waiting = asyncio.create_task(blocked)
        await asyncio.sleep(0.01)
        released.set()
        return await waiting, None

    assert asyncio.run(both()) == (True, None)
    assert BlockingCall(lambda: 5).answer() == 5


# --- keyrings --------------------------------------------------------------------------------------


def drive(is_async: bool, steps: Steps[Any], answers: Answers) -> Any:
    return asyncio.run(arun(steps, answers.call)) if is_async else run(steps, answers)


both_drivers = pytest.mark.parametrize("is_async", [False, True], ids=["run", "arun"])


@both_drivers
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_kms_keyring_round_trip(is_async: bool, suite: Any) -> None:
    ring, answers = KmsKeyring(ARN, grant_tokens=["token"]), Answers(KMS)
    sealed = drive(is_async, ring.encrypt_steps(to_encrypt(suite=suite)), answers)
    opened = drive(is_async, ring.decrypt_steps(to_decrypt(suite=suite), sealed.encrypted_data_keys), answers)
    assert opened.data_key.key_bytes == sealed.data_key.key_bytes
    assert answers.asked == [("us-east-1", "GenerateDataKey"), ("us-east-1", "Decrypt")]
    for request in answers.requests:
        assert request.parameters["EncryptionContext"] == CONTEXT
        assert request.parameters["GrantTokens"] == ["token"]
    assert answers.requests[1].parameters["CiphertextBlob"] == WRAPPED
    assert (sealed.origin.request_ids, opened.origin.request_ids) == (("request-1",), ("request-2",))


@both_drivers
@pytest.mark.parametrize(
    ("east", "asked", "outcome"),
    [
        (generated, ["us-east-1"], "opened"),
        (refusal("KMSInternalException", is_outage=True), ["us-east-1", "us-west-2"], "opened"),
        (refusal("AccessDeniedException"), ["us-east-1"], "AccessDeniedException"),
        (lambda request: {**generated(request), "KeyId": WEST_ARN}, ["us-east-1"], "UnexpectedAnswer"),
        (lambda request: {**generated(request), "Plaintext": b"short"}, ["us-east-1"], "UnexpectedAnswer"),
    ],
    ids=["answer", "outage", "denial", "other key", "short key"],
)
def test_rule_13_another_region_is_asked_only_after_an_outage(
    is_async: bool, east: Any, asked: list[str], outcome: str
) -> None:
    ring = KmsKeyring(ARN, failover_regions=["us-west-2"])
    answers = Answers({("us-east-1", "Decrypt"): east, "Decrypt": generated})
    data_key = EncryptedDataKey("aws-kms", ARN.encode(), WRAPPED)
    steps = ring.decrypt_steps(to_decrypt(suite=SUITE), [data_key])
    if outcome == "opened":
        assert drive(is_async, steps, answers).data_key.key_bytes == KEY
    else:
        with pytest.raises(KeyAccessError) as caught:
            drive(is_async, steps, answers)
        assert caught.value.code == outcome
    assert [region for region, _ in answers.asked] == asked


@both_drivers
def test_multi_keyring_composes_steps_with_local_keyrings_and_a_users_own(is_async: bool) -> None:
    own = CountingKeyring("own")
    ring = MultiKeyring(KmsKeyring(ARN), RawAesKeyring("clinic", "key-1", bytes(32)), own)
    answers = Answers(KMS)
    sealed = drive(is_async, ring.encrypt_steps(to_encrypt(suite=SUITE)), answers)
    assert [one.provider_id for one in sealed.encrypted_data_keys] == ["aws-kms", "clinic", "clinic"]
    assert own.encrypts == 1
    refusing = Answers({"Decrypt": refusal("AccessDeniedException")})
    first, second, third = sealed.encrypted_data_keys
    for data_keys in ([first, second], [first, third]):
        opened = drive(is_async, ring.decrypt_steps(to_decrypt(suite=SUITE), data_keys), refusing)
        assert opened.data_key.key_bytes == KEY
    assert own.decrypts == 1


@both_drivers
def test_rsa_keyring_writes_without_a_request_and_opens_with_one(is_async: bool) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = rsa.generate_private_key(65537, 2048).public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    answers = Answers({"Decrypt": lambda request: {"KeyId": ARN, "Plaintext": bytes(48) + KEY}})
    sealed = drive(is_async, KmsRsaKeyring(ARN, public_key=der).encrypt_steps(to_encrypt(suite=SUITE)), answers)
    assert answers.asked == []
    with pytest.raises(AuthenticationError):  # the digest of the context is not the one that KMS answered
        drive(
            is_async,
            KmsRsaKeyring(ARN).decrypt_steps(to_decrypt(suite=SUITE), sealed.encrypted_data_keys),
            answers,
        )
    assert answers.asked == [("us-east-1", "Decrypt")]


# --- branch key stores -------------------------------------------------------------------------------


class Table:
    """DynamoDB as far as a store's steps need it, and KMS beside it: pure Python values."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.keys: dict[bytes, dict[str, str]] = {}

    def answers(self, **others: Any) -> Answers:
        return Answers(
            {
                "GetItem": self.get,
                "TransactWriteItems": self.write,
                "GenerateDataKeyWithoutPlaintext": self.generate,
                "ReEncrypt": self.reencrypt,
                "Decrypt": self.decrypt,
                **others,
            }
        )

    def get(self, request: TableRequest) -> Any:
        where = request.parameters["Key"]
        assert request.parameters["ConsistentRead"]
        row = self.rows.get((where["branch-key-id"]["S"], where["type"]["S"]))
        return {"Item": row} if row is not None else {}

    def write(self, request: TableRequest) -> Any:
        for item in request.parameters["TransactItems"]:
            if "Put" in item:
                row = item["Put"]["Item"]
                self.rows[row["branch-key-id"]["S"], row["type"]["S"]] = row
        return {}

    def wrap(self, context: Any) -> dict[str, Any]:
        wrapped = f"wrapped-{len(self.keys)}".encode()
        self.keys[wrapped] = dict(context)
        return {"KeyId": ARN, "CiphertextBlob": wrapped, "SourceKeyId": ARN}

    def generate(self, request: KmsRequest) -> Any:
        return self.wrap(request.parameters["EncryptionContext"])

    def reencrypt(self, request: KmsRequest) -> Any:
        if self.keys.get(request.parameters["CiphertextBlob"]) != request.parameters["SourceEncryptionContext"]:
            return refusal("InvalidCiphertextException")
        return self.wrap(request.parameters["DestinationEncryptionContext"])

    def decrypt(self, request: KmsRequest) -> Any:
        if self.keys.get(request.parameters["CiphertextBlob"]) != request.parameters["EncryptionContext"]:
            return refusal("InvalidCiphertextException")
        return {"KeyId": request.parameters["KeyId"], "Plaintext": KEY}


_names = iter(range(1_000))


def new_store(**settings: Any) -> BranchKeyStore:
    return BranchKeyStore(f"steps-{next(_names)}", "clinic-keys", ARN, **settings)


@both_drivers
def test_a_branch_key_is_made_rotated_and_fetched_without_any_client(is_async: bool) -> None:
    from phicrypt.core.kms_calls import KmsCalls

    store, table = new_store(), Table()
    answers, calls = table.answers(), KmsCalls()
    first = drive(is_async, store.steps.create("clinic-7", {"ward": "icu"}, calls), answers)
    assert drive(is_async, store.steps.active("clinic-7"), answers).version == first
    second = drive(is_async, store.steps.rotate("clinic-7", calls), answers)
    assert second != first
    assert drive(is_async, store.steps.active("clinic-7"), answers).version == second
    assert drive(is_async, store.steps.version("clinic-7", first), answers).key_bytes == KEY
    assert drive(is_async, store.steps.beacon_key("clinic-7"), answers).context == {"ward": "icu"}
    assert calls.origin is not None
    assert [call.operation for call in (*calls.origin.other_calls, calls.origin)] == [
        "GenerateDataKeyWithoutPlaintext",
        "ReEncrypt",
        "GenerateDataKeyWithoutPlaintext",
        "ReEncrypt",
        "GenerateDataKeyWithoutPlaintext",
        "ReEncrypt",
    ]


@both_drivers
def test_lost_conditions_and_tombstones_are_told_apart(is_async: bool) -> None:
    from phicrypt.core.kms_calls import KmsCalls

    store, table = new_store(), Table()
    refused = {"BranchKeyExists": (True, False, False, False), "BranchKeyShredded": (False, False, False, True)}
    for code, failed in refused.items():
        answers = table.answers(TransactWriteItems=ConditionFailed(failed))
        with pytest.raises(KeyAccessError) as caught:
            drive(is_async, store.steps.create("clinic-7", {}, KmsCalls()), answers)
        assert caught.value.code == code


@both_drivers
def test_a_second_region_is_read_only_where_the_first_gives_no_answer(is_async: bool) -> None:
    from phicrypt.core.kms_calls import KmsCalls

    table = Table()
    store = new_store(multi_region=True, failover=[FailoverRegion("us-west-2")])
    drive(is_async, store.steps.create("clinic-7", {}, KmsCalls()), table.answers())
    down = refusal("EndpointConnectionError", is_outage=True)
    answers = table.answers(x=None)
    answers._answers[("us-east-1", "GetItem")] = down
    answers._answers[("us-east-1", "Decrypt")] = down
    assert drive(is_async, store.steps.active("clinic-7"), answers).key_bytes == KEY
    assert answers.asked == [
        ("us-east-1", "GetItem"),
        ("us-west-2", "GetItem"),
        ("us-west-2", "GetItem"),
        ("us-east-1", "Decrypt"),
        ("us-west-2", "Decrypt"),
    ]
    answers._answers[("us-east-1", "GetItem")] = refusal("AccessDeniedException")
    with pytest.raises(KeyAccessError, match="AccessDenied"):
        drive(is_async, store.steps.active("clinic-7"), answers)


@both_drivers
def test_rule_14_a_row_that_went_back_is_read_again_and_then_refused(is_async: bool) -> None:
    from phicrypt.core.kms_calls import KmsCalls

    store, table = new_store(), Table()
    drive(is_async, store.steps.create("clinic-7", {}, KmsCalls()), table.answers())
    old = dict(table.rows["clinic-7", records.ACTIVE_TYPE])
    drive(is_async, store.steps.rotate("clinic-7", KmsCalls()), table.answers())
    new = table.rows["clinic-7", records.ACTIVE_TYPE]
    if old["create-time"] == new["create-time"]:
        pytest.fail("the two versions have one time, so that nothing can be told")
    late = table.answers(GetItem=[{"Item": old}, {}, {"Item": new}, {}])
    assert drive(is_async, store.steps.active("clinic-7"), late).version in str(new)
    back = table.answers(GetItem=[{"Item": old}, {}, {"Item": old}, {}])
    with pytest.raises(KeyAccessError) as caught:
        drive(is_async, store.steps.active("clinic-7"), back)
    assert caught.value.code == "BranchKeyRolledBack"


@both_drivers
def test_hierarchical_keyring_asks_once_and_not_again_while_it_remembers(is_async: bool) -> None:
    from phicrypt.core.kms_calls import KmsCalls

    store, table = new_store(), Table()
    drive(is_async, store.steps.create("clinic-7", {}, KmsCalls()), table.answers())
    ring, answers = HierarchicalKeyring(store, "clinic-7"), table.answers()
    for turn in range(3):
        sealed = drive(is_async, ring.encrypt_steps(to_encrypt(suite=SUITE)), answers)
        opened = drive(is_async, ring.decrypt_steps(to_decrypt(suite=SUITE), sealed.encrypted_data_keys), answers)
        assert opened.data_key.key_bytes == sealed.data_key.key_bytes
        assert sealed.key_was_cached is (turn > 0)
    assert [operation for _, operation in answers.asked] == ["GetItem", "GetItem", "Decrypt"] * 2


def test_a_users_own_store_is_asked_by_its_plain_methods() -> None:
    from phicrypt.testing import StaticBranchKeyStore

    store = StaticBranchKeyStore("clinic-7", "8d1fd4a2-6e4b-4d7c-9c11-3a1e7c2b9f10", KEY, KEY)
    ring, answers = HierarchicalKeyring(store, "clinic-7"), Answers({})
    for is_async in (False, True):
        sealed = drive(is_async, ring.encrypt_steps(to_encrypt(suite=SUITE)), answers)
        assert drive(is_async, ring.decrypt_steps(to_decrypt(suite=SUITE), sealed.encrypted_data_keys), answers)
    assert answers.requests == []


# --- the cache and the provider --------------------------------------------------------------------


def gated(gate: asyncio.Event, answers: Answers) -> Callable[[Any], Any]:
    async def call(request: Any) -> Any:
        await gate.wait()
        await asyncio.sleep(0.01)  # whoever waits for the same load has time to join it
        return answers(request)

    return call


def test_rule_12_tasks_that_miss_together_make_one_load() -> None:
    async def scene() -> tuple[list[bool], list[Any], int]:
        ring, answers, gate = KmsKeyring(ARN), Answers(KMS), asyncio.Event()
        provider = MaterialsProvider(ring, CachePolicy())
        call = gated(gate, answers)
        tasks = [
            asyncio.create_task(arun(provider.encryption_steps(SUITE, CONTEXT, plaintext_length_bytes=1), call))
            for _ in range(20)
        ]
        await asyncio.sleep(0.01)
        gate.set()
        results = await asyncio.gather(*tasks)
        return [hit for _, hit in results], answers.asked, provider.cache.stats().coalesced

    hits, asked, coalesced = asyncio.run(scene())
    assert sorted(hits) == [False] + [True] * 19
    assert asked == [("us-east-1", "GenerateDataKey")]
    assert coalesced == 19


def test_a_failed_or_cancelled_load_is_not_kept_and_leaves_nobody_waiting() -> None:
    async def scene() -> tuple[list[Any], Any]:
        answers = Answers({"GenerateDataKey": [refusal("ThrottlingException"), generated]})
        provider, gate = MaterialsProvider(KmsKeyring(ARN), CachePolicy()), asyncio.Event()
        steps = [provider.encryption_steps(SUITE, CONTEXT, plaintext_length_bytes=1) for _ in range(3)]
        cancelled = asyncio.create_task(arun(steps[0], gated(gate, answers)))
        await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(arun(one, gated(gate, answers))) for one in steps[1:]]
        await asyncio.sleep(0.01)
        cancelled.cancel()
        gate.set()
        failed = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
        later = await arun(provider.encryption_steps(SUITE, CONTEXT, plaintext_length_bytes=1), answers.call)
        return list(failed), later

    failed, (materials, hit) = asyncio.run(scene())
    assert [error.code for error in failed] == ["ThrottlingException"] * 2
    assert (materials.data_key.key_bytes, hit) == (KEY, False)


def test_a_task_waits_for_a_threads_load_and_a_thread_for_a_tasks() -> None:
    cache: KeyCache[str] = KeyCache(CachePolicy())
    begun, go_on = threading.Event(), threading.Event()

    def load() -> str:
        begun.set()
        go_on.wait(10)
        return "by the thread"

    def never() -> Steps[str]:
        yield from ()
        return "by the task"

    async def task() -> tuple[str, bool]:
        waiting = asyncio.create_task(arun(cache.load_steps("entry", never), Answers({}).call))
        await asyncio.sleep(0.01)
        go_on.set()
        return await waiting

    thread = threading.Thread(target=cache.get_or_load, args=("entry", load))
    thread.start()
    begun.wait(10)
    assert asyncio.run(task()) == ("by the thread", True)
    thread.join()

    cache.clear()
    answers: list[Any] = []

    async def leader() -> None:
        gate = asyncio.Event()

        def slow() -> Steps[str]:
            return (yield KmsRequest("us-east-1", "Decrypt", {}))

        async def call(request: Any) -> str:
            await gate.wait()
            return "by the task"

        leading = asyncio.create_task(arun(cache.load_steps("entry", slow), call))
        await asyncio.sleep(0.01)
        waiter = threading.Thread(target=lambda: answers.append(cache.get_or_load("entry", lambda: "other")))
        waiter.start()
        while cache.stats().coalesced < 2:
            await asyncio.sleep(0.001)
        # A synchronous use in the leader's own thread must not wait for the loop that it blocks.
        answers.append(cache.get_or_load("entry", lambda: "at once"))
        gate.set()
        await leading
        await asyncio.to_thread(waiter.join)

    asyncio.run(asyncio.wait_for(leader(), 20))
    assert answers[0] == ("at once", False)
    assert answers[1][1] is True


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_the_providers_steps_give_what_its_synchronous_methods_give(suite: Any) -> None:
    own = CountingKeyring()
    provider = MaterialsProvider(own, CachePolicy())
    answers = Answers({})

    async def round_trip() -> tuple[EncryptionMaterials, DecryptionMaterials]:
        sealed, _ = await arun(provider.encryption_steps(suite, CONTEXT, plaintext_length_bytes=1), answers.call)
        keys: Sequence[EncryptedDataKey] = sealed.encrypted_data_keys
        steps = provider.decryption_steps(suite, sealed.context, keys, expected=CONTEXT)
        opened, _ = await arun(steps, answers.call)
        return sealed, opened

    sealed, opened = asyncio.run(round_trip())
    assert opened.data_key is not None and sealed.data_key is not None
    assert opened.data_key.key_bytes == sealed.data_key.key_bytes
    assert (sealed.signing_key is not None) is suite.is_signed
    again, hit = provider.encryption_materials(suite, CONTEXT, plaintext_length_bytes=1)
    assert hit is (again is sealed)
    assert hit is (provider.cache.stats().entries > 0 and not suite.is_signed)


def test_the_providers_steps_compare_expected_pairs_first() -> None:
    from phicrypt.errors import ContextMismatchError

    provider = MaterialsProvider(KmsKeyring(ARN), CachePolicy())
    with pytest.raises(ContextMismatchError):
        run(provider.decryption_steps(SUITE, CONTEXT, [], expected={"tenant": "x"}), Answers({}))


def test_a_keyring_without_a_data_key_is_an_error_for_every_driver() -> None:
    class Idle(RawAesKeyring):
        def on_encrypt(self, materials: EncryptionMaterials) -> EncryptionMaterials:
            return materials

        def on_decrypt(
            self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
        ) -> DecryptionMaterials:
            return materials

    provider = MaterialsProvider(Idle("clinic", "key-1", bytes(32)), CachePolicy())
    with pytest.raises(ConfigurationError, match="gave no data key"):
        run(provider.encryption_steps(SUITE, CONTEXT, plaintext_length_bytes=1), Answers({}))
    with pytest.raises(KeyAccessError, match="opened none"):
        run(provider.decryption_steps(SUITE, CONTEXT, [], expected=None), Answers({}))


def test_the_boto3_driver_makes_the_same_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    @mark_as_double
    class Client:
        def generate_data_key(self, **parameters: Any) -> dict[str, Any]:
            return generated(KmsRequest("us-east-1", "GenerateDataKey", parameters))

    sealed = KmsKeyring(ARN, client=Client()).on_encrypt(to_encrypt(suite=SUITE))
    answers = Answers(KMS)
    assert run(KmsKeyring(ARN).encrypt_steps(to_encrypt(suite=SUITE)), answers).data_key.key_bytes == KEY
    assert sealed.data_key is not None
    assert sealed.data_key.key_bytes == KEY
