"""``specreason audit``: how far the judge can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from specreason_sgl.cli.listing import RUNS, RunsFolder, SomeRuns, tell_remarks
from specreason_sgl.cli.options import ApiKey, BaseUrl, PairName, SmallUrl
from specreason_sgl.errors import UsageError
from specreason_sgl.servers.opening import PairOptions
from specreason_sgl.view.output import note, say

if TYPE_CHECKING:
    from specreason_sgl.evaluation.audit import Audit, Judged
    from specreason_sgl.runs.store import SolveRecord


def audit(
    run: SomeRuns = None,
    mode: Annotated[str | None, typer.Option("--mode", help="Only this mode's verdicts")] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            "--truth", help="A draft is right by its `steps` (stories, tales) or by the `answers` of its solution"
        ),
    ] = None,
    own: Annotated[
        int,
        typer.Option("--own", min=0, help="Also judge the base model's own steps of so many solves; calls the servers"),
    ] = 0,
    flatter: Annotated[
        int,
        typer.Option(
            "--flatter", min=0, help="Also judge so many wrong drafts with praise added to them; calls the servers"
        ),
    ] = 0,
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Score at which such steps are accepted [7, or the file's]")
    ] = None,
    score: Annotated[
        str,
        typer.Option(
            "--score",
            help="Which score is compared with it: `expected`, `greedy`, or a file of `specreason calibrate`",
        ),
    ] = "greedy",
    pair: PairName = None,
    base: BaseUrl = None,
    small: SmallUrl = None,
    api_key: ApiKey = None,
    json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output")] = False,
    runs: RunsFolder = RUNS,
) -> None:
    """Compare the judge's scores with the truth: AUROC, calibration, stability, and the base model's own steps."""
    from specreason_sgl.evaluation import audit as audits
    from specreason_sgl.runs import index as shelf
    from specreason_sgl.runs.store import read_run
    from specreason_sgl.settings import Settings
    from specreason_sgl.text.score_file import rule_given

    known = next((name for name in ("steps", "answers") if name == truth), None)
    if truth is not None and known is None:
        raise UsageError(f"there is no truth `{truth}`", hint="use `steps` or `answers`")
    rule, certified = rule_given(score)
    stored = [read_run(shelf.find(name, runs)) for name in run or ["latest"]]
    for each in stored:
        tell_remarks(each)
    records = [record for each in stored for record in each.records]
    judging = audits.judging_modes(records)
    if not judging or mode not in (None, *judging):
        raise UsageError("no drafts that a judge has scored are stored there", hint="audit a run of `specreason eval`")
    chosen = mode or judging[0]
    if mode is None and len(judging) > 1:
        note(f"this is about `{chosen}`; `--mode` can be {', '.join(judging)}")
    judged, meant, left_out = audits.collect(
        (record for record in records if record.mode == chosen), "steps" if known == "steps" else known and "answers"
    )
    if not judged:
        raise UsageError(
            "the truth about these drafts is not known",
            hint="they need problems with known answers, and a known threshold",
        )
    verdicts: list[Judged] = []
    flattery = None
    if own or flatter:
        from specreason_sgl.lang.scope import Scope
        from specreason_sgl.lang.solve import model_in
        from specreason_sgl.lang.stopping import stoppable
        from specreason_sgl.servers.opening import open_pair

        if flatter and meant != "steps":
            raise UsageError(
                "which drafts are wrong is not known", hint="`--flatter` needs a run on `stories` or `tales`"
            )
        settings = Settings.model_validate({})
        alone = _alone(records, own)
        options = PairOptions(pair, base, small, api_key).or_kept_up()
        scope = Scope()
        with stoppable(scope), open_pair(options, lambda line: say(line, err=True), scope) as servers:
            accepted_at = next(each for each in (threshold, certified, 7.0) if each is not None)
            asked = model_in(servers.models, "base"), settings, accepted_at, rule
            verdicts = [verdict for record in alone for verdict in audits.judge_own_steps(record, *asked)]
            some = [record for record in records if record.mode == chosen] if flatter else []
            flattery = audits.flatter(some, flatter, *asked)
    made = audits.audit(judged, meant, left_out=left_out, own=verdicts, flattery=flattery)
    if json:
        from specreason_sgl.view.json_lines import json_line

        say(json_line(made.model_dump(mode="json")))
    else:
        _print(made)


def _alone(records: list[SolveRecord], most: int) -> list[SolveRecord]:
    """Solves of the base model alone."""
    alone = [record for record in records if record.tally.kept["base"] and not record.tally.judged][:most]
    if most and not alone:
        raise UsageError("no solves of the base model alone are stored there", hint="they come from a `base` mode")
    return alone


def _print(made: Audit) -> None:
    from specreason_sgl.evaluation.report import audit_tables as tables
    from specreason_sgl.evaluation.report import rendered
    from specreason_sgl.view.display import console

    paper = console()
    for table in tables(made):
        for part in rendered(table):
            paper.print(part)
