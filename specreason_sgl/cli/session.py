"""What `specreason run` does between its options and its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from specreason_sgl.api import opened, solve_into
from specreason_sgl.cli.listing import tell_remarks
from specreason_sgl.events import Noticed, SolveFailed
from specreason_sgl.lang.knobs import as_json, set_knobs
from specreason_sgl.lang.loading import load
from specreason_sgl.packages import need
from specreason_sgl.runs.provenance import command_line, versions
from specreason_sgl.runs.store import Problem, RunConfig, SolveRecord, new_folder, writing
from specreason_sgl.servers.opening import PairOptions
from specreason_sgl.settings import Settings
from specreason_sgl.view.display import choose, console, is_screen, open_display
from specreason_sgl.view.output import say


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
    need("sglang", "torch")
    mode = choose(display, stdout_isatty=is_screen(sys.stdout), env=os.environ)
    loaded = load(program)
    knobs = set_knobs(loaded.knobs, parameters, loaded.name)
    config = RunConfig(
        created=datetime.now(UTC),
        program=loaded.name,
        pair=options.label,
        settings=settings.model_dump(),
        parameters=as_json(knobs),
        versions=versions(),
        command=command_line(sys.argv[1:]),
    )
    folder = out or new_folder(Path(os.environ.get("SPECREASON_RUNS") or "runs"), loaded.name)
    with ExitStack() as stack:
        run = stack.enter_context(writing(folder, config))
        tell_remarks(run)
        with console(sys.stderr).status("connecting") as status:
            pair = stack.enter_context(opened(options, status.update, twice_ends_the_process=True))
        with open_display(mode, title=loaded.name) as sink:
            for server in pair:
                server.watch.say = lambda message: sink(Noticed(message=message))
            record = solve_into(run, config, problem, loaded, pair, settings, knobs, sink=sink, stream=mode == "rich")
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
