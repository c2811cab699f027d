"""The audit trail: what the client, S3 and DynamoDB call around each use of a key.

A use that seals one message leaves one event, :meth:`AuditTrail.record`. A use that opens, or a
stream, leaves two: :meth:`AuditTrail.begin` writes the first before any plaintext exists, and
:meth:`Use.end` the second (rule 20)::

    use = trail.begin("decrypt", format="esdk", message_id=…, context=…)
    try:
        plaintext = …
    except BaseException as error:
        use.end(error=error)
        raise
    use.end(origin=materials.origin, cache_hit=hit, byte_count=len(plaintext))

``with trail.begin(…) as use:`` does the same.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Final, Self

from phicrypt.audit.acting import Acting, acting_as, current_acting
from phicrypt.audit.delivery import BUFFERED, WRITE_THROUGH, AuditSink, Channel, Delivery, WithPolicy
from phicrypt.audit.events import AuditEvent, Kind, Outcome, describe_error, refused_origin
from phicrypt.audit.resource_tokens import Resource, ResourceTokens
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.errors import AuditError, ConfigurationError

__all__ = ["Acting", "AuditTrail", "Use", "acting_as"]

_log = logging.getLogger("phicrypt.audit")
_new_event: Final = functools.partial(tuple.__new__, AuditEvent)
"""Takes all fields of an AuditEvent in order. Its own constructor takes three times as long, and a
third of a microsecond is much of what one event may cost."""


class AuditTrail:
    """Makes events and hands them to sinks.

    Args:
        sinks: where events go, in order; a :class:`WithPolicy` gives one of them its own policies.
        application: the program's name, written into each event.
        principal: ARN of the role or user whose credentials call KMS, written into each event: the
            join with CloudTrail requires it to be equal there (rule 22).
        require_actor: refuse uses outside ``acting_as``.
        encrypt_policy: delivery of events of sealing; by default buffered within a bound.
        decrypt_policy: delivery of events of opening; by default written through, and an event that
            cannot be written stops the operation before plaintext leaves.
        resource_tokens: makes the tokens that stand for resources; without it events name none.
    """

    def __init__(
        self,
        sinks: Iterable[AuditSink | WithPolicy],
        *,
        application: str | None = None,
        principal: str | None = None,
        require_actor: bool = False,
        encrypt_policy: Delivery = BUFFERED,
        decrypt_policy: Delivery = WRITE_THROUGH,
        resource_tokens: ResourceTokens | None = None,
    ) -> None:
        channels: list[Channel] = []
        for sink in sinks:
            if isinstance(sink, WithPolicy):
                channels.append(Channel(sink.sink, sink.encrypt_policy, sink.decrypt_policy))
            elif isinstance(sink, AuditSink):
                channels.append(Channel(sink, encrypt_policy, decrypt_policy))
            else:
                raise ConfigurationError(
                    f"an audit sink has write(events) and close(); {type(sink).__name__} has not"
                )
        if not channels:
            raise ConfigurationError("an audit trail needs at least one sink; leave audit= out to keep none")
        self._channels = tuple(channels)
        self.application = application
        self.principal = principal
        self.require_actor = require_actor
        self.resource_tokens = resource_tokens

    def __repr__(self) -> str:
        return f"<AuditTrail to {', '.join(type(channel.sink).__name__ for channel in self._channels)}>"

    @staticmethod
    def capture() -> Acting:
        """Who acts now: to be carried into another thread, and passed to ``begin`` or ``record``."""
        return current_acting()

    def check_actor(self, captured: Acting | None = None) -> Acting:
        """Who acts; raises AuditError if nobody does and ``require_actor`` is set."""
        acting = current_acting() if captured is None else captured
        if self.require_actor and acting.actor is None:
            raise AuditError("this trail requires an actor: use phi.acting_as(actor=…) around the operation")
        return acting

    def record(
        self,
        operation: str,
        *,
        format: str | None = None,  # noqa: A002
        suite_id: int | None = None,
        message_id: bytes | None = None,
        context: Mapping[str, str] | None = None,
        resource: Resource | None = None,
        origin: KeyOrigin | None = None,
        cache_hit: bool | None = None,
        byte_count: int | None = None,
        started_ns: int | None = None,
        error: BaseException | None = None,
        opening: bool = False,
        captured: Acting | None = None,
    ) -> None:
        """One event for a whole use that is over, or failed with ``error``.

        For sealing one message. ``started_ns`` is ``time.perf_counter_ns()`` at the start, for the
        duration; ``opening=True`` delivers the event by the policy of decryption. Raises AuditError.
        """
        actor, purpose, recipient, break_glass = self.check_actor(captured)
        outcome, error_name, reason = _SUCCESS
        if error is not None:
            outcome, error_name, reason = describe_error(error)
            origin = origin or refused_origin(error)
        event = _new_event(
            (
                time.time_ns(),
                "use",
                _process.next_use_id(),
                operation,
                outcome,
                format,
                suite_id,
                None if message_id is None else message_id.hex(),
                origin,
                cache_hit,
                _own(context),
                actor,
                purpose,
                recipient,
                break_glass,
                self.application,
                self.principal,
                self._token(resource) if resource is not None else None,
                error_name,
                reason,
                byte_count,
                None if started_ns is None else (time.perf_counter_ns() - started_ns) // 1000,
                None,
            )
        )
        self._deliver(event, not opening, error)

    def begin(
        self,
        operation: str,
        *,
        format: str | None = None,  # noqa: A002
        suite_id: int | None = None,
        message_id: bytes | None = None,
        context: Mapping[str, str] | None = None,
        resource: Resource | None = None,
        origin: KeyOrigin | None = None,
        cache_hit: bool | None = None,
        sealing: bool = False,
        captured: Acting | None = None,
    ) -> Use:
        """Write the begin record of a use, and give the handle that ends it.

        Call it before the first plaintext byte exists. What is not known yet (the key's origin, the
        message id) can be given to :meth:`Use.end`. ``sealing=True`` delivers by the policy of
        encryption, for streams that seal. Raises AuditError; then nothing may be released.
        """
        acting = self.check_actor(captured)
        use = Use(
            self, operation, format, acting, self._token(resource) if resource is not None else None, sealing
        )
        use.suite_id = suite_id
        use.message_id = None if message_id is None else message_id.hex()
        use.context = context
        use.origin = origin
        use.cache_hit = cache_hit
        use._is_open = True  # an interruption from here on leaves an end as well
        try:
            self._deliver(use._event(Kind.BEGIN, _BEGUN), sealing)
        except Exception:
            use._is_open = False
            raise
        return use

    def write(self, event: AuditEvent) -> None:
        """Write an event of another kind (break-glass, anchors) through to every sink. Raises AuditError."""
        for channel in self._channels:
            channel.deliver(event, WRITE_THROUGH)

    def next_use_id(self) -> str:
        """An id that no other use has."""
        return _process.next_use_id()

    def flush(self) -> None:
        """Write what waits in buffers. Raises AuditError if a sink does not take it."""
        failed = [type(channel.sink).__name__ for channel in self._channels if not channel.flush()]
        if failed:
            raise AuditError(f"audit events still wait: {', '.join(failed)} failed")

    def close(self) -> None:
        """Flush, then close every sink. Raises AuditError if a sink does not take what waits."""
        try:
            self.flush()
        finally:
            for channel in self._channels:
                channel.sink.close()

    def _token(self, resource: Resource) -> str | None:
        return None if self.resource_tokens is None else self.resource_tokens.token(resource)

    def _deliver(self, event: AuditEvent, sealing: bool, error: BaseException | None = None) -> None:
        try:
            for channel in self._channels:
                channel.deliver(event, channel.encrypt_policy if sealing else channel.decrypt_policy)
        except AuditError:
            if error is None or isinstance(error, Exception):
                raise
            _log.exception("an interrupted use was not recorded")

    def _let_wait(self, event: AuditEvent) -> None:
        for channel in self._channels:
            channel.let_wait(event)


def _own(context: Mapping[str, str] | None) -> dict[str, str] | None:
    """A copy for the event: a sink may edit what it is given, and messages are bound to the original."""
    return None if context is None else dict(context)


_SUCCESS: Final = (Outcome.SUCCESS, None, None)
_BEGUN: Final = (Outcome.BEGUN, None, None)


class Use:
    """A use that has begun. ``end`` must be called once; an abandoned use ends as interrupted.

    ``suite_id``, ``message_id`` (hexadecimal), ``context``, ``origin``, ``cache_hit`` and
    ``byte_count`` may be set while it runs, or given to :meth:`end`.
    """

    __slots__ = (
        "_acting",
        "_format",
        "_is_open",
        "_operation",
        "_process",
        "_resource",
        "_sealing",
        "_started_ns",
        "_trail",
        "byte_count",
        "cache_hit",
        "context",
        "message_id",
        "origin",
        "suite_id",
        "use_id",
    )

    def __init__(
        self,
        trail: AuditTrail,
        operation: str,
        format_name: str | None,
        acting: Acting,
        resource: str | None,
        sealing: bool,
    ) -> None:
        self._is_open = False
        self._trail = trail
        self._operation = operation
        self._format = format_name
        self._acting = acting
        self._resource = resource
        self._sealing = sealing
        self._process = _process
        self._started_ns = time.perf_counter_ns()
        self.use_id = _process.next_use_id()
        self.suite_id: int | None = None
        self.message_id: str | None = None
        self.context: Mapping[str, str] | None = None
        self.origin: KeyOrigin | None = None
        self.cache_hit: bool | None = None
        self.byte_count: int | None = None

    def end(
        self,
        *,
        error: BaseException | None = None,
        origin: KeyOrigin | None = None,
        cache_hit: bool | None = None,
        byte_count: int | None = None,
        suite_id: int | None = None,
        message_id: bytes | None = None,
        context: Mapping[str, str] | None = None,
    ) -> None:
        """Write the end record: success, or what the error says. Later calls do nothing.

        Raises AuditError if the record cannot be written: then do not release what was opened. While
        something that is no ``Exception`` passes (KeyboardInterrupt), a failing sink is logged only.
        """
        if not self._is_open or self._process is not _process:
            return
        if cache_hit is not None:
            self.cache_hit = cache_hit
        if byte_count is not None:
            self.byte_count = byte_count
        if suite_id is not None:
            self.suite_id = suite_id
        if message_id is not None:
            self.message_id = message_id.hex()
        if context is not None:
            self.context = context
        if origin is not None:
            self.origin = origin
        elif self.origin is None and error is not None:
            self.origin = refused_origin(error)
        event = self._event(Kind.END, _SUCCESS if error is None else describe_error(error))
        self._is_open = False  # only now: a use that was interrupted before still ends, as abandoned
        self._trail._deliver(event, self._sealing, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error=error)

    def __del__(self) -> None:
        if getattr(self, "_is_open", False) and self._process is _process:
            self._is_open = False
            self._trail._let_wait(self._event(Kind.END, (Outcome.INTERRUPTED, "Abandoned", None)))

    def _event(self, kind: str, result: tuple[str, str | None, str | None]) -> AuditEvent:
        outcome, error_name, reason = result
        actor, purpose, recipient, break_glass = self._acting
        ended = kind == "end"
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
                _own(self.context),
                actor,
                purpose,
                recipient,
                break_glass,
                self._trail.application,
                self._trail.principal,
                self._resource,
                error_name,
                reason,
                self.byte_count if ended else None,
                (time.perf_counter_ns() - self._started_ns) // 1000 if ended else None,
                None,
            )
        )


class _Process:
    """This process: 64 random bits and a counter make ids that are unique over processes."""

    __slots__ = ("counter", "prefix")

    def __init__(self) -> None:
        self.prefix = os.urandom(8).hex()
        self.counter = itertools.count()

    def next_use_id(self) -> str:
        return f"{self.prefix}-{next(self.counter)}"


_process = _Process()


def _renew_process() -> None:
    global _process
    _process = _Process()


os.register_at_fork(after_in_child=_renew_process)
