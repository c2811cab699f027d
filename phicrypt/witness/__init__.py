"""What of the audit trail calls KMS: its chain's anchors in CloudTrail, its
checkpoints, and the sealed keys of resource tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicrypt._lazy import lazy_names

if TYPE_CHECKING:
    from phicrypt.witness.anchors import AnchoredSink
    from phicrypt.witness.checkpoints import Checkpoints
    from phicrypt.witness.cosigning import Witness
    from phicrypt.witness.note_keys import KmsNoteKey, LocalNoteKey
    from phicrypt.witness.periodic import CheckpointedSink
    from phicrypt.witness.token_keys import ResourceTokens

_HOMES = {
    "AnchoredSink": "phicrypt.witness.anchors",
    "CheckpointedSink": "phicrypt.witness.periodic",
    "Checkpoints": "phicrypt.witness.checkpoints",
    "KmsNoteKey": "phicrypt.witness.note_keys",
    "LocalNoteKey": "phicrypt.witness.note_keys",
    "ResourceTokens": "phicrypt.witness.token_keys",
    "Witness": "phicrypt.witness.cosigning",
}

__all__ = [
    "AnchoredSink",
    "CheckpointedSink",
    "Checkpoints",
    "KmsNoteKey",
    "LocalNoteKey",
    "ResourceTokens",
    "Witness",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
