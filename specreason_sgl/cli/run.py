"""``specreason run``: one question, live."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specreason_sgl.cli.options import (
    ApiKey,
    BaseUrl,
    Models,
    PairName,
    SmallUrl,
    ThinkingFormat,
    TransportName,
    WaitForServer,
    named_models,
)
from specreason_sgl.engine.transport import AUTO
from specreason_sgl.engine.watch import WAIT_S
from specreason_sgl.errors import UsageError
from specreason_sgl.servers.opening import PairOptions
from specreason_sgl.view.output import note

if TYPE_CHECKING:
    from collections.abc import Mapping

    from specreason_sgl.runs.store import Problem
    from specreason_sgl.settings import Settings

SAMPLE_SEED = 20148
"""The seed of the held-out story that is solved if no question is given."""

METHOD, SAMPLING, OUTPUT = "Method", "Sampling", "Output"


def run(
    question: Annotated[str | None, typer.Argument(help="The question, or `-` to read it from standard input")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="Read the question from a file")] = None,
    answer: Annotated[str | None, typer.Option("--answer", help="The right answer, graded as in `eval`")] = None,
    program: Annotated[
        str,
        typer.Option(
            "--program",
            help="A stock program's name, or a file of your own; its code is run, so give only files that you trust",
            rich_help_panel=METHOD,
        ),
    ] = "specreason",
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="Utility score at which a draft is accepted [7]", rich_help_panel=METHOD),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            "--score",
            help="What is compared with it: `greedy`, `expected`, or a file of `specreason calibrate` [greedy]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    first_n: Annotated[
        int | None,
        typer.Option("--first-n", help="First steps the base model writes itself [0]", rich_help_panel=METHOD),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            "--budget", help="Thinking tokens; 0 answers at once [embedded: 1024, else 8192]", rich_help_panel=METHOD
        ),
    ] = None,
    max_step_tokens: Annotated[
        int | None, typer.Option("--max-step-tokens", help="Longest step [512]", rich_help_panel=METHOD)
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            "--instruction",
            help="What the user's turn asks, with `{problem}` where the question belongs [the pair's]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            help="What the judge is asked about the last step; thresholds belong to it [the pair's]",
            rich_help_panel=METHOD,
        ),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            help="Another of the program's knobs: `name=value`; `specreason programs` lists them",
            rich_help_panel=METHOD,
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="[embedded: 0, else 0.6]", rich_help_panel=SAMPLING),
    ] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="[embedded: 1, else 0.95]", rich_help_panel=SAMPLING)
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Sampling seed", rich_help_panel=SAMPLING)] = None,
    pair: PairName = None,
    base: BaseUrl = None,
    small: SmallUrl = None,
    model: Models = None,
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
    out: Annotated[
        Path | None, typer.Option("--out", help="The run folder [runs/TIME-PROGRAM-...]", rich_help_panel=OUTPUT)
    ] = None,
) -> None:
    """Solve one question and watch it; without a question, a sample story."""
    from specreason_sgl.cli import session
    from specreason_sgl.embedded import SETTINGS as EMBEDDED_SETTINGS
    from specreason_sgl.tables import parse_override
    from specreason_sgl.text.score_file import with_score_read

    wait_s = WAIT_S if wait_for_server is None else wait_for_server
    options = PairOptions(
        pair,
        base,
        small,
        api_key,
        wait_for_server_s=wait_s,
        thinking=thinking,
        transport=transport or AUTO,
        models=named_models(model),
    )
    embedded = options.or_kept_up().is_embedded
    problem = _problem(question, file, answer, embedded=embedded)
    limits = {
        "budget": budget,
        "max_step_tokens": max_step_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "instruction": instruction,
        "judge": judge,
        "seed": seed,
    }
    settings = _settings(_given(limits), EMBEDDED_SETTINGS if embedded else {})
    knobs = _given({"threshold": threshold, "score": score, "first_n": first_n})
    knobs = with_score_read(knobs | dict(map(parse_override, parameter or ())))
    raise typer.Exit(
        session.solve_one(
            problem,
            program,
            options,
            settings,
            parameters=knobs,
            display="json" if json else display,
            out=out,
        )
    )


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _settings(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Settings:
    from pydantic import ValidationError

    from specreason_sgl.settings import Settings

    try:
        return Settings.model_validate({**defaults, **given})
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"`--{option}`: {message[0].lower()}{message[1:]}") from error


def _problem(question: str | None, file: Path | None, answer: str | None, *, embedded: bool) -> Problem:
    from specreason_sgl.files import read_input, read_text
    from specreason_sgl.runs.store import Problem

    if question is not None and file is not None:
        raise UsageError("a question and `--file` exclude each other")
    if file is not None:
        question = read_text(file)
    elif question == "-":
        question = read_input()
    if question is None:
        if not embedded:
            raise UsageError(
                "there is no question", hint='`specreason run "..."`, `--file FILE`, or `-` for standard input'
            )
        from specreason_sgl.embedded.tales import tale

        told = tale(SAMPLE_SEED)
        return Problem(id=f"tale-{SAMPLE_SEED}", question=told.question, answer=str(told.answer))
    if not question.strip():
        raise UsageError("the question is empty")
    if embedded:
        from specreason_sgl.embedded.known import hint

        if line := hint(question):
            note(line)
    return Problem(id="question", question=question, answer=answer)
