"""docs/posture.md says what the rules say, and the declaration that it shows is one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from phicrypt.posture import Declaration
from phicrypt.posture.examination import ACCOUNT_RULES
from phicrypt.posture.rules.cloudtrail import RULES as TRAIL_RULES
from phicrypt.posture.rules.dynamodb import RULES as TABLE_RULES
from phicrypt.posture.rules.findings import Rule
from phicrypt.posture.rules.kms import RULES as KEY_RULES
from phicrypt.posture.rules.s3 import RULES as BUCKET_RULES

TEXT = (Path(__file__).parents[2] / "docs" / "posture.md").read_text()
RULES: tuple[Rule[Any], ...] = (*KEY_RULES, *BUCKET_RULES, *TABLE_RULES, *TRAIL_RULES, *ACCOUNT_RULES)


@pytest.mark.parametrize("rule", RULES, ids=[rule.rule_id for rule in RULES])
def test_rule_is_documented_as_it_is(rule):
    config = ", ".join(f"`{identifier}`" for identifier in rule.config_rules) or "none"
    row = (
        f'| <a id="{rule.rule_id}"></a>`{rule.rule_id}` | {rule.severity.name.lower()} | {rule.expected} '
        f"| {config} | {', '.join(rule.hipaa)} |"
    )
    assert row in TEXT


def test_documented_declaration_is_valid():
    (shown,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    members = tomllib.loads(shown.replace("key/…", "key/1a2b3c4d-0000-4000-8000-1a2b3c4d5e6f"))
    assert Declaration.of(members).buckets[1].audit
