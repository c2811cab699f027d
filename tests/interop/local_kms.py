"""local-kms: a KMS in Go that keeps key states, built by the Go toolchain into a cache folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interop.dynamodb_local import cache_folder
from interop.s3rver import free_port, wait_for

_MODULE = "github.com/nsmithuk/local-kms@v0.0.0-20260228092603-2a5e92d09ab6"
_ACCOUNT = "111122223333"
_BUILD_TIMEOUT_SECONDS = 600


class LocalKmsUnavailableError(RuntimeError):
    """local-kms cannot be had here; the text says why, for a skip."""


@contextlib.contextmanager
def local_kms(region: str = "us-east-1") -> Iterator[str]:
    """The endpoint URL of a running server without keys."""
    program, port = _program(), free_port()
    with tempfile.TemporaryDirectory(prefix="local-kms-") as folder:
        settings = {"PORT": str(port), "KMS_ACCOUNT_ID": _ACCOUNT, "KMS_REGION": region, "KMS_DATA_PATH": folder}
        process = subprocess.Popen(
            [str(program)],
            cwd=folder,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            if not wait_for(port, process):
                raise LocalKmsUnavailableError("local-kms did not start")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=30)


def local_kms_client(endpoint_url: str, **settings: Any) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "kms",
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="AKIDLOCAL",
        aws_secret_access_key="x",
        config=Config(proxies={}, retries={"total_max_attempts": 1}, **settings),
    )


def _program() -> Path:
    """The server's program, built once."""
    folder = cache_folder() / f"local-kms-{_MODULE.rpartition('@')[2]}"
    program = folder / "local-kms"
    if program.exists():
        return program
    if shutil.which("go") is None:
        raise LocalKmsUnavailableError("local-kms needs the Go toolchain, which is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    settings = {**os.environ, "GOBIN": str(folder), "GOFLAGS": "-mod=mod"}
    try:
        subprocess.run(
            ["go", "install", _MODULE],
            check=True,
            capture_output=True,
            env=settings,
            timeout=_BUILD_TIMEOUT_SECONDS,
        )
    except (subprocess.SubprocessError, OSError) as error:
        raise LocalKmsUnavailableError(f"local-kms cannot be built: {error}") from None
    deadline = time.monotonic() + 5
    while not program.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return program
