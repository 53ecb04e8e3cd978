"""ConciseHint (arXiv 2506.18810): hints for brevity in the running reasoning, at an interval that grows with it.

Faithful: the interval, and a hint that stands in every prompt and is no part of the reasoning. Approximated: it stands
at the end of the step in which it falls due, not at a comma within a chunk, and is a sentence, not a turn in the
model's own control tokens; a judge sees it too. Trained hints (embeddings) need an engine that takes them.
"""

import sglang as sgl
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from specreason_sgl.lang.knobs import Thinker
from specreason_sgl.lang.loading import load
from specreason_sgl.text import turns

over_one = load("stepwise").module


@sgl.function
def concise_hint(
    s, solve, alpha: NonNegativeInt = 128, beta: NonNegativeFloat = 0.2, most: PositiveInt = 1024,
    hint: str = turns.BE_BRIEF, over: Thinker = "base", threshold: NonNegativeFloat = 7.0,
):  # fmt: skip
    """Think, and be told to keep it short now and then.

    Args:
        alpha: the tokens between two hints at the beginning.
        beta: how much that grows with each token of the text so far; 0 is the control, a fixed interval.
        most: the most tokens between two hints.
        hint: the text.
        over: who thinks: one model, or SpecReason.
        threshold: SpecReason's.
    """
    told = 0

    def hints(chain):
        nonlocal told
        if chain.ended is None and chain.tokens - told >= min(most, alpha + beta * chain.length):
            told = chain.tokens
            chain.add(hint + chain.delimiter, "hint")

    solve.guards.append(hints)
    return over_one.thinking(s, solve, over, threshold)
