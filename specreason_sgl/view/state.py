"""The state of a solve so far, built from its events one by one; all views read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from specreason_sgl.events import (
    AnswerWritten,
    Author,
    CallKind,
    CallMade,
    ChainOpened,
    EndOfThinking,
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
from specreason_sgl.text.answers import is_same
from specreason_sgl.text.scoring import RULES, ScoreRule
from specreason_sgl.view.steps import Candidate, ChainState, Item, Row, StepState, TextState
from specreason_sgl.view.text import shorten
from specreason_sgl.view.theme import SIGNS, WORD, Sign, SignName, other

VOTE: Author = "vote"
"""The author of an answer that was chosen among others."""
PRUNED: EndOfThinking = "pruned"
"""Why a chain ended that others were preferred to."""


@dataclass
class Given:
    """An answer, and how often it was given."""

    answer: str | None
    written: list[AnswerWritten] = field(default_factory=list)
    """Each time."""


@dataclass
class SolveState:
    """One solve; feed it every event in order."""

    started: SolveStarted | None = None
    chains: dict[int, ChainState] = field(default_factory=lambda: {0: ChainState()})
    """By number, in the order in which they were opened."""
    tally: Tally = field(default_factory=Tally)
    answer: AnswerWritten | None = None
    given: list[Given] = field(default_factory=list)
    """The answers that are not the vote's, each with how often it was given, in the order in which they appeared."""
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
        return self.started.rule if self.started else RULES[0]

    @property
    def items(self) -> list[Item]:
        """All that can be looked at, one chain after the other."""
        return [item for chain in self.chains.values() for item in chain.items]

    @property
    def steps(self) -> list[StepState]:
        """All steps, one chain after the other, with those that were taken back."""
        return [item for item in self.items if isinstance(item, StepState)]

    @property
    def notices(self) -> list[Noticed]:
        """What readers should know, one chain after the other."""
        return [row for chain in self.chains.values() for row in chain.rows if isinstance(row, Noticed)]

    @property
    def answering(self) -> list[tuple[int, str]]:
        """The answers that are streaming in, each with the number of its chain."""
        chains = self.chains.values()
        return [(chain.number, "".join(text)) for chain in chains for text in chain.answering.values()]

    @property
    def votes(self) -> list[Given]:
        """What a vote was held about, the chosen answer first and then the most frequent; empty without one."""
        if self.answer is None or self.answer.author != VOTE:
            return []
        chosen = self._like(self.answer.answer)
        return sorted(self.given, key=lambda each: (each is not chosen, -len(each.written)))

    @property
    def worded(self) -> AnswerWritten | None:
        """The answer in a model's own words: of a vote, as it was first given behind a whole chain, if it was."""
        votes = self.votes
        if not votes or self.answer is None or not _are_alike(votes[0].answer, self.answer.answer):
            return self.answer
        given = [(each, self.chains.get(each.chain)) for each in votes[0].written]
        return next((each for each, chain in given if chain and not self.is_cut(chain)), given[0][0])

    @property
    def answering_chain(self) -> ChainState | None:
        """The chain whose answer is the solve's."""
        return self.chains.get(self.worded.chain) if self.worded else None

    def sign_of_chain(self, chain: ChainState) -> SignName:
        """The sign for what a chain is doing, or for what became of it."""
        if self.is_going(chain):
            return "thinking"
        if chain.answers:
            return "answered"
        if self.is_cut(chain):
            return "cut"
        is_late = self.is_settled or (chain.ended is not None and chain.ended.reason == PRUNED)
        return "dropped" if is_late else "waiting"

    @property
    def is_settled(self) -> bool:
        """Whether no further answer is to come."""
        has_voted = self.answer is not None and self.answer.author == VOTE
        return has_voted or self.ended is not None or self.failure is not None

    def is_cut(self, chain: ChainState) -> bool:
        """Whether it is nothing but the beginning of a chain that had ended when it was forked."""
        parent = self.chains.get(chain.parent) if chain.parent is not None else None
        return parent is not None and parent.ended is not None and not chain.items

    def is_going(self, chain: ChainState) -> bool:
        """Whether it may still grow."""
        return chain.ended is None and self.ended is None and self.failure is None and not self.is_cut(chain)

    @property
    def branches(self) -> list[tuple[ChainState, list[ChainState]]]:
        """The chains with something of their own, each with its cuts: those that are nothing but its beginning."""
        stems = {chain.number: self._stem(chain) for chain in self.chains.values()}
        cuts: dict[int, list[ChainState]] = {number: [] for number, stem in stems.items() if stem == number}
        for number, stem in stems.items():
            if stem != number and stem in cuts:
                cuts[stem].append(self.chains[number])
        return [(self.chains[number], each) for number, each in cuts.items()]

    def _stem(self, chain: ChainState) -> int:
        """The nearest chain with something of its own that a chain comes from; most often itself."""
        seen = {chain.number}
        while self.is_cut(chain) and chain.parent is not None and chain.parent not in seen:
            seen.add(chain.parent)
            chain = self.chains[chain.parent]
        return chain.number

    @property
    def alone(self) -> SolveState:
        """The solve with nothing but the chain that gave the answer, from its beginning; all of it if none did."""
        chain = self.answering_chain if self.is_branched else None
        if chain is None:
            return self
        rows: list[Row] = [replace(item, chain=0, cut=None) for item in chain.prefix]
        rows += [replace(row, chain=0) if isinstance(row, StepState | TextState) else row for row in chain.rows]
        one = ChainState(chain.number, rows=rows, standing=chain.standing, ended=chain.ended)
        return replace(self, chains={one.number: one}, newest=one.number)

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
    def judged(self) -> Candidate | None:
        """The draft there that has the last score."""
        steps = reversed(self.chains[self.newest].standing.values())
        return next((step.judged for step in steps if step.score), None)

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
        if self.answering or not any(self.is_going(chain) for chain in self.chains.values()):
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

    def name_of(self, author: Author) -> Sign:
        """An author's glyph, colour and name."""
        return replace(self.sign_of_author(author), word=shorten(author, WORD) or "?")

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
                    if heard := [number for kind, number in step.streamed if kind == event.kind]:
                        del step.streamed[event.kind, min(heard)]  # several are read in the order of their numbers
            case StepDrafted():
                self._add_draft(event)
            case StepScored():
                step = self._step(event.chain, event.step)
                step.candidates.setdefault(event.attempt, Candidate(event.attempt)).score = event
                step.decided = self.tally.judged - 1
            case StepTaken():
                self._add_taken(event)
            case TextAdded():
                self._add_piece(event)
            case StepsCut():
                self.chain(event.chain).take_back(event)
            case ThinkingEnded():
                self._end_chain(event)
            case AnswerWritten():
                self._add_answer(event)
            case Noticed():
                if event.author:
                    self._know(event.author)
                self.chain(event.chain).rows.append(event)
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
        path = parent.path if parent else []
        chain.prefix = [item for item in path if item.number + isinstance(item, StepState) <= event.steps]

    def _step(self, chain: int, number: int) -> StepState:
        found = self.chain(chain)
        if number not in found.standing:
            marks = chain, self._next_place(), self.tally.judged
            seconds = found.spent.pop(number, Counter[CallKind]())
            found.standing[number] = StepState(number, *marks, seconds=seconds)
            found.rows.append(found.standing[number])
        self.newest = chain
        return found.standing[number]

    def _add_text(self, event: TextStreamed) -> None:
        if event.kind == "answer":
            self.chain(event.chain).answering.setdefault(event.attempt, []).append(event.text)
        elif event.step is None:
            self.chain(event.chain).thinking.append(event.text)
        else:
            step = self._step(event.chain, event.step)
            step.streamed.setdefault((event.kind, event.attempt), []).append(event.text)
            step.pieces += 1

    def _add_piece(self, event: TextAdded) -> None:
        self._know(event.author)
        chain = self.chain(event.chain)
        step = chain.standing.get(event.step)
        if step is not None and step.author is None and not step.candidates:  # the rest of it comes behind this
            chain.spent[event.step] = chain.standing.pop(event.step).seconds
            chain.rows = [row for row in chain.rows if row is not step]
        marks = event.chain, self._next_place(), self.tally.judged
        chain.rows.append(TextState(event.author, event.text, event.tokens, event.step, *marks))

    def _add_draft(self, event: StepDrafted) -> None:
        step = self._step(event.chain, event.step)
        if event.attempt in step.candidates:  # an empty step has come to nothing and the place is filled again
            again = StepState(event.step, event.chain, step.place, self.tally.judged, seconds=step.seconds)
            chain = self.chain(event.chain)
            chain.rows[next(n for n, row in enumerate(chain.rows) if row is step)] = again
            chain.standing[event.step] = step = again
        self._know(event.author)
        step.candidates[event.attempt] = Candidate(event.attempt, event.author, event.text, event.tokens)
        step.streamed = {call: text for call, text in step.streamed.items() if call[1] != event.attempt}

    def _add_taken(self, event: StepTaken) -> None:
        self._know(event.author)
        step = self._step(event.chain, event.step)
        step.text, step.author, step.tokens = event.text, event.author, event.tokens
        if step.score is None:
            step.decided = self.tally.judged
        if not step.candidates:
            step.candidates = self._drafted_for(event)
        step.streamed.clear()
        self.chain(event.chain).thinking.clear()

    def _drafted_for(self, event: StepTaken) -> dict[int, Candidate]:
        """The candidate of the parent chain that a fork goes on with."""
        parent = self.chain(event.chain).parent
        before = self.chains.get(parent) if parent is not None else None
        forked = before.standing.get(event.step) if before else None
        same = (each for each in forked.candidates.values() if each.is_accepted) if forked else ()
        return {each.number: replace(each) for each in same if (each.author, each.text) == (event.author, event.text)}

    def _add_answer(self, event: AnswerWritten) -> None:
        self._know(event.author)
        self.answer = event
        chain = self.chain(event.chain)
        if event.author == VOTE:
            return
        if chain.answering:  # several are read in the order of their numbers
            chain.answering.pop(min(chain.answering))
        chain.rows.append(event)
        if (known := self._like(event.answer)) is None:
            known = Given(event.answer)
            self.given.append(known)
        known.written.append(event)

    def _like(self, answer: str | None) -> Given | None:
        return next((each for each in self.given if _are_alike(each.answer, answer)), None)

    def _end_chain(self, event: ThinkingEnded) -> None:
        chain = self.chain(event.chain)
        chain.ended = event
        chain.thinking.clear()
        for step in chain.standing.values():
            step.is_over = step.author is None and len(step.candidates) > 1 and step.score is not None
        chain.rows = [
            row for row in chain.rows if not isinstance(row, StepState) or row.author is not None or row.is_over
        ]
        chain.standing = {number: step for number, step in chain.standing.items() if step.author is not None}


def _are_alike(one: str | None, other: str | None) -> bool:
    return is_same(one, other or "") if one else not other
