"""Which clients an encrypted S3 client stands on: boto3's own, and doubles that are marked as such."""

from __future__ import annotations

import io
from typing import Any
from unittest.mock import Mock

import boto3
import pytest
from botocore.client import BaseClient

from phicrypt import PhiCrypt
from phicrypt.errors import ConfigurationError
from phicrypt.testing import mark_as_double


class AsynchronousClient:
    """Shaped like aiobotocore's: the methods are coroutines."""

    def __init__(self, raw: Any) -> None:
        self.meta = raw.meta
        self.exceptions = raw.exceptions

    async def put_object(self, **parameters: Any) -> dict[str, Any]:
        raise AssertionError("nobody awaits this")

    async def get_object(self, **parameters: Any) -> dict[str, Any]:
        raise AssertionError("nobody awaits this")


class AsynchronousSession:
    """Shaped like aioboto3's: ``client()`` gives no client."""

    def client(self, *_positional: Any, **_parameters: Any) -> Any:
        raise AssertionError("nobody enters this")


class Proxy:
    """Delegates everything, its class included, as ``wrapt.ObjectProxy`` does."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    @property
    def __class__(self) -> Any:
        return type(self._wrapped)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


def test_rule_41_an_asynchronous_client_is_refused_before_any_verb(phi: PhiCrypt, raw: Any) -> None:
    """Its ``upload_fileobj`` would return at once, like a success, and nothing would be stored."""
    with pytest.raises(ConfigurationError, match="coroutines"):
        phi.s3(AsynchronousClient(raw))
    with pytest.raises(ConfigurationError, match="AsynchronousSession"):
        phi.s3(AsynchronousSession())


def test_rule_33_proxies_mocks_and_wrappers_are_refused_by_name(phi: PhiCrypt, raw: Any) -> None:
    proxy = Proxy(raw)
    assert isinstance(proxy, BaseClient), "as isinstance sees it, this is a client"
    for wrong in (proxy, Mock(), Mock(spec=raw), Mock(spec=BaseClient)):
        with pytest.raises(ConfigurationError, match=type(wrong).__name__):
            phi.s3(wrong)


def test_a_marked_double_is_taken(phi: PhiCrypt, raw: Any, bucket: str) -> None:
    s3 = phi.s3(mark_as_double(Proxy(raw)))
    s3.upload_fileobj(io.BytesIO(b"record"), bucket, "k")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"record"


def test_a_boto3_session_and_nothing_make_a_client(phi: PhiCrypt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    assert phi.s3(boto3.Session(region_name="eu-west-3")).meta.region_name == "eu-west-3"
    assert phi.s3().meta.region_name == "eu-central-1"


def test_a_client_of_another_service_is_refused(phi: PhiCrypt, aws: Any) -> None:
    with pytest.raises(ConfigurationError, match="kms"):
        phi.s3(aws.client("kms"))
