"""FoReaL-Decoding, or Follow the Reasoning Leader (arXiv 2506.06998): the base model leads, the small one finishes.

Faithful: a coin for each sentence, n tokens of the leader, sentences and not steps. Approximated: a sentence ends
behind `.`, `?` or `!` with a space, and with its step. The controls ask what the leader's words are worth.
"""

import re
from typing import Annotated, Literal

import sglang as sgl
from pydantic import Field, NonNegativeInt

from specreason_sgl.lang.calls import answer, piece

ENDS = (". ", "? ", "! ")


@sgl.function
def foreal(
    s, solve, n: NonNegativeInt = 15, p: Annotated[float, Field(ge=0, le=1)] = 1.0,
    control: Literal["none", "cue", "anywhere"] = "none", cue: str = "Wait, ",
    answerer: Literal["base", "small"] = "base",
):  # fmt: skip
    """Let the base model lead each sentence, and the small model finish it.

    Args:
        n: so many tokens the leader writes; without any, the small model writes all.
        p: the share of the sentences that have a leader.
        control: `cue`: a fixed text leads; `anywhere`: as many tokens of the base model at a random place.
        cue: that text.
        answerer: the model that answers.
    """
    chain, coin, due = solve.chain(), solve.lots(), "begin"

    def written(place, number, role, most=None):
        kind = "lead" if role == "base" else "follow"
        return solve.read(piece(place, role, kind, number, stops=ENDS, most=most), kind, place, number)

    for number, place in enumerate(chain.places()):
        if due == "begin":
            due = "lead" if n and coin.random() < p else "follow"
            if due == "lead" and control == "cue":
                chain.add(f" {cue}" if chain.begun else cue, "cue")
                due = "follow"
                continue
            if due == "lead" and control == "anywhere":
                whole = written(place, number, "small")
                start = coin.choice([0, *(space.start() for space in re.finditer(r"\s", whole.raw.rstrip()))])
                tokens = whole.tokens * start // max(1, len(whole.raw))
                chain.drop("small", whole.tokens - tokens)
                if start:
                    chain.go_on(place, whole.cut(whole.raw[:start], tokens))
                continue
        made = written(place, number, *(("base", n) if due == "lead" else ("small",)))
        ends_sentence = made.stop in ENDS
        ends_step = chain.go_on(place, made, made.stop.rstrip() if ends_sentence else "")
        due = "begin" if ends_step or ends_sentence else "follow"
    return solve.answer(answer(chain, answerer), chain)
