"""How families think, from what their templates show and their servers say."""

from __future__ import annotations

import re
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_chat import family

from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.engine.link import Link
from specreason_sgl.errors import CallFailed, UsageError
from specreason_sgl.events import StepTaken, ThinkingEnded
from specreason_sgl.lang import loading
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem
from specreason_sgl.settings import Settings
from specreason_sgl.testing import CHAT, Reply, ScriptedBackend
from specreason_sgl.text.chat import ChatFormat, Message
from specreason_sgl.text.prompts import REFERENCE, VERDICT
from specreason_sgl.text.thinking import (
    FORMATS,
    SWITCHES,
    THINK,
    UNSUPPORTED,
    Thinking,
    parsed_by,
    recognised,
    thinking_named,
)

ROOT = Path(__file__).parents[1]

HARMONY_FINAL = "<|end|><|start|>assistant<|channel|>final<|message|>"
LEARNED = [
    # template, its format, how the assistant's turn is begun, how the thinking is ended, how the judge's reply is begun
    ("qwen3", "think", "<|im_start|>assistant\n<think>\n", "\n</think>\n\n", "<|im_start|>assistant\n<think>"),
    ("qwq", "think", "<|im_start|>assistant\n<think>\n", "\n</think>\n\n", "<|im_start|>assistant\n<think>"),
    ("deepseek-r1", "think", "<｜Assistant｜><think>\n", "\n</think>\n\n", "<｜Assistant｜><think>"),
    ("deepseek-v3.1", "think", "<｜Assistant｜><think>", "</think>", "<｜Assistant｜><think>"),
    ("glm-4.5", "think", "<|assistant|>\n<think>", "</think>\n", "<|assistant|>\n<think>"),
    ("glm-4.7", "think", "<|assistant|><think>", "</think>", "<|assistant|><think>"),
    ("hunyuan", "think", "<|extra_0|><think>\n", "\n</think>\n<answer>\n", "<|extra_0|><think>"),
    (
        "gpt-oss",
        "harmony",
        "<|start|>assistant<|channel|>analysis<|message|>",
        HARMONY_FINAL,
        "<|start|>assistant<|channel|>analysis<|message|>",
    ),
    ("magistral", "mistral", "[/INST][THINK]", "[/THINK]", "[/INST][THINK]"),
    ("seed-oss", "seed", "<seed:bos>assistant\n<seed:think>", "</seed:think>", "<seed:bos>assistant\n<seed:think>"),
    ("gemma-4", "gemma4", "<|turn>model\n<|channel>thought\n", "<channel|>", "<|turn>model\n<|channel>thought\n"),
    (
        "apriel",
        "apriel",
        "<|begin_assistant|>\nHere are my reasoning steps:\n",
        "\n[BEGIN FINAL RESPONSE]\n",
        "<|begin_assistant|>\nHere are my reasoning steps:\n",
    ),
]


def learned(template: str, **switches: bool) -> ChatFormat:
    switches = switches or SWITCHES
    return ChatFormat.learn(family(template, **switches), history=family(template, goes_on=False, **switches))


@pytest.mark.parametrize(("template", "name", "opened", "closing", "judging"), LEARNED)
def test_how_a_family_thinks_is_learned_from_its_template(
    template: str, name: str, opened: str, closing: str, judging: str
) -> None:
    chat = learned(template)

    assert chat.thinking.name == name
    assert chat.opening("1+1?").endswith(f"1+1?{chat.after}")
    assert chat.after.endswith(opened)
    assert chat.close_thinking == closing
    assert chat.judge_turn.endswith(judging + VERDICT)
    assert chat.judge_turn.count(REFERENCE.judge) == 1


@pytest.mark.parametrize("template", ["glm-4.5", "glm-4.7", "qwen3", "gemma-4", "deepseek-v3.1"])
def test_thinking_that_is_switched_off_is_opened_all_the_same_and_once(template: str) -> None:
    chat = learned(template, enable_thinking=False, thinking=False)

    assert chat.after.count(chat.thinking.mark.strip()) == 1
    assert chat.thinking.close not in chat.after
    assert chat.after.rstrip().endswith(chat.thinking.mark.strip())


def test_what_a_template_opens_is_kept_to_the_byte() -> None:
    for tail in ("<think>", "<think>\n", "<think>\n\n", "<think> "):
        chat = ChatFormat.learn(lambda messages, tail=tail: turns(messages) + tail)  # type: ignore[misc]
        assert chat.after.endswith(f"<assistant>{tail}")


def turns(messages: Sequence[Message]) -> str:
    return "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"


@pytest.mark.parametrize(
    ("shows", "family"),
    [
        ("<|open|>system<|sep|>", "Kimi K3"),
        ("<|message_user|>", "Inkling"),
        ("<|eom|>", "Muse"),
        ("<ifm|think>", "K2 Horizon"),
    ],
)
def test_a_family_that_is_not_supported_is_refused_by_its_name(shows: str, family: str) -> None:
    with pytest.raises(UsageError, match=family) as error:
        ChatFormat.learn(lambda messages: shows + turns(messages))

    assert "--thinking" in str(error.value.hint)


@pytest.mark.parametrize("mentions", ["Never write [THINK].", "Not Here are my reasoning steps:", "No <seed:bos>."])
@pytest.mark.parametrize("opens", ["<think>\n", "<think>\n\n</think>\n\n"])
def test_a_template_that_mentions_the_marks_of_others_thinks_as_it_opens(mentions: str, opens: str) -> None:
    chat = ChatFormat.learn(lambda messages: mentions + turns(messages) + opens)

    assert chat.thinking.name == "think"
    assert chat.after.endswith("<assistant><think>\n")


def test_marks_that_nobody_knows_are_refused_and_shown() -> None:
    def history(messages: Sequence[Message]) -> str:
        return turns(messages[:1]) + f"<musing>{messages[1]['reasoning_content']}</musing>{messages[1]['content']}"

    with pytest.raises(UsageError, match="`<musing>`"):
        ChatFormat.learn(turns, history=history)


def test_a_template_that_leaves_the_thinking_of_a_turn_out_says_nothing_of_it() -> None:
    assert ChatFormat.learn(turns, history=turns).thinking == THINK


def test_the_table_agrees_with_sglangs_registry() -> None:
    from sglang.srt.parser.reasoning_parser import ReasoningParser

    refused = {parser for parsers, _ in UNSUPPORTED.values() for parser in parsers}
    known = {parser: each for each in FORMATS for parser in each.parsers}
    assert set(ReasoningParser.DetectorMap) == refused | set(known)
    assert not refused & set(known)
    for parser, each in known.items():
        detector = ReasoningParser(parser).detector
        label = detector.think_start_self_label
        assert (detector.think_start_token + label, detector.think_end_token) == (each.mark, each.close), parser


def test_every_format_can_be_named_and_is_whole() -> None:
    for each in FORMATS:
        assert thinking_named(each.name) is each
        assert each.mark in each.opening
        assert each.close in each.closing
        assert each.sign is None or re.search(each.sign, each.opening) or each.name in {"harmony", "seed", "gemma4"}
    assert len({each.name for each in FORMATS}) == len(FORMATS)
    with pytest.raises(UsageError, match="no thinking format `xml`"):
        thinking_named("xml")


@pytest.mark.parametrize("parser", [parser for parsers, _ in UNSUPPORTED.values() for parser in parsers])
def test_a_server_that_reads_a_family_which_is_not_supported_is_refused(parser: str) -> None:
    with pytest.raises(UsageError, match="not supported"):
        parsed_by(parser)


def test_a_parser_of_tomorrow_is_left_to_the_template() -> None:
    assert parsed_by("of_tomorrow") is None
    assert parsed_by("gpt-oss") is thinking_named("harmony")


@given(st.sampled_from(FORMATS), st.text(max_size=30))
def test_the_opening_of_a_turn_is_found_whatever_stands_before_it(each: Thinking, before: str) -> None:
    head, opening = each.opened(f"{before}<x>{each.mark}")
    assert (head, opening) == (f"{before}<x>", each.mark)
    head, opening = each.opened(f"{before}<x>{each.mark}{each.close}")
    assert (head, opening) == (f"{before}<x>", each.opening)
    assert each.opened(f"{before}<x>") == (f"{before}<x>", each.opening)


def test_the_two_models_of_a_pair_may_think_differently() -> None:
    class Harmony(ScriptedBackend):
        def generate(self, s: Any, sampling_params: Any) -> tuple[str, dict[str, Any]]:
            text, meta = super().generate(s, sampling_params)
            stops.append(list(sampling_params.stop))
            return text, meta

    stops: list[list[str]] = []
    small = Harmony("small", [Reply("One."), Reply("Two. <|end|> three", closes=True)])
    small.chat = ChatFormat(
        "[user]", "[assistant]<|channel|>analysis<|message|>", "", (), thinking=thinking_named("harmony")
    )
    base = ScriptedBackend("base", [9, 9, Reply("So \\boxed{2}.")])
    base.chat = CHAT
    record = solve(Problem(id="x", question="?"), loading.load("specreason"), Pair(base, small), Settings())

    assert stops == [["\n\n", "</think>", "<|end|>"]] * 2
    assert small.prompts[1].endswith("<|channel|>analysis<|message|>One.\n\n")
    assert base.prompts[-1].endswith("<think>\nOne.\n\nTwo.\n</think>\n\n")
    assert ["One.", "Two."] == [e.text for e in record.events if isinstance(e, StepTaken)]
    assert [e.reason for e in record.events if isinstance(e, ThinkingEnded)] == ["closed"]


@pytest.mark.parametrize("program", ["base_only", "small_only"])
def test_an_anchor_closes_the_thinking_as_its_model_does(program: str) -> None:
    server = ScriptedBackend("base", [Reply("One.\n\nTwo.", closes=True), Reply("\\boxed{1}")])
    server.chat = ChatFormat("[user]", "[assistant][THINK]", "", (), thinking=thinking_named("mistral"))
    pair = Pair(server, None) if program == "base_only" else Pair(None, server)
    record = solve(Problem(id="x", question="?"), loading.load(program), pair, Settings())

    assert server.prompts[-1].endswith("[THINK]One.\n\nTwo.[/THINK]")
    assert record.tally.ended == "closed"


@pytest.mark.parametrize("mark", ["[THINK]", "<seed:think>", "</mm:think>", "<|channel>", "<channel|>", "<|turn>"])
def test_nobodys_question_holds_a_mark_of_a_family(mark: str) -> None:
    assert mark not in ChatFormat.learn(turns).opening(f"1 {mark} 1").replace("<assistant>", "")


def test_a_sentence_that_opens_a_thinking_stays_in_a_question() -> None:
    assert "Here are my reasoning steps:" in learned("apriel").opening("Here are my reasoning steps: go on")


class Server:
    """What `/tokenize` makes of a family's template, with what a server may refuse."""

    def __init__(self, template: str, *, refuses: Sequence[str] = (), **info: object) -> None:
        self.template, self.refuses, self.info = template, refuses, info

    def request(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if body is None:
            return {"model_path": "m", **self.info}
        if refused := [name for name in self.refuses if name in body]:
            raise CallFailed(f"{refused[0]} is supported only with a Jinja chat template.")
        if path == "/detokenize":
            tokens = body["tokens"]
            text = (
                [chr(each[0]) for each in tokens]
                if tokens and isinstance(tokens[0], list)
                else "".join(map(chr, tokens))
            )
            return {"text": text}
        if "messages" in body:
            goes_on = body.get("add_generation_prompt", True)
            text = family(self.template, goes_on=goes_on, **body.get("chat_template_kwargs", {}))(body["messages"])
        else:
            text = body["prompt"]
        return {"tokens": list(map(ord, text))}


def connected(monkeypatch: pytest.MonkeyPatch, server: Server, thinking: str | None = None) -> Endpoint:
    monkeypatch.setattr(Link, "get", lambda _, path: server.request(path))
    monkeypatch.setattr(Link, "post", lambda _, path, body: server.request(path, body))
    return Endpoint("http://127.0.0.1:1", "base", thinking=thinking, transport="text")


def test_a_switch_of_the_template_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = connected(monkeypatch, Server("gemma-4")).chat

    assert "<|think|>" in chat.before
    assert chat.after == "<turn|>\n<|turn>model\n<|channel>thought\n"


@pytest.mark.parametrize("refuses", [["add_generation_prompt"], ["chat_template_kwargs"]])
def test_a_server_that_renders_only_as_it_likes_is_asked_less(
    refuses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert connected(monkeypatch, Server("qwq", refuses=refuses)).chat.after.endswith("assistant\n<think>\n")


def test_what_a_server_says_wins_over_its_template_and_what_the_user_says_over_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server("qwen2.5", reasoning_parser="mistral")
    assert connected(monkeypatch, server).chat.thinking.name == "mistral"
    assert connected(monkeypatch, server, "seed").chat.thinking.name == "seed"
    assert connected(monkeypatch, Server("qwen2.5")).chat.thinking.name == "think"
    with pytest.raises(UsageError, match=r"base model at .*Kimi K3"):
        connected(monkeypatch, Server("qwen2.5", reasoning_parser="kimi_k3"))
    assert connected(monkeypatch, Server("qwen2.5", reasoning_parser="kimi_k3"), "think").chat.thinking.name == "think"


def test_the_page_of_models_is_made_from_the_table() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "models.py"))["page"]()

    assert (ROOT / "docs" / "models.md").read_text(encoding="utf-8") == page
    assert all(each.families in page and f"`{each.name}`" in page for each in FORMATS)
    assert all(name in page for name in UNSUPPORTED)


def test_a_family_is_recognised_by_what_nobody_else_shows() -> None:
    shown = [family(template, **SWITCHES)([{"role": "user", "content": "q"}]) for template, *_ in LEARNED]

    assert [recognised(text).name for text in shown] == [name for _, name, *_ in LEARNED]


@pytest.mark.parametrize(
    ("shows", "name"),
    [
        ("Reason first. Then answer: [BEGIN FINAL RESPONSE] ... [END FINAL RESPONSE].<|user|>q<|assistant|>", "apriel"),
        ("<|user_start|>q<|user_end|><|assistant_start|>", "apertus"),
    ],
)
def test_a_family_whose_template_opens_nothing_is_known_by_what_else_it_shows(shows: str, name: str) -> None:
    assert recognised(shows).name == name
