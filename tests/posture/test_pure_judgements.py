"""Judgements on recorded shapes that moto cannot hold: selectors, backup selections, key states, ARNs."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from phicrypt.posture.declaration import BucketDeclaration, KeyDeclaration
from phicrypt.posture.policies.document import parse_policy, requires_tls
from phicrypt.posture.reading.settings import BucketSettings, KeySettings
from phicrypt.posture.rules.cloudtrail import records_data_events, records_kms_events
from phicrypt.posture.rules.dynamodb import selects
from phicrypt.posture.rules.findings import Outcome, Unread, apply_rule
from phicrypt.posture.rules.kms import RULES as KEY_RULES
from phicrypt.posture.rules.s3 import RULES as BUCKET_RULES
from phicrypt.posture.rules.s3 import tls_only_statement

ARN = "arn:aws:kms:us-east-1:111122223333:key/1a2b3c4d-0000-4000-8000-1a2b3c4d5e6f"
SECOND = "arn:aws:kms:us-west-2:111122223333:key/2a2b3c4d-0000-4000-8000-1a2b3c4d5e6f"
BUCKET = "arn:aws:s3:::clinic"
TABLE = "arn:aws:dynamodb:us-east-1:111122223333:table/patients"
OBJECTS, ITEMS = "AWS::S3::Object", "AWS::DynamoDB::Table"


def basic(**members):
    return {"EventSelectors": [{"ReadWriteType": "All", "IncludeManagementEvents": True, **members}]}


def advanced(*fields):
    return {
        "AdvancedEventSelectors": [
            {"FieldSelectors": [{"Field": name, **operators} for name, operators in fields]}
        ]
    }


def data(kind, **arn_operators):
    """An advanced selector of data events of one type, limited by ARN where operators are given."""
    by_arn = [("resources.ARN", arn_operators)] if arn_operators else []
    return advanced(DATA, ("resources.type", {"Equals": [kind]}), *by_arn)


MANAGEMENT = ("eventCategory", {"Equals": ["Management"]})
DATA = ("eventCategory", {"Equals": ["Data"]})
WRITES_ONLY = ("readOnly", {"Equals": ["false"]})
KMS = ["kms.amazonaws.com"]


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        (basic(), True),
        (basic(ReadWriteType="WriteOnly"), False),
        (basic(ReadWriteType="ReadOnly"), False),
        (basic(IncludeManagementEvents=False), False),
        (basic(ExcludeManagementEventSources=KMS), False),
        (basic(ExcludeManagementEventSources=["rdsdata.amazonaws.com"]), True),
        (advanced(MANAGEMENT), True),
        (advanced(MANAGEMENT, ("eventSource", {"NotEquals": KMS})), False),
        (advanced(MANAGEMENT, ("eventSource", {"NotEquals": ["rdsdata.amazonaws.com"]})), True),
        (advanced(MANAGEMENT, ("eventSource", {"Equals": ["s3.amazonaws.com"]})), False),
        (advanced(MANAGEMENT, ("eventSource", {"Equals": KMS})), True),
        (advanced(MANAGEMENT, ("readOnly", {"Equals": ["true"]})), False),
        (advanced(MANAGEMENT, ("eventName", {"NotEquals": ["Decrypt"]})), False),
        (advanced(DATA), False),
        ({}, False),
    ],
)
def test_whether_selectors_record_kms_events(selectors, expected):
    assert records_kms_events(selectors) is expected


def resources(kind, *values, **more):
    return basic(DataResources=[{"Type": kind, "Values": list(values)}], **more)


@pytest.mark.parametrize(
    ("selectors", "kind", "arn", "expected"),
    [
        (resources(OBJECTS, "arn:aws:s3"), OBJECTS, BUCKET, True),
        (resources(OBJECTS, "arn:aws:s3:::"), OBJECTS, BUCKET, True),
        (resources(OBJECTS, "arn:aws:s3:::clinic/"), OBJECTS, BUCKET, True),
        (resources(OBJECTS, "arn:aws:s3:::clinic/public/"), OBJECTS, BUCKET, False),
        (resources(OBJECTS, "arn:aws:s3:::clin"), OBJECTS, BUCKET, False),
        (resources(OBJECTS, "arn:aws:s3:::clinic-2/"), OBJECTS, BUCKET, False),
        (resources(OBJECTS, "arn:aws:s3", ReadWriteType="WriteOnly"), OBJECTS, BUCKET, False),
        (resources(ITEMS, "arn:aws:dynamodb"), ITEMS, TABLE, True),
        (resources(ITEMS, TABLE), ITEMS, TABLE, True),
        (resources(ITEMS, TABLE + "-2"), ITEMS, TABLE, False),
        (resources(ITEMS, "arn:aws:dynamodb"), OBJECTS, BUCKET, False),
        (basic(), OBJECTS, BUCKET, False),
        (data(OBJECTS), OBJECTS, BUCKET, True),
        (data(ITEMS), OBJECTS, BUCKET, False),
        (data(OBJECTS, StartsWith=[BUCKET + "/"]), OBJECTS, BUCKET, True),
        (data(OBJECTS, StartsWith=[BUCKET + "/a"]), OBJECTS, BUCKET, False),
        (data(OBJECTS, NotStartsWith=[BUCKET]), OBJECTS, BUCKET, False),
        (data(ITEMS, Equals=[TABLE]), ITEMS, TABLE, True),
        (advanced(DATA, ("resources.type", {"Equals": [ITEMS]}), WRITES_ONLY), ITEMS, TABLE, False),
        (advanced(MANAGEMENT), ITEMS, TABLE, False),
    ],
)
def test_whether_selectors_record_data_events(selectors, kind, arn, expected):
    assert records_data_events(selectors, kind, arn) is expected


def tagged(name, value):
    return {"ConditionType": "STRINGEQUALS", "ConditionKey": name, "ConditionValue": value}


def condition(operator, value):
    return {operator: [{"ConditionKey": "aws:ResourceTag/class", "ConditionValue": value}]}


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"Resources": ["*"]}, True),
        ({"Resources": [TABLE]}, True),
        ({"Resources": ["arn:aws:dynamodb:*:*:table/pat*"]}, True),
        ({"Resources": ["arn:aws:ec2:*:*:volume/*"]}, False),
        ({"Resources": ["*"], "NotResources": [TABLE]}, False),
        ({"ListOfTags": [tagged("class", "phi")]}, True),
        ({"ListOfTags": [tagged("class", "public")]}, False),
        ({"Resources": ["*"], "Conditions": condition("StringEquals", "phi")}, True),
        ({"Resources": ["*"], "Conditions": condition("StringEquals", "public")}, False),
        ({"Resources": ["*"], "Conditions": condition("StringNotEquals", "phi")}, False),
        ({"Resources": ["*"], "Conditions": condition("StringLike", "p*")}, True),
        ({"Resources": ["*"], "Conditions": condition("StringNotLike", "p*")}, False),
        ({"Resources": ["*"], "Conditions": condition("Unknown", "phi")}, False),
        ({"Conditions": condition("StringEquals", "phi")}, False),
        ({}, False),
    ],
)
def test_whether_a_backup_selection_takes_in_the_table(selection, expected):
    assert selects(selection, TABLE, {"class": "phi"}) is expected


METADATA = {"KeyState": "Enabled", "KeySpec": "SYMMETRIC_DEFAULT", "Origin": "AWS_KMS", "KeyManager": "CUSTOMER"}
KEY = KeySettings(KeyDeclaration(arn=ARN), METADATA, {"KeyRotationEnabled": True}, (), ())


def outcome(rule_id, settings, rules=KEY_RULES):
    finding = apply_rule(next(rule for rule in rules if rule.rule_id == rule_id), settings)
    return None if finding is None else (finding.outcome, finding.found)


def with_metadata(**changes):
    return replace(KEY, metadata={**METADATA, **changes})


@pytest.mark.parametrize("state", ["Disabled", "PendingImport", "Unavailable", "Creating"])
def test_key_in_any_other_state_is_not_usable(state):
    assert outcome("kms-enabled", with_metadata(KeyState=state)) == (Outcome.FAILED, f"the key's state is {state}")


def test_deletion_date_is_named_and_not_reported_twice():
    key = with_metadata(KeyState="PendingReplicaDeletion", DeletionDate=datetime(2030, 1, 2, tzinfo=UTC))
    assert "2030-01-02" in outcome("kms-not-pending-deletion", key)[1]
    assert outcome("kms-enabled", key)[0] is Outcome.PASSED


@pytest.mark.parametrize(
    "changes",
    [{"KeySpec": "ECC_NIST_P256"}, {"Origin": "EXTERNAL"}, {"KeyManager": "AWS"}, {"KeySpec": "HMAC_256"}],
)
def test_rotation_is_not_asked_of_keys_that_kms_does_not_rotate(changes):
    assert outcome("kms-rotation", with_metadata(**changes)) is None


@pytest.mark.parametrize(
    ("changes", "imported", "expected"),
    [
        ({"Origin": "AWS_CLOUDHSM"}, False, Outcome.PASSED),
        ({"Origin": "EXTERNAL"}, False, Outcome.FAILED),
        ({"Origin": "EXTERNAL"}, True, Outcome.PASSED),
        ({"Origin": "EXTERNAL", "ExpirationModel": "KEY_MATERIAL_EXPIRES"}, True, Outcome.FAILED),
        ({"Origin": "EXTERNAL_KEY_STORE"}, False, Outcome.FAILED),
    ],
)
def test_origin_of_key_material(changes, imported, expected):
    key = replace(with_metadata(**changes), declared=KeyDeclaration(arn=ARN, imported=imported))
    assert outcome("kms-origin", key)[0] is expected


@pytest.mark.parametrize(
    ("changes", "asymmetric", "expected"),
    [
        ({"KeySpec": "SYMMETRIC_DEFAULT"}, False, Outcome.PASSED),
        ({"KeySpec": "RSA_4096"}, False, Outcome.FAILED),
        ({"KeySpec": "RSA_4096"}, True, Outcome.PASSED),
        ({"KeySpec": "ECC_NIST_P256", "KeyUsage": "KEY_AGREEMENT"}, False, Outcome.FAILED),
        ({"KeySpec": "SM2", "KeyUsage": "KEY_AGREEMENT"}, False, Outcome.FAILED),
        ({"KeySpec": "ECC_NIST_P256", "KeyUsage": "KEY_AGREEMENT"}, True, Outcome.PASSED),
        ({"KeySpec": "RSA_4096", "KeyUsage": "SIGN_VERIFY"}, False, None),
        ({"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"}, False, None),
    ],
)
def test_rule_16_keys_that_open_for_whoever_breaks_them_are_named(changes, asymmetric, expected):
    key = replace(with_metadata(**changes), declared=KeyDeclaration(arn=ARN, asymmetric=asymmetric))
    found = outcome("kms-asymmetric", key)
    assert (found and found[0]) is expected
    assert expected is not Outcome.FAILED or "one day" in found[1]


@pytest.mark.parametrize(
    ("origin", "custody", "expected"),
    [
        ("EXTERNAL_KEY_STORE", "external", Outcome.PASSED),
        ("EXTERNAL_KEY_STORE", "imported", Outcome.FAILED),
        ("EXTERNAL", "imported", Outcome.PASSED),
        ("EXTERNAL", "external", Outcome.FAILED),
        ("AWS_KMS", "external", Outcome.FAILED),
        ("AWS_KMS", "kms", Outcome.PASSED),
    ],
)
def test_who_keeps_the_key_material_is_as_declared(origin, custody, expected):
    key = replace(with_metadata(Origin=origin), declared=KeyDeclaration(arn=ARN, custody=custody))
    assert outcome("kms-origin", key)[0] is expected


def test_a_key_whose_store_is_disconnected_is_not_repaired_by_enabling_it():
    key = with_metadata(KeyState="Unavailable", CustomKeyStoreId="cks-1")
    rule = next(rule for rule in KEY_RULES if rule.rule_id == "kms-enabled")
    assert "describe-custom-key-stores --custom-key-store-id cks-1" in rule.fix(key)


@pytest.mark.parametrize(
    ("second", "metadata", "expected"),
    [
        (SECOND, {"KeyState": "Enabled"}, Outcome.PASSED),
        (SECOND, {"KeyState": "Disabled"}, Outcome.FAILED),
        (SECOND, {}, Outcome.FAILED),
        (ARN.replace("1a2b", "9a2b"), {"KeyState": "Enabled"}, Outcome.FAILED),
        (None, {}, Outcome.FAILED),
        (SECOND, Unread("needs kms:DescribeKey on the second key"), Outcome.NOT_CHECKED),
    ],
)
def test_second_key_must_be_usable_and_elsewhere(second, metadata, expected):
    key = replace(KEY, declared=KeyDeclaration(arn=ARN, second_key=second), second_key=metadata)
    assert outcome("kms-second-key", key)[0] is expected


def test_grants_to_services_and_declared_principals_are_expected():
    role = "arn:aws:iam::111122223333:role/app"
    grants = ({"GranteePrincipal": "dynamodb.us-east-1.amazonaws.com"}, {"GranteePrincipal": role})
    assert outcome("kms-grants", replace(KEY, grants=grants))[0] is Outcome.FAILED
    declared = KeyDeclaration(arn=ARN, grantees=(role,))
    assert outcome("kms-grants", replace(KEY, grants=grants, declared=declared))[0] is Outcome.PASSED


def test_tls_fix_keeps_the_statements_that_are_there():
    mine = {**tls_only_statement("other"), "Condition": {"Bool": {"aws:x": "it's"}}}
    policy = {"Version": "2012-10-17", "Statement": {**mine, "Sid": "Mine"}}
    bucket = BucketSettings(
        declared=BucketDeclaration(name="clinic"),
        region="us-east-1",
        public_access_block={},
        policy=parse_policy(policy),
        policy_is_public=False,
        acl_grants=(),
        encryption={},
        versioning={},
        object_lock={},
        logging={},
        replication={},
        ownership="",
        policy_json=json.dumps(policy),
    )
    finding = apply_rule(next(rule for rule in BUCKET_RULES if rule.rule_id == "s3-tls-only"), bucket)
    words = shlex.split(finding.fix)
    repaired = json.loads(words[words.index("--policy") + 1])
    assert [statement["Sid"] for statement in repaired["Statement"]] == ["Mine", "DenyWithoutTls"]
    assert repaired["Statement"][0] == policy["Statement"]
    assert requires_tls(parse_policy(repaired), "clinic")
