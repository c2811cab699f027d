"""A process that moves one large object and prints its peak memory above idle, in MiB.

Arguments: endpoint URL, bucket, mebibytes, "phicrypt" or "boto3", "upload" or "download".
"""

from __future__ import annotations

import sys
from typing import Any

from interop.s3rver import s3rver_client

from phicrypt import PhiCrypt, RawAesKeyring

MIB = 1024**2


class Source:
    """A long file in little memory; like a file, it gives as many bytes as it is asked for."""

    def __init__(self, length: int) -> None:
        self.left = length

    def read(self, size: int = -1) -> bytes:
        count = self.left if size < 0 else min(self.left, size)
        self.left -= count
        return b"x" * count


class Sink:
    def __init__(self) -> None:
        self.length = 0

    def write(self, piece: bytes) -> int:
        self.length += len(piece)
        return len(piece)


def memory_mib(name: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (peak) of this program; getrusage's peak would include its parent's."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(f"{name}:"))


def client_of(kind: str, endpoint_url: str) -> Any:
    raw = s3rver_client(endpoint_url, max_pool_connections=20)
    if kind == "boto3":
        return raw
    return PhiCrypt(RawAesKeyring("clinic", "key-1", bytes(range(32)))).s3(raw)


def measure(action: str, kind: str, endpoint_url: str, bucket: str, length: int) -> float:
    client = client_of(kind, endpoint_url)
    warm_up = {"Bucket": bucket, "Key": f"warm-{kind}"}
    client.put_object(**warm_up, Body=b"x")
    client.get_object(**warm_up)["Body"].read()
    idle = memory_mib("VmRSS")
    if action == "upload":
        client.upload_fileobj(Source(length), bucket, f"large-{kind}")
    else:
        sink = Sink()
        client.download_fileobj(bucket, f"large-{kind}", sink)
        assert sink.length == length, sink.length
    return memory_mib("VmHWM") - idle


def main() -> None:
    if len(sys.argv) == 6:
        endpoint_url, bucket, mebibytes, kind, action = sys.argv[1:]
        print(measure(action, kind, endpoint_url, bucket, int(mebibytes) * MIB))
        return
    raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
