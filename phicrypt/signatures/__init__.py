"""Detached signatures, signed manifests and MACs under KMS keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicrypt._lazy import lazy_names

if TYPE_CHECKING:
    from phicrypt.signatures.mac import LocalMac, Mac
    from phicrypt.signatures.signer import Signer, Source, Verifier

_HOMES = {
    "LocalMac": "phicrypt.signatures.mac",
    "Mac": "phicrypt.signatures.mac",
    "Signer": "phicrypt.signatures.signer",
    "Source": "phicrypt.signatures.signer",
    "Verifier": "phicrypt.signatures.signer",
}

__all__ = [
    "LocalMac",
    "Mac",
    "Signer",
    "Source",
    "Verifier",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
