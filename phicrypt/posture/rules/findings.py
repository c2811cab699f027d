"""Rules and findings: what was expected of a resource, what was found, and how to repair it.

A rule is data: it names the settings that it reads and a pure function that judges them. A setting
that could not be read never passes; it gives a finding that says what was missing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import IntEnum, StrEnum
from typing import Any, Final, Generic, Protocol, TypeVar

from phicrypt.errors import FormatError


class Severity(IntEnum):
    """How much harm a failed rule does; ordered."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @classmethod
    def named(cls, name: str) -> Severity:
        """The severity of that name in any case. Raises FormatError."""
        with suppress(KeyError):
            return cls[name.upper()]
        raise FormatError(f"one of {', '.join(s.name.lower() for s in cls)} was expected", field="severity")


class Outcome(StrEnum):
    """What became of one rule on one resource."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_CHECKED = "could not check"


@dataclass(frozen=True, slots=True)
class Unread:
    """A setting that could not be read.

    Attributes:
        reason: why, as it is shown: ``"needs s3:GetBucketPolicy"``.
        is_gone: the resource itself no longer exists.
    """

    reason: str
    is_gone: bool = False


class Settings(Protocol):
    """What rules judge: the settings of one resource."""

    @property
    def resource(self) -> str:
        """The resource's ARN."""
        ...

    @property
    def region(self) -> str: ...


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule's answer for one resource.

    Attributes:
        rule_id: stable, such as ``"s3-tls-only"``.
        title: the rule in a few words.
        severity: of the rule.
        outcome: passed, failed or could not check.
        resource: the ARN.
        region: the resource's Region.
        expected: what the rule asks for.
        found: what stands there; for "could not check", what is missing.
        fix: the command that repairs it; empty for a passed rule.
        config_rules: AWS Config's managed rule identifiers for the same question.
        hipaa: the paragraphs of 45 CFR that the rule serves. Guidance, not legal advice.
    """

    rule_id: str
    title: str
    severity: Severity
    outcome: Outcome
    resource: str
    region: str
    expected: str
    found: str
    fix: str = ""
    config_rules: tuple[str, ...] = ()
    hipaa: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready members, severity and outcome by name."""
        return {**asdict(self), "severity": self.severity.name.lower(), "outcome": str(self.outcome)}

    @classmethod
    def from_dict(cls, members: dict[str, Any]) -> Finding:
        """The inverse of :meth:`as_dict`. Raises FormatError."""
        with suppress(KeyError, TypeError, ValueError, AttributeError):
            return cls(
                **{
                    **members,
                    "severity": Severity.named(members["severity"]),
                    "outcome": Outcome(members["outcome"]),
                    "config_rules": tuple(members["config_rules"]),
                    "hipaa": tuple(members["hipaa"]),
                }
            )
        raise FormatError("not a finding of 'phicrypt doctor --output json'", field="findings")


@dataclass(frozen=True, slots=True)
class Rule(Generic[S]):
    """One question to the settings of one kind of resource.

    Attributes:
        reads: names of the settings' fields that the judgement needs; an unread one stops it.
        judge: what is wrong, or None.
        fix: the command that repairs it.
        applies: whether the question makes sense for this resource.
    """

    rule_id: str
    title: str
    severity: Severity
    expected: str
    reads: tuple[str, ...]
    judge: Callable[[S], str | None]
    fix: Callable[[S], str]
    config_rules: tuple[str, ...] = ()
    hipaa: tuple[str, ...] = ()
    applies: Callable[[S], bool] = lambda settings: True


def apply_rule(rule: Rule[S], settings: S) -> Finding | None:
    """The finding, or None where the rule does not apply to the resource."""
    unread = [value for name in rule.reads if isinstance(value := getattr(settings, name), Unread)]
    if unread:
        reasons = dict.fromkeys(value.reason for value in unread)
        return _finding(rule, settings, Outcome.NOT_CHECKED, f"could not check: {'; '.join(reasons)}")
    if not rule.applies(settings):
        return None
    wrong = rule.judge(settings)
    if wrong is None:
        return _finding(rule, settings, Outcome.PASSED, "as expected")
    return _finding(rule, settings, Outcome.FAILED, wrong, rule.fix(settings))


def _finding(rule: Rule[S], settings: S, outcome: Outcome, found: str, fix: str = "") -> Finding:
    return Finding(
        rule_id=rule.rule_id,
        title=rule.title,
        severity=rule.severity,
        outcome=outcome,
        resource=settings.resource,
        region=settings.region,
        expected=rule.expected,
        found=found,
        fix=fix,
        config_rules=rule.config_rules,
        hipaa=rule.hipaa,
    )


ENCRYPTION: Final = "164.312(a)(2)(iv)"
ACCESS: Final = "164.312(a)(1)"
AUDIT: Final = "164.312(b)"
INTEGRITY: Final = "164.312(c)(1)"
TRANSMISSION: Final = "164.312(e)(1)"
BACKUP: Final = "164.308(a)(7)(ii)(A)"
RECOVERY: Final = "164.308(a)(7)(ii)(B)"
ACTIVITY_REVIEW: Final = "164.308(a)(1)(ii)(D)"
DOCUMENTATION: Final = "164.316(b)(2)(i)"
ACCESS_MANAGEMENT: Final = "164.308(a)(4)(ii)(B)"
"""Paragraphs of the HIPAA Security Rule, 45 CFR."""
