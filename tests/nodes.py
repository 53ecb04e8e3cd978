"""A real Ray cluster on this machine, whose nodes can be killed, and jobs for it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Self

from batches import ROOT, execute, holds
from faults import StoryServer

from specreason_sgl.embedded.stories import Story
from specreason_sgl.engine.backend import Endpoint
from specreason_sgl.evaluation.job import read_job
from specreason_sgl.events import StepTaken
from specreason_sgl.lang.pair import Pair
from specreason_sgl.runs.store import SolveRecord

JOB = """
dataset = {{ name = "stories", limit = {problems}, seed = 5000 }}
settings = {{ temperature = 0.0, top_p = 1.0, budget = 1024 }}
concurrency = {concurrency}
flush_cache = false
modes = [{modes}]
"""


class Nodes:
    """A Ray cluster whose nodes are sessions of this machine, with two CPUs each; workers have groups of their own."""

    def __init__(self) -> None:
        """Start nothing yet."""
        self.token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        """The environment of who may use the cluster."""
        self.folder = Path(mkdtemp(prefix="ray-", dir="/tmp"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"
        self.started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Start the first node, which the cluster needs, and a second one."""
        quick = json.dumps({"health_check_period_ms": 500, "health_check_failure_threshold": 3})
        first = ("--head", f"--port={self._port}", "--include-dashboard=false", f"--temp-dir={self.folder}")
        try:
            self._start(*first, f"--system-config={quick}")
            self.another()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what is left."""
        for node in reversed(self.started):
            kill(node)
        rmtree(self.folder, ignore_errors=True)

    def another(self) -> None:
        """Start a further node."""
        self._start(f"--address={self.address}")

    def workers(self, *nodes: subprocess.Popen[bytes]) -> list[int]:
        """The processes of our workers, on all nodes or on these."""
        sessions = {node.pid for node in nodes or self.started}
        return [pid for pid, session, title in processes() if session in sessions and title.startswith("ray::Worker")]

    def _start(self, *arguments: str) -> None:
        more = ("--num-cpus=2", "--object-store-memory=80000000", "--block")
        # What else needs the machine's memory is no reason for Ray to end a worker of a test.
        kept = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0"}
        node = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", *arguments, *more],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **self.token, "PYTHONPATH": str(ROOT), **kept},
            cwd=self.folder,
            start_new_session=True,
        )
        self.started.append(node)
        eventually(lambda: any(session == node.pid and "raylet" in title for _, session, title in processes()))


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something holds, which it has to; on a busy machine commands begin late."""
    assert holds(condition, 240)


def kill(node: subprocess.Popen[bytes]) -> None:
    """End a node as if its power was cut."""
    for pid in [pid for pid, session, _ in processes() if session == node.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    node.wait()


def processes() -> Iterator[tuple[int, int, str]]:
    """The living processes: id, session and command."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            title = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if state != "Z":
            yield int(entry.name), int(session), title


@contextmanager
def served(stories: Sequence[Story], seconds: float = 0.0) -> Iterator[list[StoryServer]]:
    """A base and a small model that know these stories."""
    with (
        StoryServer("base", stories, seconds=seconds) as base,
        StoryServer("small", stories, skill=0.7, seconds=seconds) as small,
    ):
        yield [base, small]


def on_ray(nodes: Nodes, job: Path, servers: Sequence[StoryServer], run: Path, *more: str) -> list[str]:
    """The arguments of a job on the cluster."""
    base, small = (server.url for server in servers)
    where = ("--base", base, "--small", small, "--out", str(run), "--display", "plain")
    return ["eval", str(job), *where, "--executor", "ray", "--address", nodes.address, *more]


def in_threads(job: Path, servers: Sequence[StoryServer], run: Path) -> list[SolveRecord]:
    """The same job in threads of this process."""
    base, small = (Endpoint(server.url, role) for server, role in zip(servers, ("base", "small"), strict=True))
    return execute(run, read_job(job), Pair(base, small))


def told(records: Sequence[SolveRecord]) -> dict[str, tuple[object, ...]]:
    """What solves say and what they cost in tokens, by their keys."""
    return {
        r.key: (
            r.tally.answer,
            r.seed,
            [e.text for e in r.events if isinstance(e, StepTaken)],
            sorted(r.tally.generated.items()),
            sorted(r.tally.calls.items()),
        )
        for r in records
    }
