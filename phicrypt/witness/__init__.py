"""What of the audit trail calls KMS: its chain's anchors in CloudTrail, and the sealed keys of resource tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicrypt._lazy import lazy_names

if TYPE_CHECKING:
    from phicrypt.witness.anchors import AnchoredSink
    from phicrypt.witness.token_keys import ResourceTokens

_HOMES = {
    "AnchoredSink": "phicrypt.witness.anchors",
    "ResourceTokens": "phicrypt.witness.token_keys",
}

__all__ = [
    "AnchoredSink",
    "ResourceTokens",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
