"""Two solves of the same problem side by side, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest

from rich.text import Text

from specreason_sgl.view import figures
from specreason_sgl.view.chains import Section, sections
from specreason_sgl.view.items import LOW, Look, of_chain
from specreason_sgl.view.lines import Part, columns, flow, keys_help, label, legend, line, page, rule
from specreason_sgl.view.state import SolveState
from specreason_sgl.view.text import head, one_line
from specreason_sgl.view.theme import FINAL_LEGEND

SEAM = " ║ "


@dataclass(frozen=True)
class Side:
    """One of the two solves."""

    title: str
    state: SolveState

    @cached_property
    def shown(self) -> SolveState:
        """What is shown of it: of several chains, the one that gave the answer."""
        return self.state.alone

    @property
    def which(self) -> str:
        """Which of its chains that is; empty where there is but one."""
        chain, many = self.state.answering_chain, len(self.state.chains)
        if not self.state.is_branched:
            return ""
        return f"{many} chains; shown is chain {chain.number}, which gave the answer" if chain else f"all {many} chains"


def compare_frame(left: Side, right: Side, look: Look) -> Text:
    """Both solves on a page of exactly the given height."""
    top, bottom = _header(left, right, look), _footer(look)
    room = max(1, look.height - len(top) - len(bottom))
    sides = _sides(left, right, look)
    pairs = max(map(len, sides))
    body: list[Text] = []
    start = pairs - 1 if look.cursor is None else min(look.cursor, pairs - 1)
    for place in range(start, pairs):
        body += _pair(sides, look, place)
        if len(body) >= room + look.offset:
            break
    body = body[look.offset : look.offset + room]
    for place in range(start - 1, -1, -1):
        if len(body) >= room or look.offset:
            break
        body = (_pair(sides, look, place) + body)[-room:]
    return page([*top, *body, *[line()] * (room - len(body)), *bottom][: look.height], look.width, colour=look.colour)


def compare_report(left: Side, right: Side, look: Look) -> Text:
    """Both solves in full, from the question to the answers."""
    sides = _sides(left, right, look)
    body = [each for place in range(max(map(len, sides))) for each in _pair(sides, look, place)]
    return page([*_header(left, right, look), *body, *_footer(look)], look.width, colour=look.colour)


def first_different_step(left: SolveState, right: SolveState) -> tuple[int, int] | None:
    """Where two solves first differ, as (step, chain); for other text the number of steps before it.

    None if there is no difference. Steps that were taken back do not count, nor do chains beside the one that gave the
    answer.
    """
    standing = [[item for item in state.alone.items if item.cut is None] for state in (left, right)]
    for some in zip_longest(*standing):
        texts = [item and (item.chain, item.shown.split()) for item in some]
        if texts[0] != texts[1]:
            return min((item.chain, item.number) for item in some if item)[::-1]
    return None


def _sides(left: Side, right: Side, look: Look) -> list[list[Section]]:
    inner = replace(look, width=_half(look), redecision=None)
    return [sections(side.shown, inner) for side in (left, right)]


def _half(look: Look) -> int:
    return max(1, (look.width - len(SEAM)) // 2)


def _beside(left: Sequence[Text], right: Sequence[Text], look: Look) -> list[Text]:
    half = _half(look)
    rows = []
    for place in range(max(len(left), len(right))):
        one, other = (side[place] if place < len(side) else line() for side in (left, right))
        rows.append(columns([(one, half), (line((SEAM, "dim")), len(SEAM)), (other, half)], gap=0))
    return rows


def _header(left: Side, right: Side, look: Look) -> list[Text]:
    started = left.state.started or right.state.started
    lines: list[Text] = []
    if started and look.height >= LOW:
        rows, more = head(started.question.strip(), max(1, look.width - 4), 2)
        lines = [*(line(" ", row) for row in rows[:-1]), line(" ", rows[-1], " …" if more else ""), rule(look.width)]
    lines += _beside(_summary(left, look), _summary(right, look), look)
    differs = first_different_step(left.state, right.state)
    words = (
        "the same text throughout" if differs is None else f"first different step: {differs[0]}{of_chain(differs[1])}"
    )
    return [*lines, rule(look.width, words)]


def _summary(side: Side, look: Look) -> list[Text]:
    tally = side.state.tally
    items: list[list[Part]] = [
        [label(side.state.phase), f" {one_line(tally.answer or '–')}"],
        [figures.steps(sum(tally.steps.values()))],
        [f"{figures.count(tally.thinking_tokens)} tok"],
        [figures.seconds(tally.elapsed)],
    ]
    if tally.judged:
        items.append([f"acceptance {figures.share(tally.acceptance)}"])
    which = [line((f" {side.which}", "dim"))] if side.which else []
    return [line((f" {one_line(side.title)}", "bold")), *flow([line(*item) for item in items], _half(look)), *which]


def _footer(look: Look) -> list[Text]:
    lines = [rule(look.width), *legend(FINAL_LEGEND, look.width)]
    return lines + (keys_help(look.keys, look.width) if look.keys else [])


def _pair(sides: Sequence[Sequence[Section]], look: Look, place: int) -> list[Text]:
    one, other = (side[place]() if place < len(side) else [] for side in sides)
    return _beside(one, other, look)
