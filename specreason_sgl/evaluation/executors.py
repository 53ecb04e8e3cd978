"""Where a job's solves are carried out: in threads of this process, in processes of this machine, or on a cluster.

All of them take a task and give back its record. The run folder, grading and the display stay with the runner.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from specreason_sgl.errors import ServerUnreachable, SpecReasonError, UsageError
from specreason_sgl.evaluation.tasks import Hear, Task, check_same, code_digest, perform
from specreason_sgl.evaluation.workers import Hired, Process, WorkerLost, unpacked
from specreason_sgl.events import Event
from specreason_sgl.runs.store import SolveRecord

if TYPE_CHECKING:
    from specreason_sgl.evaluation.modes import Server
    from specreason_sgl.lang.loading import Program
    from specreason_sgl.lang.pair import Pair
    from specreason_sgl.lang.scope import Scope
    from specreason_sgl.servers.opening import PairOptions

Name = Literal["threads", "processes", "ray"]
CHECK_S = 1.0
"""Seconds between two looks at whether the run is over."""
LOSSES = 4
"""How many workers may be lost one after another, for each that was hired, without a solve that ended."""


class Executor(Protocol):
    """Carries out tasks, many at a time, each called from a thread of its own."""

    def solve(self, task: Task, hear: Hear, scope: Scope, *, alone: bool = False) -> SolveRecord:
        """Carry out a task; returns its record, which is not graded.

        Args:
            task: the solve.
            hear: called with every event as it happens; what it raises ends the task.
            scope: the scope of the solve's calls; cancelling it ends the task.
            alone: whether nothing else may suffer if the task ends its process.

        Raises:
            WorkerLost: the worker ended; the task can be done again.
            SpecReasonError: there is nobody left who could do it.
        """
        ...


class Threads:
    """Carries out tasks in this process."""

    def __init__(self, pairs: Mapping[str, Pair[Server]], programs: Mapping[str, Program]) -> None:
        """Carry out tasks over these pairs.

        Args:
            pairs: by name.
            programs: the modes' programs, by the name that modes use.
        """
        self._pairs, self._programs = pairs, programs

    def solve(self, task: Task, hear: Hear, scope: Scope, *, alone: bool = False) -> SolveRecord:  # noqa: ARG002
        """Carry out a task; returns its record, which is not graded."""
        return perform(task, self._programs[task.mode.program], self._pairs[task.pair], hear, scope)


@dataclass
class _Place:
    """A hired worker, and what it does."""

    worker: Hired
    busy: int = 0
    is_reserved: bool = False
    """Whether it takes no further tasks."""


class Crew:
    """Carries out tasks on workers in other processes; one that is lost is replaced."""

    def __init__(self, hire: Callable[[bool], Hired], count: int, say: Callable[[str], None] = lambda _: None) -> None:
        """Hire the workers.

        Args:
            hire: starts a worker, or raises `SpecReasonError`, and never takes for ever; told whether the worker has
                to reach all servers.
            count: how many.
            say: called with messages about the whole run.

        Raises:
            SpecReasonError: a worker cannot be started, cannot reach a server, or runs another version of the code.
        """
        self._say, self._said = say, ""
        self._hire, self._count = hire, count
        self._digest = code_digest()
        self._places: list[_Place] = []
        self._hiring = 0
        self._losses = 0
        """Workers that were lost since the last solve that ended."""
        self._why: SpecReasonError | None = None
        """Why the last worker that was to be hired could not be."""
        self._changed = threading.Condition()
        self._is_over = False
        try:
            for _ in range(count):
                self._seek(connect=True)
            with self._changed:
                while self._hiring and not self._why:
                    self._changed.wait(CHECK_S)
        except BaseException:
            self.dismiss()
            raise
        if self._why:
            self.dismiss()
            raise self._why

    @property
    def where(self) -> list[str]:
        """The process and the machine of every worker."""
        with self._changed:
            return [place.worker.where for place in self._places]

    def solve(self, task: Task, hear: Hear, scope: Scope, *, alone: bool = False) -> SolveRecord:
        """Carry out a task on the least busy worker; returns its record, which is not graded.

        Args:
            task: the solve.
            hear: called with every event as it happens.
            scope: cancelling it ends the task.
            alone: whether the worker does nothing else meanwhile.

        Raises:
            WorkerLost: the worker ended; the task can be done again.
            SpecReasonError: there is no worker any more, and none can be hired.
        """
        with self._taken(scope, alone=alone) as worker, scope.flying(task.id, worker.cancel):
            try:
                for told in map(unpacked, chain.from_iterable(worker.perform(task))):
                    if isinstance(told, SolveRecord):
                        self._losses = 0
                        return told
                    if isinstance(told, Event):
                        hear(told)
                    else:
                        self._tell(told)
            except BaseException:
                worker.cancel(task.id)
                raise
            raise WorkerLost(f"the worker, {worker.where}, ended without a result")

    def dismiss(self) -> None:
        """End all workers."""
        with self._changed:
            self._is_over = True
            places, self._places = self._places, []
            self._changed.notify_all()
        if places:
            with ThreadPoolExecutor(len(places), thread_name_prefix="dismiss") as pool:
                list(pool.map(lambda place: place.worker.dismiss(), places))

    @contextmanager
    def _taken(self, scope: Scope, *, alone: bool) -> Iterator[Hired]:
        place = self._take(scope, alone=alone)
        try:
            yield place.worker
        except WorkerLost as error:
            self._lose(place, error)
            raise
        finally:
            self._leave(place, alone=alone)

    def _take(self, scope: Scope, *, alone: bool) -> _Place:
        with self._changed:
            while True:
                scope.check()
                free = [place for place in self._places if not place.is_reserved]
                if free:
                    place = min(free, key=lambda each: each.busy)
                    place.busy += 1
                    place.is_reserved = alone
                    while alone and place.busy > 1 and not scope.is_over:  # those who were there before
                        self._changed.wait(CHECK_S)
                    if place in self._places:
                        return place
                    self._leave(place, alone=alone)  # it was lost meanwhile
                elif self._is_over or not (self._places or self._hiring):
                    why = self._why or WorkerLost("all workers were lost")
                    raise ServerUnreachable(f"there is no worker any more: {why}", hint=why.hint)
                else:
                    self._changed.wait(CHECK_S)

    def _leave(self, place: _Place, *, alone: bool) -> None:
        with self._changed:
            place.busy -= 1
            place.is_reserved = place.is_reserved and not alone
            self._changed.notify_all()

    def _lose(self, place: _Place, error: WorkerLost) -> None:
        """Replace a worker that was lost; the first of its tasks to notice does."""
        with self._changed:
            if place not in self._places or self._is_over:
                return
            self._places.remove(place)
            self._losses += 1
            if is_enough := self._losses > LOSSES * self._count:
                self._why = WorkerLost(f"workers end as soon as they work; the last one: {error}")
            else:
                self._seek(connect=False)
        _aside(place.worker.dismiss)
        if not is_enough:
            self._tell(f"{error}; what it was solving is given to others")

    def _seek(self, *, connect: bool) -> None:
        """Begin to hire a worker."""
        with self._changed:
            self._hiring += 1

        def hire() -> None:
            worker: Hired | None = None
            why: SpecReasonError | None = None
            try:
                worker = self._hire(connect)
                check_same(self._digest, worker.digest, worker.where)
            except SpecReasonError as error:
                why = error
            except Exception as error:  # noqa: BLE001 - or whoever waits for the worker would wait for ever
                why = WorkerLost(f"a worker cannot be started: {type(error).__name__}: {error}")
            with self._changed:
                self._hiring -= 1
                self._why = why or self._why
                if worker and not why and not self._is_over:
                    self._places.append(_Place(worker))
                    worker = None
                self._changed.notify_all()
            if why and not connect:
                self._tell(f"no worker in its place: {why}")
            if worker:
                worker.dismiss()

        _aside(hire)

    def _tell(self, text: str) -> None:
        """Say something that all workers say only once."""
        with self._changed:
            is_new, self._said = text != self._said, text
        if is_new:
            self._say(text)


def _aside(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


@dataclass(frozen=True)
class Wanted:
    """Which executor a job shall have."""

    name: Name = "threads"
    workers: int | None = None
    """How many processes; the number of nodes, or of cores, if not given."""
    address: str | None = None
    """The Ray cluster's address; None starts one on this machine."""


THREADS = Wanted()


def executor_named(name: str, workers: int | None, address: str | None) -> Wanted:
    """The executor that somebody names.

    Raises:
        UsageError: there is none of that name, or it has no such options.
    """
    known = next((each for each in get_args(Name) if each == name), None)
    if known is None:
        raise UsageError(f"there is no executor `{name}`", hint=f"there are {', '.join(get_args(Name))}")
    if workers and known == "threads":
        raise UsageError("threads are as many as solves run at a time", hint="`--concurrency N` says how many")
    if address and known != "ray":
        raise UsageError("only Ray has an address", hint=f"`--executor ray --address {address}`")
    if known == "ray" and find_spec("ray") is None:
        raise UsageError("Ray is not installed", hint="`pip install 'specreason_sgl[ray]'`, here and on every node")
    return Wanted(known, workers, address)


@contextmanager
def employed(
    wanted: Wanted, pairs: Mapping[str, PairOptions], at_once: int, say: Callable[[str], None]
) -> Iterator[Crew]:
    """The workers of an executor that is not `threads`; they end with the block.

    Args:
        wanted: which executor.
        pairs: how to connect to the servers of each pair.
        at_once: how many tasks there are at the same time.
        say: called with messages about the whole run.

    Raises:
        SpecReasonError: there is no such cluster, or a worker cannot be started or cannot reach a server.
    """
    with ExitStack() as stack:
        if wanted.name == "ray":
            from specreason_sgl.evaluation.on_ray import Actor, cluster

            count = stack.enter_context(cluster(wanted.address, pairs, wanted.workers, at_once, say))
            crew = Crew(lambda connect: Actor(pairs, at_once=at_once, connect=connect), count, say)
        else:
            count = min(wanted.workers or len(os.sched_getaffinity(0)), at_once)
            crew = Crew(lambda connect: Process(pairs, connect=connect), count, say)
        stack.callback(crew.dismiss)
        yield crew
