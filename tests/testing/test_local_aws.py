"""The embedded local AWS: isolated, recording, and gone afterwards."""

from __future__ import annotations

import socket
import sys
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from phicrypt.errors import ConfigurationError
from phicrypt.testing import local_aws


def test_records_what_kms_received() -> None:
    with local_aws() as aws:
        assert aws.kms_requests == []
        client = aws.client("kms")
        client.generate_data_key(KeyId=aws.kms_key_arn, NumberOfBytes=32, EncryptionContext={"tenant": "t"})
        with pytest.raises(ClientError, match="NotFoundException"):
            aws.client("kms", region_name="eu-west-1").describe_key(KeyId=aws.kms_key_arn)
        first, second = aws.kms_requests
    assert first["operation"] == "GenerateDataKey"
    assert first["parameters"] == {
        "KeyId": aws.kms_key_arn,
        "NumberOfBytes": 32,
        "EncryptionContext": {"tenant": "t"},
    }
    assert (first["region"], second["authorization_region"]) == ("us-east-1", "eu-west-1")
    assert (first["status"], second["status"]) == (200, 400)
    assert "Boto3" in first["user_agent"]
    assert first["request_id"]


def test_records_requests_of_other_services_by_size() -> None:
    with local_aws() as aws:
        s3 = aws.client("s3")
        s3.create_bucket(Bucket="bucket-1")
        s3.put_object(Bucket="bucket-1", Key="folder/name", Body=b"x" * 1000)
        last = aws.requests[-1]
        aws.resource("dynamodb").meta.client.list_tables()
        assert aws.requests[-1]["operation"] == "ListTables"
    assert (last["service"], last["method"], last["path"]) == ("s3", "PUT", "/bucket-1/folder/name")
    assert last["body_bytes"] == 1000


def test_each_stack_starts_empty_and_leaves_nothing_behind() -> None:
    with local_aws() as first:
        first.client("s3").create_bucket(Bucket="bucket-1")
        address = urlsplit(first.endpoint_url)
    with pytest.raises(ConfigurationError, match="not running"):
        _ = first.endpoint_url
    with socket.socket() as probe:
        assert probe.connect_ex((address.hostname, address.port)) != 0
    with local_aws("eu-central-1") as second:
        assert second.client("s3").list_buckets()["Buckets"] == []
        assert second.kms_key_arn != first.kms_key_arn
        assert second.kms_key_arn.startswith("arn:aws:kms:eu-central-1:")


def test_an_inner_stack_does_not_wipe_the_outer_one() -> None:
    with local_aws() as outer:
        with local_aws() as inner:
            assert inner.endpoint_url != outer.endpoint_url
        outer.client("kms").describe_key(KeyId=outer.kms_key_arn)


def test_uses_no_credentials_profile_or_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = {
        "AWS_ACCESS_KEY_ID": "AKIDREAL",
        "AWS_SECRET_ACCESS_KEY": "real",
        "AWS_SESSION_TOKEN": "real-token",
        "AWS_PROFILE": "not-there",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_ENDPOINT_URL_KMS": "http://192.0.2.1",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_DEFAULT_REGION": "ap-south-1",
        "HTTP_PROXY": "http://192.0.2.1:1",
        "http_proxy": "http://192.0.2.1:1",
    }
    for name, value in hostile.items():
        monkeypatch.setenv(name, value)
    with local_aws() as aws:
        aws.client("kms").describe_key(KeyId=aws.kms_key_arn)
        (request,) = aws.kms_requests
        assert request["access_key_id"] != "AKIDREAL"
        assert request["region"] == "us-east-1"
        credentials = aws.session().get_credentials()
        assert credentials.token is None
        aws.client("s3").list_buckets()


def test_says_how_to_install_moto_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing:
        def find_spec(self, name: str, *_: Any) -> None:
            if name.split(".")[0] == "moto":
                raise ImportError(name)

    for name in [name for name in sys.modules if name.split(".")[0] == "moto"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(ConfigurationError, match=r"pip install 'phicrypt\[demo\]'"), local_aws():
        pass


def test_forgets_the_oldest_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phicrypt.testing.local_stack.MAX_RECORDED_REQUESTS", 5)
    with local_aws() as aws:
        client = aws.client("kms")
        for number in range(8):
            client.generate_data_key(KeyId=aws.kms_key_arn, NumberOfBytes=number + 1)
        assert [one["parameters"]["NumberOfBytes"] for one in aws.kms_requests] == [4, 5, 6, 7, 8]
        assert len(aws.requests) == 5


def test_sessions_share_one_set_of_service_models_with_each_folder_once() -> None:
    with local_aws() as aws:
        loaders = [aws.session()._session.get_component("data_loader") for _ in range(3)]
    assert len({id(loader) for loader in loaders}) == 1
    assert len(set(loaders[0].search_paths)) == len(loaders[0].search_paths)
