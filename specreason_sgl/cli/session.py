"""What `specreason run` does between its options and its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from platform import python_version
from typing import Any

from specreason_sgl.cli.listing import tell_remarks
from specreason_sgl.cli.packages import need
from specreason_sgl.cli.pair import PairOptions, open_pair
from specreason_sgl.evaluation.choice import is_choice
from specreason_sgl.evaluation.grading import Grader
from specreason_sgl.events import Event, Noticed, SolveEnded, SolveFailed
from specreason_sgl.lang.loading import find, load
from specreason_sgl.runs.diff import repeatability
from specreason_sgl.runs.store import Problem, RunConfig, SolveRecord, new_folder, writing
from specreason_sgl.settings import Settings
from specreason_sgl.view.display import choose, console, is_screen, open_display
from specreason_sgl.view.output import say

REPORTED = (
    "model_path",
    "served_model_name",
    "attention_backend",
    "dtype",
    "tp_size",
    "replicas",
    "context_length",
    "mem_fraction_static",
    "max_total_tokens",
    "speculative_algorithm",
    "enable_deterministic_inference",
    "version",
)


def command_line(arguments: Sequence[str]) -> list[str]:
    """A command's arguments as they may be stored and shown: without a key."""
    option, hidden = "--api-key", "***"
    return [
        hidden if before == option else f"{option}={hidden}" if each.startswith(f"{option}=") else each
        for before, each in pairwise(["", *arguments])
    ]


def versions() -> dict[str, str]:
    """The versions a run depends on."""
    found = {"python": python_version()}
    for package in ("specreason_sgl", "sglang", "torch", "flashinfer-python"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def describe(pair: Any) -> dict[str, Any]:
    """What the servers say of themselves, without their keys."""
    told = {}
    for endpoint in (pair.base, pair.small):
        if endpoint is not None:
            info = endpoint.server_info()
            told[endpoint.role] = {name: info[name] for name in REPORTED if info.get(name) is not None}
    return told


def judge_version(pair: Any) -> str | None:
    """The version of the words that a pair is asked in."""
    return next((one.chat.prompts.version for one in (pair.base, pair.small) if one is not None), None)


def are_deterministic(servers: dict[str, Any]) -> bool:
    """Whether all servers run with deterministic inference."""
    return bool(servers) and all(told.get("enable_deterministic_inference") for told in servers.values())


def solve_one(
    problem: Problem,
    program: str,
    options: PairOptions,
    settings: Settings,
    *,
    parameters: Mapping[str, Any],
    display: str,
    out: Path | None,
) -> int:
    """Solve a problem live, store it, and return the exit code."""
    need("sglang")
    mode = choose(display, stdout_isatty=is_screen(sys.stdout), env=os.environ)
    name = find(program).stem
    config = RunConfig(
        created=datetime.now(UTC),
        program=name,
        pair=options.label,
        settings=settings.model_dump(),
        parameters=dict(parameters),
        versions=versions(),
        command=command_line(sys.argv[1:]),
    )
    folder = out or new_folder(Path(os.environ.get("SPECREASON_RUNS") or "runs"), name)
    with ExitStack() as stack:
        run = stack.enter_context(writing(folder, config))
        tell_remarks(run)
        with console(sys.stderr).status("connecting") as status:
            pair = stack.enter_context(open_pair(options, status.update))
            loaded = load(program)
            servers = describe(pair)
            expected = repeatability(
                temperature=settings.temperature,
                concurrency=1,
                deterministic=are_deterministic(servers),
                overlapping=loaded.overlaps,
                timed=settings.back_off,
                stock=loaded.is_stock,
            )
            run.note_servers(
                config.model_copy(update={"repeatability": expected, "judge_version": judge_version(pair)}), servers
            )
        from specreason_sgl.lang.solve import solve

        grader = stack.enter_context(Grader("choice" if is_choice(problem.question, problem.answer) else "math"))
        with open_display(mode, title=loaded.name) as sink:

            def hear(event: Event) -> None:
                if not isinstance(event, SolveEnded):  # told when it is graded
                    sink(event)

            for server in (pair.base, pair.small):
                if server is not None:
                    server.patience.say = lambda message: sink(Noticed(message=message))
            record = solve(problem, loaded, pair, settings, sink=hear, stream=mode == "rich", parameters=parameters)
            record = grader.graded(record)
            sink(record.events[-1])
        run.append(record)
    if mode != "none":
        say(f"run: {folder}", err=True)
        say(f"hint: `specreason replay {folder}` shows it again", err=True)
    return exit_code(record)


def exit_code(record: SolveRecord) -> int:
    """0 for an answer that is right or cannot be checked, 1 for a wrong one or none, 3 for a lost server."""
    failed = [event for event in record.events if isinstance(event, SolveFailed)]
    if failed:
        return failed[-1].exit_code
    totals = record.tally
    return 0 if totals.answer is not None and totals.correct is not False else 1
