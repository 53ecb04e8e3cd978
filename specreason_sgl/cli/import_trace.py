"""``specreason import-trace``: traces of the reference implementation as a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from specreason_sgl.view.output import say


def import_trace(
    file: Annotated[Path, typer.Argument(help="Steps as JSON lines, as the reference implementation logs them")],
    out: Annotated[Path, typer.Option("--out", help="The run folder to write")],
    problems: Annotated[
        Path | None,
        typer.Option("--problems", help="Questions and answers as JSON lines with `id`, `problem` and `answer`"),
    ] = None,
) -> None:
    """Turn traces of the reference implementation into a run that can be listed and replayed."""
    from datetime import UTC, datetime

    from specreason_sgl.importing import BUDGET, PROGRAM, THRESHOLD, convert, read_problems, read_rows
    from specreason_sgl.store import RunConfig, writing

    rows = read_rows(file)
    known = read_problems(problems) if problems else {}
    config = RunConfig(
        created=datetime.now(UTC),
        program=PROGRAM,
        pair="imported",
        settings={"threshold": THRESHOLD, "score": "greedy", "budget": BUDGET},
        command=["specreason", "import-trace", str(file), "--out", str(out)],
    )
    stored = 0
    with writing(out, config) as writer:
        for record in convert(rows, known):
            writer.append(record)
            stored += 1
    say(f"imported {stored} solves with {len(rows)} steps into `{out}`", err=True)
    say(f"hint: specreason replay {out}", err=True)
