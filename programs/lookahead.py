"""Drafting ahead: SpecReason in which no model waits for the other. The same decisions, in less time."""

import sglang as sgl
from pydantic import NonNegativeFloat, NonNegativeInt

from specreason_sgl.lang.ahead import Ahead
from specreason_sgl.lang.back_off import Drafting
from specreason_sgl.lang.loading import load
from specreason_sgl.text.scoring import ScoreRule

OVERLAPS = True

paper = load("specreason").module


@sgl.function
def lookahead(
    s, solve, depth: NonNegativeInt = 2, threshold: NonNegativeFloat = 7.0, score: ScoreRule = "greedy",
    first_n: NonNegativeInt = 0, min_step_tokens: NonNegativeInt = 0, back_off: bool = False,
):  # fmt: skip
    """Draft ahead of the judge.

    Args:
        depth: so many steps are drafted on top of one that is not decided.
        threshold: the utility score at which a draft is accepted; 0 accepts all, anything above 9 none.
        score: what is compared with it: the most probable digit (`greedy`), the mean (`expected`), or a fitted value.
        first_n: so many first steps are written by the base model without a draft.
        min_step_tokens: a shorter draft goes on into the next step before it is judged; can cost accuracy.
        back_off: pause drafting where it does not pay; decisions then depend on measured times.
    """
    chain, drafting = solve.chain(), Drafting(solve, first_n, back_off)
    with Ahead(chain, paper.draft, paper.judge, depth, least=min_step_tokens) as ahead:
        for place in chain.places():
            kept = None
            if drafting.is_wanted(place):
                drafted, judged = ahead.next(place)
                if drafted.text:
                    verdict = solve.score(judged, place)
                    kept = drafted if solve.decide(place, verdict.accepts(score, threshold), verdict) else None
            if kept is None:
                ahead.drop()
                base = paper.regenerate.run(chain, place, backend=solve.base, **solve.sampling)
                kept = solve.read(base, "regenerate", place)
            chain.take(place, kept)
    s += chain.closed("base")
    s += sgl.gen("answer", **solve.answering)
    return solve.answer(s, chain)
