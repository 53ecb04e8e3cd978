"""A bound: SpecReason with the truth in place of the judge, which accepts exactly the right drafts."""

import sglang as sgl
from pydantic import NonNegativeInt

from specreason_sgl.lang.loading import load

paper = load("specreason").function.func


@sgl.function
def oracle(s, solve, is_right, first_n: NonNegativeInt = 0, min_step_tokens: NonNegativeInt = 0):
    """Draft, ask ``is_right(steps, draft, closes)``, accept or regenerate.

    Args:
        first_n: so many first steps are written by the base model without a draft.
        min_step_tokens: a shorter draft goes on into the next step before its truth is asked for.
    """

    def accepts(solve, place, drafted, *_):
        return solve.decide(place, is_right(place.chain.steps, drafted.text, drafted.closes))

    return paper(s, solve, first_n=first_n, min_step_tokens=min_step_tokens, accepts=accepts)
