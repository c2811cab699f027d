"""The AWS Encryption SDK for JavaScript as a process that encrypts and decrypts on request."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from interop.dynamodb_local import cache_folder

_PROJECT = Path(__file__).parent / "esdk-js"
_FILES = ("package.json", "counterpart.mjs")
_INSTALL_TIMEOUT_SECONDS = 600


class JavaScriptUnavailableError(RuntimeError):
    """AWS's JavaScript library cannot be had here; the text says why, for a skip."""


class JavaScriptRefusedError(RuntimeError):
    """The JavaScript side answered with an error."""


class JavaScriptCounterpart:
    """Sends one request at a time to the Node process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def encrypt(
        self,
        plaintext: bytes,
        keyring: Mapping[str, Any],
        *,
        context: Mapping[str, str],
        suite_id: int,
        frame_length_bytes: int,
    ) -> bytes:
        answer = self._ask(
            operation="encrypt",
            keyring=keyring,
            input=base64.b64encode(plaintext).decode(),
            context=context,
            suiteId=suite_id,
            frameLength=frame_length_bytes,
        )
        return base64.b64decode(answer["output"])

    def decrypt(self, message: bytes, keyring: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
        """The plaintext and the context."""
        answer = self._ask(operation="decrypt", keyring=keyring, input=base64.b64encode(message).decode())
        return base64.b64decode(answer["output"]), answer["context"]

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise JavaScriptRefusedError(answer["error"])
        return answer


@contextlib.contextmanager
def javascript_counterpart() -> Iterator[JavaScriptCounterpart]:
    """The running process; JavaScriptUnavailableError without node and npm."""
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise JavaScriptUnavailableError(
                f"the AWS Encryption SDK for JavaScript needs {tool}, which is not installed"
            )
    folder = _installed()
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            ["node", "counterpart.mjs"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
        ) as process,
    ):
        try:
            yield JavaScriptCounterpart(process)
        finally:
            process.kill()


def _installed() -> Path:
    """The folder with the library, one for each state of the project's files."""
    state = hashlib.sha256(b"".join((_PROJECT / name).read_bytes() for name in _FILES)).hexdigest()
    folder = cache_folder() / f"esdk-js-{state[:16]}"
    if folder.exists():
        return folder
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="esdk-js-") as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        for name in _FILES:
            shutil.copy(_PROJECT / name, made)
        ending = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
            cwd=made,
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT_SECONDS,
            check=False,
        )
        if ending.returncode != 0:
            raise JavaScriptUnavailableError(f"npm could not install it: {ending.stderr.strip()[-400:]}")
        # Another worker may have finished first: its folder is as good.
        with contextlib.suppress(OSError):
            os.rename(made, folder)
    return folder
