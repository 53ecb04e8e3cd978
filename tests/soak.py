"""The long versions of the tests of reliability: ``python tests/soak.py WHAT [--scale 0.1] [--seed 1]``.

Each prints what it did and found as one line of JSON and ends with 1 if a promise was broken. `make soak` runs them
all; ``--scale 0.1`` does a tenth of everything.
"""

from __future__ import annotations

import argparse
import json
import math
import operator
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import groupby, takewhile
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from batches import ROOT, execute, footprint, holds, make_job, start
from faults import Fault, Plan, Proxy, story_pair
from hostile import FINDS, TURNS, generated
from nodes import JOB, Nodes, in_threads, kill, on_ray, served, told

from specreason_sgl.embedded import BASE, SMALL
from specreason_sgl.embedded.stories import Story
from specreason_sgl.embedded.tales import tale
from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.engine.transport import AUTO, Transport
from specreason_sgl.evaluation.datasets import DatasetSpec, load, told_story
from specreason_sgl.events import CallMade, StepDrafted, StepTaken
from specreason_sgl.lang.loading import load as load_program
from specreason_sgl.lang.pair import Pair
from specreason_sgl.lang.solving import solve
from specreason_sgl.measure import rig
from specreason_sgl.measure import schedule as schedules
from specreason_sgl.runs.diff import diff_runs
from specreason_sgl.runs.store import Problem, RunConfig, SolveRecord, read_run, writing
from specreason_sgl.servers import pairs
from specreason_sgl.servers.cpu.decode import COMPILERS, Decode
from specreason_sgl.settings import Settings
from specreason_sgl.testing import Reply, ScriptedBackend
from specreason_sgl.text.prompts import DELIMITER

BUDGET = 320
LINE = "and so the next number is one more than the number before it, as \\(n + 1\\) says."
MOST_CHARACTERS = 100_000
CUBIC = 32
"""Four times the steps cost 16 times as much where each one looks at all before it; beyond this it is worse."""
WINDOW = 20
"""Steps at the end of a long chain that are done again and again."""
MOST_RECOMPUTED = 2
LASTING: tuple[Fault, ...] = ("delay", "cut", "500", "503", "broken JSON")
"""Faults that leave a server where it is."""
RAY_WORKERS = 4
HASTY = 0.25
"""Share of the losses that do not wait until the workers of the one before are there again. Were it all, one solve in
hundreds would lose four workers by chance, and be a failed one."""
STARVED, STALLED = 3, 10
"""So many times what its calls take at the median pace, and a solve was kept waiting by the others; so many times the
median for a token, and a call was."""
MEASURE = """
import json, resource, subprocess, sys, time
began = time.monotonic()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
print(json.dumps({"exit": code, "seconds": round(time.monotonic() - began, 1), "mib": most}))
"""


def faults(solves: int, concurrency: int, share: float, restarts: int, seed: int) -> dict[str, Any]:
    """Solves on the real pair behind proxies that fail it, while its servers are killed and started again."""
    what, part = (
        make_job(problems, concurrency=concurrency, budget=BUDGET, seed=5000)
        for problems in (solves, math.ceil(solves / 5))
    )
    with tempfile.TemporaryDirectory() as scratch, _real(Path(scratch)) as real:
        calm = execute(Path(scratch) / "calm", what, real.endpoints())
        again = execute(Path(scratch) / "again", part, real.endpoints())
        plans = Plan(seed, 0.0), Plan(seed + 1, 0.0)
        base, small = (Proxy(one.url, plan, one.api_key) for one, plan in zip(real.addresses, plans, strict=True))
        over = threading.Event()
        with base, small:
            said: list[str] = []
            # The calm runs send these short texts whole.
            ends = (
                Endpoint(base.url, "base", read_s=20, transport="sessions"),
                Endpoint(small.url, "small", read_s=20, transport="sessions"),
            )
            for end in ends:
                end.watch.say = said.append
            shaky = Pair(*ends)
            for plan in plans:
                plan.share = share
            killer = threading.Thread(target=real.accidents, args=(restarts, (base, small), over, seed))
            killer.start()
            began = time.monotonic()
            try:
                records = execute(Path(scratch) / "run", what, shaky)
            finally:
                over.set()
                killer.join()
            seconds = time.monotonic() - began
        stored = read_run(Path(scratch) / "run")
    answers = {record.key: record.tally.answer for record in calm}
    keys = Counter(record.key for record in stored.records)
    failed = [record for record in records if record.tally.outcome == "failed"]
    wrong = [r for r in records if r.tally.outcome != "failed" and r.tally.answer != answers[r.key]]
    return {
        "solves": solves,
        "concurrency": concurrency,
        "seconds": round(seconds, 1),
        "injected": dict(sum((plan.injected for plan in plans), Counter[str]())),
        "servers_killed_and_started_again": real.restarted,
        "pauses": sum("pausing" in line for line in said),
        "retries": sum(record.tally.retries for record in records),
        "stored_once": sum(count == 1 for count in keys.values()),
        "failed_rows": len(failed),
        "answers_unlike_without_faults": len(wrong),
        "solves_repeated_without_faults": len(again),
        "answers_unlike_in_two_runs_without_faults": sum(
            record.tally.answer != answers[record.key] for record in again
        ),
        "traces_unlike_without_faults": len(diff_runs(calm, records).different),
        "traces_unlike_in_two_runs_without_faults": len(diff_runs(calm, again).different),
        "kept": set(keys) == set(answers) and set(keys.values()) == {1} and not stored.remarks and not wrong,
    }


class Real:
    """The embedded pair on real servers, which can be killed and started again."""

    def __init__(self, scratch: Path) -> None:
        """Start it."""
        self._logs = scratch / "logs"
        self.restarted = 0
        self._running = pairs.launch(BASE, SMALL, self._logs)

    @property
    def addresses(self) -> tuple[pairs.Address, pairs.Address]:
        """Of the base and the small model."""
        return self._running.base, self._running.small

    @property
    def pid(self) -> int:
        """Of the process that leads the servers' group."""
        return self._running.pid

    def endpoints(self, transport: Transport = AUTO) -> Pair[Endpoint]:
        """Connected directly."""
        base, small = self.addresses
        return Pair(
            Endpoint(base.url, "base", api_key=base.api_key, transport=transport),
            Endpoint(small.url, "small", api_key=small.api_key, transport=transport),
        )

    def accidents(self, times: int, proxies: Sequence[Proxy], over: threading.Event, seed: int) -> None:
        """Kill a process of the pair at a random moment and start the pair again, so many times."""
        lots = random.Random(seed)
        for _ in range(times):
            if over.wait(lots.uniform(5, 20)):
                return
            victims = group(self.pid)
            os.kill(lots.choice(victims), signal.SIGKILL)
            holds(lambda: not group(self.pid))
            self.close()
            self._running = pairs.launch(BASE, SMALL, self._logs)
            for proxy, address in zip(proxies, self.addresses, strict=True):
                proxy.point_at(address.url, address.api_key)
            self.restarted += 1

    def close(self) -> None:
        """Stop it."""
        self._running.close()


@contextmanager
def _real(scratch: Path) -> Iterator[Real]:
    real = Real(scratch)
    try:
        yield real
    finally:
        real.close()


def kills(times: int, seed: int) -> dict[str, Any]:
    """Kill the client of a batch at random moments, resume it each time, and see that nothing was lost or torn."""
    lots = random.Random(seed)
    problems = max(60, 2 * times)
    told = _asked(problems)
    lost = torn = killed = left = 0
    with tempfile.TemporaryDirectory() as scratch, story_pair(told, seconds=0.01) as (_, proxies, servers):
        path = Path(scratch) / "job.toml"
        path.write_text(job_toml(problems))
        run = Path(scratch) / "run"
        arguments = (
            "eval", str(path), "--base", proxies[0].url, "--small", proxies[1].url, "--out", str(run), "--resume",
            "--display", "none",
        )  # fmt: skip
        solves = run / "solves.jsonl"
        before = b""
        while killed < times:
            process = start(*arguments, quiet=True)
            _until_it_grows(solves, process)
            time.sleep(lots.uniform(0, 0.5))
            process.kill()
            process.wait()
            killed += 1
            after = solves.read_bytes() if solves.exists() else b""
            lost += not after.startswith(before[: before.rfind(b"\n") + 1])
            torn += bool(read_run(run).remarks)
            before = after
            left += not holds(lambda: not any(server.in_flight for server in servers), 10)
            if len(read_run(run).records) == problems:
                solves.unlink()
                before = b""
        code = start(*arguments, quiet=True).wait()
        whole = read_run(run)
    return {
        "killed": killed,
        "problems": problems,
        "finished_solves_lost": lost,
        "half_written_lines_seen_and_read_over": torn,
        "kills_that_left_requests_on_a_server": left,
        "kept": code == 0
        and len(whole.records) == len({r.key for r in whole.records}) == problems
        and not lost
        and not left
        and not whole.remarks,
    }


def _asked(problems: int) -> list[Story]:
    """The stories of a job."""
    return [told for one in load(DatasetSpec(name="stories", limit=problems, seed=5000)) if (told := told_story(one))]


def ray_kills(times: int, seed: int) -> dict[str, Any]:
    """Kill workers, nodes and drivers of a job on a Ray cluster at random moments, and see that nothing was lost."""
    lots = random.Random(seed)
    problems = max(60, 80 * times)
    victims: Counter[str] = Counter()
    finished = lost = left = hasty = 0
    with (
        tempfile.TemporaryDirectory() as scratch,
        served(_asked(problems), seconds=0.1) as servers,
        Nodes() as nodes,
    ):
        os.environ.update(nodes.token)
        path, run = Path(scratch) / "job.toml", Path(scratch) / "run"
        path.write_text(JOB.format(problems=problems, concurrency=8, modes='{ kind = "specreason" }'))
        command = on_ray(nodes, path, servers, run, "--workers", str(RAY_WORKERS), "--resume")
        solves = run / "solves.jsonl"
        process = start(*command, quiet=True)
        for victim in lots.choices(("worker", "node", "driver"), k=times):
            if lots.random() < HASTY:
                hasty += len(nodes.workers()) < RAY_WORKERS
            else:
                _until_complete(nodes, process)
            _until_it_grows(solves, process)
            time.sleep(lots.uniform(0, 2))
            before = solves.read_bytes()
            if process.poll() is None:
                victims[victim] += 1
                if victim == "worker":
                    for one in lots.sample(there := nodes.workers(), min(1, len(there))):
                        os.kill(one, signal.SIGKILL)
                elif victim == "node":
                    kill(nodes.started.pop())
                    nodes.another()
                else:
                    process.kill()
                    left += not holds(lambda: not nodes.workers(), 20)
                    left += not holds(lambda: not any(server.in_flight for server in servers), 20)
            if process.poll() is not None:
                process.wait()
                finished += process.returncode == 0
                lost += not solves.read_bytes().startswith(before[: before.rfind(b"\n") + 1])
                process = start(*command, quiet=True)
        for server in servers:
            server.seconds = 0.0
        codes = [process.wait(), start(*command, quiet=True).wait()]
        whole = read_run(run)
        unlike = told(whole.records) != told(in_threads(path, servers, Path(scratch) / "threads"))
    return {
        "killed": dict(victims),
        "without_waiting_for_the_workers_that_the_last_one_cost": hasty,
        "problems": problems,
        "stored_solves_lost": lost,
        "kills_of_drivers_that_left_workers_or_requests": left,
        "ends_before_all_was_killed": finished,
        "exit_codes": codes,
        "unlike_threads": unlike,
        "errors": sorted({str(r.tally.error) for r in whole.records if r.tally.error}),
        "remarks": whole.remarks,
        "kept": codes[-1] == 0
        and len(whole.records) == len({r.key for r in whole.records}) == problems
        and not (lost or left or unlike or whole.remarks),
    }


def _until_complete(nodes: Nodes, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 60
    while len(nodes.workers()) < RAY_WORKERS and process.poll() is None and time.monotonic() < until:
        time.sleep(0.2)


def _until_it_grows(path: Path, process: subprocess.Popen[str]) -> None:
    begun = path.stat().st_size if path.exists() else 0
    holds(lambda: (path.exists() and path.stat().st_size > begun) or process.poll() is not None)


def server_kills(times: int, seed: int) -> dict[str, Any]:
    """Kill a random process of the real pair, the supervisor included, and count what outlives it."""
    lots = random.Random(seed)
    orphans = 0
    victims: Counter[str] = Counter()
    for _ in range(times):
        with tempfile.TemporaryDirectory() as scratch, _real(Path(scratch)) as real:
            time.sleep(lots.uniform(0, 1))
            members = group(real.pid)
            victim = lots.choice(members)
            victims["supervisor" if victim == real.pid else "server process"] += 1
            os.kill(victim, signal.SIGKILL)
            orphans += not holds(lambda: not group(real.pid), 10)
    return {"killed": dict(victims), "groups_with_orphans": orphans, "kept": not orphans}


def restarts(times: int, seed: int) -> dict[str, Any]:
    """Kill a random process of a pair that is kept up, but not its root, and see that it answers again as before."""
    lots = random.Random(seed)
    unlike = orphans = 0
    settings = Settings(temperature=0.0, top_p=1.0, budget=BUDGET, answer_tokens=64)
    for _ in range(times):
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["SPECREASON_HOME"] = scratch
            running, _ = pairs.up(pairs.embedded(BASE, SMALL))
            try:
                ends = Pair(
                    Endpoint(running.base.url, "base", api_key=running.base.api_key),
                    Endpoint(running.small.url, "small", api_key=running.small.api_key),
                )
                before = _answer(ends, settings)
                os.kill(lots.choice([one for one in group(running.pid) if one != running.pid]), signal.SIGKILL)
                unlike += _answer(ends, settings) != before or not holds(lambda: pairs.running() is not None, 60)
            finally:
                pairs.down()
            orphans += not holds(lambda: not group(running.pid), 10)  # noqa: B023
    return {
        "killed": times,
        "pairs_that_did_not_answer_as_before": unlike,
        "groups_with_orphans": orphans,
        "kept": not unlike and not orphans,
    }


def hostile(questions: int) -> dict[str, Any]:
    """Generated questions in every family of templates, on token ids, and solved by each transport on the real pair."""
    from test_hostile import check_judge, check_one_turn

    families = ["embedded", *TURNS]
    broken = 0
    for seed in range(questions):
        text = FINDS[seed] if seed < len(FINDS) else generated(seed)
        with suppressed(lambda: check_one_turn(families[seed % len(families)], text)) as failed:  # noqa: B023
            broken += failed
    drafts = questions // 20
    judged = 0
    for seed in range(drafts):
        with suppressed(lambda: check_judge([*TURNS][seed % len(TURNS)], generated(seed))) as failed:  # noqa: B023
            judged += failed
    solved = math.ceil(questions / 50)
    unlike = _unlike_by_transport([FINDS[n] if n < len(FINDS) else generated(n) for n in range(solved)])
    return {
        "questions": questions,
        "families": len(families),
        "questions_that_left_their_turn": broken,
        "drafts": drafts,
        "drafts_that_changed_the_frame": judged,
        "solved_by_each_transport": solved,
        "solved_otherwise_than_by_text": unlike,
        "kept": not broken and not judged and not any(unlike.values()),
    }


def _unlike_by_transport(questions: Sequence[str]) -> dict[str, int]:
    """How many questions have other calls, by tokens and texts, than when whole texts travel."""

    def calls(pair: Pair[Endpoint]) -> list[list[Any]]:
        settings = Settings(temperature=0.0, top_p=1.0, budget=192, answer_tokens=32)
        solved = [solve(Problem(id="", question=q), load_program("specreason"), pair, settings) for q in questions]
        return [
            [
                (event.kind, event.prompt_tokens, event.generated_tokens) if isinstance(event, CallMade) else event.text
                for event in record.events
                if isinstance(event, CallMade | StepDrafted | StepTaken)
            ]
            for record in solved
        ]  # fmt: skip

    with tempfile.TemporaryDirectory() as scratch, _real(Path(scratch)) as real:
        by_text = calls(real.endpoints("text"))
        ways: tuple[Transport, ...] = ("sessions", "ids")
        found = {way: calls(real.endpoints(way)) for way in ways}
    return {way: sum(map(operator.ne, by_text, those)) for way, those in found.items()}


@contextmanager
def suppressed(check: Callable[[], None]) -> Iterator[bool]:
    """Whether a check fails."""
    try:
        check()
    except AssertionError:
        yield True
    else:
        yield False


def limits(steps: int, questions: int) -> dict[str, Any]:
    """A trace of very many steps through everything that reads it, and questions up to and beyond the real context."""
    with tempfile.TemporaryDirectory() as scratch:
        written, quarter = (_long_trace(Path(scratch) / f"run-{count}", count) for count in (steps, steps // 4))
        run = str(Path(scratch) / f"run-{steps}")
        reading = {
            " ".join(command): _read_by(*command, *more, "--runs", scratch)
            for command, more in {
                ("replay",): [run],
                ("replay", "--export"): [str(Path(scratch) / "trace.html"), run],
                ("report",): [run],
                ("list",): [],
            }.items()
        }
    ends: Counter[str] = Counter()
    untold = 0
    with tempfile.TemporaryDirectory() as scratch, _real(Path(scratch)) as real:
        pair = real.endpoints()
        settings = Settings(temperature=0.0, top_p=1.0, budget=BUDGET, answer_tokens=64)
        before = _answer(pair, settings)
        began = time.monotonic()
        for number in range(questions):
            told = tale(number).question
            # In turn: near the end of the context, well inside of it, and far beyond.
            characters = (12_500 + 150 * number, 100 * number, MOST_CHARACTERS)[number % 3]
            asked = Problem(id=str(number), question=(f"{told} " * (1 + characters // len(told)))[:MOST_CHARACTERS])
            for program in ("specreason", "lookahead", "base_only", "small_only"):
                tally = solve(asked, load_program(program), pair, settings).tally
                ends["error" if tally.outcome == "failed" else str(tally.ended)] += 1
                untold += tally.outcome == "failed" and (not tally.error or "\n" in tally.error)
        seconds = time.monotonic() - began
        after = _answer(pair, settings)
    return {
        "steps": steps,
        "cpu_seconds": round(written, 1),
        "cpu_seconds_of_a_quarter_of_the_steps": round(quarter, 1),
        "reading": reading,
        "questions": questions,
        "seconds": round(seconds, 1),
        "ends": dict(ends),
        "failures_without_a_line": untold,
        "answer_changed_afterwards": before != after,
        "kept": not untold and before == after and ends.total() == 4 * questions
        and written < CUBIC * quarter and not any(one["exit"] for one in reading.values()),
    }  # fmt: skip


def long_chains(tokens: int, rounds: int, share: float, seed: int) -> dict[str, Any]:
    """The end of a long chain on tiny random models, behind faults: how much is computed again of what was computed."""
    made: list[CallMade] = []
    with rig.opened() as running:
        plans = Plan(seed, 0.0, LASTING), Plan(seed + 1, 0.0, LASTING)
        addresses = running.base, running.small
        base, small = (Proxy(one.url, plan, one.api_key) for one, plan in zip(addresses, plans, strict=True))
        with base, small:
            reader = Endpoint(base.url, "base", read_s=60)
            ends = Pair(reader, Endpoint(small.url, "small", read_s=60))
            schedule = schedules.built(tokens, lambda text: len(reader.tokens(text + DELIMITER)), steps=WINDOW)
            start = len(schedule.turns) - WINDOW
            schedules.run(ends, schedule, start, WINDOW, "sequential")  # the servers read the chain
            for plan in plans:
                plan.share = share
            for way in (way for _ in range(rounds) for way in schedules.OURS):
                events = schedules.run(ends, schedule, start, WINDOW, way)
                made += [event for event in events if isinstance(event, CallMade)]
    ways = Counter(call.transport for call in made)
    most = max(call.recomputed_tokens for call in made)
    return {
        "tokens": tokens,
        "calls": len(made),
        "ways": dict(ways),
        "injected": dict(sum((plan.injected for plan in plans), Counter[str]())),
        "retries": sum(call.retries for call in made),
        "most_recomputed": most,
        "most_computed": max(call.prompt_tokens - call.cached_tokens for call in made),
        "kept": most <= MOST_RECOMPUTED and ways["sessions"] > len(made) / 2,
    }


def _read_by(*arguments: str) -> dict[str, float]:
    """A command's exit code, and what it took: measured from a process that is small itself, as memory is inherited."""
    command = [sys.executable, "-c", MEASURE, sys.executable, "-m", "specreason_sgl", *arguments]
    told = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    found: dict[str, float] = json.loads(told.stdout)
    return found


class Forgetful(ScriptedBackend):
    """Neither keeps nor counts what it is asked, which over a long trace would take more than the trace itself."""

    def _next(self, prompt: str) -> Any:  # noqa: ARG002 - as it says
        self.prompts.clear()
        return super()._next("")

    def _meta(self, prompt: str) -> dict[str, Any]:  # noqa: ARG002 - as it says
        return super()._meta("")


def _long_trace(folder: Path, steps: int) -> float:
    """Store a scripted solve of so many steps, half of them regenerated; returns the CPU seconds that it took."""
    drafts = [Reply(f"Draft {number}: {LINE}", tokens=20) for number in range(steps)]
    base: list[Any] = []
    for number in range(steps):
        base += [9] if number % 2 else [0, Reply(f"Step {number}: {LINE}", tokens=20)]
    pair = Pair(Forgetful("base", [*base, Reply("\\boxed{4}", tokens=3)]), Forgetful("small", drafts))
    problem = Problem(id="long", question="What is 2 + 2?", answer="4")
    began = time.process_time()
    with writing(folder, RunConfig(created=datetime.now(UTC), program="specreason", pair="scripted")) as run:
        settings = Settings(budget=20 * steps)
        run.append(solve(problem, load_program("specreason"), pair, settings))
    return time.process_time() - began


def _answer(pair: Pair[Endpoint], settings: Settings) -> str | None:
    return solve(Problem(id="", question=tale(0).question), load_program("specreason"), pair, settings).tally.answer


def repeat(solves: int) -> dict[str, Any]:
    """The same solves twice, one at a time at temperature 0, each time on servers of their own."""
    what = make_job(solves, concurrency=1, budget=BUDGET, seed=7000, flush_cache=True, modes=[
        {"kind": "specreason"}, {"program": "lookahead"},
    ])  # fmt: skip
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        for place in ("first", "second"):
            with _real(Path(scratch)) as real:
                runs.append(execute(Path(scratch) / place, what, real.endpoints()))
    found = diff_runs(*runs)
    parted = Counter(f"{one.mode}: {one.what.rstrip('0123456789 ')}" for one in found.different)
    return {
        "solves": len(runs[0]),
        "the_same": found.same,
        "first_differences": dict(parted),
        # Drafting ahead makes calls to one model at the same time, and its runs say so.
        "kept": found.same + parted["lookahead: score of step"] == len(runs[0]),
    }


def decode(texts: int, seed: int) -> dict[str, Any]:
    """Greedy texts with and without drafted tokens: one at a time, by n-grams, without room, and in pieces."""
    texts = max(texts, CALLERS)  # fewer would have room
    told = [tale(800_000 + 1000 * seed + number).question for number in range(texts)]
    with tempfile.TemporaryDirectory() as scratch:
        logs = Path(scratch) / "logs"
        with pairs.launch(BASE, SMALL, logs, decode="small", beside=True) as running:
            plain, drafted = Drafting.of(running)
            alone = [plain.write(question) for question in told]
            found = {"small": [drafted.write(question) for question in told]}
            close = {"small": plain.parted(told, alone, found["small"])}
        for way, more in WAYS.items():
            if way == "ngram" and not any(map(shutil.which, COMPILERS)):
                continue
            drafts: Decode = "ngram" if way == "ngram" else "small"
            with pairs.launch(BASE, SMALL, logs, decode=drafts, beside=True, extra=more) as running:
                plain, drafted = Drafting.of(running)
                some = told[: max(CALLERS, math.ceil(texts / 4))]
                with ThreadPoolExecutor(1 if way == "ngram" else CALLERS) as callers:
                    found[way] = list(callers.map(drafted.write, some))
                close[way] = plain.parted(some, alone, found[way])
            if way == "no room":
                said = (logs / "decode.log").read_text(encoding="utf-8", errors="replace").count(RETRACTED)
    rounds = {way: sum(each.rounds for each in those) for way, those in found.items()}
    tokens = {way: sum(len(each.ids) for each in those) for way, those in found.items()}
    return {
        "texts": {way: len(those) for way, those in found.items()},
        "without_a_compiler": [way for way in WAYS if way not in found],
        "tokens": tokens,
        "tokens_a_round": {way: round(tokens[way] / rounds[way], 2) for way in found},
        "unlike": {way: len(those) for way, those in close.items()},
        "log_probability_by_which_the_two_differ_where_texts_part": close,
        "times_that_there_was_no_room": said,
        "kept": said > 0 and not any(apart > CLOSE for those in close.values() for apart in those),
    }


RETRACTED = "Retract requests"
CALLERS = 12
CLOSE = 0.2
"""Two tokens whose log-probabilities differ by no more may change places by rounding, which depends on what is computed
together."""
TIGHT = ("--max-total-tokens", "1600", "--schedule-conservativeness", "0.1")
WAYS: Mapping[str, tuple[str, ...]] = {
    "ngram": (),
    "no room": TIGHT,
    "pieces": ("--chunked-prefill-size", "32"),
    "no room, pieces": (*TIGHT, "--chunked-prefill-size", "32"),
}
"""The arguments of the servers, besides those of the pair."""


class _Text(NamedTuple):
    """What a server has written."""

    ids: list[int]
    rounds: int


class Drafting:
    """A server that writes greedily."""

    def __init__(self, address: pairs.Address) -> None:
        """Connect to it."""
        self._server = Endpoint(address.url, "base", api_key=address.api_key)

    @classmethod
    def of(cls, running: pairs.RunningPair) -> tuple[Drafting, Drafting]:
        """The plain server of a pair, and the one for which tokens are drafted."""
        assert running.decode
        return cls(running.base), cls(running.decode)

    def write(self, question: str) -> _Text:
        """Answer a question."""
        told = self._server.complete(self._server.chat.opening(question), {"temperature": 0, "max_new_tokens": BUDGET})
        return _Text(told["output_ids"], told["meta_info"].get("spec_verify_ct", 0))

    def parted(self, questions: Sequence[str], *both: Sequence[_Text]) -> list[float]:
        """For each text that is not the same: by how much this model prefers its own token where the two part."""
        found = []
        for question, one, other in zip(questions, *both, strict=False):
            if one.ids != other.ids:
                same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one.ids, other.ids, strict=False)))
                ids = [*self._server.tokens(self._server.chat.opening(question)), *one.ids[:same]]
                is_end = same in {len(one.ids), len(other.ids)}
                found.append(math.inf if is_end else self._preferred(ids, one.ids[same], other.ids[same]))
        return found

    def _preferred(self, behind: list[int], one: int, other: int) -> float:
        asked = {"sampling_params": {"temperature": 0, "max_new_tokens": 1}, "input_ids": behind}
        more = {"return_logprob": True, "token_ids_logprob": [one, other]}
        answer = self._server._link.post("/generate", {**asked, **more})
        told = [float(row[0]) for row in answer["meta_info"]["output_token_ids_logprobs"][0]]
        return round(abs(told[0] - told[1]), 3)


class _Call(NamedTuple):
    """What is kept of a call over half an hour, in which the client's memory is watched."""

    kind: str
    seconds: float
    tokens: int

    @property
    def for_a_token(self) -> float:
        return self.seconds / max(1, self.tokens)


class _Solve(NamedTuple):
    """Likewise of a solve."""

    seconds: float
    calls: list[_Call]

    def times_its_due(self, pace: Mapping[str, float]) -> float:
        """Its duration, for that of its calls at this pace: seconds for a token by kind of call."""
        return self.seconds / sum(pace[call.kind] * max(1, call.tokens) for call in self.calls)


def load_for(minutes: float, in_flight: int) -> dict[str, Any]:
    """So many solves in flight for so long on the real pair: memory, descriptors, the pace, and who had to wait."""
    told: list[dict[str, float]] = []
    rounds: list[list[_Solve]] = []
    failed = 0
    with tempfile.TemporaryDirectory() as scratch, _real(Path(scratch)) as real:
        pair = real.endpoints()
        began = time.monotonic()
        over = threading.Event()

        def watch() -> None:
            while not over.wait(5):
                row = {"s": time.monotonic() - began}
                for name, pid in (("client", os.getpid()), ("supervisor", real.pid)):
                    row[f"{name}_mib"], row[f"{name}_fds"] = footprint(pid)
                told.append(row)

        watcher = threading.Thread(target=watch)
        watcher.start()
        # Always the same problems, or rounds could not be compared; far more than the caches remember.
        what = make_job(8 * in_flight, concurrency=in_flight, budget=BUDGET, seed=9000)
        while time.monotonic() - began < 60 * minutes:
            records = execute(Path(scratch) / f"run-{len(rounds)}", what, pair)
            failed += sum(record.tally.outcome == "failed" for record in records)
            rounds.append([_solve(record) for record in records])
        over.set()
        watcher.join()
        seconds = time.monotonic() - began
    late = [row for row in told if row["s"] > seconds / 3]
    names = ("client_mib", "client_fds", "supervisor_mib", "supervisor_fds")
    ends = {name: (late[0][name], late[-1][name], max(row[name] for row in late)) for name in names} if late else {}
    by_round = [_by_kind(solves) for solves in rounds]
    pace = {kind: [_pace(calls[kind]) for calls in by_round] for kind in by_round[0]}
    solves = [solve for of_round in rounds for solve in of_round]
    calls = _by_kind(solves)
    usual = {kind: _pace(of) for kind, of in calls.items()}
    waited = [solve.times_its_due(usual) for solve in solves if solve.calls]
    slowest = {kind: _slowest(of) for kind, of in calls.items()}
    third = math.ceil(len(rounds) / 3)
    growth = {kind: median(of[-third:]) / median(of[:third]) for kind, of in pace.items()}
    return {
        "minutes": round(seconds / 60, 1),
        "in_flight": in_flight,
        "solves": len(solves),
        "failed": failed,
        "calls": sum(len(of) for of in calls.values()),
        "milliseconds_a_token_by_round": {kind: [round(1000 * s) for s in of] for kind, of in pace.items()},
        "last_third_of_the_rounds_against_the_first": {kind: round(ratio, 2) for kind, ratio in growth.items()},
        "times_its_due_the_median_solve_and_the_most": [round(one, 2) for one in (median(waited), max(waited))],
        "slowest_call": slowest,
        "after_a_third_at_the_end_and_most": ends,
        "threads_at_the_end": threading.active_count(),
        "kept": not failed
        and all(last <= 1.1 * first + 8 for first, last, _ in ends.values())
        and max(waited) < STARVED
        and max(call["times_the_median"] for call in slowest.values()) < STALLED
        and max(growth.values()) < 1.25,
    }


def _solve(record: SolveRecord) -> _Solve:
    made = [event for event in record.events if isinstance(event, CallMade)]
    return _Solve(record.tally.elapsed, [_Call(call.kind, call.wall_s, call.generated_tokens) for call in made])


def _by_kind(solves: Sequence[_Solve]) -> dict[str, list[_Call]]:
    calls = sorted((call for solve in solves for call in solve.calls), key=operator.attrgetter("kind"))
    return {kind: list(of_kind) for kind, of_kind in groupby(calls, key=operator.attrgetter("kind"))}


def _pace(calls: Sequence[_Call]) -> float:
    return median(call.for_a_token for call in calls)


def _slowest(calls: Sequence[_Call]) -> dict[str, float]:
    """The call that took longest for a token, and its length: a short one may have waited no longer than others."""
    worst = max(calls, key=operator.attrgetter("for_a_token"))
    return {
        "times_the_median": round(worst.for_a_token / _pace(calls), 1),
        "seconds": round(worst.seconds, 2),
        "tokens": worst.tokens,
        "seconds_of_the_median": round(median(call.seconds for call in calls), 2),
    }


def group(leader: int) -> list[int]:
    """The living processes of a process group."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            state, _, of = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(of) == leader and state != "Z":
                found.append(int(entry.name))
    return found


def job_toml(problems: int) -> str:
    """A job file over so many stories."""
    return (
        f'dataset = {{ name = "stories", limit = {problems}, seed = 5000 }}\nconcurrency = 4\nflush_cache = false\n'
        'modes = [{ kind = "specreason" }]\n'
    )


KINDS = (
    "load",
    "limits",
    "long",
    "repeat",
    "decode",
    "hostile",
    "kills",
    "ray",
    "servers",
    "restarts",
    "faults",
    "all",
)


def main() -> int:
    """Run what is asked for and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=KINDS)
    parser.add_argument("--scale", type=float, default=1.0, help="of the full numbers")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    scale, seed = given.scale, given.seed
    kinds: dict[str, Callable[[], dict[str, Any]]] = {
        # First what is measured against the clock.
        "load": lambda: load_for(30 * scale, 64),
        "limits": lambda: limits(round(10_000 * scale), math.ceil(18 * scale)),
        "long": lambda: long_chains(32_768, math.ceil(10 * scale), 0.05, seed),
        "repeat": lambda: repeat(math.ceil(50 * scale)),
        "decode": lambda: decode(math.ceil(200 * scale), seed),
        "hostile": lambda: hostile(round(10_000 * scale)),
        "kills": lambda: kills(round(50 * scale), seed),
        "ray": lambda: ray_kills(round(40 * scale), seed),
        "servers": lambda: server_kills(round(50 * scale), seed),
        "restarts": lambda: restarts(math.ceil(20 * scale), seed),
        "faults": lambda: faults(round(1000 * scale), 4, 0.05, round(20 * scale), seed),
    }
    kept = True
    for name in kinds if given.what == "all" else [given.what]:
        found = kinds[name]()
        kept &= found["kept"]
        sys.stdout.write(json.dumps({"soak": name, "scale": scale, **found}) + "\n")
        sys.stdout.flush()
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
