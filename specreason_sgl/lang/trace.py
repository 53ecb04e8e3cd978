"""What a program holds on to while it solves: the two models, the settings, and the growing trace.

A program reads its calls through the trace. That is where a failed call becomes an error (SGLang's own state would
hand out an older value or nothing), where every event is emitted, and where it is decided that thinking is over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import TYPE_CHECKING, Any

from specreason_sgl.errors import CallFailed, UsageError
from specreason_sgl.events import (
    AnswerWritten,
    CallKind,
    CallMade,
    DraftingChanged,
    Dropped,
    EndOfThinking,
    Event,
    Noticed,
    Role,
    Sink,
    SolveStarted,
    StepDrafted,
    StepScored,
    StepTaken,
    TextStreamed,
    ThinkingEnded,
)
from specreason_sgl.lang.back_off import BreakEven
from specreason_sgl.lang.states import check
from specreason_sgl.settings import Settings
from specreason_sgl.text.answers import boxed
from specreason_sgl.text.prompts import DELIMITER, THINK_CLOSE, neutralise
from specreason_sgl.text.scoring import Score, certain
from specreason_sgl.text.steps import first_stop, is_counting, is_repeat, split_steps, stuck_at

if TYPE_CHECKING:
    from sglang.lang.interpreter import ProgramState

    from specreason_sgl.engine.endpoint import Endpoint

MARGIN = 128
"""Tokens of a context kept for what stands around the steps: the judge's turn, delimiters, the end of thinking."""
STALLED = 2
"""So many steps in a row without a word end the thinking."""


@dataclass(frozen=True)
class Step:
    """A place in the chain of thought that is to be filled."""

    number: int
    """From 0."""
    most: int
    """The most tokens the step may have: the limit of a step or what is left of the budget."""
    end: str = DELIMITER
    """What ends a step."""
    closes: tuple[str, ...] = (THINK_CLOSE,)
    """What ends the thinking, of either model."""
    is_again: bool = False
    """Whether there was not a word in what was written here before."""

    @property
    def ends(self) -> list[str]:
        """The stop strings."""
        return [self.end, *self.closes]

    @property
    def delimiter(self) -> str:
        """What stands between this step and the one before it."""
        return self.end if self.number and not self.is_again else ""

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

    author: Role
    text: str
    """Without delimiters; empty if there is not a word in it."""
    tokens: int
    closes: bool
    """Whether it ended the thinking there."""
    repeats: bool = False
    """Whether it said one phrase over and over, of which three are left."""


class Trace:
    """One solve of one question."""

    def __init__(
        self,
        question: str,
        settings: Settings,
        *,
        program: str,
        choice: bool = False,
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
            choice: whether the question is one with options.
            base: the base model's server.
            small: the small model's server.
            sink: told of every event as it happens.
            stream: whether the sink also wants text while it is generated.
        """
        self.question = question
        self._choice = choice
        self.settings = settings
        self.events: list[Event] = []
        self.steps: list[str] = []
        self.tokens = 0
        """Thinking tokens so far."""
        self.ended: EndOfThinking | None = None
        self._held = 0
        """Tokens of the longest conversation that a model has been shown, with what it wrote behind it."""
        listen = self._hear if stream else None
        self._base = base and base.for_solve(listen, settings.seed)
        self._small = small and small.for_solve(listen, settings.seed)
        self._chats = [one.chat for one in (self._base, self._small) if one is not None]
        self._closes = tuple(dict.fromkeys(chat.thinking.close for chat in self._chats))
        self._sink = sink
        self._stalled = 0
        self._is_counting = False
        self._break_even = BreakEven()
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

    def _server(self, model: Role) -> Endpoint | None:
        return self._base if model == "base" else self._small

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

    @property
    def delimiter(self) -> str:
        """What ends a step."""
        return self.settings.delimiter

    def prefix(self, model: Role, steps: Sequence[str] | None = None) -> str:
        """The conversation so far, rendered for a model: its own template, the same reasoning.

        Args:
            model: whose template.
            steps: the reasoning, if not the one that was kept so far.
        """
        opening = _needed(self._server(model), model).chat.opening(self.question, choice=self._choice)
        return opening + self.delimiter.join([*(self.steps if steps is None else steps), ""])

    def next_steps(self) -> Iterator[Step]:
        """The places to fill, one after the other, until the thinking ends."""
        while self.ended is None:
            step = self.place(len(self.steps), self.tokens)
            if step is None:
                self._end("budget" if self.tokens >= self.settings.budget else "context")
                return
            yield step

    def place(self, number: int, tokens: int) -> Step | None:
        """The place of a step behind so many thinking tokens; None where the budget or a context is spent."""
        left = min(self.settings.budget - tokens, self._room("base", "small"))
        most = min(self.settings.max_step_tokens, left)
        return Step(number, most, self.delimiter, self._closes, self._stalled > 0) if left > 0 else None

    def most(self, model: Role) -> int:
        """The most tokens of a whole chain of thought by one model: the budget, or what its context has room for.

        At least one, so that a server can say itself what does not fit.
        """
        return max(1, min(self.settings.budget, self._room(model)))

    def _room(self, *models: Role) -> int:
        """How much longer the thinking may get so that the answer still fits into these models' contexts."""
        servers = [(model, one, one.context) for model in models if (one := self._server(model)) and one.context]
        if not servers:
            return self.settings.budget
        room = min(context for _, _, context in servers) - self.settings.answer_tokens - MARGIN
        for model, one, _ in () if self._held else servers:
            opening = self.prefix(model)
            # A token has at least one byte, so that hardly any question must be counted before its first call.
            if len(opening.encode("utf-8", "replace")) + self.settings.budget > room:
                self._held = max(self._held, len(one.tokens(opening)))
        return room - self._held

    def wants_draft(self, step: Step) -> bool:
        """Whether the small model is to try: not on the first steps that are the base model's, nor where it loses."""
        if step.number < self.settings.first_n:
            return False
        if not self.settings.back_off:
            return True
        account = self._break_even
        before, now = account.drafting, account.next_step()
        if before != now:
            told = DraftingChanged(
                step=step.number, drafting=now, acceptance=account.acceptance, predicted=account.predicted or 1.0
            )
            self.emit(told)
        return now

    def parts(self, state: ProgramState, step: Step) -> Iterator[tuple[str, int]]:
        """The generations that make up a draft, as (name, most tokens): one, or more until it is worth a judgement."""
        yield step.draft, step.most
        tokens, number = 0, 0
        while self.settings.min_step_tokens:
            part = self.peek(state, _part(step, number))
            tokens += part.tokens
            if not part.text or part.closes or part.repeats or tokens >= min(self.settings.min_step_tokens, step.most):
                return
            state += self.delimiter
            number += 1
            yield _part(step, number), step.most - tokens

    def drafted(self, state: ProgramState, step: Step) -> Written:
        """Wait for the small model's draft and tell of it."""
        draft = self.merged(state, step)
        seconds = 0.0
        for name in self._names(state, step):
            meta = self._meta(state, name)
            self._tell_call(meta, "draft", step.number)
            seconds += meta["wall_s"]
        self._break_even.draft_s.add(seconds)
        self.emit(StepDrafted(step=step.number, text=draft.text, tokens=draft.tokens, closes=draft.closes))
        return draft

    def merged(self, state: ProgramState, step: Step) -> Written:
        """Wait for a draft without telling of it; one of several parts is put together."""
        parts = [self.peek(state, name) for name in self._names(state, step)]
        text = self.delimiter.join(part.text for part in parts if part.text)
        tokens = sum(part.tokens for part in parts)
        return Written(parts[0].author, text, tokens, parts[-1].closes, parts[-1].repeats)

    def _names(self, state: ProgramState, step: Step) -> list[str]:
        more = takewhile(lambda name: name in state, (_part(step, number) for number in count(1)))
        return [step.draft, *more]

    def asked(self, state: ProgramState, step: Step) -> list[str]:
        """The prompts of the generations that made up a draft."""
        texts = [state[name] + self.delimiter for name in self._names(state, step)]
        return [self.prefix("small") + "".join(texts[:number]) for number in range(len(texts))]

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
        self._break_even.judge_s.add(meta["wall_s"])
        return self._tell_score(step, score, score.accepts(self.settings.score, self.settings.threshold))

    def decided(self, step: Step, accepted: bool) -> bool:
        """Tell of a decision that no judge has made, such as a control's; as a score it is a certain 9 or 0."""
        return self._tell_score(step, certain("9" if accepted else "0"), accepted)

    def _tell_score(self, step: Step, score: Score, accepted: bool) -> bool:
        self._break_even.judged(accepted)
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
        own = self._read(state, step.text, "regenerate", step.number)
        if own.tokens:
            self._break_even.base_token_s.add(state.get_meta_info(step.text)["wall_s"] / own.tokens)
        return own

    def dropped(self, state: ProgramState, step: Step, kind: CallKind) -> None:
        """Wait for a call that was given up, and tell what it had come to; it may have failed for just that."""
        state.error()
        names = {"draft": self._names(state, step), "judge": [step.score]}.get(kind, [step.text])
        done = [meta for name in names if name in state and (meta := state.get_meta_info(name))]
        for meta in done:
            self._tell_call(meta, kind, step.number, dropped=True)
        if done and kind != "judge":
            tokens = sum(int(meta["completion_tokens"]) for meta in done)
            self.emit(Dropped(step=step.number, model=done[0]["role"], tokens=tokens))

    def take(self, step: Step, kept: Written) -> str:
        """Let a step into the reasoning, and see whether the thinking ends with it; returns its text."""
        repeats = kept.repeats or is_repeat(self.steps, kept.text)
        if not (self._is_counting or repeats) and is_counting(self.steps, kept.text):
            self._is_counting = True
            self.emit(Noticed(message=f"since step {step.number} the thinking says the same with other numbers"))
        self.tokens += kept.tokens
        self._stalled = 0 if kept.text else self._stalled + 1
        if kept.text:
            self.steps.append(kept.text)
            self._break_even.step_tokens.add(kept.tokens)
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
        steps = split_steps(whole.text, self.delimiter)
        shares = [whole.tokens * part // len(steps) for part in range(len(steps) + 1)] if steps else [0]
        repeats = whole.repeats
        for number, text in enumerate(steps):
            circle = is_repeat(self.steps, text)
            self.steps.append(text)
            share = shares[number + 1] - shares[number]
            closes = whole.closes and not circle and number + 1 == len(steps)
            self.emit(StepTaken(step=number, author=whole.author, text=text, tokens=share, closes=closes))
            if circle:
                repeats = True
                break
        self.tokens = whole.tokens
        if rest := shares[-1] - shares[len(self.steps)]:
            self.emit(Dropped(step=len(self.steps), model=whole.author, tokens=rest))
        spent: EndOfThinking = "budget" if self.tokens >= self.settings.budget else "context"
        self._end("repeat" if repeats else "closed" if whole.closes else spent)
        return self.delimiter.join(self.steps)

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

    def peek(self, state: ProgramState, name: str) -> Written:
        """Wait for what a model writes, without telling of it."""
        text = self._wait(state, name)
        meta = state.get_meta_info(name)
        finish, matched = _finish(meta)
        # A model that ends its turn without closing the thinking has nothing more to think either.
        closes = finish == "stop" and matched != self.delimiter
        stuck = stuck_at(text) if finish in {"length", "repeat"} else None
        # A model can spell out what would be a control token where the other one, or its judge, reads it as text.
        control = [token for chat in self._chats for token in chat.control]
        place, _ = first_stop(text[:stuck], self._closes) or (stuck, "")
        tidied = neutralise(text[:place].strip(), control)
        return Written(meta["role"], tidied, int(meta["completion_tokens"]), closes, stuck is not None)

    def _read(self, state: ProgramState, name: str, kind: CallKind, step: int | None) -> Written:
        written = self.peek(state, name)
        self._tell_call(self._meta(state, name), kind, step)
        return written

    def _wait(self, state: ProgramState, name: str) -> str:
        # SGLang only fills the variable or sets the error; which one is known when the state has caught up.
        check(state)
        text = state[name]
        if not isinstance(text, str):
            raise UsageError(f"`{name}` is {len(text)} texts", hint="a step is one: use `gen` without `n`, or fork")
        return text

    def _meta(self, state: ProgramState, name: str) -> dict[str, Any]:
        meta: dict[str, Any] = state.get_meta_info(name) or {}
        for message in meta.get("notices", ()):
            self.emit(Noticed(message=message))
        return meta

    def _tell_call(self, meta: dict[str, Any], kind: CallKind, step: int | None, *, dropped: bool = False) -> None:
        self._held = max(self._held, meta["prompt_tokens"] + meta["completion_tokens"])
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
                lost_s=meta.get("lost_s", 0.0),
                dropped=dropped,
            )
        )

    def _hear(self, model: Role, text: str) -> None:
        """Text on its way to the display; it is not part of the trace."""
        if self._sink:
            kind: CallKind = "answer" if self.ended else "draft" if model == "small" else "regenerate"
            step = None if self.ended else len(self.steps)
            at = time.perf_counter() - self._began
            self._sink(TextStreamed(at=at, step=step, model=model, kind=kind, text=text))


def _part(step: Step, number: int) -> str:
    return f"{step.draft}_{number}" if number else step.draft


def _finish(meta: dict[str, Any]) -> tuple[str, Any]:
    reason = meta.get("finish_reason") or {}
    return reason.get("type", "stop"), reason.get("matched")


def _needed(endpoint: Endpoint | None, model: Role) -> Endpoint:
    if endpoint is None:
        msg = f"this program needs a {model} model"
        raise UsageError(msg, hint=f"name its server with `--{model} URL`, or use `--pair embedded`")
    return endpoint
