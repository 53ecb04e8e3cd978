"""``specreason replay``: a stored run again, without a server or a GPU."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specreason_sgl.cli.listing import RUNS, RunsFolder, tell_remarks
from specreason_sgl.errors import UsageError
from specreason_sgl.view.output import Output, say

if TYPE_CHECKING:
    from specreason_sgl.runs.redecide import Redecision
    from specreason_sgl.runs.store import Run, SolveRecord
    from specreason_sgl.text.scoring import ScoreRule
    from specreason_sgl.view.compare import Side
    from specreason_sgl.view.live import Scene

SPEEDS = {"1": 1.0, "4": 4.0, "instant": None}
WHICH, AGAIN, OUTPUT = "Which solve", "Other decisions", "Output"


def replay(
    run: Annotated[
        str, typer.Argument(help="A run folder, the beginning or end of its name, `latest` or `example`")
    ] = "latest",
    problem: Annotated[str | None, typer.Option("--problem", help="The problem's id", rich_help_panel=WHICH)] = None,
    mode: Annotated[str | None, typer.Option("--mode", help="The mode that solved it", rich_help_panel=WHICH)] = None,
    repeat: Annotated[int | None, typer.Option("--repeat", help="Which repeat", rich_help_panel=WHICH)] = None,
    speed: Annotated[str, typer.Option("--speed", help="`1`, `4` or `instant`")] = "1",
    step: Annotated[bool, typer.Option("--step", help="Go on by one step with `n`")] = False,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="Decide every draft again at this threshold", rich_help_panel=AGAIN),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            "--score",
            help="Decide again by this score: `expected`, `greedy`, or a file of `specreason calibrate`",
            rich_help_panel=AGAIN,
        ),
    ] = None,
    compare: Annotated[
        str | None, typer.Option("--compare", metavar="RUN", help="Show another run's solve of the problem beside it")
    ] = None,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write `.svg`, `.html` or `.md`", rich_help_panel=OUTPUT)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output", rich_help_panel=OUTPUT)] = False,
    runs: RunsFolder = RUNS,
) -> None:
    """Watch a stored run again, decide it again at another threshold, compare it, or export it."""
    from specreason_sgl.runs import index as shelf
    from specreason_sgl.runs.store import read_run
    from specreason_sgl.text.score_file import rule_given

    if speed not in SPEEDS:
        raise UsageError(f"there is no speed `{speed}`", hint="use `1`, `4` or `instant`")
    if compare and (export or json or threshold is not None or score):
        raise UsageError("`--compare` goes with neither `--export`, `--json`, `--threshold` nor `--score`")
    stored = read_run(shelf.find(run, runs))
    tell_remarks(stored)
    records = _chosen(stored, problem, mode, repeat)
    rule, certified = rule_given(score) if score is not None else (None, None)
    threshold = certified if threshold is None else threshold
    if json:
        _print_json(stored, records, threshold, rule)
    elif compare:
        other = read_run(shelf.find(compare, runs))
        tell_remarks(other)
        _compare(stored, records, other)
    elif export:
        _export(records, export, threshold, rule)
    else:
        _show(stored, records, speed, threshold, rule, by_step=step)


def _chosen(stored: Run, problem: str | None, mode: str | None, repeat: int | None) -> list[SolveRecord]:
    if not stored.records:
        raise UsageError(f"`{stored.folder}` holds no solve yet")
    found = [
        record
        for record in stored.records
        if problem in (None, record.problem.id) and mode in (None, record.mode) and repeat in (None, record.repeat)
    ]
    if not found:
        known = list(dict.fromkeys(f"`{record.problem.id}`" for record in stored.records))
        some = ", ".join(known[:5]) + (f" and {len(known) - 5} more" if len(known) > 5 else "")  # noqa: PLR2004
        raise UsageError("the run holds no such solve", hint=f"its problems are {some}")
    return found


def _redecided(record: SolveRecord, threshold: float | None, rule: ScoreRule | None) -> Redecision | None:
    """The decisions made again; a threshold or rule that is not given stays as stored."""
    from specreason_sgl.runs.redecide import redecide, why_not
    from specreason_sgl.view.state import SolveState

    if threshold is None and rule is None:
        return None
    if reason := why_not(record.events):
        raise UsageError(
            f"the drafts of `{record.mode}` cannot be decided again: {reason}",
            hint="name a mode that a judge's score decides with `--mode`",
        )
    stored = SolveState.of(record.events)
    wanted = stored.threshold if threshold is None else threshold
    if wanted is None and stored.tally.judged:
        raise UsageError(f"the threshold of `{record.mode}` is not known", hint="name one with `--threshold`")
    if wanted is None:
        raise UsageError(f"`{record.mode}` judged nothing, so there is nothing to decide again")
    return redecide(record.events, wanted, rule or stored.rule)


def _one(records: Sequence[SolveRecord]) -> SolveRecord:
    if len(records) > 1:
        raise UsageError(
            f"{len(records)} solves are meant", hint="choose one with `--problem`, `--mode` and `--repeat`"
        )
    return records[0]


def _title(record: SolveRecord) -> str:
    repeat = f" #{record.repeat}" if record.repeat else ""
    pair = f" · {record.pair}" if record.pair else ""
    return f"{record.problem.id}{repeat} · {record.mode}{pair}"


def _print_json(stored: Run, records: Sequence[SolveRecord], threshold: float | None, rule: ScoreRule | None) -> None:
    from specreason_sgl.view.batch_sinks import solve_row
    from specreason_sgl.view.json_lines import json_line

    solves: list[dict[str, Any]] = []
    for record in records:
        row = solve_row(record)
        if redecision := _redecided(record, threshold, rule):
            row["redecision"] = redecision.as_row()
        row["events"] = [event.model_dump(mode="json") for event in record.events]
        solves.append(row)
    config = stored.config.model_dump(mode="json") if stored.config else None
    status = stored.status.status if stored.status else None
    say(
        json_line(
            {"run": stored.folder.name, "status": status, "config": config, "remarks": stored.remarks, "solves": solves}
        )
    )


def _export(records: Sequence[SolveRecord], path: Path, threshold: float | None, rule: ScoreRule | None) -> None:
    from specreason_sgl.view.export import export
    from specreason_sgl.view.state import SolveState

    record = _one(records)
    export(path, SolveState.of(record.events), _title(record), _redecided(record, threshold, rule))
    say(f"wrote `{path}`", err=True)


def _on_screen() -> bool:
    """Whether there is a screen, and a keyboard to leave it with."""
    from specreason_sgl.view.display import choose, is_screen
    from specreason_sgl.view.live import has_keys

    return choose("auto", stdout_isatty=is_screen(sys.stdout), env=os.environ) == "rich" and has_keys(sys.stdin)


def _show(
    stored: Run,
    records: Sequence[SolveRecord],
    speed: str,
    threshold: float | None,
    rule: ScoreRule | None,
    *,
    by_step: bool,
) -> None:
    if not _on_screen():
        _print_plain(records, threshold, rule)
        return
    from specreason_sgl.view.display import console, has_colour
    from specreason_sgl.view.live import show, unwinding
    from specreason_sgl.view.replay import ReplayScene
    from specreason_sgl.view.scenes import RunScene

    colour = has_colour(os.environ)

    def open_one(record: SolveRecord) -> Scene:
        return ReplayScene(
            record.events,
            _title(record),
            colour=colour,
            speed=SPEEDS[speed],
            by_step=by_step,
            redecision=_redecided(record, threshold, rule),
        )

    scene: Scene = (
        open_one(records[0]) if len(records) == 1 else RunScene(stored.folder.name, records, open_one, colour=colour)
    )
    with unwinding():
        show(scene, console())


def _print_plain(records: Sequence[SolveRecord], threshold: float | None, rule: ScoreRule | None) -> None:
    """Print one solve line by line, or several as a list, without using a screen."""
    from specreason_sgl.view.display import console
    from specreason_sgl.view.listing import EndedSolve, ended_line
    from specreason_sgl.view.plain import PlainSink, redecided_lines

    again = [(record, _redecided(record, threshold, rule)) for record in records]
    output, width = Output(), console().width
    if len(records) > 1:
        for record in records:
            output.line(ended_line(EndedSolve.of(record), width).plain.strip())
    else:
        sink = PlainSink()
        for event in records[0].events:
            sink(event)
    for record, redecision in again:
        if redecision:
            for words in redecided_lines(_title(record), redecision):
                output.line(words)
    if len(records) > 1:
        say("hint: `--problem`, `--mode` and `--repeat` choose one to be shown step by step", err=True)


def _compare(stored: Run, records: Sequence[SolveRecord], other: Run) -> None:
    from specreason_sgl.view.compare import compare_report
    from specreason_sgl.view.display import console, has_colour
    from specreason_sgl.view.items import Look
    from specreason_sgl.view.live import show, unwinding
    from specreason_sgl.view.scenes import CompareScene

    left = records[0]
    right = _counterpart(left, other, same=stored.folder.resolve() == other.folder.resolve())
    sides = _side(stored, left), _side(other, right)
    if _on_screen():
        with unwinding():
            show(CompareScene(*sides, colour=has_colour(os.environ)), console())
        return
    output = Output()
    for row in compare_report(*sides, Look(width=console().width, colour=False)).plain.split("\n"):
        output.line(row.rstrip())


def _side(stored: Run, record: SolveRecord) -> Side:
    from specreason_sgl.view.compare import Side
    from specreason_sgl.view.state import SolveState

    return Side(f"{_title(record)} · {stored.folder.name}", SolveState.of(record.events))


def _counterpart(record: SolveRecord, other: Run, *, same: bool) -> SolveRecord:
    """The solve of the same problem in another run, or another solve of it in the same one."""
    found = [
        candidate
        for candidate in other.records
        if record.problem.id == candidate.problem.id or record.problem.question == candidate.problem.question
        if not (same and candidate.key == record.key)
    ]
    if not found:
        raise UsageError(f"`{other.folder}` holds no other solve of `{record.problem.id}`")
    return min(
        found,
        key=lambda candidate: (
            candidate.problem.question != record.problem.question,
            same and candidate.mode == record.mode,
            candidate.repeat != record.repeat,
        ),
    )
