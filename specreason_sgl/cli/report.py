"""``specreason report``: stored runs as tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specreason_sgl.cli.listing import RUNS, RunsFolder, SomeRuns
from specreason_sgl.errors import UsageError
from specreason_sgl.view.output import note, say

if TYPE_CHECKING:
    from specreason_sgl.evaluation.report import Report


def report(
    run: SomeRuns = None,
    together: Annotated[
        bool,
        typer.Option("--together", help="Runs of one job in parts, each with some of its modes, as one: paired"),
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Markdown on standard output")] = False,
    json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output")] = False,
    plots: Annotated[Path | None, typer.Option("--plots", help="Draw pictures into this folder")] = None,
    image: Annotated[str, typer.Option("--format", help="Of the pictures: `svg` or `png`")] = "svg",
    runs: RunsFolder = RUNS,
) -> None:
    """Show what stored runs came to, with intervals, and what it takes to repeat them."""
    from specreason_sgl.evaluation import plots as pictures
    from specreason_sgl.evaluation import report as reports
    from specreason_sgl.runs import index as shelf
    from specreason_sgl.runs.store import read_run

    stored = [read_run(shelf.find(name, runs)) for name in run or ["latest"]]
    made = [reports.report_together(stored)] if together else [reports.report_run(each) for each in stored]
    told = [each for each in made if each.statistics.summaries]
    if json:
        from specreason_sgl.view.json_lines import json_line

        rows = [reports.as_json(each) for each in made]
        say(json_line(rows[0] if len(rows) == 1 else rows))
    elif markdown and told:
        say("\n".join(reports.markdown(each) for each in told).removesuffix("\n"))
    else:
        for each in told:
            print_report(each)
    if plots:
        records = [run.records for run in stored]
        records = [[record for some in records for record in some]] if together else records
        for each, solves in zip(made, records, strict=True):
            folder = plots / each.name if len(made) > 1 else plots
            for path in pictures.draw(each, solves, folder, image) if each in told else ():
                say(f"plot: {path}", err=True)
    if not json and len(told) < len(made):
        _refuse([each for each in made if each not in told])


def _refuse(empty: Sequence[Report]) -> None:
    for remark in (remark for each in empty for remark in each.remarks):
        note(remark)
    names = " and ".join(f"`{source.folder}` ({source.status})" for each in empty for source in each.sources)
    raise UsageError(f"no solve is stored in {names}", hint="`specreason list` shows how far the runs got")


def print_report(made: Report) -> None:
    """A report as tables on standard output."""
    from specreason_sgl.evaluation.report import terminal
    from specreason_sgl.view.display import console

    paper = console()
    for part in terminal(made):
        paper.print(part)
