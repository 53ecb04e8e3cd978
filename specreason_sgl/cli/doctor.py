"""``specreason doctor``: whether this machine can serve a pair, and what to do if not."""

from __future__ import annotations

from typing import Annotated

import typer

from specreason_sgl.view.output import say

UNFIT = 1
MARKS = {"ok": "✓", "note": "!", "bad": "✗"}


def doctor(
    pair: Annotated[
        str | None,
        typer.Option("--pair", help="What is to be served: `embedded`, a stock pair or a TOML file"),
    ] = None,
    base: Annotated[str | None, typer.Option("--base", metavar="MODEL", help="The base model")] = None,
    small: Annotated[str | None, typer.Option("--small", metavar="MODEL", help="The small model")] = None,
    json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output")] = False,
) -> None:
    """Check driver, GPUs, versions, disk, ports and weights, and say what to do."""
    from specreason_sgl.servers import EMBEDDED
    from specreason_sgl.servers.gpu.doctor import examine, gather
    from specreason_sgl.servers.gpu.pairfile import read

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


def _verdict(*, fit: bool, named: bool) -> str:
    what = "this pair" if named else "the embedded pair"
    return f"this machine can serve {what}" if fit else f"this machine cannot serve {what} yet"
