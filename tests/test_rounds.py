"""Where a text ends when several tokens come in a round: just where it ends when they come one by one."""

from __future__ import annotations

import warnings
from array import array
from itertools import chain
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specreason_sgl.embedded import BASE
from specreason_sgl.servers.tree import STAND_IN, kernels_load

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END = 2
PIECES = ["\n\n", "</think>", "\n", "So", " 5", "5", ".", "</", "think", ">", " it", " is"]


@pytest.fixture(scope="module", autouse=True)
def sglang_on_the_cpu() -> None:
    """SGLang's requests, importable where its kernels cannot load."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("SGLANG_USE_CPU_ENGINE", "1")
        if not kernels_load():
            patch.syspath_prepend(STAND_IN)
        import sglang.srt.managers.schedule_batch  # noqa: F401


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(BASE)
    found.additional_stop_token_ids = None  # SGLang sets it
    return found


def ended(
    tokenizer: Any, tokens: list[int], rounds: list[int], *, by_grammar: bool = False, **sampling: Any
) -> tuple[Any, ...] | None:
    """How and where SGLang's request ends whose tokens come in rounds of so many; None if it does not.

    A grammar ends it with the last token, if that is wanted.
    """
    from sglang.srt.managers.schedule_batch import Req
    from sglang.srt.sampling.sampling_params import SamplingParams

    from specreason_sgl.servers.stops import end_in_turn

    params = SamplingParams(**sampling)
    params.normalize(tokenizer)
    request = Req("request", "", array("q", [1]), params, eos_token_ids={END}, vocab_size=640)
    request.tokenizer = tokenizer
    rest = list(tokens)
    if by_grammar:
        request.grammar = SimpleNamespace(is_terminated=lambda: not rest)
    for count in rounds:
        new, rest = rest[:count], rest[count:]
        if not new:
            break
        request.output_ids.extend(new)
        end_in_turn(Req.update_finish_state, request, len(new))
        if request.finished():
            held = list(request.output_ids)
            assert held == tokens[: len(held)]
            length = request.finished_len or len(held)
            return request.finished_reason.to_json(), length, tokenizer.decode(held[:length])
    return None


@settings(deadline=None, max_examples=100)
@given(
    pieces=st.lists(st.sampled_from([*PIECES, END]), min_size=1, max_size=14),
    rounds=st.lists(st.integers(1, 8), min_size=14, max_size=14),
    stops=st.lists(st.sampled_from(["\n\n", "</think>", "5.", "is", "\n"]), max_size=4, unique=True),
    regexes=st.lists(st.sampled_from([r"5\s", r"So .*is$", r"\.\n"]), max_size=2, unique=True),
    most=st.integers(1, 16),
    by_grammar=st.booleans(),
)
def test_a_text_ends_where_it_ends_when_tokens_come_one_by_one(
    pieces: list[Any],
    rounds: list[int],
    stops: list[str],
    regexes: list[str],
    most: int,
    by_grammar: bool,
    tokenizer: Any,
) -> None:
    spelt = [[END] if piece == END else tokenizer.encode(piece, add_special_tokens=False) for piece in pieces]
    tokens = list(chain.from_iterable(spelt))
    sampling: dict[str, Any] = {"stop": stops, "stop_regex": regexes, "max_new_tokens": most, "by_grammar": by_grammar}

    assert ended(tokenizer, tokens, [*rounds, len(tokens)], **sampling) == ended(
        tokenizer, tokens, [1] * len(tokens), **sampling
    )


def test_of_two_stops_in_a_round_the_first_in_the_text_ends_it(tokenizer: Any) -> None:
    tokens = tokenizer.encode("So 5.</think>\n\nSo", add_special_tokens=False)
    for stops in (["\n\n", "</think>"], ["</think>", "\n\n"]):
        found = ended(tokenizer, tokens, [len(tokens)], stop=stops, max_new_tokens=99)
        assert found
        assert found[0] == {"type": "stop", "matched": "</think>"}
        assert found[2] == "So 5.</think>"


def test_nothing_behind_an_end_token_counts(tokenizer: Any) -> None:
    tokens = [*tokenizer.encode("So 5", add_special_tokens=False), END, *tokenizer.encode(" is\n\n")]
    found = ended(tokenizer, tokens, [len(tokens)], stop=["\n\n"], max_new_tokens=99)

    assert found
    assert found[0] == {"type": "stop", "matched": END}
