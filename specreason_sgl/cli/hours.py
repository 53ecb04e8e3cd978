"""``specreason eval --dry-run --estimate``: the hours that a job will take."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from specreason_sgl.errors import UsageError
from specreason_sgl.packages import need
from specreason_sgl.view.output import note, say

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from specreason_sgl.evaluation.job import Job
    from specreason_sgl.measure.cost_model import Costs
    from specreason_sgl.measure.hours import Hours
    from specreason_sgl.runs.store import Problem, SolveRecord
    from specreason_sgl.servers.opening import PairOptions

CALIBRATED = "`specreason bench --calibrate --out FILE` makes one"


def expected(
    job: Job,
    problems: Sequence[Problem],
    options: Sequence[PairOptions],
    costs: Path | None,
    like: str | None,
) -> Hours:
    """The hours that a job will take.

    Args:
        job: the job.
        problems: its problems.
        options: the servers of each of its pairs; costs are measured on the first if none are given.
        costs: the file of costs that were measured before.
        like: a stored run whose solves were as large as the job's will be.

    Raises:
        UsageError: there are no such costs, no such run, or no servers to measure on.
    """
    from specreason_sgl.measure.hours import reckon

    if costs and job.concurrency is None:
        note("one solve at a time is reckoned with; `--concurrency N` says how many there will be")
    earlier, records = _stored(like) if like else (None, ())
    made, at_once = (_read(costs), job.concurrency or 1) if costs else _measured(job, problems, options[0])
    return reckon(job, len(problems), made, at_once, earlier, records, len(options))


def print_hours(hours: Hours) -> None:
    """Print what a job will take as a table."""
    from specreason_sgl.evaluation.report import rendered
    from specreason_sgl.measure.hours import table
    from specreason_sgl.view.display import console

    paper = console()
    for part in rendered(table(hours)):
        paper.print(part)


def _stored(name: str) -> tuple[Job, Sequence[SolveRecord]]:
    from specreason_sgl.cli.listing import RUNS, tell_remarks
    from specreason_sgl.evaluation.report import stored_job
    from specreason_sgl.runs import index
    from specreason_sgl.runs.store import read_run

    run = read_run(index.find(name, RUNS))
    tell_remarks(run)
    job = stored_job(run)
    if job is None:
        raise UsageError(f"`{name}` is no run of a job that this version can read", hint="`specreason eval` makes such")
    return job, run.records


def _read(path: Path) -> Costs:
    from pydantic import ValidationError

    from specreason_sgl.files import read_bytes
    from specreason_sgl.measure.cost_model import Costs

    try:
        return Costs.model_validate_json(read_bytes(path))
    except ValidationError as error:
        raise UsageError(f"`{path}` has no costs in it", hint=CALIBRATED) from error


def _measured(job: Job, problems: Sequence[Problem], options: PairOptions) -> tuple[Costs, int]:
    """The costs on servers that are up, and how many solves they get at the same time; what does not fit is told."""
    from specreason_sgl.evaluation import fitting
    from specreason_sgl.evaluation.job import DECODE
    from specreason_sgl.lang.scope import Scope
    from specreason_sgl.lang.stopping import stoppable
    from specreason_sgl.measure import cost_model
    from specreason_sgl.servers import pairs
    from specreason_sgl.servers.opening import open_pair
    from specreason_sgl.view.display import console

    need("sglang")
    if options.is_embedded and pairs.running() is None:
        raise UsageError(
            "nobody knows what tokens cost on servers that are not up",
            hint=f"start them with `specreason up`, or name a file with `--costs`: {CALIBRATED}",
        )
    with ExitStack() as stack:
        stack.enter_context(stoppable(scope := Scope()))
        with console(sys.stderr).status("connecting") as status:
            pair = stack.enter_context(open_pair(options, status.update, scope))
        if pair.base is None or pair.small is None:
            raise UsageError("costs are those of two models", hint="name them with `--base URL --small URL`")
        room = fitting.rooms(pair, job, problems)
        solves = len(job.modes) * len(problems) * job.repeats
        fitting.check(fitting.complaints(job, room, solves), anyway=True, warn=note)
        drafting, times = pair.models.get(DECODE), cost_model.ROUNDS
        made = cost_model.calibrate(pair.base, pair.small, _measuring, drafting, times)
        return made, fitting.concurrency(job, room)


def _measuring(line: str) -> None:
    say(f"measuring {line}", err=True)
