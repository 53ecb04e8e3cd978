"""What a step says, apart from its words: who, what, and the arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from specreason_sgl.embedded.tales.words import Split

Kind = Literal[
    "start", "gain", "lose", "groups", "share", "portions", "more", "fewer", "times", "half", "unit", "cost", "rate",
    "total", "apart", "bracket", "value", "answer",
]  # fmt: skip
"""What a step does; each has its own wordings."""


@dataclass(frozen=True)
class Step:
    """One step: ``left operation right = value``, and whom and what it speaks of."""

    kind: Kind
    value: int
    left: int = 0
    operation: str = ""
    right: int = 0
    who: str = ""
    """Whose quantity results; empty where nobody's."""
    thing: str = ""
    """What is counted in the end, in the plural."""
    other: str = ""
    """A second person, or a second thing."""
    holder: str = ""
    """What holds each part, or the unit that is converted."""
    verb: str = ""
    """What is done, in the third person."""
    tail: str = ""
    """What follows the number behind the verb."""
    uses: tuple[int, ...] = ()
    """The earlier steps whose results it needs."""


@dataclass(frozen=True)
class Tale:
    """One problem with the meaning of its full solution."""

    form: str
    question: str
    steps: tuple[Step, ...]
    answer: int
    people: tuple[str, ...]
    """Everybody who is named, the main person first."""
    things: tuple[str, ...]
    """Everything that is counted, the main thing first."""
    split: Split

    @property
    def answer_text(self) -> str:
        r"""The answer phase, with the result in ``\boxed{}``."""
        return f"The answer is \\boxed{{{self.answer}}}."


def compute(left: int, operation: str, right: int) -> int:
    """The result of one operation.

    Raises:
        ValueError: a division that leaves a rest, or an operation that is none.
    """
    match operation:
        case "+":
            return left + right
        case "-":
            return left - right
        case "x":
            return left * right
        case "/" if right and left % right == 0:
            return left // right
    raise ValueError(f"{left}{operation}{right}")
