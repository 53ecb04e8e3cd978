r"""A scripted model server for tests of programs: it answers what a real server cannot be made to answer.

::

    small = ScriptedBackend("small", [Reply("2 + 2 = 4.", closes=True)])
    base = ScriptedBackend("base", [8, Reply("The answer is \\boxed{4}.")])
    record = solve(problem, programs.load("specreason"), Pair(base, small), Settings())

`StoryBackend` is a backend that really solves quantity stories, with a given rate of right steps.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Self

from sglang.lang.choices import ChoicesDecision, ChoicesSamplingMethod
from sglang.lang.interpreter import StreamExecutor
from sglang.lang.ir import SglSamplingParams

from specreason_sgl.embedded import stories
from specreason_sgl.engine.watch import Watch
from specreason_sgl.lang.backend import Listen, SglBackend
from specreason_sgl.lang.scope import Scope
from specreason_sgl.lang.seeds import Draws
from specreason_sgl.text.chat import ChatFormat, Message
from specreason_sgl.text.prompts import DELIMITER, EMBEDDED, JUDGE_PREFILL, THINK_CLOSE
from specreason_sgl.text.scoring import DIGITS, LEAST


def _rendered(messages: Sequence[Message]) -> str:
    return "".join(f"[{turn['role']}]{turn['content']}" for turn in messages) + "[assistant]"


CHAT = ChatFormat(
    "[user]",
    "[assistant]<think>\n",
    f"[user]{EMBEDDED.judge}[assistant]{JUDGE_PREFILL}",
    (),
    EMBEDDED,
    render=_rendered,
)


@dataclass(frozen=True)
class Reply:
    """A scripted generation."""

    text: str
    closes: bool = False
    """Whether the model ends its thinking with ``</think>`` after the text."""
    length: bool = False
    """Whether the generation reaches the token limit."""
    tokens: int | None = None
    """How many tokens it counts as; the number of words if not given."""
    stop: str | None = None
    """The stop string that ends it; if not given, the first of those that the call names."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What else a server would report, such as log-probabilities."""


Entry = Reply | int | str | Sequence[float] | Exception
"""An entry of a script."""


class ScriptedBackend(SglBackend):
    """Answers calls from a list, in order; or from a list for each variable, for calls made at the same time.

    A `Reply` answers a generation; a digit, another choice, or the log-probability of each choice answers a selection;
    an exception is raised.
    """

    def __init__(self, role: str, script: Sequence[Entry] | Mapping[str, Sequence[Entry]]) -> None:
        """Keep the script; the attribute ``prompts`` collects the prompts of all calls."""
        super().__init__()
        self.role = role
        self.chat = CHAT
        self.scope = Scope()
        self.context: int | None = None
        self.prompts: list[str] = []
        self._script: list[Entry] = [] if isinstance(script, Mapping) else list(script)
        self._named = {name: list(entries) for name, entries in script.items()} if isinstance(script, Mapping) else None
        self._listen: Listen | None = None
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """Entries of the script not yet used."""
        return len(self._script) + sum(map(len, (self._named or {}).values()))

    def within(
        self,
        scope: Scope,
        *,
        role: str | None = None,
        listen: Listen | None = None,
        seed: int | None = None,  # noqa: ARG002 - a script draws nothing
    ) -> Self:
        """The same script for the calls of one scope; the listener gets every generated text in one piece."""
        mine = copy.copy(self)
        mine.scope, mine.role, mine._listen = scope, role or self.role, listen
        return mine

    def forget(self) -> None:
        """Do nothing; nothing was kept."""

    def tokens(self, text: str) -> list[int]:
        """The ids of a text's tokens; every word is a token."""
        return list(range(len(text.split())))

    def generate(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> tuple[str, dict[str, Any]]:
        """The next reply of the script."""
        reply = self._entry(s)
        if not isinstance(reply, Reply):
            msg = f"the script of the {self.role} model has {reply!r} where a generation was asked for"
            raise TypeError(msg)
        if reply.text and (hear := self._listen and self._listen(self.role, str(s.filling))):
            hear(reply.text)
        close = self.chat.thinking.close
        ends = (stop for stop in sampling_params.stop if stop != close)
        matched = close if reply.closes else reply.stop or next(ends, DELIMITER)
        finish = {"type": "length"} if reply.length else {"type": "stop", "matched": matched}
        tokens = len(reply.text.split()) if reply.tokens is None else reply.tokens
        return reply.text, {**self._meta(s.text_), **reply.meta, "finish_reason": finish, "completion_tokens": tokens}

    def select(
        self,
        s: StreamExecutor,
        choices: list[str],
        temperature: float,  # noqa: ARG002
        choices_method: ChoicesSamplingMethod | None = None,  # noqa: ARG002
    ) -> ChoicesDecision:
        """The next choice of the script, or the log-probabilities of the choices."""
        verdict = self._entry(s)
        if isinstance(verdict, int | str):
            logprobs = [0.0 if choice == str(verdict) else LEAST for choice in choices]
        elif isinstance(verdict, Reply):
            msg = f"the script of the {self.role} model has {verdict!r} where a selection was asked for"
            raise TypeError(msg)
        else:
            logprobs = list(verdict)
            if len(logprobs) != len(choices):
                msg = f"the script of the {self.role} model has {len(logprobs)} numbers for {len(choices)} choices"
                raise ValueError(msg)
        best = max(range(len(choices)), key=lambda i: logprobs[i])
        return ChoicesDecision(
            choices[best], self._meta(s.text_) | {"digit_logprobs": logprobs, "completion_tokens": 1}
        )

    def _entry(self, s: StreamExecutor) -> Reply | int | str | Sequence[float]:
        if self._named is None:
            return self._next(s.text_)
        self.scope.check()
        with self._lock:
            self.prompts.append(s.text_)
            entries = self._named.get(str(s.filling))
            if not entries:
                msg = f"the script of the {self.role} model has no more for `{s.filling}`"
                raise IndexError(msg)
            entry = entries.pop(0)
        if isinstance(entry, Exception):
            raise entry
        return entry

    def _next(self, prompt: str) -> Reply | int | str | Sequence[float]:
        self.scope.check()
        self.scope.left()
        with self._lock:
            self.prompts.append(prompt)
            if not self._script:
                msg = f"the script of the {self.role} model ran out"
                raise IndexError(msg)
            entry = self._script.pop(0)
        if isinstance(entry, Exception):
            raise entry
        return entry

    def _meta(self, prompt: str) -> dict[str, Any]:
        return {"role": self.role, "wall_s": 0.0, "prompt_tokens": len(prompt.split()), "cached_tokens": 0}


class StoryBackend(SglBackend):
    """Solves quantity stories without a model: a step is right with a given probability, and the judge always knows."""

    def __init__(
        self, role: str, told: Iterable[stories.Story], *, skill: float = 1.0, seconds_per_call: float = 0.0
    ) -> None:
        """Keep the stories.

        Args:
            role: the model that it stands for, base or small.
            told: the stories that it will be asked about.
            skill: the probability of a right step.
            seconds_per_call: seconds that every call really takes.
        """
        super().__init__()
        self.role = role
        self.chat = CHAT
        self.scope = Scope()
        self.watch = Watch(f"the {role} stories", lambda: True)
        self.context: int | None = None
        self._told = {EMBEDDED.user_content(story.question): story for story in told}
        self._skill = skill
        self._seconds = seconds_per_call
        self._draws: Draws | None = None

    def within(
        self,
        scope: Scope,
        *,
        role: str | None = None,
        listen: Listen | None = None,  # noqa: ARG002 - it has said everything at once
        seed: int | None = None,
    ) -> Self:
        """The same backend for the calls of one scope, with a random stream of its own."""
        mine = copy.copy(self)
        mine.scope, mine.role = scope, role or self.role
        mine._draws = self._draws and self._draws.anew() if seed is None else Draws(seed)
        return mine

    def forget(self) -> None:
        """Do nothing; nothing was kept."""

    def tokens(self, text: str) -> list[int]:
        """The ids of a text's tokens; every word is a token."""
        return list(range(len(text.split())))

    def plain(self) -> Self:
        """Return itself; it has no connections."""
        return self

    def server_info(self) -> dict[str, Any]:
        """What a server would report about itself."""
        return {"model_path": f"stories-{self.role}"}

    def generate(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> tuple[str, dict[str, Any]]:
        """The next step, the whole chain of thought, or the answer, whichever is asked for."""
        began = time.perf_counter()
        self._take_time()
        told, steps, thinks = self._asked(s.text_)
        if not thinks:
            number = [word for word in steps[-1].rstrip(".").split() if word.isdecimal()][-1:] if steps else []
            return self._reply(s, f"The answer is \\boxed{{{''.join(number)}}}.", None, began)
        whole = DELIMITER not in sampling_params.stop
        places = range(len(steps), max(len(steps) + 1, len(told.steps)) if whole else len(steps) + 1)
        draw = self._draws.next(s) if self._draws else 0
        written = [self._step(told, place, draw) for place in places]
        closes = places[-1] + 1 >= len(told.steps)
        return self._reply(s, DELIMITER.join(written), THINK_CLOSE if closes else DELIMITER, began)

    def select(
        self,
        s: StreamExecutor,
        choices: list[str],
        temperature: float,  # noqa: ARG002
        choices_method: ChoicesSamplingMethod | None = None,  # noqa: ARG002
    ) -> ChoicesDecision:
        """The utility score that the last step deserves, with a little doubt."""
        began = time.perf_counter()
        self._take_time()
        told, steps, _ = self._asked(s.text_.removesuffix(CHAT.judge_turn))
        digit = stories.grade_step(told, len(steps) - 1, steps[-1])
        logprobs = [-0.1 if choice == str(digit) else -4.6 for choice in choices]
        _, meta = self._reply(s, DIGITS[digit], None, began)
        return ChoicesDecision(str(digit), meta | {"digit_logprobs": logprobs})

    def _take_time(self) -> None:
        self.scope.check()
        self.scope.left()
        self.scope.wait(self._seconds)

    def _asked(self, prompt: str) -> tuple[stories.Story, list[str], bool]:
        turn, _, thinking = prompt.partition(CHAT.after)
        told = self._told[turn.removeprefix(CHAT.before)]
        inside, closed, _ = thinking.partition(THINK_CLOSE)
        return told, [step.strip() for step in inside.split(DELIMITER) if step.strip()], not closed

    def _step(self, told: stories.Story, place: int, draw: int) -> str:
        if place >= len(told.steps):
            return ""
        lots = Random(f"{self.role}:{draw}:{told.question}:{place}")
        return told.steps[place] if lots.random() < self._skill else stories.corrupt(lots, told, place)

    def _reply(self, s: StreamExecutor, text: str, matched: str | None, began: float) -> tuple[str, dict[str, Any]]:
        return text, {
            "role": self.role,
            "wall_s": time.perf_counter() - began,
            "prompt_tokens": len(s.text_.split()),
            "cached_tokens": 0,
            "completion_tokens": len(text.split()),
            "finish_reason": {"type": "stop", "matched": matched},
        }
