"""``BranchKeyStore``: branch keys in a DynamoDB table, in AWS's published layout.

``framework/branch-key-store.md`` of the AWS Encryption SDK specification; tables are shared with
AWS's libraries in every language. Creation and rotation are one transaction each, so a half-written
branch key cannot exist. See :mod:`phicrypt.keys.branch_keys.records` for the rows.

Within a process a branch key never goes back to a version that was superseded there, nor to a create-time
more than 26 hours older than the newest seen (rules 14 and 30). A rollback before the process began, or to a
version between two seen ones, is not detected;
``max_active_age_seconds`` bounds how old an ACTIVE row may be.

With a ``trail`` each operation that touches a branch key leaves a begin and an end record, the end
with every KMS call that it made. What a keyring fetches within a client's use belongs to that use.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from phicrypt.audit.events import BRANCH_KEY_FORMAT
from phicrypt.audit.trail import NO_TRAIL
from phicrypt.core.context import AuditContext, check_bindable, plain_context
from phicrypt.core.deadlines import DEADLINE_SECONDS
from phicrypt.core.key_origin import KMS_PROVIDER_ID, KeyOrigin, branch_key_origin
from phicrypt.core.kms_arn import KmsArn, configured_key_arn
from phicrypt.core.kms_calls import KmsCalls
from phicrypt.core.materials import KeyHolder
from phicrypt.core.steps import Steps, run, shell_of
from phicrypt.errors import ConfigurationError
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.keys.branch_keys.kms import BranchKeyKms, KeyDiscovery
from phicrypt.keys.branch_keys.records import PARTITION_KEY, BranchKeyRow
from phicrypt.keys.branch_keys.shredding import ShredCertificate, Shredder
from phicrypt.keys.branch_keys.steps import BranchKeySteps, process_memory
from phicrypt.keys.branch_keys.table import BranchKeyTable
from phicrypt.keys.branch_keys.values import BeaconKey, BranchKey, check_branch_key_id, check_version
from phicrypt.keys.kms.clients import KmsClients

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_kms.client import KMSClient

    from phicrypt.audit.trail import Trail
    from phicrypt.core.breaker import Breakers


@dataclass(frozen=True, slots=True)
class FailoverRegion:
    """Another Region that is asked, in order, when the ones before it do not answer.

    The table must be a global table and the KMS key a multi-Region key with a replica there. To
    revoke a multi-Region key, disable every replica.

    Attributes:
        region: the Region's name.
        dynamodb_client, kms_client: boto3 clients of that Region, with timeouts of your choice. If
            None they are made, and leave a Region that does not answer after at most 7 seconds.
    """

    region: str
    dynamodb_client: DynamoDBClient | None = None
    kms_client: KMSClient | None = None


@dataclass(slots=True)
class _Calls:
    """What is learned while an operation on a branch key runs.

    Attributes:
        calls: every KMS call that was made.
        name: the branch key's name in the event, ``<id>/<version>``. Set once the branch key is known
            to be one: an id that was only asked for may be anything, and enters as a token.
    """

    calls: KmsCalls = field(default_factory=KmsCalls)
    name: str | None = None


class BranchKeyStore(KeyHolder):
    """Creates, rotates and fetches branch keys.

    Args:
        table_name: the DynamoDB table.
        logical_name: the store's name, bound to every row; stays when a table is restored under
            another name. One logical name per table.
        kms_key_arn: the KMS key that wraps the branch keys, an ARN and no alias; or a
            :class:`KeyDiscovery`, which serves :meth:`fetch_version` only.
        multi_region: accept rows wrapped under another replica of the same multi-Region key.
        dynamodb_client, kms_client: boto3 clients, never changed; made for the key's Region, with
            short timeouts, if None.
        kms_clients: a keyring's :attr:`~phicrypt.KmsKeyring.kms_clients`, whose client or session, endpoint
            and application serve here too where no client is given.
        failover: Regions to ask in order when the ones before do not answer; only for reads, only
            with ``multi_region`` and a multi-Region key.
        max_active_age_seconds: refuse an ACTIVE row that was created longer ago than this and the 26 hours by
            which other writers' clocks may be off (rule 30); rotate in time.
        grant_tokens: KMS grant tokens, sent with each call.
        guard: checks branch key ids and custom contexts, which KMS and CloudTrail show in clear.
        trail: gets a begin and an end record of each creation, rotation, fetch and shred; what
            cannot be recorded is not done. A client's own uses go to the client's trail.
        deadline_seconds: how long a use waits for branch keys, of the table and of KMS together, whatever the
            clients' own timeouts are; None is that of ``kms_clients``, else 10. A write that has begun is
            waited for.

    Attributes:
        table_name, logical_name: as given.
        kms_key_arn: the pinned KMS key; None with discovery.
        steps: the work of the methods below without calls and records, for other drivers.

    Safe to share among threads and after a fork. Raises ConfigurationError.
    """

    def __init__(
        self,
        table_name: str,
        logical_name: str,
        kms_key_arn: str | KeyDiscovery,
        *,
        dynamodb_client: DynamoDBClient | None = None,
        kms_client: KMSClient | None = None,
        kms_clients: KmsClients | None = None,
        multi_region: bool = False,
        failover: Sequence[FailoverRegion] = (),
        max_active_age_seconds: float | None = None,
        grant_tokens: Sequence[str] = (),
        guard: PhiGuard | None = None,
        trail: Trail | None = None,
        deadline_seconds: float | None = None,
    ) -> None:
        if not table_name or not logical_name:
            raise ConfigurationError("a branch key store has a table_name and a logical_name")
        if max_active_age_seconds is not None and not max_active_age_seconds > 0:
            raise ConfigurationError("max_active_age_seconds is above 0")
        key = _checked_key(kms_key_arn, multi_region=multi_region, failover=failover)
        self.table_name = table_name
        self.logical_name = logical_name
        self.kms_key_arn = None if isinstance(key, KeyDiscovery) else str(key)
        self._guard = guard or PhiGuard()
        self._trail = trail or NO_TRAIL
        clients, deadline = _waited_for(kms_client, kms_clients, deadline_seconds)
        region = key.region
        self._table = BranchKeyTable(
            table_name,
            [(region, dynamodb_client), *((one.region, one.dynamodb_client) for one in failover)],
            kms_clients,
            deadline,
        )
        self._kms = BranchKeyKms(
            key,
            multi_region=multi_region,
            clients=clients,
            failover=[(one.region, one.kms_client) for one in failover],
            grant_tokens=tuple(grant_tokens),
            deadline_seconds=deadline,
        )
        account = key.account_ids if isinstance(key, KeyDiscovery) else (key.account, key.resource_id)
        # What two objects must have in common to be about the same rows, whatever Region they ask.
        self._scope = (table_name, logical_name, key.partition, account)
        self.steps = BranchKeySteps(self._table, self._kms, logical_name, self._scope, max_active_age_seconds)
        self._identity = (
            "branch-key-store",
            *self._scope,
            region,
            multi_region,
            tuple(hashlib.sha256(token.encode()).digest() for token in grant_tokens),
            max_active_age_seconds,
            self._kms.authority,
        )

    def __repr__(self) -> str:
        return f"<BranchKeyStore {self.table_name!r}, logical name {self.logical_name!r}>"

    @property
    def identity(self) -> Hashable:
        return self._identity

    @property
    def kms_clients(self) -> KmsClients:
        """The AWS side of the store's first Region, for others to use."""
        return self._kms.clients

    @property
    def breakers(self) -> tuple[Breakers, ...]:
        """Those of the table and of KMS, of each Region."""
        return (self._table.breakers, *self._kms.breakers)

    def create_table(self, *, deletion_protection: bool = True) -> str:
        """Create the table, or check the one that exists; its ARN. Waits until it is active.

        Losing the table loses everything that its branch keys protect: deletion protection is on
        unless it is switched off here, and a replica or backup is yours to choose (both delay what
        :meth:`shred` achieves).
        """
        return self._table.ensure_created(deletion_protection=deletion_protection)

    def create_key(
        self, branch_key_id: str | None = None, context: Mapping[str, str] | AuditContext | None = None
    ) -> str:
        """Create a branch key with its first version and its beacon key; the id.

        Args:
            branch_key_id: an opaque id, a random UUID if None. Stands in clear in CloudTrail.
            context: pairs bound to the key for good, in clear in CloudTrail as well.

        Raises KeyAccessError where the id exists or was shredded (codes ``BranchKeyExists`` and
        ``BranchKeyShredded``), PhiInContextError, ConfigurationError.
        """
        self._kms.pinned("create_key")
        branch_key_id = check_branch_key_id(branch_key_id if branch_key_id is not None else str(uuid.uuid4()))
        with self._recorded("create-branch-key", branch_key_id) as use:
            custom_context = plain_context(context)
            check_bindable(custom_context)
            self._guard.check({PARTITION_KEY: branch_key_id, **custom_context}, where="branch key")
            version = run(self.steps.create(branch_key_id, custom_context, use.calls))
            use.name = f"{branch_key_id}/{version}"
        return branch_key_id

    def rotate(self, branch_key_id: str) -> str:
        """Make a new version the active one; its UUID. Older versions go on decrypting.

        The ACTIVE row is authenticated by KMS first and replaced on the condition that it is still
        the same. Raises KeyAccessError; with code ``BranchKeyChanged`` where another rotation won.
        """
        self._kms.pinned("rotate")
        with self._recorded("rotate-branch-key", check_branch_key_id(branch_key_id)) as use:
            version = run(self.steps.rotate(branch_key_id, use.calls))
            use.name = f"{branch_key_id}/{version}"
        return version

    @shell_of("steps.active")
    def fetch_active(self, branch_key_id: str) -> BranchKey:
        """The version that encrypts now. Raises KeyAccessError, ConfigurationError with discovery."""
        self._kms.pinned("fetch_active")
        return self._fetched(branch_key_id, self.steps.active)

    @shell_of("steps.version")
    def fetch_version(self, branch_key_id: str, version: str) -> BranchKey:
        """One version, by its UUID. Raises KeyAccessError."""
        check_version(version)
        return self._fetched(branch_key_id, self.steps.version, version)

    def _fetched(self, branch_key_id: str, fetch: Callable[..., Steps[BranchKey]], *version: str) -> BranchKey:
        with self._recorded("fetch-branch-key", check_branch_key_id(branch_key_id)) as use:
            branch_key = run(fetch(branch_key_id, *version, calls=use.calls))
            use.name = f"{branch_key_id}/{branch_key.version}"
        return branch_key

    def fetch_beacon_key(self, branch_key_id: str) -> BeaconKey:
        """The beacon key. Raises KeyAccessError, ConfigurationError with discovery."""
        self._kms.pinned("fetch_beacon_key")
        with self._recorded("fetch-beacon-key", check_branch_key_id(branch_key_id)) as use:
            beacon_key = run(self.steps.beacon_key(branch_key_id, use.calls))
            use.name = f"{branch_key_id}/beacon"
        return beacon_key

    def shred(self, branch_key_id: str, *, dry_run: bool = False) -> ShredCertificate:
        """Delete every row of a branch key, for good; repeat it after an interruption.

        Args:
            branch_key_id: whose rows are deleted; the id is never created again.
            dry_run: change nothing; say what would be deleted and what else holds it.

        The certificate says *rows deleted* and from which date nothing that DynamoDB keeps holds
        them (:mod:`phicrypt.keys.branch_keys.shredding`). Raises KeyAccessError.
        """
        self._kms.pinned("shred")
        shredder = Shredder(self._table, self.logical_name, self.steps.tell_keyrings)
        check_branch_key_id(branch_key_id)
        if dry_run:
            return shredder.plan(branch_key_id)
        with self._recorded("shred-branch-key", branch_key_id) as use:
            certificate = shredder.shred(branch_key_id)
            use.name = branch_key_id
        return certificate

    def list_keys(self) -> list[BranchKeyRow]:
        """The ACTIVE row or the tombstone of every branch key, by id: a scan of the table, not authenticated."""
        return self._table.list_keys()

    def list_rows(self, branch_key_id: str) -> list[BranchKeyRow]:
        """Every row of one branch key, the newest first; not authenticated."""
        return self._table.list_rows(check_branch_key_id(branch_key_id))

    def on_purge(self, forget: Callable[[str], None]) -> None:
        """Have the bound method ``forget(branch_key_id)`` called after each rotation and shred.

        Called for every store object of this process that is about the same rows; held weakly.
        """
        process_memory.add_holder(self._scope, forget)

    @contextmanager
    def _recorded(self, operation: str, branch_key_id: str) -> Iterator[_Calls]:
        """One use of a branch key, on record with its calls. Raises AuditError: then nothing is done."""
        made = _Calls()
        resource = ("branch-key", self.logical_name, branch_key_id)
        with self._trail.recorded(operation, format=BRANCH_KEY_FORMAT, resource=resource) as use:
            try:
                yield made
            finally:
                origin = made.calls.origin
                if origin is None and self.kms_key_arn is not None:
                    origin = KeyOrigin(KMS_PROVIDER_ID, self.kms_key_arn)
                use.origin = origin if made.name is None else branch_key_origin(made.name, origin)


def _waited_for(
    kms_client: KMSClient | None, kms_clients: KmsClients | None, deadline_seconds: float | None
) -> tuple[KmsClients | None, float]:
    """KMS clients, and how long they and the table are waited for: as given, else as lent."""
    if deadline_seconds is None:
        deadline_seconds = kms_clients.deadline_seconds if kms_clients is not None else DEADLINE_SECONDS
    if kms_client is not None:
        kms_clients = KmsClients(client=kms_client, deadline_seconds=deadline_seconds)
    return kms_clients, deadline_seconds


def _checked_key(
    kms_key_arn: str | KeyDiscovery, *, multi_region: bool, failover: Sequence[FailoverRegion]
) -> KmsArn | KeyDiscovery:
    if isinstance(kms_key_arn, KeyDiscovery):
        if multi_region or failover:
            raise ConfigurationError("multi_region and failover need a pinned KMS key ARN; discovery has a region")
        return kms_key_arn
    key = configured_key_arn(kms_key_arn)
    if failover and not (multi_region and key.is_multi_region):
        raise ConfigurationError("failover needs multi_region=True and a multi-Region KMS key (mrk-…)")
    regions = [key.region, *(one.region for one in failover)]
    if len(set(regions)) != len(regions):
        raise ConfigurationError(f"failover names Regions other than the first one, each once; {regions} came")
    return key
