"""The customer's half of the shared responsibility: settings read, judged by pure rules, reported.

Names are loaded when they are first used, so that the write guard does not import pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phicrypt.posture.account import AwsAccount
    from phicrypt.posture.declaration import Declaration
    from phicrypt.posture.examination import check
    from phicrypt.posture.findings import Finding, Outcome, Severity
    from phicrypt.posture.report import Report
    from phicrypt.posture.write_guard import BucketWriteGuard

_HOMES = {
    "AwsAccount": "phicrypt.posture.account",
    "BucketWriteGuard": "phicrypt.posture.write_guard",
    "Declaration": "phicrypt.posture.declaration",
    "Finding": "phicrypt.posture.findings",
    "Outcome": "phicrypt.posture.findings",
    "Report": "phicrypt.posture.report",
    "Severity": "phicrypt.posture.findings",
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


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'phicrypt.posture' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
