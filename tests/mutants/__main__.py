"""``python -m tests.mutants``: put each mistake of the list into a copy of the tree; say which no test notices."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from . import listing, seeding
from .listing import Mutant
from .places import Gone, Place, find
from .statements import Statement, statements_of_tree
from .trial import Ending, folders_of, known_killer, mistake, run_tests, workshop

ROOT: Final = Path(__file__).parents[2]
_KILLER_TIMEOUT_SECONDS: Final = 300.0
_AREA_TIMEOUT_SECONDS: Final = 1_800.0

Result = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 if a mistake that was noticed in the first revision is not noticed now, or its code is gone."""
    asked = _parser().parse_args(arguments)
    if asked.draw:
        listing.save(seeding.drawn(asked.draw), seed=seeding.SEED, revision=asked.revision)
        return 0
    mutants = [one for one in listing.load() if not asked.only or one.number in asked.only]
    if asked.record:
        _record(asked.record)
        return 0
    statements = statements_of_tree(asked.tree)
    if asked.where:
        for one in mutants:
            print(_where(one, find(one, statements)))
        return 0
    if not asked.all and not asked.only:
        mutants = [one for one in mutants if one.status == "dies"]
    results = {}
    for result in _trials(mutants, statements, asked.tree, asked.out):
        results[result["number"]] = result
        print(_line(result), flush=True)
    print(_verdict(mutants, results))
    return 1 if _missed(mutants, results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout to try (this one)")
    parser.add_argument("--only", type=int, nargs="+", default=[], help="numbers of mutants")
    parser.add_argument(
        "--all", action="store_true", help="also those that no test noticed at first: a whole area each"
    )
    parser.add_argument("--where", action="store_true", help="only say where each stands today")
    parser.add_argument(
        "--out", type=Path, help="keep results, a line of JSON each; those in it are not run again"
    )
    parser.add_argument("--record", type=Path, help="write these results into the list")
    parser.add_argument("--draw", type=Path, metavar="TREE", help="draw the list anew from a checkout")
    parser.add_argument("--revision", default="", help="with --draw: the checkout's revision")
    return parser


def _trials(
    mutants: Sequence[Mutant], statements: Sequence[Statement], tree: Path, out: Path | None
) -> Iterator[Result]:
    known = {result["number"]: result for result in read_results(out)} if out and out.exists() else {}
    with workshop(tree) as copy:
        for mutant in mutants:
            if mutant.number in known:
                yield known[mutant.number]
                continue
            result = _trial(mutant, find(mutant, statements), copy)
            if out:
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result, ensure_ascii=False) + "\n")
            yield result


def read_results(path: Path) -> list[Result]:
    """Results that ``--out`` kept."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _trial(mutant: Mutant, place: Place | Gone, copy: Path) -> Result:
    if isinstance(place, Gone):
        return as_result(mutant, place, None)
    with mistake(copy, place):
        ending = None
        if killer := known_killer(copy, mutant):
            ending = run_tests(copy, killer, _KILLER_TIMEOUT_SECONDS)
        if ending is None or not ending.is_noticed:
            spent = ending.seconds if ending else 0.0
            ending = run_tests(copy, folders_of(copy, mutant.area), _AREA_TIMEOUT_SECONDS)
            ending = replace(ending, seconds=round(ending.seconds + spent, 1))
    return as_result(mutant, place, ending)


def as_result(mutant: Mutant, place: Place | Gone, ending: Ending | None) -> Result:
    """One result, as JSON has it; ``status`` is ``"dies"``, ``"lives"`` or ``"gone"``."""
    result: Result = {"number": mutant.number, "before": mutant.status}
    if isinstance(place, Gone) or ending is None:
        return result | {"status": "gone", "why": place.why if isinstance(place, Gone) else ""}
    if not ending.has_run:
        raise SystemExit(
            f"mutant {mutant.number}: no test ran to its end (stopped by others, or its area has none)"
        )
    status = "dies" if ending.is_noticed else "lives"
    where = {"how": place.how, "file": place.statement.file, "line": place.statement.line}
    return result | {"status": status, **where, "by": ending.by, "seconds": ending.seconds}


def _missed(mutants: Sequence[Mutant], results: dict[int, Result]) -> list[Result]:
    """Those that were noticed before, and are not, or cannot be tried."""
    return [
        results[one.number]
        for one in mutants
        if one.status == "dies"
        and results[one.number]["status"] != "dies"
        and not (one.today is not None and "gone" in one.today)
    ]


def _verdict(mutants: Sequence[Mutant], results: dict[int, Result]) -> str:
    counts = Counter(result["status"] for result in results.values())
    missed = _missed(mutants, results)
    lines = [", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "nothing was tried"]
    lines += [f"was noticed, and is not now: {_line(result)}" for result in missed]
    return "\n".join(lines)


def _line(result: Result) -> str:
    if result["status"] == "gone":
        return f"{result['number']:3} gone   {result['why']}"
    where = f"{result['file']}:{result['line']} ({result['how']})"
    return f"{result['number']:3} {result['status']:5}  {where}  {result['by']}  {result['seconds']} s"


def _where(mutant: Mutant, place: Place | Gone) -> str:
    if isinstance(place, Gone):
        return f"{mutant.number:3} gone    {mutant.file} {mutant.within}: {mutant.statement}  ({place.why})"
    where = f"{place.statement.file}:{place.statement.line} {place.statement.within}"
    return f"{mutant.number:3} {place.how:10}  {where}: {place.statement.text}  =>  {place.mutated}"


def _record(path: Path) -> None:
    results = {result["number"]: result for result in read_results(path)}
    seed, revision = listing.heading()
    mutants = [
        replace(one, status=results[one.number]["status"], killed_by=results[one.number].get("by", ""))
        if one.number in results
        else one
        for one in listing.load()
    ]
    listing.save(mutants, seed=seed, revision=revision)


if __name__ == "__main__":
    raise SystemExit(main())
