"""From the judge's ten digit log-probabilities to a utility score and a decision.

SpecReason reads one greedy digit (section 4.1), which ignores most of the distribution. So every log-probability is
kept in the trace, and the rule that decides can be chosen: the greedy digit, the mean digit, or coefficients that were
fitted to drafts that are known to be right or wrong.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

DIGITS = tuple("0123456789")

NamedRule = Literal["expected", "greedy"]
LEAST = -100.0
"""Used in place of a log-probability of minus infinity, which JSON cannot hold."""
FAINT = -20.0
"""The least log-probability that a fitted rule tells apart."""

LONGEST = 1_000_000
"""The most tokens of a draft that a fitted rule tells apart."""
Weight = Annotated[float, Field(ge=-1e6, le=1e6)]

RULES: tuple[NamedRule, ...] = get_args(NamedRule)


@dataclass(frozen=True)
class Score:
    """The judge's score of one draft.

    The ten log-probabilities are over the model's whole vocabulary, so that the probability outside the digits is
    known; all other numbers are of the distribution over the digits alone.
    """

    logprobs: tuple[float, ...]
    tokens: int = 0
    """The length of the draft; 0 where it is not known."""

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
        if isinstance(rule, Fitted):
            return 9 * rule.probability(features(self))
        return self.expected if rule == "expected" else float(self.greedy)

    def accepts(self, rule: ScoreRule, threshold: float) -> bool:
        """Whether a draft with this score is accepted: at the threshold or above it."""
        return self.value(rule) >= threshold


class Fitted(BaseModel):
    """A score rule that was fitted: logistic regression on a score, with the draft's length and the entropy.

    Its value is nine times the probability that the draft is right, so that thresholds are on the judge's scale.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    digits: Annotated[tuple[Weight, ...], Field(min_length=len(DIGITS), max_length=len(DIGITS))]
    """The weights of the log-probabilities, none of which counts as less than -20."""
    length: Weight
    """The weight of ln(1 + tokens)."""
    entropy: Weight
    """The weight of the entropy in bits."""
    bias: Weight

    def probability(self, given: Sequence[float]) -> float:
        """The probability that a draft with these features is right."""
        weights = (*self.digits, self.length, self.entropy)
        logit = self.bias + sum(weight * value for weight, value in zip(weights, given, strict=True))
        if logit < 0:
            return math.exp(logit) / (1 + math.exp(logit))
        return 1 / (1 + math.exp(-logit))

    def __str__(self) -> str:
        """A name for it: the same coefficients have the same name everywhere."""
        return f"fitted-{hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]}"


def _kind_of_rule(given: Any) -> str:
    return "fitted" if isinstance(given, dict | Fitted) else "rule"


ScoreRule = Annotated[
    Annotated[NamedRule, Tag("rule")] | Annotated[Fitted, Tag("fitted")], Discriminator(_kind_of_rule)
]
"""How a score becomes the number that is compared with the threshold: by a rule's name, or by fitted coefficients."""


def features(score: Score) -> tuple[float, ...]:
    """What a fitted rule knows of a score: the log-probabilities, the draft's length, and the entropy."""
    tokens = min(max(score.tokens, 0), LONGEST)
    return (*(max(p, FAINT) for p in score.logprobs), math.log1p(tokens), score.entropy)


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
