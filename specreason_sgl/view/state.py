"""A solve as far as it has come, folded out of its events one by one; all views read this."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from specreason_sgl.events import (
    AnswerWritten,
    CallKind,
    CallMade,
    Event,
    Noticed,
    Role,
    SolveEnded,
    SolveFailed,
    SolveStarted,
    StepDrafted,
    StepScored,
    StepTaken,
    TextStreamed,
    ThinkingEnded,
)
from specreason_sgl.tally import Tally
from specreason_sgl.text.scoring import RULES, ScoreRule
from specreason_sgl.view.theme import RoleName


@dataclass
class StepState:
    """One place in the chain of thought."""

    number: int
    draft: str | None = None
    draft_tokens: int = 0
    score: StepScored | None = None
    text: str | None = None
    """What entered the reasoning; None while it has not."""
    author: Role | None = None
    tokens: int = 0
    seconds: Counter[CallKind] = field(default_factory=Counter)
    streamed: dict[CallKind, list[str]] = field(default_factory=dict)
    pieces: int = 0
    """How many pieces have streamed in since the last call came back: about as many tokens."""

    @property
    def role(self) -> RoleName:
        """What it is, or what is being done about it."""
        if self.author is not None:
            judged = self.score is not None
            return "base" if self.author == "base" else "accepted" if judged else "small"
        if self.streamed.get("regenerate") or (self.score is not None and not self.score.accepted):
            return "regenerating"
        return "drafting" if self.draft is None else "judging"

    @property
    def shown(self) -> str:
        """Its text, as far as it is written."""
        if self.text is not None:
            return self.text
        if self.role == "regenerating":
            return "".join(self.streamed.get("regenerate", ()))
        return self.draft if self.draft is not None else "".join(self.streamed.get("draft", ()))

    @property
    def rejected(self) -> str | None:
        """The draft that was not taken."""
        if self.draft is None or self.score is None or self.score.accepted:
            return None
        return self.draft


def utility(score: StepScored, rule: ScoreRule) -> tuple[float, str]:
    """The figure of a score that a rule compares with the threshold, and the same as it is written."""
    if rule == "expected":
        return score.expected, f"{score.expected:.1f}"
    return float(score.greedy), str(score.greedy)


@dataclass
class SolveState:
    """One solve; feed it every event in order."""

    started: SolveStarted | None = None
    steps: dict[int, StepState] = field(default_factory=dict)
    """By number, in the order in which they were begun."""
    tally: Tally = field(default_factory=Tally)
    thinking: list[str] = field(default_factory=list)
    """A whole chain that is streaming in and has not been cut into steps yet."""
    answering: list[str] = field(default_factory=list)
    answer: AnswerWritten | None = None
    notices: list[tuple[int, str]] = field(default_factory=list)
    """Each with how many steps had been begun before it."""
    failure: SolveFailed | None = None
    ended: SolveEnded | None = None

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
    def phase(self) -> RoleName:
        """What is being done, or what came of it."""
        if self.ended and self.ended.outcome == "answered" and self.ended.correct is not None:
            return "right" if self.ended.correct else "wrong"
        if self.ended or self.failure:
            return self.ended.outcome if self.ended else "failed"
        if self.tally.ended:
            return "answering"
        if self.thinking:
            return "thinking"
        last = next(reversed(self.steps.values()), None)
        if last is None:
            return "waiting"
        return last.role if last.author is None else "drafting" if self.threshold is not None else "thinking"

    def add(self, event: Event) -> None:  # noqa: C901, PLR0912 - one case for each event
        """Take one event in."""
        self.tally.add(event)
        match event:
            case SolveStarted():
                self.started = event
            case TextStreamed():
                self._add_text(event)
            case CallMade():
                if event.step is not None and not event.dropped:
                    step = self._step(event.step)
                    step.seconds[event.kind] += event.wall_s  # type: ignore[assignment]  # Counter is typed for integers
                    step.pieces = 0
            case StepDrafted():
                self._add_draft(event)
            case StepScored():
                self._step(event.step).score = event
            case StepTaken():
                self._add_taken(event)
            case ThinkingEnded():
                self.thinking.clear()
                self.steps = {number: step for number, step in self.steps.items() if step.author is not None}
            case AnswerWritten():
                self.answer = event
            case Noticed():
                self.notices.append((len(self.steps), event.message))
            case SolveFailed():
                self.failure = event
            case SolveEnded():
                self.ended = event
            case _:
                pass

    def _step(self, number: int) -> StepState:
        return self.steps.setdefault(number, StepState(number))

    def _add_text(self, event: TextStreamed) -> None:
        if event.kind == "answer":
            self.answering.append(event.text)
        elif event.step is None:
            self.thinking.append(event.text)
        else:
            step = self._step(event.step)
            step.streamed.setdefault(event.kind, []).append(event.text)
            step.pieces += 1

    def _add_draft(self, event: StepDrafted) -> None:
        step = self._step(event.step)
        if step.score is not None:  # an empty step has come to nothing and the place is filled again
            step = self.steps[event.step] = StepState(event.step, seconds=step.seconds)
        step.draft, step.draft_tokens = event.text, event.tokens
        step.streamed.pop("draft", None)

    def _add_taken(self, event: StepTaken) -> None:
        step = self._step(event.step)
        step.text, step.author, step.tokens = event.text, event.author, event.tokens
        step.streamed.clear()
        self.thinking.clear()
