"""One local AWS for all S3 tests, and a bucket of its own for each."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.messages import WRAPPING_KEY

from phicrypt import KmsKeyring, PhiCrypt, RawAesKeyring
from phicrypt.s3.client import S3Client
from phicrypt.testing import local_aws


@pytest.fixture(scope="module")
def aws() -> Iterator[Any]:
    with local_aws() as stack:
        yield stack


@pytest.fixture(scope="module")
def raw(aws: Any) -> Any:
    """boto3's own client: what an attacker or a neighbour sees and does."""
    return aws.client("s3")


@pytest.fixture
def bucket(raw: Any) -> str:
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    raw.create_bucket(Bucket=name)
    return name


@pytest.fixture
def keyring() -> RawAesKeyring:
    return RawAesKeyring("clinic", "key-1", WRAPPING_KEY)


@pytest.fixture
def phi(keyring: RawAesKeyring) -> PhiCrypt:
    return PhiCrypt(keyring)


@pytest.fixture
def kms_phi(aws: Any) -> PhiCrypt:
    return PhiCrypt(KmsKeyring(aws.kms_key_arn, client=aws.client("kms")))


@pytest.fixture
def s3(phi: PhiCrypt, raw: Any) -> S3Client:
    return phi.s3(raw)


@pytest.fixture
def client_of(phi: PhiCrypt, raw: Any) -> Callable[..., S3Client]:
    """Makes clients with settings: ``client_of(signed=True)``."""

    def make(**settings: Any) -> S3Client:
        return settings.pop("phi", phi).s3(settings.pop("raw", raw), **settings)

    return make
