"""What passes between keyrings and formats: data keys, their encrypted forms, and materials.

Formats and keyrings never import each other; they meet in these values. See
``framework/structures.md`` and ``framework/keyring-interface.md`` of the AWS Encryption SDK
specification.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, NoReturn, Protocol, runtime_checkable
from zlib import crc32

from phicrypt.core.context import serialize_context
from phicrypt.core.key_origin import KeyOrigin
from phicrypt.core.primitives import SigningKey, VerificationKey
from phicrypt.core.required_context import NOTHING_REQUIRED, RequiredPairs, without_required
from phicrypt.core.suites import AlgorithmSuite


class KeyHolder:
    """Base of every object that holds key material: it cannot be copied or pickled (rule 1).

    A copy would carry a key, or a position under a key, to a place where neither its use bounds
    nor its nonces are counted.
    """

    __slots__ = ()

    def _refuse(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} holds key material and cannot be copied or pickled; make a new one"
        )

    def __copy__(self) -> NoReturn:
        self._refuse()

    def __deepcopy__(self, memo: object) -> NoReturn:
        self._refuse()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        self._refuse()

    def __getstate__(self) -> NoReturn:
        self._refuse()


class DataKey(KeyHolder):
    """A plaintext data key (or intermediate key). Its ``repr`` shows the length only."""

    __slots__ = ("check_value", "key_bytes")

    def __init__(self, key_bytes: bytes) -> None:
        self.key_bytes = key_bytes
        self.check_value = crc32(key_bytes)

    def is_intact(self) -> bool:
        """Whether the bytes are those that came: a key that is kept is used for long, in memory that may fail."""
        return crc32(self.key_bytes) == self.check_value

    def __len__(self) -> int:
        return len(self.key_bytes)

    def __repr__(self) -> str:
        return f"<DataKey of {len(self.key_bytes)} bytes>"


class EncryptedDataKey(NamedTuple):
    """A data key as one recipient can open it (``data-format/message-header.md``).

    A plain tuple, because it is hashed and compared at each look-up of a decryption key.

    Attributes:
        provider_id: who can open it, such as ``"aws-kms"`` or ``"aws-kms-hierarchy"``.
        provider_info: which key opens it, such as a KMS key ARN in UTF-8; at most 65,535 bytes.
        ciphertext: the wrapped data key; at most 65,535 bytes.
    """

    provider_id: str
    provider_info: bytes
    ciphertext: bytes


class EncryptionMaterials(KeyHolder):
    """What a format needs to seal one message (or, for suites with derivation, several).

    Attributes:
        suite: the algorithm suite.
        context: the whole encryption context, including ``aws-crypto-public-key`` for signed suites.
        context_bytes: its canonical serialization (:func:`phicrypt.core.context.serialize_context`), which
            data keys are wrapped under.
        required: the pairs of it that the message does not store (rule 35).
        data_key: the plaintext data key; None until a keyring has generated it.
        encrypted_data_keys: one entry per recipient.
        signing_key: the ephemeral signing key of signed suites.
        symmetric_signing_keys: for DB-ESDK suites, one 32-byte-or-longer MAC key per encrypted
            data key, in the same order (``framework/algorithm-suites.md``, intermediate wrapping).
        origin: where the data key came from.
        header_parts: constant header bytes that a format has computed from these materials, so
            that a cached entry serializes its context and data keys once.
        cache_key: under which the provider's cache holds these materials; None where it does not.
        key_was_cached: whether the keyring itself had the origin's key in a cache of its own, so
            that the origin's calls belong to an earlier use.
    """

    __slots__ = (
        "cache_key",
        "context",
        "context_bytes",
        "data_key",
        "encrypted_data_keys",
        "header_parts",
        "key_was_cached",
        "origin",
        "required",
        "signing_key",
        "suite",
        "symmetric_signing_keys",
    )

    def __init__(
        self,
        suite: AlgorithmSuite,
        context: Mapping[str, str],
        context_bytes: bytes,
        *,
        data_key: DataKey | None = None,
        encrypted_data_keys: tuple[EncryptedDataKey, ...] = (),
        signing_key: SigningKey | None = None,
        symmetric_signing_keys: tuple[DataKey, ...] = (),
        origin: KeyOrigin | None = None,
        key_was_cached: bool = False,
        required: RequiredPairs = NOTHING_REQUIRED,
    ) -> None:
        self.suite = suite
        self.context = context
        self.context_bytes = context_bytes
        self.required = required
        self.data_key = data_key
        self.encrypted_data_keys = encrypted_data_keys
        self.signing_key = signing_key
        self.symmetric_signing_keys = symmetric_signing_keys
        self.origin = origin
        self.header_parts: dict[Hashable, bytes] = {}
        self.cache_key: Hashable = None
        self.key_was_cached = key_was_cached

    @property
    def stored_context_bytes(self) -> bytes:
        """Canonical bytes of the pairs that the message stores."""
        if not self.required.pairs:
            return self.context_bytes
        return serialize_context(without_required(self.context, self.required))

    def with_recipient(
        self,
        encrypted_data_key: EncryptedDataKey,
        *,
        data_key: DataKey | None = None,
        symmetric_signing_key: DataKey | None = None,
        origin: KeyOrigin | None = None,
        key_was_cached: bool = False,
    ) -> EncryptionMaterials:
        """New materials with one more encrypted data key.

        ``data_key`` is given by the keyring that generated it and must be None by then.
        """
        if (self.data_key is None) == (data_key is None):
            raise ValueError("exactly one keyring generates the data key")
        extra = (symmetric_signing_key,) if symmetric_signing_key is not None else ()
        return EncryptionMaterials(
            self.suite,
            self.context,
            self.context_bytes,
            data_key=data_key or self.data_key,
            encrypted_data_keys=(*self.encrypted_data_keys, encrypted_data_key),
            signing_key=self.signing_key,
            symmetric_signing_keys=(*self.symmetric_signing_keys, *extra),
            origin=origin or self.origin,
            key_was_cached=key_was_cached or self.key_was_cached,
            required=self.required,
        )

    def __repr__(self) -> str:
        return (
            f"<EncryptionMaterials {self.suite.name}, {len(self.encrypted_data_keys)} encrypted data keys, "
            f"context names {sorted(self.context)}>"
        )


class DecryptionMaterials(KeyHolder):
    """What a format needs to open a message.

    Attributes:
        suite: as the message's header has it.
        context, context_bytes: the whole context: what the header has, and the required pairs.
        required: the pairs of it that the caller told and the header does not store (rule 35).
        data_key: the plaintext data key; None until a keyring has opened one.
        verification_key: for signed suites, from the context's ``aws-crypto-public-key``.
        symmetric_signing_key: for DB-ESDK suites, the MAC key that came with the data key.
        recipient_index: which of the encrypted data keys was opened.
        origin: where the data key came from.
        expected_names: the names that the caller expects in the context, whose pairs were already
            compared; None for ``ANY_CONTEXT``. A branch key supplier sees these only (rule 8).
        key_was_cached: as in :class:`EncryptionMaterials`.
    """

    __slots__ = (
        "context",
        "context_bytes",
        "data_key",
        "expected_names",
        "key_was_cached",
        "origin",
        "recipient_index",
        "required",
        "suite",
        "symmetric_signing_key",
        "verification_key",
    )

    def __init__(
        self,
        suite: AlgorithmSuite,
        context: Mapping[str, str],
        context_bytes: bytes,
        *,
        data_key: DataKey | None = None,
        verification_key: VerificationKey | None = None,
        symmetric_signing_key: DataKey | None = None,
        recipient_index: int | None = None,
        origin: KeyOrigin | None = None,
        expected_names: frozenset[str] | None = None,
        key_was_cached: bool = False,
        required: RequiredPairs = NOTHING_REQUIRED,
    ) -> None:
        self.suite = suite
        self.context = context
        self.context_bytes = context_bytes
        self.required = required
        self.data_key = data_key
        self.verification_key = verification_key
        self.symmetric_signing_key = symmetric_signing_key
        self.recipient_index = recipient_index
        self.origin = origin
        self.expected_names = expected_names
        self.key_was_cached = key_was_cached

    def with_data_key(
        self,
        data_key: DataKey,
        *,
        recipient_index: int,
        origin: KeyOrigin,
        symmetric_signing_key: DataKey | None = None,
        key_was_cached: bool = False,
    ) -> DecryptionMaterials:
        """New materials with the data key that the encrypted data key at ``recipient_index`` held."""
        if self.data_key is not None:
            raise ValueError("these decryption materials already hold a data key")
        return DecryptionMaterials(
            self.suite,
            self.context,
            self.context_bytes,
            data_key=data_key,
            verification_key=self.verification_key,
            symmetric_signing_key=symmetric_signing_key,
            recipient_index=recipient_index,
            origin=origin,
            expected_names=self.expected_names,
            key_was_cached=key_was_cached,
            required=self.required,
        )

    def __repr__(self) -> str:
        return f"<DecryptionMaterials {self.suite.name}, context names {sorted(self.context)}>"


@runtime_checkable
class Keyring(Protocol):
    """Generates, wraps and unwraps data keys (``framework/keyring-interface.md``).

    A keyring is immutable after it was made, and safe to share among threads and after a fork.
    """

    @property
    def identity(self) -> Hashable:
        """What tells this keyring's cached keys from another's: its type, keys, client, credentials
        and grant tokens (rule 11). Equal identities must mean equal authority."""
        ...

    @property
    def caches_data_keys(self) -> bool:
        """Whether data keys of this keyring are worth caching. False where wrapping is local and
        cheap, or where a supplier of the user's chooses the key per message."""
        ...

    def prepare(self, encrypted_data_keys: Sequence[EncryptedDataKey]) -> None:
        """Run what calls user code (client factories) before a flight begins (rule 12).

        Called without any lock before a cache miss is loaded; empty on the encrypt side.
        """
        ...

    def on_encrypt(self, materials: EncryptionMaterials) -> EncryptionMaterials:
        """Generate a data key if there is none, and add this keyring's encrypted data key(s).

        Raises KeyAccessError, ConfigurationError.
        """
        ...

    def on_decrypt(
        self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
    ) -> DecryptionMaterials:
        """Try the encrypted data keys in order; return the materials with the first that opens.

        Raises KeyAccessError if none opens. Only encrypted data keys that this keyring's
        configuration names are ever sent anywhere.
        """
        ...


def binds_context_locally(keyring: Keyring) -> bool:
    """Whether using this keyring shows the encryption context to nobody (rule 35).

    A keyring says so by an attribute ``binds_context_locally`` that is True; one that says nothing might send
    the context anywhere.
    """
    return getattr(keyring, "binds_context_locally", False) is True
