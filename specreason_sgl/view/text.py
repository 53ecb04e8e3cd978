"""Model text as it is: whatever a model wrote, on a terminal that obeys none of it.

Text goes through `visible` once and is data from then on, never markup. Widths are counted in terminal cells.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from rich.cells import cell_len

TAB = "    "
_PICTURES = 0x2400
_DELETE = 0x7F
_HARMLESS = re.compile(r"[\x20-\x7e\n]*")
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SELECTORS = range(0xFE00, 0xFE10)


def visible(text: str) -> str:
    """The text with everything shown that a terminal would obey or hide; line feeds stay.

    Control bytes become control pictures; bidi controls, zero-width characters, lone surrogates and the like are
    spelt out. Variation selectors are dropped, because terminals disagree on the width of what they select.
    """
    text = text.replace("\r\n", "\n")
    if _HARMLESS.fullmatch(text):
        return text
    return "".join(map(_shown, text))


@lru_cache(maxsize=4096)
def _shown(char: str) -> str:
    code = ord(char)
    if char == "\n":
        return char
    if char == "\t":
        return TAB
    if code < ord(" "):
        return chr(_PICTURES + code)
    if code == _DELETE:
        return "␡"
    if code in _SELECTORS:
        return ""
    return f"⟨U+{code:04X}⟩" if unicodedata.category(char) in _HIDDEN else char


def one_line(text: str) -> str:
    """The text on a single line."""
    return " ".join(visible(text).split())


@lru_cache(maxsize=4096)
def shorten(text: str, width: int) -> str:
    """The text on a single line of at most so many cells, with an ellipsis where it is cut."""
    enough = text[: 8 * max(1, width)]
    flat = one_line(enough)
    if cell_len(flat) <= width and len(enough) == len(text):
        return flat
    return flat[: _cut(flat, 0, width - 1)].rstrip() + "…" if width > 0 else ""


@lru_cache(maxsize=4096)
def wrap(text: str, width: int) -> tuple[str, ...]:
    """The text as lines of at most so many cells, broken at spaces where there are any."""
    return tuple(line for row in visible(text).split("\n") for line in _wrap_row(row.rstrip(), max(1, width)))


@lru_cache(maxsize=4096)
def head(text: str, width: int, most: int) -> tuple[tuple[str, ...], int]:
    """The first lines of a text that is cut to so many, and how many characters are left out."""
    enough = text[: 4 * most * max(1, width)]
    lines = wrap(enough, width)
    if len(lines) <= most and len(enough) == len(text):
        return lines, 0
    shown = lines[:most]
    return shown, max(1, len(text) - sum(map(len, shown)))


def _wrap_row(row: str, width: int) -> list[str]:
    lines = []
    start = 0
    while (end := _cut(row, start, width)) < len(row):
        if end == start:  # a wide character in a column of one cell
            lines.append("?")
            start += 1
            continue
        space = end if row[end] == " " else row.rfind(" ", start, end)
        if space > start and row[start:space].strip():
            end = space
        lines.append(row[start:end].rstrip())
        start = end
        while start < len(row) and row[start] == " ":
            start += 1
    return [*lines, row[start:]]


def _cut(row: str, start: int, width: int) -> int:
    """Where so many cells from a place end; marks stay with what they mark."""
    if row[start : start + width + 1].isascii():
        return min(start + width, len(row))
    cells = 0
    for place in range(start, len(row)):
        cells += cell_len(row[place])
        if cells > width:
            return place
    return len(row)


def fit(text: str, width: int) -> str:
    """Visible text padded or cut to exactly so many cells."""
    text = shorten(text, width)
    return text + " " * (width - cell_len(text))
