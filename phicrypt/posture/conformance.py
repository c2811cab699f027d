"""AWS Config's managed rules for KMS, S3, DynamoDB and CloudTrail, as a conformance pack.

The pack holds the rules of AWS's "Operational Best Practices for HIPAA Security" for these services
and those that it lacks. Every rule serves paragraphs of 45 CFR as guidance; a compliant account is
not thereby compliant with HIPAA.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

from phicrypt.posture.rules.findings import (
    ACCESS,
    ACCESS_MANAGEMENT,
    ACTIVITY_REVIEW,
    AUDIT,
    BACKUP,
    ENCRYPTION,
    INTEGRITY,
    RECOVERY,
    TRANSMISSION,
)


@dataclass(frozen=True, slots=True)
class ManagedRule:
    """A managed rule of AWS Config.

    Attributes:
        identifier: ``SourceIdentifier``.
        hipaa: the paragraphs that it serves.
        in_hipaa_pack: whether AWS's HIPAA pack has it.
        parameters: ``InputParameters``.
    """

    identifier: str
    hipaa: tuple[str, ...]
    in_hipaa_pack: bool = True
    parameters: tuple[tuple[str, str], ...] = field(default=())

    @property
    def name(self) -> str:
        """``ConfigRuleName``."""
        return f"phicrypt-{self.identifier.lower().replace('_', '-')}"


_BLOCKED: Final = (("blockedActionsPatterns", "kms:Decrypt, kms:ReEncryptFrom"),)

MANAGED_RULES: Final = (
    ManagedRule("CMK_BACKING_KEY_ROTATION_ENABLED", (ENCRYPTION,), in_hipaa_pack=False),
    ManagedRule("KMS_CMK_NOT_SCHEDULED_FOR_DELETION", (ENCRYPTION, RECOVERY)),
    ManagedRule("KMS_KEY_POLICY_NO_PUBLIC_ACCESS", (ACCESS, ACCESS_MANAGEMENT), in_hipaa_pack=False),
    ManagedRule("IAM_CUSTOMER_POLICY_BLOCKED_KMS_ACTIONS", (ACCESS_MANAGEMENT,), parameters=_BLOCKED),
    ManagedRule("IAM_INLINE_POLICY_BLOCKED_KMS_ACTIONS", (ACCESS_MANAGEMENT,), parameters=_BLOCKED),
    ManagedRule("S3_ACCOUNT_LEVEL_PUBLIC_ACCESS_BLOCKS_PERIODIC", (ACCESS,)),
    ManagedRule("S3_BUCKET_LEVEL_PUBLIC_ACCESS_PROHIBITED", (ACCESS,), in_hipaa_pack=False),
    ManagedRule("S3_BUCKET_PUBLIC_READ_PROHIBITED", (ACCESS,)),
    ManagedRule("S3_BUCKET_PUBLIC_WRITE_PROHIBITED", (ACCESS,)),
    ManagedRule("S3_BUCKET_ACL_PROHIBITED", (ACCESS,)),
    ManagedRule("S3_BUCKET_SSL_REQUESTS_ONLY", (TRANSMISSION,)),
    ManagedRule("S3_DEFAULT_ENCRYPTION_KMS", (ENCRYPTION,)),
    ManagedRule("S3_BUCKET_SERVER_SIDE_ENCRYPTION_ENABLED", (ENCRYPTION,)),
    ManagedRule("S3_BUCKET_VERSIONING_ENABLED", (INTEGRITY, BACKUP)),
    ManagedRule("S3_BUCKET_DEFAULT_LOCK_ENABLED", (AUDIT, INTEGRITY)),
    ManagedRule("S3_BUCKET_LOGGING_ENABLED", (AUDIT,)),
    ManagedRule("S3_BUCKET_REPLICATION_ENABLED", (RECOVERY,)),
    ManagedRule("DYNAMODB_PITR_ENABLED", (BACKUP, RECOVERY)),
    ManagedRule("DYNAMODB_TABLE_ENCRYPTED_KMS", (ENCRYPTION,), in_hipaa_pack=False),
    ManagedRule("DYNAMODB_TABLE_DELETION_PROTECTION_ENABLED", (INTEGRITY, BACKUP), in_hipaa_pack=False),
    ManagedRule("DYNAMODB_IN_BACKUP_PLAN", (BACKUP,)),
    ManagedRule("DYNAMODB_RESOURCES_PROTECTED_BY_BACKUP_PLAN", (BACKUP,), in_hipaa_pack=False),
    ManagedRule("CLOUD_TRAIL_ENABLED", (AUDIT, ACTIVITY_REVIEW)),
    ManagedRule("MULTI_REGION_CLOUD_TRAIL_ENABLED", (AUDIT,)),
    ManagedRule("CLOUD_TRAIL_LOG_FILE_VALIDATION_ENABLED", (INTEGRITY, AUDIT)),
    ManagedRule("CLOUD_TRAIL_ENCRYPTION_ENABLED", (ENCRYPTION,)),
    ManagedRule("CLOUDTRAIL_S3_DATAEVENTS_ENABLED", (AUDIT,)),
    ManagedRule("CLOUDTRAIL_SECURITY_TRAIL_ENABLED", (AUDIT, ACTIVITY_REVIEW), in_hipaa_pack=False),
    ManagedRule("CLOUDTRAIL_S3_BUCKET_PUBLIC_ACCESS_PROHIBITED", (ACCESS, AUDIT), in_hipaa_pack=False),
)


def conformance_pack() -> str:
    """The pack as a YAML template for ``aws configservice put-conformance-pack --template-body``.

    Values are JSON strings, which are YAML as well, so nothing depends on YAML's guesses.
    """
    lines = [
        "# AWS Config conformance pack for what holds protected health information: KMS, S3, DynamoDB and",
        "# CloudTrail. Paragraphs are those of 45 CFR that a rule serves: guidance, not legal advice.",
        "Resources:",
    ]
    for rule in MANAGED_RULES:
        origin = "in AWS's HIPAA pack" if rule.in_hipaa_pack else "not in AWS's HIPAA pack"
        lines += [
            f"  {rule.identifier.title().replace('_', '')}:",
            f"    # {', '.join(rule.hipaa)}; {origin}",
            '    Type: "AWS::Config::ConfigRule"',
            "    Properties:",
            f"      ConfigRuleName: {json.dumps(rule.name)}",
        ]
        if rule.parameters:
            lines.append("      InputParameters:")
            lines += [f"        {name}: {json.dumps(value)}" for name, value in rule.parameters]
        lines += [
            "      Source:",
            '        Owner: "AWS"',
            f"        SourceIdentifier: {json.dumps(rule.identifier)}",
        ]
    return "\n".join(lines) + "\n"
