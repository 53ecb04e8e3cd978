import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specreason_sgl.view.html import _text
from specreason_sgl.view.mathml import ATTRIBUTES, DEPTH, ELEMENTS, LENGTH, mathml, with_formulas
from specreason_sgl.view.text import visible

SHARED = Path(__file__).parents[2] / "shared" / "data"

COMMANDS = [
    *("\\frac", "\\sqrt", "\\boxed", "\\text", "\\left(", "\\right)", "\\left.", "\\right|", "\\sum", "\\not"),
    *("\\href{javascript:alert(1)}", "\\style{color:red}", "\\class{x}", "\\color{red}", "\\textcolor{red}"),
    *("\\unicode{x202e}", "\\unicode{x3c}", "&#x3c;script&#x3e;", "\\verb|x|", "\\mathbb", "\\mathbf{AB}"),
    *("\\begin{array}{cc}", "\\end{array}", "\\begin{cases}", "\\end{cases}", "\\sideset{}{}", "\\cancel"),
    *("\\hspace{1000em}", "\\kern-99em", "\\rule{9em}{9em}", "\\phantom", "\\newcommand{\\a}{\\a\\a}", "\\def\\a{x}"),
    *("\\a", "\\\\", "&", "<script>", "</math>", '" onload="', "\u202e", "%", "\n", "\ud800", "π", "+", "<"),
    *("{", "}", "_", "^", "'", "x", "14", " ", "$", "$$", "\\(", "\\)", "\\[", "\\]"),
]
formulas = st.lists(st.sampled_from(COMMANDS), max_size=30).map("".join) | st.text(max_size=60)


class Elements(HTMLParser):
    """Every element of a fragment with its attributes, and how deep they are nested."""

    def __init__(self, fragment: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.depth = self.deepest = 0
        self.feed(fragment)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)

    def handle_endtag(self, tag: str) -> None:
        del tag
        self.depth -= 1


def checked(fragment: str) -> None:
    elements = Elements(fragment)
    assert {tag for tag, _ in elements.found} <= ELEMENTS
    for _, attributes in elements.found:
        assert all(ATTRIBUTES[name].fullmatch(value or "") for name, value in attributes.items())
    assert elements.depth == 0
    assert elements.deepest <= DEPTH + 1


@given(text=formulas)
@settings(max_examples=500, deadline=None)
def test_whatever_a_text_says_no_element_but_those_on_the_list_comes_out(text: str) -> None:
    for wrapped in (text, f"\\({text}\\)", f"\\[{text}\\]", f"${text}$", f"$${text}$$", f"\\boxed{{{text}}}"):
        made, _ = with_formulas(visible(wrapped))
        checked(made)
        assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b-\u200f\x00-\x09\x0b-\x1f]", made)
        made.encode()


@pytest.mark.parametrize(
    "text",
    [
        "\\(" + "{" * 10_000 + "x" + "}" * 10_000 + "\\)",
        "\\(" + "{" * 900 + "x" + "}" * 900 + "\\)",
        "\\boxed{" * 10_000,
        "\\boxed{" + "{" * 10_000 + "}" * 10_000 + "}",
        "\\(" + "\\sqrt" * 390 + "x\\)",
        "\\(" + "\\left(" * 300 + "\\)",
        "\\(" * 50_000,
        "$" * 50_001,
        "$x" * 50_000,
        "\\(\\operatorname{" + "* " * 950 + "\\)",
        "\\(\\newcommand{\\a}{xx}" + "".join(f"\\newcommand{{\\a{c}}}{{\\a\\a}}" for c in "bcdefghijkl") + "\\)",
        "\\(" + "\\sideset{}{}{" * 60 + "x" + "}" * 60 + "\\)",
        "\\(" + "\\not" * 500 + "\\)",
        "\\(x" + "'" * 1900 + "\\)",
    ],
    ids=range(14),
)
def test_what_is_deep_or_huge_or_defines_things_stays_text(text: str) -> None:
    made, _ = with_formulas(text)

    checked(made)
    assert "<mrow><mrow><mrow><mrow><mrow><mrow>" * 2 not in made


def test_a_formula_longer_than_the_limit_stays_text() -> None:
    assert with_formulas("\\(" + "x+" * (LENGTH // 2) + "x\\)") == ("\\(" + "x+" * (LENGTH // 2) + "x\\)", False)


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $6.",
        "Between $5 and US$6, $7.50 is left.",
        "I have $5, you have$ 6",
        "Pay $12 for lunch, which leaves me and you with 3$ each.",
        "from $5-$6",
        r"a price of \$5 and \$6",
        r"\(\frac{1}{\)",
        r"\(\zzz{1}\)",
        r"$100%$",
        "$5 for $x",
        "\\(a_b_c\\)",
        "\\(a & b\\)",
        "no formula \\boxed",
    ],
)
def test_money_and_what_does_not_parse_stay_text(text: str) -> None:
    made, has_formulas = with_formulas(text)

    assert not has_formulas
    assert "<" not in made


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r"\(\frac{1}{2}\)", "<mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac>"),
        (r"\[x\]", '<math display="block"><mrow><mi>x</mi></mrow></math>'),
        ("$$x$$", '<math display="block"><mrow><mi>x</mi></mrow></math>'),
        ("cost $5 and $x$ apples", "cost $5 and <math"),
        (r"Answer: \boxed{14}", '<menclose notation="box"><mrow><mn>14</mn></mrow></menclose>'),
        (r"\boxed{three red apples}", "<mtext>three\u00a0red\u00a0apples</mtext>"),
        (r"\boxed{\frac{\sqrt{3}}{2}}", "<msqrt>"),
        (r"$\triangle ABC \sim \triangle DEF$", "<mi>△</mi>"),
        (r"$\left\{ x \right.$", "<mo"),
        (r"\[\begin{aligned} a &= b \\ &= c \end{aligned}\]", "<mtr><mtd "),
        (r"\[\begin{gathered} a \\ b \end{gathered}\]", "</mtr><mtr><mtd><mi>b</mi></mtd></mtr>"),
        (r"\(a \& b\)", "<mi>&amp;</mi>"),
        (r"\(x < y\)", "<mo>&lt;</mo>"),
        (r"\(\text{a&lt;b}\)", "<mtext>a&amp;lt;b</mtext>"),
    ],
)
def test_formulas_in_any_signs_are_shown_as_mathematics(text: str, wanted: str) -> None:
    made, has_formulas = with_formulas(text)

    assert has_formulas
    assert wanted in made


def test_what_hides_moves_or_links_is_refused_or_dropped() -> None:
    for formula in (r"\phantom{x}", r"\cancel{5}", r"\mathrlap{x}", r"\verb|x|", r"\unicode{x202e}"):
        assert mathml(formula) is None
    assert mathml(r"\href{javascript:alert(1)}{x}") == mathml("{{x}}")
    assert "1000em" not in (mathml(r"x\hspace{1000em}y") or "")
    assert "mathcolor" not in (mathml(r"\color{red}{x}") or "")


def test_the_source_of_a_text_with_formulas_can_be_copied() -> None:
    made = _text("Half is \\(\\frac{1}{2}\\) <b>")

    assert '<summary>source</summary><pre dir="auto">Half is \\(\\frac{1}{2}\\) &lt;b&gt;</pre>' in made
    assert "source" not in _text("Half is 1/2")


@pytest.mark.skipif(not SHARED.exists(), reason="the published runs and problems are not at hand")
def test_nearly_every_formula_of_real_texts_can_be_read() -> None:
    texts = [
        row[key]
        for name in ("qwq32b_r1-1.5b_aime60_steps.jsonl", "math500.jsonl")
        for row in map(json.loads, (SHARED / name).read_text(encoding="utf-8").splitlines())
        for key in ("text", "draft", "base", "problem", "solution")
        if row.get(key)
    ]
    made = [with_formulas(visible(text))[0] for text in texts]
    read, unread = sum(each.count("<math") for each in made), sum(each.count("$") for each in made) / 2

    assert read > 5000
    assert unread / read < 0.02
