"""Every rule of the doctor on an account that breaks it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from support.posture_accounts import ACCOUNT, TABLE_KEYS, GoodAccount, findings, good_account, only

from phicrypt.posture import Outcome, Severity
from phicrypt.posture.examination import ACCOUNT_RULES
from phicrypt.posture.rules.cloudtrail import RULES as TRAIL_RULES
from phicrypt.posture.rules.dynamodb import RULES as TABLE_RULES
from phicrypt.posture.rules.kms import RULES as KEY_RULES
from phicrypt.posture.rules.s3 import RULES as BUCKET_RULES

EVERYONE = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}],
}
LOW, MEDIUM, HIGH, CRITICAL = Severity
RULES = (*KEY_RULES, *BUCKET_RULES, *TABLE_RULES, *TRAIL_RULES, *ACCOUNT_RULES)


@pytest.fixture
def fresh():
    with good_account() as good:
        yield good


def replace_selectors(**changes: object) -> Callable[[GoodAccount], None]:
    def spoil(good: GoodAccount) -> None:
        selector = {"ReadWriteType": "All", "IncludeManagementEvents": True, "DataResources": [], **changes}
        good.cloudtrail.put_event_selectors(TrailName="clinic-trail", EventSelectors=[selector])

    return spoil


def key_metadata(**changes: object) -> Callable[[GoodAccount], None]:
    """moto makes no keys with imported or expiring material: a DescribeKey answer of AWS's shape."""

    def spoil(good: GoodAccount) -> None:
        metadata = good.kms.describe_key(KeyId=good.key_arn)["KeyMetadata"]
        good.clients.answer("kms", "DescribeKey", {"KeyMetadata": {**metadata, **changes}})

    return spoil


def allow_decrypt_everywhere(action: str = "kms:Decrypt") -> str:
    return json.dumps(
        {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": action, "Resource": "*"}}
    )


def spoil_inline(good: GoodAccount) -> None:
    good.iam.create_role(RoleName="app", AssumeRolePolicyDocument=json.dumps(EVERYONE))
    good.iam.put_role_policy(RoleName="app", PolicyName="wide", PolicyDocument=allow_decrypt_everywhere("kms:*"))


SPOILS: list[tuple[str, Severity, Callable[[GoodAccount], object], str]] = [
    ("kms-enabled", HIGH, lambda g: g.kms.disable_key(KeyId=g.key_id), "aws kms enable-key"),
    (
        "kms-not-pending-deletion",
        CRITICAL,
        lambda g: g.kms.schedule_key_deletion(KeyId=g.key_id, PendingWindowInDays=7),
        "aws kms cancel-key-deletion",
    ),
    ("kms-rotation", MEDIUM, lambda g: g.kms.disable_key_rotation(KeyId=g.key_arn), "aws kms enable-key-rotation"),
    (
        "kms-no-public-policy",
        CRITICAL,
        # moto itself refuses DescribeKey under such a policy, so GetKeyPolicy is a recorded answer.
        lambda g: g.clients.answer("kms", "GetKeyPolicy", {"Policy": json.dumps(EVERYONE)}),
        "phicrypt policy key",
    ),
    (
        "kms-grants",
        MEDIUM,
        lambda g: g.kms.create_grant(
            KeyId=g.key_arn, GranteePrincipal=f"arn:aws:iam::{ACCOUNT}:role/stranger", Operations=["Decrypt"]
        ),
        "aws kms revoke-grant",
    ),
    (
        "kms-second-key",
        LOW,
        lambda g: g.members.update(keys=[g.aws.create_kms_key()]),
        "aws kms replicate-key",
    ),
    ("kms-origin", MEDIUM, key_metadata(Origin="EXTERNAL"), "aws kms create-key"),
    (
        "s3-public-access-block",
        HIGH,
        lambda g: g.s3.delete_public_access_block(Bucket="clinic"),
        "aws s3api put-public-access-block --bucket clinic",
    ),
    (
        "s3-no-public-policy",
        CRITICAL,
        lambda g: (
            g.s3.delete_public_access_block(Bucket="clinic"),
            g.s3.put_bucket_policy(Bucket="clinic", Policy=json.dumps(EVERYONE)),
        ),
        "aws s3api put-public-access-block",
    ),
    (
        "s3-no-public-acl",
        CRITICAL,
        lambda g: (
            g.s3.delete_public_access_block(Bucket="clinic"),
            g.s3.delete_bucket_ownership_controls(Bucket="clinic"),
            g.s3.put_bucket_acl(Bucket="clinic", ACL="public-read"),
        ),
        "aws s3api put-bucket-acl --bucket clinic --acl private",
    ),
    ("s3-tls-only", HIGH, lambda g: g.s3.delete_bucket_policy(Bucket="clinic"), "aws s3api put-bucket-policy"),
    (
        "s3-default-encryption",
        MEDIUM,
        lambda g: g.s3.put_bucket_encryption(
            Bucket="clinic",
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
            },
        ),
        "aws s3api put-bucket-encryption",
    ),
    (
        "s3-versioning",
        MEDIUM,
        lambda g: (
            g.s3.delete_bucket_replication(Bucket="clinic"),
            g.s3.put_bucket_versioning(Bucket="clinic", VersioningConfiguration={"Status": "Suspended"}),
        ),
        "aws s3api put-bucket-versioning",
    ),
    (
        "s3-object-lock",
        HIGH,
        lambda g: g.members.update(buckets=[{"name": "clinic", "audit": True}]),
        "aws s3api put-object-lock-configuration",
    ),
    (
        "s3-logging",
        LOW,
        lambda g: g.s3.put_bucket_logging(Bucket="clinic", BucketLoggingStatus={}),
        "aws s3api put-bucket-logging",
    ),
    (
        "s3-replication",
        LOW,
        lambda g: g.s3.delete_bucket_replication(Bucket="clinic"),
        "aws s3api put-bucket-replication",
    ),
    (
        "s3-ownership",
        MEDIUM,
        lambda g: g.s3.delete_bucket_ownership_controls(Bucket="clinic"),
        "aws s3api put-bucket-ownership-controls",
    ),
    (
        "dynamodb-point-in-time-recovery",
        HIGH,
        lambda g: g.dynamodb.update_continuous_backups(
            TableName="patients", PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False}
        ),
        "aws dynamodb update-continuous-backups",
    ),
    (
        "dynamodb-encryption",
        MEDIUM,
        lambda g: (
            g.dynamodb.create_table(TableName="visits", **TABLE_KEYS),
            g.members.update(tables=["patients", "visits"]),
        ),
        "aws dynamodb update-table",
    ),
    (
        "dynamodb-deletion-protection",
        MEDIUM,
        lambda g: g.dynamodb.update_table(TableName="patients", DeletionProtectionEnabled=False),
        "aws dynamodb update-table",
    ),
    (
        "dynamodb-backup-plan",
        LOW,
        lambda g: g.clients.answer("backup", "ListBackupPlans", {"BackupPlansList": []}),
        "aws backup create-backup-selection",
    ),
    (
        "dynamodb-no-public-policy",
        CRITICAL,
        lambda g: g.dynamodb.put_resource_policy(
            ResourceArn=f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/patients", Policy=json.dumps(EVERYONE)
        ),
        "aws dynamodb delete-resource-policy",
    ),
    (
        "cloudtrail-logging",
        CRITICAL,
        lambda g: g.cloudtrail.stop_logging(Name="clinic-trail"),
        "aws cloudtrail start-logging",
    ),
    (
        "cloudtrail-multi-region",
        MEDIUM,
        lambda g: g.cloudtrail.update_trail(Name="clinic-trail", IsMultiRegionTrail=False),
        "aws cloudtrail update-trail",
    ),
    (
        "cloudtrail-log-validation",
        HIGH,
        lambda g: g.cloudtrail.update_trail(Name="clinic-trail", EnableLogFileValidation=False),
        "aws cloudtrail update-trail",
    ),
    (
        "cloudtrail-encryption",
        MEDIUM,
        lambda g: (
            g.cloudtrail.create_trail(Name="plain-trail", S3BucketName="clinic-logs"),
            g.members.update(trails=["clinic-trail", "plain-trail"]),
        ),
        "aws cloudtrail update-trail",
    ),
    (
        "cloudtrail-kms-events",
        HIGH,
        replace_selectors(ExcludeManagementEventSources=["kms.amazonaws.com"]),
        "aws cloudtrail put-event-selectors",
    ),
    (
        "cloudtrail-log-bucket-private",
        CRITICAL,
        lambda g: (
            g.s3.delete_public_access_block(Bucket="clinic-logs"),
            g.s3.put_bucket_acl(Bucket="clinic-logs", ACL="public-read"),
        ),
        "aws s3api put-public-access-block --bucket clinic-logs",
    ),
    (
        "cloudtrail-present",
        CRITICAL,
        lambda g: (g.cloudtrail.delete_trail(Name="clinic-trail"), g.members.update(trails=[])),
        "aws cloudtrail create-trail",
    ),
    ("cloudtrail-s3-data-events", MEDIUM, replace_selectors(), "aws cloudtrail put-event-selectors"),
    ("cloudtrail-dynamodb-data-events", MEDIUM, replace_selectors(), "aws cloudtrail put-event-selectors"),
    (
        "s3-account-public-access-block",
        HIGH,
        lambda g: g.clients("s3control", "us-east-1").delete_public_access_block(AccountId=ACCOUNT),
        "aws s3control put-public-access-block",
    ),
    (
        "iam-customer-policy-blocked-kms-actions",
        HIGH,
        lambda g: g.iam.create_policy(PolicyName="wide", PolicyDocument=allow_decrypt_everywhere()),
        "aws iam create-policy-version",
    ),
    ("iam-inline-policy-blocked-kms-actions", HIGH, spoil_inline, "aws iam put-role-policy --role-name app"),
    (
        "config-recording",
        LOW,
        lambda g: g.clients("config", "us-east-1").stop_configuration_recorder(
            ConfigurationRecorderName="default"
        ),
        "aws configservice start-configuration-recorder",
    ),
]


@pytest.mark.parametrize(("rule_id", "severity", "spoil", "fix"), SPOILS, ids=[spoil[0] for spoil in SPOILS])
def test_rule_fails_on_a_spoilt_account(fresh, rule_id, severity, spoil, fix):
    spoil(fresh)
    finding = only(findings(fresh), rule_id)
    assert (finding.outcome, finding.severity) == (Outcome.FAILED, severity)
    assert fix in finding.fix
    assert finding.expected != finding.found


def test_every_rule_has_a_failing_account():
    assert {rule.rule_id for rule in RULES} <= {spoil[0] for spoil in SPOILS}
