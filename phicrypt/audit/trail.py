"""The audit trail: makes the events of each use of a key, and hands them to sinks.

What uses keys asks for :meth:`AuditTrail.recorded` (see :mod:`phicrypt.audit.uses`); a client without an
audit trail has :data:`NO_TRAIL` instead, which records nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Final, TypedDict, Unpack

from phicrypt.audit.acting import Acting, acting_as, current_acting
from phicrypt.audit.delivery import BUFFERED, WRITE_THROUGH, AuditSink, Channel, Delivery, WithPolicy
from phicrypt.audit.events import AuditEvent
from phicrypt.audit.resource_tokens import Resource, ResourceTokens
from phicrypt.audit.uses import RecordedUse, Recorder, Use, next_use_id
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.errors import AuditError, ConfigurationError

__all__ = ["NO_TRAIL", "Acting", "AuditTrail", "Trail", "Use", "acting_as"]

_log = logging.getLogger("phicrypt.audit")


class About(TypedDict, total=False):
    """What is known of a use when it begins; see :meth:`Trail.recorded`."""

    format: str | None
    suite_id: int | None
    message_id: bytes | None
    context: Mapping[str, str] | None
    required_names: Iterable[str]
    resource: Resource | None
    origin: KeyOrigin | None
    cache_hit: bool | None
    sealing: bool
    at_once: bool
    captured: Acting | None


class Trail:
    """Where uses of keys are recorded; this one records nothing, for clients without an audit trail."""

    resource_tokens: ResourceTokens | None = None
    """Without them no event names a resource, so nobody need say which one is used."""

    def recorded(self, operation: str, **about: Unpack[About]) -> Use:
        """A use that begins now: ``with trail.recorded("decrypt", format="esdk", context=…) as use:``.

        Its begin record is written here, unless ``at_once``; call it before the first plaintext byte exists.

        Args:
            operation, format, suite_id, message_id, context, origin, cache_hit: as of
                :class:`~phicrypt.audit.events.AuditEvent`; what is not known yet is set on the use, or given
                to its ``end``.
            required_names: names of the pairs that are bound and not stored (rule 35).
            resource: what is used; it enters as a token (rule 23).
            sealing: deliver by the policy of encryption.
            at_once: one event at the end, for what seals one message or signs.
            captured: on whose behalf, where another thread than the caller's acts.

        Raises AuditError if nobody acts and an actor is required, and if the begin cannot be written: then
        nothing may be released.
        """
        return Use()

    def check_actor(self, captured: Acting | None = None) -> Acting:
        """Who acts; raises AuditError if nobody does and the trail requires an actor."""
        return current_acting() if captured is None else captured

    def flush(self) -> None:
        """Write what waits in buffers. Raises AuditError if a sink does not take it."""

    def close(self) -> None:
        """Flush, then close every sink. Raises AuditError if a sink does not take what waits."""


NO_TRAIL: Final = Trail()


class AuditTrail(Trail, Recorder):
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
        acting = current_acting() if captured is None else captured
        if self.require_actor and acting.actor is None:
            raise AuditError("this trail requires an actor: use phi.acting_as(actor=…) around the operation")
        return acting

    def recorded(
        self,
        operation: str,
        *,
        format: str | None = None,  # noqa: A002
        suite_id: int | None = None,
        message_id: bytes | None = None,
        context: Mapping[str, str] | None = None,
        required_names: Iterable[str] = (),
        resource: Resource | None = None,
        origin: KeyOrigin | None = None,
        cache_hit: bool | None = None,
        sealing: bool = False,
        at_once: bool = False,
        captured: Acting | None = None,
    ) -> RecordedUse:
        acting = current_acting() if captured is None else captured
        if self.require_actor:
            self.check_actor(acting)
        token = None if resource is None else self._token(resource)
        use = RecordedUse(self, operation, format, acting, token, sealing, at_once)
        use.suite_id = suite_id
        use.context = context
        if required_names:
            use.required_context = tuple(sorted(required_names))
        if message_id is not None:
            use.message_id = message_id.hex()
        if origin is not None:
            use.origin = origin
        if cache_hit is not None:
            use.cache_hit = cache_hit
        if not at_once:
            use.begin()
        return use

    begin = recorded
    """The former name."""

    def record(
        self,
        operation: str,
        *,
        byte_count: int | None = None,
        started_ns: int | None = None,
        error: BaseException | None = None,
        opening: bool = False,
        **about: Unpack[About],
    ) -> None:
        """One event for a whole use that is over, or failed with ``error``.

        For sealing one message. ``started_ns`` is ``time.perf_counter_ns()`` at the start, for the
        duration; ``opening=True`` delivers the event by the policy of decryption. Raises AuditError.
        """
        about |= {"sealing": not opening, "at_once": True}
        use = self.recorded(operation, **about)
        use.started_ns = started_ns
        use.end(error, byte_count=byte_count)

    def write(self, event: AuditEvent) -> None:
        """Write an event of another kind (break-glass, anchors) through to every sink. Raises AuditError."""
        for channel in self._channels:
            channel.deliver(event, WRITE_THROUGH)

    def next_use_id(self) -> str:
        """An id that no other use has."""
        return next_use_id()

    def flush(self) -> None:
        failed = [type(channel.sink).__name__ for channel in self._channels if not channel.flush()]
        if failed:
            raise AuditError(f"audit events still wait: {', '.join(failed)} failed")

    def close(self) -> None:
        try:
            self.flush()
        finally:
            for channel in self._channels:
                channel.sink.close()

    def _token(self, resource: Resource) -> str | None:
        return None if self.resource_tokens is None else self.resource_tokens.token(resource)

    def deliver(self, event: AuditEvent, sealing: bool, error: BaseException | None = None) -> None:
        try:
            for channel in self._channels:
                channel.deliver(event, channel.encrypt_policy if sealing else channel.decrypt_policy)
        except AuditError:
            if error is None or isinstance(error, Exception):
                raise
            _log.exception("an interrupted use was not recorded")

    def let_wait(self, event: AuditEvent) -> None:
        for channel in self._channels:
            channel.let_wait(event)
