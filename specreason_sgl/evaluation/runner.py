"""Runs a job: every mode on every problem, so many times, with a record appended as each solve ends.

Work comes in stretches with nothing in flight between them, and the radix caches are emptied there. At concurrency 1 a
stretch is the repeats of one problem in one mode, so that modes take turns and a machine that slows down slows all of
them alike; above that it is a whole mode, so that its throughput is its own. Repeats share the cache either way.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import stamina

from specreason_sgl.errors import ServerUnreachable, SpecReasonError, UsageError
from specreason_sgl.evaluation import modes
from specreason_sgl.evaluation.grading import Grader
from specreason_sgl.evaluation.job import Job, Mode, filled_in
from specreason_sgl.events import Event, SolveEnded, SolveFailed, TextStreamed
from specreason_sgl.lang.loading import Program
from specreason_sgl.lang.solve import Pair, solve
from specreason_sgl.runs.store import Done, Problem, RunWriter, SolveRecord, solve_key

if TYPE_CHECKING:
    from specreason_sgl.engine.endpoint import Endpoint
    from specreason_sgl.view.batch_sinks import BatchSink

LOST = ServerUnreachable.exit_code
"""The exit code of a solve whose server went away; such a solve is owed again when a run goes on."""

_WARM_UP = {"budget": 48, "max_step_tokens": 24, "answer_tokens": 8}
_FLUSH_S = 30.0
_GRACE_S = 10.0
"""How long what is in flight may take to notice that the run has ended."""


# It tells of every retry; where a cache is emptied nobody needs to know.
logging.getLogger("stamina").addHandler(logging.NullHandler())


class TooManyFailures(SpecReasonError):
    """More solves failed than the user wants to pay for."""


@dataclass(frozen=True)
class Work:
    """One solve that is to be done."""

    problem: Problem
    mode: Mode
    repeat: int

    @property
    def key(self) -> str:
        """As its record will have it."""
        return solve_key(self.problem, self.mode.name, self.repeat)


def stretches(job: Job, problems: Sequence[Problem], wave: Sequence[Mode]) -> Iterator[list[Work]]:
    """What is solved between two points of rest, in order."""
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
    """What is kept in mind of a stored solve; None if it is owed again, because a server had gone away."""
    return None if is_lost(record) else Done.of(record)


def known(field: str, stored: Any) -> Any:
    """What a field of a stored configuration is to this version."""
    return filled_in(stored) if field == "job" else stored


def is_lost(record: SolveRecord) -> bool:
    """Whether a solve failed because a server went away, which says nothing about the mode."""
    return any(isinstance(event, SolveFailed) and event.exit_code == LOST for event in record.events)


class Runner:
    """One execution of a job; use it once."""

    def __init__(
        self,
        job: Job,
        problems: Sequence[Problem],
        pair: Pair,
        writer: RunWriter,
        grader: Grader,
        sink: BatchSink,
        *,
        decode: Endpoint | None = None,
        fail_on_error: float | None = None,
    ) -> None:
        """Prepare.

        Args:
            job: what to run.
            problems: on what.
            pair: the servers.
            writer: of the run folder.
            grader: for the dataset's answers.
            sink: told of everything that happens.
            decode: the base model's server with speculative decoding.
            fail_on_error: stop when more solves than this failed; a share of all below 1, a count from there on.

        Raises:
            UsageError: a program cannot be loaded, or a server is missing.
        """
        self._job, self._problems, self._writer, self._grader, self._sink = job, problems, writer, grader, sink
        self._programs = modes.load_programs(job.modes)
        self._pairs = {mode.name: modes.pair_for(mode, pair, decode) for mode in job.modes}
        self._servers = [server for server in (pair.base, pair.small, decode) if server is not None]
        total = len(job.modes) * len(problems) * job.repeats
        self._failures_allowed = (
            fail_on_error * (total if fail_on_error < 1 else 1) if fail_on_error is not None else None
        )
        self._failed = 0
        self._stopping = threading.Event()
        self._rates: dict[str, float | None] = {}

    def run(self, earlier: Sequence[Done] = ()) -> list[Done]:
        """Solve what is owed and return what became of everything; the records are in the run folder only.

        Args:
            earlier: solves that are stored already.

        Raises:
            ServerUnreachable: a server went away and stayed away; what is owed can be done when the run goes on.
            TooManyFailures: more solves failed than were allowed.
            KeyboardInterrupt: passed on when what was in flight has been abandoned.
        """
        ended = list(earlier)
        known = {one.key for one in ended}
        self._failed = sum(one.tally.outcome == "failed" for one in ended)
        pool = ThreadPoolExecutor(self._job.concurrency or 1, thread_name_prefix="solve")
        try:
            for wave in modes.phases(self._job):
                self._rates = {
                    of: modes.acceptance(one.tally for one in ended if one.mode == of)
                    for of in {mode.of for mode in wave if mode.of}
                }
                for stretch in stretches(self._job, self._problems, wave):
                    if owed := [work for work in stretch if work.key not in known]:
                        self._rest()
                        self._run(owed, pool, ended)
        finally:
            pool.shutdown(wait=not self._stopping.is_set(), cancel_futures=True)
        return ended

    def warm_up(self, program: Program) -> None:
        """Take both servers through a short solve that nobody counts."""
        mode = self._job.modes[0]
        settings = mode.settings.model_copy(update=_WARM_UP)
        solve(self._problems[0], program, self._pairs[mode.name], settings)

    def _run(self, owed: Sequence[Work], pool: ThreadPoolExecutor, ended: list[Done]) -> None:
        futures = {pool.submit(self._solve, work) for work in owed}
        try:
            for future in as_completed(futures):
                futures.discard(future)  # and its record with it
                self._keep(future.result(), ended)
        except BaseException:
            self._stop(futures)
            for future in futures:
                # It may have ended while the others were stopped.
                if future.done() and not future.cancelled() and not future.exception():
                    with suppress(SpecReasonError):
                        self._keep(future.result(), ended)
            raise

    def _keep(self, record: SolveRecord, ended: list[Done]) -> None:
        if is_lost(record):
            failed = next(event for event in record.events if isinstance(event, SolveFailed))
            raise ServerUnreachable(failed.error, hint=failed.hint)
        self._writer.append(record)
        ended.append(one := Done.of(record))
        self._failed += one.tally.outcome == "failed"
        if self._failures_allowed is not None and self._failed > self._failures_allowed:
            raise TooManyFailures(f"{self._failed} solves failed; the last one: {one.tally.error}")

    def _stop(self, futures: Collection[Future[SolveRecord]]) -> None:
        """Abandon what is in flight, here and on the servers; what ended all the same is done."""
        self._stopping.set()
        for future in futures:
            future.cancel()
        for server in self._servers:
            server.patience.abandon()
        wait(futures, timeout=_GRACE_S)

    def _solve(self, work: Work) -> SolveRecord:
        self._check()
        job, mode = self._job, work.mode
        key = self._sink.started(work.problem.id, work.repeat, mode.name)
        seed = _seed(job.seed, work)
        settings = mode.settings.model_copy(update={"seed": seed})
        heard: list[Event] = []
        started = datetime.now(UTC)

        def hear(event: Event) -> None:
            self._check()
            if not isinstance(event, TextStreamed):
                heard.append(event)
            self._sink.event(key, event)

        try:
            record = solve(
                work.problem,
                self._programs[mode.program],
                _until(self._pairs[mode.name], time.monotonic() + job.problem_limit_s),
                settings,
                sink=hear,
                mode=mode.name,
                repeat=work.repeat,
                parameters=modes.parameters(mode, work.problem, self._rates),
                grade=_later,
            )
        except _Stopped:
            raise
        except Exception as error:  # noqa: BLE001 - whatever ends a solve is its row
            hint = error.hint if isinstance(error, SpecReasonError) else None
            told = str(error) if isinstance(error, SpecReasonError) else f"{type(error).__name__}: {error}"
            at = heard[-1].at if heard else 0.0
            ending = [SolveFailed(at=at, error=told, hint=hint), SolveEnded(at=at, outcome="failed")]
            record = SolveRecord(
                problem=work.problem,
                mode=mode.name,
                repeat=work.repeat,
                seed=seed,
                started=started,
                events=[*heard, *ending],
            )
        record = self._grader.graded(record)
        self._sink.finished(key, record)
        return record

    def _check(self) -> None:
        if self._stopping.is_set():
            raise _Stopped

    def _rest(self) -> None:
        """Nothing is in flight: empty the caches, if they are not to be shared."""
        if not self._job.flush_cache:
            return
        for server in self._servers:
            try:
                # A call that was given up may still be running there.
                for attempt in stamina.retry_context(on=RuntimeError, attempts=None, timeout=_FLUSH_S):
                    with attempt:
                        server.flush_cache()
            except RuntimeError as error:
                raise UsageError(
                    f"the cache of the {server.role} server cannot be emptied: somebody else is using it",
                    hint="its timings would mean little; `--set flush_cache=false` measures all the same",
                ) from error


class _Stopped(BaseException):
    """Ends a solve that nobody waits for any more; no program can catch it by accident."""


def _seed(seed: int, work: Work) -> int:
    """A random stream for a problem and a repeat, the same one in every mode."""
    text = f"{seed}:{work.repeat}:{work.problem.question}"
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4]) >> 1


def _until(pair: Pair, deadline: float) -> Pair:
    return Pair(pair.base and pair.base.until(deadline), pair.small and pair.small.until(deadline))


def _later(_answer: str | None, _gold: str) -> None:
    """Grading waits until the clock of the solve has stopped."""
