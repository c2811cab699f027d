"""What AWS Config says about the declared resources, where Config is recording."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from phicrypt.posture.conformance import MANAGED_RULES, ManagedRule
from phicrypt.posture.declaration import Declaration
from phicrypt.posture.reading.aws_account import AwsAccount
from phicrypt.posture.rules.findings import AUDIT, Finding, Outcome, Severity, Unread


def read_config_findings(
    account: AwsAccount, declaration: Declaration, account_id: str, region: str
) -> list[Finding]:
    """One finding per declared resource that a Config rule calls NON_COMPLIANT.

    Only managed rules that :data:`MANAGED_RULES` knows are asked. Where Config is off, one finding of
    low severity says so; a missing permission gives "could not check".
    """
    resource = f"arn:{account.partition()}:config:{region}:{account_id}:recorder"
    recorders = account.ask_all(
        "config",
        "describe_configuration_recorder_status",
        "config:DescribeConfigurationRecorderStatus",
        "ConfigurationRecordersStatus",
        region=region,
    )
    if isinstance(recorders, Unread):
        return [_about_config(resource, region, Outcome.NOT_CHECKED, recorders.reason)]
    if not any(recorder.get("recording") for recorder in recorders):
        return [_about_config(resource, region, Outcome.FAILED, "AWS Config is not recording")]
    rules = account.ask_all(
        "config",
        "describe_config_rules",
        "config:DescribeConfigRules",
        "ConfigRules",
        region=region,
    )
    if isinstance(rules, Unread):
        return [_about_config(resource, region, Outcome.NOT_CHECKED, rules.reason)]
    findings = [_about_config(resource, region, Outcome.PASSED, "as expected")]
    declared = _declared_ids(declaration)
    known = {rule.identifier: rule for rule in MANAGED_RULES}
    for rule in rules:
        managed = known.get(rule.get("Source", {}).get("SourceIdentifier", ""))
        if managed is not None:
            findings += _results(account, region, rule, managed, declared, resource)
    return findings


def _results(
    account: AwsAccount,
    region: str,
    rule: Mapping[str, Any],
    managed: ManagedRule,
    declared: Mapping[str, str],
    recorder: str,
) -> Iterable[Finding]:
    name = str(rule["ConfigRuleName"])
    results = account.ask_all(
        "config",
        "get_compliance_details_by_config_rule",
        "config:GetComplianceDetailsByConfigRule",
        "EvaluationResults",
        region=region,
        ConfigRuleName=name,
        ComplianceTypes=["NON_COMPLIANT"],
    )
    if isinstance(results, Unread):
        yield _config_finding(managed, name, recorder, region, Outcome.NOT_CHECKED, results.reason)
        return
    for result in results:
        qualifier = result.get("EvaluationResultIdentifier", {}).get("EvaluationResultQualifier", {})
        arn = declared.get(str(qualifier.get("ResourceId")))
        if arn is not None:
            found = result.get("Annotation") or "AWS Config says NON_COMPLIANT"
            yield _config_finding(managed, name, arn, region, Outcome.FAILED, found)


def _declared_ids(declaration: Declaration) -> dict[str, str]:
    """Config's resource ids of what is declared, with a name to show: key id, bucket, table."""
    return {
        **{key.arn.rsplit("/", 1)[1]: key.arn for key in declaration.keys},
        **{bucket.name: f"arn:aws:s3:::{bucket.name}" for bucket in declaration.buckets},
        **{table.name: f"table/{table.name}" for table in declaration.tables},
        **{trail.name: trail.name for trail in declaration.trails},
    }


def _config_finding(
    managed: ManagedRule, name: str, resource: str, region: str, outcome: Outcome, found: str
) -> Finding:
    return Finding(
        rule_id=f"config-{managed.identifier.lower().replace('_', '-')}",
        title=f"AWS Config rule {name}",
        severity=Severity.MEDIUM,
        outcome=outcome,
        resource=resource,
        region=region,
        expected="COMPLIANT",
        found=f"could not check: {found}" if outcome is Outcome.NOT_CHECKED else found,
        fix="aws configservice start-config-rules-evaluation "
        f"--config-rule-names {shlex.quote(name)} --region {region}  # after the repair",
        config_rules=(managed.identifier,),
        hipaa=managed.hipaa,
    )


def _about_config(resource: str, region: str, outcome: Outcome, found: str) -> Finding:
    return Finding(
        rule_id="config-recording",
        title="AWS Config records changes of settings",
        severity=Severity.LOW,
        outcome=outcome,
        resource=resource,
        region=region,
        expected="a configuration recorder that is recording",
        found=f"could not check: {found}" if outcome is Outcome.NOT_CHECKED else found,
        fix=""
        if outcome is Outcome.PASSED
        else f"aws configservice start-configuration-recorder "
        f"--configuration-recorder-name default --region {region}",
        hipaa=(AUDIT,),
    )
