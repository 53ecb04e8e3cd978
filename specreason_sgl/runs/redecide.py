"""What another threshold or score rule would have decided, from the stored log-probabilities of the digits.

Only the decisions can be made again. After the first decision that would differ, the stored text follows a decision
that would not have been made: it is counterfactual, and so are the scores of its drafts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from specreason_sgl.events import CallMade, Event, StepScored, scores
from specreason_sgl.text.scoring import DIGITS, ScoreRule, certain

_CERTAIN = tuple(certain(digit).logprobs for digit in "09")

SWEEP = tuple(range(1, len(DIGITS)))
"""The thresholds of an overview."""


@dataclass(frozen=True)
class Decision:
    """The stored and the new decision on one draft."""

    scored: StepScored
    value: float
    """The number that the score rule compares with the threshold."""
    now: bool

    @property
    def step(self) -> int:
        """The number of the draft's step."""
        return self.scored.step

    @property
    def was(self) -> bool:
        """Whether the stored run accepted it."""
        return self.scored.accepted

    @property
    def flips(self) -> bool:
        """Whether the new decision differs from the stored one."""
        return self.was != self.now


@dataclass(frozen=True)
class Redecision:
    """All decisions of a solve at another threshold or by another rule."""

    threshold: float
    rule: ScoreRule
    decisions: tuple[Decision, ...]
    sweep: tuple[tuple[int, float], ...]
    """Pairs of (whole threshold, acceptance at it), by the same rule."""

    @cached_property
    def flips(self) -> tuple[int, ...]:
        """The steps whose decision would differ."""
        return tuple(decision.step for decision in self.decisions if decision.flips)

    @cached_property
    def _first_flip(self) -> int | None:
        return next((place for place, decision in enumerate(self.decisions) if decision.flips), None)

    @property
    def first_flip(self) -> Decision | None:
        """The first decision that would differ; everything after it is counterfactual."""
        return None if self._first_flip is None else self.decisions[self._first_flip]

    @property
    def divergence(self) -> int | None:
        """The step of the first decision that would differ."""
        return self.first_flip.step if self.first_flip else None

    @property
    def stored_acceptance(self) -> float | None:
        """Accepted drafts as a share of the judged ones, by the stored decisions."""
        return _share([decision.was for decision in self.decisions])

    @property
    def acceptance(self) -> float | None:
        """Accepted drafts as a share of the judged ones, by the new decisions."""
        return _share([decision.now for decision in self.decisions])

    def on(self, scored: StepScored | None) -> Decision | None:
        """The decision on a draft; None for steps that were not judged."""
        return self._by_score.get(scored) if scored else None

    @cached_property
    def _by_score(self) -> dict[StepScored, Decision]:
        return {decision.scored: decision for decision in self.decisions}

    def as_row(self) -> dict[str, object]:
        """All of it as plain data, for JSON."""
        return {
            "threshold": self.threshold,
            "score": str(self.rule),
            "acceptance": self.acceptance,
            "stored_acceptance": self.stored_acceptance,
            "flips": list(self.flips),
            "first_divergence": self.divergence,
            "acceptance_by_threshold": dict(self.sweep),
            "decisions": [
                {
                    **_chain(decision),
                    "step": decision.step,
                    "value": decision.value,
                    "was": decision.was,
                    "now": decision.now,
                }
                for decision in self.decisions
            ],
            **{f"first_divergence_{name}": value for name, value in _chain(self.first_flip).items()},
        }

    def is_counterfactual(self, decided: int) -> bool:
        """Whether text written after so many decisions follows a decision that would differ.

        The decisions of all chains count, because the result of one chain may have decided what happened to another.
        """
        return self._first_flip is not None and decided > self._first_flip


def why_not(events: Sequence[Event]) -> str | None:
    """Why no threshold or score rule could decide a solve's drafts again; None if one can.

    A value of the program's own says nothing about another threshold: candidates are chosen among, often by lots, and
    the one that was refused is not told apart. A program that asks no judge records a certain 9 or 0 for its decision.
    """
    decided = [event for event in events if isinstance(event, StepScored)]
    if measures := {event.measure or "value" for event in decided if event.value is not None}:
        return f"it decided by a {' and a '.join(sorted(measures))} of its own, not by a judge's score"
    asked = any(isinstance(event, CallMade) and event.kind == "judge" for event in events)
    if decided and not asked and all(event.logprobs in _CERTAIN for event in decided):
        return "it decided without a judge, so there is no score of any draft"
    return None


def redecide(events: Iterable[Event], threshold: float, rule: ScoreRule) -> Redecision:
    """Decide on every judged draft of a solve again."""
    judged = list(scores(events))
    return Redecision(
        threshold,
        rule,
        tuple(Decision(event, score.value(rule), score.accepts(rule, threshold)) for event, score in judged),
        tuple(
            (whole, sum(score.accepts(rule, whole) for _, score in judged) / len(judged)) for whole in SWEEP if judged
        ),
    )


def _chain(decision: Decision | None) -> dict[str, int]:
    """The chain of a decision as a field; empty for the first chain."""
    return {"chain": decision.scored.chain} if decision and decision.scored.chain else {}


def _share(decisions: list[bool]) -> float | None:
    return sum(decisions) / len(decisions) if decisions else None
