"""Batches over stories, in this process and as commands, for the tests of what interrupts them."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from specreason_sgl.cli import app
from specreason_sgl.embedded.stories import story
from specreason_sgl.evaluation.datasets import load
from specreason_sgl.evaluation.fleet import Fleet
from specreason_sgl.evaluation.grading import Grader
from specreason_sgl.evaluation.job import Job
from specreason_sgl.evaluation.modes import Server
from specreason_sgl.evaluation.runner import Runner, done
from specreason_sgl.lang.pair import Pair
from specreason_sgl.runs.store import RunConfig, RunWriter, SolveRecord, closing, read_run
from specreason_sgl.view.batch_sinks import SilentBatch

ROOT = Path(__file__).parents[1]
LONGEST = max(map(story, range(20040, 20140)), key=lambda told: len(told.steps))
"""A story that takes a while, for what is to happen before it is solved."""


def make_job(problems: int, *, concurrency: int = 4, budget: int = 1024, seed: int = 0, **fields: object) -> Job:
    """SpecReason on stories at temperature 0."""
    row = {
        "name": "batch",
        "dataset": {"name": "stories", "limit": problems, "seed": seed},
        "concurrency": concurrency,
        "settings": {"temperature": 0.0, "top_p": 1.0, "budget": budget},
        "modes": [{"kind": "specreason"}],
        "flush_cache": False,
    }
    return Job.model_validate(row | fields)


def execute(folder: Path, job: Job, pair: Pair[Server]) -> list[SolveRecord]:
    """Run a job, or go on with it."""
    config = RunConfig(created=datetime.now(UTC), program=job.name, pair="tests")
    writer, earlier = RunWriter.resume(folder, config, (), done)
    with closing(writer), Grader("exact") as grader:
        Runner(job, load(job.dataset), Fleet({"": pair}), writer, grader, SilentBatch()).run(earlier)
    return read_run(folder).records


def start(*arguments: str, quiet: bool = False) -> subprocess.Popen[str]:
    """The command line of this checkout in a process of its own; what it says is for `communicate`, if not quiet."""
    told = subprocess.DEVNULL if quiet else subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-m", "specreason_sgl", *arguments],
        stdout=told,
        stderr=told,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def carry_out(monkeypatch: pytest.MonkeyPatch, *arguments: str, stdin: bytes = b"") -> int:
    """The command line in this process, which has imported already what takes another one seconds."""
    monkeypatch.setattr(sys, "argv", ["specreason", *arguments])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    return app.main()


def stored_lines(folder: Path) -> int:
    """How many solves are stored."""
    path = folder / "solves.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def footprint(pid: int) -> tuple[float, int]:
    """Resident memory in MiB, and open descriptors, of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - names are all that is wanted
    return round(pages * resource.getpagesize() / 2**20, 1), descriptors


def holds(condition: Callable[[], bool], limit_s: float = 60) -> bool:
    """Wait until something holds; returns whether it ever does."""
    until = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something holds, which it has to."""
    assert holds(condition)
