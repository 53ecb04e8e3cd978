"""A stored solve, played again: the same events at their own pace, faster, or step by step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from rich.text import Text

from specreason_sgl.events import (
    AnswerWritten,
    Author,
    CallKind,
    CallMade,
    ChainOpened,
    Event,
    StepDrafted,
    StepScored,
    StepsCut,
    StepTaken,
    TextAdded,
    TextStreamed,
)
from specreason_sgl.runs.redecide import Redecision
from specreason_sgl.view import figures
from specreason_sgl.view.browse import KEYS as BROWSE
from specreason_sgl.view.browse import Browser
from specreason_sgl.view.items import Look
from specreason_sgl.view.solve_view import solve_frame
from specreason_sgl.view.state import SolveState

PIECES = 24
"""The most pieces in which a stored text is streamed again."""
UNSTREAMED: frozenset[CallKind] = frozenset({"draft", "judge", "think", "answer"})
"""Kinds of calls whose text is not streamed again as that of a step."""
CANDIDATES: frozenset[CallKind] = frozenset({"draft", "regenerate"})
"""Kinds of calls that candidates are written by."""
FASTEST = 64.0
KEYS = f"space play  +/- speed  {BROWSE}"

Placed = tuple[int, Event]
"""An event, with the index of the stored event that it is or leads up to."""


def stretched(events: Iterable[Event]) -> list[Event]:
    """The stored events with the streaming put back that was not stored: each text over the time of its call.

    What leads up to a stored event keeps its place among those of the same time, whichever chain they are of.
    """
    placed = list(enumerate(events))
    chains = dict.fromkeys(event.chain for _, event in placed)
    spread = [each for chain in chains for each in _spread([each for each in placed if each[1].chain == chain])]
    made = [(event.at, place, event) for place, event in _with_streams(sorted(spread, key=_place))]
    return [event for _, _, event in sorted(made, key=lambda each: each[:2])]


def _place(placed: Placed) -> int:
    return placed[0]


def _with_streams(placed: Iterable[Placed]) -> Iterator[Placed]:
    calls: dict[int, CallMade] = {}
    opened: dict[int, float] = {}
    answers = Counter[int]()
    drafted = set[tuple[int, Author, str]]()
    for place, event in placed:
        call = calls.get(event.chain)
        told: dict[str, Any] = {}
        match event:
            case ChainOpened():
                opened[event.chain] = event.at
            case CallMade(dropped=False):
                calls[event.chain] = event
            case StepDrafted() if call is not None:
                kind = call.kind if call.kind in CANDIDATES and call.model == event.author else "draft"
                told = {"step": event.step, "kind": kind, "attempt": event.attempt}
                drafted.add((event.step, event.author, event.text))
            case StepTaken() | TextAdded() if call is not None and call.kind not in UNSTREAMED:
                if call.model == event.author and (event.step, event.author, event.text) not in drafted:
                    told = {"step": event.step, "kind": call.kind}
            case AnswerWritten() if call is not None and call.kind == "answer":
                told = {"step": None, "kind": "answer", "attempt": answers[event.chain]}
                answers[event.chain] += 1
            case _:
                pass
        if told and call is not None and isinstance(event, StepDrafted | StepTaken | TextAdded | AnswerWritten):
            piece = TextStreamed(chain=event.chain, model=event.author, text=event.text, **told)
            since = max(0.0, opened.get(event.chain, 0.0), call.at - call.wall_s)
            yield from ((place, each) for each in _pieces(piece, min(since, call.at), call.at))
        yield place, event


def _spread(placed: Iterable[Placed]) -> Iterator[Placed]:
    """The events of one chain; steps that were written in one go come each when its text was there."""
    think: CallMade | None = None
    steps: list[tuple[int, StepTaken]] = []
    for place, event in placed:
        if isinstance(event, StepTaken) and think is not None:
            steps.append((place, event))
            continue
        if think is not None:
            yield from _in_one_go(steps, think)
            think, steps = None, []
        if isinstance(event, CallMade) and event.kind == "think" and event.step is None:
            think = event
        yield place, event
    if think is not None:
        yield from _in_one_go(steps, think)


def _in_one_go(steps: Sequence[tuple[int, StepTaken]], call: CallMade) -> Iterator[Placed]:
    total = sum(step.tokens for _, step in steps) or 1
    done = 0
    for place, step in steps:
        done += step.tokens
        yield place, step.model_copy(update={"at": max(0.0, call.at - call.wall_s * (1 - done / total))})


def _pieces(whole: TextStreamed, since: float, until: float) -> Iterator[TextStreamed]:
    """A text in pieces over a span of time."""
    count = min(PIECES, len(whole.text))
    places = [len(whole.text) * part // count for part in range(count + 1)] if count else []
    for one, (start, end) in enumerate(pairwise(places)):
        at = since + (until - since) * one / count
        yield whole.model_copy(update={"at": at, "text": whole.text[start:end]})


@dataclass
class Player:
    """Lets events happen again, by its own clock."""

    events: Sequence[Event]
    speed: float = 1.0
    paused: bool = False
    state: SolveState = field(default_factory=SolveState)
    now: float = 0.0
    """In seconds since the solve began."""
    _next: int = 0
    _clock: float | None = None

    @property
    def done(self) -> bool:
        """Whether all has happened."""
        return self._next >= len(self.events)

    def advance(self, clock: float) -> bool:
        """Let everything happen that is due; returns whether anything was."""
        passed = 0.0 if self._clock is None else clock - self._clock
        self._clock = clock
        if self.paused or self.done:
            return False
        self.now += passed * self.speed
        before = self._next
        while self._next < len(self.events) and self.events[self._next].at <= self.now:
            self._take()
        return self._next > before

    def step(self) -> None:
        """Go on to where the next step, other text, a cut or the answer is there."""
        self._until((StepTaken, TextAdded, StepsCut, AnswerWritten))

    def rejection(self) -> None:
        """Go on to the next step of which no draft was taken."""
        while not self.done:
            self._until((StepScored,))
            event = self.events[self._next - 1]
            if isinstance(event, StepScored) and not event.accepted:
                self.step()
                step = self.state.chain(event.chain).standing.get(event.step)
                if step is None or step.is_taken_over:
                    return

    def finish(self) -> None:
        """Let all of it happen."""
        while not self.done:
            self._take()

    def _until(self, kinds: tuple[type[Event], ...]) -> None:
        while not self.done:
            if isinstance(self._take(), kinds):
                break

    def _take(self) -> Event:
        event = self.events[self._next]
        self._next += 1
        self.now = max(self.now, event.at)
        self.state.add(event)
        return event


class ReplayScene:
    """One stored solve on the screen."""

    def __init__(
        self,
        events: Sequence[Event],
        title: str,
        *,
        colour: bool,
        speed: float | None = 1.0,
        by_step: bool = False,
        redecision: Redecision | None = None,
    ) -> None:
        """Begin at the beginning, or with everything there where the speed is None."""
        self.over = False
        self._title = title
        self._colour = colour
        self._redecision = redecision
        self.player = Player(stretched(events), speed or 1.0, paused=by_step)
        self.browser = Browser()
        if by_step:
            self.player.step()
        elif speed is None:
            self.player.finish()
            self.browser.cursor = 0

    def fresh(self, clock: float) -> bool:
        """Go on playing."""
        return self.player.advance(clock)

    def draw(self, width: int, height: int, clock: float) -> Text:
        """The solve as far as it has been played."""
        del clock
        player = self.player
        look = Look(
            width=width,
            height=height,
            now=None if player.done else player.now,
            colour=self._colour,
            title=self._title,
            keys=BROWSE if player.done else f"{self._pace}  {KEYS}",
            redecision=self._redecision,
        )
        return solve_frame(player.state, self.browser.look(look))

    def press(self, key: str) -> None:
        """Play, or move about in what has been played."""
        browser, player = self.browser, self.player
        ahead = browser.typing is None and browser.cursor is None and not player.done
        if ahead and key in {"n", "j", "down", "right"}:
            player.step()
        elif ahead and key == "r":
            player.rejection()
        elif browser.typing is None and key == " ":
            player.paused = not player.paused
        elif browser.typing is None and key in {"+", "-"}:
            player.speed = min(FASTEST, max(1 / FASTEST, player.speed * (2.0 if key == "+" else 0.5)))
        else:
            if browser.typing is None and key in {"G", "end", "/"}:
                player.finish()
            if not browser.press(key, player.state) and key in {"q", "esc"}:
                self.over = True

    @property
    def _pace(self) -> str:
        if self.player.paused:
            return "paused"
        return f"{self.player.speed:g}× of {figures.seconds(self.player.events[-1].at)}"
