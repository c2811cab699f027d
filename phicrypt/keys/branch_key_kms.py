"""The KMS side of a branch key store: which KMS key may open a row, and the calls.

Only three operations reach KMS: GenerateDataKeyWithoutPlaintext and ReEncrypt for operators who
create and rotate, Decrypt for applications. Applications never need ``kms:Encrypt`` or
``kms:ReEncrypt*`` (rule 14).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from phicrypt.errors import ConfigurationError, KeyAccessError
from phicrypt.keys.branch_key_records import BranchKeyRecord
from phicrypt.keys.branch_keys import BRANCH_KEY_LENGTH_BYTES
from phicrypt.keys.kms_client import KmsAnswer, call_kms, kms_client, safe_kms_client

_KEY_ARN_FORM: Final = "arn:<partition>:kms:<region>:<account>:key/<id>"


class KeyArn(NamedTuple):
    """A KMS key ARN in its parts (``framework/aws-kms/aws-kms-key-arn.md``)."""

    partition: str
    region: str
    account_id: str
    key_id: str

    @property
    def is_multi_region(self) -> bool:
        return self.key_id.startswith("mrk-")

    def __str__(self) -> str:
        return f"arn:{self.partition}:kms:{self.region}:{self.account_id}:key/{self.key_id}"

    def matches(self, other: KeyArn) -> bool:
        """Equal, or replicas of one multi-Region key (``aws-kms-mrk-match-for-decrypt.md``)."""
        return self == other or (self.is_multi_region and self._replace(region=other.region) == other)


def parse_key_arn(arn: str) -> KeyArn | None:
    """The parts, or None for anything but a KMS key ARN (an alias is none)."""
    parts = arn.split(":") if isinstance(arn, str) else []
    if len(parts) != 6 or (parts[0], parts[2]) != ("arn", "kms") or not all(parts):
        return None
    kind, _, key_id = parts[5].partition("/")
    if kind != "key" or not key_id or "/" in key_id:
        return None
    return KeyArn(parts[1], parts[3], parts[4], key_id)


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

    def key_for(self, row_arn: KeyArn) -> KeyArn | None:
        """The key to call for a row, or None where the filter excludes it."""
        if row_arn.partition != self.partition or row_arn.account_id not in self.account_ids:
            return None
        if self.region is not None and row_arn.is_multi_region:
            return row_arn._replace(region=self.region)
        return row_arn


class BranchKeyKms:
    """The KMS calls of one store.

    Args:
        key: the pinned KMS key, or a discovery.
        multi_region: whether rows wrapped under another replica of the pinned key are accepted.
        clients: the first Region's client (or None), then for each failover Region its name and client.
        grant_tokens: sent with each call.
    """

    def __init__(
        self,
        key: KeyArn | KeyDiscovery,
        *,
        multi_region: bool,
        client: Any,
        failover: Sequence[tuple[str, Any]],
        grant_tokens: tuple[str, ...],
    ) -> None:
        self._key = key
        self._multi_region = multi_region
        self._given = {region: given for region, given in failover if given is not None}
        self._first_client = client
        self._failover_regions = tuple(region for region, _ in failover)
        self._grant_tokens = grant_tokens
        self._owner_pid = os.getpid()
        self._clients: dict[tuple[int, str | None], Any] = {}

    def pinned_arn(self, operation: str) -> str:
        """The pinned key; ConfigurationError with discovery, which serves ``fetch_version`` only."""
        if isinstance(self._key, KeyDiscovery):
            raise ConfigurationError(
                f"{operation} needs a BranchKeyStore with a pinned KMS key ARN: with KeyDiscovery whoever writes "
                "the table would choose the key; discovery serves fetch_version only"
            )
        return str(self._key)

    def decrypt(self, record: BranchKeyRecord) -> tuple[bytes, KmsAnswer]:
        """The branch or beacon key of a row, and the answer that held it.

        Tries the failover Regions in order, only when a Region does not answer (rule 13).
        Raises KeyAccessError.
        """
        first = self.key_for(record)
        regions = [first.region, *(region for region in self._failover_regions if region != first.region)]
        for region in regions:
            key_arn = str(first._replace(region=region))
            try:
                answer = call_kms(
                    self._client(region, is_first=region == first.region),
                    "Decrypt",
                    key_arn=key_arn,
                    KeyId=key_arn,
                    CiphertextBlob=record.wrapped_key,
                    EncryptionContext=dict(record.context),
                    GrantTokens=self._grant_tokens,
                )
            except KeyAccessError as error:
                if not error.is_outage or region == regions[-1]:
                    raise
                continue
            key_bytes = answer.response.get("Plaintext", b"")
            _check_answer(answer, key_arn, "Decrypt", length_bytes=len(key_bytes))
            return key_bytes, answer
        raise AssertionError("there is at least one Region")

    def key_for(self, record: BranchKeyRecord) -> KeyArn:
        """The key to call for a row; KeyAccessError where the row names a foreign key (rule 14)."""
        row_arn = parse_key_arn(record.kms_key_arn)
        if row_arn is not None:
            if isinstance(self._key, KeyDiscovery):
                discovered = self._key.key_for(row_arn)
                if discovered is not None:
                    return discovered
            elif self._key == row_arn or (self._multi_region and self._key.matches(row_arn)):
                return self._key
        raise KeyAccessError(
            "the branch key store's row names another KMS key than this store accepts: it was planted, or the "
            "store is configured with another key (or needs multi_region=True)",
            key_arn=None if isinstance(self._key, KeyDiscovery) else str(self._key),
            operation="Decrypt",
            code="ForeignKmsKey",
        )

    def generate(self, context: Mapping[str, str]) -> bytes:
        """A new wrapped key of 32 bytes; KMS never shows its plaintext here."""
        key_arn = self.pinned_arn("create_key")
        answer = call_kms(
            self._client(self._region(), is_first=True),
            "GenerateDataKeyWithoutPlaintext",
            key_arn=key_arn,
            KeyId=key_arn,
            NumberOfBytes=BRANCH_KEY_LENGTH_BYTES,
            EncryptionContext=dict(context),
            GrantTokens=self._grant_tokens,
        )
        _check_answer(answer, key_arn, "GenerateDataKeyWithoutPlaintext")
        wrapped_key: bytes = answer.response["CiphertextBlob"]
        return wrapped_key

    def reencrypt(
        self, wrapped_key: bytes, source_context: Mapping[str, str], destination_context: Mapping[str, str]
    ) -> bytes:
        """The same key wrapped under another context, inside KMS; also the proof that the source is genuine."""
        key_arn = self.pinned_arn("rotate")
        answer = call_kms(
            self._client(self._region(), is_first=True),
            "ReEncrypt",
            key_arn=key_arn,
            CiphertextBlob=wrapped_key,
            SourceKeyId=key_arn,
            SourceEncryptionContext=dict(source_context),
            DestinationKeyId=key_arn,
            DestinationEncryptionContext=dict(destination_context),
            GrantTokens=self._grant_tokens,
        )
        _check_answer(answer, key_arn, "ReEncrypt")
        rewrapped_key: bytes = answer.response["CiphertextBlob"]
        return rewrapped_key

    def _region(self) -> str:
        assert isinstance(self._key, KeyArn)
        return self._key.region

    def _client(self, region: str, *, is_first: bool) -> Any:
        given = self._first_client if is_first else self._given.get(region)
        # By process: a forked child must not write into its parent's connections.
        process_key = (os.getpid(), None if given is not None and is_first else region)
        client = self._clients.get(process_key)
        if client is None:
            is_child = os.getpid() != self._owner_pid
            client = kms_client(region) if given is None else safe_kms_client(given, own_connections=is_child)
            self._clients[process_key] = client
        return client


def _check_answer(answer: KmsAnswer, key_arn: str, operation: str, *, length_bytes: int | None = None) -> None:
    if answer.response.get("KeyId") != key_arn or length_bytes not in (None, BRANCH_KEY_LENGTH_BYTES):
        raise KeyAccessError(
            f"KMS answered {operation} with another key, or another length, than was asked for: expected "
            f"{_KEY_ARN_FORM} as pinned and {BRANCH_KEY_LENGTH_BYTES} bytes",
            key_arn=key_arn,
            operation=operation,
            code="UnexpectedKmsAnswer",
            request_ids=answer.request_ids,
            correlation_id=answer.correlation_id,
        )
