"""Running totals over the events of a solve: the one place where acceptance, tokens and seconds are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from specreason_sgl.events import (
    AnswerWritten,
    Author,
    CallKind,
    CallMade,
    ChainOpened,
    Dropped,
    EndOfThinking,
    Event,
    Role,
    SolveEnded,
    SolveFailed,
    SolveStarted,
    StepDrafted,
    StepScored,
    StepsCut,
    StepTaken,
    TextAdded,
    ThinkingEnded,
)

Span = tuple[float, float]
"""Start and end of a span of time, in seconds."""


@dataclass
class _Piece:
    """A piece of a chain: a step by its number, or other text after ``step`` steps."""

    step: int
    author: Author
    tokens: int
    is_step: bool
    chains: int = 1
    """How many chains contain it."""


@dataclass
class Tally:
    """The totals of a solve so far; `add` has to get every event, in order."""

    budget: int = 0
    steps: Counter[Author] = field(default_factory=Counter)
    """Steps in the reasoning, by author; of all chains together."""
    kept: Counter[Author] = field(default_factory=Counter)
    """Thinking tokens in the reasoning, by author."""
    judged: int = 0
    accepted: int = 0
    drafted_tokens: int = 0
    taken_drafts: int = 0
    """The accepted drafts that became steps, even if they were taken back later."""
    dropped: Counter[Role] = field(default_factory=Counter)
    """Tokens generated ahead of a decision and thrown away, or taken back, by who wrote them."""
    calls: Counter[CallKind] = field(default_factory=Counter)
    tokens: Counter[CallKind] = field(default_factory=Counter)
    """Tokens generated, by what the call was for."""
    rounds: Counter[CallKind] = field(default_factory=Counter)
    """Rounds in which drafted tokens were verified, by what the call was for."""
    verified: Counter[CallKind] = field(default_factory=Counter)
    """Tokens that such rounds brought: all of a call but the first, which comes from reading the prompt."""
    seconds: Counter[CallKind] = field(default_factory=Counter)
    """Client wall time of the calls, by what they were for."""
    prompt_tokens: Counter[Role] = field(default_factory=Counter)
    cached_tokens: Counter[Role] = field(default_factory=Counter)
    generated: Counter[Role] = field(default_factory=Counter)
    model_seconds: Counter[Role] = field(default_factory=Counter)
    retries: int = 0
    outages: list[Span] = field(default_factory=list)
    """The spans in which calls were lost to a server that failed or did not answer, in order and without overlaps."""
    elapsed: float = 0.0
    """Seconds since the solve began, as of the last event."""
    thinking_s: float | None = None
    """The latency of the thinking."""
    ended: EndOfThinking | None = None
    answer: str | None = None
    truncated: bool = False
    correct: bool | None = None
    outcome: str | None = None
    error: str | None = None
    _pieces: dict[int, list[_Piece]] = field(default_factory=dict)
    """The pieces of each chain, so that cuts can be counted."""
    _drafts: dict[tuple[int, int], set[Author]] = field(default_factory=dict)
    """Who has drafted a step that is not taken yet, by chain and step."""
    _rejected: set[tuple[int, int]] = field(default_factory=set)
    """The steps whose last decision was against the draft."""
    _ends: dict[int, EndOfThinking] = field(default_factory=dict)
    """Why each chain ended."""

    def add(self, event: Event) -> None:  # noqa: C901, PLR0912 - one case for each event
        """Count one event."""
        self.elapsed = max(self.elapsed, event.at)
        match event:
            case SolveStarted():
                self.budget = event.budget
            case ChainOpened():
                self._fork(event)
            case CallMade():
                self._add_call(event)
            case StepDrafted():
                self.drafted_tokens += event.tokens
                self._drafts.setdefault((event.chain, event.step), set()).add(event.author)
                self._rejected.discard((event.chain, event.step))
            case StepScored():
                self.judged += 1
                self.accepted += event.accepted
                (self._rejected.discard if event.accepted else self._rejected.add)((event.chain, event.step))
            case StepTaken():
                self._take(event)
            case TextAdded():
                self._keep(event.chain, _Piece(event.step, event.author, event.tokens, is_step=False))
            case StepsCut():
                self._cut(event)
            case Dropped():
                self.dropped[event.model] += event.tokens
            case ThinkingEnded():
                self.ended = self._ends[event.chain] = event.reason
                self.thinking_s = event.at - self.lost_s
            case AnswerWritten():
                self.answer, self.truncated = event.answer, event.truncated
                self.ended = self._ends.get(event.chain, self.ended)
            case SolveFailed():
                self.error = event.error
            case SolveEnded():
                self.outcome, self.correct = event.outcome, event.correct
            case _:
                pass

    def _add_call(self, call: CallMade) -> None:
        self.calls[call.kind] += 1
        self.tokens[call.kind] += call.generated_tokens
        self.rounds[call.kind] += call.rounds
        self.verified[call.kind] += (call.generated_tokens - 1) if call.rounds else 0
        self.seconds[call.kind] += call.wall_s  # type: ignore[assignment]  # Counter is typed for integers
        self.prompt_tokens[call.model] += call.prompt_tokens
        self.cached_tokens[call.model] += call.cached_tokens
        self.generated[call.model] += call.generated_tokens
        self.model_seconds[call.model] += call.wall_s  # type: ignore[assignment]
        self.retries += call.retries
        if call.lost_s > 0:
            # It is told of when it is waited for, which can be a little after it came back.
            sent = max(0.0, call.at - call.wall_s)
            self.outages = apart([*self.outages, (max(0.0, sent - call.lost_s), sent)])

    def _fork(self, opened: ChainOpened) -> None:
        parent = self._pieces.get(opened.parent, []) if opened.parent is not None else []
        held = [piece for piece in parent if piece.step + piece.is_step <= opened.steps]
        for piece in held:
            piece.chains += 1
        self._pieces[opened.chain] = held

    def _take(self, taken: StepTaken) -> None:
        self.steps[taken.author] += 1
        self._keep(taken.chain, _Piece(taken.step, taken.author, taken.tokens, is_step=True))
        place = taken.chain, taken.step
        authors = self._drafts.pop(place, set())
        is_others = taken.author not in {"small", "base"} and place not in self._rejected
        if taken.author in authors or (authors and is_others):
            self.taken_drafts += taken.tokens
        self._rejected.discard(place)

    def _keep(self, chain: int, piece: _Piece) -> None:
        self.kept[piece.author] += piece.tokens
        self._pieces.setdefault(chain, []).append(piece)

    def _cut(self, cut: StepsCut) -> None:
        pieces = self._pieces.get(cut.chain, [])
        while pieces and pieces[-1].step >= cut.keep:
            piece = pieces.pop()
            piece.chains -= 1
            if not piece.chains:
                self.steps[piece.author] -= piece.is_step
                self.kept[piece.author] -= piece.tokens
                self.dropped[piece.author] += piece.tokens

    @property
    def lost_s(self) -> float:
        """Seconds in which calls were lost, with the pauses for a server that did not answer."""
        return sum(end - begin for begin, end in self.outages)

    @property
    def latency(self) -> float:
        """Seconds that the solve has taken, without those in which calls were lost."""
        return self.elapsed - self.lost_s

    @property
    def acceptance(self) -> float | None:
        """Accepted drafts as a share of the judged ones."""
        return self.accepted / self.judged if self.judged else None

    @property
    def thinking_tokens(self) -> int:
        """Thinking tokens in the reasoning, by all authors."""
        return sum(self.kept.values())

    @property
    def wasted_tokens(self) -> int:
        """Tokens generated for the reasoning that are not in it. Where the small model works alone, none are wasted."""
        rejected = max(0, self.drafted_tokens - self.taken_drafts) if self.judged else 0
        return rejected + sum(self.dropped.values())

    @property
    def tokens_per_second(self) -> float | None:
        """Kept thinking tokens per second of latency."""
        return self.thinking_tokens / self.latency if self.latency > 0 and self.thinking_tokens else None

    @property
    def cached_share(self) -> float | None:
        """Prompt tokens served from the radix caches, of all prompt tokens."""
        total = sum(self.prompt_tokens.values())
        return sum(self.cached_tokens.values()) / total if total else None

    @property
    def agreement(self) -> float | None:
        """Tokens that a round of speculative decoding brought; None without it."""
        rounds = sum(self.rounds.values())
        return sum(self.verified.values()) / rounds if rounds else None

    @property
    def base_seconds_per_token(self) -> float | None:
        """Seconds for each token that the base model generates, as measured in this solve."""
        written = (
            self.tokens["regenerate"] + self.tokens["think"] + (self.tokens["answer"] if self.steps["base"] else 0)
        )
        spent = (
            self.seconds["regenerate"] + self.seconds["think"] + (self.seconds["answer"] if self.steps["base"] else 0)
        )
        return spent / written if written and spent else None

    @property
    def speed_up(self) -> float | None:
        """The estimated time of the same thinking by the base model alone, divided by the actual time."""
        each = self.base_seconds_per_token
        spent: float = sum(seconds for kind, seconds in self.seconds.items() if kind != "answer")
        if self.thinking_s:
            spent = min(spent, self.thinking_s)  # calls at the same time count once
        return each * self.thinking_tokens / spent if each and spent and self.judged else None


def apart(spans: Iterable[Span]) -> list[Span]:
    """Spans of time in order; those that touch or overlap are joined."""
    made: list[Span] = []
    for begin, end in sorted(spans):
        if made and begin <= made[-1][1]:
            made[-1] = made[-1][0], max(made[-1][1], end)
        elif begin < end:
            made.append((begin, end))
    return made


def tally(events: list[Event]) -> Tally:
    """The totals of a whole solve."""
    totals = Tally()
    for event in events:
        totals.add(event)
    return totals
