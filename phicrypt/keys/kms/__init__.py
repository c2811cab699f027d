"""Data keys under KMS keys, and how every KMS call is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicrypt._lazy import lazy_names

if TYPE_CHECKING:
    from phicrypt.keys.kms.keyring import KmsKeyring

_HOMES = {
    "KmsKeyring": "phicrypt.keys.kms.keyring",
}

__all__ = [
    "KmsKeyring",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
