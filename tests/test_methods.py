"""The methods of the field, on scripted models, in every branch."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from specreason_sgl.events import (
    AnswerWritten,
    CallMade,
    ChainOpened,
    Dropped,
    Event,
    Noticed,
    StepDrafted,
    StepScored,
    StepsCut,
    StepTaken,
    TextAdded,
    ThinkingEnded,
)
from specreason_sgl.lang.loading import load
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.settings import Settings
from specreason_sgl.testing import Reply, ScriptedBackend
from specreason_sgl.text import turns
from specreason_sgl.view.html import as_html
from specreason_sgl.view.plain import PlainSink
from specreason_sgl.view.replay import stretched
from specreason_sgl.view.state import SolveState

PROBLEM = Problem(id="sum", question="What is 2 + 2?", answer="4")
ANSWER = Reply("So \\boxed{4}.")
FIVE = Reply("So \\boxed{5}.")
YES, NO = [-0.1, -2.4], [-2.4, -0.1]
METHODS = (
    "elastic", "trimr", "fractured", "specs", "foreal", "concise_hint", "stitch", "self_eval_beam", "start_hints",
    "select_drafts", "stepwise",
)  # fmt: skip

Script = Any
"""A list of replies, or a list for each variable."""


def shown(record: SolveRecord) -> str:
    """What is seen of a solve, line by line as it is played again, and as a page."""
    told = io.StringIO()
    sink = PlainSink(told)
    for event in stretched(record.events):
        sink(event)
    return told.getvalue() + as_html(SolveState.of(record.events), "a solve")


class Ran:
    """A program that ran on scripted models."""

    def __init__(self, program: str, small: Script, base: Script, **given: Any) -> None:
        self.small, self.base = ScriptedBackend("small", small), ScriptedBackend("base", base)
        self.others = {role: ScriptedBackend(role, script) for role, script in given.pop("others", {}).items()}
        limits = {name: value for name, value in given.items() if name in Settings.model_fields}
        knobs = {name: value for name, value in given.items() if name not in limits}
        pair = Pair(self.base, self.small, self.others)
        self.record: SolveRecord = solve(PROBLEM, load(program), pair, Settings(**limits), parameters=knobs)
        assert self.record.tally.error is None, self.record.tally.error
        left = {each.role: each.left for each in (self.small, self.base, *self.others.values())}
        assert not any(left.values()), f"replies nobody asked for: {left}"
        assert SolveRecord.model_validate_json(self.record.model_dump_json()) == self.record
        self.shown = shown(self.record)

    def told(self, *kinds: type[Event]) -> list[Any]:
        return [event for event in self.record.events if isinstance(event, kinds)]

    @property
    def text(self) -> list[tuple[str, str]]:
        """Who wrote what, in order."""
        return [(e.author, e.text) for e in self.told(StepTaken, TextAdded)]

    @property
    def ended(self) -> str:
        return str(self.told(ThinkingEnded)[-1].reason)

    @property
    def answer(self) -> str | None:
        return self.record.tally.answer

    @property
    def calls(self) -> list[tuple[str, str]]:
        return [(e.model, e.kind) for e in self.told(CallMade)]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_a_page_that_says_what_it_is(name: str) -> None:
    path = Path(__file__).parents[1] / "programs" / f"{name}.py"
    text = path.read_text(encoding="utf-8")

    assert len(text.splitlines()) <= 70
    if name != "stepwise":
        assert "Faithful: " in text
        assert "Approximated: " in text
        assert "arXiv" in text


def test_nothing_that_programs_are_written_with_is_named_after_a_method() -> None:
    rooms = Path(__file__).parents[1] / "specreason_sgl"
    for path in (*(rooms / "lang").glob("*.py"), *(rooms / "text").glob("*.py"), *(rooms / "engine").glob("*.py")):
        text = path.read_text(encoding="utf-8").lower()
        for name in ("elastic", "trimr", "fractured", "specs", "foreal", "concise", "stitch", "self_eval"):
            assert name not in text, f"{path.name} speaks of {name}"


# One model, step by step


@pytest.mark.parametrize("writer", ["base", "small"])
def test_one_model_thinks_step_by_step_and_answers(writer: str) -> None:
    script = [Reply("One."), Reply("Two.", closes=True), ANSWER]
    ran = Ran("stepwise", *((script, []) if writer == "small" else ([], script)), writer=writer)

    assert ran.text == [(writer, "One."), (writer, "Two.")]
    assert ran.answer == "4"


# Budgets


def test_thinking_and_answer_have_budgets_of_their_own() -> None:
    ran = Ran("elastic", [], [Reply("On and on", length=True, tokens=6), ANSWER], thinking_tokens=6)

    assert ran.text == [("base", "On and on")]
    assert ran.ended == "budget"


def test_one_model_thinks_and_the_other_answers() -> None:
    ran = Ran("elastic", [Reply("Two and two.", closes=True)], [ANSWER], thinker="small", answerer="base")

    assert ran.calls == [("small", "think"), ("base", "answer")]
    assert ran.base.prompts[-1].endswith("<think>\nTwo and two.\n</think>\n\n")


def test_without_a_thinking_budget_the_answer_comes_at_once() -> None:
    assert Ran("elastic", [], [ANSWER], thinking_tokens=0).calls == [("base", "answer")]


@pytest.mark.parametrize(
    ("program", "knobs"),
    [
        ("elastic", {"thinking_tokens": 100, "solution_tokens": 50}),
        ("fractured", {"n": 1, "cuts": 1, "keep": 1, "m": 1}),
        ("stepwise", {}),
    ],
)
def test_with_nothing_of_its_own_a_method_is_the_base_model_alone(program: str, knobs: dict[str, Any]) -> None:
    whole = [Reply("One.\n\nTwo.", closes=True, tokens=4), ANSWER]
    parts = [Reply("One.", tokens=2), Reply("Two.", closes=True, tokens=2), ANSWER]
    alone = Ran("base_only", [], whole, budget=100, answer_tokens=50)
    ran = Ran(program, [], parts if program == "stepwise" else whole, budget=100, answer_tokens=50, **knobs)

    assert ran.text == alone.text
    assert (ran.answer, ran.ended) == (alone.answer, alone.ended)
    assert ran.base.prompts[-1] == alone.base.prompts[-1]


SMALLEST: dict[str, dict[str, Any]] = {
    "fractured": {"n": 1, "m": 1}, "specs": {"n": 1}, "self_eval_beam": {"k": 1, "n": 1}, "select_drafts": {"n": 1},
}  # fmt: skip


@pytest.mark.parametrize("program", METHODS)
def test_without_a_budget_a_method_only_answers(program: str) -> None:
    ran = Ran(program, [], [ANSWER], budget=0, stop="##", **SMALLEST.get(program, {}))

    assert ran.calls == [("base", "answer")]
    assert (ran.text, ran.answer) == ([], "4")


# A verifier


def thoughts(*texts: str) -> list[Reply]:
    return [Reply(text) for text in texts]


def test_a_thinking_whose_answers_agree_again_and_again_has_converged() -> None:
    base = [*thoughts("It is 4.", "Wait, 4.", "But 4 again.", "Hmm, more."), ANSWER]
    small = {
        "states_try_1": [YES], "states_try_2": [YES], "agrees_try_2": [YES], "states_try_3": [YES],
        "agrees_try_3": [YES],
    }  # fmt: skip
    ran = Ran("trimr", small, base)

    assert ran.ended == "converged"
    assert ran.base.prompts[-1].endswith("It is 4.\n\nWait, 4.\n\nBut 4 again.\n</think>\n\n"), "the last one is cut"
    assert [(e.keep, e.reason) for e in ran.told(StepsCut)] == [(3, "converged")]
    asked = [prompt for prompt in ran.small.prompts if turns.AGREE in prompt]
    assert asked[0].endswith(f"[user]{turns.AGREE}\n1: It is 4.\n2: Wait, 4.[assistant]<think>Answer: ")
    assert "It is 4.\n\nWait, 4.\n\n[user]" in asked[0], "it reads the thought and not what comes behind it"
    assert [(e.author, e.message) for e in ran.told(Noticed)][:3] == [
        ("small", "thought 1 states: 0.91"),
        ("small", "thought 2 states: 0.91"),
        ("small", "thought 2 agrees: 0.91"),
    ]


def test_a_thinking_in_which_nothing_agrees_diverges_behind_so_many_thoughts() -> None:
    small = {"states_try_1": [YES], "states_try_2": [YES], "agrees_try_2": [NO], "states_try_3": [NO]}
    ran = Ran("trimr", small, [*thoughts("a", "b", "c"), ANSWER], words="", thoughts=3)

    assert ran.ended == "diverged"
    assert ran.text == [("base", "a"), ("base", "b"), ("base", "c")]
    assert not ran.told(StepsCut)


def test_a_thinking_diverges_behind_a_share_of_the_budget() -> None:
    base = [Reply("a", tokens=6), ANSWER]

    assert Ran("trimr", {"states_try_1": [YES]}, base, words="", budget=10, share=0.5).ended == "diverged"


def test_an_answer_that_differs_begins_the_count_anew() -> None:
    small = {
        **{f"states_try_{number}": [YES] for number in range(1, 5)},
        "agrees_try_2": [YES], "agrees_try_3": [NO], "agrees_try_4": [YES],
    }  # fmt: skip
    ran = Ran("trimr", small, [*thoughts("a", "a", "b"), Reply("b"), Reply("c", closes=True), ANSWER], words="")

    assert ran.ended == "closed"


def test_a_verifier_of_its_own_is_asked_if_there_is_one() -> None:
    ran = Ran("trimr", [], [Reply("a"), ANSWER], words="", thoughts=1, others={"verifier": {"states_try_1": [YES]}})

    assert ("verifier", "states") in ran.calls
    assert "▲ verifier  thought 1 states: 0.91" in ran.shown


def test_the_control_compares_answers_in_place_of_a_verifier() -> None:
    base = {
        "think_0": [Reply("a")], "think_1": [Reply("b")], "think_2": [Reply("c")], "think_3": [Reply("d")],
        "answer_try_1": [FIVE], "answer_try_2": [ANSWER], "answer_try_3": [ANSWER], "answer_try_4": [ANSWER],
        "answer": [ANSWER],
    }  # fmt: skip
    ran = Ran("trimr", [], base, words="", probes=True)

    assert ran.ended == "converged"
    assert [e.answer for e in ran.told(AnswerWritten)] == ["5", "4", "4", "4", "4"]
    assert ran.text[-1] == ("base", "d")


def test_speculative_reasoning_is_trimmed_too() -> None:
    small = {
        "draft_0": [Reply("It is 4.")], "draft_1": [Reply("So 4.")], "draft_2": [Reply("4.")],
        "states_try_1": [YES], "states_try_2": [YES], "agrees_try_2": [YES], "states_try_3": [YES],
        "agrees_try_3": [YES],
    }  # fmt: skip
    base = {"judge_0": [9], "judge_1": [2], "regenerate_1": [Reply("It is 4.")], "judge_2": [9], "answer": [ANSWER]}
    ran = Ran("trimr", small, base, words="", over="specreason")

    assert ran.ended == "converged"
    assert ran.text == [("small", "It is 4."), ("base", "It is 4."), ("small", "4.")]


# Cuts and votes


def test_chains_are_cut_answered_and_voted_on() -> None:
    chain = Reply("aaaa.\n\nbbbb.\n\ncccc.\n\ndddd.", closes=True, tokens=8)
    base = {
        "think": [chain], "chain_1_think": [Reply("x.", closes=True)],
        "answer": [FIVE], "answer_try_1": [ANSWER], "chain_1_answer": [FIVE], "chain_1_answer_try_1": [ANSWER],
        "chain_2_answer": [ANSWER], "chain_2_answer_try_1": [FIVE],
    }  # fmt: skip
    ran = Ran("fractured", [], {**base, "chain_1_answer_try_1": [FIVE]}, n=2, cuts=4, keep=2, m=2)

    assert [(e.chain, e.parent, e.steps) for e in ran.told(ChainOpened)] == [(1, None, 0), (2, 0, 3)]
    assert [e.author for e in ran.told(AnswerWritten)] == [*["base"] * 6, "vote"]
    assert "vote  ✓ 5 ×4 · 4 ×2" in ran.shown
    assert ran.answer == "5"
    assert any(prompt.endswith("aaaa.\n\nbbbb.\n\ncccc.\n</think>\n\n") for prompt in ran.base.prompts)


@pytest.mark.parametrize(
    ("lengths", "cuts", "keep", "places"),
    [
        ([5] * 4, 4, 4, [1, 2, 3, 4]),
        ([5] * 4, 4, 1, [4]),
        ([5] * 4, 1, 4, [4]),
        ([5] * 8, 4, 2, [6, 8]),
        ([1, 97, 1, 1], 4, 4, [1, 2, 4]),
        ([], 4, 4, [0]),
    ],
)
def test_cuts_are_made_at_the_nearest_ends_of_steps(
    lengths: list[int], cuts: int, keep: int, places: list[int]
) -> None:
    assert load("fractured").module.places(["x" * length for length in lengths], cuts, keep) == places


def test_the_small_model_thinks_and_the_base_model_answers_behind_each_cut() -> None:
    base = {"chain_1_answer": [ANSWER], "answer": [ANSWER]}
    ran = Ran("fractured", [Reply("aa.\n\nbb.", closes=True)], base, n=1, cuts=2, keep=2, m=1, thinker="small")

    assert ran.calls[0] == ("small", "think")
    assert [author for author, _ in ran.text] == ["small", "small"]


def test_several_chains_without_a_budget_are_answered_at_once() -> None:
    base = {"answer": [FIVE], "chain_1_answer": [FIVE]}

    assert Ran("fractured", [], base, n=2, cuts=4, keep=4, m=1, budget=0).answer == "5"


def test_a_chain_ends_early_when_an_answer_comes_again() -> None:
    base = {
        "think_0": [Reply("a", tokens=4)], "think_1": [Reply("b", tokens=4)], "think_2": [Reply("c", tokens=4)],
        "think_3": [Reply("d", tokens=4)], "answer_try_1": [ANSWER], "answer_try_2": [FIVE], "answer_try_3": [ANSWER],
        "answer": [ANSWER],
    }  # fmt: skip
    ran = Ran("fractured", [], base, early=True, first=6, every=3)

    assert ran.ended == "converged"
    assert len(ran.text) == 4
    assert [e.answer for e in ran.told(AnswerWritten)] == ["4", "5", "4", "4"]


def test_speculative_reasoning_ends_early_too() -> None:
    small = {f"draft_{number}": [Reply("a", tokens=4)] for number in range(2)}
    base = {"judge_0": [9], "judge_1": [9], "answer_try_1": [ANSWER], "answer_try_2": [ANSWER], "answer": [ANSWER]}
    ran = Ran("fractured", small, base, early=True, first=1, every=1, over="specreason")

    assert (ran.ended, ran.text) == ("converged", [("small", "a"), ("small", "a")])


# Hints


def test_hints_come_at_a_growing_interval_and_are_no_steps() -> None:
    base = [Reply(f"Step {number}.", tokens=10) for number in range(6)]
    ran = Ran("concise_hint", [], [*base, Reply("End.", closes=True), ANSWER], alpha=10, beta=0.5, most=35)

    authors = [author for author, _ in ran.text]
    assert authors[0] == "base"
    assert (authors.count("hint"), authors.count("base")) == (2, 7)
    assert {text for author, text in ran.text if author == "hint"} == {f"{turns.BE_BRIEF}\n\n"}
    assert f"\n\n{turns.BE_BRIEF}\n\nStep" in ran.base.prompts[-1]
    assert "hint" in ran.shown
    assert len({text for author, text in ran.text if author == "base"}) == 7


def test_a_fixed_interval_is_the_control() -> None:
    base = [*[Reply(f"Step {number}.", tokens=10) for number in range(3)], Reply("End.", closes=True), ANSWER]
    ran = Ran("concise_hint", [], base, alpha=10, beta=0.0, hint="Short!")

    assert [author for author, _ in ran.text] == ["base", "hint", "base", "hint", "base", "hint", "base"]


def test_hints_stand_in_the_prompts_of_both_models_under_speculative_reasoning() -> None:
    small = [Reply("One.", tokens=10), Reply("Two.", closes=True)]
    ran = Ran("concise_hint", small, [9, 9, ANSWER], alpha=5, beta=0.0, over="specreason")

    assert ran.text[1] == ("hint", f"{turns.BE_BRIEF}\n\n")
    assert all(f"One.\n\n{turns.BE_BRIEF}\n\n" in prompts[-1] for prompts in (ran.small.prompts, ran.base.prompts))


# A tool


def test_a_calculation_is_done_and_stands_behind_its_step() -> None:
    ran = Ran("start_hints", [], [Reply("We need calc(3 * (2 + 5))."), Reply("So 21.", closes=True), ANSWER], rounds=0)

    assert ran.text == [("base", "We need calc(3 * (2 + 5))."), ("tool", "= 21\n\n"), ("base", "So 21.")]
    assert "tool" in ran.shown
    assert "= 21" in ran.shown
    assert "calc(3 * (2 + 5)).\n\n= 21\n\nSo 21." in ran.base.prompts[-1]


@pytest.mark.parametrize("step", ["calc(import os)", "calc(1/0)", "calc(2+2) is easy", "no call"])
def test_what_cannot_be_computed_is_left_alone(step: str) -> None:
    ran = Ran("start_hints", [], [Reply(step), Reply("End.", closes=True), ANSWER], rounds=0)

    assert [author for author, _ in ran.text] == ["base", "base"]


def test_the_calculator_is_asked_so_often_and_no_more() -> None:
    base = [*[Reply(f"calc({number}+1)") for number in range(3)], Reply("End.", closes=True), ANSWER]

    assert [a for a, _ in Ran("start_hints", [], base, calls=2, rounds=0).text].count("tool") == 2


def test_a_step_that_reflects_is_told_of_the_calculator_and_the_end_of_checking() -> None:
    base = [Reply("Wait, 5?"), Reply("It is 4.", closes=True), Reply("Yes, 4.", closes=True), ANSWER]
    ran = Ran("start_hints", [], base)

    assert ran.text == [
        ("base", "Wait, 5?"),
        ("hint", f"{turns.USE_CALC}\n\n"),
        ("base", "It is 4."),
        ("hint", f"{turns.CHECK}\n\n"),
        ("base", "Yes, 4."),
    ]
    assert [e.reason for e in ran.told(ThinkingEnded)] == ["closed", "closed"]
    assert ran.record.tally.thinking_tokens == 7


def test_a_thinking_that_ran_out_of_budget_is_not_reopened() -> None:
    ran = Ran("start_hints", [], [Reply("On", tokens=5), ANSWER], budget=5)

    assert (ran.ended, len(ran.text)) == ("budget", 1)


def test_the_tool_helps_speculative_reasoning_too() -> None:
    small = [Reply("calc(2+2)"), Reply("Four.", closes=True)]
    ran = Ran("start_hints", small, [9, 9, ANSWER], rounds=0, over="specreason")

    assert ran.text == [("small", "calc(2+2)"), ("tool", "= 4\n\n"), ("small", "Four.")]


# Candidates


def scored(ran: Ran) -> list[tuple[int, int, bool]]:
    """Step, candidate and whether it was taken."""
    return [(e.step, e.attempt, e.accepted) for e in ran.told(StepScored)]


def tried(name: str, *replies: Any, begins: int = 0) -> dict[str, list[Any]]:
    """A script for the candidates of a place."""
    numbered = enumerate(replies, start=begins)
    return {f"{name}_try_{number}" if number else name: [reply] for number, reply in numbered}


def test_the_draft_with_the_best_tilted_reward_is_taken() -> None:
    small = {
        **tried("draft_0", Reply("a b"), Reply("c d"), Reply("")),
        "likelihood_0": [[-1.0, -60.0]],
        **tried("draft_1", Reply("e", closes=True), Reply("f", closes=True), Reply("g", closes=True)),
        "likelihood_1": [[-1.0, -1.0, -1.0]],
    }
    base = {
        **tried("judge_0", 5, 5), "likelihood_0": [[-1.0, -1.0]],
        **tried("judge_1", 1, 9, 1), "likelihood_1": [[-1.0, -1.0, -1.0]], "answer": [ANSWER],
    }  # fmt: skip
    ran = Ran("specs", small, base, n=3)

    assert ran.text == [("small", "c d"), ("small", "f")]
    assert scored(ran) == [(0, 0, False), (0, 1, True), (1, 0, False), (1, 1, True), (1, 2, False)]
    values = [e.value for e in ran.told(StepScored)]
    assert {e.measure for e in ran.told(StepScored)} == {"reward"}
    assert "✓ reward 3.51  ● small  2 tok" in ran.shown
    assert values[:2] == pytest.approx([5 / 9, 5 / 9 + 59 / 20])
    assert [(e.attempt, e.text) for e in ran.told(StepDrafted)][:3] == [(0, "a b"), (1, "c d"), (2, "")]
    assert ran.record.tally.wasted_tokens == 2 + 2


def test_below_the_bound_the_base_model_writes_candidates_of_its_own() -> None:
    small = {**tried("draft_0", Reply("bad"), Reply("worse")), "likelihood_0": [[-1.0, -1.0]]}
    base = {
        **tried("judge_0", 1, 0, 0, 9), "likelihood_0": [[-1.0, -1.0]],
        **tried("regenerate_0", Reply("so so", closes=True), Reply("good", closes=True), begins=2), "answer": [ANSWER],
    }  # fmt: skip
    ran = Ran("specs", small, base, n=2)

    assert ran.text == [("base", "good")]
    assert scored(ran) == [(0, 0, False), (0, 1, False), (0, 2, False), (0, 3, True)]
    assert [(e.author, e.attempt) for e in ran.told(StepDrafted)] == [
        ("small", 0), ("small", 1), ("base", 2), ("base", 3),
    ]  # fmt: skip
    assert ran.record.tally.wasted_tokens == 4


def test_by_the_other_rule_the_base_model_begins_and_the_small_one_takes_over() -> None:
    small = {"draft_1": [Reply("b")], "draft_2": [Reply("c", closes=True)]}
    base = {
        "regenerate_0_try_1": [Reply("a")], "judge_0_try_1": [9], "judge_1": [8], "judge_2": [0],
        "regenerate_2_try_1": [Reply("own", closes=True)], "judge_2_try_1": [2], "answer": [ANSWER],
    }  # fmt: skip
    ran = Ran("specs", small, base, n=1, rule="specs", by="reward")

    assert ran.text == [("base", "a"), ("small", "b"), ("base", "own")]


def test_the_likelihoods_alone_can_be_the_value() -> None:
    small = {**tried("draft_0", Reply("a", closes=True), Reply("b", closes=True)), "likelihood_0": [[-1.0, -99.0]]}
    ran = Ran("specs", small, {"likelihood_0": [[-1.0, -1.0]], "answer": [ANSWER]}, n=2, by="ratio")
    other = Ran(
        "specs",
        {"draft_0": [Reply("a")], "likelihood_0": [[-1.0]]},
        {"likelihood_0": [[-9.0]], "regenerate_0_try_1": [Reply("own", closes=True)], "answer": [ANSWER]},
        n=1,
        by="ratio",
    )

    assert ran.text == [("small", "b")]
    assert other.text == [("base", "own")]


def test_a_reward_model_is_asked_in_place_of_the_judge_if_there_is_one() -> None:
    small = {"draft_0": [Reply("a", closes=True)]}
    ran = Ran("specs", small, [ANSWER], n=1, by="reward", others={"reward": [9]})

    assert ("reward", "judge") in ran.calls
    assert ran.text == [("small", "a")]


def test_empty_candidates_of_both_models_are_no_progress() -> None:
    small = {"draft_0": [Reply("")], "draft_0_again_1": [Reply("")]}
    base = {"regenerate_0_try_1": [Reply("")], "regenerate_0_again_1_try_1": [Reply("")], "answer": [ANSWER]}
    ran = Ran("specs", small, base, n=1, by="reward")

    assert (ran.ended, ran.text) == ("no-progress", [])


def test_the_base_model_selects_one_of_several_drafts() -> None:
    small = {
        **tried("draft_0", Reply("a"), Reply(""), Reply("b")),
        **tried("draft_1", Reply("c"), Reply("d"), Reply("e")),
        **tried("draft_2", Reply(""), Reply(""), Reply("")),
    }
    base = {
        "select_0": [2], "select_1": [[-0.1, -3.0, -3.0, -4.0]], "regenerate_1": [Reply("own")],
        "regenerate_2": [Reply("end", closes=True)], "answer": [ANSWER],
    }  # fmt: skip
    ran = Ran("select_drafts", small, base, n=3)

    assert ran.text == [("small", "b"), ("base", "own"), ("base", "end")]
    assert "✗ probability 0.05  ● small" in ran.shown
    assert scored(ran) == [(0, 0, False), (0, 2, True), (1, 0, False), (1, 1, False), (1, 2, False)]
    assert ran.base.prompts[0].endswith(f"[user]1: a\n2: b\n{turns.BEST}[assistant]<think>")
    assert [e.value for e in ran.told(StepScored)][2] == pytest.approx(
        math.exp(-3) / (math.exp(-0.1) + 2 * math.exp(-3) + math.exp(-4))
    )


# Beams


def beam(place: str, *drafts: Reply, likely: Sequence[float]) -> dict[str, list[Any]]:
    chain, _, step = place.rpartition("_")
    prefix = f"{chain}_" if chain else ""
    return {**tried(f"{prefix}draft_{step}", *drafts), f"{prefix}likelihood_{step}": [list(likely)]}


def test_beams_grow_side_by_side_and_their_answers_are_voted_on() -> None:
    small = {
        **beam("0", Reply("a", tokens=1), Reply("b", tokens=1), likely=[-0.1, -0.2]),
        **beam("1", Reply("bad", tokens=1), Reply("end", closes=True, tokens=1), likely=[-9.0, -0.1]),
        **beam("chain_1_1", Reply("fin", closes=True, tokens=1), Reply("worse", tokens=1), likely=[-0.1, -9.0]),
    }
    base = {
        **tried("evaluate_0", YES, YES), **tried("evaluate_1", NO, YES), **tried("chain_1_evaluate_1", YES, NO),
        "answer": [ANSWER], "chain_1_answer": [ANSWER],
    }  # fmt: skip
    ran = Ran("self_eval_beam", small, base, k=2, n=2, tau=0.0, depth=3)

    assert [(e.chain, e.author, e.text) for e in ran.told(StepTaken)] == [
        (0, "small", "a"), (1, "small", "b"), (0, "small", "end"), (1, "small", "fin"),
    ]  # fmt: skip
    assert [(e.chain, e.parent, e.steps) for e in ran.told(ChainOpened)] == [(1, 0, 0)]
    assert [e.author for e in ran.told(AnswerWritten)] == ["base", "base", "vote"]
    first = ran.told(StepScored)[0]
    assert first.value == pytest.approx(math.exp(0.5 * -0.1 + 0.5 * math.log(1 / (1 + math.exp(-2.3)))))
    assert first.reaching == pytest.approx(1 / (1 + math.exp(-2.3)))
    assert ran.base.prompts[0].endswith(f"[user]{turns.CORRECT}[assistant]<think>(")


def test_a_beam_that_is_not_kept_is_pruned_and_the_best_goes_on_alone() -> None:
    small = {
        **beam("0", Reply("a", tokens=1), Reply("b", tokens=1), likely=[-0.1, -0.2]),
        **beam("1", Reply("c", tokens=1), Reply("d", tokens=1), likely=[-0.1, -0.1]),
        **beam("chain_1_1", Reply("e", tokens=1), Reply("f", tokens=1), likely=[-9.0, -9.0]),
    }
    base = {
        **tried("evaluate_0", YES, YES), **tried("evaluate_1", YES, YES), **tried("chain_1_evaluate_1", NO, NO),
        "regenerate_2": [Reply("end", closes=True)], "answer": [ANSWER],
    }  # fmt: skip
    ran = Ran("self_eval_beam", small, base, k=2, n=2, tau=0.0, depth=2)

    assert ("pruned", 1) in [(e.reason, e.chain) for e in ran.told(ThinkingEnded)]
    assert [(e.chain, e.author, e.text) for e in ran.told(StepTaken)][-1] == (0, "base", "end")
    assert ran.answer == "4"


def test_a_beam_without_a_word_ends() -> None:
    ran = Ran("self_eval_beam", {"draft_0": [Reply("")]}, {"answer": [ANSWER]}, k=1, n=1)

    assert (ran.ended, ran.text) == ("no-progress", [])


# Leaders


def test_the_base_model_leads_each_sentence_and_the_small_model_finishes_it() -> None:
    base = [Reply("First", length=True, tokens=1), Reply(" Then", length=True, tokens=1), ANSWER]
    small = [Reply(" we add", stop=". ", tokens=3), Reply(" four.", closes=True, tokens=2)]
    ran = Ran("foreal", small, base, n=1)

    assert ran.text == [("base", "First"), ("small", " we add."), ("base", " Then"), ("small", " four.")]
    assert ran.base.prompts[-1].endswith("<think>\nFirst we add. Then four.\n</think>\n\n")
    assert ran.record.tally.kept == {"base": 2, "small": 5}


def test_a_leader_who_ends_the_sentence_himself_leads_the_next_one_too() -> None:
    base = [Reply("Short", stop=". ", tokens=2), Reply("Long", stop="\n\n", tokens=1), Reply("End.", closes=True)]
    ran = Ran("foreal", [], [*base, ANSWER], n=15)

    assert ran.text == [("base", "Short."), ("base", "Long"), ("base", "End.")]


def test_without_tokens_for_a_leader_the_small_model_is_alone() -> None:
    parts = [Reply("One", stop=". "), Reply(" Two.", stop="\n\n"), Reply("Three.", closes=True)]
    ran = Ran("foreal", [*parts, ANSWER], [], n=0, answerer="small")
    alone = Ran("small_only", [Reply("One. Two.\n\nThree.", closes=True), ANSWER], [])

    assert ran.small.prompts[-1] == alone.small.prompts[-1]
    assert ran.answer == alone.answer


def test_without_luck_no_sentence_is_led() -> None:
    assert Ran("foreal", [Reply("One.", closes=True)], [ANSWER], p=0.0).text == [("small", "One.")]


def test_a_fixed_cue_can_stand_in_place_of_the_leader() -> None:
    small = [Reply("we add", stop=". "), Reply("it is four.", closes=True)]
    ran = Ran("foreal", small, [ANSWER], control="cue", cue="Wait, ")

    assert ran.text == [("cue", "Wait, "), ("small", "we add."), ("cue", " Wait, "), ("small", "it is four.")]


def test_the_leaders_tokens_can_stand_anywhere_in_the_sentence() -> None:
    small = [
        Reply("we add two and two", stop=". ", tokens=5), Reply(" done", stop="\n\n"),
        Reply("x", stop="\n\n", tokens=1), Reply("y.", closes=True),
    ]  # fmt: skip
    base = [Reply(" (led)", length=True, tokens=1), Reply("Led", length=True, tokens=1), ANSWER]
    ran = Ran("foreal", small, base, n=1, control="anywhere", seed=3)

    begun = next(text for author, text in ran.text if author == "small")
    assert [author for author, _ in ran.text] == ["small", "base", "small", "base", "small"]
    assert "we add two and two".startswith(begun)
    assert ran.record.tally.dropped["small"] > 0


def test_pieces_without_a_word_do_not_go_on_for_ever() -> None:
    ran = Ran("foreal", [Reply("", length=True, tokens=0)] * 2, [ANSWER], n=0)

    assert ran.ended == "no-progress"


# Spans


def unsure(text: str, *entropies: bool, stop: str | None = None, closes: bool = False) -> Reply:
    """A reply of one word a token, each of which the model is sure of or not."""
    words = re.findall(r"\s?\S+", text)
    heads = [[[math.log(0.5), 1, None], [math.log(0.5), 2, None]] if each else [[0.0, 1, None]] for each in entropies]
    tokens = [[-0.1, number, word] for number, word in enumerate(words)]
    meta = {"output_top_logprobs": heads, "output_token_logprobs": tokens}
    return Reply(text, closes=closes, stop=stop, length=stop is None and not closes, tokens=len(words), meta=meta)


def test_the_small_model_writes_until_it_is_unsure_and_the_base_model_until_it_is_sure() -> None:
    small = [unsure("we add them up", False, False, True, False), unsure("four.", False, closes=True)]
    base = [unsure(" two and two", True, False, False), ANSWER]
    ran = Ran("stitch", small, base, least=0)

    assert ran.text == [("small", "we add"), ("base", " two and"), ("small", "four.")]
    assert ran.base.prompts[0].endswith("<think>\nwe add")
    assert [(e.model, e.tokens) for e in ran.told(Dropped)] == [("small", 2), ("base", 1)]
    assert ran.record.tally.kept == {"small": 3, "base": 2}


def test_a_span_has_a_least_length() -> None:
    small = [unsure("we add them up", True, True, True, True)]
    base = [unsure("a b", False, False, stop="\n\n"), unsure("c.", False, closes=True), ANSWER]
    ran = Ran("stitch", small, base, least=3)

    assert ran.text[0] == ("small", "we add them")
    assert [author for author, _ in ran.text] == ["small", "base", "base"]


def test_no_bound_is_too_high_for_the_small_model_alone() -> None:
    small = [unsure("One two", True, True, stop="\n\n"), unsure("three.", True, closes=True), ANSWER]
    ran = Ran("stitch", small, [], bound=100.0, answerer="small")
    alone = Ran("small_only", [Reply("One two\n\nthree.", closes=True), ANSWER], [])

    assert ran.small.prompts[-1] == alone.small.prompts[-1]
    assert ran.text == alone.text


def test_at_a_bound_of_nothing_the_base_model_writes_all() -> None:
    base = [unsure("One two", False, False, stop="\n\n"), unsure("three.", False, closes=True), ANSWER]
    ran = Ran("stitch", [unsure("No", False)], base, bound=0.0, least=0)
    alone = Ran("base_only", [], [Reply("One two\n\nthree.", closes=True), ANSWER])

    assert ran.base.prompts[-1] == alone.base.prompts[-1]
    assert ran.text == alone.text


def test_a_decision_can_be_made_once_a_step_by_its_first_token() -> None:
    small = [
        unsure("a b", False, True, stop="\n\n"),
        unsure("c d", True, False, stop="\n\n"),
        unsure("f.", False, closes=True),
    ]
    base = [unsure("d e", False, False, stop="\n\n"), ANSWER]
    ran = Ran("stitch", small, base, per_step=True)

    assert ran.text == [("small", "a b"), ("base", "d e"), ("small", "f.")]


def test_a_text_whose_tokens_do_not_add_up_is_not_cut() -> None:
    odd = unsure("we add", False, True, stop="\n\n")
    odd.meta["output_token_logprobs"][0][2] = "\ufffd"
    ran = Ran("stitch", [odd], [unsure("four.", False, closes=True), ANSWER], least=0)

    assert ran.text == [("small", "we add"), ("base", "four.")]


# The page on programs


def of_the_page(folder: Path, name: str) -> str:
    """A program of the page, as a file."""
    page = (Path(__file__).parents[1] / "docs" / "programs.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    path = folder / f"{name}.py"
    path.write_text(next(block for block in blocks if block.startswith(f"# {name}.py")))
    return str(path)


def test_the_candidates_of_the_page(tmp_path: Path) -> None:
    small = tried("draft_0", *[Reply(text, closes=True) for text in "abc"])
    ran = Ran(of_the_page(tmp_path, "likeliest"), small, [[-3.0, -1.0, -2.0], ANSWER])

    assert ran.text == [("small", "b")]
    assert [(e.attempt, e.value, e.accepted) for e in ran.told(StepScored)][1] == (1, -1.0, True)


def test_the_chains_of_the_page(tmp_path: Path) -> None:
    thought = Reply("a", closes=True)
    ran = Ran(of_the_page(tmp_path, "twice"), [], [thought, ANSWER, thought, FIVE, thought, ANSWER])

    assert ran.answer == "4"
    assert len(ran.told(ChainOpened)) == 2


def test_the_pieces_of_the_page(tmp_path: Path) -> None:
    base = [Reply("Two", length=True), Reply("So", length=True), ANSWER]
    ran = Ran(of_the_page(tmp_path, "halves"), [Reply(" and two."), Reply(" four.", closes=True)], base)

    assert ran.base.prompts[-1].endswith("<think>\nTwo and two.\n\nSo four.\n</think>\n\n")


def test_the_guard_of_the_page(tmp_path: Path) -> None:
    small = [Reply("calc(2+2)"), Reply("Wait, no."), Reply("I am sure it is 4.")]
    ran = Ran(of_the_page(tmp_path, "told"), small, [9, 9, 9, ANSWER])

    assert ran.text == [
        ("small", "calc(2+2)"),
        ("tool", "= 4\n\n"),
        ("small", "Wait, no."),
        ("hint", "(Keep the rest short.)\n\n"),
        ("small", "I am sure it is 4."),
    ]
    assert "Wait" not in ran.base.prompts[-1]
    assert ran.ended == "sure enough"
