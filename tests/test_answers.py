from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.answers import boxed, is_same


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", None),
        ("The answer is 4.", None),
        (r"\boxed{4}", "4"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\left\{1, 2\right\}}", r"\left\{1, 2\right\}"),
        (r"\boxed {7}", "7"),
        (r"\fbox{7}", "7"),
        (r"\boxed{3} and \boxed{4", "3"),
        (r"\boxed{}", ""),
    ],
)
def test_the_last_complete_box_counts(text: str, answer: str | None) -> None:
    assert answer == boxed(text)


@given(st.text())
def test_no_text_is_too_strange(text: str) -> None:
    boxed(text)


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [("85", "85", True), (" 85. ", "85", True), ("85.0", "85", True), ("1,085", "1085", True), ("84", "85", False),
     (None, "85", False), ("", "85", False), ("x", "85", False), ("$85$", "85", True)],
)  # fmt: skip
def test_same_answers(answer: str | None, gold: str, same: bool) -> None:
    assert same is is_same(answer, gold)
