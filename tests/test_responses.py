"""What is made of a server's response: its end, and the text that is heard while it streams."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specreason_sgl.engine import responses
from specreason_sgl.engine.link import Hiccup
from specreason_sgl.engine.responses import Streamed, generated
from specreason_sgl.text.steps import STUCK_WITHIN, first_stop, stuck_at

STOPS = ["\n\n", "</think>", "b\n\nb", ""]
HALF = "\ufffd"


def response(text: object, finish: str | None = None, **more: object) -> dict[str, Any]:
    reason = finish and {"type": finish}
    return {"text": text, "meta_info": {"prompt_tokens": 1, "completion_tokens": 1, "finish_reason": reason, **more}}


@pytest.mark.parametrize(
    ("text", "finish", "stops", "kept"),
    [
        ("so \u6f22\ufffd", "length", [], "so \u6f22"),
        ("so \ufffd\ufffd\ufffd", "length", [], "so "),
        ("so \ufffd", "abort", [], "so "),
        ("so \ufffd", "repeat", [], "so "),
        ("so \ud83d", "length", [], "so "),
        ("so \ufffd", "stop", [], "so \ufffd"),
        ("so \ufffd\n\n", "length", ["\n\n"], "so \ufffd"),
        ("\ufffd so", "length", [], "\ufffd so"),
        ("\ufffd", "length", [], ""),
    ],
)
def test_a_text_that_is_cut_ends_with_its_last_whole_character(
    text: str, finish: str, stops: list[str], kept: str
) -> None:
    made, _ = generated(response(text, finish), stops, is_half=True)

    assert made == kept


@pytest.mark.parametrize(
    ("text", "reported", "kept", "matched"),
    [
        ("So 5.</think>", "\n\n", "So 5.", "</think>"),
        ("So 5.\n\n", "</think>", "So 5.", "\n\n"),
        ("So 5.\n\nIt</think>", 2, "So 5.", "\n\n"),
        ("So 5.", "\n\n", "So 5.", "\n\n"),
    ],
)
def test_the_first_stop_in_the_text_counts_whatever_the_server_reports(
    text: str, reported: str | int, kept: str, matched: str
) -> None:
    answer = response(text)
    answer["meta_info"]["finish_reason"] = {"type": "stop", "matched": reported}
    for stops in (["\n\n", "</think>"], ["</think>", "\n\n"]):
        made, meta = generated(answer, stops)

        assert (made, meta["finish_reason"]["matched"]) == (kept, matched)


def chunked(pieces: Sequence[str], finish: str | None, *, in_pieces: bool) -> list[dict[str, Any]]:
    texts = list(pieces) if in_pieces else list(accumulate(pieces))
    return [response(text, finish if place + 1 == len(texts) else None) for place, text in enumerate(texts)]


def heard_plainly(pieces: Sequence[str], finish: str | None) -> list[str]:
    """What can be heard of each chunk, from a look at the whole text every time."""
    heard, length = [], 0
    for place, text in enumerate(accumulate(pieces), start=1):
        stop = first_stop(text, STOPS)
        is_whole = finish == "stop" and place == len(pieces)
        shown = text[: stop[0]] if stop else text if is_whole else text.rstrip(HALF)
        heard.append(shown[length:])
        length = max(length, len(shown))
    return heard


texts = st.text(alphabet="ab\n</think>" + HALF, max_size=8)


@pytest.mark.parametrize("in_pieces", [False, True])
@settings(deadline=None)
@given(pieces=st.lists(texts, min_size=1, max_size=12), finish=st.sampled_from(["stop", "length", "abort"]))
def test_a_text_is_heard_as_if_every_chunk_were_looked_at_whole(
    in_pieces: bool, pieces: list[str], finish: str
) -> None:
    streamed = Streamed(STOPS, in_pieces=in_pieces)
    heard = [streamed.add(chunk) for chunk in chunked(pieces, finish, in_pieces=in_pieces)]
    at_once, meta = generated(response("".join(pieces), finish), STOPS, is_half=True)

    assert heard == heard_plainly(pieces, finish)
    assert (at_once, meta) == generated(streamed.whole(), STOPS, is_half=True)
    told = "".join(heard)
    assert told == at_once or not at_once.startswith(told), "only a stop that came in two chunks was heard in part"


@pytest.mark.parametrize("in_pieces", [False, True])
@settings(deadline=None)
@given(pieces=st.lists(texts, max_size=8), again=st.lists(texts, min_size=1, max_size=8))
def test_what_was_heard_before_a_stream_broke_off_is_not_heard_again(
    in_pieces: bool, pieces: list[str], again: list[str]
) -> None:
    broken, text = Streamed([], in_pieces=in_pieces), "".join([*pieces, *again])
    heard = [broken.add(chunk) for chunk in chunked(pieces, None, in_pieces=in_pieces)]
    streamed = Streamed([], in_pieces=in_pieces, heard=broken.heard)
    heard += [streamed.add(chunk) for chunk in chunked(list(text), "stop", in_pieces=in_pieces)]

    assert "".join(heard) == text


def test_half_a_character_waits_for_the_other_half() -> None:
    streamed = Streamed([], in_pieces=False)
    texts = ("so \ufffd", "so \u6f22\ufffd\ufffd", "so \u6f22\u5b57", "so \u6f22\u5b57\ud83d")
    heard = [streamed.add(response(text)) for text in texts]

    assert heard == ["so ", "\u6f22", "\u5b57", ""]


def test_a_stop_string_that_the_server_cuts_off_at_the_end_is_not_missed() -> None:
    streamed = Streamed(["\n\n"], in_pieces=False)
    heard = [streamed.add(response(text)) for text in ("four", "four\n\nSo", "four\n\nSo it")]
    heard.append(streamed.add(response("four", "stop")))

    assert heard == ["four", "", "", ""]
    assert streamed.whole()["text"] == "four"


phrases = st.text(alphabet="abc. ", min_size=1, max_size=40)


@pytest.mark.parametrize("in_pieces", [False, True])
@settings(max_examples=25, deadline=None)
@given(before=st.text(max_size=300), phrase=phrases, sizes=st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_a_phrase_without_end_is_noticed_soon_after_it_shows(
    in_pieces: bool, before: str, phrase: str, sizes: list[int]
) -> None:
    text = before + phrase * (3000 // len(phrase))
    pieces, place = list[str](), 0
    while place < len(text):
        pieces.append(text[place : place + sizes[len(pieces) % len(sizes)]])
        place += len(pieces[-1])
    streamed = Streamed([], in_pieces=in_pieces)
    for chunk in chunked(pieces, None, in_pieces=in_pieces):
        streamed.add(chunk)
        if streamed.is_stuck():
            break
    seen = streamed.whole("repeat")
    shows = next(end for end in range(0, len(text), 25) if stuck_at(text[:end], growing=True) is not None)

    assert shows - 25 <= len(seen["text"]) <= shows + 175
    assert text.startswith(seen["text"])
    assert seen["meta_info"]["finish_reason"] == {"type": "repeat"}


def test_a_model_that_ended_its_text_itself_is_not_stuck() -> None:
    streamed = Streamed([], in_pieces=False)
    streamed.add(response("no " * 1000, "stop"))

    assert not streamed.is_stuck()


@pytest.mark.parametrize("in_pieces", [False, True])
def test_a_chunk_costs_what_it_brings_however_long_the_text_is(
    in_pieces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[int] = []

    def first(text: str, stops: Sequence[str], start: int = 0) -> tuple[int, str] | None:
        looked_at.append(len(text) - start)
        return first_stop(text, stops, start)

    def stuck(text: str, *, growing: bool) -> int | None:
        looked_at.append(len(text))
        return stuck_at(text, growing=growing)

    monkeypatch.setattr(responses, "first_stop", first)
    monkeypatch.setattr(responses, "stuck_at", stuck)
    pieces = [f"{number} is new. " for number in range(3000)]
    streamed = Streamed(STOPS, in_pieces=in_pieces)
    for chunk in chunked(pieces, None, in_pieces=in_pieces):
        streamed.add(chunk)
        assert not streamed.is_stuck()
    length = len("".join(pieces))

    assert length > 30_000
    assert sum(looked_at) < (2 + STUCK_WITHIN / 100) * length
    assert max(looked_at) <= STUCK_WITHIN
    if in_pieces:
        assert len(streamed._near) <= STUCK_WITHIN + len(pieces[-1])


def test_the_pieces_of_a_stream_become_one_response() -> None:
    streamed = Streamed([], in_pieces=True)
    streamed.add(response("a", output_token_logprobs=[[-1.0, 1, None]]))
    streamed.add(response("b", output_token_logprobs=None))
    streamed.add(response("c", "stop", output_token_logprobs=[[-3.0, 3, None]], cached_tokens=7))

    rows = [[-1.0, 1, None], [-3.0, 3, None]]
    assert streamed.whole() == response("abc", "stop", output_token_logprobs=rows, cached_tokens=7)


@pytest.mark.parametrize("in_pieces", [False, True])
@pytest.mark.parametrize("chunk", [{}, {"text": "a"}, response(None), response(["a"]), {"text": "a", "meta_info": 3}])
def test_a_chunk_that_is_none_breaks_the_stream_off(chunk: dict[str, Any], in_pieces: bool) -> None:
    streamed = Streamed(STOPS, in_pieces=in_pieces)

    with pytest.raises(Hiccup, match="lacks what every response has"):
        streamed.add(chunk)
