"""The customer's half of the shared responsibility: settings read, judged by pure rules, reported.

Names are loaded when they are first used, so that the write guard does not import pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicrypt._lazy import lazy_names

if TYPE_CHECKING:
    from phicrypt.posture.declaration import Declaration
    from phicrypt.posture.examination import check
    from phicrypt.posture.reading.aws_account import AwsAccount
    from phicrypt.posture.report import Report
    from phicrypt.posture.rules.findings import Finding, Outcome, Severity
    from phicrypt.posture.write_guard import BucketWriteGuard

_HOMES = {
    "AwsAccount": "phicrypt.posture.reading.aws_account",
    "BucketWriteGuard": "phicrypt.posture.write_guard",
    "Declaration": "phicrypt.posture.declaration",
    "Finding": "phicrypt.posture.rules.findings",
    "Outcome": "phicrypt.posture.rules.findings",
    "Report": "phicrypt.posture.report",
    "Severity": "phicrypt.posture.rules.findings",
    "check": "phicrypt.posture.examination",
}

__all__ = [
    "AwsAccount",
    "BucketWriteGuard",
    "Declaration",
    "Finding",
    "Outcome",
    "Report",
    "Severity",
    "check",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
