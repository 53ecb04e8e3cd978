"""The anchor at one end: the base model thinks and answers alone, in one call each."""

import sglang as sgl


@sgl.function
def think(s, chain):
    """Think until the thinking is closed or there is no more room for it."""
    s += chain.prompt("base")
    s += sgl.gen("think", stop=[chain.solve.chat("base").thinking.close], max_tokens=chain.most("base"))


@sgl.function
def base_only(s, solve):
    """Think, then answer."""
    chain = solve.chain()
    if not chain.ended:
        chain.think(solve.read(think.run(chain, backend=solve.base, **solve.sampling), "think", chain))
    s += chain.closed("base")
    s += sgl.gen("answer", **solve.answering)
    return solve.answer(s, chain)
