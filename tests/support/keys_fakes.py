"""Keyrings for tests that count, wait and fail, around a real raw AES keyring."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Sequence

from phicrypt import RawAesKeyring
from phicrypt.core.materials import DecryptionMaterials, EncryptedDataKey, EncryptionMaterials, KeyHolder
from phicrypt.errors import KeyAccessError


class CountingKeyring(KeyHolder):
    """A raw AES keyring that counts its calls, may take its time, and fails when told to."""

    def __init__(self, name: str = "key-1", *, delay_seconds: float = 0.0) -> None:
        self._inner = RawAesKeyring("clinic", name, bytes(range(32)))
        self._lock = threading.Lock()
        self.delay_seconds = delay_seconds
        self.encrypts = 0
        self.decrypts = 0
        self.failures: list[BaseException] = []
        self.entered = threading.Event()
        self.gate: threading.Event | None = None

    @property
    def identity(self) -> Hashable:
        return self._inner.identity

    @property
    def caches_data_keys(self) -> bool:
        return True

    def prepare(self, encrypted_data_keys: Sequence[EncryptedDataKey]) -> None:
        pass

    def _call(self) -> None:
        self.entered.set()
        if self.gate is not None:
            self.gate.wait(10)
        time.sleep(self.delay_seconds)
        with self._lock:
            failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure

    def on_encrypt(self, materials: EncryptionMaterials) -> EncryptionMaterials:
        with self._lock:
            self.encrypts += 1
        self._call()
        return self._inner.on_encrypt(materials)

    def on_decrypt(
        self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
    ) -> DecryptionMaterials:
        with self._lock:
            self.decrypts += 1
        self._call()
        return self._inner.on_decrypt(materials, encrypted_data_keys)


def throttled() -> KeyAccessError:
    """The error of a throttled call."""
    return KeyAccessError("throttled", operation="GenerateDataKey", code="ThrottlingException", is_retryable=True)
