"""Elastic Reasoning (arXiv 2505.05315): a budget for the thinking and one for the answer; and the relay.

Faithful: two calls, and the thinking is closed where its budget ends. Approximated: the answer begins behind the white
space of the model's own template; the training that gets a model used to being cut off is a matter of its weights.
"""

import sglang as sgl
from pydantic import NonNegativeInt, PositiveInt

from specreason_sgl.lang.calls import answer, think
from specreason_sgl.lang.knobs import Writer


@sgl.function
def elastic(
    s, solve, thinking_tokens: NonNegativeInt = 1024, solution_tokens: PositiveInt = 1024, thinker: Writer = "base",
    answerer: Writer = "base",
):  # fmt: skip
    """Think within one budget, answer within another, each with a model of its own.

    Args:
        thinking_tokens: the budget of the thinking, at most `budget`; 0 answers at once.
        solution_tokens: the budget of the answer, at most `answer_tokens`.
        thinker: the model that thinks.
        answerer: the model that answers; where it is the other one, the first hands its thinking over.
    """
    chain = solve.chain(budget=thinking_tokens)
    if not chain.ended:
        chain.think(solve.read(think(chain, thinker), "think", chain))
    return solve.answer(answer(chain, answerer, most=solution_tokens), chain)
