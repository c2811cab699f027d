"""phicrypt: client-side encryption of protected health information for AWS.

Importing this package imports neither boto3 nor pydantic; each name is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phicrypt import _moved as _moved
from phicrypt._lazy import lazy_names
from phicrypt._version import __version__ as __version__

if TYPE_CHECKING:
    from phicrypt.audit.events import Purpose
    from phicrypt.client import PhiCrypt
    from phicrypt.core.context import ANY_CONTEXT, AuditContext
    from phicrypt.errors import PhiCryptError
    from phicrypt.keys.branch_keys.keyring import HierarchicalKeyring
    from phicrypt.keys.branch_keys.store import BranchKeyStore
    from phicrypt.keys.cache import CachePolicy
    from phicrypt.keys.kms.ecdh_keyring import KmsEcdhKeyring
    from phicrypt.keys.kms.keyring import KmsKeyring
    from phicrypt.keys.multi import MultiKeyring
    from phicrypt.keys.raw_aes import RawAesKeyring
    from phicrypt.keys.raw_ecdh import RawEcdhKeyring
    from phicrypt.keys.raw_rsa import RawRsaKeyring

_HOMES = {
    "ANY_CONTEXT": "phicrypt.core.context",
    "AuditContext": "phicrypt.core.context",
    "BranchKeyStore": "phicrypt.keys.branch_keys.store",
    "CachePolicy": "phicrypt.keys.cache",
    "HierarchicalKeyring": "phicrypt.keys.branch_keys.keyring",
    "KmsEcdhKeyring": "phicrypt.keys.kms.ecdh_keyring",
    "KmsKeyring": "phicrypt.keys.kms.keyring",
    "MultiKeyring": "phicrypt.keys.multi",
    "PhiCrypt": "phicrypt.client",
    "PhiCryptError": "phicrypt.errors",
    "Purpose": "phicrypt.audit.events",
    "RawAesKeyring": "phicrypt.keys.raw_aes",
    "RawEcdhKeyring": "phicrypt.keys.raw_ecdh",
    "RawRsaKeyring": "phicrypt.keys.raw_rsa",
}

__all__ = [
    "ANY_CONTEXT",
    "AuditContext",
    "BranchKeyStore",
    "CachePolicy",
    "HierarchicalKeyring",
    "KmsEcdhKeyring",
    "KmsKeyring",
    "MultiKeyring",
    "PhiCrypt",
    "PhiCryptError",
    "Purpose",
    "RawAesKeyring",
    "RawEcdhKeyring",
    "RawRsaKeyring",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
