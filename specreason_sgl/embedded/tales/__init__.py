"""Tales: problems in ordinary words, their truth step by step, and two ways of wording it.

`tale` makes a problem from a seed, the same on every machine; `said` words its solution in a model's style.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from specreason_sgl.embedded.tales.facts import Step, Tale
from specreason_sgl.embedded.tales.forms import FORMS
from specreason_sgl.embedded.tales.meaning import IDLE, RIGHT, grade, made, progress
from specreason_sgl.embedded.tales.plot import Plot
from specreason_sgl.embedded.tales.styles import STYLES, Spoken, Style, said, spoken
from specreason_sgl.embedded.tales.words import Split
from specreason_sgl.embedded.tales.wrong import corrupt

__all__ = [
    "FORMS", "IDLE", "RIGHT", "STYLES", "Split", "Spoken", "Step", "Style", "Tale", "corrupt", "grade", "invent",
    "made", "progress", "said", "spoken", "tale",
]  # fmt: skip

OPERATIONS = 4
"""The most operations of a solution."""


def tale(seed: int, split: Split = "test") -> Tale:
    """The tale with this seed; the splits never share a random stream, a name or a thing."""
    return invent(Random(f"tale:{split}:{seed}"), split)


def invent(
    rng: Random, split: Split, forms: Sequence[str] = tuple(FORMS), longest: int = OPERATIONS, shortest: int = 1
) -> Tale:
    """A tale of one of these forms with so many operations."""
    while True:
        made = FORMS[rng.choice(forms)](Plot(rng, split))
        if shortest <= sum(bool(step.operation) for step in made.steps) <= longest:
            return made
