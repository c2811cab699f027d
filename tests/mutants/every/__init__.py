"""``python -m tests.mutants.every AREA``: every mutant that cosmic-ray makes of an area, or a sample of them.

::

    python -m tests.mutants.every formats --sample 40 --out results.jsonl
    python -m tests.mutants.every evidence                          # all: hours

In a copy of the tree, as everything in here. A mutant in an annotation or in what only type checkers read is
left out: nothing runs it. Ends with 1 if fewer than ``--at-least`` percent were noticed. Survivors are printed
with their diff, for ``docs/mutants.md``.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..trial import workshop  # noqa: TID252 - tests.mutants for a command, mutants for pytest

ROOT: Final = Path(__file__).parents[3]
SEED: Final = 35
_CONFIGURATION: Final = "cosmic-ray.toml"
_DATABASE: Final = "cosmic-ray.sqlite"


class Area(NamedTuple):
    """What is mutated, and the tests that are about it: those of other areas may notice more."""

    module_path: str
    tests: tuple[str, ...]


AREAS: Final = {
    "formats": Area(
        "phicrypt/formats",
        (
            *("tests/formats", "tests/dbesdk", "tests/signatures/test_signature_format.py"),
            *("tests/signatures/test_signed_manifests.py", "tests/core/test_message_structure.py"),
            *("tests/core/test_message_properties.py", "tests/core/test_runs_of_frames.py"),
            *("tests/core/test_streams.py", "tests/core/test_client.py", "tests/core/test_required_context.py"),
        ),
    ),
    "keys": Area(
        "phicrypt/keys", ("tests/keys", "tests/core/test_cache.py", "tests/core/test_required_context.py")
    ),
    "s3": Area("phicrypt/s3/reading", ("tests/s3",)),
    "updates": Area(
        "phicrypt/dynamodb/updates.py",
        ("tests/dynamodb/test_update_encrypted.py", "tests/dynamodb/test_client_safety.py"),
    ),
    "evidence": Area("phicrypt/evidence", ("tests/audit",)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """See the module's head."""
    asked = _parser().parse_args(arguments)
    area = AREAS[asked.area]
    with workshop(ROOT) as copy:
        (copy / _CONFIGURATION).write_text(configuration(area, asked.timeout_seconds), encoding="utf-8")
        _cosmic_ray(copy, "init", _CONFIGURATION, _DATABASE)
        left_out = _leave_out(copy, asked.sample, asked.seed)
        _cosmic_ray(copy, "exec", _CONFIGURATION, _DATABASE)
        results = list(_results(copy))
    for result in results:
        if asked.out:
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"area": asked.area, **result}) + "\n")
        if not result["noticed"]:
            print(f"{result['file']}:{result['line']} {result['operator']}\n{result['diff']}\n")
    noticed = sum(result["noticed"] for result in results)
    share = 100 * noticed / max(1, len(results))
    print(f"{asked.area}: {noticed} of {len(results)} noticed ({share:.1f}%), {left_out} not tried")
    return 0 if share >= asked.at_least else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.every", description=__doc__)
    parser.add_argument("area", choices=sorted(AREAS))
    parser.add_argument("--sample", type=int, metavar="N", help="so many, drawn at random (all)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the drawing ({SEED})")
    parser.add_argument("--at-least", type=float, default=95.0, metavar="PERCENT", help="to be noticed (95)")
    parser.add_argument("--timeout-seconds", type=float, default=900.0, help="of one mutant's tests (900)")
    parser.add_argument("--out", type=Path, help="append results here, a line of JSON each")
    return parser


def configuration(area: Area, timeout_seconds: float) -> str:
    """cosmic-ray's configuration of an area."""
    command = f"{sys.executable} -m pytest -q -x -p no:cacheprovider {' '.join(area.tests)}"
    return (
        "[cosmic-ray]\n"
        f"module-path = {json.dumps(area.module_path)}\n"
        f"timeout = {timeout_seconds}\n"
        "excluded-modules = []\n"
        f"test-command = {json.dumps(command)}\n"
        '[cosmic-ray.distributor]\nname = "local"\n'
    )


def lines_that_nothing_runs(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Spans of annotations and of what stands under TYPE_CHECKING: from and to (line, column)."""
    for node in ast.walk(ast.parse(source)):
        silent: list[ast.AST | None] = []
        if isinstance(node, ast.arg | ast.AnnAssign):
            silent = [node.annotation]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            silent = [node.returns]
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            silent = [node]
        for one in silent:
            if one is not None:
                span: Any = one
                yield (span.lineno, span.col_offset), (span.end_lineno, span.end_col_offset)


def _leave_out(copy: Path, sample: int | None, seed: int) -> int:
    """Mark as skipped what nothing runs, and all but the sample; how many of the latter."""
    with _database(copy) as (items, skip, _):
        spans = {
            path: list(lines_that_nothing_runs((copy / path).read_text(encoding="utf-8")))
            for path in {str(item.mutations[0].module_path) for item in items}
        }

        def runs(item: Any) -> bool:
            mutation = item.mutations[0]
            found = spans[str(mutation.module_path)]
            return not any(start <= tuple(mutation.start_pos) < end for start, end in found)

        running = [item for item in items if runs(item)]
        chosen = running if sample is None else random.Random(seed).sample(running, min(sample, len(running)))
        kept = {item.job_id for item in chosen}
        for item in items:
            if item.job_id not in kept:
                skip(item)
        return len(running) - len(chosen)


def _results(copy: Path) -> Iterator[dict[str, Any]]:
    with _database(copy) as (_, _skip, completed):
        for item, result in completed():
            if result.worker_outcome == "skipped":
                continue
            mutation = item.mutations[0]
            yield {
                "file": str(mutation.module_path),
                "line": mutation.start_pos[0],
                "operator": mutation.operator_name,
                "noticed": bool(result.is_killed),
                "diff": (result.diff or "").strip(),
            }


class _database:  # noqa: N801 - a context manager
    """The work items of a session, what skips one, and what gives the completed ones."""

    def __init__(self, copy: Path) -> None:
        self._path = str(copy / _DATABASE)

    def __enter__(self) -> tuple[list[Any], Any, Any]:
        # cosmic-ray is the session's own requirement, and no extra of the package.
        work_db: Any = importlib.import_module("cosmic_ray.work_db")
        work_item: Any = importlib.import_module("cosmic_ray.work_item")
        self._opened: Any = work_db.use_db(self._path, work_db.WorkDB.Mode.open)
        database = self._opened.__enter__()
        skipped = work_item.WorkResult(worker_outcome=work_item.WorkerOutcome.SKIPPED)
        return (
            list(database.work_items),
            lambda item: database.set_result(item.job_id, skipped),
            lambda: list(database.completed_work_items),
        )

    def __exit__(self, *error: object) -> None:
        self._opened.__exit__(*error)


def _cosmic_ray(copy: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "cosmic_ray.cli", *arguments], cwd=copy, check=True)
