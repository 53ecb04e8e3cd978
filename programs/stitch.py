"""R-Stitch (arXiv 2507.17307), span-stitched: the small model writes until it is unsure, the base until it is sure.

Faithful: the token at which the small model is unsure is thrown away; the base model's first sure token is its last.
Approximated: spans have a least length, because a hand-over between servers costs a request; they are cut here, from
chunks whose rest is lost; the entropy is of the likeliest tokens, so a little too low; the paper's share of ln V is a
bound in nats. The router learned by reinforcement (R-Stitch+) needs hidden states.
"""

from typing import Literal

import sglang as sgl
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from specreason_sgl.lang.calls import answer, piece
from specreason_sgl.lang.choosing import beginning, entropies, pieces

HEADS = 20


def place_of_switch(author, entropies, bound, least):
    """How many tokens the author of a span keeps before the other goes on; None where he goes on himself."""
    if author == "small":
        return next((i for i, entropy in enumerate(entropies) if i >= least and entropy >= bound), None)
    return next((i + 1 for i, entropy in enumerate(entropies) if i + 1 >= least and entropy < bound), None)


@sgl.function
def stitch(
    s, solve, bound: NonNegativeFloat = 0.24, least: NonNegativeInt = 16, chunk: PositiveInt = 32,
    per_step: bool = False, answerer: Literal["base", "small"] = "base",
):  # fmt: skip
    """Let two models write one text in turns, by the entropy of their next token.

    Args:
        bound: the entropy in nats from which on a model is unsure; 0.02 of ln V, for the paper's vocabulary.
        least: the fewest tokens of a span.
        chunk: so many tokens are asked for at a time.
        per_step: decide once a step, by its first token; the base model then writes the whole step.
        answerer: the model that answers.
    """
    chain, author, since = solve.chain(), "small", 0
    for number, place in enumerate(chain.places()):
        most = None if per_step else chunk
        made = solve.read(piece(place, author, "span", number, most=most, heads=HEADS), "span", place, number)
        told, keep = entropies(made.meta, solve.settings.temperature), None
        if not per_step:
            keep = place_of_switch(author, told, bound, least - since)
        elif author == "small" and not chain.begun:
            keep = place_of_switch(author, told[:1], bound, 0)
        text = None if keep is None else beginning(made.raw, pieces(made.meta), keep)
        is_complete = False
        if text is not None and keep < made.tokens:
            chain.drop(author, made.tokens - keep)
            if keep:
                chain.go_on(place, made.cut(text, keep))
        else:
            is_complete = chain.go_on(place, made)
        if keep is not None or (is_complete and per_step):
            author, since = "base" if author == "small" and keep is not None else "small", 0
        else:
            since += made.tokens
    return solve.answer(answer(chain, answerer), chain)
