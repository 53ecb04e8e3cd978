"""``specreason doctor``: whether this machine can serve a pair, and what to do if not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specreason_sgl.cli.options import ApiKey
from specreason_sgl.cli.trying import DECODE, MARKS, Plan, attempt
from specreason_sgl.errors import UsageError
from specreason_sgl.servers.opening import PairOptions
from specreason_sgl.view.output import say

if TYPE_CHECKING:
    from specreason_sgl.servers.gpu.doctor import Finding
    from specreason_sgl.servers.gpu.pairfile import PairSpec

UNFIT = 1
TRY = "Trying it out"


def doctor(
    pair: Annotated[
        str | None,
        typer.Option("--pair", help="What is to be served: `embedded`, a stock pair or a TOML file"),
    ] = None,
    base: Annotated[str | None, typer.Option("--base", metavar="MODEL", help="The base model")] = None,
    small: Annotated[str | None, typer.Option("--small", metavar="MODEL", help="The small model")] = None,
    trying: Annotated[
        bool,
        typer.Option(
            "--try",
            help="Start the pair, or take servers named by URLs, try them out, and write one file to send back",
            rich_help_panel=TRY,
        ),
    ] = False,
    problems: Annotated[
        int | None, typer.Option("--problems", min=1, help="The most problems to solve [20]", rich_help_panel=TRY)
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option("--minutes", min=0, help="After so many no further problem is begun [10]", rich_help_panel=TRY),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="The file [specreason-try-TIME.json]", rich_help_panel=TRY)
    ] = None,
    decode: Annotated[
        str | None,
        typer.Option(
            "--decode", metavar="URL", help="A server of the base model that drafts tokens", rich_help_panel=TRY
        ),
    ] = None,
    api_key: ApiKey = None,
    json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output")] = False,
) -> None:
    """Check driver, GPUs, versions, disk, ports and weights, and say what to do."""
    from specreason_sgl.servers import EMBEDDED
    from specreason_sgl.servers.gpu.doctor import examine, gather
    from specreason_sgl.servers.gpu.pairfile import read

    if not trying and any(given is not None for given in (problems, minutes, out, decode)):
        raise UsageError("`--problems`, `--minutes`, `--out` and `--decode` need `--try`")
    if trying and json:
        raise UsageError("`--try` and `--json` exclude each other", hint="the file that `--try` writes is JSON")
    if running := _running(pair, base, small, decode, api_key, trying=trying):
        _try(None, running, [], problems, minutes, out)
        return
    named = {name: model for name, model in (("base.model", base), ("small.model", small)) if model}
    spec = None if pair in (None, EMBEDDED) and not named else read(pair, named)
    found = examine(gather(spec))
    fit = not any(finding.grade == "bad" for finding in found)
    if json:
        from dataclasses import asdict

        from specreason_sgl.view.json_lines import json_line

        say(json_line({"fit": fit, "findings": [asdict(finding) for finding in found]}))
    else:
        for finding in found:
            say(f"{MARKS[finding.grade]} {finding.what:<18} {finding.found}")
            if finding.advice:
                say(f"  {'':<18} {finding.advice}")
        say(_verdict(fit=fit, named=spec is not None))
    if not fit:
        raise typer.Exit(UNFIT)
    if trying:
        options = PairOptions(api_key=api_key) if spec else PairOptions(EMBEDDED, api_key=api_key, decode="small")
        _try(spec, options, found, problems, minutes, out)


def _running(
    pair: str | None, base: str | None, small: str | None, decode: str | None, api_key: str | None, *, trying: bool
) -> PairOptions | None:
    """The servers that run already and are to be tried; None if none are named.

    Raises:
        UsageError: they are not named completely, or not all that is named is a server.
    """
    urls = [url for url in (base, small) if url and "://" in url]
    if urls and (not trying or len(urls) == 1 or pair):
        raise UsageError("servers that run are tried by `--try --base URL --small URL`, without `--pair`")
    if urls:
        return PairOptions(None, base, small, api_key, models={DECODE: decode} if decode else {})
    if decode:
        hint = "a pair that is started gets its own"
        raise UsageError("`--decode URL` goes with `--base URL --small URL`", hint=hint)
    return None


def _try(
    spec: PairSpec | None,
    options: PairOptions,
    found: Sequence[Finding],
    problems: int | None,
    minutes: float | None,
    out: Path | None,
) -> None:
    from specreason_sgl.measure.trial import MINUTES, PROBLEMS

    file = out or Path(f"specreason-try-{datetime.now(UTC):%Y%m%d-%H%M%S}.json")
    plan = Plan(spec, options, problems or PROBLEMS, MINUTES if minutes is None else minutes, file)
    say(f"send back {attempt(plan, found)}: it holds no key; look into it first", err=True)


def _verdict(*, fit: bool, named: bool) -> str:
    what = "this pair" if named else "the embedded pair"
    return f"this machine can serve {what}" if fit else f"this machine cannot serve {what} yet"
