"""Rules for IAM policies: nobody decrypts under every key. Pure."""

from __future__ import annotations

from typing import Final

from phicrypt.posture.policies.document import Statement, wildcard_match
from phicrypt.posture.reading.settings import AccountSettings, IamPolicy
from phicrypt.posture.rules.findings import ACCESS_MANAGEMENT, Rule, Severity, Unread

BLOCKED_ACTIONS: Final = ("kms:Decrypt", "kms:ReEncryptFrom")
"""What a policy must not allow on every key: each opens data that it was not written for."""
_NAMES_SHOWN: Final = 5
_PROBES: Final = ("1a2b3c4d-0000-4000-8000-1a2b3c4d5e6f", "mrk-f6e5d4c3b2a100008000400000001a2b")


def allows_blocked_actions(statement: Statement) -> bool:
    """Whether a statement allows a blocked action on all keys of an account or Region."""
    return (
        statement.is_allow
        and any(statement.covers_action(action) for action in BLOCKED_ACTIONS)
        and (bool(statement.not_resources) or any(_is_every_key(pattern) for pattern in statement.resources))
    )


def _is_every_key(pattern: str) -> bool:
    """Whether a resource pattern takes in two keys that have nothing in common but account and Region."""
    parts = pattern.split(":", 5)
    region, account = (
        part if part and "*" not in part and "?" not in part else otherwise
        for part, otherwise in zip((*parts, "", "", "", "")[3:5], ("us-east-1", "111122223333"), strict=True)
    )
    stem = f"{':'.join((parts[0], parts[1])) if len(parts) == 6 else 'arn:aws'}:kms:{region}:{account}:key/"
    return all(wildcard_match(pattern, stem + key_id, ignore_case=False) for key_id in _PROBES)


def _offenders(account: AccountSettings, *, inline: bool) -> list[IamPolicy]:
    assert not isinstance(account.iam_policies, Unread)
    return [
        policy
        for policy in account.iam_policies
        if policy.is_inline is inline and any(allows_blocked_actions(s) for s in policy.statements)
    ]


def _judge(account: AccountSettings, *, inline: bool) -> str | None:
    offenders = _offenders(account, inline=inline)
    if not offenders:
        return None
    names = ", ".join(policy.arn for policy in offenders[:_NAMES_SHOWN])
    more = f" and {len(offenders) - _NAMES_SHOWN} more" if len(offenders) > _NAMES_SHOWN else ""
    return f"allow {' or '.join(BLOCKED_ACTIONS)} on every key: {names}{more}"


def _fix(account: AccountSettings, *, inline: bool) -> str:
    offender = _offenders(account, inline=inline)[0].arn
    make = "phicrypt policy reader --declaration FILE > reader.json && "
    if not inline:
        return (
            f"{make}aws iam create-policy-version --policy-arn {offender} "
            "--policy-document file://reader.json --set-as-default"
        )
    kind, name, policy_name = offender.split(":")[-1].split("/", 2)
    return (
        f"{make}aws iam put-{kind}-policy --{kind}-name {name} --policy-name {policy_name} "
        "--policy-document file://reader.json"
    )


ACCOUNT_RULES: Final[tuple[Rule[AccountSettings], ...]] = tuple(
    Rule(
        f"iam-{kind}-policy-blocked-kms-actions",
        f"No {label} policy decrypts under every key",
        Severity.HIGH,
        "kms:Decrypt and kms:ReEncryptFrom on named keys only",
        ("iam_policies",),
        lambda account, inline=inline: _judge(account, inline=inline),  # type: ignore[misc]
        lambda account, inline=inline: _fix(account, inline=inline),  # type: ignore[misc]
        (f"IAM_{kind.upper()}_POLICY_BLOCKED_KMS_ACTIONS",),
        (ACCESS_MANAGEMENT,),
    )
    for kind, label, inline in (("customer", "customer managed", False), ("inline", "inline", True))
)
