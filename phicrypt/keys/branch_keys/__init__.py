"""Branch keys: one key per tenant in a DynamoDB table, under which data keys are wrapped locally."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicrypt._lazy import lazy_names

if TYPE_CHECKING:
    from phicrypt.keys.branch_keys.keyring import HierarchicalKeyring
    from phicrypt.keys.branch_keys.kms import KeyDiscovery
    from phicrypt.keys.branch_keys.store import BranchKeyStore, FailoverRegion
    from phicrypt.keys.branch_keys.values import BeaconKey, BranchKey

_HOMES = {
    "BeaconKey": "phicrypt.keys.branch_keys.values",
    "BranchKey": "phicrypt.keys.branch_keys.values",
    "BranchKeyStore": "phicrypt.keys.branch_keys.store",
    "FailoverRegion": "phicrypt.keys.branch_keys.store",
    "HierarchicalKeyring": "phicrypt.keys.branch_keys.keyring",
    "KeyDiscovery": "phicrypt.keys.branch_keys.kms",
}

__all__ = [
    "BeaconKey",
    "BranchKey",
    "BranchKeyStore",
    "FailoverRegion",
    "HierarchicalKeyring",
    "KeyDiscovery",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
