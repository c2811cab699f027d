"""Policies: what everyone means, what the templates give, what lint finds."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import phicrypt.posture
from phicrypt.errors import ConfigurationError, FormatError, LimitExceededError, PhiCryptError, PhiInContextError
from phicrypt.posture import Declaration
from phicrypt.posture.policies.document import parse_policy, wildcard_match
from phicrypt.posture.policies.least_privilege import (
    READ_KEY_SETTINGS,
    READ_OTHER_SETTINGS,
    auditor_policy,
    break_glass_policy,
    key_policy,
    reader_policy,
    writer_policy,
)
from phicrypt.posture.policies.lint import lint_policy
from phicrypt.posture.rules.iam import allows_blocked_actions

ARN = "arn:aws:kms:us-east-1:111122223333:key/1a2b3c4d-0000-4000-8000-1a2b3c4d5e6f"
ROLE = "arn:aws:iam::111122223333:role/"
DECLARATION = Declaration.of(
    {
        "keys": [ARN],
        "context": {"tenant": "clinic-7", "application": "intake"},
        "roles": {name: ROLE + name for name in ("writer", "reader", "auditor", "break-glass")},
    }
)
KEY = DECLARATION.keys[0]


def allow(**members):
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "kms:Decrypt", "Resource": ARN, **members}],
        }
    )


def is_public(**members) -> bool:
    return parse_policy(allow(**members))[0].is_public


@pytest.mark.parametrize("principal", ["*", {"AWS": "*"}, {"AWS": [ROLE, "*"]}, {"Federated": "*"}])
def test_everyone_is_public(principal):
    assert is_public(Principal=principal)


@pytest.mark.parametrize(
    "condition",
    [
        {"StringEquals": {"aws:PrincipalOrgID": "o-1"}},
        {"StringEquals": {"kms:CallerAccount": "111122223333"}},
        {"StringLike": {"aws:PrincipalArn": "arn:aws:iam::111122223333:role/*"}},
        {"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::bucket"}},
        {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}},
    ],
)
def test_condition_that_pins_the_caller_is_not_public(condition):
    assert not is_public(Principal="*", Condition=condition)


@pytest.mark.parametrize(
    "condition",
    [
        {"StringEqualsIfExists": {"aws:PrincipalOrgID": "o-1"}},
        {"StringNotEquals": {"aws:PrincipalOrgID": "o-1"}},
        {"ForAllValues:StringEquals": {"aws:PrincipalOrgPaths": "o-1/"}},
        {"StringLike": {"aws:PrincipalOrgID": "*"}},
        {"StringEquals": {"aws:PrincipalOrgID": ["o-1", "o-*"]}},
        {"StringEquals": {"aws:PrincipalOrgID": []}},
        {"StringLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/app"}},
        {"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}},
        {"IpAddress": {"aws:SourceIp": "::/0"}},
        {"IpAddress": {"aws:SourceIp": "nonsense"}},
        {"StringEquals": {"aws:UserAgent": "secret"}},
        {"Bool": {"aws:SecureTransport": "true"}},
        {"StringEquals": {"kms:EncryptionContext:tenant": "clinic-7"}},
    ],
)
def test_condition_that_pins_nobody_is_public(condition):
    assert is_public(Principal="*", Condition=condition)


def test_everyone_but_some_is_public():
    statement = {"Effect": "Allow", "NotPrincipal": {"AWS": ROLE}, "Action": "kms:*", "Resource": "*"}
    assert parse_policy({"Statement": statement})[0].is_public


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("kms:*", "kms:Decrypt", True),
        ("KMS:decrypt", "kms:Decrypt", True),
        ("kms:De?rypt", "kms:Decrypt", True),
        ("kms:Re*From", "kms:ReEncryptFrom", True),
        ("kms:Re*From", "kms:ReEncryptTo", False),
        ("", "", True),
        ("*", "", True),
        ("?", "", False),
        ("a*b*c", "aXbXbXc", True),
        ("a*b*c", "aXbXbX", False),
        ("[a]", "a", False),
    ],
)
def test_wildcards(pattern, text, expected):
    assert wildcard_match(pattern, text) is expected


def test_wildcards_cannot_stall_the_reader():
    """A matcher that tries every split would not end within the age of the universe."""
    assert not wildcard_match("*a" * 200 + "b", "a" * 4_000)


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        ("*", True),
        ("arn:aws:kms:*:111122223333:key/*", True),
        ("arn:aws:kms:eu-west-1:111122223333:key/*", True),
        ("arn:aws:kms:*", True),
        ("arn:*", True),
        ("arn:aws:kms:us-east-1:111122223333:*", True),
        (ARN, False),
        ("arn:aws:kms:*:111122223333:key/mrk-*", False),
        ("arn:aws:s3:::bucket/*", False),
        ("arn:aws:kms:us-east-1:111122223333:alias/*", False),
    ],
)
def test_every_key_is_told_from_named_keys(resource, expected):
    statement = parse_policy(allow(Action="kms:De*", Resource=resource))[0]
    assert allows_blocked_actions(statement) is expected


@pytest.mark.parametrize(
    "document",
    ["", "{", "[]", "{}", '{"Statement": 7}', '{"Statement": [7]}', '{"Statement": {"Effect": "allow"}}']
    + [
        json.dumps({"Statement": {"Effect": "Allow", name: value}})
        for name, value in (
            ("Action", {}),
            ("Action", [None]),
            ("Condition", []),
            ("Condition", {"Bool": 1}),
            ("Principal", 7),
        )
    ],
)
def test_malformed_policy_is_a_format_error(document):
    with pytest.raises(FormatError):
        parse_policy(document)


def test_policy_beyond_the_bound_is_refused():
    with pytest.raises(LimitExceededError):
        parse_policy(" " * 70_000)


@settings(max_examples=int(os.environ.get("PHICRYPT_FUZZ_CASES", "100")))
@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=5),
        lambda v: (
            st.lists(v, max_size=3)
            | st.dictionaries(
                st.sampled_from(["Statement", "Effect", "Action", "Condition", "Principal", "x"]), v, max_size=4
            )
        ),
    )
)
def test_any_json_is_a_policy_or_an_error_of_phicrypt(value):
    with contextlib.suppress(PhiCryptError):
        lint_policy(json.dumps(value))


# ---- templates


def test_rule_28_a_writer_that_verifies_data_keys_may_open_under_the_same_pairs() -> None:
    (seals, verifies) = writer_policy(DECLARATION, KEY, verify_data_keys=True)["Statement"]
    assert (seals["Action"], verifies["Action"]) == (["kms:GenerateDataKey"], ["kms:Decrypt"])
    assert verifies["Condition"] == seals["Condition"]
    by_sid = {one["Sid"]: one for one in key_policy(DECLARATION, KEY, verify_data_keys=True)["Statement"]}
    assert by_sid["WriterVerifiesDataKeys"]["Principal"] == by_sid["WriterSeals"]["Principal"]
    assert by_sid["WriterVerifiesDataKeys"]["Condition"] == by_sid["WriterSeals"]["Condition"]
    assert by_sid["WriterVerifiesDataKeys"]["Action"] == ["kms:Decrypt"]


@pytest.mark.parametrize("make", [key_policy, writer_policy, reader_policy, auditor_policy, break_glass_policy])
def test_templates_pass_the_lint(make):
    assert lint_policy(json.dumps(make(DECLARATION, KEY))) == ()


@pytest.mark.parametrize(
    ("make", "action"), [(writer_policy, "kms:GenerateDataKey"), (reader_policy, "kms:Decrypt")]
)
def test_use_is_bound_to_key_and_declared_context(make, action):
    (statement,) = make(DECLARATION, KEY)["Statement"]
    assert statement["Action"] == [action]
    assert statement["Resource"] == ARN
    assert statement["Condition"]["StringEquals"] == {
        "kms:EncryptionContext:application": "intake",
        "kms:EncryptionContext:tenant": "clinic-7",
    }


def test_key_policy_gives_the_account_administration_but_no_use():
    document = key_policy(DECLARATION, KEY)
    root = [
        s for s in parse_policy(document) if s.is_allow and any("root" in p for p in s.principals.get("AWS", ()))
    ]
    assert root
    for statement in root:
        for action in (
            "kms:Decrypt",
            "kms:GenerateDataKey",
            "kms:Encrypt",
            "kms:CreateGrant",
            "kms:ReEncryptFrom",
        ):
            assert not statement.covers_action(action)


def test_key_policy_denies_use_when_any_declared_pair_is_missing():
    denials = [s for s in key_policy(DECLARATION, KEY)["Statement"] if s["Sid"].startswith("DenyUseWithoutPair")]
    assert [s["Condition"]["Null"] for s in denials] == [
        {"kms:EncryptionContext:application": "true"},
        {"kms:EncryptionContext:tenant": "true"},
    ]
    for statement in denials:
        assert statement["Principal"] == {"AWS": "*"}
        assert "kms:Decrypt" in statement["Action"]


def test_account_can_repair_the_key_whoever_administers_it():
    declaration = Declaration.of(
        {**DECLARATION.model_dump(by_alias=True), "roles": {"writer": ROLE + "w", "administrator": ROLE + "a"}}
    )
    statements = parse_policy(key_policy(declaration, KEY))
    root = [s for s in statements if s.principals.get("AWS") == ("arn:aws:iam::111122223333:root",)]
    assert [s.covers_action("kms:PutKeyPolicy") for s in root] == [True]
    assert not root[0].covers_action("kms:ScheduleKeyDeletion")


def test_rule_14_no_template_gives_encrypt_or_reencrypt():
    for make in (key_policy, writer_policy, reader_policy, auditor_policy, break_glass_policy):
        for statement in parse_policy(make(DECLARATION, KEY)):
            if statement.is_allow:
                assert not statement.covers_action("kms:Encrypt")
                assert not statement.covers_action("kms:ReEncryptFrom")
                assert not statement.covers_action("kms:ReEncryptTo")


def test_break_glass_needs_a_recent_second_factor_and_ends():
    expires_at = datetime(2030, 1, 31, tzinfo=UTC)
    (statement,) = break_glass_policy(DECLARATION, KEY, expires_at=expires_at)["Statement"]
    assert statement["Condition"]["Bool"] == {"aws:MultiFactorAuthPresent": "true"}
    assert statement["Condition"]["NumericLessThan"] == {"aws:MultiFactorAuthAge": "3600"}
    assert statement["Condition"]["DateLessThan"] == {"aws:CurrentTime": "2030-01-31T00:00:00Z"}
    with pytest.raises(ConfigurationError):
        break_glass_policy(DECLARATION, KEY, expires_at=datetime(2030, 1, 31))  # noqa: DTZ001


def test_policy_without_context_or_roles_or_with_phi_is_refused():
    for members, error in (
        ({"context": {}}, ConfigurationError),
        ({"roles": {}}, ConfigurationError),
        ({"context": {"patient": "123-45-6789"}}, PhiInContextError),
    ):
        declaration = Declaration.of({**DECLARATION.model_dump(by_alias=True), **members})
        with pytest.raises(error):
            key_policy(declaration, KEY)


def test_auditor_may_ask_everything_that_the_doctor_asks():
    """Every permission that a reader names in its source stands in the auditor's policy."""
    permission = re.compile(
        r"((?:kms|s3|dynamodb|cloudtrail|config|iam|backup|sts):[A-Z][A-Za-z]+)(?: on the .*)?"
    )
    asked = set()
    for path in Path(phicrypt.posture.__file__).parent.rglob("*.py"):
        if path.parent.name != "policies" and path.parts[-2:] != ("rules", "iam.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    asked |= {match[1] for match in [permission.fullmatch(node.value)] if match}
    assert len(asked) > 25
    assert asked == set(READ_KEY_SETTINGS) | set(READ_OTHER_SETTINGS)


# ---- lint

CONTEXT = {"StringEquals": {"kms:EncryptionContext:tenant": "clinic-7"}}
LINTS = [
    ("allows-everyone", {"Principal": "*", "Condition": CONTEXT}),
    ("every-kms-action", {"Action": "kms:*"}),
    ("opens-under-every-key", {"Resource": "*", "Condition": CONTEXT}),
    ("no-encryption-context", {}),
    ("no-encryption-context", {"Condition": {"StringEqualsIfExists": {"kms:EncryptionContext:tenant": "a"}}}),
    ("no-encryption-context", {"Condition": {"StringNotEquals": {"kms:EncryptionContext:tenant": "a"}}}),
    ("no-encryption-context", {"Condition": {"ForAllValues:StringEquals": {"kms:EncryptionContext:tenant": "a"}}}),
    ("no-encryption-context", {"Action": "kms:GenerateDataKey*"}),
    ("encrypts-directly", {"Action": "kms:Encrypt", "Condition": CONTEXT}),
    ("encrypts-directly", {"Action": "kms:ReEncrypt*", "Condition": CONTEXT}),
    ("hands-out-grants", {"Action": "kms:CreateGrant"}),
    ("allows-by-exclusion", {"Action": None, "NotAction": "kms:ScheduleKeyDeletion", "Condition": CONTEXT}),
    ("unknown-operator", {"Condition": {**CONTEXT, "StringEqual": {"aws:username": "a"}}}),
    ("unknown-condition-key", {"Condition": {**CONTEXT, "StringEquals": {"kms:EncryptionContexts:tenant": "a"}}}),
    ("unknown-condition-key", {"Condition": {"StringEquals": {"kms:EncryptionContext:": "a"}}}),
    ("any-context-value", {"Condition": {"StringLike": {"kms:EncryptionContext:tenant": "*"}}}),
    ("phi-in-policy", {"Condition": {"StringEquals": {"kms:EncryptionContext:patient": "123-45-6789"}}}),
    ("nobody-administers", {"Principal": {"AWS": ROLE}, "Condition": CONTEXT}),
]


@pytest.mark.parametrize(("lint_id", "members"), LINTS)
def test_lint_names_what_is_wrong(lint_id, members):
    assert lint_id in {finding.lint_id for finding in lint_policy(allow(**members))}


def test_lint_is_silent_on_a_good_statement():
    assert lint_policy(allow(Condition=CONTEXT)) == ()


def test_lint_names_old_versions_and_documents_that_are_too_long():
    document = {"Version": "2008-10-17", "Statement": [json.loads(allow(Condition=CONTEXT))["Statement"][0]] * 40}
    assert {"old-version", "too-long"} <= {finding.lint_id for finding in lint_policy(json.dumps(document))}


def test_lint_repeats_no_context_value():
    findings = lint_policy(allow(Condition={"StringEquals": {"kms:EncryptionContext:patient": "123-45-6789"}}))
    assert "123-45-6789" not in str(findings)
