"""Reads the settings of keys, buckets and tables. No judgement here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from phicrypt.posture.declaration import BucketDeclaration, KeyDeclaration, TableDeclaration
from phicrypt.posture.reading.answers import (
    acl_grants,
    convert,
    is_public,
    member,
    object_ownership,
    statements,
    table_tags,
)
from phicrypt.posture.reading.aws_account import AwsAccount
from phicrypt.posture.reading.settings import (
    Answer,
    BackupSelection,
    BucketSettings,
    KeySettings,
    Question,
    TableSettings,
    questions_of,
)
from phicrypt.posture.rules.findings import Unread
from phicrypt.posture.rules.kms import rotates_automatically


def _answer(question: Question, ask: Callable[..., Answer]) -> Answer:
    absent = (question.absent_code,) if question.absent_code else ()
    answer = ask(question.operation, question.permission, *absent)
    return member(answer, question.member) if question.member else answer


def read_key(account: AwsAccount, declared: KeyDeclaration) -> KeySettings:
    """A KMS key, in its own Region."""

    def ask(operation: str, permission: str, *absent: str, **parameters: Any) -> Answer:
        return account.ask(
            "kms", operation, permission, region=declared.region, absent=absent, KeyId=declared.arn, **parameters
        )

    simple = {name: _answer(question, ask) for name, question in questions_of(KeySettings).items()}
    metadata = simple["metadata"]
    rotation: Answer = {}
    if isinstance(metadata, Unread) or rotates_automatically(metadata):
        rotation = ask("get_key_rotation_status", "kms:GetKeyRotationStatus", "UnsupportedOperationException")
    second: Answer = {}
    if declared.second_key is not None:
        second = member(
            account.ask(
                "kms",
                "describe_key",
                "kms:DescribeKey on the second key",
                region=declared.second_key.split(":")[3],
                absent=("NotFoundException",),
                KeyId=declared.second_key,
            ),
            "KeyMetadata",
        )
    return KeySettings(
        declared=declared,
        rotation=rotation,
        policy=statements(ask("get_key_policy", "kms:GetKeyPolicy", PolicyName="default"), "Policy"),
        grants=account.ask_all(
            "kms", "list_grants", "kms:ListGrants", "Grants", region=declared.region, KeyId=declared.arn
        ),
        second_key=second,
        **simple,
    )


def read_bucket(account: AwsAccount, declared: BucketDeclaration, *, home_region: str) -> BucketSettings:
    """An S3 bucket, in whatever Region it lives."""
    owner: dict[str, Any] = {"ExpectedBucketOwner": declared.account} if declared.account else {}
    head = account.ask("s3", "head_bucket", "s3:ListBucket", region=home_region, Bucket=declared.name, **owner)
    region = home_region if isinstance(head, Unread) else str(head.get("BucketRegion") or home_region)

    def ask(operation: str, permission: str, *absent: str) -> Answer:
        if isinstance(head, Unread) and head.is_gone:
            return head
        return account.ask(
            "s3", operation, permission, region=region, absent=absent, Bucket=declared.name, **owner
        )

    policy = ask("get_bucket_policy", "s3:GetBucketPolicy", "NoSuchBucketPolicy")
    status: Answer = {}
    if isinstance(policy, Unread) or policy:
        status = ask("get_bucket_policy_status", "s3:GetBucketPolicyStatus", "NoSuchBucketPolicy")
    controls = ask(
        "get_bucket_ownership_controls", "s3:GetBucketOwnershipControls", "OwnershipControlsNotFoundError"
    )
    ownership = convert(controls, object_ownership)
    # With ownership enforced, S3 has switched ACLs off.
    acl: Answer = {} if ownership == "BucketOwnerEnforced" else ask("get_bucket_acl", "s3:GetBucketAcl")
    is_asked = {"object_lock": declared.audit, "replication": declared.replicated}
    simple = {
        name: _answer(question, ask) if is_asked.get(name, True) else {}
        for name, question in questions_of(BucketSettings).items()
    }
    return BucketSettings(
        declared=declared,
        region=region,
        partition=account.partition(),
        policy=statements(policy),
        policy_json="" if isinstance(policy, Unread) else str(policy.get("Policy", "")),
        policy_is_public=convert(status, is_public),
        acl_grants=convert(acl, acl_grants),
        ownership=ownership,
        **simple,
    )


def read_table(
    account: AwsAccount,
    declared: TableDeclaration,
    account_id: str,
    selections: tuple[BackupSelection, ...] | Unread,
    *,
    home_region: str,
) -> TableSettings:
    """A DynamoDB table; tags are read only where a backup selection could ask for them."""
    region = declared.region or home_region

    def ask(operation: str, permission: str, *absent: str, **parameters: Any) -> Answer:
        return account.ask("dynamodb", operation, permission, region=region, absent=absent, **parameters)

    described = member(ask("describe_table", "dynamodb:DescribeTable", TableName=declared.name), "Table")
    nothing = TableSettings(
        declared,
        region,
        account_id,
        described,
        policy=(),
        tags={},
        selections=selections,
        partition=account.partition(),
        **{name: {} for name in questions_of(TableSettings)},
    )
    if isinstance(described, Unread) and described.is_gone:
        return nothing
    tags: Answer = {}
    if selections and not isinstance(selections, Unread):
        tags = ask("list_tags_of_resource", "dynamodb:ListTagsOfResource", ResourceArn=nothing.resource)
    policy = ask(
        "get_resource_policy",
        "dynamodb:GetResourcePolicy",
        "PolicyNotFoundException",
        ResourceArn=nothing.resource,
    )
    simple: dict[str, Any] = {
        name: _answer(question, partial(ask, TableName=declared.name))
        for name, question in questions_of(TableSettings).items()
    }
    return replace(nothing, policy=statements(policy), tags=convert(tags, table_tags), **simple)


def read_backup_selections(account: AwsAccount, region: str) -> tuple[BackupSelection, ...] | Unread:
    """Every selection of every AWS Backup plan of a Region."""
    plans = account.ask_all(
        "backup", "list_backup_plans", "backup:ListBackupPlans", "BackupPlansList", region=region
    )
    if isinstance(plans, Unread):
        return plans
    found = []
    for plan in plans:
        listed = account.ask_all(
            "backup",
            "list_backup_selections",
            "backup:ListBackupSelections",
            "BackupSelectionsList",
            region=region,
            BackupPlanId=plan["BackupPlanId"],
        )
        if isinstance(listed, Unread):
            return listed
        for entry in listed:
            answer = account.ask(
                "backup",
                "get_backup_selection",
                "backup:GetBackupSelection",
                region=region,
                BackupPlanId=plan["BackupPlanId"],
                SelectionId=entry["SelectionId"],
            )
            if isinstance(answer, Unread):
                return answer
            found.append(BackupSelection(plan.get("BackupPlanName", ""), answer.get("BackupSelection", {})))
    return tuple(found)
