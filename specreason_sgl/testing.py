"""A scripted model server, for tests of programs: what a real one cannot be made to say.

::

    small = ScriptedBackend("small", [Reply("2 + 2 = 4.", closes=True)])
    base = ScriptedBackend("base", [8, Reply("The answer is \\\\boxed{4}.")])
    record = solve(problem, programs.load("specreason"), Pair(base, small), Settings())
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sglang.lang.backend.base_backend import BaseBackend
from sglang.lang.choices import ChoicesDecision, ChoicesSamplingMethod
from sglang.lang.interpreter import StreamExecutor
from sglang.lang.ir import SglSamplingParams

from specreason_sgl.chat import ChatFormat
from specreason_sgl.endpoint import Listen
from specreason_sgl.events import Model
from specreason_sgl.prompts import DELIMITER, JUDGE_PREFILL, JUDGE_QUESTION, THINK_CLOSE
from specreason_sgl.scoring import LEAST

CHAT = ChatFormat("[user]", "[assistant]<think>\n", f"[user]{JUDGE_QUESTION}[assistant]{JUDGE_PREFILL}")


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
    """Answers calls from a list, in order: a `Reply` for a generation, a digit or ten log-probabilities for a
    selection, an exception to fail with.
    """

    def __init__(self, role: Model, script: Sequence[Reply | int | Sequence[float] | Exception]) -> None:
        """Keep the script; ``prompts`` collects what was asked."""
        super().__init__()
        self.role = role
        self.chat = CHAT
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

    def generate(self, s: StreamExecutor, sampling_params: SglSamplingParams) -> tuple[str, dict[str, Any]]:  # noqa: ARG002
        """The next reply of the script."""
        reply = self._next(s.text_)
        if not isinstance(reply, Reply):
            msg = f"the script of the {self.role} model has {reply!r} where a generation was asked for"
            raise TypeError(msg)
        if self._listen and reply.text:
            self._listen(self.role, reply.text)
        matched = THINK_CLOSE if reply.closes else DELIMITER
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
        return ChoicesDecision(choices[best], self._meta(s.text_) | {"digit_logprobs": logprobs, "completion_tokens": 1})

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
