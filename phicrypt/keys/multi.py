"""``MultiKeyring``: one data key for several recipients (``framework/multi-keyring.md``)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from phicrypt.core.kms_calls import combined_refusal, refused_calls
from phicrypt.core.materials import (
    DecryptionMaterials,
    EncryptedDataKey,
    EncryptionMaterials,
    Keyring,
    binds_context_locally,
)
from phicrypt.core.steps import SteppedKeyring, Steps, decrypt_steps, encrypt_steps, shell_of
from phicrypt.errors import (
    AuthenticationError,
    ConfigurationError,
    FormatError,
    KeyAccessError,
    LimitExceededError,
)

if TYPE_CHECKING:
    from phicrypt.keys.kms.clients import KmsClients

MAX_ENCRYPTED_DATA_KEYS: Final = 8
"""What phicrypt's own reader accepts by default (rule 16)."""
_REFUSALS: Final = (KeyAccessError, AuthenticationError, FormatError, ConfigurationError)


class MultiKeyring(SteppedKeyring):
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
    def kms_clients(self) -> KmsClients | None:
        """The AWS side of the first keyring that has one."""
        found: Iterable[KmsClients | None] = (getattr(one, "kms_clients", None) for one in self._keyrings)
        return next((clients for clients in found if clients is not None), None)

    @property
    def identity(self) -> Hashable:
        return ("multi", tuple(keyring.identity for keyring in self._keyrings))

    @property
    def caches_data_keys(self) -> bool:
        return all(keyring.caches_data_keys for keyring in self._keyrings)

    @property
    def binds_context_locally(self) -> bool:
        return all(binds_context_locally(keyring) for keyring in self._keyrings)

    def prepare(self, encrypted_data_keys: Sequence[EncryptedDataKey]) -> None:
        for keyring in self._keyrings:
            keyring.prepare(encrypted_data_keys)

    def clear_cache(self) -> None:
        """Let every child that keeps keys of its own (branch keys) forget them."""
        for keyring in self._keyrings:
            clear = getattr(keyring, "clear_cache", None)
            if clear is not None:
                clear()

    @shell_of("encrypt_steps")
    def on_encrypt(self, materials: EncryptionMaterials) -> EncryptionMaterials:
        for keyring in self._keyrings:
            try:
                materials = keyring.on_encrypt(materials)
            except KeyAccessError as error:
                _tell_earlier_calls(error, materials)
                raise
        return self._checked(materials)

    def encrypt_steps(self, materials: EncryptionMaterials) -> Steps[EncryptionMaterials]:
        for keyring in self._keyrings:
            try:
                materials = yield from encrypt_steps(keyring, materials)
            except KeyAccessError as error:
                _tell_earlier_calls(error, materials)
                raise
        return self._checked(materials)

    def _checked(self, materials: EncryptionMaterials) -> EncryptionMaterials:
        if materials.data_key is None:
            raise ConfigurationError(f"{self._keyrings[0]!r} generated no data key")
        if len(materials.encrypted_data_keys) > self._max_encrypted_data_keys:
            raise LimitExceededError(
                "the keyrings wrote too many encrypted data keys",
                limit=self._max_encrypted_data_keys,
                actual=len(materials.encrypted_data_keys),
                setting="MultiKeyring(max_encrypted_data_keys=)",
            )
        return materials

    @shell_of("decrypt_steps")
    def on_decrypt(
        self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
    ) -> DecryptionMaterials:
        refusals: list[KeyAccessError] = []
        for keyring in self._keyrings:
            try:
                return _opened(keyring.on_decrypt(materials, encrypted_data_keys), refusals)
            except _REFUSALS as error:
                refusals.append(_as_refusal(error, keyring))
        raise combined_refusal(refusals)

    def decrypt_steps(
        self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
    ) -> Steps[DecryptionMaterials]:
        refusals: list[KeyAccessError] = []
        for keyring in self._keyrings:
            try:
                return _opened((yield from decrypt_steps(keyring, materials, encrypted_data_keys)), refusals)
            except _REFUSALS as error:
                refusals.append(_as_refusal(error, keyring))
        raise combined_refusal(refusals)


def _tell_earlier_calls(error: KeyAccessError, materials: EncryptionMaterials) -> None:
    """CloudTrail shows the generator's call, also where another recipient's was refused."""
    if materials.origin is not None:
        error.earlier_calls = (materials.origin, *materials.origin.other_calls)


def _opened(materials: DecryptionMaterials, refusals: Sequence[KeyAccessError]) -> DecryptionMaterials:
    """The materials, whose origin names the calls that were refused before."""
    earlier = refused_calls(refusals)
    if earlier and materials.origin is not None:
        materials.origin = replace(materials.origin, other_calls=(*earlier, *materials.origin.other_calls))
    return materials


def _as_refusal(error: Exception, keyring: Keyring) -> KeyAccessError:
    if isinstance(error, KeyAccessError):
        return error
    return KeyAccessError(
        f"{keyring!r} could not read the encrypted data keys: {error}",
        operation="Decrypt",
        code=type(error).__name__,
    )
