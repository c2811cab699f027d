"""``MaterialsProvider``: a keyring behind a bounded cache (the specification's two CMMs in one).

It plays the default cryptographic materials manager (``framework/default-cmm.md``: signing keys and
their context pair) and the caching one (``framework/caching-cmm.md``). What may be cached, rule 5:
only suites that derive a key per message, never signed suites on the encrypt side (their signing
key would be shared by unrelated messages), and never DB-ESDK suites, whose intermediate keys wrap
exactly one data key (rule 4).
"""

from __future__ import annotations

import base64
from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from phicrypt.core.context import PUBLIC_KEY_NAME, check_expected_pairs, serialize_context
from phicrypt.core.materials import (
    DecryptionMaterials,
    EncryptedDataKey,
    EncryptionMaterials,
    KeyHolder,
    Keyring,
)
from phicrypt.core.primitives import SigningKey, VerificationKey
from phicrypt.core.required_context import NOTHING_REQUIRED, RequiredPairs, check_not_stored
from phicrypt.core.steps import Steps, decrypt_steps, encrypt_steps, run
from phicrypt.core.suites import AlgorithmSuite
from phicrypt.errors import ConfigurationError, FormatError, KeyAccessError
from phicrypt.keys.cache import CachePolicy, CacheStats, KeyCache


class Clearable(Protocol):
    def clear(self) -> None: ...


class MaterialsProvider(KeyHolder):
    """Gives materials for messages, from the cache where that is safe.

    Args:
        keyring: generates and opens data keys.
        policy: bounds of the cache; None switches caching of data keys off.
        partition: tells this provider's entries from another's in a shared cache (rule 11).
        cache: a cache to share; by default one of its own.
    """

    def __init__(
        self,
        keyring: Keyring,
        policy: CachePolicy | None,
        *,
        partition: str = "",
        cache: KeyCache[EncryptionMaterials | DecryptionMaterials] | None = None,
    ) -> None:
        self.keyring = keyring
        self.cache = cache or KeyCache(policy or CachePolicy())
        self._caches = policy is not None and keyring.caches_data_keys
        self._scope = (keyring.identity, partition)
        self.derived: dict[Hashable, Clearable] = {}
        """What others derived from these keys and keep, each under a name of its own: cleared with the cache."""

    def __repr__(self) -> str:
        return f"<MaterialsProvider of {self.keyring!r}>"

    def encryption_materials(
        self,
        suite: AlgorithmSuite,
        context: Mapping[str, str],
        *,
        plaintext_length_bytes: int | None,
        context_bytes: bytes | None = None,
        public_key: str | None = None,
        required: RequiredPairs = NOTHING_REQUIRED,
    ) -> tuple[EncryptionMaterials, bool]:
        """Materials to seal one message, and whether they came from the cache.

        Args:
            suite: the suite to write.
            context: all pairs, checked by the caller; without ``aws-crypto-public-key``, which is added here
                for signed suites.
            plaintext_length_bytes: charged to a cached data key; None for streams, whose bytes are
                charged by :meth:`charge` as they pass.
            context_bytes: the context's canonical bytes, if the caller has them.
            public_key: for signed suites, the base64 point of a signing key that the caller made
                itself; then the materials hold no signing key.
            required: the pairs of the context that the message is not to store (rule 35).

        Raises KeyAccessError and whatever else the keyring raises.
        """
        if context_bytes is None:
            context_bytes = serialize_context(context)
        if suite.is_signed or not self._may_cache(suite):
            wanted = _to_encrypt(suite, context, context_bytes, required, public_key)
            fresh = self._with_data_key(self.keyring.on_encrypt(wanted))
            return fresh, fresh.key_was_cached
        cache_key = ("encrypt", self._scope, suite.suite_id, context_bytes, required.serialized)
        known = self.cache.find(cache_key, plaintext_length_bytes or 0)
        if known is not None:
            assert isinstance(known, EncryptionMaterials)
            if known.data_key is not None and known.data_key.is_intact():
                return known, True
            self.cache.forget(cache_key)  # it changed in memory: what it seals nobody would open again
        return run(
            self.encryption_steps(
                suite,
                context,
                plaintext_length_bytes=plaintext_length_bytes,
                context_bytes=context_bytes,
                required=required,
            )
        )

    def encryption_steps(
        self,
        suite: AlgorithmSuite,
        context: Mapping[str, str],
        *,
        plaintext_length_bytes: int | None,
        context_bytes: bytes | None = None,
        required: RequiredPairs = NOTHING_REQUIRED,
    ) -> Steps[tuple[EncryptionMaterials, bool]]:
        """:meth:`encryption_materials` as steps, whoever drives them."""
        if context_bytes is None:
            context_bytes = serialize_context(context)

        def generate() -> Steps[EncryptionMaterials]:
            wanted = _to_encrypt(suite, context, context_bytes, required)
            return self._with_data_key((yield from encrypt_steps(self.keyring, wanted)))

        if suite.is_signed or not self._may_cache(suite):
            fresh = yield from generate()
            return fresh, fresh.key_was_cached
        cache_key = ("encrypt", self._scope, suite.suite_id, context_bytes, required.serialized)
        materials, hit = yield from self.cache.load_steps(
            cache_key,
            generate,
            prepare=lambda: self.keyring.prepare(()),
            byte_count=plaintext_length_bytes or 0,
            tag_of=_key_id,
        )
        assert isinstance(materials, EncryptionMaterials)
        materials.cache_key = cache_key
        return materials, hit

    def charge(self, materials: EncryptionMaterials, byte_count: int) -> None:
        """Charge a stream's bytes to its cached data key; the next message over the bound misses."""
        if materials.cache_key is not None:
            self.cache.charge(materials.cache_key, materials, byte_count)

    def decryption_materials(
        self,
        suite: AlgorithmSuite,
        context: Mapping[str, str],
        encrypted_data_keys: Sequence[EncryptedDataKey],
        *,
        expected: Mapping[str, str] | None,
        context_bytes: bytes | None = None,
        required: RequiredPairs = NOTHING_REQUIRED,
    ) -> tuple[DecryptionMaterials, bool]:
        """Materials to open a message, and whether they came from the cache.

        The expected pairs are compared first, on hits as on misses (rule 8); None expects nothing. So are the
        names of the ``required`` ones, which ``context`` must not hold; their values the header's tag tells.
        ``context`` and ``context_bytes`` are as the header has them.

        Raises ContextMismatchError, KeyAccessError, and whatever else the keyring raises.
        """
        if required is not NOTHING_REQUIRED:
            check_not_stored(context, required)
        check_expected_pairs(context, expected)
        if context_bytes is None:
            context_bytes = serialize_context(context)
        if not self._may_cache(suite):
            self.keyring.prepare(encrypted_data_keys)
            wanted = _to_decrypt(suite, context, context_bytes, expected, required)
            opened = _with_opened_key(self.keyring.on_decrypt(wanted, encrypted_data_keys))
            return opened, opened.key_was_cached
        cache_key = self._key_for_decryption(suite, context_bytes, required.serialized, encrypted_data_keys)
        known = self.cache.find(cache_key)
        if known is not None:
            assert isinstance(known, DecryptionMaterials)
            if known.data_key is not None and known.data_key.is_intact():
                return known, True
            self.cache.forget(cache_key)
        return run(
            self.decryption_steps(
                suite,
                context,
                encrypted_data_keys,
                expected=expected,
                context_bytes=context_bytes,
                required=required,
            )
        )

    def decryption_steps(
        self,
        suite: AlgorithmSuite,
        context: Mapping[str, str],
        encrypted_data_keys: Sequence[EncryptedDataKey],
        *,
        expected: Mapping[str, str] | None,
        context_bytes: bytes | None = None,
        required: RequiredPairs = NOTHING_REQUIRED,
    ) -> Steps[tuple[DecryptionMaterials, bool]]:
        """:meth:`decryption_materials` as steps, whoever drives them."""
        if required is not NOTHING_REQUIRED:
            check_not_stored(context, required)
        check_expected_pairs(context, expected)
        if context_bytes is None:
            context_bytes = serialize_context(context)

        def opening() -> Steps[DecryptionMaterials]:
            wanted = _to_decrypt(suite, context, context_bytes, expected, required)
            return _with_opened_key((yield from decrypt_steps(self.keyring, wanted, encrypted_data_keys)))

        if not self._may_cache(suite):
            self.keyring.prepare(encrypted_data_keys)
            opened = yield from opening()
            return opened, opened.key_was_cached
        materials, hit = yield from self.cache.load_steps(
            self._key_for_decryption(suite, context_bytes, required.serialized, encrypted_data_keys),
            opening,
            prepare=lambda: self.keyring.prepare(encrypted_data_keys),
            tag_of=_key_id,
        )
        assert isinstance(materials, DecryptionMaterials)
        return materials, hit

    def _may_cache(self, suite: AlgorithmSuite) -> bool:
        return self._caches and suite.derives_message_keys and not suite.has_symmetric_signature

    def _key_for_decryption(
        self,
        suite: AlgorithmSuite,
        stored_bytes: bytes,
        required_bytes: bytes,
        encrypted_data_keys: Sequence[EncryptedDataKey],
    ) -> Hashable:
        named_keys = tuple(sorted(encrypted_data_keys))
        return ("decrypt", self._scope, suite.suite_id, stored_bytes, required_bytes, named_keys)

    def _with_data_key(self, materials: EncryptionMaterials) -> EncryptionMaterials:
        if materials.data_key is None or not materials.encrypted_data_keys:
            raise ConfigurationError(f"the keyring {self.keyring!r} gave no data key; it cannot encrypt")
        return materials


def _to_encrypt(
    suite: AlgorithmSuite,
    context: Mapping[str, str],
    context_bytes: bytes,
    required: RequiredPairs,
    public_key: str | None = None,
) -> EncryptionMaterials:
    """What a keyring is asked to complete; for signed suites with a new signing key, or the caller's."""
    signing_key = None
    if suite.signature_curve is not None:
        if PUBLIC_KEY_NAME in context:
            raise ConfigurationError(f"{PUBLIC_KEY_NAME} is written by phicrypt, not by the caller")
        if public_key is None:
            signing_key = SigningKey(suite.signature_curve)
            public_key = base64.b64encode(signing_key.compressed_public_key()).decode()
        context = {**context, PUBLIC_KEY_NAME: public_key}
        context_bytes = serialize_context(context)
    return EncryptionMaterials(suite, context, context_bytes, signing_key=signing_key, required=required)


def _to_decrypt(
    suite: AlgorithmSuite,
    stored: Mapping[str, str],
    stored_bytes: bytes,
    expected: Mapping[str, str] | None,
    required: RequiredPairs,
) -> DecryptionMaterials:
    verification_key = _verification_key(suite, stored)
    names = frozenset(expected) if expected is not None else None
    if not required.pairs:
        return DecryptionMaterials(
            suite, stored, stored_bytes, verification_key=verification_key, expected_names=names
        )
    whole = MappingProxyType({**stored, **required.pairs})
    return DecryptionMaterials(
        suite,
        whole,
        serialize_context(whole),
        verification_key=verification_key,
        expected_names=(names or frozenset()) | frozenset(required.pairs),
        required=required,
    )


def _with_opened_key(materials: DecryptionMaterials) -> DecryptionMaterials:
    if materials.data_key is None:
        raise KeyAccessError(
            "the keyring opened none of the message's encrypted data keys",
            operation="Decrypt",
            code="NoMatchingDataKey",
        )
    return materials


def _key_id(materials: EncryptionMaterials | DecryptionMaterials) -> str | None:
    """The tag that a purge by key ARN finds an entry by."""
    return materials.origin.key_id if materials.origin is not None else None


def _verification_key(suite: AlgorithmSuite, context: Mapping[str, str]) -> VerificationKey | None:
    if suite.signature_curve is None:
        return None
    try:
        compressed_point = base64.b64decode(context.get(PUBLIC_KEY_NAME, ""), validate=True)
    except ValueError:
        compressed_point = None
    if compressed_point is None:
        raise FormatError("it is not base64", field=PUBLIC_KEY_NAME)
    return VerificationKey(suite.signature_curve, compressed_point)


class CacheControl:
    """``phi.cache``: what the keys that are held in memory did, and how to drop them at once."""

    def __init__(self, provider: MaterialsProvider) -> None:
        self._provider = provider

    def stats(self) -> CacheStats:
        """Counts of the data key cache since it was made, or since the fork."""
        return self._provider.cache.stats()

    def clear(self) -> None:
        """Forget every cached data key and branch key; keys under way are not kept or used either."""
        self._provider.cache.clear()
        for derived in list(self._provider.derived.values()):
            derived.clear()
        clear_keyring = getattr(self._provider.keyring, "clear_cache", None)
        if clear_keyring is not None:
            clear_keyring()

    def purge(self, key_id: str) -> None:
        """Forget every cached data key that came from this KMS key ARN (or wrapping key name).

        Branch keys under that KMS key stay until their time to live ends; :meth:`clear` drops them.
        """
        self._provider.cache.purge(key_id)
