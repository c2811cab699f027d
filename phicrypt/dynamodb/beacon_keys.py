"""The keyed hashes of a table's beacons: a beacon key per tenant, opened once for its time, and derived once.

Beacon keys do not rotate: a beacon that is written today is asked for in ten years. Each is one row of the
branch key store; opening it is the store's work (rule 28), and this keeps what was opened for
``max_age_seconds``, in one flight for all callers. A rotation or shred in this process forgets it at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from phicrypt.core.key_origin import HIERARCHY_PROVIDER_ID, KeyOrigin, joined_origin
from phicrypt.core.materials import KeyHolder
from phicrypt.core.steps import run, steps_of
from phicrypt.dynamodb.item_beacons import beacons_of, chosen_partition
from phicrypt.dynamodb.search import BeaconKeyByAttribute, SearchConfig, SingleBeaconKey
from phicrypt.errors import ConfigurationError
from phicrypt.formats.dbesdk.beacon_values import BeaconHash, beacon_hash
from phicrypt.keys.branch_keys.keyring import HierarchicalKeyring
from phicrypt.keys.branch_keys.values import BeaconKey, BranchKeySource
from phicrypt.keys.cache import CachePolicy, KeyCache
from phicrypt.keys.kms.clients import SameObject

if TYPE_CHECKING:
    from phicrypt.audit.uses import Use
    from phicrypt.core.materials import EncryptedDataKey
    from phicrypt.dynamodb.config import TableConfig
    from phicrypt.dynamodb.search_plans import SearchPlan
    from phicrypt.session import Session

_MAX_ENTRIES: Final = 1_000


class BeaconKeys(KeyHolder):
    """The beacon keys of one store, for the time that a search configuration says."""

    def __init__(self, store: BranchKeySource, max_age_seconds: float) -> None:
        self._store = store
        # A beacon key hashes any number of values: only age and room bound its use.
        policy = CachePolicy(
            max_age_seconds=max_age_seconds,
            max_messages=2**32,
            max_bytes=2**63 - 1,
            max_entries=_MAX_ENTRIES,
        )
        self.cache: KeyCache[DerivedHashes] = KeyCache(policy)
        store.on_purge(self._forget)

    def __repr__(self) -> str:
        return "<BeaconKeys>"

    def clear(self) -> None:
        """Forget every beacon key."""
        self.cache.clear()

    def hashes(self, branch_key_id: str) -> tuple[DerivedHashes, bool]:
        """The hashes under a branch key's beacon key, and whether it was at hand. Raises KeyAccessError."""
        place = ("beacon", self._store.identity, branch_key_id)
        found, was_cached = self._found(place, branch_key_id)
        if was_cached and not found.beacon_key.is_intact():  # memory may fail while a key is kept (rule 28)
            self.cache.forget(place)
            found, was_cached = self._found(place, branch_key_id)
        return found, was_cached

    def _found(self, place: Hashable, branch_key_id: str) -> tuple[DerivedHashes, bool]:
        return self.cache.get_or_load(
            place, partial(self._opened, branch_key_id), tag_of=lambda derived: derived.branch_key_id
        )

    def _opened(self, branch_key_id: str) -> DerivedHashes:
        return DerivedHashes(run(steps_of(self._store, "fetch_beacon_key", branch_key_id)))

    def _forget(self, branch_key_id: str) -> None:
        self.cache.purge(branch_key_id)


class DerivedHashes(KeyHolder, Mapping[str, BeaconHash]):
    """The hash of each beacon under one beacon key, derived when it is first asked for."""

    def __init__(self, beacon_key: BeaconKey) -> None:
        self.beacon_key = beacon_key
        self.branch_key_id = beacon_key.branch_key_id
        self.origin: KeyOrigin = beacon_key.origin
        self._hashes: dict[str, BeaconHash] = {}

    def __repr__(self) -> str:
        return f"<DerivedHashes of {self.branch_key_id!r}>"

    def __getitem__(self, name: str) -> BeaconHash:
        found = self._hashes.get(name)
        if found is None:
            found = self._hashes[name] = beacon_hash(self.beacon_key.key_bytes, name)
        return found

    def __iter__(self) -> Any:
        return iter(self._hashes)

    def __len__(self) -> int:
        return len(self._hashes)


def beacon_keys_of(phi_session: Session, search: SearchConfig) -> BeaconKeys:
    """Where a table's beacon keys come from. Raises ConfigurationError without a branch key store.

    They belong to the client's keys: what ``cache.clear()`` forgets goes with them.
    """
    source = search.beacon_key
    store = source.store if source is not None else None
    keyring = phi_session.provider.keyring
    if store is None:
        if not isinstance(keyring, HierarchicalKeyring):
            raise ConfigurationError(
                "beacons need a beacon key, which a branch key store holds: give PhiCrypt a HierarchicalKeyring, "
                "or SearchConfig a beacon_key with store="
            )
        store = keyring.store
    max_age_seconds = source.max_age_seconds if source is not None else 600.0
    derived = phi_session.provider.derived
    place = ("beacons", SameObject(store), max_age_seconds)
    known = derived.get(place)
    if known is None:
        known = derived.setdefault(place, BeaconKeys(store, max_age_seconds))
    assert isinstance(known, BeaconKeys)
    return known


def branch_key_id_of(phi_session: Session, search: SearchConfig) -> str | None:
    """The branch key whose beacon key every item has; None where each tenant has its own."""
    source = search.beacon_key
    if isinstance(source, SingleBeaconKey):
        return source.branch_key_id
    if isinstance(source, BeaconKeyByAttribute):
        return None
    keyring = phi_session.provider.keyring
    branch_key_id = keyring.branch_key_id if isinstance(keyring, HierarchicalKeyring) else None
    if branch_key_id is None:
        raise ConfigurationError(
            "which beacon key this table has is not known: the HierarchicalKeyring chooses a branch key for each "
            "item. Give SearchConfig beacon_key=BeaconKeyByAttribute(…), or SingleBeaconKey(…)"
        )
    return branch_key_id


def written_beacons(
    phi_session: Session,
    item: Mapping[str, Any],
    table: TableConfig,
    plan: SearchPlan,
    data_keys: Sequence[EncryptedDataKey],
    use: Use,
) -> dict[str, dict[str, Any]]:
    """The beacons to store with an item that was just sealed; the beacon key's call joins the item's event.

    Raises ConfigurationError, KeyAccessError: then the item is not written.
    """
    branch_key_id = branch_key_id_of(phi_session, plan.config) or _tenant_of(item, plan.config, data_keys)
    hashes, was_cached = beacon_keys_of(phi_session, plan.config).hashes(branch_key_id)
    if not was_cached:
        use.origin = joined_origin(use.origin, hashes.origin)
    partition = chosen_partition(plan, item, table.logical_table_name)
    return beacons_of(plan, item, hashes, partition)


def asked_hashes(
    phi_session: Session,
    table: TableConfig,
    tenant: str | None,
    beacons: tuple[str, ...],
    *,
    operation: str,
) -> DerivedHashes:
    """The hashes for a question; its event names the beacons, never the values (rule 36)."""
    plan = table.search_plan
    assert plan is not None
    branch_key_id = tenant or branch_key_id_of(phi_session, plan.config)
    assert branch_key_id is not None
    with phi_session.recorded(f"{operation}.lookup", format="dbesdk", at_once=True) as use:
        use.detail = {"table": table.logical_table_name, "beacons": ", ".join(beacons)}
        hashes, use.cache_hit = beacon_keys_of(phi_session, plan.config).hashes(branch_key_id)
        use.origin = hashes.origin
    return hashes


def hashes_for_item(phi_session: Session, item: Mapping[str, Any], plan: SearchPlan) -> DerivedHashes:
    """The hashes of a verified item: its tenant stands in a signed attribute."""
    branch_key_id = branch_key_id_of(phi_session, plan.config)
    if branch_key_id is None:
        source = plan.config.beacon_key
        assert isinstance(source, BeaconKeyByAttribute)
        tenant = item.get(source.attribute, {}).get("S")
        if not isinstance(tenant, str):
            raise ConfigurationError(f"the item has no text in {source.attribute!r}, which names its tenant")
        branch_key_id = tenant
    return beacon_keys_of(phi_session, plan.config).hashes(branch_key_id)[0]


def _tenant_of(item: Mapping[str, Any], search: SearchConfig, data_keys: Sequence[EncryptedDataKey]) -> str:
    """The branch key that the item was sealed under, which must be the one that its attribute names."""
    source = search.beacon_key
    assert isinstance(source, BeaconKeyByAttribute)
    if [one.provider_id for one in data_keys] != [HIERARCHY_PROVIDER_ID]:
        raise ConfigurationError(
            "beacons of several tenants need items under one branch key each: a HierarchicalKeyring alone"
        )
    tenant = data_keys[0].provider_info.decode()
    if item.get(source.attribute) != {"S": tenant}:
        raise ConfigurationError(
            f"the item is not written: its attribute {source.attribute!r} does not name the branch key that it "
            "was sealed under, so that nobody could find it"
        )
    return tenant
