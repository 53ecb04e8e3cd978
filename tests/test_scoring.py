from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.text.scoring import DIGITS, LEAST, RULES, Score, certain

logprobs = st.lists(st.floats(-30, 0), min_size=10, max_size=10).map(tuple)


@pytest.mark.parametrize(
    ("weights", "greedy", "expected", "entropy"),
    [
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 9, 9.0, 0.0),
        ([1, 0, 0, 0, 0, 0, 0, 0, 0, 1], 0, 4.5, 1.0),
        ([0, 0, 0, 0, 0, 0, 0, 1, 1, 2], 9, 8.25, 1.5),
        ([1] * 10, 0, 4.5, math.log2(10)),
    ],
)
def test_figures_of_known_distributions(weights: list[int], greedy: int, expected: float, entropy: float) -> None:
    score = Score(tuple(math.log(w / sum(weights)) if w else LEAST for w in weights))

    assert greedy == score.greedy
    assert score.expected == pytest.approx(expected)
    assert score.entropy == pytest.approx(entropy, abs=1e-9)
    assert score.missing_mass == pytest.approx(0.0, abs=1e-9)


def test_mass_outside_the_digits_is_told_and_changes_nothing_else() -> None:
    whole = Score(tuple(math.log(0.1) for _ in DIGITS))
    half = Score(tuple(math.log(0.05) for _ in DIGITS))

    assert half.missing_mass == pytest.approx(0.5)
    assert half.expected == pytest.approx(whole.expected)


@given(logprobs)
def test_figures_stay_in_their_ranges(values: tuple[float, ...]) -> None:
    score = Score(values)

    assert sum(score.distribution) == pytest.approx(1.0)
    assert 0.0 <= score.expected <= 9.0
    assert 0.0 <= score.missing_mass <= 1.0
    assert -1e-9 <= score.entropy <= math.log2(10) + 1e-9
    assert 0 <= score.greedy <= 9


@given(logprobs, st.floats(0, 10), st.floats(0, 10), st.sampled_from(RULES))
def test_a_higher_threshold_never_accepts_more(values: tuple[float, ...], one: float, other: float, rule: str) -> None:
    score, low, high = Score(values), min(one, other), max(one, other)

    assert score.reaching(low) >= score.reaching(high)
    assert score.accepts(rule, low) or not score.accepts(rule, high)  # type: ignore[arg-type]


@given(logprobs, st.sampled_from(RULES))
def test_threshold_zero_accepts_all_and_above_nine_none(values: tuple[float, ...], rule: str) -> None:
    assert Score(values).accepts(rule, 0)  # type: ignore[arg-type]
    assert not Score(values).accepts(rule, 9.01)  # type: ignore[arg-type]


@pytest.mark.parametrize("digit", DIGITS)
def test_a_bare_digit_is_a_certain_score(digit: str) -> None:
    assert certain(f" {digit}").greedy == int(digit)
    assert certain(digit).expected == pytest.approx(int(digit))


@pytest.mark.parametrize("values", [(), (0.0,) * 9, (LEAST,) * 10, (math.nan,) * 10])
def test_what_is_no_score_is_refused(values: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"log-probabilities|no mass"):
        Score(values)


def test_a_judge_that_says_no_digit_is_refused() -> None:
    with pytest.raises(ValueError, match="no mass"):
        certain("good")
