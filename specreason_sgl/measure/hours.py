"""How many hours a job will take: by what tokens, judgements and calls cost, and by how much its solves will write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from specreason_sgl.evaluation.job import Job, Kind, Mode
from specreason_sgl.evaluation.modes import kind_of
from specreason_sgl.evaluation.report import NOTHING, Table
from specreason_sgl.measure.cost_model import STEP_TOKENS, UNDER_DECODING, Costs, Work, observed
from specreason_sgl.runs.store import SolveRecord

ACCEPTANCE = 0.6
"""The assumed share of accepted drafts, if no run is given."""
HOUR, DAY = 3600.0, 24.0
"""In seconds, and in hours."""
FROM_BUDGET = "its whole budget"


class ModeHours(BaseModel):
    """What one mode will take."""

    model_config = ConfigDict(frozen=True)

    mode: str
    solves: int
    tokens: float | None
    """Thinking tokens of a solve; None where nothing can be said of the mode."""
    seconds: float | None
    """Seconds from one solve's end to the next one's, on average."""
    by: str
    """What the tokens are taken from."""

    @property
    def hours(self) -> float | None:
        """The hours that all its solves take; None if unknown."""
        return None if self.seconds is None else self.solves * self.seconds / HOUR


class Hours(BaseModel):
    """What a job will take."""

    model_config = ConfigDict(frozen=True)

    at_once: int
    """Solves at the same time, on each pair."""
    pairs: int = 1
    """How many pairs share the work."""
    modes: list[ModeHours]
    too_long: list[str]
    """The modes whose solves will take longer than the job allows."""
    limit_s: float
    """Seconds that the job allows for a solve."""

    @property
    def total(self) -> float:
        """The hours of all modes of which something can be said."""
        return sum(mode.hours or 0.0 for mode in self.modes)


def reckon(
    job: Job,
    problems: int,
    costs: Costs,
    at_once: int,
    earlier: Job | None = None,
    records: Sequence[SolveRecord] = (),
    pairs: int = 1,
) -> Hours:
    """How many hours a job will take.

    Args:
        job: the job.
        problems: how many problems it has.
        costs: what was measured on its servers.
        at_once: solves at the same time, on each pair.
        earlier: the job of stored solves, as large as its own will be; without it solves use their whole budget.
        records: these solves.
        pairs: how many pairs share the work.
    """
    measured = min(at_once, max(row.batch for row in costs.base))  # beyond that nobody knows what more would gain
    solves: dict[str, list[SolveRecord]] = {}
    for record in records:
        if record.tally.outcome != "failed":
            solves.setdefault(record.mode, []).append(record)
    made, too_long = [], []
    for mode in job.modes:
        work, by = _work(mode, earlier, solves)
        seconds = _seconds(costs, mode, work, measured)
        if seconds is not None and seconds * measured > job.problem_limit_s:
            too_long.append(mode.name)
        made.append(
            ModeHours(
                mode=mode.name,
                solves=problems * job.repeats,
                tokens=None if seconds is None else work.tokens,
                seconds=None if seconds is None else seconds / pairs,
                by=by,
            )
        )
    return Hours(at_once=at_once, pairs=pairs, modes=made, too_long=too_long, limit_s=job.problem_limit_s)


def table(hours: Hours) -> Table:
    """What a job will take, mode by mode."""
    rows = [
        (
            mode.mode,
            f"{mode.solves}",
            NOTHING if mode.tokens is None else f"{mode.tokens:.0f}",
            NOTHING if mode.seconds is None else f"{mode.seconds:.1f}",
            NOTHING if mode.hours is None else f"{mode.hours:.1f}",
            NOTHING if mode.seconds is None else mode.by,
        )
        for mode in hours.modes
    ]
    columns = ("mode", "solves", "tokens", "s a solve", "hours", "tokens as in")
    over = f" on each of {hours.pairs} pairs" if hours.pairs > 1 else ""
    return Table(f"Hours, {hours.at_once} at a time{over}", columns, tuple(rows), " ".join(_notes(hours)))


def _notes(hours: Hours) -> Iterator[str]:
    unknown = [mode.mode for mode in hours.modes if mode.seconds is None]
    days = f", {hours.total / DAY:.1f} days" if hours.total >= DAY else ""
    least = "at least " if unknown else "about "
    yield f"In all {least}{hours.total:.1f} hours{days}."
    if any(mode.by == FROM_BUDGET and mode.seconds is not None for mode in hours.modes):
        yield (
            f"Solves are taken to use their whole budget, and drafts to be accepted at {ACCEPTANCE:.0%}: "
            "most take less; `--like RUN` takes both from a stored run."
        )
    if unknown:
        yield f"The costs say nothing of {_named(unknown)}."
    if hours.too_long:
        yield (
            f"Solves of {_named(hours.too_long)} would fail after the {hours.limit_s:.0f} seconds that the job allows: "
            "`--set problem_limit_s=SECONDS` allows more."
        )


def _named(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _work(mode: Mode, earlier: Job | None, solves: Mapping[str, Sequence[SolveRecord]]) -> tuple[Work, str]:
    """What a solve of a mode will consist of, and what that is taken from."""
    settings = mode.settings
    for like in _alike(mode, earlier) if earlier else ():
        try:
            work = observed(solves.get(like.name, ()))
        except ValueError:
            continue
        shorter = min(1.0, max(1, settings.budget) / work.tokens)
        return work.model_copy(update={"steps": work.steps * shorter}), f"`{like.name}`"
    steps = max(1, settings.budget) / STEP_TOKENS
    return Work(acceptance=ACCEPTANCE, steps=steps, answer_tokens=settings.answer_tokens), FROM_BUDGET


def _alike(mode: Mode, earlier: Job) -> list[Mode]:
    """The modes of an earlier job whose solves are about as large, the most similar first."""

    def unlike(other: Mode) -> tuple[bool, bool, bool]:
        same = other.name == mode.name
        return not same, other.settings.budget != mode.settings.budget, kind_of(other) != kind_of(mode)

    method = _method(mode)
    some = [other for other in earlier.modes if other.name == mode.name or (method and _method(other) == method)]
    return sorted(some, key=unlike)


def _method(mode: Mode) -> str | None:
    kind = kind_of(mode)
    return kind and kind.removesuffix(UNDER_DECODING)


def _seconds(costs: Costs, mode: Mode, work: Work, at_once: int) -> float | None:
    """The seconds in which a solve is done; None for a mode whose calls the costs do not cover."""
    kind: Kind | None = kind_of(mode)
    if kind == "small":
        kind, costs = "base", costs.model_copy(update={"base": costs.small})
    elif kind in {"random", "oracle"}:  # as the method, but nobody is asked
        unasked = [row.model_copy(update={"seconds": 0.0}) for row in costs.judge]
        kind, costs = "specreason", costs.model_copy(update={"judge": unasked})
    return costs.seconds(kind, work, None, at_once) if kind in costs.predicted else None
