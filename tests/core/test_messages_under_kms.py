"""Whole messages under KMS keys, on a local KMS that enforces key states as AWS documents them."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phicrypt import KmsKeyring, PhiCrypt
from phicrypt.errors import ContextMismatchError, KeyAccessError, PhiCryptError
from phicrypt.testing import StrictKms

CONTEXT = {"tenant": "clinic-7"}


@pytest.fixture
def kms() -> Iterator[StrictKms]:
    with StrictKms() as server:
        yield server


def generated(kms: StrictKms) -> int:
    return sum("GenerateDataKey" in called for called in kms.operations_called())


def test_two_hundred_threads_on_a_cold_cache_make_one_generate_data_key_call(kms: StrictKms) -> None:
    phi = PhiCrypt(KmsKeyring(kms.create_key(), client=kms.client()))
    start = threading.Barrier(200)
    messages: list[bytes] = []

    def work() -> None:
        start.wait(30)
        messages.append(phi.encrypt(b"x", context=CONTEXT))

    threads = [threading.Thread(target=work) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(messages) == 200
    assert generated(kms) == 1
    for _ in range(1_000):
        phi.encrypt(b"x", context=CONTEXT)
    assert generated(kms) == 1


REFUSALS: dict[str, tuple[Callable[[StrictKms, str], object], str]] = {
    "disabled": (lambda kms, arn: kms.disable(arn), "DisabledException"),
    "pending deletion": (lambda kms, arn: kms.schedule_deletion(arn), "KMSInvalidStateException"),
    "denied": (lambda kms, arn: kms.deny(arn), "AccessDeniedException"),
    "throttled": (lambda kms, arn: kms.throttle(100), "ThrottlingException"),
}


@pytest.mark.parametrize("state", REFUSALS)
def test_a_key_that_kms_refuses_stops_both_directions_and_writes_nothing(kms: StrictKms, state: str) -> None:
    arn = kms.create_key()
    phi = PhiCrypt(KmsKeyring(arn, client=kms.client()))
    message = phi.encrypt(b"x", context=CONTEXT)
    phi.cache.clear()
    change, code = REFUSALS[state]
    change(kms, arn)
    for operation in (
        lambda sink: phi.encrypt_stream(io.BytesIO(b"x"), sink, context=CONTEXT),
        lambda sink: phi.decrypt_stream(io.BytesIO(message), sink, context=CONTEXT),
    ):
        sink = io.BytesIO()
        with pytest.raises(KeyAccessError) as caught:
            operation(sink)
        assert caught.value.code == code
        assert caught.value.key_arn == arn
        assert caught.value.request_id
        assert caught.value.is_retryable == (state == "throttled")
        assert sink.getvalue() == b""


def test_revocation_bites_at_once_after_clear(kms: StrictKms) -> None:
    arn = kms.create_key()
    phi = PhiCrypt(KmsKeyring(arn, client=kms.client()))
    message = phi.encrypt(b"x", context=CONTEXT)
    assert phi.decrypt(message, context=CONTEXT) == b"x"
    kms.disable(arn)
    assert phi.decrypt(message, context=CONTEXT) == b"x"
    phi.cache.purge(arn)
    with pytest.raises(KeyAccessError):
        phi.decrypt(message, context=CONTEXT)


def test_an_unreachable_endpoint_a_wrong_region_and_a_foreign_key_have_their_own_errors(kms: StrictKms) -> None:
    arn, foreign = kms.create_key(), kms.create_key()
    message = PhiCrypt(KmsKeyring(foreign, client=kms.client())).encrypt(b"x", context=CONTEXT)
    codes = []
    for keyring in (
        KmsKeyring(arn, client=kms.client()),
        KmsKeyring(arn.replace("us-east-1", "eu-west-1"), client=kms.client("eu-west-1")),
    ):
        phi = PhiCrypt(keyring)
        with pytest.raises(KeyAccessError) as caught:
            phi.decrypt(message, context=CONTEXT)
        codes.append(caught.value.code)
        assert "clinic-7" not in str(caught.value)
    assert codes == ["NoMatchingDataKey", "NoMatchingDataKey"]
    with pytest.raises(KeyAccessError) as caught:
        PhiCrypt(KmsKeyring(arn.replace("us-east-1", "eu-west-1"), client=kms.client("eu-west-1"))).encrypt(b"x")
    assert caught.value.code == "NotFoundException"
    dead = KmsKeyring(arn, endpoint_url=StrictKms.closed_endpoint(), session=kms.session())
    with pytest.raises(KeyAccessError) as caught:
        PhiCrypt(dead).encrypt(b"x", context=CONTEXT)
    assert caught.value.is_retryable


def test_a_missing_context_pair_is_refused_before_kms_is_asked(kms: StrictKms) -> None:
    phi = PhiCrypt(KmsKeyring(kms.create_key(), client=kms.client()))
    message = phi.encrypt(b"x", context=CONTEXT)
    asked = len(kms.requests)
    with pytest.raises(ContextMismatchError) as caught:
        phi.decrypt(message, context={"tenant": "clinic-7", "dataset": "ct"})
    assert caught.value.names == ("dataset",)
    assert len(kms.requests) == asked


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_no_space_on_the_device_is_the_systems_own_error(kms: StrictKms) -> None:
    phi = PhiCrypt(KmsKeyring(kms.create_key(), client=kms.client()))
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space"):
        phi.encrypt_stream(io.BytesIO(bytes(1_000_000)), full, context=CONTEXT)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_while_a_kms_call_is_open_leaves_both_processes_working(kms: StrictKms) -> None:
    phi = PhiCrypt(KmsKeyring(kms.create_key(), client=kms.client()))
    phi.encrypt(b"warm", context=CONTEXT)
    phi.cache.clear()
    kms.hang(1.0)
    outcome: list[object] = []
    leader = threading.Thread(target=lambda: outcome.append(phi.encrypt(b"parent", context=CONTEXT)))
    leader.start()
    while len(kms.requests) < 2:
        pass
    pid = os.fork()
    if pid == 0:
        try:
            entries = phi.cache.stats().entries
            opened = phi.decrypt(phi.encrypt(b"child", context=CONTEXT), context=CONTEXT)
            os._exit(0 if (entries, opened) == (0, b"child") else 1)
        except PhiCryptError:
            os._exit(2)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    leader.join(30)
    assert isinstance(outcome[0], bytes)
    assert phi.decrypt(outcome[0], context=CONTEXT) == b"parent"
