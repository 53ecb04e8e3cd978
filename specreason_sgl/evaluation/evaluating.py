"""Carrying out a job: from a resolved job and an open pair to a run folder."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specreason_sgl.evaluation import fitting, modes
from specreason_sgl.evaluation import runner as runners
from specreason_sgl.evaluation.executors import THREADS, Wanted, employed
from specreason_sgl.evaluation.fleet import Fleet, check_alike
from specreason_sgl.evaluation.grading import Grader
from specreason_sgl.evaluation.job import Job
from specreason_sgl.events import Role
from specreason_sgl.lang.loading import comes_with_us, load
from specreason_sgl.runs.diff import repeatability
from specreason_sgl.runs.provenance import are_deterministic, command_line, describe, prompts, versions
from specreason_sgl.runs.store import Done, Problem, RunConfig, RunWriter, closing
from specreason_sgl.servers.hardware import hardware

if TYPE_CHECKING:
    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.lang.pair import Pair
    from specreason_sgl.lang.scope import Scope
    from specreason_sgl.servers.opening import PairOptions
    from specreason_sgl.view.batch_sinks import BatchSink

SAME = ("job", "programs", "problems", "models", "judge_version")
"""The fields of the configuration that must not have changed when a run is resumed."""

Show = Callable[[RunWriter, int, Sequence[Done]], AbstractContextManager["BatchSink"]]
"""Opens the display of a run, given its writer, the number of solves, and those that are done."""


def carry_out(
    job: Job,
    problems: Sequence[Problem],
    pairs: Mapping[str, Pair[Endpoint]],
    folder: Path,
    show: Show,
    *,
    label: str,
    executor: Wanted = THREADS,
    options: Mapping[str, PairOptions] | None = None,
    resume: bool = False,
    fail_on_error: float | None = None,
    scope: Scope | None = None,
    anyway: bool = False,
    warn: Callable[[str], None] = lambda _: None,
) -> list[Done]:
    """Run every mode of a job on the same problems into a run folder; returns what became of every solve.

    Args:
        job: with every knob set (`job.resolved`).
        problems: the problems to solve.
        pairs: the servers of each pair, by its name.
        folder: the run folder.
        show: opens the display.
        label: the name of the pair or pairs in the run.
        executor: what carries the solves out; threads of this process do if not given.
        options: how to connect to each pair, for an executor in other processes.
        resume: whether to go on with the run in the folder.
        fail_on_error: stop when more solves than this failed; a share of all below 1, a count from there on.
        scope: the scope that the run's calls belong to.
        anyway: whether a job is also carried out that the servers have no room for.
        warn: called with a line on what they have no room for.

    Raises:
        SpecReasonError: the servers have no room for the job, the folder is not that of this run, a server stopped
            answering, or too many solves failed.
    """
    fleet = Fleet(pairs)
    for mode, pair in product(job.modes, pairs.values()):
        modes.check_roles(mode, pair.models)
    served = {name: describe(pair.models) for name, pair in pairs.items()}
    check_alike(served)
    total, rooms = len(job.modes) * len(problems) * job.repeats, _rooms(pairs, job, problems)
    fitting.check(fitting.complaints(job, rooms, total), anyway=anyway, warn=warn)
    concurrency = fitting.concurrency(job, rooms)
    config = job_config(job, problems, label, next(iter(pairs.values())).models, concurrency)
    several = {"pairs": served} if len(pairs) > 1 else {}
    wanted = {name: value for name, value in asdict(executor).items() if value is not None}
    elsewhere = {"executor": wanted} if executor != THREADS else {}
    config = config.model_copy(update={**several, **elsewhere})
    job = job.model_copy(update={"concurrency": concurrency})
    with ExitStack() as stack:
        done: list[Done] = []
        if resume:
            writer, done = RunWriter.resume(folder, config, SAME, runners.done, runners.known(job), comes_with_us)
        else:
            writer = RunWriter(folder, config)
        stack.enter_context(closing(writer))
        at_once = concurrency * len(pairs)
        grader = stack.enter_context(Grader(job.dataset.graded, workers=min(4, at_once)))
        sink = stack.enter_context(show(writer, total, done))
        for server in chain.from_iterable(pairs.values()):
            server.watch.say = sink.notice
        others = employed(executor, options or {}, at_once, sink.notice) if executor != THREADS else None
        opened = stack.enter_context(others) if others else None
        runner = runners.Runner(
            job, problems, fleet, writer, grader, sink, executor=opened, fail_on_error=fail_on_error, scope=scope
        )
        if len(done) < total and all(pair.base and pair.small for pair in pairs.values()):
            runner.warm_up(load("specreason"))
        return runner.run(done)


def _rooms(pairs: Mapping[str, Pair[Endpoint]], job: Job, problems: Sequence[Problem]) -> list[fitting.Room]:
    """What the servers of all pairs have room for: a job has to fit on each."""
    return [room for pair in pairs.values() for room in fitting.rooms(pair, job, problems)]


def job_config(
    job: Job, problems: Sequence[Problem], label: str, models: Mapping[Role, Any], concurrency: int | None
) -> RunConfig:
    """The configuration of a job's run, as far as it is known before the run.

    Args:
        job: the job with every knob set.
        problems: the problems to solve.
        label: the pair's name in the run.
        models: the servers, by role.
        concurrency: how many solves run at the same time, as given or as fitted to the servers.
    """
    servers = describe(models)
    programs = modes.load_programs(job.modes).values()
    # As the first version knew problems, so that its runs go on.
    text = "\n".join(each.model_dump_json(exclude=None if each.choice else {"choice"}) for each in problems)
    return RunConfig.model_validate(
        {
            "created": datetime.now(UTC),
            "program": job.name,
            "pair": label,
            "settings": job.settings.model_dump(),
            "versions": versions(),
            "servers": servers,
            **prompts(models, job.settings),
            "repeatability": repeatability(
                temperature=max(mode.settings.temperature for mode in job.modes),
                concurrency=concurrency,
                deterministic=are_deterministic(servers),
                overlapping=any(program.overlaps for program in programs),
                timed=any(mode.parameters.get("back_off") for mode in job.modes),
                stock=all(program.is_stock for program in programs),
            ),
            "concurrency": [concurrency] if concurrency else [],
            "command": command_line(sys.argv[1:]),
            "job": job.model_dump(mode="json", exclude={"pair"}),
            "programs": modes.program_digests(job.modes),
            "problems": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16],
            "models": {role: modes.model_name(told.get("model_path")) for role, told in servers.items()},
            "hardware": hardware(),
        }
    )
