"""``specreason report``: stored runs as tables and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
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
    plots: Annotated[
        Path | None, typer.Option("--plots", help="Draw pictures into this folder, anew if they are there")
    ] = None,
    image: Annotated[str, typer.Option("--format", help="Of the pictures: `svg` or `png`")] = "svg",
    export: Annotated[
        Path | None,
        typer.Option("--export", help="Write solves and steps as CSV and Parquet into this folder"),
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(
            "--price",
            metavar="MODEL=NUMBER",
            help="What a token of a model costs, in base tokens [measured in the run]; can be repeated",
        ),
    ] = None,
    runs: RunsFolder = RUNS,
) -> None:
    """Show what stored runs came to, with intervals, and what it takes to repeat them."""
    from specreason_sgl.evaluation import plots as pictures
    from specreason_sgl.evaluation import report as reports
    from specreason_sgl.runs import index as shelf
    from specreason_sgl.runs.store import read_run

    prices = _prices(price or ())
    stored = [read_run(shelf.find(name, runs)) for name in run or ["latest"]]
    made = (
        [reports.report_together(stored, prices)] if together else [reports.report_run(each, prices) for each in stored]
    )
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
    if export and told:
        from specreason_sgl.evaluation import rows as plain

        for path in plain.export(export, [(each.folder.name, each.records) for each in stored]):
            say(f"wrote `{path}`", err=True)
    if not json and len(told) < len(made):
        _refuse([each for each in made if each not in told])


def _prices(given: Sequence[str]) -> dict[str, float]:
    from specreason_sgl.evaluation.statistics import UNIT
    from specreason_sgl.tables import parse_override

    prices = dict(map(parse_override, given))
    for model, value in prices.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf:
            raise UsageError(f"the price of `{model}` is no number from 0 on: `{value}`")
    if prices.get(UNIT, 1) != 1:
        raise UsageError(f"a token of `{UNIT}` costs 1", hint="prices of other models are in its tokens")
    return prices


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
