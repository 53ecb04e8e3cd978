"""A solve's events as a chat completion: text as soon as it is certain to stay, and an honest account at the end.

The shapes are those of SGLang's own endpoint: `reasoning_content` is in every delta, null where there is none, and no
text is ever null.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from specreason_sgl.events import (
    AnswerWritten,
    ChainOpened,
    Event,
    Noticed,
    SolveFailed,
    StepTaken,
    TextAdded,
    TextStreamed,
    ThinkingEnded,
)
from specreason_sgl.tally import Tally
from specreason_sgl.text.prompts import THINK_CLOSE, THINK_OPEN, neutralise

Part = Literal["reasoning", "content"]
STAYS = ("regenerate", "think")
"""The kinds of calls whose text becomes a part of the reasoning, whatever happens; a draft may be rejected."""
ANSWER = "answer"
"""The kind of the call whose text is the content."""
LONGEST_TOKEN = 48
"""The most characters of a control token; so much text is held back behind what may be the beginning of one."""


class Held:
    """Text on its way to a client: control tokens become plain text, even those that come in pieces."""

    def __init__(self, control: Sequence[str]) -> None:
        """Begin with nothing."""
        self._control = control
        self._waiting = ""
        self.sent = ""
        """What has gone out."""

    def add(self, text: str) -> str:
        """The next text that may go out; white space waits for what follows it."""
        self._waiting += text
        if not self.sent:
            self._waiting = self._waiting.lstrip()
        safe = len(self._waiting.rstrip())
        for opening in "<[":
            place = self._waiting.rfind(opening)
            if 0 <= place and len(self._waiting) - place < LONGEST_TOKEN and not _closed(self._waiting[place:]):
                safe = min(safe, place)
        ready, self._waiting = self._waiting[:safe], self._waiting[safe:]
        return self._out(ready)

    def rest(self) -> str:
        """What still waits, at the end of the text."""
        ready, self._waiting = self._waiting.rstrip(), ""
        return self._out(ready)

    def _out(self, text: str) -> str:
        text = neutralise(text, self._control)
        self.sent += text
        return text


def _closed(text: str) -> bool:
    return ">" in text or "]" in text


class Choice:
    """One solve as one choice: its events become pieces of reasoning and content, in order."""

    def __init__(self, delimiter: str, control: Sequence[str] = (), *, reasoning_at_once: bool = False) -> None:
        """Begin with nothing.

        Args:
            delimiter: what stands between steps.
            control: the control tokens of the models.
            reasoning_at_once: whether the reasoning comes in one piece when it is over.
        """
        self.tally = Tally()
        self.failure: SolveFailed | None = None
        self.notices: list[str] = []
        self.reasoning = ""
        """The reasoning that has gone out."""
        self.content = ""
        """The answer that has gone out."""
        self._delimiter, self._control, self._at_once = delimiter, control, reasoning_at_once
        self._steps: dict[int, list[str]] = {0: []}
        self._live: Held | None = None
        """The text of a call that is running and stays."""
        self._behind = ""
        """What of such a text has not become a step yet."""
        self._gap = ""
        """What stands before the text that comes next: the delimiter behind a step, nothing behind added text."""
        self._is_branched = False
        self._answer: Held | None = None

    def add(self, event: Event) -> Iterator[tuple[Part, str]]:
        """The pieces that an event brings."""
        if not isinstance(event, TextStreamed):
            self.tally.add(event)
        match event:
            case TextStreamed(kind=kind) if kind in STAYS:
                yield from self._stream(event)
            case TextStreamed(kind=kind) if kind == ANSWER and not self._is_branched:
                self._answer = self._answer or Held(self._control)
                yield from self._say("content", self._answer.add(event.text))
            case ChainOpened():
                parent = self._steps.get(-1 if event.parent is None else event.parent, [])
                self._steps[event.chain] = parent[: event.steps]
                self._is_branched = True
            case StepTaken() | TextAdded():
                is_step = isinstance(event, StepTaken)
                self._steps.setdefault(event.chain, []).append(event.text + (self._delimiter if is_step else ""))
                if not (self._is_branched or self._at_once):
                    yield from self._take(event.text, is_step=is_step)
                    self._gap = self._delimiter if is_step else ""
            case ThinkingEnded() if self._at_once and not self._is_branched:
                yield from self._say("reasoning", self._kept(0))
            case AnswerWritten():
                yield from self._end(event)
            case _:
                self._note(event)

    def _note(self, event: Event) -> None:
        """Keep what is said at the end."""
        if isinstance(event, SolveFailed):
            self.failure = event
        elif isinstance(event, Noticed):
            self.notices.append(event.message)

    def _stream(self, event: TextStreamed) -> Iterator[tuple[Part, str]]:
        if self._is_branched or self._at_once or event.chain:
            return
        if self._live is None:
            self._live = Held(self._control)
        if text := self._live.add(event.text):
            self._behind += text
            first = self._live.sent == text
            yield from self._say("reasoning", (self._gap if first else "") + text)

    def _kept(self, chain: int) -> str:
        """All that a chain has come to."""
        return "".join(self._steps.get(chain, ())).removesuffix(self._delimiter)

    def _take(self, text: str, *, is_step: bool) -> Iterator[tuple[Part, str]]:
        """A step, of which some or all may have gone out while it was written."""
        behind = self._behind.lstrip()
        if is_step and behind and behind.startswith(text):
            self._behind = behind[len(text) :]
            if not self._behind.strip():
                self._live, self._behind = None, ""
            return
        was_live = is_step and bool(behind)
        if was_live and text.startswith(behind):
            yield from self._say("reasoning", text[len(behind) :])
        elif not was_live:
            yield from self._say("reasoning", self._gap + text)
        if is_step:
            self._live, self._behind = None, ""

    def _end(self, written: AnswerWritten) -> Iterator[tuple[Part, str]]:
        if self._is_branched and written.author != "vote":
            kept = self._kept(written.chain)
            if kept.startswith(self.reasoning):
                yield from self._say("reasoning", kept[len(self.reasoning) :])
        text = neutralise(written.text, self._control)
        if self._answer is not None:
            yield from self._say("content", self._answer.rest())
            self._answer = None
            if text.startswith(self.content):
                yield from self._say("content", text[len(self.content) :])
        elif text or not self.content:
            text = text or (rf"\boxed{{{written.answer}}}" if written.answer else "")
            yield from self._say("content", ("\n\n" if self.content and text else "") + text)

    def _say(self, part: Part, text: str) -> Iterator[tuple[Part, str]]:
        if not text:
            return
        if part == "reasoning":
            self.reasoning += text
        else:
            self.content += text
        yield part, text

    @property
    def finish(self) -> Literal["stop", "length"]:
        """``length`` where the answer was cut; a thinking budget that was used up ends no answer."""
        return "length" if self.tally.truncated else "stop"

    @property
    def completion_tokens(self) -> int:
        """The tokens that the client gets: the kept reasoning and the answer."""
        return self.tally.thinking_tokens + self.tally.tokens[ANSWER]


def usage(prompt_tokens: int, choices: Sequence[Choice]) -> dict[str, Any]:
    """The usage in the protocol's own fields: the conversation once, and what the client gets.

    What a solve has cost on both models is in the extension object.
    """
    reasoning = sum(choice.tally.thinking_tokens for choice in choices)
    completion = sum(choice.completion_tokens for choice in choices)
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": None,
        "reasoning_tokens": reasoning,
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def account(choice: Choice, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The extension object of a response: what a solve has cost, model by model, and how it went.

    Args:
        choice: the solve.
        facts: what is known of it besides: its name, the program, its parameters, notices.
    """
    tally = choice.tally
    roles = sorted({*tally.generated, *tally.prompt_tokens, *tally.kept})
    return {
        **facts,
        "steps": dict(tally.steps),
        "acceptance": tally.acceptance,
        "judged": tally.judged,
        "accepted": tally.accepted,
        "thinking_ended": tally.ended,
        "answer": tally.answer,
        "seconds": round(tally.latency, 3),
        "lost_seconds": round(tally.lost_s, 3),
        "retries": tally.retries,
        "drafted_tokens": tally.drafted_tokens,
        "wasted_tokens": tally.wasted_tokens,
        "models": {
            role: {
                "prompt_tokens": tally.prompt_tokens[role],
                "cached_tokens": tally.cached_tokens[role],
                "generated_tokens": tally.generated[role],
                "kept_tokens": tally.kept[role],
                "seconds": round(float(tally.model_seconds[role]), 3),
            }
            for role in roles
        },
    }


@dataclass
class Completion:
    """A response in the making: its name and the shapes of its parts."""

    id: str
    model: str
    duplicate: bool = False
    """Whether reasoning is also sent as `reasoning`."""
    separate: bool = True
    """Whether reasoning has a field of its own; otherwise it stands in the content, in tags."""
    created: int = field(default_factory=lambda: int(time.time()))
    _inside: set[int] = field(default_factory=set)
    """The choices whose reasoning stands open in the content."""

    def first(self, index: int) -> dict[str, Any]:
        """The chunk that says who speaks."""
        return self._chunk(index, {**self._reasoning(None), "role": "assistant", "content": ""})

    def piece(self, index: int, part: Part, text: str) -> dict[str, Any]:
        """A chunk of text."""
        if not self.separate:
            return self._chunk(index, {**self._reasoning(None), "content": self._tagged(index, part, text)})
        if part == "reasoning":
            return self._chunk(index, self._reasoning(text))
        return self._chunk(index, {**self._reasoning(None), "content": text})

    def last(self, index: int, choice: Choice, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The chunk that says why a choice has ended, with its account."""
        chunk = self._chunk(index, self._reasoning(None), choice.finish)
        return {**chunk, "specreason": account(choice, facts)}

    def usage(self, prompt_tokens: int, choices: Sequence[Choice]) -> dict[str, Any]:
        """The chunk of the usage."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(prompt_tokens, choices)}

    def whole(
        self, prompt_tokens: int, choices: Sequence[Choice], facts: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The whole response at once."""
        accounts = [account(choice, known) for choice, known in zip(choices, facts, strict=True)]
        return {
            **self._head("chat.completion"),
            "choices": [
                {
                    "index": index,
                    "message": self._message(index, choice),
                    "logprobs": None,
                    "finish_reason": choice.finish,
                    "matched_stop": None,
                }
                for index, choice in enumerate(choices)
            ],
            "usage": usage(prompt_tokens, choices),
            "specreason": accounts[0] if len(accounts) == 1 else {"choices": accounts},
        }

    def _message(self, index: int, choice: Choice) -> dict[str, Any]:
        if self.separate:
            told = self._reasoning(choice.reasoning or None)
            return {"role": "assistant", "content": choice.content, **told, "tool_calls": None}
        text = self._tagged(index, "reasoning", choice.reasoning) if choice.reasoning else ""
        text += self._tagged(index, "content", choice.content)
        return {"role": "assistant", "content": text, **self._reasoning(None), "tool_calls": None}

    def _tagged(self, index: int, part: Part, text: str) -> str:
        if part == "reasoning":
            opening = "" if index in self._inside else f"{THINK_OPEN}\n"
            self._inside.add(index)
            return opening + text
        if index in self._inside:
            self._inside.discard(index)
            return f"\n{THINK_CLOSE}\n\n{text}"
        return text

    def _reasoning(self, text: str | None) -> dict[str, Any]:
        return {"reasoning_content": text, "reasoning": text} if self.duplicate else {"reasoning_content": text}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish,
            "matched_stop": None,
        }
        return {**self._head("chat.completion.chunk"), "choices": [choice]}
