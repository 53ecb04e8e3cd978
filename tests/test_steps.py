from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.steps import is_repeat, split_steps


@pytest.mark.parametrize(
    ("thinking", "steps"),
    [
        ("", []),
        ("one", ["one"]),
        ("one\n\ntwo", ["one", "two"]),
        ("one\n\n\n\ntwo\n", ["one", "two"]),
        ("one\n \t\n two", ["one", "two"]),
        ("a line\nof the same step\n\ntwo", ["a line\nof the same step", "two"]),
        ("<think>\none\n\ntwo\n</think>\n\nThe answer", ["one", "two"]),
        ("one</think>two</think>", ["one"]),
        ("\n\n\n", []),
    ],
)
def test_split(thinking: str, steps: list[str]) -> None:
    assert steps == split_steps(thinking)


words = st.text(alphabet=st.characters(categories=["L", "N", "P"], exclude_characters="<>"), min_size=1)


@given(st.lists(words, max_size=8))
def test_joined_steps_split_into_themselves(steps: list[str]) -> None:
    assert steps == split_steps("\n\n".join(steps))


@given(st.text())
def test_steps_are_never_blank_and_lose_no_words(thinking: str) -> None:
    steps = split_steps(thinking)

    assert all(step == step.strip() and step for step in steps)
    if "think>" not in thinking:
        assert "".join("".join(steps).split()) == "".join(thinking.split())


@pytest.mark.parametrize(
    ("steps", "candidate", "repeats"),
    [
        ([], "a", False),
        (["a"], "a", True),
        (["a"], " A\n", True),
        (["a", "b"], "a", False),
        (["Wait.", "b", "Wait.", "c"], "Wait.", True),
        (["a", "b"], "c", False),
        (["a"], "", False),
    ],
)
def test_going_in_circles(steps: list[str], candidate: str, repeats: bool) -> None:
    assert repeats is is_repeat(steps, candidate)
