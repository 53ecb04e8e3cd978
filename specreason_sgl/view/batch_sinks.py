"""Where a batch reports what happens: on the screen, as plain lines, as JSON lines, or nowhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Protocol, TextIO

from specreason_sgl.events import Event
from specreason_sgl.runs.store import Done, SolveRecord
from specreason_sgl.view import figures
from specreason_sgl.view.batch_view import BatchState, SolveKey, standing_lines
from specreason_sgl.view.json_lines import json_line
from specreason_sgl.view.listing import EndedSolve
from specreason_sgl.view.output import Output, note
from specreason_sgl.view.plain import WIDE
from specreason_sgl.view.scenes import BatchScene
from specreason_sgl.view.text import one_line
from specreason_sgl.view.theme import SIGNS


class BatchSink(Protocol):
    """Called with everything that happens in a batch, from any thread."""

    @property
    def closed(self) -> bool:
        """Whether nobody reads any more what is written."""
        ...

    def started(self, problem_id: str, repeat: int, mode: str, solve_id: str = "") -> SolveKey:
        """A solve begins; returns the key that identifies it in all later calls."""
        ...

    def event(self, key: SolveKey, event: Event) -> None:
        """Something happens in a solve."""
        ...

    def finished(self, key: SolveKey, record: SolveRecord) -> None:
        """A solve has ended, with the given record."""
        ...

    def notice(self, message: str) -> None:
        """A message about the whole batch, such as that it waits for a server."""
        ...


class SilentBatch:
    """Reports nothing."""

    closed: bool = False

    def started(self, problem_id: str, repeat: int, mode: str, solve_id: str = "") -> SolveKey:
        """Name a solve."""
        return SolveKey(problem_id, repeat, mode, solve_id)

    def event(self, key: SolveKey, event: Event) -> None:
        """Say nothing."""

    def finished(self, key: SolveKey, record: SolveRecord) -> None:
        """Say nothing."""

    def notice(self, message: str) -> None:
        """Print the message on standard error: a run that pauses without a word looks as if it hangs."""
        note(message)


class SceneBatch(SilentBatch):
    """Shows everything on the screen, and writes plain lines once the user has left the screen."""

    def __init__(self, scene: BatchScene, stream: TextIO) -> None:
        """Report to this scene, and to the stream once the scene is left."""
        self._scene = scene
        self._lines = PlainLines(scene.state, stream)
        self._left = False
        self._lock = threading.Lock()

    def left(self) -> None:
        """Go on in plain lines, as the user has left the screen."""
        self._left = True
        self._go_on()

    def _go_on(self) -> None:
        if not self._left:
            return
        with self._lock:
            for each in self._scene.told():
                if isinstance(each, str):
                    self._lines.notice(each)
                elif isinstance(each[1], SolveRecord):
                    self._lines.ended(each[0], EndedSolve.of(each[1]))

    def started(self, problem_id: str, repeat: int, mode: str, solve_id: str = "") -> SolveKey:
        """A new row."""
        key = super().started(problem_id, repeat, mode, solve_id)
        self._scene.tell(key, None)
        return key

    def event(self, key: SolveKey, event: Event) -> None:
        """The row moves on."""
        self._scene.tell(key, event)

    def finished(self, key: SolveKey, record: SolveRecord) -> None:
        """The row goes to the finished ones."""
        self._scene.tell(key, record)
        self._go_on()

    def notice(self, message: str) -> None:
        """The header says it."""
        self._scene.notice(message)
        self._go_on()


class PlainLines:
    """A batch as lines; each line is written after the state was updated."""

    def __init__(self, state: BatchState, stream: TextIO | None) -> None:
        """Write to this stream, or to standard output."""
        self._state = state
        self._output = Output(stream)

    def ended(self, key: SolveKey, ended: EndedSolve) -> None:
        """Write the line of a solve."""
        self._state.tick(time.monotonic())
        self._output.line(self._line(key, ended))

    def notice(self, message: str) -> None:
        """Write a line of its own."""
        self._output.line(f"note: {one_line(message)}")

    @property
    def closed(self) -> bool:
        """Whether nobody reads any more."""
        return self._output.closed

    def totals(self) -> None:
        """Write the totals so far."""
        for words in standing_lines(self._state, WIDE, time.monotonic()):
            self._output.line(" ".join(words.plain.split()))

    def _line(self, key: SolveKey, ended: EndedSolve) -> str:
        tally, state = ended.state.tally, self._state
        parts = [
            f"{state.done}" if state.total is None else f"{state.done}/{state.total}",
            SIGNS[ended.state.phase].label,
            f"{one_line(key.problem_id)} #{key.repeat}",
            one_line(key.mode),
            one_line(tally.answer or "–"),
            figures.steps(sum(tally.steps.values())),
            f"{figures.count(tally.thinking_tokens)} tok",
            figures.seconds(tally.elapsed),
        ]
        if tally.judged:
            parts.append(f"acceptance {figures.share(tally.acceptance)}")
        if tally.retries:
            parts.append(f"{tally.retries} retries")
        if tally.error:
            parts.append(one_line(tally.error))
        if state.time_left:
            parts.append(state.time_left)
        return "  ".join(parts)


class PlainBatch(SilentBatch):
    """One line for each solve that has ended, and the totals at the end."""

    def __init__(
        self,
        total: int | None,
        earlier: Sequence[Done] = (),
        stream: TextIO | None = None,
        began: float | None = None,
    ) -> None:
        """Begin with the solves that are stored already."""
        self._state = BatchState(total, time.monotonic() if began is None else began)
        self._state.resumed(earlier)
        self._lines = PlainLines(self._state, stream)
        self._lock = threading.Lock()

    def finished(self, key: SolveKey, record: SolveRecord) -> None:
        """Write its line."""
        ended = EndedSolve.of(record)
        with self._lock:
            self._state.finished(key, ended)
            self._lines.ended(key, ended)
            self.closed = self._lines.closed

    def notice(self, message: str) -> None:
        """Write it as a line of its own."""
        with self._lock:
            self._lines.notice(message)

    def close(self) -> None:
        """Write the totals."""
        self._lines.totals()


class JsonBatch(SilentBatch):
    """One JSON line for each solve that has ended."""

    def __init__(self, total: int | None, stream: TextIO | None = None) -> None:
        """Write to this stream, or to standard output."""
        self._output = Output(stream)
        self._total = total
        self._lock = threading.Lock()

    def finished(self, key: SolveKey, record: SolveRecord) -> None:
        """Write its line."""
        of_many = {"id": key.id} if self._total is None else {"total": self._total}
        self._write({"type": "solve_finished", **of_many, **solve_row(record)})

    def notice(self, message: str) -> None:
        """Write it as an object of its own."""
        self._write({"type": "noticed", "message": message})

    def _write(self, row: dict[str, object]) -> None:
        with self._lock:
            self._output.line(json_line(row))
            self.closed = self._output.closed


def solve_row(record: SolveRecord) -> dict[str, object]:
    """A solve in short, for programs."""
    tally = record.tally
    return {
        "problem_id": record.problem.id,
        "mode": record.mode,
        "repeat": record.repeat,
        "outcome": tally.outcome,
        "answer": tally.answer,
        "correct": tally.correct,
        "steps": dict(tally.steps),
        "kept_tokens": dict(tally.kept),
        "generated_tokens": dict(tally.generated),
        "model_seconds": dict(tally.model_seconds),
        "seconds": tally.elapsed,
        "latency_s": tally.latency,
        "lost_s": tally.lost_s,
        "judged": tally.judged,
        "accepted": tally.accepted,
        "acceptance": tally.acceptance,
        "speed_up": tally.speed_up,
        "error": tally.error,
        **({"pair": record.pair} if record.pair else {}),
    }
