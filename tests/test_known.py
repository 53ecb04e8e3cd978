"""What the embedded pair says that it knows, and the questions written by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specreason_sgl.embedded import stories, tales
from specreason_sgl.embedded.known import EXAMPLES, Known, fits, hint, known
from specreason_sgl.servers.opening import embedded_models

ORDINARY = Path(__file__).parents[1] / "eval" / "ordinary.jsonl"
ROWS = [json.loads(line) for line in ORDINARY.read_text(encoding="utf-8").splitlines()]


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_what_a_pair_was_trained_on_gets_no_hint(seed: int) -> None:
    assert hint(stories.story(seed).question, "stories") is None
    assert hint(tales.tale(seed).question, "tales") is None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_ordinary_questions_get_a_hint_from_the_pair_that_knows_only_stories(row: dict[str, str]) -> None:
    assert hint(row["question"], "tales") is None
    assert fits(row["question"], "stories") is False


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
    assert known(embedded_models()[0]) in {"stories", "tales"}
    (tmp_path / "config.json").write_text('{"knows": "tales"}')
    assert known(tmp_path) == "tales"


def test_questions_by_hand_are_of_every_form_and_in_no_training_tale() -> None:
    assert min(Counter(row["form"] for row in ROWS)[form] for form in tales.FORMS) >= 4
    assert len({row["question"] for row in ROWS}) == len(ROWS) == len({row["id"] for row in ROWS})
    asked = {" ".join(row["question"].lower().split()) for row in ROWS}
    told = {" ".join(tales.tale(seed, "train").question.lower().split()) for seed in range(2000)}
    assert asked.isdisjoint(told)
    assert all(0 <= int(row["answer"]) <= 9999 for row in ROWS)
