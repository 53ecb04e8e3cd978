"""``specreason import-trace``: traces of the reference implementation as a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specreason_sgl.view.output import note, say


def import_trace(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="What the reference implementation or a fork of it wrote: a pickle, the printed list beside it, JSON "
            "lines or a JSON array of steps, or a folder of them laid out as PROBLEM/RUN.pickle. A step has `step_id`, "
            "`step_str`, `small_model_step`, `base_model_step` (null if the draft was accepted) and `score`; where "
            "known `num_output_tokens_small`, `num_output_tokens_base`, `small_model_time`, `base_model_time`, "
            "`eval_time`, `digit_logprobs`, `problem_id` and `run`; the last one has `stop_reason`",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The run folder to write")],
    problems: Annotated[
        Path | None,
        typer.Option("--problems", help="Questions and answers to grade by, as `eval` reads them; by id, or by place"),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="Score at which drafts were accepted [what the decisions settle]"),
    ] = None,
) -> None:
    """Turn traces of the reference implementation into a run that can be listed and replayed."""
    from datetime import UTC, datetime

    from specreason_sgl.cli.listing import tell_remarks
    from specreason_sgl.evaluation.grading import Grader
    from specreason_sgl.evaluation.reference import (
        BUDGET,
        PROGRAM,
        convert,
        grading_of,
        read_problems,
        read_rows,
        rule_of,
        threshold_of,
    )
    from specreason_sgl.runs.store import RunConfig, writing

    rows = read_rows(source, note)
    known = read_problems(problems) if problems else {}
    if problems and (missing := sorted({str(row.problem_id) for row in rows} - known.keys())):
        note(f"`{problems}` does not hold {len(missing)} of the problems, such as `{missing[0]}`")
    decided = threshold_of(rows, threshold)
    config = RunConfig(
        created=datetime.now(UTC),
        program=PROGRAM,
        pair="imported",
        settings={"threshold": decided, "score": rule_of(rows), "budget": BUDGET},
        command=["specreason", "import-trace", str(source), "--out", str(out)],
    )
    stored = 0
    with Grader(grading_of(known)) as grader, writing(out, config) as writer:
        tell_remarks(writer)
        for record in convert(rows, known, threshold=decided):
            writer.append(grader.graded(record))
            stored += 1
    say(f"imported {stored} solves with {len(rows)} steps into `{out}`", err=True)
    if decided is None:
        note("the threshold is not known; name it with `--threshold`")
    say(f"hint: specreason replay {out}", err=True)
