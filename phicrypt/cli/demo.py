"""``phicrypt demo``: the walkthrough on an embedded local AWS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from phicrypt.cli.console import CHECK_EXIT_CODE

app = typer.Typer()


@app.command()
def demo(
    file: Annotated[
        Path | None,
        typer.Option("--file", exists=True, dir_okay=False, readable=True, help="Encrypt your own file instead."),
    ] = None,
    chapter: Annotated[
        list[str] | None, typer.Option("--chapter", metavar="NAME", help="Tell this chapter only; repeatable.")
    ] = None,
    list_chapters: Annotated[bool, typer.Option("--list", help="List the chapters and exit.")] = False,
) -> None:
    """Watch phicrypt work on an embedded local AWS: real bytes, real keys, no account.

    Needs no AWS credentials and uses none, even if there are some. Your own file is only read, and
    nothing leaves this machine. Ends with exit code 1 if something that it shows did not hold.
    """
    from phicrypt.demo.walkthrough import available_chapters, tell_story

    if list_chapters:
        for name in available_chapters():
            typer.echo(name)
    elif not tell_story(chapter or (), file=file):
        raise typer.Exit(CHECK_EXIT_CODE)
