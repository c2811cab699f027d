"""``MultiKeyring``: one data key for several recipients (``framework/multi-keyring.md``)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from phicrypt.core.kms_calls import combined_refusal, refused_calls
from phicrypt.core.materials import (
    DecryptionMaterials,
    EncryptedDataKey,
    EncryptionMaterials,
    KeyHolder,
    Keyring,
)
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    FormatError,
    KeyAccessError,
    LimitExceededError,
)

MAX_ENCRYPTED_DATA_KEYS: Final = 8
"""What phicrypt's own reader accepts by default (rule 16)."""


class MultiKeyring(KeyHolder):
    """The generator makes the data key; it and every child wrap it; any one of them opens it.

    So whoever holds any of the keys reads (and, without signatures, can forge) the messages. On
    decrypt the keyrings are asked in order, and each failure leads to the next: two children with
    replicas of one multi-Region key ask the second Region also where the first one refused.

    Data keys are cached only if every child caches its own: a child with a supplier of the user's
    chooses its key per message, and no supplier runs inside a flight (rule 12).

    Args:
        generator: generates the data key.
        others: further recipients; also as ``children=``.
        max_encrypted_data_keys: bound on the encrypted data keys of a message; raise it only
            together with the bound of every reader.

    Raises ConfigurationError if the children would write more encrypted data keys than that.
    """

    __slots__ = ("_keyrings", "_max_encrypted_data_keys")

    def __init__(
        self,
        generator: Keyring,
        *others: Keyring,
        children: Iterable[Keyring] = (),
        max_encrypted_data_keys: int = MAX_ENCRYPTED_DATA_KEYS,
    ) -> None:
        self._keyrings = (generator, *others, *children)
        for keyring in self._keyrings:
            if not isinstance(keyring, Keyring):
                raise ConfigurationError(f"a MultiKeyring joins keyrings, not {type(keyring).__name__}")
        self._max_encrypted_data_keys = max_encrypted_data_keys
        if self.encrypted_data_key_count > max_encrypted_data_keys:
            raise ConfigurationError(
                f"these keyrings would write {self.encrypted_data_key_count} encrypted data keys per message; "
                f"readers accept {max_encrypted_data_keys}"
            )

    def __repr__(self) -> str:
        return f"<MultiKeyring of {', '.join(repr(keyring) for keyring in self._keyrings)}>"

    @property
    def keyrings(self) -> tuple[Keyring, ...]:
        """The joined keyrings, the generator first."""
        return self._keyrings

    @property
    def encrypted_data_key_count(self) -> int:
        """How many encrypted data keys a message gets."""
        return sum(getattr(keyring, "encrypted_data_key_count", 1) for keyring in self._keyrings)

    @property
    def identity(self) -> Hashable:
        return ("multi", tuple(keyring.identity for keyring in self._keyrings))

    @property
    def caches_data_keys(self) -> bool:
        return all(keyring.caches_data_keys for keyring in self._keyrings)

    def prepare(self, encrypted_data_keys: Sequence[EncryptedDataKey]) -> None:
        for keyring in self._keyrings:
            keyring.prepare(encrypted_data_keys)

    def clear_cache(self) -> None:
        """Let every child that keeps keys of its own (branch keys) forget them."""
        for keyring in self._keyrings:
            clear = getattr(keyring, "clear_cache", None)
            if clear is not None:
                clear()

    def on_encrypt(self, materials: EncryptionMaterials) -> EncryptionMaterials:
        for keyring in self._keyrings:
            try:
                materials = keyring.on_encrypt(materials)
            except KeyAccessError as error:
                if materials.origin is not None:  # CloudTrail shows the generator's call all the same
                    error.earlier_calls = (materials.origin, *materials.origin.other_calls)
                raise
        if materials.data_key is None:
            raise ConfigurationError(f"{self._keyrings[0]!r} generated no data key")
        if len(materials.encrypted_data_keys) > self._max_encrypted_data_keys:
            raise LimitExceededError(
                "the keyrings wrote too many encrypted data keys",
                limit=self._max_encrypted_data_keys,
                actual=len(materials.encrypted_data_keys),
            )
        return materials

    def on_decrypt(
        self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
    ) -> DecryptionMaterials:
        refusals: list[KeyAccessError] = []
        for keyring in self._keyrings:
            try:
                opened = keyring.on_decrypt(materials, encrypted_data_keys)
            except (KeyAccessError, AuthenticationError, FormatError, ConfigurationError) as error:
                refusals.append(_as_refusal(error, keyring))
                continue
            earlier = refused_calls(refusals)
            if earlier and opened.origin is not None:
                opened.origin = replace(opened.origin, other_calls=(*earlier, *opened.origin.other_calls))
            return opened
        raise combined_refusal(refusals)


def _as_refusal(error: Exception, keyring: Keyring) -> KeyAccessError:
    if isinstance(error, KeyAccessError):
        return error
    return KeyAccessError(
        f"{keyring!r} could not read the encrypted data keys: {error}",
        operation="Decrypt",
        code=type(error).__name__,
    )
