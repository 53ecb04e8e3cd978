"""Drafting ahead, the break-even and merged steps, against backends that really solve stories."""

from __future__ import annotations

import copy
from itertools import pairwise
from random import Random
from threading import Lock
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sglang.lang.choices import ChoicesDecision
from sglang.lang.interpreter import StreamExecutor
from sglang.lang.ir import SglSamplingParams

from specreason_sgl.embedded import stories
from specreason_sgl.errors import UsageError
from specreason_sgl.events import CallMade, DraftingChanged, Dropped, StepDrafted, StepScored, StepTaken
from specreason_sgl.lang import ahead, loading
from specreason_sgl.lang.back_off import FIRST_PAUSE, BreakEven
from specreason_sgl.lang.backend import Listen
from specreason_sgl.lang.chain import MARGIN
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.scope import Scope
from specreason_sgl.lang.seeds import Draws
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.settings import Settings
from specreason_sgl.testing import Reply, ScriptedBackend, StoryBackend
from specreason_sgl.text.steps import merged

PROGRAMS = {name: loading.load(name) for name in ("specreason", "lookahead", "base_only")}


def solved(seed: int, program: str, *, skill: float, seconds: float = 0.0, **parameters: object) -> SolveRecord:
    told = stories.story(seed)
    pair = Pair(
        StoryBackend("base", [told], seconds_per_call=seconds),
        StoryBackend("small", [told], skill=skill, seconds_per_call=seconds),
    )
    problem = Problem(id=str(seed), question=told.question, answer=str(told.answer))
    return solve(problem, PROGRAMS[program], pair, Settings(seed=1), parameters=parameters)


def decisions(record: SolveRecord) -> list[object]:
    return [
        (e.step, e.author, e.text, e.tokens)
        if isinstance(e, StepTaken)
        else (e.step, e.text)
        if isinstance(e, StepDrafted)
        else (e.step, e.accepted, e.logprobs)
        for e in record.events
        if isinstance(e, StepTaken | StepDrafted | StepScored)
    ]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    skill=st.sampled_from([0.0, 0.5, 0.8, 1.0]),
    depth=st.integers(0, 4),
)
def test_drafting_ahead_decides_as_the_sequential_program(seed: int, skill: float, depth: int) -> None:
    looking = solved(seed, "lookahead", skill=skill, depth=depth)

    assert decisions(looking) == decisions(solved(seed, "specreason", skill=skill))
    assert looking.tally.correct


class Sampling(ScriptedBackend):
    """Says one of a few words, or nothing, by the seed of the call alone; as a judge, by the prompt."""

    def within(
        self, scope: Scope, *, role: str | None = None, listen: Listen | None = None, seed: int | None = None
    ) -> Self:
        mine = super().within(scope, role=role, listen=listen)
        mine.draws = self.draws.anew() if seed is None else Draws(seed)
        return mine

    draws = Draws(0)

    def generate(self, s: Any, sampling_params: Any) -> tuple[str, dict[str, Any]]:
        lots = Random(self.draws.next(s))
        mine = copy.copy(self)
        mine._script = [Reply(lots.choice(["a", "b", ""]), closes=lots.random() < 0.1)]
        return super(Sampling, mine).generate(s, sampling_params)

    def select(self, s: Any, choices: list[str], *_: Any) -> Any:
        mine = copy.copy(self)
        mine._script = [Random(s.text_).randrange(10)]
        return super(Sampling, mine).select(s, choices, 0.0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    depth=st.integers(0, 3),
    least=st.sampled_from([0, 3]),
)
def test_a_place_that_comes_again_is_drawn_for_as_the_sequential_program_draws(
    seed: int, depth: int, least: int
) -> None:
    def decided(program: str, **parameters: object) -> list[object]:
        pair = Pair(Sampling("base", []), Sampling("small", []))
        limits = Settings(seed=seed, budget=40)
        given = {"min_step_tokens": least, **parameters}
        record = solve(Problem(id="q", question="?"), PROGRAMS[program], pair, limits, parameters=given)
        assert record.tally.error is None
        return decisions(record)

    assert decided("lookahead", depth=depth) == decided("specreason")


def test_what_is_drafted_on_top_of_a_rejected_step_is_wasted_and_told() -> None:
    record = solved(3, "lookahead", skill=0.0, seconds=0.005, depth=2)
    dropped = [e for e in record.events if isinstance(e, Dropped)]
    calls = [e for e in record.events if isinstance(e, CallMade)]

    assert dropped
    assert {e.model for e in dropped} == {"small"}
    assert sum(e.tokens for e in dropped) == sum(e.generated_tokens for e in calls if e.dropped and e.kind == "draft")
    assert record.tally.wasted_tokens == record.tally.drafted_tokens + sum(e.tokens for e in dropped)


class Narrow(StoryBackend):
    """Keeps how much of its context each call for a step could fill."""

    filled: list[int]

    def generate(self, s: Any, sampling_params: Any) -> tuple[str, dict[str, Any]]:
        if "\n\n" in sampling_params.stop:
            self.filled.append(len(self.tokens(s.text_)) + sampling_params.max_new_tokens)
        return super().generate(s, sampling_params)


def test_what_is_drafted_ahead_leaves_the_room_for_the_answer_that_the_chain_leaves() -> None:
    told = stories.story(3)
    opening, limits = ScriptedBackend("small", []).chat.opening(told.question), Settings(seed=1)
    small = Narrow("small", [told])
    small.filled = []
    room = len(small.tokens(opening)) + 60
    small.context = room + MARGIN + limits.answer_tokens
    pair = Pair(StoryBackend("base", [told]), small)
    problem = Problem(id="3", question=told.question, answer=str(told.answer))
    record = solve(problem, PROGRAMS["lookahead"], pair, limits, parameters={"depth": 8})

    assert record.tally.ended == "context"
    assert len(small.filled) > 4
    assert max(small.filled) <= room


def test_what_was_drafted_on_for_nothing_keeps_no_text_of_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []

    class Line(ahead._Line):
        def __init__(self, *args: Any) -> None:
            lines.append(self)
            super().__init__(*args)

    monkeypatch.setattr(ahead, "_Line", Line)
    solved(3, "lookahead", skill=0.5, depth=2)

    assert len(lines) > 1
    assert [line._chain.text for line in lines] == [""] * len(lines)


class Calls:
    """How many calls there are at a time."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = Lock()

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


class Counting(StoryBackend):
    """Counts its calls, which take a while."""

    def __init__(self, role: str, told: stories.Story, calls: Calls) -> None:
        super().__init__(role, [told], seconds_per_call=0.05)
        self._calls = calls

    def generate(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> tuple[str, dict[str, Any]]:
        with self._calls:
            return super().generate(s, sampling_params)

    def select(self, s: StreamExecutor, *given: Any, **named: Any) -> ChoicesDecision:
        with self._calls:
            return super().select(s, *given, **named)


@pytest.mark.parametrize(("program", "most"), [("specreason", {1}), ("lookahead", {2, 3})])
def test_only_with_drafting_ahead_a_draft_is_made_while_the_judge_reads_the_one_before(
    program: str, most: set[int]
) -> None:
    told, calls = stories.story(8), Calls()
    pair = Pair(Counting("base", told, calls), Counting("small", told, calls))
    problem = Problem(id="8", question=told.question, answer=str(told.answer))
    record = solve(problem, PROGRAMS[program], pair, Settings(seed=1), parameters={})

    assert record.tally.calls["judge"] == len(told.steps)
    assert calls.most in most, "a draft on top of one that is not decided may be judged beside it"


def test_a_failing_draft_ends_the_solve_and_not_the_caller() -> None:
    small = ScriptedBackend("small", [Reply("One."), ConnectionError("gone")])
    base = ScriptedBackend("base", [9, 9])
    record = solve(Problem(id="q", question="?"), PROGRAMS["lookahead"], Pair(base, small), Settings())

    assert record.tally.outcome == "failed"
    assert "gone" in str(record.tally.error)


def test_unknown_parameters_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="no parameter `dept`"):
        solved(1, "lookahead", skill=1.0, dept=2)


@given(st.lists(st.integers(1, 60)), st.integers(0, 80))
def test_merged_steps_are_all_steps_and_long_enough(lengths: list[int], least: int) -> None:
    groups = merged(lengths, least)

    assert sum(groups) == len(lengths)
    at = 0
    for size in groups[:-1]:
        assert sum(lengths[at : at + size]) >= least
        assert sum(lengths[at : at + size - 1]) < least or size == 1
        at += size


def test_a_short_draft_goes_on_before_it_is_judged() -> None:
    small = ScriptedBackend("small", [Reply("Hm."), Reply("So two and two are four."), Reply("Done.", closes=True)])
    base = ScriptedBackend("base", [9, 8, Reply("The answer is \\boxed{4}.")])
    knobs = {"min_step_tokens": 4}
    problem = Problem(id="q", question="2+2?")
    record = solve(problem, PROGRAMS["specreason"], Pair(base, small), Settings(), parameters=knobs)

    taken = [e for e in record.events if isinstance(e, StepTaken)]
    assert [e.text for e in taken] == ["Hm.\n\nSo two and two are four.", "Done."]
    assert [e.tokens for e in taken] == [7, 1]
    assert record.tally.judged == 2
    assert record.tally.calls["draft"] == 3
    assert "Hm.\n\nSo two and two are four.\n\n" in base.prompts[0]


def test_another_delimiter_splits_and_joins_steps() -> None:
    small = ScriptedBackend("small", [Reply("One."), Reply("Two.", closes=True)])
    base = ScriptedBackend("base", [9, 9, Reply("The answer is \\boxed{2}.")])
    record = solve(Problem(id="q", question="?"), PROGRAMS["specreason"], Pair(base, small), Settings(delimiter="\n"))

    assert small.prompts[1].endswith("One.\n")
    assert "One.\nTwo.\n</think>" in base.prompts[-1]
    assert record.tally.answer == "2"


def observed(account: BreakEven, *, accepted: bool) -> None:
    account.draft_s.add(0.05)
    account.judge_s.add(0.02)
    account.judged(accepted)
    account.base_token_s.add(0.01)
    account.step_tokens.add(20)


def test_drafting_stops_where_nothing_is_accepted_and_is_tried_again_ever_less_often() -> None:
    account = BreakEven()
    drafted = []
    for step in range(200):
        if account.next_step():
            drafted.append(step)
            observed(account, accepted=False)

    pauses = [(a, b - a) for a, b in pairwise(drafted) if b > a + 1]
    gaps = [gap for _, gap in pauses]
    assert pauses[0][0] < 10
    assert gaps[0] == FIRST_PAUSE + 1
    assert gaps == sorted(gaps)
    assert len(drafted) * 0.07 < 0.05 * 200 * 0.2  # what was lost is under 5 % of what the base model took


def test_drafting_never_stops_where_drafts_are_accepted() -> None:
    account = BreakEven()
    for _ in range(100):
        assert account.next_step()
        observed(account, accepted=True)

    assert account.predicted is not None
    assert account.predicted > 2


def test_drafting_comes_back_when_the_small_model_can_again() -> None:
    account = BreakEven()
    for _ in range(40):
        if account.next_step():
            observed(account, accepted=False)
    drafted = 0
    for _ in range(100):
        if account.next_step():
            observed(account, accepted=True)
            drafted += 1
    assert drafted > 60


def test_the_trace_tells_when_drafting_pauses() -> None:
    chatter = [Reply(f"Wrong {n}.", tokens=20) for n in range(40)]
    own = [entry for n in range(60) for entry in (0, Reply(f"Right {n}.", tokens=20))]
    small = _Slow("small", chatter)
    base = _Slow("base", own)
    record = solve(
        Problem(id="q", question="?"),
        PROGRAMS["specreason"],
        Pair(base, small),
        Settings(budget=600, answer_tokens=8),
        parameters={"back_off": True},
    )

    changes = [e for e in record.events if isinstance(e, DraftingChanged)]
    assert changes
    assert not changes[0].drafting
    assert changes[0].predicted < 1


class _Slow(ScriptedBackend):
    """A script whose entries take as long as they would on two models, and go on when a kind of entry is used up."""

    def _next(self, prompt: str) -> Reply | int:
        selects = prompt.endswith("score is: ")
        with self._lock:
            self.prompts.append(prompt)
            return next(e for e in self._script if isinstance(e, int if selects else Reply))

    def _meta(self, prompt: str) -> dict[str, object]:
        return super()._meta(prompt) | {"wall_s": 0.08 if self.role == "small" else 0.2}
