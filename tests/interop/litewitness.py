"""litewitness: a witness in Go, unmodified, built by the Go toolchain into a cache folder."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from interop.dynamodb_local import cache_folder
from interop.s3rver import free_port, wait_for

_MODULE = "filippo.io/torchwood/cmd/litewitness@v0.6.1"
"""Newer releases need a newer Go than 1.26."""
_BUILD_TIMEOUT_SECONDS = 900
_NAME = "witness.example/litewitness"


class LitewitnessUnavailableError(RuntimeError):
    """litewitness cannot be had here; the text says why, for a skip."""


@dataclass(frozen=True)
class Litewitness:
    """A running witness."""

    url: str
    vkey: str
    database: Path

    def add_log(self, origin: str, vkey: str) -> None:
        """What its operator's tool does, which cannot be built here: one row for the log, one for its key."""
        empty = base64.b64encode(hashlib.sha256().digest()).decode()
        with contextlib.closing(sqlite3.connect(self.database, timeout=10)) as database, database:
            database.execute("INSERT INTO log (origin, tree_size, tree_hash) VALUES (?, 0, ?)", (origin, empty))
            database.execute("INSERT INTO key (origin, key) VALUES (?, ?)", (origin, vkey))

    def known(self, origin: str) -> tuple[int, str]:
        """Size and root of the largest checkpoint that it cosigned."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=10)) as database:
            found: tuple[int, str] = database.execute(
                "SELECT tree_size, tree_hash FROM log WHERE origin = ?", (origin,)
            ).fetchone()
        return found


@contextlib.contextmanager
def litewitness() -> Iterator[Litewitness]:
    """A running witness that knows no log; its key lies in an ssh-agent of its own, as it wants it."""
    program, port = _program(), free_port()
    with tempfile.TemporaryDirectory(prefix="lw-") as name, contextlib.ExitStack() as stack:
        folder, key = Path(name), Ed25519PrivateKey.generate()
        agent = _start(stack, ["ssh-agent", "-D", "-a", str(folder / "agent")])
        _wait_until((folder / "agent").exists, agent)
        (folder / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        (folder / "key").chmod(0o600)
        with_agent = {**os.environ, "SSH_AUTH_SOCK": str(folder / "agent")}
        added = subprocess.run(
            ["ssh-add", str(folder / "key")], env=with_agent, capture_output=True, check=False, timeout=30
        )
        if added.returncode != 0:
            raise LitewitnessUnavailableError("ssh-agent takes no key here")
        raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        said = stack.enter_context((folder / "log").open("wb"))
        options = {
            "-name": _NAME,
            "-db": str(folder / "witness.db"),
            "-ssh-agent": str(folder / "agent"),
            "-key": hashlib.sha256(raw).hexdigest(),
            "-listen": f"127.0.0.1:{port}",
        }
        command = [str(program), *(part for option in options.items() for part in option)]
        process = _start(stack, command, stderr=said)
        if not wait_for(port, process):
            raise LitewitnessUnavailableError("litewitness did not start")
        vkey = re.search(r'vkey="?([^"\s]+)', (folder / "log").read_text())
        assert vkey is not None
        yield Litewitness(f"http://127.0.0.1:{port}", vkey[1], folder / "witness.db")


def _start(
    stack: contextlib.ExitStack, command: list[str], stderr: Any = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )

    def stop() -> None:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)

    stack.callback(stop)
    return process


def _wait_until(is_so: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 10
    while not is_so() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)


def _program() -> Path:
    """The witness's program, built once."""
    folder = cache_folder() / f"litewitness-{_MODULE.rpartition('@')[2]}"
    program = folder / "litewitness"
    for needed in ("ssh-agent", "ssh-add"):
        if shutil.which(needed) is None:
            raise LitewitnessUnavailableError(f"litewitness needs {needed}, which is not installed")
    if program.exists():
        return program
    if shutil.which("go") is None:
        raise LitewitnessUnavailableError("litewitness needs the Go toolchain, which is not installed")
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
        raise LitewitnessUnavailableError(f"litewitness cannot be built: {error}") from None
    return program
