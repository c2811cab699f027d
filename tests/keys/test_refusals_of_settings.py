"""Settings and answers around keys whose refusals are easily lost without anybody noticing."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError, SSLError
from support.key_stores import refusal_of
from support.keyring_support import kms_keyring

from phicrypt import BranchKeyStore, HierarchicalKeyring
from phicrypt.core.log_redaction import KmsBodyFilter
from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.keys.cache import CachePolicy, KeyCache
from phicrypt.keys.kms.errors import key_access_error
from phicrypt.keys.kms.keyring import KmsKeyring
from phicrypt.keys.kms.tagging import TaggedCall, tagged, tagged_call
from phicrypt.testing import StaticBranchKeyStore, StrictKms, mark_as_double

ARN = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
VERSION = "e9ce18a3-edb5-4272-9f86-1cacb7997ff6"


@mark_as_double
class NoTable:
    """A DynamoDB client that fails each call in one way."""

    def __init__(self, failure: Exception) -> None:
        self.failure = failure
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("meta", "exceptions"):
            raise AttributeError(name)

        def call(**_: Any) -> Any:
            self.called.append(name)
            raise self.failure

        return call


def store_over(kms: StrictKms, client: Any, table_name: str = "keys", logical_name: str = "clinic-keys") -> Any:
    return BranchKeyStore(table_name, logical_name, ARN, dynamodb_client=client, kms_client=kms.client())


@pytest.mark.parametrize(("table_name", "logical_name"), [("", "clinic-keys"), ("keys", ""), ("", "")])
def test_a_store_needs_both_of_its_names(kms: StrictKms, table_name: str, logical_name: str) -> None:
    with pytest.raises(ConfigurationError):
        store_over(kms, NoTable(RuntimeError()), table_name, logical_name)


@pytest.mark.parametrize(
    ("failure", "is_outage"),
    [
        (EndpointConnectionError(endpoint_url="https://dynamodb.invalid"), True),
        (SSLError(endpoint_url="https://dynamodb.invalid", error="certificate"), False),
        (NoCredentialsError(), False),
    ],
)
def test_only_an_endpoint_that_does_not_answer_is_an_outage_of_the_store(
    kms: StrictKms, failure: Exception, is_outage: bool
) -> None:
    store = store_over(kms, NoTable(failure))
    refusal = refusal_of(lambda: store.fetch_active("clinic-7"))
    assert (refusal.is_outage, refusal.is_retryable) == (is_outage, is_outage)
    assert refusal.code == type(failure).__name__


def test_a_table_that_may_not_be_described_is_not_created(kms: StrictKms) -> None:
    from botocore.exceptions import ClientError

    client = NoTable(ClientError({"Error": {"Code": "AccessDeniedException"}}, "DescribeTable"))
    assert refusal_of(store_over(kms, client).create_table).code == "AccessDeniedException"
    assert set(client.called) == {"describe_table"}


@pytest.mark.parametrize("ttl_seconds", [0, 0.0, -1, 86_401])
def test_a_time_to_live_out_of_bounds_is_refused(ttl_seconds: float) -> None:
    store = StaticBranchKeyStore("clinic-7", VERSION, bytes(32), bytes(32))
    with pytest.raises(ConfigurationError, match="ttl_seconds"):
        HierarchicalKeyring(store, "clinic-7", ttl_seconds=ttl_seconds)


@pytest.mark.parametrize("name", ["grant_tokens", "decrypt_key_arns", "failover_regions"])
@pytest.mark.parametrize("texts", ["text", ("",), (7,), ("a", None)])
def test_sequences_of_texts_hold_texts_that_say_something(kms: StrictKms, name: str, texts: Any) -> None:
    with pytest.raises(ConfigurationError):
        kms_keyring(kms, ARN.replace("1234abcd", "mrk-1234abcd"), **{name: texts})


@pytest.mark.parametrize("application", ["", "two words", "x" * 51, "new\nline"])
def test_an_applications_name_is_checked_before_any_client_is_made(application: str) -> None:
    def never(region: str) -> Any:
        raise AssertionError("a client was asked for")

    with pytest.raises(ConfigurationError, match="application"):
        KmsKeyring(ARN, client_factory=never, application=application)


def test_a_refusal_names_the_last_request_of_a_call() -> None:
    call = TaggedCall(request_ids=["first", "last"], attempts=3)
    failure = EndpointConnectionError(endpoint_url="https://kms.invalid")
    refusal = key_access_error(failure, "Decrypt", ARN, {}, call, is_botocore=True)
    assert refusal is not None
    assert refusal.request_id == "last"
    assert refusal.request_ids == ("first", "last")
    assert refusal.unanswered_attempts == 1


def test_only_the_body_of_a_kms_request_is_removed_from_its_log_record() -> None:
    class Model:
        class service_model:  # noqa: N801 - as botocore names it
            service_name = "kms"

    request = {"url_path": "/", "method": "POST", "body": b"Plaintext canary"}
    record = logging.LogRecord("botocore.endpoint", 10, "x", 1, "Making request for %s with params: %s", (), None)
    record.args = (Model(), request)
    assert KmsBodyFilter().filter(record)
    shown = record.getMessage()
    assert "canary" not in shown
    assert "/" in shown
    assert "POST" in shown
    assert "16 bytes removed" in shown


def test_a_call_outside_of_a_tagged_block_carries_no_id_and_one_behind_an_inner_block_the_outer_one(
    kms: StrictKms,
) -> None:
    client: Any = tagged(kms.client())
    arn = kms.create_key()

    def id_of_a_call() -> str:
        client.generate_data_key(KeyId=arn, NumberOfBytes=32)
        return kms.requests[-1].user_agent.rpartition("phicrypt-id/")[2].split(" ")[0]

    with tagged_call() as outer:
        assert id_of_a_call() == outer.correlation_id
        with tagged_call() as inner:
            assert id_of_a_call() == inner.correlation_id
        assert id_of_a_call() == outer.correlation_id
    assert len(outer.request_ids) == 2
    assert outer.correlation_id not in id_of_a_call()
    assert len(outer.request_ids) == 2


def test_rule_12_waiters_share_the_error_of_a_flight_and_do_not_load_again() -> None:
    cache: KeyCache[bytes] = KeyCache(CachePolicy())
    loads: list[int] = []
    may_fail = threading.Event()

    def load() -> bytes:
        loads.append(1)
        may_fail.wait(10)
        raise KeyAccessError("refused", operation="Decrypt", code="AccessDeniedException")

    outcomes: list[object] = []

    def ask() -> None:
        try:
            outcomes.append(cache.get_or_load("entry", load))
        except KeyAccessError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    while cache.stats().coalesced < 5:
        may_fail.wait(0.001)
    may_fail.set()
    for thread in threads:
        thread.join(10)
    assert outcomes == ["AccessDeniedException"] * 6
    assert len(loads) == 1
