"""What the embedded pair says that it knows, and the questions written by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specreason_sgl.embedded import BASE, stories, tales
from specreason_sgl.embedded.known import EXAMPLES, Known, fits, hint, known

BY_HAND = {
    name: [json.loads(line) for line in (Path(__file__).parents[1] / "eval" / name).read_text().splitlines()]
    for name in ("ordinary.jsonl", "ordinary_dev.jsonl")
}


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_what_a_pair_was_trained_on_gets_no_hint(seed: int) -> None:
    assert hint(stories.story(seed).question, "stories") is None
    assert hint(tales.tale(seed).question, "tales") is None


@pytest.mark.parametrize("question", ["Work out (8+12)x(11+43).", "What is 3 x 4?", "(2 + 3) x 4", "Compute 3x(2+1)"])
def test_a_multiplication_sign_is_no_unknown(question: str) -> None:
    assert fits(question, "tales")


@pytest.mark.parametrize("question", [row["question"] for rows in BY_HAND.values() for row in rows])
def test_ordinary_questions_get_no_hint_from_a_pair_that_knows_tales(question: str) -> None:
    assert hint(question, "tales") is None


@pytest.mark.parametrize("question", [row["question"] for row in BY_HAND["ordinary.jsonl"]])
def test_ordinary_questions_get_a_hint_from_the_pair_that_knows_only_stories(question: str) -> None:
    assert fits(question, "stories") is False


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
@pytest.mark.parametrize("kind", ["stories", "tales"])
def test_a_question_of_no_documented_form_gets_one_line_with_three_examples(question: str, kind: Known) -> None:
    line = hint(question, kind)

    assert line is not None
    assert "\n" not in line
    assert all(example in line for example in EXAMPLES[kind])
    assert all(fits(example, kind) for example in EXAMPLES[kind])


@settings(deadline=None)
@given(st.text(), st.sampled_from(["stories", "tales"]))
def test_any_text_can_be_asked_about(text: str, kind: Known) -> None:
    assert fits(text, kind) in {True, False}


def test_the_shipped_pair_says_what_it_knows(tmp_path: Path) -> None:
    assert known(BASE) in {"stories", "tales"}
    (tmp_path / "config.json").write_text('{"knows": "tales"}')
    assert known(tmp_path) == "tales"


@pytest.mark.parametrize("rows", BY_HAND.values(), ids=BY_HAND)
def test_questions_by_hand_are_of_every_form_and_in_no_training_tale(rows: list[dict[str, str]]) -> None:
    assert min(Counter(row["form"] for row in rows)[form] for form in tales.FORMS) >= 4
    assert len({row["question"] for row in rows}) == len(rows) == len({row["id"] for row in rows})
    asked = {" ".join(row["question"].lower().split()) for row in rows}
    told = {" ".join(tales.tale(seed, "train").question.lower().split()) for seed in range(2000)}
    assert asked.isdisjoint(told)
    assert all(0 <= int(row["answer"]) <= 9999 for row in rows)
