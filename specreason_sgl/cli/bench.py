"""``specreason bench``: what the orchestration is worth on the pair at hand."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specreason_sgl.cli.options import ApiKey, BaseUrl, PairName, SmallUrl
from specreason_sgl.errors import UsageError
from specreason_sgl.files import refuse_existing, write_new
from specreason_sgl.servers.opening import PairOptions
from specreason_sgl.view.output import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel

    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.evaluation.job import Job
    from specreason_sgl.evaluation.report import Table
    from specreason_sgl.lang.pair import Pair
    from specreason_sgl.runs.store import Problem, SolveRecord

RESULT, LENGTHS = "bench.json", "lengths.json"
DECODE = "decode"
"""The role of a server of the base model that drafts tokens."""
BUILT = "built"
"""Stands in place of a run for a chain of stories' steps."""


def bench(
    limit: Annotated[int, typer.Option("--limit", min=2, help="Stories to solve with every variant")] = 40,
    load: Annotated[int, typer.Option("--load", min=2, help="Stories to solve many at once")] = 64,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="The run folder [runs/TIME-bench-...]; with --calibrate, --replay or --client a new JSON file"
        ),
    ] = None,
    pair: PairName = None,
    base: BaseUrl = None,
    small: SmallUrl = None,
    decode: Annotated[
        str | None,
        typer.Option(
            "--decode",
            metavar="WHO",
            help="Measure all modes over a further server of the base model, which drafts tokens: its URL, or for the"
            " embedded pair who drafts, `small` or `ngram`",
            rich_help_panel="Pair",
        ),
    ] = None,
    api_key: ApiKey = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure what tokens, judgements and calls cost, and predict from it")
    ] = False,
    predict: Annotated[
        str | None, typer.Option("--predict", metavar="RUN", help="With --calibrate: for a stored run's acceptance")
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            "--lengths",
            metavar="TOKENS,...",
            help="Measure calls behind so many tokens by each transport, on the servers named or on tiny random models",
        ),
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(
            "--replay",
            metavar="RUN",
            help="With --lengths: time steps of a stored run, or of a chain `built` of stories, in our programs "
            "and in the reference implementation's loop",
        ),
    ] = None,
    client: Annotated[
        bool, typer.Option("--client", help="Measure what the client itself costs, over a server that answers at once")
    ] = False,
    callers: Annotated[
        str | None, typer.Option("--callers", metavar="NUMBER,...", help="With --lengths: callers at once [1,16,64]")
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", min=1, max=15, help="With --lengths or --calibrate: how often everything is timed"),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Markdown on standard output")] = False,
    json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output")] = False,
) -> None:
    """Measure the variants of the method in turn, and its parts, as ratios; nothing else should run meanwhile."""
    for name, given, needed, is_there in (
        ("--predict", predict, "`--calibrate`", calibrate),
        ("--callers", callers, "`--lengths`", lengths),
        ("--rounds", rounds, "`--lengths` or `--calibrate`", lengths or calibrate),
    ):
        if given and not is_there:
            raise UsageError(f"`{name}` needs {needed}")
    if replay and lengths is None:
        raise UsageError("`--replay` needs `--lengths`", hint="such as `--lengths 2048,16384,32768`")
    asked = {"`--lengths`": lengths is not None, "`--calibrate`": calibrate, "`--client`": client}
    with_decode = {"`--decode`": decode is not None, **asked, "`--calibrate`": False}
    for exclusive in (asked, with_decode, {"`--replay`": replay is not None, "`--callers`": callers is not None}):
        if sum(exclusive.values()) > 1:
            names = " and ".join(name for name, is_asked in exclusive.items() if is_asked)
            raise UsageError(f"{names} exclude each other")
    options = PairOptions(pair, base, small, api_key)
    if client:
        _client(out, markdown=markdown, json=json)
    elif lengths is not None and replay:
        _replay(options, lengths, replay, rounds, out, markdown=markdown, json=json)
    elif lengths is not None:
        _lengths(options, lengths, callers, rounds, out, markdown=markdown, json=json)
    elif calibrate:
        _calibrate(options.or_kept_up().drafting(decode), predict, rounds, out, markdown=markdown, json=json)
    else:
        job = "decode" if decode else "bench"
        _run(options.or_kept_up().drafting(decode), job, limit, load, out, markdown=markdown, json=json)


def _measuring(line: str) -> None:
    say(f"measuring {line}", err=True)


def _run(
    options: PairOptions, name: str, limit: int, load: int, out: Path | None, *, markdown: bool, json: bool
) -> None:
    """Solve a stock job's problems by all its modes in turn, then measure the parts."""
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
    from specreason_sgl.measure import cost_model
    from specreason_sgl.runs.store import RunWriter, closing, new_folder, read_run
    from specreason_sgl.servers.opening import open_pair
    from specreason_sgl.view.display import console, open_batch_display

    job = read_job(Path(name), {"dataset.limit": limit})
    job = resolved(job, load_programs(job.modes))
    problems = load_problems(job.dataset)
    more = load_problems(job.dataset.model_copy(update={"limit": load}))
    folder = out or new_folder(Path(os.environ.get("SPECREASON_RUNS") or "runs"), job.name)
    refuse_existing(folder / RESULT, "folder")
    with ExitStack() as stack:
        stack.enter_context(stoppable(scope := Scope()))
        with console(sys.stderr).status("connecting") as status:
            opened = stack.enter_context(open_pair(options, status.update, scope))
        from specreason_sgl.evaluation.fleet import Fleet
        from specreason_sgl.evaluation.runner import Runner

        if opened.base is None or opened.small is None:
            raise UsageError("a bench needs both models", hint="name them with `--base URL --small URL`")
        if decode := opened.models.get(DECODE):
            cost_model.check_drafts(decode)
        writer = RunWriter(folder, job_config(job, problems, options.label, opened.models, job.concurrency))
        tell_remarks(writer)
        with closing(writer), Grader(job.dataset.graded, workers=1) as grader:
            sink = stack.enter_context(
                open_batch_display("plain", len(job.modes) * len(problems), title=job.name, stream=sys.stderr)
            )
            runner = Runner(job, problems, Fleet({"": opened}), writer, grader, sink, scope=scope)
            runner.warm_up(load_program("specreason"))
            runner.run()
        stored = read_run(folder)
        made, tables = _measured(opened, job, stored.records, more)
    (folder / RESULT).write_text(made.model_dump_json(indent=2) + "\n", encoding="utf-8")
    footer = [f"- {line}" for line in provenance(report_run(stored))]
    _show(made, tables, footer, markdown=markdown, json=json)
    say(f"run: {folder}", err=True)


def _measured(
    pair: Pair[Endpoint], job: Job, records: Sequence[SolveRecord], problems: Sequence[Problem]
) -> tuple[BaseModel, Sequence[Table]]:
    """What is worked out from the solves of a stock job, and what is measured besides on servers that do nothing else.

    Args:
        pair: the servers; two of the base model if one of them drafts tokens.
        job: the job, with every knob set.
        records: its solves.
        problems: those that are solved many at once.
    """
    from specreason_sgl.evaluation.modes import load_programs
    from specreason_sgl.lang.loading import load
    from specreason_sgl.measure import bench, cost_model, decoding

    decode, base, small = pair.models.get(DECODE), pair.base, pair.small
    if decode is None or base is None or small is None or not any(DECODE in m.roles.values() for m in job.modes):
        variants = bench.measure(pair, records, load("specreason"), job.modes[0].settings, problems, _measuring)
        return variants, bench.tables(variants)
    costs = cost_model.calibrate(base, small, _measuring, decode)
    load_of = decoding.under_load(pair, job, load_programs(job.modes), problems, _measuring)
    made = decoding.work_out(job, records, costs, load_of)
    return made, decoding.tables(made)


def _calibrate(
    options: PairOptions, predict: str | None, rounds: int | None, out: Path | None, *, markdown: bool, json: bool
) -> None:
    from specreason_sgl.cli.listing import RUNS, tell_remarks
    from specreason_sgl.evaluation.report import stored_job
    from specreason_sgl.lang.scope import Scope
    from specreason_sgl.lang.stopping import stoppable
    from specreason_sgl.measure import cost_model, decoding
    from specreason_sgl.runs import index as shelf
    from specreason_sgl.runs.store import read_run
    from specreason_sgl.servers.opening import open_pair
    from specreason_sgl.view.display import console

    if out:
        refuse_existing(out)
    acceptances, work, stored = list(cost_model.ACCEPTANCES), cost_model.Work(acceptance=0), None
    if predict:
        stored = read_run(shelf.find(predict, RUNS))
        tell_remarks(stored)
        try:
            work = cost_model.judged(stored.records)
        except ValueError as error:
            raise UsageError(f"`{predict}`: {error}") from error
        acceptances.append(work.acceptance)
    with ExitStack() as stack:
        stack.enter_context(stoppable(scope := Scope()))
        with console(sys.stderr).status("connecting") as status:
            opened = stack.enter_context(open_pair(options, status.update, scope))
        if opened.base is None or opened.small is None:
            raise UsageError("a pair has two models", hint="name them with `--base URL --small URL`")
        drafting, times = opened.models.get(DECODE), rounds or cost_model.ROUNDS
        costs = cost_model.calibrate(opened.base, opened.small, _measuring, drafting, times)
    if out:
        write_new(out, costs.model_dump_json(indent=2) + "\n")
    works = [work.model_copy(update={"acceptance": share}) for share in sorted(acceptances)]
    made = cost_model.tables(costs, works, None if predict else cost_model.CONTEXTS[0], (1, cost_model.BATCHES[-1]))
    if stored and (job := stored_job(stored)) and any(mode.is_base for mode in job.modes) and job.concurrency == 1:
        made.append(decoding.held(decoding.work_out(job, stored.records, costs)))
    _show(costs, made, [], markdown=markdown, json=json)


def _lengths(
    options: PairOptions,
    wanted: str,
    at_once: str | None,
    rounds: int | None,
    out: Path | None,
    *,
    markdown: bool,
    json: bool,
) -> None:
    import os

    from specreason_sgl.evaluation.report import repeating
    from specreason_sgl.lang.scope import Scope
    from specreason_sgl.lang.stopping import stoppable
    from specreason_sgl.measure import lengths as long_chains
    from specreason_sgl.runs.store import new_folder
    from specreason_sgl.view.display import console

    lengths = long_chains.counts_in("--lengths", wanted, long_chains.MOST_TOKENS)
    callers = list(long_chains.CALLERS)
    if at_once is not None:
        callers = long_chains.counts_in("--callers", at_once, long_chains.MOST_CALLERS)
    folder = out or new_folder(Path(os.environ.get("SPECREASON_RUNS") or "runs"), "lengths")
    refuse_existing(folder / LENGTHS, "folder")
    with ExitStack() as stack:
        stack.enter_context(stoppable(scope := Scope()))
        with console(sys.stderr).status("connecting") as status:
            pairs = stack.enter_context(long_chains.opened(options, lengths, max(callers), status.update, scope))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = long_chains.measure(pairs, lengths, callers, rounds=rounds or long_chains.ROUNDS, say=_measuring)
    (folder / LENGTHS).write_text(made.model_dump_json(indent=2) + "\n", encoding="utf-8")
    footer = [f"- {line}" for line in repeating(made.about)]
    _show(made, long_chains.tables(made), footer, markdown=markdown, json=json)
    say(f"figures: {folder / LENGTHS}", err=True)


def _replay(
    options: PairOptions,
    wanted: str,
    what: str,
    rounds: int | None,
    out: Path | None,
    *,
    markdown: bool,
    json: bool,
) -> None:
    from specreason_sgl.cli.listing import RUNS, tell_remarks
    from specreason_sgl.evaluation.report import repeating
    from specreason_sgl.lang.scope import Scope
    from specreason_sgl.lang.stopping import stoppable
    from specreason_sgl.measure import lengths as long_chains
    from specreason_sgl.measure import schedule as schedules
    from specreason_sgl.runs import index as shelf
    from specreason_sgl.runs.store import read_run
    from specreason_sgl.text.prompts import DELIMITER
    from specreason_sgl.view.display import console

    if out:
        refuse_existing(out)
    positions = long_chains.counts_in("--lengths", wanted, long_chains.MOST_TOKENS)
    schedule = None
    if what != BUILT:
        stored = read_run(shelf.find(what, RUNS))
        tell_remarks(stored)
        schedule = schedules.longest(stored.records)
    with ExitStack() as stack:
        stack.enter_context(stoppable(scope := Scope()))
        with console(sys.stderr).status("connecting") as status:
            pairs = stack.enter_context(long_chains.opened(options, positions, 1, status.update, scope))
        opened = long_chains.best(pairs)
        base, small = opened.base, opened.small
        if base is None or small is None:
            raise UsageError("a pair has two models", hint="name them with `--base URL --small URL`")
        if schedule is None:
            _measuring("the tokens of steps")
            schedule = schedules.built(
                max(positions), lambda text: len(base.tokens(text + DELIMITER)), steps=schedules.STEPS + 1
            )
        replayed = schedules.replay(
            opened, schedule, _measuring, positions=positions, rounds=rounds or schedules.ROUNDS
        )
        made = schedules.Replay(about=long_chains.about(base, small, "replay"), replayed=replayed)
    if out:
        write_new(out, made.model_dump_json(indent=2) + "\n")
    footer = [f"- {line}" for line in repeating(made.about)]
    _show(made, [schedules.table(replayed)], footer, markdown=markdown, json=json)


def _client(out: Path | None, *, markdown: bool, json: bool) -> None:
    from specreason_sgl.lang.scope import Scope
    from specreason_sgl.lang.stopping import stoppable
    from specreason_sgl.measure import client as clients

    if out:
        refuse_existing(out)
    with stoppable(scope := Scope()):
        made = clients.measure(_measuring, scope=scope)
    if out:
        write_new(out, made.model_dump_json(indent=2) + "\n")
    _show(made, clients.tables(made), [], markdown=markdown, json=json)


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
