"""The bench and the cost model: their arithmetic, and their measurements on the real pair."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from specreason_sgl.embedded import stories, tales
from specreason_sgl.evaluation.statistics import Estimate, analyse
from specreason_sgl.events import AnswerWritten, CallMade, SolveEnded, SolveStarted, StepScored, StepTaken
from specreason_sgl.lang import loading
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.measure import bench
from specreason_sgl.measure.cost_model import Costs, Work
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.settings import Settings
from specreason_sgl.testing import StoryBackend

if TYPE_CHECKING:
    from specreason_sgl.servers.pairs import RunningPair


def test_shares_of_a_profile_add_up() -> None:
    record = _record()
    shares = bench.profile([record])

    assert sum(shares.values()) == pytest.approx(1)
    assert shares == pytest.approx({"draft": 0.25, "judge": 0.25, "answer": 0.25, "between calls": 0.25})
    assert bench.outside(record) == pytest.approx(1 - 0.6 / 4)


def test_an_outage_is_no_part_of_a_profile() -> None:
    calm = _record()
    events = [
        event.model_copy(update={"at": event.at + 50 * (event.at > 0)} | ({"lost_s": 50.0} if event.at == 1 else {}))
        for event in calm.events
    ]
    away = calm.model_copy(update={"events": events})

    assert away.tally.elapsed == 54
    assert bench.profile([away]) == pytest.approx(bench.profile([calm]))
    assert bench.outside(away) == pytest.approx(bench.outside(calm))


class Refusing(StoryBackend):
    """Knows no story with an odd number."""

    def generate(self, s: Any, sampling_params: Any) -> tuple[str, dict[str, Any]]:
        if any(stories.story(seed).question in s.text_ for seed in (1, 3)):
            raise RuntimeError("no odd ones")
        return super().generate(s, sampling_params)


def test_problems_that_fail_are_told_and_are_not_solved() -> None:
    told = [stories.story(seed) for seed in range(4)]
    problems = [Problem(id=str(n), question=one.question, answer=str(one.answer)) for n, one in enumerate(told)]
    pair = Pair(Refusing("base", told), StoryBackend("small", told))
    settings, base_only = Settings(temperature=0, top_p=1, budget=1024), loading.load("base_only")

    rate, failed = bench.throughput(pair, base_only, settings, problems, 2)
    assert (rate > 0, failed) == (True, 2)
    assert bench.throughput(pair, base_only, settings, [problems[1], problems[3]], 2) == (0, 2)


@pytest.mark.parametrize(
    ("level", "begun", "seconds"),
    [
        pytest.param(1, (0, 1, 2), 12, id="one place"),
        pytest.param(2, (0, 0, 1), 6, id="two places that are taken for twelve seconds all in all"),
        pytest.param(8, (0, 0, 0), 4, id="no more than three places are ever taken"),
    ],
)
def test_a_long_solve_that_goes_on_alone_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch, level: int, begun: tuple[int, ...], seconds: int
) -> None:
    midnight = datetime(2026, 1, 1, tzinfo=UTC)

    def lasting(problem: Problem, *_: object, **__: object) -> SolveRecord:
        place = int(problem.id)
        return SolveRecord(
            problem=problem, mode="m", repeat=0, started=midnight + timedelta(seconds=begun[place]),
            events=[
                SolveStarted(question="?", program="base_only", budget=9),
                SolveEnded(outcome="answered", correct=True, at=(1.0, 1.0, 10.0)[place]),
            ],
        )  # fmt: skip

    monkeypatch.setattr(bench, "solve", lasting)
    problems = [Problem(id=str(place), question=str(place)) for place in range(3)]
    program, settings = loading.load("base_only"), Settings.model_validate({})

    rate, failed = bench.throughput(Pair(None, None), program, settings, problems, level)

    assert rate == pytest.approx(3 / seconds)
    assert failed == 0


class Busy(StoryBackend):
    """Still ends a call that was given up, when its cache is to be emptied."""

    refusals = 2

    def flush_cache(self) -> None:
        if self.refusals:
            self.refusals -= 1
            raise RuntimeError("the cache is in use")


def test_throughput_waits_for_calls_that_were_given_up() -> None:
    problem = Problem(id="story", question=(known := stories.story(2)).question)
    busy = Busy("base", [known])
    program, settings = loading.load("base_only"), Settings.model_validate({})

    rate, failed = bench.throughput(Pair(busy, None), program, settings, [problem], 1)

    assert (rate > 0, failed, busy.refusals) == (True, 0, 0)


def test_the_table_of_loads_says_what_failed() -> None:
    rows = [bench.Load(concurrency=1, problems_per_second=2, against_one=1, failed=0),
            bench.Load(concurrency=8, problems_per_second=5, against_one=2.5, failed=3)]  # fmt: skip
    none = bench.Load(concurrency=1, problems_per_second=0, against_one=None, failed=4)

    assert bench.load_table(rows).rows == (("1", "1.00x"), ("8", "2.50x"))
    assert bench.load_table(rows).note == "Solves that failed and do not count: 3 of those with 8 in flight."
    assert bench.load_table(rows[:1]).note == ""
    assert bench.load_table([none]).rows == (("1", "–"),)


def test_the_variants_are_compared_with_the_reference_too() -> None:
    slower = {"base": 3.0, "reference": 2.0, "sequential": 1.0}
    records = [
        _record().model_copy(
            update={
                "mode": mode,
                "problem": Problem(id=str(number), question="?"),
                "events": [event.model_copy(update={"at": factor * event.at}) for event in _record().events],
            }
        )
        for mode, factor in slower.items()
        for number in range(10)
    ]
    compared = {
        name: analyse(records, [(mode, name) for mode in slower if mode != name]).comparisons for name in slower
    }
    figures = {
        name: {"accuracy": 1, "acceptance": 1, "wasted_tokens": 0, "problems": 10, "lost_s": 0} for name in slower
    }
    made = bench.Bench(
        variants=figures,
        against_base=compared["base"],
        against_sequential=compared["sequential"],
        against_reference=compared["reference"],
        outside=Estimate(value=0, n=10),
        profile={},
        judge=[],
        caches=[],
        load=[],
    )
    shown = bench.tables(made)[0]
    columns = {name: place for place, name in enumerate(shown.columns)}
    against = {row[0]: row[columns["against reference"]].split("x")[0] for row in shown.rows}

    assert against == {"base": "0.67", "reference": "–", "sequential": "2.00"}


def _record() -> SolveRecord:
    def call(kind: str, model: str, at: float) -> CallMade:
        return CallMade(
            at=at, step=0, model=model, kind=kind, prompt_tokens=9, cached_tokens=8, generated_tokens=4,
            wall_s=1.0, engine_s=0.2, finish="stop",
        )  # fmt: skip

    score = StepScored(
        at=2, step=0, logprobs=(0.0,) * 10, greedy=9, expected=9, reaching=1, entropy=0, missing_mass=0, accepted=True
    )
    return SolveRecord(
        problem=Problem(id="p", question="?"),
        mode="sequential",
        repeat=0,
        seed=None,
        started=datetime.now(UTC),
        events=[
            SolveStarted(question="?", program="specreason", budget=10),
            call("draft", "small", 1.0),
            call("judge", "base", 2.0),
            score,
            StepTaken(at=2, step=0, author="small", text="x", tokens=4),
            call("answer", "base", 3.5),
            AnswerWritten(at=3.5, author="base", text="x", answer="1", truncated=False),
            SolveEnded(at=4, outcome="answered"),
        ],
    )


@pytest.mark.server
def test_drafting_ahead_decides_on_real_servers_as_the_sequential_program(pair: Pair) -> None:
    for seed in range(5):
        told = tales.tale(seed)
        problem = Problem(id=str(seed), question=told.question, answer=str(told.answer))
        greedy = Settings(temperature=0, top_p=1, budget=1024)
        taken = [
            [
                (e.author, e.text) if isinstance(e, StepTaken) else e.accepted
                for e in solve(problem, loading.load(name), pair, greedy, parameters=parameters).events
                if isinstance(e, StepTaken | StepScored)
            ]
            for name, parameters in (("specreason", {}), ("lookahead", {"depth": 2}))
        ]

        assert taken[0] == taken[1]


@pytest.mark.server
def test_beyond_a_thousand_tokens_nearly_all_of_a_prompt_is_cached(pair: Pair) -> None:
    for endpoint in (pair.base, pair.small):
        use = bench.cache_use(endpoint)  # type: ignore[arg-type]

        assert use.calls > 5
        assert use.cached_share >= 0.95
        assert use.most_recomputed <= 2


@pytest.mark.server
def test_a_judgement_is_far_cheaper_than_stock_selection(pair: Pair) -> None:
    cost = bench.judge_cost(pair.base, 300, rounds=3)  # type: ignore[arg-type]

    one, stock = cost.one_request.low, cost.stock.low  # the best of a few rounds: others may be at work on this machine
    assert one is not None
    assert stock is not None
    assert one < stock


@pytest.mark.server
def test_the_command_measures_costs_and_predicts_from_them(servers: RunningPair, tmp_path: Path) -> None:
    options = ("--base", servers.base.url, "--small", servers.small.url, "--api-key", str(servers.base.api_key))
    done = subprocess.run(
        [sys.executable, "-m", "specreason_sgl", "bench", "--calibrate", "--rounds", "2", "--json", *options],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    costs = Costs.model_validate(json.loads(done.stdout))

    assert costs.token_s("base", 256) > costs.token_s("small", 256) > 0
    assert 0.5 < costs.crowding < 5
    assert costs.crowding_many is not None
    assert 0 <= costs.crowding_many < 5
    assert (
        costs.speed_ups(Work(acceptance=1), 256)["specreason"] > costs.speed_ups(Work(acceptance=0), 256)["specreason"]
    )
