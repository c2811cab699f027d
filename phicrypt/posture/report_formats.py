"""A report for other readers: SARIF 2.1.0 for code scanning, HTML for people."""

from __future__ import annotations

import json
from html import escape
from typing import Any, Final

from phicrypt._version import __version__
from phicrypt.posture.report import Report
from phicrypt.posture.rules.findings import Finding, Outcome, Severity

_LEVELS: Final = {
    Severity.LOW: "note",
    Severity.MEDIUM: "warning",
    Severity.HIGH: "error",
    Severity.CRITICAL: "error",
}
_KINDS: Final = {Outcome.PASSED: "pass", Outcome.FAILED: "fail", Outcome.NOT_CHECKED: "open"}
_DOCUMENTATION: Final = "https://github.com/phicrypt/phicrypt/tree/main/docs/posture.md"


def to_sarif(report: Report) -> str:
    """SARIF 2.1.0. What could not be checked is of kind ``open``, never ``pass``."""
    rules = {finding.rule_id: finding for finding in report.findings}
    return json.dumps(
        {
            "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
            "version": "2.1.0",
            "runs": [
                {
                    "tool": {
                        "driver": {
                            "name": "phicrypt doctor",
                            "version": __version__,
                            "informationUri": _DOCUMENTATION,
                            "rules": [_sarif_rule(finding) for finding in rules.values()],
                        }
                    },
                    "results": [_sarif_result(finding) for finding in report.findings],
                }
            ],
        },
        indent=1,
    )


def _sarif_rule(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.rule_id,
        "shortDescription": {"text": finding.title},
        "fullDescription": {"text": f"Expected: {finding.expected}."},
        "helpUri": f"{_DOCUMENTATION}#{finding.rule_id}",
        "defaultConfiguration": {"level": _LEVELS[finding.severity]},
        "properties": {
            "tags": [*finding.config_rules, *finding.hipaa],
            # GitHub's scale: above 9.0 critical, above 7.0 high, above 4.0 medium.
            "security-severity": {1: "2.0", 2: "5.0", 3: "8.0", 4: "9.5"}[finding.severity],
        },
    }


def _sarif_result(finding: Finding) -> dict[str, Any]:
    fix = f" Fix: {finding.fix}" if finding.fix else ""
    return {
        "ruleId": finding.rule_id,
        "kind": _KINDS[finding.outcome],
        # The standard allows a level other than "none" for failures only.
        "level": _LEVELS[finding.severity] if finding.outcome is Outcome.FAILED else "none",
        "message": {"text": f"{finding.resource}: {finding.found}.{fix}"},
        "locations": [{"logicalLocations": [{"fullyQualifiedName": finding.resource, "kind": "resource"}]}],
        "partialFingerprints": {"ruleAndResource/v1": f"{finding.rule_id}|{finding.resource}"},
    }


_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;max-width:90rem}"
    "table{border-collapse:collapse;width:100%}td,th{border:1px solid #bbb;padding:.4rem;text-align:left;"
    "vertical-align:top}code{white-space:pre-wrap;word-break:break-all}"
    ".critical,.high{background:#fde3e1}.medium{background:#fff3d6}.low{background:#eef4fb}"
)


def to_html(report: Report) -> str:
    """One page without scripts or outside resources; every text is escaped."""
    rows = "\n".join(_row(finding) for finding in report.problems)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in report.counts().items())
    nothing = "" if rows else "<p>No problems were found.</p>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>phicrypt doctor: account {escape(report.account_id)}</title>"
        f"<style>{_STYLE}</style></head><body>\n"
        f"<h1>Account {escape(report.account_id)}</h1>\n"
        f"<p>{escape(report.created_at.isoformat(timespec='seconds'))}: {escape(counts)}. HIPAA paragraphs are "
        "guidance, not legal advice.</p>\n"
        f"{nothing}<table><thead><tr><th>Severity</th><th>Rule</th><th>Resource</th><th>Expected</th>"
        "<th>Found</th><th>Fix</th><th>AWS Config</th><th>45 CFR</th></tr></thead>\n"
        f"<tbody>\n{rows}\n</tbody></table></body></html>\n"
    )


def _row(finding: Finding) -> str:
    severity = finding.severity.name.lower()
    cells = (
        f"{severity}, {finding.outcome}",
        f"{finding.rule_id}: {finding.title}",
        finding.resource,
        finding.expected,
        finding.found,
    )
    plain = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return (
        f'<tr class="{severity}">{plain}<td><code>{escape(finding.fix)}</code></td>'
        f"<td>{escape(', '.join(finding.config_rules))}</td><td>{escape(', '.join(finding.hipaa))}</td></tr>"
    )
