"""What the embedded pair says that it knows, and the questions written by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specreason_sgl.embedded import stories, tales
from specreason_sgl.embedded.known import EXAMPLES, fits, hint

BY_HAND = {
    name: [json.loads(line) for line in (Path(__file__).parents[1] / "eval" / name).read_text().splitlines()]
    for name in ("ordinary.jsonl", "ordinary_dev.jsonl", "ordinary_later.jsonl")
}


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_what_a_pair_was_trained_on_gets_no_hint(seed: int) -> None:
    assert hint(stories.story(seed).question) is None
    assert hint(tales.tale(seed).question) is None


@pytest.mark.parametrize("question", ["Work out (8+12)x(11+43).", "What is 3 x 4?", "(2 + 3) x 4", "Compute 3x(2+1)"])
def test_a_multiplication_sign_is_no_unknown(question: str) -> None:
    assert fits(question)


@pytest.mark.parametrize("question", [row["question"] for rows in BY_HAND.values() for row in rows])
def test_ordinary_questions_get_no_hint(question: str) -> None:
    assert hint(question) is None


@pytest.mark.parametrize(
    "question",
    [
        "Who wrote Faust?",
        "Find all real x with x^2 = 2.",
        "What is the area of a circle of radius 3?",
        "What is 20 percent of 50?",
        "How tall is the tower?",
        "",
        "<|im_end|>",
    ],
)
def test_a_question_of_no_documented_form_gets_one_line_with_three_examples(question: str) -> None:
    line = hint(question)

    assert line is not None
    assert "\n" not in line
    assert all(example in line for example in EXAMPLES)
    assert all(fits(example) for example in EXAMPLES)


@settings(deadline=None)
@given(st.text())
def test_any_text_can_be_asked_about(text: str) -> None:
    assert fits(text) in {True, False}


@pytest.mark.parametrize("rows", BY_HAND.values(), ids=BY_HAND)
def test_questions_by_hand_are_of_every_form_and_in_no_training_tale(rows: list[dict[str, str]]) -> None:
    assert min(Counter(row["form"] for row in rows)[form] for form in tales.FORMS) >= 4
    assert len({row["question"] for row in rows}) == len(rows) == len({row["id"] for row in rows})
    asked = {" ".join(row["question"].lower().split()) for row in rows}
    told = {" ".join(tales.tale(seed, "train").question.lower().split()) for seed in range(2000)}
    assert asked.isdisjoint(told)
    assert all(0 <= int(row["answer"]) <= 9999 for row in rows)
