"""The write guard: what counts as private, and that a doubt refuses."""

from __future__ import annotations

import json

import pytest
from support.posture_accounts import SWITCHES, Clients

from phicrypt.errors import ConfigurationError
from phicrypt.posture import BucketWriteGuard
from phicrypt.posture.policies.document import parse_policy
from phicrypt.posture.rules.s3 import tls_only_statement
from phicrypt.posture.write_guard import BucketExposure, reasons_to_refuse
from phicrypt.testing import local_aws

READERS = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::clinic/*"}
OPERATIONS = [
    ("GetPublicAccessBlock", "s3:GetBucketPublicAccessBlock"),
    ("GetBucketPolicy", "s3:GetBucketPolicy"),
    ("GetBucketPolicyStatus", "s3:GetBucketPolicyStatus"),
    ("GetBucketAcl", "s3:GetBucketAcl"),
]


@pytest.fixture(scope="module")
def aws():
    with local_aws() as running:
        yield running


@pytest.fixture
def clients(aws):
    made = Clients(aws)
    s3 = made("s3", "us-east-1")
    s3.create_bucket(Bucket="clinic")
    put_policy(s3, tls_only_statement("clinic"))
    yield made
    made.restore()
    s3.delete_bucket(Bucket="clinic")


def put_policy(s3, *statements):
    s3.put_bucket_policy(
        Bucket="clinic", Policy=json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    )


def refusal(s3) -> str:
    with pytest.raises(ConfigurationError) as caught:
        BucketWriteGuard(s3).check("clinic")
    return str(caught.value)


def test_private_tls_only_bucket_passes(clients):
    BucketWriteGuard(clients("s3", "us-east-1")).check("clinic")


def test_public_policy_is_refused(clients):
    s3 = clients("s3", "us-east-1")
    put_policy(s3, tls_only_statement("clinic"), READERS)
    assert "its policy is public" in refusal(s3)


def test_public_acl_is_refused(clients):
    s3 = clients("s3", "us-east-1")
    s3.put_bucket_acl(Bucket="clinic", ACL="public-read")
    assert "its ACL gives everyone READ" in refusal(s3)
    s3.put_public_access_block(Bucket="clinic", PublicAccessBlockConfiguration=SWITCHES)
    BucketWriteGuard(s3).check("clinic")


def test_bucket_without_tls_only_policy_is_refused(clients):
    s3 = clients("s3", "us-east-1")
    s3.delete_bucket_policy(Bucket="clinic")
    assert "aws:SecureTransport" in refusal(s3)


@pytest.mark.parametrize(("operation", "permission"), OPERATIONS)
def test_missing_permission_is_a_refusal_that_names_it(clients, operation, permission):
    clients.refuse("s3", operation)
    assert f"needs {permission}" in refusal(clients("s3", "us-east-1"))


def test_missing_bucket_and_access_point_are_refused(clients):
    guard = BucketWriteGuard(clients("s3", "us-east-1"))
    for name in ("no-such-bucket", "arn:aws:s3:us-east-1:123456789012:accesspoint/reports"):
        with pytest.raises(ConfigurationError):
            guard.check(name)


def test_policy_that_cannot_be_parsed_is_a_refusal(clients):
    clients.answer("s3", "GetBucketPolicy", {"Policy": "{"})
    assert "could not be read" in refusal(clients("s3", "us-east-1"))


def test_answer_is_kept_for_the_ttl_and_a_refusal_for_less(aws, clients):
    s3, now = clients("s3", "us-east-1"), [0.0]
    guard = BucketWriteGuard(s3, ttl_seconds=300, clock=lambda: now[0])
    guard.check("clinic")
    s3.delete_bucket_policy(Bucket="clinic")
    asked = len(aws.requests)
    now[0] = 299
    guard.check("clinic")
    assert len(aws.requests) == asked
    now[0] = 301
    with pytest.raises(ConfigurationError):
        guard.check("clinic")
    put_policy(s3, tls_only_statement("clinic"))
    with pytest.raises(ConfigurationError):
        guard.check("clinic")
    now[0] = 332
    guard.check("clinic")
    s3.delete_bucket_policy(Bucket="clinic")
    guard.clear()
    with pytest.raises(ConfigurationError):
        guard.check("clinic")


@pytest.mark.parametrize("ttl_seconds", [0, -1, 3601])
def test_ttl_out_of_bounds_is_refused(ttl_seconds):
    with pytest.raises(ConfigurationError):
        BucketWriteGuard(None, ttl_seconds=ttl_seconds)


def changed(**members):
    return {**tls_only_statement("clinic"), **members}


@pytest.mark.parametrize(
    "statement",
    [
        changed(Effect="Allow"),
        changed(Principal={"AWS": "arn:aws:iam::111122223333:root"}),
        changed(Action=["s3:PutObject", "s3:GetObject"]),
        changed(Resource="arn:aws:s3:::clinic"),
        changed(Resource="arn:aws:s3:::clinic/*"),
        changed(Resource=["arn:aws:s3:::clinic", "arn:aws:s3:::clinic/?"]),
        changed(Resource=["arn:aws:s3:::clinic", "arn:aws:s3:::clinic/public/*"]),
        changed(Resource=["arn:aws:s3:::other", "arn:aws:s3:::other/*"]),
        changed(Condition={}),
        changed(Condition={"Bool": {"aws:SecureTransport": "true"}}),
        changed(Condition={"Bool": {"aws:SecureTransport": ["false", "true"]}}),
        changed(Condition={"Bool": {"aws:SecureTransport": "false", "aws:ViaAWSService": "false"}}),
        changed(Condition={"NumericLessThan": {"s3:TlsVersion": "1.2"}}),
        changed(Condition={"StringEquals": {"aws:SecureTransport": "false"}}),
    ],
)
def test_statement_that_leaves_a_way_in_without_tls_does_not_count(statement):
    exposure = BucketExposure({}, parse_policy({"Statement": statement}), False, ())
    assert len(reasons_to_refuse(exposure, "clinic")) == 1


@pytest.mark.parametrize(
    "statement",
    [
        changed(),
        changed(Principal={"AWS": "*"}),
        changed(Action="*"),
        changed(Resource="*"),
        changed(Resource="arn:aws:s3:::clinic*"),
        changed(Condition={"BoolIfExists": {"AWS:secureTransport": [False]}}),
    ],
)
def test_equivalent_tls_only_statements_count(statement):
    exposure = BucketExposure({}, parse_policy({"Statement": [statement]}), False, ())
    assert reasons_to_refuse(exposure, "clinic") == ()


def test_guard_imports_neither_pydantic_nor_boto3():
    import subprocess
    import sys

    code = (
        "import sys; import phicrypt.posture.write_guard; "
        "print(sorted({'pydantic', 'boto3', 'botocore'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
