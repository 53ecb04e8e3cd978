"""Many problems at once: the running solves, the results so far, and the solves that have just ended.

The state is fed by `BatchState.started`, `heard` and `finished`, and `batch_frame` draws it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from specreason_sgl.events import CallMade, Event
from specreason_sgl.runs.store import Done
from specreason_sgl.tally import Tally
from specreason_sgl.view import figures
from specreason_sgl.view.lines import columns, fitting, flow, keys_help, label, legend, line, page, rule, spread
from specreason_sgl.view.listing import OUTCOME, ROOMY, EndedSolve, ended_line, scrolled
from specreason_sgl.view.state import SolveState
from specreason_sgl.view.steps import utility
from specreason_sgl.view.text import one_line, shorten
from specreason_sgl.view.theme import BATCH_LEGEND, SIGNS

KEYS = "↑/↓ select  enter opens the trace  q leaves the view, the run goes on"
ENDED_SHOWN = 5
"""How many of the last finished solves are shown."""
SMOOTHING = 0.2
"""The weight of a new estimate in the one that is shown."""
STEADY = 1.0
"""Seconds between two changes of the estimate."""
SNIPPET = 16
"""The end of the text being written is shown if there are at least so many cells for it."""


class SolveKey(NamedTuple):
    """Identifies a solve within a batch."""

    problem_id: str
    repeat: int
    mode: str
    id: str = ""
    """Tells solves of the same problem apart where nothing else does."""


@dataclass
class TimeLeft:
    """The time that is left, smoothed so that it can be read."""

    value: float | None = None
    _seen: float = 0.0

    def update(self, clock: float, elapsed: float, done: int, left: int) -> None:
        """Update the estimate from the pace so far."""
        if not done:
            return
        passed = clock - self._seen
        if self.value is not None and passed < STEADY:
            return
        new = elapsed / done * left
        old = new if self.value is None else max(0.0, self.value - passed)
        self.value = old + SMOOTHING * (new - old)
        self._seen = clock


@dataclass
class Standing:
    """What the ended solves of one mode come to."""

    done: int = 0
    right: int = 0
    graded: int = 0
    judged: int = 0
    accepted: int = 0

    def add(self, tally: Tally) -> None:
        """Count one."""
        self.done += 1
        self.right += tally.correct is True
        # Where answers are known a failed solve is a wrong one.
        self.graded += tally.correct is not None or tally.outcome == "failed"
        self.judged += tally.judged
        self.accepted += tally.accepted


@dataclass
class BatchState:
    """A batch as far as it has come."""

    total: int | None
    """How many solves there will be; None where nobody knows."""
    began: float = 0.0
    """When the batch began, by the caller's clock, in seconds."""
    flying: dict[SolveKey, SolveState] = field(default_factory=dict)
    """The running solves, the oldest first."""
    ended: deque[EndedSolve] = field(default_factory=lambda: deque(maxlen=50))
    """The last ones that ended, the newest first."""
    modes: dict[str, Standing] = field(default_factory=dict)
    tokens: int = 0
    earlier: int = 0
    """Solves that were stored before this batch began."""
    left: TimeLeft = field(default_factory=TimeLeft)
    notice: str = ""
    """The last message about the whole batch."""

    @property
    def done(self) -> int:
        """Solves that have ended, the earlier ones included."""
        return sum(standing.done for standing in self.modes.values())

    def resumed(self, earlier: Sequence[Done]) -> None:
        """Count solves that were stored before."""
        for one in earlier:
            self.modes.setdefault(one.mode, Standing()).add(one.tally)
        self.earlier = len(earlier)

    def started(self, key: SolveKey) -> None:
        """A solve begins."""
        self.flying[key] = SolveState()

    def heard(self, key: SolveKey, event: Event) -> None:
        """Something happens in a solve."""
        self.flying.setdefault(key, SolveState()).add(event)
        if isinstance(event, CallMade):
            self.tokens += event.generated_tokens

    def finished(self, key: SolveKey, ended: EndedSolve) -> None:
        """A solve has ended; count also what its events did not report while it ran."""
        heard = self.flying.pop(key, SolveState())
        self.tokens += sum(ended.state.tally.generated.values()) - sum(heard.tally.generated.values())
        self.ended.appendleft(ended)
        self.modes.setdefault(ended.mode, Standing()).add(ended.state.tally)

    def tick(self, clock: float) -> None:
        """Update everything that depends on the time."""
        if self.total is not None:
            self.left.update(clock, clock - self.began, self.done - self.earlier, self.total - self.done)

    @property
    def time_left(self) -> str | None:
        """The time that is left, in words; None if there is no estimate."""
        if self.left.value is None or self.total is None or self.done >= self.total:
            return None
        return f"{figures.about(self.left.value)} left"


@dataclass(frozen=True)
class BatchLook:
    """How to look at a batch."""

    width: int = 100
    height: int = 40
    clock: float = 0.0
    colour: bool = True
    chosen: SolveKey | None = None
    title: str = ""
    keys: str = KEYS


def batch_frame(state: BatchState, look: BatchLook) -> Text:
    """The batch on a page of exactly the height that is asked for."""
    top = _header(state, look)
    bottom = [rule(look.width), *legend(BATCH_LEGEND, look.width), *keys_help(look.keys, look.width)]
    room = max(2, look.height - len(top) - len(bottom))
    ended = [ended_line(each, look.width) for each in list(state.ended)[: max(0, min(ENDED_SHOWN, room - 4))]]
    below = [rule(look.width, "last finished"), *ended] if ended else []
    room = max(1, room - len(below))
    rows = _flying(state, look, room)
    return page(
        [*top, *rows, *[line()] * (room - len(rows)), *below, *bottom][: look.height], look.width, colour=look.colour
    )


def _header(state: BatchState, look: BatchLook) -> list[Text]:
    elapsed = look.clock - state.began
    eta = f" · {state.time_left}" if state.time_left else ""
    clock = line((f"{figures.seconds(elapsed)}{eta} ", "dim"))
    shown = [(mode, standing) for mode, standing in state.modes.items() if standing.done][-max(1, look.height // 4) :]
    return [
        spread(line((f" {one_line(look.title)}", "bold")), _progress(state, look.width), look.width),
        spread(line(f" {len(state.flying)} in flight · {_tokens(state, elapsed)}"), clock, look.width),
        *([line((f" {one_line(state.notice)}", "yellow"))] if state.notice else []),
        *(_standing(mode, standing, look.width, named=len(shown) > 1) for mode, standing in shown),
        rule(look.width),
    ]


def _progress(state: BatchState, width: int) -> Text:
    if state.total is None:
        return line(f"{state.done} ended ")
    share = state.done / state.total if state.total else 1.0
    done, left = figures.progress(share, max(10, width // 4))
    return line(
        (done, "green"), (left, "dim"), f" {state.done} of {state.total}", (f" · {figures.share(share)} ", "dim")
    )


def _tokens(state: BatchState, elapsed: float) -> str:
    """The pace of a batch; of what has no end, and stands still at times, just how many tokens there were."""
    if state.total is None:
        return f"{figures.count(state.tokens)} tok"
    return f"{state.tokens / elapsed:,.0f} tok/s" if elapsed > 0 and state.tokens else "– tok/s"


def standing_lines(state: BatchState, width: int, clock: float) -> list[Text]:
    """The results of a batch so far, one line for each mode."""
    shown = [(mode, standing) for mode, standing in state.modes.items() if standing.done]
    elapsed = clock - state.began
    items = [
        line(figures.solves(state.done) if state.total is None else f"{state.done} of {state.total} solves"),
        line(figures.seconds(elapsed)),
        line(_tokens(state, elapsed)),
    ]
    return [*(_standing(mode, standing, width, named=True) for mode, standing in shown), *flow(items, width)]


def _standing(mode: str, standing: Standing, width: int, *, named: bool) -> Text:
    items = []
    if standing.graded:
        low, high = figures.wilson(standing.right, standing.graded)
        items.append(
            line(
                label("right"),
                (f" {figures.share(standing.right / standing.graded)}", "bold"),
                f" ({100 * low:.0f}–{100 * high:.0f}%) of {standing.graded}",
            )
        )
    else:
        items.append(line(f"{standing.done} done"))
    if standing.judged:
        items.append(line("acceptance ", (figures.share(standing.accepted / standing.judged), "bold")))
    name = (18 if width >= ROOMY else 12) if named else 0
    rows = flow(items, width - name)
    return columns([(line((f" {one_line(mode)}", "dim")), name), (rows[0], width - name)], gap=0) if named else rows[0]


def _flying(state: BatchState, look: BatchLook, room: int) -> list[Text]:
    keys = list(state.flying)
    if not keys:
        return [line((" nothing in flight", "dim"))]
    named = len(state.modes) > 1 or len({key.mode for key in keys}) > 1
    chosen = keys.index(look.chosen) if look.chosen in state.flying else -1
    hidden = len(keys) > room
    room = max(1, room - 1) if hidden else room
    start = scrolled(max(0, chosen), len(keys), room)
    rows = [
        _row(key, state.flying[key], look, chosen=place == chosen, named=named)
        for place, key in enumerate(keys[start : start + room], start=start)
    ]
    return [*rows, line((f"   … {len(keys) - len(rows)} more in flight", "dim"))] if hidden else rows


def _row(key: SolveKey, solve: SolveState, look: BatchLook, *, chosen: bool, named: bool) -> Text:
    tally, roomy = solve.tally, look.width >= ROOMY
    name = key.problem_id if not key.repeat else f"{key.problem_id} #{key.repeat}"
    last, judged = solve.latest, solve.judged
    cells = [
        (line(("›" if chosen else " ", "bold")), 1),
        (line(label(solve.phase)), OUTCOME),
        (line((one_line(name), "bold" if chosen else "")), 12),
    ]
    if named and roomy:
        cells.append((line((one_line(key.mode), "dim")), 18))
    cells.append((line(f"step {last.number}" if last is not None else ""), -9))
    if judged and judged.score:
        value, figure = utility(judged.score, judged.tokens, solve.rule)
        style = SIGNS["accepted" if judged.score.accepted else "rejected"]
        words = line((f"{style.glyph} {figure:>4} ", style.style))
        if roomy:
            reached, rest = figures.gauge(value, solve.threshold)
            words.append(reached, style.style).append(rest, "dim")
        cells.append((words, 17 if roomy else 7))
    else:
        cells.append((line(), 17 if roomy else 7))
    cells.append((line(f"{figures.count(tally.thinking_tokens)} tok"), -10))
    row = columns(fitting(cells, look.width, gap=1), gap=1)
    room = look.width - row.cell_len - 3
    if last is not None and room >= SNIPPET:
        text = one_line(last.shown[-2 * room :])
        end = text if cell_len(text) <= room else "…" + text[1 - room :]
        row.append("  ").append(shorten(end, room), "dim")
    return row
