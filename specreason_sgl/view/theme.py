"""What the view tells and how: one glyph, one word and one colour for each role.

Nothing is told by colour alone, and the colours are the terminal's own sixteen, so that its theme applies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

RoleName = Literal[
    "accepted",
    "rejected",
    "base",
    "small",
    "drafting",
    "judging",
    "regenerating",
    "thinking",
    "answering",
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
class Role:
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


ROLES: dict[RoleName, Role] = {
    "accepted": Role("✓", "accepted", "green", "#2e9e5b"),
    "rejected": Role("✗", "rejected", "red", "#d0524c"),
    "base": Role("■", "base wrote", "cyan", "#1f93a8"),
    "small": Role("●", "small wrote", "green", "#2e9e5b"),
    "drafting": Role("◌", "drafting", "magenta", "#a855b5"),
    "judging": Role("?", "judging", "yellow", "#b58100"),
    "regenerating": Role("□", "regenerating", "cyan", "#1f93a8"),
    "thinking": Role("◇", "thinking", "cyan", "#1f93a8"),
    "answering": Role("◆", "answering", "blue", "#4a7fe0"),
    "waiting": Role("·", "waiting", "dim", "#808080"),
    "answered": Role("◆", "answered", "blue", "#4a7fe0"),
    "right": Role("=", "right", "bold green", "#2e9e5b"),
    "wrong": Role("≠", "wrong", "bold red", "#d0524c"),
    "unanswered": Role("∅", "unanswered", "yellow", "#b58100"),
    "failed": Role("‼", "failed", "bold red", "#d0524c"),
    "notice": Role("!", "notice", "yellow", "#b58100"),
    "flip": Role("⇄", "flips", "bold yellow", "#b58100"),
}

LEGEND: tuple[RoleName, ...] = ("accepted", "rejected", "base", "drafting", "judging", "regenerating")
"""What the footer of a solve explains."""

FINAL_LEGEND: tuple[RoleName, ...] = LEGEND[:3]
"""What the end of a solve explains, when nothing is going on any more."""

BATCH_LEGEND: tuple[RoleName, ...] = ("drafting", "judging", "regenerating", "answering", "right", "wrong")
"""What the footer of a batch explains."""

GUTTERS: dict[RoleName, str] = {
    "accepted": "│",
    "small": "│",
    "base": "┃",
    "regenerating": "┃",
    "rejected": "┊",
}
"""The line along a step's text; by weight it says who wrote it."""
