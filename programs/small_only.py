"""The anchor at the other end: the small model thinks and answers alone, in one call each."""

import sglang as sgl

MODEL = "small"


@sgl.function
def think(s, chain):
    """Think until the thinking is closed or there is no more room for it."""
    s += chain.prompt("small")
    s += sgl.gen("think", stop=[chain.solve.chat("small").thinking.close], max_tokens=chain.most("small"))


@sgl.function
def small_only(s, solve):
    """Think, then answer."""
    chain = solve.chain()
    if not chain.ended:
        chain.think(solve.read(think.run(chain, backend=solve.small, **solve.sampling), "think", chain))
    s += chain.closed("small")
    s += sgl.gen("answer", **solve.answering)
    return solve.answer(s, chain)
