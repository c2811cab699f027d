"""``python -m benchmarks.memory_worker ACTION ARGUMENTS…``: one action, and its peak memory above idle.

Idle is after everything was imported and one tiny message, or one tiny object, was written and read. Actions:
``phicrypt-encrypt``, ``phicrypt-decrypt``, ``esdk-encrypt``, ``esdk-decrypt`` with two paths;
``phicrypt-put``, ``phicrypt-get``, ``boto3-put``, ``boto3-get`` with an endpoint URL, bucket, object
key and the path of a file; ``import`` with the names of modules.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
from typing import Any


def memory_mebibytes(name: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (peak); getrusage's peak would include the parent's."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith(f"{name}:"))


def measure_stream(library: str, direction: str, source_path: str, target_path: str) -> float:
    from benchmarks import peers, streams

    if library == "phicrypt":
        phi = peers.phi_with_raw_key()
        phi.decrypt(phi.encrypt(b"x", context=peers.CONTEXT), context=peers.CONTEXT)
        run = streams.phi_seal() if direction == "encrypt" else streams.phi_open()
    else:
        peer = peers.EsdkPeer()
        peer.decrypt(peer.encrypt(b"x"))
        run = streams.esdk_copier(direction[0])
    idle = memory_mebibytes("VmRSS")
    with open(source_path, "rb", buffering=0) as source, open(target_path, "wb", buffering=0) as sink:
        run(source, sink)
    return memory_mebibytes("VmHWM") - idle


def measure_s3(library: str, direction: str, endpoint_url: str, bucket: str, name: str, source_path: str) -> float:
    from benchmarks import s3

    client = s3.client_of(library, endpoint_url)
    client.upload_fileobj(io.BytesIO(b"x"), bucket, "warm")
    client.download_fileobj(bucket, "warm", s3.CountingSink())
    idle = memory_mebibytes("VmRSS")
    if direction == "put":
        with open(source_path, "rb") as source:
            client.upload_fileobj(source, bucket, name)
    else:
        client.download_fileobj(bucket, name, s3.CountingSink())
    return memory_mebibytes("VmHWM") - idle


def main(action: str, arguments: list[str]) -> float:
    if action == "import":
        idle = memory_mebibytes("VmRSS")
        for name in arguments:
            importlib.import_module(name)
        return memory_mebibytes("VmRSS") - idle
    library, _, direction = action.partition("-")
    if direction in ("encrypt", "decrypt"):
        return measure_stream(library, direction, *arguments)
    return measure_s3(library, direction, *arguments)


if __name__ == "__main__":
    try:
        result: dict[str, Any] = {"mebibytes": main(sys.argv[1], sys.argv[2:])}
    except Exception as error:
        kind = "unavailable" if type(error).__name__ == "UnavailableError" else "error"
        result = {kind: f"{type(error).__name__}: {error}"}
    print(json.dumps(result), flush=True)
