"""The verbs against s3rver, another S3 server than moto; and the memory of large transfers.

s3rver streams objects from the disk. It has no UploadPartCopy, versioning or IfNoneMatch, and like
moto it refuses no wrong checksum: green tests here prove nothing about checksums.
``PHICRYPT_LARGE_MIB`` sets the length of the large object (2048 for acceptance).
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from interop.s3rver import S3rverUnavailableError, s3rver, s3rver_client
from support import s3_memory

from phicrypt.errors import AuthenticationError, ContextMismatchError, FormatError
from phicrypt.s3.client import S3Client

PART = 5 * 1024**2
LARGE_MIB = int(os.environ.get("PHICRYPT_LARGE_MIB", "256"))
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def endpoint_url() -> Iterator[str]:
    try:
        with s3rver() as url:
            yield url
    except S3rverUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def server(endpoint_url: str) -> Any:
    return s3rver_client(endpoint_url)


@pytest.fixture
def place(server: Any) -> str:
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    server.create_bucket(Bucket=name)
    return name


@pytest.mark.parametrize("settings", [{}, {"signed": True}], ids=["unsigned", "signed"])
@pytest.mark.parametrize("length", [0, 1, 128 * 1024, 2 * PART, 2 * PART + 3])
def test_objects_transfers_and_parts(
    client_of: Callable[..., S3Client], server: Any, place: str, length: int, settings: dict[str, Any]
) -> None:
    s3 = client_of(raw=server, part_size_bytes=PART, **settings)
    data = random.Random(length).randbytes(length)
    s3.put_object(Bucket=place, Key="put", Body=data, Metadata={"modality": "ct"}, ContentType="application/dicom")
    s3.upload_fileobj(io.BytesIO(data), place, "transfer")
    for name in ("put", "transfer"):
        sink = io.BytesIO()
        s3.download_fileobj(place, name, sink)
        assert sink.getvalue() == data
        assert s3.get_object(Bucket=place, Key=name)["Body"].read() == data
    head = s3.head_object(Bucket=place, Key="put")
    assert (head["ContentLength"], head["Metadata"]) == (length, {"modality": "ct"})
    if length > PART:
        upload = {"Bucket": place, "Key": "parts"}
        upload["UploadId"] = s3.create_multipart_upload(**upload)["UploadId"]
        pieces = [data[start : start + PART] for start in range(0, length, PART)]
        parts = [
            {"PartNumber": number, "ETag": s3.upload_part(**upload, PartNumber=number, Body=piece)["ETag"]}
            for number, piece in enumerate(pieces, start=1)
        ]
        s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        assert s3.get_object(Bucket=place, Key="parts")["Body"].read() == data


def test_ranges_files_copies_and_refusals(client_of: Callable[..., S3Client], server: Any, place: str) -> None:
    s3 = client_of(raw=server, part_size_bytes=PART)
    data = random.Random(9).randbytes(1_000_000)
    s3.put_object(Bucket=place, Key="k", Body=data)
    for header, span in (
        ("bytes=5-10", slice(5, 11)),
        ("bytes=-7", slice(-7, None)),
        ("bytes=999990-", slice(999_990, None)),
    ):
        response = s3.get_object(Bucket=place, Key="k", Range=header)
        assert response["Body"].read() == data[span]
        assert response["ContentRange"].endswith("/1000000")
    with pytest.raises(s3.exceptions.ClientError, match="InvalidRange"):
        s3.get_object(Bucket=place, Key="k", Range="bytes=1000000-")
    with s3.open(f"s3://{place}/k") as file:
        file.seek(500_000)
        assert file.read(10) == data[500_000:500_010]
    s3.copy_object(Bucket=place, Key="copy", CopySource={"Bucket": place, "Key": "k"})
    assert s3.get_object(Bucket=place, Key="copy")["Body"].read() == data
    server.copy_object(Bucket=place, Key="blind", CopySource={"Bucket": place, "Key": "k"})
    with pytest.raises(ContextMismatchError):
        s3.get_object(Bucket=place, Key="blind")
    stored = server.get_object(Bucket=place, Key="k")
    server.put_object(Bucket=place, Key="k", Body=stored["Body"].read()[:-300], Metadata=stored["Metadata"])
    for extra in ({}, {"Range": "bytes=0-1"}, {"Range": "bytes=-1"}):
        with pytest.raises((AuthenticationError, FormatError)):
            s3.get_object(Bucket=place, Key="k", **extra)["Body"].read()


def test_large_transfers_stay_within_160_mib(endpoint_url: str, place: str) -> None:
    """Peak memory above the idle process, at default settings; boto3's own is printed beside it."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    peaks: dict[str, float] = {}
    for kind in ("boto3", "phicrypt"):
        for action in ("upload", "download"):
            command = [sys.executable, s3_memory.__file__, endpoint_url, place, str(LARGE_MIB), kind, action]
            answer = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            peaks[f"{kind} {action}"] = float(answer.stdout)
    print(f"peak MiB above idle at {LARGE_MIB} MiB: {peaks}")
    assert peaks["phicrypt upload"] < 160
    assert peaks["phicrypt download"] < 160
