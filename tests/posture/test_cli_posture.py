"""``phicrypt doctor`` and ``phicrypt policy`` on the local AWS."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.posture_accounts import GoodAccount

from phicrypt.cli import run
from phicrypt.posture.reading.own_tls import without_post_quantum
from phicrypt.testing import local_aws
from phicrypt.testing.local_stack import ACCESS_KEY_ID, SECRET_ACCESS_KEY

ARN = "arn:aws:kms:us-east-1:111122223333:key/1a2b3c4d-0000-4000-8000-1a2b3c4d5e6f"
ROLE = "arn:aws:iam::111122223333:role/intake"


@pytest.fixture(scope="module")
def aws():
    with local_aws() as running:
        GoodAccount(running)
        running.client("s3").create_bucket(Bucket="careless")
        yield running


@pytest.fixture
def phicrypt(aws, monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
    monkeypatch.setenv("COLUMNS", "220")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("PHICRYPT_KEY", raising=False)
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str):
        capfd.readouterr()
        code = run(list(arguments))
        return (code, *capfd.readouterr())

    return command


@pytest.fixture
def doctor(phicrypt, aws):
    return lambda *arguments: phicrypt(
        "doctor", "--endpoint-url", aws.endpoint_url, "--region", "us-east-1", *arguments
    )


def test_exit_code_is_zero_only_below_the_threshold(doctor):
    good = ("--bucket", "clinic", "--trail", "clinic-trail")
    code, out, error = doctor(*good)
    assert (code, error) == (0, "")
    assert "0 failed, 0 could not check" in out
    careless = ("--bucket", "careless", "--trail", "clinic-trail")
    assert doctor(*careless)[0] == 1
    assert doctor(*careless, "--fail-on", "high")[0] == 1
    assert doctor(*careless, "--fail-on", "critical")[0] == 0
    assert doctor(*careless, "--fail-on", "huge")[0] == 3


def test_table_names_rules_and_repairs(doctor):
    _, out, _ = doctor("--bucket", "careless", "--trail", "clinic-trail")
    assert "s3-tls-only" in out
    assert "aws s3api put-bucket-policy --bucket careless" in out
    assert "s3-exists" not in out
    assert "s3-exists" in doctor("--bucket", "careless", "--trail", "clinic-trail", "--all")[1]


@pytest.mark.parametrize("output", ["json", "sarif", "html"])
def test_other_outputs_are_whole_documents(doctor, output):
    code, out, _ = doctor("--bucket", "careless", "--trail", "clinic-trail", "--output", output)
    assert code == 1
    if output == "html":
        assert out.startswith("<!doctype html>")
        assert out.rstrip().endswith("</html>")
    else:
        assert json.loads(out)


def test_diff_shows_what_is_new_and_what_is_fixed(doctor, aws):
    arguments = ("--bucket", "careless", "--trail", "clinic-trail")
    Path("before.json").write_text(doctor(*arguments, "--output", "json")[1])
    aws.client("s3").put_bucket_versioning(Bucket="careless", VersioningConfiguration={"Status": "Enabled"})
    _, out, _ = doctor(*arguments, "--diff", "before.json")
    assert "fixed: s3-versioning arn:aws:s3:::careless" in out
    assert "[still]" in out
    _, out, _ = doctor(*arguments, "--diff", "before.json", "--output", "json")
    kinds = {change["rule_id"]: change["kind"] for change in json.loads(out)["changes"]}
    assert kinds["s3-versioning"] == "fixed"
    Path("before.json").write_text("{}")
    assert doctor(*arguments, "--diff", "before.json")[0] == 3


def test_declaration_file_and_options_add_up(doctor):
    Path("clinic.toml").write_text('buckets = ["clinic"]\ntrails = ["clinic-trail"]\n')
    _, out, _ = doctor(
        "--declaration", "clinic.toml", "--table", "patients", "--output", "json", "--fail-on", "critical"
    )
    rules = {finding["rule_id"] for finding in json.loads(out)["findings"]}
    assert {"s3-tls-only", "dynamodb-encryption", "cloudtrail-logging"} <= rules


def test_nothing_declared_or_unknown_output_is_a_usage_error(doctor):
    assert doctor()[0] == 2
    assert doctor("--bucket", "clinic", "--output", "pdf")[0] == 2
    assert doctor("--declaration", "missing.toml")[0] == 2


def test_conformance_pack_is_printed_without_any_account(phicrypt):
    code, out, _ = phicrypt("doctor", "--emit-conformance-pack")
    assert code == 0
    assert 'SourceIdentifier: "KMS_KEY_POLICY_NO_PUBLIC_ACCESS"' in out


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("key", ("--context", "tenant=clinic-7", "--writer", ROLE)),
        ("writer", ("--context", "tenant=clinic-7")),
        ("reader", ("--context", "tenant=clinic-7")),
        ("auditor", ()),
        ("break-glass", ("--context", "tenant=clinic-7", "--expires", "2030-01-31T00:00:00Z")),
    ],
)
def test_policy_is_printed_and_passes_the_lint(phicrypt, kind, options):
    code, out, _ = phicrypt("policy", kind, "--key", ARN, *options)
    assert code == 0
    Path("policy.json").write_text(out)
    assert phicrypt("policy", "lint", "policy.json")[0] == 0


def test_policy_without_context_key_or_roles_is_refused(phicrypt):
    assert phicrypt("policy", "reader", "--key", ARN)[0] == 2
    assert phicrypt("policy", "reader", "--context", "tenant=clinic-7")[0] == 2
    assert phicrypt("policy", "key", "--key", ARN, "--context", "tenant=clinic-7")[0] == 2
    assert phicrypt("policy", "break-glass", "--key", ARN, "--context", "tenant=c", "--expires", "soon")[0] == 2


def test_lint_ends_with_one_and_names_what_is_wrong(phicrypt):
    Path("wide.json").write_text('{"Statement": {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}}')
    code, out, _ = phicrypt("policy", "lint", "wide.json")
    assert code == 1
    assert "every-kms-action" in out
    findings = json.loads(phicrypt("policy", "lint", "wide.json", "--json")[1])
    assert {finding["id"] for finding in findings} >= {"every-kms-action", "no-encryption-context"}
    Path("wide.json").write_text("no json")
    assert phicrypt("policy", "lint", "wide.json")[0] == 3


def test_what_this_python_cannot_offer_stands_beside_the_table_alone(doctor):
    lacking = without_post_quantum()
    _, out, error = doctor("--bucket", "clinic")
    assert ("X25519MLKEM768" in out) == bool(lacking)
    assert error == ""
    _, out, _ = doctor("--bucket", "clinic", "--output", "json")
    assert "X25519MLKEM768" not in out
