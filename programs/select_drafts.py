"""SpecCoT (EMNLP 2025 Findings) and Select to Think (arXiv 2604.26940): the base model selects a draft, or writes.

Faithful: the drafts are made side by side, the base model reads them together and answers with one token, and writes
where none will do. Approximated: Select to Think chooses among the small model's eight likeliest tokens; here these are
eight whole steps.
"""

from typing import Annotated

import sglang as sgl
from pydantic import Field

from specreason_sgl.lang.calls import answer, ask, candidates, step
from specreason_sgl.text import turns
from specreason_sgl.text.scoring import DIGITS

OVERLAPS = True


@sgl.function
def select_drafts(s, solve, n: Annotated[int, Field(ge=1, le=9)] = 8):
    """Draft several steps, have one selected, or written where none will do.

    Args:
        n: so many drafts of each step, 9 at most.
    """
    chain = solve.chain()
    for place in chain.places():
        drafts = [(number, each) for number, each in enumerate(candidates(place, "small", range(n))) if each.text]
        kept = None
        if drafts:
            question, choices = turns.selection([each.text for _, each in drafts]), DIGITS[: len(drafts) + 1]
            chosen = solve.choice(ask(chain, "base", place.named("select"), question, "", choices), "select", place)
            for (number, each), digit, share in zip(drafts, choices[1:], chosen.shares[1:], strict=True):
                if solve.decide(place, chosen.text == digit, attempt=number, value=share, measure="probability"):
                    kept = each
        chain.take(place, kept or solve.read(step(place, "base", "regenerate"), "regenerate", place))
    return solve.answer(answer(chain, "base"), chain)
