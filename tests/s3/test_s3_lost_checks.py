"""Checks of the S3 verbs that are easily lost without anybody noticing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from support.s3_support import WatchedS3

from phicrypt import KmsKeyring, PhiCrypt
from phicrypt.errors import AuthenticationError, ConfigurationError, FormatError, UnsupportedOperationError
from phicrypt.s3.client import S3Client


def test_the_metadata_of_two_formats_at_once_are_refused(
    kms_phi: PhiCrypt, phi: PhiCrypt, raw: Any, bucket: str
) -> None:
    kms_phi.s3(raw, format="s3ec", read_formats=("s3ec-v3",)).put_object(Bucket=bucket, Key="k", Body=b"x")
    s3ec = raw.head_object(Bucket=bucket, Key="k")["Metadata"]
    esdk = phi.s3(raw)
    esdk.put_object(Bucket=bucket, Key="k", Body=b"x")
    stored = raw.get_object(Bucket=bucket, Key="k")
    raw.put_object(Bucket=bucket, Key="k", Body=stored["Body"].read(), Metadata={**stored["Metadata"], **s3ec})
    for reader in (esdk, kms_phi.s3(raw, read_formats=("esdk", "s3ec-v3"))):
        for read in (reader.get_object, reader.head_object):
            with pytest.raises(FormatError, match="two formats"):
                read(Bucket=bucket, Key="k")


def test_rule_07_an_object_of_a_format_that_is_not_named_is_called_tampered_with(
    kms_phi: PhiCrypt, raw: Any, bucket: str
) -> None:
    kms_phi.s3(raw, format="s3ec", read_formats=("s3ec-v3",)).put_object(Bucket=bucket, Key="k", Body=b"x")
    watched = WatchedS3(raw)
    with pytest.raises(UnsupportedOperationError, match="tampered with"):
        kms_phi.s3(watched).get_object(Bucket=bucket, Key="k")
    assert watched.operations() == ["get_object"]


@pytest.mark.parametrize("concurrency", [0, -1])
def test_a_transfer_needs_a_thread(s3: S3Client, bucket: str, concurrency: int) -> None:
    config = SimpleNamespace(multipart_chunksize=8 * 1024**2, max_concurrency=concurrency, use_threads=True)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    with pytest.raises(ConfigurationError, match="max_concurrency"):
        s3.download_file(bucket, "k", "nowhere", Config=config)
    config.use_threads = False  # then it is not asked
    with pytest.raises(FileNotFoundError):
        s3.download_file(bucket, "k", "/nonexistent/folder/file", Config=config)


class OtherMetadata(WatchedS3):
    """After a copy, HeadObject tells other metadata than was asked for."""

    def __getattr__(self, name: str) -> Any:
        member = super().__getattr__(name)
        if name != "head_object" or "copy_object" not in self.operations():
            return member

        def head(**parameters: Any) -> Any:
            answer = member(**parameters)
            return {**answer, "Metadata": {**answer["Metadata"], "modality": "other"}}

        return head


def test_a_rewrap_that_left_other_metadata_is_an_error(kms_phi: PhiCrypt, aws: Any, raw: Any, bucket: str) -> None:
    to = KmsKeyring(aws.create_kms_key(), client=aws.client("kms"))
    for client, is_right in ((raw, True), (OtherMetadata(raw), False)):
        s3 = kms_phi.s3(client, format="s3ec", read_formats=("s3ec-v3",))
        s3.put_object(Bucket=bucket, Key="k", Body=b"x", Metadata={"modality": "ct"})
        if is_right:
            s3.rewrap(bucket, "k", to=to)
            continue
        with pytest.raises(AuthenticationError) as caught:
            s3.rewrap(bucket, "k", to=to)
        assert caught.value.reason == "metadata after rewrap"
