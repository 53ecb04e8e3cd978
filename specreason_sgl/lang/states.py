"""SGLang's program states, repaired: a failed state raises at every read, and no read waits for a state that has ended.

In SGLang 0.5.23 the worker of a state ends with the first call that fails, so that a caller who hands the state another
call waits for ever; copies of the state do not know of the failure; and a state that is garbage collected waits for
locks. Importing this module replaces SGLang's states by these.
"""

from __future__ import annotations

import os
import threading
from contextvars import copy_context
from functools import cache
from queue import Queue, SimpleQueue
from typing import Any

from sglang.lang import interpreter
from sglang.lang.interpreter import ProgramState, ProgramStateGroup, StreamExecutor
from sglang.lang.ir import (
    SglConcateAndAppend,
    SglExpr,
    SglFunction,
    SglGen,
    SglSelect,
    SglVarScopeBegin,
    SglVarScopeEnd,
)

from specreason_sgl.errors import CallFailed, SpecReasonError


def check(state: ProgramState) -> None:
    """Wait until a state has done everything that it was handed.

    Raises:
        SpecReasonError: a call of the state failed.
    """
    if error := state.error():
        raise _told(error)


class Executor(StreamExecutor):  # type: ignore[misc]  # SGLang is untyped
    """An executor whose worker survives a failure: it makes no more calls, but reports the failure at every read."""

    def __init__(self, *args: Any, use_thread: bool = True, **options: Any) -> None:
        """Set up the record of failures before the worker starts."""
        self.error_: Exception | None = None
        self.lost: dict[str, Exception] = {}
        """For each variable that got no value, the reason."""
        self.filling: str | None = None
        """The variable that the running call will fill."""
        self.mark = 0
        """Where the last piece of text begins that was appended to the text; 0 if there are no pieces."""
        self.path: tuple[tuple[int, int], ...] = ()
        """The path of forks that led to this state; a plain copy adds nothing to it."""
        self._forked = 0
        self._scopes: dict[str, int] = {}
        """The open variable scopes, each with the id of the thread that will close it."""
        self._is_over = False
        super().__init__(*args, **options, use_thread=False)
        self.use_thread = use_thread
        if use_thread:
            self.queue: Queue[Any] = Queue()
            # A daemon, or a state that somebody keeps would keep the interpreter from leaving.
            self.worker = threading.Thread(target=copy_context().run, args=(self._thread_worker_func,), daemon=True)
            self.worker.start()

    def submit(self, expr: SglExpr | str) -> None:
        """Hand over the next expression.

        Raises:
            RuntimeError: the state has ended, so that nothing would carry out the expression.
        """
        if self._is_over:
            raise RuntimeError("a state was used after it had ended")
        if isinstance(expr, SglVarScopeBegin):
            self._scopes[expr.name] = threading.get_ident()
        elif isinstance(expr, SglVarScopeEnd):
            self._scopes.pop(expr.name, None)
        super().submit(expr)

    def end(self) -> None:
        """End the worker when it has done what it was handed; a second call does nothing."""
        if not self._is_over:
            self._is_over = True
            super().end()

    def fork(self, size: int = 1, position_ids_offset: list[int] | None = None) -> list[Executor]:
        """Copies that begin with everything this state has, a failure included."""
        self.sync()  # else there is no text yet, of which SGLang could fill the cache once for all of them
        forks: list[Executor] = super().fork(size, position_ids_offset)
        self._forked += size > 1
        for number, each in enumerate(forks):
            each.error_, each.lost, each.mark = self.error_, dict(self.lost), self.mark
            each.path = (*self.path, (self._forked, number)) if size > 1 else self.path
        return forks

    def get_var(self, name: str) -> Any:
        """Wait for the value of a variable.

        Raises:
            SpecReasonError: the call for the value has failed.
            RuntimeError: the variable belongs to a scope that only the calling thread can close.
        """
        self._await(name)
        return super().get_var(name)

    def get_meta_info(self, name: str, timeout: float | None = None) -> Any:
        """Wait for the meta information of a variable, for at most ``timeout`` seconds.

        Raises:
            SpecReasonError: the call for it has failed.
            RuntimeError: the variable belongs to a scope that only the calling thread can close.
            TimeoutError: it takes longer.
        """
        self._await(name, timeout)
        return super().get_meta_info(name, timeout)

    def _await(self, name: str, timeout: float | None = None) -> None:
        if self._scopes.get(name) == threading.get_ident() and not self._is_over:
            raise RuntimeError(f"`{name}` was read before its scope was closed")
        if name in self.variable_event and not self.variable_event[name].wait(timeout):
            raise TimeoutError(f"`{name}` has no value after {timeout} s")
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
        self._lose(self.error_ or CallFailed("a state ended before its scope was closed"))
        self.is_finished = True
        self.queue.task_done()
        self._wake()

    def _init_var_event(self, expr: SglExpr) -> None:
        self.lost.pop(getattr(expr, "name", ""), None)  # it may have a value yet
        super()._init_var_event(expr)

    def _execute_concatenate_and_append_text(self, expr: SglConcateAndAppend) -> None:
        for state in expr.states:
            check(state)
        super()._execute_concatenate_and_append_text(expr)

    def _execute_fill(self, value: str, prefix: bool = False) -> None:
        self.mark = len(self.text_)
        super()._execute_fill(value, prefix)

    def _execute_gen(self, expr: SglGen) -> None:
        self.filling = expr.name
        super()._execute_gen(expr)

    def _execute_select(self, expr: SglSelect) -> None:
        self.filling = expr.name
        super()._execute_select(expr)

    def _lose(self, error: Exception) -> None:
        for name, given in list(self.variable_event.items()):
            if not given.is_set():
                self.lost[name] = error
                if self.stream and not isinstance(self.variables.get(name), str):  # an open scope's is a number
                    self.variables[name] = ""  # SGLang's listeners read it without asking
                given.set()
        for heard in list((self.stream_var_event or {}).values()):
            heard.set()

    def _wake(self) -> None:
        for name, heard in list((self.stream_var_event or {}).items()):
            if self.variable_event[name].is_set():  # of which SGLang says nothing where it is a scope's
                heard.set()
        if self.stream_text_event:
            self.stream_text_event.set()

    def __del__(self) -> None:
        """Do nothing: a running worker keeps its executor alive, so a collected executor has already ended."""


class State(ProgramState):  # type: ignore[misc]  # SGLang is untyped
    """A state that waits for no lock when it is garbage collected.

    The garbage collector may run in a thread that holds the lock itself, such as the lock of a thread being started.
    """

    def __init__(self, stream_executor: StreamExecutor) -> None:
        """Start the thread that ends collected states, if it does not run yet."""
        super().__init__(stream_executor)
        self._ended_by = _ender(os.getpid())

    def text(self) -> str:
        """Wait until everything is done, and return the whole text.

        Raises:
            SpecReasonError: a call failed, so that its text is missing.
        """
        check(self)
        return str(super().text())

    def __del__(self) -> None:
        """Let another thread end it."""
        if not self.stream_executor.is_finished:
            self._ended_by.put(self.stream_executor)


class StateGroup(ProgramStateGroup):  # type: ignore[misc]  # SGLang is untyped
    """Copies that pass their failures on to the state that they are joined into."""

    def join(self, mode: str = "gather_variable") -> None:
        """Bring the copies' variables back, and the reasons of those that have no value."""
        super().join(mode)
        for state in self.states:
            self.src_state.stream_executor.lost.update(state.stream_executor.lost)


def run(state: State, program: SglFunction, arguments: tuple[Any, ...], named: dict[str, Any], sync: bool) -> None:
    """Run a program on a state; an exception of a streamed program, which nobody can catch, is the state's failure."""
    executor = state.stream_executor
    try:
        state.ret_value = program.func(state, *arguments, **named)
    except Exception as error:
        if not executor.stream:
            raise
        executor.error_ = executor.error_ or error
    finally:
        executor.end()
    if sync:
        executor.sync()


def _told(error: Exception) -> SpecReasonError:
    if isinstance(error, SpecReasonError):
        return error
    failed = CallFailed(f"a call to a model failed: {error}")
    failed.__cause__ = error
    return failed


@cache
def _ender(_process: int) -> SimpleQueue[StreamExecutor]:
    """The queue of executors to be ended, with the thread that ends them; one for each process."""
    dropped: SimpleQueue[StreamExecutor] = SimpleQueue()

    def end() -> None:
        while True:
            dropped.get().end()

    threading.Thread(target=end, name="ends dropped states", daemon=True).start()
    return dropped


interpreter.StreamExecutor, interpreter.ProgramState, interpreter.ProgramStateGroup = Executor, State, StateGroup
interpreter.run_internal = run
