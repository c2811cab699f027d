"""MiniStack: S3, DynamoDB and KMS in one Python server, in an environment of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from interop.environments import EnvironmentUnavailableError, python_environment
from interop.s3rver import free_port, wait_for

_REQUIREMENTS = "ministack==1.5.33"


class MiniStackUnavailableError(RuntimeError):
    """MiniStack cannot be had here; the text says why, for a skip."""


@contextlib.contextmanager
def ministack() -> Iterator[str]:
    """The endpoint URL of a running, empty server."""
    try:
        program = python_environment("ministack", _REQUIREMENTS) / "bin" / "ministack"
    except EnvironmentUnavailableError as error:
        raise MiniStackUnavailableError(str(error)) from None
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ministack-") as folder:
        settings = {"GATEWAY_PORT": str(port), "SERVICES": "s3,dynamodb,kms", "HOME": folder, "TMPDIR": folder}
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
                raise MiniStackUnavailableError("MiniStack did not start")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ministack_client(service: str, endpoint_url: str, **settings: Any) -> Any:
    import boto3
    from botocore.config import Config

    service_client: Any = boto3.client
    return service_client(
        service,
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="AKIDLOCAL",
        aws_secret_access_key="x",
        config=Config(proxies={}, s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, **settings),
    )
