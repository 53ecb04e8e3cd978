"""SPECS (arXiv 2506.15733) and GSI (arXiv 2506.04118): several drafts of a step, one drawn by reward and likelihoods.

Faithful: rewards tilted by the exact likelihood ratio, the soft draw, the bound, and the base model's own candidates.
Approximated: the reward is a judge's mean score, not a trained reward model's, so call it GSI-judge; when SPECS hands
back is not published, so here each model goes on for as long as what is drawn stays on its side of the bound.
"""

from math import inf
from typing import Literal

import sglang as sgl
from pydantic import PositiveFloat

from specreason_sgl.lang.calls import answer, candidates, judge, likelihood
from specreason_sgl.lang.choosing import softly
from specreason_sgl.lang.knobs import Several

OVERLAPS = True


def drawn(place, role, numbers, beta, bound, by, lots):
    """A candidate and its value, drawn from those of a model; every candidate is told with its value."""
    solve, kind = place.chain.solve, "draft" if role == "small" else "regenerate"
    made = candidates(place, role, numbers, kind)
    drafts = {number: draft for number, draft in zip(numbers, made, strict=True) if draft.text}
    if not drafts:
        return max(made, key=lambda draft: draft.closes), -inf
    scores, values = dict.fromkeys(drafts), dict.fromkeys(drafts, 0.0)
    if by != "ratio":
        by_role = solve.role("reward", "base")
        asked = {number: judge(place, draft.text, by_role, number) for number, draft in drafts.items()}
        scores = {number: solve.score(state, place, number) for number, state in asked.items()}
        values = {number: score.expected / 9 for number, score in scores.items()}
    if by != "reward" and role == "small":
        read = [likelihood(place, each, [d.text for d in drafts.values()], "likelihood") for each in ("base", "small")]
        base, small = (solve.choice(state, "likelihood", place).logprobs for state in read)
        values = {number: values[number] + (b - s) / beta for number, b, s in zip(values, base, small, strict=True)}
    best = list(drafts)[softly(list(values.values()), beta, lots)]
    is_kept, measure = role == "base" or values[best] >= bound, "likelihood ratio" if by == "ratio" else "reward"
    for number, score in scores.items():
        solve.decide(place, is_kept and number == best, score, attempt=number, value=values[number], measure=measure)
    return drafts[best], values[best]


@sgl.function
def specs(
    s, solve, n: Several = 4, beta: PositiveFloat = 20.0, bound: float = 0.5,
    rule: Literal["gsi", "specs"] = "gsi", by: Literal["both", "reward", "ratio"] = "both",
):  # fmt: skip
    """Draft several steps, draw one of them, and have the base model write where it is not good enough.

    Args:
        n: so many candidates for each step.
        beta: how strongly the greatest value is preferred, and how little the likelihoods count in it.
        bound: below this value the base model takes over.
        rule: `gsi`: the small model begins every step; `specs`: the base model begins, and the small one drafts once
            what was drawn reached the bound.
        by: the value: reward and likelihood ratio, or one of them alone.
    """
    chain, lots, is_bases = solve.chain(), solve.lots(), rule == "specs"
    for place in chain.places():
        kept, value = (None, -inf) if is_bases else drawn(place, "small", range(n), beta, bound, by, lots)
        if value < bound:
            kept, value = drawn(place, "base", range(n, n + (1 if by == "ratio" else n)), beta, bound, by, lots)
        is_bases = rule == "specs" and value < bound
        chain.take(place, kept)
    return solve.answer(answer(chain, "base"), chain)
