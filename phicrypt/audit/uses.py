"""One use of a key, from its begin to its end, and the events that tell of it (rule 20).

Whoever uses a key does so within one of these, whatever the format and the service::

    with session.recorded("s3.get_object", format="esdk", context=…, resource=("s3", bucket, object_key)) as use:
        materials, use.cache_hit = …
        use.origin = materials.origin
        plaintext = …
        use.byte_count = len(plaintext)

What opens, and every stream, leaves two events: the begin is on disk before the first plaintext byte
exists. What seals one message or signs leaves one (``at_once=True``), written at its end. Without an audit
trail the same code runs on a :class:`Use` that writes nothing.
"""

from __future__ import annotations

import functools
import itertools
import os
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Final, Self

from phicrypt.audit.events import AuditEvent, Kind, Outcome, describe_error, refused_origin
from phicrypt.core.key_origin import KeyOrigin

if TYPE_CHECKING:
    from phicrypt.audit.acting import Acting

_SUCCESS: Final = (Outcome.SUCCESS, None, None)
_BEGUN: Final = (Outcome.BEGUN, None, None)
_ABANDONED: Final = (Outcome.INTERRUPTED, "Abandoned", None)
_new_event: Final = functools.partial(tuple.__new__, AuditEvent)
"""Takes all fields of an AuditEvent in order. Its own constructor takes three times as long, and a
third of a microsecond is much of what one event may cost."""


class Use:
    """A use that runs, of which nothing is recorded: there is no audit trail.

    Attributes:
        suite_id, message_id (hexadecimal), context, required_context, origin, cache_hit: what is learned
            while it runs.
        byte_count: plaintext bytes; None where that says nothing.
        detail: what only this use has to tell, at its end; text and numbers.
        charge: told the plaintext bytes of a stream as they pass, for the bounds of a cached data key.
    """

    # Defaults of the class and no slots: without a trail, making one must cost next to nothing.
    suite_id: int | None = None
    message_id: str | None = None
    context: Mapping[str, str] | None = None
    required_context: tuple[str, ...] | None = None
    origin: KeyOrigin | None = None
    cache_hit: bool | None = None
    byte_count: int | None = None
    detail: Mapping[str, str | int] | None = None
    charge: Callable[[int], None] | None = None

    def count(self, byte_count: int) -> None:
        """That many more plaintext bytes have passed."""
        self.byte_count = (self.byte_count or 0) + byte_count
        if self.charge is not None:
            self.charge(byte_count)

    def end(
        self,
        error: BaseException | None = None,
        *,
        origin: KeyOrigin | None = None,
        cache_hit: bool | None = None,
        byte_count: int | None = None,
    ) -> None:
        """The use is over: it succeeded, or failed with ``error``. Later calls do nothing.

        Raises AuditError if the record cannot be written: then do not release what was opened. While
        something that is no ``Exception`` passes (KeyboardInterrupt), a failing sink is logged only.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error)


class RecordedUse(Use):
    """A use that leaves events. :meth:`end` must be called once; an abandoned use ends as interrupted.

    Args:
        recorder: writes the events, and knows the application and its principal.
        operation, format_name: as of :class:`~phicrypt.audit.events.AuditEvent`.
        acting: on whose behalf it runs, to its end and in whatever thread.
        resource: the resource's token.
        sealing: deliver by the policy of encryption.
        at_once: one event at the end instead of two.
    """

    _is_open = False

    def __init__(
        self,
        recorder: Recorder,
        operation: str,
        format_name: str | None,
        acting: Acting,
        resource: str | None,
        sealing: bool,
        at_once: bool,
    ) -> None:
        self._recorder = recorder
        self._operation = operation
        self._format = format_name
        self._acting = acting
        self._resource = resource
        self._sealing = sealing
        self._last_kind = Kind.USE if at_once else Kind.END
        self._process = _process
        self.started_ns: int | None = time.perf_counter_ns()
        self.use_id = f"{_process.prefix}-{next(_process.counter)}"
        self._is_open = True  # an interruption from here on leaves an end as well

    def begin(self) -> None:
        """Write the begin record of a use with two. Raises AuditError; then nothing may be released."""
        try:
            self._recorder.deliver(self._event(Kind.BEGIN, _BEGUN), self._sealing)
        except Exception:
            self._is_open = False
            raise

    def end(
        self,
        error: BaseException | None = None,
        *,
        origin: KeyOrigin | None = None,
        cache_hit: bool | None = None,
        byte_count: int | None = None,
    ) -> None:
        if not self._is_open or self._process is not _process:
            return
        if origin is not None:
            self.origin = origin
        if cache_hit is not None:
            self.cache_hit = cache_hit
        if byte_count is not None:
            self.byte_count = byte_count
        if error is not None and self.origin is None:
            self.origin = refused_origin(error)
        event = self._event(self._last_kind, _SUCCESS if error is None else describe_error(error))
        self._is_open = False  # only now: a use that was interrupted before still ends, as abandoned
        self._recorder.deliver(event, self._sealing, error)

    def __del__(self) -> None:
        if self._is_open and self._process is _process:
            self._is_open = False
            self._recorder.let_wait(self._event(self._last_kind, _ABANDONED))

    def _event(self, kind: str, result: tuple[str, str | None, str | None]) -> AuditEvent:
        outcome, error_name, reason = result
        actor, purpose, recipient, break_glass = self._acting
        context, started_ns, ended = self.context, self.started_ns, kind != "begin"
        return _new_event(
            (
                time.time_ns(),
                kind,
                self.use_id,
                self._operation,
                outcome,
                self._format,
                self.suite_id,
                self.message_id,
                self.origin,
                self.cache_hit,
                None if context is None else _own(context),
                actor,
                purpose,
                recipient,
                break_glass,
                self._recorder.application,
                self._recorder.principal,
                self._resource,
                error_name,
                reason,
                self.byte_count if ended else None,
                (time.perf_counter_ns() - started_ns) // 1000 if ended and started_ns is not None else None,
                self.detail if ended else None,
                self.required_context,
            )
        )


def _own(context: Mapping[str, str]) -> dict[str, str]:
    """A copy for the event: a sink may edit what it is given, and messages are bound to the original."""
    # dict() of a read-only view asks it for each name, and takes six times as long.
    return context.copy() if type(context) is MappingProxyType else dict(context)


class Recorder:
    """What a :class:`RecordedUse` needs of its trail."""

    application: str | None
    principal: str | None

    def deliver(self, event: AuditEvent, sealing: bool, error: BaseException | None = None) -> None:
        """Hand an event to every sink. Raises AuditError, or only logs while an interrupt passes."""
        raise NotImplementedError

    def let_wait(self, event: AuditEvent) -> None:
        """Keep an event for the next time that a sink is written to."""
        raise NotImplementedError


class _Process:
    """This process: 64 random bits and a counter make ids that are unique over processes."""

    __slots__ = ("counter", "prefix")

    def __init__(self) -> None:
        self.prefix = os.urandom(8).hex()
        self.counter = itertools.count()

    def next_use_id(self) -> str:
        return f"{self.prefix}-{next(self.counter)}"


_process = _Process()


def next_use_id() -> str:
    """An id that no other use has."""
    return _process.next_use_id()


def _renew_process() -> None:
    global _process
    _process = _Process()


os.register_at_fork(after_in_child=_renew_process)
