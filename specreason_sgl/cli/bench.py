"""``specreason bench``: what the orchestration is worth on the pair at hand."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specreason_sgl.cli.options import ApiKey, BaseUrl, PairName, SmallUrl
from specreason_sgl.errors import UsageError
from specreason_sgl.servers.opening import PairOptions
from specreason_sgl.view.output import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from specreason_sgl.evaluation.report import Table

RESULT = "bench.json"


def bench(
    limit: Annotated[int, typer.Option("--limit", min=2, help="Stories to solve with every variant")] = 40,
    load: Annotated[int, typer.Option("--load", min=2, help="Stories to solve many at once")] = 64,
    out: Annotated[Path | None, typer.Option("--out", help="The run folder [runs/TIME-bench-...]")] = None,
    pair: PairName = None,
    base: BaseUrl = None,
    small: SmallUrl = None,
    api_key: ApiKey = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure what tokens, judgements and calls cost, and predict from it")
    ] = False,
    predict: Annotated[
        str | None, typer.Option("--predict", metavar="RUN", help="With --calibrate: for a stored run's acceptance")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Markdown on standard output")] = False,
    json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output")] = False,
) -> None:
    """Measure the variants of the method in turn, and its parts, as ratios; nothing else should run meanwhile."""
    import os

    from specreason_sgl.cli.listing import tell_remarks
    from specreason_sgl.evaluation.datasets import load as load_problems
    from specreason_sgl.evaluation.evaluating import job_config
    from specreason_sgl.evaluation.grading import Grader
    from specreason_sgl.evaluation.job import read_job, resolved
    from specreason_sgl.evaluation.modes import load_programs
    from specreason_sgl.evaluation.report import provenance, report_run
    from specreason_sgl.lang.loading import load as load_program
    from specreason_sgl.lang.scope import Scope
    from specreason_sgl.lang.stopping import stoppable
    from specreason_sgl.measure import bench as benches
    from specreason_sgl.runs.store import RunWriter, closing, new_folder, read_run
    from specreason_sgl.servers.opening import open_pair
    from specreason_sgl.view.display import console, open_batch_display

    options = PairOptions(pair, base, small, api_key).or_kept_up()
    if calibrate:
        _calibrate(options, predict, out, markdown=markdown, json=json)
        return
    if predict:
        raise UsageError("`--predict` needs `--calibrate`")
    job = read_job(Path("bench"), {"dataset.limit": limit})
    job = resolved(job, load_programs(job.modes))
    problems = load_problems(job.dataset)
    more = load_problems(job.dataset.model_copy(update={"limit": load}))
    folder = out or new_folder(Path(os.environ.get("SPECREASON_RUNS") or "runs"), job.name)
    with ExitStack() as stack:
        stack.enter_context(stoppable(scope := Scope()))
        with console(sys.stderr).status("connecting") as status:
            opened = stack.enter_context(open_pair(options, status.update, scope))
        from specreason_sgl.evaluation.runner import Runner

        if opened.base is None or opened.small is None:
            raise UsageError("a bench needs both models", hint="name them with `--base URL --small URL`")
        program = load_program("specreason")
        writer = RunWriter(folder, job_config(job, problems, options.label, opened.models, job.concurrency))
        tell_remarks(writer)
        with closing(writer), Grader(job.dataset.graded, workers=1) as grader:
            sink = stack.enter_context(
                open_batch_display("plain", len(job.modes) * len(problems), title=job.name, stream=sys.stderr)
            )
            runner = Runner(job, problems, opened, writer, grader, sink, scope=scope)
            runner.warm_up(program)
            runner.run()
        stored = read_run(folder)
        settings = job.modes[0].settings
        made = benches.measure(opened, stored.records, program, settings, more, _measuring)
    (folder / RESULT).write_text(made.model_dump_json(indent=2) + "\n", encoding="utf-8")
    footer = [f"- {line}" for line in provenance(report_run(stored))]
    _show(made, benches.tables(made), footer, markdown=markdown, json=json)
    say(f"run: {folder}", err=True)


def _measuring(line: str) -> None:
    say(f"measuring {line}", err=True)


def _calibrate(options: PairOptions, predict: str | None, out: Path | None, *, markdown: bool, json: bool) -> None:
    from specreason_sgl.cli.listing import RUNS, tell_remarks
    from specreason_sgl.lang.scope import Scope
    from specreason_sgl.lang.stopping import stoppable
    from specreason_sgl.measure import cost_model
    from specreason_sgl.runs import index as shelf
    from specreason_sgl.runs.store import read_run
    from specreason_sgl.servers.opening import open_pair
    from specreason_sgl.view.display import console

    acceptances, step_tokens = list(cost_model.ACCEPTANCES), cost_model.STEP_TOKENS
    if predict:
        stored = read_run(shelf.find(predict, RUNS))
        tell_remarks(stored)
        try:
            own, step_tokens = cost_model.observed(stored.records)
        except ValueError as error:
            raise UsageError(f"`{predict}`: {error}") from error
        acceptances.append(own)
    with ExitStack() as stack:
        stack.enter_context(stoppable(scope := Scope()))
        with console(sys.stderr).status("connecting") as status:
            opened = stack.enter_context(open_pair(options, status.update, scope))
        if opened.base is None or opened.small is None:
            raise UsageError("a pair has two models", hint="name them with `--base URL --small URL`")
        costs = cost_model.calibrate(opened.base, opened.small, _measuring)
    if out:
        out.write_text(costs.model_dump_json(indent=2) + "\n", encoding="utf-8")
    made = cost_model.tables(costs, sorted(acceptances), step_tokens, cost_model.CONTEXTS[0])
    _show(costs, made, [], markdown=markdown, json=json)


def _show(made: BaseModel, tables: Sequence[Table], footer: Sequence[str], *, markdown: bool, json: bool) -> None:
    from specreason_sgl.evaluation.report import as_markdown, rendered
    from specreason_sgl.view.display import console
    from specreason_sgl.view.json_lines import json_line

    if json:
        say(json_line(made.model_dump(mode="json")))
    elif markdown:
        say("\n\n".join((*map(as_markdown, tables), "\n".join(footer))))
    else:
        paper = console()
        for table in tables:
            for part in rendered(table):
                paper.print(part)
