"""``Session``: what every verb works on. ``PhiCrypt`` assembles one and hands it to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, Unpack

from phicrypt.core.materials import KeyHolder, Keyring, binds_context_locally
from phicrypt.guard.bound_contexts import ContextBinding
from phicrypt.keys.provider import MaterialsProvider

if TYPE_CHECKING:
    from phicrypt.audit.trail import About, Trail
    from phicrypt.audit.uses import Use
    from phicrypt.core.limits import ReadLimits
    from phicrypt.guard.phi_guard import PhiGuard
    from phicrypt.keys.kms.clients import KmsClients


class Recorded(Protocol):
    """As :meth:`phicrypt.audit.trail.Trail.recorded` is called."""

    def __call__(self, operation: str, **about: Unpack[About]) -> Use: ...


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Session(KeyHolder):
    """Keys, guard, audit trail and bounds of one client: a value that never changes.

    Attributes:
        provider: a keyring behind its cache.
        contexts: checks and guards encryption contexts, and knows which pairs are not to be stored.
        guard: refuses what looks like PHI; None lets everything pass.
        trail: records each use; :data:`phicrypt.audit.trail.NO_TRAIL` records none.
        limits: what is believed of what is read.
        frame_length_bytes: plaintext bytes of a frame in what is written.
        threads: how many seal and open one large message in memory together.
    """

    provider: MaterialsProvider
    contexts: ContextBinding
    guard: PhiGuard | None
    trail: Trail
    limits: ReadLimits
    frame_length_bytes: int
    threads: int

    def __repr__(self) -> str:
        return f"<Session with {self.provider.keyring!r}>"

    @property
    def recorded(self) -> Recorded:
        """One use of a key, on record: ``with session.recorded("decrypt", format="esdk") as use:``.

        See :meth:`phicrypt.audit.trail.Trail.recorded`.
        """
        return self.trail.recorded

    @property
    def kms_clients(self) -> KmsClients | None:
        """The AWS side of the keyring (client, boto3 session, endpoint, application), where it has one."""
        clients: KmsClients | None = getattr(self.provider.keyring, "kms_clients", None)
        return clients

    def under(self, keyring: Keyring, *, trail: Trail | None = None) -> Session:
        """The same guard, trail and bounds under another keyring, whose data keys are not cached.

        For break-glass, a change of keys, token keys and rehearsals: what is sealed gets a data key of its
        own (rule 3), and what is opened is opened anew.
        """
        contexts = self.contexts.under(binds_locally=binds_context_locally(keyring))
        provider = MaterialsProvider(keyring, None)
        return replace(self, provider=provider, contexts=contexts, trail=trail or self.trail)
