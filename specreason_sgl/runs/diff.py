"""Where two runs of the same problems differ, and whether they could be expected to be equal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from specreason_sgl.events import (
    AnswerWritten,
    ChainOpened,
    Event,
    SolveEnded,
    SolveFailed,
    StepDrafted,
    StepScored,
    StepsCut,
    StepTaken,
    TextAdded,
    ThinkingEnded,
)
from specreason_sgl.runs.store import SolveRecord

NOTHING = "nothing"


@dataclass(frozen=True)
class Divergence:
    """The first difference between two solves of the same problem."""

    problem: str
    mode: str
    repeat: int
    what: str
    """What differs, such as ``draft of step 3``."""
    left: str
    right: str
    same_answer: bool
    """Whether both have the same answer all the same, or none."""


@dataclass
class RunDiff:
    """The differences between two runs, solve by solve."""

    same: int = 0
    different: list[Divergence] = field(default_factory=list)
    only_left: list[str] = field(default_factory=list)
    """Keys of solves that the other run does not have."""
    only_right: list[str] = field(default_factory=list)

    @property
    def is_same(self) -> bool:
        """Whether there is no difference."""
        return not (self.different or self.only_left or self.only_right)

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return {"is_same": self.is_same, **asdict(self)}


def diff_runs(left: Sequence[SolveRecord], right: Sequence[SolveRecord]) -> RunDiff:
    """Compare the texts, scores, decisions and outcomes of two runs, but no times and no retries."""
    others = {record.key: record for record in right}
    made = RunDiff()
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
    """The first difference between two solves; None if there is none."""
    ours, theirs = list(_said(left.events)), list(_said(right.events))
    for place in range(max(len(ours), len(theirs))):
        one, other = (said[place] if place < len(said) else (NOTHING, NOTHING) for said in (ours, theirs))
        if one != other:
            what = one[0] if one[0] in {other[0], NOTHING} or other[0] == NOTHING else f"{one[0]} or {other[0]}"
            if what == NOTHING:
                what = other[0]
            same_answer = left.tally.answer == right.tally.answer
            return Divergence(left.problem.id, left.mode, left.repeat, what, one[1], other[1], same_answer)
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
    """Whether a second run can be expected to give the same texts, as a line for the run's header.

    Args:
        temperature: the highest temperature of all modes.
        concurrency: how many solves run at the same time.
        deterministic: whether all servers run with deterministic inference.
        overlapping: whether a program makes several calls to one model at the same time.
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


def _said(events: Sequence[Event]) -> Iterator[tuple[str, str]]:  # noqa: C901 - one case for each event
    """What is compared of a solve, chain by chain, since it does not matter which was quicker; its end comes last."""
    for event in sorted(events, key=lambda event: (isinstance(event, SolveFailed | SolveEnded), event.chain)):
        chain = f" of chain {event.chain}" if event.chain else ""
        match event:
            case ChainOpened():
                parent = "nothing" if event.parent is None else f"chain {event.parent}"
                yield f"the opening{chain}", f"from {parent} after {event.steps} steps"
            case StepDrafted():
                yield f"draft{_candidate(event.attempt)} of step {event.step}{chain}", event.text
            case StepScored():
                decision = "accepted" if event.accepted else "rejected"
                digits = ", ".join(f"{p:g}" for p in event.logprobs)
                yield (
                    f"score{_candidate(event.attempt)} of step {event.step}{chain}",
                    f"{decision} at {event.expected:.4f} [{digits}]",
                )
            case StepTaken():
                yield f"step {event.step}{chain}", f"{event.author}: {event.text}"
            case TextAdded():
                yield f"text before step {event.step}{chain}", f"{event.author}: {event.text}"
            case StepsCut():
                yield f"the cut before step {event.keep}{chain}", event.reason
            case ThinkingEnded():
                yield f"the end of thinking{chain}", event.reason
            case AnswerWritten():
                yield f"answer{chain}", event.text
            case SolveFailed():
                yield "failure", event.error
            case SolveEnded():
                yield "outcome", event.outcome


def _candidate(attempt: int) -> str:
    return f" {attempt}" if attempt else ""


def _name(record: SolveRecord) -> str:
    return f"{record.problem.id} {record.mode} #{record.repeat}"
