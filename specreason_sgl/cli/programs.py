"""``specreason programs``: the reasoning programs and their knobs."""

from __future__ import annotations

import json as json_module
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specreason_sgl.view.output import say

if TYPE_CHECKING:
    from specreason_sgl.lang.knobs import Knob
    from specreason_sgl.lang.loading import Program

INDENT = "  "


def programs(
    name: Annotated[
        str | None, typer.Argument(help="A stock program's name, or a file of your own, whose code is run")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Only JSON on standard output")] = False,
) -> None:
    """List the programs and their knobs, which `run --parameter NAME=VALUE` sets, or a mode of a job by their names."""
    from specreason_sgl.lang.loading import load, stock
    from specreason_sgl.packages import need

    need("sglang")
    known = [load(each) for each in ([name] if name else stock())]
    if json:
        say(json_module.dumps([_row(program) for program in known], indent=2, default=str))
        return
    from specreason_sgl.view.display import console
    from specreason_sgl.view.text import one_line

    width = console().width
    for program in known:
        say(one_line(f"{program.name}: {program.meaning}"))
        for knob in program.knobs.values():
            told = one_line(f"{knob.name}{_default(knob)} ({knob.kind}): {knob.meaning}")
            say("\n".join(wrap(told, width, initial_indent=INDENT, subsequent_indent=2 * INDENT)))


def _row(program: Program) -> dict[str, Any]:
    knobs = [
        {"name": knob.name, "type": knob.kind, "default": None if knob.is_needed else knob.default,
         "needed": knob.is_needed, "meaning": knob.meaning}
        for knob in program.knobs.values()
    ]  # fmt: skip
    return {"program": program.name, "file": str(program.path), "meaning": program.meaning, "knobs": knobs}


def _default(knob: Knob) -> str:
    return "" if knob.is_needed else f" = {knob.default}"
