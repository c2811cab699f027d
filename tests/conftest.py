"""Settings of every test."""

from __future__ import annotations

import functools

import botocore.session
import pytest
from hypothesis import settings

# Reading the services' models is most of what a session costs: all sessions of a process share them.
botocore.session.create_loader = functools.cache(botocore.session.create_loader)

# A slow machine is not a failure: nothing in the tests asserts time.
settings.register_profile("phicrypt", deadline=None)
settings.load_profile("phicrypt")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A case that is named after an address in memory has another name in each process of a parallel run."""
    named = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if named:
        raise pytest.UsageError(f"give these cases names (ids=, or __repr__): {', '.join(named)}")
