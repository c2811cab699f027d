"""Preconditions and ranges against localbucket, a third S3 server, which keeps objects as plain files.

It knows ``If-None-Match: *`` on puts and ranges; it stores neither tags nor versions, and no server
here refuses a wrong checksum.
"""

from __future__ import annotations

import io
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from interop.environments import EnvironmentUnavailableError, python_environment
from interop.s3rver import s3rver_client

from phicrypt.errors import ContextMismatchError
from phicrypt.s3.client import S3Client

PART = 5 * 1024**2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    try:
        environment = python_environment("localbucket", "localbucket==1.2.1")
    except EnvironmentUnavailableError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("localbucket")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(environment / "bin" / "localbucket"), "--port", str(port), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        client = s3rver_client(f"http://127.0.0.1:{port}")
        client.create_bucket(Bucket="place")
        yield client, folder
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_if_none_match_protects_what_is_there(
    client_of: Callable[..., S3Client], server: tuple[Any, Path]
) -> None:
    s3 = client_of(raw=server[0])
    s3.put_object(Bucket="place", Key="once", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError) as failure:
        s3.put_object(Bucket="place", Key="once", Body=b"second", IfNoneMatch="*")
    assert failure.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    assert s3.get_object(Bucket="place", Key="once")["Body"].read() == b"first"


def test_objects_ranges_and_transfers(client_of: Callable[..., S3Client], server: tuple[Any, Path]) -> None:
    raw, folder = server
    s3 = client_of(raw=raw, part_size_bytes=PART)
    data = random.Random(2).randbytes(2 * PART + 11)
    s3.upload_fileobj(io.BytesIO(data), "place", "large")
    sink = io.BytesIO()
    s3.download_fileobj("place", "large", sink)
    assert sink.getvalue() == data
    for header, span in (
        ("bytes=7-9", slice(7, 10)),
        ("bytes=-5", slice(-5, None)),
        ("bytes=10000000-", slice(10_000_000, None)),
    ):
        assert s3.get_object(Bucket="place", Key="large", Range=header)["Body"].read() == data[span]
    assert data[1_000:1_100] not in (folder / "place" / "large").read_bytes()
    (folder / "place" / "renamed").write_bytes((folder / "place" / "large").read_bytes())
    with pytest.raises(ContextMismatchError):
        s3.get_object(Bucket="place", Key="renamed")
