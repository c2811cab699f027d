"""Reads of S3 whose connection breaks: asked again after a pause, as often as boto3 asks.

Only what did not arrive is asked for again. Bytes that arrived and do not verify are never asked for a second
time: they are an answer.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from phicrypt.core.backoff import back_off
from phicrypt.core.byte_ranges import Span

T = TypeVar("T")

MAX_ATTEMPTS: Final = 5
"""How often a range is asked for, as by boto3."""
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0
_NETWORK_MODULES: Final = frozenset(("socket", "ssl", "http", "urllib3", "gevent", "eventlet"))


def with_retries(attempt: Callable[[], T], *, sleep: Callable[[float], None] = time.sleep) -> T:
    """``with_retries(lambda: request().read())``: again, after growing random pauses, while connections break.

    A TimeoutError of the caller's own, which an alarm raised in the midst of a read, ends it at once and comes
    out as it is, also where urllib3 took it for the connection's. Raises what the last attempt raised.
    """
    failures = 0
    while True:
        try:
            return attempt()
        except _broken() as error:
            alarm = _callers_alarm(error)
            failures += 1
            if alarm is None and failures == MAX_ATTEMPTS:
                raise
        if alarm is not None:
            raise alarm
        _pause(failures, sleep)


class MendedBody:
    """A stream of stored bytes that goes on where a broken connection left it.

    Args:
        body_of: the stream of a span of the object, of the very same version each time; None is all of it.
        start, end: the span that is read, to the end of the object.

    Each place is asked for as often as a range; what arrived between starts the count anew.
    """

    def __init__(self, body_of: Callable[[Span | None], Any], start: int, end: int) -> None:
        self._body_of = body_of
        self._position = start
        self._end = end
        self._failures = 0
        self._body = with_retries(self._begin)

    def _begin(self) -> Any:
        if self._position == self._end:
            return io.BytesIO()  # no range asks for nothing
        return self._body_of(Span(self._position, self._end) if self._position else None)

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes, and none at the end."""
        while True:
            try:
                piece: bytes = self._body.read(size)
                break
            except _broken() as error:
                alarm = _callers_alarm(error)
                self._failures += 1
                if alarm is None and self._failures == MAX_ATTEMPTS:
                    raise
            if alarm is not None:
                raise alarm
            self._body.close()
            _pause(self._failures)
            self._body = with_retries(self._begin)
        if piece:
            self._failures = 0
        self._position += len(piece)
        return piece

    def close(self) -> None:
        """Let go of the connection."""
        self._body.close()


def _broken() -> tuple[type[Exception], ...]:
    from botocore.exceptions import HTTPClientError, IncompleteReadError, ResponseStreamingError

    return (HTTPClientError, IncompleteReadError, ResponseStreamingError, ConnectionError)


def _pause(failures: int, sleep: Callable[[float], None] = time.sleep) -> None:
    back_off(failures - 1, first_seconds=_FIRST_PAUSE_SECONDS, longest_seconds=_LONGEST_PAUSE_SECONDS, sleep=sleep)


def _callers_alarm(error: BaseException) -> TimeoutError | None:
    """The TimeoutError of a signal's handler behind botocore's error; None for a timeout of the connection.

    urllib3 takes every TimeoutError out of a socket for the socket's. They differ in where they were raised.
    """
    for cause in _causes(error):
        if isinstance(cause, TimeoutError) and cause.__traceback__ is not None:
            trace = cause.__traceback__
            while trace.tb_next is not None:
                trace = trace.tb_next
            module = str(trace.tb_frame.f_globals.get("__name__", ""))
            if module.partition(".")[0] not in _NETWORK_MODULES:
                return cause
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
