"""What SGLang's frontend promises, through our endpoint, on the real server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sglang as sgl
from sglang.lang.choices import greedy_token_selection, unconditional_likelihood_normalized

from specreason_sgl.embedded import SMALL
from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.engine.conversation import LOST
from specreason_sgl.engine.seams import tokens_of
from specreason_sgl.errors import SpecReasonError
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.scope import Scope
from specreason_sgl.servers.processes import Servers, cores, free_ports, model_server
from specreason_sgl.text.prompts import DELIMITER, THINK_CLOSE

pytestmark = pytest.mark.server

STEPS = [
    "Tom has 3 packs with 4 cards each, which is 12 cards.",
    "Tom has 12 cards.",
    "Lena sells every one of the pears that she was given by her neighbour and then she buys five more of them.",
]


@pytest.fixture
def base(pair: Pair[Endpoint]) -> Endpoint:
    assert pair.base is not None
    return pair.base


def run(backend: Endpoint, prompt: str, *expressions: Any) -> Any:
    @sgl.function
    def program(s: Any) -> None:
        s += prompt
        for expression in expressions:
            s += expression

    state = program.run(backend=backend)
    if error := state.error():
        raise error
    return state


def truth(backend: Endpoint, prompt: str, choice: str) -> float:
    """The log-probability of a text behind a prompt, read off the whole of both."""
    before, ids = (tokens_of(backend._link.post, text, in_front=True) for text in (prompt, prompt + choice))
    assert ids[: len(before)] == before
    told = backend._link.post(
        "/generate",
        {"input_ids": ids, "sampling_params": {"max_new_tokens": 0}, "return_logprob": True, "logprob_start_len": 0},
    )
    return float(sum(row[0] for row in told["meta_info"]["input_token_logprobs"][len(before) :]))


def test_long_choices_have_their_whole_log_probability(base: Endpoint) -> None:
    state = run(base, base.chat.opening("Tom has 3 packs."), sgl.select("step", choices=STEPS))
    told = state.get_meta_info("step")["digit_logprobs"]

    expected = [truth(base, base.chat.opening("Tom has 3 packs."), step) for step in STEPS]
    assert told == pytest.approx(expected, abs=0.02 * abs(min(expected)))
    assert min(told) < -100
    assert len(set(told)) == 3


@pytest.mark.parametrize("method", [greedy_token_selection, unconditional_likelihood_normalized])
def test_every_way_to_choose_gives_one_of_the_choices(base: Endpoint, method: Any) -> None:
    chosen = run(base, "Tom has ", sgl.select("step", choices=STEPS, choices_method=method))["step"]

    assert chosen in STEPS


@pytest.mark.parametrize("prompt", ["That is 55", "That is 5", "That is 5.\n\n"])
def test_a_prompt_may_end_like_a_choice(base: Endpoint, prompt: str) -> None:
    assert run(base, prompt, sgl.select("step", choices=["55 cards", "5 cards", "5"]))["step"] in {
        "55 cards",
        "5 cards",
        "5",
    }


def test_a_temperature_of_a_selection_is_refused_in_a_line(base: Endpoint) -> None:
    with pytest.raises(SpecReasonError, match="no `temperature`"):
        run(base, "That is ", sgl.select("step", choices=["1", "2"], temperature=0.7))


def test_several_texts_of_one_prompt(base: Endpoint) -> None:
    prompt = base.chat.opening("Tom has 3 packs with 4 cards each. How many cards does Tom have now?")
    state = run(base, prompt, sgl.gen("steps", n=3, max_tokens=12, temperature=1.0))
    meta = state.get_meta_info("steps")

    assert len(state["steps"]) == len(meta["each"]) == 3
    assert meta["completion_tokens"] == sum(each["completion_tokens"] for each in meta["each"]) > 3
    assert min(each["cached_tokens"] for each in meta["each"]) >= len(base.tokens(prompt)) - 2
    assert state.text() == prompt + state["steps"][0]


def test_branches_right_behind_a_text_read_it_once(base: Endpoint) -> None:
    base.flush_cache()
    prompt = base.chat.opening("Mia has 7 apples. " * 30)
    metas: list[dict[str, Any]] = []

    @sgl.function
    def program(s: Any) -> None:
        s += prompt
        branches = s.fork(4)
        branches += sgl.gen("step", max_tokens=4)
        metas.extend(branch.get_meta_info("step") for branch in branches)

    program.run(backend=base)
    assert [meta["prompt_tokens"] - meta["cached_tokens"] for meta in metas] == [1, 1, 1, 1]


@pytest.fixture
def in_pieces(base: Endpoint) -> Endpoint:
    """The same server, with prompts that travel in sessions however short they are."""
    return Endpoint(base.url, "base", api_key=base.api_key, transport="sessions")


def test_several_texts_and_branches_go_on_in_a_session(in_pieces: Endpoint) -> None:
    opening = in_pieces.chat.opening("Tom has 3 packs with 4 cards each. How many cards does Tom have now?")
    metas: list[dict[str, Any]] = []

    @sgl.function
    def program(s: Any) -> None:
        s += opening
        s += sgl.gen("first", max_tokens=6, temperature=0)
        s += "\n\n"
        s += sgl.gen("several", n=3, max_tokens=6, temperature=1.0)
        branches = s.fork(2)
        branches += sgl.gen("step", max_tokens=4)
        metas.extend([s.get_meta_info("several"), *(branch.get_meta_info("step") for branch in branches)])
        before.extend(branch.text().removesuffix(branch["step"]) for branch in branches)

    before: list[str] = []
    state = program.run(backend=in_pieces)
    in_pieces.forget()

    assert state.error() is None
    assert [meta["transport"] for meta in metas] == ["sessions"] * 3
    assert all(each["prompt_tokens"] == metas[0]["prompt_tokens"] for each in metas[0]["each"])
    assert all(text.startswith(opening) for text in before)
    assert [meta["prompt_tokens"] for meta in metas[1:]] == [len(in_pieces.tokens(text)) for text in before]


@pytest.mark.parametrize("is_heard", [False, True])
def test_a_session_that_the_server_has_lost_leaves_nothing_in_the_text(in_pieces: Endpoint, is_heard: bool) -> None:
    heard: list[str] = []
    part = in_pieces.within(Scope(), listen=(lambda *_: heard.append) if is_heard else None)
    opening = part.chat.opening("Mia has 7 apples. Then Mia gets 5 more. How many apples does Mia have now?")

    def gone_on() -> tuple[str, dict[str, Any]]:
        heard.clear()
        state = run(
            part, opening + "Mia starts with 7 apples.\n\n", sgl.gen("step", max_tokens=24, temperature=0, stop="\n\n")
        )
        return state["step"], state.get_meta_info("step")

    run(part, opening, sgl.gen("step", max_tokens=4, temperature=0))
    before, sent = gone_on()
    part._link.tell("/close_session", {"session_id": part._conversation._session.id})
    after, again = gone_on()
    said = "".join(heard)
    part.forget()

    assert (before, sent["transport"]) == (after, "sessions")
    assert (again["transport"], LOST in again["notices"]) == ("text", True)
    assert said == (after if is_heard else "")


@pytest.fixture(scope="module")
def piecemeal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """The small model on a server that streams pieces, with a template that is named and no file."""
    logs = tmp_path_factory.mktemp("piecemeal")
    model, core = SMALL, cores(sorted(os.sched_getaffinity(0)))[1]
    (port,) = free_ports(1)
    one = model_server(
        "small",
        Path(model),
        port=port,
        core=core,
        logs=logs,
        extra=["--incremental-streaming-output", "--chat-template", "chatml"],
    )
    servers = Servers.start([one], "key", logs, owned=True)
    try:
        servers.wait_until_ready(lambda _: None)
        yield Endpoint(one.url, "small", api_key="key")
    finally:
        servers.stop()


def test_pieces_are_put_together(piecemeal: Endpoint) -> None:
    prompt = piecemeal.chat.opening("Tom has 40 cards. Tom buys 12 cards. How many cards does Tom have now?")
    gen = sgl.gen("step", max_tokens=40, temperature=0, stop=[DELIMITER, THINK_CLOSE], return_logprob=True)
    whole = run(piecemeal, prompt, gen)
    heard: list[str] = []
    streamed = run(piecemeal.within(Scope(), listen=lambda *_: heard.append), prompt, gen)

    assert streamed["step"] == whole["step"] == "".join(heard)
    assert len(heard) > 3
    rows = streamed.get_meta_info("step")["output_token_logprobs"]
    assert [row[1] for row in rows] == [row[1] for row in whole.get_meta_info("step")["output_token_logprobs"]]


def test_a_server_with_a_named_template_can_be_asked(piecemeal: Endpoint, pair: Pair) -> None:
    assert pair.small is not None
    assert "<|im_start|>user\n" in piecemeal.chat.before
    assert piecemeal.chat.after == pair.small.chat.after
    assert piecemeal.chat.judge_turn == pair.small.chat.judge_turn
