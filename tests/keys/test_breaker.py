"""Who gives no answer is left alone for a short while; who refuses is not (rules 13 and 29)."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from support.forks import in_child
from support.slow_servers import SlowServer

from phicrypt import KmsKeyring, MultiKeyring, PhiCrypt
from phicrypt.core.breaker import OPEN_SECONDS, OUTAGES_TO_OPEN, Breaker, Breakers
from phicrypt.core.steps import KmsRequest, asked, run
from phicrypt.errors import KeyAccessError
from phicrypt.testing import StrictKms

CONTEXT = {"tenant": "clinic-7"}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def breaker_at(clock: Clock, jitter: float = 0) -> Breaker:
    return Breaker("KMS", "us-east-1", clock=clock, jitter=lambda: jitter)


def fail(breaker: Breaker, times: int = OUTAGES_TO_OPEN) -> None:
    for _ in range(times):
        attempt = breaker.begin()
        assert attempt is not None
        attempt.end(was_outage=True)


def test_outages_in_a_row_open_it_for_a_short_time_and_then_one_call_decides() -> None:
    clock = Clock()
    breaker = breaker_at(clock)
    fail(breaker, OUTAGES_TO_OPEN - 1)
    assert breaker.stats().state == "closed"
    fail(breaker, 1)
    assert breaker.stats().state == "open"
    assert breaker.begin() is None
    clock.now += OPEN_SECONDS
    probe = breaker.begin()
    assert probe is not None
    assert breaker.stats().state == "half-open"
    assert breaker.begin() is None, "one at a time"
    probe.end(was_outage=True)
    assert breaker.stats().state == "open"
    clock.now += OPEN_SECONDS
    probe = breaker.begin()
    assert probe is not None
    probe.end(was_outage=False)
    assert breaker.stats().state == "closed"
    assert breaker.stats().outages_in_a_row == 0
    assert (breaker.stats().outages, breaker.stats().refused) == (OUTAGES_TO_OPEN + 1, 2)


def test_an_answer_between_outages_starts_the_count_anew() -> None:
    breaker = breaker_at(Clock())
    for _ in range(5):
        fail(breaker, OUTAGES_TO_OPEN - 1)
        answered = breaker.begin()
        assert answered is not None
        answered.end(was_outage=False)
    assert breaker.stats().state == "closed"


def test_a_call_of_before_is_no_probe_and_a_probe_that_nobody_saw_end_lets_the_next_try() -> None:
    clock = Clock()
    breaker = breaker_at(clock)
    old = breaker.begin()
    assert old is not None
    fail(breaker)
    clock.now += OPEN_SECONDS
    probe = breaker.begin()
    old.end(was_outage=None)
    assert breaker.begin() is None, "the probe is under way"
    assert probe is not None
    probe.end(was_outage=None)
    assert breaker.stats().state == "open"
    assert breaker.begin() is not None


def test_only_the_first_end_of_an_attempt_counts() -> None:
    """A caller's deadline passed, and the answer came afterwards: the endpoint is as slow as before."""
    breaker = breaker_at(Clock())
    attempts = [breaker.begin() for _ in range(OUTAGES_TO_OPEN)]
    for attempt in attempts:
        assert attempt is not None
        attempt.end(was_outage=True)
        attempt.end(was_outage=False)
    assert breaker.stats().state == "open"


@pytest.mark.parametrize("jitter", [-1.0, 1.0])
def test_the_time_differs_among_processes(jitter: float) -> None:
    clock = Clock()
    breaker = breaker_at(clock, jitter)
    fail(breaker)
    clock.now += OPEN_SECONDS
    assert (breaker.begin() is not None) == (jitter < 0)


def test_its_opening_and_closing_are_one_line_each_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    breaker = breaker_at(clock)
    with caplog.at_level(logging.INFO, "phicrypt.keys"):
        fail(breaker)
        for _ in range(3):
            breaker.begin()
        clock.now += OPEN_SECONDS
        probe = breaker.begin()
        assert probe is not None
        probe.end(was_outage=False)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "KMS in us-east-1 gave no answer 3 times in a row" in caplog.text


def test_a_handler_of_logs_may_ask_for_its_state() -> None:
    """Rule 12: it is called without the lock."""
    breaker = breaker_at(Clock())
    seen: list[str] = []

    class Asking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            other = threading.Thread(target=lambda: seen.append(breaker.stats().state))
            other.start()
            other.join(5)

    log = logging.getLogger("phicrypt.keys")
    handler = Asking()
    log.addHandler(handler)
    try:
        fail(breaker)
    finally:
        log.removeHandler(handler)
    assert seen == ["open"]


# --- in front of KMS -------------------------------------------------------------------------------


def encrypts(phi: PhiCrypt, number: int) -> str:
    try:
        phi.encrypt(b"x", context={"tenant": str(number)})
    except KeyAccessError as error:
        assert error.is_retryable == error.is_outage
        return error.code
    return "done"


def test_rule_29_kms_that_is_down_is_not_asked_for_a_while(kms: StrictKms) -> None:
    phi = PhiCrypt(KmsKeyring(kms.create_key(), client=kms.client()))
    with kms.region_down("us-east-1"):
        codes = [encrypts(phi, number) for number in range(6)]
    assert codes == ["ConnectionClosedError"] * OUTAGES_TO_OPEN + ["EndpointLeftAlone"] * 3
    assert len(kms.requests) == OUTAGES_TO_OPEN
    (endpoint,) = phi.stats().endpoints
    assert (endpoint.service, endpoint.region, endpoint.state) == ("KMS", "us-east-1", "open")
    assert (endpoint.outages, endpoint.refused) == (3, 3)


@pytest.mark.parametrize("code", ["AccessDeniedException", "DisabledException", "ThrottlingException"])
def test_rule_29_refusals_never_open_it(kms: StrictKms, code: str) -> None:
    phi = PhiCrypt(KmsKeyring(kms.create_key(), client=kms.client()))
    kms.fail(code, status=400, times=10)
    for number in range(10):
        with pytest.raises(KeyAccessError) as caught:
            phi.encrypt(b"x", context={"tenant": str(number)})
        assert caught.value.code == code
    assert phi.stats().endpoints[0].state == "closed"


@pytest.mark.parametrize("code", ["KeyUnavailableException", "DependencyTimeoutException"])
def test_rule_29_an_outage_of_one_key_opens_none(kms: StrictKms, code: str) -> None:
    """Keys of external and CloudHSM key stores fail by themselves; a message may name them."""
    phi = PhiCrypt(KmsKeyring(kms.create_key(), client=kms.client()))
    kms.fail(code, times=5)
    assert [encrypts(phi, number) for number in range(6)] == [code] * 5 + ["done"]


def test_rule_29_a_row_writer_opens_none(kms: StrictKms) -> None:
    """A KMS that answers something else is an answer: it is refused, and asked again."""
    phi = PhiCrypt(KmsKeyring(kms.create_key(), client=kms.client()))
    kms.alter(lambda answer: {**answer, "KeyId": "arn:aws:kms:us-east-1:111122223333:key/other"}, times=10)
    assert [encrypts(phi, number) for number in range(10)] == ["UnexpectedAnswer"] * 10
    assert phi.stats().endpoints[0].state == "closed"


def test_rule_13_a_region_that_is_left_alone_gives_way_to_the_next_at_once(kms: StrictKms) -> None:
    arn = kms.create_key(replicas=("us-west-2",))
    phi = PhiCrypt(
        KmsKeyring(arn, client_factory=lambda region: kms.client(region), failover_regions=["us-west-2"]),
        cache=None,
    )
    message = phi.encrypt(b"x", context=CONTEXT)
    kms.requests.clear()
    with kms.region_down("us-east-1"):
        for _ in range(OUTAGES_TO_OPEN + 2):
            assert phi.decrypt(message, context=CONTEXT) == b"x"
    regions = [region for _, region in kms.operations_called()]
    assert regions.count("us-east-1") == OUTAGES_TO_OPEN
    assert regions[-2:] == ["us-west-2"] * 2
    assert {one.region: one.state for one in phi.stats().endpoints} == {"us-east-1": "open", "us-west-2": "closed"}


def test_rule_13_a_refusal_of_the_next_region_is_the_answer(kms: StrictKms) -> None:
    arn = kms.create_key(replicas=("us-west-2",))
    keyring = KmsKeyring(arn, client_factory=lambda region: kms.client(region), failover_regions=["us-west-2"])
    phi = PhiCrypt(keyring, cache=None)
    message = phi.encrypt(b"x", context=CONTEXT)
    fail(keyring.kms_clients.breakers.of("KMS", "us-east-1"))
    kms.disable(arn.replace("us-east-1", "us-west-2"))
    with pytest.raises(KeyAccessError) as caught:
        phi.decrypt(message, context=CONTEXT)
    assert [cause.code for cause in caught.value.causes] == ["EndpointLeftAlone", "DisabledException"]
    assert not caught.value.is_outage


def test_rule_29_a_deadline_that_passes_counts_as_an_outage() -> None:
    arn = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    with SlowServer("silent") as server:
        phi = PhiCrypt(KmsKeyring(arn, client=server.client("kms"), deadline_seconds=0.05))
        codes = [encrypts(phi, number) for number in range(OUTAGES_TO_OPEN + 1)]
        assert codes == ["DeadlineExceeded"] * OUTAGES_TO_OPEN + ["EndpointLeftAlone"]
        assert phi.stats().threads.hung >= OUTAGES_TO_OPEN


def test_clients_that_a_keyring_lends_share_its_breakers(kms: StrictKms) -> None:
    arn = kms.create_key()
    keyring = KmsKeyring(arn, client=kms.client())
    fail(keyring.kms_clients.breakers.of("KMS", "us-east-1"))
    with pytest.raises(KeyAccessError, match="left alone"):
        PhiCrypt(keyring).mac(arn).generate(b"x", resource="r", purpose="p")
    other = PhiCrypt(KmsKeyring(arn, client=kms.client()))
    other.encrypt(b"x")
    assert other.stats().endpoints[0].outages == 0, "other credentials are another's business"


def test_statistics_cover_every_keyring_that_is_joined(kms: StrictKms) -> None:
    first, second = (KmsKeyring(kms.create_key(), client=kms.client()) for _ in range(2))
    phi = PhiCrypt(MultiKeyring(first, second))
    phi.encrypt(b"x")
    stats = phi.stats()
    assert [endpoint.state for endpoint in stats.endpoints] == ["closed", "closed"]
    assert stats.data_keys == phi.cache.stats()
    assert stats.branch_keys == ()


def test_interrupts_and_unknown_errors_leave_the_endpoint_usable() -> None:
    class Via:
        deadline_seconds = 5.0
        breakers = Breakers()

        def ask(self, request: Any) -> Any:
            raise ZeroDivisionError

    for _ in range(OUTAGES_TO_OPEN + 1):
        with pytest.raises(ZeroDivisionError):
            run(asked(KmsRequest("us-east-1", "Decrypt", {}, Via())))


def test_a_child_begins_with_closed_breakers(kms: StrictKms) -> None:
    keyring = KmsKeyring(kms.create_key(), session=kms.session(), endpoint_url=kms.endpoint_url)
    fail(keyring.kms_clients.breakers.of("KMS", "us-east-1"))
    assert in_child(lambda: len(PhiCrypt(keyring).encrypt(b"x")) > 0) == "True"
    with pytest.raises(KeyAccessError):
        PhiCrypt(keyring).encrypt(b"x")
