"""``specreason eval``: a job of several modes over a dataset."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, ExitStack
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specreason_sgl.cli.hours import expected, print_hours
from specreason_sgl.cli.options import (
    ApiKey,
    BaseUrl,
    Models,
    PairName,
    Servers,
    SmallUrl,
    ThinkingFormat,
    TransportName,
    WaitForServer,
    named_models,
)
from specreason_sgl.errors import SpecReasonError, UsageError
from specreason_sgl.packages import need
from specreason_sgl.servers.opening import PairOptions
from specreason_sgl.view.output import note, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from specreason_sgl.engine.backend import Endpoint
    from specreason_sgl.evaluation.executors import Wanted
    from specreason_sgl.evaluation.job import Job
    from specreason_sgl.lang.pair import Pair
    from specreason_sgl.measure.hours import Hours
    from specreason_sgl.runs.store import Done, Problem, RunWriter
    from specreason_sgl.servers.several import NamedPair
    from specreason_sgl.view.batch_sinks import BatchSink

NAMED = 3
"""The most pairs whose names are told."""
WHAT, RUN, OUTPUT = "What to run", "How to run it", "Output"


def evaluate(
    job: Annotated[Path, typer.Argument(help="A job file, or the name of one that comes with the package")],
    out: Annotated[
        Path | None, typer.Option("--out", help="The run folder [runs/TIME-JOB-...]", rich_help_panel=OUTPUT)
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="The dataset, where the job leaves it open", rich_help_panel=WHAT)
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
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of all sampling", rich_help_panel=WHAT)] = None,
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
    executor: Annotated[
        str,
        typer.Option(
            "--executor",
            metavar="NAME",
            help="Who carries solves out: `threads` of this process, `processes` of this machine, or `ray`",
            rich_help_panel=RUN,
        ),
    ] = "threads",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, help="How many processes [one a core; with Ray one a node]", rich_help_panel=RUN
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="ADDRESS",
            help="The Ray cluster, `auto` for the one that this machine belongs to [a new one, on this machine]",
            rich_help_panel=RUN,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the resolved job, the number of solves, and how many problems show two points",
            rich_help_panel=RUN,
        ),
    ] = False,
    anyway: Annotated[
        bool,
        typer.Option("--anyway", help="Also solve what the servers have no room for", rich_help_panel=RUN),
    ] = False,
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="With --dry-run: the hours that the job will take", rich_help_panel=RUN),
    ] = False,
    costs: Annotated[
        Path | None,
        typer.Option(
            "--costs",
            metavar="FILE",
            help="With --estimate: from `bench --calibrate --out FILE` [measured on the servers]",
            rich_help_panel=RUN,
        ),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            "--like",
            metavar="RUN",
            help="With --estimate: a stored run whose solves were of that size [whole budgets]",
            rich_help_panel=RUN,
        ),
    ] = None,
    pair: PairName = None,
    base: BaseUrl = None,
    small: SmallUrl = None,
    model: Models = None,
    decode: Annotated[
        str | None,
        typer.Option(
            "--decode",
            metavar="WHO",
            help="A further server of the base model, which drafts tokens: its URL, or who drafts for the embedded"
            " pair, `small` or `ngram`",
            rich_help_panel="Pair",
        ),
    ] = None,
    servers: Servers = None,
    api_key: ApiKey = None,
    wait_for_server: WaitForServer = None,
    thinking: ThinkingFormat = None,
    transport: TransportName = None,
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
    from specreason_sgl.evaluation.executors import executor_named
    from specreason_sgl.servers.several import read_servers
    from specreason_sgl.tables import parse_override

    fleet = read_servers(servers) if servers else ()
    wanted = executor_named(executor, workers, address)
    given = {
        "dataset.name": dataset,
        "dataset.limit": limit,
        "dataset.ids": problem_id or None,
        "repeats": repeats,
        "seed": seed,
        "concurrency": concurrency,
        **_servers(pair, base, small, named_models(model, decode=decode), fleet[0] if fleet else None),
        "pair.wait_for_server_s": wait_for_server,
        "pair.thinking": thinking,
        "pair.transport": transport,
    }
    overrides = dict(map(parse_override, override or ()))
    overrides |= {name: value for name, value in given.items() if value is not None}
    resolved = _resolve(job, overrides, modes)
    if (estimate and not dry_run) or ((costs or like) and not estimate):
        raise UsageError(
            "hours are reckoned by `--dry-run --estimate`", hint="`--costs FILE` and `--like RUN` go with these two"
        )
    if resume and out is None:
        raise UsageError("`--resume` needs the run folder", hint="name it with `--out`")
    problems = load(resolved.dataset)
    from specreason_sgl.evaluation.job import resolved as with_knobs
    from specreason_sgl.evaluation.modes import check_roles, load_programs, outlines

    common = _options(resolved, api_key)
    options = [each.options(common) for each in fleet] or [common]
    for mode, one in product(resolved.modes, options):
        check_roles(mode, one.roles)
    if wanted.name == "ray":
        _hide_keys()
    if not dry_run:
        need("sglang", *(["math_verify"] if resolved.dataset.graded == "math" else []))
        _tell_of_code(resolved)
    resolved = with_knobs(resolved, outlines(resolved.modes) if dry_run else load_programs(resolved.modes))
    if dry_run:
        hours = expected(resolved, problems, options, costs, like) if estimate else None
        _tell_plan(resolved, problems, hours, as_json=json)
        return
    raise typer.Exit(
        _run(
            resolved,
            problems,
            options,
            wanted,
            folder=out,
            resume=resume,
            anyway=anyway,
            fail_on_error=fail_on_error,
            display="none" if json and display == "auto" else display,
            as_json=json,
        )
    )


def _servers(
    pair: str | None, base: str | None, small: str | None, models: Mapping[str, str], first: NamedPair | None
) -> dict[str, str | None]:
    """The servers that the options name, as fields of the job; of a file of many pairs, those of the first.

    Raises:
        UsageError: they are named by a file and by options.
    """
    if first and (pair or base or small or models):
        raise UsageError("`--servers` names all servers", hint="leave out `--pair`, `--base`, `--small` and `--model`")
    if first:
        pair, base, small, models = None, first.base, first.small, first.others
    urls = {f"pair.models.{role}": url for role, url in models.items()}
    return {"pair.pair": pair, "pair.base": base, "pair.small": small, **urls}


def _options(job: Job, api_key: str | None) -> PairOptions:
    from specreason_sgl.evaluation.job import DECODE

    return PairOptions(
        job.pair.pair,
        job.pair.base,
        job.pair.small,
        api_key,
        wait_for_server_s=job.pair.wait_for_server_s,
        call_limit_s=job.pair.call_limit_s or job.problem_limit_s,
        thinking=job.pair.thinking,
        transport=job.pair.transport,
        models={role: url for role, url in job.pair.models.items() if role != DECODE},
    ).drafting(job.pair.models.get(DECODE))


def _resolve(path: Path, overrides: dict[str, Any], modes: str | None) -> Job:
    from specreason_sgl.embedded import SETTINGS as EMBEDDED_SETTINGS
    from specreason_sgl.evaluation.job import DECODE, read_job

    def defaults(pair: Mapping[str, Any]) -> Mapping[str, Any]:
        named = PairOptions(pair.get("pair"), pair.get("base"), pair.get("small")).or_kept_up()
        return EMBEDDED_SETTINGS if named.is_embedded and not _elsewhere(pair.get("models") or {}) else {}

    job = read_job(path, overrides, defaults)
    kept_up = PairOptions(job.pair.pair, job.pair.base, job.pair.small).or_kept_up()
    job = job.model_copy(
        update={"pair": job.pair.model_copy(update={"base": kept_up.base, "small": kept_up.small})},
    )
    if modes:
        job = job.only([name.strip() for name in modes.split(",") if name.strip()])
    if DECODE not in job.pair.models and (without := [m.name for m in job.modes if DECODE in m.roles.values()]):
        note(f"without `--decode URL` there is no {', '.join(f'`{name}`' for name in without)}")
        job = job.only([mode.name for mode in job.modes if mode.name not in without])
    if job.pair.pair is None and (job.pair.base or job.pair.small or _elsewhere(job.pair.models)):
        return job
    # What does not fit into the embedded pair's context is cut; that decides the measurement, so it is in the job.
    fitted = [
        mode.model_copy(
            update={
                "settings": mode.settings.model_copy(
                    update={"budget": min(mode.settings.budget, EMBEDDED_SETTINGS["budget"])}
                )
            }
        )
        for mode in job.modes
    ]
    return job.model_copy(update={"modes": tuple(fitted)})


def _elsewhere(models: Mapping[str, str]) -> bool:
    """Whether there are servers beside the embedded pair's own."""
    return any("://" in url for url in models.values())


def _tell_of_code(job: Job) -> None:
    """Say which files a job has run that did not come with the package, since the job may not be the user's own."""
    from specreason_sgl.lang.loading import find, is_stock

    for path in dict.fromkeys(find(mode.program) for mode in job.modes):
        if not is_stock(path):
            note(f"this job runs the code in `{path}`")


def _tell_plan(job: Job, problems: Sequence[Problem], hours: Hours | None, *, as_json: bool) -> None:
    """Print what would be run, how many problems it takes to see a small difference, and how long it will take."""
    from json import dumps

    from specreason_sgl.evaluation import planning
    from specreason_sgl.evaluation.report import rendered
    from specreason_sgl.view.display import console

    solves, told = len(problems) * job.repeats * len(job.modes), job.model_dump(mode="json")
    plan = planning.plan(job, _runs())
    if as_json:
        power, estimate = plan.as_row(), {"estimate": hours.model_dump(mode="json")} if hours else {}
        told_all = {"job": told, "problems": len(problems), "solves": solves, "power": power, **estimate}
        say(dumps(told_all, indent=2))
        return
    say(dumps(told, indent=2, ensure_ascii=False))
    say(f"{len(problems)} problems x {job.repeats} repeats x {len(job.modes)} modes = {solves} solves")
    if plan.needs:
        paper = console()
        for part in rendered(planning.table(plan)):
            paper.print(part)
    if hours:
        print_hours(hours)


def _runs() -> Path:
    """The folder of the stored runs."""
    import os

    return Path(os.environ.get("SPECREASON_RUNS") or "runs")


def _run(
    job: Job,
    problems: Sequence[Problem],
    options: Sequence[PairOptions],
    wanted: Wanted,
    *,
    folder: Path | None,
    resume: bool,
    anyway: bool,
    fail_on_error: float | None,
    display: str,
    as_json: bool,
) -> int:
    import os
    from typing import cast

    from specreason_sgl.cli.listing import tell_remarks
    from specreason_sgl.lang.scope import Scope
    from specreason_sgl.lang.stopping import stoppable
    from specreason_sgl.runs.store import new_folder
    from specreason_sgl.servers.opening import open_pair
    from specreason_sgl.view.display import DisplayMode, choose, console, is_screen, open_batch_display

    shown = choose(cast("DisplayMode", display), stdout_isatty=is_screen(sys.stderr), env=os.environ)
    folder = folder or new_folder(_runs(), job.name)
    stream = sys.stdout if shown == "json" else sys.stderr

    begun = False

    def show(run: RunWriter, total: int, earlier: Sequence[Done]) -> AbstractContextManager[BatchSink]:
        nonlocal begun
        begun = True
        tell_remarks(run)
        return open_batch_display(shown, total, title=job.name, earlier=earlier, stream=stream)

    with ExitStack() as stack:
        stack.enter_context(stoppable(scope := Scope()))
        with console(sys.stderr).status("connecting") as status:
            names = [one.label for one in options] if len(options) > 1 else [""]
            pairs = {
                name: stack.enter_context(open_pair(one, status.update, scope))
                for name, one in zip(names, options, strict=True)
            }
        from specreason_sgl.evaluation.evaluating import carry_out

        try:
            ended = carry_out(
                job,
                problems,
                pairs,
                folder,
                show,
                label=_label(options),
                executor=wanted,
                options=_elsewhere_as(wanted, options, pairs),
                resume=resume,
                fail_on_error=fail_on_error,
                scope=scope,
                anyway=anyway,
                warn=note,
            )
        except (KeyboardInterrupt, SpecReasonError):
            if begun:
                stack.callback(
                    say, f"hint: the same command with `--out {folder} --resume` goes on from here", err=True
                )
            raise
    _tell(folder, as_json=as_json, quiet=shown == "json")
    failed = sum(one.tally.outcome == "failed" for one in ended)
    if failed:
        note(f"{failed} of {len(ended)} solves failed; their rows say why")
    return 1 if failed and fail_on_error is None else 0


def _elsewhere_as(
    wanted: Wanted, options: Sequence[PairOptions], pairs: Mapping[str, Pair[Endpoint]]
) -> dict[str, PairOptions] | None:
    """How other processes connect to the pairs; threads need nothing of it."""
    if wanted.name == "threads":
        return None
    return {name: one.open_as(pair) for one, (name, pair) in zip(options, pairs.items(), strict=True)}


def _hide_keys() -> None:
    """Take keys out of this process's title, which Ray shows to everybody who can see the cluster."""
    import shlex

    from specreason_sgl.runs.provenance import command_line

    if (shown := command_line(sys.argv[1:])) != sys.argv[1:]:
        from setproctitle import setproctitle

        setproctitle(shlex.join(["specreason", *shown]))


def _label(options: Sequence[PairOptions]) -> str:
    """What the run's pair or pairs are called."""
    if len(options) <= NAMED:
        return " + ".join(one.label for one in options)
    return f"{len(options)} pairs, {options[0].label} to {options[-1].label}"


def _tell(folder: Path, *, as_json: bool, quiet: bool) -> None:
    """Print the report and the path of the run."""
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
