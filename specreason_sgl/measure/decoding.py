"""All modes, with and without tokens drafted in the base model's server: what is observed, and what was predicted.

The modes are those of a job (``eval/decode.toml``), solved in turn; then many at once, in turn again.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from specreason_sgl.evaluation.modes import pair_for
from specreason_sgl.evaluation.report import NOTHING, Table
from specreason_sgl.evaluation.statistics import Comparison, ModeSummary, analyse
from specreason_sgl.measure import cost_model
from specreason_sgl.measure.bench import share_of, speed, throughput
from specreason_sgl.measure.cost_model import Costs, Work

if TYPE_CHECKING:
    from specreason_sgl.evaluation.job import Job, Kind, Mode
    from specreason_sgl.evaluation.modes import Server
    from specreason_sgl.lang.loading import Program
    from specreason_sgl.lang.pair import Pair
    from specreason_sgl.runs.store import Problem, SolveRecord

AT_ONCE = 32
"""Problems in flight where throughput is measured."""
TURNS = 3
"""How often each mode has its turn there."""


class Loaded(BaseModel):
    """A mode with many problems at once."""

    model_config = ConfigDict(frozen=True)

    mode: str
    problems_per_second: list[float]
    """In each turn; failed solves do not count."""
    failed: int


class Held(BaseModel):
    """What was predicted of a mode, as speed-ups over the base model alone."""

    model_config = ConfigDict(frozen=True)

    mode: str
    alone: float | None
    """One solve at a time; None for a mode that is not predicted."""
    at_once: float | None
    """Many at a time."""


class Decoded(BaseModel):
    """Everything that was measured and predicted."""

    model_config = ConfigDict(frozen=True)

    modes: list[ModeSummary]
    comparisons: list[Comparison]
    """Against the base model alone, and against the base model that drafts tokens."""
    costs: Costs
    works: dict[str, Work]
    """What the solves of each mode consisted of."""
    predicted: list[Held]
    at_once: int
    load: list[Loaded]


def work_out(
    job: Job, records: Sequence[SolveRecord], costs: Costs, load: Sequence[Loaded] = (), at_once: int = AT_ONCE
) -> Decoded:
    """Hold what was measured against what is predicted.

    Args:
        job: the job of the solves; it has the base model alone among its modes.
        records: the solves, one at a time.
        costs: what tokens, judgements and calls cost on the same servers.
        load: the modes with many problems at once.
        at_once: how many.
    """
    names = [mode.name for mode in job.modes]
    baselines = [mode.name for mode in job.modes if mode.kind in {"base", "base+decode"}]
    pairs = [(name, against) for against in baselines for name in names if name != against]
    in_order = sorted(records, key=lambda record: names.index(record.mode))
    analysed = analyse(in_order, pairs)
    works = {name: made for name in names if (made := _work([r for r in records if r.mode == name]))}
    return Decoded(
        modes=analysed.summaries,
        comparisons=analysed.comparisons,
        costs=costs,
        works=works,
        predicted=predictions(costs, job.modes, works, at_once),
        at_once=at_once,
        load=list(load),
    )


def predictions(costs: Costs, modes: Sequence[Mode], works: Mapping[str, Work], at_once: int = AT_ONCE) -> list[Held]:
    """The expected speed-ups of modes over the base model alone, each with what its own solves consisted of."""
    alone = next((works.get(mode.name) for mode in modes if mode.is_base), None)

    def speed_up(kind: Kind, work: Work, many: int) -> float | None:
        if alone is None or kind not in costs.predicted:
            return None
        return costs.seconds("base", alone, None, many) / costs.seconds(kind, work, None, many)

    return [
        Held(
            mode=mode.name,
            alone=speed_up(mode.kind, works[mode.name], 1),
            at_once=speed_up(mode.kind, works[mode.name], at_once),
        )
        for mode in modes
        if mode.kind and mode.name in works
    ]


def under_load(
    pair: Pair[Server],
    job: Job,
    programs: Mapping[str, Program],
    problems: Sequence[Problem],
    say: Callable[[str], None],
    at_once: int = AT_ONCE,
) -> list[Loaded]:
    """Measure the modes of a job in turn with many problems at once.

    Args:
        pair: the servers, with nothing else to do.
        job: the job, with every knob set.
        programs: the programs of its modes.
        problems: the problems of each turn.
        say: called with a line on what is being measured.
        at_once: problems in flight.
    """
    rates: dict[str, list[float]] = {mode.name: [] for mode in job.modes}
    failed = dict.fromkeys(rates, 0)
    for turn in range(TURNS):
        for mode in job.modes:
            say(f"{mode.name}, {at_once} at once, turn {turn + 1} of {TURNS}")
            rate, lost = throughput(
                pair_for(mode, pair), programs[mode.program], mode.settings, problems, at_once, mode.parameters
            )
            rates[mode.name].append(rate)
            failed[mode.name] += lost
    return [Loaded(mode=name, problems_per_second=some, failed=failed[name]) for name, some in rates.items()]


def tables(made: Decoded) -> list[Table]:
    """The figures as tables."""
    against = {(c.mode, c.against): c for c in made.comparisons}
    baselines = list(dict.fromkeys(c.against for c in made.comparisons))
    base = baselines[0] if baselines else ""
    count = max(summary.problems for summary in made.modes)
    own = [work for work in made.works.values() if work.acceptance][:1]
    acceptances = sorted({*cost_model.ACCEPTANCES, *(work.acceptance for work in own)})
    typical = own[0] if own else Work(acceptance=0)
    works = [typical.model_copy(update={"acceptance": share}) for share in acceptances]
    return [
        Table(
            "Modes, solved in turn on the same problems",
            (
                "mode",
                *(f"against {name}" for name in baselines),
                "pass@1",
                "difference",
                "acceptance",
                "tokens a round",
            ),
            tuple(
                (
                    m.mode,
                    *(speed(against.get((m.mode, name))) for name in baselines),
                    share_of(m.accuracy.value if m.accuracy else None),
                    _points(against.get((m.mode, base))),
                    share_of(m.acceptance),
                    f"{m.agreement:.2f}" if m.agreement else NOTHING,
                )
                for m in made.modes
            ),
            f"Speed-ups are ratios of mean latencies with 95 % bootstrap intervals over {count} problems; differences "
            f"in accuracy are points against {base}. A round verifies drafted tokens at once.",
        ),
        held(made),
        *cost_model.tables(made.costs, works),
    ]


def held(made: Decoded) -> Table:
    """What was predicted beside what was observed, and the fastest mode by either."""
    base = made.comparisons[0].against if made.comparisons else ""
    seen = {c.mode: c for c in made.comparisons if c.against == base}
    loaded = {each.mode: ratios for each in made.load if (ratios := _against(made.load, each.mode, base))}
    good = [m.mode for m in made.modes if _is_as_good(seen.get(m.mode))]
    columns = ["mode", "predicted", "observed", *([f"predicted, {made.at_once} at once", "observed"] if loaded else [])]
    rows = tuple(
        (
            each.mode,
            _times(each.alone),
            speed(seen.get(each.mode)),
            *((_times(each.at_once), _range(loaded.get(each.mode))) if loaded else ()),
        )
        for each in made.predicted
        if each.mode != base
    )
    said = [
        _told(
            "one at a time",
            {each.mode: each.alone for each in made.predicted if each.alone and each.mode in good},
            {name: c.speed_up.value for name, c in seen.items() if c.speed_up and name in good},
        )
    ]
    if loaded:
        said.append(
            _told(
                f"{made.at_once} at once",
                {each.mode: each.at_once for each in made.predicted if each.at_once and each.mode in good},
                {name: statistics.geometric_mean(some) for name, some in loaded.items() if name in good},
            )
        )
        said.append(f"Brackets behind {made.at_once} at once are the least and the most of {TURNS} turns.")
    said.append("Modes whose accuracy is below the base model's, with its whole interval, do not count.")
    if failed := [f"{each.failed} of {each.mode}" for each in made.load if each.failed]:
        said.append(f"Solves that failed and do not count: {', '.join(failed)}.")
    title = "Predicted and observed speed-up against the base model alone"
    return Table(title, tuple(columns), rows, " ".join(said))


def _work(records: Sequence[SolveRecord]) -> Work | None:
    try:
        return cost_model.observed(records)
    except ValueError:
        return None


def _against(load: Sequence[Loaded], mode: str, base: str) -> list[float] | None:
    """The throughput of a mode as a multiple of the base model's, turn by turn."""
    rates = {loaded.mode: loaded.problems_per_second for loaded in load}
    if base not in rates or not all((*rates[base], *rates[mode])):
        return None
    return [own / other for own, other in zip(rates[mode], rates[base], strict=True)]


def _times(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}x"


def _range(ratios: Sequence[float] | None) -> str:
    if not ratios:
        return NOTHING
    return f"{statistics.geometric_mean(ratios):.2f}x [{min(ratios):.2f}, {max(ratios):.2f}]"


def _told(when: str, predicted: Mapping[str, float], observed: Mapping[str, float]) -> str:
    def best(values: Mapping[str, float]) -> str:
        most = max(values, key=lambda name: values[name], default=None)
        return f"`{most}`" if most and values[most] > 1 else "the base model alone"

    return f"The fastest, {when}: {best(predicted)} as predicted, {best(observed)} as observed."


def _is_as_good(comparison: Comparison | None) -> bool:
    """Whether the interval of a mode's difference in accuracy does not exclude that it is as good as the base model."""
    if comparison is None or comparison.difference is None or comparison.difference.high is None:
        return True
    return comparison.difference.high >= 0


def _points(comparison: Comparison | None) -> str:
    if comparison is None or comparison.difference is None:
        return NOTHING
    estimate = comparison.difference
    interval = (
        ""
        if estimate.low is None or estimate.high is None
        else f" [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
    )
    return f"{100 * estimate.value:+.1f}{interval}"
