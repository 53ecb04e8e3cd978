"""The server that answers at once, as a process of its own, and what is measured with it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st

from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.events import StepScored, StepTaken
from specreason_sgl.lang.loading import load
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.measure import client
from specreason_sgl.measure.instant import ACCEPTED, DELIMITER, STEP_TOKENS, counted, instant, steps, words
from specreason_sgl.runs.store import Problem
from specreason_sgl.settings import Settings

SAMPLING = {"max_new_tokens": 64, "stop": [DELIMITER, "</think>"]}
TEXTS = st.lists(st.sampled_from(["a", "bc.", " ", "\n", "\n\n", "<|im_end|>", "<|im_start|>", "<", "é"])).map("".join)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with instant() as address:
        yield address


def ask(url: str, path: str, body: dict[str, Any] | None = None, *, status: int = 200) -> Any:
    response = urllib3.request("GET" if body is None else "POST", url + path, json=body)
    assert response.status == status, response.data
    return response.json() if response.data else None


def generated(url: str, **body: Any) -> dict[str, Any]:
    made: dict[str, Any] = ask(url, "/generate", {"sampling_params": SAMPLING, **body})
    return made


@given(TEXTS)
def test_tokens_are_counted_as_they_are_made(text: str) -> None:
    assert counted(text) == len(words(text))
    assert "".join(words(text)) == text


@given(TEXTS, TEXTS)
def test_a_seam_behind_a_delimiter_is_exact(before: str, behind: str) -> None:
    assert words(before + DELIMITER) + words(behind) == words(before + DELIMITER + behind)


def test_steps_differ_and_have_the_tokens_that_are_said() -> None:
    made = steps()

    assert len(set(made)) == len(made)
    assert {counted(step + DELIMITER) for step in made} == {STEP_TOKENS}


def test_token_ids_read_back_as_the_text(url: str) -> None:
    text = "Some words, <|im_start|>and a turn<|im_end|>\n\n"
    tokens = ask(url, "/tokenize", {"prompt": text})["tokens"]

    assert ask(url, "/detokenize", {"tokens": tokens, "skip_special_tokens": False})["text"] == text
    assert ask(url, "/detokenize", {"tokens": [tokens]})["text"] == ["Some words, and a turn\n\n"]
    asked = ask(url, "/tokenize", {"messages": [{"role": "user", "content": "Why?"}]})["tokens"]
    shown = ask(url, "/detokenize", {"tokens": asked, "skip_special_tokens": False})["text"]
    assert shown == "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n"


def test_a_prompt_has_the_same_length_as_text_and_as_ids(url: str) -> None:
    text = "One two three.\n\nFour"
    ids = ask(url, "/tokenize", {"prompt": text})["tokens"]

    assert generated(url, text=text)["meta_info"]["prompt_tokens"] == len(ids)
    assert generated(url, input_ids=ids)["meta_info"]["prompt_tokens"] == len(ids)


def test_a_session_goes_on_behind_any_earlier_request_of_it(url: str) -> None:
    name = ask(url, "/open_session", {"capacity_of_str_len": 1 << 20})

    def behind(text: str, own: str, **at: Any) -> int:
        made = generated(url, text=text, rid=own, session_params={"id": name, **at})
        return int(made["meta_info"]["prompt_tokens"])

    assert behind("a b c\n\n", "first") == 4
    assert behind("d e\n\n", "second", rid="first") == 4 + STEP_TOKENS + 3, "what was written belongs to the history"
    assert behind("f\n\n", "third", rid="first", offset=4) == 4 + 2
    assert behind("f\n\n", "fourth", rid="first", drop_previous_output=True) == 4 + 2
    assert behind("g", "fifth", rid="third", offset=5) == 5 + 1
    assert behind("new", "sixth") == 1, "without an earlier request it begins again"

    body = {"text": "x", "sampling_params": SAMPLING, "session_params": {"id": name, "rid": "nobody"}}
    assert "Invalid request session id" in str(ask(url, "/generate", body, status=400))
    assert "still open" in str(ask(url, "/open_session", {"capacity_of_str_len": 1, "session_id": name}, status=400))
    ask(url, "/flush_cache", {})
    assert behind("h", "seventh", rid="first", offset=4) == 5
    ask(url, "/close_session", {"session_id": name})
    assert "does not exist" in str(ask(url, "/generate", body, status=400))


def test_a_forced_length_is_kept_to_the_token(url: str) -> None:
    for most in (1, 7, 100):
        made = generated(url, text="x", sampling_params={"max_new_tokens": most, "ignore_eos": True})

        assert made["meta_info"]["completion_tokens"] == counted(made["text"]) == most
        assert made["meta_info"]["finish_reason"]["type"] == "length"


def test_requests_that_come_in_pieces_or_together_are_answered_in_order(url: str) -> None:
    def request(text: str) -> bytes:
        body = json.dumps({"prompt": text}).encode()
        return b"POST /tokenize HTTP/1.1\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    sent = request("a b") + request("c " * 50_000) + request("d")
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port)) as line, line.makefile("rb") as told:
        line.sendall(sent[:10])
        line.sendall(sent[10:])
        counts = []
        for _ in range(3):
            head = [row for row in iter(told.readline, b"\r\n") if row.startswith(b"Content-Length")]
            counts.append(json.loads(told.read(int(head[0].split(b":")[1])))["count"])

    assert counts == [2, 50_000, 1]


def test_what_it_does_not_know_is_an_error(url: str) -> None:
    ask(url, "/nowhere", {}, status=404)
    ask(url, "/generate", {}, status=400)
    ask(url, "/health")


def test_a_solve_runs_over_it_with_drafts_kept_and_written_again() -> None:
    with instant(1) as base, instant(2) as small:
        pair = Pair(Endpoint(base, "base"), Endpoint(small, "small"))
        settings = Settings(temperature=0, budget=10 * STEP_TOKENS)
        made = solve(Problem(id="p", question="2 + 2?", answer="4"), load("specreason"), pair, settings)

    assert made.tally.correct
    assert [event.accepted for event in made.events if isinstance(event, StepScored)].count(False) == 10 // ACCEPTED
    assert all(event.tokens == STEP_TOKENS for event in made.events if isinstance(event, StepTaken))
    assert made.tally.steps == {"small": 8, "base": 2}


def test_the_clients_cost_is_measured_at_every_length_and_level() -> None:
    made = client.measure(lambda _: None, lengths=(200, 2000), levels=(1, 4), solves=2, rounds=1)
    costs = made.costs["sessions"]

    assert list(made.costs) == list(client.TRANSPORTS)
    assert [(each.in_flight, each.tokens) for each in costs] == [(1, 200), (1, 2000), (4, 200), (4, 2000)]
    assert all(each.cpu_ms > 0 and each.calls_per_second > 0 for each in costs)
    shown = client.tables(made)[0]
    assert [row[:2] for row in shown.rows] == [
        ("1", "200 tok"),
        ("1", "2,000 tok"),
        ("4", "200 tok"),
        ("4", "2,000 tok"),
    ]
    assert [row[-1] for row in shown.rows][::2] == ["1.00x", "1.00x"]
