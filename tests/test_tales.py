"""Tales: problems in ordinary words, the truth of each step, two ways of wording it, and a reader of their meaning."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specreason_sgl.embedded import tales
from specreason_sgl.embedded.tales import arithmetic, forms, meaning, styles, words, wrong
from specreason_sgl.embedded.tales.facts import Step, Tale, compute
from specreason_sgl.embedded.tales.plot import HELD, LARGEST, MOST, Plot, _Forms

seeds = st.integers(0, 10**9)
splits: st.SearchStrategy[tales.Split] = st.sampled_from(["train", "dev", "test"])
OPERATIONS = {"+": operator.add, "-": operator.sub, "x": operator.mul, "/": operator.floordiv}


def value_of(column: str) -> int:
    left, _, result = column.partition("=")
    quotient, _, rest = result.partition(" rest ")
    if rest:
        part, by = map(int, left.split("/"))
        return part if int(quotient) * by + int(rest) == part else -1
    return int(eval(left.replace("x", "*").replace("/", "//")) == int(quotient))  # noqa: S307 - digits and signs


@settings(deadline=None)
@given(seeds, splits)
def test_a_seed_is_a_tale_on_every_machine(seed: int, split: tales.Split) -> None:
    assert tales.tale(seed, split) == tales.tale(seed, split)
    assert tales.tale(seed, "train").question != tales.tale(seed, "test").question


@settings(deadline=None)
@given(seeds, splits)
def test_answers_agree_with_an_evaluation_of_the_facts(seed: int, split: tales.Split) -> None:
    told = tales.tale(seed, split)

    for place, step in enumerate(told.steps):
        assert all(use < place for use in step.uses)
        if step.operation:
            assert OPERATIONS[step.operation](step.left, step.right) == step.value
            known = {told.steps[use].value for use in step.uses}
            assert known <= {step.left, step.right} | {step.value}
    used = {use for step in told.steps for use in step.uses}
    assert used == set(range(len(told.steps) - 1)), "every step is needed"
    assert told.steps[-1].kind == "answer"
    assert told.steps[-1].value == told.answer


@settings(deadline=None)
@given(seeds, splits)
def test_every_number_is_in_range(seed: int, split: tales.Split) -> None:
    told = tales.tale(seed, split)

    assert all(int(number) <= LARGEST for number in re.findall(r"\d+", told.question))
    assert all(0 <= step.value <= MOST for step in told.steps)
    assert 1 <= sum(bool(step.operation) for step in told.steps) <= tales.OPERATIONS


@settings(deadline=None)
@given(seeds, splits)
def test_operands_are_told_in_the_question_or_known_from_a_step(seed: int, split: tales.Split) -> None:
    told = tales.tale(seed, split)
    question = told.question.lower()
    given_numbers = {int(number) for number in re.findall(r"\d+", question)}
    given_numbers |= {n for n, word in enumerate(words.NUMBER_WORDS) if re.search(rf"\b{word}\b", question)}
    given_numbers |= {n for n, word in words.MULTIPLES.items() if word in question}
    given_numbers |= {2, 7, 12, 24, 60}  # halves and units
    if re.search(r" and \w+ other ", question):
        given_numbers |= {number + 1 for number in given_numbers}  # who shares with so many others
    given_numbers |= {1} if re.search(r"\b(?:a|an|one)\b", question) else set()

    for step in told.steps:
        known = given_numbers | {told.steps[use].value for use in step.uses}
        assert {step.left, step.right} <= known if step.operation else step.value in known


@settings(deadline=None)
@given(seeds, st.sampled_from(["train", "dev", "test"]))
def test_splits_share_no_name_and_no_thing(seed: int, split: tales.Split) -> None:
    told = tales.tale(seed, split)
    closed = {noun for _, part, _ in words.SPANS for noun in (part,)} | {name for name, _ in words.CURRENCIES}
    closed |= set(words.HOLDERS)

    assert all(words.split_of(name.removeprefix("the ")) == split for name in told.people)
    assert all(words.split_of(thing.split(" ")[-1]) == split for thing in told.things if thing not in closed)


def tables(value: Any) -> list[tuple[str, ...]]:
    """The tables of sentences in a value of the module."""
    if isinstance(value, dict):
        return [table for each in value.values() for table in tables(each)]
    is_table = isinstance(value, tuple) and all(isinstance(line, str) for line in value)
    return [value] if is_table and any("{" in line for line in value) else []


TABLES = [table for name, value in vars(forms).items() if name.isupper() for table in tables(value)]


def test_templates_that_are_held_out_never_appear_in_training() -> None:
    held = [line[1:] for table in TABLES for line in table if line.startswith(HELD)]
    usual = {line for table in TABLES for line in table if not line.startswith(HELD)}
    looks = [(line, re.sub(r"\\\{.*?\\\}", ".+", re.escape(line))) for line in held if line not in usual]
    picked: set[str] = set()
    pick = Plot.pick

    def watched(plot: Plot, templates: Sequence[str]) -> str:
        line = pick(plot, templates)
        picked.add(line)
        return line

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Plot, "pick", watched)
        for seed in range(1500):
            tales.tale(seed, "train")
        assert picked.isdisjoint(line for line, _ in looks)
        for seed in range(1500):
            tales.tale(seed, "test")
        assert len(picked.intersection(held)) > 0.8 * len(held)


def test_held_out_templates_use_no_word_that_training_never_shows() -> None:
    def plain(line: str) -> set[str]:
        return set(re.findall(r"[a-z]+", re.sub(r"\{.*?\}", " ", line.lower())))

    usual = set().union(*(plain(line) for table in TABLES for line in table if not line.startswith(HELD)))
    held = set().union(*(plain(line) for table in TABLES for line in table if line.startswith(HELD)))
    assert held - usual == set()


def test_templates_leave_room_for_articles_and_cases() -> None:
    wrongly = re.compile(r"\ban? \{(?:one|thing|idle|holder)\}|\b(?:to|from) \{who\}[.?,]", re.IGNORECASE)

    assert [line for table in TABLES for line in table if wrongly.search(line)] == []


@settings(deadline=None)
@given(seeds, splits)
def test_sentences_are_written_as_one_writes(seed: int, split: tales.Split) -> None:
    told = tales.tale(seed, split)

    if told.form != "expressions":
        assert re.search(r"(?:^|[.?] )[a-z]", told.question) is None
        assert re.search(r"\ba [aeiou]|\ban (?!hour)[^aeiou]|[{}]|  ", told.question) is None


@settings(deadline=None)
@given(seeds, splits)
def test_a_pronoun_stands_for_somebody_who_was_named(seed: int, split: tales.Split) -> None:
    told = tales.tale(seed, split)
    pronoun = re.search(r"\b(?:[Hh]e|[Ss]he)\b", told.question)
    nouns = [name.removeprefix("the ").removeprefix("my ") for name in told.people]

    if pronoun:
        assert any(noun in told.question[: pronoun.start()] for noun in nouns)


def test_small_verbs_have_the_past_that_they_should() -> None:
    regular = (
        "add arrive collect divide earn fill hand join own pack receive remove save share sort start use wait work"
    )
    used = {base for table in TABLES for line in table for base in re.findall(r"\{(?:v|v3|vp|p)\[(\w+)\]\}", line)}

    assert {base for base in used if _Forms("past", plural=False)[base] in {f"{base}ed", f"{base}d"}} == set(
        regular.split(" ")
    )


def test_no_invented_word_is_rude() -> None:
    found = {words.invented_word(Random(seed)) for seed in range(20_000)}

    assert [word for word in found if re.search(r"fuck|dick|cock|shit|cunt", word)] == []


def test_somebody_told_by_their_role_is_told_so_from_the_second_time_on() -> None:
    told = [tales.tale(seed, "train") for seed in range(1500)]
    new = [one for one in told if one.people and re.match(f"An? {one.people[0].removeprefix('the ')} ", one.question)]

    assert new
    for one in new:
        noun = one.people[0].removeprefix("the ")
        assert len(re.findall(rf"\ban? {noun}\b", one.question, re.IGNORECASE)) == 1
        assert all(step.who in {"", *one.people} for step in one.steps)


def test_every_form_occurs_and_no_question_is_told_twice() -> None:
    told = [tales.tale(seed, "test") for seed in range(200)]

    assert {one.form for one in told} == set(tales.FORMS)
    assert len({one.question for one in told}) == len(told)


@settings(deadline=None)
@given(st.integers(0, MOST), st.sampled_from("+-x/"), st.integers(0, 999))
def test_arithmetic_is_written_out_rightly(left: int, operation: str, right: int) -> None:
    try:
        value = compute(left, operation, right)
    except ValueError:
        return
    if value < 0 or (operation == "x" and min(left, right) > 99) or (operation == "/" and right > 99):
        return
    for column in arithmetic.equations(left, operation, right):
        assert value_of(column)
    assert re.findall(r"\d+", arithmetic.named(left, operation, right, value))[-1] == str(value)
    assert re.findall(r"\d+", arithmetic.bare(left, operation, right, value))[-1] == str(value)


@settings(deadline=None)
@given(seeds, splits, st.sampled_from(tales.STYLES), st.data())
def test_every_wording_of_a_right_step_scores_nine(
    seed: int, split: tales.Split, style: tales.Style, data: st.DataObject
) -> None:
    told = tales.tale(seed, split)
    place = data.draw(st.integers(0, len(told.steps) - 1))
    step = told.steps[place]

    for text in (*styles.wordings(step, style), styles.word(step, style, Random(seed))):
        assert tales.grade(told, range(place), text) == meaning.RIGHT
        assert tales.grade(told, range(place), f" {text}\n") == meaning.RIGHT


@settings(deadline=None)
@given(seeds, splits, st.sampled_from(tales.STYLES))
def test_chains_of_both_styles_are_followed_to_the_end(seed: int, split: tales.Split, style: tales.Style) -> None:
    told = tales.tale(seed, split)
    spoken = tales.spoken(told, style, Random(seed), foreign=0.5)

    assert tales.progress(told, spoken.steps) == frozenset(range(len(told.steps)))


@settings(deadline=None)
@given(seeds, splits, st.sampled_from(tales.STYLES), st.data())
def test_corrupted_steps_score_less_than_seven(
    seed: int, split: tales.Split, style: tales.Style, data: st.DataObject
) -> None:
    told = tales.tale(seed, split)
    place = data.draw(st.integers(0, len(told.steps) - 1))
    text = tales.corrupt(Random(seed), told, frozenset(range(place)), place, style)

    assert tales.grade(told, range(place), text) < 7


@settings(deadline=None)
@given(seeds, splits, st.sampled_from(wrong.MISREADINGS), st.data())
def test_a_misreading_in_any_wording_is_found(
    seed: int, split: tales.Split, misread: Callable[[Random, Tale, Step], Step | None], data: st.DataObject
) -> None:
    told = tales.tale(seed, split)
    place = data.draw(st.integers(0, len(told.steps) - 1))
    other = misread(Random(seed), told, told.steps[place])
    right = {text for step in told.steps for style in tales.STYLES for text in styles.wordings(step, style)}

    for style in tales.STYLES:
        for text in set(styles.wordings(other, style)) - right if other else ():
            assert tales.grade(told, range(place), text) < 7


LENA = Tale(
    "changes",
    "Lena has 80 cards. Lena gets 10 cards. Lena loses 25 cards. Tom has 7 stamps. How many cards does Lena have now?",
    (
        Step("start", 80, who="Lena", thing="cards"),
        Step("gain", 90, 80, "+", 10, "Lena", "cards", verb="gets", uses=(0,)),
        Step("lose", 65, 90, "-", 25, "Lena", "cards", verb="loses", uses=(1,)),
        Step("answer", 65, who="Lena", thing="cards", uses=(2,)),
    ),
    65,
    ("Lena", "Tom"),
    ("cards", "stamps"),
    "test",
)
TOM = Tale(
    "groups",
    "Tom has 3 boxes with 14 pens each. He finds 8 pens. How many pens does Tom have?",
    (
        Step("groups", 42, 3, "x", 14, "", "pens", holder="boxes"),
        Step("gain", 50, 42, "+", 8, "Tom", "pens", verb="finds", uses=(0,)),
        Step("answer", 50, who="Tom", thing="pens", uses=(1,)),
    ),
    50,
    ("Tom",),
    ("pens",),
    "test",
)
MINE = Tale(
    "comparisons",
    "My brother has 17 marbles. The red team has 8 fewer marbles than my brother. How many does the red team have?",
    (
        Step("fewer", 9, 17, "-", 8, "the red team", "marbles", "my brother"),
        Step("answer", 9, who="the red team", thing="marbles", uses=(0,)),
    ),
    9,
    ("my brother", "the red team"),
    ("marbles",),
    "test",
)
ANA = Tale(
    "comparisons",
    "Ben has 12 shells. Ana has 8 more than Ben. How many shells do Ana and Ben have together?",
    (
        Step("more", 20, 12, "+", 8, "Ana", "shells", "Ben"),
        Step("total", 32, 20, "+", 12, "Ana", "shells", "Ben", uses=(0,)),
        Step("answer", 32, thing="shells", uses=(1,)),
    ),
    32,
    ("Ben", "Ana"),
    ("shells",),
    "test",
)


@pytest.mark.parametrize(
    ("told", "done", "text"),
    [
        (MINE, 0, "The red team has 8 fewer than my brother, 17-8=9 marbles."),
        (MINE, 0, "The red team has 8 fewer marbles: 17 - 8 = 9."),
        (LENA, 0, "Lena starts with 80 cards."),
        (LENA, 0, "In the beginning Lena had 80 cards."),
        (LENA, 0, "With the 10 new cards she has 80 + 10 = 90 cards."),
        (LENA, 1, "80 plus 10 is 90, so Lena has 90 cards."),
        (LENA, 1, "After getting 10 cards, Lena has 90 cards."),
        (LENA, 1, "Lena now has 90 cards."),
        (LENA, 1, "Lena wins 10 more, 80+10=90 cards."),
        (LENA, 1, "Adding ten to 80 gives 80+10=90."),
        (LENA, 2, "She loses 25 of them: 90 - 25 = 65."),
        (LENA, 2, "90 minus 25 equals 65 cards. Let me check: 65+25=90."),
        (LENA, 2, "Losing 25 cards leaves 65."),
        (LENA, 2, "Lena loses 25, 90-25: ones 10-5=5, tens 9-2-1=6, so 65 cards."),
        (LENA, 3, "The answer is 65."),
        (LENA, 3, "Therefore the answer is 65 cards."),
        (TOM, 0, "Tom's 3 boxes hold 3 x 14 = 42 pens."),
        (TOM, 0, "Three boxes of 14 pens make 42 pens."),
        (TOM, 0, "3 times 14 is 42."),
        (TOM, 1, "He finds 8 pens, so there are 42 + 8 = 50 pens."),
        (ANA, 0, "Ana has 8 more than Ben, that is 12 + 8 = 20 shells."),
        (ANA, 0, "Ben has 12 shells, so Ana has 20."),
        (ANA, 1, "Ana and Ben together have 20 + 12 = 32 shells."),
        (ANA, 1, "That is 12+20=32 in all."),
    ],
)
def test_paraphrases_by_hand_are_right(told: Tale, done: int, text: str) -> None:
    assert tales.grade(told, range(done), text) == meaning.RIGHT


@pytest.mark.parametrize(
    ("told", "done", "text", "score"),
    [
        (LENA, 0, "", 0),
        (LENA, 0, "Let me think.", 0),
        (LENA, 2, "Lena starts with 80 cards.", meaning.IDLE),
        (LENA, 2, "So far Lena has 90 cards.", meaning.IDLE),
        (LENA, 1, "The story says: Tom has 7 stamps.", meaning.IDLE),
        (LENA, 1, "Lena loses 10, 80-10=70 cards.", 1),
        (LENA, 1, "Tom gets 10 more, 80+10=90 cards.", 3),
        (LENA, 1, "Zoe gets 10 more, 80+10=90 cards.", 3),
        (LENA, 1, "Lena gets 10 more, 80+10=90 stamps.", 3),
        (LENA, 1, "Lena gets 10 more, 80+10=90 frogs.", 3),
        (LENA, 1, "Lena gets 10 more, 80+10=91 cards.", 2),
        (LENA, 1, "Lena gets 12 more, 80+10=90 cards.", 3),
        (LENA, 1, "Lena sells 10 cards, 80+10=90 cards.", 3),
        (LENA, 1, "80+10: ones 0+0=1, tens 8+1=9, so 90 cards.", 3),
        (LENA, 1, "Add 10: 80+10=90 cards. Let me check: 90-10=70.", 3),
        (LENA, 1, "Lena gets 90 cards.", 1),
        (LENA, 1, "The answer is 90.", 1),
        (LENA, 2, "90-25=75 cards.", 2),
        (LENA, 3, "The answer is 56.", 1),
        (LENA, 3, "Lena has 65 cards.", meaning.IDLE),
        (TOM, 0, "3 boxes with 14 each, 3+14=17 pens.", 1),
        (TOM, 0, "3 boxes with 14 each, 3x14=42 boxes.", 3),
        (ANA, 0, "Ben has 8 more than Ana, that is 12 + 8 = 20 shells.", 3),
        (ANA, 0, "Ana has 8 fewer than Ben, 12-8=4 shells.", 1),
    ],
)
def test_other_texts_by_hand_are_not(told: Tale, done: int, text: str, score: int) -> None:
    assert tales.grade(told, range(done), text) == score


@settings(deadline=None)
@given(seeds, st.text())
def test_any_text_has_a_grade(seed: int, text: str) -> None:
    assert 0 <= tales.grade(tales.tale(seed), [], text) <= 9


def test_a_chain_with_a_wrong_step_is_followed_no_further() -> None:
    assert tales.progress(LENA, ["Lena gets 10 more, 80+10=90 cards."]) == frozenset({0, 1})
    assert tales.progress(LENA, ["Lena gets 10 more, 80+10=95 cards."]) is None
    assert tales.progress(LENA, ["The story says: Tom has 7 stamps."]) == frozenset()


def test_steps_that_do_not_wait_for_each_other_may_come_in_any_order() -> None:
    both = replace(
        TOM,
        steps=(
            Step("groups", 42, 3, "x", 14, "", "pens", holder="boxes"),
            Step("groups", 10, 2, "x", 5, "", "pens", holder="bags"),
            Step("total", 52, 42, "+", 10, "", "pens", uses=(0, 1)),
            Step("answer", 52, who="Tom", thing="pens", uses=(2,)),
        ),
    )
    second, first, total = "2 bags with 5 each, 2x5=10 pens.", "3 boxes of 14 are 3x14=42 pens.", "42+10=52 pens."

    assert tales.progress(both, [second, first, total]) == frozenset({0, 1, 2})
    assert tales.progress(both, [total]) is None
