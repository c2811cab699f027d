"""What CloudTrail witnesses of an audit log: anchors of its chain, made by calls of KMS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicrypt._lazy import lazy_names

if TYPE_CHECKING:
    from phicrypt.witness.anchors import AnchoredSink

_HOMES = {
    "AnchoredSink": "phicrypt.witness.anchors",
}

__all__ = [
    "AnchoredSink",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
