from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specreason_sgl.text.steps import COUNTED, TURNS, Circles, counting, first_stop, repeats, split_steps, stuck_at


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


def kept(circles: Circles, steps: Iterable[str]) -> Circles:
    for step in steps:
        circles.add(step)
    return circles


@pytest.mark.parametrize(
    ("chain", "circle"),
    [
        (["a"], False),
        (["a", "a"], False),
        (["a", "a", "a"], True),
        (["a", "a", " a\n"], True),
        (["a", "a", "A"], False),
        (["So,", "x = 1", "So,", "y = 2", "So,"], False),
        (["Wait.", "b", "Wait.", "c", "Wait."], False),
        (["Let $n=1$.", "Let $n=1$.", "Let $N=1$."], False),
        (["n=1", "n=2", "n=3"], False),
        (["a", "b", "a", "b", "a", "b"], True),
        (["z", "a", "b", "a", "b", "a", "b"], True),
        (["a", "b", "a", "b", "a", "c"], False),
        (["b", "a", "b", "a", "b"], False),
        (["a", "a", ""], False),
    ],
)
def test_going_in_circles(chain: list[str], circle: bool) -> None:
    assert circle is kept(repeats(), chain[:-1]).is_closed_by(chain[-1])


@given(
    st.lists(words, max_size=6),
    st.integers(1, 8).flatmap(lambda n: st.lists(words, min_size=n, max_size=n, unique=True)),
)
def test_an_exact_circle_ends_with_its_third_turn(before: list[str], cycle: list[str]) -> None:
    before = [f"<{step}>" for step in before]  # nothing of it is in the circle
    chain, taken = kept(repeats(), before), 0
    while not chain.is_closed_by(step := cycle[taken % len(cycle)]):
        chain.add(step)
        taken += 1

    assert taken + 1 == 3 * len(cycle)


letters = st.text(alphabet="abcxyz +=", min_size=1).filter(str.strip)


@given(st.lists(letters, min_size=1, max_size=8, unique_by=str.strip), st.integers(3, 14))
def test_casework_with_a_counter_is_no_circle_and_is_remarked_with_its_tenth_turn(cycle: list[str], turns: int) -> None:
    letter_for_letter, numbered = repeats(), counting()
    remarked: list[int] = []
    for turn in range(turns):
        for place, step in enumerate((f"Case {turn}.", *cycle), start=turn * (len(cycle) + 1)):
            assert not letter_for_letter.is_closed_by(step)
            if numbered.is_closed_by(step):
                remarked.append(place)
            letter_for_letter.add(step)
            numbered.add(step)

    period = len(cycle) + 1
    assert remarked == list(range(10 * period - 1, turns * period))


def goes_in_circles(steps: Sequence[str], turns: int, read: Callable[[str], str]) -> bool:
    """The definition: a sequence of steps stands so many times in a row at the end."""
    chain = [read(step) for step in steps]
    return bool(steps[-1].strip()) and any(
        chain[-turns * period :] == chain[-period:] * turns for period in range(1, len(chain) // turns + 1)
    )


KINDS: dict[int, tuple[Callable[[], Circles], Callable[[str], str]]] = {
    TURNS: (repeats, str.strip),
    COUNTED: (counting, lambda step: re.sub(r"\d+", "#", step.strip())),
}


@st.composite
def circling(draw: st.DrawFn) -> list[str]:
    """Chains of few different steps, in which sequences return."""
    few = st.lists(st.sampled_from(["So,", "n = 1", "n = 2 ", " n = 10", "", " "]), min_size=1, max_size=4)
    parts = draw(st.lists(st.tuples(few, st.integers(1, 11)), min_size=1, max_size=5))
    return [step for part, turns in parts for step in part * turns]


@pytest.mark.parametrize("turns", KINDS)
@settings(deadline=None)
@given(chain=circling(), other=circling(), keep=st.integers(min_value=0))
def test_a_chain_that_is_kept_knows_its_circles_as_one_that_is_read_whole(
    turns: int, chain: list[str], other: list[str], keep: int
) -> None:
    empty, read = KINDS[turns]
    circles, steps = empty(), list[str]()

    def take(step: str) -> None:
        assert circles.is_closed_by(step) is goes_in_circles([*steps, step], turns, read)
        circles.add(step)
        steps.append(step)

    for step in chain:
        take(step)
    left, whole = circles.copy(), list(steps)
    keep %= len(steps) + 1
    circles.cut(keep)
    del steps[keep:]
    for step in other:
        take(step)
    circles, steps = left, whole  # what was done to the copy has changed nothing here
    for step in other:
        take(step)


@pytest.mark.parametrize("turns", KINDS)
def test_a_step_is_looked_at_once_however_long_the_chain_is(turns: int) -> None:
    looked_at: list[str] = []

    def read(step: str) -> str:
        looked_at.append(step)
        return step

    circles = Circles(turns, read)
    for number in range(1000):
        step = "So," if number % 2 else f"x = {number}"
        circles.is_closed_by(step)
        circles.add(step)
    copy = circles.copy()
    copy.cut(500)
    copy.is_closed_by("So,")

    assert len(looked_at) == 2 * 1000 + 1


PHRASE = "Wait, let me check that again. "


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("It is 5:\n" + PHRASE * 40, "It is 5:\n" + PHRASE * 3),
        ("It is 5:\n" + PHRASE * 40 + PHRASE[:11], "It is 5:\n" + PHRASE * 3),
        ("Hm" + " hm" * 400, "Hm" + " hm" * 3),
        ("no" * 600, "nonono"),
        ("x = " + "1" * 1200, "x = 111"),
        ("A long sentence that says what is said again. " * 3 + "Ends otherwise.", None),
        ("0.3333333333333333333333333333333333333333", None),
        ("| a | b |\n| --- | --- |\n" + "".join(f"| {n} | {n * n} |\n" for n in range(60)), None),
        ("1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 = 10", None),
        ("", None),
    ],
)
def test_a_text_that_says_one_phrase_over_and_over_at_its_end(text: str, cut: str | None) -> None:
    place = stuck_at(text)

    assert (cut and cut.strip()) == (None if place is None else text[:place].strip())
    assert stuck_at(text, growing=True) == place


def test_a_text_that_grows_gets_more_time_to_make_sense() -> None:
    thrice = "A sentence of seventy characters or so, which says something of x and y. " * 3

    assert stuck_at(thrice) == len(thrice)
    assert stuck_at(thrice, growing=True) is None


@pytest.mark.parametrize(
    "text",
    [
        "1/7 = 0." + "142857" * 67,  # to 400 places
        "10^{400} = 1" + "0" * 400,
        "\\begin{pmatrix}\n" + ("0 & " * 9 + "0 \\\\\n") * 10,
        "\\begin{array}{|c|c|}\n" + "\\hline\n & \\\\\n" * 40,
        "|" + "---|" * 120,
    ],
)
def test_numbers_and_tables_that_are_being_written_are_not_stuck(text: str) -> None:
    assert stuck_at(text, growing=True) is None


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("a</think>b\n\n", (1, "</think>")),
        ("a\n\nb</think>", (1, "\n\n")),
        ("a", None),
        ("", None),
        ("\n\n", (0, "\n\n")),
    ],
)
def test_the_first_stop_is_the_first_in_the_text(text: str, first: tuple[int, str] | None) -> None:
    assert first == first_stop(text, ["\n\n", "</think>", ""])
