"""SGLang's program states, mended: one that failed says so to everybody, and nobody waits for one that has ended.

In SGLang 0.5.23 the worker of a state ends with the first call that fails, so that whoever hands the state another
call waits for ever; copies of the state know nothing of the failure; and a state that the garbage collector finds
waits for locks. Importing this module puts its states in place of SGLang's own.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from queue import SimpleQueue
from typing import Any

from sglang.lang import interpreter
from sglang.lang.interpreter import ProgramState, ProgramStateGroup, StreamExecutor
from sglang.lang.ir import SglExpr

from specreason_sgl.errors import CallFailed, SpecReasonError


def check(state: ProgramState) -> None:
    """Wait until everything is done that a state was handed.

    Raises:
        SpecReasonError: something of it failed.
    """
    if error := state.error():
        raise _told(error)


class Executor(StreamExecutor):  # type: ignore[misc]  # SGLang is untyped
    """An executor whose worker outlives a failure: it does nothing more, but goes on saying that it failed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Begin without a failure, before the worker does."""
        self.error_: Exception | None = None
        self.lost: dict[str, Exception] = {}
        """What became of variables that have no value."""
        self._is_over = False
        super().__init__(*args, **options)

    def submit(self, expr: SglExpr | str) -> None:
        """Hand over the next expression.

        Raises:
            RuntimeError: the state has ended, so that nobody would ever do it.
        """
        if self._is_over:
            raise RuntimeError("a state was used after it had ended")
        super().submit(expr)

    def end(self) -> None:
        """End the worker, when it has done what it was handed."""
        self._is_over = True
        super().end()

    def fork(self, size: int = 1, position_ids_offset: list[int] | None = None) -> list[Executor]:
        """Copies that begin with what this one has, its failure included."""
        self.sync()  # else there is no text yet, of which SGLang could fill the cache once for all of them
        forks: list[Executor] = super().fork(size, position_ids_offset)
        for each in forks:
            each.error_, each.lost = self.error_, dict(self.lost)
        return forks

    def get_var(self, name: str) -> Any:
        """The value of a variable, waited for.

        Raises:
            SpecReasonError: the call that was to give the value has failed.
        """
        self._await(name)
        return super().get_var(name)

    def get_meta_info(self, name: str, timeout: float | None = None) -> Any:
        """The meta information of a variable, waited for.

        Raises:
            SpecReasonError: the call that was to give it has failed.
        """
        self._await(name, timeout)
        return super().get_meta_info(name, timeout)

    def _await(self, name: str, timeout: float | None = None) -> None:
        if name in self.variable_event:
            self.variable_event[name].wait(timeout)
        if name in self.lost:
            raise _told(self.lost[name])

    def _thread_worker_func(self) -> None:
        while (expr := self.queue.get()) is not None:
            if self.error_ is None:
                try:
                    self._execute(expr)
                except Exception as error:  # noqa: BLE001 - it is told to whoever asks
                    self.error_ = error
            if self.error_ is not None:
                self._lose(self.error_)
            self.queue.task_done()
            self._wake()
        self.is_finished = True
        self.queue.task_done()
        self._wake()

    def _init_var_event(self, expr: SglExpr) -> None:
        super()._init_var_event(expr)
        self.lost.pop(getattr(expr, "name", ""), None)  # it may have a value yet

    def _lose(self, error: Exception) -> None:
        for name, given in list(self.variable_event.items()):
            if not given.is_set():
                self.lost[name] = error
                if self.stream:
                    self.variables.setdefault(name, "")  # SGLang's listeners read it without asking
                given.set()
        for heard in list((self.stream_var_event or {}).values()):
            heard.set()

    def _wake(self) -> None:
        if self.stream_text_event:
            self.stream_text_event.set()

    def __del__(self) -> None:
        """Nothing: a worker that runs holds its executor, so what is collected has ended."""


class State(ProgramState):  # type: ignore[misc]  # SGLang is untyped
    """A state that waits for no lock when it is collected.

    The garbage collector may run while its own thread holds the very lock, such as that of a thread being started.
    """

    def __init__(self, stream_executor: StreamExecutor) -> None:
        """Make sure that there is somebody to end it."""
        super().__init__(stream_executor)
        self._ended_by = _ender(os.getpid())

    def __del__(self) -> None:
        """Have it ended by somebody else."""
        if not self.stream_executor.is_finished:
            self._ended_by.put(self.stream_executor)


class Group(ProgramStateGroup):  # type: ignore[misc]  # SGLang is untyped
    """Copies whose failures are known to the state that they come back to."""

    def join(self, mode: str = "gather_variable") -> None:
        """Bring the copies' variables back, and what became of those that have no value."""
        super().join(mode)
        for state in self.states:
            self.src_state.stream_executor.lost.update(state.stream_executor.lost)


def _told(error: Exception) -> SpecReasonError:
    if isinstance(error, SpecReasonError):
        return error
    failed = CallFailed(f"a call to a model failed: {error}")
    failed.__cause__ = error
    return failed


@cache
def _ender(_process: int) -> SimpleQueue[StreamExecutor]:
    """Where executors are put that a thread of its own ends; one in each process."""
    dropped: SimpleQueue[StreamExecutor] = SimpleQueue()

    def end() -> None:
        while True:
            dropped.get().end()

    threading.Thread(target=end, name="ends dropped states", daemon=True).start()
    return dropped


interpreter.StreamExecutor, interpreter.ProgramState, interpreter.ProgramStateGroup = Executor, State, Group
