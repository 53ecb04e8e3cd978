"""What `specreason run` does between its options and its exit code."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specreason_sgl.cli.listing import tell_remarks
from specreason_sgl.errors import ServerUnreachable
from specreason_sgl.events import Event, Noticed, SolveEnded, SolveFailed, TextStreamed
from specreason_sgl.lang.loading import find, is_stock
from specreason_sgl.packages import identity, need
from specreason_sgl.runs.provenance import command_line, versions
from specreason_sgl.runs.store import Problem, RunConfig, SolveRecord, new_folder, writing
from specreason_sgl.servers.opening import PairOptions
from specreason_sgl.settings import Settings
from specreason_sgl.view.display import DisplayMode, choose, console, is_screen, open_display
from specreason_sgl.view.output import note, say

if TYPE_CHECKING:
    from specreason_sgl.serve.client import Client, Opened

OWN_PROGRAM = "a program of your own runs in this process, which has to import SGLang first: that takes some seconds"

OTHER_CODE = (
    "the endpoint of the pair that is up runs other code than this command, which does without it; "
    "`specreason down` and `specreason up` renew it"
)


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
    """Solve a problem live, store it, and return the exit code.

    The endpoint of the pair that is up carries it out if it would do the same as this process.
    """
    mode = choose(display, stdout_isatty=is_screen(sys.stdout), env=os.environ)
    path = find(program)
    folder = out or new_folder(Path(os.environ.get("SPECREASON_RUNS") or "runs"), path.stem)
    if client := _endpoint(options, path):
        record = _solve_there(client, problem, path.stem, settings, parameters, mode, folder)
    else:
        record = _solve_here(problem, program, options, settings, parameters, mode, folder)
    if mode != "none":
        say(f"run: {folder}", err=True)
        say(f"hint: `specreason replay {folder}` shows it again", err=True)
    return exit_code(record)


def _endpoint(options: PairOptions, program: Path) -> Client | None:
    """The endpoint of the pair that is up, if the options leave all to it, and it runs the same code as this process.

    Code that is not part of the package never runs in another process than the user's own.
    """
    from specreason_sgl.servers import pairs

    if options != PairOptions(options.pair, api_key=options.api_key):
        return None
    pair = pairs.kept()
    if pair is None or pair.serve is None or options.pair not in {None, pair.label}:
        return None
    if not is_stock(program):
        note(OWN_PROGRAM)
        return None
    from specreason_sgl.serve.client import Client

    client = Client(pair.serve.url, pair.serve.api_key)
    if (told := client.health()) is None:
        return None
    if told.get("identity") != identity():
        note(OTHER_CODE)
        return None
    return client


def _solve_there(
    client: Client,
    problem: Problem,
    program: str,
    settings: Settings,
    parameters: Mapping[str, Any],
    mode: DisplayMode,
    folder: Path,
) -> SolveRecord:
    from specreason_sgl.serve.client import order

    asked = order(problem, program, parameters, settings, stream=mode == "rich")
    with ExitStack() as stack:
        with console(sys.stderr).status("connecting"):
            opened, told = stack.enter_context(client.solve(asked))
        run = stack.enter_context(writing(folder, _config(opened)))
        tell_remarks(run)
        events = list[Event]()
        with open_display(mode, title=opened.program) as sink:
            for event in _whatever_happens(told):
                # Words that are no event of the solve have no time.
                if not isinstance(event, TextStreamed) and not (isinstance(event, Noticed) and not event.at):
                    events.append(event)
                sink(event)
        record = SolveRecord(
            problem=problem, mode=opened.program, seed=opened.seed, started=opened.started, events=events
        )
        run.append(record)
    return record


def _config(opened: Opened) -> RunConfig:
    return RunConfig(
        created=datetime.now(UTC),
        program=opened.program,
        pair=opened.pair,
        settings=opened.settings,
        parameters=opened.parameters,
        versions=opened.versions,
        servers=opened.servers,
        judge_version=opened.judge_version,
        prompts=opened.prompts,
        repeatability=opened.repeatability,
        command=command_line(sys.argv[1:]),
    )


def _whatever_happens(told: Iterator[Event]) -> Iterator[Event]:
    """The events of a solve; if the endpoint is lost, the solve has failed."""
    began = time.monotonic()
    try:
        yield from told
    except ServerUnreachable as error:
        at = round(time.monotonic() - began, 6)
        yield SolveFailed(at=at, error=str(error), hint=error.hint, exit_code=error.exit_code)
        yield SolveEnded(at=at, outcome="failed")


def _solve_here(
    problem: Problem,
    program: str,
    options: PairOptions,
    settings: Settings,
    parameters: Mapping[str, Any],
    mode: DisplayMode,
    folder: Path,
) -> SolveRecord:
    need("sglang", "torch")
    from specreason_sgl.api import opened, solve_into
    from specreason_sgl.lang.knobs import as_json, set_knobs
    from specreason_sgl.lang.loading import load

    options = options.or_kept_up()
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
    with ExitStack() as stack:
        run = stack.enter_context(writing(folder, config))
        tell_remarks(run)
        with console(sys.stderr).status("connecting") as status:
            pair = stack.enter_context(opened(options, status.update, twice_ends_the_process=True))
        with open_display(mode, title=loaded.name) as sink:
            for server in pair:
                server.watch.say = lambda message: sink(Noticed(message=message))
            return solve_into(run, config, problem, loaded, pair, settings, knobs, sink=sink, stream=mode == "rich")


def exit_code(record: SolveRecord) -> int:
    """0 for an answer that is right or cannot be checked, 1 for a wrong one or none; a failed solve has its error's."""
    failed = [event for event in record.events if isinstance(event, SolveFailed)]
    if failed:
        return failed[-1].exit_code
    totals = record.tally
    return 0 if totals.answer is not None and totals.correct is not False else 1
