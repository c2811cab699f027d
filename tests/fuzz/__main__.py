"""``python -m tests.fuzz``: every parser under Atheris, or some (``esdk-header expression``); a line of JSON each.

Exit code 1 if an input ended in another exception than phicrypt's, took more than a second of processor time,
or wanted more than 64 MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

TESTS: Final = Path(__file__).parents[1]
ROOT: Final = TESTS.parent
_ONE: Final = "--in-this-process"
_DONE: Final = re.compile(rb"Done (\d+) runs|stat::number_of_executed_units:\s*(\d+)|^#(\d+)\t", re.MULTILINE)


def main(arguments: Sequence[str] | None = None) -> int:
    sys.path.insert(0, str(TESTS))
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == [_ONE]:
        from .run import run

        run(arguments[1], arguments[2:])
    from .targets import TARGETS

    asked = _parser(list(TARGETS)).parse_args(arguments)
    results = []
    for name in asked.targets or TARGETS:
        results.append(fuzzed(name, asked.runs or TARGETS[name].runs, asked.max_seconds, asked.seed))
        print(json.dumps(results[-1]), flush=True)
    return 1 if any(result["findings"] for result in results) else 0


def _parser(names: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(names)} (all)")
    parser.add_argument("--runs", type=int, help="inputs per target (5 million for core parsers, 1 for evidence)")
    parser.add_argument("--max-seconds", type=int, default=3_600, help="per target (an hour)")
    parser.add_argument("--seed", type=int, default=1, help="of the fuzzer's choices (1)")
    return parser


def fuzzed(name: str, runs: int, max_seconds: int, seed: int) -> dict[str, Any]:
    """One target in a process of its own: Atheris ends its process when it is done."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="phicrypt-fuzz-") as folder:
        options = (
            f"-runs={runs}",
            f"-max_total_time={max_seconds}",
            f"-seed={seed}",
            f"-artifact_prefix={folder}/",
        )
        command = [
            sys.executable,
            "-m",
            "tests.fuzz",
            _ONE,
            name,
            *options,
            "-print_final_stats=1",
            "-max_len=4096",
        ]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{TESTS}"}
        ending = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
        artifacts = {path.name: path.read_bytes().hex() for path in Path(folder).iterdir() if path.is_file()}
    counts = [int(next(filter(None, found.groups()))) for found in _DONE.finditer(ending.stderr)]
    text = ending.stderr.decode("utf-8", "replace")
    findings = [] if ending.returncode == 0 else [text[-3_000:]]
    return {
        "target": name,
        "runs": max(counts, default=0),
        "asked": runs,
        "seconds": round(time.monotonic() - started, 1),
        "findings": findings,
        "inputs": artifacts,
    }


if __name__ == "__main__":
    raise SystemExit(main())
