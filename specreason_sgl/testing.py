r"""A scripted model server, for tests of programs: what a real one cannot be made to say.

::

    small = ScriptedBackend("small", [Reply("2 + 2 = 4.", closes=True)])
    base = ScriptedBackend("base", [8, Reply("The answer is \\boxed{4}.")])
    record = solve(problem, programs.load("specreason"), Pair(base, small), Settings())

`StoryBackend` is one that really solves quantity stories, as well as it is told to.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from sglang.lang.backend.base_backend import BaseBackend
from sglang.lang.choices import ChoicesDecision, ChoicesSamplingMethod
from sglang.lang.interpreter import StreamExecutor
from sglang.lang.ir import SglSamplingParams

from specreason_sgl.engine.endpoint import GIVEN_UP, Draws, Listen
from specreason_sgl.engine.patience import Patience
from specreason_sgl.errors import CallFailed
from specreason_sgl.events import Role
from specreason_sgl.pair import stories
from specreason_sgl.text.chat import ChatFormat
from specreason_sgl.text.prompts import DELIMITER, EMBEDDED, JUDGE_PREFILL, THINK_CLOSE
from specreason_sgl.text.scoring import DIGITS, LEAST

CHAT = ChatFormat("[user]", "[assistant]<think>\n", f"[user]{EMBEDDED.judge}[assistant]{JUDGE_PREFILL}", (), EMBEDDED)


@dataclass(frozen=True)
class Reply:
    """What the model generates next."""

    text: str
    closes: bool = False
    """Whether it ends at ``</think>``."""
    length: bool = False
    """Whether it runs into the token limit."""
    tokens: int | None = None
    """Tokens it counts as; a word each if not given."""


class ScriptedBackend(BaseBackend):  # type: ignore[misc]  # SGLang is untyped
    """Answers calls from a list, in order.

    A `Reply` is for a generation, a digit or ten log-probabilities for a selection, an exception is to fail with.
    """

    def __init__(self, role: Role, script: Sequence[Reply | int | Sequence[float] | Exception]) -> None:
        """Keep the script; ``prompts`` collects what was asked."""
        super().__init__()
        self.role = role
        self.chat = CHAT
        self.patience = Patience(0)
        self.context: int | None = None
        self.prompts: list[str] = []
        self._script = list(script)
        self._listen: Listen | None = None
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        """Entries of the script not yet used."""
        return len(self._script)

    def for_solve(self, listen: Listen | None, seed: int | None) -> ScriptedBackend:  # noqa: ARG002 - as an endpoint
        """Itself, telling the listener of every generated text at once."""
        self._listen = listen
        return self

    def until(self, deadline: float) -> ScriptedBackend:  # noqa: ARG002 - as an endpoint
        """Itself; a script takes no time."""
        return self

    def on_a_chance(self) -> ScriptedBackend:
        """Itself; what is given up was answered at once."""
        return self

    def count(self, prompt: str) -> None:
        """A script draws nothing."""

    def give_up(self) -> None:
        """Nothing is in flight."""

    def tokens(self, text: str) -> list[int]:
        """A word is a token."""
        return list(range(len(text.split())))

    def generate(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> tuple[str, dict[str, Any]]:
        """The next reply of the script."""
        reply = self._next(s.text_)
        if not isinstance(reply, Reply):
            msg = f"the script of the {self.role} model has {reply!r} where a generation was asked for"
            raise TypeError(msg)
        if self._listen and reply.text:
            self._listen(self.role, reply.text)
        ends = (stop for stop in sampling_params.stop if stop != THINK_CLOSE)
        matched = THINK_CLOSE if reply.closes else next(ends, DELIMITER)
        finish = {"type": "length"} if reply.length else {"type": "stop", "matched": matched}
        tokens = len(reply.text.split()) if reply.tokens is None else reply.tokens
        return reply.text, self._meta(s.text_) | {"finish_reason": finish, "completion_tokens": tokens}

    def select(
        self,
        s: StreamExecutor,
        choices: list[str],
        temperature: float,  # noqa: ARG002
        choices_method: ChoicesSamplingMethod | None = None,  # noqa: ARG002
    ) -> ChoicesDecision:
        """The next digit or digit distribution of the script."""
        verdict = self._next(s.text_)
        if isinstance(verdict, int):
            logprobs = [0.0 if choice == str(verdict) else LEAST for choice in choices]
        elif isinstance(verdict, Reply):
            msg = f"the script of the {self.role} model has {verdict!r} where a selection was asked for"
            raise TypeError(msg)
        else:
            logprobs = list(verdict)
        best = max(range(len(choices)), key=lambda i: logprobs[i])
        return ChoicesDecision(
            choices[best], self._meta(s.text_) | {"digit_logprobs": logprobs, "completion_tokens": 1}
        )

    def _next(self, prompt: str) -> Reply | int | Sequence[float]:
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


class StoryBackend(BaseBackend):  # type: ignore[misc]  # SGLang is untyped
    """Solves quantity stories without a model: every step is right with a given probability, and the judge knows."""

    def __init__(
        self, role: Role, told: Iterable[stories.Story], *, skill: float = 1.0, seconds_per_call: float = 0.0
    ) -> None:
        """Know these stories.

        Args:
            role: which of the two models it stands for.
            told: the stories it will be asked about.
            skill: the probability of a right step.
            seconds_per_call: how long it really takes to answer.
        """
        super().__init__()
        self.role = role
        self.chat = CHAT
        self.patience = Patience(0)
        self.context: int | None = None
        self._told = {EMBEDDED.user_content(story.question): story for story in told}
        self._skill = skill
        self._seconds = seconds_per_call
        self._draws: Draws | None = None
        self._given_up = threading.Event()

    def for_solve(self, listen: Listen | None, seed: int | None) -> StoryBackend:  # noqa: ARG002 - as an endpoint
        """The same one, with a random stream of its own."""
        mine = copy.copy(self)
        mine._draws = None if seed is None else Draws(seed)
        return mine

    def until(self, deadline: float) -> StoryBackend:  # noqa: ARG002 - as an endpoint
        """Itself; it is never late."""
        return self

    def on_a_chance(self) -> StoryBackend:
        """The same one, for calls that `give_up` ends."""
        mine = copy.copy(self)
        mine._given_up = threading.Event()
        mine._draws = self._draws and self._draws.branch()
        return mine

    def count(self, prompt: str) -> None:
        """Count a call on a chance that came to use."""
        if self._draws:
            self._draws.next(prompt)

    def give_up(self) -> None:
        """End its calls, those in flight with what they have."""
        self._given_up.set()

    def server_info(self) -> dict[str, Any]:
        """What a server would tell."""
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
        draw = self._draws.next(s.text_) if self._draws else 0
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
        if self._given_up.is_set():
            raise CallFailed(GIVEN_UP)
        self._given_up.wait(self._seconds)

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
