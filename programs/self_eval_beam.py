"""Self-evaluation guided beam search (arXiv 2305.00633): beams of steps, by likelihood and self-evaluation, with lots.

Faithful: n samples for each of k beams, an A-or-B about each, the mix of both, drawing without replacement at a falling
temperature, the vote. Approximated: the question comes without examples and may go to the other model; behind `depth`
steps the best beam alone goes on, written by the base model.
"""

from math import log
from typing import Annotated, Literal

import sglang as sgl
from pydantic import Field, NonNegativeFloat, PositiveInt

from specreason_sgl.lang.beams import Beam, kept
from specreason_sgl.lang.calls import answer, ask, candidates, likelihood, step
from specreason_sgl.lang.choosing import several
from specreason_sgl.lang.knobs import Several
from specreason_sgl.text import turns
from specreason_sgl.text.scoring import of_two

OVERLAPS = True


def grown(beam, n, drafter, evaluator, weight):
    """A beam with each of n candidates for its next step; as it stands where it has ended."""
    chain, solve, place = beam.chain, beam.chain.solve, next(beam.chain.places(), None)
    made = candidates(place, drafter, range(n)) if place else []
    if not (drafts := {i: each for i, each in enumerate(made) if each.text}):
        chain.end("closed" if any(each.closes for each in made) else "no-progress")
        return [beam]
    question = turns.CORRECT, turns.BRACKET, turns.A_B
    asked = [ask(chain, evaluator, place.named("evaluate", i), *question, each.text) for i, each in drafts.items()]
    read, beams = likelihood(place, drafter, [each.text for each in drafts.values()], "likelihood"), []
    likely = solve.choice(read, "likelihood", place).logprobs
    for (i, draft), state, logprob in zip(drafts.items(), asked, likely, strict=True):
        said = solve.choice(state, "evaluate", place, i)
        more = weight * logprob / max(1, draft.tokens) + (1 - weight) * log(max(said.shares[0], 1e-9))
        beams.append(Beam(chain, beam.total + more, draft, i, of_two(*said.logprobs)))
    return beams


@sgl.function
def self_eval_beam(
    s, solve, k: Several = 5, n: Several = 16, depth: PositiveInt = 16,
    weight: Annotated[float, Field(ge=0, le=1)] = 0.5, tau: NonNegativeFloat = 0.5, alpha: NonNegativeFloat = 0.5,
    drafter: Literal["base", "small"] = "small", evaluator: Literal["base", "small"] = "base",
):  # fmt: skip
    """Grow several chains step by step, keep some of them each time, and vote.

    Args:
        k: so many beams.
        n: so many samples of each beam's next step.
        depth: so many steps are searched.
        weight: what the likelihood counts against the self-evaluation.
        tau: the temperature of the drawing; at 0 the best are kept.
        alpha: what it is multiplied by behind each step.
        drafter: the model that writes.
        evaluator: the model that is asked about it.
    """
    beams, lots = [Beam(solve.chain())], solve.lots()
    for level in range(depth):
        pool = [each for beam in beams for each in grown(beam, n, drafter, evaluator, weight)]
        beams = kept(pool, several([each.value for each in pool], k, tau * alpha**level, lots))
    best, *others = sorted(beams, key=lambda beam: -beam.value)
    for place in best.chain.places():
        best.chain.take(place, solve.read(step(place, "base", "regenerate"), "regenerate", place))
    final = [best.chain, *(beam.chain for beam in others if beam.chain.ended)]
    return solve.vote([solve.answer(answer(chain, "base"), chain) for chain in final])
