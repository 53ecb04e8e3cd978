"""``specreason bench``: what the orchestration is worth on the pair at hand."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from specreason_sgl.cli.pair import ApiKey, BaseUrl, PairName, PairOptions, SmallUrl
from specreason_sgl.errors import UsageError

RESULT = "bench.json"


def bench(
    limit: Annotated[int, typer.Option("--limit", min=2, help="Stories to solve with every variant")] = 40,
    load: Annotated[int, typer.Option("--load", min=2, help="Stories to solve many at once")] = 64,
    out: Annotated[Path | None, typer.Option("--out", help="The run folder [runs/TIME-bench-...]")] = None,
    pair: PairName = None,
    base: BaseUrl = None,
    small: SmallUrl = None,
    api_key: ApiKey = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Markdown on standard output")] = False,
    json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output")] = False,
) -> None:
    """Measure the variants of the method in turn, and its parts, as ratios; nothing else should run meanwhile."""
    import os

    from rich.console import Console

    from specreason_sgl.cli.evaluate import job_config
    from specreason_sgl.cli.pair import open_pair
    from specreason_sgl.evaluation import bench as benches
    from specreason_sgl.evaluation.datasets import load as load_problems
    from specreason_sgl.evaluation.grading import Grader
    from specreason_sgl.evaluation.job import read_job
    from specreason_sgl.evaluation.report import as_markdown, provenance, rendered, report_run
    from specreason_sgl.programs import load as load_program
    from specreason_sgl.store import RunWriter, closing, new_folder, read_run
    from specreason_sgl.view.display import open_batch_display

    options = PairOptions(pair, base, small, api_key)
    job = read_job(Path("bench"), {"dataset.limit": limit})
    problems = load_problems(job.dataset)
    more = load_problems(job.dataset.model_copy(update={"limit": load}))
    folder = out or new_folder(Path(os.environ.get("SPECREASON_RUNS") or "runs"), job.name)
    console = Console(stderr=True, highlight=False)
    with ExitStack() as stack:
        with console.status("connecting") as status:
            opened = stack.enter_context(open_pair(options, status.update))
        from specreason_sgl.evaluation.runner import Runner

        if opened.base is None or opened.small is None:
            raise UsageError("a bench needs both models", hint="name them with `--base URL --small URL`")
        program = load_program("specreason")
        writer = RunWriter(folder, job_config(job, problems, options, opened, None))
        with closing(writer), Grader(job.dataset.graded, workers=1) as grader:
            sink = stack.enter_context(
                open_batch_display("plain", len(job.modes) * len(problems), title=job.name, stream=sys.stderr)
            )
            runner = Runner(job, problems, opened, writer, grader, sink)
            runner.warm_up(program)
            records = runner.run()
        made = benches.measure(
            opened, records, program, job.modes[0].settings, more, lambda line: console.print(f"measuring {line}")
        )
    (folder / RESULT).write_text(made.model_dump_json(indent=2) + "\n", encoding="utf-8")
    tables = benches.tables(made)
    if json:
        typer.echo(made.model_dump_json())
    elif markdown:
        footer = "\n".join(f"- {line}" for line in provenance(report_run(read_run(folder))))
        typer.echo("\n\n".join((*map(as_markdown, tables), footer)))
    else:
        shown = Console(highlight=False)
        for table in tables:
            shown.print(*rendered(table))
    typer.echo(f"run: {folder}", err=True)
