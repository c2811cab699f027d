"""Processes that measurements need: servers, environments of their own, and fresh interpreters."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import Sampler, UnavailableError

ROOT: Final = Path(__file__).parents[1]
_INSTALL_TIMEOUT_SECONDS: Final = 600
_START_TIMEOUT_SECONDS: Final = 60
_S3EC_REQUIREMENTS: Final = ("amazon-s3-encryption-client-python>=4.0,<5", "boto3>=1.40")
_S3RVER: Final = "s3rver@3.7.1"


def cache_folder() -> Path:
    """Where environments are kept between runs, outside the repository."""
    configured = os.environ.get("PHICRYPT_BENCH_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "phicrypt-bench"


def clean_environment() -> dict[str, str]:
    """The environment without AWS settings: no account is used, even if this machine has one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {
        **kept,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


class JsonProcess:
    """A process that answers each line of JSON with one."""

    def __init__(
        self, command: Sequence[str], *, folder: Path = ROOT, settings: Mapping[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={**clean_environment(), **(settings or {})},
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise UnavailableError("the process ended without an answer")
        answer: dict[str, Any] = json.loads(line)
        if "unavailable" in answer:
            raise UnavailableError(answer["unavailable"])
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def __enter__(self) -> JsonProcess:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def run_worker(*arguments: str, interpreter: str = sys.executable) -> dict[str, Any]:
    """Run a program of this folder in a fresh interpreter; its one line of JSON."""
    with JsonProcess([interpreter, *arguments]) as process:
        return process.answer()


def peak_memory_sampler(*arguments: str) -> Sampler:
    """Peak resident memory above idle, in MiB, of one action of ``memory_worker.py`` in a fresh process."""
    return lambda: float(run_worker("-m", "benchmarks.memory_worker", *arguments)["mebibytes"])


@contextlib.contextmanager
def local_aws_process() -> Iterator[dict[str, Any]]:
    """moto in a process of its own, so that it does not share the interpreter's lock: its endpoint and KMS key."""
    with JsonProcess([sys.executable, "-m", "benchmarks.local_aws"]) as process:
        yield process.answer()


@contextlib.contextmanager
def s3rver() -> Iterator[str]:
    """The endpoint URL of s3rver, an S3 server in JavaScript, with an empty store in TMPDIR."""
    program = _s3rver_program()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="phicrypt-bench-s3rver-") as folder:
        command = [str(program), "-d", folder, "-a", "127.0.0.1", "-p", str(port), "--silent"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=30)


def s3ec_interpreter() -> str:
    """The interpreter of an environment with AWS's S3 Encryption Client, which pins ``cryptography<49``."""
    digest = hashlib.sha256("\n".join((*_S3EC_REQUIREMENTS, sys.version)).encode()).hexdigest()[:16]
    folder = cache_folder() / f"s3ec-{digest}"
    interpreter = folder / "bin" / "python"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _install([sys.executable, "-m", "venv", str(folder)], "the S3 Encryption Client")
        install = [str(interpreter), "-m", "pip", "install", "--quiet", *_S3EC_REQUIREMENTS]
        _install(install, "the S3 Encryption Client")
        (folder / "ready").touch()
    return str(interpreter)


def installed_phicrypt(target: Path) -> None:
    """Build a wheel of this tree and install it, with bytecode, into a folder for ``sys.path``."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--compile",
        "--target",
        str(target),
    ]
    _install([*command, str(ROOT)], "a wheel of phicrypt")


def _s3rver_program() -> Path:
    folder = cache_folder() / _S3RVER.replace("@", "-")
    program = folder / "node_modules" / ".bin" / "s3rver"
    if not program.exists():
        if shutil.which("npm") is None:
            raise UnavailableError("s3rver needs node and npm, which are not installed")
        folder.mkdir(parents=True, exist_ok=True)
        _install(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), _S3RVER], "s3rver")
    return program


def _install(command: Sequence[str], what: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_INSTALL_TIMEOUT_SECONDS)
    except (subprocess.SubprocessError, OSError) as error:
        raise UnavailableError(f"{what} cannot be installed here: {type(error).__name__}") from None


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise UnavailableError("s3rver did not start")
