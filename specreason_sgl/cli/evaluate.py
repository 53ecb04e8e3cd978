"""``specreason eval``: a job of several modes over a dataset."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specreason_sgl.cli.packages import need
from specreason_sgl.cli.pair import ApiKey, BaseUrl, PairName, PairOptions, SmallUrl, ThinkingFormat, WaitForServer
from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.view.output import note, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from specreason_sgl.engine.endpoint import Endpoint
    from specreason_sgl.evaluation.job import Job
    from specreason_sgl.lang.solve import Pair
    from specreason_sgl.runs.store import Done, Problem, RunConfig

WHAT, RUN, OUTPUT = "What to run", "How to run it", "Output"
EMBEDDED_BUDGET = 1024
"""The thinking budget that fits into the context of the embedded pair."""
SAME = ("job", "programs", "problems", "models", "judge_version")
"""What must not have changed when a run goes on."""


def evaluate(
    job: Annotated[Path, typer.Argument(help="A job file, or the name of one that comes with the package")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The run folder [runs/TIME-JOB-...]", rich_help_panel=OUTPUT)
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only the first so many problems", rich_help_panel=WHAT)
    ] = None,
    problem_id: Annotated[
        list[str] | None, typer.Option("--problem-id", help="Only this problem; can be repeated", rich_help_panel=WHAT)
    ] = None,
    modes: Annotated[
        str | None, typer.Option("--modes", help="Only these modes, separated by commas", rich_help_panel=WHAT)
    ] = None,
    repeats: Annotated[
        int | None, typer.Option("--repeats", min=1, help="Solves of each problem in each mode", rich_help_panel=WHAT)
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Of all sampling", rich_help_panel=WHAT)] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other value of the job, such as settings.budget=8192",
            rich_help_panel=WHAT,
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            min=1,
            help="Solves at the same time; 1 measures latency, more throughput",
            rich_help_panel=RUN,
        ),
    ] = None,
    fail_on_error: Annotated[
        float | None,
        typer.Option(
            "--fail-on-error",
            min=0,
            help="Stop when more solves fail: a share below 1, else a count",
            rich_help_panel=RUN,
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out", rich_help_panel=RUN)] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved job and the number of solves", rich_help_panel=RUN)
    ] = False,
    pair: PairName = None,
    base: BaseUrl = None,
    small: SmallUrl = None,
    decode: Annotated[
        str | None,
        typer.Option(
            "--decode",
            metavar="URL",
            help="Server of the base model with speculative decoding on",
            rich_help_panel="Pair",
        ),
    ] = None,
    api_key: ApiKey = None,
    wait_for_server: WaitForServer = None,
    thinking: ThinkingFormat = None,
    display: Annotated[
        str,
        typer.Option(
            "--display",
            envvar="SPECREASON_DISPLAY",
            help="`auto`, `rich`, `plain`, `json` or `none`",
            rich_help_panel=OUTPUT,
        ),
    ] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output", rich_help_panel=OUTPUT)] = False,
) -> None:
    """Run every mode of a job on the same problems, and compare them."""
    from specreason_sgl.evaluation.datasets import load
    from specreason_sgl.tables import parse_override

    given = {
        "dataset.limit": limit,
        "dataset.ids": problem_id or None,
        "repeats": repeats,
        "seed": seed,
        "concurrency": concurrency,
        "pair.pair": pair,
        "pair.base": base,
        "pair.small": small,
        "pair.decode": decode,
        "pair.wait_for_server_s": wait_for_server,
        "pair.thinking": thinking,
    }
    overrides = dict(map(parse_override, override or ()))
    overrides |= {name: value for name, value in given.items() if value is not None}
    resolved = _resolve(job, overrides, modes)
    if resume and out is None:
        raise UsageError("`--resume` needs the run folder", hint="name it with `--out`")
    problems = load(resolved.dataset)
    if dry_run:
        say(_plan(resolved, problems, as_json=json))
        return
    _tell_of_code(resolved)
    raise typer.Exit(
        _run(
            resolved,
            problems,
            _options(resolved, api_key),
            folder=out,
            resume=resume,
            fail_on_error=fail_on_error,
            display="none" if json and display == "auto" else display,
            as_json=json,
        )
    )


def _options(job: Job, api_key: str | None) -> PairOptions:
    return PairOptions(
        job.pair.pair,
        job.pair.base,
        job.pair.small,
        api_key,
        wait_for_server_s=job.pair.wait_for_server_s,
        call_limit_s=job.pair.call_limit_s or job.problem_limit_s,
        thinking=job.pair.thinking,
    )


def _resolve(path: Path, overrides: dict[str, Any], modes: str | None) -> Job:
    from specreason_sgl.evaluation.job import read_job

    job = read_job(path, overrides)
    kept_up = PairOptions(job.pair.pair, job.pair.base, job.pair.small).or_kept_up()
    job = job.model_copy(
        update={"pair": job.pair.model_copy(update={"base": kept_up.base, "small": kept_up.small})},
    )
    if modes:
        job = job.only([name.strip() for name in modes.split(",") if name.strip()])
    if job.pair.decode is None and (without := [mode.name for mode in job.modes if mode.decodes]):
        kept = [mode.name for mode in job.modes if not mode.decodes]
        note(f"without `--decode URL` there is no {', '.join(f'`{name}`' for name in without)}")
        job = job.only(kept)
    if job.pair.pair is None and (job.pair.base or job.pair.small or job.pair.decode):
        return job
    # What does not fit into the embedded pair's context is cut; that decides the measurement, so it is in the job.
    fitted = [
        mode.model_copy(
            update={"settings": mode.settings.model_copy(update={"budget": min(mode.settings.budget, EMBEDDED_BUDGET)})}
        )
        for mode in job.modes
    ]
    return job.model_copy(update={"modes": tuple(fitted)})


def _tell_of_code(job: Job) -> None:
    """Say which files a job has run that did not come with the package: a job may be somebody else's."""
    from specreason_sgl.lang.loading import find, is_stock

    for path in dict.fromkeys(find(mode.program) for mode in job.modes):
        if not is_stock(path):
            note(f"this job runs the code in `{path}`")


def _plan(job: Job, problems: Sequence[Problem], *, as_json: bool) -> str:
    from json import dumps

    solves, told = len(problems) * job.repeats * len(job.modes), job.model_dump(mode="json")
    if as_json:
        return dumps({"job": told, "problems": len(problems), "solves": solves}, indent=2)
    return (
        f"{dumps(told, indent=2, ensure_ascii=False)}\n"
        f"{len(problems)} problems x {job.repeats} repeats x {len(job.modes)} modes = {solves} solves"
    )


def _run(
    job: Job,
    problems: Sequence[Problem],
    options: PairOptions,
    *,
    folder: Path | None,
    resume: bool,
    fail_on_error: float | None,
    display: str,
    as_json: bool,
) -> int:
    import os
    from typing import cast

    from specreason_sgl.cli.listing import tell_remarks
    from specreason_sgl.cli.pair import open_pair
    from specreason_sgl.evaluation.grading import Grader
    from specreason_sgl.evaluation.modes import fitting
    from specreason_sgl.lang.loading import load as load_program
    from specreason_sgl.runs.store import RunWriter, closing, new_folder
    from specreason_sgl.view.display import DisplayMode, choose, console, is_screen, open_batch_display

    need("sglang", *(["math_verify"] if job.dataset.graded == "math" else []))
    shown = choose(cast("DisplayMode", display), stdout_isatty=is_screen(sys.stderr), env=os.environ)
    folder = folder or new_folder(Path(os.environ.get("SPECREASON_RUNS") or "runs"), job.name)
    with ExitStack() as stack:
        with console(sys.stderr).status("connecting") as status:
            pair = stack.enter_context(open_pair(options, status.update))
        from specreason_sgl.evaluation import runner as runners

        decode = _decoding(job.pair.decode, options, pair)
        asked = job
        if job.concurrency is None:
            infos = [server.server_info() for server in (pair.base, pair.small, decode) if server is not None]
            job = job.model_copy(update={"concurrency": fitting(infos, job)})
        config = job_config(asked, problems, options, pair, decode, job.concurrency)
        done: list[Done] = []
        if resume:
            writer, done = RunWriter.resume(folder, config, SAME, runners.done, runners.known)
        else:
            writer = RunWriter(folder, config)
        stack.enter_context(closing(writer))
        tell_remarks(writer)
        grader = stack.enter_context(Grader(job.dataset.graded, workers=min(4, job.concurrency or 1)))
        total = len(job.modes) * len(problems) * job.repeats
        stream = sys.stdout if shown == "json" else sys.stderr
        sink = stack.enter_context(open_batch_display(shown, total, title=job.name, earlier=done, stream=stream))
        for server in (pair.base, pair.small, decode):
            if server is not None:
                server.patience.say = sink.notice
        runner = runners.Runner(job, problems, pair, writer, grader, sink, decode=decode, fail_on_error=fail_on_error)
        try:
            if len(done) < total and pair.base and pair.small:
                runner.warm_up(load_program("specreason"))
            ended = runner.run(done)
        except (KeyboardInterrupt, SpecReasonError):
            stack.callback(say, f"hint: the same command with `--out {folder} --resume` goes on from here", err=True)
            raise
    _tell(folder, as_json=as_json, quiet=shown == "json")
    failed = sum(one.tally.outcome == "failed" for one in ended)
    if failed:
        note(f"{failed} of {len(ended)} solves failed; their rows say why")
    return 1 if failed and fail_on_error is None else 0


def job_config(
    job: Job, problems: Sequence[Problem], options: PairOptions, pair: Any, decode: Any, concurrency: int | None
) -> RunConfig:
    """Everything that is stored of a job before it runs.

    Args:
        job: as it was asked for.
        problems: on what.
        options: which servers were asked for.
        pair: the servers.
        decode: the base model's server with speculative decoding.
        concurrency: of the run, asked for or fitted to the servers.
    """
    import hashlib
    from datetime import UTC, datetime

    from specreason_sgl.cli.session import are_deterministic, command_line, describe, judge_version, versions
    from specreason_sgl.evaluation.modes import load_programs, program_digests
    from specreason_sgl.lang.solve import Pair
    from specreason_sgl.runs.diff import repeatability
    from specreason_sgl.runs.store import RunConfig
    from specreason_sgl.servers.hardware import hardware

    servers = describe(pair)
    programs = load_programs(job.modes).values()
    if decode is not None:
        servers["decode"] = describe(Pair(decode, None))["base"]
    # As the first version knew problems, so that its runs go on.
    text = "\n".join(each.model_dump_json(exclude=None if each.choice else {"choice"}) for each in problems)
    return RunConfig.model_validate(
        {
            "created": datetime.now(UTC),
            "program": job.name,
            "pair": options.label,
            "settings": job.settings.model_dump(),
            "versions": versions(),
            "servers": servers,
            "judge_version": judge_version(pair),
            "repeatability": repeatability(
                temperature=max(mode.settings.temperature for mode in job.modes),
                concurrency=concurrency,
                deterministic=are_deterministic(servers),
                overlapping=any(program.overlaps for program in programs),
                timed=any(mode.settings.back_off for mode in job.modes),
                stock=all(program.is_stock for program in programs),
            ),
            "concurrency": [concurrency] if concurrency else [],
            "command": command_line(sys.argv[1:]),
            "job": job.model_dump(mode="json", exclude={"pair"}),
            "programs": program_digests(job.modes),
            "problems": hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16],
            "models": {role: told.get("model_path") for role, told in servers.items()},
            "hardware": hardware(),
        }
    )


def _decoding(url: str | None, options: PairOptions, pair: Pair) -> Endpoint | None:
    """The base model's server with speculative decoding, as patient as the others."""
    from specreason_sgl.engine.endpoint import READ_S, Endpoint
    from specreason_sgl.servers.pairs import key_of

    if url is None:
        return None
    known = (server.patience for server in (pair.base, pair.small) if server is not None)
    return Endpoint(
        url,
        "base",
        api_key=options.api_key or key_of(url),
        read_s=options.call_limit_s or READ_S,
        patience=next(known, None),
        thinking=options.thinks("base"),
    )


def _tell(folder: Path, *, as_json: bool, quiet: bool) -> None:
    """The report, and where the run is."""
    from specreason_sgl.cli.report import print_report
    from specreason_sgl.evaluation.report import as_json as figures
    from specreason_sgl.evaluation.report import report_run
    from specreason_sgl.runs.store import read_run

    made = report_run(read_run(folder))
    if as_json:
        from specreason_sgl.view.json_lines import json_line

        say(json_line(figures(made)))
    elif not quiet:
        print_report(made)
    say(f"run: {folder}", err=True)
    say(f"hint: `specreason report {folder}` shows this again", err=True)
