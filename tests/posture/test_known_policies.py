"""Policies as people have them, each with its verdict: what must be named, and that nothing grave is made up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from phicrypt.errors import FormatError, LimitExceededError
from phicrypt.posture.policies import lint_policy
from phicrypt.posture.rules.cloudtrail import records_data_events, records_kms_events
from phicrypt.posture.rules.findings import Severity

ACCOUNT = "111122223333"
KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ALIAS = f"arn:aws:kms:us-east-1:{ACCOUNT}:alias/phi"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/intake"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"
TENANT = {"kms:EncryptionContext:tenant": "clinic-7"}
BUCKET = "arn:aws:s3:::records"


def allow(action: Any, resource: Any = KEY, **members: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **members}


def key_policy(*statements: dict[str, Any]) -> list[dict[str, Any]]:
    administrators = allow(["kms:PutKeyPolicy", "kms:DescribeKey"], "*", Principal={"AWS": ROLE})
    return [administrators, *({"Resource": "*", **statement} for statement in statements)]


USE = ["kms:GenerateDataKey", "kms:Decrypt"]
GOOD: dict[str, list[dict[str, Any]]] = {
    "a reader of one tenant": [allow("kms:Decrypt", Condition={"StringEquals": TENANT})],
    "a writer and reader": [allow(USE, Condition={"StringEquals": TENANT})],
    "several tenants": [allow(USE, Condition={"StringLike": {"kms:EncryptionContext:tenant": "clinic-*"}})],
    "describe only": [allow(["kms:DescribeKey", "kms:GetKeyPolicy"], "*")],
    "aliases are managed by their ARN": [allow(["kms:CreateAlias", "kms:UpdateAlias"], [ALIAS, KEY])],
    "an alias described": [allow("kms:DescribeKey", ALIAS)],
    "the whole account by its own policies": [allow("kms:*", "*", Principal={"AWS": ROOT})],
    "the account by its number": [allow("kms:*", "*", Principal={"AWS": ACCOUNT})],
    "a key's policy for one role": key_policy(
        allow(USE, "*", Principal={"AWS": ROLE}, Condition={"StringEquals": TENANT})
    ),
    "an organization's paths": key_policy(
        allow(
            USE,
            "*",
            Principal="*",
            Condition={
                "StringEquals": TENANT,
                "ForAnyValue:StringLike": {"aws:PrincipalOrgPaths": "o-a1b2c3d4e5/r-ab12/ou-ab12-11111111/*"},
            },
        )
    ),
    "an organization": key_policy(
        allow(
            USE,
            "*",
            Principal={"AWS": "*"},
            Condition={"StringEquals": {**TENANT, "aws:PrincipalOrgID": "o-a1b2c3d4e5"}},
        )
    ),
    "an enclave": key_policy(
        allow(
            "kms:Decrypt",
            "*",
            Principal={"AWS": ROLE},
            Condition={
                "StringEquals": TENANT,
                "StringEqualsIgnoreCase": {"kms:RecipientAttestation:ImageSha384": "ab" * 48},
            },
        )
    ),
    "an enclave by its registers": key_policy(
        allow(
            "kms:Decrypt",
            "*",
            Principal={"AWS": ROLE},
            Condition={
                "StringEquals": TENANT,
                "StringEqualsIgnoreCase": {"kms:RecipientAttestation:PCR0": "ab" * 48},
            },
        )
    ),
    "CloudTrail writes encrypted logs": key_policy(
        allow(
            "kms:GenerateDataKey*",
            "*",
            Principal={"Service": "cloudtrail.amazonaws.com"},
            Condition={
                "StringLike": {
                    "kms:EncryptionContext:aws:cloudtrail:arn": f"arn:aws:cloudtrail:*:{ACCOUNT}:trail/*"
                }
            },
        )
    ),
    "CloudWatch Logs": key_policy(
        allow(
            ["kms:Encrypt*", "kms:Decrypt*", "kms:GenerateDataKey*"],
            "*",
            Principal={"Service": "logs.us-east-1.amazonaws.com"},
            Condition={
                "ArnEquals": {
                    "kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:a"
                }
            },
        )
    ),
    "through S3 only": key_policy(
        allow(
            ["kms:Decrypt", "kms:GenerateDataKey"],
            "*",
            Principal={"AWS": ROLE},
            Condition={
                "StringEquals": {"kms:ViaService": "s3.us-east-1.amazonaws.com", "kms:CallerAccount": ACCOUNT}
            },
        )
    ),
    "grants for AWS services": key_policy(
        allow(
            "kms:CreateGrant",
            "*",
            Principal={"AWS": ROLE},
            Condition={"Bool": {"kms:GrantIsForAWSResource": "true"}},
        )
    ),
    "everybody but one is denied": [
        *key_policy(allow(USE, "*", Principal={"AWS": ROLE}, Condition={"StringEquals": TENANT})),
        {"Effect": "Deny", "NotPrincipal": {"AWS": ROLE}, "Action": "kms:*", "Resource": "*"},
    ],
    "everything but keys is denied": [{"Effect": "Deny", "NotAction": "kms:*", "Resource": "*"}],
    "a bucket that wants TLS": [
        {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [BUCKET, f"{BUCKET}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    ],
    "a bucket for one role": [allow(["s3:GetObject", "s3:PutObject"], f"{BUCKET}/*", Principal={"AWS": ROLE})],
    "a bucket for one endpoint": [
        allow(
            "s3:GetObject",
            f"{BUCKET}/*",
            Principal="*",
            Condition={"StringEquals": {"aws:SourceVpce": "vpce-1a2b3c4d"}},
        )
    ],
    "CloudTrail's bucket": [
        allow(
            "s3:PutObject",
            f"{BUCKET}/AWSLogs/{ACCOUNT}/*",
            Principal={"Service": "cloudtrail.amazonaws.com"},
            Condition={"StringEquals": {"s3:x-amz-acl": "bucket-owner-full-control"}},
        )
    ],
    "a table for one role": [
        allow(
            ["dynamodb:GetItem", "dynamodb:Query"],
            "arn:aws:dynamodb:us-east-1:111122223333:table/patients",
            Principal={"AWS": ROLE},
        )
    ],
    "a role for Lambda": [
        {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
    "a role for another account": [
        {
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::444455556666:root"},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"sts:ExternalId": "a1"}},
        }
    ],
    "a role for a pipeline": [
        {
            "Effect": "Allow",
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Principal": {"Federated": f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.example.com"},
            "Condition": {"StringEquals": {"token.example.com:aud": "sts.amazonaws.com"}},
        }
    ],
    "administrators without use": key_policy(
        allow(
            ["kms:EnableKey", "kms:DisableKey", "kms:TagResource", "kms:ScheduleKeyDeletion"],
            "*",
            Principal={"AWS": ROLE},
        )
    ),
}
BAD: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "every service": ("allows-everyone", key_policy(allow(USE, "*", Principal={"Service": "*"}))),
    "everyone": (
        "allows-everyone",
        key_policy(allow(USE, "*", Principal="*", Condition={"StringEquals": TENANT})),
    ),
    "any organization": (
        "allows-everyone",
        key_policy(
            allow(
                USE,
                "*",
                Principal="*",
                Condition={"ForAnyValue:StringLike": {"aws:PrincipalOrgPaths": "*/r-ab12/*"}},
            )
        ),
    ),
    "an organization of some letters": (
        "allows-everyone",
        key_policy(
            allow(
                USE,
                "*",
                Principal="*",
                Condition={"ForAnyValue:StringLike": {"aws:PrincipalOrgPaths": "o-*/r-ab12/*"}},
            )
        ),
    ),
    "everyone's bucket": ("allows-everyone", [allow("s3:GetObject", f"{BUCKET}/*", Principal="*")]),
    "everyone's role": (
        "allows-everyone",
        [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
    ),
    "an alias": ("alias-as-resource", [allow(USE, ALIAS, Condition={"StringEquals": TENANT})]),
    "a star under StringEquals": (
        "literal-wildcard",
        [allow(USE, Condition={"StringEquals": {"kms:EncryptionContext:tenant": "clinic-*"}})],
    ),
    "Conditions": ("unknown-member", [allow(USE, Conditions={"StringEquals": TENANT})]),
    "Principals": ("unknown-member", [allow(USE, Principals={"AWS": ROLE}, Condition={"StringEquals": TENANT})]),
    "a misspelt action": ("unknown-action", [allow("kms:Decyrpt", Condition={"StringEquals": TENANT})]),
    "a misspelt pattern": ("unknown-action", [allow("kms:GenerateDatakeys*", Condition={"StringEquals": TENANT})]),
    "a misspelt context": (
        "unknown-condition-key",
        [allow(USE, Condition={"StringEquals": {"kms:EncryptionContexts:tenant": "a"}})],
    ),
    "a register without a name": (
        "unknown-condition-key",
        [allow(USE, Condition={"StringEquals": {**TENANT, "kms:RecipientAttestation:": "a"}})],
    ),
    "a key that nobody administers": (
        "nobody-administers",
        [allow(USE, "*", Principal={"AWS": ROLE}, Condition={"StringEquals": TENANT})],
    ),
    "without a context": ("no-encryption-context", [allow(USE)]),
    "all but some actions": ("allows-by-exclusion", [allow(None, "*", NotAction="iam:*")]),
    "under every key": ("opens-under-every-key", [allow("kms:Decrypt", "*", Condition={"StringEquals": TENANT})]),
    "the account's own policies": ("delegates-to-iam", [allow("kms:*", "*", Principal={"AWS": ROOT})]),
}


def document(statements: list[dict[str, Any]]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": statements}


def lints(statements: list[dict[str, Any]]) -> dict[str, Severity]:
    return {finding.lint_id: finding.severity for finding in lint_policy(json.dumps(document(statements)))}


@pytest.mark.parametrize("name", GOOD)
def test_nothing_grave_is_said_of_a_good_policy(name):
    assert {lint for lint, severity in lints(GOOD[name]).items() if severity >= Severity.HIGH} == set()


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_named(name):
    lint_id, statements = BAD[name]
    assert lint_id in lints(statements)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda policy: {"Policy": json.dumps(policy)},
        lambda policy: {"Policy": json.dumps(policy), "PolicyName": "default"},
        lambda policy: {"PolicyDocument": policy, "RoleName": "intake"},
        lambda policy: {"PolicyVersion": {"Document": policy, "VersionId": "v1"}},
        lambda policy: {"Role": {"AssumeRolePolicyDocument": policy, "RoleName": "intake"}},
    ],
    ids=["get-key-policy", "with its name", "get-role-policy", "get-policy-version", "get-role"],
)
def test_answers_of_the_aws_command_line_are_unwrapped(wrap):
    policy = document([allow("kms:Decyrpt")])
    assert lint_policy(json.dumps(wrap(policy))) == lint_policy(json.dumps(policy))


def test_a_byte_order_mark_is_passed_over():
    policy = json.dumps(document([allow(USE)]))
    assert lint_policy(policy.encode("utf-8-sig")) == lint_policy("\ufeff" + policy) == lint_policy(policy)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(document([allow(USE)])).encode("utf-16"),
        '{"Statement": [], "Version": "é"}'.encode("latin-1"),
        b'{"Version": "\\ud800", "Statement": []}',
        b'{"Version": "1", "Version": "2", "Statement": []}',
        b'{"Policy": "{"}',
        b'{"Policy": {"Policy": {"Policy": 1}}}',
        b"[]",
        b"",
        b"[" * 60_000,
    ],
)
def test_what_is_no_policy_is_a_format_error(content):
    with pytest.raises(FormatError):
        lint_policy(content)


def test_a_policy_beyond_any_that_aws_stores_is_not_read():
    with pytest.raises(LimitExceededError):
        lint_policy(b" " * 70_000)


# Trails


def test_read_and_write_selectors_of_one_trail_are_added_up():
    split = [{"ReadWriteType": "ReadOnly"}, {"ReadWriteType": "WriteOnly"}]
    assert records_kms_events({"EventSelectors": split})
    assert not records_kms_events({"EventSelectors": split[:1]})
    assert not records_kms_events(
        {"EventSelectors": [split[0], {**split[1], "ExcludeManagementEventSources": ["kms.amazonaws.com"]}]}
    )


def test_split_advanced_selectors_are_added_up():
    def selector(read_only, category="Management", **fields):
        named = {"eventCategory": [category], "readOnly": [read_only], **fields}
        return {"FieldSelectors": [{"Field": field, "Equals": values} for field, values in named.items()]}

    assert records_kms_events({"AdvancedEventSelectors": [selector("true"), selector("false")]})
    assert not records_kms_events({"AdvancedEventSelectors": [selector("true"), selector("true")]})
    objects = {"resources.type": ["AWS::S3::Object"]}
    both = [selector(value, "Data", **objects) for value in ("true", "false")]
    assert records_data_events({"AdvancedEventSelectors": both}, "AWS::S3::Object", BUCKET)
    assert not records_data_events({"AdvancedEventSelectors": both[1:]}, "AWS::S3::Object", BUCKET)


def test_split_data_selectors_are_added_up():
    objects = [{"Type": "AWS::S3::Object", "Values": [f"{BUCKET}/"]}]
    split = [{"ReadWriteType": kind, "DataResources": objects} for kind in ("ReadOnly", "WriteOnly")]
    assert records_data_events({"EventSelectors": split}, "AWS::S3::Object", BUCKET)
    assert not records_data_events({"EventSelectors": split[:1]}, "AWS::S3::Object", BUCKET)
