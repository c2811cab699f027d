"""``phicrypt policy lint``: what a key or IAM policy allows that it should not. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from phicrypt.errors import PhiCryptError, PhiInContextError
from phicrypt.guard.phi_guard import PhiGuard
from phicrypt.posture.policies.document import Statement, parse_policy, read_policy, wildcard_match
from phicrypt.posture.policies.vocabulary import KMS_ACTIONS, KMS_CONDITION_KEYS, OPERATORS
from phicrypt.posture.rules.findings import Severity
from phicrypt.posture.rules.iam import allows_blocked_actions

_CONTEXT: Final = "kms:encryptioncontext:"
_FAMILIES: Final = (_CONTEXT, "kms:recipientattestation:")
"""Condition keys with a name of the user's or of an enclave behind them."""
_LIMITS_BYTES: Final = {"key": 32_768, "resource": 20_480, "iam": 6_144}
"""What AWS takes, by kind: a key's policy, that of another resource or role, a user's or role's own."""
_BINDING: Final = ("stringequals", "stringequalsignorecase", "stringlike", "arnequals", "arnlike")
_WITHOUT_WILDCARDS: Final = frozenset(
    ("stringequals", "stringnotequals", "stringequalsignorecase", "stringnotequalsignorecase")
)
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


def lint_policy(document: bytes | str) -> tuple[LintFinding, ...]:
    """Everything that is wrong with a policy, in its order: ``lint_policy(Path("key-policy.json").read_bytes())``.

    Takes the policies of keys, buckets, tables, roles (trust) and identities, also inside an answer of AWS's
    command line. Raises FormatError for no policy at all.
    """
    members = read_policy(document)
    statements = parse_policy(members)
    findings = list(_of_document(members, statements))
    for at, statement in enumerate(statements):
        place = statement.sid or f"statement {at}"
        findings += [
            LintFinding(lint_id, severity, place, text)
            for lint_id, severity, text, applies in _STATEMENT_LINTS
            if applies(statement)
        ]
        findings += [
            LintFinding("unknown-member", Severity.HIGH, place, f"IAM knows no member {member!r} of a statement")
            for member in statement.unknown_members
        ]
        findings += [
            LintFinding("unknown-action", Severity.HIGH, place, f"KMS has no action {action!r}")
            for action in (*statement.actions, *statement.not_actions)
            if action.lower().startswith("kms:")
            and not any(wildcard_match(action, known) for known in KMS_ACTIONS)
        ]
        findings += _of_conditions(statement, place)
    return tuple(findings)


def _kind_of(statements: tuple[Statement, ...]) -> str:
    """``"key"``, ``"resource"`` for a bucket's, table's or role's own policy, ``"iam"`` for an identity's."""
    if not any(statement.principals or statement.not_principals for statement in statements):
        return "iam"
    actions = [
        action.lower() for statement in statements for action in (*statement.actions, *statement.not_actions)
    ]
    return "key" if all(action == "*" or action.startswith("kms:") for action in actions) else "resource"


def _of_document(members: Mapping[str, object], statements: tuple[Statement, ...]) -> Iterator[LintFinding]:
    if members.get("Version") != "2012-10-17":
        yield LintFinding("old-version", Severity.LOW, "document", 'the Version is not "2012-10-17"')
    kind = _kind_of(statements)
    length = len(json.dumps(members, separators=(",", ":"), ensure_ascii=False).encode())
    if length > _LIMITS_BYTES[kind]:
        yield LintFinding(
            "too-long",
            Severity.HIGH,
            "document",
            f"{length} bytes without spaces; AWS takes {_LIMITS_BYTES[kind]}",
        )
    if kind == "key" and not any(s.is_allow and s.covers_action("kms:PutKeyPolicy") for s in statements):
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
        if plain not in OPERATORS:
            yield LintFinding("unknown-operator", Severity.HIGH, place, f"IAM knows no operator {operator!r}")
        if plain in _WITHOUT_WILDCARDS and any("*" in value for value in values):
            yield LintFinding(
                "literal-wildcard",
                Severity.HIGH,
                place,
                f"{operator} takes * to the letter: use StringLike for {name}",
            )
        if lowered.startswith("kms:") and lowered not in KMS_CONDITION_KEYS and not _is_of_a_family(lowered):
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


def _is_of_a_family(lowered: str) -> bool:
    return any(lowered.startswith(family) and lowered != family for family in _FAMILIES)


def _is_context(lowered: str) -> bool:
    return lowered.startswith(_CONTEXT) and lowered != _CONTEXT


def _opens_or_seals(statement: Statement) -> bool:
    return statement.is_allow and any(
        statement.covers_action(action)
        for action in ("kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:ReEncryptFrom")
    )


def _binds_context(statement: Statement) -> bool:
    """Whether some pair must be present: ``…IfExists``, negations and ``ForAllValues:`` demand nothing."""
    return _demands(statement, _BINDING, _is_context)


def _demands(statement: Statement, operators: tuple[str, ...], is_meant: Callable[[str], bool]) -> bool:
    return any(
        is_meant(name.lower()) and operator.lower().removeprefix("foranyvalue:") in operators
        for operator, name, _ in statement.condition_keys()
    )


def _is_of_services(statement: Statement) -> bool:
    """Whether AWS services alone use the key here: they bind contexts of their own."""
    return set(statement.principals) == {"Service"} or _demands(
        statement, _BINDING, lambda name: name == "kms:viaservice"
    )


def _delegates(statement: Statement) -> bool:
    """Whether it leaves the choice to the account's own policies, as AWS's default key policy does."""
    names = statement.principals.get("AWS", ())
    return (
        statement.is_allow
        and set(statement.principals) == {"AWS"}
        and bool(names)
        and all(name.endswith(":root") or (len(name) == 12 and name.isdecimal()) for name in names)
    )


def _allows(*actions: str) -> Callable[[Statement], bool]:
    return lambda statement: statement.is_allow and any(statement.covers_action(action) for action in actions)


def _allows_every_kms_action(statement: Statement) -> bool:
    return (
        statement.is_allow
        and not _delegates(statement)
        and any(action.lower() in ("*", "kms:*") for action in statement.actions)
    )


def _allows_by_exclusion(statement: Statement) -> bool:
    return statement.is_allow and bool(
        statement.not_actions or statement.not_resources or statement.not_principals
    )


def _hands_out_grants(statement: Statement) -> bool:
    return (
        not _delegates(statement)
        and _allows("kms:CreateGrant")(statement)
        and not any(name.lower() in _GRANT_LIMITS for _, name, _ in statement.condition_keys())
    )


_encrypts: Final = _allows("kms:Encrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo")
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
        lambda statement: (
            _opens_or_seals(statement)
            and not _binds_context(statement)
            and not _delegates(statement)
            and not _is_of_services(statement)
        ),
    ),
    (
        "encrypts-directly",
        Severity.MEDIUM,
        "allows kms:Encrypt or kms:ReEncrypt*, which forge branch keys; GenerateDataKey and Decrypt are enough",
        lambda statement: not _delegates(statement) and _encrypts(statement),
    ),
    (
        "delegates-to-iam",
        Severity.MEDIUM,
        "leaves who may use the key to the account's own policies: each of them must then bind a context",
        lambda statement: _delegates(statement) and _opens_or_seals(statement) and not _binds_context(statement),
    ),
    (
        "alias-as-resource",
        Severity.HIGH,
        "names an alias: permissions to use a key match its ARN; name that, or use kms:ResourceAliases",
        lambda statement: (
            _opens_or_seals(statement)
            and any(":kms:" in resource and ":alias/" in resource for resource in statement.resources)
        ),
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
