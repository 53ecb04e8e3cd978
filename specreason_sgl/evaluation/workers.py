"""What solves tasks in another process: started on this machine, or by Ray on any node of a cluster."""

from __future__ import annotations

import multiprocessing
import os
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.managers import BaseManager, IteratorProxy  # type: ignore[attr-defined]
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from specreason_sgl.errors import SpecReasonError
from specreason_sgl.evaluation.tasks import Source, Task, code_digest, failed, perform
from specreason_sgl.events import Event
from specreason_sgl.lang.scope import Scope
from specreason_sgl.runs.store import SolveRecord
from specreason_sgl.servers.opening import PairOptions, open_pair

if TYPE_CHECKING:
    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.lang.loading import Program
    from specreason_sgl.lang.pair import Pair


@dataclass(frozen=True)
class Notice:
    """Something that the user should know, such as that a server is waited for."""

    text: str


Told = Event | Notice | SolveRecord
"""What a worker tells of a task: in the end its record."""


class WorkerLost(SpecReasonError):
    """A worker ended, or its node left; its tasks can be done elsewhere."""


class Worker:
    """Solves tasks in its process, many at a time; thread-safe."""

    def __init__(self, pairs: Mapping[str, PairOptions]) -> None:
        """Connect to nothing yet.

        Args:
            pairs: how to connect to the servers of each pair.
        """
        self._options = pairs
        self._open: dict[str, Pair[Endpoint]] = {}
        self._programs: dict[Source, Program] = {}
        self._running: dict[str, Scope] = {}
        self._listening: dict[str, SimpleQueue[Told | None]] = {}
        self._opening = threading.Lock()
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="specreason-")))

    def begin(self, *, connect: bool) -> tuple[str, str]:
        """Get ready; returns where the worker is, and the digest of its code.

        Args:
            connect: whether to make sure now that all servers can be reached from here.

        Raises:
            SpecReasonError: a server cannot be reached.
        """
        for name in self._options if connect else ():
            self._pair(name)
        return f"process {os.getpid()} on {socket.gethostname()}", code_digest()

    def perform(self, task: Task) -> Iterator[list[Told]]:
        """Carry out a task; what happens comes in small groups, and the record is the last."""
        told: SimpleQueue[Told | None] = SimpleQueue()
        threading.Thread(target=self._perform, args=(task, told), daemon=True, name="solve").start()
        ended = False
        while not ended:
            group = [told.get()]
            while not told.empty():
                group.append(told.get())
            ended = None in group
            if some := [each for each in group if each is not None]:
                yield some

    def cancel(self, key: str) -> None:
        """End a task by its key; its calls are aborted on the servers."""
        with self._lock:
            scope = self._running.get(key)
        if scope:
            scope.cancel()

    def close(self) -> None:
        """Remove what has been written here."""
        self._stack.close()

    def _perform(self, task: Task, told: SimpleQueue[Told | None]) -> None:
        scope = Scope(task.limit_s)
        with self._lock:
            self._running[task.key] = scope
            self._listening[task.key] = told
        try:
            told.put(perform(task, self._program(task.source), self._pair(task.pair), told.put, scope))
        except SpecReasonError as error:  # before it began
            told.put(failed(task, str(error), hint=error.hint, exit_code=error.exit_code))
        finally:
            with self._lock:
                del self._running[task.key], self._listening[task.key]
            told.put(None)

    def _program(self, source: Source) -> Program:
        with self._opening:
            if source not in self._programs:
                self._programs[source] = source.load(self._folder)
            return self._programs[source]

    def _pair(self, name: str) -> Pair[Endpoint]:
        with self._opening:
            if name not in self._open:
                pair = self._stack.enter_context(open_pair(self._options[name]))
                for server in pair:
                    server.watch.say = self._say
                self._open[name] = pair
            return self._open[name]

    def _say(self, text: str) -> None:
        """Tell one of those who listen: a message is about all."""
        with self._lock:
            told = next(iter(self._listening.values()), None)
        if told:
            told.put(Notice(text))


class Hired(Protocol):
    """A worker, as its employer sees it."""

    where: str
    """The process and the machine."""
    digest: str
    """A digest of its code."""

    def perform(self, task: Task) -> Iterator[Sequence[Told]]:
        """Carry out a task.

        Raises:
            WorkerLost: the worker ended before the task did.
        """
        ...

    def cancel(self, key: str) -> None:
        """End a task by its key, if the worker is still there."""
        ...

    def dismiss(self) -> None:
        """End the worker."""
        ...


class Process:
    """A worker in a process of its own on this machine, which ends with this one."""

    def __init__(self, pairs: Mapping[str, PairOptions], *, connect: bool) -> None:
        """Start the process.

        Args:
            pairs: how to connect to the servers of each pair.
            connect: whether to make sure now that all servers can be reached.

        Raises:
            WorkerLost: the process ended at once.
            SpecReasonError: a server cannot be reached.
        """
        self._manager = _Manager(ctx=multiprocessing.get_context("spawn"))
        try:
            self._manager.start(_end_with_parent)
            self._worker: Any = self._manager.Worker(pairs)
            self.where, self.digest = self._worker.begin(connect=connect)
        except (EOFError, ConnectionError) as error:
            raise WorkerLost("a worker ended as soon as it was started") from error
        except BaseException:
            self.dismiss()
            raise

    def perform(self, task: Task) -> Iterator[Sequence[Told]]:
        """Carry out a task.

        Raises:
            WorkerLost: the process ended before the task did.
        """
        try:
            yield from self._worker.perform(task)
        except (EOFError, ConnectionError) as error:
            raise WorkerLost(f"the worker, {self.where}, ended") from error

    def cancel(self, key: str) -> None:
        """End a task by its key, if the process is still there."""
        with suppress(EOFError, ConnectionError):
            self._worker.cancel(key)

    def dismiss(self) -> None:
        """End the process."""
        with suppress(EOFError, ConnectionError, AttributeError):  # it has no `shutdown` if it never started
            self._manager.shutdown()


class _Manager(BaseManager):
    """The process that a worker lives in; every thread that asks it has a connection of its own."""

    Worker: Any


_Manager.register("Worker", Worker, exposed=("begin", "perform", "cancel"), method_to_typeid={"perform": "Told"})
_Manager.register("Told", proxytype=IteratorProxy, create_method=False)


def _end_with_parent() -> None:
    """Have this process end when the one that started it does, however that ends."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent:
            connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
