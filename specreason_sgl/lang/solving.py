"""Solving one problem with one program."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.events import AnswerWritten, CallKind, Sink, SolveEnded, SolveFailed
from specreason_sgl.lang.knobs import set_knobs
from specreason_sgl.lang.loading import Program, place, trail
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solve import Solve
from specreason_sgl.lang.states import check
from specreason_sgl.runs.store import Problem, SolveRecord
from specreason_sgl.settings import Settings
from specreason_sgl.text.answers import is_same

if TYPE_CHECKING:
    from specreason_sgl.lang.scope import Scope

RAISED = "the program raised it; its traceback is stored with the solve"


def solve(
    problem: Problem,
    program: Program,
    pair: Pair,
    settings: Settings,
    *,
    sink: Sink | None = None,
    stream: bool | Collection[CallKind] = False,
    mode: str | None = None,
    repeat: int = 0,
    parameters: Mapping[str, Any] | None = None,
    grade: Callable[[str | None, str], bool | None] = is_same,
    scope: Scope | None = None,
) -> SolveRecord:
    """Run a program on a problem and return everything that happened.

    A failed call, or any other exception of the program, ends the solve but is not raised: it becomes the record's last
    events.

    Args:
        problem: the question, and its answer where one is known.
        program: from `loading.load`.
        pair: the servers.
        settings: limits and sampling.
        sink: called with every event as it happens.
        stream: whether the sink also gets text while it is generated; or of which kinds of calls it does.
        mode: the mode's name in the record; the program's name if not given.
        repeat: the number of this solve among several of the same problem, from 0.
        parameters: the program's own parameters, as keyword arguments.
        grade: compares an answer with the right one; returns None where it cannot decide.
        scope: the scope of the solve's calls, which limits their time and can cancel them.

    Raises:
        UsageError: the question is empty, the program needs a server that is not there, or has no such
            parameter, or a parameter's value is of no use.
    """
    if not problem.question.strip():
        msg = "the question is empty"
        raise UsageError(msg)
    objects = {name: value for name, value in (parameters or {}).items() if name in program.objects}
    given = {name: value for name, value in (parameters or {}).items() if name not in program.objects}
    knobs = set_knobs(program.knobs, given, program.name)
    started = datetime.now(UTC)
    solving = Solve(
        problem, settings, pair.models, program=program.name, knobs=knobs, sink=sink, stream=stream, scope=scope
    )
    backend = solving.model(program.model)
    try:
        # Bound, because SGLang takes some names, such as `n`, for its own.
        bound = program.function.bind(**knobs, **objects)
        state = bound.run(solving, backend=backend, **solving.sampling)
        check(state)  # a call may have failed that the program never read
    except UsageError:
        raise
    except SpecReasonError as error:
        solving.emit(SolveFailed(error=str(error), hint=error.hint, exit_code=error.exit_code))
        solving.emit(SolveEnded(outcome="failed"))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - somebody's own program may raise anything
        raised = place(error, program.path)
        solving.emit(SolveFailed(error=raised, hint=RAISED, traceback=trail(error, program.path)))
        solving.emit(SolveEnded(outcome="failed"))
    else:
        answer = next((e.answer for e in reversed(solving.events) if isinstance(e, AnswerWritten)), None)
        correct = None if problem.answer is None else grade(answer, problem.answer)
        solving.emit(SolveEnded(outcome="unanswered" if answer is None else "answered", correct=correct))
    finally:
        solving.forget()
    return SolveRecord(
        problem=problem,
        mode=mode or program.name,
        repeat=repeat,
        seed=settings.seed,
        started=started,
        events=solving.events,
    )
