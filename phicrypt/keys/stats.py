"""What keys, endpoints and threads of one client did: ``phi.stats()``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from phicrypt.core.breaker import Breakers, EndpointStats
from phicrypt.core.key_threads import KEY_THREADS, ThreadStats
from phicrypt.core.materials import Keyring
from phicrypt.keys.cache import CacheStats, KeyCache
from phicrypt.keys.provider import MaterialsProvider


@dataclass(frozen=True, slots=True)
class KeyStats:
    """A snapshot; counts begin with the process, or the fork.

    Attributes:
        data_keys: the cache of data keys, as of ``phi.cache.stats()``.
        branch_keys: the cache of each ``HierarchicalKeyring``.
        endpoints: of each endpoint that was asked, whether it answers; see
            :class:`~phicrypt.core.breaker.EndpointStats`.
        threads: the threads in which all clients of this process fetch keys.
    """

    data_keys: CacheStats
    branch_keys: tuple[CacheStats, ...]
    endpoints: tuple[EndpointStats, ...]
    threads: ThreadStats


def key_stats(provider: MaterialsProvider) -> KeyStats:
    """Those of a provider and all that stands behind its keyring."""
    keyrings = tuple(_each(provider.keyring))
    caches = (getattr(keyring, "cache", None) for keyring in keyrings)
    # By object: what keyrings lend each other is one.
    breakers = {id(one): one for keyring in keyrings for one in _breakers(keyring)}
    return KeyStats(
        provider.cache.stats(),
        tuple(cache.stats() for cache in caches if isinstance(cache, KeyCache)),
        tuple(stats for one in breakers.values() for stats in one.stats()),
        KEY_THREADS.stats(),
    )


def _each(keyring: Keyring) -> Iterator[Keyring]:
    """The keyring, and the ones that it joins."""
    yield keyring
    for child in getattr(keyring, "keyrings", ()):
        yield from _each(child)


def _breakers(keyring: Keyring) -> Iterator[Breakers]:
    own = getattr(keyring, "breakers", None)
    if own is not None:
        yield from own
        return
    clients = getattr(keyring, "kms_clients", None)
    if clients is not None:
        yield clients.breakers
