"""From the judge's ten digit log-probabilities to a utility score and a decision.

SpecReason reads one greedy digit (section 4.1), which ignores most of the distribution. So every log-probability is
kept in the trace, and the rule that decides can be chosen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

DIGITS = tuple("0123456789")

ScoreRule = Literal["expected", "greedy"]
LEAST = -100.0
"""Used in place of a log-probability of minus infinity, which JSON cannot hold."""

RULES: tuple[ScoreRule, ...] = get_args(ScoreRule)


@dataclass(frozen=True)
class Score:
    """The judge's score of one draft.

    The ten log-probabilities are over the model's whole vocabulary, so that the probability outside the digits is
    known; all other numbers are of the distribution over the digits alone.
    """

    logprobs: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse anything but ten log-probabilities of which at least one is not minus infinity."""
        if len(self.logprobs) != len(DIGITS):
            msg = f"a score needs {len(DIGITS)} log-probabilities, not {len(self.logprobs)}"
            raise ValueError(msg)
        if any(math.isnan(p) for p in self.logprobs) or max(self.logprobs) <= LEAST:
            msg = "the judge's digits have no mass"
            raise ValueError(msg)

    @property
    def distribution(self) -> tuple[float, ...]:
        """The probability of each digit, given that it is a digit."""
        return softmax(self.logprobs)

    @property
    def greedy(self) -> int:
        """The most probable digit; the lower one on a tie."""
        return max(range(len(DIGITS)), key=lambda digit: (self.logprobs[digit], -digit))

    @property
    def expected(self) -> float:
        """The mean digit, 0 to 9."""
        return sum(digit * p for digit, p in enumerate(self.distribution))

    @property
    def entropy(self) -> float:
        """The spread of the distribution, in bits: 0 for one certain digit, 3.32 for none preferred."""
        return -sum(p * math.log2(p) for p in self.distribution if p > 0)

    @property
    def missing_mass(self) -> float:
        """The probability of anything but a digit; for a judge that understands its task it is small."""
        return max(0.0, 1.0 - sum(math.exp(p) for p in self.logprobs))

    def reaching(self, threshold: float) -> float:
        """The probability that the digit is at or above the threshold."""
        return sum(p for digit, p in enumerate(self.distribution) if digit >= threshold)

    def value(self, rule: ScoreRule) -> float:
        """The number that the score rule compares with the threshold."""
        return self.expected if rule == "expected" else float(self.greedy)

    def accepts(self, rule: ScoreRule, threshold: float) -> bool:
        """Whether a draft with this score is accepted: at the threshold or above it."""
        return self.value(rule) >= threshold


def certain(digit: str) -> Score:
    """The score of a judge that gives only a digit and no log-probabilities: the digit has probability 1."""
    return Score(tuple(0.0 if digit.strip() == known else LEAST for known in DIGITS))


def softmax(values: Sequence[float], sharpness: float = 1.0) -> tuple[float, ...]:
    """Probabilities in proportion to ``exp(sharpness * value)``; a sharpness of 0 makes all equal."""
    most = max(values)
    weights = [math.exp(sharpness * (value - most)) for value in values]
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def of_two(right: float, wrong: float) -> Score:
    """The score of a judge that only says right or wrong: a 9 or a 0 with these log-probabilities."""
    return Score((max(wrong, LEAST), *[LEAST] * 8, max(right, LEAST)))
