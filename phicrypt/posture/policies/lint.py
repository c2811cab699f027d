"""``phicrypt policy lint``: what a key or IAM policy allows that it should not. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from phicrypt.errors import PhiCryptError, PhiInContextError
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.posture.policies.document import Statement, parse_policy
from phicrypt.posture.rules.findings import Severity
from phicrypt.posture.rules.iam import allows_blocked_actions

_CONTEXT: Final = "kms:encryptioncontext:"
_KEY_POLICY_LIMIT_BYTES: Final = 32_768
_IAM_POLICY_LIMIT_BYTES: Final = 6_144
_OPERATORS: Final = frozenset(
    operator.lower()
    for operator in [
        "StringEquals",
        "StringNotEquals",
        "StringEqualsIgnoreCase",
        "StringNotEqualsIgnoreCase",
        "StringLike",
        "StringNotLike",
        "NumericEquals",
        "NumericNotEquals",
        "NumericLessThan",
        "NumericLessThanEquals",
        "NumericGreaterThan",
        "NumericGreaterThanEquals",
        "DateEquals",
        "DateNotEquals",
        "DateLessThan",
        "DateLessThanEquals",
        "DateGreaterThan",
        "DateGreaterThanEquals",
        "Bool",
        "BinaryEquals",
        "IpAddress",
        "NotIpAddress",
        "ArnEquals",
        "ArnLike",
        "ArnNotEquals",
        "ArnNotLike",
        "Null",
    ]
)
_KMS_KEYS: Final = frozenset(
    f"kms:{name.lower()}"
    for name in [
        "BypassPolicyLockoutSafetyCheck",
        "CallerAccount",
        "CustomerMasterKeySpec",
        "CustomerMasterKeyUsage",
        "DataKeyPairSpec",
        "EncryptionAlgorithm",
        "EncryptionContextKeys",
        "ExpirationModel",
        "GrantConstraintType",
        "GrantIsForAWSResource",
        "GrantOperations",
        "GranteePrincipal",
        "KeyAgreementAlgorithm",
        "KeyOrigin",
        "KeySpec",
        "KeyUsage",
        "MacAlgorithm",
        "MessageType",
        "MultiRegion",
        "MultiRegionKeyType",
        "PrimaryRegion",
        "ReEncryptOnSameKey",
        "RequestAlias",
        "ResourceAliases",
        "ReplicaRegion",
        "RetiringPrincipal",
        "RotationPeriodInDays",
        "ScheduleKeyDeletionPendingWindowInDays",
        "SigningAlgorithm",
        "ValidTo",
        "ViaService",
        "WrappingAlgorithm",
        "WrappingKeySpec",
    ]
)
_DEMANDING: Final = ("stringequals", "stringequalsignorecase", "stringlike")
_GRANT_LIMITS: Final = frozenset(
    ("kms:grantisforawsresource", "kms:grantoperations", "kms:grantconstrainttype", "kms:granteeprincipal")
)


@dataclass(frozen=True, slots=True)
class LintFinding:
    """One thing to repair.

    Attributes:
        lint_id: stable, such as ``"no-encryption-context"``.
        severity: how much harm it does.
        place: the statement's Sid, or its number.
        text: what it means.
    """

    lint_id: str
    severity: Severity
    place: str
    text: str


def lint_policy(document: str) -> tuple[LintFinding, ...]:
    """Everything that is wrong with a policy, in its order. Raises FormatError for no policy at all."""
    statements = parse_policy(document)
    is_key_policy = any(statement.principals or statement.not_principals for statement in statements)
    findings = list(_of_document(document, statements, is_key_policy))
    for at, statement in enumerate(statements):
        place = statement.sid or f"statement {at}"
        findings += [
            LintFinding(lint_id, severity, place, text)
            for lint_id, severity, text, applies in _STATEMENT_LINTS
            if applies(statement)
        ]
        findings += _of_conditions(statement, place)
    return tuple(findings)


def _of_document(document: str, statements: tuple[Statement, ...], is_key_policy: bool) -> Iterator[LintFinding]:
    members: Any = json.loads(document)
    if members.get("Version") != "2012-10-17":
        yield LintFinding("old-version", Severity.LOW, "document", 'the Version is not "2012-10-17"')
    limit = _KEY_POLICY_LIMIT_BYTES if is_key_policy else _IAM_POLICY_LIMIT_BYTES
    length = len(json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode())
    if length > limit:
        yield LintFinding(
            "too-long", Severity.HIGH, "document", f"{length} bytes without spaces; AWS takes {limit}"
        )
    if is_key_policy and not any(s.is_allow and s.covers_action("kms:PutKeyPolicy") for s in statements):
        yield LintFinding(
            "nobody-administers",
            Severity.HIGH,
            "document",
            "no statement allows kms:PutKeyPolicy: the key could never be changed again",
        )


def _of_conditions(statement: Statement, place: str) -> Iterator[LintFinding]:
    for operator, name, values in statement.condition_keys():
        lowered = name.lower()
        plain = (
            operator.lower().removeprefix("forallvalues:").removeprefix("foranyvalue:").removesuffix("ifexists")
        )
        if plain not in _OPERATORS:
            yield LintFinding("unknown-operator", Severity.HIGH, place, f"IAM knows no operator {operator!r}")
        if lowered.startswith("kms:") and lowered not in _KMS_KEYS and not _is_context(lowered):
            yield LintFinding("unknown-condition-key", Severity.HIGH, place, f"KMS sets no key {name!r}")
        if not _is_context(lowered) or plain in ("null", "bool"):
            continue
        if statement.is_allow and any(set(value) <= {"*", "?"} for value in values):
            yield LintFinding("any-context-value", Severity.MEDIUM, place, f"{name} may have any value")
        try:
            PhiGuard().check({name[len(_CONTEXT) :]: value for value in values}, where="policy")
        except PhiInContextError:
            yield LintFinding("phi-in-policy", Severity.HIGH, place, f"a value of {name} looks like PHI")
        except PhiCryptError:
            continue


def _is_context(lowered: str) -> bool:
    return lowered.startswith(_CONTEXT) and len(lowered) > len(_CONTEXT)


def _opens_or_seals(statement: Statement) -> bool:
    return statement.is_allow and any(
        statement.covers_action(action)
        for action in ("kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom")
    )


def _binds_context(statement: Statement) -> bool:
    """Whether some pair must be present: ``…IfExists``, negations and ``ForAllValues:`` demand nothing."""
    return any(
        _is_context(name.lower())
        and operator.lower().removeprefix("foranyvalue:")
        in ("stringequals", "stringequalsignorecase", "stringlike")
        for operator, name, _ in statement.condition_keys()
    )


def _allows(*actions: str) -> Callable[[Statement], bool]:
    return lambda statement: statement.is_allow and any(statement.covers_action(action) for action in actions)


def _allows_every_kms_action(statement: Statement) -> bool:
    return statement.is_allow and any(action.lower() in ("*", "kms:*") for action in statement.actions)


def _allows_by_exclusion(statement: Statement) -> bool:
    return statement.is_allow and bool(
        statement.not_actions or statement.not_resources or statement.not_principals
    )


def _hands_out_grants(statement: Statement) -> bool:
    return _allows("kms:CreateGrant")(statement) and not any(
        name.lower() in _GRANT_LIMITS for _, name, _ in statement.condition_keys()
    )


_STATEMENT_LINTS: Final[tuple[tuple[str, Severity, str, Callable[[Statement], bool]], ...]] = (
    (
        "allows-everyone",
        Severity.CRITICAL,
        "allows every principal, without a condition that says who",
        lambda statement: statement.is_public,
    ),
    (
        "every-kms-action",
        Severity.HIGH,
        "allows every KMS action: name those that are needed",
        _allows_every_kms_action,
    ),
    (
        "opens-under-every-key",
        Severity.HIGH,
        "allows kms:Decrypt or kms:ReEncryptFrom on every key: name the key",
        lambda statement: not statement.principals and allows_blocked_actions(statement),
    ),
    (
        "no-encryption-context",
        Severity.HIGH,
        "seals or opens without a kms:EncryptionContext: condition that demands a pair",
        lambda statement: _opens_or_seals(statement) and not _binds_context(statement),
    ),
    (
        "encrypts-directly",
        Severity.MEDIUM,
        "allows kms:Encrypt or kms:ReEncrypt*, which forge branch keys; GenerateDataKey and Decrypt are enough",
        _allows("kms:Encrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo"),
    ),
    (
        "hands-out-grants",
        Severity.HIGH,
        "allows kms:CreateGrant without a condition on what may be granted",
        _hands_out_grants,
    ),
    (
        "allows-by-exclusion",
        Severity.HIGH,
        "allows everything but what NotAction, NotResource or NotPrincipal name",
        _allows_by_exclusion,
    ),
)
