"""The AWS Encryption SDK for Java as a process that encrypts and decrypts messages on request."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from interop.java_processes import JavaRefusedError, java_process

Settings = Mapping[str, Any]
"""A keyring's ``kind`` and its members; bytes travel as base64."""


class MessageCounterpart:
    """Sends one request at a time to the Java process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def encrypt(
        self,
        keyring: Settings,
        plaintext: bytes,
        context: Mapping[str, str],
        *,
        suite: str,
        frame_length: int,
        required: Sequence[str] = (),
    ) -> bytes:
        """The message, under a suite by its name in Java; the required pairs of the context are not stored."""
        settings = {"suite": suite, "frameLength": frame_length}
        return self._ask("encrypt", keyring, plaintext, context, required, **settings)

    def decrypt(
        self,
        keyring: Settings,
        message: bytes,
        context: Mapping[str, str] | None = None,
        required: Sequence[str] = (),
    ) -> bytes:
        return self._ask("decrypt", keyring, message, context or {}, required)

    def _ask(
        self,
        operation: str,
        keyring: Settings,
        data: bytes,
        context: Mapping[str, str],
        required: Sequence[str],
        **more: Any,
    ) -> bytes:
        request = {"operation": operation, "keyring": keyring, "data": data, "context": context, **more}
        request["required"] = list(required)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request, default=_base64) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise JavaRefusedError(answer["error"])
        return base64.b64decode(answer["data"])


def _base64(content: Any) -> str:
    return base64.b64encode(content).decode()


@contextlib.contextmanager
def message_counterpart() -> Iterator[MessageCounterpart]:
    """The running process; JavaUnavailableError without a JDK and Maven."""
    with java_process("esdk-java", "phicrypt.interop.MessageCounterpart") as process:
        yield MessageCounterpart(process)
