"""Rules for S3 buckets and the account's public access block. Pure: settings in, findings out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final

from phicrypt.core.strict_json import parse_json
from phicrypt.posture.policies.document import requires_tls
from phicrypt.posture.reading.settings import AccountSettings, BucketSettings
from phicrypt.posture.rules.findings import (
    ACCESS,
    AUDIT,
    BACKUP,
    DOCUMENTATION,
    ENCRYPTION,
    INTEGRITY,
    RECOVERY,
    TRANSMISSION,
    Rule,
    Severity,
    Unread,
)
from phicrypt.posture.write_guard import PUBLIC_ACCESS_SETTINGS, public_acl_permissions

_LOCK: Final = '\'{"ObjectLockEnabled":"Enabled","Rule":{"DefaultRetention":{"Mode":"COMPLIANCE","Years":6}}}\''
_SIX_YEARS_DAYS: Final = 6 * 365
"""As S3 counts years of retention."""
_BLOCK: Final = ",".join(f"{name}=true" for name in PUBLIC_ACCESS_SETTINGS)


def _command(verb: str, *more: str) -> Callable[[BucketSettings], str]:
    def fix(bucket: BucketSettings) -> str:
        return " ".join(("aws s3api", verb, "--bucket", bucket.declared.name, *more, "--region", bucket.region))

    return fix


def _members(answer: Mapping[str, Any] | Unread) -> Mapping[str, Any]:
    assert not isinstance(answer, Unread)
    return answer


def switches_off(block: Mapping[str, Any]) -> str | None:
    """Which of the four Block Public Access switches are off; None if none is."""
    off = [name for name in PUBLIC_ACCESS_SETTINGS if not block.get(name)]
    return f"off: {', '.join(off)}" if off else None


def tls_only_statement(bucket: str, partition: str = "aws") -> dict[str, Any]:
    """The bucket policy statement that refuses plain HTTP."""
    arn = f"arn:{partition}:s3:::{bucket}"
    return {
        "Sid": "DenyWithoutTls",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def _tls_fix(bucket: BucketSettings) -> str:
    """The whole policy with the statement added: put-bucket-policy replaces what is there."""
    empty = {"Version": "2012-10-17", "Statement": []}
    document: dict[str, Any] = (
        parse_json(bucket.policy_json, field="bucket policy") if bucket.policy_json else empty
    )
    statements = document["Statement"] if isinstance(document["Statement"], list) else [document["Statement"]]
    kept = [statement for statement in statements if statement.get("Sid") != "DenyWithoutTls"]
    document["Statement"] = [*kept, tls_only_statement(bucket.declared.name, bucket.partition)]
    return _command("put-bucket-policy", "--policy", shlex.quote(json.dumps(document)))(bucket)


def _tls(bucket: BucketSettings) -> str | None:
    assert not isinstance(bucket.policy, Unread)
    if requires_tls(bucket.policy, bucket.declared.name, partition=bucket.partition):
        return None
    return "requests without TLS are not denied on the bucket and all its objects"


def _acl(bucket: BucketSettings) -> str | None:
    assert not isinstance(bucket.acl_grants, Unread)
    permissions = public_acl_permissions(bucket.acl_grants)
    return f"the ACL gives everyone {', '.join(permissions)}" if permissions else None


def _encryption(bucket: BucketSettings) -> str | None:
    rules = _members(bucket.encryption).get("Rules", ())
    found = [str(rule.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm")) for rule in rules]
    if found and all(algorithm in ("aws:kms", "aws:kms:dsse") for algorithm in found):
        return None
    return f"default encryption: {', '.join(found) or 'none'}"


def _object_lock(bucket: BucketSettings) -> str | None:
    lock = _members(bucket.object_lock)
    if lock.get("ObjectLockEnabled") != "Enabled":
        return "Object Lock is off"
    mode = lock.get("Rule", {}).get("DefaultRetention", {}).get("Mode")
    return None if mode in ("COMPLIANCE", "GOVERNANCE") else "Object Lock is on without a default retention"


def _audit_retention(bucket: BucketSettings) -> str | None:
    retention = _members(bucket.object_lock).get("Rule", {}).get("DefaultRetention", {})
    mode, days = retention.get("Mode"), retention.get("Days", 0) + retention.get("Years", 0) * 365
    if mode is None:
        return "no default retention"
    if mode != "COMPLIANCE":
        return f"mode {mode}: whoever may s3:BypassGovernanceRetention can delete"
    return None if days >= _SIX_YEARS_DAYS else f"default retention of {days:,} days"


def _replication(bucket: BucketSettings) -> str | None:
    rules = _members(bucket.replication).get("Rules", ())
    return None if any(rule.get("Status") == "Enabled" for rule in rules) else "no replication rule is enabled"


RULES: Final[tuple[Rule[BucketSettings], ...]] = (
    Rule(
        "s3-public-access-block",
        "The bucket blocks public access",
        Severity.HIGH,
        "all four switches on",
        ("public_access_block",),
        lambda bucket: switches_off(_members(bucket.public_access_block)),
        _command("put-public-access-block", "--public-access-block-configuration", _BLOCK),
        ("S3_BUCKET_LEVEL_PUBLIC_ACCESS_PROHIBITED",),
        (ACCESS,),
    ),
    Rule(
        "s3-no-public-policy",
        "The bucket policy is not public",
        Severity.CRITICAL,
        "no public policy",
        ("policy_is_public",),
        lambda bucket: "S3 calls the policy public" if bucket.policy_is_public else None,
        _command("put-public-access-block", "--public-access-block-configuration", _BLOCK),
        ("S3_BUCKET_PUBLIC_READ_PROHIBITED", "S3_BUCKET_PUBLIC_WRITE_PROHIBITED"),
        (ACCESS,),
    ),
    Rule(
        "s3-no-public-acl",
        "The bucket's ACL is not public",
        Severity.CRITICAL,
        "no grant to everyone",
        ("acl_grants",),
        _acl,
        _command("put-bucket-acl", "--acl private"),
        ("S3_BUCKET_PUBLIC_READ_PROHIBITED", "S3_BUCKET_PUBLIC_WRITE_PROHIBITED"),
        (ACCESS,),
    ),
    Rule(
        "s3-tls-only",
        "The bucket refuses requests without TLS",
        Severity.HIGH,
        "a policy that denies everything when aws:SecureTransport is false",
        ("policy",),
        _tls,
        _tls_fix,
        ("S3_BUCKET_SSL_REQUESTS_ONLY",),
        (TRANSMISSION,),
    ),
    Rule(
        "s3-default-encryption",
        "Objects are encrypted with KMS by default",
        Severity.MEDIUM,
        "default encryption aws:kms or aws:kms:dsse",
        ("encryption",),
        _encryption,
        _command(
            "put-bucket-encryption",
            "--server-side-encryption-configuration",
            '\'{"Rules":[{"ApplyServerSideEncryptionByDefault":{"SSEAlgorithm":"aws:kms"},"BucketKeyEnabled":true}]}\'',
        ),
        ("S3_DEFAULT_ENCRYPTION_KMS",),
        (ENCRYPTION,),
    ),
    Rule(
        "s3-versioning",
        "Versions are kept",
        Severity.MEDIUM,
        "versioning Enabled",
        ("versioning",),
        lambda bucket: (
            None
            if (status := _members(bucket.versioning).get("Status")) == "Enabled"
            else f"versioning is {status or 'off'}"
        ),
        _command("put-bucket-versioning", "--versioning-configuration Status=Enabled"),
        ("S3_BUCKET_VERSIONING_ENABLED",),
        (INTEGRITY, BACKUP),
    ),
    Rule(
        "s3-object-lock",
        "Audit segments cannot be deleted",
        Severity.HIGH,
        "Object Lock with a default retention on buckets declared as audit",
        ("object_lock",),
        _object_lock,
        _command("put-object-lock-configuration", "--object-lock-configuration", _LOCK),
        ("S3_BUCKET_DEFAULT_LOCK_ENABLED",),
        (AUDIT, INTEGRITY),
        applies=lambda bucket: bucket.declared.audit,
    ),
    Rule(
        "s3-audit-retention",
        "Audit segments are kept for six years",
        Severity.MEDIUM,
        "a default retention in compliance mode for at least six years on buckets declared as audit",
        ("object_lock",),
        _audit_retention,
        _command("put-object-lock-configuration", "--object-lock-configuration", _LOCK),
        ("S3_BUCKET_DEFAULT_LOCK_ENABLED",),
        (AUDIT, DOCUMENTATION),
        applies=lambda bucket: bucket.declared.audit,
    ),
    Rule(
        "s3-logging",
        "Access to the bucket is logged",
        Severity.LOW,
        "server access logging on",
        ("logging",),
        lambda bucket: None if _members(bucket.logging).get("TargetBucket") else "server access logging is off",
        _command(
            "put-bucket-logging",
            "--bucket-logging-status",
            '\'{"LoggingEnabled":{"TargetBucket":"LOG-BUCKET","TargetPrefix":"s3/"}}\'',
        ),
        ("S3_BUCKET_LOGGING_ENABLED",),
        (AUDIT,),
    ),
    Rule(
        "s3-replication",
        "Objects are replicated",
        Severity.LOW,
        "an enabled replication rule, unless declared replicated = false",
        ("replication",),
        _replication,
        _command("put-bucket-replication", "--replication-configuration file://replication.json"),
        ("S3_BUCKET_REPLICATION_ENABLED",),
        (RECOVERY,),
        applies=lambda bucket: bucket.declared.replicated,
    ),
    Rule(
        "s3-ownership",
        "The bucket's owner owns every object, ACLs are off",
        Severity.MEDIUM,
        "object ownership BucketOwnerEnforced",
        ("ownership",),
        lambda bucket: (
            None
            if bucket.ownership == "BucketOwnerEnforced"
            else f"object ownership is {bucket.ownership or 'not set'}"
        ),
        _command(
            "put-bucket-ownership-controls", "--ownership-controls 'Rules=[{ObjectOwnership=BucketOwnerEnforced}]'"
        ),
        ("S3_BUCKET_ACL_PROHIBITED",),
        (ACCESS,),
    ),
)

ACCOUNT_RULES: Final[tuple[Rule[AccountSettings], ...]] = (
    Rule(
        "s3-account-public-access-block",
        "The account blocks public access to every bucket",
        Severity.HIGH,
        "all four switches on",
        ("account_block",),
        lambda account: switches_off(_members(account.account_block)),
        lambda account: (
            f"aws s3control put-public-access-block --account-id {account.account_id} "
            f"--public-access-block-configuration {_BLOCK} --region {account.region}"
        ),
        ("S3_ACCOUNT_LEVEL_PUBLIC_ACCESS_BLOCKS_PERIODIC",),
        (ACCESS,),
        applies=lambda account: bool(account.bucket_arns),
    ),
)
