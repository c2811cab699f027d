"""S3 objects over loopback: put and get, ranged reads, and memory.

moto and s3rver run in processes of their own, as S3 does. 1 KiB to 64 MiB go to moto in memory; 1 GiB
goes to s3rver, which keeps objects in files.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from benchmarks.measure import Bar, Case, Profile, Sampler, UnavailableError, timed
from benchmarks.peers import phi_with_raw_key
from benchmarks.processes import (
    JsonProcess,
    local_aws_process,
    peak_memory_sampler,
    run_worker,
    s3ec_interpreter,
    s3rver,
)
from benchmarks.streams import MIB, scratch_folder, write_random_file

BUCKET: Final = "phi-benchmarks"
SIZES: Final = {"1KiB": 1_024, "1MiB": MIB, "64MiB": 64 * MIB}
PHICRYPT: Final = "phicrypt"
BOTO3: Final = "boto3"
S3EC: Final = "S3 Encryption Client"
_S3EC_WORKER: Final = "benchmarks/s3ec_worker.py"

Offered = Mapping[str, Sampler | UnavailableError]


class CountingSink(io.RawIOBase):
    """Takes bytes and forgets them."""

    def writable(self) -> bool:
        return True

    def write(self, piece: Any, /) -> int:
        return len(piece)


class EndlessSource(io.RawIOBase):
    """A long file that takes no memory; like a file it gives as many bytes as it is asked for."""

    def __init__(self, length: int) -> None:
        self._left = length
        self._piece = os.urandom(MIB)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        target = memoryview(buffer).cast("B")
        count = filled = min(len(target), self._left)
        while filled:
            share = min(filled, MIB)
            target[filled - share : filled] = self._piece[:share]
            filled -= share
        self._left -= count
        return count


def boto3_client(endpoint_url: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="S3RVER",  # s3rver knows no other, moto takes any
        aws_secret_access_key="S3RVER",
        config=Config(proxies={}, s3={"addressing_style": "path"}, max_pool_connections=20),
    )


def client_of(library: str, endpoint_url: str) -> Any:
    raw = boto3_client(endpoint_url)
    return raw if library == BOTO3 else phi_with_raw_key().s3(raw)


@contextlib.contextmanager
def moto() -> Iterator[dict[str, Any]]:
    """moto's endpoint and KMS key, with the bucket."""
    with local_aws_process() as aws:
        boto3_client(aws["endpoint_url"]).create_bucket(Bucket=BUCKET)
        yield aws


@contextlib.contextmanager
def s3ec_process(aws: dict[str, Any]) -> Iterator[JsonProcess]:
    """AWS's S3 Encryption Client in its own environment, measuring itself when asked."""
    with JsonProcess([s3ec_interpreter(), _S3EC_WORKER]) as process:
        process.ask(endpoint_url=aws["endpoint_url"], key_arn=aws["kms_key_arn"], bucket=BUCKET)
        yield process


def object_contenders(direction: str, size: int) -> Any:
    """``put_object`` of bytes, or ``get_object`` and a whole read."""

    @contextlib.contextmanager
    def contenders(profile: Profile) -> Iterator[Offered]:
        payload = os.urandom(size)
        with moto() as aws, contextlib.ExitStack() as stack:
            offered: dict[str, Sampler | UnavailableError] = {}
            for library in (PHICRYPT, BOTO3):
                client = client_of(library, aws["endpoint_url"])
                client.put_object(Bucket=BUCKET, Key=library, Body=payload)
                operation = _put(client, library, payload) if direction == "put" else _get(client, library)
                offered[library] = timed(operation, profile)
            try:
                process = stack.enter_context(s3ec_process(aws))
                process.ask(operation="put", name=S3EC, length=size, calls=1)
                offered[S3EC] = _s3ec_sampler(process, direction, size, profile)
            except UnavailableError as error:
                offered[S3EC] = error
            yield offered

    return contenders


def _put(client: Any, name: str, payload: bytes) -> Callable[[], object]:
    return lambda: client.put_object(Bucket=BUCKET, Key=name, Body=payload)


def _get(client: Any, name: str) -> Callable[[], object]:
    return lambda: client.get_object(Bucket=BUCKET, Key=name)["Body"].read()


def _s3ec_sampler(process: JsonProcess, direction: str, size: int, profile: Profile) -> Sampler:
    def sample(calls: int) -> float:
        return float(process.ask(operation=direction, name=S3EC, length=size, calls=calls)["seconds"])

    calls = max(1, int(profile.sample_seconds / sample(1)))
    return lambda: sample(calls)


def once(function: Callable[[], object]) -> Sampler:
    def sample() -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    return sample


def _large_length(profile: Profile) -> int:
    return int(profile.choose(quick=32, full=1_024)) * MIB


def transfer_contenders(direction: str) -> Any:
    """``upload_fileobj`` and ``download_fileobj`` with boto3's transfer settings, to and from s3rver."""

    @contextlib.contextmanager
    def contenders(profile: Profile) -> Iterator[Offered]:
        length = _large_length(profile)
        with s3rver() as endpoint_url:
            boto3_client(endpoint_url).create_bucket(Bucket=BUCKET)
            offered = {}
            for library in (PHICRYPT, BOTO3):
                client = client_of(library, endpoint_url)
                upload = functools.partial(_upload, client, library, length)
                if direction == "get":
                    upload()
                    offered[library] = once(
                        functools.partial(client.download_fileobj, BUCKET, library, CountingSink())
                    )
                else:
                    offered[library] = once(upload)
            yield offered

    return contenders


def _upload(client: Any, name: str, length: int) -> None:
    client.upload_fileobj(EndlessSource(length), BUCKET, name)


@contextlib.contextmanager
def range_contenders(profile: Profile) -> Iterator[Offered]:
    """4 KiB from the middle of a large object, and all of it."""
    length = _large_length(profile)
    span = f"bytes={length // 2}-{length // 2 + 4_095}"
    with s3rver() as endpoint_url:
        boto3_client(endpoint_url).create_bucket(Bucket=BUCKET)
        offered = {}
        for library in (PHICRYPT, BOTO3):
            client = client_of(library, endpoint_url)
            _upload(client, library, length)
            read = functools.partial(_read_range, client, library, span)
            offered[library] = timed(read, profile)
        own = client_of(PHICRYPT, endpoint_url)
        offered["phicrypt, all of it"] = once(
            functools.partial(own.download_fileobj, BUCKET, PHICRYPT, CountingSink())
        )
        yield offered


def _read_range(client: Any, name: str, span: str) -> bytes:
    data: bytes = client.get_object(Bucket=BUCKET, Key=name, Range=span)["Body"].read()
    if len(data) != 4_096:
        raise ValueError(f"4,096 bytes were asked, {len(data)} came")
    return data


def memory_contenders(direction: str) -> Any:
    @contextlib.contextmanager
    def contenders(profile: Profile) -> Iterator[Offered]:
        length = int(profile.choose(quick=16, full=256)) * MIB
        with moto() as aws, scratch_folder() as folder:
            source = folder / "plain"
            write_random_file(source, length)
            offered: dict[str, Sampler | UnavailableError] = {}
            for library in (PHICRYPT, BOTO3):
                with source.open("rb") as file:
                    client_of(library, aws["endpoint_url"]).upload_fileobj(file, BUCKET, library)
                arguments = (f"{library}-{direction}", aws["endpoint_url"], BUCKET, library, str(source))
                offered[library] = peak_memory_sampler(*arguments)
            try:
                interpreter = s3ec_interpreter()
                settings = {**aws, "bucket": BUCKET, "name": S3EC, "source": str(source)}
                run_worker(_S3EC_WORKER, json.dumps({**settings, "peak": "put"}), interpreter=interpreter)
                offered[S3EC] = _s3ec_memory(interpreter, {**settings, "peak": direction})
            except UnavailableError as error:
                offered[S3EC] = error
            yield offered

    return contenders


def _s3ec_memory(interpreter: str, settings: dict[str, Any]) -> Sampler:
    return lambda: float(run_worker(_S3EC_WORKER, json.dumps(settings), interpreter=interpreter)["mebibytes"])


def cases() -> Iterator[Case]:
    for direction in ("put", "get"):
        for label, size in SIZES.items():
            bar = Bar(f"S3 {direction} 64 MiB vs plain boto3 on loopback", PHICRYPT, "speedup", 0.9, 0.97, BOTO3)
            yield Case(
                f"s3-{direction}-{label}",
                f"S3 {direction} of {label}, in memory, moto on loopback",
                object_contenders(direction, size),
                payload_bytes=size,
                bars=(bar,) if label == "64MiB" else (),
                rounds=(2, 15) if size > MIB else (5, 20),
            )
        yield Case(
            f"s3-{direction}-1GiB",
            f"S3 {'upload_fileobj' if direction == 'put' else 'download_fileobj'} of 1 GiB, s3rver on loopback",
            transfer_contenders(direction),
            payload_bytes=1024 * MIB,
            rounds=(1, 2),
        )
        yield Case(
            f"s3-{direction}-memory",
            f"peak memory above idle of an S3 {direction} of 256 MiB, file to or from the network",
            memory_contenders(direction),
            unit="MiB",
            rounds=(1, 2),
        )
    yield Case(
        "s3-range-4KiB",
        "4 KiB from the middle of an object of 1 GiB, s3rver on loopback",
        range_contenders,
        rounds=(2, 3),
    )
