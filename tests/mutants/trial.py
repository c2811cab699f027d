"""Trials: a copy of the tree with one mistake in it, and the tests that should notice.

The tree itself is never changed. The tests run in a process of their own, which is ended with all that
it started when it takes too long: a hang counts as noticed, as nobody would call it a pass.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .listing import Mutant
from .places import Place, with_mistake

AREA_TESTS: Final = {
    "formats": ("formats", "dbesdk", "core", "s3", "signatures"),
    "keys": ("keys", "signatures", "core"),
    "s3": ("s3",),
    "dynamodb": ("dynamodb", "dbesdk"),
}
"""The folders of ``tests/`` that are to notice a mistake in an area."""
HYPOTHESIS_SEED: Final = 14
_COPIED: Final = ("phicrypt", "tests", "benchmarks", "docs", "pyproject.toml", "README.md", "LICENSE")
_UNCOPIED: Final = shutil.ignore_patterns("__pycache__", ".hypothesis", "*.pyc")
_MEMORY_BYTES: Final = 12 * 2**30
_FILE_BYTES: Final = 2 * 2**30
_NO_TESTS: Final = (4, 5)
"""pytest's exit codes for names that it does not know, and for no test at all."""
_ENDED_BY_OTHERS: Final = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
"""How a process ends that somebody else stopped: that says nothing about the mistake."""
_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", re.MULTILINE)
_BEGUN: Final = re.compile(r"^(tests/\S+?::.+?) ?$")


@dataclass(frozen=True)
class Ending:
    """How the tests ended: noticed or not, by which test, after how long."""

    is_noticed: bool
    by: str
    seconds: float
    has_run: bool = True


@contextlib.contextmanager
def workshop(tree: Path) -> Iterator[Path]:
    """A copy of a tree in which mistakes can be made."""
    with tempfile.TemporaryDirectory(prefix="phicrypt-mutants-", ignore_cleanup_errors=True) as folder:
        copy = Path(folder) / "tree"
        copy.mkdir()
        for name in _COPIED:
            source = tree / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=_UNCOPIED)
            elif source.exists():
                shutil.copy2(source, copy / name)
        # Bytecode is judged by content: a mistake that keeps length and second must not go unseen.
        compiling = ("-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "phicrypt")
        subprocess.run([sys.executable, *compiling], cwd=copy, check=True)
        yield copy


@contextlib.contextmanager
def mistake(copy: Path, place: Place) -> Iterator[None]:
    """The copy with the mistake, and afterwards without."""
    path = copy / place.statement.file
    before = path.read_text(encoding="utf-8")
    path.write_text(with_mistake(before, place), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(before, encoding="utf-8")


def folders_of(copy: Path, area: str) -> list[str]:
    """The tests of an area, as pytest takes them."""
    found = [f"tests/{name}" for name in AREA_TESTS[area] if (copy / "tests" / name).is_dir()]
    if not found:
        raise SystemExit(f"no folder of tests for {area}: expected one of {', '.join(AREA_TESTS[area])}")
    return found


def known_killer(copy: Path, mutant: Mutant) -> list[str]:
    """The test that noticed it before, or the file that failed to load, wherever it is now; of any parameters."""
    file, _, name = mutant.killed_by.removeprefix("hang: ").partition("::")
    name = name.partition("[")[0].rpartition("::")[2]
    if not name:
        return [path.relative_to(copy).as_posix() for path in (copy / "tests").rglob(Path(file).name or "-")][:1]
    defined = re.compile(rf"^ *def {re.escape(name)}\(", re.MULTILINE)
    found = [
        path
        for path in sorted((copy / "tests").rglob("test_*.py"))
        if defined.search(path.read_text(encoding="utf-8"))
    ]
    found.sort(key=lambda path: path.name != Path(file).name)
    return [path.relative_to(copy).as_posix() for path in found[:1]] + ["-k", name] if found else []


def run_tests(copy: Path, arguments: Sequence[str], timeout_seconds: float) -> Ending:
    """Run tests in the copy until the first that fails."""
    command = [sys.executable, "-m", "pytest", "-x", "-v", "--tb=no", "-rfE", "-p", "no:cacheprovider"]
    command += [f"--hypothesis-seed={HYPOTHESIS_SEED}", *arguments]
    started = time.monotonic()
    with (copy.parent / "output").open("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=copy,
            env=_environment(copy),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_limit,
        )
        try:
            code: int | None = process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        text = output.read()
    shutil.rmtree(copy / ".hypothesis", ignore_errors=True)
    seconds = round(time.monotonic() - started, 1)
    if code in _NO_TESTS or code in _ENDED_BY_OTHERS:
        return Ending(False, "", seconds, has_run=False)
    return Ending(code != 0, _noticed_by(text, code), seconds)


def _noticed_by(text: str, code: int | None) -> str:
    if code == 0:
        return ""
    if found := _FAILED.search(text):
        return found[1]
    # Neither a failure nor an end: what stands last was running.
    begun = [found[1] for line in text.splitlines() if (found := _BEGUN.match(line))]
    running = begun[-1] if begun else "while tests were collected"
    return f"hang: {running}" if code is None else f"crash: {running}"


def _environment(copy: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTEST_"))}
    temporary = copy.parent / "temporary"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    return {
        **kept,
        "PYTHONPATH": str(copy),
        "TMPDIR": str(temporary),
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


def _limit() -> None:
    """A mistake may ask for all memory or fill the disk; it shall not get either."""
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
