"""``python -m benchmarks``: phicrypt, its peers and the floor, measured in turns."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import beside, machine, micro, plots, report
from benchmarks.measure import (
    FULL,
    QUICK,
    Case,
    Outcome,
    Profile,
    UnavailableError,
    as_record,
    matches,
    run_case,
    select,
)

_GROUPS: Final = ("messages", "dynamodb", "startup", "branch_keys", "streams", "s3", "scaling")
_QUICK_SECONDS: Final = 105.0
"""A quick run begins no case after this, so that it ends in two minutes on slower machines too."""
_PARTS: Final = "parts"
"""Selected like a group: the parts of each operation, which :mod:`benchmarks.micro` measures."""
_DEFAULT_FOLDER: Final = Path(__file__).parents[1] / "docs" / "benchmarks"
_console = Console(stderr=True)


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Few short rounds: two minutes at most.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="A case, a group or a shell pattern; repeatable.")] = None,
    compare: Annotated[Path | None, typer.Option(help="An earlier run's JSON: show what got slower.")] = None,
    beside_checkout: Annotated[
        Path | None, typer.Option("--beside", help="Another checkout: how much longer does this one take?")
    ] = None,
    rounds: Annotated[int, typer.Option(help="With --beside: paired rounds of each bar.", min=1)] = beside.ROUNDS,
    list_cases: Annotated[bool, typer.Option("--list", help="Name the cases and stop.")] = False,
    out: Annotated[Path, typer.Option(help="Where JSON, tables and plots go.")] = _DEFAULT_FOLDER,
) -> None:
    """Measure phicrypt beside its peers and the cipher, and hold the ratios against their bars."""
    if beside_checkout is not None:
        raise typer.Exit(_beside(beside_checkout.resolve(), QUICK if quick else FULL, only or [], rounds, out))
    chosen = select(_all_cases(), only or ())
    if list_cases:
        for case in chosen:
            typer.echo(f"{case.group:12} {case.name:28} {case.title}")
        typer.echo(f"{_PARTS:12} {'':28} what each operation is made of (not in quick runs unless named)")
        return
    profile = QUICK if quick else FULL
    with_parts = _PARTS in only if only else not quick
    if not chosen and not with_parts:
        raise typer.BadParameter("no case has that name; --list names them", param_hint="--only")
    if quick:
        chosen.sort(key=lambda case: not case.bars)  # those that are judged, in case time runs out
    run = {"profile": profile.name, "machine": machine.facts(), "load_before": machine.load()}
    started = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    records = []
    with Progress(*columns, console=_console, disable=not _console.is_terminal) as progress:
        task = progress.add_task("", total=len(chosen))
        for case in chosen:
            progress.update(task, description=case.name)
            is_late = quick and not only and time.perf_counter() - started > _QUICK_SECONDS
            late = Outcome({}, failure="a quick run ends in two minutes, and they were nearly over")
            records.append(as_record(case, late if is_late else run_case(case, profile)))
            progress.advance(task)
    if with_parts:
        run["parts"] = _parts(profile)
    run |= {"load_after": machine.load(), "seconds": round(time.perf_counter() - started, 1), "cases": records}
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{profile.name}.json").write_text(json.dumps(run, indent=1) + "\n")
    (out / f"{profile.name}.md").write_text(report.markdown(run))
    plots.draw(run, out)
    typer.echo(report.bars_table(run))
    if compare is not None:
        typer.echo(report.comparison(json.loads(compare.read_text()), run))


def _beside(other: Path, profile: Profile, only: list[str], rounds: int, out: Path) -> int:
    """0 if every bar's interval is below its limit."""
    run: dict[str, object] = {"machine": machine.facts(), "other": machine.revision(other), "load": machine.load()}
    cases = [
        one for one in beside.cases_with_bars(other, profile.name) if matches(one["name"], one["group"], only)
    ]
    if not cases:
        raise typer.BadParameter("no case with a bar has that name; --list names all cases", param_hint="--only")
    compared: list[beside.Compared] = []
    for case in cases:
        _console.print(f"{case['name']}, {rounds} rounds")
        compared += beside.measured(case, lambda: beside.worker_pair(other, profile.name), rounds)
    records = [beside.as_record(one) for one in compared]
    out.mkdir(parents=True, exist_ok=True)
    (out / "beside.json").write_text(json.dumps(run | {"rounds": rounds, "bars": records}, indent=1) + "\n")
    typer.echo(report.beside_table(records))
    return 0 if all(one.is_below for one in compared) else 1


def _parts(profile: Profile) -> dict[str, object]:
    with _console.status("parts of operations, by pyperf"):
        try:
            return micro.run(profile)
        except UnavailableError as error:
            _console.print(f"The parts were not measured: {error}")
            return {}


def _all_cases() -> Iterator[Case]:
    for group in _GROUPS:
        yield from importlib.import_module(f"benchmarks.{group}").cases()


if __name__ == "__main__":
    typer.run(main)
