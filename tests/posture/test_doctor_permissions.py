"""Every rule of the doctor on an account where it passes, and where it may not be read."""

from __future__ import annotations

from typing import Any

import pytest
from support.posture_accounts import findings, good_account, only

from phicrypt.posture import Outcome
from phicrypt.posture.examination import ACCOUNT_RULES
from phicrypt.posture.rules.cloudtrail import RULES as TRAIL_RULES
from phicrypt.posture.rules.dynamodb import RULES as TABLE_RULES
from phicrypt.posture.rules.findings import Rule
from phicrypt.posture.rules.kms import RULES as KEY_RULES
from phicrypt.posture.rules.s3 import RULES as BUCKET_RULES

RULES: tuple[Rule[Any], ...] = (*KEY_RULES, *BUCKET_RULES, *TABLE_RULES, *TRAIL_RULES, *ACCOUNT_RULES)


@pytest.fixture(scope="module")
def shared():
    with good_account() as good:
        yield good


def test_every_rule_passes_on_the_good_account(shared):
    found = findings(shared)
    assert {finding.outcome for finding in found.values()} == {Outcome.PASSED}
    assert {rule.rule_id for rule in RULES} <= {rule_id for rule_id, _ in found}


DENIALS = [
    ("kms-enabled", "kms", "DescribeKey", "kms:DescribeKey"),
    ("kms-not-pending-deletion", "kms", "DescribeKey", "kms:DescribeKey"),
    ("kms-rotation", "kms", "GetKeyRotationStatus", "kms:GetKeyRotationStatus"),
    ("kms-no-public-policy", "kms", "GetKeyPolicy", "kms:GetKeyPolicy"),
    ("kms-grants", "kms", "ListGrants", "kms:ListGrants"),
    ("kms-second-key", "kms", "DescribeKey", "kms:DescribeKey"),
    ("kms-origin", "kms", "DescribeKey", "kms:DescribeKey"),
    ("kms-asymmetric", "kms", "DescribeKey", "kms:DescribeKey"),
    ("s3-public-access-block", "s3", "GetPublicAccessBlock", "s3:GetBucketPublicAccessBlock"),
    ("s3-no-public-policy", "s3", "GetBucketPolicyStatus", "s3:GetBucketPolicyStatus"),
    ("s3-no-public-acl", "s3", "GetBucketAcl", "s3:GetBucketAcl"),
    ("s3-tls-only", "s3", "GetBucketPolicy", "s3:GetBucketPolicy"),
    ("s3-default-encryption", "s3", "GetBucketEncryption", "s3:GetEncryptionConfiguration"),
    ("s3-versioning", "s3", "GetBucketVersioning", "s3:GetBucketVersioning"),
    ("s3-object-lock", "s3", "GetObjectLockConfiguration", "s3:GetBucketObjectLockConfiguration"),
    ("s3-audit-retention", "s3", "GetObjectLockConfiguration", "s3:GetBucketObjectLockConfiguration"),
    ("s3-logging", "s3", "GetBucketLogging", "s3:GetBucketLogging"),
    ("s3-replication", "s3", "GetBucketReplication", "s3:GetReplicationConfiguration"),
    ("s3-ownership", "s3", "GetBucketOwnershipControls", "s3:GetBucketOwnershipControls"),
    (
        "dynamodb-point-in-time-recovery",
        "dynamodb",
        "DescribeContinuousBackups",
        "dynamodb:DescribeContinuousBackups",
    ),
    ("dynamodb-encryption", "dynamodb", "DescribeTable", "dynamodb:DescribeTable"),
    ("dynamodb-deletion-protection", "dynamodb", "DescribeTable", "dynamodb:DescribeTable"),
    ("dynamodb-backup-plan", "backup", "ListBackupPlans", "backup:ListBackupPlans"),
    ("dynamodb-backup-plan", "backup", "ListBackupSelections", "backup:ListBackupSelections"),
    ("dynamodb-backup-plan", "backup", "GetBackupSelection", "backup:GetBackupSelection"),
    ("dynamodb-backup-plan", "dynamodb", "ListTagsOfResource", "dynamodb:ListTagsOfResource"),
    ("dynamodb-no-public-policy", "dynamodb", "GetResourcePolicy", "dynamodb:GetResourcePolicy"),
    ("cloudtrail-logging", "cloudtrail", "GetTrailStatus", "cloudtrail:GetTrailStatus"),
    ("cloudtrail-multi-region", "cloudtrail", "DescribeTrails", "cloudtrail:DescribeTrails"),
    ("cloudtrail-log-validation", "cloudtrail", "DescribeTrails", "cloudtrail:DescribeTrails"),
    ("cloudtrail-encryption", "cloudtrail", "DescribeTrails", "cloudtrail:DescribeTrails"),
    ("cloudtrail-kms-events", "cloudtrail", "GetEventSelectors", "cloudtrail:GetEventSelectors"),
    ("cloudtrail-log-bucket-private", "s3", "GetBucketPolicyStatus", "s3:GetBucketPolicyStatus on the log bucket"),
    ("cloudtrail-log-bucket-private", "s3", "GetBucketAcl", "s3:GetBucketAcl on the log bucket"),
    ("cloudtrail-s3-data-events", "cloudtrail", "GetEventSelectors", "cloudtrail:GetEventSelectors"),
    ("cloudtrail-dynamodb-data-events", "cloudtrail", "GetEventSelectors", "cloudtrail:GetEventSelectors"),
    ("s3-account-public-access-block", "s3control", "GetPublicAccessBlock", "s3:GetAccountPublicAccessBlock"),
    (
        "iam-customer-policy-blocked-kms-actions",
        "iam",
        "GetAccountAuthorizationDetails",
        "iam:GetAccountAuthorizationDetails",
    ),
    (
        "iam-inline-policy-blocked-kms-actions",
        "iam",
        "GetAccountAuthorizationDetails",
        "iam:GetAccountAuthorizationDetails",
    ),
    (
        "config-recording",
        "config",
        "DescribeConfigurationRecorderStatus",
        "config:DescribeConfigurationRecorderStatus",
    ),
    ("config-recording", "config", "DescribeConfigRules", "config:DescribeConfigRules"),
]


@pytest.mark.parametrize(
    ("rule_id", "service", "operation", "permission"), DENIALS, ids=[f"{d[0]}-{d[2]}" for d in DENIALS]
)
def test_missing_permission_is_could_not_check_and_never_a_pass(shared, rule_id, service, operation, permission):
    shared.clients.refuse(service, operation)
    if rule_id == "s3-no-public-acl":  # read only where ownership does not switch ACLs off
        shared.clients.answer("s3", "GetBucketOwnershipControls", {})
    try:
        finding = only(findings(shared), rule_id)
    finally:
        shared.clients.restore()
        shared.answer_backups()
    assert finding.outcome is Outcome.NOT_CHECKED
    assert finding.found == f"could not check: needs {permission}"


@pytest.mark.parametrize("code", ["AccessDeniedException", "UnauthorizedOperation", "403"])
def test_every_spelling_of_a_denial_is_one(shared, code):
    shared.clients.refuse("kms", "ListGrants", code)
    try:
        finding = only(findings(shared), "kms-grants")
    finally:
        shared.clients.restore()
        shared.answer_backups()
    assert finding.found == "could not check: needs kms:ListGrants"


def test_trails_that_may_not_be_listed_are_could_not_check(shared):
    shared.clients.refuse("cloudtrail", "DescribeTrails")
    try:
        finding = only(findings(shared, trails=[]), "cloudtrail-present")
    finally:
        shared.clients.restore()
        shared.answer_backups()
    assert finding.found == "could not check: needs cloudtrail:DescribeTrails"


def test_every_rule_has_an_unreadable_account():
    assert {rule.rule_id for rule in RULES} <= {denial[0] for denial in DENIALS} | {"cloudtrail-present"}


def test_denied_everywhere_passes_nothing(shared):
    for _, service, operation, _ in DENIALS:
        shared.clients.refuse(service, operation)
    shared.clients.refuse("s3", "HeadBucket")
    shared.clients.refuse("s3", "GetPublicAccessBlock")
    try:
        passed = [f.rule_id for f in findings(shared).values() if f.outcome is Outcome.PASSED]
    finally:
        shared.clients.restore()
        shared.answer_backups()
    assert set(passed) <= {"kms-exists", "s3-exists", "dynamodb-exists", "cloudtrail-exists"}
