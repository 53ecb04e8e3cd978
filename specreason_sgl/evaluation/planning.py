"""How many problems it takes to see a small difference in accuracy between two modes that solve the same problems.

What decides is not how accurate two modes are, but how often they differ: problems that both solve, or neither, say
nothing. How often they differ is taken from a stored run, or assumed.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from specreason_sgl.evaluation.job import Job
from specreason_sgl.evaluation.report import Table, job_of
from specreason_sgl.evaluation.statistics import LEVEL, Row, by_problem, rows
from specreason_sgl.runs.index import folders
from specreason_sgl.runs.store import CONFIG, Run, RunConfig, read_run

DIFFERENCE = 0.02
POWER = 0.8
ASSUMED = (0.05, 0.1, 0.2)
"""Shares of problems on which two modes differ, where no stored run tells."""


@dataclass(frozen=True)
class Need:
    """How many problems a comparison needs."""

    mode: str | None
    """None for an assumption about any two modes."""
    against: str | None
    differ: float
    """The share of problems on which the two differ."""
    problems: int
    as_one_of_many: int
    """The same if the comparison is judged as the first of all the job's comparisons in Holm's correction."""


@dataclass(frozen=True)
class Plan:
    """How many problems a job needs."""

    needs: tuple[Need, ...]
    comparisons: int
    """How many comparisons the job makes."""
    run: str | None = None
    """The stored run that told how often modes differ; None for assumptions."""
    seen: int = 0
    """The problems of that run."""

    def as_row(self) -> dict[str, Any]:
        """The plan as plain data."""
        return {"difference": DIFFERENCE, "power": POWER, "level": round(1 - LEVEL, 4), **asdict(self)}


def problems_needed(
    differ: float, difference: float = DIFFERENCE, *, level: float = 1 - LEVEL, power: float = POWER
) -> int:
    """How many problems show a difference in accuracy in the exact form of McNemar's test.

    Source: R. J. Connor, Sample size for testing differences in proportions for the paired-sample design,
    Biometrics 43 (1987), 207-211. The exact test wants one more problem won, as McNemar's with a continuity correction
    does: these are 1 / difference problems more.

    Args:
        differ: the share of problems that exactly one of two modes solves; with repeats, the mean square of the
            difference of their accuracies on a problem. It cannot be less than the difference.
        difference: the difference in accuracy.
        level: the probability of seeing a difference where there is none.
        power: the probability of seeing the difference.
    """
    differ = max(differ, difference)
    alarm, sure = stats.norm.isf(level / 2), stats.norm.ppf(power)
    root = alarm * math.sqrt(differ) + sure * math.sqrt(differ - difference**2)
    return math.ceil((root / difference) ** 2 + 1 / difference)


def share_that_differs(some: Sequence[Row], others: Sequence[Row]) -> float | None:
    """How often two modes differ, as `problems_needed` wants it; None if no problem was solved and graded in both."""
    if not all(row.known for row in (*some, *others)):
        return None
    one, other = (by_problem(each, lambda row: row.right) for each in (some, others))
    shared = [one[problem] - other[problem] for problem in one if problem in other]
    return float(np.mean(np.square(shared))) if shared else None


def plan(job: Job, runs: Path) -> Plan:
    """How many problems a job's comparisons need, by the newest stored run of its dataset that tells, or by assumption.

    Args:
        job: the job.
        runs: the folder of the stored runs.
    """
    pairs = job.comparisons
    for folder in reversed(folders(runs)):
        run = _of_the_same(job, folder)
        if run is not None and (needs := _needs(run, pairs)):
            return Plan(tuple(needs), len(pairs), folder.name, len({row.problem for row in rows(run.records)}))
    return Plan(tuple(_need(None, None, share, len(pairs)) for share in ASSUMED) if pairs else (), len(pairs))


def _of_the_same(job: Job, folder: Path) -> Run | None:
    """The run in a folder if it is of the same dataset and compares some of the same modes."""
    try:
        config = RunConfig.model_validate_json((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return None
    other = job_of(config)
    if other is None or not set(other.comparisons) & set(job.comparisons):
        return None
    return read_run(folder) if _dataset(other) == _dataset(job) else None


def _dataset(job: Job) -> Mapping[str, Any]:
    return job.dataset.model_dump(include={"name", "path"})


def _needs(run: Run, pairs: Sequence[tuple[str, str]]) -> list[Need]:
    by_mode: dict[str, list[Row]] = defaultdict(list)
    for row in rows(run.records):
        by_mode[row.mode].append(row)
    shares = {(mode, against): share_that_differs(by_mode[mode], by_mode[against]) for mode, against in pairs}
    return [_need(*pair, share, len(pairs)) for pair, share in shares.items() if share is not None]


def _need(mode: str | None, against: str | None, share: float, many: int) -> Need:
    corrected = problems_needed(share, level=(1 - LEVEL) / many)
    return Need(mode, against, share, problems_needed(share), corrected)


def table(made: Plan) -> Table:
    """A plan as a table."""
    rows = tuple(
        (
            f"{need.mode} and {need.against}" if need.mode else "any two",
            f"{100 * need.differ:.1f} %",
            f"{need.problems:,}",
            *((f"{need.as_one_of_many:,}",) if made.comparisons > 1 else ()),
        )
        for need in made.needs
    )
    points = f"{100 * DIFFERENCE:.0f}"
    known = (
        f"How many come out otherwise is as in the stored run {made.run}, on {made.seen} problems"
        if made.run
        else "How many come out otherwise is assumed, since no stored run of this dataset has these modes"
    )
    if any(need.differ < DIFFERENCE for need in made.needs):
        known += f"; less than {points} % counts as {points} %, which the difference itself needs"
    note = (
        f"So many problems show a difference of {points} points in {100 * POWER:.0f} % of all tries, by an exact "
        f"paired test at a two-sided level of {100 * (1 - LEVEL):.0f} %. {known}."
    )
    columns = ("modes", "come out otherwise", "problems")
    many = (f"as one of {made.comparisons}",) if made.comparisons > 1 else ()
    return Table(f"Problems that show {points} points", columns + many, rows, note)
