"""Runs the demo's chapters, one after the other, on one local AWS."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.text import Text

from phicrypt.demo import CHAPTERS
from phicrypt.demo.stage import DemoError, Stage, Stopwatch
from phicrypt.errors import ConfigurationError
from phicrypt.testing.local_stack import LocalAws


def available_chapters() -> tuple[str, ...]:
    """Names of the chapters that this installation has, in order."""
    return tuple(name for name in CHAPTERS if find_spec(f"phicrypt.demo.{name}") is not None)


def tell_story(names: Iterable[str] = (), *, file: Path | None = None, console: Console | None = None) -> bool:
    """Tell the named chapters (all by default); whether everything that they check held.

    A chapter that fails is reported, and the next one is told. Raises ConfigurationError for an
    unknown chapter and where the extra ``demo`` is not installed.
    """
    console = console or Console(highlight=False)
    available = available_chapters()
    chosen = tuple(names) or available
    for name in chosen:
        if name not in available:
            raise ConfigurationError(f"there is no chapter {name!r}; there are {', '.join(available)}")
    failed = []
    with Stopwatch() as watch, LocalAws() as aws, tempfile.TemporaryDirectory(prefix="phicrypt-demo-") as folder:
        stage = Stage(aws, Path(folder), file=file, console=console)
        console.print(Text(f"A local AWS listens on {aws.endpoint_url}. No account and no credentials are used."))
        for name in chosen:
            if not _tell(name, stage, console):
                failed.append(name)
    console.print()
    if failed:
        console.print(Text(f"Did not hold: {', '.join(failed)}.", style="bold red"))
    else:
        done = f"{stage.checks_held} checks held in {watch.seconds:.1f} seconds."
        console.print(
            Text(f"{done} Change the key ARN, and the same code runs on your account.", style="bold green")
        )
    return not failed


def _tell(name: str, stage: Stage, console: Console) -> bool:
    try:
        import_module(f"phicrypt.demo.{name}").tell(stage)
    except DemoError:
        return False
    except Exception as error:  # noqa: BLE001 - whatever broke a chapter, the others are told
        console.print(Text(f"  ✗ {type(error).__name__}: {error}", style="bold red"))
        return False
    return True
