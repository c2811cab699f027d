"""Least-privilege policies for one KMS key: who seals, who opens, who audits, who breaks the glass.

Cryptographic permissions carry ``kms:EncryptionContext:`` conditions for the declared pairs, so a
role of one tenant cannot open another's data even where it may use the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from phicrypt.errors import ConfigurationError
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.posture.declaration import Declaration, KeyDeclaration, Roles
from phicrypt.posture.reading.settings import BucketSettings, KeySettings, TableSettings, questions_of

ADMINISTRATION: Final = (
    "kms:CancelKeyDeletion",
    "kms:DescribeKey",
    "kms:DisableKey",
    "kms:DisableKeyRotation",
    "kms:EnableKey",
    "kms:EnableKeyRotation",
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListGrants",
    "kms:ListKeyPolicies",
    "kms:ListResourceTags",
    "kms:PutKeyPolicy",
    "kms:ReplicateKey",
    "kms:RevokeGrant",
    "kms:RotateKeyOnDemand",
    "kms:ScheduleKeyDeletion",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateKeyDescription",
)
"""What administers a key without opening anything, and without handing out grants."""
REPAIR: Final = ("kms:DescribeKey", "kms:GetKeyPolicy", "kms:PutKeyPolicy")
SEAL: Final = ("kms:GenerateDataKey",)
OPEN: Final = ("kms:Decrypt",)
USE_BY_CONTEXT: Final = (*OPEN, "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*")
"""The uses that take an encryption context."""


def _with_questions(*permissions: str, of: tuple[type, ...]) -> tuple[str, ...]:
    asked = {question.permission for settings in of for question in questions_of(settings).values()}
    return tuple(sorted({*permissions, *asked}))


READ_KEY_SETTINGS: Final = _with_questions(
    "kms:GetKeyPolicy",
    "kms:GetKeyRotationStatus",
    "kms:ListGrants",
    of=(KeySettings,),
)
ASK_LAST_USE: Final = ("kms:GetKeyLastUsage",)
"""What ``phicrypt audit last-use`` asks of KMS."""
READ_OTHER_SETTINGS: Final = _with_questions(
    "backup:GetBackupSelection",
    "backup:ListBackupPlans",
    "backup:ListBackupSelections",
    "cloudtrail:DescribeTrails",
    "cloudtrail:GetEventSelectors",
    "cloudtrail:GetTrailStatus",
    "config:DescribeConfigRules",
    "config:DescribeConfigurationRecorderStatus",
    "config:GetComplianceDetailsByConfigRule",
    "dynamodb:DescribeTable",
    "dynamodb:GetResourcePolicy",
    "dynamodb:ListTagsOfResource",
    "iam:GetAccountAuthorizationDetails",
    "s3:GetAccountPublicAccessBlock",
    "s3:GetBucketAcl",
    "s3:GetBucketOwnershipControls",
    "s3:GetBucketPolicy",
    "s3:GetBucketPolicyStatus",
    "s3:ListBucket",
    "sts:GetCallerIdentity",
    of=(BucketSettings, TableSettings),
)
"""Everything that ``phicrypt doctor`` asks, apart from the keys."""
USE_OF_KEYS: Final = (
    "kms:Decrypt",
    "kms:DeriveSharedSecret",
    "kms:Encrypt",
    "kms:GenerateDataKey*",
    "kms:GenerateMac",
    "kms:ReEncrypt*",
    "kms:Sign",
)
_MFA_MAX_AGE_SECONDS: Final = 3_600


def key_policy(
    declaration: Declaration, declared: KeyDeclaration, *, verify_data_keys: bool = False
) -> dict[str, Any]:
    """The key policy: administration for the account, use for the declared roles only.

    The account's root principal gets administration but no use, so IAM policies alone can open
    nothing. Use without the declared context pairs is denied to everyone; a key with this policy is
    for client-side encryption only (AWS services that encrypt with it send other pairs).
    ``verify_data_keys`` as of :func:`writer_policy`.

    Raises ConfigurationError without a declared context or roles.
    """
    roles, context = declaration.roles, _context(declaration.context)
    partition, account = declared.arn.split(":")[1], declared.arn.split(":")[4]
    root = f"arn:{partition}:iam::{account}:root"
    statements = [
        _statement("Administer", ADMINISTRATION, "*", principal=roles.administrator or root),
        # A role can be deleted, and then nobody could change the key: the account can always repair it.
        _statement("AccountRepairs", REPAIR, "*", principal=root),
        _statement(
            "DenyQuickDeletion",
            ("kms:ScheduleKeyDeletion",),
            "*",
            principal="*",
            effect="Deny",
            conditions={"NumericLessThan": {"kms:ScheduleKeyDeletionPendingWindowInDays": "30"}},
        ),
    ]
    statements += _deny_without(context)
    users = [(sid, actions, principal) for sid, actions, principal in _users(roles) if principal is not None]
    if verify_data_keys and roles.writer is not None:
        users.append(("WriterVerifiesDataKeys", OPEN, roles.writer))
    if not users:
        raise ConfigurationError("declare who uses the key: [roles] with writer, reader, auditor or break-glass")
    for sid, actions, principal in users:
        conditions: dict[str, Any] = {} if sid.startswith("Auditor") else {"StringEquals": context}
        if sid.startswith("BreakGlass"):
            conditions |= _with_mfa()
        statements.append(_statement(sid, actions, "*", principal=principal, conditions=conditions))
    return _document(statements)


def _deny_without(context: Mapping[str, str]) -> list[dict[str, Any]]:
    """One statement per pair: keys within one condition must all be missing for it to hold."""
    return [
        _statement(
            f"DenyUseWithoutPair{number}",
            USE_BY_CONTEXT,
            "*",
            principal="*",
            effect="Deny",
            conditions={"Null": {name: "true"}},
        )
        for number, name in enumerate(context, 1)
    ]


def _users(roles: Roles) -> tuple[tuple[str, tuple[str, ...], str | None], ...]:
    return (
        ("WriterSeals", SEAL, roles.writer),
        ("ReaderOpens", OPEN, roles.reader),
        ("AuditorReadsSettings", (*READ_KEY_SETTINGS, *ASK_LAST_USE), roles.auditor),
        ("BreakGlassOpens", OPEN, roles.break_glass),
    )


def writer_policy(
    declaration: Declaration, declared: KeyDeclaration, *, verify_data_keys: bool = False
) -> dict[str, Any]:
    """IAM policy of those who seal: GenerateDataKey under the declared context, and nothing that opens.

    ``verify_data_keys``: and Decrypt under it, for ``KmsKeyring(verify_data_keys=True)`` (rule 28).
    """
    statements = [_use("Seal", SEAL, declaration, declared)]
    if verify_data_keys:
        statements.append(_use("VerifyDataKeys", OPEN, declaration, declared))
    return _document(statements)


def reader_policy(declaration: Declaration, declared: KeyDeclaration) -> dict[str, Any]:
    """IAM policy of those who open: Decrypt on this key, under the declared context."""
    return _document([_use("Open", OPEN, declaration, declared)])


def auditor_policy(declaration: Declaration, declared: KeyDeclaration) -> dict[str, Any]:
    """IAM policy of ``phicrypt doctor`` and ``audit last-use``: reads settings, may use no key."""
    arns = [key.arn for key in declaration.keys] or [declared.arn]
    return _document(
        [
            _statement("ReadKeySettings", (*READ_KEY_SETTINGS, *ASK_LAST_USE), arns),
            _statement("ReadOtherSettings", READ_OTHER_SETTINGS, "*"),
            _statement("UseNoKey", USE_OF_KEYS, "*", effect="Deny"),
        ]
    )


def break_glass_policy(
    declaration: Declaration, declared: KeyDeclaration, *, expires_at: datetime | None = None
) -> dict[str, Any]:
    """IAM policy of an emergency role: Decrypt with a recent second factor, until a date.

    Raises ConfigurationError for a date without a time zone.
    """
    more = _with_mfa()
    if expires_at is not None:
        if expires_at.tzinfo is None:
            raise ConfigurationError("the expiry needs a time zone, such as 2030-01-31T00:00:00Z")
        more["DateLessThan"] = {"aws:CurrentTime": expires_at.isoformat().replace("+00:00", "Z")}
    statement = _use("OpenInEmergency", OPEN, declaration, declared)
    statement["Condition"] |= more
    return _document([statement])


def _use(sid: str, actions: tuple[str, ...], declaration: Declaration, declared: KeyDeclaration) -> dict[str, Any]:
    return _statement(sid, actions, declared.arn, conditions={"StringEquals": _context(declaration.context)})


def _with_mfa() -> dict[str, dict[str, str]]:
    return {
        "Bool": {"aws:MultiFactorAuthPresent": "true"},
        "NumericLessThan": {"aws:MultiFactorAuthAge": str(_MFA_MAX_AGE_SECONDS)},
    }


def _context(context: Mapping[str, str]) -> dict[str, str]:
    """Condition keys of the declared pairs. Raises PhiInContextError: policies stand in clear."""
    if not context:
        raise ConfigurationError(
            "declare the encryption context that limits the key's use: [context] with at least one pair"
        )
    PhiGuard().check(dict(context), where="policy")
    return {f"kms:EncryptionContext:{name}": value for name, value in sorted(context.items())}


def _statement(
    sid: str,
    actions: tuple[str, ...],
    resource: str | list[str],
    *,
    effect: str = "Allow",
    principal: str | None = None,
    conditions: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    statement: dict[str, Any] = {"Sid": sid, "Effect": effect}
    if principal is not None:
        statement["Principal"] = {"AWS": principal}
    statement |= {"Action": list(actions), "Resource": resource}
    if conditions:
        statement["Condition"] = dict(conditions)
    return statement


def _document(statements: list[dict[str, Any]]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": statements}
