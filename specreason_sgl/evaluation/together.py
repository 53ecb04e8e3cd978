"""Runs that belong together: the same job in parts, because one machine could not hold all of its servers at once.

Solves are paired by problem and repeat, so only problems and repeats count that every mode of every run has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.job import DECODE, Job
from specreason_sgl.runs.store import Run, RunConfig, SolveRecord

Cell = tuple[str, str | None, int]
"""A problem by its question and answer, and a repeat."""

FEWEST = 2
"""The fewest runs that can be put together."""
MODELS = "models"


@dataclass(frozen=True)
class Together:
    """Several runs as one."""

    job: Job
    """With the modes of all of them, each compared as in one run."""
    records: list[SolveRecord]
    remarks: list[str]
    """A line on what came from which run, and one on what was left out."""


def put_together(runs: Sequence[Run], jobs: Sequence[Job | None]) -> Together:
    """Pair the solves of runs that differ in their modes alone.

    Args:
        runs: stored runs, finished or not.
        jobs: their jobs; None for a run without one that can be read.

    Raises:
        UsageError: there are too few runs, two of them have a mode of the same name or differ in more than their
            modes, or no problem was solved in all modes.
    """
    if len(runs) < FEWEST:
        raise UsageError("`--together` needs two runs", hint="name them, as in `specreason report A B --together`")
    for run, job in zip(runs, jobs, strict=True):
        if job is None or run.config is None:
            raise UsageError(f"`{run.folder}` is no run of a job, so nothing can be paired with it")
    known = [job for job in jobs if job is not None]
    configs = [run.config for run in runs if run.config is not None]
    for run, job, config in zip(runs[1:], known[1:], configs[1:], strict=True):
        _refuse_others(runs[0], run, (known[0], configs[0]), (job, config))
    names = [mode.name for job in known for mode in job.modes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            f"both runs have {_quoted(twice)}", hint="`specreason eval --modes` says which modes a run is to have"
        )
    records, left_out = paired([run.records for run in runs])
    job = Job.model_validate({**known[0].model_dump(), "modes": [mode for one in known for mode in one.modes]})
    told = "; ".join(
        f"{_quoted(mode.name for mode in job.modes)} from `{run.folder.name}`"
        for run, job in zip(runs, known, strict=True)
    )
    what = "latencies come" if set(_at_once(known[0], configs[0])) == {1} else "throughputs come"
    remarks = [f"{what} from different runs, so whatever else the machine did is in the differences: {told}"]
    if left_out:
        remarks.append(f"{left_out} solves are left out: not every mode has their problem and repeat")
    return Together(job, records, remarks)


def paired(runs: Sequence[Sequence[SolveRecord]]) -> tuple[list[SolveRecord], int]:
    """The solves of those problems and repeats that every mode of every run has, and the number of the others.

    Raises:
        UsageError: there are none.
    """
    cells: dict[tuple[int, str], set[Cell]] = {}
    for number, records in enumerate(runs):
        for record in records:
            cells.setdefault((number, record.mode), set()).add(_cell(record))
    shared = set.intersection(*cells.values()) if len({number for number, _ in cells}) == len(runs) else set()
    if not shared:
        raise UsageError(
            "no problem was solved by every mode of the runs", hint="`specreason list` shows how far they got"
        )
    kept = [record for records in runs for record in records if _cell(record) in shared]
    return kept, sum(map(len, runs)) - len(kept)


def _cell(record: SolveRecord) -> Cell:
    return record.problem.question, record.problem.answer, record.repeat


def _refuse_others(one: Run, other: Run, this: tuple[Job, RunConfig], that: tuple[Job, RunConfig]) -> None:
    for what, told in _SAME.items():
        ours, theirs = told(*this), told(*that)
        if what == MODELS:
            ours, theirs = ({role: some[role] for role in ours if role in theirs} for some in (ours, theirs))
        if ours != theirs:
            raise UsageError(
                f"`{one.folder.name}` and `{other.folder.name}` have not the same {what}: {_difference(ours, theirs)}",
                hint="only runs of one job, of which each did some of the modes, can be put together",
            )


def _models(job: Job, config: RunConfig) -> dict[str, Any]:
    """The models that any mode asks, by role; a base model that drafts tokens for itself is the base model."""
    models = (config.model_extra or {}).get("models")
    found = dict(models) if isinstance(models, Mapping) else {}
    decoding = found.pop(DECODE, None)
    asked = {
        role: model
        for role, model in found.items()
        if any(mode.roles.get(role, DECODE) == DECODE for mode in job.modes)
    }
    return {**({"base": decoding} if decoding else {}), **asked}


def _at_once(job: Job, config: RunConfig) -> list[int]:
    return sorted(set(config.concurrency)) or [job.concurrency or 1]


_SAME: Mapping[str, Callable[[Job, RunConfig], Any]] = {
    "dataset": lambda job, _: job.dataset.model_dump(exclude={"limit", "ids"}),
    MODELS: _models,
    "settings": lambda job, _: job.settings.model_dump(),
    "seed": lambda job, _: job.seed,
    "judge's turn": lambda _, config: config.judge_version,
    "number of solves at a time": _at_once,
    "hardware": lambda _, config: (config.model_extra or {}).get("hardware"),
    "versions": lambda _, config: config.versions,
}
"""What runs must have in common, by what it is called."""


def _difference(ours: Any, theirs: Any) -> str:
    """The first difference between two values, as text."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        name = next(name for name in (*ours, *theirs) if ours.get(name) != theirs.get(name))
        return f"`{name}` is {_told(ours.get(name))} and {_told(theirs.get(name))}"
    return f"{_told(ours)} and {_told(theirs)}"


def _told(value: Any) -> str:
    if isinstance(value, list):
        return " or ".join(map(str, value))
    return "nothing" if value is None else f"`{value}`"


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
