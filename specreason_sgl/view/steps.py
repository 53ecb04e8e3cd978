"""What a chain of thought is made of as its events come in: steps with their candidates, other text, and answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from specreason_sgl.events import AnswerWritten, Author, CallKind, Noticed, StepScored, StepsCut, ThinkingEnded
from specreason_sgl.text.scoring import ScoreRule
from specreason_sgl.view.text import shorten
from specreason_sgl.view.theme import SignName

DOING: dict[CallKind, SignName] = {
    "draft": "drafting",
    "judge": "judging",
    "regenerate": "regenerating",
    "think": "thinking",
    "answer": "answering",
}
"""The sign of a running call, by its kind; for a program's own kinds it is just ``working``."""
MEASURE = 16
"""The most cells of a program's word for what it decides by."""


@dataclass
class Candidate:
    """One of the drafts of a step."""

    number: int
    author: Author = "small"
    text: str | None = None
    """None where only its score is known."""
    tokens: int = 0
    score: StepScored | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether it was taken, here or in a chain that was forked."""
        return self.score is not None and self.score.accepted


@dataclass
class StepState:
    """One place in a chain of thought."""

    number: int
    chain: int = 0
    place: int = 0
    """Its number among all items of the solve, in the order of their beginnings; it never changes."""
    decided: int = 0
    """How many drafts of the whole solve had been decided on before it."""
    candidates: dict[int, Candidate] = field(default_factory=dict)
    """Its drafts by number, in the order in which they were heard of."""
    text: str | None = None
    """The text that became part of the reasoning; None until then."""
    author: Author | None = None
    tokens: int = 0
    cut: str | None = None
    """Why it was taken back; None while it stands."""
    seconds: Counter[CallKind] = field(default_factory=Counter)
    streamed: dict[tuple[CallKind, int], list[str]] = field(default_factory=dict)
    """The streamed pieces of text, by kind and number of the call, the newest call last."""
    pieces: int = 0
    """How many pieces have streamed in since the last call came back: about as many tokens."""
    is_over: bool = False
    """Whether its chain ended without it, so that it stands for its candidates alone."""

    @property
    def main(self) -> Candidate | None:
        """The candidate that speaks for the step: the one that was taken, else the last that was heard of."""
        taken = [each for each in self.candidates.values() if each.is_accepted]
        here = (each for each in taken if each.text == self.text)
        return next(here, None) or next(iter(taken or list(self.candidates.values())[-1:]), None)

    @property
    def draft(self) -> str | None:
        """The text of that candidate."""
        return self.main.text if self.main else None

    @property
    def judged(self) -> Candidate | None:
        """The candidate that was taken, else the last one that has a score."""
        if self.main and self.main.is_accepted:
            return self.main
        return next((each for each in reversed(self.candidates.values()) if each.score), None)

    @property
    def score(self) -> StepScored | None:
        """That candidate's score."""
        return self.judged.score if self.judged else None

    @property
    def draft_tokens(self) -> int:
        """The tokens of all candidates."""
        return sum(each.tokens for each in self.candidates.values())

    @property
    def newest(self) -> CallKind | None:
        """What was the last call for that began to stream."""
        return next(reversed(self.streamed))[0] if self.streamed else None

    @property
    def written(self) -> dict[int, str]:
        """What streams in, by the number of the call among those of its kind."""
        return {number: "".join(text) for (kind, number), text in self.streamed.items() if kind == self.newest}

    @property
    def is_choice(self) -> bool:
        """Whether there is more than one candidate, as far as can be known."""
        return len(self.candidates) > 1 or self._are_several_written

    @property
    def has_unfinished(self) -> bool:
        """Whether candidates are being written, and not simply the step."""
        return self.author is None and self._are_several_written

    @property
    def unfinished(self) -> dict[int, str]:
        """The candidates that are being written, by number."""
        return self.written if self.has_unfinished else {}

    @property
    def _are_several_written(self) -> bool:
        if self.candidates and self.newest == "draft":
            return True
        return len(self.streamed) > 1 and sum(kind == self.newest for kind, _ in self.streamed) > 1

    @property
    def sign(self) -> SignName:
        """The sign for what the step is, or for what is being done for it."""
        if self.author is not None:
            alone: dict[Author, SignName] = {"base": "base", "small": "accepted" if self.score is not None else "small"}
            return alone.get(self.author, "other")
        if self.is_over:
            return "rejected"
        is_rejected = self.score is not None and not self.score.accepted
        if is_rejected or any(kind == "regenerate" for kind, _ in self.streamed):
            return "regenerating"
        if self.newest is not None and self.newest not in {"draft", "judge"}:
            return DOING.get(self.newest, "working")
        return "drafting" if self.draft is None or self.has_unfinished else "judging"

    @property
    def shown(self) -> str:
        """Its text, as far as it is written."""
        if self.text is not None:
            return self.text
        if self.is_over or self.has_unfinished:
            return ""
        if self.sign in {"regenerating", "thinking", "working"}:
            return next(iter(self.written.values()), "")
        if self.draft is None:
            return self.written.get(0, "") if self.newest == "draft" else ""
        return "" if self.is_choice else self.draft

    @property
    def rejected(self) -> str | None:
        """The only draft, where it was not taken."""
        only = self.main if len(self.candidates) == 1 else None
        return only.text if only and only.score and not only.is_accepted else None

    @property
    def is_refused(self) -> bool:
        """Whether several were scored and none of them was taken."""
        return self.is_choice and self.main is not None and not self.main.is_accepted

    @property
    def is_taken_over(self) -> bool:
        """Whether nothing was taken of the author who drafted first."""
        first = next(iter(self.candidates.values()), None)
        taken = {each.author for each in self.candidates.values() if each.is_accepted}
        return first is not None and self.score is not None and first.author not in taken


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
        """Its text, without what joins it to the next."""
        return self.text.strip()


Item = StepState | TextState
"""Something with a text of its own that can be looked at."""
Row = Item | Noticed | AnswerWritten
"""What stands in a chain: an item, a remark, or an answer that was given behind what there was."""


@dataclass
class ChainState:
    """One chain of thought, with all that was ever in it."""

    number: int = 0
    parent: int | None = None
    """The chain that it was forked from."""
    inherited: int = 0
    """How many steps it took over from its parent."""
    prefix: list[Item] = field(default_factory=list)
    """The items that it took over from its parent."""
    rows: list[Row] = field(default_factory=list)
    """All in order, also what was taken back."""
    standing: dict[int, StepState] = field(default_factory=dict)
    """The steps that have not been taken back, by number."""
    thinking: list[str] = field(default_factory=list)
    """A whole chain that is streaming in and has not been cut into steps yet."""
    answering: dict[int, list[str]] = field(default_factory=dict)
    """The answers that are streaming in, by number."""
    spent: dict[int, Counter[CallKind]] = field(default_factory=dict)
    """What calls took for a step of which there are pieces only, by its number."""
    ended: ThinkingEnded | None = None

    @property
    def items(self) -> list[Item]:
        """What can be looked at."""
        return [row for row in self.rows if isinstance(row, StepState | TextState)]

    @property
    def answers(self) -> list[AnswerWritten]:
        """The answers that were given behind it."""
        return [row for row in self.rows if isinstance(row, AnswerWritten)]

    @property
    def steps(self) -> int:
        """Steps in it, those from its parent included."""
        return self.inherited + sum(step.author is not None for step in self.standing.values())

    @property
    def path(self) -> list[Item]:
        """What stands in it, with what it has from its parent."""
        return [*self.prefix, *(item for item in self.items if item.cut is None)]

    @property
    def tokens(self) -> int:
        """Thinking tokens in it, those from its parent included."""
        return sum(item.tokens for item in self.path)

    def take_back(self, event: StepsCut) -> None:
        """Cut steps off, with what was added behind those that stay."""
        for item in self.items:
            if item.cut is None and item.number >= event.keep:
                item.cut = event.reason
        self.standing = {number: step for number, step in self.standing.items() if step.cut is None}
        self.inherited = min(self.inherited, max(0, event.keep))
        self.prefix = [item for item in self.prefix if item.number < event.keep]
        self.ended = None


def utility(scored: StepScored, tokens: int, rule: ScoreRule) -> tuple[float, str]:
    """The figure of a score that a rule compares with the threshold, and the same as it is written.

    Args:
        scored: the score of a draft.
        tokens: the draft's length.
        rule: the rule.
    """
    if rule == "greedy":
        return float(scored.greedy), str(scored.greedy)
    value = scored.expected if rule == "expected" else replace(scored.score, tokens=tokens).value(rule)
    return value, f"{value:.1f}"


def told(scored: StepScored, tokens: int, rule: ScoreRule) -> tuple[str, str]:
    """What a draft was decided by, in a word, and the figure as it is written; see `utility`."""
    if scored.value is None:
        return "score", utility(scored, tokens, rule)[1]
    return shorten(scored.measure, MEASURE) or "value", f"{scored.value:.2f}"
