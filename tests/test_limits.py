"""Models, judges and questions that know no limits: each has an outcome in the trace, in bounded time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.events import StepTaken, ThinkingEnded
from specreason_sgl.lang import loading
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.settings import Settings
from specreason_sgl.testing import Reply, ScriptedBackend
from specreason_sgl.text.answers import boxed, is_same
from specreason_sgl.text.prompts import neutralise
from specreason_sgl.text.scoring import LEAST
from specreason_sgl.text.steps import split_steps

ANSWER = Reply("So \\boxed{4}.")
PROBLEM = Problem(id="sum", question="What is 2 + 2?", answer="4")
LONG = 100_000


def run(
    small: list[object], base: list[object], *, context: int | None = None, program: str = "specreason", **knobs: object
) -> SolveRecord:
    servers = ScriptedBackend("small", small), ScriptedBackend("base", base)  # type: ignore[arg-type]
    servers[1].context = context
    return solve(PROBLEM, loading.load(program), Pair(servers[1], servers[0]), Settings.model_validate(knobs))


def reason(record: SolveRecord) -> str:
    return next(event.reason for event in record.events if isinstance(event, ThinkingEnded))


def drafts(count: int) -> list[object]:
    return [Reply(f"Step {number}" + " and on" * 10) for number in range(count)]


def test_thinking_ends_where_the_answer_would_not_fit_into_the_context_any_more() -> None:
    record = run(drafts(99), [*[9] * 6, ANSWER], context=400, answer_tokens=100, budget=10_000)

    assert reason(record) == "context"
    assert record.tally.outcome == "answered"
    assert record.tally.steps["small"] == 6


def test_a_step_is_no_longer_than_what_is_left_of_the_context() -> None:
    most: list[int] = []

    class Asked(ScriptedBackend):
        def generate(self, s: object, sampling_params: object) -> tuple[str, dict[str, object]]:
            most.append(sampling_params.max_new_tokens)  # type: ignore[attr-defined]
            return super().generate(s, sampling_params)

    small, base = Asked("small", [Reply("a b"), Reply("c", closes=True)]), ScriptedBackend("base", [9, 9, ANSWER])
    small.context = 400
    solve(PROBLEM, loading.load("specreason"), Pair(base, small), Settings(answer_tokens=100))

    assert 100 < most[1] < most[0] == 400 - 100 - 128 - len(small.chat.opening(PROBLEM.question).split())


@pytest.mark.parametrize("program", ["base_only", "small_only"])
def test_a_chain_from_one_model_is_no_longer_than_its_context_either(program: str) -> None:
    most: list[int] = []

    class Asked(ScriptedBackend):
        def generate(self, s: object, sampling_params: object) -> tuple[str, dict[str, object]]:
            most.append(sampling_params.max_new_tokens)  # type: ignore[attr-defined]
            return super().generate(s, sampling_params)

    alone = Asked("base", [Reply("On and on.", length=True, tokens=150), ANSWER])
    alone.context = 400
    both = Pair(alone, ScriptedBackend("small", [])), Pair(ScriptedBackend("base", []), alone)
    pair = both[program == "small_only"]
    record = solve(PROBLEM, loading.load(program), pair, Settings(answer_tokens=100))

    assert most == [400 - 100 - 128 - len(alone.chat.opening(PROBLEM.question).split()), 100]
    assert reason(record) == "context"
    assert record.tally.outcome == "answered"


def test_questions_are_only_counted_where_they_may_be_too_long() -> None:
    class Counted(ScriptedBackend):
        counted = 0

        def tokens(self, text: str) -> list[int]:
            Counted.counted += 1
            return super().tokens(text)

    for context in (10_000, 400):
        base = Counted("base", [Reply("a", closes=True), ANSWER])
        base.context = context
        solve(PROBLEM, loading.load("base_only"), Pair(base, None), Settings(budget=300, answer_tokens=10))

        assert Counted.counted == (context == 400)


@pytest.mark.parametrize(
    ("small", "base", "ends"),
    [
        ([Reply(f"Never {n}", length=True, tokens=512) for n in range(9)], [9] * 4 + [ANSWER], "budget"),
        ([Reply("Again.")] * 3, [9, 9, 9, ANSWER], "repeat"),
        ([Reply("Round."), Reply("and")] * 3, [9] * 6 + [ANSWER], "repeat"),
        ([Reply(""), Reply(" \n")], [Reply(""), Reply("\t"), ANSWER], "no-progress"),
        ([Reply("\u2028"), Reply("\0")], [Reply(""), 9, ANSWER], "budget"),
    ],
    ids=["never stops", "says it twice", "goes in circles", "says nothing", "says nothing visible"],
)
def test_thinking_always_ends_for_a_reason(small: list[object], base: list[object], ends: str) -> None:
    budget = 1 if ends == "budget" and len(small) == 2 else 2048

    assert reason(run(small, base, budget=budget)) == ends


@pytest.mark.parametrize(
    "verdict", [[LEAST] * 10, [float("nan")] * 10, [float("-inf")] * 10], ids=["none", "nan", "inf"]
)
def test_a_judge_that_gives_no_digit_fails_the_solve_in_a_line(verdict: list[float]) -> None:
    record = run([Reply("a")], [verdict])

    assert record.tally.outcome == "failed"
    assert "no usable score at step 0" in str(record.tally.error)
    assert "\n" not in str(record.tally.error)


def test_a_judge_with_next_to_no_mass_on_the_digits_is_heard_and_shown() -> None:
    record = run([Reply("a", closes=True)], [[-60.0 - digit for digit in range(10)], Reply("b", closes=True), ANSWER])
    scored = next(event for event in record.events if event.type == "step_scored")  # type: ignore[attr-defined]

    assert scored.greedy == 0  # type: ignore[attr-defined]
    assert scored.missing_mass == pytest.approx(1.0)  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_trace_of_many_steps_takes_time_in_proportion() -> None:
    def seconds(count: int) -> float:
        script: list[object] = [*(Reply(f"s{n}", tokens=1) for n in range(count - 1)), Reply("e", closes=True)]
        began = time.process_time()
        record = run(script, [*[9] * count, ANSWER], budget=10**6)
        assert sum(isinstance(event, StepTaken) for event in record.events) == count
        return time.process_time() - began

    seconds(50)
    assert seconds(800) < 16 * seconds(200)


HOSTILE = {
    "boxes that never close": "\\boxed{" * (LONG // 7),
    "braces": "\\boxed{" + "{" * LONG,
    "openings of tokens": "<|" * (LONG // 2),
    "blank lines": "\n " * (LONG // 2),
    "one word": "x" * LONG,
    "digits": "9" * LONG,
    "commas": "1," * (LONG // 2),
    "backslashes": "\\" * LONG,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_long_hostile_text_is_read_in_time(text: str) -> None:
    began = time.process_time()
    assert boxed(text) is None
    assert is_same(text, text)
    assert not is_same(text, text[:-1] + "8")
    split_steps(text)
    neutralise(text)

    assert time.process_time() - began < 5


@given(st.lists(st.sampled_from(["\\boxed{", "\\", "{", "}", "a", " ", "\\fbox {"]), max_size=14).map("".join))
def test_the_last_box_that_closes_and_holds_anything_is_in_the_answer(text: str) -> None:
    found = [found for start in range(len(text)) if (found := closed(text, start)) is not None]
    filled = [found for found in found if found]
    answer = boxed(text)

    assert (answer is None) is (not found)
    assert not filled or filled[-1] in str(answer).split(", ")


def closed(text: str, start: int) -> str | None:
    """What the box that opens exactly here holds, by looking for its end from here."""
    opening = next((o for o in ("\\boxed{", "\\fbox {") if text.startswith(o, start)), None)
    if opening is None:
        return None
    depth, place = 1, start + len(opening)
    inside = place
    while place < len(text):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[inside:place].strip()
        place += 2 if text[place] == "\\" else 1
    return None


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("9" * 400, "8" * 400, False),
        ("12345678901234567890", "12345678901234567891", False),
        ("1e999999999", "1", False),
        ("4.0", "4", True),
        ("1,234", "1234", True),
        ("nan", "nan", True),
        ("nan", "1", False),
    ],
)
def test_numbers_are_compared_exactly(answer: str, gold: str, same: bool) -> None:
    assert is_same(answer, gold) is same


def test_a_gigantic_question_is_an_outcome() -> None:
    base = ScriptedBackend("base", [Reply("a", closes=True), ANSWER])
    problem = Problem(id="x", question="Why? " * (LONG // 5))
    record = solve(problem, loading.load("base_only"), Pair(base, None), Settings())

    assert record.tally.outcome == "answered"
