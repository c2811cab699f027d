"""AWS's S3 Encryption Client for Python as a process that puts and gets objects on request."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from interop.environments import EnvironmentUnavailableError, python_environment

_PROJECT = Path(__file__).parent / "s3ec-python"


class S3ecUnavailableError(RuntimeError):
    """AWS's client cannot be had here; the text says why, for a skip."""


class S3ecRefusedError(RuntimeError):
    """AWS's client answered with an error."""


class S3ecPython:
    """Sends one request at a time to AWS's client."""

    def __init__(self, process: subprocess.Popen[str], endpoint_url: str, key_arn: str) -> None:
        self._process = process
        self._shared = {"endpoint_url": endpoint_url, "key_arn": key_arn}

    def put(
        self, bucket: str, name: str, body: bytes, context: Mapping[str, str] | None = None, *, version: int = 3
    ) -> None:
        encoded = base64.b64encode(body).decode()
        self._ask(operation="put", bucket=bucket, name=name, body=encoded, context=context or {}, version=version)

    def get(
        self,
        bucket: str,
        name: str,
        context: Mapping[str, str] | None = None,
        *,
        version: int = 3,
        key_arn: str | None = None,
    ) -> bytes:
        more = {} if key_arn is None else {"key_arn": key_arn}
        answer = self._ask(
            operation="get", bucket=bucket, name=name, context=context or {}, version=version, **more
        )
        return base64.b64decode(answer["body"])

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({**self._shared, **request}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise S3ecRefusedError(answer["error"])
        return answer


@contextlib.contextmanager
def s3ec_python(endpoint_url: str, key_arn: str) -> Iterator[S3ecPython]:
    """The running counterpart; raises S3ecUnavailableError where it cannot be installed."""
    try:
        environment = python_environment("s3ec-python", (_PROJECT / "requirements.txt").read_text())
    except EnvironmentUnavailableError as error:
        raise S3ecUnavailableError(str(error)) from None
    command = [str(environment / "bin" / "python"), str(_PROJECT / "counterpart.py")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield S3ecPython(process, endpoint_url, key_arn)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        process.wait(timeout=30)
        if process.stdout is not None:
            process.stdout.close()
