"""Right answers are right however they are written, wrong ones are not, and what cannot be told is neither."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from batches import carry_out
from faults import story_pair
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.embedded.stories import story
from specreason_sgl.evaluation.grading import LONGEST, Grader, outcome
from specreason_sgl.evaluation.mathematics import math_equal, tidied
from specreason_sgl.events import AnswerWritten, Event, SolveEnded, SolveFailed
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.text.answers import boxed

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


KINDS = [
    ("12_3", "123", False),
    ("2516_8", "25168", False),
    ("2516_9", "2516_8", False),
    ("\\frac{1}{2^{98}}", "\\frac{1}{2^{99}}", False),
    ("60°", "60^\\circ", True),
    ("60°", "60", True),
    ("10\\,080", "10,\\!080", True),
    ("(1,2), (2,1)", "(1,2),(2,1)", True),
    ("\\begin{pmatrix} \\dfrac{1}{3} \\\\[4pt] 2 \\end{pmatrix}", "\\begin{pmatrix} 1/3 \\\\ 2 \\end{pmatrix}", True),
    ("-2\\le x\\le 7", "x \\in [-2,7]", True),
    ("x \\in [-2,7]", "-2\\le x\\le 7", True),
    ("\\frac{54}{2}", "27", True),
    ("11/2", "1 1/2", False),
    ("1 1/2", "1.5", True),
    ("52_{\\text{eight}}", "52_8", True),
    ("15 cm^2", "15\\mbox{ cm}^2", True),
    ("\\text{10 minutes}", "10", True),
    ("0.\\overline{3}", "\\frac13", True),
    ("\\emptyset", "\\varnothing", True),
    ("½", "\\frac12", True),
    ("√2", "\\sqrt{2}", True),
    ("12,345", "12, 345", True),
    ("4210", "4210_{5}", True),
    ("3,4", "(3,4)", True),
    ("4,3", "(3,4)", False),
    ("1010_2", "1010_3", False),
    ("101_{2}", "101_2", True),
    ("101_{\\text{two}}", "101_2", True),
    ("101 (base 2)", "101_2", True),
    ("101\\text{ base }2", "101_2", True),
    ("52₈", "52_8", True),
    ("52_{(8)}", "52_8", True),
    ("53_8", "52_8", False),
    ("42", "52_8", False),
    ("A3_{16}", "A3_{16}", True),
    ("2^{-200}", "2^{-201}", False),
    ("10^{-7}", "10^{-8}", False),
    ("e^{-50}", "e^{-51}", False),
    ("0.0000001", "0.0000002", False),
    ("1.2e-9", "1.3e-9", False),
    ("\\frac{2}{2^{99}}", "\\frac{1}{2^{98}}", True),
    ("-\\frac{1}{2^{98}}", "\\frac{1}{2^{98}}", False),
    ("60\\degree", "60", True),
    ("60 degrees", "60^\\circ", True),
    ("10~080", "10080", True),
    ("10\\ 080", "10080", True),
    ("1\\,234\\,567", "1234567", True),
    ("10 080", "10080", True),
    ("\\begin{pmatrix} 1 \\\\[0.5em] 2 \\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", True),
    ("\\begin{pmatrix} 1 \\\\ [1ex] 3 \\end{pmatrix}", "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", False),
    ("x>5", "(5,\\infty)", True),
    ("x\\ge5", "[5,\\infty)", True),
    ("-2<x<7", "[-2,7]", False),
    ("x<-1 \\text{ or } x>1", "(-\\infty,-1)\\cup(1,\\infty)", True),
    ("x<-1 or x>2", "(-\\infty,-1)\\cup(1,\\infty)", False),
    ("x>-1 \\text{ and } x<1", "(-1,1)", True),
    ("\\{x \\mid x>5\\}", "(5,\\infty)", True),
    ("\\{x \\in \\mathbb{R} : x>5\\}", "(5,\\infty)", True),
    ("2 1/2", "2.5", True),
    ("2½", "2.5", True),
    ("2 1/2", "21/2", False),
    ("-1 1/2", "-1.5", True),
    ("1\\,\\frac12", "1.5", True),
    ("1 1/2", "1", False),
    ("1 1/2", "1/2", False),
    ("60 km/h", "60", True),
    ("60\\text{ km/h}", "60", True),
    ("9.8\\,\\mathrm{m/s^2}", "9.8", True),
    ("9.8 m/s^2", "9.8", True),
    ("5 \\text{ m}/\\text{s}", "5", True),
    ("15 cm", "15 m", None),
    ("15\\text{ cm}", "15\\text{ m}", None),
    ("60\\text{ km/h}", "60\\text{ m/s}", None),
    ("15\\text{ cm}^2", "15\\text{ cm}", None),
    ("15\\text{ square cm}", "15\\text{ cm}^2", True),
    ("2 hours", "120 minutes", False),
    ("0.1\\overline{6}", "\\frac16", True),
    ("0.\\bar{3}", "1/3", True),
    ("0.(3)", "1/3", True),
    ("0.333...", "1/3", True),
    ("0.\\dot{3}", "1/3", True),
    ("0.\\overline{142857}", "1/7", True),
    ("0.\\overline{3}", "0.3", False),
    ("1.\\overline{3}", "4/3", True),
    ("¾", "0.75", True),
    ("3¾", "3.75", True),
    ("∛8", "2", True),
    ("√(x+1)", "\\sqrt{x+1}", True),
    ("√12", "2\\sqrt{3}", True),
    ("x²", "x^2", True),
    ("2⁻³", "1/8", True),
    ("½", "1/3", False),
    ("∅", "\\emptyset", True),
    ("1,2,3", "3,2,1", True),
    ("1, 2 and 3", "3,2,1", True),
    ("12,345", "12345", True),
    ("x≤7", "x\\le 7", True),
    ("185\\", "185", True),
    ("5.", "5", True),
    ("$1$ and $2$", "1,2", True),
    ("(1/2^98,1)", "(1/2^99,1)", False),
    ("(\\frac{1}{2^{98}},1)", "(\\frac{1}{2^{99}},1)", False),
    ("2,5", "2.5", False),
    ("1/3", "0.33", False),
    ("\\sqrt{3+2\\sqrt{2}}", "1+\\sqrt2", True),
    ("\\tan\\frac{\\pi}{8}", "\\sqrt2-1", True),
    ("12,\\ 13", "13, 12", True),
    ("3 \\frac{1}{2}", "3.5", True),
    ("5 × 10^3", "5000", True),
    ("1/2^{98}", "2^{-98}", True),
    ("100 cm", "1 m", False),
    ("12\\frac{1}{2}\\%", "12.5\\%", True),
    ("12 1/2\\%", "12.5", True),
    ("12\\frac12\\%", "12.5", True),
    ("12\\frac12\\%", "12\\frac13\\%", False),
    ("33\\frac13\\%", "\\frac13", True),
    ("12.5 \\%", "12.5", True),
    ("12.5", "12.5\\%", True),
    ("12.5 \\text{ percent}", "12.5\\%", True),
    ("\\text{12.5\\%}", "12.5\\%", True),
    ("0.5", "0.5\\%", False),
    ("42,", "42", True),
    ("42\\,", "42", True),
    ("\u20135", "-5", True),
    ("10\u201320", "-10", False),
    ("\\boldsymbol{42}", "42", True),
    ("\\textcolor{red}{42}", "42", True),
    ("**42**", "42", True),
    ("\\text{Answer: } 42", "42", True),
    ("\\text{The answer is 42}", "42", True),
    ("\\text{about } 24", "24", True),
    ("\\text{Tuesday.}", "\\text{Tuesday}", True),
    ("€20", "20", True),
    ("10 dollars", "\\$10", True),
    ("10 dollars", "10", True),
    ("\\lbrace 1,2 \\rbrace", "\\{1,2\\}", True),
    ("\\langle 1,2,3\\rangle", "(1,2,3)", True),
    ("1 \\text{, } 2", "1,2", True),
    ("\\begin{cases} x=1 \\\\ y=2 \\end{cases}", "(1,2)", True),
    ("\\begin{pmatrix} 1 & 2 \\cr 3 & 4 \\end{pmatrix}", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", True),
    ("7 \\text{ to } 3", "7:3", True),
    ("2:4:6", "1:2:3", True),
    ("1:2:3", "1:3:2", False),
    ("1:2:3", "\\frac16", False),
    ("10^{\\text{th}}", "10", True),
    ("101_{\\mathrm{two}}", "101_2", True),
    ("101_{\\text{base }2}", "101_2", True),
    ("(101)_2", "101_2", True),
    ("(101)_2", "101_3", False),
    ("\\operatorname{arctan}(2)", "\\arctan 2", True),
    ("3+4\\mathrm{i}", "3+4i", True),
    ("\\text{Infinity}", "\\infty", True),
    ("1.5\\text{ million}", "1500000", True),
    ("1.5\\text{ million}", "1.5", False),
    ("3\\text{ dozen}", "3", None),
    ("The answer is not 42", "42", None),
    ("\\text{The answer is not } 42", "42", None),
    ("x=42\\text{ is wrong}", "42", None),
    ("\\ge 42", "42", None),
    ("\\ne 42", "42", None),
    ("1,2,\\ldots,10", "1,2,10", None),
    ("1, 2, 3, \\dots", "3", None),
    ("\\{1,2\\}", "(1,2)", None),
    ("x<1\\text{ and }x>2", "x<1\\text{ or }x>2", None),
    ("12:30\\text{ AM}", "12:30\\text{ PM}", None),
    ("\\$5", "5\\text{ cents}", None),
    ("5\\text{ L}", "5\\text{ mL}", None),
    ("45^\\circ", "45\\text{ rad}", None),
    ("\\text{5 January}", "\\text{5 February}", None),
    ("5\\text{ ft } 6\\text{ in}", "5", None),
    ("3\\text{ hours }20\\text{ minutes}", "3\\text{ hours }30\\text{ minutes}", None),
    ("(4,3)", "x=3,y=4", False),
    ("y=4, x=3", "(4,3)", False),
    ("y=4, x=3", "(3,4)", True),
    ("3 \\bmod 7", "4 \\bmod 7", False),
    ("0.12345678", "0.12345679", False),
    ("ABCD", "ABDC", None),
    ("f'(x)", "f(x)", None),
    ("\\text{The answer cannot be 5}", "5", None),
    ("5\\text{ eV}", "5\\text{ keV}", None),
    ("5^\\circ\\text{C}", "5^\\circ\\text{F}", None),
    ("5^\\circ\\text{C}", "5^\\circ C", True),
    ("\\text{Area} = 24 \\text{ cm}^2", "24", True),
    ("\\text{Area} = 24 \\text{ cm}^2", "25", False),
    ("\\text{all real numbers}", "\\mathbb{R}", True),
    ("\\begin{aligned} x &= 1 \\\\ y &= 2 \\end{aligned}", "(1,2)", True),
    ("5{:}30", "5:30", True),
    ("\\text{5:30 PM}", "5:30\\text{ p.m.}", True),
    ("\\text{5:30 PM}", "5:30\\text{ a.m.}", None),
    ("between 41 and 42", "42", False),
    ("so it lies somewhere between 41 and 42.", "42", None),
    ("\\text{42 or more}", "42", None),
    ("42\\text{ at most}", "42", None),
    ("\\text{Since the answer cannot be } 42 \\text{, we get } 43", "42", None),
    ("\u200b2", "2", True),
    ("10^{22}", "1e+22", True),
]

TABLE = SHARED.parent / "cases" / "cases.md"
SUITE = SHARED / "grading.jsonl"


def judged_pairs() -> list[tuple[str, str, bool]]:
    """The pairs of the shared table of what is graded as it should be."""
    if not TABLE.is_file():
        return []
    rows = re.findall(
        r"^\| [^|]+ \| `(.*)` \| `(.*)` \| (True|False) \|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE
    )
    return [(answer, gold, same == "True") for answer, gold, same in rows]


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


@pytest.mark.parametrize(("answer", "gold", "same"), KINDS)
def test_every_way_to_write_a_number_is_graded_or_left(
    answer: str, gold: str, *, same: bool | None, grader: Grader
) -> None:
    assert grader.same(answer, gold) is same


@pytest.mark.skipif(not TABLE.is_file(), reason="the table of judged pairs is not beside the checkout")
def test_every_judged_pair_is_graded_as_it_should_be(grader: Grader) -> None:
    pairs = judged_pairs()

    assert len(pairs) == 245
    assert [(answer, gold) for answer, gold, same in pairs if grader.same(answer, gold) is not same] == []


@pytest.mark.skipif(not SUITE.is_file(), reason="the grading suites are not beside the checkout")
def test_the_suites_of_other_graders_are_graded_as_expected_and_nothing_wrong_is_right(grader: Grader) -> None:
    rows = [json.loads(line) for line in SUITE.read_text(encoding="utf-8").splitlines()]
    expected = wrong = 0
    for row in rows:
        if "text" in row:
            pairs = [(boxed(row["text"]) or row["text"], row["gold"])]
        else:
            pairs = [(row["answer"], row["gold"]), (row["gold"], row["answer"])]
        told = [grader.same(answer, gold) for answer, gold in pairs]
        expected += all(same is row["same"] for same in told)
        wrong += not row["same"] and any(told)

    assert len(rows) == 264
    assert expected >= 255
    assert wrong == 0


@needs_shared
@pytest.mark.parametrize(
    "variant",
    [
        lambda gold: gold.replace("\\frac", "\\dfrac"),
        lambda gold: gold.replace(" ", "\\,") if "\\\\" not in gold and not re.search(r"\\[A-Za-z]+ ", gold) else gold,
        lambda gold: f"\\displaystyle {gold}",
        lambda gold: f"${gold}$",
        lambda gold: f"\\boxed{{{gold}}}",
        lambda gold: f"{gold}.",
        lambda gold: gold.replace("\\\\", "\\\\[4pt]"),
    ],
    ids=["display fractions", "thin spaces", "display style", "dollars", "box", "full stop", "row spacing"],
)
def test_every_gold_answer_is_itself_in_another_dress(variant: Callable[[str], str], grader: Grader) -> None:
    assert [gold for gold in golds("math500") if grader.same(variant(gold), gold) is not True] == []


@given(st.text() | st.text(alphabet="0123456789.,_^\\\\{}()[]$ ½√ab"))
def test_no_text_is_too_strange_to_tidy(text: str) -> None:
    tidied(text)


@given(st.fractions(max_denominator=10**6))
def test_a_number_is_itself_as_a_fraction_a_quotient_and_a_mixed_number(grader: Grader, number: Fraction) -> None:
    top, bottom = number.numerator, number.denominator
    sign, size = "-" if top < 0 else "", abs(top)
    ways = [f"{sign}\\frac{{{size}}}{{{bottom}}}", f"{top}/{bottom}"]
    if size > bottom > 1:
        ways.append(f"{sign}{size // bottom} {size % bottom}/{bottom}")

    assert all(grader.same(way, ways[0]) is True for way in ways)


def test_what_takes_too_long_to_compare_is_not_unlike(monkeypatch: pytest.MonkeyPatch) -> None:
    import math_verify.grader

    def late(*_: object, **__: object) -> bool:
        raise math_verify.errors.TimeoutException

    monkeypatch.setattr(math_verify.grader, "sympy_expr_eq", late)
    assert math_equal("x + 1", "5") is None


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
        (solved("\\boxed{A and C}"), "ungradable"),
        (solved("\\boxed{C2v}"), "ungradable"),
        (solved("\\boxed{\\Delta E}\nAnswer: B"), "right"),
        (solved("\\boxed{E}", gold="(E)"), "right"),
        (solved("\\boxed{B}", gold="3"), "ungradable"),
        (solved("", failed=True), "failed"),
        (solved("\\boxed{B}", gold=None), None),
    ],
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


@pytest.mark.parametrize(("shift", "code"), [(0, 0), (1, 1)])
def test_a_single_run_is_graded_as_in_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: int, code: int
) -> None:
    told = [story(seed) for seed in range(60)]
    gold = f"\\frac{{{2 * (int(told[0].answer) + shift)}}}{{2}}"
    with story_pair(told, skill=1.0) as (_, proxies, _):
        servers = ("--base", proxies[0].url, "--small", proxies[1].url)
        over = (*servers, "--out", str(tmp_path / "run"))

        assert carry_out(monkeypatch, "run", told[0].question, "--answer", gold, *over) == code
