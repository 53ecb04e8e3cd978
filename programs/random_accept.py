"""A control: SpecReason with lots in place of the judge, so that what the judge is worth can be seen."""

from typing import Annotated

import sglang as sgl
from pydantic import Field, NonNegativeInt

from specreason_sgl.lang.loading import load

paper = load("specreason").function.func


@sgl.function
def random_accept(
    s, solve, rate: Annotated[float, Field(ge=0, le=1)] = 0.5, first_n: NonNegativeInt = 0,
    min_step_tokens: NonNegativeInt = 0,
):  # fmt: skip
    """Draft, draw lots, accept or regenerate.

    Args:
        rate: the acceptance that is aimed at.
        first_n: so many first steps are written by the base model without a draft.
        min_step_tokens: a shorter draft goes on into the next step before lots are drawn.
    """
    lots = solve.lots()

    def accepts(solve, place, *_):
        return solve.decide(place, lots.random() < rate)

    return paper(s, solve, first_n=first_n, min_step_tokens=min_step_tokens, accepts=accepts)
