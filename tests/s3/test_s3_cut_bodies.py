"""Bodies that break off: reads pass where boto3's would, after pauses, and give up where boto3 gives up."""

from __future__ import annotations

import hashlib
import io
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import IncompleteReadError, ReadTimeoutError
from botocore.response import StreamingBody

from phicrypt import PhiCrypt
from phicrypt.core.broken_connections import MAX_ATTEMPTS, with_retries
from phicrypt.s3.client import S3Client
from phicrypt.testing import mark_as_double

PART = 5 * 1024**2
DATA = hashlib.shake_256(b"scan").digest(PART + 1_000)


@mark_as_double
class CuttingS3:
    """A boto3 S3 client whose bodies break off in the middle.

    Whether they do hangs on the seed, the range and how often it was asked for, not on the order of threads.
    """

    def __init__(self, s3: Any, seed: int, cut_of_256: int) -> None:
        self._s3 = s3
        self._seed = seed
        self._cut_of_256 = cut_of_256
        self.asked: Counter[str] = Counter()
        self.cuts = 0

    def get_object(self, **parameters: Any) -> Any:
        answer = self._s3.get_object(**parameters)
        asked = f"{parameters['Key']} {parameters.get('Range')}"
        self.asked[asked] += 1
        drawn = hashlib.sha256(f"{self._seed} {asked} {self.asked[asked]}".encode()).digest()
        if drawn[0] < self._cut_of_256:
            self.cuts += 1
            content = answer["Body"].read()
            cut = content[: len(content) * drawn[1] // 256]
            answer["Body"] = StreamingBody(io.BytesIO(cut), len(content))
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s3, name)


def read_file(s3: S3Client, bucket: str) -> bytes:
    with s3.open(f"s3://{bucket}/k") as file:
        return file.read()


def download(s3: S3Client, bucket: str, object_key: str = "k") -> bytes:
    sink = io.BytesIO()
    s3.download_fileobj(bucket, object_key, sink)
    return sink.getvalue()


def copied(s3: S3Client, bucket: str) -> bytes:
    s3.copy({"Bucket": bucket, "Key": "k"}, bucket, "copy")
    return download(s3, bucket, "copy")


READERS: dict[str, Callable[[S3Client, str], bytes]] = {
    "download": download,
    "open": read_file,
    "copy": copied,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "framed": {},
    "signed": {"signed": True},
    "s3ec": {"format": "s3ec", "read_formats": ("s3ec-v3",), "bind_location": False},
}


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("reader", READERS)
def test_reads_pass_while_a_quarter_of_all_bodies_is_cut(
    kms_phi: PhiCrypt, raw: Any, bucket: str, kind: str, reader: str
) -> None:
    if (kind, reader) == ("signed", "open"):
        pytest.skip("signed objects have no places")
    settings = SETTINGS[kind]
    kms_phi.s3(raw, part_size_bytes=PART, **settings).upload_fileobj(io.BytesIO(DATA), bucket, "k")
    cuts = seed = 0
    while cuts < 2:
        cutting = CuttingS3(raw, seed, 64)
        assert READERS[reader](kms_phi.s3(cutting, part_size_bytes=PART, **settings), bucket) == DATA
        cuts, seed = cuts + cutting.cuts, seed + 1


def test_an_opening_request_is_asked_again_when_its_body_breaks(
    s3: S3Client, phi: PhiCrypt, raw: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"result")

    @mark_as_double
    class FirstBodyCut(CuttingS3):
        def get_object(self, **parameters: Any) -> Any:
            self._cut_of_256 = 0 if self.asked else 256
            return super().get_object(**parameters)

    for read in (
        lambda client: client.get_object(Bucket=bucket, Key="k")["Body"].read(),
        lambda client: client.get_object(Bucket=bucket, Key="k", Range="bytes=0-2")["Body"].read() + b"ult",
        lambda client: download(client, bucket),
        lambda client: read_file(client, bucket),
    ):
        cutting = FirstBodyCut(raw, 1, 0)
        assert read(phi.s3(cutting)) == b"result"
        assert cutting.cuts == 1


def test_a_body_that_always_breaks_ends_the_read_as_it_ends_boto3s(
    s3: S3Client, phi: PhiCrypt, raw: Any, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"result")
    cutting = CuttingS3(raw, 1, 256)
    with pytest.raises(IncompleteReadError):
        download(phi.s3(cutting), bucket)
    assert cutting.cuts == MAX_ATTEMPTS


def test_pauses_between_attempts_grow_and_differ() -> None:
    def broken() -> None:
        raise ConnectionResetError

    drawn: list[list[float]] = []
    for _ in range(20):
        pauses: list[float] = []
        with pytest.raises(ConnectionResetError):
            with_retries(broken, sleep=pauses.append)
        assert len(pauses) == MAX_ATTEMPTS - 1
        drawn.append(pauses)
    longest = [max(pauses) for pauses in zip(*drawn, strict=True)]
    assert all(most <= 0.05 * 2**attempt for attempt, most in enumerate(longest))
    assert longest[-1] > 0.05, "the pauses grow"
    assert len({pause for pauses in drawn for pause in pauses}) > 70, "and are random"


def test_an_alarm_within_a_read_of_the_network_ends_it_at_once() -> None:
    """urllib3 takes the TimeoutError of a signal's handler for one of the socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []

        def serve() -> None:
            connection, _ = server.accept()
            accepted.append(connection)
            connection.recv(65_536)
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\nETag: "1"\r\n\r\nbegin')

        threading.Thread(target=serve, daemon=True).start()
        client = boto3.client(
            "s3",
            region_name="eu-central-1",
            endpoint_url=f"http://127.0.0.1:{server.getsockname()[1]}",
            aws_access_key_id="a",
            aws_secret_access_key="b",
            config=Config(read_timeout=20, retries={"total_max_attempts": 1}),
        )

        def ring(number: int, frame: object) -> None:
            raise TimeoutError("the caller's alarm")

        before = signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(TimeoutError, match="the caller's alarm"):
                with_retries(lambda: client.get_object(Bucket="b", Key="k")["Body"].read())
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            for connection in accepted:
                connection.close()
        assert len(accepted) == 1


def test_a_timeout_of_the_connection_is_no_alarm() -> None:
    left, right = socket.socketpair()
    left.settimeout(0.01)
    attempts = []

    def read() -> bytes:
        attempts.append(1)
        try:
            return left.makefile("rb", buffering=0).read(1)
        except TimeoutError as error:
            raise ReadTimeoutError(endpoint_url="http://localhost", error=error) from error

    with left, right, pytest.raises(ReadTimeoutError):
        with_retries(read, sleep=lambda seconds: None)
    assert len(attempts) == MAX_ATTEMPTS
