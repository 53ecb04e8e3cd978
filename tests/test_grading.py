"""Right answers are right however they are written, wrong ones are not, and what cannot be told is neither."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest

from specreason_sgl.answers import boxed
from specreason_sgl.evaluation.grading import LONGEST, Grader, letter, math_equal, outcome
from specreason_sgl.events import AnswerWritten, Event, SolveEnded, SolveFailed
from specreason_sgl.store import Problem, SolveRecord

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the public problem files are not beside the checkout")

WRAPPED = (
    "So the answer is $\\boxed{{{}}}$.",
    "**Final Answer**\n\n\\[\n\\boxed{{ {} }}\n\\]\n",
    "First I thought \\boxed{{17}}, but it is\n$$\\boxed{{{}}}$$ indeed.",
)

SAME = [
    ("70", "070"),
    ("1/2", "0.5"),
    ("\\frac12", "\\dfrac{1}{2}"),
    ("\\frac{\\sqrt{3}}{2}", "\\tfrac{\\sqrt{3}}{2}"),
    ("5\\text{ cm}", "5"),
    ("\\$1,234", "1234"),
    ("(1,2)", "\\left( 1, 2 \\right)"),
    ("3,5", "5,3"),
    ("x=5", "5"),
    ("x+1", "1+x"),
    ("2\\sqrt{2}", "\\sqrt{8}"),
    ("50\\%", "50"),
    ("90^\\circ", "90"),
    ("[1,2)", "[1, 2)"),
    ("\\text{Evelyn}", "\\text{Evelyn}"),
    ("10^3", "1000"),
]

DIFFERENT = [
    ("0.333", "\\frac13"),
    ("3.14", "\\pi"),
    ("-1", "1"),
    ("205", "204"),
    ("12", "1.2"),
    ("(2,1)", "(1,2)"),
    ("[1,2]", "(1,2)"),
    ("(1,2)", "[1,2)"),
    ("(-\\infty, 3]", "(-\\infty, 3)"),
    ("3", "3,5"),
    ("2,3,4", "2,3"),
    ("3 or 5", "3"),
    ("x^2-1", "x^2+1"),
    ("\\frac{\\pi}{3}", "\\frac{\\pi}{2}"),
    ("-\\infty", "\\infty"),
    ("\\begin{pmatrix}1\\\\3\\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
    ("\\text{Evelyn}", "\\text{Carla}"),
    ("blah", "42"),
]


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader("math", limit_s=5) as made:
        yield made


def golds(name: str) -> list[str]:
    return [str(json.loads(line)["answer"]) for line in (SHARED / f"{name}.jsonl").read_text().splitlines()]


@needs_shared
@pytest.mark.parametrize(("name", "count"), [("math500", 500), ("aime24", 30)])
def test_every_gold_answer_is_itself_as_a_model_writes_it(name: str, count: int, grader: Grader) -> None:
    answers = golds(name)
    assert len(answers) == count
    unlike = [
        (gold, wrapping)
        for gold in answers
        for wrapping in WRAPPED
        if not grader.same(boxed(wrapping.format(gold)) or "", gold)
    ]

    assert unlike == []


@needs_shared
def test_every_gold_answer_is_itself_to_the_mathematics_alone() -> None:
    assert [gold for gold in golds("math500") if math_equal(gold, gold) is not True] == []


@needs_shared
def test_no_two_gold_answers_of_aime_are_taken_for_each_other(grader: Grader) -> None:
    answers = sorted(set(golds("aime24")))

    assert not any(grader.same(one, other) for one, other in pairwise(answers))


@pytest.mark.parametrize(("answer", "gold"), SAME)
def test_the_same_differently_written(answer: str, gold: str, grader: Grader) -> None:
    assert grader.same(answer, gold) is True


@pytest.mark.parametrize(("answer", "gold"), DIFFERENT)
def test_a_near_miss_is_a_miss(answer: str, gold: str, grader: Grader) -> None:
    assert grader.same(answer, gold) is False


@pytest.mark.parametrize("answer", ["}{", "", "9^{9^{9^9}}", "9" * (LONGEST + 1), "(" * 50_000])
def test_what_cannot_be_told_is_neither_and_the_next_answer_is_graded_all_the_same(answer: str, grader: Grader) -> None:
    assert grader.same(answer, "5") is None
    assert grader.same("1/2", "0.5") is True


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [("42", "42", True), (" 42. ", "42", True), ("42.0", "42", True), ("84/2", "42", False), ("41", "42", False)],
)
def test_stories_are_compared_as_they_stand(answer: str, gold: str, *, same: bool) -> None:
    with Grader("exact") as exact:
        assert exact.same(answer, gold) is same


@pytest.mark.parametrize(
    ("answer", "text", "chosen"),
    [
        ("B", "", "B"),
        ("(B)", "", "B"),
        ("\\text{B}", "", "B"),
        ("\\textbf{(B)}", "", "B"),
        ("$B$", "", "B"),
        ("B. mitochondria", "", "B"),
        ("B) mitochondria", "", "B"),
        ("Because", "", None),
        ("42", "", None),
        ("E", "", None),
        ("A + B", "", None),
        (None, "Answer: C", "C"),
        (None, "Answer: A\n... no. The answer is (D).", "D"),
        (None, "**Answer:** B", "B"),
        (None, "answer: because", None),
        (None, "", None),
    ],
)
def test_a_letter(answer: str | None, text: str, chosen: str | None) -> None:
    assert letter(answer, text) == chosen


def solved(text: str, *, gold: str | None = "B", truncated: bool = False, failed: bool = False) -> SolveRecord:
    answer = boxed(text)
    ending: list[Event] = [AnswerWritten(author="base", text=text, answer=answer, truncated=truncated)]
    ending += [SolveEnded(outcome="unanswered" if answer is None else "answered")]
    if failed:
        ending = [SolveFailed(error="gone"), SolveEnded(outcome="failed")]
    problem = Problem(id="p", question="?", answer=gold)
    return SolveRecord(problem=problem, mode="m", started=datetime.now(UTC), events=ending)


@pytest.mark.parametrize(
    ("record", "came"),
    [
        (solved("\\boxed{B}"), "right"),
        (solved("\\boxed{C}"), "wrong"),
        (solved("Answer: B"), "right"),
        (solved("Answer: C"), "wrong"),
        (solved("who knows"), "no-answer"),
        (solved("who kno", truncated=True), "truncated"),
        (solved("\\boxed{B} and furtherm", truncated=True), "right"),
        (solved("\\boxed{both}"), "ungradable"),
        (solved("", failed=True), "failed"),
        (solved("\\boxed{B}", gold=None), None),
    ],
    ids=str,
)
def test_outcomes_of_multiple_choice_are_told_apart(record: SolveRecord, came: str | None) -> None:
    with Grader("choice") as grader:
        assert outcome(grader.graded(record)) == came


@pytest.mark.parametrize(
    ("text", "came"),
    [("\\boxed{0.5}", "right"), ("\\boxed{0.4}", "wrong"), ("\\boxed{}}", "ungradable"), ("0.5", "no-answer")],
)
def test_outcomes_of_mathematics_are_told_apart(text: str, came: str, grader: Grader) -> None:
    graded = grader.graded(solved(text, gold="1/2"))

    assert outcome(graded) == came
    assert isinstance(graded.events[-1], SolveEnded)
