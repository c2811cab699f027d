"""The AWS Encryption SDK for Go as a process that encrypts and decrypts messages on request."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from interop.dynamodb_local import cache_folder

_PROJECT = Path(__file__).with_name("esdk-go")
_BUILD_TIMEOUT_SECONDS = 1_800
"""Its packages are generated, and large: minutes on a slow machine, once."""

Settings = Mapping[str, Any]
"""A keyring's ``kind`` and its members; bytes travel as base64."""


class GoUnavailableError(RuntimeError):
    """AWS's library for Go cannot be had here; the text says why, for a skip."""


class GoRefusedError(RuntimeError):
    """The Go side answered with an error."""


class GoCounterpart:
    """Sends one request at a time to the Go process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def encrypt(
        self,
        keyring: Settings,
        plaintext: bytes,
        context: Mapping[str, str],
        *,
        signed: bool = False,
        frame_length: int = 4_096,
    ) -> bytes:
        request = {"data": plaintext, "context": context, "signed": signed, "frameLength": frame_length}
        return self._ask("encrypt", keyring, **request)

    def decrypt(self, keyring: Settings, message: bytes) -> bytes:
        return self._ask("decrypt", keyring, data=message)

    def create_key(self, store: Settings, context: Mapping[str, str]) -> None:
        """A branch key of the store's ``branchKeyId``."""
        self._ask("create-key", store, context=context)

    def version_key(self, store: Settings) -> None:
        """Rotate it."""
        self._ask("version-key", store)

    def _ask(self, operation: str, keyring: Settings, **more: Any) -> bytes:
        request = {"operation": operation, "keyring": keyring, **more}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request, default=_base64) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise GoRefusedError(answer["error"])
        return base64.b64decode(answer["data"])


def _base64(content: Any) -> str:
    return base64.b64encode(content).decode()


@contextlib.contextmanager
def go_counterpart(time_zone: str = "UTC") -> Iterator[GoCounterpart]:
    """The running process on a host of that time zone; GoUnavailableError without a Go toolchain."""
    program = _program()
    with program.with_name("go.log").open("w") as log:
        process = subprocess.Popen(
            [str(program)],
            env={**os.environ, "TZ": time_zone, "NO_PROXY": "127.0.0.1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
        )
        try:
            yield GoCounterpart(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _program() -> Path:
    """The program, built once for each state of its sources."""
    if shutil.which("go") is None:
        raise GoUnavailableError("AWS's library for Go needs the Go toolchain, which is not installed")
    sources = sorted(path for path in _PROJECT.iterdir() if path.suffix in (".go", ".mod", ".sum"))
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    program = cache_folder() / f"esdk-go-{state[:16]}" / "counterpart"
    if program.exists():
        return program
    if "PHICRYPT_BUILD_GO" not in os.environ:
        raise GoUnavailableError(
            "AWS's library for Go is not built yet, which takes minutes, once: set PHICRYPT_BUILD_GO=1, or run "
            "nox -f .ci/noxfile.py -s interop"
        )
    program.parent.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_suffix(".part")
    try:
        subprocess.run(
            ["go", "build", "-mod=readonly", "-o", str(unfinished), "."],
            cwd=_PROJECT,
            check=True,
            capture_output=True,
            text=True,
            timeout=_BUILD_TIMEOUT_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        raise GoUnavailableError(f"AWS's library for Go cannot be built: {error.stderr[-800:]}") from None
    except (subprocess.SubprocessError, OSError) as error:
        raise GoUnavailableError(f"AWS's library for Go cannot be built: {error}") from None
    unfinished.rename(program)
    return program
