"""Replays of one chain of thought in several ways: the same calls, with the lengths and texts of a schedule."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from specreason_sgl.embedded import tales
from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.reference import convert, read_rows
from specreason_sgl.evaluation.statistics import Estimate
from specreason_sgl.events import CallMade, Event, StepScored, StepTaken
from specreason_sgl.lang.loading import load
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.measure import schedule as schedules
from specreason_sgl.measure.instant import counted, instant
from specreason_sgl.measure.schedule import WAYS, Replayed, Schedule, Turn, Way, built, replay, stored
from specreason_sgl.runs.store import Problem
from specreason_sgl.settings import Settings
from specreason_sgl.testing import Reply, ScriptedBackend
from specreason_sgl.text.prompts import DELIMITER

PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "qwq32b_r1-1.5b_aime60_steps.jsonl"


@pytest.fixture(scope="module")
def instants() -> Iterator[Pair[Endpoint]]:
    with instant(1) as base, instant(2) as small:
        yield Pair(Endpoint(base, "base"), Endpoint(small, "small"))


def tokens(text: str) -> int:
    return counted(text + DELIMITER)


def test_a_schedule_is_read_from_a_stored_solve() -> None:
    small = ScriptedBackend(
        "small", [Reply("One.", tokens=3), Reply("Too.", tokens=4), Reply("Three.", True, tokens=5)]
    )
    base = ScriptedBackend("base", [Reply("None.", tokens=2), 9, 3, Reply("Two.", tokens=6), 8, Reply("\\boxed{3}")])
    problem = Problem(id="p", question="How many?")
    made = solve(problem, load("specreason"), Pair(base, small), Settings(), parameters={"first_n": 1})

    assert stored(made) == Schedule(
        question="How many?",
        turns=(
            Turn(draft=None, accepted=False, base="None.", base_tokens=2),
            Turn(draft="One.", draft_tokens=3, accepted=True),
            Turn(draft="Too.", draft_tokens=4, accepted=False, base="Two.", base_tokens=6),
            Turn(draft="Three.", draft_tokens=5, accepted=True),
        ),
    )


def test_a_solve_that_judged_nothing_has_no_schedule() -> None:
    base = ScriptedBackend("base", [Reply("It is 3.", True), Reply("\\boxed{3}")])
    made = solve(Problem(id="p", question="?"), load("base_only"), Pair(base, None), Settings())

    with pytest.raises(UsageError, match="no draft was judged"):
        stored(made)


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"the published runs are not at {PUBLISHED.name}")
def test_a_published_run_is_a_schedule() -> None:
    rows = read_rows(PUBLISHED)
    for record in convert(rows, {}, threshold=7.0):
        made = stored(record)
        taken = [event for event in record.events if isinstance(event, StepTaken) and event.text]

        assert [turn.kept for turn in made.turns] == [event.text for event in taken]
        assert [turn.accepted for turn in made.turns] == [event.author == "small" for event in taken]


def test_a_built_schedule_has_the_length_and_the_acceptance_that_were_asked_for() -> None:
    made = built(8000, tokens, steps=7, acceptance=0.7)
    held = [turn.tokens for turn in made.turns]

    assert sum(held[:-8]) < 8000 <= sum(held[:-7])
    assert 0.6 < sum(turn.accepted for turn in made.turns) / len(made.turns) < 0.8
    assert all(turn.tokens == tokens(turn.kept) for turn in made.turns)
    assert built(500, tokens, acceptance=1).turns[-1].accepted
    assert not built(500, tokens, acceptance=0).turns[-1].accepted


def check_replay(pair: Pair[Endpoint], made: Schedule, start: int, steps: int) -> None:
    told: dict[Way, list[Event]] = {way: schedules.run(pair, made, start, steps, way) for way in WAYS}
    turns = made.turns[start : start + steps]
    for way, events in told.items():
        assert [e.text for e in events if isinstance(e, StepTaken)] == [turn.kept for turn in turns], way
        assert [e.tokens for e in events if isinstance(e, StepTaken)] == [turn.tokens for turn in turns], way
        assert [e.accepted for e in events if isinstance(e, StepScored)] == [turn.accepted for turn in turns], way
        calls = [e for e in events if isinstance(e, CallMade) and not e.dropped]
        assert [c.generated_tokens for c in calls if c.kind == "draft"] == [turn.draft_tokens for turn in turns], way
        written = [turn.base_tokens for turn in turns if not turn.accepted]
        assert [c.generated_tokens for c in calls if c.kind == "regenerate"] == written, way
        assert {c.finish for c in calls if c.kind in {"draft", "regenerate"}} == {"length"}, way
        drafts = [c.prompt_tokens for c in calls if c.kind == "draft"]
        for (before, after), turn in zip(pairwise(drafts), turns, strict=False):
            assert after - before == tokens_behind(pair, turn.kept), way
    ours, theirs = (
        [(e.kind, e.prompt_tokens) for e in told[way] if isinstance(e, CallMade) and e.kind in {"draft", "regenerate"}]
        for way in ("sequential", "reference")
    )
    assert ours == theirs


def tokens_behind(pair: Pair[Endpoint], text: str) -> int:
    assert pair.small is not None
    return len(pair.small.tokens(text + DELIMITER))


def test_every_way_makes_the_same_calls_with_the_schedules_lengths_and_texts(instants: Pair[Endpoint]) -> None:
    made = built(3000, tokens, steps=12, acceptance=0.6)

    check_replay(instants, made, len(made.turns) - 12, 12)
    check_replay(instants, made, 0, 5)


def test_a_replay_is_measured_at_every_position(instants: Pair[Endpoint]) -> None:
    made = built(2000, tokens, steps=4)
    said: list[str] = []
    found = replay(instants, made, said.append, positions=(200, 2000), steps=3, rounds=2)

    assert [each.position for each in found] == [200, 2000]
    assert found[1].prompt_tokens - found[0].prompt_tokens == pytest.approx(1800, abs=80)
    assert all(each.step_s[way] > 0 for each in found for way in WAYS)
    assert {way: estimate.n for way, estimate in found[0].against_reference.items()} == {"sequential": 2, "ahead": 2}
    assert said == ["a replay behind 200 tokens", "a replay behind 2,000 tokens"]


def test_the_ratio_of_paired_rounds_is_their_geometric_mean() -> None:
    assert schedules._compared([2.0, 8.0], [1.0, 1.0]).value == pytest.approx(4)
    sure = schedules._compared([3.0] * 8, [1.5] * 8)
    assert sure.value == pytest.approx(2)
    assert sure.n == 8


def test_the_table_has_a_row_for_each_position() -> None:
    made = Replayed(
        position=32_000,
        prompt_tokens=32_100,
        step_s={"reference": 0.6, "sequential": 0.2, "ahead": 0.15},
        against_reference={
            "sequential": Estimate(value=3, low=2.9, high=3.1, n=6),
            "ahead": Estimate(value=4, n=6),
        },
    )

    assert schedules.table([made]).rows == (("32,000 tok", "600", "200", "150", "3.00x [2.90, 3.10]", "4.00x"),)


def test_a_position_that_cannot_be_replayed_is_refused_in_one_line(instants: Pair[Endpoint]) -> None:
    short = built(300, tokens, steps=4)
    undrafted = Schedule(question="?", turns=(Turn(draft=None, accepted=False, base="x"), *short.turns))

    with pytest.raises(UsageError, match="4 steps behind 300 tokens, and 6 are replayed"):
        replay(instants, short, print, positions=(300,), steps=5)
    with pytest.raises(UsageError, match="nothing was drafted for step 0"):
        replay(instants, undrafted, print, positions=(0,), steps=2)


@pytest.mark.server
def test_a_chain_is_replayed_on_the_real_pair_up_to_the_end_of_its_context(pair: Pair[Endpoint]) -> None:
    assert pair.base is not None
    made = built(900, lambda text: tokens_behind(pair, text), steps=3, acceptance=0.5)
    check_replay(pair, made, len(made.turns) - 3, 3)

    told = tales.tale(34)
    record = solve(Problem(id="34", question=told.question), load("specreason"), pair, Settings(temperature=0, top_p=1))
    again = stored(record)
    check_replay(pair, again, 0, 4)

    context = pair.base.context or 0
    with pytest.raises(UsageError, match="contexts are too short"):
        replay(pair, built(context, lambda _: 20, steps=4), print, positions=(context,), steps=3, rounds=1)
