"""Solves in processes of their own: what they give, and what becomes of them when something ends before it should."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing import resource_tracker, spawn
from pathlib import Path
from typing import Any, TypeVar

import pytest
from batches import ROOT, carry_out, holds, make_job, start, stored_lines, wait_for
from faults import StoryServer, story_servers
from hostile import FINDS

import specreason_sgl.cli.app
from specreason_sgl import api
from specreason_sgl.embedded.stories import story
from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.errors import CallFailed, ServerUnreachable, SpecReasonError, UsageError
from specreason_sgl.evaluation import executors, runner, workers
from specreason_sgl.evaluation.datasets import load
from specreason_sgl.evaluation.executors import Crew, Executor, executor_named
from specreason_sgl.evaluation.fleet import Fleet
from specreason_sgl.evaluation.grading import Grader
from specreason_sgl.evaluation.job import Job
from specreason_sgl.evaluation.runner import Runner, TooManyFailures, done
from specreason_sgl.evaluation.tasks import Source, Task, code_digest
from specreason_sgl.evaluation.workers import Process, Told, Worker, WorkerLost, packed, unpacked
from specreason_sgl.events import Event, SolveFailed, UnknownEvent
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.scope import CANCELLED, OUT_OF_TIME, Scope
from specreason_sgl.runs.store import Problem, RunConfig, RunWriter, SolveRecord, as_stored, closing, read_run
from specreason_sgl.servers.opening import PairOptions, open_pair
from specreason_sgl.view.batch_sinks import SilentBatch

T = TypeVar("T")
STORIES = [story(seed) for seed in range(60)]
START_S = 300
"""The most seconds for commands and processes to import SGLang, on a machine that has much else to do."""
KEY = "nobody-is-to-see-this"
CLOCKS = re.compile(rb'"(at|wall_s|engine_s|lost_s|started|elapsed)":("[^"]*"|[-0-9.e]+|null),?')
MODES = [{"kind": kind} for kind in ("base", "specreason", "random", "oracle")]

RAISES = """
import sglang as sgl

@sgl.function
def program(s, solve, word: str = "oh"):
    raise ValueError(word + solve.problem.id)
"""
LEAVES = "import sys\n" + RAISES.replace("raise ValueError", "sys.exit")
ODD = """
from typing import Any
import sglang as sgl
from specreason_sgl.events import Event, Noticed

class Thing:
    def __str__(self):
        return "a thing"

class Later(Event):
    type: str = "later"
    what: Any

@sgl.function
def program(s, solve):
    solve.emit(Later(what=Thing()))
    solve.emit(Later(what={"half": "\\ud800", "list": [1, (2.5, None)]}))
    solve.emit(Noticed(message="half a \\udc80 and <|im_end|>\\x1b[31m"))
"""
ENDS = """
import os
import sglang as sgl

@sgl.function
def program(s, solve):
    if solve.problem.id == {fatal!r}:
        os._exit(7)
    if solve.problem.id == {killed!r} and not os.path.exists({flag!r}):
        open({flag!r}, "w").close()
        os.kill(os.getpid(), 9)
"""


class Heard(SilentBatch):
    """Keeps the notices."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    def notice(self, message: str) -> None:
        self.notices.append(message)


def execute(
    folder: Path,
    job: Job,
    pairs: Mapping[str, Pair[Endpoint]],
    executor: Executor | None = None,
    *,
    problems: Sequence[Problem] | None = None,
    **options: Any,
) -> list[SolveRecord]:
    """Run a job, or go on with it."""
    config = RunConfig(created=datetime.now(UTC), program=job.name, pair="tests")
    writer, earlier = RunWriter.resume(folder, config, (), done)
    with closing(writer), Grader("exact") as grader:
        sink = options.pop("sink", SilentBatch())
        what = load(job.dataset) if problems is None else problems
        Runner(job, what, Fleet(pairs), writer, grader, sink, executor=executor, **options).run(earlier)
    return read_run(folder).records


def rows(records: Sequence[SolveRecord]) -> dict[str, bytes]:
    """Solves as they are stored, clocks aside, by their keys; each is there once."""
    assert len({record.key for record in records}) == len(records)
    return {record.key: CLOCKS.sub(b"", as_stored(record)) for record in records}


@pytest.fixture(scope="module")
def servers() -> Iterator[list[StoryServer]]:
    """Base and small."""
    with story_servers(STORIES) as ((base, small),):
        yield [base, small]


@pytest.fixture(scope="module")
def options(servers: list[StoryServer]) -> PairOptions:
    base, small = servers
    return PairOptions(base=base.url, small=small.url, wait_for_server_s=0.5)


@pytest.fixture(scope="module")
def pairs(options: PairOptions) -> Iterator[dict[str, Pair[Endpoint]]]:
    with open_pair(options) as pair:
        yield {"": pair}


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What the crew says."""
    return []


@pytest.fixture(scope="module")
def crew(options: PairOptions, said: list[str]) -> Iterator[Crew]:
    """Two processes."""
    hired = Crew(lambda connect: Process({"": options}, connect=connect), 2, said.append)
    yield hired
    hired.dismiss()


class Here:
    """A worker that stays in this process, and is lost when it is told so."""

    def __init__(
        self, options: PairOptions, *, lost: Callable[[Task], bool] = lambda _: False, digest: str = ""
    ) -> None:
        self.where, self.digest = "here", digest or code_digest()
        self._worker, self._lost = Worker({"": options}, Path("nowhere")), lost
        self.tasks: list[str] = []
        """The questions of the tasks that it does."""
        self.beside: dict[str, int] = {}
        """How many others there were at most while a question's task ran, by question."""

    def perform(self, task: Task) -> Iterator[Sequence[Told]]:
        question = task.problem.question
        self.tasks.append(question)
        for each in self.tasks:
            self.beside[each] = max(self.beside.get(each, 0), len(self.tasks) - 1)
        try:
            if self._lost(task):
                raise WorkerLost("the worker, here, ended")
            yield from self._worker.perform(task)
        finally:
            self.tasks.remove(question)

    def cancel(self, key: str) -> None:
        self._worker.cancel(key)

    def dismiss(self) -> None:
        pass


def make_task() -> Task:
    """One solve by the base model."""
    job = make_job(1, modes=[{"kind": "base"}])
    (mode,) = job.modes
    return Task(load(job.dataset)[0], mode, 0, 0, Source.of(mode.program), {}, None, "")


def travelled(value: T) -> T:
    """A value as it arrives in another process."""
    there: T = pickle.loads(pickle.dumps(value))  # noqa: S301 - just written
    return there


def release(servers: Sequence[StoryServer]) -> None:
    """Have servers answer at once, also what they have been asked."""
    for server in servers:
        server.seconds = 0
        for waiting in list(server.in_flight.values()):
            waiting.set()
    wait_for(lambda: not any(server.in_flight for server in servers))


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


# What processes give.


@pytest.mark.slow
def test_processes_give_the_rows_of_threads(tmp_path: Path, pairs: dict[str, Pair[Endpoint]], crew: Crew) -> None:
    own = [
        {"name": name, "program": write(tmp_path / f"{name}.py", text)}
        for name, text in {"raises": RAISES, "odd": ODD, "leaves": LEAVES}.items()
    ]
    job = make_job(3, modes=[*MODES, *own], repeats=2)
    threads = execute(tmp_path / "threads", job, pairs)
    processes = execute(tmp_path / "processes", job, pairs, crew)
    failed = [record for record in processes if record.mode == "raises"]

    assert len(processes) == 3 * 2 * len(job.modes)
    assert rows(processes) == rows(threads)
    assert {event.type for r in processes if r.mode == "odd" for event in r.events if isinstance(event, UnknownEvent)}
    for event in [event for record in failed for event in record.events if isinstance(event, SolveFailed)]:
        assert re.fullmatch(r"raises.py:6: ValueError: oh.+", event.error)
        assert str(tmp_path / "raises.py") in str(event.traceback)


@pytest.mark.slow
def test_limits_hold_in_processes_too(
    tmp_path: Path, servers: list[StoryServer], pairs: dict[str, Pair[Endpoint]], crew: Crew
) -> None:
    job = make_job(4, problem_limit_s=0.3)
    for server in servers:
        server.seconds = 60
    try:
        records = execute(tmp_path / "late", job, pairs, crew)
    finally:
        release(servers)
    assert [record.tally.error for record in records] == [OUT_OF_TIME] * 4

    raises = [{"name": "r", "program": write(tmp_path / "r.py", RAISES)}]
    with pytest.raises(TooManyFailures, match="3 solves failed"):
        execute(tmp_path / "failing", make_job(12, modes=raises), pairs, crew, fail_on_error=2)


@pytest.mark.slow
def test_a_cancelled_run_is_aborted_on_the_servers_and_stores_nothing(
    tmp_path: Path, servers: list[StoryServer], pairs: dict[str, Pair[Endpoint]], crew: Crew
) -> None:
    scope, earlier = Scope(), len(servers[1].aborted)
    for server in servers:
        server.seconds = 60

    def cancel() -> None:
        wait_for(lambda: len(servers[1].in_flight) == 4)
        scope.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        with pytest.raises(CallFailed, match=CANCELLED):
            execute(tmp_path / "run", make_job(8), pairs, crew, scope=scope)
    finally:
        canceller.join()
    wait_for(lambda: not servers[1].in_flight)
    release(servers)

    assert len(set(servers[1].aborted[earlier:])) == 4
    assert read_run(tmp_path / "run").records == []


@pytest.mark.slow
def test_a_server_that_stays_away_ends_the_run_as_it_does_with_threads(
    tmp_path: Path, servers: list[StoryServer], pairs: dict[str, Pair[Endpoint]], crew: Crew, said: list[str]
) -> None:
    told: list[tuple[str, str | None]] = []
    del said[:]
    for name, executor in (("threads", None), ("processes", crew)):
        servers[0].close()
        try:
            with pytest.raises(ServerUnreachable) as raised:
                execute(tmp_path / name, make_job(8), pairs, executor)
        finally:
            servers[0].open()
        told.append((str(raised.value), raised.value.hint))
        assert read_run(tmp_path / name).records == []

    assert told[0] == told[1]
    assert [line for line in said if "pausing" in line][1:] == [], "once for all workers"
    assert rows(execute(tmp_path / "processes", make_job(8), pairs)) == rows(
        execute(tmp_path / "calm", make_job(8), pairs)
    )


# Workers that end.


def pid_of(where: str) -> int:
    (pid,) = re.findall(r"process (\d+) on", where)
    return int(pid)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.slow
def test_workers_that_are_killed_cost_no_solve_and_are_replaced(
    tmp_path: Path, pairs: dict[str, Pair[Endpoint]], crew: Crew, said: list[str]
) -> None:
    del said[:]
    first = crew.where
    fatal, *others = load(make_job(8).dataset)
    ends = write(tmp_path / "ends.py", ENDS.format(fatal=fatal.id, killed=others[2].id, flag=str(tmp_path / "once")))
    job = make_job(8, modes=[{"kind": "specreason"}, {"name": "ends", "program": ends}])
    records = execute(tmp_path / "run", job, pairs, crew)
    (failed,) = [record for record in records if record.mode == "ends" and record.tally.outcome == "failed"]
    lost = [
        re.fullmatch(r"the worker, (.+), ended; what it was solving is given to others", line)
        for line in said
        if "ended" in line
    ]

    assert len(records) == 16
    assert failed.problem == fatal
    assert re.fullmatch(
        r"it ended 4 workers, one after another; the worker, process \d+ on .+, ended", str(failed.tally.error)
    )
    assert 4 <= len({each[1] for each in lost if each}) == len(lost) <= 5, "one line for each"
    assert (tmp_path / "once").exists()
    calm = execute(tmp_path / "calm", job, pairs, problems=others)
    assert rows([record for record in records if record.problem != fatal]) == rows(calm)
    assert holds(lambda: len(crew.where) == 2)
    assert set(crew.where) != set(first)


def test_the_last_two_attempts_have_a_worker_to_themselves(
    tmp_path: Path, servers: list[StoryServer], options: PairOptions, pairs: dict[str, Pair[Endpoint]]
) -> None:
    problems = load(make_job(8).dataset)
    poison = problems[0].question
    hired: list[Here] = []

    def hire(_connect: bool) -> Here:
        hired.append(Here(options, lost=lambda task: task.problem.question == poison))
        return hired[-1]

    for server in servers:
        server.seconds = 0.01
    crew = Crew(hire, 1)
    try:
        records = execute(tmp_path / "run", make_job(8), pairs, crew, problems=problems)
    finally:
        crew.dismiss()
        for server in servers:
            server.seconds = 0
    tried = [worker.beside[poison] for worker in hired if poison in worker.beside]

    assert len(records) == 8
    assert [r.problem.question for r in records if r.tally.outcome == "failed"] == [poison]
    assert len(tried) == 4
    assert tried[2:] == [0, 0]


def test_a_solve_that_loses_three_workers_by_chance_is_no_failed_one(
    tmp_path: Path, options: PairOptions, pairs: dict[str, Pair[Endpoint]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_PAUSE_S", 0.0)
    problems = load(make_job(4).dataset)
    unlucky = problems[0].question
    hired: list[Here] = []

    def hire(_connect: bool) -> Here:
        number = len(hired)
        hired.append(Here(options, lost=lambda task: number < 3 and task.problem.question == unlucky))
        return hired[-1]

    crew = Crew(hire, 1)
    records = execute(tmp_path / "run", make_job(4), pairs, crew, problems=problems)
    crew.dismiss()

    assert len(hired) == 4
    assert rows(records) == rows(execute(tmp_path / "calm", make_job(4), pairs, problems=problems))


def test_workers_that_end_again_and_again_end_the_run_and_it_goes_on(
    tmp_path: Path, options: PairOptions, pairs: dict[str, Pair[Endpoint]]
) -> None:
    hired: list[Here] = []

    def hire(_connect: bool) -> Here:
        hired.append(Here(options, lost=lambda _: True))
        return hired[-1]

    said: list[str] = []
    crew = Crew(hire, 2, said.append)
    with pytest.raises(ServerUnreachable, match="workers end as soon as they work; the last one: the worker, here"):
        execute(tmp_path / "run", make_job(12), pairs, crew)
    crew.dismiss()

    assert len(hired) <= 2 + executors.LOSSES * 2
    assert read_run(tmp_path / "run").status.status == "error"  # type: ignore[union-attr]
    assert all("4 workers" in str(record.tally.error) for record in read_run(tmp_path / "run").records)
    assert len(execute(tmp_path / "run", make_job(12), pairs)) == 12


def test_workers_that_cannot_be_replaced_end_the_run(
    tmp_path: Path, options: PairOptions, pairs: dict[str, Pair[Endpoint]]
) -> None:
    def hire(connect: bool) -> Here:
        if connect:
            return Here(options, lost=lambda _: True)
        raise WorkerLost("no room", hint="make some")

    said: list[str] = []
    crew = Crew(hire, 2, said.append)
    with pytest.raises(ServerUnreachable, match="there is no worker any more: no room") as raised:
        execute(tmp_path / "run", make_job(12), pairs, crew)

    assert raised.value.hint == "make some"
    assert raised.value.exit_code == 3
    assert "no worker in its place: no room" in said
    assert read_run(tmp_path / "run").records == []


def test_whatever_keeps_a_worker_from_being_hired_is_told() -> None:
    def hire(_connect: bool) -> Here:
        raise OSError(24, "Too many open files")

    with pytest.raises(WorkerLost, match=r"a worker cannot be started: OSError: .*Too many open files"):
        Crew(hire, 2)


def test_other_code_is_not_hired_at_first_nor_later(
    tmp_path: Path, options: PairOptions, pairs: dict[str, Pair[Endpoint]]
) -> None:
    with pytest.raises(UsageError, match="here has another version of this package"):
        Crew(lambda _: Here(options, digest="other"), 2)

    said: list[str] = []
    crew = Crew(lambda connect: Here(options, lost=lambda _: True, digest="" if connect else "other"), 1, said.append)
    with pytest.raises(ServerUnreachable, match="another version"):
        execute(tmp_path / "run", make_job(2), pairs, crew)
    assert "no worker in its place: here has another version of this package" in said


def test_the_digest_changes_with_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    changed = write(tmp_path / "base_only.py", "")
    before = code_digest()
    monkeypatch.setattr("specreason_sgl.evaluation.tasks.stock", lambda: {"base_only": Path(changed)})

    assert code_digest() != before


def test_a_solve_waits_as_long_as_it_takes_for_a_worker_that_another_has_to_itself(
    options: PairOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "CHECK_S", 0.01)
    crew = Crew(lambda _: Here(options), 1)
    going, entered = threading.Event(), threading.Event()

    def hold() -> None:
        with crew._taken(Scope(), alone=True):
            entered.set()
            going.wait(30)

    def follow() -> str:
        with crew._taken(Scope(), alone=False) as worker:
            return worker.where

    with ThreadPoolExecutor(2) as pool:
        pool.submit(hold)
        entered.wait(30)
        following = pool.submit(follow)
        assert not holds(following.done, 0.2)
        going.set()
        assert following.result(30) == "here"


# Processes that do not start, do not react, or lose their parent.


@pytest.fixture
def executable(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Has another program run in the place of Python."""
    resource_tracker.ensure_running()  # it is another such process
    before, path = spawn.get_executable(), tmp_path / "python"

    def put(script: str) -> None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        spawn.set_executable(str(path))

    yield put
    spawn.set_executable(before)


def test_a_process_that_ends_at_once_or_never_begins_is_lost(
    executable: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    executable("exit 1")
    with pytest.raises(WorkerLost, match="ended as soon as it was started") as raised:
        Process({}, connect=False)
    assert raised.value.exit_code == 3

    monkeypatch.setattr(workers, "BEGIN_S", 0.2)
    monkeypatch.setattr(workers, "END_S", 0.1)
    executable(f"echo $$ > {tmp_path}/pid\nexec sleep 600")
    with pytest.raises(WorkerLost, match="did not begin within"):
        Process({}, connect=False)
    assert not is_alive(int((tmp_path / "pid").read_text()))
    assert not list(tmp_path.glob("specreason-*"))


def test_workers_that_cannot_be_started_end_the_command_and_it_goes_on(
    executable: Callable[[str], None], servers: list[StoryServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command = eval_command(tmp_path, servers, problems=2)
    executable("exit 1")

    assert carry_out(monkeypatch, *command, "--executor", "processes", "--workers", "2") == 3
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("error: ", "hint: "))]
    assert told[0].startswith("hint: the same command with")
    assert told[1] == "error: a worker ended as soon as it was started"
    assert told[2].startswith("hint: what it wrote says why")
    assert len(told) == 3
    assert carry_out(monkeypatch, *command, "--resume") == 0
    assert stored_lines(tmp_path / "run") == 2


@pytest.mark.slow
def test_a_process_that_is_stopped_keeps_nobody_from_ending_the_run(options: PairOptions) -> None:
    crew = Crew(lambda _: Process({"": options}, connect=False), 1)
    (where,) = crew.where
    task = make_task()
    scope, ended = Scope(), list[Exception]()
    os.kill(pid_of(where), signal.SIGSTOP)

    def solve() -> None:
        try:
            crew.solve(task, lambda _: None, scope)
        except SpecReasonError as error:
            ended.append(error)

    solving = threading.Thread(target=solve)
    solving.start()
    wait_for(lambda: crew._places[0].busy == 1)
    scope.cancel()
    crew.dismiss()
    solving.join(60)

    assert [type(error) for error in ended] == [WorkerLost]
    assert not is_alive(pid_of(where))


@pytest.mark.slow
def test_a_process_ends_with_the_one_that_started_it_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import signal\n"
        "from specreason_sgl.evaluation.workers import Process\n"
        "if __name__ == '__main__':\n"
        "    print(Process({}, connect=False).where, flush=True)\n"
        "    signal.pause()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, write(tmp_path / "script.py", script)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert parent.stdout is not None
    with parent:
        pid = pid_of(parent.stdout.readline())
        os.kill(pid, signal.SIGINT)  # as Ctrl-C in a terminal does
        ended = holds(lambda: not is_alive(pid), 0.3)
        parent.send_signal(signal.SIGKILL)

    assert not ended
    assert holds(lambda: not is_alive(pid))
    assert not list(tmp_path.glob("specreason-*"))


# The command.


def eval_command(folder: Path, servers: Sequence[StoryServer], problems: int) -> tuple[str, ...]:
    """Carries out a job into `run`."""
    job = write(
        folder / "job.toml",
        f'dataset = {{ name = "stories", limit = {problems} }}\nconcurrency = 4\nflush_cache = false\n'
        'settings = { budget = 1024, temperature = 0.0 }\nmodes = [{ kind = "specreason" }]\n',
    )
    base, small = servers
    where = ("--base", base.url, "--small", small.url)
    return ("eval", job, *where, "--out", str(folder / "run"), "--display", "plain")


def children(pid: int) -> list[int]:
    """The processes that a process has started, whichever of its threads did."""
    found = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(each) for each in " ".join(found).split()]


@pytest.mark.slow
def test_a_killed_command_leaves_no_process_and_goes_on_elsewhere_with_what_is_owed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with story_servers(STORIES, 3, seconds=0.05) as (first, *others):
        command = eval_command(tmp_path, first, problems=16)
        running = start(*command, "--executor", "processes", "--workers", "1", "--api-key", KEY, quiet=True)
        assert holds(lambda: stored_lines(tmp_path / "run") >= 2, START_S)
        begun = children(running.pid)
        told = [Path(f"/proc/{pid}/{what}").read_bytes() for pid in begun for what in ("cmdline", "environ")]
        running.send_signal(signal.SIGKILL)
        running.wait()

        assert len(begun) >= 1
        assert KEY not in str(told)
        assert holds(lambda: not any(map(is_alive, begun)))
        before = (tmp_path / "run" / "solves.jsonl").read_bytes()
        several = [
            f'[[pair]]\nname = "{name}"\nbase = "{base.url}"\nsmall = "{small.url}"\n'
            for name, (base, small) in zip("xy", others, strict=True)
        ]
        elsewhere = ("--servers", write(tmp_path / "servers.toml", "\n".join(several)))
        command = (*command[:2], *command[6:], *elsewhere, "--resume")
        assert carry_out(monkeypatch, *command) == 0
    stored = read_run(tmp_path / "run")
    whole = before[: before.rfind(b"\n") + 1]
    late = stored.records[whole.count(b"\n") :]

    assert (tmp_path / "run" / "solves.jsonl").read_bytes().startswith(whole)
    assert len(rows(stored.records)) == 16
    assert {record.pair for record in late} == {"x", "y"}
    assert json.loads((tmp_path / "run" / "config.json").read_text())["executor"] == {"name": "processes", "workers": 1}
    assert not any(KEY in path.read_text() for path in (tmp_path / "run").iterdir())


@pytest.mark.slow
def test_ctrl_c_ends_the_command_its_processes_and_its_calls(
    tmp_path: Path, servers: list[StoryServer], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left: list[int] = []
    monkeypatch.setattr(specreason_sgl.cli.app, "leave", left.append)
    command = eval_command(tmp_path, servers, problems=40)
    begun: list[int] = []
    earlier = [len(server.aborted) for server in servers]

    def press() -> None:
        assert holds(lambda: stored_lines(tmp_path / "run") >= 1, START_S)
        for server in servers:
            server.seconds = 60
        time.sleep(0.2)  # what was asked before that comes back
        wait_for(lambda: sum(len(server.in_flight) for server in servers) == 4)
        begun.extend(children(os.getpid()))
        os.kill(os.getpid(), signal.SIGINT)

    resource_tracker.ensure_running()  # lives as long as this process
    before = children(os.getpid())
    pressing = threading.Thread(target=press)
    for server in servers:
        server.seconds = 0.02
    pressing.start()
    try:
        code = carry_out(monkeypatch, *command, "--executor", "processes", "--workers", "1")
    finally:
        pressing.join()
        release(servers)
    new = [pid for pid in begun if pid not in before]

    assert (code, left) == (130, [130])
    assert new
    assert not any(map(is_alive, new))
    assert len({rid for server, before in zip(servers, earlier, strict=True) for rid in server.aborted[before:]}) == 4
    stored = read_run(tmp_path / "run")
    assert stored.status is not None
    assert stored.status.status == "cancelled"
    assert 1 <= len(rows(stored.records)) < 40
    assert {record.tally.outcome for record in stored.records} == {"answered"}
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "complaint", "hint"),
    [
        (("--executor", "x"), "there is no executor `x`", "there are threads, processes, ray"),
        (("--workers", "2"), "threads are as many as solves run at a time", "`--concurrency N` says how many"),
        (("--address", "auto"), "only Ray has an address", "`--executor ray --address auto`"),
        (("--executor", "processes", "--address", "h:1"), "only Ray has an address", "`--executor ray --address h:1`"),
    ],
)
def test_options_of_executors_that_make_no_sense_are_one_line(
    options: tuple[str, ...], complaint: str, hint: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert carry_out(monkeypatch, "eval", "tales", *options) == 2
    assert capsys.readouterr().err.splitlines() == [f"error: {complaint}", f"hint: {hint}"]


def test_no_processes_are_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert carry_out(monkeypatch, "eval", "tales", "--executor", "processes", "--workers", "0") == 2
    assert executor_named("processes", None, None).workers is None


def test_a_notebook_can_have_processes(
    tmp_path: Path, servers: list[StoryServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    hired: list[Here] = []

    def process(pairs: Mapping[str, PairOptions], *, connect: bool) -> Here:
        assert connect
        hired.append(Here(pairs[""]))
        return hired[-1]

    monkeypatch.setattr(executors, "Process", process)
    monkeypatch.chdir(tmp_path)
    eval_command(tmp_path, servers, problems=2)
    base, small = servers
    with api.pair(base=base.url, small=small.url, api_key=KEY) as pair:
        stored = api.evaluate("job.toml", pair, out="run", executor="processes", workers=3)
        with pytest.raises(UsageError, match="there is no executor `x`"):
            api.evaluate("job.toml", pair, executor="x")

    assert len(hired) == 3
    assert sum(len(each.beside) for each in hired) == 2
    assert {record.tally.outcome for record in stored.run.records} == {"answered"}
    assert stored.run.config is not None
    assert stored.run.config.model_dump()["executor"] == {"name": "processes", "workers": 3}


# What travels.


def test_keys_show_nowhere(servers: list[StoryServer]) -> None:
    base, small = servers
    given = PairOptions(base=base.url, small=small.url, api_key=KEY)
    with open_pair(given) as pair:
        named = given.open_as(pair)

    assert named.keys == {"base": KEY, "small": KEY}
    assert travelled(named) == named
    assert KEY not in f"{named!r}{given!r}{named}{given}"


@pytest.mark.parametrize(
    "name",
    [
        "plain.py",
        "two\nlines.py",
        "-rf.py",
        "'\"`$(x)`.py",
        "é\u202e.py",
        "\udcff.py",
        " .py",
        "x" * 200 + ".py",
        "a.b.py",
    ],
)
def test_a_program_travels_with_its_file_whatever_that_is_called(name: str, tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    path = there / name
    path.write_text(RAISES)
    source = travelled(Source.of(str(path)))
    assert source.load(here).path == path
    assert not here.exists()

    for change in (lambda: path.write_text("raise SystemExit\n"), path.unlink):
        change()
        loaded = source.load(here)
        assert loaded.path.parent.parent == here
        assert loaded.path.name == path.name
        assert loaded.name == path.stem
        assert set(loaded.knobs) == {"word"}


def test_a_stock_program_travels_by_its_name() -> None:
    source = Source.of("base-only")

    assert source.text is None
    assert source.load(Path("nowhere")).is_stock


@pytest.mark.parametrize("text", [*FINDS, "plain"])
def test_what_is_told_arrives_as_it_is_stored(text: str) -> None:
    problem = Problem(id=text, question=text or "?", answer=text)
    later = UnknownEvent.model_validate({"type": "later", "at": 1.5, "more": {"deep": [text, None, 0.1]}})
    events: list[Event] = [later, SolveFailed(error=text, hint=text, traceback=text)]
    record = SolveRecord(
        problem=problem, mode="m", repeat=1, seed=5, pair="p", started=datetime.now(UTC), events=events
    )

    for event in events:
        arrived = unpacked(travelled(packed(event)))
        assert type(arrived) is type(event)
        assert as_stored(arrived) == as_stored(event)
    arrived = unpacked(packed(record))
    assert isinstance(arrived, SolveRecord)
    assert as_stored(arrived) == as_stored(record)
    assert arrived.key == record.key
    assert unpacked(packed(text)) == text


def test_twins_are_done_each_and_what_is_cancelled_before_it_comes_is_not_done(options: PairOptions) -> None:
    worker = Worker({"": options}, Path("nowhere"))
    with ThreadPoolExecutor(4) as pool:
        twins = list(pool.map(lambda task: unpacked([*worker.perform(task)][-1][-1]), [make_task() for _ in range(4)]))
    worker.cancel((task := make_task()).id)
    late = unpacked([*worker.perform(task)][-1][-1])

    assert len({CLOCKS.sub(b"", as_stored(twin)) for twin in twins if isinstance(twin, SolveRecord)}) == 1
    assert isinstance(late, SolveRecord)
    assert late.tally.error == CANCELLED


def test_what_keeps_a_solve_from_beginning_is_its_row(options: PairOptions, tmp_path: Path) -> None:
    away = PairOptions(base="http://127.0.0.1:9", small="http://127.0.0.1:9")
    worker = Worker({"": options, "away": away}, tmp_path / "folder")
    broken = Source(str(tmp_path / "mine.py"), b"1 / 0\n")
    (tmp_path / "file").write_text("in the way")
    lost, bad = (
        unpacked([*worker.perform(replace(make_task(), **other))][-1][-1])
        for other in ({"pair": "away"}, {"source": broken})
    )

    assert isinstance(lost, SolveRecord)
    assert isinstance(bad, SolveRecord)
    assert done(lost) is None, "a resumed run does it again"
    assert "mine.py:1: ZeroDivisionError" in str(bad.tally.error)
    assert done(bad) is not None
