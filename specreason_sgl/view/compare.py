"""Two solves of the same problem side by side, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.text import Text

from specreason_sgl.view import figures
from specreason_sgl.view.lines import Part, columns, flow, keys_help, label, legend, line, page, rule
from specreason_sgl.view.solve_view import LOW, Look, answer_lines, step_lines
from specreason_sgl.view.state import SolveState
from specreason_sgl.view.text import head, one_line
from specreason_sgl.view.theme import FINAL_LEGEND

SEAM = " ║ "


@dataclass(frozen=True)
class Side:
    """One of the two."""

    title: str
    state: SolveState


def compare_frame(left: Side, right: Side, look: Look) -> Text:
    """Both on a page of exactly the height that is asked for."""
    top, bottom = _header(left, right, look), _footer(look)
    room = max(1, look.height - len(top) - len(bottom))
    pairs = _pairs(left, right)
    body: list[Text] = []
    start = pairs - 1 if look.cursor is None else min(look.cursor, pairs - 1)
    for place in range(start, pairs):
        body += _pair(left, right, look, place)
        if len(body) >= room + look.offset:
            break
    body = body[look.offset : look.offset + room]
    for place in range(start - 1, -1, -1):
        if len(body) >= room or look.offset:
            break
        body = (_pair(left, right, look, place) + body)[-room:]
    return page([*top, *body, *[line()] * (room - len(body)), *bottom][: look.height], look.width, colour=look.colour)


def compare_report(left: Side, right: Side, look: Look) -> Text:
    """Both from the question to the answers."""
    body = [each for place in range(_pairs(left, right)) for each in _pair(left, right, look, place)]
    return page([*_header(left, right, look), *body, *_footer(look)], look.width, colour=look.colour)


def first_difference(left: SolveState, right: SolveState) -> int | None:
    """The first step whose text is not the same on both sides; None where there is none."""
    texts = [[step.shown.split() for step in state.steps.values()] for state in (left, right)]
    for place in range(max(map(len, texts))):
        one, other = (side[place] if place < len(side) else None for side in texts)
        if one != other:
            return place
    return None


def _pairs(left: Side, right: Side) -> int:
    return max(len(left.state.steps), len(right.state.steps)) + 1


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
    differs = first_difference(left.state, right.state)
    words = "the same text throughout" if differs is None else f"first different step: {differs}"
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
    return [line((f" {one_line(side.title)}", "bold")), *flow([line(*item) for item in items], _half(look))]


def _footer(look: Look) -> list[Text]:
    lines = [rule(look.width), *legend(FINAL_LEGEND, look.width)]
    return lines + (keys_help(look.keys, look.width) if look.keys else [])


def _pair(left: Side, right: Side, look: Look, place: int) -> list[Text]:
    inner = replace(look, width=_half(look), redecision=None)
    halves = []
    for side in (left, right):
        steps = list(side.state.steps.values())
        if place < len(steps):
            halves.append(step_lines(steps[place], side.state, inner, place))
        elif place == len(steps):
            halves.append(answer_lines(side.state, inner))
        else:
            halves.append([])
    return _beside(halves[0], halves[1], look)
