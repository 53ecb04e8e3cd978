from __future__ import annotations

import operator
import re
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from specreason_sgl.embedded import stories

seeds = st.integers(0, 10**9)


OPERATIONS = {"+": operator.add, "-": operator.sub, "x": operator.mul, "/": operator.floordiv}


@given(seeds)
def test_a_seed_is_a_story_and_splits_share_none(seed: int) -> None:
    assert stories.story(seed) == stories.story(seed)
    assert stories.story(seed).question != stories.story(seed, "train").question


@given(seeds)
@example(338)  # subtracts down to nothing: the right operand of what follows is 0
def test_every_written_out_calculation_is_right(seed: int) -> None:
    told = stories.story(seed)

    assert 3 <= len(told.steps) <= stories.LONGEST
    for left, operation, right, result in re.findall(r"(\d+)([-+x/])(\d+): .* so (\d+)", "\n".join(told.steps)):
        assert OPERATIONS[operation](int(left), int(right)) == int(result)
    for equation in re.findall(r"(?<![\d+x/-])\d+(?:[-+x]\d+)+=\d+", "\n".join(told.steps)):
        left, result = equation.split("=")
        assert eval(left.replace("x", "*")) == int(result)  # noqa: S307 - digits and operators
    assert told.steps[-1].endswith(f"the answer is {told.answer}.")


def test_all_families_occur() -> None:
    assert len({stories.story(seed).family for seed in range(60)}) == len(stories.FAMILIES)


@given(seeds, st.data())
def test_right_steps_score_nine_and_corrupted_ones_less(seed: int, data: st.DataObject) -> None:
    told = stories.story(seed)
    done = data.draw(st.integers(0, len(told.steps) - 1))
    wrong = stories.corrupt(Random(seed), told, done)

    assert stories.grade_step(told, done, told.steps[done]) == stories.RIGHT
    assert stories.grade_step(told, done, f" {told.steps[done]}\n") == stories.RIGHT
    assert stories.grade_step(told, done, wrong) < stories.RIGHT


@given(seeds, st.sampled_from(stories.MISREADINGS), st.data())
def test_misreadings_agree_with_themselves_but_not_with_the_story(
    seed: int, misread: Callable[[Random, stories.Story, int], str], data: st.DataObject
) -> None:
    told = stories.story(seed)
    done = data.draw(st.integers(0, len(told.steps) - 1))
    text = misread(Random(seed), told, done)

    for left, operation, right, result in re.findall(r"(\d+)([-+x])(\d+): .* so (\d+)", text):
        assert OPERATIONS[operation](int(left), int(right)) == int(result)
    assert text == told.steps[done] or stories.grade_step(told, done, text) < stories.RIGHT


@pytest.mark.parametrize(
    ("candidate", "score"),
    [
        ("", 0),
        ("Let me think.", 0),
        ("The story says: Leo has 21 buttons.", stories.IDLE),
        ("Leo starts with 21 buttons.", stories.IDLE),
        ("Leo keeps one of 7 boxes, 21/7: 7x3=21, so 3 buttons.", stories.RIGHT),
        ("Leo keeps one of 7 boxes, 21/7: 7x4=21, so 3 buttons.", 3),
        ("Leo keeps one of 7 boxes, 21/7: 7x3=21, so 4 buttons.", 2),
        ("Leo keeps one of 7 boxes, 24/7: 7x3=21, so 3 buttons.", 1),
    ],
)
def test_grades_of_one_step(candidate: str, score: int) -> None:
    told = stories.story(0)

    assert told.steps[1] == "Leo keeps one of 7 boxes, 21/7: 7x3=21, so 3 buttons."
    assert score == stories.grade_step(told, 1, candidate)


@given(seeds, st.text())
def test_any_text_has_a_grade(seed: int, candidate: str) -> None:
    assert 0 <= stories.grade_step(stories.story(seed), 0, candidate) <= 9
