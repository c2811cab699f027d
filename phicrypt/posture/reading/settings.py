"""The settings that the rules judge, one frozen dataclass per kind of resource.

Each field holds what AWS answered, or :class:`~phicrypt.posture.rules.findings.Unread`. Nothing is inferred
while reading: an absent setting is an empty value, which is something else than an unread one.

A setting that is one answer, or one member of it, stands with its question; the reader asks it, and the
auditor's policy allows its permission::

    logging: Annotated[Answer, Question("get_bucket_logging", "s3:GetBucketLogging", member="LoggingEnabled")]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, get_type_hints

from phicrypt.posture.declaration import BucketDeclaration, KeyDeclaration, TableDeclaration
from phicrypt.posture.policies.document import Statement
from phicrypt.posture.rules.findings import Unread

Answer = Mapping[str, Any] | Unread
"""A response, or why there is none."""


@dataclass(frozen=True, slots=True)
class Question:
    """How one setting is read.

    Attributes:
        operation: boto3's method, called with the resource's own name.
        permission: what it needs, as IAM spells it.
        absent_code: the error that means that the setting is not there; none if empty.
        member: the member of the answer that is the setting; the whole answer if empty.
    """

    operation: str
    permission: str
    absent_code: str = ""
    member: str = ""


@cache
def questions_of(settings: type) -> Mapping[str, Question]:
    """The questions of a kind of settings, by the names of their fields."""
    hints = get_type_hints(settings, include_extras=True)
    annotations = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: one for name, notes in annotations.items() for one in notes if isinstance(one, Question)}


@dataclass(frozen=True, slots=True)
class KeySettings:
    """A KMS key: DescribeKey's metadata, rotation status, policy, grants, and its declared partner."""

    declared: KeyDeclaration
    metadata: Annotated[Answer, Question("describe_key", "kms:DescribeKey", member="KeyMetadata")]
    rotation: Answer
    policy: tuple[Statement, ...] | Unread
    grants: tuple[Mapping[str, Any], ...] | Unread
    second_key: Answer = field(default_factory=dict)

    @property
    def resource(self) -> str:
        return self.declared.arn

    @property
    def region(self) -> str:
        return self.declared.region


@dataclass(frozen=True, slots=True)
class BucketSettings:
    """An S3 bucket. ``policy_json`` is the policy as S3 keeps it, empty when there is none."""

    declared: BucketDeclaration
    region: str
    public_access_block: Annotated[
        Answer,
        Question(
            "get_public_access_block",
            "s3:GetBucketPublicAccessBlock",
            "NoSuchPublicAccessBlockConfiguration",
            "PublicAccessBlockConfiguration",
        ),
    ]
    policy: tuple[Statement, ...] | Unread
    policy_is_public: bool | Unread
    acl_grants: tuple[Mapping[str, Any], ...] | Unread
    encryption: Annotated[
        Answer,
        Question(
            "get_bucket_encryption",
            "s3:GetEncryptionConfiguration",
            "ServerSideEncryptionConfigurationNotFoundError",
            "ServerSideEncryptionConfiguration",
        ),
    ]
    versioning: Annotated[Answer, Question("get_bucket_versioning", "s3:GetBucketVersioning")]
    object_lock: Annotated[
        Answer,
        Question(
            "get_object_lock_configuration",
            "s3:GetBucketObjectLockConfiguration",
            "ObjectLockConfigurationNotFoundError",
            "ObjectLockConfiguration",
        ),
    ]
    logging: Annotated[Answer, Question("get_bucket_logging", "s3:GetBucketLogging", member="LoggingEnabled")]
    replication: Annotated[
        Answer,
        Question(
            "get_bucket_replication",
            "s3:GetReplicationConfiguration",
            "ReplicationConfigurationNotFoundError",
            "ReplicationConfiguration",
        ),
    ]
    ownership: str | Unread
    policy_json: str = ""
    partition: str = "aws"

    @property
    def resource(self) -> str:
        return f"arn:{self.partition}:s3:::{self.declared.name}"


@dataclass(frozen=True, slots=True)
class BackupSelection:
    """What one AWS Backup plan takes in: BackupSelection as AWS Backup returns it."""

    plan_name: str
    selection: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TableSettings:
    """A DynamoDB table, and the backup selections of its Region."""

    declared: TableDeclaration
    region: str
    account_id: str
    described: Answer
    backups: Annotated[
        Answer,
        Question(
            "describe_continuous_backups",
            "dynamodb:DescribeContinuousBackups",
            member="ContinuousBackupsDescription",
        ),
    ]
    policy: tuple[Statement, ...] | Unread
    tags: Mapping[str, str] | Unread
    selections: tuple[BackupSelection, ...] | Unread
    partition: str = "aws"

    @property
    def resource(self) -> str:
        return f"arn:{self.partition}:dynamodb:{self.region}:{self.account_id}:table/{self.declared.name}"


@dataclass(frozen=True, slots=True)
class TrailSettings:
    """A CloudTrail trail: DescribeTrails' entry, status, event selectors, and its log bucket."""

    resource: str
    region: str
    described: Answer
    status: Answer
    selectors: Answer
    log_bucket_block: Answer
    log_bucket_is_public: bool | Unread
    log_bucket_grants: tuple[Mapping[str, Any], ...] | Unread


@dataclass(frozen=True, slots=True)
class IamPolicy:
    """A customer managed policy, or an inline policy of a user, group or role."""

    arn: str
    is_inline: bool
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """What holds for the whole account: S3's account block, IAM policies, and all declared trails."""

    account_id: str
    region: str
    account_block: Answer
    iam_policies: tuple[IamPolicy, ...] | Unread
    trails: tuple[TrailSettings, ...] | Unread
    bucket_arns: tuple[str, ...] = ()
    table_arns: tuple[str, ...] = ()
    partition: str = "aws"

    @property
    def resource(self) -> str:
        return f"arn:{self.partition}:iam::{self.account_id}:root"

    @property
    def present_trails(self) -> tuple[TrailSettings, ...] | Unread:
        """The trails that were seen; unread if none was and one could not be looked for."""
        if isinstance(self.trails, Unread):
            return self.trails
        seen = tuple(trail for trail in self.trails if not isinstance(trail.described, Unread))
        unread = [t.described for t in self.trails if isinstance(t.described, Unread) and not t.described.is_gone]
        return unread[0] if unread and not seen else seen

    @property
    def selectors(self) -> tuple[Mapping[str, Any], ...] | Unread:
        """The event selectors of every trail that is there; unread as soon as one trail's are."""
        if isinstance(self.trails, Unread):
            return self.trails
        found: list[Mapping[str, Any]] = []
        for trail in self.trails:
            if not isinstance(trail.selectors, Unread):
                found.append(trail.selectors)
            elif not trail.selectors.is_gone:
                return trail.selectors
        return tuple(found)
