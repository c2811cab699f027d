"""A second opinion on what ``phicrypt policy`` prints: parliament, which knows AWS's actions and conditions."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from phicrypt.posture import Declaration
from phicrypt.posture.policies import least_privilege

parliament = pytest.importorskip("parliament", reason="parliament is not installed (extra: test)")

ARN = "arn:aws:kms:us-east-1:111122223333:key/1a2b3c4d-0000-4000-8000-1a2b3c4d5e6f"
ROLES = ("administrator", "writer", "reader", "auditor", "break-glass")
DECLARATION = Declaration.of(
    {
        "keys": [ARN],
        "buckets": ["clinic-data"],
        "tables": ["patients"],
        "trails": ["trail"],
        "context": {"tenant": "clinic-7", "application": "intake"},
        "roles": {name: f"arn:aws:iam::111122223333:role/{name}" for name in ROLES},
    }
)
KEY = DECLARATION.keys[0]
NEWER_ACTIONS = {"kms:GetKeyLastUsage"}
"""Actions of KMS that parliament's table of them does not have yet."""
PRINTED = {
    "key": least_privilege.key_policy(DECLARATION, KEY),
    "writer": least_privilege.writer_policy(DECLARATION, KEY),
    "reader": least_privilege.reader_policy(DECLARATION, KEY),
    "auditor": least_privilege.auditor_policy(DECLARATION, KEY),
    "break-glass": least_privilege.break_glass_policy(
        DECLARATION, KEY, expires_at=datetime(2030, 1, 1, tzinfo=UTC)
    ),
}
ON_EVERY_RESOURCE = {
    "key": "in a key policy the resource * is the key itself",
    "auditor": "reads settings of the account, of whatever resources there are",
}


def found_in(policy: object) -> list[tuple[str, str]]:
    findings = parliament.analyze_policy_string(json.dumps(policy)).findings
    return [(finding.issue, str(finding.detail)) for finding in findings]


@pytest.mark.parametrize("name", PRINTED)
def test_parliament_agrees_with_what_is_printed(name: str) -> None:
    disagreed = [
        (issue, detail)
        for issue, detail in found_in(PRINTED[name])
        if not (issue == "UNKNOWN_ACTION" and any(detail.endswith(action) for action in NEWER_ACTIONS))
        and not (issue == "RESOURCE_STAR" and name in ON_EVERY_RESOURCE)
    ]
    assert disagreed == []


def test_parliament_is_asked_at_all() -> None:
    wrong = {"Effect": "Allow", "Action": "kms:Decrpyt", "Resource": ARN}
    everywhere = {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*"}
    unknown = {**everywhere, "Resource": ARN, "Condition": {"StringEquals": {"kms:NoSuchKey": "x"}}}
    issues = [
        {issue for issue, _ in found_in({"Version": "2012-10-17", "Statement": [statement]})}
        for statement in (wrong, everywhere, unknown)
    ]
    assert issues == [{"UNKNOWN_ACTION"}, {"RESOURCE_STAR"}, {"UNKNOWN_CONDITION_FOR_ACTION"}]
