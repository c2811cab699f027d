"""How long a caller waits for keys, and what happens to the work when it waits no longer (rule 29).

The steps of a use begin in the caller's thread. From their first call of AWS on, one of phicrypt's own
threads goes on with them, and the caller waits. When the deadline passes, the caller is told so, with all
who wait for the same load. The thread goes on: what it brings is judged by the steps as ever, and kept in the
cache if nobody cleared that meanwhile. Steps that would keep nothing end with the call that hangs.

A write of the branch key store is never cut: it does not begin after the deadline, and once it has begun it
is waited for, so that its outcome is known.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from phicrypt.core.breaker import OPEN_SECONDS, Attempt
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.core.key_threads import KEY_THREADS, Job, KeyThreads, TooManyHung, is_key_thread
from phicrypt.core.kms_calls import KmsAnswer, refused_calls
from phicrypt.errors import ConfigurationError, KeyAccessError

T = TypeVar("T")
GiveUp = Callable[[KeyAccessError | None], None]
"""Told when nobody waits for a load any more; see :class:`phicrypt.core.steps.Leading`."""

DEADLINE_SECONDS: Final = 10.0
MAX_DEADLINE_SECONDS: Final = 600.0
_OUTAGES_OF_ONE_KEY: Final = ("DependencyTimeoutException", "KeyUnavailableException")


def checked_deadline(deadline_seconds: float) -> float:
    """ConfigurationError unless it is a number of seconds above 0 and at most 600."""
    is_number = isinstance(deadline_seconds, int | float) and not isinstance(deadline_seconds, bool)
    if not is_number or not 0 < deadline_seconds <= MAX_DEADLINE_SECONDS:
        raise ConfigurationError(
            f"deadline_seconds is a number above 0 and at most {MAX_DEADLINE_SECONDS:g}, {deadline_seconds} came"
        )
    return float(deadline_seconds)


class _Suspended:
    """Awaited once, by what goes on in another thread."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class _NobodyWaits(BaseException):
    """Ends steps that would keep nothing of what they bring. No code that catches errors may stop it."""


class Course:
    """The way of one use through its steps.

    Args:
        give_ups: of the loads that the steps lead by now.

    Attributes:
        tagged_call: the KMS call that is under way.
    """

    def __init__(self, give_ups: list[GiveUp], threads: KeyThreads = KEY_THREADS) -> None:
        self._give_ups = give_ups
        self.tagged_call: Any = None
        self._threads = threads
        self._lock = threading.Lock()
        self._first: Any = None
        self._request: Any = None
        self._attempt: Attempt | None = None
        self._calls: list[KeyOrigin] = []
        self._is_handed_over = is_key_thread()
        self._is_abandoned = self._is_writing = False

    def lead(self, give_up: GiveUp) -> None:
        """The steps lead a load that others wait for, see :class:`phicrypt.core.steps.Leading`."""
        with self._lock:
            self._give_ups.append(give_up)
            is_abandoned = self._is_abandoned
        if is_abandoned:
            give_up(None)  # nobody is left to tell those who would wait

    async def answer(self, request: Any) -> Any:
        """The answer to a call of AWS, given in one of phicrypt's own threads."""
        if not self._is_handed_over:
            self._is_handed_over = True
            self._first = request
            await _Suspended()
        self._go_on(request)
        try:
            answer = ask_guarded(request, self)
        except KeyAccessError as refusal:
            self._calls.extend(refused_calls([refusal]))
            raise
        if isinstance(answer, KmsAnswer):
            self._calls.append(_call_of(request, answer))
        return answer

    def _go_on(self, request: Any) -> None:
        with self._lock:
            if self._is_abandoned and (request.is_write or not self._give_ups):
                raise _NobodyWaits
            self._is_writing |= request.is_write
            self._request, self.tagged_call = request, None

    def begun(self, attempt: Attempt) -> None:
        """A call is under way."""
        self._attempt = attempt

    def finish(self, driven: Coroutine[Any, Any, T]) -> T:
        """The result of suspended steps, from another thread. Raises what they raise, and KeyAccessError."""
        deadline_seconds: float = self._first.via.deadline_seconds
        job: Job[T] | None = None
        try:
            job = self._threads.start(lambda: _in_a_key_thread(self, driven))
            if job is None:
                return to_the_end(driven)
            if not job.wait(deadline_seconds):
                self._give_up(job, driven, deadline_seconds)
                job.wait(None)  # it ended this moment, or writes
        except TooManyHung:
            refusal = self._too_many_hung()
            driven.close()
        except BaseException:
            self._leave(job, None)
            raise
        else:
            return job.outcome()
        raise refusal

    def _give_up(self, job: Job[Any], driven: Coroutine[Any, Any, Any], deadline_seconds: float) -> None:
        """Raise the deadline's error, unless the work is done or must be waited for."""
        with self._lock:
            if self._is_writing or not self._threads.abandon(job):
                return
            self._is_abandoned = True
            request, attempt = self._request, self._attempt
        if not job.has_begun:
            driven.close()
        if attempt is not None:
            attempt.end(was_outage=True)
        error = self._overdue(request, deadline_seconds)
        for give_up in list(self._give_ups):
            give_up(error)
        raise error

    def _leave(self, job: Job[Any] | None, error: KeyAccessError | None) -> None:
        """The caller is gone, told of the deadline or interrupted."""
        with self._lock:
            self._is_abandoned = True
        if job is not None:
            self._threads.abandon(job)
        for give_up in list(self._give_ups):  # again after the deadline: an interrupt may have come among them
            give_up(error)

    def _overdue(self, request: Any, deadline_seconds: float) -> KeyAccessError:
        asked = request or self._first
        call = self.tagged_call if request is not None else None
        what = "was not answered" if request is not None else "found no thread that is free"
        error = KeyAccessError(
            f"{asked.described} {what} within {deadline_seconds:g} seconds (deadline_seconds): "
            "check the network path (VPC endpoint, proxy, DNS) and the service's health, and try again; an answer "
            "that still comes serves later calls",
            operation=asked.operation,
            code="DeadlineExceeded",
            key_arn=asked.key_arn,
            is_retryable=True,
            is_outage=True,
            request_ids=tuple(call.request_ids) if call is not None else (),
            correlation_id=call.correlation_id if call is not None else None,
            unanswered_attempts=max(1, call.unanswered_attempts) if call is not None else 0,
        )
        error.earlier_calls = tuple(self._calls)
        return error

    def _too_many_hung(self) -> KeyAccessError:
        return KeyAccessError(
            f"{self._first.described} was not made: {self._threads.max_hung} earlier calls still hang, whose "
            "callers gave up; check the network path (VPC endpoint, proxy) and the client's timeouts, and try "
            "again when some of them have ended",
            operation=self._first.operation,
            code="TooManyHungCalls",
            key_arn=self._first.key_arn,
            is_retryable=True,
            is_outage=True,
        )


current_course: ContextVar[Course | None] = ContextVar("phicrypt_course", default=None)
"""In one of phicrypt's own threads: whose steps it goes on with."""


def course_of_this_thread(give_ups: list[GiveUp]) -> Course:
    """A new one; for a use within a use, such as of a keyring that asks another, that of the outer one."""
    outer = current_course.get() if is_key_thread() else None
    if outer is None:
        return Course(give_ups)
    for give_up in give_ups:
        outer.lead(give_up)
    return outer


def ask_guarded(request: Any, course: Course | None = None) -> Any:
    """Make the call of a request through the clients that it names, unless their breaker is open."""
    via = request.via
    attempt = via.breakers.of(request.service, request.region).begin()
    if attempt is None:
        raise _left_alone(request)
    if course is not None:
        course.begun(attempt)
    try:
        answer = via.ask(request)
    except KeyAccessError as refusal:
        # One key's own store is down, which says nothing about the endpoint: whoever may name keys would open it.
        attempt.end(was_outage=None if refusal.code in _OUTAGES_OF_ONE_KEY else refusal.another_region_may_serve)
        raise
    except Exception:
        attempt.end(was_outage=False)  # such as a condition that did not hold: an answer
        raise
    except BaseException:
        attempt.end(was_outage=None)
        raise
    attempt.end(was_outage=False)
    return answer


def to_the_end(driven: Coroutine[Any, Any, T]) -> T:
    """The result of driven steps that wait for no event loop."""
    try:
        driven.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        driven.close()
    raise AssertionError("nothing in here waits for an event loop")


def _in_a_key_thread(course: Course, driven: Coroutine[Any, Any, T]) -> T:
    current_course.set(course)  # in the job's own copy of the caller's context
    return to_the_end(driven)


def _call_of(request: Any, answer: KmsAnswer) -> KeyOrigin:
    return KeyOrigin(
        "aws-kms",
        request.key_arn or "",
        request_ids=answer.request_ids,
        correlation_id=answer.correlation_id,
        operation=request.operation,
        unanswered_attempts=answer.unanswered_attempts,
    )


def _left_alone(request: Any) -> KeyAccessError:
    return KeyAccessError(
        f"{request.described} was not made: {request.service} in {request.region or 'its Region'} gave no answer "
        f"several times in a row and is left alone for about {OPEN_SECONDS:g} seconds, until one call tries it: "
        "check the network path (VPC endpoint, proxy, DNS) and the service's health, and try again",
        operation=request.operation,
        code="EndpointLeftAlone",
        key_arn=request.key_arn,
        is_retryable=True,
        is_outage=True,
    )
