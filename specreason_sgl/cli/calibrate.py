"""``specreason calibrate``: a threshold that keeps a promise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specreason_sgl.cli.listing import RUNS, RunsFolder, SomeRuns, tell_remarks
from specreason_sgl.errors import UsageError
from specreason_sgl.files import refuse_existing, write_new
from specreason_sgl.view.output import note, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from specreason_sgl.evaluation.thresholds import Calibration, Found
    from specreason_sgl.runs.store import Run

OUTPUT = "Output"


def calibrate(
    run: SomeRuns = None,
    risk: Annotated[float, typer.Option("--risk", help="The wanted level: the risk shall be below it")] = 0.02,
    confidence: Annotated[float, typer.Option("--confidence", help="With which probability it shall be")] = 0.9,
    of: Annotated[
        str,
        typer.Option(
            "--of",
            help="The risk: `wrong-steps` accepted, from judged drafts; or `accuracy` lost, from a job with a mode for "
            "each threshold",
        ),
    ] = "wrong-steps",
    mode: Annotated[
        str | None, typer.Option("--mode", help="This mode's drafts; with `--of accuracy` this mode and its like")
    ] = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="Also fit a score rule, on half of the problems; the other half is for tests")
    ] = False,
    coverage: Annotated[
        int, typer.Option("--coverage", min=0, help="Check the promise in so many splits by problem")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write what is chosen into this `.json`, for `--score`", rich_help_panel=OUTPUT),
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            "--plots", help="Draw the curves into this folder, anew if they are there", rich_help_panel=OUTPUT
        ),
    ] = None,
    image: Annotated[
        str, typer.Option("--format", help="Of the picture: `svg` or `png`", rich_help_panel=OUTPUT)
    ] = "svg",
    json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output", rich_help_panel=OUTPUT)] = False,
    runs: RunsFolder = RUNS,
) -> None:
    """Choose the threshold and the score rule that accept most drafts while a risk stays below a wanted level."""
    from specreason_sgl.runs import index as shelf
    from specreason_sgl.runs.store import read_run

    _check(of, risk, confidence, out, fit=fit)
    _need()
    stored = [read_run(shelf.find(name, runs)) for name in run or ["latest"]]
    for each in stored:
        tell_remarks(each)
    if of == "accuracy":
        found = _by_modes(stored, mode, risk, confidence, coverage)
    else:
        found = _by_drafts(stored, mode, risk, confidence, coverage, fit=fit)
    _show(found.calibration, as_json=json)
    if out and found.rule is not None:
        _write(out, found, stored)
    if plots:
        from specreason_sgl.evaluation.plots import draw_thresholds

        for path in draw_thresholds(found.calibration, plots, image):
            say(f"plot: {path}", err=True)
    if out and found.rule is None:
        raise typer.Exit(1)


def _check(of: str, risk: float, confidence: float, out: Path | None, *, fit: bool) -> None:
    from specreason_sgl.text.score_file import ENDING

    for name, value in (("risk", risk), ("confidence", confidence)):
        if not 0 < value < 1:
            raise UsageError(f"`--{name} {value:g}` is no share between 0 and 1")
    if of not in {"wrong-steps", "accuracy"}:
        raise UsageError(f"there is no risk `{of}`", hint="use `wrong-steps` or `accuracy`")
    if of == "accuracy" and fit:
        raise UsageError("`--of accuracy` does not go with `--fit`")
    if out and out.suffix != ENDING:
        raise UsageError(f"`{out}` does not end in `{ENDING}`, by which `--score` knows such files")
    if out:
        refuse_existing(out)


def _need() -> None:
    from importlib.util import find_spec

    if find_spec("mapie") is None:
        raise UsageError("thresholds are certified with MAPIE", hint="`pip install 'specreason_sgl[calibrate]'`")


def _by_modes(stored: Sequence[Run], mode: str | None, risk: float, confidence: float, splits: int) -> Found:
    from dataclasses import replace

    from specreason_sgl.evaluation import thresholds
    from specreason_sgl.evaluation.report import stored_job

    if len(stored) > 1:
        raise UsageError("`--of accuracy` is about one run")
    (run,) = stored
    families = thresholds.families(run.records, stored_job(run))
    meant = [family for family in families if mode in (None, *thresholds.names_of(family))]
    if not meant:
        known = ", ".join(f"`{name}`" for family in families for name in thresholds.names_of(family))
        raise UsageError(f"the mode `{mode}` has no other thresholds beside it", hint=f"these have: {known}")
    names = thresholds.names_of(meant[0])
    if len(meant) > 1:
        others = ", ".join(thresholds.names_of(family)[0] for family in meant[1:])
        note(f"this is about {', '.join(names)}; for others name one with `--mode`: {others}")
    curves = thresholds.curves_by_mode(run.records, meant[0])
    pace = thresholds.pace_of([record.tally for record in run.records if record.mode in names])
    found = thresholds.calibrate(curves, "accuracy", risk, confidence, pace)
    if not splits:
        return found
    checked = thresholds.coverage(curves, risk, confidence, splits)
    return replace(found, calibration=found.calibration.model_copy(update={"coverage": checked}))


def _by_drafts(
    stored: Sequence[Run], mode: str | None, risk: float, confidence: float, splits: int, *, fit: bool
) -> Found:
    from dataclasses import replace

    from specreason_sgl.evaluation import audit as audits
    from specreason_sgl.evaluation import thresholds

    records = [record for each in stored for record in each.records]
    judging = audits.judging_modes(records)
    if not judging or mode not in (None, *judging):
        raise UsageError(
            "no drafts that a judge has scored are stored there", hint="calibrate on a run of `specreason eval`"
        )
    chosen = mode or judging[0]
    if mode is None and len(judging) > 1:
        note(f"this is about `{chosen}`; `--mode` can be {', '.join(judging)}")
    some = [record for record in records if record.mode == chosen]
    drafts, _, left_out = audits.collect(some, "steps")
    if not drafts:
        raise UsageError(
            "which drafts are wrong is not known",
            hint="that needs a run on `stories` or `tales`; on other problems use `--of accuracy`",
        )
    if left_out:
        note(f"{left_out} judged drafts whose truth is not known are left out")
    pace = thresholds.pace_of([record.tally for record in some])
    found = thresholds.calibrate_drafts(drafts, risk, confidence, fitting=fit, pace=pace, mode=chosen)
    if not splits:
        return found
    checked = thresholds.coverage_of_drafts(drafts, risk, confidence, splits, fitting=fit)
    return replace(found, calibration=found.calibration.model_copy(update={"coverage": checked}))


def _write(path: Path, found: Found, stored: Sequence[Run]) -> None:
    from specreason_sgl.text.score_file import ScoreFile

    made = found.calibration
    if found.rule is None or made.chosen is None:
        return
    told = made.model_dump(mode="json", include={"of", "risk", "confidence", "mode", "problems", "fitted_on", "chosen"})
    told["runs"] = [each.folder.name for each in stored]
    file = ScoreFile(score=found.rule, threshold=made.chosen.threshold, promise=told)
    write_new(path, file.model_dump_json(indent=2) + "\n")
    say(f"score: {path}", err=True)


def _show(made: Calibration, *, as_json: bool) -> None:
    from specreason_sgl.evaluation.report import rendered
    from specreason_sgl.evaluation.thresholds import conclusion, table

    if as_json:
        from specreason_sgl.view.json_lines import json_line

        say(json_line(made.model_dump(mode="json")))
        return
    from specreason_sgl.view.display import console

    paper = console()
    for part in rendered(table(made)):
        paper.print(part)
    for line in conclusion(made):
        say(line)
