"""Drafting ahead: a line of drafts, each on top of the one before, that are judged as they come.

The small model drafts the next step while the base model still judges the last one. The program takes the proposals in
order. When it rejects a draft, all drafts on top of that draft are worthless, so the line is dropped and the next step
begins a new line.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self

from specreason_sgl.errors import CallFailed, SpecReasonError

if TYPE_CHECKING:
    from sglang.lang.interpreter import ProgramState

    from specreason_sgl.lang.chain import Chain, Place
    from specreason_sgl.lang.solve import Written


@dataclass(frozen=True)
class Proposal:
    """A draft and its judgement; both calls may still be running."""

    place: Place
    draft: ProgramState
    judged: ProgramState | None
    """The state that judges the draft; None where there is nothing to judge."""


class Ahead:
    """The drafts and judgements made ahead of a program's decisions; leaving the context manager ends all of them.

    Args:
        chain: the chain that the drafts are for.
        draft: an `sgl.function` over ``(s, chain, place)`` that drafts a step.
        judge: an `sgl.function` over ``(s, chain, place, *steps)`` that scores the last of the steps.
        depth: the most drafts made on top of a draft that is not decided yet.
        options: keyword arguments of ``draft``.
    """

    def __init__(self, chain: Chain, draft: Any, judge: Any, depth: int, **options: Any) -> None:
        """Keep the arguments; the first `next` starts drafting."""
        self._chain, self._draft, self._judge, self._depth, self._options = chain, draft, judge, depth, options
        self._line: _Line | None = None
        self._lines: list[_Line] = []

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Cancel the calls that still run, and report what they cost."""
        self.drop()
        solve = self._chain.solve
        for line in self._lines:
            for proposal in line.left():
                solve.drop(proposal.draft, proposal.place, "draft")
                if proposal.judged is not None:
                    solve.drop(proposal.judged, proposal.place, "judge")

    def next(self, place: Place) -> tuple[Written, ProgramState | None]:
        """Wait for the draft of a step; return it, and its judgement, which may still be running.

        Raises:
            SpecReasonError: drafting failed.
        """
        proposal = None if self._line is None else self._line.next()
        if self._line is None or proposal is None:
            self._line = _Line(self._chain, self._draft, self._judge, place, self._depth, self._options)
            self._lines.append(self._line)
            proposal = self._line.next()
        if proposal is None:
            raise CallFailed("there was nothing to draft ahead")
        return self._chain.solve.read(proposal.draft, "draft", place), proposal.judged

    def drop(self) -> None:
        """Cancel every draft that stands on top of a draft which was not accepted."""
        if self._line is not None:
            self._line.drop()
            self._line = None


class _Line:
    """Drafts on top of each other, made in a thread of their own as if each of them were accepted."""

    def __init__(self, chain: Chain, draft: Any, judge: Any, first: Place, depth: int, options: dict[str, Any]) -> None:
        self._chain, self._draft, self._judge, self._options = chain.supposed(), draft, judge, options
        self._solve = chain.solve
        self._scope = chain.solve.scope.child()
        self._small, self._base = (chain.solve.on_a_chance(role, self._scope) for role in ("small", "base"))
        self._ready: SimpleQueue[Proposal | Exception | None] = SimpleQueue()
        self._room = threading.Semaphore(depth)
        self._over = False
        self._thread = threading.Thread(target=self._work, args=(first,), daemon=True)
        self._thread.start()

    def next(self) -> Proposal | None:
        """Wait for the next proposal; None at the end. Calling this means that the last one was accepted."""
        self._room.release()
        ready = self._ready.get()
        if isinstance(ready, Exception):
            raise ready
        return ready

    def drop(self) -> None:
        self._over = True
        self._scope.cancel()
        self._room.release()

    def left(self) -> list[Proposal]:
        """The proposals that the program never took; call it after the line was dropped."""
        self._thread.join()
        ready = [self._ready.get() for _ in range(self._ready.qsize())]
        return [proposal for proposal in ready if isinstance(proposal, Proposal)]

    def _work(self, first: Place) -> None:
        try:
            place: Place | None = first
            while place is not None:
                place = self._propose(place)
        except Exception as error:  # noqa: BLE001 - whoever waits for the line has to hear of anything
            self._ready.put(error)
        finally:
            self._chain.cut(0, "nothing follows")  # a solve keeps its lines to its end, but needs no text of theirs
            self._ready.put(None)

    def _propose(self, place: Place) -> Place | None:
        """Draft a step and have it judged; return the next place, or None if no further draft makes sense."""
        chain = self._chain
        self._room.acquire()
        if self._over:
            return None
        draft = self._draft.run(chain, place, **self._options, backend=self._small, **self._solve.sampling)
        try:
            drafted = self._solve.drafted(draft, place)
        except SpecReasonError:  # it comes up again where the draft is read
            self._ready.put(Proposal(place, draft, None))
            return None
        if not drafted.text:
            self._ready.put(Proposal(place, draft, None))
            return None
        judged = self._judge.run(chain, place, drafted.text, backend=self._base)
        self._ready.put(Proposal(place, draft, judged))
        chain.held(drafted.meta["prompt_tokens"] + drafted.tokens)
        chain.take(place, drafted)
        return None if chain.ended else chain.place()
