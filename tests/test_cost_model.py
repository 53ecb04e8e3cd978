"""Which mode is the fastest, as it follows from costs: pure arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from specreason_sgl.evaluation.job import Kind
from specreason_sgl.events import CallMade, Event, StepScored, StepTaken
from specreason_sgl.measure import cost_model
from specreason_sgl.measure.cost_model import (
    PREDICTED,
    Cost,
    Costs,
    Decoding,
    Work,
    fastest,
    judged,
    observed,
    rounds,
    tables,
)
from specreason_sgl.runs.store import Problem, SolveRecord


def cost(seconds: float, batch: int = 1, context: int = 256) -> Cost:
    return Cost(context=context, batch=batch, seconds=seconds)


COSTS = Costs(
    base=[cost(0.010), cost(0.020, context=1024), cost(0.040, batch=8)],
    small=[cost(0.002), cost(0.005, batch=8)],
    judge=[cost(0.020), cost(0.040, context=1024), cost(0.120, batch=8)],
    call_s=0.0,
    crowding=1.0,
)
DECODING = COSTS.model_copy(
    update={"decoding": Decoding(rounds=[cost(0.020)], judge=[cost(0.030)], agreement=4.0, crowding=1.0)}
)


def test_a_step_costs_a_draft_a_judgement_and_what_is_written_again() -> None:
    made = COSTS.speed_ups(Work(acceptance=0.8, step_tokens=20), 300)

    assert made["base"] == 1
    assert made["specreason"] == pytest.approx(0.2 / (0.04 + 0.02 + 0.2 * 0.2))
    assert made["lookahead"] == pytest.approx(0.2 / (0.04 + 0.2 * (0.2 + 0.02)))
    assert COSTS.speed_ups(Work(acceptance=0.8, step_tokens=20), 5000)["specreason"] > made["specreason"], (
        "the nearest context is a slower base model's"
    )
    crowded = COSTS.model_copy(update={"crowding": 1.5})
    assert crowded.seconds("lookahead", Work(acceptance=0.8, step_tokens=20), 300) == pytest.approx(
        1.5 * 0.04 + 0.2 * (0.2 + 0.02)
    )


def test_calls_steps_and_the_answer_are_counted() -> None:
    work = Work(acceptance=0.5, step_tokens=20, steps=4, answer_tokens=10)
    costs = COSTS.model_copy(update={"call_s": 0.003})

    assert costs.seconds("base", work, 256) == pytest.approx(0.003 + 0.8 + 0.003 + 0.1)
    assert costs.seconds("specreason", work, 256) == pytest.approx(
        4 * (0.003 + 0.04 + 0.02 + 0.5 * (0.003 + 0.2)) + 0.003 + 0.1
    )


def test_the_models_of_a_pair_may_say_the_same_step_at_different_length() -> None:
    work = Work(acceptance=0.8, step_tokens=21, draft_tokens=15, rejected_tokens=41)
    half = 3 / 8

    assert COSTS.seconds("base", work, 256) == pytest.approx(0.21), "what the chain has kept"
    assert COSTS.seconds("specreason", work, 256) == pytest.approx(0.03 + 0.02 + 0.2 * 0.41)
    assert COSTS.seconds("lookahead", work, 256) == pytest.approx(0.03 + 0.2 * (0.41 + 0.02))
    assert DECODING.seconds("specreason+decode", work, 256) == pytest.approx(0.03 + 0.03 + 0.2 * (10 + half) * 0.02)
    assert COSTS.seconds("specreason", work, 256, 8) == pytest.approx((0.12 + 0.2 * 41 * 0.04) / 8)


def test_rounds_take_the_place_of_tokens_under_decoding() -> None:
    work = Work(acceptance=0.8, step_tokens=21)
    half = 3 / 8

    assert rounds(21, 4) == pytest.approx(5 + half)
    assert rounds(21, 1) == 20
    assert DECODING.seconds("base+decode", work, 256) == pytest.approx((5 + half) * 0.02)
    assert DECODING.seconds("specreason+decode", work, 256) == pytest.approx(0.042 + 0.03 + 0.2 * (5 + half) * 0.02)
    apart = work.model_copy(update={"agreement": 5.0, "agreement_rejected": 2.0})
    assert DECODING.seconds("base+decode", apart, 256) == pytest.approx((4 + 0.4) * 0.02)
    assert DECODING.seconds("specreason+decode", apart, 256) == pytest.approx(0.042 + 0.03 + 0.2 * (10 + 0.25) * 0.02)


def test_without_a_server_that_drafts_tokens_nothing_is_said_of_one() -> None:
    assert COSTS.predicted == ("base", "specreason", "lookahead")
    with pytest.raises(ValueError, match=r"`base\+decode` cannot be predicted"):
        COSTS.seconds("base+decode", Work(acceptance=0.5))


def test_with_many_at_once_the_server_with_more_to_do_decides() -> None:
    work = Work(acceptance=0.5, step_tokens=20)
    base, small = 0.12 + 0.5 * 20 * 0.04, 20 * 0.005

    assert COSTS.seconds("base", work, 256, 8) == pytest.approx(20 * 0.04 / 8)
    assert COSTS.seconds("specreason", work, 256, 8) == pytest.approx(base / 8)
    assert COSTS.model_copy(update={"crowding": 2.0}).seconds("specreason", work, 256, 8) == pytest.approx(
        (base + small) / 8
    ), "on one card both take turns"
    for share in (0.0, 0.25, 1.0):
        measured = COSTS.model_copy(update={"crowding": 9.0, "crowding_many": share})
        assert measured.seconds("specreason", work, 256, 8) == pytest.approx((base + share * small) / 8)
    assert COSTS.seconds("specreason", work, 256, 6) == COSTS.seconds("specreason", work, 256, 8) * 8 / 6


def test_the_fastest_depends_on_the_pair() -> None:
    alike = Work(acceptance=0.8, step_tokens=20, agreement=7.6)
    otherwise = Work(acceptance=0.8, step_tokens=20, agreement=1.5)

    assert fastest(DECODING.speed_ups(alike, 256)) == "lookahead+decode"
    slow_judge = DECODING.model_copy(
        update={"decoding": DECODING.decoding and DECODING.decoding.model_copy(update={"judge": [cost(0.08)]})}
    )
    assert fastest(slow_judge.speed_ups(alike, 256)) == "base+decode", "what words its steps alike gains by tokens"
    assert fastest(slow_judge.speed_ups(otherwise, 256)) not in {"base", "base+decode"}
    title, predicted = tables(slow_judge, [alike, otherwise], 256)
    assert predicted.rows[0][-1] == "base+decode"
    assert "`specreason+decode` gains nothing over drafting tokens alone" in predicted.note
    assert ("tokens that a round brings", "4.00") in title.rows


def record(mode: str, *events: Event) -> SolveRecord:
    return SolveRecord.model_validate(
        {"problem": Problem(id="p", question="?"), "mode": mode, "repeat": 0, "started": "2026-01-01T00:00:00Z",
         "events": list(events)}
    )  # fmt: skip


def call(kind: str, tokens: int, rounds: int = 0) -> CallMade:
    return CallMade(
        model="base", kind=kind, prompt_tokens=9, cached_tokens=0, generated_tokens=tokens, wall_s=1, finish="stop",
        rounds=rounds,
    )  # fmt: skip


def scored(accepted: bool) -> StepScored:
    return StepScored(step=0, logprobs=(0.0,) * 10, greedy=9, expected=9, reaching=1, entropy=0, missing_mass=0,
                      accepted=accepted)  # fmt: skip


def test_what_solves_consisted_of_is_read_from_their_events() -> None:
    step = {"author": "small", "text": "x", "tokens": 15}
    solves = [
        record("m", call("draft", 15), scored(True), call("draft", 12), scored(False), StepTaken(step=0, **step),
               call("regenerate", 25, 12), StepTaken(step=1, author="base", text="y", tokens=25), call("answer", 9, 2)),
        record("m", call("draft", 15), scored(True), scored(True), StepTaken(step=0, **step), call("answer", 5, 1)),
    ]  # fmt: skip

    assert judged([*solves, record("base", StepTaken(step=0, author="base", text="z", tokens=99))]) == Work(
        acceptance=0.75, step_tokens=55 / 3, draft_tokens=14, rejected_tokens=25, steps=1.5, answer_tokens=7,
        agreement=4, agreement_rejected=2,
    )  # fmt: skip
    with pytest.raises(ValueError, match="no draft was judged"):
        judged([record("m")])
    with pytest.raises(ValueError, match="no solve has a step"):
        observed([record("m")])


SECONDS = st.floats(1e-4, 1.0)
SOME = st.builds(
    lambda base, small, judge, again, round_, call_s, crowding, agreement: Costs(
        base=[cost(base), cost(base * 2, 8)], small=[cost(small), cost(small * 2, 8)],
        judge=[cost(judge), cost(judge * 2, 8)], call_s=call_s, crowding=crowding,
        decoding=Decoding(rounds=[cost(round_), cost(round_ * 2, 8)], judge=[cost(again), cost(again * 2, 8)],
                          agreement=agreement, crowding=crowding),
    ),
    SECONDS, SECONDS, SECONDS, SECONDS, SECONDS, st.floats(0, 0.1), st.floats(1, 2), st.floats(1, 9),
)  # fmt: skip
WORKS = st.builds(
    lambda acceptance, step_tokens, draft_tokens, rejected_tokens, steps, answer: Work(
        acceptance=acceptance, step_tokens=step_tokens, draft_tokens=draft_tokens, rejected_tokens=rejected_tokens,
        steps=steps, answer_tokens=answer,
    ),
    st.floats(0, 1), st.floats(1, 200), st.none() | st.floats(1, 200), st.none() | st.floats(2, 200), st.floats(1, 500),
    st.floats(0, 500),
)  # fmt: skip
KINDS = st.sampled_from(PREDICTED)
AT_ONCE = st.sampled_from([1, 8])


@given(SOME, WORKS, KINDS, AT_ONCE, st.floats(0, 1))
def test_more_acceptance_is_never_slower(costs: Costs, work: Work, kind: Kind, at_once: int, more: float) -> None:
    better = work.model_copy(update={"acceptance": work.acceptance + (1 - work.acceptance) * more})

    assert costs.seconds(kind, better, None, at_once) <= costs.seconds(kind, work, None, at_once) * (1 + 1e-9)


@given(SOME, WORKS, KINDS, AT_ONCE, st.floats(1, 8), st.floats(1, 2))
def test_more_agreement_is_never_slower_but_for_the_last_round(
    costs: Costs, work: Work, kind: Kind, at_once: int, agreement: float, more: float
) -> None:
    assume(work.step_tokens >= 2 and (not work.answer_tokens or work.answer_tokens >= 2))
    some = work.model_copy(update={"agreement": agreement, "agreement_rejected": agreement})
    better = work.model_copy(update={"agreement": agreement * more, "agreement_rejected": agreement * more})

    assert costs.seconds(kind, better, None, at_once) <= costs.seconds(kind, some, None, at_once) * (1 + 1e-9)


@given(SOME, WORKS, KINDS, AT_ONCE, st.floats(0.01, 100))
def test_a_machine_that_is_slower_in_everything_has_the_same_speed_ups(
    costs: Costs, work: Work, kind: Kind, at_once: int, factor: float
) -> None:
    def slower(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: each * factor if name in {"seconds", "call_s"} else slower(each) for name, each in value.items()
            }
        return [slower(each) for each in value] if isinstance(value, list) else value

    other = Costs.model_validate(slower(costs.model_dump()))

    assert other.speed_ups(work, None, at_once)[kind] == pytest.approx(costs.speed_ups(work, None, at_once)[kind])


@given(SOME, WORKS, AT_ONCE)
def test_the_fastest_takes_the_least_time(costs: Costs, work: Work, at_once: int) -> None:
    best = fastest(costs.speed_ups(work, None, at_once))

    assert costs.seconds(best, work, None, at_once) == min(
        costs.seconds(kind, work, None, at_once) for kind in costs.predicted
    )


@given(SOME, WORKS, st.sampled_from(["specreason", "lookahead", "specreason+decode", "lookahead+decode"]))
def test_at_the_break_even_nothing_is_gained_and_nothing_lost(costs: Costs, work: Work, kind: Kind) -> None:
    least = costs.break_even(kind, work)
    assume(0 <= least <= 1)
    even = work.model_copy(update={"acceptance": least})
    rival: Kind = "base+decode" if kind.endswith("+decode") else "base"

    assert costs.seconds(kind, even) == pytest.approx(costs.seconds(rival, even))


@given(st.floats(1, 1000), st.floats(1, 16))
def test_rounds_are_never_fewer_than_if_each_were_full(tokens: float, agreement: float) -> None:
    assert rounds(tokens, agreement) >= (tokens - 1) / agreement
    assert rounds(tokens, 1) == pytest.approx(max(1, tokens - 1))


def test_no_draft_that_is_judged_has_been_read_before(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    class Judge:
        def __init__(self, *_: object) -> None: ...

        def score(self, _: object, draft: str) -> None:
            heard.append(draft)

    monkeypatch.setattr("specreason_sgl.lang.judging.Judge", Judge)
    for _ in range(2):
        judge = cost_model._judge(None, "behind")  # type: ignore[arg-type]
        for _ in range(40):
            judge()
    drafts = [draft for draft in heard if draft != cost_model._FILLER]

    assert len({draft[:8] for draft in drafts}) == len(drafts) == 80
