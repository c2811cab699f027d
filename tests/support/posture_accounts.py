"""Accounts for the posture tests: one where everything is as it should be, and ways to spoil it.

moto holds most of the state. Where it cannot (backup selections, Config's compliance answers, states
of imported keys, public ACL under ownership controls), the tests use dicts of the shape that AWS
documents, and say so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from phicrypt.posture import AwsAccount, Declaration, Finding, Outcome, check
from phicrypt.posture.rules.s3 import tls_only_statement
from phicrypt.testing import local_aws
from phicrypt.testing.local_stack import LocalAws

ACCOUNT = "123456789012"
SWITCHES = dict.fromkeys(
    ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
)
TABLE_KEYS = {
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}


class Clients:
    """boto3 clients of a local AWS, with denials, absences and answers put in front of single operations."""

    def __init__(self, aws: LocalAws) -> None:
        self._plain = AwsAccount(aws.session(), endpoint_url=aws.endpoint_url)
        self._changes: dict[tuple[str, str], Callable[..., Any]] = {}
        self._made: dict[tuple[str, str], Any] = {}

    def __call__(self, service: str, region: str) -> Any:
        if (service, region) not in self._made:
            client = self._plain._new_client(service, region)
            client.meta.events.register(
                f"before-call.{client.meta.service_model.service_id.hyphenize()}", self._before_call
            )
            self._made[service, region] = client
        return self._made[service, region]

    def _before_call(self, model: Any, params: Any, **_: Any) -> Any:
        change = self._changes.get((model.service_model.service_name, model.name))
        return None if change is None else change(params)

    def refuse(self, service: str, operation: str, code: str = "AccessDenied", status: int = 403) -> None:
        """The operation answers with an error of AWS's shape from now on."""
        self._changes[service, operation] = lambda params: (
            _Http(status),
            {"Error": {"Code": code, "Message": code}, "ResponseMetadata": {"HTTPStatusCode": status}},
        )

    def answer(self, service: str, operation: str, response: dict[str, Any]) -> None:
        """The operation answers with a recorded response of the documented shape."""
        self._changes[service, operation] = lambda params: (
            _Http(200),
            {**response, "ResponseMetadata": {"HTTPStatusCode": 200}},
        )

    def restore(self) -> None:
        self._changes.clear()


class _Http:
    def __init__(self, status: int) -> None:
        self.status_code = status
        self.headers: dict[str, str] = {}
        self.content = b""


class GoodAccount:
    """A key, a bucket, an audit bucket, a table and a trail on moto, all as every rule wants them."""

    def __init__(self, aws: LocalAws) -> None:
        self.aws = aws
        self.clients = Clients(aws)
        self.account = AwsAccount(client_factory=self.clients, workers=8)
        self.kms, self.s3, self.dynamodb, self.cloudtrail, self.iam = (
            self.clients(service, "us-east-1") for service in ("kms", "s3", "dynamodb", "cloudtrail", "iam")
        )
        self.key_arn = aws.create_kms_key(MultiRegion=True)
        self.key_id = self.key_arn.split("/")[1]  # moto takes ids only, in some operations
        self.kms.replicate_key(KeyId=self.key_id, ReplicaRegion="us-west-2")
        self.kms.enable_key_rotation(KeyId=self.key_arn)
        # moto delivers access logs by the classic grant to the log delivery group.
        self.s3.create_bucket(Bucket="clinic-logs")
        self.s3.put_public_access_block(Bucket="clinic-logs", PublicAccessBlockConfiguration=SWITCHES)
        self.s3.put_bucket_acl(Bucket="clinic-logs", ACL="log-delivery-write")
        self.make_bucket("clinic")
        self.make_bucket("clinic-audit", lock=True)
        self.dynamodb.create_table(
            TableName="patients",
            **TABLE_KEYS,
            SSESpecification={"Enabled": True, "SSEType": "KMS"},
            DeletionProtectionEnabled=True,
        )
        self.dynamodb.update_continuous_backups(
            TableName="patients", PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
        )
        self.make_trail()
        self.clients("s3control", "us-east-1").put_public_access_block(
            AccountId=ACCOUNT, PublicAccessBlockConfiguration=SWITCHES
        )
        config = self.clients("config", "us-east-1")
        config.put_configuration_recorder(
            ConfigurationRecorder={"name": "default", "roleARN": f"arn:aws:iam::{ACCOUNT}:role/config"}
        )
        config.put_delivery_channel(DeliveryChannel={"name": "default", "s3BucketName": "clinic-logs"})
        config.start_configuration_recorder(ConfigurationRecorderName="default")
        self.answer_backups()
        self.members = {
            "keys": [self.key_arn],
            "buckets": ["clinic", {"name": "clinic-audit", "audit": True}],
            "tables": ["patients"],
            "trails": ["clinic-trail"],
        }

    def answer_backups(self) -> None:
        """moto knows no backup selections: recorded answers."""
        self.clients.answer("backup", "ListBackupPlans", {"BackupPlansList": [{"BackupPlanId": "p"}]})
        self.clients.answer("backup", "ListBackupSelections", {"BackupSelectionsList": [{"SelectionId": "s"}]})
        self.clients.answer(
            "backup", "GetBackupSelection", {"BackupSelection": {"Resources": ["arn:aws:dynamodb:*:*:table/*"]}}
        )

    def make_bucket(self, name: str, *, lock: bool = False) -> None:
        s3 = self.s3
        s3.create_bucket(Bucket=name, **({"ObjectLockEnabledForBucket": True} if lock else {}))
        s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=SWITCHES)
        s3.put_bucket_policy(
            Bucket=name,
            Policy=json.dumps({"Version": "2012-10-17", "Statement": [tls_only_statement(name)]}),
        )
        s3.put_bucket_encryption(
            Bucket=name,
            ServerSideEncryptionConfiguration={
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]
            },
        )
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        s3.put_bucket_ownership_controls(
            Bucket=name, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
        )
        if lock:
            s3.put_object_lock_configuration(
                Bucket=name,
                ObjectLockConfiguration={
                    "ObjectLockEnabled": "Enabled",
                    "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Years": 6}},
                },
            )
        s3.put_bucket_logging(
            Bucket=name,
            BucketLoggingStatus={"LoggingEnabled": {"TargetBucket": "clinic-logs", "TargetPrefix": "s3/"}},
        )
        s3.put_bucket_replication(
            Bucket=name,
            ReplicationConfiguration={
                "Role": f"arn:aws:iam::{ACCOUNT}:role/replication",
                "Rules": [
                    {
                        "ID": "all",
                        "Priority": 1,
                        "Status": "Enabled",
                        "Filter": {"Prefix": ""},
                        "Destination": {"Bucket": "arn:aws:s3:::clinic-replica"},
                    }
                ],
            },
        )

    def make_trail(self, name: str = "clinic-trail") -> None:
        self.cloudtrail.create_trail(
            Name=name,
            S3BucketName="clinic-logs",
            IsMultiRegionTrail=True,
            EnableLogFileValidation=True,
            KmsKeyId=self.key_arn,
        )
        self.cloudtrail.start_logging(Name=name)
        self.cloudtrail.put_event_selectors(
            TrailName=name,
            EventSelectors=[
                {
                    "ReadWriteType": "All",
                    "IncludeManagementEvents": True,
                    "DataResources": [
                        {"Type": "AWS::S3::Object", "Values": ["arn:aws:s3"]},
                        {"Type": "AWS::DynamoDB::Table", "Values": ["arn:aws:dynamodb"]},
                    ],
                    "ExcludeManagementEventSources": [],
                }
            ],
        )


@contextmanager
def good_account() -> Iterator[GoodAccount]:
    with local_aws() as aws:
        yield GoodAccount(aws)


def findings(good: GoodAccount, **members: object) -> dict[tuple[str, str], Finding]:
    report = check(good.account, Declaration.of(good.members | members))
    return {(finding.rule_id, finding.resource.rsplit(":", 1)[-1]): finding for finding in report.findings}


def only(found: dict[tuple[str, str], Finding], rule_id: str) -> Finding:
    """The rule's finding on the first resource that is not as expected, else on any."""
    of_rule = [finding for (rule, _), finding in found.items() if rule == rule_id]
    assert of_rule, f"{rule_id} gave no finding"
    return min(of_rule, key=lambda finding: finding.outcome is Outcome.PASSED)
