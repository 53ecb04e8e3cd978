"""Fractured chain-of-thought (arXiv 2505.12992): n chains, cut at H lengths, m answers behind each cut, and a vote.

Faithful: the last cuts count, the last of them is the whole chain; `early` ends one chain when an answer comes again.
Approximated: a cut is made at the nearest end of a step, not at a token; the vote has no reward model to help it.
"""

from itertools import accumulate

import sglang as sgl
from pydantic import NonNegativeFloat, PositiveInt

from specreason_sgl.lang.calls import answer, think
from specreason_sgl.lang.knobs import Several, Thinker, Writer
from specreason_sgl.lang.loading import load
from specreason_sgl.text.answers import is_same

OVERLAPS = True

over_one = load("stepwise").module


def places(steps, cuts, keep):
    """Behind how many of the steps the last of so many cuts of equal lengths are made."""
    ends = list(accumulate(map(len, steps)))
    wanted = [ends[-1] * (cut + 1) / cuts for cut in range(cuts)] if ends else []
    return sorted({1 + min(range(len(ends)), key=lambda end: abs(ends[end] - want)) for want in wanted} or {0})[-keep:]


@sgl.function
def fractured(
    s, solve, n: Several = 16, cuts: Several = 16, keep: Several = 4, m: Several = 4,
    thinker: Writer = "base", answerer: Writer = "base", early: bool = False,
    first: PositiveInt = 6144, every: PositiveInt = 2048, over: Thinker = "base",
    threshold: NonNegativeFloat = 7.0,
):  # fmt: skip
    """Think several times, answer behind several places of each chain, and vote; or answer early.

    Args:
        n: so many chains.
        cuts: into so many equal lengths a chain is cut.
        keep: so many of the last cuts are answered behind.
        m: so many answers behind each.
        thinker: the model that thinks.
        answerer: the model that answers.
        early: one chain only, which ends when an answer behind it has come before.
        first: behind so many tokens it is answered for the first time.
        every: and then behind each so many more.
        over: who thinks then: one model, or SpecReason.
        threshold: SpecReason's.
    """
    given, asked = [], first

    def repeats(chain):
        nonlocal asked
        if chain.ended is None and chain.tokens >= asked:
            asked = chain.tokens + every
            given.append(solve.answer(answer(chain, answerer, len(given) + 1), chain, len(given) + 1))
            if any(given[-1] and is_same(given[-1], other) for other in given[:-1]):
                chain.end("converged")

    if early:
        solve.guards.append(repeats)
        return over_one.thinking(s, solve, over, threshold)
    chains = [solve.chain() for _ in range(n)]
    for chain, thought in [(chain, think(chain, thinker)) for chain in chains if not chain.ended]:
        chain.think(solve.read(thought, "think", chain))
    for chain in chains:
        kept = [chain if cut == len(chain.steps) else chain.fork(keep=cut) for cut in places(chain.steps, cuts, keep)]
        given += [solve.answer(*each) for each in [(answer(c, answerer, i), c, i) for c in kept for i in range(m)]]
    return solve.vote(given)
