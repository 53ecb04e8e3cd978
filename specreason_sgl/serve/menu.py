"""What a server offers: programs under the names that clients call models."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from specreason_sgl.errors import UsageError
from specreason_sgl.lang.knobs import set_knobs
from specreason_sgl.lang.loading import Program, load, stock
from specreason_sgl.tables import parse_override
from specreason_sgl.text.score_file import with_score_read

SHORT = {"base": "base_only", "small": "small_only"}
"""The models by themselves, so that any client can compare a method with them."""


@dataclass(frozen=True)
class Offer:
    """A program under a name, with the parameters that come with that name."""

    name: str
    program: Program
    parameters: Mapping[str, Any] = field(default_factory=dict)


def menu(aliases: Iterable[str] = ()) -> dict[str, Offer]:
    """All that is offered, by name: the stock programs, the models by themselves, and aliases.

    Args:
        aliases: each as ``NAME=PROGRAM`` or ``NAME=PROGRAM,threshold=5``; the program is a stock one or a file, whose
            code is run.

    Raises:
        UsageError: an alias has another form, or names a program or a parameter that is not there.
    """
    programs = {name: load(name) for name in stock()}
    usable = {name: program for name, program in programs.items() if _needs_nothing_else(program)}
    names = {**{short: usable[name] for short, name in SHORT.items()}, **usable}
    order = ("specreason", "lookahead", *SHORT, *sorted(names))
    offers = {name: Offer(name, names[name]) for name in dict.fromkeys(order)}
    for alias in aliases:
        offer = _alias(alias, programs)
        offers[offer.name] = offer
    return offers


def _alias(text: str, programs: Mapping[str, Program]) -> Offer:
    name, equals, told = (part.strip() for part in text.partition("="))
    target, *more = (part.strip() for part in told.split(","))
    if not equals or not name or not target:
        raise UsageError(f"`--alias {text}` is not `NAME=PROGRAM`", hint="such as `--alias gpt-4o=specreason`")
    target = SHORT.get(target, target).replace("-", "_") if SHORT.get(target, target) in programs else target
    program = programs.get(target) or load(target)
    if not _needs_nothing_else(program):
        raise UsageError(f"`--alias {text}`: that program needs what only another program can hand it")
    parameters = with_score_read(dict(map(parse_override, more)))
    set_knobs(program.knobs, parameters, program.name)
    return Offer(name, program, parameters)


def _needs_nothing_else(program: Program) -> bool:
    """Whether a program can be run with knobs alone."""
    arguments = inspect.signature(program.function.func).parameters
    return all(arguments[name].default is not inspect.Parameter.empty for name in program.objects)
