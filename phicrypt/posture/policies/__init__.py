"""IAM and key policies: written with least privilege, read, and judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicrypt._lazy import lazy_names

if TYPE_CHECKING:
    from phicrypt.posture.policies.least_privilege import (
        auditor_policy,
        break_glass_policy,
        key_policy,
        reader_policy,
        writer_policy,
    )
    from phicrypt.posture.policies.lint import LintFinding, lint_policy

_HOMES = {
    "LintFinding": "phicrypt.posture.policies.lint",
    "auditor_policy": "phicrypt.posture.policies.least_privilege",
    "break_glass_policy": "phicrypt.posture.policies.least_privilege",
    "key_policy": "phicrypt.posture.policies.least_privilege",
    "lint_policy": "phicrypt.posture.policies.lint",
    "reader_policy": "phicrypt.posture.policies.least_privilege",
    "writer_policy": "phicrypt.posture.policies.least_privilege",
}

__all__ = [
    "LintFinding",
    "auditor_policy",
    "break_glass_policy",
    "key_policy",
    "lint_policy",
    "reader_policy",
    "writer_policy",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
