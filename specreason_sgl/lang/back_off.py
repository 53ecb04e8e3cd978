"""Whether a draft is worth its cost, from what the solve has seen so far.

A draft costs the time of drafting and judging it; it saves the base model's time for a step, if it is accepted. Where
the expected saving is smaller, drafting stops and is tried again after a while, which doubles with every failed try.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MEMORY = 0.9
"""How much of what was known is kept with each new observation: some ten steps are remembered."""
PRIOR_ACCEPTED, PRIOR_JUDGED = 1.0, 1.5
"""What acceptance is taken to be before anything is known, and by how many drafts' worth of evidence."""
FIRST_PAUSE, LONGEST_PAUSE = 4, 64
"""In steps."""


@dataclass
class Mean:
    """A mean that forgets."""

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
    """The running account of one solve; all times are in seconds."""

    accepted: Mean = field(default_factory=Mean)
    draft_s: Mean = field(default_factory=Mean)
    judge_s: Mean = field(default_factory=Mean)
    base_token_s: Mean = field(default_factory=Mean)
    step_tokens: Mean = field(default_factory=Mean)
    drafting: bool = True
    _pause: int = FIRST_PAUSE
    _resting: int = 0
    """Steps left until the next try."""

    @property
    def acceptance(self) -> float:
        """The probability that the next draft is accepted."""
        return (self.accepted.total + PRIOR_ACCEPTED) / (self.accepted.weight + PRIOR_JUDGED)

    @property
    def cost_s(self) -> float | None:
        """What a draft and its judgement cost."""
        draft, judge = self.draft_s.value, self.judge_s.value
        return None if draft is None else draft + (judge or 0.0)

    @property
    def base_step_s(self) -> float | None:
        """What the base model takes for a step."""
        each, tokens = self.base_token_s.value, self.step_tokens.value
        return None if each is None or tokens is None else each * tokens

    @property
    def predicted(self) -> float | None:
        """The speed-up of drafting every step, against drafting none."""
        if self.cost_s is None or self.base_step_s is None:
            return None
        return self.base_step_s / (self.cost_s + (1 - self.acceptance) * self.base_step_s)

    def judged(self, accepted: bool) -> None:
        """A draft was decided on."""
        self.accepted.add(float(accepted))
        if accepted:
            self._pause = FIRST_PAUSE

    def next_step(self) -> bool:
        """Whether the next step should be drafted; ask once a step."""
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
