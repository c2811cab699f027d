"""DynamoDB Local (AWS's own, Java, from Maven Central) and dynalite (npm), as test servers.

Both are fetched into a cache outside the repository by their ordinary package managers: the folder in
``PHICRYPT_INTEROP_CACHE``, or ``~/.cache/phicrypt-interop``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

DYNAMODB_LOCAL_VERSION = "3.3.1"
DYNALITE_VERSION = "4.0.0"
_INSTALL_TIMEOUT_SECONDS = 900
_START_TIMEOUT_SECONDS = 60
_MAIN_CLASS = "software.amazon.dynamodb.services.local.main.ServerRunner"
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>io.phicrypt.interop</groupId><artifactId>dynamodb-local</artifactId><version>1</version>
  <dependencies><dependency>
    <groupId>software.amazon.dynamodb</groupId><artifactId>DynamoDBLocal</artifactId>
    <version>{DYNAMODB_LOCAL_VERSION}</version>
  </dependency></dependencies>
</project>
"""


class ServerUnavailableError(RuntimeError):
    """The server cannot be had here; the text says why, for a skip."""


def cache_folder() -> Path:
    configured = os.environ.get("PHICRYPT_INTEROP_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "phicrypt-interop"


@contextlib.contextmanager
def dynamodb_local() -> Iterator[str]:
    """The endpoint URL of a fresh in-memory DynamoDB Local; ServerUnavailableError without Java and Maven."""
    if shutil.which("java") is None:
        raise ServerUnavailableError("DynamoDB Local needs Java, which is not installed")
    library = _dynamodb_local_library()
    port = _free_port()
    command = [
        "java",
        "-Xmx512m",
        f"-Dsqlite4java.library.path={library}",
        "-cp",
        f"{library}/*",
        _MAIN_CLASS,
        "-inMemory",
        "-disableTelemetry",
        "-port",
        str(port),
    ]
    with _running(command, port) as endpoint_url:
        yield endpoint_url


@contextlib.contextmanager
def dynalite() -> Iterator[str]:
    """The endpoint URL of a fresh dynalite, which has no transactions; ServerUnavailableError without npm."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise ServerUnavailableError("dynalite needs Node.js and npm, which are not installed")
    folder = cache_folder() / f"dynalite-{DYNALITE_VERSION}"
    program = folder / "node_modules" / "dynalite" / "cli.js"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _install(
            ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), f"dynalite@{DYNALITE_VERSION}"]
        )
    port = _free_port()
    command = ["node", str(program), "--port", str(port), "--createTableMs", "0", "--deleteTableMs", "0"]
    with _running(command, port) as endpoint_url:
        yield endpoint_url


def _dynamodb_local_library() -> Path:
    folder = cache_folder() / f"dynamodb-local-{DYNAMODB_LOCAL_VERSION}"
    if folder.exists():
        return folder
    if shutil.which("mvn") is None:
        raise ServerUnavailableError("DynamoDB Local comes through Maven, which is not installed")
    cache_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder()) as scratch:
        (Path(scratch) / "pom.xml").write_text(_POM)
        output = f"-DoutputDirectory={scratch}/library"
        _install(["mvn", "-q", "-B", "-f", f"{scratch}/pom.xml", "dependency:copy-dependencies", output])
        with contextlib.suppress(OSError):  # another run was faster
            (Path(scratch) / "library").rename(folder)
    return folder


def _install(command: list[str]) -> None:
    try:
        outcome = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        raise ServerUnavailableError(f"{command[0]} did not end in {_INSTALL_TIMEOUT_SECONDS} seconds") from None
    if outcome.returncode:
        raise ServerUnavailableError(f"{command[0]} could not fetch the server: {outcome.stdout[-400:]}")


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:  # DynamoDB Local writes a file of its own into its folder
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for(process, port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerUnavailableError(f"the server ended at once with code {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise ServerUnavailableError(f"the server did not listen within {_START_TIMEOUT_SECONDS} seconds")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
