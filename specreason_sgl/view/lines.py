"""Lines of styled text, each no wider than it may be: what all views are put together from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate

from rich.cells import cell_len
from rich.text import Text

from specreason_sgl.view.theme import SIGNS, Sign, SignName

Part = str | tuple[str, str]
"""A piece of a line, with its style or without."""


def line(*parts: Part) -> Text:
    """One line; what is in it is text and never markup."""
    return Text.assemble(*parts, no_wrap=True, overflow="crop", end="")


def label(name: SignName | Sign, width: int = 0) -> tuple[str, str]:
    """Glyph and word of a sign, padded to a width, and the sign's style."""
    sign = name if isinstance(name, Sign) else SIGNS[name]
    return sign.label + " " * (width - cell_len(sign.label)), sign.style


def spread(left: Text, right: Text, width: int) -> Text:
    """One text at the left edge and another at the right; the left one is cut if there is too little room."""
    room = width - right.cell_len
    left = left.copy()
    left.truncate(max(0, room - 1), overflow="ellipsis")
    return line_of([left, Text(" " * max(0, room - left.cell_len)), right])


def line_of(parts: Iterable[Text]) -> Text:
    """One line out of several pieces."""
    whole = line()
    for part in parts:
        whole.append_text(part)
    return whole


def columns(cells: Sequence[tuple[Text, int]], gap: int = 2) -> Text:
    """Cells side by side, each cut or padded to its width; to the right edge where the width is negative."""
    row = line()
    for place, (cell, width) in enumerate(cells):
        content = cell.copy()
        content.truncate(abs(width), overflow="ellipsis")
        blank = " " * (abs(width) - content.cell_len)
        row.append(" " * gap if place else "").append(blank if width < 0 else "")
        row.append_text(content).append(blank if width >= 0 else "")
    return row


def fitting(cells: Sequence[tuple[Text, int]], width: int, gap: int) -> Sequence[tuple[Text, int]]:
    """As many of the cells, from the first on, as there is room for side by side."""
    ends = accumulate(abs(cell_width) + gap for _, cell_width in cells)
    return cells[: max(1, sum(end - gap <= width for end in ends))]


def flow(items: Sequence[Text], width: int, gap: str = " · ") -> list[Text]:
    """Items one after the other, on as many lines as they need."""
    rows: list[Text] = []
    for item in items:
        if rows and rows[-1].cell_len + cell_len(gap) + item.cell_len <= width:
            rows[-1].append(gap, "dim").append_text(item)
        else:
            rows.append(line(" ").append_text(item))
    return rows


def rule(width: int, words: str = "") -> Text:
    """A thin line across, with words near its beginning."""
    lead = f"── {words} " if words else ""
    return line((lead + "─" * (width - cell_len(lead)), "dim"))


def legend(names: Sequence[SignName], width: int) -> list[Text]:
    """What the glyphs mean."""
    return flow([line(label(name)) for name in names], width, gap="  ")


def keys_help(words: str, width: int) -> list[Text]:
    """What keys do; the items are two spaces apart and never broken."""
    return flow([line((item, "dim")) for item in words.split("  ")], width, gap="  ")


def page(lines: Iterable[Text], width: int, *, colour: bool) -> Text:
    """Lines as one text, none wider than the page."""
    cut = []
    for each in lines:
        if each.cell_len > width:
            each = each.copy()  # noqa: PLW2901 - blocks are shared between frames
            each.truncate(width, overflow="ellipsis")
        cut.append(each)
    whole = Text("\n", no_wrap=True, overflow="crop", end="").join(cut)
    return whole if colour else Text(whole.plain, no_wrap=True, overflow="crop", end="")
