"""SpecReason: speculative reasoning, step by step (Pan et al., arXiv 2504.07891, figure 2)."""

import sglang as sgl
from pydantic import NonNegativeFloat, NonNegativeInt

from specreason_sgl.lang.back_off import Drafting
from specreason_sgl.text.scoring import DIGITS, ScoreRule


@sgl.function
def draft(s, chain, place, least=0):
    """The small model drafts the next step."""
    s += chain.prompt("small")
    for part, most in chain.parts(s, place, "draft", least):
        s += sgl.gen(part, stop=place.stops, max_tokens=most)


@sgl.function
def judge(s, chain, place, *steps):
    """The base model scores the last of these steps, 0 to 9, in a turn that is then forgotten."""
    s += chain.prompt("base", *steps)
    s += chain.solve.chat("base").judge_turn
    s += sgl.select(place.named("judge"), choices=DIGITS)


@sgl.function
def regenerate(s, chain, place):
    """The base model writes the step itself."""
    s += chain.prompt("base")
    s += sgl.gen(place.named("regenerate"), stop=place.stops, max_tokens=place.most)


def reaches(solve, place, drafted, threshold, score):
    """Whether the judge's score of a draft reaches the threshold."""
    verdict = solve.score(judge.run(place.chain, place, drafted.text, backend=solve.base), place)
    return solve.decide(place, verdict.accepts(score, threshold), verdict)


@sgl.function
def specreason(
    s, solve, threshold: NonNegativeFloat = 7.0, score: ScoreRule = "greedy", first_n: NonNegativeInt = 0,
    min_step_tokens: NonNegativeInt = 0, back_off: bool = False, accepts=reaches,
):  # fmt: skip
    """Draft, judge, accept or regenerate, until the thinking ends; then the base model answers.

    Args:
        threshold: the utility score at which a draft is accepted; 0 accepts all, anything above 9 none.
        score: what is compared with it: the most probable digit (`greedy`), the mean (`expected`), or a fitted value.
        first_n: so many first steps are written by the base model without a draft.
        min_step_tokens: a shorter draft goes on into the next step before it is judged; can cost accuracy.
        back_off: pause drafting where it does not pay; decisions then depend on measured times.
    """
    chain, drafting = solve.chain(), Drafting(solve, first_n, back_off)
    for place in chain.places():
        kept = None
        if drafting.is_wanted(place):
            small = draft.run(chain, place, least=min_step_tokens, backend=solve.small, **solve.sampling)
            drafted = solve.read(small, "draft", place)
            if drafted.text and accepts(solve, place, drafted, threshold, score):
                kept = drafted
        if kept is None:
            base = regenerate.run(chain, place, backend=solve.base, **solve.sampling)
            kept = solve.read(base, "regenerate", place)
        chain.take(place, kept)
    s += chain.closed("base")
    s += sgl.gen("answer", **solve.answering)
    return solve.answer(s, chain)
