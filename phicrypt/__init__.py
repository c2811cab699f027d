"""phicrypt: client-side encryption of protected health information for AWS.

Importing this package imports neither boto3 nor pydantic; each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phicrypt.audit.events import Purpose
    from phicrypt.client import PhiCrypt
    from phicrypt.context import ANY_CONTEXT, AuditContext
    from phicrypt.errors import PhiCryptError
    from phicrypt.keys.branch_key_store import BranchKeyStore
    from phicrypt.keys.cache import CachePolicy
    from phicrypt.keys.hierarchical import HierarchicalKeyring
    from phicrypt.keys.kms import KmsKeyring
    from phicrypt.keys.multi import MultiKeyring
    from phicrypt.keys.raw_aes import RawAesKeyring

__version__ = "0.1.0"

_HOMES = {
    "ANY_CONTEXT": "phicrypt.context",
    "AuditContext": "phicrypt.context",
    "BranchKeyStore": "phicrypt.keys.branch_key_store",
    "CachePolicy": "phicrypt.keys.cache",
    "HierarchicalKeyring": "phicrypt.keys.hierarchical",
    "KmsKeyring": "phicrypt.keys.kms",
    "MultiKeyring": "phicrypt.keys.multi",
    "PhiCrypt": "phicrypt.client",
    "PhiCryptError": "phicrypt.errors",
    "Purpose": "phicrypt.audit.events",
    "RawAesKeyring": "phicrypt.keys.raw_aes",
}

__all__ = [
    "ANY_CONTEXT",
    "AuditContext",
    "BranchKeyStore",
    "CachePolicy",
    "HierarchicalKeyring",
    "KmsKeyring",
    "MultiKeyring",
    "PhiCrypt",
    "PhiCryptError",
    "Purpose",
    "RawAesKeyring",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'phicrypt' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
