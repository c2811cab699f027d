"""Break-glass: opening messages by their emergency recipient, under a role of its own, on record.

Messages that are to be opened so carry a second encrypted data key for an RSA key in KMS
(:class:`phicrypt.keys.kms.rsa_keyring.KmsRsaKeyring`, rule 16). Only the emergency role may call Decrypt with
it. A grant here leaves a record when it opens and when it closes, and each use under it carries its
id; ``phicrypt audit break-glass`` lists what awaits review.

The expiry that is checked here is advice: whoever holds the role's credentials can go on without
phicrypt. What enforces it is the session's duration, or a condition in the key's policy.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Required, TypedDict, Unpack

from phicrypt.audit.acting import acting_as
from phicrypt.audit.events import AuditEvent, Kind, Outcome, Purpose, describe_error
from phicrypt.audit.trail import AuditTrail
from phicrypt.core.context import AnyContext
from phicrypt.core.materials import Keyring
from phicrypt.core.streams import ReadableStream, WritableStream
from phicrypt.errors import AuditError, ConfigurationError, UnsupportedOperationError
from phicrypt.formats.esdk.frames import Buffer
from phicrypt.formats.esdk.summary import MessageSummary
from phicrypt.guard.bound_contexts import Context
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.keys.kms.clients import KmsClients
from phicrypt.keys.kms.rsa_keyring import KmsRsaKeyring
from phicrypt.keys.raw_rsa import RawRsaKeyring
from phicrypt.messages.streams import DecryptingReader
from phicrypt.messages.verbs import MessageClient
from phicrypt.session import Session

if TYPE_CHECKING:
    from boto3 import Session as Boto3Session
    from mypy_boto3_kms.client import KMSClient

MAX_EXPIRY_SECONDS: Final = 12 * 3_600
_MIN_REASON_LENGTH: Final = 10
_MAX_REASON_LENGTH: Final = 1_000


class Demands(TypedDict, total=False):
    """What is demanded of a message, as of :meth:`phicrypt.PhiCrypt.decrypt`."""

    context: Required[Context | AnyContext]
    require_signed: bool
    allow_uncommitted: bool
    required_context: Iterable[str] | None


class BreakGlass:
    """What a grant allows: to decrypt, until it expires. Made by :func:`break_glass` only.

    Its methods are those of :class:`phicrypt.PhiCrypt`. After the grant has expired or its block has ended,
    each raises UnsupportedOperationError before any key is used; a reader that was opened before goes on.

    Attributes:
        grant_id: stands in every event under the grant.
        expires_at: by the clock of :func:`break_glass`, in seconds.
        uses: how many messages were opened or inspected so far.
    """

    def __init__(
        self, opener: MessageClient, grant_id: str, actor: str, expires_at: float, clock: Callable[[], float]
    ) -> None:
        self._opener = opener
        self._actor = actor
        self._clock = clock
        self._is_open = True
        self.grant_id = grant_id
        self.expires_at = expires_at
        self.uses = 0

    def __repr__(self) -> str:
        return f"<BreakGlass {self.grant_id!r}>"

    def decrypt(self, message: Buffer, **demands: Unpack[Demands]) -> bytes:
        """The plaintext of a message, as :meth:`phicrypt.PhiCrypt.decrypt` gives it."""
        with self._use() as opener:
            return opener.decrypt(message, **demands)

    def decrypt_stream(self, source: ReadableStream, sink: WritableStream, **demands: Unpack[Demands]) -> int:
        """Decrypt a source into a sink, as :meth:`phicrypt.PhiCrypt.decrypt_stream` does; the bytes written."""
        with self._use() as opener:
            return opener.decrypt_stream(source, sink, **demands)

    def decrypting_reader(self, source: ReadableStream, **demands: Unpack[Demands]) -> DecryptingReader:
        """A reader of the plaintext, as :meth:`phicrypt.PhiCrypt.decrypting_reader` gives it."""
        with self._use() as opener:
            return opener.decrypting_reader(source, **demands)

    def inspect(self, message: Buffer | ReadableStream) -> MessageSummary:
        """What a message says about itself, as :meth:`phicrypt.PhiCrypt.inspect` tells it."""
        with self._use() as opener:
            return opener.inspect(message)

    @contextmanager
    def _use(self) -> Iterator[MessageClient]:
        if not self._is_open or self._clock() >= self.expires_at:
            raise UnsupportedOperationError(
                "the break-glass grant has expired or was closed; ask for a new one, with its reason"
            )
        self.uses += 1
        with acting_as(self._actor, Purpose.EMERGENCY, break_glass=self.grant_id):
            yield self._opener


@contextmanager
def break_glass(
    phi_session: Session,
    *,
    actor: str,
    reason: str,
    expires_in_seconds: int,
    session: Boto3Session | None = None,
    client: KMSClient | None = None,
    keyring: Keyring | None = None,
    principal: str | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[BreakGlass]:
    """Open messages through their break-glass recipient, on record: ``with … as grant: grant.decrypt(…)``.

    Args:
        phi_session: a client's, with the audit trail, without which there is no break-glass, and the RSA
            recipient among its keyrings. Its guard and bounds hold under the grant too: what it opens,
            the grant opens.
        actor: who breaks the glass.
        reason: why, 10 to 1,000 characters. It stands in the audit log: no PHI.
        expires_in_seconds: until when, at most twelve hours.
        session, client: a boto3 session or KMS client of the emergency role.
        keyring: the emergency recipient's keyring, in place of the RSA recipient that is found.
        principal: ARN of the emergency role, which the join with CloudTrail requires to be equal there.
            Without it, uses under a ``session`` or ``client`` are at most *probable* (rule 22).

    Nothing is cached under the grant. Raises ConfigurationError without a sufficient reason, actor,
    expiry or recipient, PhiInContextError for a reason that looks like PHI, AuditError if the trail
    cannot be written: then nothing is opened.
    """
    phi_session = getattr(phi_session, "session", phi_session)  # whoever calls with a client means its session
    trail = phi_session.trail
    if not isinstance(trail, AuditTrail):
        raise AuditError("break-glass needs an audit trail: pass audit=[…] to PhiCrypt")
    if not isinstance(reason, str) or not _MIN_REASON_LENGTH <= len(reason.strip()) <= _MAX_REASON_LENGTH:
        raise ConfigurationError(
            f"break-glass needs a reason of {_MIN_REASON_LENGTH} to {_MAX_REASON_LENGTH} characters"
        )
    if isinstance(expires_in_seconds, bool) or not 0 < expires_in_seconds <= MAX_EXPIRY_SECONDS:
        raise ConfigurationError(f"expires_in_seconds is between 1 and {MAX_EXPIRY_SECONDS:,}")
    if principal is not None or session is not None or client is not None:
        trail = copy.copy(trail)  # the same sinks, for calls under other credentials
        trail.principal = principal
    emergency = keyring or _emergency_keyring(phi_session, session, client)
    PhiGuard().check({"reason": reason}, where="break-glass reason")
    guard = phi_session.guard
    if guard is not None and guard.mode == "refuse":  # it may know the house's own record numbers
        guard.check({"reason": reason}, where="break-glass reason")
    grant_id = trail.next_use_id()
    # What it opens was bound under the daily keyrings: what the guard had hashed there is hashed here as well.
    opened_under = replace(phi_session.under(emergency, trail=trail), contexts=phi_session.contexts)
    opener = MessageClient(opened_under)
    terms = {"reason": reason, "expires_in_seconds": expires_in_seconds}
    with acting_as(actor, Purpose.EMERGENCY, break_glass=grant_id):
        trail.write(_event(trail, Kind.BREAK_GLASS_OPEN, grant_id, actor, **terms))
    grant = BreakGlass(opener, grant_id, actor, clock() + expires_in_seconds, clock)
    failure: BaseException | None = None
    try:
        yield grant
    except BaseException as error:
        failure = error
        raise
    finally:
        grant._is_open = False
        _, error_name, _ = describe_error(failure)
        closing = _event(trail, Kind.BREAK_GLASS_CLOSE, grant_id, actor, uses=grant.uses)
        trail.write(closing._replace(error=error_name))


def record_review(trail: AuditTrail, grant_id: str, *, reviewer: str, note: str = "") -> None:
    """Write that a grant was reviewed, and by whom. Raises AuditError, ConfigurationError, PhiInContextError."""
    PhiGuard().check({"note": note}, where="review note")
    with acting_as(reviewer):
        trail.write(_event(trail, Kind.BREAK_GLASS_REVIEW, grant_id, reviewer, note=note[:_MAX_REASON_LENGTH]))


def _emergency_keyring(phi_session: Session, session: Boto3Session | None, client: KMSClient | None) -> Keyring:
    """The RSA recipient among the keyrings, with the emergency role's session or client."""
    joined = list(_all_of(phi_session.provider.keyring))
    recipients = [one for one in joined if isinstance(one, KmsRsaKeyring)]
    if not recipients and any(isinstance(one, RawRsaKeyring) for one in joined):
        raise ConfigurationError(
            "the emergency recipient is a RawRsaKeyring: pass keyring=RawRsaKeyring(…, private_key=…), "
            "with the key or the device that holds it; daily clients have its public key only"
        )
    if len(recipients) != 1:
        raise ConfigurationError(
            f"break-glass needs one KmsRsaKeyring among the keyrings, there are {len(recipients)}: write messages "
            "for MultiKeyring(…, KmsRsaKeyring(key_arn, public_key=…)), or pass keyring="
        )
    if session is None and client is None:
        return recipients[0]
    place = recipients[0].kms_clients or phi_session.kms_clients or KmsClients()
    return recipients[0].opening_with(place.under_role(session=session, client=client))


def _all_of(keyring: Keyring) -> Iterator[Keyring]:
    """The keyring, and whatever it joins, however deep."""
    yield keyring
    for joined in getattr(keyring, "keyrings", ()):
        yield from _all_of(joined)


def _event(trail: AuditTrail, kind: str, grant_id: str, actor: str, **detail: Any) -> AuditEvent:
    return AuditEvent(
        time.time_ns(),
        kind,
        f"{grant_id}-{kind.rpartition('-')[2]}",
        "break_glass",
        Outcome.SUCCESS,
        actor=actor,
        purpose=Purpose.EMERGENCY.value,
        break_glass=grant_id,
        application=trail.application,
        principal=trail.principal,
        detail=detail,
    )
