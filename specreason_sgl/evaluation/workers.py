"""What solves tasks in another process: started on this machine, or by Ray on any node of a cluster."""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from specreason_sgl.errors import ServerUnreachable, SpecReasonError
from specreason_sgl.evaluation.tasks import Source, Task, code_digest, failed, perform
from specreason_sgl.events import Event, read_event
from specreason_sgl.lang.scope import Scope
from specreason_sgl.runs.store import SolveRecord, as_stored
from specreason_sgl.servers.opening import PairOptions, open_pair

if TYPE_CHECKING:
    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.lang.loading import Program
    from specreason_sgl.lang.pair import Pair

BEGIN_S = 300.0
"""Seconds that a process gets to begin, which includes the import of SGLang's frontend."""
END_S = 2.0
"""Seconds that a process gets to end by itself."""
BACKLOG = 64

Told: TypeAlias = tuple[Literal["event", "notice", "record"], bytes]
"""What a worker tells of a task, in the end its record. Events and records travel as they are stored: somebody's own
program may have put things into them that only its process knows."""


def packed(told: Event | SolveRecord | str) -> Told:
    """An event, a record, or a line that the user should read, as it travels."""
    if isinstance(told, str):
        return "notice", told.encode("utf-8", "surrogatepass")
    return ("event" if isinstance(told, Event) else "record"), as_stored(told)


def unpacked(told: Told) -> Event | SolveRecord | str:
    """What has travelled."""
    kind, content = told
    if kind == "notice":
        return content.decode("utf-8", "surrogatepass")
    return read_event(json.loads(content)) if kind == "event" else SolveRecord.model_validate_json(content)


class WorkerLost(SpecReasonError):
    """A worker ended, or its node left; its tasks can be done elsewhere."""

    exit_code = ServerUnreachable.exit_code


class Worker:
    """Solves tasks in its process, many at a time; thread-safe."""

    def __init__(self, pairs: Mapping[str, PairOptions], folder: Path | None = None) -> None:
        """Connect to nothing yet.

        Args:
            pairs: how to connect to the servers of each pair.
            folder: where programs are written whose files are not here; a new one if not given.
        """
        self._options = pairs
        self._stack = ExitStack()
        self._folder = folder or Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="specreason-")))
        self._open: dict[str, Pair[Endpoint]] = {}
        self._programs: dict[Source, Program] = {}
        self._running: dict[str, tuple[Scope, SimpleQueue[Told | None]]] = {}
        self._cancelled: set[str] = set()
        self._loading = threading.Lock()
        self._opening = {name: threading.Lock() for name in pairs}
        """A pair that does not answer keeps nobody from the others."""
        self._lock = threading.Lock()

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

    def cancel(self, task: str) -> None:
        """End a task by its id, also if it comes only later; its calls are aborted on the servers."""
        with self._lock:
            self._cancelled.add(task)
            scope, _ = self._running.get(task, (None, None))
        if scope:
            scope.cancel()

    def close(self) -> None:
        """Remove what has been written here."""
        self._stack.close()

    def _perform(self, task: Task, told: SimpleQueue[Told | None]) -> None:
        scope = Scope(task.limit_s)
        with self._lock:
            self._running[task.id] = scope, told
            is_late = task.id in self._cancelled
        try:
            if is_late:
                scope.cancel()
            told.put(packed(self._record(task, scope, told)))
        finally:
            with self._lock:
                del self._running[task.id]
            told.put(None)

    def _record(self, task: Task, scope: Scope, told: SimpleQueue[Told | None]) -> SolveRecord:
        try:
            program, pair = self._program(task.source), self._pair(task.pair)
        except Exception as error:  # noqa: BLE001 - whatever keeps a solve from beginning is its row
            return failed(task, error)
        return perform(task, program, pair, lambda event: told.put(packed(event)), scope)

    def _program(self, source: Source) -> Program:
        with self._loading:
            if source not in self._programs:
                self._programs[source] = source.load(self._folder)
            return self._programs[source]

    def _pair(self, name: str) -> Pair[Endpoint]:
        with self._opening[name]:
            if name not in self._open:
                pair = self._stack.enter_context(open_pair(self._options[name]))
                for server in pair:
                    server.watch.say = self._say
                self._open[name] = pair
            return self._open[name]

    def _say(self, text: str) -> None:
        """Tell one of those who listen: a message is about all."""
        with self._lock:
            told = next((told for _, told in self._running.values()), None)
        if told:
            told.put(packed(text))


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

    def cancel(self, task: str, /) -> None:
        """End a task by its id, if the worker is still there."""
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
            WorkerLost: the process cannot be started, or ended at once.
            SpecReasonError: a server cannot be reached.
        """
        context = multiprocessing.get_context("spawn")
        self._folder = Path(tempfile.mkdtemp(prefix="specreason-"))
        self._address = str(self._folder / "worker")
        self._life, theirs = context.Pipe()
        self._process = context.Process(
            target=_live, args=(theirs, pairs, self._address, self._folder, connect), name="worker"
        )
        atexit.register(self._life.close)  # before all child processes are waited for
        try:
            with theirs:
                _start_deaf(self._process.start)
            self.where, self.digest = self._begun()
        except (EOFError, OSError) as error:
            self.dismiss()
            raise WorkerLost(
                "a worker ended as soon as it was started",
                hint="what it wrote says why; a script has to begin its work under `if __name__ == '__main__':`",
            ) from error
        except BaseException:
            self.dismiss()
            raise

    def perform(self, task: Task) -> Iterator[Sequence[Told]]:
        """Carry out a task.

        Raises:
            WorkerLost: the process ended before the task did.
        """
        try:
            with self._line() as line:
                line.send(task)
                while group := line.recv():
                    yield group
        except (EOFError, OSError) as error:
            raise WorkerLost(f"the worker, {self.where}, ended") from error

    def cancel(self, task: str, /) -> None:
        """End a task by its id, if the process is still there."""
        with suppress(EOFError, OSError), self._line() as line:
            line.send(task)
            line.recv()

    def dismiss(self) -> None:
        """End the process, also one that does not react."""
        self._life.close()
        atexit.unregister(self._life.close)
        if self._process.pid is not None:
            self._process.join(END_S)
            self._process.kill()
            self._process.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _begun(self) -> tuple[str, str]:
        if not self._life.poll(BEGIN_S):
            raise WorkerLost(f"a worker did not begin within {BEGIN_S:.0f} s")
        told: SpecReasonError | tuple[str, str] = self._life.recv()
        if isinstance(told, SpecReasonError):
            raise told
        return told

    def _line(self) -> Connection:
        """A connection for one task or one message: threads come and go, and there are many."""
        return Client(self._address, "AF_UNIX", authkey=bytes(multiprocessing.current_process().authkey))


def _start_deaf(start: Callable[[], None]) -> None:
    """Start a process that never hears of Ctrl-C: it is for this process to say what becomes of it."""
    resource_tracker.ensure_running()  # it lets the signal through again when it is started
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _live(life: Connection, pairs: Mapping[str, PairOptions], address: str, folder: Path, connect: bool) -> None:
    """A worker's process; it ends when the other end of ``life`` is closed, however that comes about."""
    threading.Thread(target=_end_with, args=(life, folder), daemon=True).start()
    worker = Worker(pairs, folder)
    key = bytes(multiprocessing.current_process().authkey)
    with Listener(address, "AF_UNIX", backlog=BACKLOG, authkey=key) as listener:
        try:
            life.send(worker.begin(connect=connect))
        except SpecReasonError as error:
            life.send(error)
            return
        while True:
            with suppress(EOFError, OSError):  # whoever called has given up
                threading.Thread(target=_answer, args=(worker, listener.accept()), daemon=True).start()


def _answer(worker: Worker, line: Connection) -> None:
    """Do what is asked over one connection."""
    with suppress(EOFError, OSError), line:
        asked = line.recv()
        if isinstance(asked, Task):
            for group in worker.perform(asked):
                line.send(group)
        else:
            worker.cancel(asked)
        line.send(None)


def _end_with(life: Connection, folder: Path) -> None:
    with suppress(EOFError, OSError):
        life.recv()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)
