"""``specreason diff``: where two runs of the same problems differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from specreason_sgl.cli.listing import RUNS, RunsFolder
from specreason_sgl.view.output import Output, say

if TYPE_CHECKING:
    from specreason_sgl.runs.diff import RunDiff
    from specreason_sgl.runs.store import Run

DIFFERENT = 1


def diff(
    left: Annotated[
        str, typer.Argument(metavar="RUN", help="A run folder, a piece of its name, `latest` or `example`")
    ],
    right: Annotated[str, typer.Argument(metavar="RUN", help="Another run, named likewise")],
    json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output")] = False,
    runs: RunsFolder = RUNS,
) -> None:
    """Show the first difference of every problem in two runs; exits with 0 if there is none, else with 1."""
    from specreason_sgl.runs.diff import diff_runs
    from specreason_sgl.runs.index import find
    from specreason_sgl.runs.store import read_run

    stored = [read_run(find(name, runs)) for name in (left, right)]
    found = diff_runs(stored[0].records, stored[1].records)
    if json:
        from specreason_sgl.view.json_lines import json_line

        headers = {"left": _header(stored[0]), "right": _header(stored[1])}
        say(json_line({**headers, **found.as_json()}))
    else:
        _print(stored, found)
    raise typer.Exit(0 if found.is_same else DIFFERENT)


def _header(run: Run) -> dict[str, object]:
    return {
        "run": str(run.folder),
        "repeatability": run.config.repeatability if run.config else None,
        "remarks": run.remarks,
    }


def _print(stored: list[Run], found: RunDiff) -> None:
    from specreason_sgl.view.display import console
    from specreason_sgl.view.text import one_line, shorten

    output, width = Output(), console().width
    for side, run in zip(("left", "right"), stored, strict=True):
        words = run.config and run.config.repeatability
        output.line(f"{side:<6} {one_line(str(run.folder))}" + (f"  ({one_line(words)})" if words else ""))
        for remark in run.remarks:
            output.line(f"note: {one_line(remark)}")
    for each in found.different:
        output.line(f"{one_line(f'{each.problem} {each.mode} #{each.repeat}')}: {each.what}")
        for side, text in (("left", each.left), ("right", each.right)):
            output.line(f"  {side:<6} {shorten(_from(text, each.left, each.right, width // 3), width - 12)}")
    for side, names in (("left", found.only_left), ("right", found.only_right)):
        for name in names:
            output.line(f"{one_line(name)}: only on the {side}")
    total = found.same + len(found.different) + len(found.only_left) + len(found.only_right)
    alike = found.same + sum(each.same_answer for each in found.different)
    answers = f", {alike} have the same answer" if found.different else ""
    output.line(f"{found.same} of {total} solves are the same{answers}")


def _from(text: str, left: str, right: str, before: int) -> str:
    """A long text, from ``before`` characters before the first difference on."""
    same = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    start = max(0, same - before)
    return f"…{text[start:]}" if start else text
