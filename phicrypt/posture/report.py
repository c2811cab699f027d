"""The report of one examination: JSON in and out, and what changed since an earlier one."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from phicrypt.core.strict_json import parse_json
from phicrypt.errors import FormatError
from phicrypt.posture.rules.findings import Finding, Outcome, Severity

_SCHEMA: Final = "phicrypt-posture-1"
_MAX_REPORT_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two reports.

    Attributes:
        kind: ``"new"`` (a problem that was not there), ``"fixed"``, ``"still"`` (known before), or
            ``"gone"`` (no longer declared or no longer applicable).
        finding: as it is now; for ``"gone"`` as it was.
    """

    kind: str
    finding: Finding


@dataclass(frozen=True, slots=True)
class Report:
    """Every finding of one examination, sorted by resource and rule.

    Attributes:
        account_id: the examined account.
        region: the declaration's home Region.
        created_at: when.
        findings: passed ones too, as evidence.
    """

    account_id: str
    region: str
    created_at: datetime
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """Failed rules and rules that could not be checked, the most severe first."""
        open_findings = [finding for finding in self.findings if finding.outcome is not Outcome.PASSED]
        return tuple(sorted(open_findings, key=lambda f: (-f.severity, f.resource, f.rule_id)))

    def at_or_above(self, severity: Severity) -> tuple[Finding, ...]:
        """The problems that decide the exit code. What could not be checked counts as its rule does."""
        return tuple(finding for finding in self.problems if finding.severity >= severity)

    def counts(self) -> dict[str, int]:
        """How many findings of each outcome."""
        counted = Counter(str(finding.outcome) for finding in self.findings)
        return {str(outcome): counted[str(outcome)] for outcome in Outcome}

    def changes_since(self, earlier: Report) -> tuple[Change, ...]:
        """What changed since an earlier report: by rule and resource. Passed before and now is left out."""
        before = {(finding.rule_id, finding.resource): finding for finding in earlier.findings}
        changes = []
        for finding in self.findings:
            old = before.pop((finding.rule_id, finding.resource), None)
            was_open = old is not None and old.outcome is not Outcome.PASSED
            if finding.outcome is not Outcome.PASSED:
                changes.append(Change("still" if was_open else "new", finding))
            elif was_open:
                changes.append(Change("fixed", finding))
        changes += [Change("gone", old) for old in before.values() if old.outcome is not Outcome.PASSED]
        return tuple(changes)

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "schema": _SCHEMA,
            "account": self.account_id,
            "region": self.region,
            "created": self.created_at.isoformat(),
            "counts": self.counts(),
            "findings": [finding.as_dict() for finding in self.findings],
        }

    def to_json(self) -> str:
        """The report as JSON text, the form that ``--diff`` reads."""
        return json.dumps(self.as_dict(), indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """The inverse of :meth:`to_json`. Raises FormatError."""
        try:
            members: Any = parse_json(text, field="report", max_bytes=_MAX_REPORT_BYTES)
            if members["schema"] != _SCHEMA:
                raise FormatError(f"{_SCHEMA} was expected", field="schema")
            return cls(
                str(members["account"]),
                str(members["region"]),
                datetime.fromisoformat(members["created"]),
                tuple(Finding.from_dict(entry) for entry in members["findings"]),
            )
        except (ValueError, KeyError, TypeError):
            pass
        # Not in the handler: Python's errors hold what stood there (rule 32).
        raise FormatError("not a report of 'phicrypt doctor --output json'", field="report")
