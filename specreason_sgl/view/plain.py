"""A solve as plain lines, one for each step and each end, for logs and pipes."""

from __future__ import annotations

import threading
from typing import TextIO

from specreason_sgl.events import (
    AnswerWritten,
    DraftingChanged,
    Event,
    Noticed,
    SolveEnded,
    SolveFailed,
    SolveStarted,
    StepTaken,
    TextStreamed,
    ThinkingEnded,
)
from specreason_sgl.runs.redecide import Redecision
from specreason_sgl.view import figures
from specreason_sgl.view.output import Output
from specreason_sgl.view.scenes import SolveScene
from specreason_sgl.view.solve_view import TIMED, totals
from specreason_sgl.view.state import SolveState, StepState, utility
from specreason_sgl.view.text import one_line, shorten
from specreason_sgl.view.theme import ROLES

TEXT = 200
"""So many cells of a text go on a line."""
WIDE = 10_000
"""Lines of totals are not broken."""


class PlainSink:
    """Writes a solve line by line as it goes on."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to this stream, or to standard output."""
        self._output = Output(stream)
        self._state = SolveState()

    def __call__(self, event: Event) -> None:
        """Write what an event has to tell, if anything."""
        if isinstance(event, TextStreamed):
            return
        self._state.add(event)
        for words in describe(event, self._state):
            self._output.line(words)


class SceneSink:
    """Hands a solve to the screen, and goes on in plain lines once that has been left."""

    def __init__(self, scene: SolveScene, stream: TextIO | None = None) -> None:
        """Tell this scene, and then this stream, or standard output."""
        self._scene = scene
        self._output = Output(stream)
        self._left = False
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """The scene hears it."""
        self._scene.hear(event)
        self._go_on()

    def left(self) -> None:
        """The screen is free again."""
        self._left = True
        self._go_on()

    def _go_on(self) -> None:
        if not self._left:
            return
        with self._lock:
            for event in self._scene.heard():
                for words in describe(event, self._scene.state):
                    self._output.line(words)


def describe(event: Event, state: SolveState) -> list[str]:  # noqa: PLR0911 - one case for each event
    """What an event has to tell, as plain lines; the state holds it already."""
    match event:
        case SolveStarted():
            score = one_line(event.score_rule or "greedy")
            rule = "" if event.threshold is None else f"threshold {event.threshold:g} ({score}) · "
            heading = f"{one_line(event.program)} · {rule}budget {figures.count(event.budget)} tok"
            return [heading, f"question  {one_line(event.question)}"]
        case StepTaken():
            return [step_line(state.steps[event.step], state)]
        case DraftingChanged():
            word = "drafting again" if event.drafting else "drafting pauses"
            return [f"{word} · acceptance {event.acceptance:.0%} · predicted speed-up {event.predicted:.2f}x"]
        case ThinkingEnded():
            return [
                f"thinking ended: {event.reason} · {figures.steps(event.steps)} · {figures.count(event.tokens)} tok"
            ]
        case AnswerWritten():
            return [f"{ROLES['answered'].label}  {shorten(event.answer or '–', TEXT)}"]
        case Noticed():
            return [f"{ROLES['notice'].label}  {one_line(event.message)}"]
        case SolveFailed():
            hint = [f"hint: {one_line(event.hint)}"] if event.hint else []
            return [f"{ROLES['failed'].label}  {one_line(event.error)}", *hint]
        case SolveEnded():
            return [ROLES[state.phase].label, *(words.plain.strip() for words in totals(state, WIDE))]
        case _:
            return []


def redecided_lines(title: str, redecision: Redecision) -> list[str]:
    """What another threshold or rule would have decided."""
    heading = (
        f"{one_line(title)} at threshold {redecision.threshold:g} ({redecision.rule}): "
        f"{len(redecision.flips)} of {len(redecision.decisions)} decisions flip, "
        f"acceptance {figures.share(redecision.acceptance)} instead of {figures.share(redecision.stored_acceptance)}"
    )
    flips = [
        "  ".join(
            (
                ROLES["flip"].label,
                f"step {decision.step}",
                f"score {decision.value:.2f}",
                f"{ROLES['accepted' if decision.was else 'rejected'].label} before,",
                f"{ROLES['accepted' if decision.now else 'rejected'].label} now",
            )
        )
        for decision in redecision.decisions
        if decision.flips
    ]
    lines = [heading, *flips]
    if redecision.divergence is not None:
        lines.append(f"the stored text is counterfactual after step {redecision.divergence}")
    return lines


def step_line(step: StepState, state: SolveState) -> str:
    """One step on one line."""
    parts = [f"step {step.number:>3}", f"{ROLES[step.role].label:<13}"]
    if step.score is not None:
        parts.append(f"score {utility(step.score, state.rule)[1]}")
    parts.append(f"{figures.count(step.tokens)} tok")
    parts += [f"{word} {figures.seconds(step.seconds[kind])}" for kind, word in TIMED if step.seconds[kind]]
    return "  ".join([*parts, shorten(step.shown, TEXT)])
