"""Where two runs of the same part, and whether they could be expected not to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from specreason_sgl.events import (
    AnswerWritten,
    Event,
    SolveEnded,
    SolveFailed,
    StepDrafted,
    StepScored,
    StepTaken,
    ThinkingEnded,
)
from specreason_sgl.runs.store import SolveRecord

NOTHING = "nothing"


@dataclass(frozen=True)
class Divergence:
    """The first thing in which two solves of the same problem are not alike."""

    problem: str
    mode: str
    repeat: int
    what: str
    """Such as ``draft of step 3``."""
    left: str
    right: str


@dataclass
class Comparison:
    """Two runs, solve by solve."""

    same: int = 0
    different: list[Divergence] = field(default_factory=list)
    only_left: list[str] = field(default_factory=list)
    """Solves that the other run lacks."""
    only_right: list[str] = field(default_factory=list)

    @property
    def is_same(self) -> bool:
        """Whether the two tell the same."""
        return not (self.different or self.only_left or self.only_right)

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"is_same": self.is_same, **asdict(self)}


def compare(left: Sequence[SolveRecord], right: Sequence[SolveRecord]) -> Comparison:
    """Compare what two runs say: texts, scores, decisions and outcomes, but no times and no retries."""
    others = {record.key: record for record in right}
    made = Comparison()
    for record in left:
        other = others.pop(record.key, None)
        if other is None:
            made.only_left.append(_name(record))
        elif found := first_divergence(record, other):
            made.different.append(found)
        else:
            made.same += 1
    made.only_right = [_name(record) for record in others.values()]
    return made


def first_divergence(left: SolveRecord, right: SolveRecord) -> Divergence | None:
    """Where two solves part; None where they do not."""
    ours, theirs = list(_said(left.events)), list(_said(right.events))
    for place in range(max(len(ours), len(theirs))):
        one, other = (said[place] if place < len(said) else (NOTHING, NOTHING) for said in (ours, theirs))
        if one != other:
            what = one[0] if one[0] in {other[0], NOTHING} or other[0] == NOTHING else f"{one[0]} or {other[0]}"
            if what == NOTHING:
                what = other[0]
            return Divergence(left.problem.id, left.mode, left.repeat, what, one[1], other[1])
    return None


def repeatability(
    *,
    temperature: float,
    concurrency: int | None,
    deterministic: bool,
    overlapping: bool,
    timed: bool,
    stock: bool,
) -> str:
    """Whether a second run of the same can be expected to say the same, in a line for the run's header.

    Args:
        temperature: the highest of all modes.
        concurrency: solves at the same time.
        deterministic: whether all servers run with deterministic inference.
        overlapping: whether a program makes calls to one model at the same time.
        timed: whether decisions depend on measured times, as they do with back-off.
        stock: whether all programs are stock ones; others can set temperatures and draw numbers themselves.
    """
    first_that_holds = (
        (timed, "not repeatable: with back-off decisions depend on measured times"),
        (deterministic, "repeatable: the servers run with deterministic inference, and every call has its own seed"),
        (temperature > 0, f"not repeatable: at temperature {temperature:g} the servers draw numbers of their own"),
        (concurrency != 1, "not surely repeatable: calls share batches, which changes how sums are rounded"),
        (
            overlapping,
            "not surely repeatable: calls of one solve share batches, which changes the last digits of scores",
        ),
        (
            not stock,
            "as repeatable as the program: temperature is 0, but a program of your own may set others for its calls",
        ),
        (True, "repeatable at temperature 0, one solve at a time, from radix caches that are in the same state"),
    )
    return next(words for holds, words in first_that_holds if holds)


def _said(events: Sequence[Event]) -> Iterator[tuple[str, str]]:
    for event in events:
        match event:
            case StepDrafted():
                yield f"draft of step {event.step}", event.text
            case StepScored():
                decision = "accepted" if event.accepted else "rejected"
                digits = ", ".join(f"{p:g}" for p in event.logprobs)
                yield f"score of step {event.step}", f"{decision} at {event.expected:.4f} [{digits}]"
            case StepTaken():
                yield f"step {event.step}", f"{event.author}: {event.text}"
            case ThinkingEnded():
                yield "the end of thinking", event.reason
            case AnswerWritten():
                yield "answer", event.text
            case SolveFailed():
                yield "failure", event.error
            case SolveEnded():
                yield "outcome", event.outcome


def _name(record: SolveRecord) -> str:
    return f"{record.problem.id} {record.mode} #{record.repeat}"
