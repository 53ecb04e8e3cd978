r"""Whether answers are right: `math-verify` in worker processes with a hard time limit, letters, and plain text.

A hostile answer such as ``9^{9^{9^9}}`` keeps a computer algebra system busy for ever, and no signal stops it. So a
worker that takes too long is killed, and the answer counts as ungradable. Every graded solve has one `Outcome`.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Literal, Self, get_args

from specreason_sgl.evaluation.choice import letter, offered, option
from specreason_sgl.evaluation.mathematics import math_equal
from specreason_sgl.events import AnswerWritten, Event, SolveEnded
from specreason_sgl.runs.store import SolveRecord
from specreason_sgl.text.answers import boxed, is_same

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess
    from types import TracebackType

    from specreason_sgl.evaluation.datasets import Grading

Outcome = Literal["right", "wrong", "no-answer", "truncated", "ungradable", "failed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

LONGEST = 1000
"""The most characters of an answer that is compared; right answers are much shorter."""
LIMIT_S = 10.0
_MEMORY = 4 << 30


def outcome(record: SolveRecord) -> Outcome | None:
    """The outcome of a solve; None where the right answer is not known."""
    totals = record.tally
    if totals.outcome == "failed":
        return "failed"
    if record.problem.answer is None:
        return None
    if totals.correct is not None and totals.answer is not None:
        return "right" if totals.correct else "wrong"
    if totals.answer is not None:
        return "ungradable"
    return "truncated" if totals.truncated else "no-answer"


class Grader:
    """Grades answers, from many threads at once; a context manager, because it owns processes."""

    def __init__(self, kind: Grading, *, workers: int = 1, limit_s: float = LIMIT_S) -> None:
        """Keep the arguments; a worker starts with the first answer that needs one.

        Args:
            kind: how answers are compared.
            workers: how many answers are compared at the same time.
            limit_s: seconds after which an answer counts as ungradable.
        """
        self.kind = kind
        self._limit_s = limit_s
        self._idle: queue.Queue[_Worker] = queue.Queue()
        for _ in range(workers):
            self._idle.put(_Worker())

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the workers."""
        while not self._idle.empty():
            self._idle.get().stop()

    def same(self, answer: str, gold: str) -> bool | None:
        """Whether an answer is right; None if that cannot be decided."""
        if self.kind == "choice":
            chosen, right = option(answer), option(gold)
            return None if chosen is None or right is None else chosen == right
        answer, gold = (text if (inside := boxed(text)) is None else inside for text in (answer, gold))
        if is_same(answer, gold):
            return True
        if self.kind == "exact":
            return False
        if len(answer) > LONGEST:
            answer = answer[-LONGEST:].partition(" ")[2]  # a whole reply: its end counts
            if not answer:
                return None
        worker = self._idle.get()
        try:
            return worker.ask(answer, gold, self._limit_s)
        finally:
            self._idle.put(worker)

    def graded(self, record: SolveRecord) -> SolveRecord:
        """The record with its answer in the dataset's form, and compared with the right one."""
        gold = record.problem.answer
        written = next((e for e in reversed(record.events) if isinstance(e, AnswerWritten)), None)
        if gold is None or written is None:
            return record
        answer = written.answer
        if self.kind == "choice":
            answer = letter(answer, written.text, offered(record.problem.question))
        correct = False if answer is None else self.same(answer, gold)
        if self.kind == "choice" and answer is None and written.answer is not None:
            answer, correct = written.answer, None  # a box with something else than an option

        def seen(event: Event) -> Event:
            if event is written:
                return written.model_copy(update={"answer": answer})
            if isinstance(event, SolveEnded) and event.outcome != "failed":
                came = "unanswered" if answer is None else "answered"
                return event.model_copy(update={"correct": correct, "outcome": came})
            return event

        return record.model_copy(update={"events": [seen(event) for event in record.events]})


class _Worker:
    """A process that compares one answer at a time; it is killed and started again when it takes too long."""

    def __init__(self) -> None:
        self._process: SpawnProcess | None = None
        self._line: Connection | None = None

    def ask(self, answer: str, gold: str, limit_s: float) -> bool | None:
        line = self._line or self._start()
        try:
            line.send((answer, gold))
            if line.poll(limit_s):
                verdict: bool | None = line.recv()
                return verdict
        except (EOFError, OSError):
            pass  # it died over this answer
        self.stop()
        return None

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.join()
        if self._line:
            self._line.close()
        self._process = self._line = None

    def _start(self) -> Connection:
        # Not forked: this process has threads, and one of them may hold a lock.
        context = multiprocessing.get_context("spawn")
        self._line, other = context.Pipe()
        self._process = context.Process(target=_compare, args=(other, math_equal), daemon=True)
        self._process.start()
        other.close()
        if not self._line.poll(60) or self._line.recv() is not None:
            self.stop()
            raise RuntimeError("the grader does not start")
        return self._line


def _compare(line: Connection, same: Callable[[str, str], bool | None]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Where memory cannot be limited, time is all the same.
    with suppress(ModuleNotFoundError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    import math_verify  # noqa: F401 - loading it is not part of anybody's time limit

    line.send(None)
    while True:
        try:
            answer, gold = line.recv()
        except EOFError:
            return
        try:
            verdict = same(answer, gold)
        except Exception:  # noqa: BLE001 - whatever a computer algebra system makes of hostile text
            verdict = None
        line.send(verdict)
