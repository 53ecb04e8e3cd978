from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.text.answers import boxed, is_same


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
        (r"The answer is \boxed{42}. As asked, it stands in \boxed{}.", "42"),
        (r"\boxed{ } \boxed{42} \boxed{ }", "42"),
        (r"\boxed 5", "5"),
        (r"$\boxed5$.", "5"),
        (r"\boxed 204.", "204"),
        (r"\boxed -3", "-3"),
        (r"\boxed A", "A"),
        (r"\boxed\frac{1}{2}", r"\frac{1}{2}"),
        (r"\boxed\frac12", r"\frac12"),
        (r"\boxed 50x", None),
        (r"\boxed", None),
        (r"\boxedAnswer", None),
        (r"\boxed{42} (not \boxed{41})", "42"),
        (r"It is not $\boxed{41}$.", None),
    ],
)
def test_the_last_complete_box_counts(text: str, answer: str | None) -> None:
    assert answer == boxed(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"Solutions: $\boxed{(1,2)}$ and $\boxed{(2,1)}$.", "(1,2), (2,1)"),
        (r"\boxed{1}, \boxed{2}, and \boxed{3}", "1, 2, 3"),
        (r"\boxed{1}\boxed{2}", "1, 2"),
        (r"$\boxed{1}$ \quad $\boxed{2}$", "1, 2"),
        (r"\[ \boxed{-2} \quad \text{and} \quad \boxed{1}. \]", "-2, 1"),
        (r"\boxed{1} papers and \boxed{2} bins", "1, 2"),
        (r"\boxed{(3, 3)} \text{ for part (a) and } \boxed{(1, 1)}", "(3, 3), (1, 1)"),
        (r"$x_1 = \boxed{3}$ and $x_2 = \boxed{4}$", "3, 4"),
        (r"$\boxed{4}$, $\boxed{4}$", "4"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"1+1=\boxed{2} and 2+2=\boxed{4}", "4"),
        (r"\boxed{1} no no no \boxed{2}", "2"),
        (r"\boxed{1} is wrong. So \boxed{2}", "2"),
        ("\\boxed{1}\n\n\\boxed{2}", "2"),
    ],
)
def test_boxes_side_by_side_belong_together(text: str, answer: str) -> None:
    assert answer == boxed(text)


@given(st.text())
def test_no_text_is_too_strange(text: str) -> None:
    boxed(text)


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [("85", "85", True), (" 85. ", "85", True), ("85.0", "85", True), ("1,085", "1085", True), ("84", "85", False),
     (None, "85", False), ("", "85", False), ("x", "85", False), ("$85$", "85", True), ("185\\", "185", True),
     ("12_3", "123", False), ("2516_8", "25168", False), ("1_000", "1000", False), ("11/2", "1 1/2", False),
     ("12,345", "12, 345", True), ("12345", "12, 345", False), ("1 234", "1234", True), ("12 34", "1234", False),
     ("1e5", "100000", True), (".5", "0.5", True), ("5.", "5", True), ("-0", "0", True), ("+", "-", False)],
)  # fmt: skip
def test_same_answers(answer: str | None, gold: str, same: bool) -> None:
    assert same is is_same(answer, gold)


@given(st.text() | st.text(alphabet="0123456789 ,._/"), st.text() | st.text(alphabet="0123456789 ,._/"))
def test_to_be_the_same_is_mutual(one: str, other: str) -> None:
    assert is_same(one, one)
    assert is_same(one, other) is is_same(other, one)


@given(st.integers() | st.decimals(allow_nan=False, allow_infinity=False, places=3))
def test_a_number_is_itself_with_and_without_separators(number: int | Decimal) -> None:
    assert is_same(f"{number:,}", f"{number:f}" if isinstance(number, Decimal) else str(number))
