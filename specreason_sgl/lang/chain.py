"""A growing chain of thought: a program takes steps into it, adds text, cuts it back, forks it and ends it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from specreason_sgl.events import (
    Author,
    CallKind,
    ChainOpened,
    Dropped,
    EndOfThinking,
    Event,
    Noticed,
    Role,
    StepsCut,
    StepTaken,
    TextAdded,
    ThinkingEnded,
)
from specreason_sgl.text.prompts import neutralise
from specreason_sgl.text.steps import counting, repeats, split_steps

if TYPE_CHECKING:
    from sglang.lang.interpreter import ProgramState

    from specreason_sgl.lang.solve import Solve, Written

MARGIN = 128
"""Tokens of a context that are kept free for the judge's turn, the delimiters and the end of the thinking."""
STALLED = 2
"""The thinking ends after so many empty steps in a row."""


@dataclass(frozen=True)
class Place:
    """A place in a chain that is to be filled with a step."""

    chain: Chain = field(repr=False)
    number: int
    """The step's number, from 0."""
    most: int
    """The most tokens the step may have: the limit of a step or what is left of the budget."""
    again: int = 0
    """How many earlier attempts at this place wrote nothing."""

    @property
    def stops(self) -> list[str]:
        """The stop strings of a step: the delimiter, and what ends the thinking of each of the solve's models."""
        return [self.chain.delimiter, *self.chain.solve.closes]

    def named(self, kind: CallKind, attempt: int = 0, part: int = 0) -> str:
        """The variable of a call for this place, by which `Solve.read` finds it.

        The name holds chain, step, kind and attempt, which decide the call's sampling seed. No two calls share a
        variable, so a failed call never shows the value of an older one.

        Args:
            kind: what the call is made for, such as ``draft``.
            attempt: the number of the call among several of that kind, from 0.
            part: the number of the call among those that make up one step, from 0.
        """
        counted = {"again": self.again, "try": attempt, "part": part}
        more = "".join(f"_{word}_{times}" for word, times in counted.items() if times)
        return self.chain.called(f"{kind}_{self.number}{more}", kind, self.number, attempt)


@dataclass(frozen=True)
class Purpose:
    """What a variable is filled for."""

    chain: int
    """The chain's number."""
    step: int | None
    """None for whole chains and the answer."""
    kind: CallKind
    attempt: int = 0
    """The number of the call among several of that kind."""


@dataclass(frozen=True)
class _Piece:
    """A piece of a chain: a step, or other text after ``step`` steps."""

    step: int
    text: str
    """The piece as it stands in a prompt."""
    tokens: int


class Chain:
    """A chain of thought; from `Solve.chain` or `Chain.fork`."""

    def __init__(self, solve: Solve, number: int, *, budget: int | None = None, is_supposed: bool = False) -> None:
        """Begin an empty chain."""
        self.solve = solve
        self.number = number
        self.budget = solve.settings.budget if budget is None else min(budget, solve.settings.budget)
        """The most thinking tokens."""
        self._is_supposed = is_supposed
        self.steps: list[str] = []
        """The text of each step, with the pieces of it that were added before its end."""
        self.tokens = 0
        """The thinking tokens in it."""
        self.ended: EndOfThinking | None = None
        """Why the thinking ended; None while it goes on."""
        self._pieces: list[_Piece] = []
        self._text = ""
        self._repeats, self._counting = repeats(), counting()
        self._held = 0
        """Tokens of the longest prompt that a model was given of this chain, with what the model wrote after it."""
        self._stalled = 0
        self._is_counting = False

    @property
    def delimiter(self) -> str:
        """What separates steps."""
        return self.solve.settings.delimiter

    @property
    def text(self) -> str:
        """The reasoning as it stands in a prompt, ready for the next step."""
        return self._text

    @property
    def length(self) -> int:
        """The tokens of the longest prompt that a model was given of it, with what the model wrote behind that."""
        return self._held

    def named(self, kind: CallKind, attempt: int = 0) -> str:
        """The variable of a call for the whole chain, by which `Solve.read` finds it; see `Place.named`."""
        return self.called(f"{kind}_try_{attempt}" if attempt else kind, kind, None, attempt)

    def called(self, name: str, kind: CallKind, step: int | None, attempt: int) -> str:
        """Put the chain's number to a variable's name, and have the solve know what streams under that name."""
        name = f"chain_{self.number}_{name}" if self.number else name
        self.solve.purposes[name] = Purpose(self.number, step, kind, attempt)
        return name

    def prompt(self, role: Role, *ahead: str) -> str:
        """The conversation so far in a model's template: the opening and the reasoning.

        Args:
            role: the model whose template is used.
            ahead: further steps after the reasoning, such as a draft; they do not become part of the chain.
        """
        return "".join((self.solve.opening(role), self._text, *(step + self.delimiter for step in ahead)))

    def closed(self, role: Role) -> str:
        """The same prompt with the thinking closed, so that the answer comes next."""
        return self.prompt(role).removesuffix(self.delimiter) + self.solve.chat(role).close_thinking

    def places(self) -> Iterator[Place]:
        """The places to fill, one after the other, until the thinking ends.

        Before each of them, and when the thinking has ended, the solve's guards have their say.
        """
        while True:
            for guard in self.solve.guards:
                guard(self)
            if self.ended is not None:
                return
            place = self.place()
            if place is None:
                self.end("budget" if self.tokens >= self.budget else "context")
                return
            yield place

    def place(self) -> Place | None:
        """The next place; None where the budget or a context is used up."""
        left = min(self.budget - self.tokens, self.room(*self.solve.writers))
        most = min(self.solve.settings.max_step_tokens, left)
        return Place(self, len(self.steps), most, self._stalled) if left > 0 else None

    def most(self, role: Role) -> int:
        """The most tokens that one model may write for a whole chain: what is left of the budget and of its context.

        It is at least 1, so that the server itself reports a prompt that does not fit.
        """
        return max(1, min(self.budget - self.tokens, self.room(role)))

    def room(self, *roles: Role) -> int:
        """How many more thinking tokens the contexts of these models allow, with the room for the answer kept free."""
        settings = self.solve.settings
        models = {role: self.solve.model(role) for role in roles}
        contexts = [model.context for model in models.values() if model.context]
        if not contexts:
            return self.budget
        room = min(contexts) - settings.answer_tokens - MARGIN
        for role, model in () if self._held else models.items():
            opening = self.prompt(role)
            # A token has at least one byte, so that hardly any question must be counted before its first call.
            if len(opening.encode("utf-8", "replace")) + self.budget > room:
                self._held = max(self._held, len(model.tokens(opening)))
        return room - self._held

    def parts(self, state: ProgramState, place: Place, kind: CallKind, least: int) -> Iterator[tuple[str, int]]:
        """The generations that make up a step, as (variable, most tokens): more than one where the step is too short.

        Args:
            state: the state that generates.
            place: the place of the step.
            kind: what the calls are made for.
            least: the fewest tokens of the step: a shorter one is joined with the next unless it ends the thinking; 0
                joins nothing.
        """
        name, tokens, number = place.named(kind), 0, 0
        yield name, place.most
        while least:
            part = self.solve.peek(state, name)
            tokens += part.tokens
            if not part.text or part.closes or part.repeats or tokens >= min(least, place.most):
                return
            state += self.delimiter
            number += 1
            name = place.named(kind, part=number)
            yield name, place.most - tokens

    def take(self, place: Place, written: Written) -> str:
        """Add a step to the reasoning, and end the thinking if the step is a reason to; returns the step's text."""
        whole = self.begun + written.text
        in_circles = written.repeats or self._repeats.is_closed_by(whole)
        if not (self._is_counting or in_circles) and self._counting.is_closed_by(whole):
            self._is_counting = True
            self._emit(Noticed(message=f"since step {place.number} the thinking says the same with other numbers"))
        self._stalled = 0 if whole else self._stalled + 1
        self._grow(written.text, written.tokens, written.author, closes=written.closes)
        if written.closes:
            self.end("closed")
        elif in_circles:
            self.end("repeat")
        elif self._stalled >= STALLED:
            self.end("no-progress")
        return written.text

    def go_on(self, place: Place, written: Written, behind: str = "") -> bool:
        """Let in what one of several authors wrote of a step, white space and all; returns whether that completes it.

        A step is complete if the model ended it or the thinking, or repeated itself without end.

        Args:
            place: the place of the step.
            written: what was written; it may be nothing.
            behind: text to put behind it where the step is not complete, such as a stop string that belongs to it.
        """
        if written.closes or written.repeats or written.stop == self.delimiter:
            text = written.raw.rstrip() if self.begun else written.text
            self.take(place, replace(written, text=text))
            return True
        if text := written.raw + behind:
            self.add(text, written.author, tokens=written.tokens)
        self._stalled = 0 if text else self._stalled + 1
        if self._stalled >= STALLED:
            self.end("no-progress")
        return False

    def drop(self, author: Role, tokens: int) -> None:
        """Tell that tokens were generated that are of no use."""
        if tokens:
            self._emit(Dropped(step=len(self.steps), model=author, tokens=tokens))

    @property
    def begun(self) -> str:
        """What there is of a step that is not complete."""
        if self._text.endswith(self.delimiter):
            return ""
        end = self._text.rfind(self.delimiter)
        return self._text[end + len(self.delimiter) if end >= 0 else 0 :]

    def think(self, written: Written) -> str:
        """Add all steps of a whole chain of thought that one model wrote in one call; returns the reasoning.

        Only the call's tokens are known; each step is said to have its share of them by the length of its text.
        """
        steps = split_steps(written.text, self.delimiter)
        ends = list(accumulate((len(step) + len(self.delimiter) for step in steps), initial=0))
        shares = [written.tokens * end // max(1, ends[-1]) for end in ends]
        in_circles, taken = written.repeats, 0
        for text in steps:
            circle, is_last = self._repeats.is_closed_by(text), taken + 1 == len(steps)
            closes = written.closes and not circle and is_last
            self._grow(text, shares[taken + 1] - shares[taken], written.author, closes=closes)
            taken += 1
            if circle:
                in_circles = True
                break
        rest = written.tokens - shares[taken]
        self.drop(written.author, rest)
        spent = "budget" if self.tokens + rest >= self.budget else "context"
        self.end("repeat" if in_circles else "closed" if written.closes else spent)
        return self.text

    def add(self, text: str, author: Author, *, tokens: int = 0, vouched: bool = False) -> str:
        """Add text that is no step, unchanged: a hint, the output of a tool, part of a sentence.

        Args:
            text: the text with the white space around it; the next step follows without a gap.
            author: who wrote it: a role, or a word such as ``hint``.
            tokens: how many tokens of the thinking budget it counts as.
            vouched: whether its control tokens are kept, because the program itself wrote them; otherwise they become
                plain text.
        """
        text = text if vouched else neutralise(text, self.solve.control)
        self._append(_Piece(len(self.steps), text, tokens))
        self._emit(TextAdded(step=len(self.steps), author=author, text=text, tokens=tokens))
        return text

    def cut(self, keep: int, why: str) -> None:
        """Take back all but the first ``keep`` steps and the text between those; a chain that had ended goes on.

        Args:
            keep: how many steps stay.
            why: the reason, for whoever reads the trace.

        Raises:
            ValueError: the chain has fewer steps than that.
        """
        if not 0 <= keep <= len(self.steps):
            msg = f"a chain of {len(self.steps)} steps cannot be cut to {keep}"
            raise ValueError(msg)
        self.keep(keep)
        self._emit(StepsCut(keep=keep, reason=why))

    def reopen(self, text: str, author: Author, *, why: str) -> None:
        """Go on with a chain that has ended, behind a text that says so.

        Args:
            text: the text, such as a hint.
            author: who wrote it.
            why: the reason, for whoever reads the trace.
        """
        self.cut(len(self.steps), why)
        self.add(text, author)

    def fork(self, keep: int | None = None) -> Chain:
        """Another chain that begins with what this one has.

        Args:
            keep: with how many of the steps it begins; all if not given.
        """
        other = self._copied_to(self.solve.chain(self, keep=keep))
        if keep is not None:
            other.keep(keep)
        return other

    def supposed(self) -> Chain:
        """A copy to try things on: nothing that happens to it becomes an event."""
        return self._copied_to(Chain(self.solve, self.number, budget=self.budget, is_supposed=True))

    def end(self, why: EndOfThinking) -> None:
        """End the thinking, with one of the usual reasons or a word of the program's own; the first reason stands."""
        if self.ended is not None:
            return
        self.ended = why
        self._emit(ThinkingEnded(reason=why, steps=len(self.steps), tokens=self.tokens))

    def held(self, tokens: int) -> None:
        """Note that a model's prompt of this chain and what it wrote after it had so many tokens together."""
        self._held = max(self._held, tokens)

    def suppose(self, step: str) -> None:
        """Add a step to a `supposed` chain, without author and cost."""
        self._grow(step, 0, "", closes=False)

    def _copied_to(self, other: Chain) -> Chain:
        other.steps, other._pieces, other._text = self.steps.copy(), self._pieces.copy(), self._text
        other._repeats, other._counting = self._repeats.copy(), self._counting.copy()
        other.tokens, other.ended = self.tokens, self.ended
        other._held, other._stalled, other._is_counting = self._held, self._stalled, self._is_counting
        return other

    def keep(self, keep: int) -> None:
        """Take back all but the first ``keep`` steps without a word; `cut` tells of it."""
        del self.steps[keep:]
        self._repeats.cut(keep)
        self._counting.cut(keep)
        kept = bisect_left(self._pieces, keep, key=lambda piece: piece.step)
        self._text = self._text[: len(self._text) - sum(len(piece.text) for piece in self._pieces[kept:])]
        self.tokens -= sum(piece.tokens for piece in self._pieces[kept:])
        del self._pieces[kept:]
        self.ended, self._held, self._stalled, self._is_counting = None, 0, 0, False

    def _grow(self, text: str, tokens: int, author: Author, *, closes: bool) -> None:
        step, whole = len(self.steps), self.begun + text
        self._append(_Piece(step, text + self.delimiter if whole else "", tokens))
        if whole:
            self.steps.append(whole)
            self._repeats.add(whole)
            self._counting.add(whole)
            self._emit(StepTaken(step=step, author=author, text=text, tokens=tokens, closes=closes))

    def _append(self, piece: _Piece) -> None:
        self._pieces.append(piece)
        self._text += piece.text
        self.tokens += piece.tokens

    def _emit(self, event: Event) -> None:
        if not self._is_supposed:
            self.solve.emit(event, self)


def chain_opened(parent: Chain | None, keep: int | None = None) -> ChainOpened:
    """The event that a further chain begins, with so many of its parent's steps, or all of them."""
    steps = len(parent.steps) if parent else 0
    return ChainOpened(parent=parent and parent.number, steps=steps if keep is None else keep)
