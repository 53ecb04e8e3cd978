"""Lists: the solves of a run and the runs that are stored, one line each, and scrolling through them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from specreason_sgl.runs.index import Count, RunSummary, Word
from specreason_sgl.runs.store import SolveRecord
from specreason_sgl.view import figures
from specreason_sgl.view.lines import columns, fitting, keys_help, label, legend, line, page, rule, spread
from specreason_sgl.view.state import SolveState
from specreason_sgl.view.text import one_line
from specreason_sgl.view.theme import SIGNS, SignName

OUTCOMES: tuple[SignName, ...] = ("right", "wrong", "answered", "unanswered", "failed")
OUTCOME = 14
"""The widest outcome or phase, glyph and word."""
NAME = 38
"""The widest name of a run that is shown whole."""
STEPS, ROOMY, SPACIOUS = 70, 90, 130
"""The widths from which on a line also shows counts, then the mode or the time, then the program and the pair."""
STATUSES: dict[Word, tuple[str, str]] = {
    "running": ("▶", "cyan"),
    "unfinished": ("◐", "yellow"),
    "success": ("✓", "green"),
    "error": ("‼", "red"),
    "cancelled": ("■", "yellow"),
    "unknown": ("?", "yellow"),
}
KEYS = "↑/↓ select  enter opens  q quit"


@dataclass(frozen=True)
class EndedSolve:
    """One solve that has ended, in short."""

    problem_id: str
    mode: str
    repeat: int
    state: SolveState

    @classmethod
    def of(cls, record: SolveRecord) -> EndedSolve:
        """The short form of a record."""
        return cls(record.problem.id, record.mode, record.repeat, SolveState.of(record.events))


def ended_line(ended: EndedSolve, width: int, *, chosen: bool = False) -> Text:
    """One solve on one line."""
    tally = ended.state.tally
    name = ended.problem_id if not ended.repeat else f"{ended.problem_id} #{ended.repeat}"
    cells = [
        (line(("›" if chosen else " ", "bold")), 1),
        (line(label(ended.state.phase)), OUTCOME),
        (line((one_line(name), "bold" if chosen else "")), 12),
    ]
    if width >= ROOMY:
        cells.append((line((one_line(ended.mode), "dim")), 18))
    cells += [
        (line(one_line(tally.answer or "–")), 8),
        *([(line(figures.steps(sum(tally.steps.values()))), -9)] if width >= STEPS else []),
        (line(f"{SIGNS['accepted'].glyph} {figures.share(tally.acceptance)}" if tally.judged else ""), -7),
    ]
    if width >= ROOMY:
        cells.append((line(f"{figures.count(tally.thinking_tokens)} tok"), -10))
    cells.append((line((figures.seconds(tally.elapsed), "dim")), -11))
    return columns(fitting(cells, width, gap=1), gap=1)


def solves_page(
    title: str, solves: Sequence[EndedSolve], chosen: int, width: int, height: int, *, colour: bool
) -> Text:
    """A run's solves on a page, scrolled to the chosen one."""
    right, graded = (sum(ended.state.tally.correct is value for ended in solves) for value in (True, False))
    found = f"{right} of {right + graded} right · " if right + graded else ""
    top = [
        spread(line((f" {one_line(title)}", "bold")), line((f"{found}{figures.solves(len(solves))} ", "dim")), width),
        rule(width),
    ]
    bottom = [rule(width), *legend(OUTCOMES, width), *keys_help(KEYS, width)]
    room = max(1, height - len(top) - len(bottom))
    start = scrolled(chosen, len(solves), room)
    body = [
        ended_line(ended, width, chosen=place == chosen)
        for place, ended in enumerate(solves[start : start + room], start=start)
    ]
    return page([*top, *body, *[line()] * (room - len(body)), *bottom][:height], width, colour=colour)


def scrolled(chosen: int, total: int, room: int) -> int:
    """Where a list begins so that the chosen line is in the middle, or as near to it as the ends allow."""
    return max(0, min(chosen - room // 2, total - room))


def runs_page(summaries: Sequence[RunSummary], width: int, *, colour: bool) -> Text:
    """The stored runs, one line each with its remarks below, the latest last."""
    lines = []
    for summary in summaries:
        lines.append(_run_line(summary, width))
        lines += [line(("     ! ", "yellow"), (one_line(remark), "dim")) for remark in summary.remarks]
    return page(lines, width, colour=colour)


def _run_line(summary: RunSummary, width: int) -> Text:
    glyph, style = STATUSES[summary.status]
    config, spacious = summary.config, width >= SPACIOUS
    rates = 28 if spacious else 12
    cells = [(line(accuracies(summary.modes, rates)), rates)]
    if width >= STEPS:
        cells.insert(0, (line(figures.solves(summary.solves)), -13))
    if spacious:
        cells.insert(0, (line((one_line(f"{config.program} · {config.pair}") if config else "–", "dim")), 26))
    if width >= ROOMY:  # a name says when
        cells.append((line((f"{summary.when.astimezone():%Y-%m-%d %H:%M}", "dim")), 16))
    room = width - OUTCOME - 1 - sum(abs(cell_width) + 1 for _, cell_width in cells)
    lead = [
        (line((f"{glyph} {summary.status}", style)), OUTCOME),
        (line((one_line(summary.name), "bold")), max(12, min(NAME, room))),
    ]
    return columns(fitting([*lead, *cells], width, gap=1), gap=1)


def accuracies(modes: dict[str, Count], width: int) -> str:
    """The accuracy, or that of as many modes as there is room for; a dash where no right answer is known."""
    known = {mode: count for mode, count in modes.items() if count.accuracy is not None}
    if not known:
        return "–"
    if len(known) == 1:
        count = next(iter(known.values()))
        return f"{figures.share(count.accuracy)} right"
    words = [f"{one_line(mode)} {figures.share(count.accuracy)}" for mode, count in known.items()]
    shown = (" ".join([*words[:many], *(["…"] if many < len(words) else [])]) for many in range(len(words), 0, -1))
    return next((each for each in shown if cell_len(each) <= width), f"{len(words)} modes")
