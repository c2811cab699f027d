"""Rules for DynamoDB tables. Pure: settings in, findings out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from phicrypt.posture.policies.document import wildcard_match
from phicrypt.posture.reading.settings import TableSettings
from phicrypt.posture.rules.findings import (
    ACCESS,
    BACKUP,
    ENCRYPTION,
    INTEGRITY,
    RECOVERY,
    Rule,
    Severity,
    Unread,
)


def _command(table: TableSettings, verb: str, *more: str) -> str:
    return " ".join(("aws dynamodb", verb, "--table-name", table.declared.name, *more, "--region", table.region))


def _described(table: TableSettings) -> Mapping[str, Any]:
    assert not isinstance(table.described, Unread)
    return table.described


def _recovery(table: TableSettings) -> str | None:
    assert not isinstance(table.backups, Unread)
    status = table.backups.get("PointInTimeRecoveryDescription", {}).get("PointInTimeRecoveryStatus", "DISABLED")
    return None if status == "ENABLED" else f"point-in-time recovery is {status}"


def _encryption(table: TableSettings) -> str | None:
    description = _described(table).get("SSEDescription", {})
    if description.get("SSEType") == "KMS" and description.get("Status") in ("ENABLED", "UPDATING"):
        return None
    return "encrypted with a key that AWS owns, not with a KMS key of the account"


def _deletion(table: TableSettings) -> str | None:
    return None if _described(table).get("DeletionProtectionEnabled") else "deletion protection is off"


def _policy(table: TableSettings) -> str | None:
    assert not isinstance(table.policy, Unread)
    public = [statement.sid or f"number {at}" for at, statement in enumerate(table.policy) if statement.is_public]
    return f"the resource policy lets everyone in: statement {', '.join(public)}" if public else None


def _backup_plan(table: TableSettings) -> str | None:
    assert not isinstance(table.selections, Unread)
    assert not isinstance(table.tags, Unread)
    if any(selects(chosen.selection, table.resource, table.tags) for chosen in table.selections):
        return None
    return f"none of the {len(table.selections)} backup selections of the Region takes in the table"


def selects(selection: Mapping[str, Any], resource: str, tags: Mapping[str, str]) -> bool:
    """Whether an AWS Backup selection takes in a resource.

    It must match an ARN pattern or one of ``ListOfTags``, none of ``NotResources``, and every one of
    ``Conditions``.
    """

    def matches(patterns: Any) -> bool:
        return any(wildcard_match(pattern, resource, ignore_case=False) for pattern in patterns or ())

    by_tag = any(
        tags.get(condition.get("ConditionKey")) == condition.get("ConditionValue")
        for condition in selection.get("ListOfTags") or ()
        if condition.get("ConditionType", "STRINGEQUALS") == "STRINGEQUALS"
    )
    if not (matches(selection.get("Resources")) or by_tag) or matches(selection.get("NotResources")):
        return False
    return all(
        _condition_holds(operator, entry, tags)
        for operator, entries in (selection.get("Conditions") or {}).items()
        for entry in entries or ()
    )


def _condition_holds(operator: str, entry: Mapping[str, str], tags: Mapping[str, str]) -> bool:
    value = tags.get(entry.get("ConditionKey", "").removeprefix("aws:ResourceTag/"))
    wanted = entry.get("ConditionValue", "")
    holds = {
        "StringEquals": value == wanted,
        "StringNotEquals": value != wanted,
        "StringLike": value is not None and wildcard_match(wanted, value, ignore_case=False),
        "StringNotLike": value is None or not wildcard_match(wanted, value, ignore_case=False),
    }
    return holds.get(operator, False)


RULES: Final[tuple[Rule[TableSettings], ...]] = (
    Rule(
        "dynamodb-point-in-time-recovery",
        "The table can be restored to any second of 35 days",
        Severity.HIGH,
        "point-in-time recovery ENABLED",
        ("backups",),
        _recovery,
        lambda table: _command(
            table,
            "update-continuous-backups",
            "--point-in-time-recovery-specification PointInTimeRecoveryEnabled=true",
        ),
        ("DYNAMODB_PITR_ENABLED",),
        (BACKUP, RECOVERY),
    ),
    Rule(
        "dynamodb-encryption",
        "The table is encrypted with a KMS key",
        Severity.MEDIUM,
        "server-side encryption of type KMS",
        ("described",),
        _encryption,
        lambda table: _command(table, "update-table", "--sse-specification Enabled=true,SSEType=KMS"),
        ("DYNAMODB_TABLE_ENCRYPTED_KMS",),
        (ENCRYPTION,),
    ),
    Rule(
        "dynamodb-deletion-protection",
        "The table cannot be deleted by accident",
        Severity.MEDIUM,
        "deletion protection on",
        ("described",),
        _deletion,
        lambda table: _command(table, "update-table", "--deletion-protection-enabled"),
        ("DYNAMODB_TABLE_DELETION_PROTECTION_ENABLED",),
        (INTEGRITY, BACKUP),
    ),
    Rule(
        "dynamodb-backup-plan",
        "A backup plan takes in the table",
        Severity.LOW,
        "an AWS Backup selection that matches the table",
        ("selections", "tags"),
        _backup_plan,
        lambda table: (
            "aws backup create-backup-selection --backup-plan-id PLAN-ID --backup-selection "
            f"SelectionName={table.declared.name},IamRoleArn=ROLE-ARN,Resources={table.resource} "
            f"--region {table.region}"
        ),
        ("DYNAMODB_IN_BACKUP_PLAN", "DYNAMODB_RESOURCES_PROTECTED_BY_BACKUP_PLAN"),
        (BACKUP,),
    ),
    Rule(
        "dynamodb-no-public-policy",
        "The table's resource policy is not public",
        Severity.CRITICAL,
        "no statement that allows everyone",
        ("policy",),
        _policy,
        lambda table: (
            f"aws dynamodb delete-resource-policy --resource-arn {table.resource} --region {table.region}"
        ),
        hipaa=(ACCESS,),
    ),
)
