"""Drafting ahead: a line of drafts, each on top of the one before, that are judged as they come.

The small model drafts the next step while the base model still judges the last one. Whoever reads the line takes the
proposals in order; a rejection makes all that stands on top of it worthless, so the line is dropped and the next step
begins a new one.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self

from specreason_sgl.errors import CallFailed, SpecReasonError
from specreason_sgl.text.steps import is_repeat

if TYPE_CHECKING:
    from sglang.lang.interpreter import ProgramState

    from specreason_sgl.engine.endpoint import Endpoint
    from specreason_sgl.lang.trace import Step, Trace, Written


@dataclass(frozen=True)
class Proposal:
    """A draft and its judgement, both under way."""

    step: Step
    draft: ProgramState
    verdict: ProgramState | None
    """None where there is nothing to judge."""


class Ahead:
    """What is under way ahead of a program's decisions; a context manager that leaves nothing behind.

    Args:
        trace: of the solve.
        draft: an `sgl.function` over ``(s, trace, step, steps)`` that drafts a step behind others.
        judge: an `sgl.function` over ``(s, trace, step, steps)`` that scores the last of the steps.
        write: an `sgl.function` over ``(s, trace, step)`` with which the base model writes the step itself.
        depth: how many drafts at most are made on top of one that is not decided.
    """

    def __init__(self, trace: Trace, draft: Any, judge: Any, write: Any, depth: int) -> None:
        """Start nothing yet."""
        self._trace, self._draft, self._judge, self._write, self._depth = trace, draft, judge, write, depth
        self._line: _Line | None = None
        self._own: tuple[Step, ProgramState, Endpoint] | None = None
        self._lines: list[_Line] = []
        self._useless: list[tuple[Step, ProgramState]] = []

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give up what is still under way, and tell what it cost."""
        self.drop()
        self.drop_own()
        for line in self._lines:
            for proposal in line.left():
                self._trace.dropped(proposal.draft, proposal.step, "draft")
                if proposal.verdict is not None:
                    self._trace.dropped(proposal.verdict, proposal.step, "judge")
        for step, own in self._useless:
            self._trace.dropped(own, step, "regenerate")

    def next(self, step: Step) -> tuple[Written, ProgramState | None]:
        """The draft of a step, waited for, and its judgement, under way.

        Raises:
            SpecReasonError: drafting failed.
        """
        proposal = None if self._line is None else self._line.next()
        if self._line is None or proposal is None:
            self._line = _Line(self._trace, self._draft, self._judge, step, self._depth)
            self._lines.append(self._line)
            proposal = self._line.next()
        if proposal is None:
            raise CallFailed("there was nothing to draft ahead")
        drafted = self._trace.drafted(proposal.draft, step)
        for prompt in self._trace.asked(proposal.draft, step):
            self._trace.small.count(prompt)
        return drafted, proposal.verdict

    def drop(self) -> None:
        """Give up everything that is drafted on top of a draft which was not accepted."""
        if self._line is not None:
            self._line.drop()
            self._line = None

    def begin_own(self, step: Step) -> None:
        """Have the base model begin its own version of a step that is not decided yet."""
        backend = self._trace.base.on_a_chance()
        self._own = step, self._write.run(self._trace, step, backend=backend, **self._trace.sampling), backend

    def own(self, step: Step) -> Written:
        """The base model's own version, waited for; everything drafted on top of another one is given up.

        Raises:
            SpecReasonError: writing it failed.
        """
        if self._own is None:
            state = self._write.run(self._trace, step, backend=self._trace.base, **self._trace.sampling)
        else:
            state, self._own = self._own[1], None
            self._trace.base.count(self._trace.prefix("base"))
        self.drop()
        return self._trace.written(state, step)

    def drop_own(self) -> None:
        """Give up the base model's own version: the draft was accepted."""
        if self._own is not None:
            step, state, backend = self._own
            backend.give_up()
            self._useless.append((step, state))
            self._own = None


class _Line:
    """Drafts on top of each other, made in a thread of their own."""

    def __init__(self, trace: Trace, draft: Any, judge: Any, first: Step, depth: int) -> None:
        self._trace, self._draft, self._judge = trace, draft, judge
        self._steps, self._tokens = list(trace.steps), trace.tokens
        self._small, self._base = trace.small.on_a_chance(), trace.base.on_a_chance()
        self._ready: SimpleQueue[Proposal | Exception | None] = SimpleQueue()
        self._room = threading.Semaphore(depth)
        self._over = False
        self._thread = threading.Thread(target=self._work, args=(first,), daemon=True)
        self._thread.start()

    def next(self) -> Proposal | None:
        """The next proposal, waited for; None at the line's end. Asking says that the one before was accepted."""
        self._room.release()
        ready = self._ready.get()
        if isinstance(ready, Exception):
            raise ready
        return ready

    def drop(self) -> None:
        self._over = True
        self._small.give_up()
        self._base.give_up()
        self._room.release()

    def left(self) -> list[Proposal]:
        """The proposals that nobody asked for, once the line has been dropped."""
        self._thread.join()
        ready = [self._ready.get() for _ in range(self._ready.qsize())]
        return [proposal for proposal in ready if isinstance(proposal, Proposal)]

    def _work(self, first: Step) -> None:
        try:
            step: Step | None = first
            while step is not None:
                step = self._propose(step)
        except Exception as error:  # noqa: BLE001 - whoever waits for the line has to hear of anything
            self._ready.put(error)
        finally:
            self._ready.put(None)

    def _propose(self, step: Step) -> Step | None:
        """Draft a step and have it judged; returns the next place, if a draft there makes sense."""
        trace = self._trace
        self._room.acquire()
        if self._over:
            return None
        draft = self._draft.run(trace, step, self._steps, backend=self._small, **trace.sampling)
        try:
            drafted = trace.merged(draft, step)
        except SpecReasonError:  # it comes up again where the draft is read
            self._ready.put(Proposal(step, draft, None))
            return None
        if not drafted.text:
            self._ready.put(Proposal(step, draft, None))
            return None
        ends = drafted.closes or drafted.repeats or is_repeat(self._steps, drafted.text)
        self._steps = [*self._steps, drafted.text]
        self._tokens += drafted.tokens
        verdict = self._judge.run(trace, step, self._steps, backend=self._base)
        self._ready.put(Proposal(step, draft, verdict))
        return None if ends else trace.place(step.number + 1, self._tokens)
