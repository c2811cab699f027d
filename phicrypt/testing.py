"""For users' tests: keyrings with fixed keys, and an embedded local AWS.

Nothing here is for production: :class:`StaticKeyring` opens whatever it is given.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from phicrypt.materials import (
    DataKey,
    DecryptionMaterials,
    EncryptedDataKey,
    EncryptionMaterials,
    KeyHolder,
    KeyOrigin,
)

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
