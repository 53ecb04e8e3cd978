"""A control: SpecReason with lots in place of the judge, so that what the judge is worth can be seen."""

import random

import sglang as sgl

from specreason_sgl.lang.loading import load

paper = load("specreason").function.func


@sgl.function
def random_accept(s, trace, rate=0.5):
    """Draft, draw lots, accept or regenerate; ``rate`` is the acceptance that is aimed at."""
    lots = random.Random(f"{trace.settings.seed}:{trace.question}")
    return paper(s, trace, judge=lambda s, trace, step, drafted: trace.decided(step, lots.random() < rate))
