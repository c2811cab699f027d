"""The KMS side of a branch key store: which KMS key may open a row, and the calls.

Only three operations reach KMS: GenerateDataKeyWithoutPlaintext and ReEncrypt for operators who
create and rotate, Decrypt for applications. Applications never need ``kms:Encrypt`` or
``kms:ReEncrypt*`` (rule 14).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, Final

from phicrypt.core.deadlines import DEADLINE_SECONDS
from phicrypt.core.kms_arn import KmsArn, parse_kms_arn
from phicrypt.core.kms_calls import KmsAnswer, KmsCalls, combined_refusal
from phicrypt.core.steps import KmsRequest, Steps
from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.keys.branch_keys.records import BranchKeyRecord
from phicrypt.keys.branch_keys.values import BRANCH_KEY_LENGTH_BYTES
from phicrypt.keys.kms.answers import check_key, ciphertext_of, openings_disagree, plaintext_of, unexpected_answer
from phicrypt.keys.kms.calls import kms_client
from phicrypt.keys.kms.clients import KmsClients

if TYPE_CHECKING:
    from mypy_boto3_kms.client import KMSClient

    from phicrypt.core.breaker import Breakers

FAILOVER_CONNECT_TIMEOUT_SECONDS: Final = 1.0
FAILOVER_READ_TIMEOUT_SECONDS: Final = 2.0
FAILOVER_ATTEMPTS: Final = 2
"""With these, a Region that does not answer is left after at most 7 seconds (two attempts of 3, and a pause)."""


@dataclass(frozen=True, slots=True)
class KeyDiscovery:
    """Open rows under whichever KMS key they name, within these accounts: for ``fetch_version`` only.

    Attributes:
        account_ids: the AWS accounts whose KMS keys are accepted; at least one.
        partition: the AWS partition that is accepted.
        region: where multi-Region keys are called instead of the Region that the row names.

    Raises ConfigurationError without an account: an open discovery would use any key that whoever
    writes the table names (rule 14).
    """

    account_ids: tuple[str, ...]
    partition: str = "aws"
    region: str | None = None

    def __post_init__(self) -> None:
        accounts: object = self.account_ids
        if isinstance(accounts, str) or not self.account_ids or not all(self.account_ids):
            raise ConfigurationError("KeyDiscovery needs account_ids, a non-empty tuple of AWS account ids")
        if not self.partition:
            raise ConfigurationError("KeyDiscovery needs a partition, such as 'aws'")
        object.__setattr__(self, "account_ids", tuple(self.account_ids))

    def key_for(self, row_arn: KmsArn) -> KmsArn | None:
        """The key to call for a row, or None where the filter excludes it."""
        if row_arn.partition != self.partition or row_arn.account not in self.account_ids:
            return None
        if self.region is not None and row_arn.is_multi_region:
            return row_arn.in_region(self.region)
        return row_arn


class BranchKeyKms:
    """The KMS calls of one store, as steps; each method adds those that were made to ``calls``.

    Args:
        key: the pinned KMS key, or a discovery.
        multi_region: whether rows wrapped under another replica of the pinned key are accepted.
        clients: those of the first Region; made here if None.
        failover: for each further Region its name, and its client or None.
        grant_tokens: sent with each call.
        deadline_seconds: of clients that are made here.
    """

    def __init__(
        self,
        key: KmsArn | KeyDiscovery,
        *,
        multi_region: bool,
        clients: KmsClients | None,
        failover: Sequence[tuple[str, KMSClient | None]],
        grant_tokens: tuple[str, ...],
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._key = key
        self._multi_region = multi_region
        self._grant_tokens = list(grant_tokens)
        make = partial(_impatient_client, like=clients or KmsClients()) if failover else None
        self.clients = clients or KmsClients(client_factory=make, deadline_seconds=deadline_seconds)
        self._failover = tuple(
            (region, KmsClients(client=given, client_factory=None if given is not None else make))
            for region, given in failover
        )
        for region, clients in self._all_clients():
            clients.check_region(region)

    @property
    def authority(self) -> Hashable:
        """Equal for equal credentials only (rule 11)."""
        return (self.clients.authority, *(clients.authority for _, clients in self._failover))

    @property
    def breakers(self) -> tuple[Breakers, ...]:
        """Those of each Region's clients."""
        return (self.clients.breakers, *(clients.breakers for _, clients in self._failover))

    def _all_clients(self) -> tuple[tuple[str, KmsClients], ...]:
        first = () if isinstance(self._key, KeyDiscovery) else ((self._key.region, self.clients),)
        return (*first, *self._failover)

    def pinned(self, operation: str) -> KmsArn:
        """The pinned key; ConfigurationError with discovery, which serves ``fetch_version`` only."""
        if isinstance(self._key, KeyDiscovery):
            raise ConfigurationError(
                f"{operation} needs a BranchKeyStore with a pinned KMS key ARN: with KeyDiscovery whoever writes "
                "the table would choose the key; discovery serves fetch_version only"
            )
        return self._key

    def decrypt(self, record: BranchKeyRecord, calls: KmsCalls) -> Steps[bytes]:
        """The branch or beacon key of a row.

        Tries the failover Regions in order, only when a Region does not answer (rule 13).
        Raises KeyAccessError.
        """
        first = self.key_for(record)
        self.clients.check_region(first.region)
        refusals: list[KeyAccessError] = []
        for region, clients in ((first.region, self.clients), *self._failover):
            key = first.in_region(region)
            try:
                answer = yield from self._ask(
                    calls,
                    "Decrypt",
                    key,
                    clients,
                    KeyId=str(key),
                    CiphertextBlob=record.wrapped_key,
                    EncryptionContext=dict(record.context),
                )
            except KeyAccessError as refusal:
                refusals.append(refusal)
                if not refusal.another_region_may_serve:
                    break
                continue
            return plaintext_of(answer, "Decrypt", key, BRANCH_KEY_LENGTH_BYTES)
        # A refusal says more than an outage, so it goes first and gives the error its code.
        raise combined_refusal(sorted(refusals, key=lambda refusal: refusal.is_outage))

    def decrypt_twice(self, record: BranchKeyRecord, calls: KmsCalls) -> Steps[bytes]:
        """:meth:`decrypt` of a row that has no second row: by two separate calls that agree (rule 28).

        A changed bit in one answer would otherwise seal, or search, under a key that nobody has.
        """
        for _ in range(2):
            first = yield from self.decrypt(record, calls)
            second = yield from self.decrypt(record, calls)
            if compare_digest(first, second):
                return second
        raise openings_disagree("Decrypt", self.key_for(record), "one row of the branch key store")

    def key_for(self, record: BranchKeyRecord) -> KmsArn:
        """The key to call for a row; KeyAccessError where the row names a foreign key (rule 14)."""
        row_arn = parse_kms_arn(record.kms_key_arn)
        if row_arn is not None and row_arn.resource_type == "key":
            if isinstance(self._key, KeyDiscovery):
                discovered = self._key.key_for(row_arn)
                if discovered is not None:
                    return discovered
            elif self._key == row_arn or (self._multi_region and self._key.is_same_key_as(row_arn)):
                return self._key
        raise KeyAccessError(
            "the branch key store's row names another KMS key than this store accepts: it was planted, or the "
            "store is configured with another key (or needs multi_region=True)",
            key_arn=None if isinstance(self._key, KeyDiscovery) else str(self._key),
            operation="Decrypt",
            code="ForeignKmsKey",
        )

    def generate(self, context: Mapping[str, str], calls: KmsCalls) -> Steps[bytes]:
        """A new wrapped key of 32 bytes; KMS never shows its plaintext here."""
        key = self.pinned("create_key")
        answer = yield from self._ask(
            calls,
            "GenerateDataKeyWithoutPlaintext",
            key,
            self.clients,
            KeyId=str(key),
            NumberOfBytes=BRANCH_KEY_LENGTH_BYTES,
            EncryptionContext=dict(context),
        )
        return ciphertext_of(answer, "GenerateDataKeyWithoutPlaintext", key)

    def authenticate(self, record: BranchKeyRecord, calls: KmsCalls) -> Steps[bytes]:
        """Let KMS prove a row without showing its key; KeyAccessError where it is foreign or was changed."""
        self.key_for(record)
        return (yield from self.reencrypt(record.wrapped_key, record.context, record.context, calls))

    def reencrypt(
        self,
        wrapped_key: bytes,
        source_context: Mapping[str, str],
        destination_context: Mapping[str, str],
        calls: KmsCalls,
    ) -> Steps[bytes]:
        """The same key wrapped under another context, inside KMS."""
        key = self.pinned("rotate")
        answer = yield from self._ask(
            calls,
            "ReEncrypt",
            key,
            self.clients,
            CiphertextBlob=wrapped_key,
            SourceKeyId=str(key),
            SourceEncryptionContext=dict(source_context),
            DestinationKeyId=str(key),
            DestinationEncryptionContext=dict(destination_context),
        )
        if answer.response.get("SourceKeyId") != str(key):
            raise unexpected_answer("ReEncrypt", key, "the answer names another source key", answer)
        return ciphertext_of(answer, "ReEncrypt", key)

    def _ask(
        self, calls: KmsCalls, operation: str, key: KmsArn, clients: KmsClients, **parameters: Any
    ) -> Steps[KmsAnswer]:
        with_grants = {"GrantTokens": self._grant_tokens, **parameters}
        try:
            answer: KmsAnswer = yield KmsRequest(key.region, operation, with_grants, clients)
        except KeyAccessError as refusal:
            calls.add_refusals([refusal])
            raise
        # Before its answer is judged: the call was made, and CloudTrail shows it.
        calls.add_answer(answer, operation, key)
        check_key(answer, operation, key)
        return answer


def _impatient_client(region: str, like: KmsClients) -> KMSClient:
    """A client that gives up soon, because another Region is waiting to be asked.

    With the credentials, the local stack and the application of the first Region's, where they can be lent.
    """
    return kms_client(
        region,
        session=like.boto3_session,
        endpoint_url=like.local_endpoint_url,
        application=like.application,
        connect_timeout_seconds=FAILOVER_CONNECT_TIMEOUT_SECONDS,
        read_timeout_seconds=FAILOVER_READ_TIMEOUT_SECONDS,
        max_attempts=FAILOVER_ATTEMPTS,
    )
