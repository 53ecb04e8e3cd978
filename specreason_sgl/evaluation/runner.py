"""Runs a job: every mode on every problem, with the job's repeats; each solve is stored as it ends.

The work is divided into stretches. Between two stretches no solve is running, and the radix caches are emptied. At
concurrency 1 a stretch is the repeats of one problem in one mode, so that modes take turns, and a machine that slows
down slows all of them alike. At higher concurrency a stretch is a whole mode, so that the throughput is that of one
mode. In both cases repeats share the cache.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from specreason_sgl.errors import CallFailed, ServerUnreachable, SpecReasonError, UsageError
from specreason_sgl.evaluation import modes
from specreason_sgl.evaluation.grading import Grader
from specreason_sgl.evaluation.job import Job, Mode, filled_in
from specreason_sgl.events import Event, SolveEnded, SolveFailed, TextStreamed
from specreason_sgl.lang.loading import Program
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.scope import CANCELLED, Scope
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Done, Problem, RunWriter, SolveRecord, solve_key
from specreason_sgl.text.prompts import embedded_name

if TYPE_CHECKING:
    from specreason_sgl.evaluation.modes import Server
    from specreason_sgl.view.batch_sinks import BatchSink

LOST = ServerUnreachable.exit_code
"""The exit code of a solve whose server stopped answering; a resumed run does such a solve again."""

_WARM_UP = {"budget": 48, "max_step_tokens": 24, "answer_tokens": 8}
_FLUSH_S = 30.0
_POLL_S = 0.1
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
            return {role: model_name(path) for role, path in stored.items()}
        return stored

    return value


def model_name(model_path: str | None) -> str | None:
    """The name of a model: its path, or for the embedded pair a name that does not depend on where the package is."""
    return model_path and (embedded_name(model_path) or model_path)


def is_lost(record: SolveRecord) -> bool:
    """Whether a solve failed because a server stopped answering, which says nothing about the mode."""
    return any(isinstance(event, SolveFailed) and event.exit_code == LOST for event in record.events)


class Runner:
    """One execution of a job; call `run` once."""

    def __init__(
        self,
        job: Job,
        problems: Sequence[Problem],
        pair: Pair[Server],
        writer: RunWriter,
        grader: Grader,
        sink: BatchSink,
        *,
        fail_on_error: float | None = None,
        scope: Scope | None = None,
    ) -> None:
        """Prepare.

        Args:
            job: the job.
            problems: the problems to solve.
            pair: the servers.
            writer: writes the run folder.
            grader: compares answers.
            sink: called with everything that happens.
            fail_on_error: stop when more solves than this failed; a share of all below 1, a count from there on.
            scope: the scope that the run's calls belong to.

        Raises:
            UsageError: a program cannot be loaded, or a server is missing.
        """
        self._job, self._problems, self._writer, self._grader, self._sink = job, problems, writer, grader, sink
        self._programs = modes.load_programs(job.modes)
        self._pairs = {mode.name: modes.pair_for(mode, pair) for mode in job.modes}
        self._servers = list(pair)
        total = len(job.modes) * len(problems) * job.repeats
        self._failures_allowed = (
            fail_on_error * (total if fail_on_error < 1 else 1) if fail_on_error is not None else None
        )
        self._failed = 0
        self._scope = Scope(parent=scope)
        self._rates: dict[str, float | None] = {}

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
        except _Stopped:
            raise CallFailed(CANCELLED) from None
        finally:
            pool.shutdown(wait=not self._scope.is_over, cancel_futures=True)
        return ended

    def warm_up(self, program: Program) -> None:
        """Warm up both servers with a short solve that is not stored."""
        mode = self._job.modes[0]
        settings = mode.settings.model_copy(update=_WARM_UP)
        solve(self._problems[0], program, self._pairs[mode.name], settings, scope=Scope(parent=self._scope))

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
        """Cancel the running solves, here and on the servers; solves that end meanwhile are stored."""
        for future in futures:
            future.cancel()
        self._scope.cancel()
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
                self._pairs[mode.name],
                settings,
                sink=hear,
                scope=Scope(job.problem_limit_s, parent=self._scope),
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
        if self._scope.is_over:
            raise _Stopped

    def _rest(self) -> None:
        """Empty the caches, if the job says so; no solve may be running."""
        if not self._job.flush_cache:
            return
        for server in self._servers:
            empty_cache(server)


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


def _seed(seed: int, work: Work) -> int:
    """The seed for a problem and a repeat; it is the same in every mode."""
    text = f"{seed}:{work.repeat}:{work.problem.question}"
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4]) >> 1


def _later(_answer: str | None, _gold: str) -> None:
    """Grade nothing during a solve: grading is done after the solve's clock has stopped."""
