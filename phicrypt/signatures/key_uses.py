"""What signatures and MACs have in common: the one event of each use of a key, and what a session lends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicrypt.audit.events import SIGNATURE_FORMAT
from phicrypt.audit.trail import NO_TRAIL, Trail, Use
from phicrypt.keys.kms.clients import KmsClients

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient

    from phicrypt.core.key_origin import KeyOrigin
    from phicrypt.guard.phi_guard import PhiGuard
    from phicrypt.session import Session


def key_use(
    trail: Trail, operation: str, resource: str, *, origin: KeyOrigin | None = None, cache_hit: bool | None = None
) -> Use:
    """``with key_use(trail, "sign", resource) as use:`` is one use of a key, and leaves one event.

    The resource's name enters the trail as a token only (rule 23). Raises AuditError if nobody acts where an
    actor is required, and at the end if the event cannot be written.
    """
    return trail.recorded(
        operation,
        format=SIGNATURE_FORMAT,
        resource=("signed", resource),
        origin=origin,
        cache_hit=cache_hit,
        sealing=True,
        at_once=True,
    )


def lent(
    phi_session: Session | None, client: KMSClient | None, guard: PhiGuard | None, trail: Trail | None
) -> tuple[KmsClients, PhiGuard | None, Trail]:
    """KMS clients, guard and trail: as given, else the session's and those of its keyring, else none."""
    if phi_session is None:
        return KmsClients(client=client), guard, trail or NO_TRAIL
    clients: KmsClients | None = None
    if client is None:
        clients = phi_session.kms_clients
    return clients or KmsClients(client=client), guard or phi_session.guard, trail or phi_session.trail
