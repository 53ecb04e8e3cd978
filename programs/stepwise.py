"""One model thinks step by step and answers: the anchors' text in a call a step, with room for guards between steps.

It is also what methods stand on that hint at a thinking or end it: `thinking` runs it, or SpecReason in its place.
"""

import sglang as sgl

from specreason_sgl.lang.calls import answer, step
from specreason_sgl.lang.knobs import Writer
from specreason_sgl.lang.loading import load

paper = load("specreason").function.func


def thinking(s, solve, over, threshold):
    """A whole solve, by one model step by step or by SpecReason; the solve's guards see every step."""
    if over == "specreason":
        return paper(s, solve, threshold=threshold)
    return stepwise.func(s, solve, writer=over)


@sgl.function
def stepwise(s, solve, writer: Writer = "base"):
    """Think step by step, then answer.

    Args:
        writer: the model that does.
    """
    chain = solve.chain()
    for place in chain.places():
        chain.take(place, solve.read(step(place, writer, "think"), "think", place))
    return solve.answer(answer(chain, writer), chain)
