"""What methods of the field ask a model behind its reasoning, and the hints that they put into it.

The embedded pair is taught these words, so they are the same for every program.
"""

from __future__ import annotations

from collections.abc import Sequence

AGREE, STATES = "Do the last two answers above agree?", "Does the last part state an answer?"
"""To a verifier: it says ``yes`` or ``no``."""
ANSWER = "Answer: "
"""How a verifier's reply begins."""
YES_NO = ("yes", "no")

CORRECT = "Is the last step correct? (A) correct (B) wrong"
"""To a model about a step, whose reply begins with a bracket."""
BRACKET, A_B = "(", ("A", "B")

BEST = "Which of these is the best next step? Answer 0 if none is."
"""To a model about several drafts, which are numbered from 1."""

BE_BRIEF = "(Keep the rest short.)"
USE_CALC = "(Maybe compute this with calc.)"
CHECK = "(Let me check the result once more.)"


def agreement(one: str, other: str) -> str:
    """The question whether two answers agree, with the answers quoted."""
    return f"{AGREE}\n1: {one}\n2: {other}"


def selection(drafts: Sequence[str]) -> str:
    """The question which of several drafts is the best, with the drafts numbered."""
    numbered = "\n".join(f"{number}: {draft}" for number, draft in enumerate(drafts, start=1))
    return f"{numbered}\n{BEST}"
