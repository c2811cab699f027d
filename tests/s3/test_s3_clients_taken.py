"""Which clients ``phi.s3`` works over (rules 33 and 41): boto3's own, or a marked double."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any
from unittest import mock

import boto3
import pytest
from support.messages import raw_client

from phicrypt.errors import ConfigurationError
from phicrypt.testing import mark_as_double


class Wrapper:
    """Delegates whatever it is asked."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class Proxy(Wrapper):
    """And says that it is what it stands around, as ``wrapt.ObjectProxy`` does."""

    @property
    def __class__(self) -> Any:
        return type(self._client)


class AsynchronousSession:
    """Shaped like aioboto3's: what ``client()`` gives is no client yet."""

    def client(self, *_positional: Any, **_parameters: Any) -> Any:
        raise AssertionError("nobody enters this")


def asynchronous(client: Any) -> Any:
    class AioBaseClient(type(client)):  # type: ignore[misc]
        async def _make_api_call(self, operation_name: str, api_params: Any) -> Any: ...

    AioBaseClient.__module__ = "aiobotocore.client"
    other = object.__new__(AioBaseClient)
    other.__dict__.update(client.__dict__)
    return other


def boto3_client(service: Any = "s3") -> Any:
    return boto3.client(service, "us-east-1", aws_access_key_id="a", aws_secret_access_key="b")


FOREIGN: dict[str, tuple[Callable[[Any], Any], str]] = {
    "asynchronous client": (asynchronous, "synchronous boto3 client.*AioBaseClient came"),
    "asynchronous session": (lambda client: AsynchronousSession(), "AsynchronousSession came"),
    "wrapper": (Wrapper, "Wrapper came"),
    "proxy": (Proxy, "Proxy came"),
    "mock": (lambda client: mock.Mock(), "Mock came"),
    "mock with spec": (lambda client: mock.Mock(spec=client), "Mock came"),
    "another service's": (lambda client: boto3_client("dynamodb"), "of s3, and one of dynamodb came"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_rule_41_a_client_that_is_not_boto3s_is_refused_before_anything_is_sent(kind: str) -> None:
    make, says = FOREIGN[kind]
    with pytest.raises(ConfigurationError, match=says):
        raw_client().s3(make(boto3_client()))


def test_a_client_and_a_session_of_boto3_are_taken() -> None:
    assert raw_client().s3(boto3_client()).open
    assert raw_client().s3(boto3.Session(region_name="us-east-1")).open


def test_a_marked_double_is_taken(raw: Any, bucket: str) -> None:
    s3 = raw_client().s3(mark_as_double(Proxy(raw)))
    s3.upload_fileobj(io.BytesIO(b"record"), bucket, "k")
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"record"


def test_without_a_client_boto3s_default_session_makes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    assert raw_client().s3().meta.region_name == "eu-central-1"
