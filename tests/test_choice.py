"""A letter counts where a box or a sentence commits to it, and nowhere else."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.evaluation.choice import LETTERS, is_choice, letter, offered, option
from specreason_sgl.text.answers import boxed

BOXES = [
    ("C2v", None),
    ("D4h", None),
    ("C12H14O2", None),
    ("\\text{A decrease in temperature}", None),
    ("A and C", None),
    ("\\text{Option B}", "B"),
    ("\\text{(E)}", "E"),
    ("A \\approx 5", None),
    ("b", "B"),
    ("\\,B\\,", "B"),
    ("\\bf B", "B"),
    ("{\\bf B}", "B"),
    ("B - 10 eV", "B"),
    ("C: text", "C"),
    ("\\text{C: text}", "C"),
    ("B.", "B"),
    ("B)", "B"),
    ("[B]", "B"),
    ("\\textbf{(B) }5", "B"),
    ("\\mathbf{B}", "B"),
    ("\\text{(B)}", "B"),
    ("Because", None),
    ("A \\cdot B", None),
    ("B^2", None),
    ("CO_2", None),
    ("AC", None),
    ("A + B", None),
    ("B. mitochondria", "B"),
    ("B) mitochondria", "B"),
    ("$B$", "B"),
    ("(B)", "B"),
    ("42", None),
    ("E", "E"),
    ("K", None),
    ("A or B", None),
    ("A, C", None),
    ("A/B", None),
    ("(A) and (C)", None),
    ("A) 5 and C) 7", None),
    ("C: A decrease in", "C"),
    ("A (5)", None),
    ("B (10 eV)", "B"),
    ("A - B", None),
    ("A:B", None),
    ("A : B", None),
    ("A = 5", None),
    ("A: 5", "A"),
    ("\\textcolor{red}{B}", "B"),
    ("\\operatorname{B}", "B"),
    ("\\mathsf{(C)}", "C"),
    ("\\underline{D}", "D"),
    ("**B**", "B"),
    ("A'", None),
    ("A_1", None),
    ("A_{1}", None),
    ("The answer is B", "B"),
    ("Answer: B", "B"),
    ("option b", "B"),
    ("(b)", "B"),
    ("a decrease", None),
    ("A(x)", None),
    ("A \\text{ and } C", None),
    ("\\text{A}, \\text{C}", None),
    ("A, B", None),
    ("AB", None),
    ("A B", None),
    ("Option (B): 10 eV", "B"),
    ("Choice D", "D"),
    ("None", None),
    ("I", "I"),
    ("I think", None),
    ("B \\ ", "B"),
    ("\\left(B\\right)", "B"),
    ("", None),
    ("\\mathrm{B}_2", None),
    ("C_{2v}", None),
    ("C^\\circ", None),
    ("-B", None),
    ("2B", None),
    ("B/2", None),
    ("A<B", None),
    ("not B", None),
    ("(A) not B", "A"),
    ("E = mc^2", None),
    ("A: the rest", "A"),
    ("A\\quad", "A"),
    ("\\mathbb{R}", None),
    ("H_2O", None),
    ("H", "H"),
    ("The correct answer is (C)", "C"),
    ("\\text{Answer: } C", "C"),
    ("A. C", None),
]

TEXTS = [
    ("Answer: $C$", "C"),
    ("\\boxed{\\Delta E} is large.\n**Answer: D**", "D"),
    ("The correct option is C.", "C"),
    ("Answer: A, because the answer B would not fit.", "A"),
    ("Answer: C", "C"),
    ("Answer: (A) is incorrect", None),
    ("The answer is A. Actually, it's B.", None),
    ("The answer is A.\nWait, the answer is B.", "B"),
    ("Answer: A\n... no. The answer is (D).", "D"),
    ("**Answer:** B", "B"),
    ("answer: because", None),
    ("", None),
    ("The answer is not B", None),
    ("The answer isn't B.", None),
    ("Answer: A decrease", None),
    ("The answer is A decrease in x", None),
    ("I choose B", "B"),
    ("Option B is correct.", "B"),
    ("Option B is not correct.", None),
    ("Answer: A or B", None),
    ("The answer is A, I think", "A"),
    ("If the answer is B, then no.", None),
    ("Is the answer: B?", None),
    ("Answer:\n\nD", "D"),
    ("Answer: b", "B"),
    ("So the answer is **(B)**.", "B"),
    ("The answer is (B) mitochondria.", "B"),
    ("\\boxed{\\text{Option B}}", "B"),
    ("\\boxed{A and C}", None),
    ("\\boxed{C2v}\n\nSo the answer is B.", "B"),
    ("\\boxed{B}\nAnswer: C", "B"),
    ("Answer: D\n\\boxed{\\Delta}", None),
    ("The answer would be B if x.", None),
    ("The answer is therefore B.", "B"),
    ("A and B is correct", None),
    ("Thus A is the correct answer.", "A"),
    ("I don't think that the answer is B.", None),
    ("The correct answer is C, not D.", "C"),
    ("The right choice is (D)", "D"),
    ("The final answer is $\\text{C}$.", "C"),
    ("Answer: A/B", None),
    ("The answer is A. But the answer B is not.", "A"),
    ("Answer: C12H14O2", None),
    ("the correct option would be C", "C"),
    ("Answer: E = mc^2", None),
    ("The answer is neither A nor B", None),
    ("The answer is either A or B", None),
    ("The answer cannot be B.", None),
    ("ANSWER: B", "B"),
    ("Final Answer: Option B", "B"),
    ("The answer to this question is B.", "B"),
    ("Answer: [B]", "B"),
    ("$\\textbf{Answer: } \\mathbf{C}$", "C"),
    ("answer is I", "I"),
    ("The answer is a.", None),
    ("The answer is B. This is because the answer is not C.", "B"),
    ("The answer is C2v", None),
    ("Answer - B", None),
    ("The answer is B rather than C", "B"),
]

QUESTION = "Which?\nChoices:\n(A) x\n(B) y\n(C) z\n(D) w"


@pytest.mark.parametrize(("inside", "chosen"), BOXES)
def test_a_box_is_a_letter_or_none(inside: str, chosen: str | None) -> None:
    assert letter(inside) == chosen
    assert option(inside) == chosen


@pytest.mark.parametrize(("text", "chosen"), TEXTS)
def test_a_text_commits_to_a_letter_or_to_none(text: str, chosen: str | None) -> None:
    assert letter(boxed(text), text) == chosen


@pytest.mark.parametrize(
    "font", ["text", "textbf", "textit", "textsf", "mathrm", "mathbf", "mathsf", "mathit", "boldsymbol"]
)
@pytest.mark.parametrize("chosen", LETTERS)
def test_no_font_hides_a_letter(font: str, chosen: str) -> None:
    for inside in (chosen, f"({chosen})", f"{chosen}.", f"Option {chosen}", chosen.lower()):
        assert letter(f"\\{font}{{{inside}}}") == chosen
        assert letter(f"$\\{font}{{{inside}}}$") == chosen


@pytest.mark.parametrize(
    ("question", "letters"),
    [
        (QUESTION, "ABCD"),
        ("A. x\nB. y", "AB"),
        ("Q?\nA: 1\nB: 2\nC: 3\nE: 5", "ABC"),
        ("Which?", LETTERS),
        ("(B) y", LETTERS),
    ],
)
def test_a_question_shows_how_many_options_it_has(question: str, letters: str) -> None:
    assert offered(question) == letters


@pytest.mark.parametrize(
    ("question", "answer", "is_one"),
    [
        (QUESTION, "B", True),
        (QUESTION, "(b)", True),
        ("Which? (A) x (B) y (C) z", "C", True),
        ("Which? A) x B) y", "Option B", True),
        (QUESTION, "E", False),
        (QUESTION, "y", False),
        (QUESTION, "42", False),
        (QUESTION, None, False),
        ("Which letter follows A?", "B", False),
    ],
)
def test_a_right_answer_is_a_choice_where_the_question_offers_it(
    question: str, answer: str | None, *, is_one: bool
) -> None:
    assert is_choice(question, answer) is is_one


def test_a_letter_that_is_no_option_is_none() -> None:
    assert letter("E", "", "ABCD") is None
    assert letter(None, "Answer: E", "ABCD") is None
    assert option("(E)", "ABCD") is None


@pytest.mark.parametrize("gold", ["0", "3", "", "C2v", "A and B", "10 eV", "A decrease", "AB", "K"])
def test_a_gold_that_is_no_option_is_told(gold: str) -> None:
    assert option(gold) is None


@given(st.text() | st.text(alphabet="ABab ()[].:-,\\${}*nort\n"))
def test_no_text_is_too_strange(text: str) -> None:
    assert letter(text) in {None, *LETTERS}
    assert letter(None, text) in {None, *LETTERS}


@pytest.mark.parametrize(
    "text",
    ["answer " * 20_000, "answer" + " " * 100_000, "A, " * 30_000, "\n" * 100_000, "(" * 100_000, "A or " * 20_000],
)
def test_long_hostile_text_is_read_in_time(text: str) -> None:
    began = time.process_time()
    letter(text, text)
    letter(None, text)
    offered(text)

    assert time.process_time() - began < 5
