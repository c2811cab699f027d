"""``HierarchicalKeyring``: data keys wrapped locally under a tenant's branch key.

KMS protects one branch key per tenant and is called once per branch key and TTL to read, twice to write
(rule 28); the message's context is bound here and never sent to KMS
(``framework/aws-kms/aws-kms-hierarchical-keyring.md``). The encrypted data key's provider id is
``aws-kms-hierarchy``, its provider info the branch key id in UTF-8, and its ciphertext::

    salt          16 bytes, random
    IV            12 bytes, random
    version       16 bytes, the UUID of the branch key's version
    wrapped key   as long as the suite's data key
    tag           16 bytes

    wrapping key = KDF-CTR-HMAC-SHA-256(branch key, label "aws-kms-hierarchy", salt, 32 bytes)
    AAD          = "aws-kms-hierarchy" ‖ branch key id ‖ version (16 bytes) ‖ serialized context
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from hmac import compare_digest
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from phicrypt.core.context import PUBLIC_KEY_NAME
from phicrypt.core.key_origin import HIERARCHY_PROVIDER_ID, KeyOrigin, joined_origin
from phicrypt.core.materials import DecryptionMaterials, EncryptedDataKey, EncryptionMaterials
from phicrypt.core.primitives import kdf_counter_mode_sha256, open_gcm, random_bytes, seal_gcm
from phicrypt.core.steps import SteppedKeyring, Steps, run, shell_of
from phicrypt.core.suites import IV_LENGTH_BYTES, TAG_LENGTH_BYTES, AlgorithmSuite
from phicrypt.errors import AuthenticationError, ConfigurationError, KeyAccessError
from phicrypt.keys.branch_keys.replication import once_replicated
from phicrypt.keys.branch_keys.values import (
    BRANCH_KEY_LENGTH_BYTES,
    BranchKey,
    BranchKeySource,
    check_branch_key_id,
    fetch_steps,
    versions_disagree,
)
from phicrypt.keys.cache import CachePolicy, KeyCache
from phicrypt.keys.wrapping import unwrap_data_key, wrap_data_key

if TYPE_CHECKING:
    from phicrypt.core.breaker import Breakers
    from phicrypt.keys.kms.clients import KmsClients

BranchKeySupplier = Callable[[Mapping[str, str]], str]
"""Chooses a branch key id from a context. On decrypt it is shown only the pairs that the caller
expects, never what the message alone claims (rule 8)."""

_LABEL: Final = HIERARCHY_PROVIDER_ID.encode()
_SALT_LENGTH_BYTES: Final = 16
_VERSION_LENGTH_BYTES: Final = 16
_IV_END: Final = _SALT_LENGTH_BYTES + IV_LENGTH_BYTES
_VERSION_END: Final = _IV_END + _VERSION_LENGTH_BYTES
_OVERHEAD_LENGTH_BYTES: Final = _VERSION_END + TAG_LENGTH_BYTES
_MAX_TTL_SECONDS: Final = 86_400


def wrap_under_branch_key(branch_key: BranchKey, plaintext_key: bytes, context_bytes: bytes) -> bytes:
    """The ciphertext laid out at the module's head, with a fresh salt and IV."""
    fresh = random_bytes(_IV_END)
    salt, iv = fresh[:_SALT_LENGTH_BYTES], fresh[_SALT_LENGTH_BYTES:]
    sealed = seal_gcm(_derive(branch_key, salt), iv, plaintext_key, _aad(branch_key, context_bytes))
    return fresh + branch_key.version_bytes + sealed


def unwrap_under_branch_key(branch_key: BranchKey, ciphertext: bytes, context_bytes: bytes) -> bytes:
    """The plaintext key; AuthenticationError if version, id, context or bytes are not those sealed."""
    return open_gcm(
        _derive(branch_key, ciphertext[:_SALT_LENGTH_BYTES]),
        ciphertext[_SALT_LENGTH_BYTES:_IV_END],
        ciphertext[_VERSION_END:],
        _aad(branch_key, context_bytes),
        reason="encrypted data key",
    )


def _derive(branch_key: BranchKey, salt: bytes) -> bytes:
    return kdf_counter_mode_sha256(branch_key.key_bytes, _LABEL, salt, BRANCH_KEY_LENGTH_BYTES)


def _aad(branch_key: BranchKey, context_bytes: bytes) -> bytes:
    return _LABEL + branch_key.branch_key_id.encode() + branch_key.version_bytes + context_bytes


def _version_in(ciphertext: bytes, suite: AlgorithmSuite) -> str:
    """The branch key version named by an encrypted data key; AuthenticationError for a wrong length."""
    intermediate = suite.data_key_length_bytes + TAG_LENGTH_BYTES if suite.has_symmetric_signature else 0
    wrapped = ciphertext[intermediate:]
    if len(wrapped) != _OVERHEAD_LENGTH_BYTES + suite.data_key_length_bytes:
        raise AuthenticationError("encrypted data key length")
    # The text form of a UUID; the class would take four times as long.
    digits = wrapped[_IV_END:_VERSION_END].hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class HierarchicalKeyring(SteppedKeyring):
    """Wraps data keys under branch keys from a store; several tenants by a supplier.

    Args:
        store: where branch keys come from, usually a ``BranchKeyStore``.
        branch_key_id: one id, or a callable that takes the context (a read-only mapping) and
            returns an id. It runs outside every lock and flight.
        ttl_seconds: how long a fetched branch key is used, at most 86,400. Revoking access in KMS
            takes effect within this time, or at once after :meth:`clear_cache`. Another process
            goes on writing with the former version for this time after a rotation.
        max_entries: how many branch keys are kept, about 1 KB each: one per tenant that writes, and one per
            version that is read. What goes first, see :mod:`phicrypt.keys.eviction`.

    Safe to share among threads; after a fork the child starts with an empty cache.
    Raises ConfigurationError for arguments out of range.
    """

    def __init__(
        self,
        store: BranchKeySource,
        branch_key_id: str | BranchKeySupplier,
        *,
        ttl_seconds: float = 600,
        max_entries: int = 1_000,
    ) -> None:
        if not 0 < ttl_seconds <= _MAX_TTL_SECONDS:
            raise ConfigurationError(f"ttl_seconds is above 0 and at most {_MAX_TTL_SECONDS}, {ttl_seconds} came")
        self.store = store
        self._supplier: BranchKeySupplier | None = None
        self.branch_key_id: str | None = None
        if callable(branch_key_id):
            self._supplier = branch_key_id
        else:
            self.branch_key_id = check_branch_key_id(branch_key_id)
        self._identity = ("hierarchical", store.identity, self.branch_key_id or object())
        # A branch key may derive 2**96 wrapping keys (appendix B): only age and room bound its use.
        policy = CachePolicy(
            max_age_seconds=ttl_seconds, max_messages=2**32, max_bytes=2**63 - 1, max_entries=max_entries
        )
        self.cache: KeyCache[BranchKey] = KeyCache(policy)
        store.on_purge(self._forget)

    def __repr__(self) -> str:
        which = "a supplier" if self.branch_key_id is None else repr(self.branch_key_id)
        return f"<HierarchicalKeyring {which}>"

    @property
    def kms_clients(self) -> KmsClients | None:
        """The AWS side of the branch key store, where it has one."""
        clients: KmsClients | None = getattr(self.store, "kms_clients", None)
        return clients

    @property
    def breakers(self) -> tuple[Breakers, ...]:
        """Those of the store's table and of KMS, where the store has some."""
        found: tuple[Breakers, ...] = getattr(self.store, "breakers", ())
        return found

    @property
    def caches_data_keys(self) -> bool:
        return False

    @property
    def binds_context_locally(self) -> bool:
        """True: KMS is shown the branch key's own context only."""
        return True

    def clear_cache(self) -> None:
        """Forget every branch key now; the next use asks the store and KMS again."""
        self.cache.clear()

    def _forget(self, branch_key_id: str) -> None:
        """Called by the store after a rotation or a shred in this process."""
        self.cache.purge(branch_key_id)

    @shell_of("encrypt_steps")
    def on_encrypt(self, materials: EncryptionMaterials) -> EncryptionMaterials:
        branch_key_id = self._id_for_encryption(materials.context)
        known = self._at_hand(branch_key_id, None)
        if known is not None:  # no generator while the branch key is at hand
            return _wrapped(materials, known, was_cached=True)
        return run(self._encrypt(materials, branch_key_id))

    def encrypt_steps(self, materials: EncryptionMaterials) -> Steps[EncryptionMaterials]:
        return self._encrypt(materials, self._id_for_encryption(materials.context))

    def _encrypt(self, materials: EncryptionMaterials, branch_key_id: str) -> Steps[EncryptionMaterials]:
        branch_key, was_cached = yield from self._branch_key(branch_key_id, None)
        return _wrapped(materials, branch_key, was_cached=was_cached)

    @shell_of("decrypt_steps")
    def on_decrypt(
        self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
    ) -> DecryptionMaterials:
        branch_key_id, mine = self._mine(materials, encrypted_data_keys)
        if len(mine) == 1:
            ((index, data_key),) = mine
            version = _version_in(data_key.ciphertext, materials.suite)
            known = self._at_hand(branch_key_id, version)
            if known is not None and known.is_proven:
                return _unwrapped(materials, index, data_key, known, was_cached=True)
        return run(self._decrypt(materials, branch_key_id, mine))

    def decrypt_steps(
        self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
    ) -> Steps[DecryptionMaterials]:
        return self._decrypt(materials, *self._mine(materials, encrypted_data_keys))

    def _mine(
        self, materials: DecryptionMaterials, encrypted_data_keys: Sequence[EncryptedDataKey]
    ) -> tuple[str, list[tuple[int, EncryptedDataKey]]]:
        """The branch key id, and what is encrypted under it; KeyAccessError if nothing is."""
        mine = [one for one in enumerate(encrypted_data_keys) if one[1].provider_id == HIERARCHY_PROVIDER_ID]
        if mine:
            branch_key_id = self._id_for_decryption(materials)
            provider_info = branch_key_id.encode()
            mine = [one for one in mine if one[1].provider_info == provider_info]
        if not mine:
            raise _nothing_matches(len(encrypted_data_keys))
        return branch_key_id, mine

    def _decrypt(
        self, materials: DecryptionMaterials, branch_key_id: str, mine: Sequence[tuple[int, EncryptedDataKey]]
    ) -> Steps[DecryptionMaterials]:
        failures: list[AuthenticationError | KeyAccessError] = []
        for index, data_key in mine:
            try:
                version = _version_in(data_key.ciphertext, materials.suite)
                branch_key, was_cached = yield from self._branch_key(branch_key_id, version)
                try:
                    opened = _unwrapped(materials, index, data_key, branch_key, was_cached=was_cached)
                except AuthenticationError:
                    if branch_key.is_proven:
                        raise
                    again = yield from self._opened_again(branch_key)
                    opened = _unwrapped(materials, index, data_key, again, was_cached=False)
                    opened.origin = joined_origin(again.origin, *(() if was_cached else (branch_key.origin,)))
                    branch_key = again
                branch_key.is_proven = True
                return opened
            except (AuthenticationError, KeyAccessError) as error:
                failures.append(error)
        # A refusal says more than a tag that does not verify: the refused key may be the right one.
        raise next((error for error in failures if isinstance(error, KeyAccessError)), failures[0])

    def _at_hand(self, branch_key_id: str, version: str | None) -> BranchKey | None:
        """The kept key, unless it changed in memory: then it is forgotten, and opened anew."""
        cache_key = self._cache_key(branch_key_id, version)
        known = self.cache.find(cache_key)
        if known is None or known.is_intact():
            return known
        self.cache.forget(cache_key)
        return None

    def _opened_again(self, branch_key: BranchKey) -> Steps[BranchKey]:
        """A version that has opened nothing so far, opened once more: one changed answer may have given it.

        Two openings that agree prove it, so that nobody can have a key fetched for each forged message.
        """
        self.cache.forget(self._cache_key(branch_key.branch_key_id, branch_key.version))
        again, _ = yield from self._branch_key(branch_key.branch_key_id, branch_key.version)
        again.is_proven = compare_digest(again.key_bytes, branch_key.key_bytes)
        return again

    def _branch_key(self, branch_key_id: str, version: str | None) -> Steps[tuple[BranchKey, bool]]:
        """The active version (None) or the one asked for, and whether it came from the cache."""
        if version is None:
            load = partial(self._agreed, branch_key_id)
        else:
            load = partial(fetch_steps, self.store, branch_key_id, version)
        cache_key = self._cache_key(branch_key_id, version)
        found, was_cached = yield from self.cache.load_steps(cache_key, load, tag_of=_id_of)
        if was_cached and not found.is_intact():
            self.cache.forget(cache_key)
            found, was_cached = yield from self.cache.load_steps(cache_key, load, tag_of=_id_of)
        return found, was_cached

    def _agreed(self, branch_key_id: str) -> Steps[BranchKey]:
        """The active version after a second, independent opening of it agreed (rule 28).

        One changed bit in one answer would otherwise seal everything of a time to live under a key that
        nobody has. The second opening is of the version's own row, and serves the decryptions that follow.
        """
        calls: list[KeyOrigin] = []
        try:
            active, version = yield from self._opened_twice(branch_key_id, calls)
            if not compare_digest(active.key_bytes, version.key_bytes):
                self.cache.forget(self._cache_key(branch_key_id, active.version))
                active = yield from self._opened(branch_key_id, None, calls)
                version = yield from self._opened(branch_key_id, active.version, calls)
                if not compare_digest(active.key_bytes, version.key_bytes):
                    raise versions_disagree(active)
            version.is_proven = True
        except KeyAccessError as refusal:
            made = (one for call in calls for one in (call, *call.other_calls))
            refusal.earlier_calls = (*made, *refusal.earlier_calls)
            raise
        # A key of our own: the source's may be one that it gives each time, and would collect the calls.
        agreed = BranchKey(
            branch_key_id,
            active.version,
            active.key_bytes,
            create_time=active.create_time,
            context=active.context,
        )
        calls.remove(active.origin)
        agreed.origin = joined_origin(active.origin, *calls)
        return agreed

    def _opened_twice(self, branch_key_id: str, calls: list[KeyOrigin]) -> Steps[tuple[BranchKey, BranchKey]]:
        """The ACTIVE key and its version, the latter from the cache where it was opened before."""
        active = yield from self._opened(branch_key_id, None, calls)
        fetch = partial(self._branch_key, branch_key_id, active.version)
        version, was_cached = yield from once_replicated(fetch)
        if not was_cached:
            calls.append(version.origin)
        return active, version

    def _opened(self, branch_key_id: str, version: str | None, calls: list[KeyOrigin]) -> Steps[BranchKey]:
        """One opening. Its call is noted, whether its answer is believed or not: CloudTrail shows it (rule 22)."""
        branch_key = yield from fetch_steps(self.store, branch_key_id, version)
        calls.append(branch_key.origin)
        return branch_key

    def _cache_key(self, branch_key_id: str, version: str | None) -> Hashable:
        # The active key and its version are two entries: a key learned by decrypting never encrypts (rule 11).
        return ("branch", self.store.identity, branch_key_id, version)

    def _id_for_encryption(self, context: Mapping[str, str]) -> str:
        if self._supplier is None:
            assert self.branch_key_id is not None
            return self.branch_key_id
        # The signature's key is drawn afresh for each message: a supplier must answer alike for both ways.
        shown = {name: value for name, value in context.items() if name != PUBLIC_KEY_NAME}
        return check_branch_key_id(self._supplier(MappingProxyType(shown)))

    def _id_for_decryption(self, materials: DecryptionMaterials) -> str:
        if self._supplier is None or materials.expected_names is None:
            return self._id_for_encryption(materials.context)
        shown = {name: value for name, value in materials.context.items() if name in materials.expected_names}
        try:
            return self._id_for_encryption(shown)
        except KeyError as error:
            missing = error.args[0] if error.args else None
            if not isinstance(missing, str) or missing in shown or missing not in materials.context:
                raise
        raise ConfigurationError(
            f"the branch key supplier needs the pair {missing!r}, and is shown only the pairs that "
            "decrypt's context= expects: pass it there"
        )


def _wrapped(materials: EncryptionMaterials, branch_key: BranchKey, *, was_cached: bool) -> EncryptionMaterials:
    def wrap(plaintext_key: bytes) -> bytes:
        return wrap_under_branch_key(branch_key, plaintext_key, materials.context_bytes)

    wrapped = wrap_data_key(materials, wrap)
    return materials.with_recipient(
        EncryptedDataKey(HIERARCHY_PROVIDER_ID, branch_key.branch_key_id.encode(), wrapped.ciphertext),
        data_key=wrapped.generated_data_key,
        symmetric_signing_key=wrapped.symmetric_signing_key,
        origin=joined_origin(materials.origin, branch_key.origin),
        key_was_cached=was_cached and wrapped.generated_data_key is not None,
    )


def _unwrapped(
    materials: DecryptionMaterials,
    index: int,
    data_key: EncryptedDataKey,
    branch_key: BranchKey,
    *,
    was_cached: bool,
) -> DecryptionMaterials:
    def unwrap(ciphertext: bytes) -> bytes:
        return unwrap_under_branch_key(branch_key, ciphertext, materials.context_bytes)

    unwrapped = unwrap_data_key(materials, data_key.ciphertext, unwrap)
    return materials.with_data_key(
        unwrapped.data_key,
        recipient_index=index,
        origin=branch_key.origin,
        symmetric_signing_key=unwrapped.symmetric_signing_key,
        key_was_cached=was_cached,
    )


def _id_of(branch_key: BranchKey) -> str:
    return branch_key.branch_key_id


def _nothing_matches(count: int) -> KeyAccessError:
    return KeyAccessError(
        f"none of the {count} encrypted data keys names the branch key of this keyring "
        "(another tenant's message, or another keyring's)",
        operation="Decrypt",
        code="NoMatchingDataKey",
    )
