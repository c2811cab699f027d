"""No cliff where tenants come round in turn, and no worse than least recent use where some are asked for more."""

from __future__ import annotations

import bisect
import itertools
import logging
import random
from collections import OrderedDict
from collections.abc import Iterable

import pytest
from support.interrupts import Interrupted, interrupted_everywhere

from phicrypt.keys import eviction
from phicrypt.keys.cache import CachePolicy, KeyCache

BOUND = 1_000


def fetches(tenants: Iterable[int], bound: int = BOUND) -> int:
    cache: KeyCache[int] = KeyCache(CachePolicy(max_entries=bound, max_messages=2**32))
    return sum(not cache.get_or_load(tenant, lambda tenant=tenant: tenant)[1] for tenant in tenants)


def fetches_by_least_recent_use(tenants: Iterable[int]) -> int:
    held: OrderedDict[int, None] = OrderedDict()
    count = 0
    for tenant in tenants:
        count += tenant not in held
        held[tenant] = None
        held.move_to_end(tenant)
        if len(held) > BOUND:
            held.popitem(last=False)
    return count


def in_turn(tenants: int, uses: int, rounds: int) -> list[int]:
    return [tenant for _ in range(rounds) for tenant in range(tenants) for _ in range(uses)]


@pytest.mark.parametrize("uses", [1, 3, 10])
@pytest.mark.parametrize(("share", "bar"), [(1.05, 200), (1.1, 250), (1.5, 600)])
def test_tenants_in_turn_cost_few_fetches(share, bar, uses):
    tenants = int(BOUND * share)
    settled = fetches(in_turn(tenants, uses, 8)) - fetches(in_turn(tenants, uses, 4))
    assert settled / (4 * tenants) * 1_000 <= bar


@pytest.mark.parametrize("tenants", [2_000, 10_000])
@pytest.mark.parametrize("skew", [0.8, 1.0, 1.2])
def test_skewed_use_costs_no_more_than_by_least_recent_use(tenants, skew):
    weights = list(itertools.accumulate(1 / (rank + 1) ** skew for rank in range(tenants)))
    drawn = random.Random(7)
    asked = [bisect.bisect(weights, drawn.random() * weights[-1]) for _ in range(30_000)]
    assert fetches(asked) <= fetches_by_least_recent_use(asked)


@pytest.mark.parametrize("bound", [1, 2, 3, 19, 50, 51, 100])
def test_the_bound_holds_and_what_was_just_fetched_is_found(bound):
    cache: KeyCache[int] = KeyCache(CachePolicy(max_entries=bound))
    drawn = random.Random(bound)
    for _ in range(3_000):
        tenant = drawn.randrange(bound * 2)
        assert cache.get_or_load(tenant, lambda tenant=tenant: tenant)[0] == tenant
        assert cache.get_or_load(tenant, lambda tenant=tenant: tenant) == (tenant, True)
        assert cache.stats().entries <= bound


def test_a_dropped_or_purged_entry_makes_room():
    cache: KeyCache[int] = KeyCache(CachePolicy(max_entries=3))
    for tenant in range(3):
        cache.get_or_load(tenant, lambda tenant=tenant: tenant, tag_of=str)
    cache.purge("1")
    cache.get_or_load(3, lambda: 3)
    assert [cache.find(tenant) for tenant in range(4)] == [0, None, 2, 3]


def test_a_cache_that_drops_more_than_it_finds_says_so_once(caplog):
    cache: KeyCache[int] = KeyCache(CachePolicy(max_entries=10))
    with caplog.at_level(logging.WARNING, "phicrypt.keys"):
        for tenant in range(200):
            cache.get_or_load(tenant, lambda tenant=tenant: tenant)
    assert cache.stats().is_too_small
    assert [record.getMessage() for record in caplog.records] == [
        "a cache of keys drops more of them for want of room than it finds: raise max_entries above 10"
    ]


def test_a_cache_with_room_says_nothing(caplog):
    cache: KeyCache[int] = KeyCache(CachePolicy(max_entries=10))
    for tenant in in_turn(10, 1, 100):
        cache.get_or_load(tenant, lambda tenant=tenant: tenant)
    assert not cache.stats().is_too_small
    assert not caplog.records


@pytest.mark.parametrize("bound", [1, 2, 5])
@pytest.mark.parametrize("uses", [1, 3])
def test_an_interrupt_wherever_it_comes_leaves_nothing_that_keeps_others_out(bound, uses):
    def run(interrupted: Interrupted) -> None:
        cache: KeyCache[int] = KeyCache(CachePolicy(max_entries=bound))
        for tenant in in_turn(bound, uses, 2):
            cache.get_or_load(tenant, lambda tenant=tenant: tenant)
        interrupted(lambda: cache.get_or_load(bound, lambda: bound))
        for tenant in in_turn(3 * bound + 1, 2, 2):
            cache.get_or_load(tenant, lambda tenant=tenant: tenant)
            assert cache.find(tenant) == tenant
        assert cache.stats().entries <= bound

    assert interrupted_everywhere(eviction, run) > 5
