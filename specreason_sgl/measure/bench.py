"""What the orchestration is worth: ratios that are measured side by side on a running pair, never absolute times.

The variants of the method are modes of a job (``eval/bench.toml``), solved in turn. The probes here measure the parts:
a judgement in base-token times, what the radix cache serves on a long trace, problems per second under concurrency.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from specreason_sgl.embedded import tales
from specreason_sgl.evaluation.report import NOTHING, Table
from specreason_sgl.evaluation.runner import empty_cache
from specreason_sgl.evaluation.statistics import Comparison, Estimate, analyse, mean, summarise_mode
from specreason_sgl.evaluation.statistics import rows as as_rows
from specreason_sgl.evaluation.statistics import throughput as in_flight
from specreason_sgl.lang.judging import Judge
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem
from specreason_sgl.settings import Settings
from specreason_sgl.text.prompts import DELIMITER

if TYPE_CHECKING:
    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.evaluation.modes import Server
    from specreason_sgl.lang.loading import Program
    from specreason_sgl.runs.store import SolveRecord

CONTEXTS = (300, 600)
"""Tokens of reasoning before the step that is judged."""
ROUNDS = 15
FEW, DRAFT_TOKENS = 4, 24
LONG, LONGEST = 1000, 1600
"""The lengths in tokens between which a trace grows while the use of the caches is measured."""
LEVELS = (1, 8, 32)
"""Problems in flight."""
PROBLEM = Problem(id="probe", question=tales.tale(0).question)
"""The problem of the probes."""


class JudgeCost(BaseModel):
    """How long a judgement takes, as a multiple of the time of one base-model token."""

    model_config = ConfigDict(frozen=True)

    context: int
    """Tokens that the cache holds already."""
    one_request: Estimate
    stock: Estimate


class CacheUse(BaseModel):
    """What the radix cache serves of the prompts on a long trace."""

    model_config = ConfigDict(frozen=True)

    model: str
    calls: int
    cached_share: float
    most_recomputed: int
    """The most prompt tokens of a call that were computed again: the model had seen them, but they were not cached."""


class Load(BaseModel):
    """Many problems at once."""

    model_config = ConfigDict(frozen=True)

    concurrency: int
    problems_per_second: float
    """Failed solves do not count."""
    against_one: float | None
    """The rate as a multiple of that with one problem at a time; None if that is not known."""
    failed: int


class Bench(BaseModel):
    """Everything that was measured."""

    model_config = ConfigDict(frozen=True)

    variants: dict[str, dict[str, Any]]
    against_base: list[Comparison]
    against_sequential: list[Comparison]
    against_reference: list[Comparison]
    outside: Estimate
    """The share of the sequential program's time in which no engine works."""
    profile: dict[str, float]
    """Where the sequential program's time goes, by kind of call, as shares."""
    judge: list[JudgeCost]
    caches: list[CacheUse]
    load: list[Load]


def measure(
    pair: Pair[Endpoint],
    records: Sequence[SolveRecord],
    program: Program,
    settings: Settings,
    problems: Sequence[Problem],
    say: Callable[[str], None],
) -> Bench:
    """Work out the variants and run the probes.

    Args:
        pair: the servers, with nothing else to do.
        records: the solves of the variants.
        program: the program of the measurements under load.
        settings: the settings of the measurements under load.
        problems: the problems of the measurements under load.
        say: called with a line on what is being measured.
    """
    base, small = pair.base, pair.small
    if base is None or small is None:
        msg = "a pair has two models"
        raise ValueError(msg)
    names = list(dict.fromkeys(record.mode for record in records))
    by_mode = {name: as_rows(r for r in records if r.mode == name) for name in names}
    figures = {name: summarise_mode(name, rows) for name, rows in by_mode.items()}
    compared = {
        against: analyse(records, [(name, against) for name in names if name != against]).comparisons
        for against in ("base", "sequential", "reference")
    }
    sequential = [record for record in records if record.mode == "sequential"]
    say("the judge")
    judge = [judge_cost(base, context) for context in CONTEXTS]
    say("the caches")
    caches = [cache_use(endpoint) for endpoint in (base, small)]
    load = []
    for level in LEVELS:
        say(f"{level} at once")
        load.append(throughput(pair, program, settings, problems, level))
    alone = load[0][0]
    return Bench(
        variants={
            name: {
                "accuracy": figure.accuracy and figure.accuracy.value,
                "acceptance": figure.acceptance,
                "wasted_tokens": figure.wasted_tokens,
                "problems": figure.problems,
                "lost_s": figure.lost_s,
            }
            for name, figure in figures.items()
        },
        against_base=compared["base"],
        against_sequential=compared["sequential"],
        against_reference=compared["reference"],
        outside=mean({record.problem.id: outside(record) for record in sequential}),
        profile=profile(sequential),
        judge=judge,
        caches=caches,
        load=[
            Load(
                concurrency=level, problems_per_second=rate, against_one=rate / alone if alone else None, failed=failed
            )
            for level, (rate, failed) in zip(LEVELS, load, strict=True)
        ],
    )


def outside(record: SolveRecord) -> float:
    """The share of a sequential solve in which neither engine was at work, by the engines' own clocks."""
    from specreason_sgl.events import CallMade

    busy = sum(event.engine_s or 0.0 for event in record.events if isinstance(event, CallMade))
    return 1 - busy / record.tally.latency


def profile(records: Iterable[SolveRecord]) -> dict[str, float]:
    """The shares of the latency by kind of call, and of the time between calls."""
    spent: dict[str, float] = {}
    whole = 0.0
    for totals in (record.tally for record in records):
        whole += totals.latency
        for kind, seconds in totals.seconds.items():
            spent[kind] = spent.get(kind, 0.0) + seconds
    return {
        **{kind: seconds / whole for kind, seconds in spent.items()},
        "between calls": 1 - sum(spent.values()) / whole,
    }


def judge_cost(base: Endpoint, context: int, rounds: int = ROUNDS) -> JudgeCost:
    """Time judgements of fresh drafts behind a cached context, both ways, in turn with plain generation."""
    before = _steps_up_to(base, context)
    opening = _opening(base) + DELIMITER.join(before)
    stock = base.plain()
    judge, stock_judge = (Judge(server, PROBLEM, Settings.model_validate({})) for server in (base, stock))
    drafts = iter(_drafts(2 * rounds + 2))
    per_token, ours, theirs = [], [], []
    for number in range(rounds + 1):
        short = _timed(base, lambda: _generate(base, opening, FEW))
        long = _timed(base, lambda: _generate(base, opening, FEW + DRAFT_TOKENS))
        one = _timed(base, lambda: judge.score(before, next(drafts)))
        other = _timed(stock, lambda: stock_judge.score(before, next(drafts)))
        if number:  # the first one warms up
            per_token.append((long - short) / DRAFT_TOKENS)
            ours.append(one)
            theirs.append(other)
    token = statistics.median(per_token)
    return JudgeCost(context=context, one_request=_ratios(ours, token), stock=_ratios(theirs, token))


def cache_use(endpoint: Endpoint, length: int = LONGEST) -> CacheUse:
    """Grow a trace step by step as the program does, and see what each call has to compute beyond a thousand tokens.

    New text is what the model has not processed yet: for a draft the last token of what it wrote itself, for the base
    model the step that somebody else wrote.
    """
    opening = _opening(endpoint)
    steps = _drafts(200)
    text, before = opening, 0
    shares, extra = [], []
    for step in steps:
        fresh = len(endpoint.tokens(step + DELIMITER))
        meta = _generate(endpoint, text, 1)
        prompt, cached = meta["prompt_tokens"], meta["cached_tokens"]
        if prompt > LONG:
            shares.append(cached / prompt)
            extra.append(prompt - cached - before)
        if prompt > length:
            break
        before = fresh
        text += step + DELIMITER
    return CacheUse(
        model=endpoint.role,
        calls=len(shares),
        cached_share=statistics.mean(shares),
        most_recomputed=max(extra),
    )


def throughput(
    pair: Pair[Server],
    program: Program,
    settings: Settings,
    problems: Sequence[Problem],
    level: int,
    parameters: Mapping[str, Any] | None = None,
) -> tuple[float, int]:
    """Problems solved per second with ``level`` of them at the same time, from empty caches, and how many failed.

    It is the rate while all places are taken: by the clock, few problems would measure how long the longest of them
    goes on alone when all others are done.
    """
    for endpoint in (pair.base, pair.small):
        if endpoint is not None:
            empty_cache(endpoint)
    with ThreadPoolExecutor(level) as pool:
        made = as_rows(pool.map(lambda one: solve(one, program, pair, settings, parameters=parameters), problems))
    measured = in_flight(made, level)
    return measured.solves_per_minute / 60 if measured else 0.0, sum(row.outcome == "failed" for row in made)


def tables(bench: Bench) -> list[Table]:
    """The figures as tables."""
    against = [
        {c.mode: c for c in some} for some in (bench.against_base, bench.against_sequential, bench.against_reference)
    ]
    count = max(int(v["problems"]) for v in bench.variants.values())
    lost = max(float(v["lost_s"]) for v in bench.variants.values())
    left_out = f"; up to {lost:.1f} s a solve were lost to servers that failed, and are in none" if lost else ""
    return [
        Table(
            "Variants, solved in turn on the same problems",
            (
                "variant",
                "against base",
                "against sequential",
                "against reference",
                "pass@1",
                "acceptance",
                "wasted tokens",
            ),
            tuple(
                (
                    name,
                    *(speed(some.get(name)) for some in against),
                    share_of(v["accuracy"]),
                    share_of(v["acceptance"]),
                    f"{v['wasted_tokens']:.0f}",
                )
                for name, v in bench.variants.items()
            ),
            f"Speed-ups are ratios of mean latencies with 95 % bootstrap intervals over {count} problems{left_out}.",
        ),
        Table(
            "Where the time of the sequential program goes",
            ("part", "share"),
            (
                *((kind, share_of(value)) for kind, value in bench.profile.items()),
                ("outside both engines", f"{bench.outside.value:.1%}"),
            ),
        ),
        Table(
            "A judgement, in base-token times",
            ("cached context", "one request", "stock selection"),
            tuple((f"{j.context} tok", _times(j.one_request), _times(j.stock)) for j in bench.judge),
        ),
        Table(
            "Prompt tokens from the radix cache, on traces beyond 1,000 tokens",
            ("model", "calls", "cached", "most recomputed"),
            tuple((c.model, str(c.calls), f"{c.cached_share:.1%}", f"{c.most_recomputed} tok") for c in bench.caches),
        ),
        load_table(bench.load),
    ]


def load_table(loads: Sequence[Load]) -> Table:
    """What comes of many problems at once."""
    failed = [f"{load.failed} of those with {load.concurrency} in flight" for load in loads if load.failed]
    return Table(
        "Many problems at once",
        ("in flight", "problems per second, against one at a time"),
        tuple(
            (str(load.concurrency), NOTHING if load.against_one is None else f"{load.against_one:.2f}x")
            for load in loads
        ),
        f"Solves that failed and do not count: {', '.join(failed)}." if failed else "",
    )


def _opening(endpoint: Endpoint) -> str:
    return endpoint.chat.opening(PROBLEM.question)


def _steps_up_to(endpoint: Endpoint, tokens: int) -> list[str]:
    """Steps that come to so many tokens together with the question."""
    steps: list[str] = []
    for step in _drafts(100):
        if len(endpoint.tokens(_opening(endpoint) + DELIMITER.join([*steps, step]))) > tokens:
            break
        steps.append(step)
    return steps


def _drafts(count: int) -> list[str]:
    """Different steps of about the same length."""
    told = ((tales.tale(seed, "dev"), Random(seed)) for seed in range(10**6))
    found = (step for tale, rng in told for step in tales.said(tale, "small", rng) if ":" in step)
    return [next(found) for _ in range(count)]


def _generate(endpoint: Endpoint, text: str, tokens: int) -> dict[str, Any]:
    meta: dict[str, Any] = endpoint.complete(text, {"max_new_tokens": tokens, "temperature": 0, "ignore_eos": True})[
        "meta_info"
    ]
    return meta


def _timed(endpoint: Endpoint, call: Callable[[], object]) -> float:
    """The seconds that a call takes, without those of waiting for a server that does not answer."""
    began, paused = time.perf_counter(), endpoint.scope.paused_s
    call()
    return time.perf_counter() - began - (endpoint.scope.paused_s - paused)


def _ratios(seconds: Sequence[float], token: float) -> Estimate:
    return mean({str(number): value / token for number, value in enumerate(seconds)})


def _times(estimate: Estimate) -> str:
    interval = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:.1f}, {estimate.high:.1f}]"
    return f"{estimate.value:.1f}{interval}"


def speed(comparison: Comparison | None) -> str:
    """A speed-up with its interval, as text."""
    if comparison is None or comparison.speed_up is None:
        return NOTHING
    estimate = comparison.speed_up
    interval = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"{estimate.value:.2f}x{interval}"


def share_of(value: float | None) -> str:
    """A share in percent, as text."""
    return NOTHING if value is None else f"{value:.0%}"
