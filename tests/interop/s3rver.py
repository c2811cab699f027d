"""s3rver: an S3 server in JavaScript, installed through npm into a cache folder."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interop.dynamodb_local import cache_folder

_PACKAGE = "s3rver@3.7.1"
_START_TIMEOUT_SECONDS = 30


class S3rverUnavailableError(RuntimeError):
    """s3rver cannot be had here; the text says why, for a skip."""


@contextlib.contextmanager
def s3rver() -> Iterator[str]:
    """The endpoint URL of a running server with an empty store on the disk."""
    program = _program()
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="s3rver-") as folder:
        command = [str(program), "-d", folder, "-a", "127.0.0.1", "-p", str(port), "--silent"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            if not wait_for(port, process):
                raise S3rverUnavailableError("s3rver did not start")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=30)


def s3rver_client(endpoint_url: str, **settings: Any) -> Any:
    """A boto3 client of the server, with the credentials that it has built in."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="S3RVER",
        aws_secret_access_key="S3RVER",
        config=Config(proxies={}, s3={"addressing_style": "path"}, **settings),
    )


def _program() -> Path:
    """The server's program, installed once."""
    folder = cache_folder() / _PACKAGE.replace("@", "-")
    program = folder / "node_modules" / ".bin" / "s3rver"
    if program.exists():
        return program
    if shutil.which("npm") is None:
        raise S3rverUnavailableError("s3rver needs node and npm, which are not installed")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), _PACKAGE]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    except (subprocess.SubprocessError, OSError) as error:
        raise S3rverUnavailableError(f"s3rver cannot be installed: {error}") from None
    return program


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Whether the process listens in time."""
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
        time.sleep(0.1)
    return False
