"""AWS's DB-ESDK for Java as a process that encrypts and decrypts items on request."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interop.dynamodb_local import cache_folder

from phicrypt.dynamodb import TableConfig
from phicrypt.dynamodb.shapes import from_json

_PROJECT = Path(__file__).parent / "dbesdk-java"
_MAIN_CLASS = "phicrypt.interop.Counterpart"
_INSTALL_TIMEOUT_SECONDS = 900


class JavaUnavailableError(RuntimeError):
    """AWS's Java library cannot be had here; the text says why, for a skip."""


class JavaRefusedError(RuntimeError):
    """The Java side answered with an error."""


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
    for tool in ("java", "javac", "mvn"):
        if shutil.which(tool) is None:
            raise JavaUnavailableError(f"AWS's DB-ESDK for Java needs {tool}, which is not installed")
    folder = _built()
    classpath = f"{folder / 'classes'}:{(folder / 'classpath.txt').read_text()}"
    with (folder / "java.log").open("w") as log:
        process = subprocess.Popen(
            ["java", "-Xmx512m", "-cp", classpath, _MAIN_CLASS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
        )
        try:
            yield JavaCounterpart(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _built() -> Path:
    """The folder with the classes and the class path, one for each state of the project's sources."""
    sources = sorted(_PROJECT.rglob("*.java"))
    state = hashlib.sha256(b"".join(path.read_bytes() for path in [_PROJECT / "pom.xml", *sources])).hexdigest()
    folder = cache_folder() / f"dbesdk-java-{state[:16]}"
    if (folder / "built").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    classpath = folder / "classpath.txt"
    _run(["mvn", "-q", "-B", "-f", str(_PROJECT / "pom.xml"), "dependency:build-classpath",
          f"-Dmdep.outputFile={classpath}"])  # fmt: skip
    _run(["javac", "-encoding", "UTF-8", "-d", str(folder / "classes"), "-cp", classpath.read_text(),
          *map(str, sources)])  # fmt: skip
    (folder / "built").touch()
    return folder


def _run(command: list[str]) -> None:
    try:
        outcome = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        raise JavaUnavailableError(f"{command[0]} did not end in {_INSTALL_TIMEOUT_SECONDS} seconds") from None
    if outcome.returncode:
        raise JavaUnavailableError(f"{command[0]} failed: {(outcome.stdout + outcome.stderr)[-800:]}")
