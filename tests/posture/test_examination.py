"""The whole examination: odd resources, AWS Config, throttling, bounded parallelism, read-only."""

from __future__ import annotations

import os
import threading
from collections import Counter

import pytest
from support.posture_accounts import TABLE_KEYS, findings, good_account, only

from phicrypt.errors import ConfigurationError
from phicrypt.posture import AwsAccount, Declaration, Outcome, check
from phicrypt.posture.reading.aws_account import MAX_WORKERS
from phicrypt.posture.reading.resources import read_bucket


@pytest.fixture(scope="module")
def shared():
    with good_account() as good:
        yield good


@pytest.fixture
def good(shared):
    yield shared
    shared.clients.restore()
    shared.answer_backups()


def of_resource(found, name):
    return {finding.rule_id: finding for (_, resource), finding in found.items() if resource == name}


def test_missing_resources_give_one_finding_each(good):
    found = findings(
        good,
        keys=[good.key_arn[:-12] + "000000000000"],
        buckets=["no-such-bucket"],
        tables=["no-such-table"],
        trails=["no-such-trail"],
    )
    for rule_id in ("kms-exists", "s3-exists", "dynamodb-exists", "cloudtrail-exists"):
        assert only(found, rule_id).outcome is Outcome.FAILED
    about = [finding for finding in found.values() if finding.rule_id.split("-")[0] in ("kms", "dynamodb")]
    assert len(about) == 2


@pytest.mark.parametrize(
    ("service", "operation", "code", "exists"),
    [
        ("s3", "GetBucketLogging", "NoSuchBucket", "s3-exists"),
        ("dynamodb", "DescribeContinuousBackups", "TableNotFoundException", "dynamodb-exists"),
        ("kms", "ListGrants", "NotFoundException", "kms-exists"),
        ("cloudtrail", "GetTrailStatus", "TrailNotFoundException", "cloudtrail-exists"),
    ],
)
def test_resource_deleted_while_it_is_checked_is_said_so(good, service, operation, code, exists):
    good.clients.refuse(service, operation, code, 404)
    found = findings(good, buckets=["clinic"])
    finding = only(found, exists)
    assert finding.outcome is Outcome.FAILED
    assert "deleted while it was being checked" in finding.found
    assert set(of_resource(found, finding.resource.rsplit(":", 1)[-1])) == {exists}


def test_bucket_in_another_region_is_read_there(good):
    other = good.clients("s3", "eu-west-1")
    other.create_bucket(Bucket="clinic-eu", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    try:
        settings = read_bucket(
            good.account, Declaration.of({"buckets": ["clinic-eu"]}).buckets[0], home_region="us-east-1"
        )
        assert settings.region == "eu-west-1"
        assert "--region eu-west-1" in only(findings(good, buckets=["clinic-eu"]), "s3-versioning").fix
    finally:
        other.delete_bucket(Bucket="clinic-eu")


def test_rule_25_bucket_of_another_account_is_could_not_check(good):
    """S3 answers 403 for a bucket of others, and where ExpectedBucketOwner differs; moto ignores the owner."""
    asked = []
    good.s3.meta.events.register("provide-client-params.s3", lambda params, **_: asked.append(params))
    for operation in (
        "HeadBucket",
        "GetPublicAccessBlock",
        "GetBucketPolicy",
        "GetBucketPolicyStatus",
        "GetBucketVersioning",
    ):
        good.clients.refuse("s3", operation, "403" if operation == "HeadBucket" else "AccessDenied")
    found = findings(good, buckets=[{"name": "clinic", "account": "999988887777"}])
    assert of_resource(found, "clinic")["s3-versioning"].found == "could not check: needs s3:GetBucketVersioning"
    of_clinic = [params for params in asked if params.get("Bucket") == "clinic"]
    assert of_clinic
    assert {params.get("ExpectedBucketOwner") for params in of_clinic} == {"999988887777"}


def test_region_without_the_service_is_could_not_check():
    with good_account_factory_down() as account:
        report = check(account, Declaration.of({"tables": ["patients"]}))
    unreachable = [f for f in report.findings if f.rule_id == "dynamodb-encryption"]
    assert unreachable[0].outcome is Outcome.NOT_CHECKED
    assert "did not answer (EndpointConnectionError)" in unreachable[0].found


def good_account_factory_down():
    """An account whose DynamoDB endpoint nobody listens on."""
    from contextlib import contextmanager

    import boto3
    from botocore.config import Config

    from phicrypt.testing import local_aws

    @contextmanager
    def running():
        with local_aws() as aws:

            def make(service, region):
                if service != "dynamodb":
                    return aws.client(service, region_name=region)
                return boto3.client(
                    service,
                    region_name=region,
                    endpoint_url="http://127.0.0.1:9",
                    aws_access_key_id="x",
                    aws_secret_access_key="x",
                    config=Config(retries={"total_max_attempts": 1}, connect_timeout=1),
                )

            yield AwsAccount(client_factory=make)

    return running()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("ThrottlingException", "throttled beyond the retries"),
        ("UnrecognizedClientException", "is the Region enabled"),
        ("InternalError", "dynamodb:DescribeTable answered InternalError"),
    ],
)
def test_rule_25_other_refusals_are_could_not_check(good, code, words):
    good.clients.refuse("dynamodb", "DescribeTable", code, 400)
    finding = only(findings(good), "dynamodb-encryption")
    assert finding.outcome is Outcome.NOT_CHECKED
    assert words in finding.found


def test_throttling_is_retried_by_adaptive_clients(good):
    client = AwsAccount(good.aws.session(), endpoint_url=good.aws.endpoint_url).client("s3")
    assert client.meta.config.retries == {"mode": "adaptive", "total_max_attempts": 8}


def test_config_results_are_read_for_declared_resources_only(good):
    """moto answers no compliance queries: recorded answers of AWS Config's shape."""

    def result(resource_id):
        qualifier = {"ConfigRuleName": "tls", "ResourceType": "AWS::S3::Bucket", "ResourceId": resource_id}
        return {
            "EvaluationResultIdentifier": {"EvaluationResultQualifier": qualifier},
            "ComplianceType": "NON_COMPLIANT",
            "Annotation": "The policy allows HTTP requests.",
        }

    rule = {"ConfigRuleName": "tls", "Source": {"Owner": "AWS", "SourceIdentifier": "S3_BUCKET_SSL_REQUESTS_ONLY"}}
    other = {"ConfigRuleName": "own", "Source": {"Owner": "CUSTOM_LAMBDA", "SourceIdentifier": "arn:aws:lambda:x"}}
    good.clients.answer("config", "DescribeConfigRules", {"ConfigRules": [rule, other]})
    results = {"EvaluationResults": [result("clinic"), result("somebody-elses")]}
    good.clients.answer("config", "GetComplianceDetailsByConfigRule", results)
    of_config = [f for f in findings(good).values() if f.rule_id == "config-s3-bucket-ssl-requests-only"]
    assert [(f.resource, f.outcome, f.found) for f in of_config] == [
        ("arn:aws:s3:::clinic", Outcome.FAILED, "The policy allows HTTP requests.")
    ]
    good.clients.refuse("config", "GetComplianceDetailsByConfigRule")
    refused = only(findings(good), "config-s3-bucket-ssl-requests-only")
    assert refused.found == "could not check: needs config:GetComplianceDetailsByConfigRule"


def test_doctor_reads_and_never_writes(good):
    before = len(good.aws.requests)
    findings(good)
    asked = good.aws.requests[before:]
    assert len(asked) > 30
    for request in asked:
        operation = request.get("operation")
        if operation:
            assert operation.startswith(("Get", "List", "Describe", "Head")), operation
        elif request["service"] in ("s3", "s3control"):
            assert request["method"] in ("GET", "HEAD")


def test_questions_run_in_bounded_parallelism(good):
    lock, running, most = threading.Lock(), 0, 0

    def began(**_):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)

    def ended(**_):
        nonlocal running
        with lock:
            running -= 1

    events = good.s3.meta.events
    events.register("before-send.s3", began)
    events.register("response-received.s3", ended)
    try:
        account = AwsAccount(client_factory=good.clients, workers=3)
        check(account, Declaration.of({"buckets": [f"bucket-{number}" for number in range(40)]}))
    finally:
        events.unregister("before-send.s3", began)
        events.unregister("response-received.s3", ended)
    assert 1 <= most <= 3


def test_progress_counts_every_task(good):
    seen = []
    check(good.account, Declaration.of(good.members), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == len(seen)


def test_nothing_declared_is_a_configuration_error(good):
    with pytest.raises(ConfigurationError):
        check(good.account, Declaration())


@pytest.mark.parametrize("workers", [0, MAX_WORKERS + 1])
def test_workers_out_of_bounds_are_refused(workers):
    with pytest.raises(ConfigurationError):
        AwsAccount(workers=workers)


def test_plain_http_endpoint_beyond_loopback_is_refused():
    with pytest.raises(ConfigurationError):
        AwsAccount(endpoint_url="http://example.com")


def test_caller_without_identity_is_a_configuration_error(good):
    good.clients.refuse("sts", "GetCallerIdentity")
    with pytest.raises(ConfigurationError, match="sts:GetCallerIdentity"):
        check(good.account, Declaration.of(good.members))


def test_many_buckets_and_tables_are_checked_once_each(shared):
    """CI-sized; PHICRYPT_POSTURE_SCALE=25 makes 500 buckets and 200 tables of it."""
    scale = int(os.environ.get("PHICRYPT_POSTURE_SCALE", "1"))
    buckets = [f"many-{number:03}" for number in range(20 * scale)]
    tables = [f"many-{number:03}" for number in range(8 * scale)]
    for name in buckets:
        shared.s3.create_bucket(Bucket=name)
    for name in tables:
        shared.dynamodb.create_table(TableName=name, **TABLE_KEYS)
    account = AwsAccount(shared.aws.session(), endpoint_url=shared.aws.endpoint_url)
    report = check(account, Declaration.of({"buckets": buckets, "tables": tables}))
    assert not [f for f in report.findings if f.outcome is Outcome.NOT_CHECKED]
    checked = Counter(
        f.resource.rsplit(":", 1)[-1] for f in report.findings if f.rule_id.startswith(("s3-", "dyn"))
    )
    assert {checked[name] for name in buckets} == {10}
    assert {checked[f"table/{name}"] for name in tables} == {6}
