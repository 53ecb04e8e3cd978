"""Moving around in one solve with keys: the selected step, what is opened, and the search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from specreason_sgl.view.chains import ANSWER
from specreason_sgl.view.items import Look
from specreason_sgl.view.state import SolveState
from specreason_sgl.view.steps import Item, StepState

KEYS = "n/b step  r rejection  f fold  c chain  / search  u/d scroll  g/G ends  q quit"
SCROLL = 8


@dataclass
class Browser:
    """The user's position in a solve."""

    cursor: int | None = None
    """The selected item of the solve; None follows the end."""
    offset: int = 0
    opened: frozenset[int] = frozenset()
    folded: frozenset[int] = frozenset()
    query: str = ""
    typing: str | None = None
    """The text typed into the search so far; None if there is no search."""
    missed: bool = False
    """Whether the last search or jump found nothing."""

    def look(self, look: Look) -> Look:
        """The given look with this position."""
        keys = look.keys
        if self.typing is not None:
            keys = f"search: {self.typing}▌  enter goes  esc leaves"
        elif self.missed:
            keys = f"nothing found  {keys}"
        return replace(
            look,
            cursor=self.cursor,
            offset=self.offset,
            opened=self.opened,
            folded=self.folded,
            found=self.typing or self.query,
            keys=keys,
        )

    def press(self, key: str, state: SolveState) -> bool:  # noqa: C901, PLR0912 - one case for each key
        """Act on a key; returns whether the key has a meaning."""
        self.missed = False
        if self.typing is not None:
            self._type(key, state)
            return True
        items = state.items
        last = len(items) - 1
        here = last if self.cursor is None else self.cursor
        match key:
            case "n" | "j" | "down" | "right":
                ahead = self._past_folds(items, here, 1)
                self._go(None if self.cursor is None or ahead > last else ahead)
            case "b" | "k" | "up" | "left":
                self._go(max(0, self._past_folds(items, here, -1)))
            case "g" | "home":
                self._go(0)
            case "G" | "end":
                self._go(None)
            case "d" | "pagedown":
                self._scroll(SCROLL)
            case "u" | "pageup":
                self._scroll(-SCROLL)
            case "r":
                self._find(items, lambda item: isinstance(item, StepState) and item.is_taken_over)
            case "f" | "enter":
                self._fold(items, here)
            case "c":
                self._fold_chain(items if state.is_branched else [], here)
            case "F":
                everything = frozenset({ANSWER, *(item.place for item in items)})
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

    def _fold(self, items: list[Item], here: int) -> None:
        place = items[here].place if 0 <= here < len(items) else ANSWER
        self.opened = self.opened ^ {place}

    def _fold_chain(self, items: list[Item], here: int) -> None:
        """Fold or unfold the chain of the selected item; its first item stands for it."""
        if 0 <= here < len(items):
            chain = items[here].chain
            self.folded = self.folded ^ {chain}
            self._go(next(place for place, item in enumerate(items) if item.chain == chain))

    def _past_folds(self, items: list[Item], here: int, step: int) -> int:
        """The next place in a direction that is not inside a folded chain."""
        place = here + step
        while 0 < place < len(items) and items[place].chain == items[place - 1].chain in self.folded:
            place += step
        return place

    def _find(self, items: list[Item], wanted: Callable[[Item], bool]) -> None:
        """Go to the next wanted item; after the last one the search starts again at the beginning."""
        here = -1 if self.cursor is None else self.cursor
        places = [*range(here + 1, len(items)), *range(min(here + 1, len(items)))]
        place = next((place for place in places if wanted(items[place])), None)
        self.missed = place is None
        if place is not None:
            self.folded -= {items[place].chain}
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

        def holds(item: Item) -> bool:
            drafts = item.candidates.values() if isinstance(item, StepState) else ()
            return any(wanted in text.casefold() for text in (item.shown, *(each.text or "" for each in drafts)))

        if wanted:
            self._find(state.items, holds)
