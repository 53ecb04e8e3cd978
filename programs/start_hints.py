"""START (arXiv 2503.04625), its hints alone: a tool in the reasoning, and hints at it and at checking the result.

Faithful: hints behind steps that reflect and before the thinking ends, each of those a further round; a tool's output
is text by the author `tool` in both prompts; at most six calls. Approximated: the tool is a calculator in place of
Python, and the fine-tuning that gets a model used to it (START's weights) is left out.
"""

import re

import sglang as sgl
from pydantic import NonNegativeFloat, NonNegativeInt

from specreason_sgl.lang.knobs import Thinker
from specreason_sgl.lang.loading import load
from specreason_sgl.text import turns
from specreason_sgl.text.arithmetic import computed

CALL = re.compile(r"calc\((?P<expression>[^\n]*)\)\W*\Z")

over_one = load("stepwise").module


@sgl.function
def start_hints(
    s, solve, calls: NonNegativeInt = 6, rounds: NonNegativeInt = 1, words: str = "Wait Alternatively",
    over: Thinker = "base", threshold: NonNegativeFloat = 7.0,
):  # fmt: skip
    """Think with a calculator, be told of it, and check the result before the end.

    Args:
        calls: the most calls of the calculator; a step calls it that ends with `calc(EXPRESSION)`.
        rounds: so often the thinking goes on, behind a hint to check the result, when it has been closed.
        words: behind a step that begins with one of these stands a hint to use the calculator.
        over: who thinks: one model, or SpecReason.
        threshold: SpecReason's.
    """
    seen, called, checked = 0, 0, 0

    def helps(chain):
        nonlocal seen, called, checked
        is_new, seen = len(chain.steps) > seen, len(chain.steps)
        last = chain.steps[-1] if is_new else ""
        call = CALL.search(last)
        if chain.ended == "closed" and checked < rounds:
            checked += 1
            chain.reopen(turns.CHECK + chain.delimiter, "hint", why="a hint to check the result")
        elif chain.ended is None and call and called < calls and (value := computed(call["expression"])) is not None:
            called += 1
            chain.add(f"= {value}{chain.delimiter}", "tool")
        elif chain.ended is None and words and last.startswith(tuple(words.split())):
            chain.add(turns.USE_CALC + chain.delimiter, "hint")

    solve.guards.append(helps)
    return over_one.thinking(s, solve, over, threshold)
