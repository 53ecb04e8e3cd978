"""The signs of the views: one glyph, one word and one colour for each author, state and result.

Nothing is shown by colour alone, and the colours are the terminal's own sixteen, so that its theme applies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from specreason_sgl.view.text import shorten

SignName = Literal[
    "accepted",
    "rejected",
    "base",
    "small",
    "other",
    "added",
    "cut",
    "dropped",
    "drafting",
    "judging",
    "regenerating",
    "thinking",
    "answering",
    "working",
    "waiting",
    "answered",
    "right",
    "wrong",
    "unanswered",
    "failed",
    "notice",
    "flip",
]


@dataclass(frozen=True)
class Sign:
    """How something is shown."""

    glyph: str
    word: str
    style: str
    """Its colour, as rich knows it."""
    hex: str
    """Its colour on paper and in a browser; legible on white and on black."""

    @property
    def label(self) -> str:
        """Glyph and word."""
        return f"{self.glyph} {self.word}"


SIGNS: dict[SignName, Sign] = {
    "accepted": Sign("✓", "accepted", "green", "#2e9e5b"),
    "rejected": Sign("✗", "rejected", "red", "#d0524c"),
    "base": Sign("■", "base wrote", "cyan", "#1f93a8"),
    "small": Sign("●", "small wrote", "green", "#2e9e5b"),
    "other": Sign("▲", "other wrote", "magenta", "#a855b5"),
    "added": Sign("+", "added", "dim", "#808080"),
    "cut": Sign("⊘", "cut", "dim", "#808080"),
    "dropped": Sign("⊖", "dropped", "dim", "#808080"),
    "drafting": Sign("◌", "drafting", "magenta", "#a855b5"),
    "judging": Sign("?", "judging", "yellow", "#b58100"),
    "regenerating": Sign("□", "regenerating", "cyan", "#1f93a8"),
    "thinking": Sign("◇", "thinking", "cyan", "#1f93a8"),
    "answering": Sign("◆", "answering", "blue", "#4a7fe0"),
    "working": Sign("▷", "working", "magenta", "#a855b5"),
    "waiting": Sign("·", "waiting", "dim", "#808080"),
    "answered": Sign("◆", "answered", "blue", "#4a7fe0"),
    "right": Sign("=", "right", "bold green", "#2e9e5b"),
    "wrong": Sign("≠", "wrong", "bold red", "#d0524c"),
    "unanswered": Sign("∅", "unanswered", "yellow", "#b58100"),
    "failed": Sign("‼", "failed", "bold red", "#d0524c"),
    "notice": Sign("!", "notice", "yellow", "#b58100"),
    "flip": Sign("⇄", "flips", "bold yellow", "#b58100"),
}

OTHERS: tuple[tuple[str, str, str], ...] = (
    ("▲", "magenta", "#a855b5"),
    ("▼", "yellow", "#b58100"),
    ("★", "blue", "#4a7fe0"),
    ("♦", "bright_magenta", "#c2589f"),
    ("▣", "bright_yellow", "#9a8421"),
    ("◉", "bright_blue", "#6d7fd6"),
)
"""Glyph and colours of the models and authors that a program names beyond base and small, the first one first."""
WORD = 12
"""The most cells of a program's own word in a column."""


def other(word: str, place: int) -> Sign:
    """The sign of an author that a program names: its word, with a glyph and a colour by its order of appearance."""
    glyph, style, on_paper = OTHERS[place % len(OTHERS)]
    return Sign(glyph, shorten(word, WORD) or "?", style, on_paper)


LEGEND: tuple[SignName, ...] = ("accepted", "rejected", "base", "drafting", "judging", "regenerating")
"""What the footer of a solve explains."""

FINAL_LEGEND: tuple[SignName, ...] = LEGEND[:3]
"""What the end of a solve explains, when nothing is going on any more."""

BATCH_LEGEND: tuple[SignName, ...] = ("drafting", "judging", "regenerating", "answering", "right", "wrong")
"""What the footer of a batch explains."""

GUTTERS: dict[SignName, str] = {
    "accepted": "│",
    "small": "│",
    "base": "┃",
    "regenerating": "┃",
    "rejected": "┊",
    "added": "·",
    "cut": "╌",
}
"""The line along a step's text; its weight shows who wrote the step."""
