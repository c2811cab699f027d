"""``PhiCrypt``: one object that holds a keyring, a bounded cache, a guard and an audit trail."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from phicrypt.audit.trail import NO_TRAIL
from phicrypt.core.limits import ReadLimits
from phicrypt.core.materials import Keyring, binds_context_locally
from phicrypt.core.required_context import required_names
from phicrypt.errors import ConfigurationError
from phicrypt.formats.esdk.sealing import DEFAULT_FRAME_LENGTH_BYTES
from phicrypt.guard.bound_contexts import ContextBinding
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.keys.cache import CachePolicy
from phicrypt.keys.provider import CacheControl, MaterialsProvider
from phicrypt.messages.verbs import MessageClient
from phicrypt.session import Session

if TYPE_CHECKING:
    from boto3 import Session as Boto3Session
    from mypy_boto3_kms.client import KMSClient
    from mypy_boto3_s3.client import S3Client as AwsS3Client

    from phicrypt.audit.delivery import AuditSink, WithPolicy
    from phicrypt.audit.events import Purpose
    from phicrypt.audit.trail import AuditTrail
    from phicrypt.dynamodb.client import DynamoDb
    from phicrypt.keys.stats import KeyStats
    from phicrypt.recovery.break_glass import BreakGlass
    from phicrypt.s3.client import S3Client
    from phicrypt.s3.options import S3Settings
    from phicrypt.signatures.mac import Mac, MacSettings
    from phicrypt.signatures.signer import Signer, SignerSettings


class PhiCrypt(MessageClient):
    """Encrypts and decrypts under the keys of a keyring. Make one, share it among threads.

    Args:
        keyring: where data keys come from.
        cache: bounds on cached data keys; None calls the keyring for every message.
        audit: sinks of the audit trail, or a whole :class:`phicrypt.audit.AuditTrail`; none by default.
        application: the program's name in audit events.
        require_actor: refuse every use outside :meth:`acting_as`.
        guard: refuses contexts that look like PHI; None switches it off.
        limits: bounds on what is believed of a message that is read.
        frame_length_bytes: plaintext bytes of a frame in what is written.
        threads: how many threads seal and open the frames of one large message in memory together;
            streams use one, because files are copied no faster by several.
        partition: keeps this object's cached keys apart from another's.
        required_context: names of pairs, such as ``("patient",)``, that messages and S3 objects are bound to
            and do not store: their values stand in ``context=`` as ever, for writing and for reading. The same
            keyword of a call overrides it. **A KmsKeyring still shows them to KMS and CloudTrail**; other
            keyrings show them to nobody. ``dynamodb`` does not use it.

    Safe to share among threads; after a fork the child starts with an empty cache; cannot be copied
    or pickled, because it leads to keys. Raises ConfigurationError for a set-up that is wrong.
    """

    def __init__(
        self,
        keyring: Keyring,
        *,
        cache: CachePolicy | None = CachePolicy(),  # noqa: B008 - frozen
        audit: Iterable[AuditSink | WithPolicy] | AuditTrail = (),
        application: str | None = None,
        require_actor: bool = False,
        guard: PhiGuard | None = PhiGuard(),  # noqa: B008 - the same for all, and never changed
        limits: ReadLimits = ReadLimits(),  # noqa: B008 - frozen
        frame_length_bytes: int = DEFAULT_FRAME_LENGTH_BYTES,
        threads: int = 1,
        partition: str = "",
        required_context: Iterable[str] = (),
    ) -> None:
        if not isinstance(keyring, Keyring):
            raise ConfigurationError(
                f"a keyring was expected (KmsKeyring, HierarchicalKeyring, …), {type(keyring).__name__} came"
            )
        if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= 64:
            raise ConfigurationError("threads is a whole number from 1 to 64")
        provider = MaterialsProvider(keyring, cache, partition=partition)
        trail = _trail(audit, application, require_actor)
        contexts = ContextBinding(
            guard,
            binds_locally=binds_context_locally(keyring),
            required_context=required_names(required_context),
        )
        super().__init__(
            Session(provider, contexts, guard, trail or NO_TRAIL, limits, frame_length_bytes, threads)
        )
        self.provider = provider
        self.trail = trail
        self.guard = guard
        self.limits = limits
        self.frame_length_bytes = frame_length_bytes
        self.threads = threads
        self.contexts = contexts
        self.cache = CacheControl(provider)

    def __repr__(self) -> str:
        return f"<PhiCrypt with {self.provider.keyring!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write the audit events that still wait, and forget every cached key. Raises AuditError."""
        self.cache.clear()
        self.session.trail.close()

    def stats(self) -> KeyStats:
        """``phi.stats().endpoints``: what caches, endpoints and threads of this client's keys did so far.

        An endpoint is ``open`` while it is left alone for want of answers; ``threads.hung`` counts calls that
        go on though their callers' deadlines passed. See :class:`phicrypt.keys.stats.KeyStats`.
        """
        from phicrypt.keys.stats import key_stats

        return key_stats(self.provider)

    def flush(self) -> None:
        """Write the audit events that still wait; cached keys stay. Raises AuditError."""
        self.session.trail.flush()

    def acting_as(
        self, actor: str, purpose: Purpose | str | None = None, *, recipient: str | None = None
    ) -> AbstractContextManager[object]:
        """Uses inside the ``with`` block are recorded as this actor's, for this purpose.

        ``recipient`` is who receives what is disclosed. Threads and asyncio tasks keep their own;
        none of the three ever enters the encryption context.
        """
        from phicrypt.audit.trail import acting_as

        return acting_as(actor, purpose, recipient=recipient)

    def break_glass(
        self,
        *,
        actor: str,
        reason: str,
        expires_in_seconds: int,
        session: Boto3Session | None = None,
        client: KMSClient | None = None,
        keyring: Keyring | None = None,
        principal: str | None = None,
    ) -> AbstractContextManager[BreakGlass]:
        """Open messages through their break-glass recipient, on record; see :mod:`phicrypt.recovery`."""
        from phicrypt.recovery.break_glass import break_glass

        return break_glass(
            self.session,
            actor=actor,
            reason=reason,
            expires_in_seconds=expires_in_seconds,
            session=session,
            client=client,
            keyring=keyring,
            principal=principal,
        )

    def s3(
        self,
        client_or_session: AwsS3Client | Boto3Session | None = None,
        *,
        require_private_bucket: bool = False,
        **settings: Unpack[S3Settings],
    ) -> S3Client:
        """boto3's S3 verbs with encryption, over a boto3 client or session; see :mod:`phicrypt.s3`.

        ``require_private_bucket=True`` refuses writes to buckets that are public or take plain HTTP; the other
        settings are those of :class:`phicrypt.s3.client.S3Client`.
        """
        from phicrypt.s3.client import S3Client, raw_client

        client, write_guard = raw_client(client_or_session), None
        if require_private_bucket:
            from phicrypt.posture.write_guard import BucketWriteGuard

            write_guard = BucketWriteGuard(client)
        return S3Client(self.session, client, write_guard, **settings)

    @property
    def dynamodb(self) -> DynamoDb:
        """Items, encrypting clients and typed tables; see :mod:`phicrypt.dynamodb`.

        The client's ``required_context`` is not used there: the format has required pairs of its own.
        """
        from phicrypt.dynamodb.client import DynamoDb

        return DynamoDb(self.session)

    def signer(self, key_arn: str, **settings: Unpack[SignerSettings]) -> Signer:
        """Detached signatures and manifests under an asymmetric KMS key; see :class:`phicrypt.signatures.Signer`.

        Guard, audit trail and the keyring's KMS clients serve unless others are given.
        """
        from phicrypt.signatures.signer import Signer

        return Signer(key_arn, phi_session=self.session, **settings)

    def mac(self, key_arn: str, **settings: Unpack[MacSettings]) -> Mac:
        """Message authentication codes under a KMS HMAC key; see :class:`phicrypt.signatures.Mac`.

        Guard, audit trail and the keyring's KMS clients serve unless others are given.
        """
        from phicrypt.signatures.mac import Mac

        return Mac(key_arn, phi_session=self.session, **settings)


def _trail(
    audit: Iterable[AuditSink | WithPolicy] | AuditTrail, application: str | None, require_actor: bool
) -> AuditTrail | None:
    if not isinstance(audit, Iterable):
        return audit
    sinks = tuple(audit)
    if not sinks:
        if require_actor:
            raise ConfigurationError("require_actor=True needs an audit trail: pass audit=[…] as well")
        return None
    from phicrypt.audit.trail import AuditTrail

    return AuditTrail(sinks, application=application, require_actor=require_actor)
