"""What the endpoint costs against `specreason eval`: ``python tests/serve_cost.py``, with nothing else running.

The same tales are solved by the runner of `eval` in this process and by clients of a `specreason serve` of its own
process, in turn, on the same two servers: first one at a time, with the ratio of each story's seconds, then many at
once, with the ratio of each round's throughput.

``--decode`` measures instead what drafted tokens bring where `serve` starts the embedded pair itself, in the same way:
by `--decode small`, against the default.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import numpy as np
from batches import execute, make_job

from specreason_sgl.api import OpenPair, opened
from specreason_sgl.embedded import BASE, SMALL
from specreason_sgl.embedded.tales import tale
from specreason_sgl.evaluation.datasets import load as load_problems
from specreason_sgl.evaluation.job import Job
from specreason_sgl.lang.loading import load
from specreason_sgl.lang.solving import solve
from specreason_sgl.runs.store import Problem
from specreason_sgl.servers import pairs
from specreason_sgl.servers.opening import PairOptions
from specreason_sgl.view.output import say

KEY = "a-key-for-measuring"
DRAWS = 10_000


@contextmanager
def endpoint(most: int, *more: str) -> Iterator[httpx.Client]:
    """A server of its own process, over the pair that is up or one of its own."""
    command = [sys.executable, "-m", "specreason_sgl", "serve", "--port", "0", "--api-key", KEY, "--running", str(most)]
    command += more
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = next(line.split()[1] for line in server.stdout if line.startswith("serve"))
        limits = httpx.Limits(max_connections=most)
        with httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=600, limits=limits, trust_env=False
        ) as client:
            yield client
        server.terminate()


def asked(client: httpx.Client, question: str, *, stream: bool) -> float:
    """The seconds of one request."""
    body = {"messages": [{"role": "user", "content": question}], "stream": stream, "specreason": {"answer_tokens": 512}}
    began = time.perf_counter()
    answer = client.post("chat/completions", json=body)
    assert answer.status_code == httpx.codes.OK, answer.text
    return time.perf_counter() - began


def ran(job: Job, pair: OpenPair, folder: Path) -> float:
    """The seconds of a run."""
    began = time.perf_counter()
    records = execute(folder, job, pair)
    assert all(record.tally.outcome == "answered" for record in records)
    return time.perf_counter() - began


def interval(ratios: list[float]) -> str:
    """The median of ratios and its 95 % interval, by bootstrap."""
    drawn = np.random.default_rng(0).choice(ratios, (DRAWS, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return f"{statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Measure, and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tales", type=int, default=48)
    options.add_argument("--clients", type=int, default=32)
    options.add_argument("--rounds", type=int, default=4)
    options.add_argument("--decode", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SPECREASON_HOME"] = scratch
        if given.decode:
            with endpoint(given.clients, "--decode", "small") as drafting, endpoint(given.clients) as plain:
                with_drafts(drafting, plain, given.tales, given.clients, given.rounds)
            return
        pairs.up(pairs.embedded(BASE, SMALL))
        try:
            with opened(PairOptions()) as pair, endpoint(given.clients) as client:
                one_at_a_time(pair, client, given.tales)
                side_by_side(pair, client, given.clients, given.rounds, Path(scratch))
        finally:
            pairs.down()


def forget(pair: OpenPair) -> None:
    """Empty the caches of both servers."""
    for server in pair:
        while True:
            try:
                server.flush_cache()
            except RuntimeError:
                time.sleep(0.1)
            else:
                break


def one_at_a_time(pair: OpenPair, client: httpx.Client, count: int) -> None:
    """The latency of every tale, both ways, whichever first in turn."""
    program, settings = load("specreason"), pair.settings({"answer_tokens": 512})
    ratios: dict[bool, list[float]] = {False: [], True: []}
    for number in range(count):
        question = tale(20200 + number).question
        times: dict[str, float] = {}

        def own(question: str = question) -> float:
            forget(pair)
            began = time.perf_counter()
            solve(Problem(id="x", question=question), program, pair, settings)
            return time.perf_counter() - began

        def served(*, stream: bool, question: str = question) -> float:
            forget(pair)
            return asked(client, question, stream=stream)

        ways: dict[str, Callable[[], float]] = {
            "own": own,
            "whole": partial(served, stream=False),
            "streamed": partial(served, stream=True),
        }
        names = list(ways)
        for place in range(3):
            name = names[(place + number) % 3]
            times[name] = ways[name]()
        ratios[False].append(times["whole"] / times["own"])
        ratios[True].append(times["streamed"] / times["own"])
    say(f"one at a time, {count} tales, seconds served / seconds of eval:")
    say(f"  whole     {interval(ratios[False])}")
    say(f"  streamed  {interval(ratios[True])}")


def side_by_side(pair: OpenPair, client: httpx.Client, clients: int, rounds: int, scratch: Path) -> None:
    """The throughput of both, in turn."""
    problems = 3 * clients
    ratios: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(rounds):
        job = make_job(problems, concurrency=clients, seed=turn)
        questions = [problem.question for problem in load_problems(job.dataset)]
        forget(pair)
        eval_s = ran(job, pair, scratch / f"run-{turn}")
        served_s = {}
        for stream in (False, True):
            forget(pair)
            with ThreadPoolExecutor(clients) as pool:
                began = time.perf_counter()
                list(pool.map(partial(asked, client, stream=stream), questions))
                served_s[stream] = time.perf_counter() - began
            ratios[stream].append(eval_s / served_s[stream])
        rates = ", ".join(f"{problems / each:.2f}" for each in (eval_s, *served_s.values()))
        say(f"  round {turn}: {rates} solves a second by eval, served whole, and streamed")
    say(f"{clients} at once, throughput served / throughput of eval:")
    say(f"  whole     {interval(ratios[False])}")
    say(f"  streamed  {interval(ratios[True])}")


def with_drafts(drafting: httpx.Client, plain: httpx.Client, count: int, clients: int, rounds: int) -> None:
    """Latency and throughput of two endpoints, whichever first in turn."""
    ways = (drafting, plain)
    asked(drafting, tale(20199).question, stream=False)
    asked(plain, tale(20199).question, stream=False)
    for at_once, turns, each in ((1, count, 1), (clients, rounds, 3 * clients)):
        ratios = []
        for turn in range(turns):
            questions = [tale(20200 + 1000 * at_once + each * turn + n).question for n in range(each)]
            took = {}
            for way in ways if turn % 2 else ways[::-1]:
                with ThreadPoolExecutor(at_once) as pool:
                    began = time.perf_counter()
                    list(pool.map(partial(asked, way, stream=False), questions))
                    took[way] = time.perf_counter() - began
            ratios.append(took[plain] / took[drafting])
        say(f"{at_once} at once, {turns * each} tales, seconds without drafted tokens / with: {interval(ratios)}")


if __name__ == "__main__":
    main()
