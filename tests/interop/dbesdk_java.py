"""AWS's DB-ESDK for Java as a process that encrypts and decrypts items on request."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
from collections.abc import Iterator
from typing import Any

from interop.java_processes import JavaRefusedError, JavaUnavailableError, java_process

from phicrypt.dynamodb import TableConfig
from phicrypt.dynamodb.shapes import from_json

__all__ = ["JavaCounterpart", "JavaRefusedError", "JavaUnavailableError", "java_counterpart"]


class JavaCounterpart:
    """Sends one request at a time to the Java process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def encrypt(self, item: dict[str, Any], table: TableConfig, keyring: dict[str, Any]) -> dict[str, Any]:
        return self._ask("encrypt", item, table, keyring)

    def decrypt(self, item: dict[str, Any], table: TableConfig, keyring: dict[str, Any]) -> dict[str, Any]:
        return self._ask("decrypt", item, table, keyring)

    def put(self, item: dict[str, Any], table: TableConfig, keyring: dict[str, Any], endpoint: str) -> None:
        self._ask("put", item, table, keyring, endpoint=endpoint)

    def get(
        self, key: dict[str, Any], table: TableConfig, keyring: dict[str, Any], endpoint: str
    ) -> dict[str, Any]:
        return self._ask("get", key, table, keyring, endpoint=endpoint)

    def _ask(
        self, operation: str, item: dict[str, Any], table: TableConfig, keyring: dict[str, Any], **more: str
    ) -> dict[str, Any]:
        request = {
            "operation": operation,
            "item": item,
            "keyring": keyring,
            "table": {
                "name": table.table_name,
                "logicalName": table.logical_table_name,
                "partitionKey": table.partition_key,
                "sortKey": table.sort_key,
                "actions": {name: action.value for name, action in table.actions.items()},
                "unsigned": list(table.unsigned_attributes),
                "unsignedPrefix": table.unsigned_prefix,
                "signed": table.signed,
            },
            **more,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request, default=_base64) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise JavaRefusedError(answer["error"])
        return from_json(answer["item"])


def _base64(content: Any) -> str:
    return base64.b64encode(content).decode()


@contextlib.contextmanager
def java_counterpart() -> Iterator[JavaCounterpart]:
    """The running process; JavaUnavailableError without a JDK and Maven."""
    with java_process("dbesdk-java", "phicrypt.interop.Counterpart") as process:
        yield JavaCounterpart(process)
