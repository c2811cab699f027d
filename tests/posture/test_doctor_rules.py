"""Every rule of the doctor on settings that break it, and once on a live account that breaks them all.

The settings are values: those that the readers took from moto's good account, with one member changed
to what AWS answers where the rule is broken.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from support.posture_accounts import ACCOUNT, TABLE_KEYS, GoodAccount, findings, good_account

from phicrypt.posture import Declaration, Outcome, Severity
from phicrypt.posture.examination import ACCOUNT_RULES
from phicrypt.posture.policies.document import parse_policy
from phicrypt.posture.reading.account_wide import read_account, read_trails
from phicrypt.posture.reading.resources import read_backup_selections, read_bucket, read_key, read_table
from phicrypt.posture.reading.settings import AccountSettings, IamPolicy
from phicrypt.posture.rules.cloudtrail import RULES as TRAIL_RULES
from phicrypt.posture.rules.dynamodb import RULES as TABLE_RULES
from phicrypt.posture.rules.findings import Finding, Rule, apply_rule
from phicrypt.posture.rules.kms import RULES as KEY_RULES
from phicrypt.posture.rules.s3 import RULES as BUCKET_RULES

EVERYONE = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}],
}
LOW, MEDIUM, HIGH, CRITICAL = Severity
RULES: dict[str, tuple[Rule[Any], ...]] = {
    "key": KEY_RULES,
    "bucket": BUCKET_RULES,
    "audit bucket": BUCKET_RULES,
    "table": TABLE_RULES,
    "trail": TRAIL_RULES,
    "account": ACCOUNT_RULES,
}
Values = Mapping[str, Any]
"""The settings of each kind of resource."""


PUBLIC_GRANT = {
    "Grantee": {"Type": "Group", "URI": "http://acs.amazonaws.com/groups/global/AllUsers"},
    "Permission": "READ",
}
STRANGER = {
    "GrantId": "g-1",
    "GranteePrincipal": f"arn:aws:iam::{ACCOUNT}:role/stranger",
    "Operations": ["Decrypt"],
}
AES256 = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}
NO_DATA_EVENTS = {"ReadWriteType": "All", "IncludeManagementEvents": True, "DataResources": []}
NO_KMS_EVENTS = {**NO_DATA_EVENTS, "ExcludeManagementEventSources": ["kms.amazonaws.com"]}
POINT_IN_TIME_OFF = {"PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": "DISABLED"}}
SINGLE_REGION: dict[str, Any] = {"MultiRegion": False, "MultiRegionConfiguration": {}}


def allow_kms(action: str) -> str:
    return json.dumps(
        {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": action, "Resource": "*"}}
    )


def iam_policy(*, is_inline: bool) -> tuple[IamPolicy, ...]:
    arn = f"arn:aws:iam::{ACCOUNT}:role/app/wide" if is_inline else f"arn:aws:iam::{ACCOUNT}:policy/wide"
    return (IamPolicy(arn, is_inline, parse_policy(allow_kms("kms:*" if is_inline else "kms:Decrypt"))),)


@pytest.fixture(scope="module")
def values() -> Values:
    """What the readers find in the good account."""
    with good_account() as good:
        declaration = Declaration.of(good.members)
        account = good.account
        bucket, audit_bucket = (read_bucket(account, one, home_region="us-east-1") for one in declaration.buckets)
        trails = read_trails(account, declaration)
        selections = read_backup_selections(account, "us-east-1")
        (table,) = declaration.tables
        return {
            "key": read_key(account, declaration.keys[0]),
            "bucket": bucket,
            "audit bucket": audit_bucket,
            "table": read_table(account, table, ACCOUNT, selections, home_region="us-east-1"),
            "trail": trails[0],
            "account": read_account(account, declaration, ACCOUNT, trails),
        }


SPOILS: list[tuple[str, Severity, str, dict[str, Any], str]] = [
    ("kms-enabled", HIGH, "key", {"metadata": {"KeyState": "Disabled"}}, "aws kms enable-key"),
    (
        "kms-not-pending-deletion",
        CRITICAL,
        "key",
        {"metadata": {"KeyState": "PendingDeletion"}},
        "aws kms cancel-key-deletion",
    ),
    ("kms-rotation", MEDIUM, "key", {"rotation": {"KeyRotationEnabled": False}}, "aws kms enable-key-rotation"),
    (
        "kms-no-public-policy",
        CRITICAL,
        "key",
        {"policy": parse_policy(json.dumps(EVERYONE))},
        "phicrypt policy key",
    ),
    ("kms-grants", MEDIUM, "key", {"grants": (STRANGER,)}, "aws kms revoke-grant"),
    ("kms-second-key", LOW, "key", {"metadata": SINGLE_REGION}, "aws kms replicate-key"),
    ("kms-origin", MEDIUM, "key", {"metadata": {"Origin": "EXTERNAL"}}, "aws kms create-key"),
    ("kms-asymmetric", LOW, "key", {"metadata": {"KeySpec": "RSA_3072"}}, "declare asymmetric = true"),
    (
        "s3-public-access-block",
        HIGH,
        "bucket",
        {"public_access_block": {"BlockPublicPolicy": False}},
        "aws s3api put-public-access-block --bucket clinic",
    ),
    ("s3-no-public-policy", CRITICAL, "bucket", {"policy_is_public": True}, "aws s3api put-public-access-block"),
    (
        "s3-no-public-acl",
        CRITICAL,
        "bucket",
        {"acl_grants": (PUBLIC_GRANT,)},
        "aws s3api put-bucket-acl --bucket clinic --acl private",
    ),
    ("s3-tls-only", HIGH, "bucket", {"policy": (), "policy_json": ""}, "aws s3api put-bucket-policy"),
    ("s3-default-encryption", MEDIUM, "bucket", {"encryption": AES256}, "aws s3api put-bucket-encryption"),
    (
        "s3-versioning",
        MEDIUM,
        "bucket",
        {"versioning": {"Status": "Suspended"}},
        "aws s3api put-bucket-versioning",
    ),
    (
        "s3-object-lock",
        HIGH,
        "audit bucket",
        {"object_lock": {"ObjectLockEnabled": ""}},
        "aws s3api put-object-lock-configuration",
    ),
    (
        "s3-audit-retention",
        MEDIUM,
        "audit bucket",
        {"object_lock": {"Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Years": 6}}}},
        "aws s3api put-object-lock-configuration",
    ),
    ("s3-logging", LOW, "bucket", {"logging": {"TargetBucket": ""}}, "aws s3api put-bucket-logging"),
    ("s3-replication", LOW, "bucket", {"replication": {"Rules": []}}, "aws s3api put-bucket-replication"),
    ("s3-ownership", MEDIUM, "bucket", {"ownership": ""}, "aws s3api put-bucket-ownership-controls"),
    (
        "dynamodb-point-in-time-recovery",
        HIGH,
        "table",
        {"backups": POINT_IN_TIME_OFF},
        "aws dynamodb update-continuous-backups",
    ),
    ("dynamodb-encryption", MEDIUM, "table", {"described": {"SSEDescription": {}}}, "aws dynamodb update-table"),
    (
        "dynamodb-deletion-protection",
        MEDIUM,
        "table",
        {"described": {"DeletionProtectionEnabled": False}},
        "aws dynamodb update-table",
    ),
    ("dynamodb-backup-plan", LOW, "table", {"selections": ()}, "aws backup create-backup-selection"),
    (
        "dynamodb-no-public-policy",
        CRITICAL,
        "table",
        {"policy": parse_policy(json.dumps(EVERYONE))},
        "aws dynamodb delete-resource-policy",
    ),
    ("cloudtrail-logging", CRITICAL, "trail", {"status": {"IsLogging": False}}, "aws cloudtrail start-logging"),
    (
        "cloudtrail-multi-region",
        MEDIUM,
        "trail",
        {"described": {"IsMultiRegionTrail": False}},
        "aws cloudtrail update-trail",
    ),
    (
        "cloudtrail-log-validation",
        HIGH,
        "trail",
        {"described": {"LogFileValidationEnabled": False}},
        "aws cloudtrail update-trail",
    ),
    ("cloudtrail-encryption", MEDIUM, "trail", {"described": {"KmsKeyId": ""}}, "aws cloudtrail update-trail"),
    (
        "cloudtrail-kms-events",
        HIGH,
        "trail",
        {"selectors": {"EventSelectors": [NO_KMS_EVENTS]}},
        "aws cloudtrail put-event-selectors",
    ),
    (
        "cloudtrail-log-bucket-private",
        CRITICAL,
        "trail",
        {"log_bucket_block": {"IgnorePublicAcls": False}, "log_bucket_grants": (PUBLIC_GRANT,)},
        "aws s3api put-public-access-block --bucket clinic-logs",
    ),
    ("cloudtrail-present", CRITICAL, "account", {"trails": ()}, "aws cloudtrail create-trail"),
    (
        "cloudtrail-s3-data-events",
        MEDIUM,
        "account",
        {"trails": NO_DATA_EVENTS},
        "aws cloudtrail put-event-selectors",
    ),
    (
        "cloudtrail-dynamodb-data-events",
        MEDIUM,
        "account",
        {"trails": NO_DATA_EVENTS},
        "aws cloudtrail put-event-selectors",
    ),
    (
        "s3-account-public-access-block",
        HIGH,
        "account",
        {"account_block": {"BlockPublicAcls": False}},
        "aws s3control put-public-access-block",
    ),
    (
        "iam-customer-policy-blocked-kms-actions",
        HIGH,
        "account",
        {"iam_policies": iam_policy(is_inline=False)},
        "aws iam create-policy-version",
    ),
    (
        "iam-inline-policy-blocked-kms-actions",
        HIGH,
        "account",
        {"iam_policies": iam_policy(is_inline=True)},
        "aws iam put-role-policy --role-name app",
    ),
]
FAILS_TOO = {
    "cloudtrail-present": {"cloudtrail-s3-data-events", "cloudtrail-dynamodb-data-events"},
    "cloudtrail-s3-data-events": {"cloudtrail-dynamodb-data-events"},
    "cloudtrail-dynamodb-data-events": {"cloudtrail-s3-data-events"},
}


def spoilt(settings: Any, changes: dict[str, Any]) -> Any:
    """The settings with members of their answers changed, or whole answers that are no mappings."""
    if isinstance(settings, AccountSettings) and isinstance(changes.get("trails"), dict):
        trail = replace(settings.trails[0], selectors={"EventSelectors": [changes["trails"]]})
        return replace(settings, trails=(trail,))
    return replace(
        settings,
        **{
            name: {**getattr(settings, name), **change} if isinstance(change, dict) else change
            for name, change in changes.items()
        },
    )


def judged(settings: Any, kind: str) -> dict[str, Finding]:
    found = [apply_rule(rule, settings) for rule in RULES[kind]]
    return {finding.rule_id: finding for finding in found if finding is not None}


@pytest.mark.parametrize("kind", RULES)
def test_every_rule_passes_on_good_settings(values: Values, kind: str) -> None:
    found = judged(values[kind], kind)
    assert {finding.rule_id for finding in found.values() if finding.outcome is not Outcome.PASSED} == set()


@pytest.mark.parametrize(
    ("rule_id", "severity", "kind", "changes", "fix"), SPOILS, ids=[spoil[0] for spoil in SPOILS]
)
def test_a_rule_fails_on_settings_that_break_it_and_no_other_does(
    values: Values, rule_id: str, severity: Severity, kind: str, changes: dict[str, Any], fix: str
) -> None:
    found = judged(spoilt(values[kind], changes), kind)
    finding = found[rule_id]
    assert (finding.outcome, finding.severity) == (Outcome.FAILED, severity)
    assert fix in finding.fix
    assert finding.expected != finding.found
    failed = {one.rule_id for one in found.values() if one.outcome is not Outcome.PASSED}
    assert failed == {rule_id} | FAILS_TOO.get(rule_id, set())


def every_rule_id() -> set[str]:
    return {rule.rule_id for rules in RULES.values() for rule in rules}


def test_every_rule_has_settings_that_break_it() -> None:
    assert every_rule_id() <= {spoil[0] for spoil in SPOILS}


def spoil_keys(good: GoodAccount) -> list[str]:
    """One key that will be deleted, one that breaks everything else, one of imported material, one of RSA."""
    kms = good.kms
    deleted = good.aws.create_kms_key()
    kms.schedule_key_deletion(KeyId=deleted.split("/")[1], PendingWindowInDays=7)
    single = good.aws.create_kms_key()
    kms.create_grant(KeyId=single, GranteePrincipal=STRANGER["GranteePrincipal"], Operations=["Decrypt"])
    kms.disable_key(KeyId=single.split("/")[1])  # moto takes ids only, in some operations
    imported = good.aws.create_kms_key(Origin="EXTERNAL")
    asymmetric = good.aws.create_kms_key(KeySpec="RSA_2048")
    # moto itself refuses DescribeKey under such a policy, so GetKeyPolicy is a recorded answer.
    good.clients.answer("kms", "GetKeyPolicy", {"Policy": json.dumps(EVERYONE)})
    return [single, deleted, imported, asymmetric]


def spoil_buckets(good: GoodAccount) -> None:
    s3 = good.s3
    for bucket in ("clinic", "clinic-logs"):
        s3.delete_public_access_block(Bucket=bucket)
    s3.delete_bucket_ownership_controls(Bucket="clinic")
    s3.delete_bucket_replication(Bucket="clinic")
    s3.put_bucket_policy(Bucket="clinic", Policy=json.dumps(EVERYONE))
    for bucket in ("clinic", "clinic-logs"):
        s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    s3.put_bucket_encryption(Bucket="clinic", ServerSideEncryptionConfiguration=AES256)
    s3.put_bucket_versioning(Bucket="clinic", VersioningConfiguration={"Status": "Suspended"})
    s3.put_bucket_logging(Bucket="clinic", BucketLoggingStatus={})
    good.clients("s3control", "us-east-1").delete_public_access_block(AccountId=ACCOUNT)


def spoil_tables(good: GoodAccount) -> None:
    good.dynamodb.create_table(TableName="visits", **TABLE_KEYS)
    arn = f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/visits"
    good.dynamodb.put_resource_policy(ResourceArn=arn, Policy=json.dumps(EVERYONE))
    good.clients.answer("backup", "ListBackupPlans", {"BackupPlansList": []})


def spoil_account(good: GoodAccount) -> None:
    trail = good.cloudtrail
    trail.create_trail(Name="plain-trail", S3BucketName="clinic-logs")  # no key, one Region, no validation
    trail.put_event_selectors(TrailName="plain-trail", EventSelectors=[NO_KMS_EVENTS])
    good.iam.create_policy(PolicyName="wide", PolicyDocument=allow_kms("kms:Decrypt"))
    good.iam.create_role(RoleName="app", AssumeRolePolicyDocument=json.dumps(EVERYONE))
    good.iam.put_role_policy(RoleName="app", PolicyName="wide", PolicyDocument=allow_kms("kms:*"))
    recorder = good.clients("config", "us-east-1")
    recorder.stop_configuration_recorder(ConfigurationRecorderName="default")


def test_every_rule_fails_on_a_live_account_that_breaks_them_all() -> None:
    with good_account() as good:
        spoil_buckets(good)
        spoil_tables(good)
        spoil_account(good)
        declared: dict[str, Any] = {
            "keys": spoil_keys(good),
            "buckets": [{"name": "clinic", "audit": True}],
            "tables": ["visits"],
            "trails": ["plain-trail"],
        }
        found = findings(good, **declared)
        failed = {finding.rule_id for finding in found.values() if finding.outcome is Outcome.FAILED}
        for name in ("plain-trail", "clinic-trail"):
            good.cloudtrail.delete_trail(Name=name)
        without_trail = findings(good, **declared | {"trails": []})
        failed |= {one.rule_id for one in without_trail.values() if one.outcome is Outcome.FAILED}
    assert every_rule_id() | {"config-recording"} <= failed
