"""The state of a solve so far, built from its events one by one; all views read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from specreason_sgl.events import (
    AnswerWritten,
    Author,
    CallKind,
    CallMade,
    ChainOpened,
    Event,
    Noticed,
    SolveEnded,
    SolveFailed,
    SolveStarted,
    StepDrafted,
    StepScored,
    StepsCut,
    StepTaken,
    TextAdded,
    TextStreamed,
    ThinkingEnded,
)
from specreason_sgl.tally import Tally
from specreason_sgl.text.scoring import RULES, ScoreRule
from specreason_sgl.view.theme import SIGNS, Sign, SignName, other

DOING: dict[CallKind, SignName] = {
    "draft": "drafting",
    "judge": "judging",
    "regenerate": "regenerating",
    "think": "thinking",
    "answer": "answering",
}
"""The sign of a running call, by its kind; for a program's own kinds it is just ``working``."""


@dataclass
class StepState:
    """One place in a chain of thought."""

    number: int
    chain: int = 0
    place: int = 0
    """Its number among all items of the solve, in the order of their beginnings; it never changes."""
    decided: int = 0
    """How many drafts of the whole solve had been decided on before it."""
    draft: str | None = None
    draft_tokens: int = 0
    score: StepScored | None = None
    text: str | None = None
    """The text that became part of the reasoning; None until then."""
    author: Author | None = None
    tokens: int = 0
    cut: str | None = None
    """Why it was taken back; None while it stands."""
    seconds: Counter[CallKind] = field(default_factory=Counter)
    streamed: dict[CallKind, list[str]] = field(default_factory=dict)
    """The streamed pieces of text, by kind of call, the newest last."""
    pieces: int = 0
    """How many pieces have streamed in since the last call came back: about as many tokens."""

    @property
    def sign(self) -> SignName:
        """The sign for what the step is, or for what is being done for it."""
        if self.author is not None:
            alone: dict[Author, SignName] = {"base": "base", "small": "accepted" if self.score is not None else "small"}
            return alone.get(self.author, "other")
        if self.streamed.get("regenerate") or (self.score is not None and not self.score.accepted):
            return "regenerating"
        newest = next(reversed(self.streamed), None)
        if newest is not None and newest not in {"draft", "judge"}:
            return DOING.get(newest, "working")
        return "drafting" if self.draft is None else "judging"

    @property
    def shown(self) -> str:
        """Its text, as far as it is written."""
        if self.text is not None:
            return self.text
        if self.sign in {"regenerating", "thinking", "working"}:
            return "".join(self.streamed[next(reversed(self.streamed))]) if self.streamed else ""
        return self.draft if self.draft is not None else "".join(self.streamed.get("draft", ()))

    @property
    def rejected(self) -> str | None:
        """The draft that was not taken."""
        if self.draft is None or self.score is None or self.score.accepted:
            return None
        return self.draft


@dataclass
class TextState:
    """Text in a chain that is no step."""

    author: Author
    text: str
    tokens: int
    number: int
    """The number of steps before it."""
    chain: int = 0
    place: int = 0
    decided: int = 0
    cut: str | None = None

    @property
    def shown(self) -> str:
        """Its text."""
        return self.text


class Piece(NamedTuple):
    """The size of a piece of a chain: a step, or other text after ``number`` steps."""

    number: int
    is_step: bool
    tokens: int


Item = StepState | TextState
"""Something with a text of its own that can be looked at."""


@dataclass
class ChainState:
    """One chain of thought, with all that was ever in it."""

    number: int = 0
    parent: int | None = None
    """The chain that it was forked from."""
    inherited: int = 0
    """How many steps it took over from its parent."""
    prefix: list[Piece] = field(default_factory=list)
    """The pieces that it took over from its parent."""
    rows: list[Item | str] = field(default_factory=list)
    """All items in order, also those that were taken back, and the notices as plain text."""
    standing: dict[int, StepState] = field(default_factory=dict)
    """The steps that have not been taken back, by number."""
    thinking: list[str] = field(default_factory=list)
    """A whole chain that is streaming in and has not been cut into steps yet."""
    ended: ThinkingEnded | None = None
    answer: AnswerWritten | None = None

    @property
    def items(self) -> list[Item]:
        """What can be looked at."""
        return [row for row in self.rows if not isinstance(row, str)]

    @property
    def steps(self) -> int:
        """Steps in it, those from its parent included."""
        return self.inherited + sum(step.author is not None for step in self.standing.values())

    @property
    def pieces(self) -> list[Piece]:
        """What it is made of, with what it has from its parent."""
        own = (Piece(item.number, isinstance(item, StepState), item.tokens) for item in self.items if item.cut is None)
        return [*self.prefix, *own]

    @property
    def tokens(self) -> int:
        """Thinking tokens in it, those from its parent included."""
        return sum(piece.tokens for piece in self.pieces)

    def take_back(self, event: StepsCut) -> None:
        """Cut steps off, with what was added behind those that stay."""
        for item in self.items:
            if item.cut is None and item.number >= event.keep:
                item.cut = event.reason
        self.standing = {number: step for number, step in self.standing.items() if step.cut is None}
        self.inherited = min(self.inherited, max(0, event.keep))
        self.prefix = [piece for piece in self.prefix if piece.number < event.keep]
        self.ended = None


def utility(score: StepScored, rule: ScoreRule) -> tuple[float, str]:
    """The figure of a score that a rule compares with the threshold, and the same as it is written."""
    if rule == "expected":
        return score.expected, f"{score.expected:.1f}"
    return float(score.greedy), str(score.greedy)


@dataclass
class SolveState:
    """One solve; feed it every event in order."""

    started: SolveStarted | None = None
    chains: dict[int, ChainState] = field(default_factory=lambda: {0: ChainState()})
    """By number, in the order in which they were opened."""
    tally: Tally = field(default_factory=Tally)
    answering: list[str] = field(default_factory=list)
    answer: AnswerWritten | None = None
    failure: SolveFailed | None = None
    ended: SolveEnded | None = None
    newest: int = 0
    """The chain of the last event."""
    others: list[Author] = field(default_factory=list)
    """Models and authors beyond base and small, in the order in which they appeared."""
    _begun: int = 0

    @classmethod
    def of(cls, events: Iterable[Event]) -> SolveState:
        """The state after these events."""
        state = cls()
        for event in events:
            state.add(event)
        return state

    @property
    def threshold(self) -> float | None:
        """At which score a draft is accepted; None for programs that judge nothing."""
        return self.started.threshold if self.started else None

    @property
    def rule(self) -> ScoreRule:
        """Which figure of a score is compared with the threshold."""
        name = self.started.score_rule if self.started else None
        return next((rule for rule in RULES if rule == name), RULES[0])

    @property
    def items(self) -> list[Item]:
        """All that can be looked at, one chain after the other."""
        return [item for chain in self.chains.values() for item in chain.items]

    @property
    def steps(self) -> list[StepState]:
        """All steps, one chain after the other, with those that were taken back."""
        return [item for item in self.items if isinstance(item, StepState)]

    @property
    def notices(self) -> list[str]:
        """What readers should know, one chain after the other."""
        return [row for chain in self.chains.values() for row in chain.rows if isinstance(row, str)]

    @property
    def writers(self) -> dict[Author, Sign]:
        """The models and authors that did something, each with its sign."""
        everybody = {"small": SIGNS["small"], "base": SIGNS["base"]}
        everybody |= {each: self.sign_of_author(each) for each in self.others}
        tally = self.tally
        return {
            each: sign
            for each, sign in everybody.items()
            if tally.generated[each] or tally.steps[each] or tally.kept[each]
        }

    @property
    def is_branched(self) -> bool:
        """Whether there is more than one chain."""
        return len(self.chains) > 1

    @property
    def cut(self) -> int:
        """Steps that were taken back."""
        return sum(step.cut is not None for step in self.steps)

    @property
    def fullest(self) -> int:
        """Thinking tokens of the chain that is nearest to its budget."""
        return max(chain.tokens for chain in self.chains.values()) if self.is_branched else self.tally.thinking_tokens

    @property
    def latest(self) -> StepState | None:
        """The last step that was begun in the chain of which something was heard last."""
        return next(reversed(self.chains[self.newest].standing.values()), None)

    @property
    def scored(self) -> StepScored | None:
        """The last score there."""
        steps = reversed(self.chains[self.newest].standing.values())
        return next((step.score for step in steps if step.score), None)

    @property
    def phase(self) -> SignName:
        """The sign for what is being done, or for the result."""
        if self.ended and self.ended.outcome == "answered" and self.ended.correct is not None:
            return "right" if self.ended.correct else "wrong"
        if self.ended or self.failure:
            return self.ended.outcome if self.ended else "failed"
        return self._doing

    @property
    def _doing(self) -> SignName:
        if self.answering or all(chain.ended for chain in self.chains.values()):
            return "answering"
        if any(chain.thinking for chain in self.chains.values()):
            return "thinking"
        latest = self.latest
        if latest is None:
            return "waiting"
        if latest.author is None:
            return latest.sign
        return "drafting" if self.threshold is not None else "thinking"

    def sign_of(self, step: StepState) -> Sign:
        """The sign by which a step is shown."""
        if step.sign == "other" and step.author is not None:
            return self.sign_of_author(step.author)
        return SIGNS[step.sign]

    def sign_of_author(self, author: Author) -> Sign:
        """How an author or a model is shown."""
        if author in self.others:
            return other(author, self.others.index(author))
        return SIGNS["base" if author == "base" else "small"]

    def chain(self, number: int) -> ChainState:
        """One of its chains, which is there from the first time on that anything is said of it."""
        return self.chains.setdefault(number, ChainState(number))

    def standing(self, event: StepTaken) -> StepState:
        """The step that was taken."""
        return self.chain(event.chain).standing[event.step]

    def add(self, event: Event) -> None:  # noqa: C901, PLR0912 - one case for each event
        """Take one event in."""
        self.tally.add(event)
        match event:
            case SolveStarted():
                self.started = event
            case ChainOpened():
                self._open(event)
            case TextStreamed():
                self._add_text(event)
            case CallMade():
                self._know(event.model)
                if event.step is None:
                    self.chain(event.chain).thinking.clear()
                elif not event.dropped:
                    step = self._step(event.chain, event.step)
                    step.seconds[event.kind] += event.wall_s  # type: ignore[assignment]  # Counter is typed for integers
                    step.pieces = 0
            case StepDrafted():
                self._add_draft(event)
            case StepScored():
                step = self._step(event.chain, event.step)
                step.score, step.decided = event, self.tally.judged - 1
            case StepTaken():
                self._add_taken(event)
            case TextAdded():
                self._know(event.author)
                marks = event.chain, self._next_place(), self.tally.judged
                self.chain(event.chain).rows.append(
                    TextState(event.author, event.text, event.tokens, event.step, *marks)
                )
            case StepsCut():
                self.chain(event.chain).take_back(event)
            case ThinkingEnded():
                self._end_chain(event)
            case AnswerWritten():
                self._know(event.author)
                self.answer = self.chain(event.chain).answer = event
                self.answering.clear()
            case Noticed():
                self.chain(event.chain).rows.append(event.message)
            case SolveFailed():
                self.failure = event
            case SolveEnded():
                self.ended = event
            case _:
                pass

    def _know(self, word: Author) -> None:
        if word not in {"base", "small"} and word not in self.others:
            self.others.append(word)

    def _next_place(self) -> int:
        self._begun += 1
        return self._begun - 1

    def _open(self, event: ChainOpened) -> None:
        parent = self.chains.get(event.parent) if event.parent is not None else None
        chain = self.chain(event.chain)
        chain.parent, chain.inherited = event.parent, max(0, event.steps)
        pieces = parent.pieces if parent else []
        chain.prefix = [piece for piece in pieces if piece.number + piece.is_step <= event.steps]

    def _step(self, chain: int, number: int) -> StepState:
        found = self.chain(chain)
        if number not in found.standing:
            found.standing[number] = StepState(number, chain, self._next_place(), self.tally.judged)
            found.rows.append(found.standing[number])
        self.newest = chain
        return found.standing[number]

    def _add_text(self, event: TextStreamed) -> None:
        if event.kind == "answer":
            self.answering.append(event.text)
        elif event.step is None:
            self.chain(event.chain).thinking.append(event.text)
        else:
            step = self._step(event.chain, event.step)
            step.streamed.setdefault(event.kind, []).append(event.text)
            step.pieces += 1

    def _add_draft(self, event: StepDrafted) -> None:
        step = self._step(event.chain, event.step)
        if step.score is not None:  # an empty step has come to nothing and the place is filled again
            again = StepState(event.step, event.chain, step.place, self.tally.judged, seconds=step.seconds)
            chain = self.chain(event.chain)
            chain.rows[next(n for n, row in enumerate(chain.rows) if row is step)] = again
            chain.standing[event.step] = step = again
        step.draft, step.draft_tokens = event.text, event.tokens
        step.streamed.pop("draft", None)

    def _add_taken(self, event: StepTaken) -> None:
        self._know(event.author)
        step = self._step(event.chain, event.step)
        step.text, step.author, step.tokens = event.text, event.author, event.tokens
        if step.score is None:
            step.decided = self.tally.judged
        step.streamed.clear()
        self.chain(event.chain).thinking.clear()

    def _end_chain(self, event: ThinkingEnded) -> None:
        chain = self.chain(event.chain)
        chain.ended = event
        chain.thinking.clear()
        chain.rows = [row for row in chain.rows if not isinstance(row, StepState) or row.author is not None]
        chain.standing = {number: step for number, step in chain.standing.items() if step.author is not None}
