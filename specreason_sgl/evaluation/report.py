"""Stored runs as tables for a terminal, as Markdown and as JSON, with what is needed to repeat them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from specreason_sgl.evaluation.grading import OUTCOMES
from specreason_sgl.evaluation.job import PROGRAMS, Job
from specreason_sgl.evaluation.statistics import (
    NEAR,
    UNIT,
    Comparison,
    Costing,
    Estimate,
    ModeSummary,
    Statistics,
    analyse,
)
from specreason_sgl.evaluation.together import put_together
from specreason_sgl.runs.store import RENEWED, Run, RunConfig, SolveRecord
from specreason_sgl.text.scoring import Fitted
from specreason_sgl.view.text import one_line, shorten, visible

if TYPE_CHECKING:
    from rich.console import RenderableType

    from specreason_sgl.evaluation.audit import Audit, Flattery

REPORT_VERSION = 1
NOTHING = "–"
WORD = 24
"""The most cells of a program's own word in a table's header."""
ALONE = frozenset({PROGRAMS["base"], PROGRAMS["small"]})
"""The programs that are one model alone."""


@dataclass(frozen=True)
class Table:
    """A table, independent of how it is shown."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Source:
    """A run that a report is about."""

    folder: Path
    config: RunConfig | None
    status: str

    @classmethod
    def of(cls, run: Run) -> Source:
        """What a report needs to know of a stored run besides its solves."""
        return cls(run.folder, run.config, run.status.status if run.status else "unknown")


@dataclass(frozen=True)
class Report:
    """Everything that a report says about one run, or about several that belong together."""

    sources: tuple[Source, ...]
    statistics: Statistics
    remarks: tuple[str, ...]

    @property
    def name(self) -> str:
        """The names of the runs' folders."""
        return " and ".join(source.folder.name for source in self.sources)


def report_run(run: Run, prices: Mapping[str, float] | None = None, *, seed: int = 0) -> Report:
    """Compute the report of a stored run, finished or not.

    Args:
        run: the run.
        prices: what a token of a model costs, in base tokens; where none is given, it is measured in the run.
        seed: the seed of the resampling.
    """
    job = stored_job(run)
    statistics = _analysed(run.records, job, run.config.concurrency if run.config else (), prices, seed)
    return Report((Source.of(run),), statistics, (*_remarks(run, job), *_no_controls(statistics, job)))


def report_together(runs: Sequence[Run], prices: Mapping[str, float] | None = None, *, seed: int = 0) -> Report:
    """Compute one report of several stored runs that differ in their modes alone.

    Args:
        runs: the runs.
        prices: as in `report_run`.
        seed: the seed of the resampling.

    Raises:
        UsageError: they do not belong together.
    """
    made = put_together(runs, [stored_job(run) for run in runs])
    statistics = _analysed(made.records, made.job, runs[0].config.concurrency if runs[0].config else (), prices, seed)
    remarks = [f"{run.folder.name}: {line}" for run in runs for line in _remarks(run, stored_job(run))]
    remarks += _no_controls(statistics, made.job)
    return Report(tuple(map(Source.of, runs)), statistics, (*made.remarks, *remarks))


def _analysed(
    records: Sequence[SolveRecord],
    job: Job | None,
    concurrency: Sequence[int],
    prices: Mapping[str, float] | None,
    seed: int,
) -> Statistics:
    modes = job.modes if job else ()
    order = {mode.name: place for place, mode in enumerate(modes)}
    return analyse(
        sorted(records, key=lambda record: order.get(record.mode, len(order))),
        job.comparisons if job else (),
        concurrency=max(concurrency, default=(job and job.concurrency) or 1),
        baseline=next((mode.name for mode in modes if mode.is_base), None),
        costing=Costing(
            alone=[mode.name for mode in modes if mode.program in ALONE and not mode.plain],
            controls=job.controls if job else (),
            roles={mode.name: mode.roles for mode in modes},
            given=prices or {},
        ),
        seed=seed,
    )


def _no_controls(s: Statistics, job: Job | None) -> list[str]:
    """A line for each mode that is declared a control at equal cost and asked other models than the base model."""
    declared = set(job.controls) if job else set()
    return [
        f"mode `{m.mode}` asked other models than the base model, so nothing is compared with it at equal cost"
        for m in s.summaries
        if m.mode in declared and (m.small_tokens or any(m.other_tokens.values()))
    ]


def _remarks(run: Run, job: Job | None) -> list[str]:
    remarks = [*run.remarks]
    if run.config and len(said := run.config.concurrency) > 1:
        remarks.append(f"solves at a time, as the run went on: {', '.join(map(str, said))}")
    if run.config and (renewed := _renewed(run.config)):
        remarks.append(f"went on with a later version's programs: {', '.join(renewed)}")
    if job is None and _told_job(run.config):
        remarks.append("its job is of a form that this version does not know, so modes are not compared")
    if job:
        owed = {mode.name for mode in job.modes} - {record.mode for record in run.records}
        remarks += [f"nothing is stored of mode `{name}`" for name in sorted(owed)]
    return remarks


def _renewed(config: RunConfig) -> list[str]:
    """The names of the programs that had changed when the run was resumed."""
    told = (config.model_extra or {}).get(RENEWED)
    rows = (
        [row["programs"] for row in told if isinstance(row, dict) and isinstance(row.get("programs"), dict)]
        if isinstance(told, list)
        else []
    )
    return sorted({str(name) for row in rows for name in row})


def stored_job(run: Run) -> Job | None:
    """The job of a run; None if the run has no job, or one that this version cannot read."""
    return job_of(run.config)


def job_of(config: RunConfig | None) -> Job | None:
    """The job of a run's configuration, as in `stored_job`."""
    try:
        return Job.model_validate(_told_job(config))
    except ValidationError:
        return None


def _told_job(config: RunConfig | None) -> Any:
    return (config.model_extra or {}).get("job") if config else None


def tables(report: Report) -> list[Table]:
    """All tables of a report, the most important one first; none where no solve is stored."""
    s = report.statistics
    if not s.summaries:
        return []
    made = [_results(s), _effort(s), _outcomes(s)]
    if s.comparisons:
        made.append(_comparisons(s))
    if s.equal_cost:
        made.append(_equal_cost(s))
    if s.budgets:
        made.append(_budgets(s))
    return made


def provenance(report: Report) -> list[str]:
    """What is needed to repeat the runs, as lines; what they have in common is said once."""
    lines: list[str] = []
    for source in report.sources:
        if source.config is not None:
            command, *more = repeating(source.config)
            begun = f"{source.config.created:%Y-%m-%d %H:%M} UTC"
            lines += [command, f"run: {source.folder.name}, {source.status}, begun {begun}", *more]
    return list(dict.fromkeys(lines))


def repeating(config: RunConfig) -> list[str]:
    """What a configuration says about how to repeat what was run with it, as lines; the command comes first."""
    extra = config.model_extra or {}
    lines = [
        f"command: `specreason {shlex.join(config.command)}`",
        f"versions: {_flat(config.versions)}",
        f"judge's turn: version {config.judge_version}",
    ]
    lines += [f"hardware: {_flat(extra['hardware'])}"] if extra.get("hardware") else []
    lines += [f"{role} server: {_flat(told)}" for role, told in config.servers.items()]
    lines += [f"settings: {_flat(config.settings)}"] if config.settings else []
    lines += [f"knobs: {_flat(config.parameters)}"] if config.parameters else []
    modes = (extra.get("job") or {}).get("modes") if isinstance(extra.get("job"), dict) else None
    for mode in modes if isinstance(modes, list) else ():
        if isinstance(mode, dict) and isinstance(knobs := mode.get("parameters"), dict) and knobs:
            lines.append(f"knobs of {mode.get('name')}: {_flat(knobs)}")
    return lines


def markdown(report: Report) -> str:
    """The report as Markdown."""
    parts = [as_markdown(table) for table in tables(report)]
    footer = [f"- {one_line(line)}" for line in (*provenance(report), *report.remarks)]
    return "\n\n".join((*parts, "\n".join(footer))) + "\n"


def as_markdown(table: Table) -> str:
    """A table with its title and note as Markdown."""
    rows = [table.columns, ("---", *("---:" for _ in table.columns[1:])), *table.rows]
    lines = ["| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join((f"### {table.title}", "", *lines, *(("", visible(table.note)) if table.note else ())))


def terminal(report: Report) -> Iterator[RenderableType]:
    """The report as rich renderables."""
    from rich.text import Text

    for table in tables(report):
        yield from rendered(table)
    for line in provenance(report):
        yield Text(one_line(line), "dim")
    for line in report.remarks:
        yield Text(f"note: {one_line(line)}", "yellow")


def rendered(table: Table) -> Iterator[RenderableType]:
    """A table and its note as rich renderables."""
    from rich.text import Text

    from specreason_sgl.view.grid import Grid

    yield Grid(table.title, table.columns, table.rows)
    if table.note:
        yield Text(f"{visible(table.note)}\n", "dim")


def audit_tables(audit: Audit) -> list[Table]:
    """The figures about a judge, as tables."""
    meaning = "exactly" if audit.truth == "steps" else "by how their solution ended"
    own = f"{_estimate(audit.own_rejected, scale=100)} of {audit.own_steps}" if audit.own_rejected else NOTHING
    figures = (
        ("drafts judged", f"{audit.drafts} of {audit.problems} problems"),
        ("of them right", f"{audit.right}, known {meaning}"),
        ("AUROC of the expected score", _estimate(audit.auroc["expected"], digits=3)),
        ("AUROC of the greedy digit", _estimate(audit.auroc["greedy"], digits=3)),
        ("right drafts accepted", _percent(audit.accepted_right)),
        ("wrong drafts accepted", _percent(audit.accepted_wrong)),
        ("calibration error", f"{audit.calibration_error:.3f}"),
        ("mass outside the digits", f"{audit.missing_mass:.4f}"),
        ("ties of the greedy digit", f"{100 * audit.stability.ties:.1f} %"),
        ("decisions that a tie makes", f"{100 * audit.stability.tied_decisions:.1f} %"),
        ("decisions that one quantum turns", f"{100 * audit.stability.within_quantum:.1f} %"),
        ("base model's own steps rejected, %", own),
    )
    bins = tuple((f"{b.predicted:.2f}", f"{b.observed:.2f}", str(b.drafts)) for b in audit.calibration)
    digits = tuple(
        (str(digit), str(right), str(wrong))
        for digit, (right, wrong) in enumerate(zip(audit.histogram_right, audit.histogram_wrong, strict=True))
    )
    note = f"{audit.left_out} judged drafts whose truth is not known are left out." if audit.left_out else ""
    return [
        Table("The judge", ("figure", "value"), figures, note),
        Table("Calibration", ("probability of reaching the threshold", "share right", "drafts"), bins),
        Table("Scores", ("most probable digit", "right drafts", "wrong drafts"), digits),
        *([_flattery_table(audit.flattery)] if audit.flattery else []),
    ]


def _flattery_table(flattery: Flattery) -> Table:
    rows = (
        ("nothing", _percent(flattery.accepted_plain), NOTHING),
        *((f"“{said}”", _percent(share), f"{flattery.shift[said]:+.2f}") for said, share in flattery.accepted.items()),
    )
    columns = ("what a wrong draft says of itself", "accepted", "expected score")
    return Table("Flattery", columns, rows, f"{flattery.drafts} wrong drafts, each judged in every way.")


def as_json(report: Report) -> dict[str, Any]:
    """The report as plain data; of several runs the first one stands where that of one run does."""
    first, *more = [
        {
            "run": str(source.folder),
            "status": source.status,
            "config": source.config.model_dump(mode="json") if source.config else None,
        }
        for source in report.sources
    ]
    return {
        "report_version": REPORT_VERSION,
        **first,
        **({"together": more} if more else {}),
        "remarks": list(report.remarks),
        **report.statistics.model_dump(mode="json"),
        "verdicts": [
            {"mode": c.mode, "against": c.against, "accuracy": c.difference_word, "speed_up": c.speed_up_word}
            for c in report.statistics.comparisons
        ],
        "equal_cost_verdicts": [
            {"mode": e.mode, "control": e.control, "accuracy": e.word} for e in report.statistics.equal_cost
        ],
    }


def _results(s: Statistics) -> Table:
    single = s.measurement == "single stream"
    compared: dict[str, Comparison] = {}
    for comparison in s.comparisons:
        compared.setdefault(comparison.mode, comparison)
    fair = {each.mode: each.comparison for each in s.equal_cost if each.is_equal}
    costed = bool(s.equal_cost)
    speed = ("seconds", "speed-up") if single else ("solves/min", "tokens/s")
    others = list(dict.fromkeys(role for summary in s.summaries for role in summary.other_tokens))

    def row(summary: ModeSummary) -> tuple[str, ...]:
        comparison = compared.get(summary.mode)
        return (
            summary.mode,
            _estimate(summary.accuracy, scale=100),
            _difference(comparison),
            *((_difference(fair.get(summary.mode)),) if costed else ()),
            _percent(summary.acceptance),
            f"{summary.base_tokens:.0f}",
            f"{summary.small_tokens:.0f}",
            *(f"{summary.other_tokens.get(role, 0):.0f}" for role in others),
            *((_cost(summary.cost),) if costed else ()),
            *(_single_stream(summary, comparison) if single else _throughput(summary)),
        )

    counts = sorted({(summary.problems, summary.solves) for summary in s.summaries})
    sizes = " or ".join(f"{solves} solves of {problems} problems" for problems, solves in counts)
    many = f"{s.concurrency} solves at a time, so no latency, and throughput while all places are taken"
    how = "one solve at a time" if single else many
    against = sorted({c.against for c in compared.values()})
    note = (
        f"{sizes}; {how}. Accuracy is pass@1 in %, tokens are means per solve, brackets are 95 % intervals by problem."
    )
    if against:
        note += (
            f" Differences and speed-ups are paired by problem, against {', '.join(against)}; n.s.: not significant"
            f"{_corrected(sum(c.difference_p is not None for c in s.comparisons))}."
        )
    if costed:
        note += f" At equal cost: against the base model where it costs as much, as told below. {_prices(s)}"
    tokens = (f"{shorten(role, WORD)} tokens" for role in ("base", "small", *others))
    equal, spent = (("at equal cost",), ("cost",)) if costed else ((), ())
    columns = ("mode", "accuracy", "difference", *equal, "accepted", *tokens, *spent, *speed)
    return Table("Results", columns, tuple(map(row, s.summaries)), note)


def _effort(s: Statistics) -> Table:
    lost = any(m.lost_s for m in s.summaries)
    decoding = any(m.agreement for m in s.summaries)
    rows = tuple(
        (
            m.mode,
            *((f"{m.latency.p50:.2f}", f"{m.latency.p95:.2f}") if m.latency else (NOTHING, NOTHING)),
            f"{m.thinking_tokens:.0f}",
            f"{m.drafted_tokens:.0f}",
            f"{m.wasted_tokens:.0f}",
            _percent(m.small_steps),
            _percent(m.judge_share),
            _percent(m.cached_share),
            str(m.retries),
            *([f"{m.agreement:.2f}" if m.agreement else NOTHING] if decoding else []),
            *([f"{m.lost_s:.2f}"] if lost else []),
        )
        for m in s.summaries
    )
    columns = ("mode", "p50 s", "p95 s", "kept", "drafted", "wasted", "steps by small", "judging", "cached", "retries")
    more = [*(["tokens a round"] if decoding else []), *(["lost s"] if lost else [])]
    note = "Tokens of the thinking, means per solve; judging as a share of the time of all calls; cached prompt tokens."
    if decoding:
        note += " A round verifies drafted tokens at once, and its tokens are those that it brought."
    if lost:
        note += " Lost to servers that failed or were away, in seconds of a solve; no latency or throughput has them."
    return Table("Where tokens and time go", (*columns, *more), rows, note)


def _outcomes(s: Statistics) -> Table:
    rows = tuple(
        (m.mode, str(m.solves), *(str(m.outcomes.get(name, 0)) for name in OUTCOMES), str(m.cut_short))
        for m in s.summaries
    )
    note = "Everything but `right` counts as not right. `cut short`: the thinking met the budget or the context."
    return Table("What came of the solves", ("mode", "solves", *OUTCOMES, "cut short"), rows, note)


def _comparisons(s: Statistics) -> Table:
    timed = any(c.speed_up for c in s.comparisons)
    rows = tuple(
        (
            c.mode,
            c.against,
            str(c.problems),
            _estimate(c.difference, scale=100, signed=True),
            c.difference_word,
            f"{c.wins}–{c.losses}",
            *((_estimate(c.speed_up, digits=2, unit="×"), c.speed_up_word) if timed else ()),
        )
        for c in s.comparisons
    )
    columns = ("mode", "against", "problems", "accuracy", "which is", "won–lost")
    families = ([c.difference_p for c in s.comparisons], [c.speed_up_p for c in s.comparisons])
    note = _significance(max(sum(p is not None for p in family) for family in families))
    return Table("Against each other", columns + (("speed-up", "which is") if timed else ()), rows, note)


def _equal_cost(s: Statistics) -> Table:
    rows = tuple(
        (
            e.mode,
            _cost(e.cost),
            e.control,
            _cost(e.control_cost),
            f"{e.ratio:.2f}×",
            str(e.comparison.problems),
            _estimate(e.comparison.difference, scale=100, signed=True),
            e.word,
            f"{e.comparison.wins}–{e.comparison.losses}",
        )
        for e in s.equal_cost
    )
    columns = ("mode", "cost", "control", "its cost", "ratio", "problems", "accuracy", "which is", "won–lost")
    note = (
        f"The control is the mode of the base model alone whose cost is nearest. {_prices(s)} "
        f"{_significance(sum(e.comparison.difference_p_corrected is not None for e in s.equal_cost))}"
    )
    if far := sum(not e.is_equal for e in s.equal_cost):
        note += (
            f" No control costs within {100 * (NEAR - 1):.0f} % of {far} of the modes, so nothing is claimed of them."
        )
    if unknown := [one_line(m.mode) for m in s.summaries if m.cost is None]:
        note += f" Of {', '.join(unknown)} the cost is not known: no price is known for a model that they asked."
    return Table("Against the base model at equal cost", columns, rows, note)


def _prices(s: Statistics) -> str:
    """What a cost is, and where the prices come from."""
    told = [
        f"a token of {one_line(price.model)} costs {price.base_tokens:.3g}, "
        + (
            f"by the time that a token took in {price.measured[0]} and in {price.measured[1]}, of this run"
            if price.measured
            else "as given"
        )
        for price in s.prices
        if price.model != UNIT
    ]
    what = "Costs are generated tokens of a solve in base tokens, a judgement being one; reading is not counted"
    return f"{'; '.join((what, *told))}."


def _significance(family: int) -> str:
    """What the words about significance in a table mean, given how many comparisons it makes."""
    return (
        "Paired by problem; brackets are 95 % intervals of one comparison each; significant: the interval and a paired "
        f"randomisation test agree{_corrected(family)}."
    )


def _corrected(family: int) -> str:
    return f", after Holm's correction for {family} comparisons" if family > 1 else ""


def _budgets(s: Statistics) -> Table:
    seconds = sorted({point.seconds for point in s.budgets})
    by_mode = {mode: [p for p in s.budgets if p.mode == mode] for mode in dict.fromkeys(p.mode for p in s.budgets)}
    efficient = {p.mode for p in s.frontier if p.efficient}
    rows = tuple(
        (
            mode,
            *(_estimate(p.accuracy, scale=100) for p in sorted(some, key=lambda p: p.seconds)),
            "yes" if mode in efficient else "",
        )
        for mode, some in by_mode.items()
    )
    columns = ("mode", *(f"{limit:.3g} s" for limit in seconds), "on the frontier")
    note = (
        "Accuracy if whatever takes longer counts as not right: half, once and twice the base model's mean latency. "
        "On the frontier: no other mode is as fast and as accurate."
    )
    return Table("Accuracy within a latency budget", columns, rows, note)


def _single_stream(summary: ModeSummary, comparison: Comparison | None) -> tuple[str, ...]:
    speed_up = _estimate(comparison.speed_up, digits=2, unit="×") if comparison else NOTHING
    return f"{summary.latency.mean.value:.2f}" if summary.latency else NOTHING, speed_up


def _throughput(summary: ModeSummary) -> tuple[str, ...]:
    measured = summary.throughput
    return (f"{measured.solves_per_minute:.1f}", f"{measured.tokens_per_second:.0f}") if measured else (NOTHING,) * 2


def _difference(comparison: Comparison | None) -> str:
    if comparison is None or comparison.difference is None:
        return NOTHING
    return f"{100 * comparison.difference.value:+.1f}{'' if comparison.difference_word == 'significant' else ' n.s.'}"


def _estimate(
    estimate: Estimate | None, *, scale: float = 1, digits: int = 1, unit: str = "", signed: bool = False
) -> str:
    if estimate is None:
        return NOTHING
    sign = "+" if signed else ""

    def figure(value: float) -> str:
        return f"{scale * value:{sign}.{digits}f}"

    interval = (
        "" if estimate.low is None or estimate.high is None else f" [{figure(estimate.low)}, {figure(estimate.high)}]"
    )
    return f"{figure(estimate.value)}{unit}{interval}"


def _cost(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f}"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.0f} %"


def _flat(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_near(value)}" for name, value in values.items() if value is not None)


def _near(value: Any) -> str:
    """A value on one line; of a local path only the end, because the rest means nothing on other machines."""
    if isinstance(value, dict):
        with suppress(ValidationError):
            return str(Fitted.model_validate(value))
    path = Path(str(value))
    if path.is_absolute():
        return "/".join(path.parts[-2:])
    return str(value) if str(value).isprintable() else repr(value)
