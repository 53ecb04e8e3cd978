"""One question being solved: the models and limits that a program has, and the events that it emits.

A program reads its calls through the solve. A failed call becomes an error there (SGLang's own state would return an
older value or nothing), and every event is emitted there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, takewhile
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from specreason_sgl.errors import CallFailed, UsageError
from specreason_sgl.events import (
    AnswerWritten,
    Author,
    CallKind,
    CallMade,
    Dropped,
    Event,
    Noticed,
    Role,
    Sink,
    SolveStarted,
    StepDrafted,
    StepScored,
    TextStreamed,
)
from specreason_sgl.lang.chain import Chain, Place, Purpose, chain_opened
from specreason_sgl.lang.knobs import as_json
from specreason_sgl.lang.scope import Scope
from specreason_sgl.lang.states import check
from specreason_sgl.settings import Settings
from specreason_sgl.text.answers import boxed, is_same
from specreason_sgl.text.prompts import neutralise
from specreason_sgl.text.scoring import Fitted, Score, certain, softmax
from specreason_sgl.text.steps import first_stop, stuck_at

if TYPE_CHECKING:
    from sglang.lang.interpreter import ProgramState

    from specreason_sgl.lang.backend import Backend, Hear
    from specreason_sgl.runs.store import Problem
    from specreason_sgl.text.chat import ChatFormat

B = TypeVar("B")

WRITERS = ("base", "small")
"""The roles that write steps; a chain has to fit into their contexts."""


@dataclass(frozen=True)
class Written:
    """What a model wrote."""

    author: Author
    text: str
    """The text without delimiters; empty if it has no word."""
    tokens: int
    closes: bool
    """Whether the model ended its thinking after the text."""
    repeats: bool = False
    """Whether the model repeated one phrase without end; the text keeps three of the repeats."""
    seconds: float = 0.0
    """How long the call took."""
    meta: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What the server reports about the call, such as log-probabilities that `sgl.gen` asked for."""
    raw: str = field(default="", repr=False, compare=False)
    """The text with the white space around it, for text that goes on in the middle of a step."""

    @property
    def stop(self) -> str | None:
        """The stop string that ended it; None if something else did."""
        matched = _finish(self.meta)[1]
        return matched if isinstance(matched, str) else None

    def cut(self, text: str, tokens: int) -> Written:
        """Only the beginning of it: a text that something else goes on from, and its tokens."""
        return Written(self.author, text.strip(), tokens, closes=False, seconds=self.seconds, raw=text)


@dataclass(frozen=True)
class Choice:
    """What a model chose among several texts."""

    text: str
    logprobs: tuple[float, ...]
    """The log-probability of each text behind the prompt."""

    @property
    def shares(self) -> tuple[float, ...]:
        """The probability of each text, given that it is one of them."""
        return softmax(self.logprobs)


class Solve:
    """One question being solved; the second argument of every program."""

    def __init__(
        self,
        problem: Problem,
        settings: Settings,
        models: Mapping[Role, Backend],
        *,
        program: str,
        knobs: Mapping[str, Any] | None = None,
        sink: Sink | None = None,
        stream: bool | Collection[CallKind] = False,
        scope: Scope | None = None,
    ) -> None:
        """Begin the solve; its clock starts here.

        Args:
            problem: the question.
            settings: limits and sampling.
            models: the servers by role.
            program: the program's name, for the record.
            knobs: what the program's own parameters are set to.
            sink: called with every event as it happens.
            stream: whether the sink also gets text while it is generated; or of which kinds of calls it does.
            scope: the scope of its calls, by which they can be cancelled.
        """
        self.scope = scope or Scope(parent=next((model.scope for model in models.values()), None))
        self.problem = problem
        self.settings = settings
        self._streams = stream if sink else False
        self.models = {
            role: model.within(
                self.scope, role=role, listen=self._listen if self._streams else None, seed=settings.seed
            )
            for role, model in models.items()
        }
        self._chats = {
            role: model.chat.asking(model.chat.prompts.with_words(settings.instruction, settings.judge))
            for role, model in models.items()
        }
        self.events: list[Event] = []
        self.chains: list[Chain] = []
        self.guards: list[Callable[[Chain], None]] = []
        """Called with a chain before each of its places, and when its thinking has ended: they may add text, cut the
        chain, end it, or reopen it."""
        self.purposes: dict[str, Purpose] = {}
        """What each variable is filled for whose name a place or a chain gave."""
        self.closes = tuple(dict.fromkeys(chat.thinking.close for chat in self._chats.values()))
        """The texts that end the thinking, of all the models."""
        self.control = tuple(dict.fromkeys(token for chat in self._chats.values() for token in chat.control))
        """The control tokens of all models: one model's plain text can be another model's control token."""
        self.writers = tuple(role for role in WRITERS if role in models)
        self._listeners: list[Sink] = [sink] if sink else []
        self._openings: dict[Role, str] = {}
        self._told: set[tuple[Role, str]] = set()
        """What was told of models that is told once."""
        self._lock = threading.RLock()
        self._began = time.perf_counter()
        shown = as_json(knobs or {})
        threshold, rule, given = shown.get("threshold"), shown.get("score"), (knobs or {}).get("score")
        self._threshold = float(threshold) if isinstance(threshold, int | float) else None
        self.emit(
            SolveStarted(
                question=problem.question,
                program=program,
                budget=settings.budget,
                threshold=self._threshold,
                score_rule=rule if isinstance(rule, str) else str(given) if isinstance(given, Fitted) else None,
                parameters=shown,
            )
        )

    def model(self, role: Role) -> Backend:
        """A model's server, as a backend.

        Raises:
            UsageError: there is no model in this role.
        """
        return model_in(self.models, role)

    @property
    def base(self) -> Backend:
        """The base model's server, as a backend."""
        return self.model("base")

    @property
    def small(self) -> Backend:
        """The small model's server, as a backend."""
        return self.model("small")

    def role(self, *wanted: Role) -> Role:
        """The first of these roles that has a model; the last one if none has."""
        return next((role for role in wanted if role in self.models), wanted[-1])

    def lots(self, purpose: str = "") -> Random:
        """Random numbers for a program's own draws: the same for the same seed, question and purpose."""
        return Random(f"{self.settings.seed}:{self.problem.question}{purpose}")

    def chat(self, role: Role) -> ChatFormat:
        """How a model writes turns and thinking, and the prompts that it is given.

        Raises:
            UsageError: there is no model in this role.
        """
        self.model(role)
        return self._chats[role]

    def on_a_chance(self, role: Role, scope: Scope) -> Backend:
        """A model's server for calls whose results may be useless: they stream nothing and end with the scope."""
        return self.model(role).within(scope)

    @property
    def sampling(self) -> dict[str, Any]:
        """How models sample, as keyword arguments of `sgl.gen` and `run`."""
        return {"temperature": self.settings.temperature, "top_p": self.settings.top_p}

    @property
    def answering(self) -> dict[str, Any]:
        """The limits and the form of the answer phase, as keyword arguments of `sgl.gen`."""
        settings = self.settings
        given = {"stop": list(settings.stop), "json_schema": settings.json_schema, "regex": settings.regex}
        return {"max_tokens": settings.answer_tokens, **{name: value for name, value in given.items() if value}}

    def opening(self, role: Role) -> str:
        """The conversation up to the first step, in the template of a model."""
        if role not in self._openings:
            asked = self.problem
            self._openings[role] = self.chat(role).opening(asked.question, choice=asked.choice, earlier=asked.earlier)
        return self._openings[role]

    def chain(self, parent: Chain | None = None, *, budget: int | None = None, keep: int | None = None) -> Chain:
        """A chain of thought with nothing in it; `Chain.fork` makes one that begins with what another has.

        Without a thinking budget the thinking has ended before it begins.

        Args:
            parent: the chain that it is a fork of.
            budget: its thinking budget, at most that of the settings.
            keep: how many of its parent's steps it begins with; all if not given.
        """
        with self._lock:
            chain = Chain(self, len(self.chains), budget=parent.budget if parent else budget)
            self.chains.append(chain)
        if chain.number:
            self.emit(chain_opened(parent, keep), chain)
        if parent is None and not chain.budget:
            chain.end("budget")
        return chain

    def emit(self, event: Event, chain: Chain | None = None) -> None:
        """Add time and chain to an event, keep it and pass it to the listeners."""
        with self._lock:
            at = round(time.perf_counter() - self._began, 6)
            stamped = event.model_copy(update={"at": at, "chain": chain.number if chain else event.chain})
            self.events.append(stamped)
            for listener in self._listeners:
                listener(stamped)

    def forget(self) -> None:
        """Have the servers forget what the calls have sent; for the end."""
        for model in self.models.values():
            model.forget()

    def listen(self, listener: Sink) -> None:
        """Call a listener with every event from here on."""
        self._listeners.append(listener)

    def read(
        self, state: ProgramState, kind: CallKind, at: Place | Chain, attempt: int = 0, *, is_candidate: bool = False
    ) -> Written:
        """Wait for what a model writes, and emit the event of the call.

        Args:
            state: the state that made the call.
            kind: what the call was made for: ``draft`` and ``regenerate`` for a step, ``think`` for a whole chain, or a
                word of the program's own.
            at: the place or the chain whose `named` gave the call's variable.
            attempt: the number of the call among several of that kind for the place, from 0.
            is_candidate: whether it is told as a candidate for the step, as every ``draft`` is.

        Raises:
            SpecReasonError: the call failed.
        """
        names = self._names(state, kind, at, attempt)
        written = self._joined([self.peek(state, name) for name in names], _chain(at).delimiter)
        for name in names:
            self._tell(state, name, kind, at)
        if (kind == "draft" or is_candidate) and isinstance(at, Place):
            drafted = StepDrafted(
                step=at.number,
                author=written.author,
                attempt=attempt,
                text=written.text,
                tokens=written.tokens,
                closes=written.closes,
            )
            self.emit(drafted, at.chain)
        return written

    def peek(self, state: ProgramState, name: str) -> Written:
        """Wait for the text of a variable, without emitting an event.

        Raises:
            SpecReasonError: the call failed.
        """
        text = self._wait(state, name)
        meta = state.get_meta_info(name) or {}
        finish, matched = _finish(meta)
        # A model that ends its turn without closing the thinking has nothing more to think either.
        closes = finish == "stop" and (not isinstance(matched, str) or matched in self.closes)
        stuck = stuck_at(text) if finish in {"length", "repeat"} else None
        place, _ = first_stop(text[:stuck], self.closes) or (stuck, "")
        raw = neutralise(text[:place], self.control)
        tokens, seconds = int(meta["completion_tokens"]), meta["wall_s"]
        return Written(meta["role"], raw.strip(), tokens, closes, stuck is not None, seconds, meta, raw)

    def drafted(self, state: ProgramState, place: Place) -> Written:
        """Wait for a draft without emitting an event."""
        names = self._names(state, "draft", place, 0)
        return self._joined([self.peek(state, name) for name in names], place.chain.delimiter)

    def score(self, state: ProgramState, place: Place, attempt: int = 0) -> Score:
        """Wait for the judge's choice among the digits, and emit the event of the call.

        Raises:
            SpecReasonError: the call failed, or gave no score.
        """
        name = place.named("judge", attempt)
        digit = self._wait(state, name)
        meta = self._tell(state, name, "judge", place)
        logprobs = meta.get("digit_logprobs")
        try:
            score = Score(tuple(logprobs)) if logprobs else certain(digit)
        except ValueError as error:
            msg = f"the judge gave no usable score at step {place.number}: {error}"
            raise CallFailed(msg) from error
        return replace(score, tokens=self._drafted_tokens(place, attempt))

    def choice(self, state: ProgramState, kind: CallKind, at: Place | Chain, attempt: int = 0) -> Choice:
        """Wait for a choice among several texts, and emit the event of the call.

        Raises:
            SpecReasonError: the call failed, or its server gave no log-probabilities.
        """
        name = at.named(kind, attempt)
        chosen = self._wait(state, name)
        logprobs = self._tell(state, name, kind, at).get("digit_logprobs")
        if not logprobs:
            raise CallFailed(f"the {kind} gave no log-probabilities")
        return Choice(chosen, tuple(logprobs))

    def decide(
        self,
        place: Place,
        accepted: bool,
        score: Score | None = None,
        *,
        attempt: int = 0,
        value: float | None = None,
        measure: str = "",
    ) -> bool:
        """Emit the event of a decision on a draft; returns the decision.

        Args:
            place: the place of the draft.
            accepted: whether the draft is kept.
            score: the judge's score; if no judge was asked, a certain 9 or 0 is recorded.
            attempt: the number of the draft among several candidates for the place, from 0.
            value: the number by which it was decided, where that is not the score.
            measure: what that number is, in a word for readers.
        """
        score = score or certain("9" if accepted else "0")
        threshold = 7.0 if self._threshold is None else self._threshold
        self.emit(
            StepScored(
                step=place.number,
                attempt=attempt,
                value=value,
                measure=measure,
                logprobs=score.logprobs,
                greedy=score.greedy,
                expected=score.expected,
                reaching=score.reaching(threshold),
                entropy=score.entropy,
                missing_mass=score.missing_mass,
                accepted=accepted,
            ),
            place.chain,
        )
        return accepted

    def drop(self, state: ProgramState, place: Place, kind: CallKind) -> None:
        """Wait for the end of a cancelled call, and emit events of what it cost; that it failed is no error here."""
        state.error()
        done = [name for name in self._names(state, kind, place, 0) if name in state and state.get_meta_info(name)]
        metas = [self._tell(state, name, kind, place, dropped=True) for name in done]
        if metas and kind != "judge":
            tokens = sum(int(meta["completion_tokens"]) for meta in metas)
            self.emit(Dropped(step=place.number, model=metas[0]["role"], tokens=tokens), place.chain)

    def answer(self, state: ProgramState, chain: Chain, attempt: int = 0) -> str:
        r"""Wait for the answer phase; returns what the last ``\boxed{}`` holds, or nothing.

        Raises:
            SpecReasonError: the call failed.
        """
        name = chain.named("answer", attempt)
        text = self._wait(state, name)
        meta = self._tell(state, name, "answer", chain)
        answer = boxed(text)
        truncated = _finish(meta)[0] == "length"
        self.emit(AnswerWritten(author=meta["role"], text=text.strip(), answer=answer, truncated=truncated), chain)
        return answer or ""

    def vote(self, answers: Sequence[str]) -> str:
        """The most frequent answer, the earliest of them on a tie; it becomes the solve's answer."""
        given = [answer for answer in answers if answer]
        most = max(given, key=lambda one: sum(is_same(one, other) for other in given), default="")
        self.emit(AnswerWritten(author="vote", text="", answer=most or None, truncated=False))
        return most

    def notice(self, message: str, chain: Chain | None = None, author: Author = "") -> None:
        """Emit a line for whoever reads the trace, in the name of an author if it is somebody's."""
        self.emit(Noticed(message=message, author=author), chain)

    def _notice_once(self, message: str, chain: Chain, role: Role) -> None:
        """Emit a line about a model, unless it was told before."""
        with self._lock:
            if (role, message) not in self._told:
                self._told.add((role, message))
                self.notice(message, chain, role)

    def _listen(self, role: Role, name: str) -> Hear | None:
        # A name of the program's own is that of the first chain, which puts no number to its names.
        made_for = self.purposes.get(name) or Purpose(0, None, name)
        is_heard = self._streams if isinstance(self._streams, bool) else made_for.kind in self._streams
        return partial(self._hear, role, made_for) if is_heard else None

    def _hear(self, role: Role, made_for: Purpose, text: str) -> None:
        """Pass streamed text to the display; it is not stored."""
        at = time.perf_counter() - self._began
        heard = TextStreamed(
            at=at,
            chain=made_for.chain,
            step=made_for.step,
            model=role,
            kind=made_for.kind,
            attempt=made_for.attempt,
            text=text,
        )
        for listener in self._listeners:
            listener(heard)

    def _wait(self, state: ProgramState, name: str) -> str:
        # SGLang only fills the variable or sets the error; which one is known when the state has caught up.
        check(state)
        text = state[name]
        if not isinstance(text, str):
            raise UsageError(f"`{name}` is {len(text)} texts", hint="a step is one: use `gen` without `n`, or fork")
        return text

    def _drafted_tokens(self, place: Place, attempt: int) -> int:
        """The length of the draft of a step that was read last; 0 if there is none."""
        wanted = place.chain.number, place.number, attempt
        drafts = (event for event in reversed(self.events) if isinstance(event, StepDrafted))
        return next((each.tokens for each in drafts if (each.chain, each.step, each.attempt) == wanted), 0)

    def _names(self, state: ProgramState, kind: CallKind, at: Place | Chain, attempt: int) -> list[str]:
        """The variables of a call: one, or one for each part of a step that was generated in parts."""
        if isinstance(at, Chain):
            return [at.named(kind, attempt)]
        more = (at.named(kind, attempt, part) for part in count(1))
        return [at.named(kind, attempt), *takewhile(lambda name: name in state, more)]

    def _joined(self, parts: Sequence[Written], delimiter: str) -> Written:
        first, *more = parts
        if not more:
            return first
        return Written(
            first.author,
            delimiter.join(part.text for part in parts if part.text),
            sum(part.tokens for part in parts),
            parts[-1].closes,
            parts[-1].repeats,
            sum(part.seconds for part in parts),
            first.meta,
            delimiter.join(part.raw for part in parts if part.text),
        )

    def _tell(
        self, state: ProgramState, name: str, kind: CallKind, at: Place | Chain, *, dropped: bool = False
    ) -> dict[str, Any]:
        """Emit the event of a call that has returned; returns the call's meta information."""
        meta: dict[str, Any] = state.get_meta_info(name) or {}
        chain = _chain(at)
        for message in meta.get("notices", ()):
            self.emit(Noticed(message=message), chain)
        for message in meta.get("notices_once", ()):
            self._notice_once(message, chain, meta["role"])
        chain.held(meta["prompt_tokens"] + meta["completion_tokens"])
        self.emit(
            CallMade(
                step=at.number if isinstance(at, Place) else None,
                model=meta["role"],
                kind=kind,
                prompt_tokens=meta["prompt_tokens"],
                cached_tokens=meta.get("cached_tokens", 0),
                recomputed_tokens=meta.get("recomputed_tokens", 0),
                transport=meta.get("transport", ""),
                generated_tokens=meta["completion_tokens"],
                wall_s=meta["wall_s"],
                engine_s=meta.get("e2e_latency"),
                finish=_finish(meta)[0],
                rounds=meta.get("spec_verify_ct") or 0,
                requests=meta.get("requests", 1),
                retries=meta.get("retries", 0),
                lost_s=meta.get("lost_s", 0.0),
                dropped=dropped,
            ),
            chain,
        )
        return meta


def model_in(models: Mapping[Role, B], role: Role) -> B:
    """The model in a role.

    Raises:
        UsageError: there is no model in this role.
    """
    if role in models:
        return models[role]
    hint = f"`--{role} URL`, or use `--pair embedded`" if role in WRITERS else f"`--model {role}=URL`"
    raise UsageError(f"this needs a {role} model", hint=f"name its server with {hint}")


def _chain(at: Place | Chain) -> Chain:
    return at.chain if isinstance(at, Place) else at


def _finish(meta: Mapping[str, Any]) -> tuple[str, Any]:
    reason = meta.get("finish_reason") or {}
    return reason.get("type", "stop"), reason.get("matched")
