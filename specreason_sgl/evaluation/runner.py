"""Runs a job: every mode on every problem, with the job's repeats; each solve is stored as it ends.

The work is divided into stretches. Between two stretches no solve is running, and the radix caches are emptied. At
concurrency 1 a stretch is the repeats of one problem in one mode, so that modes take turns, and a machine that slows
down slows all of them alike. At higher concurrency a stretch is a whole mode, so that the throughput is that of one
mode. In both cases repeats share the cache.

Several pairs make several lanes at concurrency 1: each pair solves one problem after another in all modes, alone, so
that modes are compared on the same servers. At higher concurrency they make one wide lane.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, groupby, product
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from specreason_sgl.errors import CallFailed, ServerUnreachable, SpecReasonError, UsageError
from specreason_sgl.evaluation import modes, tasks
from specreason_sgl.evaluation.executors import CHECK_S, Executor, Threads
from specreason_sgl.evaluation.fleet import Fleet
from specreason_sgl.evaluation.grading import Grader
from specreason_sgl.evaluation.job import Job, Mode, filled_in
from specreason_sgl.evaluation.tasks import Hear, Source, Task
from specreason_sgl.evaluation.workers import WorkerLost
from specreason_sgl.events import Event, SolveFailed
from specreason_sgl.lang.loading import Program
from specreason_sgl.lang.scope import CANCELLED, Scope
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Done, Problem, RunWriter, SolveRecord, solve_key

if TYPE_CHECKING:
    from specreason_sgl.evaluation.modes import Server
    from specreason_sgl.view.batch_sinks import BatchSink
    from specreason_sgl.view.batch_view import SolveKey

T = TypeVar("T")

LOST = ServerUnreachable.exit_code
"""The exit code of a solve whose server stopped answering; a resumed run does such a solve again."""

_WARM_UP = {"budget": 48, "max_step_tokens": 24, "answer_tokens": 8}
_FLUSH_S = 30.0
_POLL_S = 0.1
_ATTEMPTS = (False, False, True, True)
"""Whether a solve has its worker to itself, each time that it is given to one because the one before was lost. Whatever
ended that one, its solves are suspected; a solve that ends two in a row, doing nothing beside it, is to blame."""
_PAUSE_S = 2.0
"""Seconds before such a solve goes to another worker: of a node that has left, all workers are known by then."""
_HUNGRY = "what it runs may need more memory than there is, or end its process"
_GRACE_S = 10.0
"""Seconds that running solves get to end after the run has been stopped."""


class TooManyFailures(SpecReasonError):
    """More solves failed than the user allowed."""


@dataclass(frozen=True)
class Work:
    """One solve that shall be done."""

    problem: Problem
    mode: Mode
    repeat: int

    @property
    def key(self) -> str:
        """The key that the solve's record will have."""
        return solve_key(self.problem, self.mode.name, self.repeat)


def stretches(job: Job, problems: Sequence[Problem], wave: Sequence[Mode]) -> Iterator[list[Work]]:
    """The solves of each stretch, in order; see the module's docstring."""
    repeats = range(job.repeats)
    if job.concurrency != 1:
        for mode in wave:
            yield [Work(problem, mode, repeat) for problem in problems for repeat in repeats]
        return
    for number, problem in enumerate(problems):
        first = number % len(wave)  # nobody is always first
        for mode in (*wave[first:], *wave[:first]):
            yield [Work(problem, mode, repeat) for repeat in repeats]


def done(record: SolveRecord) -> Done | None:
    """What is kept in memory of a stored solve; None if it is done again, because its server stopped answering."""
    return None if is_lost(record) else Done.of(record)


def known(job: Job) -> Callable[[str, Any], Any]:
    """Makes a function that converts a field of a stored configuration to this version's form, to resume a job."""
    programs = modes.load_programs(job.modes)

    def value(field: str, stored: Any) -> Any:
        if field == "job":
            return filled_in(stored, programs)
        if field == "models" and isinstance(stored, dict):
            return {role: modes.model_name(path) for role, path in stored.items()}
        return stored

    return value


def is_lost(record: SolveRecord) -> bool:
    """Whether a solve failed because a server stopped answering, which says nothing about the mode."""
    return any(isinstance(event, SolveFailed) and event.exit_code == LOST for event in record.events)


class Runner:
    """One execution of a job; call `run` once."""

    def __init__(
        self,
        job: Job,
        problems: Sequence[Problem],
        fleet: Fleet,
        writer: RunWriter,
        grader: Grader,
        sink: BatchSink,
        *,
        executor: Executor | None = None,
        fail_on_error: float | None = None,
        scope: Scope | None = None,
    ) -> None:
        """Prepare.

        Args:
            job: the job; its concurrency is that of each pair.
            problems: the problems to solve.
            fleet: the pairs.
            writer: writes the run folder.
            grader: compares answers.
            sink: called with everything that happens.
            executor: carries the solves out; threads of this process do if not given.
            fail_on_error: stop when more solves than this failed; a share of all below 1, a count from there on.
            scope: the scope that the run's calls belong to.

        Raises:
            UsageError: a program cannot be loaded, or a server is missing.
        """
        self._job, self._problems, self._writer, self._grader, self._sink = job, problems, writer, grader, sink
        self._fleet = fleet
        for mode, pair in product(job.modes, fleet.pairs.values()):
            modes.check_roles(mode, pair.models)
        self._executor = executor or Threads(fleet.pairs, modes.load_programs(job.modes))
        self._sources = {mode.program: Source.of(mode.program) for mode in job.modes}
        total = len(job.modes) * len(problems) * job.repeats
        self._failures_allowed = (
            fail_on_error * (total if fail_on_error < 1 else 1) if fail_on_error is not None else None
        )
        self._scope = Scope(parent=scope)
        self._rates: dict[str, float | None] = {}
        self._ended: list[Done] = []
        self._failed = 0
        self._keeping = threading.Lock()

    def run(self, earlier: Sequence[Done] = ()) -> list[Done]:
        """Do all missing solves; returns short facts about all solves, as the records are only in the run folder.

        Args:
            earlier: solves that are stored already.

        Raises:
            ServerUnreachable: a server stopped answering for too long; a resumed run does the missing solves.
            TooManyFailures: more solves failed than were allowed.
            CallFailed: the scope was cancelled.
            KeyboardInterrupt: passed on after the running solves were cancelled.
        """
        self._ended = list(earlier)
        self._failed = sum(one.tally.outcome == "failed" for one in earlier)
        try:
            for wave in modes.phases(self._job):
                self._rates = {
                    of: modes.acceptance(one.tally for one in self._ended if one.mode == of)
                    for of in {mode.of for mode in wave if mode.of}
                }
                while lanes := self._lanes(wave):  # again, if a pair was lost
                    self._go(lanes)
        except _Stopped:
            raise CallFailed(CANCELLED) from None
        return self._ended

    def warm_up(self, program: Program) -> None:
        """Warm up all servers with a short solve that is not stored."""
        mode = self._job.modes[0]
        settings = mode.settings.model_copy(update=_WARM_UP)
        for pair in self._fleet.pairs.values():
            over = modes.pair_for(mode, pair)
            solve(self._problems[0], program, over, settings, scope=Scope(parent=self._scope))

    def _lanes(self, wave: Sequence[Mode]) -> list[_Lane]:
        """The pairs that are there, with the stretches that are owed; none if all is done."""
        there = self._fleet.there
        known = {one.key for one in self._ended}
        owed = (
            missing
            for stretch in stretches(self._job, self._problems, wave)
            if (missing := [work for work in stretch if work.key not in known])
        )
        if (first := next(owed, None)) is None:
            return []
        rest = chain([first], owed)
        if self._job.concurrency != 1:
            return [_Lane(there, rest)]
        # All modes of a problem on the same pair.
        turns = _Shared(list(stretch) for _, stretch in groupby(rest, key=lambda stretch: stretch[0].problem))
        return [_Lane([name], chain.from_iterable(turns)) for name in there]

    def _go(self, lanes: Sequence[_Lane]) -> None:
        """Do what lanes owe; a lane that loses a pair ends early."""
        if len(lanes) == 1:
            self._drive(lanes[0])
            return
        with ThreadPoolExecutor(len(lanes), thread_name_prefix="lane") as drivers:
            driven = [drivers.submit(self._drive, lane) for lane in lanes]
            try:
                wait(driven, return_when=FIRST_EXCEPTION)
            finally:
                if not all(future.done() and future.exception() is None for future in driven):
                    self._scope.cancel()
        errors = [error for future in driven if (error := future.exception())]
        if errors:  # those that were stopped for it are not why
            raise next((error for error in errors if not isinstance(error, _Stopped)), errors[0])

    def _drive(self, lane: _Lane) -> None:
        pool = ThreadPoolExecutor((self._job.concurrency or 1) * len(lane.pairs), thread_name_prefix="solve")
        try:
            for stretch in lane.stretches:
                self._check()
                self._rest(lane.pairs)
                self._run(stretch, lane.pairs, pool)
                if self._are_short(lane.pairs):
                    return
        finally:
            pool.shutdown(wait=not self._scope.is_over, cancel_futures=True)

    def _run(self, owed: Sequence[Work], pairs: Sequence[str], pool: ThreadPoolExecutor) -> None:
        """Do a stretch; if one of the pairs is lost, no further solve begins, as the others have no room for more."""
        futures = {pool.submit(self._solve, work, pairs) for work in owed}
        ended: SimpleQueue[Future[SolveRecord | None]] = SimpleQueue()
        for future in futures:
            future.add_done_callback(ended.put)
        is_short = False
        try:
            while futures:
                futures.discard(future := self._next(ended))  # and its record with it
                if not future.cancelled() and (record := future.result()):
                    self._keep(record)
                if not is_short and (is_short := self._are_short(pairs)):
                    for waiting in futures:
                        waiting.cancel()
        except BaseException:
            self._stop(futures)
            for future in futures:
                # It may have ended while the others were stopped.
                if future.done() and not future.cancelled() and not future.exception() and (record := future.result()):
                    with suppress(SpecReasonError):
                        self._keep(record)
            raise

    def _next(self, ended: SimpleQueue[T]) -> T:
        """What ends next; whoever waits for a solve that does not end hears all the same that the run is over."""
        while True:
            with suppress(Empty):
                return ended.get(timeout=CHECK_S)
            self._check()

    def _are_short(self, pairs: Sequence[str]) -> bool:
        """Whether one of these pairs is lost."""
        return not set(pairs) <= set(self._fleet.there)

    def _keep(self, record: SolveRecord) -> None:
        if is_lost(record):
            failed = next(event for event in record.events if isinstance(event, SolveFailed))
            self._lose(record.pair or "", ServerUnreachable(failed.error, hint=failed.hint))
            return
        with self._keeping:
            self._writer.append(record)
            self._ended.append(one := Done.of(record))
            self._failed += one.tally.outcome == "failed"
            if self._failures_allowed is not None and self._failed > self._failures_allowed:
                raise TooManyFailures(f"{self._failed} solves failed; the last one: {one.tally.error}")

    def _lose(self, pair: str, error: ServerUnreachable) -> None:
        if self._fleet.lose(pair, error):
            self._sink.notice(f"the pair {pair} is given up, and the others do its solves: {error}")

    def _stop(self, futures: Collection[Future[SolveRecord | None]]) -> None:
        """Cancel the running solves, here and on the servers; solves that end meanwhile are stored."""
        for future in futures:
            future.cancel()
        self._scope.cancel()
        wait(futures, timeout=_GRACE_S)

    def _solve(self, work: Work, pairs: Sequence[str]) -> SolveRecord | None:
        """Do a solve; returns None if the pairs that should do it are lost."""
        self._check()
        with self._fleet.least_busy(pairs) as pair:
            if pair is None:
                return None
            task = Task(
                work.problem,
                work.mode,
                work.repeat,
                tasks.seed(self._job.seed, work.problem, work.repeat),
                self._sources[work.mode.program],
                self._rates,
                self._job.problem_limit_s,
                pair,
            )
            key, record = self._carried_out(task)
        if not is_lost(record):
            record = self._grader.graded(record)
            self._sink.finished(key, record)
        return record

    def _carried_out(self, task: Task) -> tuple[SolveKey, SolveRecord]:
        """Have a task carried out, and again if its worker is lost."""
        for alone in _ATTEMPTS:
            key = self._sink.started(task.problem.id, task.repeat, task.mode.name)
            scope = Scope(task.limit_s, parent=self._scope)
            try:
                record = self._executor.solve(task, self._hearer(key), scope, alone=alone)
            except WorkerLost as error:
                self._check()
                lost = WorkerLost(f"it ended {len(_ATTEMPTS)} workers, one after another; {error}", hint=_HUNGRY)
                self._scope.wait(_PAUSE_S)
            except SpecReasonError:
                self._check()
                raise
            else:
                self._check()
                return key, record
        return key, tasks.failed(task, lost)

    def _hearer(self, key: SolveKey) -> Hear:
        def hear(event: Event) -> None:
            self._check()
            self._sink.event(key, event)

        return hear

    def _check(self) -> None:
        if self._scope.is_over:
            raise _Stopped

    def _rest(self, pairs: Sequence[str]) -> None:
        """Empty the caches, if the job says so; no solve may be running on these pairs."""
        if not self._job.flush_cache:
            return
        for server in chain.from_iterable(self._fleet.pairs[name] for name in pairs):
            empty_cache(server)


@dataclass(frozen=True)
class _Lane:
    """Pairs, and the stretches that they do one after another."""

    pairs: Sequence[str]
    stretches: Iterator[list[Work]]


class _Shared(Iterator[T]):
    """What several threads take turns to get from, each part once."""

    def __init__(self, parts: Iterable[T]) -> None:
        self._parts, self._lock = iter(parts), threading.Lock()

    def __next__(self) -> T:
        with self._lock:
            return next(self._parts)


def empty_cache(server: Server) -> None:
    """Empty a server's cache; a call that was given up may still be running there for a moment.

    Raises:
        UsageError: somebody else is using it.
    """
    until = time.monotonic() + _FLUSH_S
    while not _is_emptied(server):
        if time.monotonic() >= until:
            raise UsageError(
                f"the cache of the {server.role} server cannot be emptied: somebody else is using it",
                hint="its timings would mean little; `--set flush_cache=false` measures all the same",
            )
        time.sleep(_POLL_S)


def _is_emptied(server: Server) -> bool:
    """Empty a server's cache; returns False if the cache is in use."""
    try:
        server.flush_cache()
    except RuntimeError:
        return False
    return True


class _Stopped(BaseException):
    """Ends a solve of a stopped run; as no `Exception`, it is not caught by programs by accident."""
