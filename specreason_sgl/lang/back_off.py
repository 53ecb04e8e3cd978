"""Whether a draft is worth its cost, from what the solve has seen so far.

A draft costs the time of drafting and judging it; it saves the base model's time for a step, if it is accepted. Where
the expected saving is smaller, drafting stops and is tried again after a while, which doubles with every failed try.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from specreason_sgl.events import CallMade, DraftingChanged, Event, StepDrafted, StepScored, StepTaken

if TYPE_CHECKING:
    from specreason_sgl.lang.chain import Place
    from specreason_sgl.lang.solve import Solve

MEMORY = 0.9
"""The factor by which earlier observations lose weight with each new one: about ten steps are remembered."""
PRIOR_ACCEPTED, PRIOR_JUDGED = 1.0, 1.5
"""The assumption before anything is known: so many accepted drafts among so many judged ones."""
FIRST_PAUSE, LONGEST_PAUSE = 4, 64
"""How long drafting pauses, in steps."""


@dataclass
class Mean:
    """A mean in which older observations count less."""

    total: float = 0.0
    weight: float = 0.0

    def add(self, value: float) -> None:
        """Take in one observation."""
        self.total = MEMORY * self.total + value
        self.weight = MEMORY * self.weight + 1

    @property
    def value(self) -> float | None:
        """The mean, if anything was observed."""
        return self.total / self.weight if self.weight else None


@dataclass
class BreakEven:
    """What drafting and the base model's own steps have cost in one solve; all times are in seconds."""

    accepted: Mean = field(default_factory=Mean)
    draft_s: Mean = field(default_factory=Mean)
    judge_s: Mean = field(default_factory=Mean)
    base_token_s: Mean = field(default_factory=Mean)
    step_tokens: Mean = field(default_factory=Mean)
    drafting: bool = True
    _pause: int = FIRST_PAUSE
    _resting: int = 0
    """Steps left until the next try."""
    _drafting_s: float = 0.0
    """Seconds of the calls for a draft that is not complete."""

    def hear(self, event: Event) -> None:
        """Update the account with what an event says about costs."""
        match event:
            case CallMade(dropped=False, kind="draft"):
                self._drafting_s += event.wall_s
            case CallMade(dropped=False, kind="judge"):
                self.judge_s.add(event.wall_s)
            case CallMade(dropped=False, kind="regenerate") if event.generated_tokens:
                self.base_token_s.add(event.wall_s / event.generated_tokens)
            case StepDrafted():
                self.draft_s.add(self._drafting_s)
                self._drafting_s = 0.0
            case StepScored():
                self.judged(event.accepted)
            case StepTaken():
                self.step_tokens.add(event.tokens)
            case _:
                pass

    @property
    def acceptance(self) -> float:
        """The probability that the next draft is accepted."""
        return (self.accepted.total + PRIOR_ACCEPTED) / (self.accepted.weight + PRIOR_JUDGED)

    @property
    def cost_s(self) -> float | None:
        """Seconds that a draft and its judgement take; None while unknown."""
        draft, judge = self.draft_s.value, self.judge_s.value
        return None if draft is None else draft + (judge or 0.0)

    @property
    def base_step_s(self) -> float | None:
        """Seconds that the base model takes for a step; None while unknown."""
        each, tokens = self.base_token_s.value, self.step_tokens.value
        return None if each is None or tokens is None else each * tokens

    @property
    def predicted(self) -> float | None:
        """The expected speed-up of drafting every step over drafting none; None while unknown."""
        if self.cost_s is None or self.base_step_s is None:
            return None
        return self.base_step_s / (self.cost_s + (1 - self.acceptance) * self.base_step_s)

    def judged(self, accepted: bool) -> None:
        """Count a decision on a draft."""
        self.accepted.add(float(accepted))
        if accepted:
            self._pause = FIRST_PAUSE

    def next_step(self) -> bool:
        """Whether the next step should be drafted; call it exactly once for each step."""
        if not self.drafting:
            self._resting -= 1
            if self._resting > 0:
                return False
            self.drafting = True  # one try, whatever is expected of it
            return True
        if self.predicted is not None and self.predicted < 1:
            self.drafting = False
            self._resting, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return self.drafting


class Drafting:
    """Which steps the small model drafts: not the first ``first_n``, and none while drafting costs more than it saves.

    Args:
        solve: the solve whose steps are drafted.
        first_n: how many steps at the beginning the base model writes itself.
        back_off: whether drafting pauses where it does not pay; decisions then depend on measured times.
    """

    def __init__(self, solve: Solve, first_n: int, back_off: bool) -> None:
        """Start to keep the account."""
        self._solve, self._first_n, self._back_off = solve, first_n, back_off
        self._account = BreakEven()
        solve.listen(self._account.hear)

    def is_wanted(self, place: Place) -> bool:
        """Whether the step at a place should be drafted; call it exactly once for each step."""
        if place.number < self._first_n:
            return False
        if not self._back_off:
            return True
        before, now = self._account.drafting, self._account.next_step()
        if before != now:
            acceptance, predicted = self._account.acceptance, self._account.predicted or 1.0
            self._solve.emit(
                DraftingChanged(step=place.number, drafting=now, acceptance=acceptance, predicted=predicted),
                place.chain,
            )
        return now
