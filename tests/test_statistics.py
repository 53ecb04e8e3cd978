"""Figures against hand-computed and scipy's values, and properties of putting solves together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from specreason_sgl.evaluation.grading import Outcome
from specreason_sgl.evaluation.statistics import (
    NEAR,
    Comparison,
    Costing,
    Price,
    Row,
    Throughput,
    accuracy_within,
    analyse,
    busy_seconds,
    by_problem,
    compare,
    corrected,
    cost,
    frontier,
    holm,
    mean,
    nearest,
    rows,
    share,
    summarise_mode,
)
from specreason_sgl.events import AnswerWritten, CallMade, SolveEnded, StepScored, StepTaken, ThinkingEnded
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.tally import Tally, tally


def count(**figures: float) -> Any:
    return Counter(figures)


def row(problem: str, came: Outcome | None = "right", seconds: float = 1.0, mode: str = "m", **totals: object) -> Row:
    return Row(problem, mode, came, seconds, 0.0, Tally(**totals), known=came is not None)  # type: ignore[arg-type]


def rights(values: Iterable[bool], mode: str = "m") -> list[Row]:
    return [row(f"p{i}", "right" if right else "wrong", mode=mode) for i, right in enumerate(values)]


def test_pass_at_one_averages_repeats_within_a_problem() -> None:
    some = [row("a"), row("a", "wrong"), row("b"), row("b"), row("c", "failed"), row("c", "truncated")]
    estimate = summarise_mode("m", some).accuracy

    assert estimate is not None
    assert (estimate.value, estimate.n) == (0.5, 3)


def test_whatever_is_not_right_counts_as_not_right_and_is_told() -> None:
    outcomes: list[Outcome] = ["right", "wrong", "no-answer", "truncated", "ungradable", "failed"]
    summary = summarise_mode("m", [row(str(i), came) for i, came in enumerate(outcomes)])

    assert summary.outcomes == dict.fromkeys(outcomes, 1)
    assert summary.accuracy is not None
    assert summary.accuracy.value == pytest.approx(1 / 6)


def test_without_known_answers_there_is_no_accuracy() -> None:
    assert summarise_mode("m", [row("a", None)]).accuracy is None
    assert compare([row("a", None)], [row("a", None)]).difference is None


def test_the_interval_resamples_problems_and_not_solves() -> None:
    values = {f"p{i}": float(i % 2) for i in range(40)}
    estimate = share(values)
    expected = stats.bootstrap(
        (np.array(list(values.values())),), np.mean, n_resamples=9999, method="percentile", rng=0
    ).confidence_interval

    assert (estimate.low, estimate.high) == (expected.low, expected.high)
    repeated = [row(problem, "right" if value else "wrong") for problem, value in values.items() for _ in range(16)]
    assert summarise_mode("m", repeated).accuracy == estimate


@pytest.mark.parametrize(("value", "low", "high"), [(1.0, 0.8389, 1.0), (0.0, 0.0, 0.1611)])
def test_where_all_problems_are_alike_the_interval_is_wilsons(value: float, low: float, high: float) -> None:
    estimate = share({f"p{i}": value for i in range(20)})

    assert estimate.low == pytest.approx(low, abs=1e-4)
    assert estimate.high == pytest.approx(high, abs=1e-4)


def test_one_problem_has_no_interval() -> None:
    assert share({"a": 0.5}).low is None
    assert mean({"a": 2.0}).high is None


def test_latency_of_a_single_stream() -> None:
    some = [row(f"p{i}", seconds=float(i)) for i in range(1, 101)] + [row("bad", "failed", seconds=1000)]
    latency = summarise_mode("m", some).latency

    assert latency is not None
    assert latency.mean.value == 50.5
    assert latency.p50 == 50.5
    assert latency.p95 == pytest.approx(95.05)


def test_under_concurrency_there_is_throughput_and_no_latency() -> None:
    some = [
        Row("a", "m", "right", 30.0, 0.0, Tally(kept=count(base=300))),
        Row("b", "m", "right", 30.0, 15.0, Tally(kept=count(base=150))),
        Row("c", "m", "right", 15.0, 1000.0, Tally()),
    ]
    summary = summarise_mode("m", some, concurrency=2)

    assert summary.latency is None
    assert summary.throughput is not None
    assert (summary.throughput.solves_per_minute, summary.throughput.tokens_per_second) == (4.8, 12.0), "75 s of two"
    assert compare(some, some, timed=False).speed_up is None


def lost(at: float, wall_s: float, lost_s: float, **fields: Any) -> CallMade:
    """A call that came back then, after others of its attempts were lost."""
    row = {"model": "base", "kind": "regenerate", "prompt_tokens": 1, "cached_tokens": 0, "generated_tokens": 9}
    return CallMade.model_validate({**row, "finish": "stop", "at": at, "wall_s": wall_s, "lost_s": lost_s, **fields})


@pytest.mark.parametrize(
    ("calls", "outages"),
    [
        ([], []),
        ([(2.0, 1.0, 0.0)], []),
        ([(9.0, 1.0, 5.0)], [(3, 8)]),
        ([(9.0, 1.0, 5.0), (9.0, 1.0, 5.0)], [(3, 8)]),
        ([(9.0, 1.0, 5.0), (9.5, 0.5, 2.0), (10.0, 1.0, 3.0)], [(3, 9)]),
        ([(9.0, 1.0, 1.0), (9.0, 0.5, 8.0)], [(0.5, 8.5)]),
        ([(5.0, 1.0, 2.0), (20.0, 2.0, 3.0), (21.0, 19.0, 1.0)], [(1, 4), (15, 18)]),
        ([(3.0, 1.0, 7.0)], [(0, 2)]),
    ],
)
def test_latency_is_wall_time_less_what_was_lost_and_calls_at_the_same_time_count_once(
    calls: list[tuple[float, float, float]], outages: list[tuple[float, float]]
) -> None:
    totals = tally([*(lost(*call) for call in calls), SolveEnded(at=30.0, outcome="answered")])

    assert totals.outages == outages
    assert totals.lost_s == pytest.approx(sum(end - begin for begin, end in outages))
    assert (totals.elapsed, totals.latency) == (30, 30 - totals.lost_s)


quarters = st.integers(0, 40).map(lambda number: number / 4)


@given(st.lists(st.tuples(quarters, quarters, quarters), max_size=12))
def test_no_order_and_no_overlap_of_lost_calls_loses_a_second_twice_or_more_than_there_are(
    calls: list[tuple[float, float, float]],
) -> None:
    told = [lost(*call) for call in sorted(calls)]
    totals = tally([*told, SolveEnded(at=12.0, outcome="answered")])
    ticks = {
        tick / 4
        for at, wall_s, lost_s in calls
        for tick in range(int(4 * max(0, at - wall_s - lost_s)), int(4 * max(0, at - wall_s)))
    }

    assert totals.lost_s == len(ticks) / 4
    assert 0 <= totals.latency <= totals.elapsed


def test_rates_and_speed_ups_of_a_solve_leave_out_what_was_lost() -> None:
    def solve(*, outage: float) -> Tally:
        small = {"model": "small", "kind": "draft"}
        return tally([
            lost(1.0 + outage, 1.0, outage, **small),
            lost(2.0 + outage, 2.0, outage),
            StepScored(
                step=0, logprobs=(0.0,) * 10, greedy=9, expected=9, reaching=1, entropy=0, missing_mass=0, accepted=True
            ),
            StepTaken(at=2.0 + outage, step=0, author="small", text="x", tokens=20),
            ThinkingEnded(at=2.0 + outage, reason="closed", steps=1, tokens=20),
            SolveEnded(at=4.0 + outage, outcome="answered"),
        ])  # fmt: skip

    calm, away = solve(outage=0.0), solve(outage=100.0)

    assert away.elapsed == calm.elapsed + 100
    assert (away.latency, away.thinking_s) == (calm.latency, calm.thinking_s) == (4, 2)
    assert away.tokens_per_second == calm.tokens_per_second == 5
    assert calm.speed_up is not None
    assert away.speed_up == pytest.approx(calm.speed_up)


def solved(problem: str, mode: str, seconds: float, outage: float = 0.0, began: int = 0) -> SolveRecord:
    return SolveRecord(
        problem=Problem(id=problem, question=problem, answer="1"),
        mode=mode,
        started=datetime.fromtimestamp(began, UTC),
        events=[
            lost(seconds / 2 + outage, seconds / 2, outage, retries=int(outage > 0)),
            StepTaken(at=seconds / 2 + outage, step=0, author="base", text="x", tokens=60),
            AnswerWritten(at=seconds + outage, author="base", text="1", answer="1", truncated=False),
            SolveEnded(at=seconds + outage, outcome="answered", correct=True),
        ],
    )


def test_an_outage_changes_no_latency_no_speed_up_and_no_budget() -> None:
    calm = [solved(p, mode, s) for p in "abc" for mode, s in (("base", 4.0), ("m", 2.0))]
    shaky = [solved(p, mode, s, outage=90.0) for p in "abc" for mode, s in (("base", 4.0), ("m", 2.0))]
    one, other = (analyse(records, [("m", "base")], baseline="base") for records in (calm, shaky))

    assert [s.latency for s in other.summaries] == [s.latency for s in one.summaries]
    assert other.comparisons == one.comparisons
    assert (other.budgets, other.frontier) == (one.budgets, one.frontier)
    assert [s.lost_s for s in one.summaries] == [0, 0]
    assert [s.lost_s for s in other.summaries] == [90, 90]


def test_throughput_leaves_out_what_held_up_solves() -> None:
    alone = [solved("a", "m", 30.0, outage=100.0)]
    with_another = [*alone, solved("b", "m", 130.0)]

    assert summarise_mode("m", rows(alone), concurrency=2).throughput == Throughput(
        concurrency=2, solves_per_minute=2, tokens_per_second=2
    )
    found = summarise_mode("m", rows(with_another), concurrency=2).throughput
    assert found is not None
    assert found.solves_per_minute == pytest.approx(2 * 2 * 60 / (30 + 130))


def test_throughput_counts_the_time_of_failed_solves_and_not_the_solves() -> None:
    some = [row("a", seconds=30.0), row("b", "failed", seconds=60.0)]
    found = summarise_mode("m", some, concurrency=2).throughput

    assert found is not None
    assert found.solves_per_minute == pytest.approx(60 / 45)
    assert summarise_mode("m", [row("b", "failed")], concurrency=2).throughput is None


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [([], 0), ([(0, 1), (2, 4)], 3), ([(0, 5), (1, 2)], 3), ([(1, 3), (0, 2)], 2), ([(0, 1), (1, 2)], 2),
     ([(0, 1), (0, 1), (1, 11)], 6)],
)  # fmt: skip
def test_neither_pauses_nor_a_long_last_solve_count_as_busy(spans: list[tuple[float, float]], seconds: float) -> None:
    assert busy_seconds(spans) == seconds


def test_solves_that_take_turns_are_not_at_once_because_a_clock_was_set_back() -> None:
    assert busy_seconds([(0, 10), (9.9, 20), (20, 30)]) == pytest.approx(30.1)


def test_tokens_steps_and_time_are_totals_over_solves() -> None:
    one = Tally(
        steps=count(small=3, base=1), kept=count(small=30, base=10), judged=4, accepted=3, drafted_tokens=45,
        taken_drafts=30, seconds=count(draft=1, judge=1, regenerate=2), prompt_tokens=count(base=100),
        cached_tokens=count(base=80), generated=count(base=20, small=45), retries=1, ended="budget",
    )  # fmt: skip
    other = Tally(
        steps=count(base=4), kept=count(base=60), judged=4, accepted=0, drafted_tokens=15, ended="context"
    )  # fmt: skip
    s = summarise_mode("m", [Row("a", "m", "right", 1, 0, one), Row("b", "m", "right", 1, 0, other)])

    assert (s.acceptance, s.small_steps, s.judge_share, s.cached_share) == (3 / 8, 3 / 8, 1 / 4, 4 / 5)
    assert (s.thinking_tokens, s.drafted_tokens, s.wasted_tokens) == (50, 30, 15)
    assert (s.base_tokens, s.small_tokens, s.retries, s.cut_short) == (10, 22.5, 1, 2)
    assert s.shares == {"draft": 0.25, "judge": 0.25, "regenerate": 0.5}


def test_tokens_a_round_leave_out_what_comes_from_reading_the_prompt() -> None:
    def made(kind: str, tokens: int, rounds: int) -> CallMade:
        return CallMade(model="base", kind=kind, prompt_tokens=9, cached_tokens=0, generated_tokens=tokens, wall_s=1,
                        finish="stop", rounds=rounds)  # fmt: skip

    totals = tally([made("regenerate", 21, 4), made("judge", 1, 0), made("answer", 5, 1), made("draft", 30, 0)])
    summary = summarise_mode(
        "m", [Row("a", "m", "right", 1, 0, totals), row("b", verified=count(think=24), rounds=count(think=5))]
    )

    assert totals.agreement == pytest.approx(24 / 5)
    assert summary.agreement == pytest.approx(48 / 10)
    assert summarise_mode("m", [row("b")]).agreement is None
    assert "agreement" not in summarise_mode("m", [row("b")]).model_dump()
    assert "rounds" not in made("draft", 30, 0).model_dump()


def test_a_comparison_is_paired_by_problem() -> None:
    mode = [row("a"), row("b"), row("b", "wrong"), row("c", "wrong"), row("only here")]
    base = [row("c"), row("a", "wrong"), row("b", "wrong"), row("only there")]
    found = compare(mode, base)

    assert found.problems == 3
    assert found.difference is not None
    assert found.difference.value == pytest.approx((1 + 0.5 - 1) / 3)
    assert (found.wins, found.losses) == (2, 1)


def test_the_speed_up_is_the_ratio_of_mean_latencies() -> None:
    base = [row("a", seconds=2), row("b", seconds=4), row("c", "failed", seconds=99)]
    mode = [row("a", seconds=1), row("b", seconds=1), row("c", seconds=50)]
    found = compare(mode, base).speed_up

    assert found is not None
    assert (found.value, found.n) == (3.0, 2)


def test_intervals_and_tests_of_pairs_are_scipys() -> None:
    lots = np.random.default_rng(3)
    one, other = (lots.random(60) < 0.7, lots.random(60) < 0.4)
    found = compare(rights(one), rights(other, "base"))
    expected = stats.bootstrap(
        (one.astype(float) - other,), np.mean, n_resamples=9999, method="percentile", rng=0
    ).confidence_interval

    assert found.difference is not None
    assert found.difference.low == pytest.approx(expected.low, abs=0.02)
    assert found.difference.high == pytest.approx(expected.high, abs=0.02)
    sign = stats.binomtest(found.wins, found.wins + found.losses).pvalue
    assert found.difference_p == pytest.approx(sign, abs=0.02), "a randomisation test on right and wrong is a sign test"
    assert found.difference_word == "significant"


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_handful_of_problems_shows_nothing(n: int) -> None:
    found = compare(rights([True] * n), rights([False] * n, "base"))

    assert found.difference_word == "not significant"
    assert found.difference_p == pytest.approx(2 * 0.5**n)


def test_no_difference_at_all_still_has_an_interval() -> None:
    found = compare(rights([True] * 100), rights([True] * 100, "base"))

    assert found.difference is not None
    assert found.difference.value == 0
    assert found.difference.high == pytest.approx(0.037, abs=1e-3)
    assert found.difference.low == pytest.approx(-0.037, abs=1e-3)
    assert found.difference_word == "not significant"


def test_equal_speed_is_not_significant() -> None:
    lots = np.random.default_rng(0)
    one, other = ([row(f"p{i}", seconds=s) for i, s in enumerate(lots.gamma(4, 1, 80))] for _ in range(2))
    found = compare(one, other)

    assert found.speed_up_word == "not significant"
    assert found.difference_word == "not significant"


def test_twice_as_fast_is_significant_and_inside_its_interval() -> None:
    lots = np.random.default_rng(0)
    seconds = lots.gamma(4, 1, 80)
    base = [row(f"p{i}", seconds=s) for i, s in enumerate(seconds)]
    found = compare([row(f"p{i}", seconds=s / 2 * lots.uniform(0.9, 1.1)) for i, s in enumerate(seconds)], base)

    assert found.speed_up is not None
    assert found.speed_up.low is not None
    assert found.speed_up.high is not None
    assert found.speed_up.low < 2 < found.speed_up.high
    assert found.speed_up.high - found.speed_up.low < 0.1, "pairing takes the spread of the problems out"
    assert found.speed_up_word == "significant"


def test_accuracy_at_a_latency_budget() -> None:
    some = [row("a", seconds=1), row("b", seconds=3), row("c", "wrong", seconds=1), row("d", seconds=2)]

    assert [accuracy_within(some, limit).value for limit in (0.5, 1, 2, 3)] == [0, 0.25, 0.5, 0.75]


def test_the_frontier_has_who_nobody_beats() -> None:
    points = {"slow": (9.0, 0.9), "fast": (1.0, 0.3), "worse": (9.5, 0.9), "middle": (5.0, 0.8), "bad": (6.0, 0.2)}

    found = frontier(points)
    assert [point.mode for point in found] == ["fast", "middle", "bad", "slow", "worse"]
    assert {point.mode for point in found if point.efficient} == {"fast", "middle", "slow"}


def test_nothing_stored_is_nothing_told() -> None:
    found = analyse([])

    assert (found.summaries, found.comparisons, found.frontier) == ([], [], [])


outcomes = st.sampled_from(["right", "wrong", "failed", "truncated"])
solves = st.lists(st.tuples(st.sampled_from("abcde"), outcomes, st.floats(0.01, 100)), min_size=1, max_size=30)


@given(solves, st.randoms())
@settings(deadline=None, max_examples=40)
def test_the_order_of_solves_does_not_matter(made: list[tuple[str, Outcome, float]], lots: object) -> None:
    some = [row(*each) for each in made]
    mixed = sorted(some, key=lambda _: lots.random())  # type: ignore[attr-defined]
    first, second = by_problem(some, lambda r: r.right), by_problem(mixed, lambda r: r.right)

    assert first == pytest.approx(second)
    assert summarise_mode("m", some).outcomes == summarise_mode("m", mixed).outcomes


@given(solves)
@settings(deadline=None, max_examples=40)
def test_every_solve_has_one_outcome_and_accuracy_is_a_share(made: list[tuple[str, Outcome, float]]) -> None:
    summary = summarise_mode("m", [row(*each) for each in made])

    assert sum(summary.outcomes.values()) == summary.solves == len(made)
    assert summary.accuracy is None or 0 <= (summary.accuracy.low or 0) <= 1
    if summary.accuracy and summary.accuracy.low is not None and summary.accuracy.high is not None:
        assert summary.accuracy.low - 1e-9 <= summary.accuracy.value <= summary.accuracy.high + 1e-9


@given(solves, solves)
@settings(deadline=None, max_examples=30)
def test_comparing_the_other_way_round_turns_the_sign(
    one: list[tuple[str, Outcome, float]], other: list[tuple[str, Outcome, float]]
) -> None:
    some, others = [row(*each) for each in one], [row(*each) for each in other]
    there, back = compare(some, others), compare(others, some)

    assert (there.wins, there.losses) == (back.losses, back.wins)
    if there.difference and back.difference:
        assert there.difference.value == pytest.approx(-back.difference.value)
    if there.speed_up and back.speed_up:
        assert there.speed_up.value == pytest.approx(1 / back.speed_up.value)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), st.tuples(st.floats(0, 9), st.floats(0, 1)), max_size=8))
def test_nobody_on_the_frontier_is_beaten(points: dict[str, tuple[float, float]]) -> None:
    found = frontier(points)
    best = [point for point in found if point.efficient]

    assert len(found) == len(points)
    assert bool(best) == bool(points)
    assert all(a.accuracy < b.accuracy or (a.seconds, a.accuracy) == (b.seconds, b.accuracy) for a, b in pairwise(best))


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=12))
def test_busy_time_is_that_of_all_places_taken(spans: list[tuple[int, int]]) -> None:
    ordered = [(min(span), max(span)) for span in spans]
    running = Counter(second for begin, end in ordered for second in range(begin, end))

    assert busy_seconds(ordered) == pytest.approx(running.total() / max([1, *running.values()]))
    assert busy_seconds(ordered) <= len(running) + 1e-9, "the time in which anything ran at all"


chances = st.integers(0, 1024).map(lambda number: number / 1024)


@given(st.lists(chances, max_size=12), st.integers(1, 63).map(lambda number: number / 64))
def test_corrected_p_values_reject_what_holms_procedure_rejects(values: list[float], level: float) -> None:
    rejected = set()
    left = sorted(range(len(values)), key=lambda place: values[place])
    while left and len(left) * values[left[0]] <= level:
        rejected.add(left.pop(0))

    assert {place for place, p in enumerate(holm(values)) if p <= level} == rejected


@given(st.lists(chances, min_size=1, max_size=12))
def test_correcting_never_helps_keeps_the_order_and_leaves_one_alone_as_it_is(values: list[float]) -> None:
    made = holm(values)

    assert all(p <= after <= min(1.0, len(values) * p) for p, after in zip(values, made, strict=True))
    assert [made[place] for place in sorted(range(len(values)), key=values.__getitem__)] == sorted(made)
    assert holm(values[:1]) == values[:1]


def better(many: int, mode: str = "m") -> Comparison:
    """A mode that wins so many of 40 problems and loses none."""
    return compare(rights([True] * 40, mode), rights([place >= many for place in range(40)], "base"))


def test_a_difference_is_called_significant_only_if_it_is_among_all_comparisons() -> None:
    alone, crowd = better(6), corrected([better(6, f"m{number}") for number in range(5)])

    assert alone.difference_p == pytest.approx(2 * 0.5**6, abs=0.01)
    assert alone.difference_word == "significant"
    assert {each.difference_word for each in crowd} == {"not significant"}
    assert {each.difference for each in crowd} == {alone.difference}, "intervals are those of one comparison each"
    assert [each.difference_word for each in corrected([better(6), better(20)])] == ["significant"] * 2


def test_what_could_not_be_compared_is_no_member_of_the_family() -> None:
    unknown = compare([row("a", None)], [row("a", None)], timed=False)
    made = corrected([unknown, better(6), unknown])

    assert made[1].difference_p_corrected == made[1].difference_p
    assert made[0].difference_p_corrected is None
    assert made[0].difference_word == "not measured"


def test_accuracies_and_speed_ups_are_corrected_apart() -> None:
    pair = rights([True] * 9), rights([False] * 9, "base")
    made = corrected([compare(*pair), compare(*pair, timed=False)])

    assert made[0].speed_up_p_corrected == made[0].speed_up_p
    assert made[0].difference_p is not None
    assert made[0].difference_p_corrected == min(1, 2 * made[0].difference_p)


def costed(mode: str, problem: int, seconds: float = 1.0, *, right: bool = True, **tokens: int) -> SolveRecord:
    """A solve, one after the other, in which each model generated so many tokens in one call."""
    calls = [
        lost(seconds, seconds, 0.0, model=role, kind="think", generated_tokens=many) for role, many in tokens.items()
    ]
    return SolveRecord(
        problem=Problem(id=str(problem), question=str(problem), answer="1"),
        mode=mode,
        started=datetime.fromtimestamp(1000 * problem, UTC),
        events=[
            *calls,
            AnswerWritten(at=seconds, author="base", text="1", answer="1", truncated=False),
            SolveEnded(at=seconds, outcome="answered", correct=right),
        ],
    )


def mode_of(mode: str, seconds: float = 1.0, wrong: int = 0, **tokens: int) -> list[SolveRecord]:
    return [costed(mode, number, seconds, right=number >= wrong, **tokens) for number in range(40)]


BOTH = [*mode_of("base", 10.0, wrong=20, base=100), *mode_of("small", 2.0, wrong=30, small=80)]
COSTING = Costing(alone=("base", "small"), controls=("base", "twice", "cut"))
CONTROLS = [*mode_of("twice", wrong=15, base=200), *mode_of("cut", wrong=25, base=50)]


def test_a_token_costs_the_time_that_it_took_where_its_model_was_alone() -> None:
    made = analyse([*BOTH, *mode_of("m", base=60, small=200)], costing=COSTING)

    assert made.prices == [
        Price(model="base", base_tokens=1.0),
        Price(model="small", base_tokens=(2 / 80) / (10 / 100), measured=("small", "base")),
    ]
    assert [summary.cost for summary in made.summaries] == pytest.approx([100, 20, 110])


def test_seconds_of_servers_that_were_away_cost_nothing_and_a_given_price_holds() -> None:
    away = [solved(str(place), "base", 10.0, outage=90.0, began=1000 * place) for place in range(3)]
    here = [solved(str(place), "base", 10.0, began=1000 * place) for place in range(3)]
    small = [costed("small", place, small=9) for place in range(3)]

    assert analyse([*away, *small], costing=COSTING).prices == analyse([*here, *small], costing=COSTING).prices
    given_one = Costing(alone=("base", "small"), given={"small": 0.5})
    assert analyse([*here, *small], costing=given_one).prices[1:] == [Price(model="small", base_tokens=0.5)]


def test_a_model_without_a_price_leaves_the_cost_open() -> None:
    found = analyse([*BOTH, *CONTROLS, *mode_of("m", base=60, reward=1)], costing=COSTING)

    assert found.summaries[-1].cost is None
    assert [each.mode for each in found.equal_cost] == ["small"]
    assert cost({"base": 3, "reward": 0}, [Price(model="base", base_tokens=1)]) == 3


def test_a_model_in_the_place_of_another_has_its_own_price() -> None:
    few = mode_of("few-bits", 5.0, base=100)
    roles = {"few-bits": {"base": "compressed"}, "m": {"base": "compressed"}}
    made = analyse(
        [*BOTH, *few, *mode_of("m", base=40)], costing=Costing(alone=("base", "small", "few-bits"), roles=roles)
    )

    assert made.prices[-1] == Price(model="compressed", base_tokens=0.5, measured=("few-bits", "base"))
    assert made.summaries[-1].cost == pytest.approx(20)


def test_a_mode_is_compared_with_the_control_that_costs_as_much() -> None:
    made = analyse([*BOTH, *CONTROLS, *mode_of("m", wrong=0, base=150, small=160)], costing=COSTING)
    small, mode = made.equal_cost

    assert (mode.mode, mode.control, mode.is_equal) == ("m", "twice", True)
    assert (mode.cost, mode.control_cost, mode.ratio) == pytest.approx((190, 200, 0.95))
    assert mode.comparison == corrected([mode.comparison])[0], "one comparison is made at equal cost"
    assert mode.comparison.difference is not None
    assert mode.comparison.difference.value == pytest.approx(15 / 40)
    assert mode.word == "significant"
    assert (small.control, small.is_equal) == ("cut", False)
    assert small.ratio == pytest.approx(0.4)
    assert small.word == "not at equal cost"
    assert small.comparison.difference_p_corrected is None, "nothing is claimed, so nothing is corrected for"


def test_without_controls_nothing_is_compared_at_equal_cost() -> None:
    assert analyse(BOTH, costing=Costing(alone=("base", "small"))).equal_cost == []
    assert analyse([], costing=COSTING).equal_cost == []


def test_a_control_that_asks_another_model_is_none() -> None:
    asks = Costing(alone=("base", "small"), controls=("base", "m"))
    made = analyse([*BOTH, *mode_of("m", base=18, small=8), *mode_of("other", base=20)], costing=asks)

    assert [(each.mode, each.control) for each in made.equal_cost] == [("small", "base"), ("other", "base")]


def test_of_two_controls_as_near_the_cheaper_one_counts_and_nothing_is_near_what_costs_nothing() -> None:
    assert nearest(100, {"dear": 125, "cheap": 80, "also cheap": 80, "free": 0}) == "cheap"
    assert nearest(0, {"cheap": 80}) is None
    assert nearest(5, {}) is None
    assert NEAR == 1.15


costs = st.dictionaries(st.text("abc", min_size=1), st.floats(1, 1e6), min_size=1)


@given(st.floats(1, 1e6), costs)
def test_no_control_is_nearer_than_the_nearest(own: float, others: dict[str, float]) -> None:
    found = nearest(own, others)

    assert found is not None
    for each in others.values():
        assert max(own / others[found], others[found] / own) <= max(own / each, each / own)
