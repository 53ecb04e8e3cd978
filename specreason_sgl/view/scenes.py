"""What can be shown on the screen: one solve, a batch, a run's solves, two solves side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

from rich.text import Text

from specreason_sgl.events import Event, SolveStarted, TextStreamed
from specreason_sgl.runs.store import Done, SolveRecord
from specreason_sgl.view.batch_view import KEYS as BATCH_KEYS
from specreason_sgl.view.batch_view import BatchLook, BatchState, SolveKey, batch_frame
from specreason_sgl.view.browse import KEYS, Browser
from specreason_sgl.view.compare import Side, compare_frame
from specreason_sgl.view.items import Look
from specreason_sgl.view.listing import EndedSolve, solves_page
from specreason_sgl.view.live import Scene
from specreason_sgl.view.solve_view import solve_frame
from specreason_sgl.view.state import SolveState

T = TypeVar("T")

BATCH_TRACE_KEYS = "esc/b back  n/↑/↓ step  r rejection  f fold  / search  u/d scroll  c chain  q leaves the view"
WATCH_KEYS = "↑/↓ select  enter opens the trace  q quit"
COMPARE_KEYS = "n/b step  f fold  u/d scroll  g/G ends  q quit"


class SolveScene:
    """One solve that is going on in other threads."""

    def __init__(self, title: str, *, colour: bool) -> None:
        """Begin with nothing."""
        self.over = False
        self.state = SolveState()
        self._title = title
        self._colour = colour
        self._browser = Browser()
        self._inbox: SimpleQueue[Event] = SimpleQueue()
        self._began: float | None = None

    def hear(self, event: Event) -> None:
        """Take an event from any thread, at next to no cost."""
        if not (self.over and isinstance(event, TextStreamed)):
            self._inbox.put(event)

    def fresh(self, clock: float) -> bool:
        """Take in what has been heard."""
        heard = False
        for event in self.heard():
            heard = True
            if isinstance(event, SolveStarted):
                self._began = clock
        return heard

    def heard(self) -> Iterator[Event]:
        """What has been heard, each as it has been taken in."""
        for event in drained(self._inbox):
            self.state.add(event)
            yield event

    def draw(self, width: int, height: int, clock: float) -> Text:
        """The solve so far."""
        now = None if self._began is None or self.state.ended else clock - self._began
        look = Look(width=width, height=height, now=now, colour=self._colour, title=self._title, keys=KEYS)
        return solve_frame(self.state, self._browser.look(look))

    def press(self, key: str) -> None:
        """Move about; q leaves the view."""
        if not self._browser.press(key, self.state) and key == "q":
            self.over = True


Told = tuple[SolveKey, Event | SolveRecord | None] | str
"""A solve that has taken off, an event of it, or the record it ended with; or words about the whole batch."""


class BatchScene:
    """A batch that is going on in other threads."""

    def __init__(
        self,
        title: str,
        total: int | None,
        *,
        colour: bool,
        began: float,
        earlier: Sequence[Done] = (),
        keys: str = BATCH_KEYS,
    ) -> None:
        """Begin with what there was before."""
        self.over = False
        self.state = BatchState(total, began)
        self.state.resumed(earlier)
        self._title = title
        self._keys = keys
        self._colour = colour
        self._inbox: SimpleQueue[Told] = SimpleQueue()
        self._chosen: SolveKey | None = None
        self._open: tuple[SolveKey, SolveState] | None = None
        self._browser = Browser()

    def tell(self, key: SolveKey, what: Event | SolveRecord | None) -> None:
        """Take something in from any thread, at next to no cost."""
        if not self.over or isinstance(what, SolveRecord):
            self._inbox.put((key, what))

    def notice(self, message: str) -> None:
        """Take in words about the whole batch, from any thread."""
        self._inbox.put(message)

    def fresh(self, clock: float) -> bool:
        """Take in what has been told."""
        told = [*self.told()]
        self.state.tick(clock)
        return bool(told)

    def told(self) -> Iterator[Told]:
        """What has been told, each as it has been taken in."""
        for each in drained(self._inbox):
            if isinstance(each, str):
                self.state.notice = each
            else:
                key, what = each
                if what is None:
                    self.state.started(key)
                elif isinstance(what, SolveRecord):
                    self.state.finished(key, EndedSolve.of(what))
                else:
                    self.state.heard(key, what)
            yield each

    def draw(self, width: int, height: int, clock: float) -> Text:
        """The batch, or the trace that is open."""
        if self._open:
            key, solve = self._open
            title = f"{key.problem_id} · {key.mode}"
            look = Look(width=width, height=height, colour=self._colour, title=title, keys=BATCH_TRACE_KEYS)
            return solve_frame(solve, self._browser.look(look))
        return batch_frame(
            self.state,
            BatchLook(
                width=width,
                height=height,
                clock=clock,
                colour=self._colour,
                chosen=self._chosen,
                title=self._title,
                keys=self._keys,
            ),
        )

    def press(self, key: str) -> None:
        """Select, open, go back; q leaves the view."""
        if self._open:
            searching = self._browser.typing is not None
            if key in {"esc", "b"} and not searching:
                self._open = None
            elif not self._browser.press(key, self._open[1]) and key == "q":
                self.over = True
            return
        keys = list(self.state.flying)
        if key == "q":
            self.over = True
        elif keys and key in {"down", "j", "up", "k"}:
            step = 1 if key in {"down", "j"} else -1
            here = keys.index(self._chosen) if self._chosen in self.state.flying else -1 if step > 0 else len(keys)
            self._chosen = keys[min(len(keys) - 1, max(0, here + step))]
        elif keys and key in {"enter", "right"}:
            chosen = self._chosen if self._chosen in self.state.flying else keys[0]
            self._chosen = chosen
            self._open, self._browser = (chosen, self.state.flying[chosen]), Browser()


class RunScene:
    """The solves of a stored run, to open one after the other."""

    def __init__(
        self, title: str, records: Sequence[SolveRecord], open_one: Callable[[SolveRecord], Scene], *, colour: bool
    ) -> None:
        """Begin with the list."""
        self.over = False
        self._title = title
        self._records = records
        self._solves = [EndedSolve.of(record) for record in records]
        self._open_one = open_one
        self._colour = colour
        self._chosen = 0
        self._open: Scene | None = None

    def fresh(self, clock: float) -> bool:
        """Let the open solve go on."""
        return self._open.fresh(clock) if self._open else False

    def draw(self, width: int, height: int, clock: float) -> Text:
        """The list, or the solve that is open."""
        if self._open:
            return self._open.draw(width, height, clock)
        return solves_page(self._title, self._solves, self._chosen, width, height, colour=self._colour)

    def press(self, key: str) -> None:
        """Select and open; leaving a solve leads back to the list."""
        if self._open:
            self._open.press(key)
            self.over = self._open.over and key == "q"
            self._open = None if self._open.over else self._open
            return
        last = len(self._records) - 1
        match key:
            case "down" | "j":
                self._chosen = min(last, self._chosen + 1)
            case "up" | "k":
                self._chosen = max(0, self._chosen - 1)
            case "home" | "g":
                self._chosen = 0
            case "end" | "G":
                self._chosen = last
            case "enter" | "right":
                self._open = self._open_one(self._records[self._chosen])
            case "q" | "esc":
                self.over = True
            case _:
                pass


class CompareScene:
    """Two stored solves side by side."""

    def __init__(self, left: Side, right: Side, *, colour: bool) -> None:
        """Begin at the first step."""
        self.over = False
        self._sides = left, right
        self._longer = max(left.shown, right.shown, key=lambda state: len(state.items))
        self._colour = colour
        self._browser = Browser(cursor=0)

    def fresh(self, clock: float) -> bool:
        """Nothing ever happens here."""
        del clock
        return False

    def draw(self, width: int, height: int, clock: float) -> Text:
        """Both, from the chosen step on."""
        del clock
        look = Look(width=width, height=height, colour=self._colour, keys=COMPARE_KEYS)
        look = self._browser.look(look)
        return compare_frame(*self._sides, look)

    def press(self, key: str) -> None:
        """Move about; q leaves."""
        if not self._browser.press(key, self._longer) and key in {"q", "esc"}:
            self.over = True


def drained(inbox: SimpleQueue[T]) -> Iterator[T]:
    """What is in a queue at this moment."""
    with suppress(Empty):
        while True:
            yield inbox.get_nowait()
