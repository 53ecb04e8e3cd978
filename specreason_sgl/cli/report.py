"""``specreason report``: stored runs as tables and pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specreason_sgl.cli.listing import PIPED, RUNS, RunsFolder

if TYPE_CHECKING:
    from specreason_sgl.evaluation.report import Report


def report(
    run: Annotated[list[str] | None, typer.Argument(help="Run folders, pieces of their names, or `latest`")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Markdown on standard output")] = False,
    json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output")] = False,
    plots: Annotated[Path | None, typer.Option("--plots", help="Draw pictures into this folder")] = None,
    image: Annotated[str, typer.Option("--format", help="Of the pictures: `svg` or `png`")] = "svg",
    runs: RunsFolder = RUNS,
) -> None:
    """Show what stored runs came to, with intervals, and what it takes to repeat them."""
    from specreason_sgl.evaluation import plots as pictures
    from specreason_sgl.evaluation import report as reports
    from specreason_sgl.store import read_run
    from specreason_sgl.view import runs as shelf

    stored = [read_run(shelf.find(name, runs)) for name in run or ["latest"]]
    made = [reports.report_run(each) for each in stored]
    if json:
        from json import dumps

        told = [reports.as_json(each) for each in made]
        typer.echo(dumps(told[0] if len(told) == 1 else told))
    elif markdown:
        typer.echo("\n".join(reports.markdown(each) for each in made), nl=False)
    else:
        for each in made:
            print_report(each)
    if plots:
        for each, source in zip(made, stored, strict=True):
            folder = plots / each.folder.name if len(made) > 1 else plots
            for path in pictures.draw(each, source.records, folder, image):
                typer.echo(f"plot: {path}", err=True)


def print_report(made: Report) -> None:
    """A report as tables on standard output."""
    from rich.console import Console

    from specreason_sgl.evaluation.report import terminal

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED)
    for part in terminal(made):
        console.print(part)
