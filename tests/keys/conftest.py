"""A strict KMS per test."""

from collections.abc import Iterator

import pytest

from phicrypt.testing import StrictKms


@pytest.fixture
def kms() -> Iterator[StrictKms]:
    with StrictKms() as running:
        yield running
