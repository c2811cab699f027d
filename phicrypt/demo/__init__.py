"""The embedded local AWS, and the walkthrough that ``phicrypt demo`` tells on it.

Each chapter is a module of this package with ``def tell(stage: Stage) -> None`` that ends within a
few seconds and uses nothing but ``stage.aws``.
"""

from __future__ import annotations

CHAPTERS = ("messages", "keystore", "s3", "dynamodb", "audit", "sign", "posture")
"""Module names in the order in which they are told; one that is not installed is left out."""
