"""``specreason run``: one question, live."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from specreason_sgl.cli.pair import ApiKey, BaseUrl, PairName, PairOptions, SmallUrl, ThinkingFormat, WaitForServer
from specreason_sgl.engine.patience import WAIT_S
from specreason_sgl.errors import UsageError
from specreason_sgl.view.output import note

if TYPE_CHECKING:
    from specreason_sgl.runs.store import Problem
    from specreason_sgl.text.scoring import ScoreRule

SAMPLE_SEED = 20025
"""The held-out story that is solved when nobody asks anything."""

ONLY_STORIES = (
    "the embedded pair only knows quantity stories such as the sample that `specreason run` solves; "
    "for real questions name real models with `--base URL --small URL`"
)

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
        float, typer.Option("--threshold", help="Utility score at which a draft is accepted", rich_help_panel=METHOD)
    ] = 7.0,
    score: Annotated[
        str, typer.Option("--score", help="What is compared with it: `expected` or `greedy`", rich_help_panel=METHOD)
    ] = "expected",
    first_n: Annotated[
        int, typer.Option("--first-n", help="First steps the base model writes itself", rich_help_panel=METHOD)
    ] = 0,
    budget: Annotated[
        int | None, typer.Option("--budget", help="Thinking tokens [embedded: 1024, else 8192]", rich_help_panel=METHOD)
    ] = None,
    max_step_tokens: Annotated[
        int, typer.Option("--max-step-tokens", help="Longest step", rich_help_panel=METHOD)
    ] = 512,
    min_step_tokens: Annotated[
        int,
        typer.Option(
            "--min-step-tokens",
            help="Shorter drafts go on before they are judged; can cost accuracy",
            rich_help_panel=METHOD,
        ),
    ] = 0,
    back_off: Annotated[
        bool, typer.Option("--back-off", help="Pause drafting where it does not pay", rich_help_panel=METHOD)
    ] = False,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", help="One of the program's own: `name=value`", rich_help_panel=METHOD),
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
    out: Annotated[
        Path | None, typer.Option("--out", help="The run folder [runs/TIME-PROGRAM-...]", rich_help_panel=OUTPUT)
    ] = None,
) -> None:
    """Solve one question and watch it; without a question, a sample story."""
    from pydantic import ValidationError

    from specreason_sgl.cli import session
    from specreason_sgl.settings import Settings
    from specreason_sgl.tables import parse_override

    wait_s = WAIT_S if wait_for_server is None else wait_for_server
    options = PairOptions(pair, base, small, api_key, wait_for_server_s=wait_s, thinking=thinking).or_kept_up()
    embedded = options.is_embedded
    problem = _problem(question, file, answer, embedded=embedded)
    try:
        settings = Settings(
            threshold=threshold,
            score=cast("ScoreRule", score),
            first_n=first_n,
            budget=budget if budget is not None else (1024 if embedded else 8192),
            max_step_tokens=max_step_tokens,
            min_step_tokens=min_step_tokens,
            back_off=back_off,
            temperature=temperature if temperature is not None else (0.0 if embedded else 0.6),
            top_p=top_p if top_p is not None else (1.0 if embedded else 0.95),
            seed=seed,
        )
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"`--{option}`: {first['msg'].lower()}") from error
    raise typer.Exit(
        session.solve_one(
            problem,
            program,
            options,
            settings,
            parameters=dict(map(parse_override, parameter or ())),
            display="json" if json else display,
            out=out,
        )
    )


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
        from specreason_sgl.pair.stories import story

        told = story(SAMPLE_SEED)
        return Problem(id=f"story-{SAMPLE_SEED}", question=told.question, answer=str(told.answer))
    if not question.strip():
        raise UsageError("the question is empty")
    if embedded:
        note(ONLY_STORIES)
    return Problem(id="question", question=question, answer=answer)
