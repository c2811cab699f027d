"""Reports in every form, what changed since an earlier one, declarations, and the conformance pack."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from phicrypt.errors import ConfigurationError, FormatError, PhiCryptError
from phicrypt.posture import Declaration, Finding, Outcome, Report, Severity
from phicrypt.posture.conformance import MANAGED_RULES, conformance_pack
from phicrypt.posture.examination import ACCOUNT_RULES
from phicrypt.posture.report_formats import to_html, to_sarif
from phicrypt.posture.rules.cloudtrail import RULES as TRAIL_RULES
from phicrypt.posture.rules.dynamodb import RULES as TABLE_RULES
from phicrypt.posture.rules.findings import Rule
from phicrypt.posture.rules.kms import RULES as KEY_RULES
from phicrypt.posture.rules.s3 import RULES as BUCKET_RULES

RULES: tuple[Rule[Any], ...] = (*KEY_RULES, *BUCKET_RULES, *TABLE_RULES, *TRAIL_RULES, *ACCOUNT_RULES)
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def finding(rule_id="s3-tls-only", outcome=Outcome.FAILED, severity=Severity.HIGH, resource="arn:aws:s3:::clinic"):
    return Finding(
        rule_id,
        "title",
        severity,
        outcome,
        resource,
        "us-east-1",
        "expected",
        "<script>found</script>",
        "fix",
        ("C",),
        ("164.312(b)",),
    )


def report(*findings):
    return Report("111122223333", "us-east-1", NOW, findings)


FULL = report(
    finding(),
    finding("s3-versioning", Outcome.PASSED, Severity.MEDIUM),
    finding("s3-logging", Outcome.NOT_CHECKED, Severity.LOW),
)


def test_json_survives_the_trip():
    assert Report.from_json(FULL.to_json()) == FULL
    assert json.loads(FULL.to_json())["counts"] == {"passed": 1, "failed": 1, "could not check": 1}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"schema": "other"}',
        FULL.to_json().replace("high", "huge"),
        FULL.to_json().replace('"found"', '"lost"'),
    ],
)
def test_other_json_is_a_format_error(text):
    with pytest.raises(FormatError):
        Report.from_json(text)


@settings(max_examples=int(os.environ.get("PHICRYPT_FUZZ_CASES", "100")))
@given(st.binary(max_size=80))
def test_any_bytes_are_a_report_or_an_error_of_phicrypt(data):
    with pytest.raises(PhiCryptError):
        Report.from_json(data)


def test_threshold_counts_what_could_not_be_checked():
    assert [f.rule_id for f in FULL.at_or_above(Severity.LOW)] == ["s3-tls-only", "s3-logging"]
    assert [f.rule_id for f in FULL.at_or_above(Severity.HIGH)] == ["s3-tls-only"]
    assert FULL.at_or_above(Severity.CRITICAL) == ()


def test_changes_since_an_earlier_report():
    earlier = report(
        finding("a"), finding("b"), finding("c", Outcome.PASSED), finding("d"), finding("e", Outcome.PASSED)
    )
    now = report(
        finding("a", Outcome.PASSED), finding("b"), finding("c"), finding("e", Outcome.PASSED), finding("f")
    )
    changes = {change.finding.rule_id: change.kind for change in now.changes_since(earlier)}
    assert changes == {"a": "fixed", "b": "still", "c": "new", "f": "new", "d": "gone"}


def test_sarif_has_the_members_that_the_standard_requires():
    sarif = json.loads(to_sarif(FULL))
    assert sarif["version"] == "2.1.0"
    (run,) = sarif["runs"]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    kinds = {result["ruleId"]: (result["kind"], result["level"]) for result in run["results"]}
    assert kinds == {
        "s3-tls-only": ("fail", "error"),
        "s3-versioning": ("pass", "none"),
        "s3-logging": ("open", "none"),
    }
    assert rules == set(kinds)
    for result in run["results"]:
        assert result["message"]["text"]
        assert result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"].startswith("arn:")


def test_html_escapes_what_it_shows():
    page = to_html(FULL)
    assert "<script>" not in page
    assert "&lt;script&gt;found" in page
    assert "guidance, not legal advice" in page


def test_rule_ids_are_unique_and_every_rule_serves_a_paragraph():
    ids = [rule.rule_id for rule in RULES]
    assert len(ids) == len(set(ids))
    for rule in RULES:
        assert rule.hipaa
        assert all(paragraph.startswith("164.3") for paragraph in rule.hipaa)


def test_config_identifiers_exist_in_aws_config():
    """moto carries the list of managed rules that AWS publishes."""
    import gzip
    from importlib.resources import files

    published = json.loads(
        gzip.decompress((files("moto") / "config/resources/aws_managed_rules.json.gz").read_bytes())
    )
    known = set(published["ManagedRules"])
    for identifiers in [rule.config_rules for rule in RULES] + [(rule.identifier,) for rule in MANAGED_RULES]:
        assert set(identifiers) <= known


def test_conformance_pack_holds_every_config_rule_of_the_doctor():
    pack = yaml.safe_load(conformance_pack())
    identifiers = {resource["Properties"]["Source"]["SourceIdentifier"] for resource in pack["Resources"].values()}
    assert len(identifiers) == len(pack["Resources"]) == len(MANAGED_RULES)
    assert {identifier for rule in RULES for identifier in rule.config_rules} <= identifiers


def test_conformance_pack_passes_cfn_lint():
    cfnlint = pytest.importorskip("cfnlint.api")
    problems = [problem for problem in cfnlint.lint_all(conformance_pack()) if problem.rule.id[0] in "EW"]
    assert problems == []


# ---- declarations


def test_declaration_is_read_from_toml_and_json(tmp_path):
    members = {
        "region": "eu-central-1",
        "buckets": ["clinic"],
        "tables": ["patients"],
        "context": {"tenant": "c-7"},
    }
    (tmp_path / "d.json").write_text(json.dumps(members))
    (tmp_path / "d.toml").write_text(
        'region = "eu-central-1"\nbuckets = ["clinic"]\n[[tables]]\nname = "patients"\n[context]\ntenant = "c-7"\n'
    )
    assert Declaration.load(tmp_path / "d.toml") == Declaration.load(tmp_path / "d.json")


@pytest.mark.parametrize(
    "members",
    [
        {"keys": ["alias/clinic"]},
        {"buckets": ["UPPER"]},
        {"buckets": [{"name": "clinic", "account": "1"}]},
        {"tables": ["no spaces"]},
        {"bucket": ["clinic"]},
        {"region": "us east"},
        {"roles": {"writer": "intake"}},
        {"context": {"tenant": 7}},
        [],
    ],
)
def test_wrong_declaration_is_a_configuration_error(members):
    with pytest.raises(ConfigurationError):
        Declaration.of(members)


@pytest.mark.parametrize("text", ["= broken", "\x00"])
def test_file_that_is_no_declaration_is_a_configuration_error(tmp_path, text):
    (tmp_path / "d.toml").write_text(text)
    with pytest.raises(ConfigurationError):
        Declaration.load(tmp_path / "d.toml")
    with pytest.raises(ConfigurationError):
        Declaration.load(tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.toml", b'region = "eu-west-1"\nbuckets = [jane-doe]\n', "line 2, column 12"),
        ("d.toml", b'region = "a"\nregion = "b"\n', "stands twice"),
        ("d.toml", b"\xff", "not UTF-8"),
        ("d.toml", b"#" * 1_100_000, "longer than"),
        ("d.json", b'{"region": "eu-west-1", "region": "us-east-1"}', "stands twice"),
        ("d.json", b"[" * 100_000, "nested deeper"),
        ("d.json", b'{"region": "jane-doe', "cut off"),
    ],
)
def test_rule_26_a_declaration_is_read_strictly(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=said) as caught:
        Declaration.load(tmp_path / name)
    assert "jane" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        '{"schema": "phicrypt-posture-1", "schema": "phicrypt-posture-1"}',
        b"\xff",
        "[" * 100_000,
        '{"schema": "phicrypt-posture-1", "account": "jane-doe"}',
        "5",
    ],
)
def test_rule_26_a_saved_report_is_read_strictly(text):
    with pytest.raises(FormatError) as caught:
        Report.from_json(text)
    assert caught.value.__context__ is None
