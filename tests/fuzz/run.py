"""One target under Atheris, in this process, which ends with it."""

from __future__ import annotations

import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

MAX_SECONDS: Final = 1.0
MAX_ALLOCATION_BYTES: Final = 64 * 1024**2
_RUNS_PER_MEASUREMENT: Final = 2_000


class TooSlowError(Exception):
    """One input took more processor time than a second."""


class Watched:
    """A judge that is held to a second of processor time and to 64 MiB for each input.

    The bound on memory is the process's own, so whatever would pass it ends in a MemoryError.
    """

    def __init__(self, judge: Callable[[bytes], None]) -> None:
        self._judge = judge
        self._until_measured = 0

    def __call__(self, data: bytes) -> None:
        self._until_measured -= 1
        if self._until_measured < 0:
            self._until_measured = _RUNS_PER_MEASUREMENT
            self.bound_memory()
        started = time.thread_time()
        self._judge(data)
        spent = time.thread_time() - started
        if spent > MAX_SECONDS:
            raise TooSlowError(f"{spent:.1f} s for {len(data)} bytes")

    @staticmethod
    def bound_memory() -> None:
        """From now on the process may grow by the bound, and no more."""
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MAX_ALLOCATION_BYTES, hard))


def run(name: str, options: list[str]) -> NoReturn:
    import atheris

    with atheris.instrument_imports(include=["phicrypt"]):
        from .targets import TARGETS, scratch_folder

    target = TARGETS[name]
    with tempfile.TemporaryDirectory(prefix="phicrypt-corpus-") as folder:
        for number, seed in enumerate(target.seeds()):
            (Path(folder) / str(number)).write_bytes(seed)
        watched = Watched(target.judge)
        try:
            atheris.Setup([sys.argv[0], *options, folder], watched, enable_python_coverage=True)
            atheris.Fuzz()
        finally:
            shutil.rmtree(scratch_folder(), ignore_errors=True)
    raise SystemExit(0)
