"""What a program holds on to while it solves: the two models, the settings, and the growing trace.

A program reads its calls through the trace. That is where a failed call becomes an error (SGLang's own state would
hand out an older value or nothing), where every event is emitted, and where it is decided that thinking is over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specreason_sgl.answers import boxed
from specreason_sgl.errors import CallFailed, SpecReasonError, UsageError
from specreason_sgl.events import (
    AnswerWritten,
    CallKind,
    CallMade,
    EndOfThinking,
    Event,
    Model,
    Noticed,
    Sink,
    SolveStarted,
    StepDrafted,
    StepScored,
    StepTaken,
    TextStreamed,
    ThinkingEnded,
)
from specreason_sgl.prompts import DELIMITER, THINK_CLOSE
from specreason_sgl.scoring import Score, certain
from specreason_sgl.settings import Settings
from specreason_sgl.steps import is_repeat, split_steps

if TYPE_CHECKING:
    from sglang.lang.interpreter import ProgramState

    from specreason_sgl.endpoint import Endpoint

STALLED = 2
"""So many steps in a row without a word end the thinking."""


@dataclass(frozen=True)
class Step:
    """A place in the chain of thought that is to be filled."""

    number: int
    """From 0."""
    most: int
    """The most tokens the step may have: the limit of a step or what is left of the budget."""

    @property
    def delimiter(self) -> str:
        """What stands between this step and the one before it."""
        return DELIMITER if self.number else ""

    @property
    def draft(self) -> str:
        """The name of the draft's variable; numbered, because a failed call leaves an older value behind."""
        return f"draft_{self.number}"

    @property
    def score(self) -> str:
        """The name of the utility score's variable."""
        return f"score_{self.number}"

    @property
    def text(self) -> str:
        """The name of the variable of the base model's own version."""
        return f"step_{self.number}"


@dataclass(frozen=True)
class Written:
    """What a model wrote for a step."""

    author: Model
    text: str
    """Without delimiters; empty if there is not a word in it."""
    tokens: int
    closes: bool
    """Whether it ended the thinking there."""


class Trace:
    """One solve of one question."""

    def __init__(
        self,
        question: str,
        settings: Settings,
        *,
        program: str,
        base: Endpoint | None = None,
        small: Endpoint | None = None,
        sink: Sink | None = None,
        stream: bool = False,
    ) -> None:
        """Begin; the clock runs from here.

        Args:
            question: the user's question, as it came.
            settings: the knobs.
            program: the program's name, for the record.
            base: the base model's server.
            small: the small model's server.
            sink: told of every event as it happens.
            stream: whether the sink also wants text while it is generated.
        """
        self.question = question
        self.settings = settings
        self.events: list[Event] = []
        self.steps: list[str] = []
        self.tokens = 0
        """Thinking tokens so far."""
        self.ended: EndOfThinking | None = None
        listen = self._hear if stream else None
        self._base = base and base.for_solve(listen, settings.seed)
        self._small = small and small.for_solve(listen, settings.seed)
        self._sink = sink
        self._stalled = 0
        self._began = time.perf_counter()
        judges = base is not None and small is not None
        self.emit(
            SolveStarted(
                question=question,
                program=program,
                budget=settings.budget,
                threshold=settings.threshold if judges else None,
                score_rule=settings.score if judges else None,
            )
        )

    @property
    def base(self) -> Endpoint:
        """The base model's server, as a backend."""
        return _needed(self._base, "base")

    @property
    def small(self) -> Endpoint:
        """The small model's server, as a backend."""
        return _needed(self._small, "small")

    @property
    def sampling(self) -> dict[str, Any]:
        """How models sample, as keyword arguments of `sgl.gen` and `run`."""
        return {"temperature": self.settings.temperature, "top_p": self.settings.top_p}

    def emit(self, event: Event) -> None:
        """Stamp an event, keep it and pass it on."""
        stamped = event.model_copy(update={"at": round(time.perf_counter() - self._began, 6)})
        self.events.append(stamped)
        if self._sink:
            self._sink(stamped)

    def prefix(self, model: Model) -> str:
        """The conversation so far, rendered for a model: its own template, the same reasoning."""
        opening = _needed(self._base if model == "base" else self._small, model).chat.opening(self.question)
        return opening + "".join(step + DELIMITER for step in self.steps)

    def next_steps(self) -> Iterator[Step]:
        """The places to fill, one after the other, until the thinking ends."""
        while self.ended is None:
            left = self.settings.budget - self.tokens
            if left <= 0:
                self._end("budget")
                return
            yield Step(len(self.steps), min(self.settings.max_step_tokens, left))

    def drafted(self, state: ProgramState, step: Step) -> Written:
        """Wait for the small model's draft and tell of it."""
        draft = self._read(state, step.draft, "draft", step.number)
        self.emit(StepDrafted(step=step.number, text=draft.text, tokens=draft.tokens, closes=draft.closes))
        return draft

    def accepted(self, state: ProgramState, step: Step) -> bool:
        """Wait for the judge's score and decide by the acceptance rule."""
        digit = self._wait(state, step.score)
        meta = self._meta(state, step.score)
        self._tell_call(meta, "judge", step.number)
        logprobs = meta.get("digit_logprobs")
        try:
            score = Score(tuple(logprobs)) if logprobs else certain(digit)
        except ValueError as error:
            msg = f"the judge gave no usable score at step {step.number}: {error}"
            raise CallFailed(msg) from error
        return self._tell_score(step, score, score.accepts(self.settings.score, self.settings.threshold))

    def decided(self, step: Step, accepted: bool) -> bool:
        """Tell of a decision that no judge has made, such as a control's; as a score it is a certain 9 or 0."""
        return self._tell_score(step, certain("9" if accepted else "0"), accepted)

    def _tell_score(self, step: Step, score: Score, accepted: bool) -> bool:
        self.emit(
            StepScored(
                step=step.number,
                logprobs=score.logprobs,
                greedy=score.greedy,
                expected=score.expected,
                reaching=score.reaching(self.settings.threshold),
                entropy=score.entropy,
                missing_mass=score.missing_mass,
                accepted=accepted,
            )
        )
        return accepted

    def written(self, state: ProgramState, step: Step) -> Written:
        """Wait for the base model's own version of a step."""
        return self._read(state, step.text, "regenerate", step.number)

    def take(self, step: Step, kept: Written) -> str:
        """Let a step into the reasoning, and see whether the thinking ends with it; returns its text."""
        repeats = is_repeat(self.steps, kept.text)
        self.tokens += kept.tokens
        self._stalled = 0 if kept.text else self._stalled + 1
        if kept.text:
            self.steps.append(kept.text)
            self.emit(
                StepTaken(step=step.number, author=kept.author, text=kept.text, tokens=kept.tokens, closes=kept.closes)
            )
        if kept.closes:
            self._end("closed")
        elif repeats:
            self._end("repeat")
        elif self._stalled >= STALLED:
            self._end("no-progress")
        return kept.text

    def thought(self, state: ProgramState, name: str) -> str:
        """Wait for a whole chain of thought from one model and take its steps one by one; returns it, tidied."""
        whole = self._read(state, name, "think", None)
        for number, text in enumerate(steps := split_steps(whole.text)):
            self.steps.append(text)
            share = whole.tokens * (number + 1) // len(steps) - whole.tokens * number // len(steps)
            closes = number + 1 == len(steps)
            self.emit(StepTaken(step=number, author=whole.author, text=text, tokens=share, closes=closes))
        self.tokens = whole.tokens
        self._end("closed" if whole.closes else "budget")
        return DELIMITER.join(self.steps)

    def answered(self, state: ProgramState, name: str) -> str:
        """Wait for the answer phase; returns what the last box holds, or nothing."""
        text = self._wait(state, name)
        meta = self._meta(state, name)
        self._tell_call(meta, "answer", None)
        answer = boxed(text)
        truncated = _finish(meta)[0] == "length"
        self.emit(AnswerWritten(author=meta["role"], text=text.strip(), answer=answer, truncated=truncated))
        return answer or ""

    def _end(self, reason: EndOfThinking) -> None:
        self.ended = reason
        self.emit(ThinkingEnded(reason=reason, steps=len(self.steps), tokens=self.tokens))

    def _read(self, state: ProgramState, name: str, kind: CallKind, step: int | None) -> Written:
        text = self._wait(state, name)
        meta = self._meta(state, name)
        self._tell_call(meta, kind, step)
        finish, matched = _finish(meta)
        # A model that ends its turn without closing the thinking has nothing more to think either.
        closes = finish == "stop" and matched != DELIMITER
        return Written(meta["role"], text.split(THINK_CLOSE, 1)[0].strip(), int(meta["completion_tokens"]), closes)

    def _wait(self, state: ProgramState, name: str) -> str:
        # SGLang only fills the variable or sets the error; which one is known when the state has caught up.
        if error := state.error():
            if isinstance(error, SpecReasonError):
                raise error
            msg = f"a call to a model failed: {error}"
            raise CallFailed(msg) from error
        return str(state[name])

    def _meta(self, state: ProgramState, name: str) -> dict[str, Any]:
        meta: dict[str, Any] = state.get_meta_info(name) or {}
        for message in meta.get("notices", ()):
            self.emit(Noticed(message=message))
        return meta

    def _tell_call(self, meta: dict[str, Any], kind: CallKind, step: int | None) -> None:
        self.emit(
            CallMade(
                step=step,
                model=meta["role"],
                kind=kind,
                prompt_tokens=meta["prompt_tokens"],
                cached_tokens=meta.get("cached_tokens", 0),
                generated_tokens=meta["completion_tokens"],
                wall_s=meta["wall_s"],
                engine_s=meta.get("e2e_latency"),
                finish=_finish(meta)[0],
                requests=meta.get("requests", 1),
                retries=meta.get("retries", 0),
            )
        )

    def _hear(self, model: Model, text: str) -> None:
        """Text on its way to the display; it is not part of the trace."""
        if self._sink:
            kind: CallKind = "answer" if self.ended else "draft" if model == "small" else "regenerate"
            step = None if self.ended else len(self.steps)
            at = time.perf_counter() - self._began
            self._sink(TextStreamed(at=at, step=step, model=model, kind=kind, text=text))


def _finish(meta: dict[str, Any]) -> tuple[str, Any]:
    reason = meta.get("finish_reason") or {}
    return reason.get("type", "stop"), reason.get("matched")


def _needed(endpoint: Endpoint | None, model: Model) -> Endpoint:
    if endpoint is None:
        msg = f"this program needs a {model} model"
        raise UsageError(msg, hint=f"name its server with `--{model} URL`, or use `--pair embedded`")
    return endpoint
