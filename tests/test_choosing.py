"""Choosing among candidates, and what log-probabilities say."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.errors import CallFailed
from specreason_sgl.lang.choosing import beginning, entropies, pieces, several, softly
from specreason_sgl.text.scoring import softmax

values = st.lists(st.floats(-50, 50), min_size=1, max_size=8)


@given(values, st.floats(0, 20))
def test_shares_add_up_and_greater_values_have_greater_ones(some: list[float], sharpness: float) -> None:
    shares = softmax(some, sharpness)

    assert sum(shares) == pytest.approx(1)
    assert max(shares) == shares[some.index(max(some))]


def test_a_soft_choice_is_as_frequent_as_its_share() -> None:
    lots, some = Random(1), [0.0, 1.0]
    drawn = [softly(some, 2.0, lots) for _ in range(4000)]

    assert sum(drawn) / 4000 == pytest.approx(softmax(some, 2.0)[1], abs=0.02)


@given(values, st.integers(1, 8))
def test_without_a_temperature_the_greatest_are_taken(some: list[float], most: int) -> None:
    taken = several(some, most, 0.0, Random(0))

    assert sorted((some[place] for place in taken), reverse=True) == sorted(some, reverse=True)[:most]


@given(values, st.integers(1, 8), st.floats(0.1, 5), st.integers())
def test_nothing_is_taken_twice_and_the_same_lots_take_the_same(
    some: list[float], most: int, temperature: float, seed: int
) -> None:
    taken = several(some, most, temperature, Random(seed))

    assert len(set(taken)) == len(taken) == min(most, len(some))
    assert taken == several(some, most, temperature, Random(seed))


def test_with_a_temperature_the_first_is_drawn_by_its_share() -> None:
    lots, some = Random(2), [0.0, 1.0, 2.0]
    first = [several(some, 2, 0.5, lots)[0] for _ in range(4000)]

    assert first.count(2) / 4000 == pytest.approx(softmax(some, 2.0)[2], abs=0.02)


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0])
def test_entropy_is_that_of_the_model_itself_whatever_it_samples_at(temperature: float) -> None:
    logits = [2.0, 1.0, 0.0]
    reported = [math.log(share) for share in softmax(logits, 1 / temperature if temperature else 1.0)]
    meta = {"output_top_logprobs": [[[p, n, None] for n, p in enumerate(reported)], [[0.0, 7, None]]]}
    true = -sum(p * math.log(p) for p in softmax(logits))

    assert entropies(meta, temperature) == pytest.approx([true, 0.0])


def test_without_log_probabilities_nothing_is_known() -> None:
    with pytest.raises(CallFailed, match="lacks the log-probabilities"):
        entropies({}, 0.6)
    assert not pieces({})


def test_a_text_is_cut_where_its_tokens_add_up_to_it() -> None:
    tokens = pieces({"output_token_logprobs": [[-0.1, 5, "So"], [-0.1, 6, " it"], [-0.2, 7, "."]]})

    assert beginning("So it", tokens, 2) == "So it"
    assert beginning("So it.", tokens, 1) == "So"
    assert beginning("So it.", tokens, 0) == ""
    assert beginning("\u00e9.", ["\ufffd", "\ufffd", "."], 2) is None
