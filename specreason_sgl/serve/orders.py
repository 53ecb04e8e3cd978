"""What a client orders: a problem, the program that solves it, its parameters and settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from specreason_sgl.events import CallKind
from specreason_sgl.lang.knobs import as_json, set_knobs
from specreason_sgl.lang.loading import Program
from specreason_sgl.runs.store import Problem
from specreason_sgl.serve.menu import Offer
from specreason_sgl.settings import Settings


class SolveRequest(BaseModel):
    """The body of ``POST /v1/solves``."""

    model_config = ConfigDict(extra="forbid")

    question: str = Field(min_length=1)
    answer: str | None = None
    """The right answer, if it is known."""
    choice: bool = False
    earlier: list[dict[str, str]] = Field(default_factory=list)
    id: str | None = None
    """The problem's name."""
    program: str = "specreason"
    parameters: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    """The settings that are given; the server's own for the others."""
    stream: bool = False
    """Whether text is sent while it is generated, on top of the events that are stored."""


@dataclass(frozen=True)
class Order:
    """A solve that was ordered."""

    id: str
    """The name by which the server knows the solve."""
    problem: Problem
    offer: Offer
    settings: Settings
    knobs: Mapping[str, Any]
    """The value of every knob of the program."""
    given: Mapping[str, Any]
    """The parameters that differ from the program's own defaults because somebody gave them."""
    stream: bool | Collection[CallKind] = False
    """Whether anybody wants text while it is generated, or of which kinds of calls."""

    @classmethod
    def of(
        cls,
        name: str,
        offer: Offer,
        problem: Problem,
        settings: Settings,
        parameters: Mapping[str, Any],
        *,
        stream: bool | Collection[CallKind] = False,
    ) -> Order:
        """An order of what is offered.

        Raises:
            UsageError: the program has no such parameter, or a value is of no use to it.
        """
        given = {**offer.parameters, **parameters}
        knobs = set_knobs(offer.program.knobs, given, offer.program.name)
        return cls(
            name, problem, offer, settings, knobs, as_json({each: knobs[each] for each in sorted(given)}), stream
        )

    @property
    def program(self) -> Program:
        """The program that solves it."""
        return self.offer.program

    @property
    def mode(self) -> str:
        """What the solve is filed under: the offer's name, with the parameters that the client gave."""
        own = {name: value for name, value in self.given.items() if self.offer.parameters.get(name) != value}
        told = {name: self.knobs[name] if isinstance(value, dict) else value for name, value in own.items()}
        return " ".join([self.offer.name, *(f"{name}={value}" for name, value in told.items())])

    def streaming(self) -> Order:
        """The same order with text while it is generated."""
        return replace(self, stream=True)

    def again(self, number: int) -> Order:
        """The same order once more, for a further choice: another name and, with a seed, another seed."""
        if not number:
            return self
        seed = self.settings.seed
        settings = self.settings if seed is None else self.settings.model_copy(update={"seed": seed + number})
        return replace(self, id=f"{self.id}-{number}", settings=settings)
