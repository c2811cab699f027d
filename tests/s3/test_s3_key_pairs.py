"""S3 objects for recipients with key pairs: whoever holds a private key reads them, in the ESDK format only."""

from __future__ import annotations

import os
from typing import Any

import pytest
from support.recipient_keys import ec_pair, private_pem, public_pem, rsa_pair

from phicrypt import KmsKeyring, MultiKeyring, PhiCrypt, RawEcdhKeyring, RawRsaKeyring
from phicrypt.errors import ConfigurationError, KeyAccessError


@pytest.fixture(scope="module")
def theirs() -> Any:
    return ec_pair("p384")


@pytest.fixture
def written(aws: Any, raw: Any, bucket: str, theirs: Any) -> bytes:
    """An object for our KMS key, a recovery key and another organization."""
    recovery = RawRsaKeyring("clinic", "recovery", public_key=public_pem(rsa_pair()))
    laboratory = RawEcdhKeyring.ephemeral(recipient_public_key=public_pem(theirs))
    daily = KmsKeyring(aws.kms_key_arn, client=aws.client("kms"))
    body = os.urandom(300_000)
    PhiCrypt(MultiKeyring(daily, recovery, laboratory)).s3(raw).put_object(Bucket=bucket, Key="scan", Body=body)
    return body


def test_each_recipient_reads_the_object_and_ranges(raw: Any, bucket: str, theirs: Any, written: bytes) -> None:
    for keyring in (
        RawRsaKeyring("clinic", "recovery", private_key=rsa_pair()),
        RawEcdhKeyring.discovery(private_key=private_pem(theirs)),
    ):
        client = PhiCrypt(keyring).s3(raw)
        assert client.get_object(Bucket=bucket, Key="scan")["Body"].read() == written
        part = client.get_object(Bucket=bucket, Key="scan", Range="bytes=200000-200099")["Body"].read()
        assert part == written[200_000:200_100]


def test_a_stranger_reads_nothing(raw: Any, bucket: str, written: bytes) -> None:
    stranger = PhiCrypt(RawEcdhKeyring.discovery(private_key=private_pem(ec_pair("p384"))))
    with pytest.raises(KeyAccessError):
        stranger.s3(raw).get_object(Bucket=bucket, Key="scan")


def test_objects_of_the_s3_encryption_client_are_for_kms_keys(raw: Any, bucket: str) -> None:
    phi = PhiCrypt(RawRsaKeyring("clinic", "recovery", public_key=public_pem(rsa_pair())))
    with pytest.raises(ConfigurationError, match="not RawRsaKeyring"):
        phi.s3(raw, format="s3ec", read_formats=("s3ec-v3",)).put_object(Bucket=bucket, Key="scan", Body=b"x")
