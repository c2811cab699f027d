"""The examples in docs/examples: they parse, pass cfn-lint, and say what the rules ask for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from phicrypt.posture.policies.document import parse_policy, requires_tls
from phicrypt.posture.policies.lint import lint_policy

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
TEMPLATE = EXAMPLES / "clinic.cloudformation.yaml"
TERRAFORM = EXAMPLES / "clinic.tf"


def test_cloudformation_example_passes_cfn_lint():
    api = pytest.importorskip("cfnlint.api")
    problems = [problem for problem in api.lint_all(TEMPLATE.read_text()) if problem.rule.id[0] in "EW"]
    assert problems == []


@pytest.fixture(scope="module")
def resources():
    """The template's resources with references replaced by ARNs of the example's own names."""
    decode = pytest.importorskip("cfnlint.decode")
    template, matches = decode.decode(str(TEMPLATE))
    assert not matches
    return json.loads(json.dumps(template["Resources"], default=dict))


def resolved(value):
    """Intrinsic functions by plain text: a bucket's ARN is arn:aws:s3:::<its logical name in lower case>."""
    if isinstance(value, list):
        return [resolved(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    if "Fn::GetAtt" in value:
        name, _ = value["Fn::GetAtt"] if isinstance(value["Fn::GetAtt"], list) else value["Fn::GetAtt"].split(".")
        return f"arn:aws:s3:::{name.lower()}"
    if "Fn::Sub" in value:
        text = re.sub(r"\$\{(\w+)\.Arn\}", lambda match: f"arn:aws:s3:::{match[1].lower()}", value["Fn::Sub"])
        return text.replace("${AWS::Partition}", "aws").replace("${AWS::AccountId}", "111122223333")
    if "Ref" in value:
        return f"arn:aws:iam::111122223333:role/{value['Ref']}"
    return {name: resolved(entry) for name, entry in value.items()}


def test_key_policy_of_the_example_passes_the_lint(resources):
    assert lint_policy(json.dumps(resolved(resources["PhiKey"]["Properties"]["KeyPolicy"]))) == ()


@pytest.mark.parametrize("bucket", ["LogBucket", "DataBucket", "AuditBucket"])
def test_buckets_of_the_example_are_private_versioned_and_tls_only(resources, bucket):
    properties = resources[bucket]["Properties"]
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert properties["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    statements = parse_policy(resolved(resources[f"{bucket}Policy"]["Properties"]["PolicyDocument"]))
    assert requires_tls(statements, bucket.lower())
    assert not any(statement.is_public for statement in statements)


def test_table_and_trail_of_the_example_are_protected(resources):
    table = resources["Patients"]["Properties"]
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["DeletionProtectionEnabled"] is True
    assert table["SSESpecification"]["SSEType"] == "KMS"
    trail = resources["Trail"]["Properties"]
    assert all(trail[name] is True for name in ("IsLogging", "IsMultiRegionTrail", "EnableLogFileValidation"))
    assert resources["AuditBucket"]["Properties"]["ObjectLockConfiguration"]["Rule"]


@pytest.mark.skipif(shutil.which("terraform") is None, reason="no terraform program")
def test_terraform_example_is_formatted_and_parses(tmp_path):
    shutil.copy(TERRAFORM, tmp_path / "main.tf")
    done = subprocess.run(
        ["terraform", "fmt", "-check", "-diff", "-no-color"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_examples_give_the_key_the_same_actions(resources):
    """Terraform's policy is written in its own language, so the actions are compared as text."""
    in_template = set()
    for statement in resources["PhiKey"]["Properties"]["KeyPolicy"]["Statement"]:
        actions = statement["Action"]
        in_template |= {actions} if isinstance(actions, str) else set(actions)
    in_terraform = set(re.findall(r'"(kms:[A-Z][A-Za-z]+\*?)"', TERRAFORM.read_text()))
    assert in_terraform == in_template
