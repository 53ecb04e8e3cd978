"""Solving one problem with one program over a pair."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from inspect import signature
from typing import TYPE_CHECKING, Any

from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.events import AnswerWritten, Sink, SolveEnded, SolveFailed
from specreason_sgl.lang.loading import Program, place, trail
from specreason_sgl.lang.states import check
from specreason_sgl.lang.trace import Trace
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.settings import Settings
from specreason_sgl.text.answers import is_same

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from specreason_sgl.engine.endpoint import Endpoint

RAISED = "the program raised it; its traceback is stored with the solve"


@dataclass(frozen=True)
class Pair:
    """The two model servers; a program that needs only one can do without the other."""

    base: Endpoint | None
    small: Endpoint | None


def solve(
    problem: Problem,
    program: Program,
    pair: Pair,
    settings: Settings,
    *,
    sink: Sink | None = None,
    stream: bool = False,
    mode: str | None = None,
    repeat: int = 0,
    parameters: Mapping[str, Any] | None = None,
    grade: Callable[[str | None, str], bool | None] = is_same,
) -> SolveRecord:
    """Run a program on a problem and return everything that happened.

    A failing call, or whatever else the program raises, ends the solve, not the caller: it becomes the record's last
    events.

    Args:
        problem: the question, and its answer where one is known.
        program: from `programs.load`.
        pair: the servers.
        settings: the knobs.
        sink: told of every event as it happens.
        stream: whether the sink also wants text while it is generated.
        mode: the name the record goes by; the program's if not given.
        repeat: which of several solves of the same problem this is.
        parameters: of the program itself, as keyword arguments.
        grade: compares an answer with the right one; None means that it cannot tell.

    Raises:
        UsageError: the question is empty, the program needs a server that is not there, or has no such
            parameter.
    """
    if not problem.question.strip():
        msg = "the question is empty"
        raise UsageError(msg)
    known = list(signature(program.function.func).parameters)[2:]
    if unknown := [name for name in parameters or () if name not in known]:
        msg = f"the program `{program.name}` has no parameter `{unknown[0]}`"
        raise UsageError(msg, hint=f"it has {', '.join(f'`{n}`' for n in known)}" if known else None)
    started = datetime.now(UTC)
    trace = Trace(
        problem.question,
        settings,
        program=program.name,
        choice=problem.choice,
        base=pair.base,
        small=pair.small,
        sink=sink,
        stream=stream,
    )
    backend = trace.base if program.model == "base" else trace.small
    try:
        state = program.function.run(trace, backend=backend, **trace.sampling, **(parameters or {}))
        check(state)  # a call may have failed that the program never read
    except UsageError:
        raise
    except SpecReasonError as error:
        trace.emit(SolveFailed(error=str(error), hint=error.hint, exit_code=error.exit_code))
        trace.emit(SolveEnded(outcome="failed"))
    except Exception as error:  # noqa: BLE001 - somebody's own program may raise anything
        told = place(error, program.path)
        trace.emit(SolveFailed(error=told, hint=RAISED, traceback=trail(error, program.path)))
        trace.emit(SolveEnded(outcome="failed"))
    else:
        answer = next((e.answer for e in reversed(trace.events) if isinstance(e, AnswerWritten)), None)
        correct = None if problem.answer is None else grade(answer, problem.answer)
        trace.emit(SolveEnded(outcome="unanswered" if answer is None else "answered", correct=correct))
    return SolveRecord(
        problem=problem,
        mode=mode or program.name,
        repeat=repeat,
        seed=settings.seed,
        started=started,
        events=trace.events,
    )
