"""Keyrings and a branch key store with fixed keys, and the way into the local AWS.

Not for production: :class:`StaticKeyring` opens whatever it is given.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from phicrypt.audit.sinks.memory import RecordingSink as RecordingSink
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.core.materials import DataKey, DecryptionMaterials, EncryptedDataKey, EncryptionMaterials, KeyHolder
from phicrypt.keys.branch_keys.values import BeaconKey, BranchKey, no_such_branch_key

if TYPE_CHECKING:
    from phicrypt.testing.local_stack import LocalAws

_PROVIDER_ID = "phicrypt-static"


class StaticKeyring(KeyHolder):
    """One fixed data key that opens any encrypted data key: for test vectors only."""

    __slots__ = ("_data_key", "_identity")

    def __init__(self, data_key: bytes) -> None:
        self._data_key = data_key
        self._identity = ("static", id(self))

    def __repr__(self) -> str:
        return "<StaticKeyring>"

    @property
    def identity(self) -> Hashable:
        return self._identity

    @property
    def caches_data_keys(self) -> bool:
        return False

    def prepare(self, encrypted_data_keys: Sequence[EncryptedDataKey]) -> None:
        pass

    def on_encrypt(self, materials: EncryptionMaterials) -> EncryptionMaterials:
        return materials.with_recipient(
            EncryptedDataKey(_PROVIDER_ID, b"static", b"static"),
            data_key=DataKey(self._data_key),
            origin=KeyOrigin(_PROVIDER_ID, "static"),
        )

    def on_decrypt(
        self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
    ) -> DecryptionMaterials:
        return materials.with_data_key(
            DataKey(self._data_key), recipient_index=0, origin=KeyOrigin(_PROVIDER_ID, "static")
        )


def local_aws(region: str = "us-east-1") -> LocalAws:
    """An embedded local AWS (KMS, S3, DynamoDB) on a free loopback port: ``with local_aws() as aws:``.

    ``aws`` has ``.endpoint_url``, ``.client(service)``, ``.resource(service)``, ``.session()``,
    ``.kms_key_arn``, ``.create_kms_key()`` and ``.kms_requests``
    (:class:`phicrypt.testing.local_stack.LocalAws`). No real credentials are read or used. Raises
    ConfigurationError where the extra ``demo`` is not installed.
    """
    from phicrypt.testing.local_stack import LocalAws

    return LocalAws(region)


class StaticBranchKeyStore(KeyHolder):
    """One fixed branch key in one version, and its beacon key: for test vectors and tests only.

    Args:
        branch_key_id: any non-empty text.
        version: a UUID in text form.
        branch_key: 32 bytes.
        beacon_key: 32 bytes.
    """

    def __init__(self, branch_key_id: str, version: str, branch_key: bytes, beacon_key: bytes) -> None:
        self._branch_key = BranchKey(branch_key_id, str(uuid.UUID(version)), branch_key)
        self._beacon_key = BeaconKey(branch_key_id, beacon_key)
        self._identity = ("static-branch-key-store", id(self))

    def __repr__(self) -> str:
        return f"<StaticBranchKeyStore {self._branch_key.branch_key_id!r}>"

    @property
    def identity(self) -> Hashable:
        return self._identity

    def on_purge(self, forget: Callable[[str], None]) -> None:
        pass

    def fetch_active(self, branch_key_id: str) -> BranchKey:
        """The branch key; KeyAccessError for another id."""
        if branch_key_id != self._branch_key.branch_key_id:
            raise no_such_branch_key("active branch key of that id", operation="GetItem")
        return self._branch_key

    def fetch_version(self, branch_key_id: str, version: str) -> BranchKey:
        """The branch key; KeyAccessError for another id or version."""
        if (branch_key_id, version) != (self._branch_key.branch_key_id, self._branch_key.version):
            raise no_such_branch_key("branch key of that id and version", operation="GetItem")
        return self._branch_key

    def fetch_beacon_key(self, branch_key_id: str) -> BeaconKey:
        """The beacon key; KeyAccessError for another id."""
        if branch_key_id != self._beacon_key.branch_key_id:
            raise no_such_branch_key("beacon key of that id", operation="GetItem")
        return self._beacon_key
