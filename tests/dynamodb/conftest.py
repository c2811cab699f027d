"""``server`` runs each test on moto and on DynamoDB Local (dynalite where Java is absent, which has no
transactions). ``clinic`` is a fresh table with an encrypting client, resource and a raw client beside.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from support.dynamodb_support import SECOND_SERVER, Clinic, Server, open_clinic, start_server

from phicrypt import PhiCrypt, RawAesKeyring


@pytest.fixture(scope="module", params=["moto", SECOND_SERVER])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with contextlib.ExitStack() as stack:
        yield start_server(request.param, stack)


@pytest.fixture(scope="module")
def moto() -> Iterator[Server]:
    with contextlib.ExitStack() as stack:
        yield start_server("moto", stack)


@pytest.fixture(scope="session")
def phi() -> PhiCrypt:
    return PhiCrypt(keyring=RawAesKeyring("clinic", "test", bytes(range(32))))


@pytest.fixture
def clinic(server: Server, phi: PhiCrypt) -> Clinic:
    return open_clinic(server, phi)
