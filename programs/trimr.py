"""TrimR (arXiv 2505.17155): a verifier ends the thinking when its answers converge or when it goes nowhere.

Faithful: thoughts end where a step begins to reflect, a verifier's one token says whether there is an answer, and
whether two agree; both rules with their numbers. Approximated: the thinking waits, and closes at once for either.
"""

import sglang as sgl
from pydantic import NonNegativeFloat, PositiveInt

from specreason_sgl.lang.calls import answer, ask
from specreason_sgl.lang.knobs import Thinker
from specreason_sgl.lang.loading import load
from specreason_sgl.text import turns
from specreason_sgl.text.answers import is_same

over_one = load("stepwise").module


def says_yes(chain, kind, number, question):
    """Whether the verifier, which is the small model if there is none, says yes behind the reasoning."""
    role = chain.solve.role("verifier", "small")
    asked = ask(chain, role, chain.named(kind, number), question, turns.ANSWER, turns.YES_NO)
    yes, no = chain.solve.choice(asked, kind, chain, number).shares
    chain.solve.notice(f"thought {number} {kind}: {yes:.2f}", chain, role)
    return yes > no


@sgl.function
def trimr(
    s, solve, agreeing: PositiveInt = 2, share: NonNegativeFloat = 0.5, thoughts: PositiveInt = 20,
    words: str = "Wait But Alternatively Hmm", probes: bool = False, over: Thinker = "base",
    threshold: NonNegativeFloat = 7.0,
):  # fmt: skip
    """Think, and have each thought's answer compared with the one before.

    Args:
        agreeing: when an answer has agreed with the one before so many times in a row, the thinking has converged.
        share: when so much of the budget is spent before that, it has diverged.
        thoughts: when there are so many thoughts before that, it has diverged.
        words: a step that begins with one of these ends the thought before it; without any, every step is a thought.
        probes: the control: instead of the verifier, answers written behind each thought are compared.
        over: who thinks: one model, or SpecReason.
        threshold: SpecReason's.
    """
    last, row, number, begins = "", 0, 0, 0

    def trims(chain):
        nonlocal last, row, number, begins
        ends = len(chain.steps) - bool(words)
        reflects = not words or (chain.steps and chain.steps[-1].startswith(tuple(words.split())))
        if chain.ended or not reflects or ends <= begins:
            return
        thought, begins, number = chain.supposed(), ends, number + 1
        thought.keep(ends)
        if probes:
            said = solve.answer(answer(thought, "small" if over == "small" else "base", number), thought, number)
            agrees = is_same(said, last)
        else:
            said = thought.steps[-1] if says_yes(thought, "states", number, turns.STATES) else ""
            agrees = said and last and says_yes(thought, "agrees", number, turns.agreement(last, said))
        if said:
            last, row = said, row + 1 if agrees else 0
        spent = number >= thoughts or chain.tokens > share * chain.budget
        if why := "converged" if row >= agreeing else "diverged" if spent else "":
            if ends < len(chain.steps):
                chain.cut(ends, why)
            chain.end(why)

    solve.guards.append(trims)
    return over_one.thinking(s, solve, over, threshold)
