"""A solve as plain lines, one for each step and each end, for logs and pipes."""

from __future__ import annotations

import threading
from typing import TextIO

from specreason_sgl.events import (
    AnswerWritten,
    ChainOpened,
    DraftingChanged,
    Event,
    Noticed,
    SolveEnded,
    SolveFailed,
    SolveStarted,
    StepsCut,
    StepTaken,
    TextAdded,
    TextStreamed,
    ThinkingEnded,
)
from specreason_sgl.runs.redecide import Redecision
from specreason_sgl.view import figures
from specreason_sgl.view.chains import vote_words
from specreason_sgl.view.items import REASON, candidate_sign, candidate_words, of_chain, spent
from specreason_sgl.view.lines import label
from specreason_sgl.view.output import Output
from specreason_sgl.view.scenes import SolveScene
from specreason_sgl.view.solve_view import flip_words, totals
from specreason_sgl.view.state import SolveState
from specreason_sgl.view.steps import StepState, told
from specreason_sgl.view.text import one_line, shorten
from specreason_sgl.view.theme import SIGNS

TEXT = 200
"""The most cells of a text on a line."""
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
    """Shows a solve on the screen, and writes plain lines once the user has left the screen."""

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
        """Go on in plain lines, as the user has left the screen."""
        self._left = True
        self._go_on()

    def _go_on(self) -> None:
        if not self._left:
            return
        with self._lock:
            for event in self._scene.heard():
                for words in describe(event, self._scene.state):
                    self._output.line(words)


def describe(event: Event, state: SolveState) -> list[str]:  # noqa: C901, PLR0911 - one case for each event
    """The plain lines about an event; the state has to include the event already."""
    match event:
        case SolveStarted():
            score = shorten(event.score_rule or "greedy", REASON)
            rule = "" if event.threshold is None else f"threshold {event.threshold:g} ({score}) · "
            heading = f"{shorten(event.program, TEXT)} · {rule}budget {figures.count(event.budget)} tok"
            return [heading, f"question  {one_line(event.question)}"]
        case ChainOpened():
            parent = "" if event.parent is None else f" from chain {event.parent} after {figures.steps(event.steps)}"
            return [f"chain {event.chain} opened{parent}"]
        case StepTaken():
            return step_lines(state.standing(event), state)
        case TextAdded():
            tokens = f"  {figures.count(event.tokens)} tok" if event.tokens else ""
            author = state.name_of(event.author).label
            text = shorten(event.text, TEXT)
            return [f"{SIGNS['added'].label} by {author}{of_chain(event.chain)}{tokens}  {text}"]
        case StepsCut():
            left = figures.steps(state.chain(event.chain).steps)
            return [f"{SIGNS['cut'].label}{of_chain(event.chain)}: {shorten(event.reason, REASON)} · {left} left"]
        case DraftingChanged():
            word = "drafting again" if event.drafting else "drafting pauses"
            return [f"{word} · acceptance {event.acceptance:.0%} · predicted speed-up {event.predicted:.2f}x"]
        case ThinkingEnded():
            words = (
                f"{shorten(event.reason, REASON)} · {figures.steps(event.steps)} · {figures.count(event.tokens)} tok"
            )
            over = [step for step in state.chain(event.chain).items if isinstance(step, StepState) and step.is_over]
            lines = [each for step in over for each in step_lines(step, state)]
            return [*lines, f"thinking{of_chain(event.chain)} ended: {words}"]
        case AnswerWritten():
            answer = f"{SIGNS['answered'].label}{of_chain(event.chain)}  {shorten(event.answer or '–', TEXT)}"
            return ["  ".join(filter(None, (answer, vote_words(state))))]
        case Noticed():
            sign = state.name_of(event.author) if event.author else SIGNS["notice"]
            return [f"{sign.label}  {one_line(event.message)}"]
        case SolveFailed():
            hint = [f"hint: {one_line(event.hint)}"] if event.hint else []
            return [f"{SIGNS['failed'].label}  {one_line(event.error)}", *hint]
        case SolveEnded():
            return [SIGNS[state.phase].label, *(words.plain.strip() for words in totals(state, WIDE))]
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
                SIGNS["flip"].label,
                f"step {decision.step}{of_chain(decision.scored.chain)}",
                f"score {decision.value:.2f}",
                f"{SIGNS['accepted' if decision.was else 'rejected'].label} before,",
                f"{SIGNS['accepted' if decision.now else 'rejected'].label} now",
            )
        )
        for decision in redecision.decisions
        if decision.flips
    ]
    lines = [heading, *flips]
    if redecision.first_flip:
        lines.append(f"the stored text is counterfactual after {flip_words(redecision)}")
    return lines


def step_lines(step: StepState, state: SolveState) -> list[str]:
    """One step on one line, and each of several candidates for it on a line of its own."""
    lines = [step_line(step, state)]
    for each in step.candidates.values() if len(step.candidates) > 1 else ():
        sign = candidate_sign(each, step)
        figure = " ".join(told(each.score, each.tokens, state.rule)) if each.score else "–"
        words = "  ".join((state.name_of(each.author).label, *candidate_words(each, step, state)))
        lines.append(f"  candidate {each.number}  {sign.glyph} {figure}  {words}  {shorten(each.text or '', TEXT)}")
    return lines


def step_line(step: StepState, state: SolveState) -> str:
    """One step on one line."""
    parts = [f"step {step.number:>3}{of_chain(step.chain)}", label(state.sign_of(step), 13)[0]]
    if step.judged and step.judged.score and not step.is_refused:
        parts.append(" ".join(told(step.judged.score, step.judged.tokens, state.rule)))
    parts.append(f"{figures.count(step.tokens)} tok")
    parts += spent(step)
    return "  ".join([*parts, shorten(step.shown, TEXT)])
