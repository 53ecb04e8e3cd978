"""What another threshold or score rule would have decided, from the stored log-probabilities of the digits.

Only the decisions can be taken again. From the first one that comes out differently on, the stored text follows a
decision that would not have been made: it is counterfactual, and so are the scores of its drafts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from specreason_sgl.events import Event, StepScored
from specreason_sgl.text.scoring import DIGITS, ScoreRule

SWEEP = tuple(range(1, len(DIGITS)))
"""The thresholds that are told apart in an overview."""


@dataclass(frozen=True)
class Decision:
    """One draft, decided twice."""

    step: int
    value: float
    """The figure that the rule compares with the threshold."""
    was: bool
    """Whether the stored run accepted it."""
    now: bool

    @property
    def flips(self) -> bool:
        """Whether it comes out differently."""
        return self.was != self.now


@dataclass(frozen=True)
class Redecision:
    """All decisions of a solve at another threshold."""

    threshold: float
    rule: ScoreRule
    decisions: tuple[Decision, ...]
    sweep: tuple[tuple[int, float], ...]
    """The acceptance at each whole threshold, by the same rule."""

    @cached_property
    def flips(self) -> tuple[int, ...]:
        """The steps whose decision comes out differently."""
        return tuple(decision.step for decision in self.decisions if decision.flips)

    @property
    def divergence(self) -> int | None:
        """The first step that flips; everything after it is counterfactual."""
        return next(iter(self.flips), None)

    @property
    def stored_acceptance(self) -> float | None:
        """Accepted drafts as a share of the judged ones, as it was."""
        return _share([decision.was for decision in self.decisions])

    @property
    def acceptance(self) -> float | None:
        """The same, as it would be on these drafts."""
        return _share([decision.now for decision in self.decisions])

    def on(self, step: int) -> Decision | None:
        """The decision on a step; None for steps that were not judged."""
        return self._by_step.get(step)

    @cached_property
    def _by_step(self) -> dict[int, Decision]:
        return {decision.step: decision for decision in self.decisions}

    def as_row(self) -> dict[str, object]:
        """All of it, for programs."""
        return {
            "threshold": self.threshold,
            "score": self.rule,
            "acceptance": self.acceptance,
            "stored_acceptance": self.stored_acceptance,
            "flips": list(self.flips),
            "first_divergence": self.divergence,
            "acceptance_by_threshold": dict(self.sweep),
            "decisions": [
                {"step": decision.step, "value": decision.value, "was": decision.was, "now": decision.now}
                for decision in self.decisions
            ],
        }

    def is_counterfactual(self, step: int) -> bool:
        """Whether a stored step follows a decision that would not have been made."""
        return self.divergence is not None and step > self.divergence


def redecide(events: Iterable[Event], threshold: float, rule: ScoreRule) -> Redecision:
    """Decide every judged draft of a solve again."""
    judged = [event for event in events if isinstance(event, StepScored)]
    return Redecision(
        threshold,
        rule,
        tuple(
            Decision(event.step, event.score.value(rule), event.accepted, event.score.accepts(rule, threshold))
            for event in judged
        ),
        tuple(
            (whole, sum(event.score.accepts(rule, whole) for event in judged) / len(judged))
            for whole in SWEEP
            if judged
        ),
    )


def _share(decisions: list[bool]) -> float | None:
    return sum(decisions) / len(decisions) if decisions else None
