"""The reference implementation's loop as a baseline: its requests, and its decisions on the real pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import BadRequestError
from openai.resources.chat.completions import Completions
from openai.resources.models import Models
from test_chat import BOS, FAMILIES, family

from specreason_sgl.embedded import tales
from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.errors import UsageError
from specreason_sgl.evaluation.job import read_job, resolved
from specreason_sgl.evaluation.modes import load_programs
from specreason_sgl.events import CallMade, StepScored, StepTaken
from specreason_sgl.lang.loading import load, stock
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.measure.instant import STEP_TOKENS, instant
from specreason_sgl.measure.reference import Turns
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.settings import Settings
from specreason_sgl.testing import Reply, ScriptedBackend
from specreason_sgl.text.chat import ChatFormat, Render

GREEDY = {"temperature": 0, "top_p": 1}
SHUT: list[tuple[str, dict[str, bool]]] = [
    ("qwen3", {"enable_thinking": False}),  # closes the thinking before the reply begins
    ("deepseek-v3.1", {"thinking": False}),
    ("deepseek-v3.1", {"thinking": True}),  # closes it in turns that are over
]
OPEN = [(name, switches) for name, switches, *_ in FAMILIES if (name, switches) not in SHUT]
THOUGHTS = st.lists(st.sampled_from(["So 2 + 2 = 4.", "Wait.", "\n\n", " ", "<", "é", "0"])).map("".join)


def learned(name: str, switches: dict[str, bool]) -> tuple[ChatFormat, Turns, Render]:
    """A family's format, its turns, and its template as the chat API renders it."""
    render = family(name, **switches)
    chat = ChatFormat.learn(render, BOS.get(name, ""))
    return chat, Turns.learn(chat), lambda messages: render(messages).removeprefix(BOS.get(name, ""))


def continued(render: Render, messages: list[dict[str, str]]) -> str:
    """What the chat API makes of messages: the template over all but the last, and the last one's text behind it."""
    if messages[-1]["role"] != "assistant":
        return render(messages)
    return render(messages[:-1]) + messages[-1]["content"]


@pytest.mark.parametrize(("name", "switches"), OPEN)
@given(thoughts=THOUGHTS)
def test_the_chat_api_goes_on_with_the_very_text_of_our_prompts(
    name: str, switches: dict[str, bool], thoughts: str
) -> None:
    chat, turns, render = learned(name, switches)
    prompt = chat.opening("What is 2 + 2?") + thoughts

    assert continued(render, turns.messages(prompt)) == prompt


@pytest.mark.parametrize(("name", "switches"), OPEN)
def test_its_judge_is_asked_in_the_same_words(name: str, switches: dict[str, bool]) -> None:
    chat, turns, render = learned(name, switches)
    prompt = chat.opening("What is 2 + 2?") + "It is 4.\n\n" + chat.judge_turn
    messages = turns.messages(prompt)
    said = continued(render, messages)

    assert [message["role"] for message in messages] == ["user", "assistant", "user", "assistant"]
    assert messages[2]["content"] == chat.prompts.judge
    # Templates break the line where they open the thinking, and trim what was said.
    assert "".join(said.split()) == "".join(prompt.split())


@pytest.mark.parametrize(("name", "switches"), SHUT)
def test_a_template_that_cannot_go_on_is_refused_in_one_line(name: str, switches: dict[str, bool]) -> None:
    with pytest.raises(UsageError, match="continue_final_message"):
        learned(name, switches)


def test_a_list_of_models_is_asked_for_before_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, Any]] = []
    listed, created = Models.list, Completions.create

    def listing(models: Models) -> Any:
        said.append(("models", None))
        return listed(models)

    def creating(completions: Completions, **body: Any) -> Any:
        said.append(("chat", body | body["extra_body"]))
        return created(completions, **body)

    monkeypatch.setattr(Models, "list", listing)
    monkeypatch.setattr(Completions, "create", creating)
    with instant(1) as base, instant(2) as small:
        pair = Pair(Endpoint(base, "base"), Endpoint(small, "small"))
        settings = Settings(temperature=0, budget=10 * STEP_TOKENS)
        made = solve(Problem(id="p", question="2 + 2?", answer="4"), load("reference"), pair, settings)
    calls = [event for event in made.events if isinstance(event, CallMade)]
    chats = [number for number, (path, _) in enumerate(said) if path == "chat"]

    assert made.tally.correct, made.tally.error
    assert len(chats) == len(calls)
    assert all(said[number - 1][0] == "models" for number in chats)
    assert {call.requests for call in calls} == {2}
    assert made.tally.steps == {"small": 8, "base": 2}
    first, judge, *_ = (said[number][1] for number in chats)
    assert [message["role"] for message in first["messages"]] == ["user"]
    assert (first["continue_final_message"], first["add_generation_prompt"]) == (False, True)
    assert first["stop"] == ["\n\n", "</think>"]
    assert (judge["max_tokens"], judge["logprobs"], judge["top_logprobs"]) == (1, True, 20)
    assert (judge["continue_final_message"], judge["add_generation_prompt"]) == (True, False)


def test_a_server_that_refuses_it_fails_the_solve_with_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(_: Completions, **__: Any) -> Any:
        response = httpx.Response(400, request=httpx.Request("POST", "http://x"))
        raise BadRequestError("continue_final_message is set", response=response, body=None)

    monkeypatch.setattr(Completions, "create", refusing)
    with instant(1) as base, instant(2) as small:
        pair = Pair(Endpoint(base, "base"), Endpoint(small, "small"))
        made = solve(Problem(id="p", question="2 + 2?"), load("reference"), pair, Settings())

    assert made.tally.outcome == "failed"
    assert str(made.tally.error).startswith("the chat API cannot be asked as by the reference implementation: ")


def test_it_needs_servers_with_a_chat_api() -> None:
    pair = Pair(ScriptedBackend("base", []), ScriptedBackend("small", [Reply("x")]))
    with pytest.raises(UsageError, match="chat API"):
        solve(Problem(id="p", question="2 + 2?"), load("reference"), pair, Settings())


def test_it_is_a_variant_of_the_bench_and_no_program_for_users() -> None:
    job = read_job(Path("bench"))
    mode = resolved(job, load_programs(job.modes)).mode("reference")

    assert (mode.program, mode.against, mode.parameters["threshold"]) == ("reference", "base", 7.0)
    assert "reference" not in stock()
    assert load("reference").is_stock, "it comes with the package, so it is loaded without a word"


@pytest.mark.server
def test_its_answers_on_the_real_pair_are_ours(pair: Pair) -> None:
    for seed in range(3):
        told = tales.tale(seed)
        problem = Problem(id=str(seed), question=told.question, answer=str(told.answer))
        ours, theirs = (
            solve(problem, load(name), pair, Settings(**GREEDY, budget=1024)) for name in ("specreason", "reference")
        )

        assert theirs.tally.answer == ours.tally.answer, theirs.tally.error
        assert steps(theirs) == steps(ours)
        assert (theirs.tally.cached_share or 0) > 0.5


def steps(record: SolveRecord) -> list[Any]:
    return [
        event.text if isinstance(event, StepTaken) else event.accepted
        for event in record.events
        if isinstance(event, StepTaken | StepScored)
    ]
