"""Moving about in one solve with keys: which step is looked at, what is opened, what is searched for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from specreason_sgl.view.solve_view import ANSWER, Look
from specreason_sgl.view.state import SolveState, StepState

KEYS = "n/b step  r rejection  f fold  / search  u/d scroll  g/G ends  q quit"
SCROLL = 8


@dataclass
class Browser:
    """Where somebody is in a solve."""

    cursor: int | None = None
    """Place of the step that is looked at; None follows the end."""
    offset: int = 0
    opened: frozenset[int] = frozenset()
    query: str = ""
    typing: str | None = None
    """What has been typed into the search so far; None while nobody searches."""
    missed: bool = False
    """Whether the last search or jump found nothing."""

    def look(self, look: Look) -> Look:
        """The same look from here."""
        keys = look.keys
        if self.typing is not None:
            keys = f"search: {self.typing}▌  enter goes  esc leaves"
        elif self.missed:
            keys = f"nothing found  {keys}"
        return replace(
            look, cursor=self.cursor, offset=self.offset, opened=self.opened, found=self.typing or self.query, keys=keys
        )

    def press(self, key: str, state: SolveState) -> bool:  # noqa: C901 - one case for each key
        """Act on a key; returns whether it meant anything."""
        self.missed = False
        if self.typing is not None:
            self._type(key, state)
            return True
        steps = list(state.steps.values())
        last = len(steps) - 1
        here = last if self.cursor is None else self.cursor
        match key:
            case "n" | "j" | "down" | "right":
                self._go(None if self.cursor is None or here >= last else here + 1)
            case "b" | "k" | "up" | "left":
                self._go(max(0, here - 1))
            case "g" | "home":
                self._go(0)
            case "G" | "end":
                self._go(None)
            case "d" | "pagedown":
                self._scroll(SCROLL)
            case "u" | "pageup":
                self._scroll(-SCROLL)
            case "r":
                self._find(steps, lambda step: step.rejected is not None)
            case "f" | "enter":
                self._fold(steps, here)
            case "F":
                everything = frozenset({ANSWER, *state.steps})
                self.opened = frozenset() if everything <= self.opened else everything
            case "/":
                self.typing = ""
            case _:
                return False
        return True

    def _go(self, place: int | None) -> None:
        self.cursor, self.offset = place, 0

    def _scroll(self, lines: int) -> None:
        if self.cursor is not None and lines < 0 and not self.offset:
            self._go(max(0, self.cursor - 1))
            return
        self.offset = max(0, self.offset + (lines if self.cursor is not None else -lines))

    def _fold(self, steps: list[StepState], here: int) -> None:
        number = steps[here].number if 0 <= here < len(steps) else ANSWER
        self.opened = self.opened ^ {number}

    def _find(self, steps: list[StepState], wanted: Callable[[StepState], bool]) -> None:
        """Go to the next step that is wanted, from the beginning again after the last one."""
        here = -1 if self.cursor is None else self.cursor
        places = [*range(here + 1, len(steps)), *range(min(here + 1, len(steps)))]
        place = next((place for place in places if wanted(steps[place])), None)
        self.missed = place is None
        if place is not None:
            self._go(place)

    def _type(self, key: str, state: SolveState) -> None:
        typed = self.typing or ""
        match key:
            case "esc":
                self.typing, self.query = None, ""
            case "enter":
                self.query, self.typing = typed or self.query, None
                self._search(state)
            case "backspace":
                self.typing = typed[:-1]
            case _ if len(key) == 1 and key.isprintable():
                self.typing = typed + key
            case _:
                pass

    def _search(self, state: SolveState) -> None:
        wanted = self.query.casefold()

        def holds(step: StepState) -> bool:
            return wanted in step.shown.casefold() or wanted in (step.rejected or "").casefold()

        if wanted:
            self._find(list(state.steps.values()), holds)
