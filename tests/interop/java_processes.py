"""AWS's libraries for Java as processes: one Maven project each, compiled once and kept."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from interop.dynamodb_local import cache_folder

_INSTALL_TIMEOUT_SECONDS = 900


class JavaUnavailableError(RuntimeError):
    """AWS's Java library cannot be had here; the text says why, for a skip."""


class JavaRefusedError(RuntimeError):
    """The Java side answered with an error."""


@contextlib.contextmanager
def java_process(project: str, main_class: str) -> Iterator[subprocess.Popen[str]]:
    """The running main class of a project beside this module; JavaUnavailableError without a JDK and Maven."""
    for tool in ("java", "javac", "mvn"):
        if shutil.which(tool) is None:
            raise JavaUnavailableError(f"{project} needs {tool}, which is not installed")
    folder = _built(project)
    classpath = f"{folder / 'classes'}:{(folder / 'classpath.txt').read_text()}"
    with (folder / "java.log").open("w") as log:
        process = subprocess.Popen(
            ["java", "-Xmx512m", "-cp", classpath, main_class],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
        )
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _built(project: str) -> Path:
    """The folder with the classes and the class path, one for each state of the project's sources."""
    root = Path(__file__).with_name(project)
    sources = sorted(root.rglob("*.java"))
    state = hashlib.sha256(b"".join(path.read_bytes() for path in [root / "pom.xml", *sources])).hexdigest()
    folder = cache_folder() / f"{project}-{state[:16]}"
    if (folder / "built").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    classpath = folder / "classpath.txt"
    _run(["mvn", "-q", "-B", "-f", str(root / "pom.xml"), "dependency:build-classpath",
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
