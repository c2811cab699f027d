"""The demo's chapter on settings: the doctor on a careless account, its repair, and the doctor again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from phicrypt.demo.stage import Stage
from phicrypt.errors import ConfigurationError
from phicrypt.posture.declaration import Declaration
from phicrypt.posture.examination import check
from phicrypt.posture.reading.aws_account import AwsAccount
from phicrypt.posture.report import Report
from phicrypt.posture.rules.findings import Outcome, Severity
from phicrypt.posture.rules.s3 import tls_only_statement
from phicrypt.posture.write_guard import BucketWriteGuard

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import PublicAccessBlockConfigurationTypeDef

_BUCKET, _LOGS, _TABLE, _TRAIL = "phicrypt-demo-clinic", "phicrypt-demo-trail", "phicrypt-demo-patients", "clinic"
_SWITCHES: PublicAccessBlockConfigurationTypeDef = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}


def tell(stage: Stage) -> None:
    stage.chapter("The customer's half: doctor")
    account = AwsAccount(stage.aws.session(), region=stage.aws.region, endpoint_url=stage.aws.endpoint_url)
    key_arn = stage.aws.create_kms_key(Description="demo: a key that nobody cares for")
    _build_carelessly(account)
    declaration = Declaration.of(
        {
            "region": stage.aws.region,
            "keys": [key_arn],
            "buckets": [_BUCKET],
            "tables": [_TABLE],
            "trails": [_TRAIL],
        }
    )
    stage.say("A bucket that everyone may read, a key that never rotates, a table without backups, no trail:")
    before = check(account, declaration)
    _show(stage, before)
    failed = {finding.rule_id for finding in before.at_or_above(Severity.LOW)}
    expected = {"s3-no-public-policy", "s3-tls-only", "kms-rotation", "dynamodb-point-in-time-recovery"}
    stage.check(expected | {"cloudtrail-exists"} <= failed, "the doctor names each of them, with the repair")
    stage.check(_is_refused(account), "require_private_bucket refuses to write there")

    _repair(account, key_arn)
    stage.say("After the repair:")
    after = check(account, declaration)
    _show(stage, after)
    fixed = {change.finding.rule_id for change in after.changes_since(before) if change.kind == "fixed"}
    stage.check(expected <= fixed, f"{len(fixed)} findings are fixed")
    serious = after.at_or_above(Severity.MEDIUM)
    stage.check(not serious, "nothing of medium severity or above is left")
    stage.check(not _is_refused(account), "and the bucket may be written to")
    stage.say("'phicrypt doctor' checks your own account the same way: it reads, and never writes.")


def _show(stage: Stage, report: Report) -> None:
    stage.table(
        "",
        ("Severity", "Rule", "Found"),
        [(f.severity.name.lower(), f.rule_id, f.found) for f in report.problems if f.severity > Severity.LOW],
    )
    stage.show("findings", ", ".join(f"{count} {outcome}" for outcome, count in report.counts().items()))
    unread = [f for f in report.findings if f.outcome is Outcome.NOT_CHECKED]
    stage.check(not unread, "every setting could be read")


def _is_refused(account: AwsAccount) -> bool:
    try:
        BucketWriteGuard(account.client("s3")).check(_BUCKET)
    except ConfigurationError:
        return True
    return False


def _build_carelessly(account: AwsAccount) -> None:
    s3 = account.client("s3")
    s3.create_bucket(Bucket=_BUCKET)
    everyone = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{_BUCKET}/*",
    }
    s3.put_bucket_policy(Bucket=_BUCKET, Policy=_policy(everyone))
    account.client("dynamodb").create_table(
        TableName=_TABLE,
        AttributeDefinitions=[{"AttributeName": "patient_id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "patient_id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        # The local AWS takes this setting at creation only, so that is one thing less to repair.
        SSESpecification={"Enabled": True, "SSEType": "KMS"},
    )


def _repair(account: AwsAccount, key_arn: str) -> None:
    """What the doctor's commands do, by boto3."""
    account.client("kms").enable_key_rotation(KeyId=key_arn)
    _repair_bucket(account.client("s3"))
    dynamodb = account.client("dynamodb")
    dynamodb.update_table(TableName=_TABLE, DeletionProtectionEnabled=True)
    dynamodb.update_continuous_backups(
        TableName=_TABLE, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
    )
    account.client("s3control").put_public_access_block(
        AccountId=account.account_id(), PublicAccessBlockConfiguration=_SWITCHES
    )
    _start_trail(account, key_arn)


def _repair_bucket(s3: S3Client) -> None:
    s3.put_public_access_block(Bucket=_BUCKET, PublicAccessBlockConfiguration=_SWITCHES)
    s3.put_bucket_policy(Bucket=_BUCKET, Policy=_policy(tls_only_statement(_BUCKET)))
    s3.put_bucket_encryption(
        Bucket=_BUCKET,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]
        },
    )
    s3.put_bucket_versioning(Bucket=_BUCKET, VersioningConfiguration={"Status": "Enabled"})
    s3.put_bucket_ownership_controls(
        Bucket=_BUCKET, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    )


def _start_trail(account: AwsAccount, key_arn: str) -> None:
    account.client("s3").create_bucket(Bucket=_LOGS)
    cloudtrail = account.client("cloudtrail")
    cloudtrail.create_trail(
        Name=_TRAIL,
        S3BucketName=_LOGS,
        IsMultiRegionTrail=True,
        EnableLogFileValidation=True,
        KmsKeyId=key_arn,
    )
    cloudtrail.start_logging(Name=_TRAIL)
    cloudtrail.put_event_selectors(
        TrailName=_TRAIL,
        EventSelectors=[
            {
                "ReadWriteType": "All",
                "IncludeManagementEvents": True,
                "DataResources": [
                    {"Type": "AWS::S3::Object", "Values": [f"arn:aws:s3:::{_BUCKET}/"]},
                    {"Type": "AWS::DynamoDB::Table", "Values": ["arn:aws:dynamodb"]},
                ],
            }
        ],
    )


def _policy(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
