"""``specreason list``: the stored runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specreason_sgl.view.output import Output, note, say

if TYPE_CHECKING:
    from specreason_sgl.runs.index import RunSummary
    from specreason_sgl.runs.store import Run, RunWriter

SomeRuns = Annotated[
    list[str] | None, typer.Argument(metavar="RUN", help="Run folders, pieces of their names, `latest` or `example`")
]
RunsFolder = Annotated[Path, typer.Option("--runs", envvar="SPECREASON_RUNS", help="Where the runs are stored")]
RUNS = Path("runs")


def tell_remarks(about: Run | RunWriter) -> None:
    """Print the remarks about a run folder on standard error, with control characters made visible."""
    for remark in about.remarks:
        note(remark)


def list_runs(
    runs: RunsFolder = RUNS,
    json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output")] = False,
) -> None:
    """List the stored runs: how they ended, what they ran, what came out, when."""
    from specreason_sgl.runs.index import folders, summarise_run

    summaries = sorted((summarise_run(folder) for folder in folders(runs)), key=lambda summary: summary.when)
    if json:
        from specreason_sgl.view.json_lines import json_line

        say(json_line([_row(summary) for summary in summaries]))
        return
    if not summaries:
        say(f"no runs in `{runs}`", err=True)
        say("hint: `specreason run` makes one; `specreason replay example` shows one that is here already", err=True)
        return
    _print(summaries)


def _print(summaries: list[RunSummary]) -> None:
    import os

    from specreason_sgl.view.display import choose, console, has_colour, is_screen
    from specreason_sgl.view.listing import runs_page

    paper = console()
    if choose("auto", stdout_isatty=is_screen(sys.stdout), env=os.environ) == "rich":
        paper.print(runs_page(summaries, paper.width, colour=has_colour(os.environ)), soft_wrap=True)
        return
    output = Output()
    for row in runs_page(summaries, paper.width, colour=False).plain.split("\n"):
        output.line(row.rstrip())


def _row(summary: RunSummary) -> dict[str, object]:
    config = summary.config
    modes = {
        mode: {
            "solves": count.solves,
            "right": count.right,
            "graded": count.graded,
            "failed": count.failed,
            "accuracy": count.accuracy,
        }
        for mode, count in summary.modes.items()
    }
    return {
        "run": summary.name,
        "folder": str(summary.folder),
        "status": summary.status,
        "program": config.program if config else None,
        "pair": config.pair if config else None,
        "solves": summary.solves,
        "modes": modes,
        "created": config.created.isoformat() if config else None,
        "updated": summary.updated.isoformat() if summary.updated else None,
        "remarks": summary.remarks,
    }
